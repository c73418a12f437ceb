//! Questions of an operator to the other nodes of the cluster, and each core's part of the answer. PURE data.
//!
//! The types are also the bytes between nodes (`cluster/envelope.rs` has a test of them), so a field keeps its place,
//! and new variants come at the end. Apps are named by their ids, because indexes differ between nodes. A core answers
//! in slices, like a question of its own operator (`inspect.rs`); `inspect/answer.rs` makes the answer. Limits:
//! `ANSWER_BYTES_MAX` for the texts of one core's answer, so that the answer of a node with `WORKERS_MAX` cores fits
//! into a message; `OPERATOR_ORDERS_MAX` questions that wait for a core, above which it answers `Busy`, and
//! `ORDER_TIME_MS` for each. Cost: only while an operator asks. A copy of a row copies its texts.

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::pusher::socket_id::SocketId;

/// Bytes of rows in one core's answer, texts and numbers. `WORKERS_MAX` cores have 12 MiB.
pub(super) const ANSWER_BYTES_MAX: usize = 96 << 10;
/// Questions of other nodes that wait for one core.
pub const OPERATOR_ORDERS_MAX: usize = 32;
/// Time from the arrival of a question to its last slice, in milliseconds, and from the request of an action to its
/// deadline. The node that asks waits 1,500 (`tick/gather.rs`), and question and answer need some of that.
pub const ORDER_TIME_MS: u64 = 1_000;

/// What an operator asks, or wants, of the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatorQuestion {
    /// Channels of an app whose name contains a text.
    Channels {
        app: Box<str>,
        contains: Box<str>,
    },
    /// The members and subscribers of a channel.
    Channel {
        app: Box<str>,
        name: Box<str>,
    },
    /// Connections whose socket id or user id contains a text; of one app or of all.
    Connections {
        app: Option<Box<str>>,
        contains: Box<str>,
    },
    Connection {
        socket_id: SocketId,
    },
    /// End a connection, or its subscription to a channel. Nodes of an earlier build send it, without a deadline.
    EndAccess {
        socket_id: SocketId,
        channel: Option<Box<str>>,
    },
    /// The same, until a time in milliseconds since 1970. Redis may deliver it later than the asker waits, and only the
    /// clocks of the hosts show that.
    EndAccessUntil {
        socket_id: SocketId,
        channel: Option<Box<str>>,
        deadline_unix_ms: u64,
    },
}

impl OperatorQuestion {
    /// The connection that is to end, or whose subscription to a channel is. `None`: it only asks.
    #[must_use]
    pub fn access_to_end(&self) -> Option<(SocketId, Option<&str>)> {
        match self {
            Self::EndAccess { socket_id, channel }
            | Self::EndAccessUntil { socket_id, channel, .. } => {
                Some((*socket_id, channel.as_deref()))
            }
            Self::Channels { .. }
            | Self::Channel { .. }
            | Self::Connections { .. }
            | Self::Connection { .. } => None,
        }
    }

    /// Its deadline is over: how old the request is in milliseconds, by the clock of the host that asks and by
    /// `unix_ms` of this one. Without a deadline it is never over.
    #[must_use]
    pub(super) fn overdue_age_ms(&self, unix_ms: u64) -> Option<u64> {
        let Self::EndAccessUntil { deadline_unix_ms, .. } = self else { return None };
        let late_ms = unix_ms.checked_sub(*deadline_unix_ms).filter(|late_ms| *late_ms > 0)?;
        Some(late_ms.saturating_add(ORDER_TIME_MS))
    }
}

/// What one core of a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorAnswer {
    /// See `NodeId`.
    pub node: u64,
    /// The name of the node's host.
    pub host: Box<str>,
    pub core: u16,
    pub outcome: OperatorOutcome,
}

impl OperatorAnswer {
    /// The memory that it takes, in bytes.
    pub(super) fn kept_bytes(&self) -> usize {
        let outcome = match &self.outcome {
            OperatorOutcome::Rows(rows) => rows.kept_bytes(),
            OperatorOutcome::Inside(Some(inside)) => {
                let names =
                    inside.channel_names.iter().map(|name| name.len() + size_of::<Box<str>>());
                size_of::<NodeConnectionDetails>() + inside.row.text_bytes() + names.sum::<usize>()
            }
            _ => 0,
        };
        size_of::<Self>() + self.host.len() + outcome
    }

    /// Makes the answer short, because there is no room for it: leaves out and counts all rows, or discards the details
    /// of a connection. `false`: it is short already.
    pub fn shorten(&mut self) -> bool {
        let before = self.kept_bytes();
        let is_shortened = self.discard_details();
        debug_assert!(self.kept_bytes() <= before, "there is room for what is left");
        is_shortened
    }

    fn discard_details(&mut self) -> bool {
        match &mut self.outcome {
            OperatorOutcome::Rows(rows) => rows.leave_out(),
            OperatorOutcome::Inside(Some(_)) => {
                self.outcome = OperatorOutcome::NoMemory;
                true
            }
            _ => false,
        }
    }

    /// The node did not do what it was asked.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.outcome == OperatorOutcome::Busy
    }

    /// The node answered, and the answer had no room here.
    #[must_use]
    pub fn had_no_memory(&self) -> bool {
        self.outcome == OperatorOutcome::NoMemory
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatorOutcome {
    Rows(NodeRows),
    /// The connection, if this core has it.
    Inside(Option<Box<NodeConnectionDetails>>),
    Ended,
    /// The connection is open, but not in the channel.
    NotSubscribed,
    NotOpen,
    /// Too many questions wait for this core, or the question was late.
    Busy,
    /// The node that asks has no memory for the details that it was sent. No node sends it.
    #[serde(skip)]
    NoMemory,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRows {
    pub channels: Vec<NodeChannelRow>,
    pub connections: Vec<NodeConnectionRow>,
    /// Members of a presence channel: user id, and `user_info` as JSON.
    pub members: Vec<(Box<str>, Box<str>)>,
    /// Channels or connections that are left out.
    pub left_out: u64,
    pub left_out_members: u64,
    /// Subscriptions of the channels that are left out.
    pub left_out_subscribers: u64,
}

impl NodeRows {
    /// Counts all rows as left out. `false`: there are none.
    fn leave_out(&mut self) -> bool {
        let subscribers = self.channels.iter().map(|row| u64::from(row.subscribers)).sum();
        let count = (self.channels.len() + self.connections.len()) as u64;
        let members = self.members.len() as u64;
        // Another node may have sent any number.
        *self = Self {
            left_out: self.left_out.saturating_add(count),
            left_out_members: self.left_out_members.saturating_add(members),
            left_out_subscribers: self.left_out_subscribers.saturating_add(subscribers),
            ..Self::default()
        };
        debug_assert_eq!(self.kept_bytes(), 0, "no row is left");
        debug_assert!(
            self.left_out >= count && self.left_out_members >= members,
            "each row that is left out is counted"
        );
        count + members > 0
    }

    fn kept_bytes(&self) -> usize {
        let channels = self.channels.iter().map(|row| size_of_val(row) + row.name.len());
        let connections = self.connections.iter().map(|row| size_of_val(row) + row.text_bytes());
        let members = self.members.iter().map(|row| size_of_val(row) + row.0.len() + row.1.len());
        channels.sum::<usize>() + connections.sum::<usize>() + members.sum::<usize>()
    }
}

/// A channel on one core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChannelRow {
    pub name: Box<str>,
    pub subscribers: u32,
    /// Users of all nodes; only the home knows them.
    pub users: u32,
}

/// A connection as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConnectionRow {
    pub socket_id: SocketId,
    pub app: Box<str>,
    pub user: Option<Box<str>>,
    pub channels: u32,
    pub queue_bytes: u64,
    pub age_seconds: Option<u32>,
    pub silent_seconds: u32,
}

impl NodeConnectionRow {
    pub(super) fn text_bytes(&self) -> usize {
        self.app.len() + self.user.as_ref().map_or(0, |user| user.len())
    }
}

/// The inside of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConnectionDetails {
    pub row: NodeConnectionRow,
    /// Names of the channels, as many as fit.
    pub channel_names: Vec<Box<str>>,
    pub address: Option<Box<str>>,
    /// Microseconds, and segments that were sent again.
    pub round_trip: Option<(u32, u32)>,
    pub kept_bytes: u64,
    pub is_tls: bool,
    pub is_closing: bool,
    pub is_blocked: bool,
    pub is_pinged: bool,
    pub has_signed_in: bool,
}

/// A question of another node that waits for this core.
#[derive(Clone, Debug)]
pub struct OperatorOrder {
    /// The core that gathers the answers of this node, and the number of the question there.
    pub gathering_core: u16,
    pub question_number: u32,
    /// When the core that gathers the answers received it.
    pub received_at: Moment,
    pub question: std::sync::Arc<OperatorQuestion>,
}

impl OperatorOrder {
    /// Its asker no longer waits, or may no longer wait when the answer arrives.
    #[must_use]
    pub fn is_late(&self, now: Moment, unix_ms: u64) -> bool {
        now.0.saturating_sub(self.received_at.0) > ORDER_TIME_MS
            || self.question.overdue_age_ms(unix_ms).is_some()
    }
}

const _: () = assert!(ANSWER_BYTES_MAX * crate::limits::WORKERS_MAX <= 12 << 20);
