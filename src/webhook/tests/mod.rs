//! Webhooks against a real receiver, one that works and many that do not.
//!
//! They wait for what must happen with much patience, and measure time only where a miss would be seconds off.

mod backlog;
mod bounds;
mod delivery;
mod receiver;

use std::sync::Arc;
use std::time::Duration;

use self::receiver::{PATIENCE, sleep};
use super::{Feed, WebhookSettings, Webhooks, start};
use crate::app::{self, App, AppIndex, Apps, Webhook, WebhookKind};
use crate::counters::WebhookCounters;
use crate::event_log::EventLog;
use crate::pusher::webhook_event::{Happening, WebhookEvent};

fn settings() -> WebhookSettings {
    WebhookSettings {
        timeout: PATIENCE,
        retry: PATIENCE,
        debounce: Duration::ZERO,
        queue_events_max: 10_000,
        retry_first: Duration::from_millis(5),
        batch_delay: Duration::from_millis(5),
        idle: PATIENCE,
        failing_end: PATIENCE,
        ring_events: 8_192,
    }
}

fn webhook(url: &str) -> Webhook {
    Webhook { url: url.to_owned(), kinds: WebhookKind::ALL.to_vec(), channel_prefixes: Vec::new() }
}

/// One running server's worth of webhooks, with one worker.
struct Rig {
    webhooks: Webhooks,
    feed: Feed,
    counters: Arc<WebhookCounters>,
}

impl Rig {
    fn start(settings: WebhookSettings, webhooks: Vec<Webhook>) -> Self {
        Self::with_apps(settings, vec![App { webhooks, ..app::sample() }])
    }

    fn with_apps(settings: WebhookSettings, apps: Vec<App>) -> Self {
        let apps = Arc::new(Apps::new(apps));
        let live = Arc::new(EventLog::new(1));
        let (webhooks, mut feeds) = start(apps, 1, settings, live).unwrap();
        let counters = webhooks.counters();
        Self { webhooks, feed: feeds.remove(0), counters }
    }

    fn push(&mut self, channel: &str, what: Happening) {
        self.feed.push(event(channel, what));
        self.feed.wake_dispatcher();
    }

    fn occupy(&mut self, channel: &str) {
        self.push(channel, Happening::Occupied);
    }

    fn finish(self) -> Arc<WebhookCounters> {
        self.webhooks.finish(PATIENCE);
        self.counters
    }
}

fn event(channel: &str, what: Happening) -> WebhookEvent {
    WebhookEvent { app: AppIndex(0), channel: channel.into(), happening: what }
}

/// Waits until it is true.
fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 5 {
        if is_true() {
            return;
        }
        sleep(Duration::from_millis(5));
    }
    panic!("never: {what}");
}
