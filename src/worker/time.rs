//! The worker's clock and its source of randomness: the only ones below the server.
//!
//! Owns one block of random numbers for each worker. Does not wait. Pure layers get time and random numbers from here
//! as arguments. Inputs: the kernel's monotonic and wall clock, and getrandom in blocks of 512 bytes. No limits: two
//! clocks and one block of random numbers. Cost: reading a clock is no system call where the kernel has a vDSO; one
//! getrandom for 64 random numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::clock::Moment;

/// Time since the start of the process, or of the first one in a chain of take-overs. All cores and processes agree,
/// because they share the kernel's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start_nanos: u64,
}

fn monotonic_nanos() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec))
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self { start_nanos: monotonic_nanos() }
    }

    /// A clock that another process started, by its `start_nanos`; `None` when that is in the future, as it is for a
    /// process in another time namespace.
    #[must_use]
    pub fn started_at(start_nanos: u64) -> Option<Self> {
        (start_nanos <= monotonic_nanos()).then_some(Self { start_nanos })
    }

    /// For `started_at` of the process that takes over.
    #[must_use]
    pub fn start_nanos(self) -> u64 {
        self.start_nanos
    }

    #[must_use]
    pub fn now(self) -> Moment {
        Moment(self.stamp() / 1_000_000)
    }

    /// Nanoseconds, to order mail of different cores by.
    pub(super) fn stamp(self) -> u64 {
        monotonic_nanos().saturating_sub(self.start_nanos)
    }
}

/// Seconds since 1970, for signature timestamps.
#[expect(clippy::disallowed_methods, reason = "signatures carry wall clock time")]
#[must_use]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Milliseconds since 1970, for events of the console.
#[expect(clippy::disallowed_methods, reason = "people compare it with their own clock")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Random numbers of the kernel, fetched 512 bytes at a time: socket ids must be unguessable (docs/PROTOCOL.md rule 6).
pub(super) struct Entropy {
    /// Numbers that were returned are overwritten with zeros.
    block: [u8; 512],
    used_bytes: usize,
}

impl Default for Entropy {
    fn default() -> Self {
        Self { block: [0; 512], used_bytes: 512 }
    }
}

impl Entropy {
    /// # Panics
    /// When the kernel has no randomness to give: no id could be trusted then.
    pub(super) fn next(&mut self) -> u64 {
        if self.used_bytes == self.block.len() {
            if let Err(error) = getrandom::fill(&mut self.block) {
                panic!("the kernel gives no random numbers: {error}");
            }
            self.used_bytes = 0;
        }
        let mut number = [0; 8];
        number.copy_from_slice(&self.block[self.used_bytes..self.used_bytes + 8]);
        self.block[self.used_bytes..self.used_bytes + 8].fill(0);
        self.used_bytes += 8;
        u64::from_ne_bytes(number)
    }
}
