//! The overload level of the process, the memory that is left, and the counts of refusals, shared by all workers.
//!
//! Owns these words. The measuring thread sets the level. Workers read it at handshakes, subscriptions and once a tick,
//! never for a frame. Does not measure memory and does not refuse anything.
//!
//! Limits: `RINGVERB_MEMORY_MAX`; how it is measured: `server/memory.rs`. Cost: one atomic load for each look.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Admission;
use crate::config::Config;
use crate::counters::RefusalCounters;

/// In ascending order, so that callers compare: `> None` means short of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverloadLevel {
    #[default]
    None,
    /// From 1/32 (3 %) below `RINGVERB_MEMORY_MAX` on, until memory is 9 % below it: new connections and subscriptions
    /// are refused, and the heaviest connections are closed.
    Over,
    /// 1/8 (12.5 %) over it although connections are closed: the API publishes no events.
    FarOver,
}

/// The overload level and the number of its measurement: a worker closes connections once for each measurement.
#[derive(Debug, Default)]
pub struct Pressure {
    /// The number of the measurement, and the overload level in the two lowest bits. It wraps after 2^30 measurements.
    measurement_word: AtomicU32,
    /// Bytes that were left at this measurement, below the level at which memory is short.
    headroom: AtomicU64,
}

impl Pressure {
    /// For the measuring thread alone: a second writer could publish the number of one measurement with the headroom of
    /// another.
    pub fn set(&self, level: OverloadLevel, headroom: u64) {
        self.headroom.store(headroom, Ordering::Relaxed);
        let measured = (self.measurement_word.load(Ordering::Relaxed) >> 2).wrapping_add(1);
        // A worker that sees the new number sees its headroom, too.
        self.measurement_word.store(measured << 2 | level as u32, Ordering::Release);
    }

    /// Changes with each measurement, also if the level stays: a worker acts once for each value.
    #[must_use]
    pub fn measurement_word(&self) -> u32 {
        self.measurement_word.load(Ordering::Acquire)
    }

    /// Of the whole process, at the latest measurement. The caller divides it among workers.
    #[must_use]
    pub fn headroom(&self) -> u64 {
        self.headroom.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn level(&self) -> OverloadLevel {
        match self.measurement_word() & 3 {
            0 => OverloadLevel::None,
            1 => OverloadLevel::Over,
            _ => OverloadLevel::FarOver,
        }
    }
}

#[derive(Debug, Default)]
pub struct Overload {
    pub admission: Admission,
    pub pressure: Pressure,
    pub refusals: RefusalCounters,
}

impl Overload {
    /// `seed` must be secret and differ in each process, so that no client can choose addresses of one bucket.
    #[must_use]
    pub fn new(config: &Config, seed: u64) -> Self {
        Self {
            admission: Admission::new(config, seed),
            pressure: Pressure::default(),
            refusals: RefusalCounters::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_measurement_is_another_one() {
        let pressure = Pressure::default();
        let mut seen = vec![pressure.measurement_word()];
        for level in [
            OverloadLevel::Over,
            OverloadLevel::Over,
            OverloadLevel::FarOver,
            OverloadLevel::None,
            OverloadLevel::Over,
        ] {
            pressure.set(level, 0);
            assert_eq!(pressure.level(), level);
            let now = pressure.measurement_word();
            assert!(!seen.contains(&now));
            seen.push(now);
        }
    }
}
