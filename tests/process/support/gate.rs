//! Keeps the tests of `alone` alone: while one of them has a server, no other test has one.
//!
//! The test program runs its tests on several threads, each named like its test. Every server and every Redis has a
//! folder, and every folder has a `Pass`, so no test has to ask for one. The names of `alone` come first in the order
//! of the test program, so the other tests hardly wait.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;

/// The module whose tests measure what the machine does.
const ALONE: &str = "alone::";

#[derive(Debug)]
struct Gate {
    /// Passes of tests that may run side by side.
    shared: usize,
    /// The test of `alone` that runs, and its passes.
    alone: Option<(String, usize)>,
}

static GATE: Mutex<Gate> = Mutex::new(Gate { shared: 0, alone: None });
static CHANGED: Condvar = Condvar::new();

/// Leave to have processes. Dropped, it lets others pass.
#[derive(Debug)]
pub(super) struct Pass(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Shared,
    Alone,
    /// A thread that a test has started: the test itself has a pass.
    Helper,
}

impl Pass {
    /// Waits until the test of this thread may have processes.
    pub(super) fn wait() -> Self {
        let current = thread::current();
        let Some(name) = current.name() else { return Self(Kind::Helper) };
        if name.starts_with(ALONE) { Self::alone(name) } else { Self::shared() }
    }

    fn alone(name: &str) -> Self {
        let is_free = |gate: &Gate| match &gate.alone {
            None => gate.shared == 0,
            Some((owner, _)) => owner == name,
        };
        let mut gate = wait_until(is_free);
        gate.alone.get_or_insert_with(|| (name.to_owned(), 0)).1 += 1;
        Self(Kind::Alone)
    }

    /// Does not wait for tests of `alone` that wait themselves: this test may have a server already.
    fn shared() -> Self {
        let mut gate = wait_until(|gate| gate.alone.is_none());
        gate.shared += 1;
        Self(Kind::Shared)
    }
}

fn wait_until(is_free: impl Fn(&Gate) -> bool) -> MutexGuard<'static, Gate> {
    CHANGED.wait_while(lock(), |gate| !is_free(gate)).expect("no test fails while it has the lock")
}

fn lock() -> MutexGuard<'static, Gate> {
    GATE.lock().expect("no test fails while it has the lock")
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut gate = lock();
        match self.0 {
            Kind::Helper => return,
            Kind::Shared => gate.shared -= 1,
            Kind::Alone => {
                let passes = gate.alone.as_mut().map(|(_, passes)| {
                    *passes -= 1;
                    *passes
                });
                if passes == Some(0) {
                    gate.alone = None;
                }
            }
        }
        CHANGED.notify_all();
    }
}
