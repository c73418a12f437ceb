//! The dispatcher's end of a sender: events go in, and the end of the sender is seen.
//!
//! `push` refuses an event over a limit with the reason. A sender whose endpoint was removed becomes an `EndedSender`:
//! it sends what waits, and no event is added. Owns the dispatcher's end of the queue; does not post (`sender.rs`).
//! Limits: those of `load.rs`. Cost: some fifteen atomic operations for an event, and a copy of two pointers to it.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender as Channel;
use std::sync::{Arc, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use super::load::{ENDED, EndpointLoad, NOT_FAILING, SenderShared};
use crate::clock::Moment;
use crate::webhook::batch::EventJson;
use crate::webhook::input::EndpointTarget;
use crate::webhook::report::Discarded;
use crate::webhook::time::add_time;

#[derive(Debug)]
pub(in crate::webhook) enum PushError {
    /// The limit of waiting events or bytes is reached.
    Full,
    /// The sender has ended, because no event came for a while. The dispatcher starts another one.
    Ended,
}

/// A running sender. Only the dispatcher has it, so only one thread adds events.
pub(in crate::webhook) struct SenderHandle {
    pub(super) queue: Channel<EventJson>,
    pub(super) load: Arc<EndpointLoad>,
    pub(super) thread: Thread,
}

impl SenderHandle {
    /// Queues an event, which other endpoints may have, too. Never blocks.
    ///
    /// # Errors
    /// When a limit is reached, or the sender has ended.
    pub(in crate::webhook) fn push(
        &self,
        event_json: &EventJson,
        shared: &SenderShared,
    ) -> Result<(), PushError> {
        let (class, bytes) = (event_json.class, event_json.json.len());
        let load = &self.load.by_class[class as usize];
        let is_full = load.is_full(class, shared);
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
        shared.add_bytes(class, bytes);
        shared.counters.note_queued();
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

/// A sender whose queue has ended: no event is added, and it ends when none is left.
pub(in crate::webhook) struct EndedSender {
    pub(in crate::webhook) target: Arc<EndpointTarget>,
    load: Arc<EndpointLoad>,
    thread: Thread,
}

impl EndedSender {
    /// Events that are neither delivered nor given up, those of a request under way included.
    pub(in crate::webhook) fn events(&self) -> usize {
        Some(self.load.events.load(Ordering::Acquire))
            .filter(|events| *events != ENDED)
            .unwrap_or(0)
    }

    /// Whether the endpoint has events left and may still accept them: it accepted the last request, or has not refused
    /// everything for this time since `from`.
    pub(in crate::webhook) fn may_accept(&self, from: Moment, now: Moment, time: Duration) -> bool {
        let since = self.load.failing_since.load(Ordering::Acquire);
        self.events() > 0 && (since == NOT_FAILING || now < add_time(from.max(Moment(since)), time))
    }

    /// The remaining events, for a line of the log. Not exact while a request ends at the same time.
    pub(in crate::webhook) fn discarded(&self) -> Discarded {
        let by_kind = self.load.by_kind.each_ref().map(|count| count.load(Ordering::Relaxed));
        let sample = self.load.sample.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Discarded { by_kind, sample }
    }

    /// Ends its pause, so that it sees `SenderShared::must_stop`.
    pub(in crate::webhook) fn wake(&self) {
        self.thread.unpark();
    }
}
