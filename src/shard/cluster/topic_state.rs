//! What a node knows of one topic: of a channel that it is subscribed to in Redis, or of a user by their own channel.
//! PURE data; `mod.rs` and its neighbours have the rules.
//!
//! A plain channel has no `Details` once Redis has confirmed its topic, so that a million of them are cheap.
//! Limits: `ORDERED_MAX` and `GREETED_MAX` here; `remote_memory.rs` bounds what is kept of other nodes.

use std::ops::Deref;

use hashbrown::HashSet;

use crate::shard::channel_key::ChannelKey;
use crate::shard::mail::Mail;
use crate::shard::node_message::{NodeId, SessionId};
use crate::shard::webhooks::Transitioner;

/// Transitions noted while snapshots are waited for. A backend may receive a webhook of one over that twice.
const ORDERED_MAX: usize = 4_096;
/// Senders of events that a channel's subscribers were greeted with. An event of one that was forgotten may be
/// delivered twice.
const GREETED_MAX: usize = 32;

/// A topic that this node needs, or keeps subscribed for a while.
#[derive(Debug, Default)]
pub(super) struct TopicState(Option<Box<Details>>);

const _: () = assert!(size_of::<(ChannelKey, TopicState)>() <= 40, "a node may have a million");

pub(super) type TransitionerSet = HashSet<Transitioner, foldhash::fast::FixedState>;

#[derive(Debug)]
pub(super) struct Details {
    pub(super) waiting: Option<TopicWait>,
    /// What other nodes have of the channel: one entry for each.
    pub(super) peers: Vec<PeerSnapshot>,
    /// Its SUBSCRIBE is not sent yet, and has this ticket.
    pub(super) unsent: Option<u32>,
    /// Nobody here needs it since that beat. It is in `Cluster::idle`.
    pub(super) idle_since: Option<u32>,
    /// The event stored for a cache channel was requested by this ticket, and none was published since.
    pub(super) fetching: Option<(u32, Fetch)>,
    /// The fetched events that later subscribers were greeted with: the newest of each sender.
    greeted: Vec<(SessionId, u64)>,
    /// Transitions of this node that Redis has not confirmed: see `transitions.rs`.
    pub(super) unconfirmed: u32,
    /// The users on this node, by the transitions that Redis has ordered so far.
    pub(super) ordered_here: TransitionerSet,
}

static NO_DETAILS: Details = Details::NONE;

/// Why the stored event was requested, which decides what it means if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetch {
    /// The topic is new here: this node has received no events, so what it remembers may be old.
    First,
    /// The session was down: Redis may have lost what this node remembers.
    Again,
    /// This node, or another, has stored what it remembers.
    Restored,
}

/// A topic whose first users cannot be answered before Redis and the other nodes have replied.
#[derive(Debug)]
pub(super) struct TopicWait {
    pub(super) ticket: u32,
    /// Replies of Redis and snapshots of nodes that are still to come.
    pub(super) missing: i64,
    pub(super) mails: Vec<Mail>,
    /// Whose transitions were received during the wait; with a node: of pending leaves there only. They are newer than
    /// any snapshot that was asked for.
    ordered: HashSet<(Option<NodeId>, Transitioner), foldhash::fast::FixedState>,
}

/// Another node's snapshot of the channel, kept up to date by its messages.
#[derive(Debug)]
pub(super) struct PeerSnapshot {
    pub(super) node: NodeId,
    pub(super) received_at: ReceivedAt,
    pub(super) online: bool,
    pub(super) occupied: bool,
    pub(super) count: u32,
    pub(super) members: HashSet<Box<str>, foldhash::fast::FixedState>,
    /// Who has just left that node, while backends have not been sent the leave.
    pub(super) pending_leaves: TransitionerSet,
}

/// Over which sessions a snapshot was received. If one has been lost since, the snapshot is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceivedAt {
    /// `Cluster::sessions` then.
    pub(super) sessions: u32,
    pub(super) by: SessionId,
    /// How often the sender's session had come up again.
    pub(super) renewals: u32,
}

impl PeerSnapshot {
    /// Whether that user, or any subscriber at all, is on the node.
    pub(super) fn has(&self, who: &Transitioner) -> bool {
        match who {
            None => self.occupied,
            Some(user_id) => self.members.contains(user_id),
        }
    }
}

impl Details {
    const NONE: Self = Self {
        waiting: None,
        peers: Vec::new(),
        unsent: None,
        idle_since: None,
        fetching: None,
        greeted: Vec::new(),
        unconfirmed: 0,
        ordered_here: HashSet::with_hasher(foldhash::fast::FixedState::with_seed(0)),
    };

    fn is_empty(&self) -> bool {
        self.waiting.is_none()
            && self.peers.is_empty()
            && self.unsent.is_none()
            && self.idle_since.is_none()
            && self.fetching.is_none()
            && self.greeted.is_empty()
            && self.unconfirmed == 0
            && self.ordered_here.is_empty()
    }

    pub(super) fn note_greeted(&mut self, (from, number): (SessionId, u64)) {
        self.greeted.retain(|(session, _)| *session != from);
        if self.greeted.len() >= GREETED_MAX {
            self.greeted.remove(0);
        }
        self.greeted.push((from, number));
    }

    /// Whether subscribers were greeted with this event of a sender, or with a later one.
    pub(super) fn was_greeted(&self, from: SessionId, number: u64) -> bool {
        self.greeted.iter().any(|(session, newest)| *session == from && number <= *newest)
    }

    pub(super) fn find(&self, node: NodeId) -> Option<&PeerSnapshot> {
        self.peers.iter().find(|peer| peer.node == node)
    }

    /// Whether a transition of `who`, or the end of their pending leave on that node, was received during the wait.
    pub(super) fn was_ordered(&self, node: NodeId, who: &Transitioner) -> bool {
        let there =
            |of| self.waiting.as_ref().is_some_and(|it| it.ordered.contains(&(of, who.clone())));
        there(None) || there(Some(node))
    }
}

/// Reading allocates no details.
impl Deref for TopicState {
    type Target = Details;

    fn deref(&self) -> &Details {
        self.0.as_deref().unwrap_or(&NO_DETAILS)
    }
}

impl TopicState {
    /// The details, if there are any.
    pub(super) fn known(&mut self) -> Option<&mut Details> {
        self.0.as_deref_mut()
    }

    /// The details, made if there are none.
    pub(super) fn details(&mut self) -> &mut Details {
        self.0.get_or_insert_with(|| Box::new(Details::NONE))
    }

    /// Frees the details when nothing is left in them.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.0 = None;
        }
    }

    /// Begins to wait for so many replies and snapshots.
    pub(super) fn wait(&mut self, ticket: u32, missing: i64) {
        let (mails, ordered) = (Vec::new(), HashSet::default());
        self.details().waiting = Some(TopicWait { ticket, missing, mails, ordered });
    }

    /// Notes a transition that was received during the wait; `node`: of a pending leave there only.
    pub(super) fn note_ordered(&mut self, node: Option<NodeId>, who: &Transitioner) {
        if let Some(waiting) = self.known().and_then(|details| details.waiting.as_mut())
            && waiting.ordered.len() < ORDERED_MAX
        {
            waiting.ordered.insert((node, who.clone()));
        }
    }

    /// The entry of the sender's node, made if there is none.
    pub(super) fn peer(&mut self, received_at: ReceivedAt) -> &mut PeerSnapshot {
        let node = received_at.by.node;
        let peers = &mut self.details().peers;
        if let Some(at) = peers.iter().position(|peer| peer.node == node) {
            return &mut peers[at];
        }
        let (members, pending_leaves) = (HashSet::default(), HashSet::default());
        let peer = PeerSnapshot {
            node,
            received_at,
            online: false,
            occupied: false,
            count: 0,
            members,
            pending_leaves,
        };
        peers.push_mut(peer)
    }
}

impl TopicState {
    /// Whether somebody is on this node, by Redis's order.
    pub(super) fn is_here(&self, who: &Transitioner) -> bool {
        self.ordered_here.contains(who)
    }

    pub(super) fn is_elsewhere(&self, who: &Transitioner) -> bool {
        self.peers.iter().any(|peer| peer.has(who))
    }

    /// Ends the pending leaves of `who` on other nodes. Returns whether there were any.
    pub(super) fn end_remote_pending_leaves(&mut self, who: &Transitioner) -> bool {
        let peers = self.known().into_iter().flat_map(|details| &mut details.peers);
        let ended = peers.map(|peer| peer.pending_leaves.remove(who));
        ended.filter(|ended| *ended).count() > 0
    }
}
