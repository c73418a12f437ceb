//! Wakes a sleeping core: an `asleep` flag and an eventfd, at most one write per sleep.
//!
//! The receiver stores `asleep` and checks its rings once more before it sleeps. The sender pushes, then reads the
//! flag. Each side has a SeqCst fence between its two steps. Without the fences a store and the following load can be
//! reordered, and neither side sees the other. The flag's own ordering is not enough, because the indexes of the rings
//! are not SeqCst. tests/loom runs this file over a model of the ring, in every order with at most five preemptions.
//!
//! Owns the flag and the eventfd; does not know rings or mail. No limit: many rings of one sleep are one write. Cost: a
//! ring to a core that is awake is a fence and one load of an atomic word; one that wakes it is a compare-and-swap and
//! one system call more.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

#[derive(Debug)]
pub struct Doorbell {
    asleep: AtomicBool,
    event: OwnedFd,
}

impl Doorbell {
    /// # Errors
    /// When there is no descriptor left for the eventfd.
    pub fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { asleep: AtomicBool::new(false), event })
    }

    /// Wakes the core if it sleeps. Call it after the push.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        // Awake is the usual case and needs no write. If several senders ring, one writes the eventfd. A sender that
        // finds the core awake writes nothing, so that its `false` cannot follow the core's next `true`.
        let (asleep, order) = (&self.asleep, Ordering::Relaxed);
        if asleep.load(order) && asleep.compare_exchange(true, false, order, order).is_ok() {
            // Fails only when 2^64 - 2 rings are pending: then the core is awake, if slow.
            rustix::io::write(&self.event, &1_u64.to_ne_bytes()).ok();
        }
    }

    /// The core is about to sleep: rings write the eventfd. The caller must check for work once more after this.
    pub fn set_asleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Saves the senders the system call from now on. Needs no fence: a ring too many is harmless.
    pub fn set_awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// For the kernel's poll of the worker: readable from a ring until `was_rung`.
    #[must_use]
    pub fn as_event_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Resets the eventfd; whether it had been written.
    #[must_use]
    pub fn was_rung(&self) -> bool {
        rustix::io::read(&self.event, &mut [0_u8; 8]).is_ok()
    }

    /// Blocks until rung and resets. For threads without a kernel interface of their own.
    pub fn wait(&self) {
        let mut descriptors = [PollFd::new(&self.event, PollFlags::IN)];
        while !self.was_rung() {
            // EINTR: look again.
            poll(&mut descriptors, None).ok();
        }
    }

    /// Blocks until rung or until the time is over, then resets. May return early.
    pub fn wait_for(&self, time: Duration) {
        let mut descriptors = [PollFd::new(&self.event, PollFlags::IN)];
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let time = Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() };
        // An interrupted wait is repeated by the caller.
        poll(&mut descriptors, Some(&time)).ok();
        let _was_rung = self.was_rung();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_by_a_ring_or_in_time() {
        let doorbell = Doorbell::new().unwrap();
        doorbell.set_asleep();
        doorbell.wait_for(Duration::from_millis(1));
        std::thread::scope(|scope| {
            scope.spawn(|| doorbell.ring());
            doorbell.wait_for(Duration::from_secs(3_600));
        });
        assert!(!doorbell.was_rung(), "the wait has reset it");
    }
}
