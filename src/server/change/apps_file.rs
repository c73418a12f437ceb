//! The file of apps that change at run time (`RINGVERB_APPS_FILE`): TOML with `[[apps]]`, like `ringverb.toml`.
//!
//! Written whole, to a new file beside it that takes its place when it is on the disk, so a crash leaves the old file
//! or the new one (docs/decisions/0012). Only its owner can read it, because it has secrets. Comments of a person are
//! lost.
//! Limit: the size of a configuration file (`config::load`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use toml::{Table, Value};

use super::outcome::Outcome;
use super::shown;
use crate::config::read_apps_file;

const HEAD: &str = "# Apps of ringverb that are changed at run time. The server writes this file: change apps with\n\
    # `ringverb app`, or edit it and run `ringverb reload`. Comments are not kept.\n\n";

/// The tables of all apps in the file.
pub(super) fn read(path: &Path) -> Result<Vec<Table>, Box<Outcome>> {
    let refused = |problem| Box::new(Outcome::refused(&[problem]));
    let mut table = read_apps_file(path).map_err(refused)?;
    let apps = match table.remove("apps") {
        None => Vec::new(),
        Some(Value::Array(apps)) => apps,
        Some(_) => return Err(refused(format!("{}: apps is no list of tables", shown(path)))),
    };
    let tables = apps.into_iter().map(|app| match app {
        Value::Table(table) => Ok(table),
        _ => Err(refused(format!("{}: an entry of apps is no table", shown(path)))),
    });
    tables.collect()
}

/// The content of the file.
pub(super) fn table(apps: &[Table]) -> Table {
    let apps = apps.iter().cloned().map(Value::Table).collect();
    Table::from_iter([("apps".to_owned(), Value::Array(apps))])
}

/// The content as text.
pub(super) fn text(table: &Table) -> Result<String, String> {
    let text = toml::to_string(table)
        .map_err(|error| format!("the apps cannot be written as TOML: {error}"))?;
    Ok(format!("{HEAD}{text}"))
}

/// Puts the text in the place of the file.
pub(super) fn write(path: &Path, text: &str) -> Result<(), String> {
    replace(path, text.as_bytes()).map_err(|error| {
        format!(
            "{} (RINGVERB_APPS_FILE) cannot be written, so nothing was changed: {error}. The user of this process must \
             be able to make files in its folder",
            shown(path)
        )
    })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link is followed, so that the file it leads to is replaced, and not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = Path::new(&beside);
    // What a process with the same number left behind.
    let _ = fs::remove_file(beside);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(beside)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(beside, path));
    if written.is_err() {
        let _ = fs::remove_file(beside);
    }
    written?;
    // The new name is on the disk when the folder is.
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_replaced_whole_and_only_its_owner_reads_it() {
        let folder =
            std::env::temp_dir().join(format!("ringverb-apps-{:x}", getrandom::u64().unwrap()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("apps.toml");
        assert!(read(&path).ok().unwrap().is_empty());
        let app: Table =
            "id = \"1\"\nsecret = \"s\\\"#\"\n[[webhooks]]\nurl = \"http://a/\"\n".parse().unwrap();
        for _ in 0..2 {
            write(&path, &text(&table(std::slice::from_ref(&app))).unwrap()).unwrap();
            assert_eq!(read(&path).ok().unwrap(), std::slice::from_ref(&app));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
        let link = folder.join("link.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write(&link, &text(&table(&[])).unwrap()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&path).ok().unwrap().len(), 0);
        fs::remove_dir_all(&folder).unwrap();
        assert!(write(&path, "").unwrap_err().contains("nothing was changed"));
    }
}
