//! What nodes send each other, as values. PURE.
//!
//! `cluster/envelope.rs` gives them their bytes. Plain values. A message has the state of its sender's node, never what
//! that node knows of others. So every node can lose all it knows of the others and request it again, and no fact has
//! two sources. Secrets and signatures are in no message (docs/PROTOCOL.md rule 132). docs/CLUSTER.md lists each
//! message with sender, receiver, meaning and order.
//!
//! Limits: `cluster/envelope.rs` bounds the bytes of a message. Cost: to make one copies ids and texts of a few bytes;
//! the frame of an event is shared, not copied.

use serde::{Deserialize, Serialize};

use super::access::{AccessAction, AccessCommand, AccessTarget};
use super::operator::{OperatorAnswer, OperatorQuestion};
use super::query::{Answer, Described, NodeQuestion, Question, Traffic};
use crate::app::Apps;
use crate::buffer::FrameBytes;
use crate::pusher::inbound::UserId;
use crate::pusher::socket_id::SocketId;

/// A process in the cluster. Generated at its start, so a restarted server is another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// Names one core's cluster session, also after it has reconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionId {
    pub node: NodeId,
    pub core: u16,
}

/// A member who has connections on the sender's node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberSnapshot {
    pub user: UserId,
    /// JSON.
    pub user_info: Box<str>,
}

/// All that one node has of a channel. It replaces what the receiver knew of that node and channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeSnapshot {
    pub members: Vec<MemberSnapshot>,
    /// Users who have just left, and `None` for all subscribers, while backends have not been sent the leave.
    pub pending_leaves: Vec<Option<Box<str>>>,
    /// The user whose own channel it is has signed in there.
    pub online: bool,
    /// The node has subscribers of the channel.
    pub occupied: bool,
    /// How many. Set only for apps that count subscriptions.
    pub count: u32,
}

/// A message on the topic of a channel: to all nodes that have the topic.
#[derive(Clone, Debug, PartialEq)]
pub enum ChannelMessage {
    /// An event of the channel. Its frame follows the message.
    Event { except: Option<SocketId>, cache: bool },
    /// A user's first connection on the sender's node has joined.
    Joined { member: MemberSnapshot, channel_data: Box<str> },
    /// The user's last connection there has left.
    Left { user_id: Box<str> },
    /// A pending leave of the sender's node is final: see `NodeSnapshot::pending_leaves`.
    LeaveFinal { who: Option<Box<str>> },
    /// The user has signed in on the sender's node, or has no connection there any longer.
    Online(bool),
    /// The sender's node has subscribers, or has none any longer. Sent only where a webhook depends on it.
    Occupied(bool),
    /// The absolute number of subscribers on the sender's node.
    Count(u32),
    /// The sender's snapshot, and a request for all others. Each session that receives it answers with one `Snapshot`.
    Synchronize { ticket: u32, snapshot: NodeSnapshot },
    /// The sender has stored the channel's event again, which Redis had lost.
    Restored,
    /// The sender has released the topic: what it had of the channel is gone.
    Quit,
}

/// A message to one session, or to all of them.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionMessage {
    /// The answer to `Synchronize`. `None`: the sender has just released the topic.
    Snapshot {
        app: Box<str>,
        channel: Box<str>,
        ticket: u32,
        snapshot: Option<NodeSnapshot>,
    },
    /// `EndAccess` that closes all connections of a user. Earlier versions know this one only.
    Terminate {
        app: Box<str>,
        user_id: Box<str>,
    },
    /// Any other command that takes access back, on all nodes.
    EndAccess {
        app: Box<str>,
        target: AccessTarget,
        action: AccessAction,
    },
    Heartbeat,
    /// The sender's session is new: what it sent on the last one is in doubt until it is sent again.
    SessionUp,
    /// The sender's session was down for about so many seconds, and has received the messages of each session up to a
    /// number before. Answered by a `Replay` for each event that it has missed, and a `ReplayDone`.
    ReplayRequest {
        away_seconds: u32,
        received: Vec<(SessionId, u64)>,
    },
    /// Retransmission of the message with that number. The frame of an event follows the message.
    Replay {
        number: u64,
        app: Box<str>,
        channel: Box<str>,
        what: Replayed,
    },
    ReplayDone,
    /// The sender's node ends in order: its snapshots are to be dropped at once.
    NodeEnds,
    /// The node named was taken for dead and has sent something: it is to announce all it has once more.
    Revive {
        node: NodeId,
    },
}

/// A question of the HTTP API or of an operator to other nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum ApiMessage {
    /// Each node that receives it answers with one `Answer`.
    Ask {
        id: u32,
        question: WireQuestion,
    },
    Answer {
        id: u32,
        answers: Vec<WireAnswer>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum NodeMessage {
    Channel(ChannelMessage),
    Session(SessionMessage),
    Api(ApiMessage),
}

impl From<ChannelMessage> for NodeMessage {
    fn from(message: ChannelMessage) -> Self {
        Self::Channel(message)
    }
}

impl From<SessionMessage> for NodeMessage {
    fn from(message: SessionMessage) -> Self {
        Self::Session(message)
    }
}

impl From<ApiMessage> for NodeMessage {
    fn from(message: ApiMessage) -> Self {
        Self::Api(message)
    }
}

/// The messages that can be replayed. A type of its own: a `Replay` inside a `Replay` would make the decoder recurse as
/// deep as the sender of a message likes.
#[derive(Clone, Debug, PartialEq)]
pub enum Replayed {
    Event { except: Option<SocketId>, cache: bool },
    Terminate { app: Box<str>, user_id: Box<str> },
    EndAccess { app: Box<str>, target: AccessTarget, action: AccessAction },
}

impl SessionMessage {
    /// `app` is the app's id, because indexes differ between nodes.
    #[must_use]
    pub fn of_access(app: Box<str>, command: AccessCommand) -> Self {
        match command.terminated_user() {
            // A message of its own, which earlier versions know.
            Ok(user_id) => Self::Terminate { app, user_id },
            Err(AccessCommand { target, action, .. }) => Self::EndAccess { app, target, action },
        }
    }
}

impl Replayed {
    /// As `SessionMessage::of_access`.
    #[must_use]
    pub fn of_access(app: Box<str>, command: AccessCommand) -> Self {
        match command.terminated_user() {
            Ok(user_id) => Self::Terminate { app, user_id },
            Err(AccessCommand { target, action, .. }) => Self::EndAccess { app, target, action },
        }
    }
}

/// A question, with the app by its id: indexes differ between nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WireQuestion {
    Channels { app: Box<str>, prefix: String },
    Describe { app: Box<str>, names: Vec<String> },
    Users { app: Box<str>, name: String },
    Connections { app: Box<str> },
    Traffic { app: Box<str> },
    Operator(OperatorQuestion),
}

impl WireQuestion {
    #[must_use]
    pub fn of(question: &Question, apps: &Apps) -> Self {
        let id = |app| apps.get(app).id.as_str().into();
        match question {
            Question::Channels { app, prefix } => {
                Self::Channels { app: id(*app), prefix: prefix.clone() }
            }
            Question::Describe { app, names } => {
                Self::Describe { app: id(*app), names: names.clone() }
            }
            Question::Users { app, name } => Self::Users { app: id(*app), name: name.clone() },
            Question::Connections { app } => Self::Connections { app: id(*app) },
            Question::Traffic { app } => Self::Traffic { app: id(*app) },
        }
    }

    /// `None`: this node does not have the app.
    #[must_use]
    pub fn question(self, apps: &Apps) -> Option<NodeQuestion> {
        Some(NodeQuestion::Api(match self {
            Self::Channels { app, prefix } => Question::Channels { app: apps.by_id(&app)?, prefix },
            Self::Describe { app, names } => Question::Describe { app: apps.by_id(&app)?, names },
            Self::Users { app, name } => Question::Users { app: apps.by_id(&app)?, name },
            Self::Connections { app } => Question::Connections { app: apps.by_id(&app)? },
            Self::Traffic { app } => Question::Traffic { app: apps.by_id(&app)? },
            // It names the app by its id.
            Self::Operator(question) => return Some(NodeQuestion::Operator(question)),
        }))
    }
}

/// `Answer` as it is sent to another node: with fields whose place and form do not change between builds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WireAnswer {
    Channels(Vec<(Box<str>, WireDescribed)>),
    Described(Vec<WireDescribed>),
    Users(Vec<Box<str>>),
    Connections(u64),
    Traffic(Traffic),
    Operator(Box<OperatorAnswer>),
}

/// `Described`: subscribers, users, the cached event's frame and its seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WireDescribed(u64, u64, Option<(Vec<u8>, u32)>);

impl From<Described> for WireDescribed {
    fn from(described: Described) -> Self {
        let cached = described.cached.map(|(frame, seconds)| (frame.to_vec(), seconds));
        Self(described.subscription_count as u64, described.user_count as u64, cached)
    }
}

impl From<WireDescribed> for Described {
    fn from(WireDescribed(subscribers, users, cached): WireDescribed) -> Self {
        let count = |count| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            subscription_count: count(subscribers),
            user_count: count(users),
            cached: cached.map(|(frame, seconds)| (FrameBytes::from(frame), seconds)),
        }
    }
}

impl From<Answer> for WireAnswer {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Channels(list) => {
                let each =
                    list.into_iter().map(|(name, described)| ((&*name).into(), described.into()));
                Self::Channels(each.collect())
            }
            Answer::Described(list) => Self::Described(list.into_iter().map(Into::into).collect()),
            Answer::Users(users) => Self::Users(users),
            Answer::Connections(count) => Self::Connections(count as u64),
            Answer::Traffic(traffic) => Self::Traffic(traffic),
            Answer::Operator(answer) => Self::Operator(answer),
        }
    }
}

impl From<WireAnswer> for Answer {
    fn from(answer: WireAnswer) -> Self {
        match answer {
            WireAnswer::Channels(list) => {
                let each =
                    list.into_iter().map(|(name, described)| ((&*name).into(), described.into()));
                Self::Channels(each.collect())
            }
            WireAnswer::Described(list) => {
                Self::Described(list.into_iter().map(Into::into).collect())
            }
            WireAnswer::Users(users) => Self::Users(users),
            WireAnswer::Connections(count) => {
                Self::Connections(usize::try_from(count).unwrap_or(usize::MAX))
            }
            WireAnswer::Traffic(traffic) => Self::Traffic(traffic),
            WireAnswer::Operator(answer) => Self::Operator(answer),
        }
    }
}
