//! The processes of the host, as /proc lists them.
//!
//! Input: /proc, or a copy of it in tests. Output: ids; what a process is, the caller reads. Limit: `PROCESSES_MAX`
//! processes are listed.

use std::fs;
use std::path::Path;

/// The kernel's default maximum of ids is 32,768.
const PROCESSES_MAX: usize = 40_000;
/// The name of a server's process.
pub(super) const PROGRAM: &str = "ringverb";

/// The ids of the processes, in no order. None if the folder cannot be read.
pub(super) fn ids(root: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.take(PROCESSES_MAX)
}
