//! Counters that one thread changes and another reads, such as a metrics page. Relaxed: each stands for itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What became of webhooks since the start. An event counts once for each endpoint that was to hear of it.
#[derive(Debug, Default)]
pub struct WebhookCounters {
    /// Events that a worker had no room for in its ring. These count once, whatever the number of endpoints.
    pub dropped_by_workers: Counter,
    /// Events that found the endpoint's queue full, or no thread to send them.
    pub dropped_at_queues: Counter,
    /// Events of batches that were given up after the time for retries.
    pub given_up: Counter,
    /// Events that were still waiting when the server ended.
    pub lost_at_end: Counter,
    /// Events of batches that were answered with 2xx.
    pub delivered: Counter,
    /// Requests that were answered with anything else, or not at all.
    pub requests_failed: Counter,
}
