//! The thread of one endpoint: collects events into requests and posts them one at a time.
//!
//! The thread may hang in a request: only its own queue waits for it. It ends after `WebhookSettings::idle` without
//! events. Owns the endpoint's backlog and reports; all senders share one HTTP client. Does not decide what is next, or
//! what happens to refused events (`backlog.rs`), and does not limit its queue (`sender/handle.rs` does).
//!
//! Limits: events and bytes by class for the endpoint, and bytes for all endpoints together (`sender/load.rs`). Cost:
//! one thread for an endpoint with events; for a request the allocation of its body, and what ureq needs.

mod handle;
mod load;

use std::convert::Infallible;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender as Channel, TryRecvError, channel};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::WebhookSettings;
use super::backlog::{Attempt, Backlog, BacklogEntry, GiveUpReason, Next};
use super::batch::{self, Amount, EventJson};
use super::budget::Class;
use super::client::DeliveryFailure;
use super::input::EndpointTarget;
use super::report::{self, EndpointReport};
use super::retry::{RetryPolicy, RetryVerdict};
use super::time::unix_ms;
use crate::clock::Moment;
use crate::event_log::{self, EventLogEntry, EventLogKind};
pub(super) use handle::{EndedSender, PushError, SenderHandle};
pub(super) use load::SenderShared;
use load::{ENDED, EndpointLoad, NOT_FAILING};

/// Stack of a sender. Address space only, until it is used: TLS and the resolver take about 100 KiB.
const STACK_BYTES: usize = 512 * 1024;
/// The niceness of a sender, so that it yields to the workers, which may be pinned to all cores.
const NICE: i32 = 10;

struct Sender {
    sender_shared: Arc<SenderShared>,
    target: Arc<EndpointTarget>,
    queue: Receiver<EventJson>,
    /// The dispatcher has dropped its end: no more events come, and the sender ends when none is left.
    has_queue_ended: bool,
    load: Arc<EndpointLoad>,
    /// Events that left the queue and are neither delivered nor given up.
    backlog: Backlog,
    /// The last failure, to be read after the URL.
    failure: String,
    report: EndpointReport,
    /// Dropped with the thread, which notifies the dispatcher.
    _alive: Channel<Infallible>,
}

/// Starts the thread of an endpoint.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start(
    shared: &Arc<SenderShared>,
    target: &Arc<EndpointTarget>,
    alive: Channel<Infallible>,
) -> io::Result<SenderHandle> {
    let (queue, receiver) = channel();
    let load = Arc::new(EndpointLoad::default());
    let WebhookSettings { retry_first, retry, queue_events_max, .. } = shared.settings;
    let policy = RetryPolicy { first: retry_first, limit: retry };
    let max = Amount { events: queue_events_max, bytes: super::settings::ENDPOINT_BYTES_MAX };
    let sender = Sender {
        sender_shared: shared.clone(),
        target: target.clone(),
        queue: receiver,
        has_queue_ended: false,
        load: load.clone(),
        backlog: Backlog::new(policy, max),
        failure: String::new(),
        report: EndpointReport::default(),
        _alive: alive,
    };
    let thread = std::thread::Builder::new()
        .name(format!("webhook-{}", target.number))
        .stack_size(STACK_BYTES)
        .spawn(move || sender.run())?;
    Ok(SenderHandle { queue, load, thread: thread.thread().clone() })
}

impl Sender {
    fn run(mut self) {
        // On Linux a thread has its own niceness. Without it the sender works as well.
        rustix::process::setpriority_process(None, NICE).ok();
        while let Some(attempt) = self.next_attempt() {
            self.store_sample(attempt.events().next());
            let body = batch::body(attempt.events(), attempt.unix_ms());
            self.sender_shared.counters.requests.add(1);
            let apps = self.sender_shared.apps.get();
            let app = apps.get(self.target.app);
            let result = self.sender_shared.client.post(&self.target.url, app, &body);
            if self.sender_shared.live.is_watched() {
                self.log_to_console(&attempt, result.as_ref().err());
            }
            match result {
                Ok(()) => self.accepted(&attempt),
                // What is left is counted as lost.
                Err(_) if self.sender_shared.must_stop.load(Ordering::Acquire) => return,
                Err(failure) => self.refused(attempt, &failure),
            }
        }
        self.report_given_up(Moment(u64::MAX));
        if self.has_queue_ended {
            // The endpoint was removed, or the server ends. A request that failed after that has set the gauge again.
            self.sender_shared.counters.set_failing(self.target.number, None);
        }
    }

    /// Waits for what is to be posted next. `None` if nothing will be: the queue has ended and is empty, no event came
    /// for a while, or the time of the end is over.
    fn next_attempt(&mut self) -> Option<Attempt> {
        let sender_shared = self.sender_shared.clone();
        let mut has_waited = false;
        while !sender_shared.must_stop.load(Ordering::Acquire) {
            self.drain();
            // It stays while the request is under way, because its events wait until they are accepted.
            sender_shared.counters.set_oldest(self.target.number, self.backlog.oldest_ms());
            let now = sender_shared.clock.now();
            self.report_given_up(now);
            if self.has_queue_ended {
                self.backlog.make_all_due(now);
            } else if !has_waited && self.backlog.has_partial_batch(now) {
                // Events come in bursts; one request for a burst costs both sides less.
                wait_for_more_events(sender_shared.settings.batch_delay);
                has_waited = true;
                continue;
            }
            let (next, given_up) = self.backlog.next(now, unix_ms());
            let given_up = given_up.into_iter().map(|entry| (entry, GiveUpReason::TooMany));
            self.give_up(&given_up.collect::<Vec<_>>());
            match next {
                Next::Post(attempt) => return Some(attempt),
                Next::Pause(until) => {
                    self.store_sample(self.backlog.first());
                    self.pause_endpoint(until);
                }
                Next::Wait(until) => {
                    self.store_sample(self.backlog.first());
                    self.wait(until);
                }
                Next::Empty if self.has_queue_ended || self.ends_after_idle_time() => return None,
                Next::Empty => {}
            }
        }
        None
    }

    /// Stores a waiting event as an example, which the dispatcher may log at the end.
    fn store_sample(&self, event_json: Option<&EventJson>) {
        let sample = event_json.map(|event_json| (event_json.kind, event_json.channel.clone()));
        *self.load.sample.lock().unwrap_or_else(PoisonError::into_inner) = sample;
    }

    /// Waits until the moment, or the end of the queue.
    fn pause_endpoint(&self, until: Moment) {
        std::thread::park_timeout(self.sender_shared.clock.until(self.or_next_report(until)));
    }

    /// Waits until the moment, the next event or the end of the queue.
    fn wait(&mut self, until: Moment) {
        if self.has_queue_ended {
            return self.pause_endpoint(until);
        }
        let time = self.sender_shared.clock.until(self.or_next_report(until));
        match self.queue.recv_timeout(time) {
            Ok(event_json) => self.backlog.push(event_json),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.has_queue_ended = true,
        }
    }

    /// The moment, or that of the next log line about events that were given up.
    fn or_next_report(&self, until: Moment) -> Moment {
        self.report.next_due().map_or(until, |due| due.min(until))
    }

    /// Waits for the next event; `true` if none comes and the sender ends.
    fn ends_after_idle_time(&mut self) -> bool {
        match self.queue.recv_timeout(self.sender_shared.settings.idle) {
            Ok(event_json) => self.backlog.push(event_json),
            Err(RecvTimeoutError::Disconnected) => self.has_queue_ended = true,
            Err(RecvTimeoutError::Timeout) => {
                let events = &self.load.events;
                let ended = events.compare_exchange(0, ENDED, Ordering::AcqRel, Ordering::Acquire);
                return ended.is_ok();
            }
        }
        false
    }

    /// Reads the queue without waiting: a receiver that waits is woken by each event. `EndpointLoad` limits the queue.
    fn drain(&mut self) {
        loop {
            match self.queue.try_recv() {
                Ok(event_json) => self.backlog.push(event_json),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.has_queue_ended = true;
                    return;
                }
            }
        }
    }

    fn accepted(&mut self, attempt: &Attempt) {
        let now = self.sender_shared.clock.now();
        self.load.failing_since.store(NOT_FAILING, Ordering::Release);
        self.sender_shared.counters.set_failing(self.target.number, None);
        self.sender_shared.counters.delivered.add(attempt.entries.len() as u64);
        self.backlog.accepted(attempt, now);
        self.subtract_from_load(attempt.events());
        if self.backlog.has_no_refused() {
            self.report_recovered();
        }
    }

    fn refused(&mut self, attempt: Attempt, failure: &DeliveryFailure) {
        let sender_shared = self.sender_shared.clone();
        sender_shared.counters.requests_failed.add(1);
        self.failure = failure.to_string();
        let now = sender_shared.clock.now();
        if self.load.failing_since.load(Ordering::Relaxed) == NOT_FAILING {
            self.load.failing_since.store(now.0, Ordering::Release);
            sender_shared.counters.set_failing(self.target.number, Some(unix_ms() / 1_000));
        }
        // Without random numbers the pauses of endpoints are equal, which is no error.
        let random = getrandom::u64().unwrap_or_default();
        let failed = attempt.entries.len();
        let (verdict, retry_after) = (failure.verdict(), failure.retry_after());
        let given_up = self.backlog.refused(attempt, verdict, retry_after, now, random);
        if given_up.is_empty() && verdict != RetryVerdict::Permanent {
            self.report_failing(failed, now);
        }
        self.give_up(&given_up);
    }

    fn give_up(&mut self, given_up: &[(BacklogEntry, GiveUpReason)]) {
        let counters = self.sender_shared.counters.clone();
        for (entry, why) in given_up {
            counters.given_up.add(1);
            counters.given_up_of.add(entry.event_json.kind as usize, 1);
            self.report.note_given_up(&entry.event_json, *why, &self.failure);
        }
        self.subtract_from_load(given_up.iter().map(|(entry, _)| &entry.event_json));
    }

    /// Makes room for other events. `load.events` is last: once it is zero, the dispatcher may see the sender as done.
    fn subtract_from_load<'a>(&self, events: impl Iterator<Item = &'a EventJson>) {
        let by_kind = &self.load.by_kind;
        let events = events.inspect(|event_json| {
            by_kind[event_json.kind as usize].fetch_sub(1, Ordering::Relaxed);
        });
        let amounts = batch::amounts_by_class(events);
        for (amount, load) in amounts.iter().zip(&self.load.by_class) {
            self.sender_shared.bytes.fetch_sub(amount.bytes, Ordering::Relaxed);
            load.bytes.fetch_sub(amount.bytes, Ordering::Relaxed);
            load.events.fetch_sub(amount.events, Ordering::Relaxed);
        }
        let public_bytes = amounts[Class::Public as usize].bytes;
        self.sender_shared.public_bytes.fetch_sub(public_bytes, Ordering::Relaxed);
        let events = amounts.iter().map(|amount| amount.events).sum();
        self.load.events.fetch_sub(events, Ordering::AcqRel);
        self.sender_shared.counters.settled.add(events as u64);
    }

    fn app_id(&self) -> String {
        self.sender_shared.apps.get().get(self.target.app).id.clone()
    }

    /// Only while a console watches the event log: the texts are allocated.
    fn log_to_console(&self, attempt: &Attempt, failure: Option<&DeliveryFailure>) {
        let (cause, outcome) = match failure {
            None => ("delivered", "accepted it".to_owned()),
            Some(failure) => ("failed", failure.to_string()),
        };
        let text = report::attempt_text(&self.target.shown, attempt.events(), &outcome);
        self.sender_shared.live.push_webhook(EventLogEntry {
            unix_ms: unix_ms(),
            kind: EventLogKind::Webhook,
            app: Some(self.target.app),
            socket_id: None,
            channel: attempt.events().next().map(|event_json| event_json.channel.clone()),
            cause,
            text: event_log::cut_text(text.as_bytes()),
        });
    }

    fn report_failing(&mut self, failed: usize, now: Moment) {
        if self.report.note_failure(now) {
            tracing::warn!(
                event = "webhook_failing",
                "webhook {} of app {} {}. Retrying {} for {} s; {}",
                self.target.shown,
                self.app_id(),
                self.failure,
                report::event_count(failed as u64),
                self.sender_shared.settings.retry.as_secs(),
                report::delay_of_other_events(self.backlog.is_paused(now)),
            );
        }
    }

    fn report_given_up(&mut self, now: Moment) {
        if let Some(what) = self.report.due_report(now) {
            tracing::warn!(
                event = "webhook_failing",
                "webhook {} of app {}: {what}",
                self.target.shown,
                self.app_id()
            );
        }
    }

    fn report_recovered(&mut self) {
        if let Some(since) = self.report.end_failure() {
            tracing::info!(
                event = "webhook_recovered",
                "webhook {} accepts requests again, {} s after its failure was reported",
                self.target.shown,
                self.sender_shared.clock.since(since).as_secs(),
            );
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread is one endpoint's, and waits on purpose"
)]
fn wait_for_more_events(time: Duration) {
    std::thread::sleep(time);
}
