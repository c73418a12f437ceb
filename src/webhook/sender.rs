//! One endpoint's thread: gathers events into batches and posts one after the other, each until it is answered with
//! 2xx or given up. It may hang as long as it likes: nobody waits for it but its own queue.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender as Channel, TryRecvError, channel};
use std::thread::Thread;
use std::time::Duration;

use super::batch::{self, Batch, Line, Waiting};
use super::budget::{CLASSES, Class};
use super::client::{Client, Failure};
use super::time::{Clock, later, unix_ms};
use super::{Settings, Target};
use crate::app::{App, Apps};
use crate::clock::Moment;
use crate::counters::WebhookCounters;

/// Stack of a sender. Address space only, until it is used: TLS and the resolver take about 100 KiB.
const STACK_BYTES: usize = 512 * 1024;
/// Failures of one endpoint are told once in this time, in milliseconds.
const WARN_AGAIN_MS: u64 = 60_000;
/// How much a sender yields to the workers, which may be pinned to all cores there are.
const NICE: i32 = 10;

/// What senders share with the dispatcher.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) apps: Arc<Apps>,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) client: Client,
    pub(super) counters: Arc<WebhookCounters>,
    /// Bytes that wait for all endpoints together; and those of events that anybody can cause.
    pub(super) bytes: AtomicUsize,
    pub(super) open_bytes: AtomicUsize,
    /// The time to finish is over.
    pub(super) stop: AtomicBool,
}

/// What waits for an endpoint, the batch under way included. Only the dispatcher adds, only the sender takes away.
#[derive(Debug, Default)]
struct Load {
    /// Of all classes.
    events: AtomicUsize,
    by_class: [ClassLoad; CLASSES],
}

#[derive(Debug, Default)]
struct ClassLoad {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

/// In `Load::events`: the sender has ended.
const ENDED: usize = usize::MAX;

/// Why an event was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// So many events or bytes wait that there is no room.
    Full,
    /// No sender runs: it ended, because it had nothing to do.
    Ended,
}

/// The dispatcher's end of a sender.
pub(super) struct Handle {
    queue: Channel<(Class, Line)>,
    load: Arc<Load>,
    thread: Thread,
}

impl Handle {
    /// Queues an event. Never blocks.
    ///
    /// # Errors
    /// When it is not taken.
    pub(super) fn push(&self, class: Class, line: &Line, common: &Common) -> Result<(), Refused> {
        let load = &self.load.by_class[class as usize];
        let is_full = load.is_full(class, common);
        // Counted before it is sent: a sender that sees zero may end, and then no event is on its way.
        let counted =
            self.load.events.fetch_update(Ordering::AcqRel, Ordering::Acquire, |events| {
                (events != ENDED && !is_full).then(|| events + 1)
            });
        match counted {
            Err(ENDED) => return Err(Refused::Ended),
            Err(_) => return Err(Refused::Full),
            Ok(_) => {}
        }
        load.events.fetch_add(1, Ordering::Relaxed);
        load.bytes.fetch_add(line.len(), Ordering::Relaxed);
        common.add_bytes(class, line.len());
        self.queue.send((class, line.clone())).map_err(|_| Refused::Ended)
    }

    /// Ends the queue: the sender sends what is left, without pauses that are over now, and ends.
    pub(super) fn finish(self) -> Rest {
        let Self { queue, load, thread } = self;
        // It looks into the queue when it is woken.
        drop(queue);
        thread.unpark();
        Rest { load, thread }
    }
}

impl ClassLoad {
    fn is_full(&self, class: Class, common: &Common) -> bool {
        let bytes = self.bytes.load(Ordering::Relaxed);
        // One request's worth each may have whatever hangs: others must not fill the place of those that work.
        let others_are_full = common.bytes.load(Ordering::Relaxed) >= super::ALL_BYTES_MAX
            || class == Class::Open
                && common.open_bytes.load(Ordering::Relaxed) >= super::ALL_OPEN_BYTES_MAX;
        bytes >= class.share(super::ENDPOINT_BYTES_MAX)
            || others_are_full && bytes >= batch::BYTES_MAX
            || self.events.load(Ordering::Relaxed) >= class.share(common.settings.queue_events_max)
    }
}

impl Common {
    fn add_bytes(&self, class: Class, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if class == Class::Open {
            self.open_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// A sender that gets nothing more.
pub(super) struct Rest {
    load: Arc<Load>,
    thread: Thread,
}

impl Rest {
    /// Events that are not delivered and not given up.
    pub(super) fn events(&self) -> usize {
        Some(self.load.events.load(Ordering::Acquire))
            .filter(|events| *events != ENDED)
            .unwrap_or(0)
    }

    /// Wakes it from its pause, for instance to see `Common::stop`.
    pub(super) fn wake(&self) {
        self.thread.unpark();
    }
}

/// How it went with the endpoint so far, for the log.
#[derive(Debug, Default)]
struct Mood {
    /// When its failure was told; `None` if it is well, or nobody was told otherwise.
    told_failing: Option<Moment>,
    /// When a failure may be told again.
    quiet_until: Moment,
}

struct Sender {
    common: Arc<Common>,
    target: Arc<Target>,
    queue: Receiver<(Class, Line)>,
    /// The queue has not ended.
    is_open: bool,
    load: Arc<Load>,
    /// Taken from the queue, not yet sent.
    waiting: Waiting,
    mood: Mood,
    /// Dropped with the thread: that tells the dispatcher.
    _alive: Channel<Infallible>,
}

/// Starts the thread of an endpoint.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start(
    common: &Arc<Common>,
    target: &Arc<Target>,
    alive: Channel<Infallible>,
) -> io::Result<Handle> {
    let (queue, receiver) = channel();
    let load = Arc::new(Load::default());
    let sender = Sender {
        common: common.clone(),
        target: target.clone(),
        queue: receiver,
        is_open: true,
        load: load.clone(),
        waiting: Waiting::default(),
        mood: Mood::default(),
        _alive: alive,
    };
    let thread = std::thread::Builder::new()
        .name(format!("webhook-{}", target.number))
        .stack_size(STACK_BYTES)
        .spawn(move || sender.run())?;
    Ok(Handle { queue, load, thread: thread.thread().clone() })
}

impl Sender {
    fn run(mut self) {
        // On Linux a thread has its own niceness. Without it the sender works as well.
        let _ = rustix::process::setpriority_process(None, NICE);
        while let Some(batch) = self.next_batch() {
            if !self.deliver(&batch) {
                return;
            }
            for (amount, load) in batch.amounts.iter().zip(&self.load.by_class) {
                self.common.bytes.fetch_sub(amount.bytes, Ordering::Relaxed);
                load.bytes.fetch_sub(amount.bytes, Ordering::Relaxed);
                load.events.fetch_sub(amount.events, Ordering::Relaxed);
            }
            let open = batch.amounts[Class::Open as usize].bytes;
            self.common.open_bytes.fetch_sub(open, Ordering::Relaxed);
            self.load.events.fetch_sub(batch.events, Ordering::AcqRel);
        }
    }

    /// Waits for events; `None` to end.
    fn next_batch(&mut self) -> Option<Batch> {
        self.drain();
        while self.waiting.is_empty() {
            if !self.is_open {
                return None;
            }
            let ended = match self.queue.recv_timeout(self.common.settings.idle) {
                Ok((class, line)) => {
                    self.waiting.push(class, line);
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    self.load.events.compare_exchange(0, ENDED, Ordering::AcqRel, Ordering::Acquire)
                }
            };
            if ended.is_ok() {
                return None;
            }
        }
        self.drain();
        if self.is_open && !batch::is_full(&self.waiting) {
            // Events come in crowds; one request for the crowd is cheaper for everybody.
            linger(self.common.settings.linger);
            self.drain();
        }
        batch::take(&mut self.waiting, unix_ms())
    }

    /// Takes what is in the queue, without waiting: a receiver that waits is woken by each event. `Load` bounds it.
    fn drain(&mut self) {
        loop {
            match self.queue.try_recv() {
                Ok((class, line)) => self.waiting.push(class, line),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.is_open = false;
                    return;
                }
            }
        }
    }

    /// Posts until it is answered with 2xx or given up; `false` to end without either.
    fn deliver(&mut self, batch: &Batch) -> bool {
        let common = self.common.clone();
        let Settings { retry_first, retry, .. } = common.settings;
        let events = batch.events as u64;
        let began = common.clock.now();
        for failed in 0.. {
            let failure = match common.client.post(&self.target.url, self.app(), &batch.body) {
                Ok(()) => {
                    common.counters.delivered.add(events);
                    self.tell_recovered();
                    return true;
                }
                Err(failure) => failure,
            };
            if common.stop.load(Ordering::Acquire) {
                return false;
            }
            common.counters.requests_failed.add(1);
            let elapsed = common.clock.since(began);
            // Without randomness the endpoints come back together; they come back.
            let random = getrandom::u64().unwrap_or_default();
            let Some(pause) = batch::pause(failed, elapsed, retry_first, retry, random) else {
                common.counters.given_up.add(events);
                self.tell_given_up(&failure, batch.events, elapsed);
                return true;
            };
            self.tell_failing(&failure, batch.events);
            // At the end there are seconds, not minutes.
            let pause = if self.is_open { pause } else { pause.min(retry_first) };
            if !self.pause(pause) {
                return false;
            }
        }
        true
    }

    /// Waits before the next attempt; less if the queue ends. `false` to end.
    fn pause(&mut self, pause: Duration) -> bool {
        let clock = self.common.clock;
        let end = later(clock.now(), pause);
        let was_open = self.is_open;
        while !self.common.stop.load(Ordering::Acquire) {
            // Only so is the end of the queue seen.
            self.drain();
            if clock.now() >= end || self.is_open != was_open {
                return true;
            }
            std::thread::park_timeout(clock.until(end));
        }
        false
    }

    fn app(&self) -> &App {
        self.common.apps.get(self.target.app)
    }

    fn tell_failing(&mut self, failure: &Failure, events: usize) {
        let now = self.common.clock.now();
        if self.mood.told_failing.is_some() || now < self.mood.quiet_until {
            return;
        }
        self.mood.told_failing = Some(now);
        self.mood.quiet_until = Moment(now.0.saturating_add(WARN_AGAIN_MS));
        tracing::warn!(
            "webhook {} {failure}. {events} event(s) of app {} wait and are sent again for {} s",
            self.target.shown,
            self.app().id,
            self.common.settings.retry.as_secs(),
        );
    }

    fn tell_given_up(&mut self, failure: &Failure, events: usize, elapsed: Duration) {
        self.mood.told_failing = Some(self.common.clock.now());
        tracing::warn!(
            "webhook {} {failure}. {events} event(s) of app {} are given up after {} s; \
             RINGVERB_WEBHOOK_RETRY sets the time",
            self.target.shown,
            self.app().id,
            elapsed.as_secs(),
        );
    }

    fn tell_recovered(&mut self) {
        if let Some(since) = self.mood.told_failing.take() {
            tracing::info!(
                "webhook {} is well again, {} s after its failure was told",
                self.target.shown,
                self.common.clock.since(since).as_secs(),
            );
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread is one endpoint's, and waits on purpose"
)]
fn linger(time: Duration) {
    std::thread::sleep(time);
}
