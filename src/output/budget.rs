//! Limits the bytes of log lines a second, because peers can cause lines, and lines fill disks.
//!
//! One atomic number, shared by all threads. The caller passes the time. A line over the limit is not written and is
//! counted by `lane.rs`. Owns that number, and does not know what a line says. Limits: rate and burst of
//! `RateBudget::new`. Cost: one compare-and-swap for a line that is written, a load for one that is not.

use std::sync::atomic::{AtomicU64, Ordering};

/// A rate in bytes a second with a burst, as one atomic number (the generic cell rate algorithm): the moment at which
/// all bytes that were accepted would have been written at that rate.
#[derive(Debug)]
pub(super) struct RateBudget {
    spent_until_nanos: AtomicU64,
    nanos_per_byte: u64,
    burst_nanos: u64,
}

impl RateBudget {
    pub(super) const fn new(bytes_per_second: u64, burst_bytes: u64) -> Self {
        let nanos_per_byte = 1_000_000_000 / bytes_per_second;
        let burst_nanos = burst_bytes * nanos_per_byte;
        Self { spent_until_nanos: AtomicU64::new(0), nanos_per_byte, burst_nanos }
    }

    /// Charges a line to the budget. `false`: the budget has no room for it, and nothing is charged.
    pub(super) fn try_spend(&self, bytes: usize, now_nanos: u64) -> bool {
        let cost = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(self.nanos_per_byte);
        let paid = |until: u64| {
            let until = until.max(now_nanos).saturating_add(cost);
            (until - now_nanos <= self.burst_nanos).then_some(until)
        };
        self.spent_until_nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let budget = RateBudget::new(1_000, 5_000);
        let passed = |now: u64| (0..1_000).filter(|_| budget.try_spend(100, now)).count();
        assert_eq!(passed(10 * SECOND), 50);
        assert_eq!(passed(10 * SECOND), 0);
        assert_eq!(passed(11 * SECOND), 10);
        assert_eq!(passed(500 * SECOND), 50, "no more than the burst, however long the pause");
    }

    #[test]
    fn a_flood_of_an_hour_stays_within_rate_and_burst() {
        let budget = RateBudget::new(2_048, 65_536);
        let lines =
            (0..3_600 * 20).filter(|step| budget.try_spend(512, step * SECOND / 20)).count();
        assert!(lines * 512 <= 3_600 * 2_048 + 65_536, "{lines}");
        assert!(lines * 512 >= 3_500 * 2_048, "{lines}");
    }
}
