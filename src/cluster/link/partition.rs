//! Whether what this session publishes reaches the other nodes. PURE.
//!
//! A connection may survive a failover: PUBLISH on a replica is no error and reaches nobody beyond it. So the server
//! must call itself a master, in its greeting and every `HEARTBEAT_BEATS` after; what a replica refuses to write ends
//! the session; a heartbeat to the session's own topic must come back; and a heartbeat to the first session of each
//! node must reach every one that is heard before and after it on one connection of its own.

use super::{Due, Link, Lost, bytes_of};
use crate::resp::Value;
use crate::shard::{Body, LinkId};

/// Beats between two heartbeats, and between two questions for the role of the server.
pub(super) const HEARTBEAT_BEATS: u32 = 2;

/// What tells a connection that carries messages one way only; anew for each connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Partition {
    /// `Due::Role` is unanswered.
    pub(super) is_role_asked: bool,
    /// The last heartbeat to this session alone that Redis has answered, and the last that came back.
    pub(super) echo_answered: u64,
    pub(super) echo_received: u64,
    /// Heartbeats that reached no other node.
    pub(super) unheard: u32,
}

impl Link {
    pub(super) fn send_heartbeats(&mut self, speaks: bool) {
        if self.beats % HEARTBEAT_BEATS != 1 {
            return;
        }
        if !std::mem::replace(&mut self.partition.is_role_asked, true) {
            // Open to every user, whatever its ACL, and the same in all versions.
            self.command(&[b"HELLO", b"3"], Due::Role);
        }
        let own = self.names.link(self.own);
        let number = self.number + 1;
        self.tell(&own, Body::Alive, Due::Echo { number });
        if self.own.core == 0 {
            let first_sessions = self.names.questions();
            self.tell(&first_sessions, Body::Alive, Due::Heartbeat);
        }
        if speaks {
            self.tell_all(Body::Alive);
        }
    }

    /// Another session is heard. If it was heard before a heartbeat that did not reach it, and has not connected anew
    /// since, then Redis carries its messages here and ours not there.
    pub(super) fn check_partition(&mut self, from: LinkId, body: &Body) -> Result<(), Lost> {
        let unheard = self.partition.unheard;
        // Events may be sent again before the sender says that its connection is new.
        let may_be_old = matches!(body, Body::Event { .. } | Body::Terminate { .. });
        if from.core != 0 || self.own.core != 0 || may_be_old {
            return Ok(());
        }
        let Some(heard) = self.heard.get_mut(&from) else { return Ok(()) };
        if matches!(body, Body::LineUp) {
            heard.since_unheard = Some(unheard);
        }
        let since = *heard.since_unheard.get_or_insert(unheard);
        if since < unheard { Err(Lost::Unheard) } else { Ok(()) }
    }

    /// Redis sends a message to its publisher right before or right after the reply: the one before must have come.
    pub(super) fn on_echo_sent(&mut self, number: u64) -> Result<(), Lost> {
        let before = std::mem::replace(&mut self.partition.echo_answered, number);
        if self.partition.echo_received < before { Err(Lost::NoEcho) } else { Ok(()) }
    }
}

/// A command was to write, and the server is a replica: an error, or the reason that our script gives.
pub(super) fn is_readonly(due: &Due, reply: &Value) -> bool {
    let text = match (due, reply) {
        (_, Value::Error(error)) => error.as_bytes(),
        (Due::Kept(_), Value::Bytes(why)) => why,
        _ => return false,
    };
    memchr::memmem::find(text, b"READONLY You can't write").is_some()
}

/// What `HELLO` answers: only the master's subscribers hear what other nodes publish, and are heard.
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
