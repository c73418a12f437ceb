//! What a home shares with the homes of the same channel on other nodes (docs/decisions/0008). PURE.
//!
//! A node holds the subject of each channel that it has subscribers of, and of each user who is signed in or watched on
//! it: what others say of it reaches this node, and nothing else does. Each node keeps its own part of a channel, and a
//! copy of each other holder's part (`Peer`), told whole on `Sync` and by changes from there on. Who has subscribed
//! first waits until Redis confirms the subject and all holders have answered, so that nobody misses what is published
//! after the acknowledgement, and rosters are whole; later ones do not wait.
//!
//! Bounds: such waiting ends after `ANSWER_BEATS`, and at once when the line to Redis is lost: a node serves its own
//! without it. What a node had that is not heard of any more is forgotten after `LEASE_BEATS`. Beats are seconds in
//! which the line is up, one for each turn of the clock at most: a process that was stopped, or a Redis that was away,
//! ends nobody's lease.

mod bounds;
mod edges;
mod line;
mod peers;
mod subject;
mod topics;

use std::collections::VecDeque;
use std::sync::Arc;

use bounds::Remote;
pub(super) use edges::Edge;
use edges::Edges;
use hashbrown::HashMap;
use subject::{Details, Fetch, Peer, Subject, Told};

use crate::app::AppIndex;
use crate::buffer::FrameBytes;
use crate::pusher::channel_name::Access;
use crate::pusher::inbound::UserId;
use crate::pusher::socket_id::SocketId;
use crate::shard::Shard;
use crate::shard::channel_key::ChannelKey;
use crate::shard::envelope::{Body, LinkId, MemberPart, NodeId, Part};
use crate::shard::mail::Mail;
use crate::shard::query::Question;

/// Beats without a sign of life after which a node is thought dead.
pub const LEASE_BEATS: u32 = 10;
/// Beats that the first subscriber of a channel waits for the other nodes, at most.
pub const ANSWER_BEATS: u32 = 2;
/// Topics subscribed to, announced and unsubscribed from before the output is looked at again.
const TOPICS_PER_TURN: usize = 500;
/// Nodes of a cluster. Messages of one more are ignored.
const NODES_MAX: usize = 1_024;
/// Sessions of other nodes that came up within a lease, and sessions of those that live.
const SWEEPS_MAX: usize = 16_384;
/// Nodes that were thought dead and are remembered, should they be heard again.
const DEAD_MAX: usize = 256;

type Table<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// What the line to Redis is to carry out, in order. Nothing but `Publish` and `Terminate` is asked for while it is
/// down.
#[derive(Debug)]
pub enum ToCluster {
    /// Subscribe to the channel's subject; to be answered by `Shard::on_held`.
    Hold {
        channel: ChannelKey,
        ticket: u32,
    },
    LetGo {
        channel: ChannelKey,
    },
    /// An event. `cache_ttl_seconds`: it is to be stored, too.
    Publish {
        channel: ChannelKey,
        frame: FrameBytes,
        except: Option<SocketId>,
        cache_ttl_seconds: Option<u32>,
    },
    /// To whoever holds the subject.
    /// `is_edge`: to be answered by `Shard::on_edge_said`.
    Tell {
        channel: ChannelKey,
        body: Body,
        is_edge: bool,
    },
    /// `Tell` with `Body::Sync`; how many heard it is to be answered by `Shard::on_synced`.
    Sync {
        channel: ChannelKey,
        ticket: u32,
        part: Part,
    },
    /// The stored event; to be answered by `Shard::on_fetched`.
    Fetch {
        channel: ChannelKey,
        ticket: u32,
    },
    /// Store the event, if none is.
    Restore {
        channel: ChannelKey,
        frame: FrameBytes,
        seconds: u32,
    },
    /// To one link.
    Reply {
        to: LinkId,
        body: Body,
    },
    /// To all links.
    TellAll {
        body: Body,
    },
    Terminate {
        app: AppIndex,
        user_id: Box<str>,
    },
    /// A question to all nodes; how many heard it is to be answered by `Shard::on_asked`.
    Ask {
        id: u32,
        question: Arc<Question>,
    },
}

/// An event as Redis has it stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub frame: FrameBytes,
    /// For how long it is to be remembered.
    pub seconds: u32,
    /// Who published it, by which number.
    pub from: LinkId,
    pub number: u64,
}

/// One core's view of the cluster. Empty without one.
#[derive(Debug, Default)]
pub(super) struct ClusterTable {
    /// `None`: this node is alone, and says and waits for nothing.
    own: Option<NodeId>,
    is_up: bool,
    beat: u32,
    /// How often the line came up: a part that was told before is in doubt.
    line: u32,
    /// When what is in doubt is dropped: all that was told before our own line came up, or a peer's.
    sweeps: VecDeque<(u32, Option<LinkId>)>,
    /// How often each peer's line came up again.
    renewals: Table<LinkId, u32>,
    subjects: Table<ChannelKey, Subject>,
    /// Subjects that wait, by the beat in which they began to.
    waiting: VecDeque<(u32, ChannelKey, u32)>,
    /// When each node was heard last.
    nodes: Table<NodeId, u32>,
    /// Events of this node that are not confirmed to be stored: what others say meanwhile is older than they are.
    unstored: Table<ChannelKey, u32>,
    dead: VecDeque<NodeId>,
    edges: Edges,
    /// Topics whose SUBSCRIBE is not sent yet: with the ticket in `Details::unsent`, or cancelled since.
    unsent: VecDeque<(ChannelKey, u32)>,
    /// Of these, those that are not cancelled.
    unsent_count: usize,
    /// Topics that nobody here needed at that beat, oldest first. Each is here once, see `Details::idle_since`.
    idle: VecDeque<(u32, ChannelKey)>,
    /// Subjects that are still to be told of since the line came up.
    unannounced: VecDeque<ChannelKey>,
    /// Those whose stored event is still to be asked for.
    unfetched: VecDeque<ChannelKey>,
    next_ticket: u32,
    remote: Remote,
    /// How often something of other nodes was over a bound.
    refused: u64,
}

impl ClusterTable {
    pub(super) fn new(own: Option<NodeId>) -> Self {
        Self { own, ..Self::default() }
    }

    pub(super) fn is_on(&self) -> bool {
        self.own.is_some()
    }

    fn told_now(&self, by: LinkId) -> Told {
        let renewals = self.renewals.get(&by).copied().unwrap_or_default();
        Told { line: self.line, by, renewals }
    }

    /// What is known of a subject, to be changed; `None` where there is nothing.
    fn details(&mut self, channel: &ChannelKey) -> Option<&mut Details> {
        self.subjects.get_mut(channel)?.known()
    }

    fn find(&self, channel: &ChannelKey, node: NodeId) -> Option<&Peer> {
        self.subjects.get(channel)?.find(node)
    }

    /// Two for each one that is added: there are never many more than wait.
    fn forget_who_waits_no_more(&mut self) {
        for _ in 0..2 {
            let Some((_, channel, ticket)) = self.waiting.front() else { return };
            let waiting = self.subjects.get(channel).and_then(|subject| subject.waiting.as_ref());
            if waiting.is_some_and(|waiting| waiting.ticket == *ticket) {
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// Whether the user is signed in on another node.
    pub(super) fn is_online_elsewhere(&self, user: &ChannelKey) -> bool {
        let subject = self.subjects.get(user);
        subject.is_some_and(|subject| subject.peers.iter().any(|peer| peer.online))
    }

    /// A node has a user in a channel, or no more; whether that is news. It is none for a subject that is not held.
    pub(super) fn note_member(
        &mut self,
        channel: &ChannelKey,
        from: LinkId,
        user_id: &str,
        is_in: bool,
    ) -> bool {
        let told = self.told_now(from);
        let Some(subject) = self.subjects.get_mut(channel) else { return false };
        // Where there is no room for its part there is none for its members.
        if subject.find(from.node).is_none() && self.remote.is_full() {
            return false;
        }
        let members = &mut subject.peer(told).members;
        if is_in { members.insert(user_id.into()) } else { members.remove(user_id) }
    }

    /// Whether an event of another node that comes now is the newest that is stored. What this node has published and
    /// Redis has not confirmed is newer, in Redis's order.
    pub(super) fn is_newest_elsewhere(&self, channel: &ChannelKey) -> bool {
        self.subjects.contains_key(channel) && !self.unstored.contains_key(channel)
    }

    /// Subscribers on other nodes, as far as that is told.
    pub(super) fn count_elsewhere(&self, channel: &ChannelKey) -> u64 {
        let peers = self.subjects.get(channel).into_iter().flat_map(|subject| &subject.peers);
        peers.map(|peer| u64::from(peer.count)).sum()
    }

    /// Subjects held and edges under way, and nodes known: both are 0 without a cluster.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.subjects.len() + self.edges.len(), self.nodes.len())
    }
}

impl Shard {
    /// Whether there are other nodes to ask.
    #[must_use]
    pub fn is_cluster_up(&self) -> bool {
        self.cluster.is_up
    }

    /// Whether subjects are still to be told of, or asked for: call `announce_some` while the line has room.
    #[must_use]
    pub fn has_unannounced(&self) -> bool {
        !self.cluster.unannounced.is_empty() || !self.cluster.unfetched.is_empty()
    }

    /// Subjects held and nodes heard of.
    #[must_use]
    pub fn cluster_entries(&self) -> (usize, usize) {
        self.cluster.len()
    }

    /// Mail to a home that must wait for other nodes stays here; otherwise it comes back.
    pub(super) fn wait_for_nodes(&mut self, mail: Mail) -> Option<Mail> {
        if !self.cluster.is_on() {
            return Some(mail);
        }
        let channel = match &mail {
            Mail::Subscribe { channel, .. } | Mail::Watch { user: channel, .. } => {
                let channel = channel.clone();
                self.hold(&channel);
                channel
            }
            // It must not overtake what it ends.
            Mail::Unwatch { user, .. } => user.clone(),
            _ => return Some(mail),
        };
        match self.cluster.details(&channel).and_then(|details| details.waiting.as_mut()) {
            Some(waiting) => {
                waiting.mails.push(mail);
                None
            }
            None => Some(mail),
        }
    }

    /// This node has to do with the channel from here on. Idempotent.
    pub(super) fn hold(&mut self, channel: &ChannelKey) {
        if !self.cluster.is_on() {
            return;
        }
        self.let_go_if_idle_and_in_doubt(channel);
        if self.cluster.subjects.contains_key(channel) {
            return;
        }
        let mut subject = Subject::default();
        if let Some(greeted) = self.homes.fetched_by(channel) {
            subject.details().note_greeted(greeted);
        }
        self.cluster.subjects.insert(channel.clone(), subject);
        if !self.cluster.is_up {
            return;
        }
        let ticket = self.next_cluster_ticket();
        let missing = 1 + i64::from(self.shares_parts(channel)) + i64::from(channel.kind.cached);
        self.cluster.forget_who_waits_no_more();
        self.cluster.waiting.push_back((self.cluster.beat, channel.clone(), ticket));
        if let Some(subject) = self.cluster.subjects.get_mut(channel) {
            subject.wait(ticket, missing);
        }
        self.queue_topic(channel, ticket);
    }

    /// Tells Redis and the nodes of a subject.
    fn announce(&mut self, channel: &ChannelKey, ticket: u32) {
        self.outbox.cluster.push(ToCluster::Hold { channel: channel.clone(), ticket });
        if self.shares_parts(channel) {
            let part = self.part(channel);
            self.outbox.cluster.push(ToCluster::Sync { channel: channel.clone(), ticket, part });
        }
    }

    fn next_cluster_ticket(&mut self) -> u32 {
        let ticket = self.cluster.next_ticket;
        self.cluster.next_ticket = ticket.wrapping_add(1);
        ticket
    }

    fn fetch(&mut self, channel: &ChannelKey, ticket: u32, why: Fetch) {
        self.outbox.cluster.push(ToCluster::Fetch { channel: channel.clone(), ticket });
        if let Some(subject) = self.cluster.subjects.get_mut(channel) {
            subject.details().fetching = Some((ticket, why));
        }
    }

    /// Whether nobody here has to do with a subject any more.
    fn is_unused(&self, channel: &ChannelKey) -> bool {
        let Some(subject) = self.cluster.subjects.get(channel) else { return false };
        let waits = subject.waiting.as_ref().is_some_and(|waiting| !waiting.mails.is_empty());
        let stays = subject.unconfirmed > 0 || self.cluster.edges.lingers(channel);
        !waits && !stays && self.interested(channel).is_empty() && !self.users.has_home(channel)
    }

    /// Ends it, or begins to wait for that, if nobody here has to do with the channel any more.
    pub(super) fn let_go_if_unused(&mut self, channel: &ChannelKey) {
        if !self.is_unused(channel) {
            return;
        }
        let was_told = channel.kind.access == Access::User
            || self.cluster.details(channel).is_some_and(|details| details.waiting.is_none());
        if self.cancel_unsent(channel) {
            // Redis has not heard of it, and other nodes only if something was published without waiting for Redis.
            self.forget_subject(channel);
            if was_told && self.shares_parts(channel) {
                self.tell_nodes(channel, || Body::Quit);
            }
            return;
        }
        if !self.cluster.is_up || self.settings.topic_linger_beats == 0 {
            return self.let_go(channel);
        }
        self.note_idle(channel);
    }

    fn let_go(&mut self, channel: &ChannelKey) {
        self.forget_subject(channel);
        if self.shares_parts(channel) {
            self.tell_nodes(channel, || Body::Quit);
        }
        if self.cluster.is_up {
            self.outbox.cluster.push(ToCluster::LetGo { channel: channel.clone() });
        }
    }

    fn forget_subject(&mut self, channel: &ChannelKey) {
        self.cluster.subjects.remove(channel);
        self.forget_remote_members(channel);
        if let Some(index) = self.homes.find_index(channel) {
            self.homes.counts.set_elsewhere(index, 0);
        }
    }

    /// Whether nodes must know of each other's parts: of plain channels they only need the events.
    fn shares_parts(&self, channel: &ChannelKey) -> bool {
        matches!(channel.kind.access, Access::Presence | Access::User)
            || self.settings.apps.get(channel.app()).counts_subscriptions()
            || self.tells_edges(channel, &None)
    }

    /// What this node has of a channel.
    fn part(&self, channel: &ChannelKey) -> Part {
        let mut part = Part { online: self.users.is_home_online(channel), ..Part::default() };
        if let Some(index) = self.homes.find_index(channel) {
            let roster = self.homes.get(index).roster.iter().flat_map(|roster| roster.iter());
            let here = roster.filter(|(_, member)| member.connections > 0);
            part.members = here
                .map(|(text, member)| MemberPart {
                    user: UserId { json: member.id_json.clone(), text: text.clone() },
                    info: member.info.clone(),
                })
                .collect();
            part.count = u32::try_from(self.homes.counts.here(index)).unwrap_or(u32::MAX);
            part.occupied = !self.interested(channel).is_empty();
        }
        part.lingering = self.cluster.edges.lingering(channel);
        part
    }

    /// While the line is down nothing is told: all is, once it is up.
    fn tell_nodes(&mut self, channel: &ChannelKey, body: impl FnOnce() -> Body) {
        if self.cluster.is_up {
            let (channel, body) = (channel.clone(), body());
            self.outbox.cluster.push(ToCluster::Tell { channel, body, is_edge: false });
        }
    }

    pub(super) fn tell_nodes_online(&mut self, user: &ChannelKey, online: bool) {
        self.tell_nodes(user, || Body::Online(online));
    }

    pub(super) fn tell_nodes_count(&mut self, channel: &ChannelKey, count: u64) {
        self.tell_nodes(channel, || Body::Count(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    /// An event goes to the other nodes whether or not anybody here is subscribed, and waits where the line is down.
    pub(super) fn publish_to_nodes(
        &mut self,
        channel: &ChannelKey,
        frame: &FrameBytes,
        except: Option<SocketId>,
        cache_ttl_seconds: Option<u32>,
    ) {
        if cache_ttl_seconds.is_some() && self.cluster.is_on() {
            *self.cluster.unstored.entry(channel.clone()).or_default() += 1;
            if let Some(details) = self.cluster.details(channel) {
                details.fetching = None;
            }
        }
        if self.cluster.is_on() {
            let (channel, frame) = (channel.clone(), frame.clone());
            self.outbox.cluster.push(ToCluster::Publish {
                channel,
                frame,
                except,
                cache_ttl_seconds,
            });
        }
    }
}
