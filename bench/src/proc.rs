//! What `/proc` says about a process: CPU time of all its threads, and memory.

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time the threads of the process have used. A thread that ended is no longer counted, so
/// this is for servers whose threads live as long as they do.
pub(crate) fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that ends between the listing and here is skipped.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanoseconds += text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
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
