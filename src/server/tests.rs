//! What several tests of the server need: a folder for one test, below the system's folder for temporary files.
//!
//! Owns the folder: it is new and empty, only its user may enter it, and it is removed with its owner, also if an
//! assertion fails. Does not look into it. Limit: none, because a test decides what it puts there. Cost: two system
//! calls.

use std::fs::{self, DirBuilder};
use std::ops::Deref;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(in crate::server) struct TestFolder(PathBuf);

impl TestFolder {
    pub(in crate::server) fn new() -> Self {
        let name = format!("ringverb-test-{:016x}", getrandom::u64().unwrap());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }
}

impl Deref for TestFolder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for TestFolder {
    fn as_ref(&self) -> &Path {
        self
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        // A test may have removed it. Left over, it is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
