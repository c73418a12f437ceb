//! The dispatcher's end of a sender: events go in, and the end of the sender is seen.
//!
//! `push` refuses an event over a limit with the reason. A sender whose endpoint was removed or changed becomes an
//! `EndedSender`: it sends what waits, and takes nothing more. Owns the dispatcher's end of the queue; does not post
//! (`sender.rs`). Limits: those of `load.rs`.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender as Channel;
use std::sync::{Arc, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use super::load::{ENDED, Load, SenderShared, WORKS};
use crate::clock::Moment;
use crate::webhook::batch::EventJson;
use crate::webhook::input::EndpointTarget;
use crate::webhook::report::Discarded;
use crate::webhook::time::later;

/// Why an event was not queued.
#[derive(Debug)]
pub(in crate::webhook) enum PushError {
    /// The limit of waiting events or bytes is reached.
    Full,
    /// No sender runs: it ended, because it had nothing to do.
    Ended,
}

/// The dispatcher's end of a sender.
pub(in crate::webhook) struct Handle {
    pub(super) queue: Channel<EventJson>,
    pub(super) load: Arc<Load>,
    pub(super) thread: Thread,
}

impl Handle {
    /// Queues an event. Never blocks.
    ///
    /// # Errors
    /// When it is not taken.
    pub(in crate::webhook) fn push(
        &self,
        event_json: &EventJson,
        common: &SenderShared,
    ) -> Result<(), PushError> {
        let (class, bytes) = (event_json.class, event_json.json.len());
        let load = &self.load.by_class[class as usize];
        let is_full = load.is_full(class, common);
        // Counted before it is sent: a sender that sees zero may end, and then no event is on its way.
        let counted =
            self.load.events.fetch_update(Ordering::AcqRel, Ordering::Acquire, |events| {
                (events != ENDED && !is_full).then(|| events + 1)
            });
        match counted {
            Err(ENDED) => return Err(PushError::Ended),
            Err(_) => return Err(PushError::Full),
            Ok(_) => {}
        }
        load.events.fetch_add(1, Ordering::Relaxed);
        load.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.load.by_kind[event_json.kind as usize].fetch_add(1, Ordering::Relaxed);
        common.add_bytes(class, bytes);
        common.counters.note_queued();
        self.queue.send(event_json.clone()).map_err(|_| PushError::Ended)
    }

    /// Ends the queue: the sender sends the remaining events without further pauses, and ends.
    pub(in crate::webhook) fn finish(self, target: Arc<EndpointTarget>) -> EndedSender {
        let Self { queue, load, thread } = self;
        // The sender checks the queue when it is woken.
        drop(queue);
        thread.unpark();
        EndedSender { target, load, thread }
    }
}

/// A sender whose queue has ended.
pub(in crate::webhook) struct EndedSender {
    pub(in crate::webhook) target: Arc<EndpointTarget>,
    load: Arc<Load>,
    thread: Thread,
}

impl EndedSender {
    /// Events that are not delivered and not given up.
    pub(in crate::webhook) fn events(&self) -> usize {
        Some(self.load.events.load(Ordering::Acquire))
            .filter(|events| *events != ENDED)
            .unwrap_or(0)
    }

    /// Whether the endpoint has events left and may still accept them: it accepted the last request, or has not refused
    /// everything for this time since `from`.
    pub(in crate::webhook) fn may_accept(&self, from: Moment, now: Moment, time: Duration) -> bool {
        let since = self.load.failing_since.load(Ordering::Acquire);
        self.events() > 0 && (since == WORKS || now < later(from.max(Moment(since)), time))
    }

    /// The remaining events, for the log.
    pub(in crate::webhook) fn discarded(&self) -> Discarded {
        let by_kind = self.load.by_kind.each_ref().map(|count| count.load(Ordering::Relaxed));
        let sample = self.load.sample.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Discarded { by_kind, sample }
    }

    /// Wakes it from its pause, for instance to see `SenderShared::must_stop`.
    pub(in crate::webhook) fn wake(&self) {
        self.thread.unpark();
    }
}
