//! What limits this host to how many connections, for `ringverb doctor`: descriptors, settings of the kernel, memory,
//! the table of tracked connections, source ports.
//!
//! Owns no state. Reads files below a folder that is /proc, or a copy of it in tests, and never changes a setting. The
//! wanted settings are those of tuning/99-ringverb.conf, the file that `tuning/check.sh` reads, too. A file that is
//! missing sets no limit. Input: the files, and what the server would need (`HostNeeds`). Output: findings with their
//! remedies.
//! Limit: one finding for each limit. Cost: once in a command, one file read for each setting.

use std::fs;
use std::path::{Path, PathBuf};

use super::finding::{Diagnosis, Verdict};
use crate::limits::DESCRIPTORS_MAX;

/// Read at compile time, so that the program and the file that it is delivered with cannot differ.
const WANTED: &str = include_str!("../../../tuning/99-ringverb.conf");

/// Descriptors for all that is no connection, as `tuning/check.sh` counts.
const DESCRIPTORS_BESIDE: u64 = 1_000;
/// Memory of one connection with a private channel of its own, in the kernel and in the process: what ARCHITECTURE.md,
/// "Memory of a connection", plans with.
const KERNEL_BYTES_EACH: u64 = 4_800;
const PROCESS_BYTES_EACH: u64 = 507;
/// More of each with TLS: the state of the record layer.
const TLS_BYTES_EACH: u64 = 232;
/// Memory that the host keeps for everything else.
const RESERVED_BYTES: u64 = 128 << 20;

/// Values of the configuration and of this process. `host.rs` itself reads files only.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct HostNeeds {
    pub(in crate::server) connections: u64,
    pub(in crate::server) workers: u64,
    /// The hard limit of this process, which a server that is started from the same shell or unit would inherit.
    pub(in crate::server) descriptors_max: u64,
    /// The limit of the resident set, in bytes. `None`: there is none.
    pub(in crate::server) memory_max: Option<u64>,
    pub(in crate::server) has_tls: bool,
    /// The process that serves the port already: its limit of descriptors counts instead of `descriptors_max`.
    pub(in crate::server) server_process: Option<u32>,
}

/// /proc, or a copy of it.
#[derive(Clone, Debug)]
pub(in crate::server) struct HostFiles {
    root: PathBuf,
}

impl HostFiles {
    pub(in crate::server) fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    /// `None` also if the setting has words that are no numbers: such a setting is not judged.
    fn setting(&self, key: &str) -> Option<Vec<u64>> {
        let text = self.text(&format!("sys/{}", key.replace('.', "/")))?;
        // Up to 2^64 - 1: fs.file-max has that value on hosts without a limit.
        text.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
    }

    fn first_number(&self, key: &str) -> Option<u64> {
        self.setting(key)?.first().copied()
    }

    /// In bytes. The file has kB, by which the kernel means 1,024 bytes.
    fn memory_bytes(&self, field: &str) -> Option<u64> {
        let text = self.text("meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib << 10)
    }

    /// The hard limit, because the server raises its soft limit to it at the start.
    fn descriptors_of(&self, process: u32) -> Option<u64> {
        let limits = self.text(&format!("{process}/limits"))?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let hard = line.split_ascii_whitespace().nth(1)?;
        if hard == "unlimited" { Some(DESCRIPTORS_MAX) } else { hard.parse().ok() }
    }
}

pub(in crate::server) fn examine(files: &HostFiles, wanted: HostNeeds) -> Vec<Diagnosis> {
    let mut found = vec![descriptors(files, wanted)];
    found.extend(io_uring(files));
    found.extend(memory(files, wanted));
    found.extend(memory_limit(wanted));
    for line in WANTED.lines() {
        if let Some(setting) = WantedSetting::parse(line) {
            found.extend(judge(files, wanted, &setting));
        }
    }
    found.extend(socket_memory(files, wanted));
    found.extend(connection_tracking(files, wanted));
    found
}

/// Each worker has a descriptor table of its own. The kernel spreads connections evenly, but not exactly, so the tables
/// should have room for 1/8 more.
fn descriptors(files: &HostFiles, wanted: HostNeeds) -> Diagnosis {
    let HostNeeds { connections, workers, server_process, .. } = wanted;
    let running =
        server_process.and_then(|process| Some((process, files.descriptors_of(process)?)));
    let (whose, limit) = match running {
        Some((process, limit)) => (format!("the running server, process {process},"), limit),
        None => ("a server that is started from here".to_owned(), wanted.descriptors_max),
    };
    let each = limit.min(DESCRIPTORS_MAX).saturating_sub(64);
    let all = each.saturating_mul(workers);
    let verdict = if all < connections {
        Verdict::Problem
    } else if all < connections.saturating_add(connections / 8) {
        Verdict::Warning
    } else {
        Verdict::Good
    };
    let reason = format!(
        "{whose} may have {limit} descriptors in each of {workers} workers, which is enough for {all} connections if \
         they spread evenly"
    );
    let command = "LimitNOFILE=1048576 by `systemctl edit ringverb`, minfds=1048576 in supervisord.conf, or `ulimit \
                   -Hn 1048576`";
    Diagnosis::new(verdict, "descriptors", reason, command).with_connections(all)
}

fn io_uring(files: &HostFiles) -> Option<Diagnosis> {
    let disabled = files.first_number("kernel.io_uring_disabled")?;
    let (verdict, reason) = match disabled {
        0 => (Verdict::Good, "kernel.io_uring_disabled is 0".to_owned()),
        _ => (
            Verdict::Warning,
            format!(
                "kernel.io_uring_disabled is {disabled}, so the server uses epoll, which costs more processor time"
            ),
        ),
    };
    let command = sysctl(verdict, "kernel.io_uring_disabled", "0");
    Some(Diagnosis::new(verdict, "io_uring", reason, command))
}

fn memory(files: &HostFiles, wanted: HostNeeds) -> Option<Diagnosis> {
    let available = files.memory_bytes("MemAvailable")?;
    let each =
        KERNEL_BYTES_EACH + PROCESS_BYTES_EACH + if wanted.has_tls { TLS_BYTES_EACH } else { 0 };
    let all = available.saturating_sub(RESERVED_BYTES) / each;
    let needed = wanted.connections.saturating_mul(each);
    let verdict = match (all < wanted.connections, all / 2 < wanted.connections) {
        (true, _) => Verdict::Problem,
        // Messages need memory, too.
        (false, true) => Verdict::Warning,
        (false, false) => Verdict::Good,
    };
    let reason = format!(
        "{} MiB are available, and {} idle connections take {} MiB ({each} B each, most of it in the kernel)",
        available >> 20,
        wanted.connections,
        needed.div_ceil(1 << 20)
    );
    Some(Diagnosis::new(verdict, "memory", reason, "free -m").with_connections(all))
}

/// The limit of the resident set. The kernel's share is not in it.
fn memory_limit(wanted: HostNeeds) -> Option<Diagnosis> {
    let limit = wanted.memory_max?;
    let each = PROCESS_BYTES_EACH + if wanted.has_tls { TLS_BYTES_EACH } else { 0 };
    // Connections are refused from 3 % below the limit on.
    let all = (limit - limit / 32).saturating_sub(16 << 20) / each;
    let verdict = if all < wanted.connections { Verdict::Problem } else { Verdict::Good };
    let reason = format!(
        "RINGVERB_MEMORY_MAX, or 0.8 of the cgroup's limit, is {} MiB, which is enough for {all} idle connections",
        limit >> 20
    );
    let command = "RINGVERB_MEMORY_MAX, `--memory` of the container, or MemoryMax= of the unit";
    Some(Diagnosis::new(verdict, "memory_limit", reason, command).with_connections(all))
}

/// Shows a good setting, and changes another one: a person may run what stands behind a finding, and a good setting can
/// be higher than the wanted one.
fn sysctl(verdict: Verdict, key: &str, wanted: &str) -> String {
    match verdict {
        Verdict::Good | Verdict::Note => format!("sysctl {key}"),
        Verdict::Warning | Verdict::Problem => format!("sudo sysctl -w {key}='{wanted}'"),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct WantedSetting<'a> {
    key: &'a str,
    /// Marked by a `-` before the key, as in sysctl.d(5): a kernel without this setting is no finding.
    is_optional: bool,
    values: Vec<u64>,
}

impl<'a> WantedSetting<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (key, values) = line.split_once('=')?;
        let is_optional = key.starts_with('-');
        let key = key.trim().trim_start_matches('-');
        if !key.starts_with(|first: char| first.is_ascii_lowercase()) {
            return None;
        }
        let values: Option<Vec<u64>> =
            values.split_ascii_whitespace().map(|word| word.parse().ok()).collect();
        values.map(|values| Self { key, is_optional, values })
    }

    /// Each number must be at least the wanted one. A range of ports must be as wide as the wanted one.
    fn is_reached_by(&self, now: &[u64]) -> bool {
        match (now, &self.values[..]) {
            ([low, high], [wanted_low, wanted_high]) => low <= wanted_low && high >= wanted_high,
            _ => {
                now.len() == self.values.len()
                    && now.iter().zip(&self.values).all(|(now, wanted)| now >= wanted)
            }
        }
    }
}

fn judge(
    files: &HostFiles,
    wanted: HostNeeds,
    setting: &WantedSetting<'static>,
) -> Option<Diagnosis> {
    let WantedSetting { key, is_optional, values } = setting;
    let shown = |values: &[u64]| {
        let words: Vec<String> = values.iter().map(u64::to_string).collect();
        words.join(" ")
    };
    let now = match files.setting(key) {
        Some(now) => now,
        None if *is_optional => return None,
        None => Vec::new(),
    };
    let needed = wanted.connections.saturating_add(DESCRIPTORS_BESIDE);
    let now_shown = if now.is_empty() { "absent".to_owned() } else { shown(&now) };
    let is_limit = key.starts_with("fs.");
    let first = now.first().copied();
    let (verdict, reason) = if is_limit && first.is_none_or(|now| now < needed) {
        (Verdict::Problem, format!("{now_shown}, and {needed} descriptors are needed"))
    } else if setting.is_reached_by(&now) {
        (Verdict::Good, now_shown)
    } else {
        (Verdict::Warning, format!("{now_shown}; {} is a precaution", shown(values)))
    };
    let command = sysctl(verdict, key, &shown(values));
    let diagnosis = Diagnosis::new(verdict, key, reason, command);
    Some(match first {
        Some(now) if is_limit => diagnosis.with_connections(now.saturating_sub(DESCRIPTORS_BESIDE)),
        _ => diagnosis,
    })
}

/// Pages of all TCP buffers: a page for each connection that has something in flight.
fn socket_memory(files: &HostFiles, wanted: HostNeeds) -> Option<Diagnosis> {
    let [low, pressure, high] = files.setting("net.ipv4.tcp_mem")?[..] else { return None };
    let verdict = if pressure < wanted.connections { Verdict::Warning } else { Verdict::Good };
    let reason = format!(
        "pressure begins at {pressure} pages; a page for each connection with something in flight is a precaution"
    );
    let factor = wanted.connections.div_ceil(pressure.max(1));
    let [low, pressure, high] = [low, pressure, high].map(|pages| pages.saturating_mul(factor));
    let command = sysctl(verdict, "net.ipv4.tcp_mem", &format!("{low} {pressure} {high}"));
    Some(Diagnosis::new(verdict, "net.ipv4.tcp_mem", reason, command))
}

/// Connections that the firewall tracks. Through a proxy of the same host each client counts twice.
fn connection_tracking(files: &HostFiles, wanted: HostNeeds) -> Option<Diagnosis> {
    let most = files.first_number("net.netfilter.nf_conntrack_max")?;
    let now = files.first_number("net.netfilter.nf_conntrack_count").unwrap_or_default();
    let free = most.saturating_sub(now);
    let verdict = match (free < wanted.connections, free / 2 < wanted.connections) {
        (true, _) => Verdict::Problem,
        (false, true) => Verdict::Warning,
        (false, false) => Verdict::Good,
    };
    let reason = format!(
        "the firewall tracks {now} connections and has room for {most}; through a proxy on this host each client \
         counts twice"
    );
    let value = wanted.connections.saturating_mul(2).saturating_add(now).max(1_048_576);
    let command = sysctl(verdict, "net.netfilter.nf_conntrack_max", &value.to_string());
    Some(Diagnosis::new(verdict, "conntrack", reason, command).with_connections(free))
}

#[cfg(test)]
mod tests;
