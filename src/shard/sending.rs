//! Send queues and memory, as the tick uses them.
//!
//! The flush takes dirty connections and their send queues here, and reports what was sent. The worker passes on what
//! it has measured: headroom, the reserve of HTTP, bytes of incomplete input. Every call is a line that hands on to
//! `Local`, which owns queues, account and limits.

use super::Shard;
use super::local::connection::ConnectionKey;
use super::local::delivery::AfterSend;
use super::local::send_queue::SendQueue;

impl Shard {
    /// Closes the slow consumers found since the last call with 4100, and sends homes the numbers that have changed.
    /// Call it once input is dealt with.
    pub fn settle(&mut self) {
        self.local.settle(&self.context, &mut self.outbox);
        self.take_own_mail();
    }

    /// The generation of a dirty connection, to be flushed; `None` when the connection is gone. Clears the mark. A slot
    /// is in the list twice when it was given to another connection since: the second time there is no mark. Its send
    /// queue is empty if `wake` has marked it.
    #[inline]
    pub fn take_dirty(&mut self, slot: u32) -> Option<u32> {
        self.local.take_dirty(slot)
    }

    #[must_use]
    #[inline]
    pub fn send_queue(&self, slot: u32) -> Option<&SendQueue> {
        self.local.send_queue(slot)
    }

    /// The kernel took `count` bytes of what was flushed. `blocked`: it would not take more for now.
    #[inline]
    pub fn sent(&mut self, slot: u32, count: usize, blocked: bool) -> AfterSend {
        self.local.sent(&self.context, &mut self.outbox, slot, count, blocked)
    }

    /// The connection has something to send that is not in its send queue: it takes part in the next flush.
    pub fn wake(&mut self, slot: u32) {
        self.local.wake(&mut self.outbox, slot);
    }

    /// `sent` was called for so many bytes together. Once for a batch, because the sum costs a delivery less than each.
    pub fn note_sent(&self, bytes: usize) {
        self.metrics().send_queue_bytes.sub(bytes as u64);
    }

    /// The socket is writable again.
    pub fn unblock(&mut self, slot: u32) {
        self.local.unblock(&mut self.outbox, slot);
    }

    /// Whether a connection is not to be read for now: it has changed more than its pace allows, or Redis does not keep
    /// up.
    #[must_use]
    pub fn must_wait(&self, key: ConnectionKey) -> bool {
        self.local.must_wait(&self.context, key)
    }

    /// The process was measured, and this many bytes are this core's until it is measured again. The measurement is
    /// older than this call. What was taken since the call before may have come after it, so it is subtracted.
    pub fn set_headroom(&mut self, bytes: u64) {
        self.local.set_headroom(bytes);
    }

    /// Bytes that connections that speak HTTP may take together whatever the headroom is: requests of backends are
    /// still answered when clients have used all.
    pub fn set_http_reserve(&mut self, bytes: u64) {
        self.local.set_http_reserve(bytes);
    }

    /// A connection that speaks HTTP takes another number of bytes now. Returns whether the process has memory for
    /// that.
    pub fn note_http(&mut self, before: usize, now: usize) -> bool {
        self.local.note_http(before, now)
    }

    /// The incomplete input of a connection takes another number of bytes now. It is closed if the process has no
    /// memory for that.
    pub fn note_input(&mut self, key: ConnectionKey, before: usize, now: usize) {
        self.local.note_input(&self.context, &mut self.outbox, key, before, now);
        self.take_own_mail();
    }

    /// Bytes of connections that speak HTTP.
    #[must_use]
    pub fn http_bytes(&self) -> u64 {
        self.local.http_bytes()
    }

    /// Bytes charged to all connections of this core.
    #[must_use]
    pub fn charged_bytes(&self) -> u64 {
        self.local.charged_bytes()
    }

    /// Bytes that a connection causes the server to keep, its incomplete input aside.
    #[must_use]
    pub fn kept_bytes(&self, key: ConnectionKey) -> usize {
        self.local.kept_bytes(key)
    }

    /// What is wrong with the account: for tests, since it walks over all that connections keep.
    #[must_use]
    pub fn account_fault(&self) -> Option<String> {
        self.local.account_fault(&self.context)
    }
}
