//! Whether a socket is queued to be read, and until when. PURE data.
//!
//! Established sockets (`reactor.rs`) and sessions (`sessions/table.rs`) have the same three states, because the kernel
//! interface makes both the same promise: it does not report bytes again that were left unread.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tick) enum Queued {
    No,
    /// Until a read has room left: the kernel reports bytes that arrive after it.
    Once,
    /// Until a read finds the end. The kernel has reported it, and reports nothing after it.
    ToTheEnd,
}
