//! Time in tests: deadlines, pauses, and waits for a condition.
//!
//! Owns the only sleeps of the process tests. Does not measure: a test that has a tight time limit fails on a busy
//! machine. Limit: `DEADLINE` for anything. Cost: a wait looks every `POLL_INTERVAL`; no CPU time in between.

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take on a busy machine. A test that passes never waits that long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "a test has no tick to take the time from")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a test has no tick to take the time from")]
pub(crate) fn unix_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("a clock behind 1970").as_secs()
}

/// The pause between two looks at what a test waits for. Without it, the tests that wait would keep the cores from
/// those that run.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Between two looks of a wait.
#[expect(clippy::disallowed_methods, reason = "a test has no worker to hold up")]
pub(crate) fn poll_pause() {
    std::thread::sleep(POLL_INTERVAL);
}

/// An open-loop schedule: when each of many messages is sent, however long the server takes for those before it. Blocks
/// until each is due. For messages that have to arrive around a deadline of the server's clock; a test that waits for a
/// result uses `eventually`.
pub(crate) fn schedule(start: Instant, interval: Duration) -> impl Iterator<Item = Instant> {
    (0..).map(move |number| {
        let due = start + interval * number;
        sleep_until(due);
        now()
    })
}

#[expect(clippy::disallowed_methods, reason = "a test has no worker to hold up")]
fn sleep_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(now()));
}

/// Calls `ask` until it returns a value, and panics after `DEADLINE` with `what`.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        poll_pause();
    }
}

/// Acts, and fails if that took longer.
pub(crate) fn within<T>(limit: Duration, what: &str, act: impl FnOnce() -> T) -> T {
    let start = now();
    let result = act();
    let took = start.elapsed();
    assert!(took < limit, "{what} took {took:?}");
    result
}

/// Stops a process, as one that hangs.
pub(crate) fn pause(child: &Child) {
    kill_process(Pid::from_child(child), Signal::STOP).expect("the process is there");
    // The signal is on its way when `kill` returns.
    eventually("all its threads are stopped", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("a process");
        let mut states = tasks.map(|task| {
            let path = task.expect("a task").path().join("stat");
            let text = std::fs::read_to_string(path).expect("a task of a process that is there");
            // The name before it may hold anything.
            text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
        });
        states.all(|state| state == Some('T')).then_some(())
    });
}
