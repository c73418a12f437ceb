//! The worker's clock and its source of randomness: the only ones below the server.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::clock::Moment;

/// Time since the process started. Copies agree on all cores: the kernel's monotonic clock is one for all.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock for a core")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn now(self) -> Moment {
        Moment(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Nanoseconds, to order mail of different cores by.
    pub(super) fn stamp(self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Seconds since 1970, for signature timestamps.
#[expect(clippy::disallowed_methods, reason = "signatures carry wall clock time")]
#[must_use]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Random numbers of the kernel, fetched 512 bytes at a time: socket ids must be unguessable (PROTOCOL.md rule 6).
pub(super) struct Entropy {
    bytes: [u8; 512],
    used: usize,
}

impl Default for Entropy {
    fn default() -> Self {
        Self { bytes: [0; 512], used: 512 }
    }
}

impl Entropy {
    /// # Panics
    /// When the kernel has no randomness to give: no id could be trusted then.
    pub(super) fn next(&mut self) -> u64 {
        if self.used == self.bytes.len() {
            if let Err(error) = getrandom::fill(&mut self.bytes) {
                panic!("the kernel gives no random numbers: {error}");
            }
            self.used = 0;
        }
        let mut number = [0; 8];
        number.copy_from_slice(&self.bytes[self.used..self.used + 8]);
        self.bytes[self.used..self.used + 8].fill(0);
        self.used += 8;
        u64::from_ne_bytes(number)
    }
}
