//! Deadlines by the second: a wheel of buckets, with entries that name the owner of a deadline.
//!
//! Owns only entries, never a timer of the system, and does not know what a deadline means. When an entry is due, the
//! caller checks its owner. An owner that no longer needs its deadline leaves its entry in the wheel. Limit:
//! `limits::stale_entries_max` of the owners that live, kept by `sweep_if_stale`, which callers call before they add an
//! entry of a new owner. Cost: about 2 ns for an entry; a timer task cost 470 ns and 1.3 KB.

use crate::limits::{WHEEL_SECONDS, stale_entries_max};

/// One bucket for each second, modulo `WHEEL_SECONDS`. The caller puts back entries of a later round.
#[derive(Debug)]
pub(crate) struct Wheel<K> {
    buckets: Vec<Vec<WheelEntry<K>>>,
    /// Entries in all buckets.
    len: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WheelEntry<K> {
    pub key: K,
    /// By the clock of the shard. It may be a whole round after the second of the bucket.
    pub at_seconds: u32,
}

impl<K> Default for Wheel<K> {
    fn default() -> Self {
        Self { buckets: (0..WHEEL_SECONDS).map(|_| Vec::new()).collect(), len: 0 }
    }
}

impl<K> Wheel<K> {
    pub(crate) fn add(&mut self, key: K, at_seconds: u32) {
        let bucket = (at_seconds % WHEEL_SECONDS) as usize;
        self.buckets[bucket].push(WheelEntry { key, at_seconds });
        self.len += 1;
    }

    /// Entries, those of owners that no longer need their deadline included.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &WheelEntry<K>> {
        self.buckets.iter().flatten()
    }

    /// Removes entries that are of no use if there are many more than owners live, so that owners that come and go
    /// within the time of a deadline do not pile up. `is_needed` is true for the entry of each living owner (two
    /// entries if an owner has set the same second twice).
    pub(crate) fn sweep_if_stale(
        &mut self,
        living: usize,
        is_needed: impl Fn(&WheelEntry<K>) -> bool,
    ) {
        if self.len <= stale_entries_max(living) {
            return;
        }
        self.buckets.iter_mut().for_each(|bucket| bucket.retain(&is_needed));
        self.len = self.buckets.iter().map(Vec::len).sum();
        debug_assert!(self.len <= 2 * living, "the entries of the living owners");
    }

    /// The seconds whose buckets the caller must check now, if it checked `before` last. After a long sleep one round
    /// over the whole wheel is enough.
    #[must_use]
    pub(crate) fn seconds_since(before: u32, now: u32) -> core::ops::RangeInclusive<u32> {
        before.max(now.saturating_sub(WHEEL_SECONDS - 1))..=now
    }

    /// Takes the entries of this second's bucket. Some may be due in a later round.
    pub(crate) fn take_bucket(&mut self, second: u32) -> Vec<WheelEntry<K>> {
        let taken = std::mem::take(&mut self.buckets[(second % WHEEL_SECONDS) as usize]);
        debug_assert!(taken.len() <= self.len, "`add` has counted them");
        self.len = self.len.saturating_sub(taken.len());
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn entries_of_owners_that_have_ended_do_not_pile_up() {
        let mut wheel = Wheel::default();
        let mut living = HashSet::from([0, 1]);
        living.iter().for_each(|owner| wheel.add(*owner, 60));
        for owner in 2..10_000 {
            living.insert(owner);
            wheel.sweep_if_stale(living.len(), |entry| living.contains(&entry.key));
            wheel.add(owner, owner % 90);
            assert!(wheel.len() <= stale_entries_max(living.len()) + 1, "{} entries", wheel.len());
            living.remove(&owner);
        }
        let of_living = wheel.iter().filter(|entry| entry.key < 2).count();
        assert_eq!(of_living, 2, "the entries of living owners stay");
        let taken: usize = (0..WHEEL_SECONDS).map(|second| wheel.take_bucket(second).len()).sum();
        assert!(taken > 2 && wheel.len() == 0);
    }
}
