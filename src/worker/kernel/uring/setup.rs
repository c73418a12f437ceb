//! How a ring is made: its flags, its size, and what the kernel must have.
//!
//! Owns the choice of flags; the ring belongs to `Uring`. Does not prove that the ring works (`prove.rs`).
//! DEFER_TASKRUN is tried first, and left out where the kernel does not know it (before Linux 6.1). Limits: the entries
//! and completions of `limits.rs`, which are locked memory. Cost: two or three system calls for each worker at the
//! start.

use std::io;

use io_uring::{EnterFlags, IoUring};

use super::Uring;
use crate::limits;
use crate::worker::kernel::RingSize;
use crate::worker::time::Clock;

pub(super) fn build(entries: u32, completions: u32, deferred: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(completions).setup_submit_all().setup_taskrun_flag();
    match deferred {
        true => builder.setup_single_issuer().setup_defer_taskrun(),
        false => builder.setup_coop_taskrun(),
    };
    builder.build(entries)
}

impl Uring {
    /// Call it on the thread that uses the ring: with DEFER_TASKRUN the ring belongs to the thread that made it.
    ///
    /// # Errors
    /// If the kernel refuses the ring or lacks a needed feature.
    pub fn new(clock: Clock, size: RingSize) -> io::Result<Self> {
        let (entries, completions) = (limits::RING_ENTRIES, size.completions());
        match build(entries, completions, true) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Self::from_ring(build(entries, completions, false)?, clock)
            }
            ring => Self::from_ring(ring?, clock),
        }
    }

    /// As on kernels older than 6.1: without DEFER_TASKRUN, for tests of both ways on one kernel.
    ///
    /// # Errors
    /// As `new`.
    pub fn cooperative(clock: Clock, size: RingSize) -> io::Result<Self> {
        Self::from_ring(build(limits::RING_ENTRIES, size.completions(), false)?, clock)
    }

    pub(super) fn from_ring(ring: IoUring, clock: Clock) -> io::Result<Self> {
        let features = ring.params();
        // NODROP: completions that find no room wait in the kernel. EXT_ARG: a wait has a time limit. CQE_SKIP: a send
        // that succeeds posts nothing.
        let suffice = features.is_feature_nodrop()
            && features.is_feature_ext_arg()
            && features.is_feature_skip_cqe_on_success();
        if !suffice {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut wait_flags = EnterFlags::GETEVENTS;
        if features.is_feature_no_iowait() {
            wait_flags |= EnterFlags::NO_IOWAIT;
        }
        Ok(Self {
            ring,
            early_events: Vec::new(),
            clock,
            has_lost_completions: false,
            dropped_count: 0,
            wait_flags,
            #[cfg(test)]
            faults: std::collections::VecDeque::new(),
        })
    }
}
