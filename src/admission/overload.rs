//! The overload level of the process, the memory that is left, and the counts of refusals, shared by all workers.
//!
//! Changed at handshakes, at ends of connections and once a tick, never for a frame.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Admission;
use crate::config::Config;
use crate::counters::RefusalCounters;

/// How far over its memory budget the process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverloadLevel {
    #[default]
    None,
    /// Over it: new connections and subscriptions are refused, and the heaviest connections are closed.
    Over,
    /// Far over it all the same: nothing is published over the API either.
    FarOver,
}

/// The strain, and how often it was measured: a worker sheds once for each measurement.
#[derive(Debug, Default)]
pub struct Pressure {
    /// The number of the measurement, and the strain in the two lowest bits.
    measured: AtomicU32,
    /// Bytes below the budget at this measurement.
    headroom: AtomicU64,
}

impl Pressure {
    /// For the thread that measures.
    pub fn set(&self, strain: OverloadLevel, headroom: u64) {
        self.headroom.store(headroom, Ordering::Relaxed);
        let measured = (self.measured.load(Ordering::Relaxed) >> 2).wrapping_add(1);
        // A worker that sees the new number sees its headroom, too.
        self.measured.store(measured << 2 | strain as u32, Ordering::Release);
    }

    /// The number of the measurement and the strain, as one word that changes with each measurement.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.measured.load(Ordering::Acquire)
    }

    /// Bytes below the budget at the latest measurement.
    #[must_use]
    pub fn headroom(&self) -> u64 {
        self.headroom.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn strain(&self) -> OverloadLevel {
        match self.number() & 3 {
            0 => OverloadLevel::None,
            1 => OverloadLevel::Over,
            _ => OverloadLevel::FarOver,
        }
    }
}

/// What all workers share of it.
#[derive(Debug, Default)]
pub struct Overload {
    pub admission: Admission,
    pub pressure: Pressure,
    pub refusals: RefusalCounters,
}

impl Overload {
    /// `seed`: secret, and another one in each process.
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
        let mut seen = vec![pressure.number()];
        for strain in [
            OverloadLevel::Over,
            OverloadLevel::Over,
            OverloadLevel::FarOver,
            OverloadLevel::None,
            OverloadLevel::Over,
        ] {
            pressure.set(strain, 0);
            assert_eq!(pressure.strain(), strain);
            let now = pressure.number();
            assert!(!seen.contains(&now));
            seen.push(now);
        }
    }
}
