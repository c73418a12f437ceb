//! Whether a socket is queued to be read.

/// Whether a socket is queued to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tick) enum Queued {
    No,
    /// Until a read is short: the kernel reports what comes afterwards.
    Once,
    /// Until a read finds the end. The kernel has reported it, and reports nothing after it.
    ToTheEnd,
}
