//! The transfer of established connections to another process, as the main threads of the two processes drive it.
//!
//! Owns the order of its steps and the time of each. `worker/transfer` is the workers' part, `takeover/mod.rs` the
//! conversation between the processes. Until the new process has all connections, the old one can continue as before.
//! Does not move a connection itself.
//! Limits: `ASIDE_TIME_MAX`, `QUIET_TIME_MAX` and `TRANSFER_TIME_MAX`, each for one of its waits.
//! Cost: at a take-over only; a look every millisecond, with one system call for each worker that it wakes.

use std::io;
use std::time::Duration;

use super::{NewProcess, OldProcess};
use crate::mailbox::Doorbell;
use crate::server::wait::{look_for, wake_all};
use crate::worker::Shared;
use crate::worker::time::Clock;

const STEP: Duration = Duration::from_millis(1);
/// How long HTTP requests under way may take to end. A client that has sent only a part of its request is then answered
/// with 503. One that does not read its answers gets no further ones.
const ASIDE_TIME_MAX: Duration = Duration::from_millis(1_000);
/// How long mail between workers may take to run dry.
const QUIET_TIME_MAX: Duration = Duration::from_millis(2_000);
/// How long the workers may take to send and receive everything. No client is served during this time. A million
/// connections take about two seconds.
const TRANSFER_TIME_MAX: Duration = Duration::from_millis(6_000);
/// For all waits together, each of which may exceed its time by one look. `orders.rs` notifies the watchdog just
/// before, and a test in `supervision.rs` compares this time with that of tuning/ringverb.service.
pub(in crate::server) const SEND_TIME_MAX: Duration =
    ASIDE_TIME_MAX.saturating_add(QUIET_TIME_MAX).saturating_add(TRANSFER_TIME_MAX);

/// Looks once in each step: the workers count in atomics, and nothing wakes the main thread.
fn wait(
    clock: Clock,
    time: Duration,
    what: &str,
    mut done: impl FnMut() -> io::Result<bool>,
) -> io::Result<()> {
    let look = || match done() {
        Ok(false) => None,
        Ok(true) => Some(Ok(())),
        Err(error) => Some(Err(error)),
    };
    look_for(|| clock.now(), time, STEP, look).unwrap_or_else(|| {
        let text = format!("{what} (after {} ms)", time.as_millis());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

/// Two equal counts in a row, with a tick of each worker between them: mail that was in a ring at the first one is
/// counted by the second.
fn wait_until_quiet(shared: &Shared, doorbells: &[Doorbell]) -> io::Result<()> {
    let mut before = None;
    let mut ticks = shared.transfer.ticks();
    wait(shared.clock, QUIET_TIME_MAX, "the workers still exchanged messages", || {
        wake_all(doorbells);
        let now = shared.transfer.ticks();
        if now.iter().zip(&ticks).any(|(now, before)| now == before) {
            return Ok(false);
        }
        ticks = now;
        let shown = shared.transfer.gauges();
        let quiet = shown.is_quiet() && before.as_ref() == Some(&shown);
        before = Some(shown);
        Ok(quiet)
    })
}

/// `false`: that failed, and this process continues with everything.
pub(in crate::server) fn send(
    shared: &Shared,
    doorbells: &[Doorbell],
    new_process: NewProcess,
) -> bool {
    let result = try_send(shared, doorbells, &new_process);
    let is_taken = match &result {
        Ok(()) => true,
        Err(_) => !new_process.reclaim(),
    };
    if let (Err(error), false) = (result, is_taken) {
        tracing::error!(
            event = "takeover_failed",
            "a take-over failed, and this process continues with its connections: {error}"
        );
        shared.phase.set_running();
        wake_all(doorbells);
    }
    new_process.report_outcome(is_taken);
    is_taken
}

fn try_send(shared: &Shared, doorbells: &[Doorbell], new_process: &NewProcess) -> io::Result<()> {
    let gone = || io::Error::other("the new process ended before it had all connections");
    shared.phase.set_waiting();
    let ticks = shared.transfer.gauge_updates();
    let all_aside = || {
        wake_all(doorbells);
        let shown = shared.transfer.gauge_updates();
        Ok(shown.iter().zip(&ticks).all(|(now, before)| now > before)
            && shared.transfer.untransferable_sessions() == 0)
    };
    if wait(shared.clock, ASIDE_TIME_MAX, "HTTP requests were still under way", all_aside).is_err()
    {
        let left = shared.transfer.untransferable_sessions();
        tracing::info!(
            event = "takeover_http_refused",
            "{left} HTTP connections were still busy after {} ms of the take-over: requests that have not arrived in \
             full are refused with 503",
            ASIDE_TIME_MAX.as_millis()
        );
    }
    shared.phase.set_paused();
    wait_until_quiet(shared, doorbells)?;
    if new_process.has_confirmed()? {
        return Err(gone());
    }
    shared.transfer.send_to(new_process.nonce, new_process.workers);
    shared.phase.set_leaving();
    wake_all(doorbells);
    wait(shared.clock, TRANSFER_TIME_MAX, "the new process did not accept all connections", || {
        if shared.transfer.has_failed() {
            return Err(io::Error::other(
                "a worker could not transfer its connections; the lines above have the reason",
            ));
        }
        new_process.has_confirmed()
    })
}

/// The workers of this process are paused until then, so a failure leaves nothing half done here.
///
/// # Errors
/// When that failed: the old process continues with everything, or has died.
pub(in crate::server) fn receive(
    shared: &Shared,
    doorbells: &[Doorbell],
    old_process: &OldProcess,
    nonce: u64,
) -> io::Result<()> {
    old_process.request_transfer(doorbells.len(), nonce)?;
    wait(shared.clock, SEND_TIME_MAX, "the old process did not send all connections", || {
        old_process.check_sending()?;
        if shared.transfer.has_failed() {
            return Err(io::Error::other(
                "a worker could not take the transferred connections; the lines above have the reason",
            ));
        }
        Ok(shared.transfer.all_done())
    })?;
    wait_until_quiet(shared, doorbells)?;
    old_process.confirm()?;
    shared.phase.set_running();
    wake_all(doorbells);
    Ok(())
}
