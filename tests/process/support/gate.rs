//! Keeps the tests of `alone` alone: while one of them has a server, no other test has one.
//!
//! Owns the list of running tests. Does not order tests: the test program does, and the names of `alone` come first in
//! its order, so the other tests hardly wait. The test program runs its tests on several threads, each named like its
//! test. Every server and every Redis has a folder, and every folder has a `Pass`, so no test has to ask for one.
//! Limit: one entry for each running test. Cost: a lock and a look-up for each process that is started.

#![expect(clippy::disallowed_types, reason = "tests wait for each other; no worker does")]

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;

/// The module whose tests measure what the machine does.
const ALONE: &str = "alone::";

#[derive(Debug)]
struct Gate {
    /// Passes of each test that runs, by its name.
    passes: BTreeMap<String, usize>,
    /// Tests of `alone` that wait for the others.
    waiting: usize,
}

static GATE: Mutex<Gate> = Mutex::new(Gate { passes: BTreeMap::new(), waiting: 0 });
static CHANGED: Condvar = Condvar::new();

/// Leave to have processes. Dropped, it lets others pass. A thread that a test has started needs none: the test itself
/// has a pass.
#[derive(Debug)]
pub(super) struct Pass(Option<String>);

impl Pass {
    /// Waits until the test of this thread may have processes. A test that has some already does not wait for more.
    pub(super) fn wait() -> Self {
        let current = thread::current();
        let Some(name) = current.name() else { return Self(None) };
        let mut gate = lock();
        if name.starts_with(ALONE) {
            gate.waiting += 1;
            gate = wait_until(gate, |gate| gate.passes.keys().all(|other| other == name));
            gate.waiting -= 1;
        } else {
            gate = wait_until(gate, |gate| gate.passes.contains_key(name) || gate.is_open());
        }
        *gate.passes.entry(name.to_owned()).or_default() += 1;
        Self(Some(name.to_owned()))
    }
}

impl Gate {
    /// Whether another test may start to have processes beside those that have some.
    fn is_open(&self) -> bool {
        self.waiting == 0 && !self.passes.keys().any(|name| name.starts_with(ALONE))
    }
}

fn wait_until(
    gate: MutexGuard<'static, Gate>,
    may_pass: impl Fn(&Gate) -> bool,
) -> MutexGuard<'static, Gate> {
    CHANGED.wait_while(gate, |gate| !may_pass(gate)).expect("no test fails while it has the lock")
}

fn lock() -> MutexGuard<'static, Gate> {
    GATE.lock().expect("no test fails while it has the lock")
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(name) = &self.0 else { return };
        let mut gate = lock();
        let passes = gate.passes.get_mut(name).map(|passes| {
            *passes -= 1;
            *passes
        });
        if passes == Some(0) {
            gate.passes.remove(name);
        }
        CHANGED.notify_all();
    }
}
