//! Send queues and memory, as the tick uses them.
//!
//! The flush takes dirty connections and their send queues here, and reports what was sent. The worker passes on what
//! it has measured: headroom, the reserve of HTTP, bytes of incomplete input. Every call is a line that hands on to
//! `Local`, which owns queues, account and limits. No limits: `Local` has them. Cost: a step for each call, no
//! allocation.

use super::Shard;
use super::local::connection::ConnectionKey;
use super::local::delivery::AfterSend;
use super::local::send_queue::SendQueue;
use crate::slot::Slot;

impl Shard {
    /// Closes the slow consumers found since the last call with 4100, and sends homes the numbers that have changed.
    /// Call it once input is dealt with.
    pub fn settle(&mut self) {
        self.local.settle(&self.context, &mut self.outbox);
        self.take_own_mail();
        debug_assert!(self.outbox.own_mail.is_empty(), "the parts have answered each other");
    }

    /// See `Local::take_dirty`.
    #[inline]
    pub fn take_dirty(&mut self, slot: Slot) -> Option<u32> {
        self.local.take_dirty(slot)
    }

    #[must_use]
    #[inline]
    pub fn send_queue(&self, slot: Slot) -> Option<&SendQueue> {
        self.local.send_queue(slot)
    }

    /// See `Local::sent`.
    #[inline]
    pub fn on_sent(&mut self, slot: Slot, count: usize, blocked: bool) -> AfterSend {
        debug_assert!(
            self.local.connections.get(slot).is_none_or(|found| !found.dirty),
            "`take_dirty` has cleared the mark"
        );
        self.local.on_sent(&self.context, &mut self.outbox, slot, count, blocked)
    }

    /// The connection has something to send that is not in its send queue: it takes part in the next flush.
    pub fn wake(&mut self, slot: Slot) {
        self.local.wake(&mut self.outbox, slot);
    }

    /// `sent` was called for so many bytes together. Once for a batch, because the sum costs a delivery less than each.
    pub fn note_sent(&self, bytes: usize) {
        debug_assert!(self.metrics().send_queue_bytes.get() >= bytes as u64, "they were counted");
        self.metrics().send_queue_bytes.sub(bytes as u64);
    }

    /// See `Local::unblock`.
    pub fn unblock(&mut self, slot: Slot) {
        self.local.unblock(&mut self.outbox, slot);
    }

    /// See `Local::must_wait`.
    #[must_use]
    pub fn must_wait(&self, key: ConnectionKey) -> bool {
        self.local.must_wait(&self.context, key)
    }

    /// See `Local::set_headroom`.
    pub fn set_headroom(&mut self, bytes: u64) {
        self.local.set_headroom(bytes);
    }

    /// See `Local::set_http_reserve`.
    pub fn set_http_reserve(&mut self, bytes: u64) {
        self.local.set_http_reserve(bytes);
    }

    /// A connection that speaks HTTP takes another number of bytes now. Returns whether the process has memory for
    /// that.
    pub fn note_http(&mut self, before: usize, now: usize) -> bool {
        self.local.note_http(before, now)
    }

    /// See `Local::note_input`.
    pub fn note_input(&mut self, key: ConnectionKey, before: usize, now: usize) {
        self.local.note_input(&self.context, &mut self.outbox, key, before, now);
        self.take_own_mail();
    }

    /// See `Local::http_bytes`.
    #[must_use]
    pub fn http_bytes(&self) -> u64 {
        self.local.http_bytes()
    }

    /// See `Local::charged_bytes`.
    #[must_use]
    pub fn charged_bytes(&self) -> u64 {
        self.local.charged_bytes()
    }

    /// See `Local::kept_bytes`.
    #[must_use]
    pub fn kept_bytes(&self, key: ConnectionKey) -> usize {
        self.local.kept_bytes(key)
    }

    /// See `Local::account_fault`.
    #[must_use]
    pub fn account_fault(&self) -> Option<String> {
        self.local.account_fault(&self.context)
    }
}
