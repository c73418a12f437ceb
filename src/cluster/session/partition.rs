//! Whether what this session publishes reaches the other nodes. PURE.
//!
//! A connection may survive a failover: PUBLISH on a replica is no error and reaches no node beyond it. So the server
//! must call itself a master, in its greeting and every `HEARTBEAT_SECONDS` after; what a replica refuses to write ends
//! the session; and a heartbeat to the session's own topic must come back. A heartbeat also goes to the topic of the
//! first session of each node, and the reply to PUBLISH says how many sessions received it. If only this session did,
//! and messages of node B arrive before and after it over one connection of B, then B was subscribed and should have
//! received it: messages pass in one direction only, and the session ends. Limit: one counter a connection.

use super::ClusterSession;
use super::awaited::bytes_of;
use super::awaited::{AwaitedReply, Lost};
use super::inbound::{is_replayable, is_session_up};
use crate::clock::Moment;
use crate::resp::Value;
use crate::shard::{NodeMessage, SessionId, SessionMessage, Shard};

/// Seconds between two heartbeats, and between two questions for the role of the server.
pub(super) const HEARTBEAT_SECONDS: u32 = 2;

/// What shows that a connection carries messages one way only; made for each connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Partition {
    /// `AwaitedReply::Role` is unanswered.
    pub(super) is_role_asked: bool,
    /// The last heartbeat to this session alone that Redis has answered, and the last that came back.
    pub(super) echo_answered: u64,
    pub(super) echo_received: u64,
    /// The number of the last heartbeat to this session alone, and when it was sent.
    echo_sent: Option<(u64, Moment)>,
    /// Heartbeats that reached no other node.
    pub(super) undelivered: u32,
}

impl Partition {
    /// A message of this session to itself has come back: the time of a heartbeat is the lag of the cluster.
    pub(super) fn observe_echo(&mut self, number: u64, shard: &Shard) {
        if let Some((_, sent)) = self.echo_sent.take_if(|(sent, _)| *sent == number) {
            shard.metrics().cluster.lag_ms.observe(shard.now().0.saturating_sub(sent.0));
        }
    }
}

impl ClusterSession {
    pub(super) fn send_heartbeats(&mut self, sends_heartbeat: bool, now: Moment) {
        if self.up_seconds % HEARTBEAT_SECONDS != 1 {
            return;
        }
        if !std::mem::replace(&mut self.partition.is_role_asked, true) {
            // Open to every user, whatever its ACL, and the same in all versions.
            self.command(&[b"HELLO", b"3"], AwaitedReply::Role);
        }
        let own = self.names.session(self.own);
        let number = self.number + 1;
        self.partition.echo_sent = Some((number, now));
        self.send(&own, SessionMessage::Heartbeat.into(), AwaitedReply::Echo { number });
        if self.own.core == 0 {
            let first_sessions = self.names.questions();
            self.send(&first_sessions, SessionMessage::Heartbeat.into(), AwaitedReply::Heartbeat);
        }
        if sends_heartbeat {
            self.send_to_all(SessionMessage::Heartbeat);
        }
    }

    /// Another session has sent something. If it had before a heartbeat that did not reach it, and has not reconnected
    /// since, then Redis carries its messages here and ours not there.
    pub(super) fn check_partition(
        &mut self,
        from: SessionId,
        message: &NodeMessage,
    ) -> Result<(), Lost> {
        let undelivered = self.partition.undelivered;
        // Events may be sent again before the sender says that its connection is new.
        if from.core != 0 || self.own.core != 0 || is_replayable(message) {
            return Ok(());
        }
        let Some(sender) = self.senders.get_mut(&from) else { return Ok(()) };
        if is_session_up(message) {
            sender.since_undelivered = Some(undelivered);
        }
        let since = *sender.since_undelivered.get_or_insert(undelivered);
        debug_assert!(since <= undelivered, "a count that only grows");
        if since < undelivered { Err(Lost::OneWay) } else { Ok(()) }
    }

    /// Redis sends a message to its publisher right before or right after the reply: the one before must have come.
    pub(super) fn on_echo_sent(&mut self, number: u64) -> Result<(), Lost> {
        let before = std::mem::replace(&mut self.partition.echo_answered, number);
        debug_assert!(before < number, "Redis answers heartbeats in their order");
        if self.partition.echo_received < before { Err(Lost::NoEcho) } else { Ok(()) }
    }
}

/// A command was to write, and the server is a replica: an error, or the reason that our script gives.
pub(super) fn is_readonly(due: &AwaitedReply, reply: &Value) -> bool {
    let text = match (due, reply) {
        (_, Value::Error(error)) => error.as_bytes(),
        (AwaitedReply::Kept(_), Value::Bytes(why)) => why,
        _ => return false,
    };
    memchr::memmem::find(text, b"READONLY You can't write").is_some()
}

/// What `HELLO` answers: only on a master do messages reach the other nodes, and theirs this one.
pub(super) fn check_role(reply: &Value) -> Result<(), Lost> {
    let Value::Map(pairs) = reply else { return Err(Lost::Malformed) };
    let role = pairs.iter().find(|(name, _)| bytes_of(name) == b"role");
    match role.map(|(_, role)| bytes_of(role)) {
        Some(b"master") => Ok(()),
        other => {
            let shown = String::from_utf8_lossy(other.unwrap_or(b"unknown"));
            Err(Lost::NotMaster(shown.chars().take(32).collect()))
        }
    }
}
