//! Settings of webhooks, and the limits of what waits.
//!
//! Plain values that `server` makes from the configuration; does not follow its changes. Limits: an endpoint has
//! `queue_events_max` events and `ENDPOINT_BYTES_MAX` of each class, all endpoints together have `ALL_BYTES_MAX`, of
//! which clients can cause `ALL_PUBLIC_BYTES_MAX`. An event over a limit is discarded and counted by its kind. Cost:
//! one copy for all senders.

use std::time::Duration;

use crate::config::Config;

/// Bytes of events of one class that may wait for one endpoint, in addition to their number: client events can have any
/// size.
pub(super) const ENDPOINT_BYTES_MAX: usize = 16 << 20;

/// Bytes of events that may wait for all endpoints together, beside one request's worth for each.
pub(super) const ALL_BYTES_MAX: usize = 256 << 20;

/// Of these, bytes of events of public channels, which any client can cause: the other half is left to signed ones.
pub(super) const ALL_PUBLIC_BYTES_MAX: usize = ALL_BYTES_MAX / 2;

/// What is configured, and what only tests change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WebhookSettings {
    /// Time for one request, with the wait for certificate authorities. The look-up of a name counts, too, but ends
    /// only by the timeout of the system's resolver.
    pub timeout: Duration,
    /// Time from the first attempt after which an event is given up.
    pub retry: Duration,
    /// Time for which a leave is delayed; zero delays none.
    pub debounce: Duration,
    /// Events of one class that may wait for one endpoint.
    pub queue_events_max: usize,
    /// Pause after the first failed attempt; it doubles with each.
    pub retry_first: Duration,
    /// How long a sender waits for more events before it posts those it has.
    pub batch_delay: Duration,
    /// Time without events after which a sender ends.
    pub idle: Duration,
    /// Time at the end for an endpoint that refuses everything, or that cannot be sent to.
    pub failing_end: Duration,
    /// Events one worker's ring has room for, of 48 bytes and what they own.
    pub ring_events: usize,
}

impl WebhookSettings {
    /// The rings of all `workers` have room for 2^20 events together, unless that makes one too short or too long.
    #[must_use]
    pub(crate) fn new(config: &Config, workers: usize) -> Self {
        Self {
            timeout: Duration::from_secs(config.webhook_timeout_seconds.into()),
            retry: Duration::from_secs(config.webhook_retry_seconds.into()),
            debounce: Duration::from_millis(config.webhook_debounce_ms.into()),
            queue_events_max: config.webhook_queue_events_max,
            retry_first: Duration::from_secs(1),
            batch_delay: Duration::from_millis(20),
            idle: Duration::from_secs(10),
            failing_end: Duration::from_secs(1),
            // If many clients leave at once, one worker sends all their events in one tick.
            ring_events: ((1 << 20) / workers.max(1)).clamp(8 * 1024, 64 * 1024),
        }
    }
}
