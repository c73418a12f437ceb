//! Counters that some threads change and others read: for the log, for tests, and for `/metrics`.
//!
//! Owns numbers only; the callers decide what counts. Does not lock or wait: relaxed atomics, because no counter
//! depends on another one. Numbers only grow, except depths of queues and times (`failing_since`, `oldest_queued`),
//! which go back to 0. Names do not change.
//!
//! No limit: a fixed number of words for each worker, endpoint and reason. Cost: one atomic addition for a count; a
//! `RefusalTally` is a plain addition, and one atomic addition for each reason that it has, once a tick.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    #[must_use]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How much waits, and the most that has waited at a time since the start. One thread at a time adds.
#[derive(Debug, Default)]
pub(crate) struct DepthGauge {
    depth: AtomicU64,
    peak: AtomicU64,
}

impl DepthGauge {
    pub(crate) fn set(&self, depth: u64) {
        self.depth.store(depth, Ordering::Relaxed);
        self.raise_peak(depth);
    }

    pub(crate) fn add(&self, more: u64) {
        let depth = self.depth.fetch_add(more, Ordering::Relaxed) + more;
        self.raise_peak(depth);
    }

    /// Another thread may call it than the one that adds. Call `add` before that thread can see what it counts, or the
    /// depth falls below 0.
    pub(crate) fn sub(&self, less: u64) {
        let before = self.depth.fetch_sub(less, Ordering::Relaxed);
        debug_assert!(before >= less, "it was added");
    }

    /// Not `fetch_max`: a load is cheaper, and most depths are no peak.
    fn raise_peak(&self, depth: u64) {
        if depth > self.peak.load(Ordering::Relaxed) {
            self.peak.store(depth, Ordering::Relaxed);
        }
    }

    #[must_use]
    pub(crate) fn depth(&self) -> u64 {
        self.depth.load(Ordering::Relaxed)
    }

    #[must_use]
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

/// As many as `WebhookKind::ALL`, which this file may not import because it has the same rank. `webhook/mod.rs` asserts
/// it.
pub(crate) const WEBHOOK_KINDS: usize = 7;

/// By the index of a kind in `WebhookKind::ALL`.
#[derive(Debug, Default)]
pub(crate) struct ByKind([Counter; WEBHOOK_KINDS]);

impl ByKind {
    pub(crate) fn add(&self, kind: usize, more: u64) {
        if let Some(counter) = self.0.get(kind) {
            counter.add(more);
        }
    }

    #[must_use]
    pub(crate) fn get(&self) -> [u64; WEBHOOK_KINDS] {
        std::array::from_fn(|kind| self.0[kind].get())
    }
}

/// Outcomes of webhook events since the start. An event counts once for each endpoint that wants it.
#[derive(Debug, Default)]
pub(crate) struct WebhookCounters {
    /// Events that a worker had no room for in its ring. These count once, whatever the number of endpoints.
    pub dropped_by_workers: Counter,
    pub dropped_by_workers_of: ByKind,
    /// Events on their way to the dispatcher, by worker.
    rings: Box<[DepthGauge]>,
    /// Leaves that the gate holds back until their debounce time is over.
    pub leaves_delayed: DepthGauge,
    /// Events that found the endpoint's queue full, or no thread to send them.
    pub dropped_at_queues: Counter,
    pub dropped_at_queues_of: ByKind,
    /// Events that the backend refused, and that are not tried again.
    pub given_up: Counter,
    pub given_up_of: ByKind,
    /// Events that were still waiting when the server ended.
    pub lost_at_end: Counter,
    /// Leaves that were sent before their debounce time was over, because the gate was full.
    pub leaves_released_early: Counter,
    /// Events of batches that were answered with 2xx.
    pub delivered: Counter,
    /// Each attempt counts.
    pub requests: Counter,
    /// Attempts that were not answered with 2xx, or not at all.
    pub requests_failed: Counter,
    /// Events that were queued for an endpoint, and those of them that wait no longer.
    pub queued: Counter,
    pub settled: Counter,
    queued_peak: AtomicU64,
    /// By endpoint: seconds since 1970 since which it has refused every request; 0 if it accepted the last one.
    failing_since: Box<[AtomicU64]>,
    /// By endpoint: milliseconds since 1970 at which its oldest waiting event was queued; 0 if none waits.
    oldest_queued: Box<[AtomicU64]>,
}

impl WebhookCounters {
    #[must_use]
    pub(crate) fn new(endpoints: usize, workers: usize) -> Self {
        let zeros = || (0..endpoints).map(|_| AtomicU64::new(0)).collect();
        let rings = (0..workers).map(|_| DepthGauge::default()).collect();
        Self { failing_since: zeros(), oldest_queued: zeros(), rings, ..Self::default() }
    }

    #[must_use]
    pub(crate) fn rings(&self) -> &[DepthGauge] {
        &self.rings
    }

    /// Call it before the event can be settled, so that `waiting` never counts less than 0.
    pub(crate) fn note_queued(&self) {
        self.queued.add(1);
        self.queued_peak.fetch_max(self.waiting(), Ordering::Relaxed);
    }

    /// Events that wait for an endpoint, those in requests under way included.
    #[must_use]
    pub(crate) fn waiting(&self) -> u64 {
        self.queued.get().saturating_sub(self.settled.get())
    }

    /// The most events that have waited for endpoints at a time, since the start.
    #[must_use]
    pub(crate) fn waiting_peak(&self) -> u64 {
        self.queued_peak.load(Ordering::Relaxed)
    }

    /// When the oldest event that waits for an endpoint was queued, in milliseconds since 1970.
    pub(crate) fn set_oldest(&self, endpoint: usize, unix_ms: Option<u64>) {
        if let Some(oldest) = self.oldest_queued.get(endpoint) {
            oldest.store(unix_ms.unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// The age of the oldest event that waits for any endpoint, in milliseconds.
    #[must_use]
    pub(crate) fn queue_age_ms(&self, now_unix_ms: u64) -> u64 {
        let all = self.oldest_queued.iter().map(|oldest| oldest.load(Ordering::Relaxed));
        let first = all.filter(|oldest| *oldest > 0).min();
        first.map_or(0, |oldest| now_unix_ms.saturating_sub(oldest))
    }

    /// An endpoint accepted a request (`None`), or has refused every request since this second.
    pub(crate) fn set_failing(&self, endpoint: usize, since_unix_seconds: Option<u64>) {
        if let Some(since) = self.failing_since.get(endpoint) {
            since.store(since_unix_seconds.unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// The longest time for which an endpoint has refused every request.
    #[must_use]
    pub(crate) fn failing_seconds(&self, now_unix_seconds: u64) -> u64 {
        let since = self.failing_since.iter().map(|since| since.load(Ordering::Relaxed));
        let first = since.filter(|since| *since > 0).min();
        first.map_or(0, |since| now_unix_seconds.saturating_sub(since))
    }
}

/// Why the server refused a request or closed a connection. Names do not change, because operators have alerts on them:
/// they are labels of `/metrics`. `cause.rs` has the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A handshake over `RINGVERB_CONNECTIONS_PER_IP_MAX`.
    ConnectionsPerIp,
    /// Connections of one address that speak HTTP, over `RINGVERB_CONNECTIONS_PER_IP_MAX`.
    SocketsPerIp,
    /// An HTTP connection that was idle while another one needed its descriptor, or that found none free.
    HttpConnections,
    /// A handshake over `RINGVERB_HANDSHAKES_PER_IP_PER_SECOND_MAX`.
    HandshakesPerIp,
    /// A connection, while the process is short of memory.
    Memory,
    /// A subscription or sign-in, while the process is short of memory.
    MemorySubscription,
    /// A subscription or sign-in over half of `RINGVERB_CONNECTION_BYTES_MAX`.
    ConnectionMemory,
    /// A publish while memory is 12.5 % over `RINGVERB_MEMORY_MAX`.
    MemoryPublish,
    /// A request that is not whole yet, while the process is short of memory.
    HttpMemory,
    /// A connection with much to send, closed because the process is short of memory.
    Shed,
    /// A connection over `max_connections` of its app.
    Quota,
    NoSuchApp,
    AppDisabled,
    /// A protocol version that is not spoken here.
    Version,
    Origin,
    RequestTooLarge,
    HeadTooLarge,
    /// Bytes that are no HTTP, or a request for a WebSocket that is no valid handshake.
    BadRequest,
    /// An API request that did not authenticate: an unknown app id, a wrong key, signature or timestamp.
    Unauthenticated,
    /// An API request that was not looked at, over `RINGVERB_AUTH_FAILURES_PER_IP_PER_SECOND_MAX`.
    AuthFailuresPerIp,
    /// A publish over `publishes_per_second_max` of its app.
    PublishRate,
    /// A socket whose first byte did not come within `limits::FIRST_BYTE_TIMEOUT_SECONDS`.
    NothingSent,
    /// A peer that did not finish its request in time.
    RequestTimeout,
    /// A peer that did not read its answer in time.
    AnswerUnread,
    SlowConsumer,
    MessageRate,
    /// A ping or pong frame over `CONTROL_FRAMES_PER_SECOND_MAX`.
    ControlFrameRate,
    MessageTooLarge,
    /// A message that is not one of docs/PROTOCOL.md; the connection stays.
    Malformed,
    /// A subscription or sign-in without a good signature.
    Unauthorized,
    /// Another error of the protocol: a channel name, a member too many, ...
    Other,
    /// Bytes that RFC 6455 forbids; the connection is closed.
    Violation,
    /// A connection that the kernel had no memory to watch, or no descriptor for.
    Kernel,
    /// Pauses of accepting for want of descriptors or memory.
    AcceptPaused,
    /// A signed API request that asks for something invalid.
    InvalidRequest,
    /// A path that is not served here, or not with this method.
    NotFound,
    /// An API request that a core did not answer in time.
    CoreSilent,
    /// A silent connection whose ping was not answered in time; it is closed with 4201.
    NoPong,
    /// A connection that the app's backend or an operator ended.
    Terminated,
    /// A subscription that the app's backend or an operator ended.
    AccessWithdrawn,
    /// A TLS handshake that failed, or a TLS connection that broke a rule.
    Tls,
}

impl Refused {
    pub const ALL: [Self; 41] = [
        Self::ConnectionsPerIp,
        Self::SocketsPerIp,
        Self::HttpConnections,
        Self::HandshakesPerIp,
        Self::Memory,
        Self::MemorySubscription,
        Self::ConnectionMemory,
        Self::MemoryPublish,
        Self::HttpMemory,
        Self::Shed,
        Self::Quota,
        Self::NoSuchApp,
        Self::AppDisabled,
        Self::Version,
        Self::Origin,
        Self::RequestTooLarge,
        Self::HeadTooLarge,
        Self::BadRequest,
        Self::Unauthenticated,
        Self::AuthFailuresPerIp,
        Self::PublishRate,
        Self::NothingSent,
        Self::RequestTimeout,
        Self::AnswerUnread,
        Self::SlowConsumer,
        Self::MessageRate,
        Self::ControlFrameRate,
        Self::MessageTooLarge,
        Self::Malformed,
        Self::Unauthorized,
        Self::Other,
        Self::Violation,
        Self::Kernel,
        Self::AcceptPaused,
        Self::InvalidRequest,
        Self::NotFound,
        Self::CoreSilent,
        Self::NoPong,
        Self::Terminated,
        Self::AccessWithdrawn,
        Self::Tls,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ConnectionsPerIp => "connections_per_ip",
            Self::SocketsPerIp => "sockets_per_ip",
            Self::HttpConnections => "http_connections",
            Self::HandshakesPerIp => "handshakes_per_ip",
            Self::Memory => "memory",
            Self::MemorySubscription => "memory_subscription",
            Self::ConnectionMemory => "connection_memory",
            Self::MemoryPublish => "memory_publish",
            Self::HttpMemory => "http_memory",
            Self::Shed => "shed",
            Self::Quota => "quota",
            Self::NoSuchApp => "no_such_app",
            Self::AppDisabled => "app_disabled",
            Self::Version => "version",
            Self::Origin => "origin",
            Self::RequestTooLarge => "request_too_large",
            Self::HeadTooLarge => "head_too_large",
            Self::BadRequest => "bad_request",
            Self::Unauthenticated => "unauthenticated",
            Self::AuthFailuresPerIp => "auth_failures_per_ip",
            Self::PublishRate => "publish_rate",
            Self::NothingSent => "nothing_sent",
            Self::RequestTimeout => "request_timeout",
            Self::AnswerUnread => "answer_unread",
            Self::SlowConsumer => "slow_consumer",
            Self::MessageRate => "message_rate",
            Self::ControlFrameRate => "control_frame_rate",
            Self::MessageTooLarge => "message_too_large",
            Self::Malformed => "malformed",
            Self::Unauthorized => "unauthorized",
            Self::Other => "other",
            Self::Violation => "violation",
            Self::Kernel => "kernel",
            Self::AcceptPaused => "accept_paused",
            Self::InvalidRequest => "invalid_request",
            Self::NotFound => "not_found",
            Self::CoreSilent => "core_silent",
            Self::NoPong => "no_pong",
            Self::Terminated => "terminated",
            Self::AccessWithdrawn => "access_withdrawn",
            Self::Tls => "tls",
        }
    }
}

type ByReason<T> = [T; Refused::ALL.len()];

/// Since the start of the process, of all workers and other threads.
#[derive(Debug)]
pub struct RefusalCounters(ByReason<Counter>);

impl Default for RefusalCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl RefusalCounters {
    pub fn count(&self, why: Refused) {
        if let Some(counter) = self.0.get(why as usize) {
            counter.add(1);
        }
    }

    /// Moves the counts of one core here, which leaves its tally at 0.
    pub fn drain_from(&self, tally: &mut RefusalTally) {
        if std::mem::take(&mut tally.has_counts) {
            for (counter, count) in self.0.iter().zip(&mut tally.counts) {
                match std::mem::take(count) {
                    0 => {}
                    more => counter.add(u64::from(more)),
                }
            }
        }
    }

    #[must_use]
    pub fn get(&self) -> ByReason<u64> {
        Refused::ALL.map(|why| self.0[why as usize].get())
    }
}

/// The refusals of one core since it last added them to the shared counters: plain numbers, for paths that peers can
/// make hot.
#[derive(Debug)]
pub struct RefusalTally {
    counts: ByReason<u32>,
    has_counts: bool,
}

impl Default for RefusalTally {
    fn default() -> Self {
        Self { counts: [0; Refused::ALL.len()], has_counts: false }
    }
}

impl RefusalTally {
    pub fn count(&mut self, why: Refused) {
        if let Some(count) = self.counts.get_mut(why as usize) {
            *count = count.saturating_add(1);
            self.has_counts = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason() {
        let counters = RefusalCounters::default();
        let mut tally = RefusalTally::default();
        for (times, why) in Refused::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| tally.count(why));
            counters.count(why);
        }
        counters.drain_from(&mut tally);
        counters.drain_from(&mut tally);
        let expected: Vec<u64> = (1..).take(Refused::ALL.len()).collect();
        assert_eq!(counters.get().to_vec(), expected, "taken over once, each under its own reason");
    }

    #[test]
    fn the_peak_of_waiting_events_stays_when_they_are_settled() {
        let webhooks = WebhookCounters::new(1, 1);
        (0..3).for_each(|_| webhooks.note_queued());
        webhooks.settled.add(2);
        webhooks.note_queued();
        assert_eq!((webhooks.waiting(), webhooks.waiting_peak()), (2, 3));
    }

    #[test]
    fn the_endpoint_that_fails_longest_counts() {
        let webhooks = WebhookCounters::new(3, 1);
        assert_eq!(webhooks.failing_seconds(100), 0);
        webhooks.set_failing(0, Some(90));
        webhooks.set_failing(2, Some(60));
        assert_eq!(webhooks.failing_seconds(100), 40);
        webhooks.set_failing(2, None);
        assert_eq!(webhooks.failing_seconds(100), 10);
        webhooks.set_failing(9, Some(1));
        assert_eq!(webhooks.failing_seconds(80), 0, "a clock that was set back");
        assert_eq!(webhooks.queue_age_ms(5_000), 0, "nothing waits");
        webhooks.set_oldest(1, Some(4_000));
        webhooks.set_oldest(2, Some(3_500));
        assert_eq!(webhooks.queue_age_ms(5_000), 1_500);
        webhooks.set_oldest(2, None);
        assert_eq!(webhooks.queue_age_ms(5_000), 1_000);
    }

    #[test]
    fn each_reason_of_refusal_has_its_own_name() {
        let names: std::collections::BTreeSet<_> = Refused::ALL.map(Refused::name).into();
        assert_eq!(names.len(), Refused::ALL.len());
    }
}
