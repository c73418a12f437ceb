//! The CPUs that this process may use, and the pinning of a worker to one of them.
//!
//! Input: the affinity mask that the process was started with (`taskset`, cpusets of a container). A worker is pinned
//! once, at its start, so that the state of its core stays in that CPU's caches. Limit: the 1,024 CPUs of a `cpu_set_t`;
//! on a larger machine the mask cannot be read, and nothing is pinned.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A CPU by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpu(pub(crate) usize);

impl Cpu {
    /// The CPUs that this thread may run on; none where the kernel does not say.
    pub(crate) fn all() -> Vec<Self> {
        let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).map(Self).collect()
    }

    /// Pins this thread. `false`: the kernel refuses, for example because a container has lost the CPU.
    pub(crate) fn pin_this_thread(self) -> bool {
        let mut only = CpuSet::new();
        only.set(self.0);
        sched_setaffinity(None, &only).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_run_on_its_cpu_only() {
        let all = Cpu::all();
        let last = *all.last().expect("a CPU to run on");
        let pinned = std::thread::spawn(move || (last.pin_this_thread(), Cpu::all()));
        assert_eq!(pinned.join().unwrap(), (true, vec![last]));
        assert_eq!(Cpu::all(), all, "the other threads are not pinned");
    }
}
