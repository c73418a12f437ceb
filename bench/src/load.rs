//! The loop around a load: lets it act when something is due, serves its sockets, and notices when
//! nothing moves any more.

use std::io;
use std::time::{Duration, Instant};

use crate::pool::{Handler, Pool};
use crate::telemetry::Telemetry;

/// What has not come by then is lost.
pub(crate) const STALL: Duration = Duration::from_secs(10);
/// Longest wait for the sockets: deadlines and the progress display are looked at in between.
const POLL: Duration = Duration::from_millis(50);

pub(crate) trait Load: Handler {
    /// Does what is due by `now`; returns when something is due again.
    fn act(&mut self, _pool: &mut Pool, _now: Instant) -> Option<Instant> {
        None
    }
    /// No more actions: what is on its way shall arrive.
    fn rest(&mut self);
    /// Whether something is on its way.
    fn waits(&self) -> bool;
    /// Grows with whatever is expected to happen.
    fn progress(&self) -> u64;
    fn failed(&self) -> bool;
    /// Nothing came for this long although something is on its way: says what, as violations.
    fn stalled(&mut self, waited: Duration);
}

/// Looks whether anything moves.
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

/// Lets what is on its way arrive; what does not becomes a violation.
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
