//! Whether what this session publishes reaches the other nodes. PURE.
//!
//! Owns the counts that show it, made again for each connection. A connection may survive a failover: PUBLISH on a
//! replica is no error and reaches no node beyond it. So the server must call itself a master, in its greeting and
//! every `HEARTBEAT_SECONDS` after; what a replica refuses to write ends the session; and a heartbeat to the session's
//! own topic must come back. A heartbeat also goes to the topic of the first session of each node, and the reply to
//! PUBLISH is the number of its receivers. If this session alone received it, and messages of node B arrive before and
//! after it over one connection of B, then B was subscribed and should have received it: messages pass in one direction
//! only, and the session ends. Never ends a session because other nodes are silent. Limit: one counter a connection.
//! Cost: up to 4 commands every `HEARTBEAT_SECONDS`; one look-up for each message received.

use super::ClusterSession;
use super::awaited::bytes_of;
use super::awaited::{AwaitedReply, Lost};
use super::inbound::{is_replayable, is_session_up};
use crate::clock::Moment;
use crate::resp::Value;
use crate::shard::{NodeMessage, SessionId, SessionMessage, Shard};

/// Seconds between two heartbeats, and between two `HELLO` that ask for the role of the server.
pub(super) const HEARTBEAT_SECONDS: u32 = 2;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Partition {
    /// `AwaitedReply::Role` is unanswered.
    pub(super) is_role_asked: bool,
    /// The number of the last heartbeat to this session alone that Redis has answered, and of the last that came back.
    /// 0: none.
    pub(super) echo_answered: u64,
    pub(super) echo_received: u64,
    /// The number of the last heartbeat to this session alone, and when it was sent. `None` once it is back, so that
    /// each is measured once.
    echo_sent: Option<(u64, Moment)>,
    /// Heartbeats that no other node received. Usual for the first node of a cluster: only messages of other nodes make
    /// it a failure.
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
            // `HELLO`, and not the command ROLE: it is open to every user whatever the ACL, and the same in all
            // versions.
            self.command(&[b"HELLO", b"3"], AwaitedReply::Role);
        }
        let own = self.names.session(self.own);
        let number = self.last_number + 1;
        self.partition.echo_sent = Some((number, now));
        self.send(&own, SessionMessage::Heartbeat.into(), AwaitedReply::Echo { number });
        if self.own.core == 0 {
            let first_sessions = self.names.first_sessions();
            self.send(&first_sessions, SessionMessage::Heartbeat.into(), AwaitedReply::Heartbeat);
        }
        if sends_heartbeat {
            self.send_to_all(SessionMessage::Heartbeat);
        }
    }

    /// A message of another session has arrived. If one of the same connection arrived before a heartbeat that no other
    /// node received, Redis relays that session's messages to this one, and not the reverse.
    pub(super) fn check_partition(
        &mut self,
        from: SessionId,
        message: &NodeMessage,
    ) -> Result<(), Lost> {
        let undelivered = self.partition.undelivered;
        // A retransmitted event may arrive before the `SessionUp` of the sender's new connection, so events do not show
        // which connection is meant.
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

/// Whether Redis refused to write because it is a replica: as an error, or as the reason that `STORE_AND_PUBLISH`
/// returns.
pub(super) fn is_readonly(awaited: &AwaitedReply, reply: &Value) -> bool {
    let text = match (awaited, reply) {
        (_, Value::Error(error)) => error.as_bytes(),
        (AwaitedReply::Kept(_), Value::Bytes(why)) => why,
        _ => return false,
    };
    memchr::memmem::find(text, b"READONLY You can't write").is_some()
}

/// Reads the reply to `HELLO`: only on a master do messages reach the other nodes, and theirs this one.
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
