//! The kinds of values that a core counts: numbers, distributions, and values with their peak.
//!
//! Owns the words that it counts in. Does not know what is counted, and never uses a locked instruction: one thread
//! writes a value, and others read it. Limit: a histogram has a count for each bound that it is given, and one more.
//! Cost: one load and one store of an atomic for a number; a histogram adds a comparison for each bound below the
//! value; reading one is one allocation.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only one thread may change: two threads would lose additions. It wraps around at 2^64.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    #[inline]
    pub fn sub(&self, less: u64) {
        self.0.store(self.get().wrapping_sub(less), Ordering::Relaxed);
    }

    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[must_use]
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often a value was at most each of some bounds.
#[derive(Debug)]
pub struct Histogram {
    /// In the unit of the values, ascending.
    bounds: &'static [u64],
    /// By bound: values at most this one and above the bound before; the last is for those above all bounds.
    counts: Box<[Tally]>,
    sum: Tally,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| Tally::default()).collect();
        Self { bounds, counts, sum: Tally::default() }
    }

    pub fn observe(&self, value: u64) {
        let above = self.bounds.len();
        let index = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(above);
        if let Some(count) = self.counts.get(index) {
            count.add(1);
        }
        self.sum.add(value);
    }

    #[must_use]
    pub fn read(&self) -> HistogramCounts {
        HistogramCounts {
            counts: self.counts.iter().map(Tally::get).collect(),
            sum: self.sum.get(),
        }
    }

    #[must_use]
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramCounts {
    /// One for each bound and one more, as in `Histogram::counts`.
    pub counts: Vec<u64>,
    pub sum: u64,
}

/// The most of a value in the last `metrics::WINDOW_SECONDS` to twice as many.
#[derive(Debug, Default)]
struct HighWater {
    current: Tally,
    previous_window: Tally,
}

impl HighWater {
    #[inline]
    fn raise(&self, value: u64) {
        if value > self.current.get() {
            self.current.set(value);
        }
    }

    /// Begins another window, in which the value is at least `value`.
    fn begin_window(&self, value: u64) {
        self.previous_window.set(self.current.get());
        self.current.set(value);
    }

    fn get(&self) -> u64 {
        self.current.get().max(self.previous_window.get())
    }
}

/// A value that rises and falls, and its peak.
#[derive(Debug, Default)]
pub struct PeakGauge {
    current: Tally,
    peak: HighWater,
}

impl PeakGauge {
    /// Sets the value, which the peak then includes.
    #[inline]
    pub fn set(&self, value: u64) {
        self.current.set(value);
        self.peak.raise(value);
    }

    /// Leaves the peak as it is, because this is on the path of each delivery: see `note_peak`.
    #[inline]
    pub fn add(&self, count: u64) {
        self.current.add(count);
    }

    #[inline]
    pub fn sub(&self, count: u64) {
        self.current.sub(count);
    }

    /// Raises the peak to the present value, if that is higher.
    #[inline]
    pub fn note_peak(&self) {
        self.peak.raise(self.current.get());
    }

    pub(super) fn begin_window(&self) {
        self.peak.begin_window(self.current.get());
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.current.get()
    }

    #[must_use]
    pub fn peak(&self) -> u64 {
        self.peak.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_value_once_up_to_its_bound() {
        let histogram = Histogram::new(&[1, 10]);
        for value in [0, 1, 2, 10, 11, 1_000] {
            histogram.observe(value);
        }
        assert_eq!(histogram.read(), HistogramCounts { counts: vec![2, 2, 2], sum: 1_024 });
    }

    #[test]
    fn a_high_water_mark_forgets_after_two_windows() {
        let mark = HighWater::default();
        mark.raise(7);
        mark.raise(3);
        assert_eq!(mark.get(), 7);
        mark.begin_window(2);
        assert_eq!(mark.get(), 7, "the window before counts");
        mark.begin_window(2);
        assert_eq!(mark.get(), 2);
    }
}
