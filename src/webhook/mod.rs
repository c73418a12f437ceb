//! Webhooks: events of channels, posted to the apps' backends (docs/PROTOCOL.md C10).
//!
//! A worker pushes events into a ring of its own and never waits. One thread (`dispatcher.rs`) empties the rings,
//! delays leaves (`gate.rs`), and queues events for the endpoints that want them. Each endpoint with events has a
//! thread (`sender.rs`) that posts batches (`batch.rs`, `client.rs`), one at a time. Refused events are retried apart
//! from the others (`backlog.rs`, `retry.rs`). Delivery is at least once: a backend that answers too late receives a
//! batch again. Owns the rings and the dispatcher's thread; does not know connections or channels, only their events.
//!
//! Limits: each queue is bounded by app and class of events (`budget.rs`), so that a flood of one app or class does not
//! displace the events of others. Events that find no room are counted by kind. Cost: to a worker, some ten atomic
//! operations for an event, no allocation, and at most one system call a tick.

mod backlog;
mod batch;
mod budget;
mod client;
mod dispatcher;
mod gate;
mod header_case;
mod input;
mod report;
mod retry;
mod sender;
mod settings;
#[cfg(test)]
mod tests;
mod time;

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use rtrb::{Consumer, Producer, RingBuffer};

use self::budget::{Class, RingBudget};
use crate::app::{Apps, WebhookKind};
use crate::config::validate::WEBHOOKS_MAX;
use crate::counters::{WEBHOOK_KINDS, WebhookCounters};
use crate::event_log::EventLog;
use crate::mailbox::Doorbell;
use crate::pusher::webhook_event::WebhookEvent;
use input::{ClassedEvent, DispatcherOrders};
pub(crate) use settings::WebhookSettings;

const _: () = assert!(WebhookKind::ALL.len() == WEBHOOK_KINDS);

/// Asks endpoints whether they can be reached; for `ringverb check`. Its clones share the certificate authorities.
#[derive(Clone, Debug)]
pub(crate) struct EndpointProbe(client::EndpointClient);

impl EndpointProbe {
    /// `timeout` is for each endpoint.
    #[must_use]
    pub(crate) fn new(timeout: Duration) -> Self {
        Self(client::EndpointClient::new(timeout, 1))
    }

    /// Sends a HEAD request to an endpoint and returns the `Date` of the answer. Blocks.
    ///
    /// # Errors
    /// Why it cannot be reached; the text follows the URL.
    pub(crate) fn reach(&self, url: &str) -> Result<Option<String>, String> {
        self.0.probe_with_head(url).map_err(|failure| failure.to_string())
    }
}

/// A worker's end of its ring. Only that worker's thread uses it.
#[derive(Debug)]
pub(crate) struct Feed {
    ring: Producer<ClassedEvent>,
    budget: Arc<RingBudget>,
    doorbell: Arc<Doorbell>,
    counters: Arc<WebhookCounters>,
    worker: usize,
    /// An event was pushed since the dispatcher was woken.
    must_wake: Cell<bool>,
}

/// The dispatcher's end of a worker's ring.
type FeedEnd = (Consumer<ClassedEvent>, Arc<RingBudget>);

impl Feed {
    fn new(
        worker: usize,
        apps: &Apps,
        ring_events: usize,
        doorbell: Arc<Doorbell>,
        counters: Arc<WebhookCounters>,
    ) -> (Self, FeedEnd) {
        let (ring, out) = RingBuffer::new(ring_events);
        let budget = Arc::new(RingBudget::new(apps, ring_events));
        let must_wake = Cell::new(false);
        let end = (out, budget.clone());
        (Self { ring, budget, doorbell, counters, worker, must_wake }, end)
    }

    /// Pushes an event that a webhook wants (`App::wants_webhook`). Drops and counts it if its share of the ring is
    /// full. Never blocks.
    pub(crate) fn push(&mut self, event: WebhookEvent) {
        let (app, class, kind) = (event.app, Class::of(&event), event.kind());
        let mut has_room = self.budget.reserve(app, class);
        // Counted first: the dispatcher may pop it at once, and a depth below zero would wrap.
        let depth = self.counters.rings().get(self.worker).filter(|_| has_room);
        depth.into_iter().for_each(|depth| depth.add(1));
        if has_room && self.ring.push((class, event)).is_err() {
            depth.into_iter().for_each(|depth| depth.sub(1));
            self.budget.release(app, class);
            has_room = false;
        }
        if !has_room {
            self.counters.dropped_by_workers.add(1);
            self.counters.dropped_by_workers_of.add(kind as usize, 1);
        }
        self.must_wake.set(true);
    }

    /// Wakes the dispatcher if something was pushed. Called once a tick; costs nothing if nothing was pushed.
    pub(crate) fn wake_dispatcher(&self) {
        if self.must_wake.take() {
            // The store of the ring comes before the load of the doorbell. `Dispatcher::sleep` has the same fence
            // between its store of the doorbell and its load of the ring, so one of the two sees the other.
            fence(Ordering::SeqCst);
            self.doorbell.ring();
        }
    }
}

/// The webhooks of all apps. The caller ends them with `finish`.
#[derive(Debug)]
pub(crate) struct Webhooks {
    /// The grace period, sent once.
    finish: Sender<Duration>,
    doorbell: Arc<Doorbell>,
    counters: Arc<WebhookCounters>,
    changes: WebhookChanges,
    dispatcher: JoinHandle<()>,
}

/// Starts the webhooks, with one feed for each worker. Without an endpoint only the dispatcher runs, and sleeps. Its
/// threads may run where the caller may: not to be called from a pinned thread.
///
/// # Errors
/// When the system gives no thread or no descriptor.
pub(crate) fn start(
    apps: Arc<Apps>,
    workers: usize,
    settings: WebhookSettings,
    live: Arc<EventLog>,
) -> io::Result<(Webhooks, Vec<Feed>)> {
    let doorbell = Arc::new(Doorbell::new()?);
    let counters = Arc::new(WebhookCounters::new(WEBHOOKS_MAX, workers));
    let (feeds, rings): (Vec<Feed>, Vec<_>) = (0..workers)
        .map(|worker| {
            let (doorbell, counters) = (doorbell.clone(), counters.clone());
            Feed::new(worker, &apps, settings.ring_events, doorbell, counters)
        })
        .unzip();
    let (finish, finishing) = std::sync::mpsc::channel();
    let (changes, changed) = std::sync::mpsc::channel();
    let dispatcher = dispatcher::Dispatcher::new(
        apps,
        settings,
        rings,
        doorbell.clone(),
        counters.clone(),
        live,
        DispatcherOrders { finishing, changed },
    );
    let dispatcher =
        std::thread::Builder::new().name("webhooks".to_owned()).spawn(move || dispatcher.run())?;
    let changes = WebhookChanges { changes, doorbell: doorbell.clone() };
    Ok((Webhooks { finish, doorbell, counters, changes, dispatcher }, feeds))
}

/// Changes the endpoints while they are in use.
#[derive(Clone, Debug)]
pub(crate) struct WebhookChanges {
    changes: Sender<Arc<Apps>>,
    doorbell: Arc<Doorbell>,
}

impl WebhookChanges {
    /// The apps from now on, with their endpoints. Call it before a worker uses them. An endpoint that stays keeps what
    /// waits for it. Events that wait for a removed endpoint are still sent there.
    pub(crate) fn apply(&self, apps: Arc<Apps>) {
        // The dispatcher has ended if this fails, and then nothing is sent any longer.
        self.changes.send(apps).ok();
        fence(Ordering::SeqCst);
        self.doorbell.ring();
    }
}

impl Webhooks {
    #[must_use]
    pub(crate) fn changes(&self) -> WebhookChanges {
        self.changes.clone()
    }

    /// They may be read after the end, too.
    #[must_use]
    pub(crate) fn counters(&self) -> Arc<WebhookCounters> {
        self.counters.clone()
    }

    /// Sends everything in the rings, delayed leaves and events between attempts at once, and ends. That takes at most
    /// `grace`, or `WebhookSettings::failing_end` if all remaining endpoints only refuse. The remaining events are then
    /// discarded, counted and logged. Call it when the workers have drained.
    pub(crate) fn finish(self, grace: Duration) {
        // Neither can fail: the dispatcher runs until it receives this, and a panic of it ends the process.
        self.finish.send(grace).ok();
        fence(Ordering::SeqCst);
        self.doorbell.ring();
        self.dispatcher.join().ok();
    }
}
