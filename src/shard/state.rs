//! The state of connections, channels and homes as values that another process imports. PURE.
//!
//! The state names channels and users, not slots and cores: the new process may have another number of cores and
//! another seed, so every channel finds its home again there. `worker/transfer/record.rs` gives it its bytes.
//!
//! Limit: none of its own. A state is as large as what it describes, and `worker/transfer/stream.rs` refuses a larger
//! batch than `BATCH_BYTES_MAX`.

use serde::{Deserialize, Serialize};

use crate::pusher::inbound::UserId;
use crate::pusher::socket_id::SocketId;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionState {
    /// The id of its app.
    pub app: Box<str>,
    pub socket_id: SocketId,
    pub subscriptions: Vec<(Box<str>, Option<UserId>)>,
    /// What is left of a frame that the kernel has begun to take.
    pub begun_frame: Vec<u8>,
    /// The frames after it.
    pub unsent: Vec<u8>,
    /// Our close frame is among them, or was sent.
    pub closing: bool,
    pub last_inbound_seconds: u32,
    pub rate_window_seconds: u32,
    pub rate_count: u32,
    pub pinged: bool,
    pub speaks_control_frames: bool,
    pub authorized: bool,
    /// When it must have been authorized; see `App::authorize_within_seconds`.
    pub authorize_by_seconds: Option<u32>,
    pub user: Option<UserState>,
    pub client_event_count: u32,
    pub client_event_second: u32,
}

/// The user as whom a connection signed in, and the users that it watches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserState {
    pub user: UserId,
    pub user_info: Box<str>,
    /// By user id, whether they are online.
    pub watched: Vec<(Box<str>, bool)>,
}

/// What a home knows of a channel beyond what its connections have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelState {
    /// The id of its app.
    pub app: Box<str>,
    pub name: Box<str>,
    pub home: HomeState,
}

/// The shard is not at rest: a question to a home is unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferFault;

/// `ChannelState::home`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HomeState {
    pub members: Vec<MemberState>,
    /// The cached event's frame, and when it expires.
    pub cached: Option<(Vec<u8>, u32)>,
    /// The number of subscribers that was sent last, and when.
    pub count_sent: Option<(u64, u32)>,
}

/// A user in a presence channel, with the number of their connections in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberState {
    pub user: UserId,
    pub user_info: Box<str>,
    pub connections: u32,
}
