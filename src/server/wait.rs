//! How threads that are no workers wait, and wake the workers.
//!
//! They may block: no data passes through them. Every other wait of the server is a worker's `park`. So a sleep in a
//! tick, which would hold up all clients of a core, is a violation that clippy finds. Owns no state. Does not wait for
//! a worker.
//! Limit: the time that the caller passes, as the clock measures it. Cost: one system call for each worker that sleeps.

use std::time::Duration;

use crate::clock::Moment;
use crate::mailbox::Doorbell;

pub(super) fn wake_all(doorbells: &[Doorbell]) {
    doorbells.iter().for_each(Doorbell::ring);
}

#[expect(clippy::disallowed_methods, reason = "the main thread has nothing else to do")]
pub(super) fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// Calls `look` until it returns a value, with a sleep of `step` after each call. `None`: `time` is over, and `look`
/// was called once more after its end.
///
/// The clock decides and not the number of sleeps, because a sleep of 1 ms takes several on an overloaded host.
pub(super) fn look_for<T>(
    now: impl Fn() -> Moment,
    time: Duration,
    step: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let began = now();
    loop {
        let is_last = since(began, now()) >= time;
        let found = look();
        if found.is_some() || is_last {
            return found;
        }
        sleep(step);
    }
}

/// `Duration::ZERO` if `later` is before `earlier`.
pub(super) fn since(earlier: Moment, later: Moment) -> Duration {
    Duration::from_millis(later.0.saturating_sub(earlier.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// On an overloaded host each step takes much longer than its sleep.
    #[test]
    fn a_wait_ends_when_its_time_is_over_however_long_its_steps_take() {
        let (clock, looks) = (Cell::new(5_000), Cell::new(0));
        let found = look_for(
            || Moment(clock.get()),
            Duration::from_millis(1_000),
            Duration::from_millis(1),
            || {
                clock.set(clock.get() + 250);
                looks.set(looks.get() + 1);
                None::<()>
            },
        );
        assert_eq!((found, looks.get(), clock.get()), (None, 5, 6_250), "and one look at the end");
    }

    #[test]
    fn a_wait_returns_what_its_last_look_finds() {
        let clock = Cell::new(0);
        let look = || {
            clock.set(clock.get() + 10);
            (clock.get() == 20).then_some("found")
        };
        let step = Duration::from_millis(1);
        assert_eq!(look_for(|| Moment(clock.get()), step, step, look), Some("found"));
    }
}
