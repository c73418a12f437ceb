//! Questions of an operator to the other nodes of the cluster, and each core's part of the answer. PURE data.
//!
//! The types are also the bytes between nodes (`cluster/envelope.rs` has a test of them), so a field keeps its place,
//! and new variants come at the end. Apps are named by their ids, because indexes differ between nodes. A core answers
//! in slices, like a question of its own operator (`inspect.rs`); `inspect/answer.rs` makes the answer. Limits:
//! `ANSWER_BYTES_MAX` for the texts of one core's answer, so that the answer of a node with `WORKERS_MAX` cores fits
//! into a message; `OPERATOR_ORDERS_MAX` questions that wait for a core, above which it answers `Busy`.

use serde::{Deserialize, Serialize};

use crate::pusher::socket_id::SocketId;

/// Bytes of rows in one core's answer, texts and numbers. `WORKERS_MAX` cores have 12 MiB.
pub(super) const ANSWER_BYTES_MAX: usize = 96 << 10;
/// Questions of other nodes that wait for one core.
pub const OPERATOR_ORDERS_MAX: usize = 32;

/// What an operator asks, or wants, of the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatorQuestion {
    /// Channels of an app whose name contains a text.
    Channels { app: Box<str>, contains: Box<str> },
    /// The members and subscribers of a channel.
    Channel { app: Box<str>, name: Box<str> },
    /// Connections whose socket id or user id contains a text; of one app or of all.
    Connections { app: Option<Box<str>>, contains: Box<str> },
    /// One connection.
    Connection { socket_id: SocketId },
    /// End a connection, or its subscription to a channel.
    EndAccess { socket_id: SocketId, channel: Option<Box<str>> },
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
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.outcome == OperatorOutcome::Busy
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
    /// Too many questions wait for this core.
    Busy,
}

/// Rows of one core.
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
    pub question: std::sync::Arc<OperatorQuestion>,
}

const _: () = assert!(ANSWER_BYTES_MAX * crate::limits::WORKERS_MAX <= 12 << 20);
