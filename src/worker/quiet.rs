//! When a worker returns freed memory to the kernel: in the first quiet second after much work.
//!
//! Owns two counts of ticks. Does not return the memory itself (`sys.rs`) and does not measure it. Handshakes and
//! growing tables leave free memory behind, and the allocator returns it only while it is called. So a server that
//! became quiet after a burst would keep it: some 120 KiB after 15,000 handshakes. Input: each tick, and each second.
//! Limit: one return for `TICKS_MIN` ticks of work, because each costs some 0.1 ms and page faults later. Cost: one
//! addition a tick, a few steps a second.

/// Ticks before it is worth the call: some thousand handshakes.
const TICKS_MIN: u32 = 100;
/// An idle worker has one tick a second. With a few more it is still quiet.
const QUIET_TICKS_MAX: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct QuietWatch {
    /// Since the last `end_second`.
    ticks: u32,
    /// Ticks of busy seconds since memory was returned.
    busy_ticks_since_return: u32,
}

impl QuietWatch {
    pub(super) fn note_tick(&mut self) {
        self.ticks = self.ticks.saturating_add(1);
    }

    /// Called once a second. Returns whether to return freed memory now.
    pub(super) fn end_second(&mut self) -> bool {
        let ticks = std::mem::take(&mut self.ticks);
        let is_quiet = ticks <= QUIET_TICKS_MAX;
        if !is_quiet {
            self.busy_ticks_since_return = self.busy_ticks_since_return.saturating_add(ticks);
        }
        let is_due = is_quiet && self.busy_ticks_since_return >= TICKS_MIN;
        if is_due {
            self.busy_ticks_since_return = 0;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(watch: &mut QuietWatch, ticks: u32) -> bool {
        (0..ticks).for_each(|_| watch.note_tick());
        watch.end_second()
    }

    #[test]
    fn memory_is_returned_once_in_the_first_quiet_second_after_work() {
        let mut watch = QuietWatch::default();
        assert!(!second(&mut watch, 5_000), "busy");
        assert!(second(&mut watch, 1));
        assert!(!second(&mut watch, 1), "nothing was freed since");
    }

    #[test]
    fn little_work_and_idle_seconds_return_nothing() {
        let mut watch = QuietWatch::default();
        assert!(!second(&mut watch, TICKS_MIN - 1));
        assert!((0..1_000).all(|_| !second(&mut watch, 1)));
        assert!(!second(&mut watch, TICKS_MIN - 1));
        assert!(second(&mut watch, QUIET_TICKS_MAX), "two busy seconds add up");
    }
}
