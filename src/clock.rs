//! Time as a value: the worker reads the clock once a tick and passes the time on.
//!
//! Code below the worker never reads a clock, so a test or the simulator decides what time it is, and all that happens
//! in a tick happens at one time. A `Moment` counts milliseconds since the process started, and seconds are derived
//! from it. Owns no clock and no state.
//!
//! No limit: a `Moment` is a number. Cost: a copy of 8 bytes; `seconds` is one division, and `Context::now_seconds`
//! saves it where it would be for each message.

/// A moment: milliseconds since the process started. Coarse on purpose; good for deadlines, not for measuring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Stays at its maximum after 136 years, so that a deadline never lies before now by an overflow.
    #[must_use]
    pub fn seconds(self) -> u32 {
        u32::try_from(self.0 / 1000).unwrap_or(u32::MAX)
    }
}

/// The least CPU time of several runs, for tests that compare what two inputs cost. Other threads may run at the same
/// time.
#[cfg(test)]
pub(crate) fn fastest(runs: u32, mut run: impl FnMut()) -> std::time::Duration {
    let used = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        std::time::Duration::try_from(time).unwrap_or_default()
    };
    let once = |_| {
        let start = used();
        run();
        used() - start
    };
    (0..runs).map(once).min().unwrap_or_default()
}
