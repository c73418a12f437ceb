//! Units of the current second, over all cores: what an app has published, or what a client address has begun.
//!
//! One atomic word has the second and the number, so no core waits for another one. A new second begins with the first
//! unit in it. Owns that word only; knows no clock, and does not decide what a refusal causes.
//!
//! Limit: a number of 32 bits; the caller passes how many units a second may have. Cost: 8 bytes, and one
//! compare-and-swap loop over one atomic word for each call.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct PerSecond(AtomicU64);

impl PerSecond {
    /// Counts `count` more units if the sum stays within `most`; returns the remainder, or `None`. A count above `most`
    /// is accepted in a second of its own, because it would never be accepted otherwise.
    pub fn try_reserve(&self, count: u32, most: u32, unix_seconds: u64) -> Option<u32> {
        const COUNT_BITS: u32 = 32;
        let second = unix_seconds << COUNT_BITS;
        let after = |before: u64| {
            let is_this_second = before >> COUNT_BITS == unix_seconds;
            let used = if is_this_second { before & u64::from(u32::MAX) } else { 0 };
            let after = used + u64::from(count);
            let fits = after <= u64::from(most) || used == 0;
            fits.then_some(second | after)
        };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).ok()?;
        let used = u32::try_from(after(before)? & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Some(most.saturating_sub(used))
    }

    /// 0 also if the clock of the last reservation was another second.
    #[must_use]
    pub fn count_in(&self, unix_seconds: u64) -> u32 {
        let word = self.0.load(Ordering::Relaxed);
        let is_this_second = word >> u32::BITS == unix_seconds;
        if is_this_second {
            u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX)
        } else {
            0
        }
    }
}
