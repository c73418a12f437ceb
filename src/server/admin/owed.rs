//! The answers that the admin listener owes, so that a process that ends sends them first.
//!
//! Owns the orders to stop accepting and changing, and counts connections from before they are accepted until they are
//! answered. The thread `admin` changes the counts, and the main thread waits for them at the end of the process. A
//! viewer of the event log is owed nothing: it connects again. Does not know what an answer is.
//! Limits: `SILENT_TIME` for connections without a first byte (browsers open such in advance), `ANSWERS_TIME_MAX` for
//! all. A peer that reads its answer slowly has 10 s as long as the process runs (`connection.rs`); at the end of the
//! process the answer is cut after `ANSWERS_TIME_MAX`. Cost: at most seven atomic operations for a connection.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::server::wait::{look_for, since};
use crate::worker::time::Clock;

/// How long the end of the process waits for the first byte of a connection.
const SILENT_TIME: Duration = Duration::from_millis(250);
/// How long the end of the process waits for all answers together.
pub(in crate::server) const ANSWERS_TIME_MAX: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(2);

/// Shared by the thread `admin` and the main thread. All accesses are sequentially consistent: the main thread writes
/// `is_stopped` and then reads `is_accepting`, the other thread writes `is_accepting` and then reads `is_stopped`, so
/// one of them sees the other.
#[derive(Debug, Default)]
pub(super) struct OwedAnswers {
    is_stopped: AtomicBool,
    is_accepting: AtomicBool,
    /// The main thread carries out no change any longer. The outcomes of earlier ones are in their channels.
    has_ended_changes: AtomicBool,
    /// Another process serves. The answer to a request that was not carried out then says to send it again.
    is_taken_over: AtomicBool,
    open_count: AtomicUsize,
    /// Connections of `open_count` that have sent something. Their requests may be carried out, so they are answered.
    begun_count: AtomicUsize,
}

/// Belongs to one connection. Dropped, the answer is owed no longer.
#[derive(Debug)]
pub(super) struct OwedAnswer {
    owed: Arc<OwedAnswers>,
    has_begun: Cell<bool>,
}

impl OwedAnswers {
    /// No connection that is accepted after this is owed an answer; `begin_accept` refuses.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
    }

    /// Set for the rest of the process: another process accepts, or none.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// The main thread carries out no change from now on. It has answered the changes that it carried out.
    pub(super) fn end_changes(&self, is_taken_over: bool) {
        self.is_taken_over.store(is_taken_over, Ordering::SeqCst);
        self.has_ended_changes.store(true, Ordering::SeqCst);
    }

    /// Whether the main thread carries out no change any longer; if so, whether another process serves.
    pub(super) fn changes_end(&self) -> Option<bool> {
        let has_ended = self.has_ended_changes.load(Ordering::SeqCst);
        has_ended.then(|| self.is_taken_over.load(Ordering::SeqCst))
    }

    /// `false`: none is accepted any longer. Pairs with `end_accept`, also if the accept fails.
    pub(super) fn begin_accept(&self) -> bool {
        self.is_accepting.store(true, Ordering::SeqCst);
        let accepts = !self.is_stopped();
        if !accepts {
            self.end_accept();
        }
        accepts
    }

    pub(super) fn end_accept(&self) {
        self.is_accepting.store(false, Ordering::SeqCst);
    }

    pub(super) fn add_connection(self: &Arc<Self>) -> OwedAnswer {
        self.open_count.fetch_add(1, Ordering::SeqCst);
        OwedAnswer { owed: self.clone(), has_begun: Cell::new(false) }
    }

    /// Waits until all connections are answered, within limits. Call `stop` before.
    pub(super) fn wait(&self, clock: Clock) {
        let began = clock.now();
        let look = || (!self.is_owed(since(began, clock.now()))).then_some(());
        look_for(|| clock.now(), ANSWERS_TIME_MAX, STEP, look);
    }

    fn is_owed(&self, waited: Duration) -> bool {
        self.is_accepting.load(Ordering::SeqCst)
            || self.begun_count.load(Ordering::SeqCst) > 0
            || waited < SILENT_TIME && self.open_count.load(Ordering::SeqCst) > 0
    }
}

impl OwedAnswer {
    /// The peer has sent the first bytes of a request. Further calls change nothing.
    pub(super) fn note_begun(&self) {
        if !self.has_begun.replace(true) {
            self.owed.begun_count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for OwedAnswer {
    fn drop(&mut self) {
        if self.has_begun.get() {
            self.owed.begun_count.fetch_sub(1, Ordering::SeqCst);
        }
        self.owed.open_count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_owed_from_before_the_accept_until_it_is_dropped() {
        let owed = Arc::new(OwedAnswers::default());
        let late = SILENT_TIME;
        assert!(!owed.is_owed(Duration::ZERO));
        assert!(owed.begin_accept() && owed.is_owed(late), "it may accept one");
        let first = owed.add_connection();
        owed.end_accept();
        assert!(owed.is_owed(Duration::ZERO) && !owed.is_owed(late), "it may send nothing");
        first.note_begun();
        first.note_begun();
        let second = owed.add_connection();
        second.note_begun();
        drop(second);
        assert!(owed.is_owed(late), "the first waits");
        owed.stop();
        assert!(!owed.begin_accept() && owed.is_stopped());
        drop(first);
        assert!(!owed.is_owed(Duration::ZERO));
        owed.wait(Clock::start());
    }
}
