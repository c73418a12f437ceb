//! What a node knows of one topic: of a channel that it is subscribed to in Redis, or of a user by their own channel.
//!
//! PURE data; `mod.rs` and its neighbors have the rules. Owns the wait for replies, the snapshots of other nodes, and
//! the transitions that Redis has ordered. Sends nothing. A plain channel has no `TopicDetails` once Redis has
//! confirmed its topic, so that a million of them are cheap.
//!
//! Limits: `ORDERED_MAX` and `GREETED_MAX` here; `remote_memory.rs` bounds what is kept of other nodes. Cost: a plain
//! topic has no allocation of its own beside its table; `TopicDetails` are one, made when the first of them is needed.

use std::ops::Deref;

use hashbrown::HashSet;

use crate::limits::ASSERTED_LEN_MAX;
use crate::shard::channel_key::ChannelKey;
use crate::shard::mail::Mail;
use crate::shard::node_message::{NodeId, SessionId};
use crate::shard::webhooks::Transitioner;

/// Transitions noted while snapshots are waited for. A backend may receive a webhook of one over that twice.
const ORDERED_MAX: usize = 4_096;
/// Senders of events that a channel's subscribers were greeted with. An event of one that was forgotten may be
/// delivered twice.
const GREETED_MAX: usize = 32;

/// A topic that this node needs, or keeps subscribed for a while. Reads go through `Deref`, which allocates no details.
#[derive(Debug, Default)]
pub(super) struct TopicState(Option<Box<TopicDetails>>);

const _: () = assert!(size_of::<(ChannelKey, TopicState)>() <= 40, "a node may have a million");

pub(super) type TransitionerSet = HashSet<Transitioner, foldhash::fast::FixedState>;

#[derive(Debug)]
pub(super) struct TopicDetails {
    pub(super) waiting: Option<TopicWait>,
    /// What other nodes have of the channel: one entry for each.
    pub(super) peers: Vec<PeerSnapshot>,
    /// Its SUBSCRIBE is not sent yet, and has this ticket.
    pub(super) unsent: Option<u32>,
    /// The lease second in which this node ceased to need it. It is in `Cluster::idle`.
    pub(super) idle_since: Option<u32>,
    /// The event stored for a cache channel was requested by this ticket, and none was published since.
    pub(super) fetching: Option<(u32, FetchReason)>,
    /// The fetched events that later subscribers were greeted with: the newest of each sender.
    greeted: Vec<(SessionId, u64)>,
    /// How many transitions of this node Redis has not confirmed: the topic stays subscribed until it is 0.
    pub(super) unconfirmed: u32,
    /// The users on this node, by the transitions that Redis has ordered so far.
    pub(super) ordered_here: TransitionerSet,
}

static NO_DETAILS: TopicDetails = TopicDetails::NONE;

/// Why the stored event was requested, which decides what it means if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchReason {
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
    /// Replies of Redis and snapshots of nodes that are still to come. Below 0 while snapshots are here whose number is
    /// not reported yet.
    pub(super) replies_missing: i64,
    pub(super) mails: Vec<Mail>,
    /// Whose transitions were received during the wait; with a node: of pending leaves there only. They are newer than
    /// any snapshot that was asked for.
    received_transitions: HashSet<(Option<NodeId>, Transitioner), foldhash::fast::FixedState>,
}

/// Another node's snapshot of the channel, kept up to date by its messages.
#[derive(Debug)]
pub(super) struct PeerSnapshot {
    pub(super) node: NodeId,
    pub(super) received_at: ReceivedAt,
    /// The user whose own channel it is has signed in there.
    pub(super) online: bool,
    /// The node has subscribers. Only kept up to date where a webhook depends on it.
    pub(super) occupied: bool,
    /// How many. 0 where the app does not count.
    pub(super) count: u32,
    pub(super) members: HashSet<Box<str>, foldhash::fast::FixedState>,
    /// Users who have just left that node, while backends have not been sent the leave.
    pub(super) pending_leaves: TransitionerSet,
}

/// Over which sessions a snapshot was received. If one has been lost since, the snapshot is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceivedAt {
    pub(super) own_generation: u32,
    pub(super) sender: SessionId,
    /// How often the sender's session had come up again.
    pub(super) sender_generation: u32,
}

impl PeerSnapshot {
    pub(super) fn has(&self, who: &Transitioner) -> bool {
        match who {
            None => self.occupied,
            Some(user_id) => self.members.contains(user_id),
        }
    }
}

impl TopicDetails {
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
        debug_assert!(self.greeted.len() <= GREETED_MAX, "one made room");
        debug_assert_eq!(
            self.greeted.iter().filter(|(session, _)| *session == from).count(),
            1,
            "the newest event of each sender"
        );
    }

    /// Whether subscribers were greeted with this event of a sender, or with a later one.
    pub(super) fn was_greeted(&self, from: SessionId, number: u64) -> bool {
        self.greeted.iter().any(|(session, newest)| *session == from && number <= *newest)
    }

    pub(super) fn find_peer(&self, node: NodeId) -> Option<&PeerSnapshot> {
        debug_assert!(
            self.peers.iter().filter(|peer| peer.node == node).count() <= 1,
            "a node has one entry"
        );
        self.peers.iter().find(|peer| peer.node == node)
    }

    /// Whether a transition of `who`, or the end of their pending leave on that node, was received during the wait.
    pub(super) fn was_ordered(&self, node: NodeId, who: &Transitioner) -> bool {
        let there = |of| {
            self.waiting
                .as_ref()
                .is_some_and(|it| it.received_transitions.contains(&(of, who.clone())))
        };
        there(None) || there(Some(node))
    }
}

impl Deref for TopicState {
    type Target = TopicDetails;

    fn deref(&self) -> &TopicDetails {
        self.0.as_deref().unwrap_or(&NO_DETAILS)
    }
}

impl TopicState {
    pub(super) fn details_if_any(&mut self) -> Option<&mut TopicDetails> {
        self.0.as_deref_mut()
    }

    /// Allocates the details if there are none. Call `shrink` when something is taken out of them.
    pub(super) fn details(&mut self) -> &mut TopicDetails {
        self.0.get_or_insert_with(|| Box::new(TopicDetails::NONE))
    }

    /// Frees the details when nothing is left in them.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.0 = None;
        }
        debug_assert!(
            self.0.as_ref().is_none_or(|details| !details.is_empty()),
            "what is kept has a use"
        );
    }

    pub(super) fn begin_wait(&mut self, ticket: u32, replies_missing: i64) {
        let (mails, received_transitions) = (Vec::new(), HashSet::default());
        debug_assert!(self.waiting.is_none(), "a topic waits once");
        debug_assert!(replies_missing > 0, "there is something to wait for");
        self.details().waiting =
            Some(TopicWait { ticket, replies_missing, mails, received_transitions });
    }

    /// Whether the first subscribers wait for the stored event, which was requested and is not here yet.
    pub(super) fn waits_for_stored(&self) -> bool {
        let asked = self.fetching.filter(|(_, why)| *why == FetchReason::First);
        let waiting = self.waiting.as_ref().map(|waiting| waiting.ticket);
        asked.is_some_and(|(ticket, _)| waiting == Some(ticket))
    }

    /// Notes a transition that was received during the wait; `node`: of a pending leave there only.
    pub(super) fn note_ordered(&mut self, node: Option<NodeId>, who: &Transitioner) {
        if let Some(waiting) = self.details_if_any().and_then(|details| details.waiting.as_mut())
            && waiting.received_transitions.len() < ORDERED_MAX
        {
            waiting.received_transitions.insert((node, who.clone()));
            debug_assert!(waiting.received_transitions.len() <= ORDERED_MAX, "there was room");
        }
    }

    /// Adds the sender's node if it is not there: the caller has reserved the memory (`remote_memory.rs`).
    pub(super) fn peer(&mut self, received_at: ReceivedAt) -> &mut PeerSnapshot {
        let node = received_at.sender.node;
        let peers = &mut self.details().peers;
        debug_assert!(
            peers.len() > ASSERTED_LEN_MAX
                || peers.iter().filter(|peer| peer.node == node).count() <= 1,
            "a node has one entry"
        );
        if let Some(at) = peers.iter().position(|peer| peer.node == node) {
            #[expect(clippy::indexing_slicing, reason = "the position was found in this list")]
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
    /// By Redis's order: a transition that Redis has not confirmed does not count yet.
    pub(super) fn is_on_this_node(&self, who: &Transitioner) -> bool {
        self.ordered_here.contains(who)
    }

    pub(super) fn is_on_other_node(&self, who: &Transitioner) -> bool {
        self.peers.iter().any(|peer| peer.has(who))
    }

    /// Ends the pending leaves of `who` on other nodes. Returns whether there were any.
    pub(super) fn end_remote_pending_leaves(&mut self, who: &Transitioner) -> bool {
        let peers = self.details_if_any().into_iter().flat_map(|details| &mut details.peers);
        let ended = peers.map(|peer| peer.pending_leaves.remove(who));
        ended.filter(|ended| *ended).count() > 0
    }

    /// A user who is present has no pending leave: this ends those that other nodes have sent.
    pub(super) fn end_pending_leaves_of_present(&mut self) {
        let all = self.peers.iter().flat_map(|peer| &peer.pending_leaves);
        let present = all.filter(|who| self.is_on_this_node(who) || self.is_on_other_node(who));
        for who in present.cloned().collect::<Vec<Transitioner>>() {
            self.end_remote_pending_leaves(&who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(node: u64) -> SessionId {
        SessionId { node: NodeId(node), core: 0 }
    }

    fn received(node: u64) -> ReceivedAt {
        ReceivedAt { own_generation: 1, sender: session(node), sender_generation: 0 }
    }

    fn who(number: usize) -> Transitioner {
        Some(number.to_string().into())
    }

    /// Each field by itself keeps the details.
    #[test]
    fn details_are_freed_when_nothing_is_left_in_them_and_not_before() {
        let fill: [fn(&mut TopicState); 8] = [
            |topic| topic.begin_wait(1, 1),
            |topic| _ = topic.peer(received(9)),
            |topic| topic.details().unsent = Some(0),
            |topic| topic.details().idle_since = Some(0),
            |topic| topic.details().fetching = Some((0, FetchReason::First)),
            |topic| topic.details().note_greeted((session(9), 1)),
            |topic| topic.details().unconfirmed = 1,
            |topic| _ = topic.details().ordered_here.insert(None),
        ];
        for (field, fill) in fill.iter().enumerate() {
            let mut topic = TopicState::default();
            fill(&mut topic);
            topic.shrink();
            assert!(topic.details_if_any().is_some(), "field {field}");
        }
        let mut topic = TopicState::default();
        topic.details();
        topic.shrink();
        assert!(topic.details_if_any().is_none());
        assert!(topic.is_empty() && !topic.is_on_this_node(&None), "reading allocates none");
        assert!(topic.details_if_any().is_none());
    }

    #[test]
    fn the_newest_event_of_each_sender_is_noted_and_the_sender_noted_first_is_forgotten() {
        let mut topic = TopicState::default();
        topic.details().note_greeted((session(0), 5));
        topic.details().note_greeted((session(0), 7));
        for (number, expected) in [(5, true), (7, true), (8, false)] {
            assert_eq!(topic.was_greeted(session(0), number), expected, "{number}");
        }
        assert!(!topic.was_greeted(SessionId { node: NodeId(0), core: 1 }, 1), "another core");
        for node in 1..GREETED_MAX as u64 {
            topic.details().note_greeted((session(node), 1));
        }
        assert!(topic.was_greeted(session(0), 7), "there is room for so many");
        topic.details().note_greeted((session(99), 1));
        assert!(!topic.was_greeted(session(0), 7) && topic.was_greeted(session(1), 1));
        assert_eq!(topic.greeted.len(), GREETED_MAX);
    }

    #[test]
    fn transitions_are_noted_while_the_topic_waits_and_so_many_at_most() {
        let mut topic = TopicState::default();
        topic.note_ordered(None, &who(0));
        assert!(topic.details_if_any().is_none(), "it does not wait");
        topic.begin_wait(1, 1);
        topic.note_ordered(None, &who(0));
        topic.note_ordered(Some(NodeId(9)), &who(1));
        let rows = [(3, 0, true), (9, 0, true), (9, 1, true), (3, 1, false), (9, 2, false)];
        for (node, number, expected) in rows {
            assert_eq!(
                topic.was_ordered(NodeId(node), &who(number)),
                expected,
                "{number} of {node}"
            );
        }
        (2..ORDERED_MAX).for_each(|number| topic.note_ordered(None, &who(number)));
        assert!(topic.was_ordered(NodeId(3), &who(ORDERED_MAX - 1)));
        topic.note_ordered(None, &who(ORDERED_MAX));
        assert!(!topic.was_ordered(NodeId(3), &who(ORDERED_MAX)));
    }

    #[test]
    fn a_node_has_one_entry_however_many_of_its_sessions_send() {
        let mut topic = TopicState::default();
        topic.peer(received(9)).members.insert("u".into());
        let by = SessionId { node: NodeId(9), core: 1 };
        topic.peer(ReceivedAt { sender: by, ..received(9) }).occupied = true;
        topic.peer(received(3)).members.insert("v".into());
        assert_eq!(topic.peers.len(), 2);
        let rows = [(Some("u"), 9, true), (Some("u"), 3, false), (None, 9, true), (None, 3, false)];
        for (who, node, expected) in rows {
            let who: Transitioner = who.map(Into::into);
            assert_eq!(
                topic.find_peer(NodeId(node)).unwrap().has(&who),
                expected,
                "{who:?} on {node}"
            );
            assert!(topic.is_on_other_node(&who) && !topic.is_on_this_node(&who));
        }
        assert!(topic.find_peer(NodeId(4)).is_none() && !topic.is_on_other_node(&Some("w".into())));
    }

    #[test]
    fn pending_leaves_of_all_other_nodes_end_together() {
        let mut topic = TopicState::default();
        assert!(!topic.end_remote_pending_leaves(&None) && topic.details_if_any().is_none());
        for node in [3, 9] {
            topic.peer(received(node)).pending_leaves.extend([None, who(1)]);
        }
        assert!(topic.end_remote_pending_leaves(&None));
        assert!(!topic.end_remote_pending_leaves(&None));
        assert!(topic.peers.iter().all(|peer| peer.pending_leaves.contains(&who(1))));
    }
}
