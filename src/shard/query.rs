//! Questions of the HTTP API and this core's part of the answer (docs/PROTOCOL.md C9, C19). PURE.
//!
//! Subscribers are counted where they are, users and cached events at the channel's home; the asker adds up. A
//! count is thus never stored twice and cannot drift (docs/PROTOCOL.md rule 85).

use std::sync::Arc;

use super::Shard;
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
    /// Open connections of an app.
    Connections { app: AppIndex },
}

/// One core's part. Parts are added with `merge`.
#[derive(Debug)]
pub enum Answer {
    Channels(Vec<(Arc<str>, Described)>),
    Described(Vec<Described>),
    Users(Vec<Box<str>>),
    Connections(usize),
}

/// What one core knows of one channel.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// Connections subscribed here.
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
    /// This core's part of the answer.
    #[must_use]
    pub fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::Channels { app, prefix } => {
                Answer::Channels(self.answer_channels(*app, prefix))
            }
            Question::Describe { app, names } => {
                Answer::Described(names.iter().map(|name| self.describe(*app, name)).collect())
            }
            Question::Users { app, name } => Answer::Users(self.answer_users(*app, name)),
            Question::Connections { app } => Answer::Connections(self.answer_connections(*app)),
        }
    }

    fn answer_channels(&self, app: AppIndex, prefix: &str) -> Vec<(Arc<str>, Described)> {
        let asked = |key: &super::ChannelKey| key.name().starts_with(prefix);
        let local = self.local.channels.of_app(app).filter(|channel| asked(&channel.key));
        let subscribed = local.filter(|channel| !channel.subscribers.is_empty()).map(|channel| {
            let subscription_count = channel.subscribers.len();
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
        let home = self.home.channels.find(&key);
        Described {
            subscription_count: local.map_or(0, |channel| channel.subscribers.len()),
            user_count: home.map_or(0, |home| home.user_count()),
            cached: self.home.channels.cached_and_seconds(&key, self.context.now),
        }
    }

    fn answer_users(&self, app: AppIndex, name: &str) -> Vec<Box<str>> {
        let Ok(key) = self.context.keys.make(app, name) else { return Vec::new() };
        if key.kind.access != Access::Presence {
            return Vec::new();
        }
        self.home
            .channels
            .find(&key)
            .map_or_else(Vec::new, |home| home.user_ids().map(Into::into).collect())
    }

    /// The app counts them for all cores: the first one answers.
    fn answer_connections(&self, app: AppIndex) -> usize {
        if self.context.core() > 0 {
            return 0;
        }
        let open = &self.context.app(app).connections_open;
        open.load(std::sync::atomic::Ordering::Relaxed) as usize
    }

    /// Channels in the local table and in the home table: both are 0 when everybody has left.
    #[must_use]
    pub fn channel_counts(&self) -> (usize, usize) {
        (self.local.channels.len(), self.home.channels.len())
    }

    /// Entries about users and about numbers of subscribers: 0 when everybody has left.
    #[must_use]
    pub fn user_and_count_entries(&self) -> usize {
        self.local.users.len() + self.home.users.len() + self.home.channels.counts.len()
    }
}
