//! Commands that end access: of a connection, a user or a channel. PURE data.
//!
//! Plain values. A backend sends one over the HTTP API, an operator over the admin API, and another node over Redis.
//! Every core carries it out on its own connections (`local/access.rs`), so a command names users and socket ids, never
//! slots.
//!
//! Limits: the request, or the message of another node, bounds its texts. Cost: a copy for another core copies its
//! texts.

use serde::{Deserialize, Serialize};

use crate::app::AppIndex;
use crate::pusher::socket_id::SocketId;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessTarget {
    /// All connections that are signed in as the user, or in a presence channel as that member.
    User(Box<str>),
    Socket(SocketId),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessAction {
    /// Close with 4009: clients do not come back by themselves.
    Terminate,
    /// Close with 4200: clients come back at once, with another socket id, so that every signature is made again.
    Reconnect,
    /// The connection stays open. Its client is sent `pusher:subscription_error` on the channel.
    Unsubscribe { channel: Box<str> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessCommand {
    pub app: AppIndex,
    pub target: AccessTarget,
    pub action: AccessAction,
}

impl AccessCommand {
    #[cfg(test)]
    pub(crate) fn terminate(app: AppIndex, user_id: &str) -> Self {
        Self { app, target: AccessTarget::User(user_id.into()), action: AccessAction::Terminate }
    }

    /// Takes apart the command that has a message of its own between nodes (`SessionMessage::Terminate`).
    ///
    /// # Errors
    /// Any other command, unchanged.
    pub(in crate::shard) fn terminated_user(self) -> Result<Box<str>, Self> {
        match self {
            Self {
                target: AccessTarget::User(user_id), action: AccessAction::Terminate, ..
            } => Ok(user_id),
            other => Err(other),
        }
    }

    /// For the budget of messages that a cluster session keeps to retransmit.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let target = match &self.target {
            AccessTarget::User(id) => id.len(),
            AccessTarget::Socket(_) => 0,
        };
        let action = match &self.action {
            AccessAction::Unsubscribe { channel } => channel.len(),
            AccessAction::Terminate | AccessAction::Reconnect => 0,
        };
        target + action
    }
}
