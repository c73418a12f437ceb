//! The clocks of the webhooks: monotonic for deadlines, wall clock for `time_ms`.
//!
//! The dispatcher and the senders have no tick from which they could take the time, so they read the clock themselves.
//! A deadline is a `Moment` of the monotonic clock. Owns the time of the start, and does not wait: the caller does. No
//! limits: it is a number. Cost: one read of the clock for a call, without a system call.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::clock::Moment;

/// A monotonic clock. The `Moment`s of two such clocks have nothing to do with each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct WebhookClock {
    start: Instant,
}

impl WebhookClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock for webhooks"
    )]
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(super) fn elapsed(self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn now(self) -> Moment {
        Moment(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Time until `moment`; zero if it is past.
    pub(super) fn until(self, moment: Moment) -> Duration {
        Duration::from_millis(moment.0.saturating_sub(self.now().0))
    }

    pub(super) fn since(self, moment: Moment) -> Duration {
        Duration::from_millis(self.now().0.saturating_sub(moment.0))
    }
}

pub(super) fn add_time(moment: Moment, after: Duration) -> Moment {
    Moment(moment.0.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)))
}

/// Milliseconds since 1970, for `time_ms`; 0 if the clock is before 1970.
#[expect(clippy::disallowed_methods, reason = "backends compare time_ms with their own clock")]
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
