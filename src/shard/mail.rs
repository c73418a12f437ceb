//! The closed list of messages between cores. PURE.
//!
//! Plain values; `mailbox` carries them without knowing them, and `Shard::route` processes them. Two lanes per pair of
//! cores, each first-in first-out. `ToHome` mail may cause more mail; `FromHome` mail causes none that must find room
//! at once. A core always drains `FromHome`, so no ring of cores can wait for each other.
//!
//! Limits: 72 bytes for a mail (asserted); `mailbox` bounds how many wait. Cost: a mail is 72 bytes, moved and never
//! copied deeply: names and frames are shared by reference counts.

use crate::buffer::FrameBytes;
use crate::clock::Moment;
use crate::pusher::error_code::ErrorCode;
use crate::pusher::inbound::UserId;
use crate::pusher::socket_id::SocketId;

use super::ConnectionKey;
use super::access::AccessCommand;
use super::channel_key::ChannelKey;
use super::query::{Answer, Question};
use super::state::HomeState;

/// What the home of a presence channel must know of the connection that joins.
#[derive(Clone, Debug)]
pub struct Join {
    pub user: UserId,
    /// JSON.
    pub user_info: Box<str>,
    /// As it was signed: the other members are sent it unchanged.
    pub channel_data: Box<str>,
    /// The connection is in the channel already and only wants its acknowledgement again.
    pub is_repeated: bool,
}

/// A part of another process's state on its way to its home; see `shard/transfer.rs`. Answered by nothing.
#[derive(Debug)]
pub enum Restore {
    /// `core` has imported that many subscribers of the channel.
    Interest { channel: ChannelKey, core: u16, count: u32 },
    /// What the other process's home knew.
    Home { channel: ChannelKey, state: HomeState },
    /// What `core` has to do with the user.
    User { user: ChannelKey, core: u16, signed_in: bool, watching: bool },
}

/// The order holds within a lane only. `tick` decides when it reads which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    ToHome,
    FromHome,
}

#[derive(Debug)]
pub enum Mail {
    /// A subscribe request that the connection's core has checked. Answered by exactly one `Subscribed` or
    /// `SubscribeRefused`.
    Subscribe {
        channel: ChannelKey,
        connection: ConnectionKey,
        ticket: u32,
        core: u16,
        join: Option<Box<Join>>,
    },
    /// The connection has left before its `Subscribe` was answered. A home that waits for other nodes answers it with
    /// `SubscribeRefused` now; any other has answered it already.
    Withdraw {
        channel: ChannelKey,
        connection: ConnectionKey,
        ticket: u32,
        core: u16,
    },
    /// One connection of the member has left a presence channel; others may be in it.
    Leave {
        channel: ChannelKey,
        user_id: Box<str>,
    },
    /// The sending core has lost its last subscriber of the channel.
    Disinterest {
        channel: ChannelKey,
        core: u16,
    },
    /// An event to be ordered by its home and sent to all subscribers but `except`. `cache`: a cache channel remembers
    /// it.
    Publish {
        channel: ChannelKey,
        frame: FrameBytes,
        except: Option<SocketId>,
        cache: bool,
    },
    /// A command that each core carries out on its own connections.
    EndAccess(Box<AccessCommand>),
    /// How many subscribers the sending core has in the channel; sent for apps that count.
    Count {
        channel: ChannelKey,
        core: u16,
        count: u32,
    },
    /// The sending core has a connection signed in as the user. A user is named by their own channel.
    UserHere {
        user: ChannelKey,
        core: u16,
    },
    /// The sending core has lost its last connection of the user.
    UserGone {
        user: ChannelKey,
        core: u16,
    },
    /// The sending core wants the user's status now and when it changes. Answered by a `UserStatus`.
    Watch {
        user: ChannelKey,
        core: u16,
    },
    Unwatch {
        user: ChannelKey,
        core: u16,
    },
    Restore(Box<Restore>),
    /// A question of the HTTP API. Answered by exactly one `Answer`.
    Ask {
        id: u32,
        from: u16,
        question: std::sync::Arc<Question>,
    },
    /// A question of another node's operator. Answered by one `Answer` when the worker has answered it in slices.
    Inspect {
        id: u32,
        from: u16,
        /// When `from` received it.
        received_at: Moment,
        question: std::sync::Arc<super::operator::OperatorQuestion>,
    },
    /// The connection is in, and is sent the greeting. A plain channel has none: the subscriber's core acknowledges.
    Subscribed {
        channel: ChannelKey,
        connection: ConnectionKey,
        ticket: u32,
        greeting: Option<Box<Greeting>>,
        /// The user who was counted for it: if the connection has left since, its core owes a `Leave`.
        joined: Option<Box<UserId>>,
    },
    /// The other answer to `Subscribe`: the presence channel has as many members as it may have, there is no memory for
    /// one more, or no connection waits for an answer any longer.
    SubscribeRefused {
        channel: ChannelKey,
        connection: ConnectionKey,
        ticket: u32,
        error: ErrorCode,
    },
    /// An event that its home has ordered, for the receiving core's subscribers.
    Deliver {
        channel: ChannelKey,
        frame: FrameBytes,
        except: Option<SocketId>,
    },
    /// Whether a watched user is signed in anywhere: the answer to `Watch`, and each change.
    UserStatus {
        user: ChannelKey,
        online: bool,
    },
    Answer {
        id: u32,
        answer: Answer,
    },
}

const _: () = assert!(size_of::<Mail>() <= 72, "rings are cores squared times this");

/// What a new subscriber is sent first, in this order. The home makes it, because it alone has roster and cached event.
#[derive(Debug, Default)]
pub struct Greeting {
    /// With the roster of a presence channel. `None`: the acknowledgement has the channel's name only, and the
    /// subscriber's core makes it.
    pub acknowledgement: Option<FrameBytes>,
    /// The last event of a cache channel, or `cache_miss`.
    pub cached: Option<FrameBytes>,
}

impl Mail {
    /// Whether it is an event, which changes no state: it may be discarded when there is no room for it.
    #[must_use]
    pub fn is_event(&self) -> bool {
        matches!(self, Self::Publish { .. } | Self::Deliver { .. })
    }

    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Subscribe { .. }
            | Self::Withdraw { .. }
            | Self::Leave { .. }
            | Self::Disinterest { .. }
            | Self::Publish { .. }
            | Self::EndAccess(_)
            | Self::Count { .. }
            | Self::UserHere { .. }
            | Self::UserGone { .. }
            | Self::Watch { .. }
            | Self::Unwatch { .. }
            | Self::Restore(_)
            | Self::Ask { .. }
            | Self::Inspect { .. } => Lane::ToHome,
            Self::Subscribed { .. }
            | Self::SubscribeRefused { .. }
            | Self::Deliver { .. }
            | Self::UserStatus { .. }
            | Self::Answer { .. } => Lane::FromHome,
        }
    }
}
