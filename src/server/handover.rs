//! The transfer of established connections to another process, as the main threads of the two processes drive it.
//!
//! `worker/handover` is the workers' part, `takeover.rs` the conversation between the processes. Until the new process
//! has all connections, the old one can continue as before. Every wait has a limit in steps of a millisecond.

use std::io;
use std::time::Duration;

use super::life::{sleep, wake_all};
use super::takeover::{Predecessor, Successor};
use crate::mailbox::Doorbell;
use crate::worker::Shared;

const STEP: Duration = Duration::from_millis(1);
/// How long HTTP sessions may take to stand aside, in steps. A client that has sent a part of its request only is then
/// answered with 503. One that does not read its answers gets no further ones.
const ASIDE_STEPS: u32 = 1_000;
/// How long mail may take to run dry, in steps.
const QUIET_STEPS: u32 = 2_000;
/// How long it may take to give and to take everything, in steps; connections are quiet meanwhile. All together less
/// than a watchdog waits (tuning/ringverb.service). A million connections take about two seconds.
const GIVE_STEPS: u32 = 6_000;

/// Waits until `done`; an error when it takes more than so many steps.
fn wait(steps: u32, what: &str, mut done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    for _ in 0..steps {
        if done()? {
            return Ok(());
        }
        sleep(STEP);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what} (after {steps} ms)")))
}

/// Waits until no mail is under way between workers that are paused.
fn wait_until_quiet(shared: &Shared, doorbells: &[Doorbell]) -> io::Result<()> {
    let mut before = None;
    let mut ticks = shared.handover.ticks();
    wait(QUIET_STEPS, "the workers still exchanged messages", || {
        wake_all(doorbells);
        let now = shared.handover.ticks();
        if now.iter().zip(&ticks).any(|(now, before)| now == before) {
            return Ok(false);
        }
        ticks = now;
        let shown = shared.handover.shown();
        let quiet = shown.is_quiet() && before.as_ref() == Some(&shown);
        before = Some(shown);
        Ok(quiet)
    })
}

/// Gives everything to the successor. `false`: it came to nothing, and this process serves on.
pub(super) fn give(shared: &Shared, doorbells: &[Doorbell], successor: Successor) -> bool {
    let result = try_give(shared, doorbells, &successor);
    let taken = match &result {
        Ok(()) => true,
        Err(_) => !successor.take_back(),
    };
    if let (Err(error), false) = (result, taken) {
        tracing::error!(
            "a take-over failed, and this process continues with its connections: {error}"
        );
        shared.phase.run();
        wake_all(doorbells);
    }
    successor.tell_outcome(taken);
    taken
}

fn try_give(shared: &Shared, doorbells: &[Doorbell], successor: &Successor) -> io::Result<()> {
    let gone = || io::Error::other("the new process ended before it had all connections");
    shared.phase.wait();
    let ticks = shared.handover.shows();
    let all_aside = || {
        wake_all(doorbells);
        let shown = shared.handover.shows();
        Ok(shown.iter().zip(&ticks).all(|(now, before)| now > before)
            && shared.handover.busy() == 0)
    };
    if wait(ASIDE_STEPS, "HTTP requests were still under way", all_aside).is_err() {
        let left = shared.handover.busy();
        tracing::info!(
            "{left} HTTP connections were still busy after {ASIDE_STEPS} ms of the take-over: requests that have not \
             arrived in full are refused with 503"
        );
    }
    shared.phase.pause();
    wait_until_quiet(shared, doorbells)?;
    if successor.has_taken()? {
        return Err(gone());
    }
    shared.handover.give_to(successor.nonce, successor.workers);
    shared.phase.leave();
    wake_all(doorbells);
    wait(GIVE_STEPS, "the new process did not accept all connections", || {
        if shared.handover.has_failed() {
            return Err(io::Error::other(
                "a worker could not transfer its connections; the lines above have the reason",
            ));
        }
        successor.has_taken()
    })
}

/// Takes everything from the predecessor; the workers are paused, and listen.
///
/// # Errors
/// When it came to nothing: the predecessor serves on, or has died.
pub(super) fn take(
    shared: &Shared,
    doorbells: &[Doorbell],
    predecessor: &Predecessor,
    nonce: u64,
) -> io::Result<()> {
    predecessor.bring(doorbells.len(), nonce)?;
    let steps = ASIDE_STEPS + QUIET_STEPS + GIVE_STEPS;
    wait(steps, "the old process did not send all connections", || {
        predecessor.still_gives()?;
        if shared.handover.has_failed() {
            return Err(io::Error::other(
                "a worker could not take the transferred connections; the lines above have the reason",
            ));
        }
        Ok(shared.handover.all_done())
    })?;
    wait_until_quiet(shared, doorbells)?;
    predecessor.take()?;
    shared.phase.run();
    wake_all(doorbells);
    Ok(())
}
