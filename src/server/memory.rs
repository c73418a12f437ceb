//! The memory limit: the resident set of the process against `RINGVERB_MEMORY_MAX`, which it enforces.
//!
//! Owns the overload level of memory. The target is 1/32 (3 %) below the limit, because memory still grows between two
//! measurements: answers are made for clients that have read so far, and pages are touched that were charged earlier.
//! Over the target, new connections and subscriptions are refused and the connections that keep most are closed; this
//! ends 1/16 (6 %) below the target, so that it does not begin and end with each measurement. Publishes are refused
//! while the process is more than 1/8 (12.5 %) over the limit. Below the target, workers may charge no more than what
//! is left of it until the next measurement (`MemoryAccount`). The resident set is what the kernel's out-of-memory
//! killer looks at; the kernel updates it in steps of some hundred KiB for each CPU. Does not close a connection.
//! Limit: one log line in `LINE_EVERY_MS`. Cost: one system call for a measurement, no allocation without a line.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::admission::overload::OverloadLevel;
use crate::counters::{RefusalCounters, Refused};

/// Between two log lines about the level, because memory at its limit can change the level with each measurement.
const LINE_EVERY_MS: u64 = 10_000;

/// The file stays open: a measurement must work when no descriptor is left.
pub(super) struct Resident {
    statm: File,
    page_bytes: u64,
}

impl Resident {
    pub(super) fn open_statm() -> io::Result<Self> {
        let statm = File::open("/proc/self/statm")?;
        Ok(Self { statm, page_bytes: rustix::param::page_size() as u64 })
    }

    /// In bytes; exact to some hundred KiB for each CPU.
    pub(super) fn read(&self) -> io::Result<u64> {
        let mut text = [0; 128];
        let length = self.statm.read_at(&mut text, 0)?;
        let pages = std::str::from_utf8(&text[..length]).ok().and_then(|text| {
            let second = text.split_ascii_whitespace().nth(1)?;
            second.parse::<u64>().ok()
        });
        let pages =
            pages.ok_or_else(|| io::Error::other("/proc/self/statm has an unknown form"))?;
        Ok(pages * self.page_bytes)
    }
}

/// Logs at most one line in `LINE_EVERY_MS`, and the end of a level that was logged.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    bytes_max: u64,
    level: OverloadLevel,
    next_line_ms: u64,
    /// A log line has reported a level, and none has reported its end yet.
    is_reported: bool,
}

impl MemoryBudget {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, level: OverloadLevel::None, next_line_ms: 0, is_reported: false }
    }

    /// In bytes: what the workers together may use before anything is refused.
    fn target(&self) -> u64 {
        self.bytes_max - self.bytes_max / 32
    }

    /// What the workers may charge until the next measurement, in bytes. 0 over the target.
    pub(super) fn headroom(&self, resident: u64) -> u64 {
        self.target().saturating_sub(resident)
    }

    /// Hysteresis: once it was over, the process has to be 1/16 below the target to end that.
    pub(super) fn is_over_target(&self, resident: u64) -> bool {
        let target = self.target();
        let until = if self.level == OverloadLevel::None { target } else { target - target / 16 };
        resident > until
    }

    pub(super) fn measure(
        &mut self,
        now_ms: u64,
        resident: u64,
        refusals: &RefusalCounters,
    ) -> (OverloadLevel, Option<String>) {
        let budget = self.bytes_max;
        self.level = match resident {
            far if far > budget.saturating_add(budget / 8) => OverloadLevel::FarOver,
            over if self.is_over_target(over) => OverloadLevel::Over,
            _ => OverloadLevel::None,
        };
        let is_over = self.level > OverloadLevel::None;
        if now_ms < self.next_line_ms || !(is_over || self.is_reported) {
            return (self.level, None);
        }
        self.next_line_ms = now_ms + LINE_EVERY_MS;
        self.is_reported = is_over;
        let counts = refusals.get();
        let count = |why: Refused| counts[why as usize];
        let line = format!(
            "memory: {} MiB resident, RINGVERB_MEMORY_MAX is {} MiB: {}; so far {} connections were refused for it, {} \
             closed because they kept too much, {} subscriptions, {} publishes and {} unfinished requests refused. {}",
            resident >> 20,
            budget >> 20,
            match self.level {
                OverloadLevel::None => "connections are accepted again",
                OverloadLevel::Over =>
                    "connections and subscriptions are refused and the heaviest connections closed",
                OverloadLevel::FarOver =>
                    "connections, subscriptions and publishes are refused and the heaviest connections closed",
            },
            count(Refused::Memory),
            count(Refused::Shed),
            count(Refused::MemorySubscription),
            count(Refused::MemoryPublish),
            count(Refused::HttpMemory),
            if is_over {
                "Raise the limit if the host has more memory; or send less to clients that read slowly, or lower \
                 RINGVERB_SEND_QUEUE_BYTES_MAX"
            } else {
                "No action is needed"
            },
        );
        (self.level, Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn this_process_has_memory() {
        let resident = Resident::open_statm().unwrap();
        let before = resident.read().unwrap();
        assert!((MIB / 4..1 << 40).contains(&before), "{before}");
        // Other tests return memory at the same time, so the half of it is enough.
        let block = vec![1_u8; 256 << 20];
        let after = resident.read().unwrap();
        assert!(after >= before + (128 << 20), "{before} {after} {}", block.len());
    }

    #[test]
    fn a_level_ends_below_where_it_begins() {
        let mut budget = MemoryBudget::new(160 * MIB);
        let refusals = RefusalCounters::default();
        let mut level = |mib: u64| budget.measure(0, mib * MIB, &refusals).0;
        assert_eq!(level(155), OverloadLevel::None);
        assert_eq!(level(156), OverloadLevel::Over);
        assert_eq!(level(146), OverloadLevel::Over, "it must fall below 145.3");
        assert_eq!(level(181), OverloadLevel::FarOver);
        assert_eq!(level(179), OverloadLevel::Over);
        assert_eq!(level(145), OverloadLevel::None);
        assert_eq!(level(155), OverloadLevel::None);
    }

    #[test]
    fn headroom_ends_at_the_target_below_the_limit() {
        let budget = MemoryBudget::new(160 * MIB);
        assert_eq!(budget.headroom(100 * MIB), 55 * MIB);
        assert_eq!(budget.headroom(155 * MIB), 0);
        assert_eq!(budget.headroom(1_000 * MIB), 0);
        assert_eq!(MemoryBudget::new(u64::MAX).headroom(0), u64::MAX - u64::MAX / 32);
    }

    #[test]
    fn lines_about_memory_are_few_and_name_the_option() {
        let mut budget = MemoryBudget::new(100 * MIB);
        let refusals = RefusalCounters::default();
        refusals.count(Refused::Shed);
        let mut line = |now_ms, mib: u64| budget.measure(now_ms, mib * MIB, &refusals).1;
        assert_eq!(line(0, 96), None);
        let first = line(250, 120).unwrap();
        for part in [
            "120 MiB",
            "100 MiB",
            "publishes are refused",
            " 1 closed",
            "0 subscriptions",
            "Raise the limit",
        ] {
            assert!(first.contains(part), "{first}");
        }
        let more: Vec<String> =
            (1..200).filter_map(|at| line(250 + at * 50, 80 + at % 40)).collect();
        assert!(more.is_empty(), "{more:#?}");
        let last = line(60_000, 50).unwrap();
        assert!(last.contains("accepted again") && last.contains("No action is needed"), "{last}");
        assert_eq!(line(120_000, 50), None);
    }
}
