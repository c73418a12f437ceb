//! The file of apps that change at run time (`RINGVERB_APPS_FILE`): TOML with `[[apps]]`, like `ringverb.toml`.
//!
//! Owns how the file is written: whole, to a new file beside it that takes its place when it is on the disk, so a crash
//! leaves the old file or the new one (docs/decisions/0012). If the change fails later, it puts the old text back. Only
//! its owner can read it, because it has secrets. Comments of a person are lost. Does not check names and values: the
//! whole configuration is checked before the file is written.
//! Limit: the size of a configuration file (`config::load`). Cost: a change writes the whole file and calls fsync
//! twice, on the main thread, for as long as the disk takes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::outcome::ChangeOutcome;
use super::outcome::path_text;
use crate::config::{FileReader, Sources, read_apps_file};
use crate::text::Counted;

const HEAD: &str = "# Apps of ringverb that are changed at run time. The server writes this file: change apps with\n\
    # `ringverb app`, or edit it and run `ringverb reload`. Comments are not kept.\n\n";

/// Why a file that does not exist is refused: it was there, and its apps are in use. A disk that is not mounted and a
/// slip of the operator look the same, and both would disconnect all clients of these apps.
fn missing_file_refusal(path: &Path, in_use: &Table) -> Option<String> {
    let apps = in_use.get("apps").and_then(Value::as_array).map_or(0, Vec::len);
    (apps > 0).then(|| {
        format!(
            "{} (RINGVERB_APPS_FILE) no longer exists, but {} of it {} in use: put the file back, or create it empty \
             if these apps are to be removed",
            path_text(path),
            Counted(apps as u64, "app"),
            if apps == 1 { "is" } else { "are" }
        )
    })
}

/// A reload is refused if the apps file in use has vanished. A file that another path names now may be absent.
pub(super) fn check_presence(
    in_use: Option<&(String, Table)>,
    next: &Sources,
) -> Result<(), Vec<String>> {
    let (Some((path, table)), Some((next_path, _))) = (in_use, &next.apps_file) else {
        return Ok(());
    };
    let is_missing = next.apps_file_is_missing && path == next_path;
    match is_missing.then(|| missing_file_refusal(Path::new(path), table)).flatten() {
        None => Ok(()),
        Some(problem) => Err(vec![problem]),
    }
}

/// `in_use`: what the file had when it was read or written last; an absent file counts as empty only if that was,
/// too.
pub(super) fn read(path: &Path, in_use: &Table) -> Result<Vec<Table>, Box<ChangeOutcome>> {
    let refused = |problem| Box::new(ChangeOutcome::refused(&[problem]));
    let mut table = match read_apps_file(path, FileReader::Server).map_err(refused)? {
        Some(table) => table,
        None => missing_file_refusal(path, in_use)
            .map_or_else(|| Ok(Table::new()), |why| Err(refused(why)))?,
    };
    let apps = match table.remove("apps") {
        None => Vec::new(),
        Some(Value::Array(apps)) => apps,
        Some(_) => return Err(refused(format!("{}: apps is no list of tables", path_text(path)))),
    };
    let tables = apps.into_iter().map(|app| match app {
        Value::Table(table) => Ok(table),
        _ => Err(refused(format!("{}: an entry of apps is no table", path_text(path)))),
    });
    tables.collect()
}

pub(super) fn file_table(apps: &[Table]) -> Table {
    let apps = apps.iter().cloned().map(Value::Table).collect();
    Table::from_iter([("apps".to_owned(), Value::Array(apps))])
}

pub(super) fn file_text(table: &Table) -> Result<String, String> {
    let text = toml::to_string(table)
        .map_err(|error| format!("the apps cannot be written as TOML: {error}"))?;
    Ok(format!("{HEAD}{text}"))
}

/// The file has its new text, and no core knows the change yet.
#[must_use]
pub(super) struct ReplacedFile {
    named: PathBuf,
    /// `None`: there was no file.
    before: Option<Vec<u8>>,
    text: Vec<u8>,
    /// For the log, if the change succeeds: the file is in its place, but a power failure may still undo that.
    pub(super) warning: Option<String>,
}

impl ReplacedFile {
    /// Called before any core learns of a new app: a core never forgets an app, and only the first 64 that come at run
    /// time have metrics of their own. So a change that the file system refuses uses up none of these.
    ///
    /// # Errors
    /// A sentence for the operator. The file before is in its place then.
    pub(super) fn write(path: &Path, text: &str) -> Result<Self, String> {
        Self::write_with(path, text.as_bytes(), File::sync_all)
    }

    /// `sync_folder` is a parameter so that a test can let it fail.
    fn write_with(
        named: &Path,
        text: &[u8],
        sync_folder: fn(&File) -> io::Result<()>,
    ) -> Result<Self, String> {
        let name = path_text(named);
        let written = read_existing(named).and_then(|before| {
            let staged = StagedFile::write(named, text)?;
            Ok((before, staged))
        });
        let (before, staged) = written.map_err(|error| {
            format!(
                "{name} (RINGVERB_APPS_FILE) cannot be written, so nothing was changed: {error}. The user of this \
                 process must be able to read its folder and to make files in it"
            )
        })?;
        staged.replace().map_err(|error| {
            format!(
                "{name} (RINGVERB_APPS_FILE) cannot be replaced, so nothing was changed: {error}. If the file itself \
                 is a mount, mount its folder instead. If its folder has the sticky bit, the user of this process must \
                 own the file"
            )
        })?;
        // The new name is on the disk when the folder is.
        let warning = sync_folder(&staged.folder).err().map(|error| {
            format!(
                "{name} (RINGVERB_APPS_FILE) is written and its apps are in use, but its folder could not be \
                 synchronized with the disk: {error}. After a power failure the file may be the one before: check the \
                 disk"
            )
        });
        Ok(Self { named: named.to_owned(), before, text: text.to_owned(), warning })
    }

    /// The change has failed: the file has its text of before again. A file that an operator has edited since stays.
    ///
    /// # Errors
    /// A sentence for the operator: the file has the change, which is not in use.
    pub(super) fn put_back(self) -> Result<(), String> {
        self.try_put_back().map_err(|error| {
            format!(
                "{} (RINGVERB_APPS_FILE) has the change, which is not in use, because the text before could not be \
                 written: {error}. `ringverb reload` applies the file",
                path_text(&self.named)
            )
        })
    }

    fn try_put_back(&self) -> io::Result<()> {
        if read_existing(&self.named)?.as_ref() != Some(&self.text) {
            return Err(io::Error::other("it was edited in the meantime"));
        }
        match &self.before {
            None => fs::remove_file(&self.named),
            Some(before) => {
                let staged = StagedFile::write(&self.named, before)?;
                staged.replace()?;
                staged.folder.sync_all()
            }
        }
    }
}

/// `None`: there is no such file. The size was checked when the change read the file.
fn read_existing(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A new text of the file, on the disk beside the file. Dropped, it is removed, and the file stays as it is.
struct StagedFile {
    path: PathBuf,
    beside: PathBuf,
    folder: File,
}

impl StagedFile {
    fn write(named: &Path, bytes: &[u8]) -> io::Result<Self> {
        // A link is followed, so that the file it leads to is replaced, and not the link.
        let path = fs::canonicalize(named).unwrap_or_else(|_| named.to_owned());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // Opened first: a folder that cannot be read is a refusal as long as the file before is in its place.
        let folder = File::open(folder.unwrap_or(Path::new(".")))?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        // A process with the same number may have ended between `open` and `rename`; `create_new` would fail for ever.
        fs::remove_file(&beside).ok();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let staged = Self { path, beside, folder };
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(staged)
    }

    /// The new name is on the disk only when `folder` is synchronized.
    fn replace(&self) -> io::Result<()> {
        fs::rename(&self.beside, &self.path)
    }
}

impl Drop for StagedFile {
    /// After the replacement there is none. If it stays, no process reads it, and only its owner can.
    fn drop(&mut self) {
        fs::remove_file(&self.beside).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::TestFolder;
    use std::os::unix::fs::PermissionsExt;

    const OTHER_USER: u32 = 65_534;

    fn write(path: &Path, text: &str) -> Result<Option<String>, String> {
        ReplacedFile::write(path, text).map(|file| file.warning)
    }

    #[test]
    fn a_file_that_vanishes_is_refused_while_its_apps_are_in_use() {
        let path = Path::new("/nonexistent/apps.toml");
        let in_use = file_table(&[Table::from_iter([("id".to_owned(), "1".into())])]);
        let refused = read(path, &in_use).unwrap_err();
        assert_eq!(refused.status, 422);
        assert!(refused.body.to_string().contains("1 app of it is in use"), "{}", refused.body);
        let named = |path: &str| (path.to_owned(), in_use.clone());
        let next = |path: &str, is_missing| Sources {
            apps_file: Some((path.to_owned(), Table::new())),
            apps_file_is_missing: is_missing,
            ..Sources::default()
        };
        let check = |path, next: &Sources| check_presence(Some(&named(path)), next).is_ok();
        assert!(!check("a", &next("a", true)));
        assert!(check("a", &next("a", false)), "an empty file removes all apps");
        assert!(check("a", &next("b", true)), "another file need not exist yet");
        assert!(check("a", &Sources::default()), "no file is named any longer");
        let empty = ("a".to_owned(), file_table(&[]));
        assert!(check_presence(Some(&empty), &next("a", true)).is_ok(), "nothing is lost");
        assert!(check_presence(None, &next("a", true)).is_ok());
    }

    #[test]
    fn the_file_is_replaced_whole_and_only_its_owner_reads_it() {
        let folder = TestFolder::new();
        let path = folder.join("apps.toml");
        assert!(read(&path, &Table::new()).ok().unwrap().is_empty());
        let app: Table =
            "id = \"1\"\nsecret = \"s\\\"#\"\n[[webhooks]]\nurl = \"http://a/\"\n".parse().unwrap();
        for _ in 0..2 {
            write(&path, &file_text(&file_table(std::slice::from_ref(&app))).unwrap()).unwrap();
            assert_eq!(read(&path, &Table::new()).ok().unwrap(), std::slice::from_ref(&app));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
        let link = folder.join("link.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write(&link, &file_text(&file_table(&[])).unwrap()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&path, &Table::new()).ok().unwrap().len(), 0);
        drop(folder);
        assert!(write(&path, "").unwrap_err().contains("nothing was changed"));
    }

    #[test]
    fn a_file_that_is_replaced_is_never_reported_as_unchanged() {
        let folder = TestFolder::new();
        let path = folder.join("apps.toml");
        let full_disk = |_: &File| Err(io::Error::from_raw_os_error(28));
        let written = ReplacedFile::write_with(&path, b"# new", full_disk).unwrap();
        let warning = written.warning.expect("a warning");
        assert!(warning.contains("is written") && warning.contains("os error 28"), "{warning}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "# new");
    }

    /// A core was late, so the change has failed.
    #[test]
    fn the_file_of_a_change_that_fails_later_is_the_one_before_unless_it_was_edited() {
        let folder = TestFolder::new();
        let path = folder.join("apps.toml");
        ReplacedFile::write(&path, "# first").unwrap().put_back().unwrap();
        assert!(!path.exists(), "there was none");
        write(&path, "# before").unwrap();
        let replaced = ReplacedFile::write(&path, "# new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "# new");
        replaced.put_back().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "# before");
        let replaced = ReplacedFile::write(&path, "# new").unwrap();
        fs::write(&path, "# edited").unwrap();
        let refused = replaced.put_back().unwrap_err();
        assert!(refused.contains("edited") && refused.contains("ringverb reload"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "# edited");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_staged_file_that_is_dropped_changes_nothing() {
        let folder = TestFolder::new();
        let path = folder.join("apps.toml");
        write(&path, "# before").unwrap();
        let staged = StagedFile::write(&path, b"# new").unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        drop(staged);
        assert_eq!(fs::read_to_string(&path).unwrap(), "# before");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
    }

    /// Mode 0300: files can be made in the folder, but its names cannot be read, so it cannot be synchronized.
    #[test]
    fn a_folder_that_cannot_be_read_is_refused_before_the_file_is_replaced() {
        let folder = TestFolder::new();
        let path = folder.join("apps.toml");
        fs::write(&path, "# before").unwrap();
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            std::os::unix::fs::chown(&folder, Some(OTHER_USER), None).unwrap();
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o300)).unwrap();
        let of_thread = path.clone();
        let written = std::thread::spawn(move || {
            if is_root {
                // Linux has the user by thread. Mode bits do not bind root.
                let user = rustix::process::Uid::from_raw(OTHER_USER);
                rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            }
            write(&of_thread, "# new")
        });
        let refused = written.join().unwrap().unwrap_err();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(refused.contains("nothing was changed"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "# before");
    }
}
