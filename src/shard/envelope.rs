//! What nodes say to each other, as values: the bodies of the envelopes that go over Redis. PURE.
//!
//! A body says what its sender's node has: its own part of a channel, never what it knows of others. So every node can
//! lose all it knows of the others and ask again, and nothing is said twice in two voices. `cluster` gives bodies their
//! bytes; secrets and signatures are in none of them (docs/PROTOCOL.md rule 132).

use std::fmt;

use serde::de::{EnumAccess, Error as _, Unexpected, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::query::{Answer, Described, Question};
use crate::app::Apps;
use crate::buffer::FrameBytes;
use crate::pusher::inbound::UserId;
use crate::pusher::socket_id::SocketId;

/// A process in the cluster; drawn at random at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// One core's line to Redis: who an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LinkId {
    pub node: NodeId,
    pub core: u16,
}

/// A user of the sender's node in a presence channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberPart {
    pub user: UserId,
    /// `user_info` as JSON.
    pub info: Box<str>,
}

/// All that one node has of a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub members: Vec<MemberPart>,
    /// Users who have just left, and `None` for all subscribers: backends do not know.
    pub lingering: Vec<Option<Box<str>>>,
    /// The user whose own channel it is has signed in there.
    pub online: bool,
    /// It has subscribers.
    pub occupied: bool,
    /// How many. Said only where somebody wants to hear of it.
    pub count: u32,
}

/// What an envelope holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// An event of the channel. Its frame follows the body.
    Event {
        except: Option<SocketId>,
        cache: bool,
    },
    /// A user's first connection on the sender's node is in.
    Joined {
        member: MemberPart,
        channel_data: Box<str>,
    },
    /// The user's last one there is out.
    Left {
        user_id: Box<str>,
    },
    /// Whoever left the sender's node has left for good: see `Part::lingering`.
    Lingered {
        who: Option<Box<str>>,
    },
    Online(bool),
    /// Its node has subscribers, or none any more. Said only where a webhook depends on it.
    Occupied(bool),
    Count(u32),
    /// The sender's whole part, and it wants everybody else's. Answered by exactly one `Part` of each who hears it.
    Sync {
        ticket: u32,
        part: Part,
    },
    /// The answer to `Sync`. `None`: the channel was just let go.
    Part {
        app: Box<str>,
        channel: Box<str>,
        ticket: u32,
        part: Option<Part>,
    },
    /// The sender has stored the channel's event again, which Redis had forgotten.
    Restored,
    /// The sender has nothing to do with the channel any more.
    Quit,
    /// Close the user's connections on all nodes.
    Terminate {
        app: Box<str>,
        user_id: Box<str>,
    },
    /// A sign of life.
    Alive,
    /// The sender's line is new: what was told on the last one is in doubt, until it is told again.
    LineUp,
    /// The sender's line was away for about so many seconds and has heard each link up to a number before. Answered by
    /// a `Repeat` for each event that it has missed, and a `Repeated`.
    CatchUp {
        away_seconds: u32,
        heard: Vec<(LinkId, u64)>,
    },
    /// Retransmission of the message with that number. The frame of an event follows the body.
    Repeat {
        number: u64,
        app: Box<str>,
        channel: Box<str>,
        what: Retransmitted,
    },
    Repeated,
    /// The sender's node ends.
    Bye,
    /// The node named was thought dead, and is heard: it is to say what it has once more.
    Revive {
        node: NodeId,
    },
    /// A question of the HTTP API. Answered by exactly one `Answer` of each node that hears it.
    Ask {
        id: u32,
        question: Asked,
    },
    Answer {
        id: u32,
        answers: Vec<Told>,
    },
}

/// The kinds that a `Repeat` may carry. A type of its own: a `Repeat` inside a `Repeat` would make the decoder
/// recurse as deep as the sender of a message likes.
#[derive(Clone, Debug, PartialEq)]
pub enum Retransmitted {
    Event { except: Option<SocketId>, cache: bool },
    Terminate { app: Box<str>, user_id: Box<str> },
}

impl Retransmitted {
    /// Indexes of the same kinds in `Body`. They keep the bytes of a `Repeat` what they were while it held a `Body`, so
    /// that nodes of both builds meet during an upgrade.
    const EVENT: u32 = 0;
    const TERMINATE: u32 = 11;
}

impl Serialize for Retransmitted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Event { except, cache } => {
                let fields = (except, cache);
                serializer.serialize_newtype_variant("Body", Self::EVENT, "Event", &fields)
            }
            Self::Terminate { app, user_id } => {
                let fields = (app, user_id);
                serializer.serialize_newtype_variant("Body", Self::TERMINATE, "Terminate", &fields)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Retransmitted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("Body", &["Event", "Terminate"], RetransmittedVisitor)
    }
}

struct RetransmittedVisitor;

impl<'de> Visitor<'de> for RetransmittedVisitor {
    type Value = Retransmitted;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an event or a termination")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Retransmitted, A::Error> {
        match data.variant::<u32>()? {
            (Retransmitted::EVENT, fields) => {
                let (except, cache) = fields.newtype_variant()?;
                Ok(Retransmitted::Event { except, cache })
            }
            (Retransmitted::TERMINATE, fields) => {
                let (app, user_id) = fields.newtype_variant()?;
                Ok(Retransmitted::Terminate { app, user_id })
            }
            (other, _) => {
                let given = Unexpected::Unsigned(other.into());
                Err(A::Error::invalid_value(given, &self))
            }
        }
    }
}

/// `Question`, with the app by its id: indexes differ between nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Asked {
    Channels { app: Box<str>, prefix: String },
    Describe { app: Box<str>, names: Vec<String> },
    Users { app: Box<str>, name: String },
    Connections { app: Box<str> },
}

impl Asked {
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
        }
    }

    /// `None`: this node does not have the app.
    #[must_use]
    pub fn question(self, apps: &Apps) -> Option<Question> {
        Some(match self {
            Self::Channels { app, prefix } => Question::Channels { app: apps.by_id(&app)?, prefix },
            Self::Describe { app, names } => Question::Describe { app: apps.by_id(&app)?, names },
            Self::Users { app, name } => Question::Users { app: apps.by_id(&app)?, name },
            Self::Connections { app } => Question::Connections { app: apps.by_id(&app)? },
        })
    }
}

/// `Answer` as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Told {
    Channels(Vec<(Box<str>, DescribedPart)>),
    Described(Vec<DescribedPart>),
    Users(Vec<Box<str>>),
    Connections(u64),
}

/// `Described`: subscribers, users, the cached event's frame and its seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DescribedPart(u64, u64, Option<(Vec<u8>, u32)>);

impl From<Described> for DescribedPart {
    fn from(described: Described) -> Self {
        let cached = described.cached.map(|(frame, seconds)| (frame.to_vec(), seconds));
        Self(described.subscription_count as u64, described.user_count as u64, cached)
    }
}

impl From<DescribedPart> for Described {
    fn from(DescribedPart(subscribers, users, cached): DescribedPart) -> Self {
        let count = |count| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            subscription_count: count(subscribers),
            user_count: count(users),
            cached: cached.map(|(frame, seconds)| (FrameBytes::from(frame), seconds)),
        }
    }
}

impl From<Answer> for Told {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Channels(list) => {
                let each = list.into_iter().map(|(name, part)| ((&*name).into(), part.into()));
                Self::Channels(each.collect())
            }
            Answer::Described(list) => Self::Described(list.into_iter().map(Into::into).collect()),
            Answer::Users(users) => Self::Users(users),
            Answer::Connections(count) => Self::Connections(count as u64),
        }
    }
}

impl From<Told> for Answer {
    fn from(told: Told) -> Self {
        match told {
            Told::Channels(list) => {
                let each = list.into_iter().map(|(name, part)| ((&*name).into(), part.into()));
                Self::Channels(each.collect())
            }
            Told::Described(list) => Self::Described(list.into_iter().map(Into::into).collect()),
            Told::Users(users) => Self::Users(users),
            Told::Connections(count) => {
                Self::Connections(usize::try_from(count).unwrap_or(usize::MAX))
            }
        }
    }
}
