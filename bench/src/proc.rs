//! What `/proc` reports about a process: CPU time of all its threads, and memory. Plain values.
//!
//! Owns no state. Never an error where another user's process hides a value: that is 0. No limits: a few files, and one
//! for each thread. Cost: a file read for each thread for CPU time; `smaps_rollup` makes the kernel walk the page
//! tables, so `memory` is not called while measuring.

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time the threads of the process have used. A thread that ended is no longer counted, so
/// this is for servers whose threads live as long as they do.
pub(crate) fn cpu_time(pid: u32) -> io::Result<Duration> {
    scheduled(pid, 0)
}

/// Time that the threads of the process were ready to run and had no CPU: other processes had it.
pub(crate) fn waiting_time(pid: u32) -> io::Result<Duration> {
    scheduled(pid, 1)
}

/// The sum over all threads of one field of `schedstat`.
fn scheduled(pid: u32, field: usize) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that ends between the listing and here is skipped.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanoseconds += text.split(' ').nth(field).and_then(|field| field.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Bytes, as the kernel accounts them; its own socket memory is in none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    pub(crate) anonymous: u64,
    pub(crate) pss: u64,
}

impl Memory {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            rss: self.rss + other.rss,
            anonymous: self.anonymous + other.anonymous,
            pss: self.pss + other.pss,
        }
    }
}

/// Resident bytes alone, from one file: four times a second by `telemetry`.
pub(crate) fn rss(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kilobytes(&status, "VmRSS:") * 1024
}

/// Memory of the kernel that grows with connections, on the whole machine: both ends of a loopback connection, and the
/// sockets of other processes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) slab: u64,
    /// Buffers of TCP sockets, in use or allotted.
    pub(crate) tcp: u64,
    pub(crate) tcp_sockets: u64,
}

pub(crate) fn kernel() -> Kernel {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let sockstat = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = sockstat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let field = |name: &str| -> u64 {
        let mut words = tcp.split(' ').skip_while(|word| *word != name);
        words.nth(1).and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    Kernel {
        slab: kilobytes(&meminfo, "Slab:") * 1024,
        tcp: field("mem") * 4096,
        tcp_sockets: field("inuse"),
    }
}

pub(crate) fn memory(pid: u32) -> io::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    // Readable only for the owner; zero otherwise.
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    Ok(Memory {
        rss: kilobytes(&status, "VmRSS:") * 1024,
        anonymous: kilobytes(&status, "RssAnon:") * 1024,
        pss: kilobytes(&rollup, "Pss:") * 1024,
    })
}

fn kilobytes(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|value| value.trim().strip_suffix("kB"))
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_status() {
        let text = "VmPeak:\t  9 kB\nVmRSS:\t    5124 kB\nRssAnon:\t 12 kB\n";
        assert_eq!(kilobytes(text, "VmRSS:"), 5124);
        assert_eq!(kilobytes(text, "RssAnon:"), 12);
        assert_eq!(kilobytes(text, "Pss:"), 0);
    }

    #[test]
    fn this_process_has_memory_and_uses_cpu() {
        let pid = std::process::id();
        assert!(memory(pid).unwrap().rss > 0);
        assert!(cpu_time(pid).unwrap() > Duration::ZERO);
    }
}
