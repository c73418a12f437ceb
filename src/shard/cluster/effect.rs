//! The two closed lists between the shard and its session with Redis: what the shard wants (`ToCluster`), and what the
//! session reports (`FromCluster`). PURE data; docs/CLUSTER.md has the order in which they follow each other.
//!
//! Owns `ClusterOutbox`, the effects of a tick until the session takes them. Does not encode or send anything. Limit:
//! `limits::CLUSTER_EFFECTS_MAX` effects of a tick. Cost: one push for each effect; the session takes the whole list,
//! so the first effect of a tick allocates (one allocation).

use std::sync::Arc;

use crate::buffer::FrameBytes;
use crate::limits;
use crate::pusher::socket_id::SocketId;
use crate::shard::access::AccessCommand;
use crate::shard::channel_key::ChannelKey;
use crate::shard::node_message::{
    ChannelMessage, NodeId, NodeMessage, NodeSnapshot, SessionId, SessionMessage,
};
use crate::shard::operator::OperatorQuestion;
use crate::shard::query::{Answer, Question};

/// What the session with Redis is to carry out, in order. While it is down, it keeps `Publish` and `EndAccess` for
/// the next connection and discards the others, because all state is sent again then.
#[derive(Debug)]
pub enum ToCluster {
    /// Subscribe to the channel's topic. Answered by `FromCluster::Subscribed`.
    Subscribe {
        channel: ChannelKey,
        ticket: u32,
    },
    Unsubscribe {
        channel: ChannelKey,
    },
    /// An event. `cache_ttl_seconds`: it is to be stored, too, which is answered by `FromCluster::Stored`.
    Publish {
        channel: ChannelKey,
        frame: FrameBytes,
        except: Option<SocketId>,
        cache_ttl_seconds: Option<u32>,
    },
    /// A message on the channel's topic. `is_transition`: answered by `FromCluster::TransitionOrdered`.
    Send {
        channel: ChannelKey,
        message: ChannelMessage,
        is_transition: bool,
    },
    /// This node's snapshot on the channel's topic, as a request for those of the others. Answered by
    /// `FromCluster::SnapshotSent`.
    Synchronize {
        channel: ChannelKey,
        ticket: u32,
        snapshot: NodeSnapshot,
    },
    /// Read the event that Redis has stored for a cache channel. Answered by `FromCluster::Fetched`.
    Fetch {
        channel: ChannelKey,
        ticket: u32,
    },
    /// Redis has lost the channel's event. Of several nodes that remember one, the first one's is stored.
    StoreIfAbsent {
        channel: ChannelKey,
        frame: FrameBytes,
        seconds: u32,
    },
    /// To the session that has asked, by its own Redis channel.
    Reply {
        to: SessionId,
        message: NodeMessage,
    },
    /// To the sessions of all nodes and cores.
    SendToAll {
        message: SessionMessage,
    },
    /// For all nodes. The session keeps it while it is down: an outage of Redis must not prolong access.
    EndAccess(Box<AccessCommand>),
    /// A question to all nodes. Answered by `FromCluster::Asked`.
    Ask {
        id: u32,
        question: Arc<Question>,
    },
    /// An operator's question to all nodes. Answered by `FromCluster::Asked`.
    AskOperator {
        id: u32,
        question: Box<OperatorQuestion>,
    },
}

const _: () = assert!(size_of::<ToCluster>() <= 120, "a tick may have 262,144: 31 MB");

/// Effects in the order in which the shard caused them.
///
/// Over `limits::CLUSTER_EFFECTS_MAX` effects are discarded and counted, and the session begins again: a new session
/// announces all state, so only events are lost.
#[derive(Debug, Default)]
pub struct ClusterOutbox {
    effects: Vec<ToCluster>,
    restart_requested: bool,
    high_water: usize,
    discarded: u64,
}

impl ClusterOutbox {
    pub fn push(&mut self, effect: ToCluster) {
        if self.is_full() {
            self.restart_requested = true;
            self.discarded += 1;
        } else {
            self.effects.push(effect);
        }
        debug_assert!(self.effects.len() <= limits::CLUSTER_EFFECTS_MAX);
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.effects.len() >= limits::CLUSTER_EFFECTS_MAX
    }

    /// For transitions over their limit: the session must begin again, although no effect was discarded.
    pub(in crate::shard) fn request_restart(&mut self) {
        self.restart_requested = true;
    }

    #[must_use]
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.effects.is_empty() && !self.restart_requested
    }

    /// For the session, in each tick.
    pub fn take_effects(&mut self) -> Vec<ToCluster> {
        self.high_water = self.high_water.max(self.effects.len());
        debug_assert!(self.high_water <= limits::CLUSTER_EFFECTS_MAX, "more were discarded");
        std::mem::take(&mut self.effects)
    }

    /// Whether the session must begin again, because a limit was reached since the last call.
    pub fn take_restart_request(&mut self) -> bool {
        std::mem::take(&mut self.restart_requested)
    }

    /// Of one tick, since the start.
    #[must_use]
    pub fn high_water(&self) -> usize {
        self.high_water
    }

    #[must_use]
    pub fn discarded(&self) -> u64 {
        self.discarded
    }
}

/// What the session reports, in the order in which Redis sent it.
#[derive(Debug)]
pub enum FromCluster<'a> {
    /// The session is up. Redis has no subscription of it, and peers may have forgotten this node: all is announced
    /// again.
    Up,
    /// The session is down: no reply to anything will come.
    Down,
    /// All events that were missed while the session was down have been replayed.
    CaughtUp,
    /// Redis has confirmed the topic: what is published from now on arrives here.
    Subscribed { channel: &'a ChannelKey, ticket: u32 },
    /// So many sessions received a `ToCluster::Synchronize`, this one among them.
    SnapshotSent { channel: &'a ChannelKey, ticket: u32, receivers: u32 },
    /// Answers `ToCluster::Fetch`. `stored`: `None` if Redis has no event of the channel.
    Fetched { channel: &'a ChannelKey, ticket: u32, stored: Option<Stored> },
    /// A replay that a `Fetched` had to wait for is over, or another node's event was held back: read the stored event
    /// again.
    FetchAgain { channel: &'a ChannelKey },
    /// An event of this node is stored, or will not be.
    Stored { channel: &'a ChannelKey },
    /// Redis has ordered the oldest transition of this node that was not ordered.
    TransitionOrdered,
    /// So many nodes received a question, this one among them.
    Asked { id: u32, receivers: u32 },
    /// The answers of all cores of one node to a question.
    NodeAnswer { id: u32, answers: Vec<Answer> },
    /// Before each other report of a message of that node. If `Shard::accepts_node` is false, the session drops the
    /// message.
    NodeSeen(NodeId),
    /// Another node's message about a channel. `frame` is that of an event.
    Message { from: SessionId, channel: &'a ChannelKey, message: ChannelMessage, frame: &'a [u8] },
    /// Another node's answer to a `ToCluster::Synchronize`. `None`: that node has just released the topic.
    Snapshot {
        from: SessionId,
        channel: &'a ChannelKey,
        ticket: u32,
        snapshot: Option<NodeSnapshot>,
    },
    /// Another node's session is new: what it unsubscribed from while it was down it could not publish.
    PeerUp(SessionId),
    /// A node ends in order: its snapshots are dropped now and not at the end of its lease, and it is not remembered as
    /// dead.
    PeerEnds(NodeId),
    /// Another node has thought this node dead and asks for all it has.
    Revive(NodeId),
    /// A backend has taken access back by a request to another node.
    EndAccess(&'a AccessCommand),
    /// The session's output has room for so many SUBSCRIBE and UNSUBSCRIBE.
    TopicRoom(usize),
}

/// An event that Redis has stored for a cache channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub frame: FrameBytes,
    /// For how long it is still to be remembered.
    pub seconds: u32,
    /// The session that published it, and its number there.
    pub from: SessionId,
    pub number: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppIndex;
    use crate::shard::channel_key::ChannelKeys;

    #[test]
    fn effects_over_the_limit_are_discarded_counted_and_reported_once() {
        let mut outbox = ClusterOutbox::default();
        let channel = ChannelKeys::new(1, 1).make(AppIndex(0), "news").unwrap();
        let effect = || ToCluster::Fetch { channel: channel.clone(), ticket: 1 };
        (0..limits::CLUSTER_EFFECTS_MAX).for_each(|_| outbox.push(effect()));
        assert!(outbox.is_full() && !outbox.take_restart_request());
        outbox.push(effect());
        assert_eq!(
            (outbox.discarded(), outbox.take_restart_request(), outbox.take_restart_request()),
            (1, true, false)
        );
        assert_eq!(outbox.take_effects().len(), limits::CLUSTER_EFFECTS_MAX);
        assert_eq!((outbox.high_water(), outbox.is_full()), (limits::CLUSTER_EFFECTS_MAX, false));
        outbox.push(effect());
        assert_eq!(
            (outbox.take_effects().len(), outbox.high_water()),
            (1, limits::CLUSTER_EFFECTS_MAX)
        );
    }
}
