//! The transferred state of connections and homes, as plain values that another process imports. PURE.
//!
//! Names channels and users, never slots and cores: the new process may have another number of cores and another seed,
//! so every channel finds its home again there. `worker/transfer/record.rs` gives it its bytes.
//!
//! Limit: none of its own. A state is as large as what it describes, and `worker/transfer/stream.rs` refuses a larger
//! batch than `BATCH_BYTES_MAX`. Cost: once for each take-over, a copy of the texts and of the frames that wait.

use serde::{Deserialize, Serialize};

use crate::pusher::inbound::UserId;
use crate::pusher::socket_id::SocketId;

/// Seconds are those of a clock that both processes share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionState {
    /// By its id, because the new process may have other indexes.
    pub app: Box<str>,
    pub socket_id: SocketId,
    /// Names of channels, with the member as whom the connection is in a presence channel.
    pub subscriptions: Vec<(Box<str>, Option<UserId>)>,
    /// What is left of a frame that the kernel has begun to take. It must be sent before anything else.
    pub begun_frame: Vec<u8>,
    /// Whole frames, which a close may drop.
    pub unsent: Vec<u8>,
    /// The old process has enqueued a close frame: it is in `unsent`, or was sent.
    pub is_closing: bool,
    pub last_inbound_seconds: u32,
    pub rate_window_seconds: u32,
    /// A `WindowCount`.
    pub rate_count: u32,
    pub awaits_pong: bool,
    pub speaks_control_frames: bool,
    pub is_authorized: bool,
    /// When it must have been authorized; see `App::authorize_within_seconds`.
    pub authorize_by_seconds: Option<u32>,
    pub user: Option<UserState>,
    /// A `WindowCount`.
    pub client_event_count: u32,
    pub client_event_second: u32,
}

/// Messages in one window of a rate, and whether their client has been sent the window's error. One number, so that the
/// records keep their format: an older version reads a count that is over every limit, and that is how it would treat
/// the next message anyway. It writes no such bit, and then the client may receive a second error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct WindowCount {
    pub(in crate::shard) count: u32,
    pub(in crate::shard) is_error_sent: bool,
}

impl WindowCount {
    const ERROR_SENT: u32 = 1 << 31;

    pub(in crate::shard) fn to_number(self) -> u32 {
        let error_sent = if self.is_error_sent { Self::ERROR_SENT } else { 0 };
        self.count.min(Self::ERROR_SENT - 1) | error_sent
    }

    pub(in crate::shard) fn of_number(number: u32) -> Self {
        let is_error_sent = number & Self::ERROR_SENT != 0;
        Self { count: number & !Self::ERROR_SENT, is_error_sent }
    }
}

/// The user as whom a connection signed in, and the users that it watches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserState {
    pub user: UserId,
    pub user_info: Box<str>,
    /// Ids of the watched users, each with whether they were online. The client knows that already.
    pub watched: Vec<(Box<str>, bool)>,
}

/// What a home knows of a channel beyond what the connections' states have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelState {
    /// By its id.
    pub app: Box<str>,
    pub name: Box<str>,
    pub home: HomeState,
}

/// The shard is not at rest: a question to a home is unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferFault;

/// Default means that the home knows nothing more: it is not exported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HomeState {
    pub members: Vec<MemberState>,
    /// The cached event's frame, and when it expires.
    pub cached: Option<(Vec<u8>, u32)>,
    /// The number of subscribers that was sent last, and when.
    pub count_sent: Option<(u64, u32)>,
}

/// `connections`: of the user in the channel, on all cores of the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberState {
    pub user: UserId,
    pub user_info: Box<str>,
    pub connections: u32,
}
