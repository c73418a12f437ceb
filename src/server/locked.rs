//! Locked memory: what the rings of the workers take of it, what the kernel allows, and which size of rings that is
//! enough for.
//!
//! io_uring charges its rings to RLIMIT_MEMLOCK. The limit counts for all processes of a user together, so a take-over
//! needs twice as much for a moment. A process with CAP_IPC_LOCK, such as root's, has no limit. Linux 5.12 charges
//! rings to the control group only, and Linux 6.18 to both; the limit is respected on all kernels. The control thread
//! has no ring (`control.rs`). Owns no ring: input are limits of the process, output the size of rings, or a warning
//! with the remedy. Does not make a ring (`worker/kernel/uring/setup.rs`).
//! No limits: it reports that of the kernel. Cost: once at the start, a few system calls.

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

use crate::limits;
use crate::worker::kernel::{Choice, RingSize};

/// The end of each sentence about too little locked memory: what an operator changes to get more.
const REMEDY: &str = "raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the systemd unit, `ulimit -l` in a shell, memlock in \
                    /etc/security/limits.conf), lower RINGVERB_WORKERS, or set RINGVERB_IO=epoll, which locks none";

/// What the rings of `workers` workers need, and what this process may lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockedMemory {
    pub(super) workers: usize,
    /// The need with small rings, which io_uring cannot do without.
    pub(super) needed_bytes: u64,
    pub(super) needed_bytes_with_large_rings: u64,
    /// `None`: the process may lock any amount.
    pub(super) limit_bytes: Option<u64>,
}

impl LockedMemory {
    pub(super) fn for_workers(workers: usize) -> Self {
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        let count = u64::try_from(workers).unwrap_or(u64::MAX);
        let rings = |size: RingSize| {
            ring_bytes(limits::RING_ENTRIES, size.completions(), page).saturating_mul(count)
        };
        let (needed_bytes, needed_bytes_with_large_rings) =
            (rings(RingSize::Small), rings(RingSize::Large));
        Self { workers, needed_bytes, needed_bytes_with_large_rings, limit_bytes: raise_limit() }
    }

    /// Large rings where those of two processes fit, so that a take-over does.
    pub(super) fn ring_size(&self) -> RingSize {
        let twice = self.needed_bytes_with_large_rings.saturating_mul(2);
        match self.limit_bytes.is_none_or(|limit_bytes| twice <= limit_bytes) {
            true => RingSize::Large,
            false => RingSize::Small,
        }
    }

    /// `check` shows it, with the reason if the rings are not the large ones.
    pub(super) fn ring_choice_text(&self, size: RingSize) -> String {
        let completions = size.completions();
        let Self { workers, needed_bytes_with_large_rings, .. } = self;
        match size {
            RingSize::Large => {
                let used = Self { needed_bytes: *needed_bytes_with_large_rings, ..*self };
                format!("{used}. Rings have {completions} completions")
            }
            RingSize::Small => format!(
                "{self}. Rings have {completions} completions. With {}, a close costs less where a worker has \
                 thousands of connections: these and a take-over need {} KiB of locked memory for {workers} workers; \
                 to have them, raise RLIMIT_MEMLOCK",
                RingSize::Large.completions(),
                needed_bytes_with_large_rings.saturating_mul(2).div_ceil(1024)
            ),
        }
    }

    /// What the operator should know if the probe, or so many workers, found no room for a large ring.
    pub(super) fn warning_of_smaller_rings(&self, io: &Choice, workers: usize) -> Option<String> {
        let has_probe_failed =
            self.ring_size() == RingSize::Large && *io == Choice::Uring(RingSize::Small);
        let count = if has_probe_failed { self.workers } else { workers };
        (count > 0).then(|| {
            format!(
                "{count} of {} workers have rings with {} completions in place of {}, because other processes of this \
                 user use the locked memory that was to hold larger ones. A close costs more there, where a worker has \
                 thousands of connections: raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the systemd unit, `ulimit -l` in a \
                 shell)",
                self.workers,
                RingSize::Small.completions(),
                RingSize::Large.completions(),
            )
        })
    }

    pub(super) fn is_enough_to_start(&self) -> bool {
        self.limit_bytes.is_none_or(|limit_bytes| self.needed_bytes <= limit_bytes)
    }

    /// `None` if a start and a take-over have enough.
    pub(super) fn warning(&self) -> Option<String> {
        let limit_bytes = self.limit_bytes?;
        if self.needed_bytes > limit_bytes {
            return Some(format!("{self}, which is too little to start: {REMEDY}"));
        }
        let twice = self.needed_bytes.saturating_mul(2);
        (twice > limit_bytes).then(|| {
            format!("{self}, which is too little for a take-over by a new process: {REMEDY}")
        })
    }

    /// The reason of a start that was to use io_uring and cannot.
    pub(super) fn error(&self) -> String {
        format!(
            "io_uring gets too little locked memory for its rings: {self}. All processes of the user share that, and a \
             take-over needs it twice. To use io_uring, {REMEDY}"
        )
    }
}

impl fmt::Display for LockedMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, needed_bytes, limit_bytes, .. } = self;
        write!(
            formatter,
            "{workers} workers need {} KiB of locked memory",
            needed_bytes.div_ceil(1024)
        )?;
        match limit_bytes {
            Some(limit_bytes) => {
                write!(formatter, ", and this user may lock {} KiB", limit_bytes / 1024)
            }
            None => formatter.write_str(", and this user may lock any amount"),
        }
    }
}

/// Bytes that a ring locks: two regions of whole pages, one for submissions of 64 bytes, and one for completions of 16
/// bytes behind a head, with an index of submissions. Agrees with what Linux 6.18 charges.
fn ring_bytes(entries: u32, completions: u32, page: u64) -> u64 {
    const HEAD: u64 = 64;
    let (entries, completions) = (u64::from(entries), u64::from(completions));
    (HEAD + 16 * completions + 4 * entries).next_multiple_of(page)
        + (64 * entries).next_multiple_of(page)
}

/// Returns what is allowed then; `None`: any amount.
fn raise_limit() -> Option<u64> {
    let capabilities = rustix::thread::capabilities(None);
    if capabilities.is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK)) {
        return None;
    }
    let limit = getrlimit(Resource::Memlock);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Refused in odd sandboxes; then the old limit stands.
    if setrlimit(Resource::Memlock, raised).is_ok() { limit.maximum } else { limit.current }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured on Linux 6.18 as the number of rings that fit 8 MiB.
    #[test]
    fn a_ring_locks_the_bytes_that_the_kernel_charges() {
        for (entries, completions, bytes) in [
            (1024, 16_384, 335_872),
            (1024, 2048, 106_496),
            (256, 512, 28_672),
            (256, 4096, 86_016),
            (256, 8192, 151_552),
            (128, 8192, 143_360),
            (128, 1024, 28_672),
            (32, 512, 16_384),
        ] {
            assert_eq!(ring_bytes(entries, completions, 4096), bytes, "{entries}/{completions}");
        }
    }

    #[test]
    fn the_most_workers_of_two_processes_fit_eight_mebibytes() {
        let each = ring_bytes(limits::RING_ENTRIES, limits::RING_COMPLETIONS, 4096);
        let workers = u64::try_from(crate::limits::WORKERS_MAX).unwrap();
        assert!(2 * workers * each <= 8 << 20, "{each} bytes a worker");
    }

    #[test]
    fn rings_are_large_where_those_of_two_processes_fit() {
        let memory = |workers, limit_bytes| LockedMemory {
            limit_bytes,
            ..LockedMemory::for_workers(workers)
        };
        let usual = Some(8 << 20);
        for (workers, limit_bytes, size) in [
            (1, usual, RingSize::Large),
            (29, usual, RingSize::Large),
            (30, usual, RingSize::Small),
            (128, usual, RingSize::Small),
            (128, None, RingSize::Large),
            (1, Some(64 << 10), RingSize::Small),
        ] {
            assert_eq!(
                memory(workers, limit_bytes).ring_size(),
                size,
                "{workers} in {limit_bytes:?}"
            );
        }
        let text = memory(30, usual).ring_choice_text(RingSize::Small);
        for part in ["30 workers need 840 KiB", "1024 completions", "8400 KiB", "RLIMIT_MEMLOCK"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let text = memory(29, usual).ring_choice_text(RingSize::Large);
        assert!(text.contains("29 workers need 4060 KiB") && text.contains("8192"), "{text}");
    }

    #[test]
    fn smaller_rings_than_the_limit_allows_are_warned_of() {
        let memory = LockedMemory { limit_bytes: Some(8 << 20), ..LockedMemory::for_workers(2) };
        let [large, small] = [RingSize::Large, RingSize::Small].map(Choice::Uring);
        assert_eq!(memory.warning_of_smaller_rings(&large, 0), None);
        assert_eq!(memory.warning_of_smaller_rings(&Choice::Epoll(None), 0), None);
        let warning = |io, workers| memory.warning_of_smaller_rings(io, workers).unwrap();
        assert!(warning(&large, 1).starts_with("1 of 2 workers have rings with 1024"));
        assert!(warning(&small, 0).starts_with("2 of 2 workers have rings with 1024"));
        // By the limit alone they are small.
        let few = LockedMemory { limit_bytes: Some(64 << 10), ..memory };
        assert_eq!(few.warning_of_smaller_rings(&small, 0), None);
    }

    #[test]
    fn a_limit_is_warned_of_before_it_is_met() {
        let (needed_bytes, needed_bytes_with_large_rings) = (400 << 10, 2_000 << 10);
        let memory = |limit_bytes| LockedMemory {
            workers: 4,
            needed_bytes,
            needed_bytes_with_large_rings,
            limit_bytes,
        };
        assert_eq!(memory(None).warning(), None);
        assert_eq!(memory(Some(800 << 10)).warning(), None);
        let warning = |limit_bytes| memory(Some(limit_bytes)).warning().unwrap();
        assert!(warning((800 << 10) - 1).contains("too little for a take-over"));
        let text = warning(64 << 10);
        for part in [
            "4 workers need 400 KiB",
            "may lock 64 KiB",
            "too little to start",
            "LimitMEMLOCK=",
            "ulimit -l",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
