//! The phase of the process: one atomic word, set by the main thread and read by each worker once a tick.
//!
//! States: waiting for an old process, running, waiting for HTTP sessions, paused, leaving, draining, retiring,
//! stopped. ARCHITECTURE.md (glossary, "phase") and `worker/transfer` describe the order. Owns the word. Does not act
//! on a phase: the worker and `server` do. No limit: one word for the process. Cost: one atomic load a tick and worker.
//! A release store and an acquire load, so that a worker that sees a phase sees what the main thread prepared for it.

use std::sync::atomic::{AtomicU8, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Phase(AtomicU8);

impl Phase {
    const RUNNING: u8 = 0;
    const DRAINING: u8 = 1;
    const STOPPED: u8 = 2;
    const RETIRING: u8 = 3;
    const WAITING: u8 = 4;
    const PAUSED: u8 = 5;
    const LEAVING: u8 = 6;

    /// Paused from the start: the connections come from another process.
    #[must_use]
    pub(crate) fn paused() -> Self {
        Self(AtomicU8::new(Self::PAUSED))
    }

    /// For a worker that compares it with that of its last tick.
    pub(crate) fn as_u8(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    /// Serve: after the import in a new process, or again in an old one if the take-over fails.
    pub(crate) fn set_running(&self) {
        self.0.store(Self::RUNNING, Ordering::Release);
    }

    /// Stop accepting; HTTP sessions stop as soon as they are between two requests.
    pub(crate) fn set_waiting(&self) {
        self.0.store(Self::WAITING, Ordering::Release);
    }

    /// Read nothing, send nothing and ignore time, but process mail.
    pub(crate) fn set_paused(&self) {
        self.0.store(Self::PAUSED, Ordering::Release);
    }

    /// Send everything to another process (`Transfer::send_to`) and wait for another phase.
    pub(crate) fn set_leaving(&self) {
        self.0.store(Self::LEAVING, Ordering::Release);
    }

    /// Stop accepting, and close every connection in steps, so that no tick is long.
    pub(crate) fn set_draining(&self) {
        self.0.store(Self::DRAINING, Ordering::Release);
    }

    /// `set_draining`, but the listeners now belong to another process.
    pub(crate) fn set_retiring(&self) {
        self.0.store(Self::RETIRING, Ordering::Release);
    }

    pub(crate) fn is_retiring(&self) -> bool {
        self.as_u8() == Self::RETIRING
    }

    /// A transfer to or from another process is in progress.
    pub(crate) fn is_transferring(&self) -> bool {
        matches!(self.as_u8(), Self::WAITING | Self::PAUSED | Self::LEAVING)
    }

    /// Nothing but mail between cores may change a shard: the counts of mail show when none is under way.
    pub(crate) fn is_paused(&self) -> bool {
        matches!(self.as_u8(), Self::PAUSED | Self::LEAVING)
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.as_u8() == Self::LEAVING
    }

    /// Connections are closed for good: readiness fails, and no worker serves again.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.as_u8(), Self::DRAINING | Self::STOPPED | Self::RETIRING)
    }

    /// Workers leave their threads, whatever is still open.
    pub(crate) fn set_stopped(&self) {
        self.0.store(Self::STOPPED, Ordering::Release);
    }

    pub(crate) fn is_running(&self) -> bool {
        self.as_u8() == Self::RUNNING
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.as_u8() == Self::STOPPED
    }
}
