//! How `ringverb publish` and the other commands of the same user find a running development server: its address and
//! the credentials that were generated for this run.
//!
//! Owns the file and its lock. Only its owner can read it, in a directory that only its owner can write:
//! `XDG_RUNTIME_DIR`, `/run/user/UID`, or `/tmp/ringverb-UID`. It is named after the port and the network namespace.
//! The server holds a lock on it, so a file that a killed server left is recognized and not believed. Readers follow no
//! link and believe no file of another user. Only a server without a configured app writes it. Does not serve anything.
//! Limits: `BYTES_MAX` of a file, `OTHERS_MAX` servers in a message. Cost: once at the start of a server, one file
//! written; for a command, one directory and one file read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::own_file;
use crate::app::App;
use crate::config::Config;
use crate::config::directories::session_directory;

/// A file of this program has some 200 bytes; more is not read.
const BYTES_MAX: u64 = 4096;
const FILE_PREFIX: &str = "ringverb-development-";
/// Servers of one user that are listed in a message.
const OTHERS_MAX: usize = 10;

/// What the server has published of itself, secret included.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct DevelopmentAccess {
    pub(super) address: SocketAddr,
    /// The prefix of every path; empty or `/something`.
    pub(super) path: String,
    pub(super) id: String,
    pub(super) key: String,
    pub(super) secret: String,
}

impl DevelopmentAccess {
    /// Of a server in development mode, before it knows its port.
    pub(super) fn of_config(config: &Config) -> Self {
        let app = config.apps.first();
        let text = |get: fn(&App) -> &str| app.map(get).unwrap_or_default().to_owned();
        Self {
            address: SocketAddr::new(config.host, config.port),
            path: config.path.clone(),
            id: text(|app| &app.id),
            key: text(|app| &app.key),
            secret: text(|app| app.secret.reveal()),
        }
    }
}

/// The file exists as long as this process serves; `withdraw` removes it.
#[derive(Debug)]
pub(super) struct Published {
    path: PathBuf,
    /// The lock lasts as long as the file is open, also if the process is killed.
    file: File,
}

/// # Errors
/// When there is no directory that only this user can write, or it takes no file.
pub(super) fn publish(access: &DevelopmentAccess) -> io::Result<Published> {
    publish_in(&directory()?, access)
}

/// `None`: no server of this user that still runs has published this port.
pub(super) fn find(port: u16) -> Option<DevelopmentAccess> {
    directories().find_map(|directory| read(&directory.join(file_name(port)?)))
}

/// A message lists them, so there are at most `OTHERS_MAX`.
pub(super) fn ports() -> Vec<u16> {
    let mut ports: Vec<u16> = directories().flat_map(|directory| ports_in(&directory)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.truncate(OTHERS_MAX);
    ports
}

impl Published {
    /// Removes the file, unless a process that took over has put its own there.
    pub(super) fn withdraw(self) {
        // Left over, it is not believed: the lock ends with the process.
        if let Ok(own) = self.file.metadata() {
            own_file::remove(&self.path, &own);
        }
    }
}

fn publish_in(directory: &Path, access: &DevelopmentAccess) -> io::Result<Published> {
    let port = access.address.port();
    let path =
        directory.join(file_name(port).ok_or_else(|| io::Error::other("/proc is not mounted"))?);
    let random = getrandom::u64().map_err(io::Error::other)?;
    let new = directory.join(format!(".{FILE_PREFIX}{port}-{random:016x}"));
    let written = write(&new, access).and_then(|file| fs::rename(&new, &path).map(|()| file));
    match written {
        Ok(file) => Ok(Published { path, file }),
        Err(error) => {
            // If it stays, no reader takes it for a server: its name begins with a dot.
            fs::remove_file(&new).ok();
            Err(error)
        }
    }
}

fn write(path: &Path, access: &DevelopmentAccess) -> io::Result<File> {
    // `create_new` follows no link.
    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file.try_lock().map_err(io::Error::from)?;
    let DevelopmentAccess { address, path, id, key, secret } = access;
    write!(file, "address={address}\npath={path}\nid={id}\nkey={key}\nsecret={secret}\n")?;
    Ok(file)
}

fn read(path: &Path) -> Option<DevelopmentAccess> {
    // Opening a FIFO would block until another process writes to it.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let found = file.metadata().ok()?;
    let is_private = found.is_file() && found.uid() == own_user_id() && found.mode() & 0o077 == 0;
    // If the lock is free, the server that wrote the file was killed.
    let is_held = || matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock));
    if !is_private || !is_held() {
        return None;
    }
    let mut text = String::new();
    (&file).take(BYTES_MAX).read_to_string(&mut text).ok()?;
    parse(&text)
}

fn parse(text: &str) -> Option<DevelopmentAccess> {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(given, _)| *given == name).map(|(_, value)| value.to_owned())
    };
    Some(DevelopmentAccess {
        address: value("address")?.parse().ok()?,
        path: value("path")?,
        id: value("id")?,
        key: value("key")?,
        secret: value("secret")?,
    })
}

/// Ports belong to a network namespace, and a directory may be seen from several.
fn file_name(port: u16) -> Option<String> {
    Some(format!("{FILE_PREFIX}{}-{port}", network_namespace()?))
}

fn network_namespace() -> Option<String> {
    let network = fs::read_link("/proc/self/ns/net").ok()?;
    Some(network.to_string_lossy().chars().filter(char::is_ascii_digit).collect())
}

fn ports_in(directory: &Path) -> Vec<u16> {
    let Some(start) = network_namespace().map(|network| format!("{FILE_PREFIX}{network}-")) else {
        return Vec::new();
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let ports = entries.filter_map(|entry| {
        let port = entry.file_name().to_str()?.strip_prefix(&start)?.parse().ok()?;
        read(&entry.path()).map(|_| port)
    });
    ports.collect()
}

fn own_user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Where files may be, the preferred directory first. They need not exist.
fn candidate_directories() -> [Option<PathBuf>; 3] {
    let user = own_user_id();
    [
        session_directory(),
        Some(PathBuf::from(format!("/run/user/{user}"))),
        Some(PathBuf::from(format!("/tmp/ringverb-{user}"))),
    ]
}

/// The candidates that exist and that no other user can write.
fn directories() -> impl Iterator<Item = PathBuf> {
    candidate_directories().into_iter().flatten().filter(|path| is_ours(path))
}

/// The first of `directories`. Where there is none, makes the last candidate, in /tmp.
fn directory() -> io::Result<PathBuf> {
    if let Some(found) = directories().next() {
        return Ok(found);
    }
    let last = PathBuf::from(format!("/tmp/ringverb-{}", own_user_id()));
    match DirBuilder::new().mode(0o700).create(&last) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        // Another user may have been faster.
        _ if is_ours(&last) => Ok(last),
        _ => Err(io::Error::other(format!("{} belongs to another user", last.display()))),
    }
}

/// A link counts as what it is, and not as what it leads to: in /tmp anybody can put one.
fn is_ours(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| {
        found.is_dir() && found.uid() == own_user_id() && found.mode() & 0o022 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::TestFolder;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn access(port: u16) -> DevelopmentAccess {
        DevelopmentAccess {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            path: "/ws".to_owned(),
            id: "123456".to_owned(),
            key: "k=y".to_owned(),
            secret: "hunter2".to_owned(),
        }
    }

    fn found(directory: &TestFolder, port: u16) -> bool {
        read(&directory.join(file_name(port).unwrap())).is_some_and(|found| found == access(port))
    }

    #[test]
    fn a_file_is_believed_while_its_server_runs() {
        let directory = TestFolder::new();
        let published = publish_in(&directory, &access(1)).unwrap();
        assert!(found(&directory, 1) && !found(&directory, 2));
        assert_eq!(fs::metadata(&published.path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(ports_in(&directory), [1]);
        published.withdraw();
        assert!(!found(&directory, 1));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        // A server that was killed withdraws nothing, and the kernel takes its lock away.
        drop(publish_in(&directory, &access(1)).unwrap());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert!(!found(&directory, 1) && ports_in(&directory).is_empty());
        let published = publish_in(&directory, &access(1)).unwrap();
        assert!(found(&directory, 1), "what was left behind is replaced");
        published.withdraw();
    }

    #[test]
    fn a_process_that_took_over_keeps_its_file() {
        let directory = TestFolder::new();
        let old = publish_in(&directory, &access(1)).unwrap();
        let new = publish_in(&directory, &access(1)).unwrap();
        old.withdraw();
        assert!(found(&directory, 1));
        new.withdraw();
        assert!(!found(&directory, 1));
    }

    #[test]
    fn files_that_others_could_have_made_are_not_believed() {
        let directory = TestFolder::new();
        let published = publish_in(&directory, &access(1)).unwrap();
        fs::set_permissions(&published.path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!found(&directory, 1), "others can read it");
        fs::set_permissions(&published.path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(found(&directory, 1));
        let elsewhere = directory.join("elsewhere");
        fs::rename(&published.path, &elsewhere).unwrap();
        symlink(&elsewhere, &published.path).unwrap();
        assert!(!found(&directory, 1), "a link");
        // The server replaces a link, and does not write through it.
        let again = publish_in(&directory, &access(1)).unwrap();
        assert!(found(&directory, 1) && fs::symlink_metadata(&again.path).unwrap().is_file());
        let target = directory.join("link");
        symlink(&directory, &target).unwrap();
        assert!(is_ours(&directory) && !is_ours(&target));
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(!is_ours(&directory));
    }

    #[test]
    fn odd_files_give_nothing() {
        for text in ["", "address=x\n", "address=127.0.0.1:1\npath=\nid=1\nkey=k\n"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
