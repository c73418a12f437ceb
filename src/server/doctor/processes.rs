//! The processes of the host, as /proc lists them.
//!
//! Owns no state. Input: /proc, or a copy of it in tests. Output: ids; does not read what a process is, which the
//! caller does.
//! Limit: `PROCESSES_MAX` processes are listed. Cost: one directory read, no file.

use std::fs;
use std::path::Path;

/// The kernel's default maximum of ids is 32,768.
const PROCESSES_MAX: usize = 40_000;
/// As `/proc/PID/comm` has it.
pub(super) const PROGRAM: &str = "ringverb";

/// In no order. Empty if the folder cannot be read.
pub(super) fn ids(root: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.take(PROCESSES_MAX)
}
