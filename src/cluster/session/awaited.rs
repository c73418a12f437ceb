//! What a cluster session awaits of Redis, and why it ends. Plain values; `mod.rs` owns the lists of them.
//!
//! `AwaitedReply` has an entry for each command without a reply, in the order in which Redis answers. `KeptCommand` is
//! a command that must reach Redis on this connection or a later one. `Lost` is the reason of an end, as the log shows
//! it. Does not act on any of them: `replies.rs` does. Limits: `SENDERS_MAX` sessions, `QUOTED_MAX` characters of a
//! text of Redis in a note. Cost: an entry owns no bytes besides its channel's name (shared) and what `KeptCommand`
//! keeps.

use std::fmt;

use crate::buffer::FrameBytes;
use crate::limits::CLUSTER_EFFECTS_MAX;
use crate::pusher::socket_id::SocketId;
use crate::resp::Value;
use crate::shard::ChannelKey;
use crate::text::shown;

/// Sessions whose numbers are remembered. Over this, silent sessions are forgotten; if that frees no room, all are. At
/// worst an event is delivered twice.
pub(super) const SENDERS_MAX: usize = 100_000;

/// Characters of a text of Redis in a note.
pub(super) const QUOTED_MAX: usize = 200;

/// Seconds in which Redis sends nothing although it owes a reply, after which the session ends.
pub(super) const SILENT_SECONDS: u32 = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Redis answers `HELLO` with an error: the user, the password, or a version without RESP3.
    Refused(String),
    Silent,
    /// Not RESP, or a reply although no command awaits one.
    Malformed,
    TooSlow,
    /// A tick caused more messages for other nodes than its limit, or more transitions wait for Redis than may.
    Overrun,
    /// The server's role, which is not master, or no longer: what is published on a replica reaches no node beyond it.
    NotMaster(String),
    /// What this session publishes does not come back on the topic that it is subscribed to itself.
    NoEcho,
    /// Messages of other nodes are received, and none of them receives those of this one.
    OneWay,
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(
                formatter,
                "it answered {}; Redis 6 or Valkey is needed, and REDIS_USERNAME and REDIS_PASSWORD must be \
                 those of a user who may use pub/sub, GET, SET and EVAL",
                shown(error)
            ),
            Self::Silent => write!(formatter, "it has not answered for {SILENT_SECONDS} seconds"),
            Self::Malformed => formatter.write_str("it does not speak as Redis does"),
            Self::Overrun => write!(
                formatter,
                "more than {CLUSTER_EFFECTS_MAX} messages for other nodes waited in this worker. The next connection \
                 sends them what this node has; events over that were lost. More workers share it (RINGVERB_WORKERS)"
            ),
            Self::TooSlow => formatter.write_str("it does not take what it is sent fast enough"),
            Self::NotMaster(role) => write!(
                formatter,
                "its role is {role:?}, not master: what a node publishes there reaches no other node. After a failover \
                 REDIS_HOST must lead to the new master"
            ),
            Self::NoEcho => formatter.write_str(
                "a heartbeat published there did not come back on its topic: PUBLISH and SUBSCRIBE do not reach the \
                 same server. REDIS_HOST must lead to one master",
            ),
            Self::OneWay => formatter.write_str(
                "heartbeats published there reach no other node, although messages of other nodes arrive: a one-way \
                 partition. REDIS_HOST must lead all nodes to the same master",
            ),
        }
    }
}

/// A command that Redis has not answered.
#[derive(Debug)]
pub(super) enum AwaitedReply {
    Hello,
    /// `HELLO` again: a failover may make the server a replica while the connection stays.
    Role,
    /// A heartbeat to the first session of each node, of which this is one.
    Heartbeat,
    /// A heartbeat to this session alone: `Lost::NoEcho` if it does not come back.
    Echo {
        number: u64,
    },
    Ignored,
    Unsubscribed,
    /// A transition. Its reply means that Redis has ordered it, so that its webhook may be sent.
    Transition,
    Subscribed {
        channel: ChannelKey,
        ticket: u32,
    },
    SnapshotSent {
        channel: ChannelKey,
        ticket: u32,
    },
    Fetched {
        channel: ChannelKey,
        ticket: u32,
    },
    Asked {
        id: u32,
    },
    ReplayRequested,
    /// A command that is sent again on the next connection if this one is lost.
    Kept(KeptCommand),
}

/// A command that must reach Redis, on this connection or on a later one.
#[derive(Debug)]
pub(super) struct KeptCommand {
    pub(super) bytes: Box<[u8]>,
    /// The event that the command stores: it is published without being stored if Redis has no room for it.
    pub(super) stored_event: Option<(ChannelKey, FrameBytes, Option<SocketId>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionState {
    Down,
    /// `HELLO` is not answered.
    Greeting,
    Up,
}

/// Empty for a value that is no text: no caller expects an empty one.
pub(super) fn bytes_of(value: &Value) -> &[u8] {
    match value {
        Value::Bytes(bytes) => bytes,
        Value::Text(text) => text.as_bytes(),
        _ => b"",
    }
}
