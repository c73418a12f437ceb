//! The thread between workers and senders. It empties the rings, passes events through the gate, and queues them for
//! endpoints.
//!
//! It waits for events only, never for an endpoint. So a ring is full only if the workers produce more than this thread
//! can read. Starts a sender when an endpoint has events, and reports dropped events. Owns the gate and the handles of
//! the senders; does not post. Limits: `EVENTS_PER_PASS` for fairness between rings; `budget.rs` for the rest.
//!
//! Cost: one thread, which sleeps without events, and one JSON text for an event, whatever the number of endpoints.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rtrb::Consumer;

use super::WebhookSettings;
use super::batch::EventJson;
use super::budget::{Class, RingBudget};
use super::client::EndpointClient;
use super::gate::Gate;
use super::input::{ClassedEvent, DispatcherOrders, EndpointTarget};
use super::report;
use super::sender::{self, EndedSender, PushError, SenderHandle, SenderShared};
use super::time::{WebhookClock, add_time, unix_ms};
use crate::app::{AppIndex, Apps, WebhookKind};
use crate::clock::Moment;
use crate::config::validate::WEBHOOKS_MAX;
use crate::config::webhook_url;
use crate::counters::{WEBHOOK_KINDS, WebhookCounters};
use crate::event_log::EventLog;
use crate::latest_value::LatestValue;
use crate::mailbox::Doorbell;
use crate::pusher::webhook_event::WebhookEvent;

/// Events read from one ring before the next ring is read.
const EVENTS_PER_PASS: usize = 1024;
/// Pause after a pass with few events: during it, workers need not wake this thread, which would cost them a system
/// call a tick.
const PAUSE_AFTER_SMALL_PASS: Duration = Duration::from_millis(5);
/// Longest sleep. The doorbell ends it earlier if there is anything to do.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);
/// How often the end checks whether an endpoint is still worth waiting for.
const END_STEP: Duration = Duration::from_millis(50);
/// Senders of removed endpoints that still have events, for which the end of the server waits. Beyond it, the oldest
/// are not waited for.
const REMOVED_SENDERS_MAX: usize = WEBHOOKS_MAX;
/// Losses of one kind are reported once in this time.
const LOSS_REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// A webhook of an app, as it is configured now.
struct Endpoint {
    /// Into `App::webhooks`, for the kinds and prefixes that it wants. Changes with the configuration.
    webhook_index: usize,
    target: Arc<EndpointTarget>,
    /// `None` until the first event, and after a sender has ended for lack of events.
    sender: Option<SenderHandle>,
    losses: LostEvents,
}

/// Events that were dropped and not yet reported.
#[derive(Default)]
struct LostEvents {
    by_kind: [u64; WEBHOOK_KINDS],
    quiet_until: Moment,
    /// Why the last one was dropped. A line has one reason.
    last_reason: DropReason,
}

#[derive(Clone, Copy, Debug, Default)]
enum DropReason {
    #[default]
    Full,
    NoThread,
}

impl DropReason {
    /// To be read after "because".
    fn sentence(self) -> &'static str {
        match self {
            Self::Full => {
                "its queue is full. Make the backend answer faster (work in a queue), configure fewer events, or \
                 raise RINGVERB_WEBHOOK_QUEUE_MAX"
            }
            Self::NoThread => {
                "the system starts no more threads. Raise the limit of processes (ulimit -u, pids.max, TasksMax)"
            }
        }
    }
}

impl LostEvents {
    fn has_any(&self) -> bool {
        self.by_kind.iter().any(|count| *count > 0)
    }

    /// The losses as text and forgets them, if there are any and the interval is over.
    fn due_report(&mut self, now: Moment) -> Option<String> {
        if !self.has_any() || now < self.quiet_until {
            return None;
        }
        self.quiet_until = add_time(now, LOSS_REPORT_INTERVAL);
        let by_kind = std::mem::take(&mut self.by_kind);
        let kinds = WebhookKind::ALL.iter().zip(&by_kind).filter(|(_, count)| **count > 0);
        let kinds: Vec<String> =
            kinds.map(|(kind, count)| format!("{} {count}", kind.name())).collect();
        let count = report::event_count(by_kind.iter().sum::<u64>());
        Some(format!("{count} dropped ({})", kinds.join(", ")))
    }
}

pub(super) struct Dispatcher {
    sender_shared: Arc<SenderShared>,
    rings: Vec<(Consumer<ClassedEvent>, Arc<RingBudget>)>,
    doorbell: Arc<Doorbell>,
    orders: DispatcherOrders,
    /// The grace period that `finish` was called with.
    grace: Option<Duration>,
    gate: Gate,
    /// The same as in `sender_shared`, without its lock.
    apps: Arc<Apps>,
    endpoints: Vec<Endpoint>,
    /// Senders of removed endpoints, while events wait for them.
    removed_senders: Vec<EndedSender>,
    /// By app: indexes of `endpoints`.
    endpoints_of: Vec<Vec<usize>>,
    /// Indexes of `endpoints` with losses that are not reported.
    endpoints_with_losses: Vec<usize>,
    /// Losses of the workers' rings that were reported.
    workers_losses_reported: [u64; WEBHOOK_KINDS],
    workers_losses: LostEvents,
    /// Each sender has a copy; the channel closes when the last of them ends.
    alive: Sender<Infallible>,
    all_ended: Receiver<Infallible>,
    /// Events that passed the gate; empty between two passes.
    passed_events: Vec<ClassedEvent>,
}

impl Dispatcher {
    pub(super) fn new(
        apps: Arc<Apps>,
        settings: WebhookSettings,
        rings: Vec<(Consumer<ClassedEvent>, Arc<RingBudget>)>,
        doorbell: Arc<Doorbell>,
        counters: Arc<WebhookCounters>,
        live: Arc<EventLog>,
        orders: DispatcherOrders,
    ) -> Self {
        let (endpoints, endpoints_of, _) = updated_endpoints(&apps, Vec::new(), []);
        let sender_shared = SenderShared {
            client: EndpointClient::new(settings.timeout, WEBHOOKS_MAX),
            apps: LatestValue::new(apps.clone()),
            settings,
            clock: WebhookClock::start(),
            counters,
            live,
            bytes: AtomicUsize::new(0),
            public_bytes: AtomicUsize::new(0),
            must_stop: AtomicBool::new(false),
        };
        let (alive, all_ended) = channel();
        Self {
            gate: Gate::new(settings.debounce),
            sender_shared: Arc::new(sender_shared),
            rings,
            doorbell,
            orders,
            apps,
            removed_senders: Vec::new(),
            grace: None,
            endpoints,
            endpoints_of,
            endpoints_with_losses: Vec::new(),
            workers_losses_reported: [0; WEBHOOK_KINDS],
            workers_losses: LostEvents::default(),
            alive,
            all_ended,
            passed_events: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        let grace = loop {
            // Checked before the rings are emptied: events that were pushed before the end are in them.
            self.apply_app_changes();
            if let Some(grace) = self.requested_grace() {
                break grace;
            }
            let events_read = self.dispatch();
            self.report_losses(self.sender_shared.clock.now());
            match events_read {
                0 => self.sleep(),
                1..EVENTS_PER_PASS => pause_after_small_pass(),
                _ => {}
            }
        };
        for _ in 0..=self.sender_shared.settings.ring_events / EVENTS_PER_PASS {
            self.dispatch();
        }
        self.gate.release_all(&mut self.passed_events);
        self.sender_shared.counters.leaves_delayed.set(0);
        self.route();
        self.report_losses(Moment(u64::MAX));
        self.finish(grace);
    }

    fn requested_grace(&mut self) -> Option<Duration> {
        if let Ok(grace) = self.orders.finishing.try_recv() {
            self.grace = Some(grace);
        }
        self.grace
    }

    /// Applies changes of the endpoints. A worker pushes no event of a new app before `WebhookChanges::apply` has sent
    /// it. Returns whether there was any.
    fn apply_app_changes(&mut self) -> bool {
        let mut has_changed = false;
        while let Ok(apps) = self.orders.changed.try_recv() {
            has_changed = true;
            for (_, budget) in &self.rings {
                budget.apply(&apps);
            }
            self.sender_shared.apps.set(apps.clone());
            self.removed_senders.retain(|sender| sender.events() > 0);
            let used_numbers = self.removed_senders.iter().map(|sender| sender.target.number);
            let (endpoints, endpoints_of, removed) =
                updated_endpoints(&apps, std::mem::take(&mut self.endpoints), used_numbers);
            (self.apps, self.endpoints, self.endpoints_of) = (apps, endpoints, endpoints_of);
            // Indexes of endpoints have changed. Losses that are not reported yet are found again.
            self.endpoints_with_losses = (0..self.endpoints.len())
                .filter(|index| self.endpoints[*index].losses.has_any())
                .collect();
            for endpoint in removed {
                self.sender_shared.counters.set_failing(endpoint.target.number, None);
                let sender = endpoint.sender.map(|sender| sender.finish(endpoint.target));
                self.removed_senders.extend(sender);
            }
            let excess = self.removed_senders.len().saturating_sub(REMOVED_SENDERS_MAX);
            self.removed_senders.drain(..excess);
        }
        has_changed
    }

    /// Reads each ring up to `EVENTS_PER_PASS`, and queues the events that may be sent by now. Returns the number of
    /// events read.
    fn dispatch(&mut self) -> usize {
        let now = self.sender_shared.clock.now();
        self.gate.release_due(now, &mut self.passed_events);
        let counters = &self.sender_shared.counters;
        let mut events_read = 0;
        for (worker, (ring, budget)) in self.rings.iter_mut().enumerate() {
            let depth = counters.rings().get(worker);
            for _ in 0..EVENTS_PER_PASS {
                let Ok((class, event)) = ring.pop() else { break };
                depth.into_iter().for_each(|depth| depth.sub(1));
                budget.release(event.app, class);
                events_read += 1;
                self.gate.accept(class, event, now, &mut self.passed_events);
            }
        }
        counters.leaves_delayed.set(self.gate.leaves_delayed() as u64);
        counters.leaves_released_early.add(self.gate.take_released_early());
        self.route();
        events_read
    }

    fn sleep(&mut self) {
        // A ring before this had no effect: check once more for everything that it may have announced.
        self.doorbell.set_asleep();
        fence(Ordering::SeqCst);
        let has_events = self.rings.iter().any(|(ring, _)| !ring.is_empty());
        if !has_events && !self.apply_app_changes() && self.requested_grace().is_none() {
            let clock = self.sender_shared.clock;
            let due = self.gate.next_due().map_or(SLEEP_MAX, |due| clock.until(due));
            let losses_due =
                !self.endpoints_with_losses.is_empty() || self.workers_losses.has_any();
            self.doorbell.wait_for(if losses_due { due.min(LOSS_REPORT_INTERVAL) } else { due });
        }
        self.doorbell.set_awake();
    }

    /// Queues the event for every endpoint that wants it.
    fn route(&mut self) {
        let mut passed = std::mem::take(&mut self.passed_events);
        for (class, event) in passed.drain(..) {
            if usize::from(event.app.0) >= self.endpoints_of.len() {
                self.apply_app_changes();
            }
            let webhooks = &self.apps.get(event.app).webhooks;
            let mut event_json: Option<EventJson> = None;
            for &index in &self.endpoints_of[usize::from(event.app.0)] {
                let endpoint = &mut self.endpoints[index];
                if !webhooks[endpoint.webhook_index].wants(event.kind(), &event.channel) {
                    continue;
                }
                let event_json = event_json.get_or_insert_with(|| event_json_of(class, &event));
                if let Err(why) = endpoint.queue(event_json, &self.sender_shared, &self.alive) {
                    let kind = event.kind() as usize;
                    self.sender_shared.counters.dropped_at_queues.add(1);
                    self.sender_shared.counters.dropped_at_queues_of.add(kind, 1);
                    if !endpoint.losses.has_any() {
                        self.endpoints_with_losses.push(index);
                    }
                    endpoint.losses.by_kind[kind] += 1;
                    endpoint.losses.last_reason = why;
                }
            }
        }
        self.passed_events = passed;
    }

    /// Reports dropped events if the interval is over; `now` may be the maximum.
    fn report_losses(&mut self, now: Moment) {
        let endpoints = &mut self.endpoints;
        self.endpoints_with_losses.retain(|index| {
            let Endpoint { target, losses, .. } = &mut endpoints[*index];
            let Some(events) = losses.due_report(now) else { return true };
            let why = losses.last_reason.sentence();
            tracing::warn!(
                event = "webhook_events_dropped",
                "webhook {}: {events}, because {why}",
                target.shown
            );
            false
        });
        let dropped = self.sender_shared.counters.dropped_by_workers_of.get();
        for (kind, reported) in self.workers_losses_reported.iter_mut().enumerate() {
            self.workers_losses.by_kind[kind] += dropped[kind] - *reported;
            *reported = dropped[kind];
        }
        if let Some(events) = self.workers_losses.due_report(now) {
            tracing::warn!(
                event = "webhook_events_dropped",
                "webhooks: {events}, because the workers sent them faster than the dispatcher could read them. \
                 Configure fewer kinds of events (RINGVERB_WEBHOOK_EVENTS), or give the host another core"
            );
        }
    }

    /// Lets the senders send their events until the time is over.
    fn finish(mut self, grace: Duration) {
        let senders = self.endpoints.iter_mut().filter_map(|endpoint| {
            let sender = endpoint.sender.take()?;
            Some(sender.finish(endpoint.target.clone()))
        });
        let ended_senders: Vec<EndedSender> = senders.chain(self.removed_senders).collect();
        drop(self.alive);
        let (clock, failing_end) =
            (self.sender_shared.clock, self.sender_shared.settings.failing_end);
        let client = &self.sender_shared.client;
        let start = clock.now();
        loop {
            let left = grace.saturating_sub(clock.since(start));
            // Nothing is ever sent: this ends with the last sender or with the time.
            let ended = self.all_ended.recv_timeout(left.min(END_STEP));
            let now = clock.now();
            // An endpoint that only refuses gets no more than a moment, so that it does not delay the end. The same if
            // its requests wait for the certificate authorities of the host.
            let is_worth_waiting = ended_senders.iter().any(|sender| {
                let may_send = !client.waits_for_authorities(&sender.target.url);
                sender.may_accept(start, now, failing_end)
                    && (may_send || now < add_time(start, failing_end))
            });
            if ended == Err(RecvTimeoutError::Disconnected) || left.is_zero() || !is_worth_waiting {
                break;
            }
        }
        self.sender_shared.must_stop.store(true, Ordering::Release);
        // Before the connections are cut, so that what is counted here is what the endpoints did not accept.
        for ended in ended_senders.iter().filter(|ended| ended.events() > 0) {
            let (target, discarded) = (&ended.target, ended.discarded());
            self.sender_shared.counters.lost_at_end.add(discarded.count() as u64);
            let app = &self.apps.get(target.app).id;
            tracing::warn!(
                event = "webhook_events_discarded",
                "webhook {} of app {app}: {}",
                target.shown,
                discarded.sentence()
            );
        }
        self.sender_shared.client.close_for_all();
        ended_senders.iter().for_each(EndedSender::wake);
    }
}

impl Endpoint {
    /// Queues an event, with a new sender if the last one has ended.
    ///
    /// # Errors
    /// When it is dropped.
    fn queue(
        &mut self,
        event_json: &EventJson,
        shared: &Arc<SenderShared>,
        alive: &Sender<Infallible>,
    ) -> Result<(), DropReason> {
        match self.sender.as_ref().map(|sender| sender.push(event_json, shared)) {
            Some(Ok(())) => return Ok(()),
            Some(Err(PushError::Full)) => return Err(DropReason::Full),
            Some(Err(PushError::Ended)) | None => {}
        }
        self.sender = None;
        let sender =
            sender::start(shared, &self.target, alive.clone()).map_err(|_| DropReason::NoThread)?;
        self.sender.insert(sender).push(event_json, shared).map_err(|_| DropReason::Full)
    }
}

/// The endpoints of these apps, their indexes by app, and earlier endpoints that were removed. An endpoint with the
/// same app and URL keeps its sender and number. A new one has none of `used_numbers`: senders of removed endpoints
/// still write the gauges of their numbers.
fn updated_endpoints(
    apps: &Apps,
    mut before: Vec<Endpoint>,
    used_numbers: impl IntoIterator<Item = usize>,
) -> (Vec<Endpoint>, Vec<Vec<usize>>, Vec<Endpoint>) {
    let mut endpoints = Vec::new();
    let mut endpoints_of = Vec::new();
    let mut numbers: HashSet<usize> =
        before.iter().map(|endpoint| endpoint.target.number).chain(used_numbers).collect();
    let mut free_number = 0;
    for (app, webhooks) in apps.iter().map(|app| &app.webhooks).enumerate() {
        // `Apps` has no more than an index can name.
        let app = AppIndex(u16::try_from(app).unwrap_or(u16::MAX));
        let first = endpoints.len();
        for (index, webhook) in webhooks.iter().enumerate() {
            let is_same = |endpoint: &Endpoint| {
                endpoint.target.app == app && endpoint.target.url == webhook.url
            };
            if let Some(same) = before.iter().position(is_same) {
                endpoints.push(Endpoint { webhook_index: index, ..before.swap_remove(same) });
                continue;
            }
            while !numbers.insert(free_number) {
                free_number += 1;
            }
            let target = EndpointTarget {
                app,
                number: free_number,
                url: webhook.url.clone(),
                shown: webhook_url::shown(&webhook.url),
            };
            let (target, losses) = (Arc::new(target), LostEvents::default());
            endpoints.push(Endpoint { webhook_index: index, target, sender: None, losses });
        }
        endpoints_of.push((first..endpoints.len()).collect());
    }
    (endpoints, endpoints_of, before)
}

fn event_json_of(class: Class, event: &WebhookEvent) -> EventJson {
    let mut json = Vec::with_capacity(128);
    event.write(&mut json);
    let (kind, channel) = (event.kind(), event.channel.clone());
    EventJson { class, kind, channel, json: json.into(), queued_ms: unix_ms() }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread is no worker's, and ended_senders on purpose"
)]
fn pause_after_small_pass() {
    std::thread::sleep(PAUSE_AFTER_SMALL_PASS);
}

#[cfg(test)]
mod tests;
