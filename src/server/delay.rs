//! The shutdown delay (`RINGVERB_SHUTDOWN_DELAY`), between a signal and the drain.
//!
//! Owns the time only. During it `/up` answers 503, and everything else is served, so that a load balancer takes the
//! server out before its connections are closed. Does not wait: `orders.rs` does, and a second signal ends the delay.
//! No limits: one moment; the option has its range. Cost: one read of the clock for a look at it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::Moment;
use crate::worker::Shared;

pub(super) fn open_connections(shared: &Shared) -> u64 {
    let apps = shared.current_configuration.get().apps.clone();
    let open = apps.iter().map(|app| app.connections_open.load(Ordering::Relaxed));
    open.map(u64::from).sum()
}

/// Load balancers notice that `/up` answers 503, and clients notice nothing.
pub(super) struct Delay {
    pub(super) signal: &'static str,
    began: Moment,
    length: Duration,
}

impl Delay {
    /// Makes `/up` answer 503. `None` without `RINGVERB_SHUTDOWN_DELAY`.
    pub(super) fn begin(shared: &Shared, signal: &'static str) -> Option<Self> {
        let seconds = shared.config.shutdown_delay_seconds;
        if seconds == 0 {
            return None;
        }
        shared.unready.store(true, Ordering::Relaxed);
        tracing::info!(
            event = "shutdown_delay_started",
            "{signal}: /up answers 503 for {seconds} s (RINGVERB_SHUTDOWN_DELAY), then {} connections are closed. A \
             second signal ends the delay.",
            open_connections(shared)
        );
        Some(Self {
            signal,
            began: shared.clock.now(),
            length: Duration::from_secs(seconds.into()),
        })
    }

    pub(super) fn since(&self, now: Moment) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.began.0))
    }

    pub(super) fn time_left(&self, now: Moment) -> Duration {
        self.length.saturating_sub(self.since(now))
    }
}
