//! A change of the configuration, applied to one core. PURE.
//!
//! Owns nothing: it replaces the list of apps and the settings that may change (its input, `ShardConfiguration`). Does
//! not read or check options. Connections stay, except those of an app that is no longer served: they are closed in
//! steps, so that no tick is long. New limits apply to what comes after. An app keeps its index, so mail under way
//! stays valid. Every core must know a new app before any core serves it (`Apps::change_steps`).
//!
//! Limit: `local/unserved.rs` looks at a bounded number of slots in a tick. Cost: one step for each app, once for a
//! change.

use std::sync::Arc;

use super::Shard;
use crate::app::{AppIndex, Apps};
use crate::cause::LineBudget;

/// Other settings stay as they were at the start, until a take-over.
#[derive(Clone, Debug)]
pub struct ShardConfiguration {
    pub apps: Arc<Apps>,
    /// See `Config::verbose_errors`.
    pub verbose_errors: bool,
    /// Traces of each message are wanted, and lines of the log are not limited (`--debug`).
    pub debug: bool,
}

impl Shard {
    /// Applies a configuration. Call `close_unserved` in each tick from then on.
    pub fn apply(&mut self, configuration: ShardConfiguration) {
        let ShardConfiguration { apps, verbose_errors, debug } = configuration;
        let settings = &mut self.context.settings;
        let before = std::mem::replace(&mut settings.apps, apps.clone());
        debug_assert!(apps.iter().len() >= before.iter().len(), "an app keeps its index");
        debug_assert!(
            before.iter().zip(apps.iter()).all(|(old, new)| old.id == new.id),
            "an index names the same app for ever"
        );
        settings.verbose_errors = verbose_errors;
        if std::mem::replace(&mut settings.debug, debug) != debug {
            self.outbox.lines = LineBudget::new(debug);
            self.outbox.set_traced(debug);
        }
        if let Some((cluster, mut here)) = self.clustered() {
            cluster.on_configuration(&mut here, &before);
        }
        for (index, (old, new)) in (0..).map(AppIndex).zip(before.iter().zip(apps.iter())) {
            if old.is_served() && !new.is_served() {
                self.local.note_unserved();
            }
            if new.is_removed && !old.is_removed {
                self.home.forget_cached_of(index);
            }
            let (counted, counts) = (old.counts_subscriptions(), new.counts_subscriptions());
            let sends = new.sends_subscription_count && !old.sends_subscription_count;
            if counts && (!counted || sends) {
                self.home.begin_counts_of(&self.context, &mut self.outbox, index);
            }
            match (counted, counts) {
                (false, true) => self.local.recount(&self.context, index),
                (true, false) => self.home.forget_counts_of(index),
                _ => {}
            }
        }
        self.drain_own_mail();
    }

    /// A bounded part of the walk that `apply` began.
    #[inline]
    pub fn close_unserved(&mut self) {
        if self.local.has_unserved() {
            debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
            self.local.close_unserved(&self.context, &mut self.outbox);
            self.drain_own_mail();
        }
    }

    /// The core must not sleep while it is true.
    #[must_use]
    pub fn has_unserved(&self) -> bool {
        self.local.has_unserved()
    }
}
