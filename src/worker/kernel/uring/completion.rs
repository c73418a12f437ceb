//! A completion of the ring, read: the report of a watch, or the result of a send. Plain values.
//!
//! Input: the three values of the kernel. Output: `None` for what is no request of this kernel interface, because a
//! ring also completes cancellations. Does not call the kernel. No limits: one value. Cost: a few steps for each
//! completion, no allocation.

use crate::tick::kernel::{KernelEvent, Sent};
use crate::worker::kernel::{OWN_KINDS, unpack, unpack_parts};

/// The kind of a send. In place of a slot its token has the send's index in the batch.
pub(super) const SENT: u64 = OWN_KINDS;

#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    /// As packed by `pack` or `pack_parts`.
    pub(super) data: u64,
    /// Negative: an error number.
    pub(super) result: i32,
    /// A multishot poll stays armed.
    pub(super) more: bool,
}

impl Completion {
    /// `None` for requests without a report, and for a watch that `unwatch` has ended.
    pub(super) fn event(self) -> Option<KernelEvent> {
        let token = unpack(self.data).filter(|_| self.result != -libc::ECANCELED)?;
        let end = i32::from(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR);
        let failed = self.result < 0;
        Some(KernelEvent {
            token,
            is_armed: self.more,
            has_end: !failed && self.result & end != 0,
            has_failed: failed,
        })
    }

    /// The index of a send in its batch, and its result. A send that succeeds as a whole has no completion
    /// (SKIP_SUCCESS).
    pub(super) fn sent(self) -> Option<(usize, Sent)> {
        let (SENT, index, _) = unpack_parts(self.data) else { return None };
        let sent = match usize::try_from(self.result) {
            Ok(count) => Sent::Part(count),
            Err(_) if self.result == -libc::EAGAIN => Sent::Part(0),
            Err(_) => Sent::Failed,
        };
        Some((index as usize, sent))
    }
}
