//! The file of apps that change at run time (`RINGVERB_APPS_FILE`): TOML with `[[apps]]`, like `ringverb.toml`.
//!
//! Owns how the file is written: whole, to a new file beside it that takes its place when it is on the disk, so a crash
//! leaves the old file or the new one (docs/decisions/0012). Only its owner can read it, because it has secrets.
//! Comments of a person are lost. Does not check names and values: the whole configuration is checked before the file
//! is written.
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

/// The new text of the file, on the disk beside the file. Dropped, it is removed, and the file stays as it is.
///
/// A disk that is full refuses it before any core learns of a new app: a core never forgets an app, and only the first
/// 64 that come at run time have metrics of their own.
#[must_use]
pub(super) struct StagedFile {
    path: PathBuf,
    beside: PathBuf,
    folder: File,
    /// As in the configuration, for messages.
    path_text: String,
}

impl StagedFile {
    /// # Errors
    /// A sentence for the operator.
    pub(super) fn write(path: &Path, text: &str) -> Result<Self, String> {
        Self::try_write(path, text.as_bytes()).map_err(|error| refusal(&path_text(path), &error))
    }

    fn try_write(named: &Path, bytes: &[u8]) -> io::Result<Self> {
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
        let staged = Self { path, beside, folder, path_text: path_text(named) };
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(staged)
    }

    /// Replaces the file. Returns a warning for the log if that is done, but a power failure may still undo it.
    ///
    /// # Errors
    /// A sentence for the operator. The file before is in its place then.
    pub(super) fn replace(self) -> Result<Option<String>, String> {
        self.replace_with(File::sync_all)
    }

    /// `sync_folder` is a parameter so that a test can let it fail.
    fn replace_with(
        self,
        sync_folder: fn(&File) -> io::Result<()>,
    ) -> Result<Option<String>, String> {
        let path_text = &self.path_text;
        fs::rename(&self.beside, &self.path).map_err(|error| refusal(path_text, &error))?;
        // The new name is on the disk when the folder is.
        Ok(sync_folder(&self.folder).err().map(|error| {
            format!(
                "{path_text} (RINGVERB_APPS_FILE) is written and its apps are in use, but its folder could not be \
                 synchronized with the disk: {error}. After a power failure the file may be the one before: check the \
                 disk"
            )
        }))
    }
}

impl Drop for StagedFile {
    /// After the replacement there is none. If it stays, no process reads it, and only its owner can.
    fn drop(&mut self) {
        fs::remove_file(&self.beside).ok();
    }
}

fn refusal(path_text: &str, error: &io::Error) -> String {
    format!(
        "{path_text} (RINGVERB_APPS_FILE) cannot be written, so nothing was changed: {error}. The user of this process \
         must be able to read its folder and to make files in it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const OTHER_USER: u32 = 65_534;

    fn write(path: &Path, text: &str) -> Result<Option<String>, String> {
        StagedFile::write(path, text)?.replace()
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
        let folder =
            std::env::temp_dir().join(format!("ringverb-apps-{:x}", getrandom::u64().unwrap()));
        fs::create_dir(&folder).unwrap();
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
        fs::remove_dir_all(&folder).unwrap();
        assert!(write(&path, "").unwrap_err().contains("nothing was changed"));
    }

    #[test]
    fn a_file_that_is_replaced_is_never_reported_as_unchanged() {
        let folder =
            std::env::temp_dir().join(format!("ringverb-sync-{:x}", getrandom::u64().unwrap()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("apps.toml");
        let full_disk = |_: &File| Err(io::Error::from_raw_os_error(28));
        let warning = StagedFile::write(&path, "# new").unwrap().replace_with(full_disk);
        let warning = warning.unwrap().expect("a warning");
        assert!(warning.contains("is written") && warning.contains("os error 28"), "{warning}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "# new");
        fs::remove_dir_all(&folder).unwrap();
    }

    /// The change has failed for another reason.
    #[test]
    fn a_staged_file_that_is_dropped_changes_nothing() {
        let folder =
            std::env::temp_dir().join(format!("ringverb-staged-{:x}", getrandom::u64().unwrap()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("apps.toml");
        write(&path, "# before").unwrap();
        let staged = StagedFile::write(&path, "# new").unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        drop(staged);
        assert_eq!(fs::read_to_string(&path).unwrap(), "# before");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
        fs::remove_dir_all(&folder).unwrap();
    }

    /// Mode 0300: files can be made in the folder, but its names cannot be read, so it cannot be synchronized.
    #[test]
    fn a_folder_that_cannot_be_read_is_refused_before_the_file_is_replaced() {
        let folder =
            std::env::temp_dir().join(format!("ringverb-mode-{:x}", getrandom::u64().unwrap()));
        fs::create_dir(&folder).unwrap();
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
        fs::remove_dir_all(&folder).unwrap();
    }
}
