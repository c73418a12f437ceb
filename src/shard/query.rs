//! Questions of the HTTP API and this core's part of the answer (docs/PROTOCOL.md C9, C19). PURE.
//!
//! Owns nothing and changes nothing. Subscribers are counted where they are, users and cached events at the channel's
//! home; the asker adds up. A count is thus never stored twice and cannot drift (docs/PROTOCOL.md rule 85).
//!
//! Limits: the channels of one app, or the names of one request, which `api` bounds by its body; the API waits
//! `limits::GATHER_TIMEOUT_MS` for all answers. Cost: a step for each channel of the app that is asked about, or one
//! look-up for each name.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Shard;
use super::operator::{OperatorAnswer, OperatorQuestion};
use crate::app::AppIndex;
use crate::buffer::FrameBytes;
use crate::pusher::channel_name::Access;

#[derive(Debug)]
pub enum Question {
    /// All channels of an app whose name starts with the prefix.
    Channels { app: AppIndex, prefix: String },
    /// These channels, in this order.
    Describe { app: AppIndex, names: Vec<String> },
    /// The users in a presence channel.
    Users { app: AppIndex, name: String },
    /// Open connections of an app. Asked by nodes of versions that do not know `Traffic`.
    Connections { app: AppIndex },
    /// Open connections of an app, and its messages.
    Traffic { app: AppIndex },
}

/// A question of another node, for all cores of this one.
#[derive(Debug)]
pub enum NodeQuestion {
    /// Of its HTTP API. A core answers at once.
    Api(Question),
    /// Of its operator. A core answers in slices.
    Operator(OperatorQuestion),
}

/// One core's part, or that of a core of another node. `api` adds the parts (`merge`).
#[derive(Debug)]
pub enum Answer {
    Channels(Vec<(Arc<str>, Described)>),
    Described(Vec<Described>),
    Users(Vec<Box<str>>),
    Connections(usize),
    Traffic(Traffic),
    /// To an operator's question.
    Operator(Box<OperatorAnswer>),
}

impl Answer {
    /// For the budget of answers that wait (`tick/gather.rs`). The name of a channel counts as if no other owned it.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let described = |one: &Described| {
            let cached = one.cached.as_ref().map_or(0, |(frame, _)| frame.len());
            size_of::<Described>() + cached
        };
        match self {
            Self::Channels(rows) => {
                let row = |(name, one): &(Arc<str>, Described)| {
                    size_of::<Arc<str>>() + name.len() + described(one)
                };
                rows.iter().map(row).sum()
            }
            Self::Described(rows) => rows.iter().map(described).sum(),
            Self::Users(ids) => ids.iter().map(|id| size_of_val(id) + id.len()).sum(),
            Self::Operator(answer) => answer.kept_bytes(),
            Self::Connections(_) | Self::Traffic(_) => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub connections: u64,
    /// Messages to clients and of clients since the start of the process. `None`: the app has no
    /// counters of its own (`CoreMetrics::own_row`).
    pub messages: Option<MessageCounts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCounts {
    pub sent: u64,
    pub received: u64,
}

impl Traffic {
    /// Adds the part of another core, or node, which may send any number.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let sum = |a: MessageCounts, b: MessageCounts| MessageCounts {
            sent: a.sent.saturating_add(b.sent),
            received: a.received.saturating_add(b.received),
        };
        Self {
            connections: self.connections.saturating_add(other.connections),
            messages: self.messages.zip(other.messages).map(|(a, b)| sum(a, b)),
        }
    }
}

/// One core's part of a channel: 0 and `None` where it has none.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// Of this core's connections.
    pub subscription_count: usize,
    /// Distinct users; only homes know, each of all nodes.
    pub user_count: usize,
    /// The cached event's frame, and for how many seconds it is still remembered; only the home knows.
    pub cached: Option<(FrameBytes, u32)>,
}

impl Described {
    /// Adds the part of another core, or node.
    pub fn merge(&mut self, other: Self) {
        // Another node may send any number.
        self.subscription_count = self.subscription_count.saturating_add(other.subscription_count);
        self.user_count = self.user_count.max(other.user_count);
        if self.cached.is_none() {
            self.cached = other.cached;
        }
    }
}

impl Shard {
    /// At once, and not in slices: the HTTP API bounds what one request may ask.
    #[must_use]
    pub fn answer(&self, question: &Question) -> Answer {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        match question {
            Question::Channels { app, prefix } => {
                Answer::Channels(self.answer_channels(*app, prefix))
            }
            Question::Describe { app, names } => {
                Answer::Described(names.iter().map(|name| self.describe(*app, name)).collect())
            }
            Question::Users { app, name } => Answer::Users(self.answer_users(*app, name)),
            Question::Connections { app } => Answer::Connections(self.answer_connections(*app)),
            Question::Traffic { app } => Answer::Traffic(self.answer_traffic(*app)),
        }
    }

    fn answer_channels(&self, app: AppIndex, prefix: &str) -> Vec<(Arc<str>, Described)> {
        let asked = |key: &super::ChannelKey| key.name().starts_with(prefix);
        let local = self.local.channels.of_app(app).filter(|channel| asked(&channel.key));
        debug_assert!(
            usize::from(app.0) < self.context.settings.apps.iter().len(),
            "an app of ours"
        );
        let subscribed = local.filter(|channel| !channel.subscribers.is_empty()).map(|channel| {
            let subscription_count = channel.subscribers.len();
            debug_assert_eq!(channel.key.app(), app, "the index of an app has its channels");
            (channel.key.shared_name(), Described { subscription_count, ..Described::default() })
        });
        let homes = self.home.channels.of_app(app);
        let homes = homes.filter(|home| home.user_count() > 0 && asked(home.key()));
        let users = homes.map(|home| {
            let user_count = home.user_count();
            (home.key().shared_name(), Described { user_count, ..Described::default() })
        });
        subscribed.chain(users).collect()
    }

    fn describe(&self, app: AppIndex, name: &str) -> Described {
        let Ok(key) = self.context.keys.make(app, name) else { return Described::default() };
        let local = self.local.channels.find_key(&key).map(|index| &self.local.channels[index]);
        debug_assert!(
            local.is_none_or(|channel| channel.key == key),
            "the channel that is asked about"
        );
        let home = self.home.channels.find(&key);
        debug_assert!(
            home.is_none() || self.context.keys.home(&key) == self.context.core(),
            "this core is the home of the channels in its table"
        );
        Described {
            subscription_count: local.map_or(0, |channel| channel.subscribers.len()),
            user_count: home.map_or(0, |home| home.user_count()),
            cached: self.home.channels.cached_and_seconds(&key, self.context.now),
        }
    }

    fn answer_users(&self, app: AppIndex, name: &str) -> Vec<Box<str>> {
        let Ok(key) = self.context.keys.make(app, name) else { return Vec::new() };
        if key.kind.access != Access::Presence {
            debug_assert!(
                self.home.channels.find(&key).is_none_or(|home| home.roster.is_none()),
                "only presence channels have members"
            );
            return Vec::new();
        }
        self.home
            .channels
            .find(&key)
            .map_or_else(Vec::new, |home| home.user_ids().map(Into::into).collect())
    }

    /// Only the first core answers, because the app has one count for all cores.
    fn answer_connections(&self, app: AppIndex) -> usize {
        if self.context.core() > 0 {
            return 0;
        }
        let open = &self.context.app(app).connections_open;
        open.load(std::sync::atomic::Ordering::Relaxed) as usize
    }

    fn answer_traffic(&self, app: AppIndex) -> Traffic {
        let messages = self.metrics().own_row(app).map(|counted| MessageCounts {
            sent: counted.messages_sent.get(),
            received: counted.messages_received.get(),
        });
        Traffic { connections: self.answer_connections(app) as u64, messages }
    }

    /// Of the local side and of the home side. Both are 0 after all connections have ended and caches have expired.
    #[must_use]
    pub fn channel_counts(&self) -> (usize, usize) {
        (self.local.channels.len(), self.home.channels.len())
    }

    /// Entries about users and about numbers of subscribers: 0 after all connections have ended.
    #[must_use]
    pub fn user_and_count_entries(&self) -> usize {
        self.local.users.len() + self.home.users.len() + self.home.channels.counts.len()
    }
}
