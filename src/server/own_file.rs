//! Removes a file of this process from a path at which another process may create its own file at any moment.
//!
//! Owns no state. A take-over is such a moment: the new process binds the same path while the old one ends. The file is
//! identified by device and inode. Does not remove a file of another process.
//! Limit: one file. Cost: at most five system calls.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Removes the file at `path` if it is the one of `own`.
///
/// Between a look and a removal the other process may have put its file there. So the file is moved to another name
/// first, and looked at again under that name. If it is the other process's after all, it returns to its place, unless
/// a third one is there by then. Nothing is reported: a file that is left over is recognized as such by its readers.
pub(super) fn remove(path: &Path, own: &Metadata) {
    let is_own = |found: &Metadata| (found.dev(), found.ino()) == (own.dev(), own.ino());
    if !fs::symlink_metadata(path).is_ok_and(|found| is_own(&found)) {
        return;
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = Path::new(&aside);
    if fs::rename(path, aside).is_err() {
        return;
    }
    if !fs::symlink_metadata(aside).is_ok_and(|found| is_own(&found)) {
        // A link, unlike a renaming, replaces nothing.
        fs::hard_link(aside, path).ok();
    }
    // If it stays, no process looks for this name.
    fs::remove_file(aside).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::TestFolder;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn the_own_file_is_removed_and_a_foreign_one_stays() {
        let folder = TestFolder::new();
        let path = folder.join("file");
        fs::write(&path, "own").unwrap();
        let own = fs::symlink_metadata(&path).unwrap();
        let other = folder.join("other");
        fs::write(&other, "other").unwrap();
        fs::rename(&other, &path).unwrap();
        remove(&path, &own);
        assert_eq!(fs::read_to_string(&path).unwrap(), "other");
        remove(&path, &fs::symlink_metadata(&path).unwrap());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    /// Another process puts its file in place while this one removes its own: it must be there at the end.
    #[test]
    fn a_file_that_is_put_there_during_the_removal_survives() {
        let folder = TestFolder::new();
        let path = folder.join("file");
        for _ in 0..2_000 {
            fs::write(&path, "own").unwrap();
            let own = fs::symlink_metadata(&path).unwrap();
            let other = folder.join("other");
            fs::write(&other, "other").unwrap();
            let begin = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !begin.load(Ordering::Acquire) {
                        std::hint::spin_loop();
                    }
                    fs::rename(&other, &path).unwrap();
                });
                begin.store(true, Ordering::Release);
                remove(&path, &own);
            });
            assert_eq!(fs::read_to_string(&path).unwrap(), "other");
        }
    }
}
