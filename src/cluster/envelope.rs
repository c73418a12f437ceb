//! The bytes of a message between nodes: its sender, its number, the message, and after it the frame of an event. PURE.
//!
//! Owns the format, and no state. Does not decide what a message does; `decode` checks what other parts rely on,
//! because every client of Redis that may publish can send any bytes. `WireMessage` is the format: one flat list, so
//! that the three lists of `shard/node_message.rs` can change without it. postcard writes the index of a variant and
//! then its fields. Nodes of two builds meet during a rolling restart, so a variant keeps its place and its fields; new
//! ones come at the end. A change of a variant needs another version in `names.rs`. A test compares the bytes. Limit:
//! `STATE_BYTES_MAX` for a message without a frame. Cost: linear in the bytes. Encoding is one buffer, which the frame
//! is copied to; decoding allocates for each text and list, and copies no frame.

use std::fmt;

use serde::de::{EnumAccess, Error as _, Unexpected, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pusher::socket_id::SocketId;
use crate::shard::{
    AccessAction, AccessTarget, ApiMessage, ChannelMessage, MemberSnapshot, NodeId, NodeMessage,
    NodeSnapshot, Replayed, SessionId, SessionMessage, Stored, WireAnswer, WireQuestion,
};
use crate::ws::frame;

/// Bytes of a message that is no event. Decoded, a list may take 16 times the bytes it has here: one byte of the
/// sender's is an entry of a vector.
pub(super) const STATE_BYTES_MAX: usize = 16 << 20;

/// Indexes in `WireMessage` of the messages that a frame follows. An index under 128 is one byte.
const EVENT: u8 = 0;
const REPLAY: u8 = 15;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Envelope {
    pub(super) from: SessionId,
    /// Grows with each message of a session, over all its connections, so that a receiver can discard a retransmission
    /// that it has processed already.
    pub(super) number: u64,
    pub(super) message: NodeMessage,
}

#[derive(Serialize, Deserialize)]
struct WireEnvelope {
    from: SessionId,
    number: u64,
    message: WireMessage,
}

#[derive(Serialize, Deserialize)]
enum WireMessage {
    Event { except: Option<SocketId>, cache: bool },
    Joined { member: MemberSnapshot, channel_data: Box<str> },
    Left { user_id: Box<str> },
    LeaveFinal { who: Option<Box<str>> },
    Online(bool),
    Occupied(bool),
    Count(u32),
    Synchronize { ticket: u32, snapshot: NodeSnapshot },
    Snapshot { app: Box<str>, channel: Box<str>, ticket: u32, snapshot: Option<NodeSnapshot> },
    Restored,
    Quit,
    Terminate { app: Box<str>, user_id: Box<str> },
    Heartbeat,
    SessionUp,
    ReplayRequest { away_seconds: u32, received: Vec<(SessionId, u64)> },
    Replay { number: u64, app: Box<str>, channel: Box<str>, what: WireReplayed },
    ReplayDone,
    NodeEnds,
    Revive { node: NodeId },
    Ask { id: u32, question: WireQuestion },
    Answer { id: u32, answers: Vec<WireAnswer> },
    EndAccess { app: Box<str>, target: AccessTarget, action: AccessAction },
}

impl From<ChannelMessage> for WireMessage {
    fn from(message: ChannelMessage) -> Self {
        match message {
            ChannelMessage::Event { except, cache } => Self::Event { except, cache },
            ChannelMessage::Joined { member, channel_data } => {
                Self::Joined { member, channel_data }
            }
            ChannelMessage::Left { user_id } => Self::Left { user_id },
            ChannelMessage::LeaveFinal { who } => Self::LeaveFinal { who },
            ChannelMessage::Online(value) => Self::Online(value),
            ChannelMessage::Occupied(value) => Self::Occupied(value),
            ChannelMessage::Count(value) => Self::Count(value),
            ChannelMessage::Synchronize { ticket, snapshot } => {
                Self::Synchronize { ticket, snapshot }
            }
            ChannelMessage::Restored => Self::Restored,
            ChannelMessage::Quit => Self::Quit,
        }
    }
}

impl From<SessionMessage> for WireMessage {
    fn from(message: SessionMessage) -> Self {
        match message {
            SessionMessage::Snapshot { app, channel, ticket, snapshot } => {
                Self::Snapshot { app, channel, ticket, snapshot }
            }
            SessionMessage::Terminate { app, user_id } => Self::Terminate { app, user_id },
            SessionMessage::EndAccess { app, target, action } => {
                Self::EndAccess { app, target, action }
            }
            SessionMessage::Heartbeat => Self::Heartbeat,
            SessionMessage::SessionUp => Self::SessionUp,
            SessionMessage::ReplayRequest { away_seconds, received } => {
                Self::ReplayRequest { away_seconds, received }
            }
            SessionMessage::Replay { number, app, channel, what } => {
                Self::Replay { number, app, channel, what: what.into() }
            }
            SessionMessage::ReplayDone => Self::ReplayDone,
            SessionMessage::NodeEnds => Self::NodeEnds,
            SessionMessage::Revive { node } => Self::Revive { node },
        }
    }
}

impl From<NodeMessage> for WireMessage {
    fn from(message: NodeMessage) -> Self {
        match message {
            NodeMessage::Channel(message) => message.into(),
            NodeMessage::Session(message) => message.into(),
            NodeMessage::Api(ApiMessage::Ask { id, question }) => Self::Ask { id, question },
            NodeMessage::Api(ApiMessage::Answer { id, answers }) => Self::Answer { id, answers },
        }
    }
}

impl From<WireMessage> for NodeMessage {
    fn from(message: WireMessage) -> Self {
        use {ApiMessage as Api, ChannelMessage as Channel, SessionMessage as Session};
        match message {
            WireMessage::Event { except, cache } => Channel::Event { except, cache }.into(),
            WireMessage::Joined { member, channel_data } => {
                Channel::Joined { member, channel_data }.into()
            }
            WireMessage::Left { user_id } => Channel::Left { user_id }.into(),
            WireMessage::LeaveFinal { who } => Channel::LeaveFinal { who }.into(),
            WireMessage::Online(value) => Channel::Online(value).into(),
            WireMessage::Occupied(value) => Channel::Occupied(value).into(),
            WireMessage::Count(value) => Channel::Count(value).into(),
            WireMessage::Synchronize { ticket, snapshot } => {
                Channel::Synchronize { ticket, snapshot }.into()
            }
            WireMessage::Snapshot { app, channel, ticket, snapshot } => {
                Session::Snapshot { app, channel, ticket, snapshot }.into()
            }
            WireMessage::Restored => Channel::Restored.into(),
            WireMessage::Quit => Channel::Quit.into(),
            WireMessage::Terminate { app, user_id } => Session::Terminate { app, user_id }.into(),
            WireMessage::EndAccess { app, target, action } => {
                Session::EndAccess { app, target, action }.into()
            }
            WireMessage::Heartbeat => Session::Heartbeat.into(),
            WireMessage::SessionUp => Session::SessionUp.into(),
            WireMessage::ReplayRequest { away_seconds, received } => {
                Session::ReplayRequest { away_seconds, received }.into()
            }
            WireMessage::Replay { number, app, channel, what } => {
                Session::Replay { number, app, channel, what: what.into() }.into()
            }
            WireMessage::ReplayDone => Session::ReplayDone.into(),
            WireMessage::NodeEnds => Session::NodeEnds.into(),
            WireMessage::Revive { node } => Session::Revive { node }.into(),
            WireMessage::Ask { id, question } => Api::Ask { id, question }.into(),
            WireMessage::Answer { id, answers } => Api::Answer { id, answers }.into(),
        }
    }
}

/// `Replayed` as it is sent: with the indexes that the same kinds have in `WireMessage`, because a replay held a whole
/// message once. It is a type of its own so that no replay can hold another one.
#[derive(Debug, PartialEq)]
struct WireReplayed(Replayed);

impl From<Replayed> for WireReplayed {
    fn from(replayed: Replayed) -> Self {
        Self(replayed)
    }
}

impl From<WireReplayed> for Replayed {
    fn from(WireReplayed(replayed): WireReplayed) -> Self {
        replayed
    }
}

impl WireReplayed {
    const EVENT: u32 = 0;
    const TERMINATE: u32 = 11;
    const END_ACCESS: u32 = 21;
}

impl Serialize for WireReplayed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Replayed::Event { except, cache } => {
                let fields = (except, cache);
                serializer.serialize_newtype_variant("Body", Self::EVENT, "Event", &fields)
            }
            Replayed::Terminate { app, user_id } => {
                let fields = (app, user_id);
                serializer.serialize_newtype_variant("Body", Self::TERMINATE, "Terminate", &fields)
            }
            Replayed::EndAccess { app, target, action } => {
                let fields = (app, target, action);
                serializer.serialize_newtype_variant("Body", Self::END_ACCESS, "EndAccess", &fields)
            }
        }
    }
}

impl<'de> Deserialize<'de> for WireReplayed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("Body", &["Event", "Terminate", "EndAccess"], ReplayedVisitor)
    }
}

struct ReplayedVisitor;

impl<'de> Visitor<'de> for ReplayedVisitor {
    type Value = WireReplayed;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an event, a termination or an end of access")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<WireReplayed, A::Error> {
        match data.variant::<u32>()? {
            (WireReplayed::EVENT, fields) => {
                let (except, cache) = fields.newtype_variant()?;
                Ok(WireReplayed(Replayed::Event { except, cache }))
            }
            (WireReplayed::TERMINATE, fields) => {
                let (app, user_id) = fields.newtype_variant()?;
                Ok(WireReplayed(Replayed::Terminate { app, user_id }))
            }
            (WireReplayed::END_ACCESS, fields) => {
                let (app, target, action) = fields.newtype_variant()?;
                Ok(WireReplayed(Replayed::EndAccess { app, target, action }))
            }
            (other, _) => {
                let given = Unexpected::Unsigned(other.into());
                Err(A::Error::invalid_value(given, &self))
            }
        }
    }
}

/// `frame`: that of an event, which is appended as it is. Empty for all other messages.
pub(super) fn encode(envelope: Envelope, frame: &[u8]) -> Vec<u8> {
    let Envelope { from, number, message } = envelope;
    let wire = WireEnvelope { from, number, message: message.into() };
    // Only a serializer that runs out of room can fail, and a vector does not.
    let mut bytes = postcard::to_allocvec(&wire).unwrap_or_default();
    bytes.extend_from_slice(frame);
    bytes
}

/// `None`: no message of this format. Whatever it was, nothing of it is used.
pub(super) fn decode(bytes: &[u8]) -> Option<(Envelope, &[u8])> {
    let (_, message) = postcard::take_from_bytes::<(SessionId, u64)>(bytes).ok()?;
    let has_frame = matches!(message.first(), Some(&(EVENT | REPLAY)));
    if !has_frame && message.len() > STATE_BYTES_MAX {
        return None;
    }
    let (wire, frame) = postcard::take_from_bytes::<WireEnvelope>(bytes).ok()?;
    let WireEnvelope { from, number, message } = wire;
    let message = NodeMessage::from(message);
    let has_right_frame = match &message {
        // Clients receive these bytes unchanged, so they must be exactly one text frame of a server.
        NodeMessage::Channel(ChannelMessage::Event { .. })
        | NodeMessage::Session(SessionMessage::Replay { what: Replayed::Event { .. }, .. }) => {
            frame::is_server_text(frame)
        }
        _ => frame.is_empty(),
    };
    has_right_frame.then_some((Envelope { from, number, message }, frame))
}

/// What is before the frame in the stored event of a cache channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredHead {
    /// Seconds since 1970, by the clock of the node that stored it. Redis's own expiry is not visible to `GET`.
    pub(super) expires: u64,
    /// The session that published the event, and the event's number: so a replay does not deliver it again to a
    /// subscriber that was greeted with it. 0: not known.
    pub(super) from: SessionId,
    pub(super) number: u64,
}

pub(super) fn encode_stored(head: StoredHead, frame: &[u8]) -> Vec<u8> {
    let mut bytes = postcard::to_allocvec(&head).unwrap_or_default();
    bytes.extend_from_slice(frame);
    bytes
}

pub(super) fn decode_stored(bytes: &[u8], unix_seconds: u64) -> Option<Stored> {
    let (head, frame) = postcard::take_from_bytes::<StoredHead>(bytes).ok()?;
    let left = head.expires.checked_sub(unix_seconds).filter(|left| *left > 0)?;
    let seconds = u32::try_from(left).unwrap_or(u32::MAX);
    let StoredHead { from, number, .. } = head;
    frame::is_server_text(frame).then(|| Stored { frame: frame.into(), seconds, from, number })
}

#[cfg(test)]
mod tests;
