//! What a home shares with the homes of the same channel on other nodes (docs/decisions/0008). PURE. docs/CLUSTER.md
//! has all messages and the order in which they are sent.
//!
//! Owns: the topics that this node needs (`topic_state.rs`), what other nodes have (`remote.rs`), when topics are
//! subscribed to (`topics.rs`), and the webhooks of transitions (`transitions.rs`). There is none without a cluster.
//! Does not touch connections, sockets, or the format of messages. It changes the home through `Here`. Inputs:
//! `Change`s of the home, `FromCluster` of the session, time. Outputs: `ToCluster`, and what the home sends.
//!
//! Limits: a wait for other nodes ends after `ANSWER_SECONDS`, or with the session; `NODES_MAX`, `SWEEPS_MAX`,
//! `DEAD_MAX`, and those of the files above. Cost: one look-up by key for each change of a channel; an event of another
//! node is one more, and one reference count of its bytes.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod configuration;
mod effect;
mod here;
mod invariants;
mod remote;
mod remote_memory;
mod session_events;
#[cfg(test)]
mod tests;
mod topic_state;
mod topics;
mod transitions;

use std::collections::VecDeque;

use hashbrown::HashSet;

use configuration::shares_snapshots;
pub use effect::{ClusterOutbox, FromCluster, Stored, ToCluster};
use remote_memory::RemoteMemory;
use topic_state::{FetchReason, PeerSnapshot, ReceivedAt, TopicDetails, TopicState};
pub use transitions::TransitionCounts;
use transitions::{Transition, Transitions};

use super::channel_key::ChannelKey;
use super::home::change::Change;
use super::mail::Mail;
use super::node_message::{ChannelMessage, NodeId, NodeSnapshot, SessionId};
use super::outbox::Outbox;
use crate::app::AppIndex;
use crate::buffer::FrameBytes;
use crate::pusher::channel_name::Access;
use crate::pusher::socket_id::SocketId;
use here::FastMap;
pub(super) use here::Here;

/// Lease seconds without a message after which a node is dead.
///
/// A lease second is a second of the core's clock during which the session is up, and a process that was stopped counts
/// one when it resumes. So neither a stopped process nor an absent Redis ends a lease.
pub const LEASE_SECONDS: u32 = 10;
/// Lease seconds that the first subscriber of a channel waits for the other nodes, at most: a node serves its own
/// clients without them.
///
/// That subscriber waits until Redis has confirmed the topic and all nodes that have it have answered, so that it
/// misses nothing that is published after the acknowledgement, and its roster is whole. Later subscribers do not wait.
pub const ANSWER_SECONDS: u32 = 2;
/// Topics subscribed to, announced and unsubscribed from before the session's output is looked at again.
const TOPICS_PER_CALL: usize = 500;
/// Nodes of a cluster. Messages of one more are ignored and counted.
const NODES_MAX: usize = 1_024;
/// Sessions of other nodes that came up within a lease, and sessions of those that live.
const SWEEPS_MAX: usize = 16_384;
/// Dead nodes that are remembered, in case they send something again.
const DEAD_MAX: usize = 256;

const _: () = assert!(ANSWER_SECONDS < LEASE_SECONDS, "a wait ends before a silent node is dead");
const _: () = assert!(DEAD_MAX <= NODES_MAX && NODES_MAX <= SWEEPS_MAX, "nodes have sessions");

/// The cluster as this core knows it: of the channels and users whose home it is.
#[derive(Debug)]
pub(super) struct Cluster {
    own: NodeId,
    pub(super) is_up: bool,
    /// See `LEASE_SECONDS`.
    lease_second: u32,
    /// How often the own session came up: a snapshot that was received before the last time is in doubt.
    own_generation: u32,
    /// When what is in doubt is dropped: all that was received before our own session came up (`None`), or before a
    /// peer's did, with `renewals` then. Only the newest of each counts: an older one would end the lease too soon.
    sweeps: VecDeque<(u32, Option<(SessionId, u32)>)>,
    /// How often each peer's session came up again: what was received before the last time is in doubt.
    renewals: FastMap<SessionId, u32>,
    topics: FastMap<ChannelKey, TopicState>,
    /// Topics that wait, with the lease second in which their wait began, and their ticket.
    waiting: VecDeque<(u32, ChannelKey, u32)>,
    /// The nodes that live, with the lease second in which each has last sent something.
    nodes: FastMap<NodeId, u32>,
    /// Number of this node's events that are not confirmed to be stored: what others publish until then is older.
    unstored: FastMap<ChannelKey, u32>,
    dead: VecDeque<NodeId>,
    transitions: Transitions,
    /// Topics whose SUBSCRIBE is not sent yet: with the ticket in `TopicDetails::unsent`, or canceled since.
    unsent: VecDeque<(ChannelKey, u32)>,
    /// Of these, those that are not canceled.
    unsent_count: usize,
    /// Topics that this node ceased to need in that lease second, oldest first. Each is here once, see
    /// `TopicDetails::idle_since`.
    idle: VecDeque<(u32, ChannelKey)>,
    /// Topics that are still to be subscribed to and announced since the session came up.
    unannounced: VecDeque<ChannelKey>,
    /// Cache channels whose stored event is still to be read since then.
    unfetched: VecDeque<ChannelKey>,
    next_ticket: u32,
    /// Apps whose webhooks or numbers have changed since the start: other nodes may have snapshots of this node that it
    /// would not send any longer.
    have_shared: HashSet<AppIndex, foldhash::fast::FixedState>,
    remote_memory: RemoteMemory,
    /// Mail in `TopicWait::mails` of all topics.
    mail_held: usize,
    /// How often something of other nodes was over a limit, for `/metrics`. The log names the limit.
    refused: u64,
}

impl Cluster {
    pub(super) fn new(own: NodeId) -> Self {
        Self {
            own,
            is_up: false,
            lease_second: 0,
            own_generation: 0,
            sweeps: VecDeque::new(),
            renewals: FastMap::default(),
            topics: FastMap::default(),
            waiting: VecDeque::new(),
            nodes: FastMap::default(),
            unstored: FastMap::default(),
            dead: VecDeque::new(),
            transitions: Transitions::default(),
            unsent: VecDeque::new(),
            unsent_count: 0,
            idle: VecDeque::new(),
            unannounced: VecDeque::new(),
            unfetched: VecDeque::new(),
            next_ticket: 0,
            have_shared: HashSet::default(),
            remote_memory: RemoteMemory::default(),
            mail_held: 0,
            refused: 0,
        }
    }

    fn received_now(&self, sender: SessionId) -> ReceivedAt {
        let sender_generation = self.renewals.get(&sender).copied().unwrap_or_default();
        ReceivedAt { own_generation: self.own_generation, sender, sender_generation }
    }

    /// `None` also for a topic that has none: a plain one, confirmed by Redis.
    fn details(&mut self, channel: &ChannelKey) -> Option<&mut TopicDetails> {
        self.topics.get_mut(channel)?.details_if_any()
    }

    fn find_peer(&self, channel: &ChannelKey, node: NodeId) -> Option<&PeerSnapshot> {
        self.topics.get(channel)?.find_peer(node)
    }

    /// Looks at two old entries for each one that is added, so that there are never many more than topics that wait.
    fn drop_finished_waits(&mut self) {
        for _ in 0..2 {
            let Some((_, channel, ticket)) = self.waiting.front() else { return };
            let waiting = self.topics.get(channel).and_then(|topic| topic.waiting.as_ref());
            if waiting.is_some_and(|waiting| waiting.ticket == *ticket) {
                return;
            }
            self.waiting.pop_front();
        }
    }

    pub(super) fn is_online_elsewhere(&self, user: &ChannelKey) -> bool {
        let topic = self.topics.get(user);
        topic.is_some_and(|topic| topic.peers.iter().any(|peer| peer.online))
    }

    /// Returns whether the roster must change: not if the node had reported it before, and not for a topic that this
    /// node does not need.
    fn note_member(
        &mut self,
        channel: &ChannelKey,
        from: SessionId,
        user_id: &str,
        is_in: bool,
    ) -> bool {
        let received_at = self.received_now(from);
        let Some(topic) = self.topics.get_mut(channel) else { return false };
        // Where there is no room for the node's entry there is none for its members.
        if topic.find_peer(from.node).is_none() && self.remote_memory.is_full() {
            return false;
        }
        let members = &mut topic.peer(received_at).members;
        debug_assert!(from.node != self.own, "the members of this node are in its roster");
        if is_in { members.insert(user_id.into()) } else { members.remove(user_id) }
    }

    /// Whether an event of another node that is received now is the newest that is stored. What this node has published
    /// and Redis has not confirmed is newer, in Redis's order.
    fn is_newest_elsewhere(&self, channel: &ChannelKey) -> bool {
        self.topics.contains_key(channel) && !self.unstored.contains_key(channel)
    }

    /// 0 for an app that does not count: its nodes publish no numbers.
    fn count_elsewhere(&self, channel: &ChannelKey) -> u64 {
        let peers = self.topics.get(channel).into_iter().flat_map(|topic| &topic.peers);
        peers.map(|peer| u64::from(peer.count)).sum()
    }

    /// Bytes of what other nodes have, as they were counted last: never less than is kept.
    pub(super) fn remote_bytes_counted(&self) -> usize {
        self.remote_memory.bytes_upper_bound()
    }

    /// Topics and transitions under way; nodes known. Both are 0 in tests once all have left.
    pub(super) fn entry_counts(&self) -> (usize, usize) {
        (self.topics.len() + self.transitions.len(), self.nodes.len())
    }

    pub(super) fn transitions(&self) -> &Transitions {
        &self.transitions
    }

    /// Until it is false, other nodes may not have all that this one has.
    pub(super) fn has_unannounced(&self) -> bool {
        debug_assert!(
            self.is_up || self.unannounced.is_empty(),
            "without a session nothing is to be announced"
        );
        !self.unannounced.is_empty() || !self.unfetched.is_empty()
    }

    pub(super) fn on_change(&mut self, here: &mut Here<'_>, channel: &ChannelKey, change: Change) {
        debug_assert_eq!(
            here.context.keys.home(channel),
            here.context.core(),
            "this core is its home"
        );
        match change {
            Change::Occupied(is_occupied) => {
                let message = ChannelMessage::Occupied(is_occupied);
                let kind = if is_occupied { Transition::Join } else { Transition::Leave };
                self.publish_transition(here, channel, None, kind, message);
                if is_occupied {
                    here.home.set_count_elsewhere(channel, self.count_elsewhere(channel));
                }
            }
            Change::Joined { member, channel_data } => {
                let who = Some(member.user.text.clone());
                let message = ChannelMessage::Joined { member, channel_data };
                self.publish_transition(here, channel, who, Transition::Join, message);
            }
            Change::Left { user_id } => {
                let message = ChannelMessage::Left { user_id: user_id.clone() };
                self.publish_transition(here, channel, Some(user_id), Transition::Leave, message);
            }
            Change::Online(online) => {
                self.send_to_nodes(here, channel, || ChannelMessage::Online(online));
                self.need_topic(here, channel);
            }
            Change::Count(count) => {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                self.send_to_nodes(here, channel, || ChannelMessage::Count(count));
            }
            Change::Unneeded => self.release_if_unneeded(here, channel),
        }
    }

    /// Keeps mail that must wait for other nodes until `release_held_mail`, and returns other mail to be processed now.
    pub(super) fn hold_back(&mut self, here: &mut Here<'_>, mail: Mail) -> Option<Mail> {
        let channel = match &mail {
            Mail::Subscribe { channel, .. } | Mail::Watch { user: channel, .. } => {
                let channel = channel.clone();
                self.need_topic(here, &channel);
                channel
            }
            // It must not overtake the `Watch` that it ends.
            Mail::Unwatch { user, .. } => user.clone(),
            _ => return Some(mail),
        };
        let is_up = self.is_up;
        match self.details(&channel).and_then(|details| details.waiting.as_mut()) {
            Some(waiting) => {
                debug_assert!(is_up, "without a session no topic waits");
                waiting.mails.push(mail);
                self.mail_held += 1;
                None
            }
            None => Some(mail),
        }
    }

    /// This node needs the topic from here on. Idempotent.
    fn need_topic(&mut self, here: &mut Here<'_>, channel: &ChannelKey) {
        debug_assert_eq!(
            here.context.keys.home(channel),
            here.context.core(),
            "this core is its home"
        );
        let idle_since = self.unsubscribe_if_idle_and_in_doubt(here, channel);
        if self.topics.contains_key(channel) {
            return;
        }
        let mut topic = TopicState::default();
        if idle_since.is_some() {
            topic.details().idle_since = idle_since;
        }
        if let Some(greeted) = here.home.channels.fetched_from(channel) {
            topic.details().note_greeted(greeted);
        }
        if !self.is_up {
            self.topics.insert(channel.clone(), topic);
            return;
        }
        debug_assert!(topic.waiting.is_none(), "a new topic waits for nothing yet");
        let ticket = self.next_ticket_number();
        // `announce` adds the snapshots, if the configuration at that time wants them.
        topic.begin_wait(ticket, 1 + i64::from(channel.kind.cached));
        self.topics.insert(channel.clone(), topic);
        self.drop_finished_waits();
        debug_assert!(
            self.waiting.len() > crate::limits::ASSERTED_LEN_MAX
                || self.waiting.iter().is_sorted_by_key(|(since, ..)| *since),
            "the longest wait is the first"
        );
        self.waiting.push_back((self.lease_second, channel.clone(), ticket));
        self.queue_topic(channel, ticket);
        debug_assert!(self.unsent_count > 0, "its SUBSCRIBE waits for room");
        debug_assert!(
            self.topics.get(channel).is_some_and(|topic| topic.waiting.is_some()),
            "its first users wait for Redis and the other nodes"
        );
    }

    /// SUBSCRIBE comes first, so that no change between a node's snapshot and the subscription is missed.
    fn announce(&mut self, here: &mut Here<'_>, channel: &ChannelKey, ticket: u32) {
        debug_assert_eq!(
            here.context.keys.home(channel),
            here.context.core(),
            "this core is its home"
        );
        debug_assert!(self.is_up, "while the session is down nothing is subscribed to");
        debug_assert!(self.topics.contains_key(channel), "a topic that is needed");
        here.out.cluster.push(ToCluster::Subscribe { channel: channel.clone(), ticket });
        if shares_snapshots(here, channel) {
            let waiting = self.details(channel).and_then(|details| details.waiting.as_mut());
            if let Some(waiting) = waiting.filter(|waiting| waiting.ticket == ticket) {
                waiting.replies_missing += 1;
            }
            let (channel, snapshot) = (channel.clone(), self.snapshot(here, channel));
            here.out.cluster.push(ToCluster::Synchronize { channel, ticket, snapshot });
        }
    }

    fn next_ticket_number(&mut self) -> u32 {
        let ticket = self.next_ticket;
        debug_assert!(
            self.waiting.back().is_none_or(|(.., last)| *last != ticket),
            "a ticket names one request"
        );
        self.next_ticket = ticket.wrapping_add(1);
        ticket
    }

    /// Requests the stored event, unless first subscribers wait for it: that reply answers them, and shows all that
    /// Redis has sent so far.
    fn fetch(&mut self, here: &mut Here<'_>, channel: &ChannelKey, ticket: u32, why: FetchReason) {
        debug_assert_eq!(
            here.context.keys.home(channel),
            here.context.core(),
            "this core is its home"
        );
        let topic = self.topics.get_mut(channel);
        if topic.as_ref().is_some_and(|topic| topic.waits_for_stored()) {
            debug_assert!(why != FetchReason::First, "a topic is new once");
            return;
        }
        here.out.cluster.push(ToCluster::Fetch { channel: channel.clone(), ticket });
        if let Some(topic) = topic {
            topic.details().fetching = Some((ticket, why));
        }
    }

    /// False for a topic that this node does not have, too: there is nothing to unsubscribe from.
    fn is_unneeded(&self, here: &Here<'_>, channel: &ChannelKey) -> bool {
        let Some(topic) = self.topics.get(channel) else { return false };
        let waits = topic.waiting.as_ref().is_some_and(|waiting| !waiting.mails.is_empty());
        let stays = topic.unconfirmed > 0 || self.transitions.has_pending_leaves(channel);
        !waits
            && !stays
            && here.home.interested_cores(channel).is_empty()
            && !here.home.users.contains(channel)
    }

    /// Unsubscribes from a topic that this node no longer needs, at once or after `topic_idle_seconds`.
    fn release_if_unneeded(&mut self, here: &mut Here<'_>, channel: &ChannelKey) {
        debug_assert_eq!(
            here.context.keys.home(channel),
            here.context.core(),
            "this core is its home"
        );
        if !self.is_unneeded(here, channel) {
            return;
        }
        let was_announced = channel.kind.access == Access::User
            || self.details(channel).is_some_and(|details| details.waiting.is_none());
        if self.cancel_unsent(channel) {
            // Redis does not know of it, and other nodes only if something was published without waiting for Redis.
            self.forget_topic(here, channel);
            if was_announced && self.may_have_shared(here, channel) {
                self.send_to_nodes(here, channel, || ChannelMessage::Quit);
            }
            return;
        }
        if !self.is_up || here.context.settings.topic_idle_seconds == 0 {
            return self.unsubscribe(here, channel);
        }
        self.note_idle(channel);
    }

    fn unsubscribe(&mut self, here: &mut Here<'_>, channel: &ChannelKey) {
        debug_assert!(self.topics.contains_key(channel), "a topic of this core");
        let may_have_shared = self.may_have_shared(here, channel);
        self.forget_topic(here, channel);
        if may_have_shared {
            self.send_to_nodes(here, channel, || ChannelMessage::Quit);
        }
        debug_assert!(!self.topics.contains_key(channel), "this node receives nothing more of it");
        if self.is_up {
            here.out.cluster.push(ToCluster::Unsubscribe { channel: channel.clone() });
        }
    }

    fn forget_topic(&mut self, here: &mut Here<'_>, channel: &ChannelKey) {
        let topic = self.topics.remove(channel);
        debug_assert!(topic.is_none_or(|topic| topic.unconfirmed == 0), "none is confirmed later");
        here.home.forget_elsewhere(channel);
    }

    fn snapshot(&self, here: &Here<'_>, channel: &ChannelKey) -> NodeSnapshot {
        let counts = here.context.app(channel.app()).counts_subscriptions();
        let count = here.home.count_here(channel);
        NodeSnapshot {
            members: here.home.members_here(channel),
            pending_leaves: self.transitions.pending_leaves(channel),
            online: here.home.users.is_online(channel),
            occupied: !here.home.interested_cores(channel).is_empty(),
            count: if counts { u32::try_from(count).unwrap_or(u32::MAX) } else { 0 },
        }
    }

    /// While the session is down none is sent: the snapshot of the next session has what the message would say.
    fn send_to_nodes(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        message: impl FnOnce() -> ChannelMessage,
    ) {
        debug_assert_eq!(
            here.context.keys.home(channel),
            here.context.core(),
            "this core is its home"
        );
        if self.is_up {
            let (channel, message) = (channel.clone(), message());
            here.out.cluster.push(ToCluster::Send { channel, message, is_transition: false });
        }
    }

    /// Publishes an event to the other nodes, whether or not anybody here is subscribed. It waits while the session is
    /// down.
    pub(super) fn publish(
        &mut self,
        out: &mut Outbox,
        channel: &ChannelKey,
        frame: &FrameBytes,
        except: Option<SocketId>,
        cache_ttl_seconds: Option<u32>,
    ) {
        debug_assert!(
            cache_ttl_seconds.is_none() || channel.kind.cached,
            "only cache channels are stored"
        );
        // Redis confirms none that is discarded.
        if cache_ttl_seconds.is_some() && !out.cluster.is_full() {
            *self.unstored.entry(channel.clone()).or_default() += 1;
            if let Some(details) = self.details(channel) {
                details.fetching = None;
            }
        }
        let (channel, frame) = (channel.clone(), frame.clone());
        out.cluster.push(ToCluster::Publish { channel, frame, except, cache_ttl_seconds });
    }
}
