//! How threads that are no workers wait, and wake the workers.
//!
//! They may block: no data passes through them. Every other wait of the server is a worker's `park`. So a sleep in a
//! tick, which would hold up all clients of a core, is a violation that clippy finds. Owns no state. Does not wait for
//! a worker.
//! Limit: the time that the caller passes. Cost: one system call for each worker that sleeps.

use std::time::Duration;

use crate::mailbox::Doorbell;

pub(super) fn wake_all(doorbells: &[Doorbell]) {
    doorbells.iter().for_each(Doorbell::ring);
}

#[expect(clippy::disallowed_methods, reason = "the main thread has nothing else to do")]
pub(super) fn sleep(time: Duration) {
    std::thread::sleep(time);
}
