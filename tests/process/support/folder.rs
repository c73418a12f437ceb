//! A folder for a process that a test starts.
//!
//! Owns the folder, which is removed with its owner, and a `Pass` (`gate.rs`). Does not know what is put into it.
//! Limit: below the target folder, with the name of the test process. Cost: two system calls.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::gate::Pass;

/// A folder that is removed with its owner, and the owner's leave to have processes.
#[derive(Debug)]
pub(super) struct Folder(pub(super) PathBuf, #[expect(dead_code, reason = "dropped with it")] Pass);

impl Folder {
    pub(super) fn new(kind: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let pass = Pass::wait();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{kind}-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a folder below the target folder");
        Self(path, pass)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left over, it does no harm: it is below the target folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
