//! The loop around a load: calls it when something is due, serves its sockets, and notices when nothing moves any
//! longer.
//!
//! Owns the time of a run; the load owns everything else. Does not know what the load does. Inputs: a `Load`; output:
//! its violations, which it keeps itself. Limits: the time that the caller gives; `STALL` without progress is a
//! violation. Cost: one wait (a system call) a round, of at most `POLL`.

use std::io;
use std::time::{Duration, Instant};

use crate::pool::{Handler, Pool};
use crate::telemetry::Telemetry;

/// A load without progress for this long, although something is in flight, has lost it.
pub(crate) const STALL: Duration = Duration::from_secs(10);
/// Longest wait for the sockets, so that deadlines are noticed and the progress is shown.
const POLL: Duration = Duration::from_millis(50);

pub(crate) trait Load: Handler {
    /// Does what is due by `now`; returns when something is due again.
    fn act(&mut self, _pool: &mut Pool, _now: Instant) -> Option<Instant> {
        None
    }
    /// Begins no more actions. What is in flight is still awaited.
    fn rest(&mut self);
    /// Whether something is in flight.
    fn waits(&self) -> bool;
    /// Grows with whatever is expected to happen.
    fn progress(&self) -> u64;
    fn failed(&self) -> bool;
    /// Nothing arrived for this long although something is in flight: adds what it is to the violations.
    fn stalled(&mut self, waited: Duration);
}

struct Watch {
    since: Instant,
    progress: u64,
}

impl Watch {
    fn new(load: &impl Load) -> Self {
        Self { since: Instant::now(), progress: load.progress() }
    }

    fn look(&mut self, load: &mut impl Load, telemetry: &Telemetry) {
        let progress = load.progress();
        telemetry.progress(progress);
        if progress != self.progress || !load.waits() {
            *self = Self { since: Instant::now(), progress };
        } else if self.since.elapsed() > STALL {
            load.stalled(STALL);
            self.since = Instant::now();
        }
    }
}

/// Runs the load for `time`, or until its first violation: what follows one is noise.
pub(crate) fn drive(
    telemetry: &Telemetry,
    pool: &mut Pool,
    load: &mut impl Load,
    time: Duration,
) -> io::Result<()> {
    drive_until(telemetry, pool, load, time, |_| false)
}

/// Runs the load until it is done; after `limit`, or after its first violation, it need not be.
pub(crate) fn drive_until<L: Load>(
    telemetry: &Telemetry,
    pool: &mut Pool,
    load: &mut L,
    limit: Duration,
    done: impl Fn(&L) -> bool,
) -> io::Result<()> {
    let end = Instant::now() + limit;
    let mut watch = Watch::new(load);
    loop {
        let now = Instant::now();
        if now >= end || load.failed() || done(load) {
            return Ok(());
        }
        let next = load.act(pool, now).unwrap_or(end).min(end);
        let wait = next.saturating_duration_since(Instant::now()).min(POLL);
        pool.poll(wait, load)?;
        watch.look(load, telemetry);
    }
}

/// Waits for what is in flight. What does not arrive becomes a violation.
pub(crate) fn drain(
    telemetry: &Telemetry,
    pool: &mut Pool,
    load: &mut impl Load,
) -> io::Result<()> {
    load.rest();
    let mut watch = Watch::new(load);
    while load.waits() && !load.failed() {
        load.act(pool, Instant::now());
        pool.poll(POLL, load)?;
        watch.look(load, telemetry);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{CloseWhy, Key};

    #[derive(Default)]
    struct Fake {
        progress: u64,
        waits: bool,
        stalls: u64,
    }

    impl Load for Fake {
        fn rest(&mut self) {}

        fn waits(&self) -> bool {
            self.waits
        }

        fn progress(&self) -> u64 {
            self.progress
        }

        fn failed(&self) -> bool {
            self.stalls > 0
        }

        fn stalled(&mut self, _: Duration) {
            self.stalls += 1;
        }
    }

    impl Handler for Fake {
        fn on_open(&mut self, _: &mut Pool, _: Key) {}
        fn on_message(&mut self, _: &mut Pool, _: Key, _: &[u8]) {}
        fn on_close(&mut self, _: &mut Pool, _: Key, _: CloseWhy) {}
    }

    /// Looks at a load that stands as it did long ago.
    fn look(load: &mut Fake) {
        let telemetry = Telemetry::start(Vec::new());
        let long_ago = Instant::now().checked_sub(2 * STALL).expect("the machine is up longer");
        Watch { since: long_ago, progress: 5 }.look(load, &telemetry);
    }

    #[test]
    fn a_load_that_waits_and_does_not_move_has_stalled() {
        let mut load = Fake { progress: 5, waits: true, stalls: 0 };
        look(&mut load);
        assert_eq!(load.stalls, 1);
    }

    #[test]
    fn a_load_that_moves_or_waits_for_nothing_has_not() {
        for (progress, waits) in [(6, true), (5, false)] {
            let mut load = Fake { progress, waits, stalls: 0 };
            look(&mut load);
            assert_eq!(load.stalls, 0);
        }
    }
}
