//! Directories for sockets and files of this process, as the service manager and the session name them.
//!
//! Owns no state. These names are in no table of options, because operators do not set them: systemd
//! (`RUNTIME_DIRECTORY`) and the login session (`XDG_RUNTIME_DIR`) do. A relative path is ignored.
//! `server/takeover/rendezvous.rs` and `server/development.rs` decide which of them to use. Reads the environment; does
//! not create a directory or look at one. No limits of its own. Cost: two look-ups in the environment for a call, at
//! the start and for a command.

use std::path::PathBuf;

/// Where the service manager or the session keeps sockets of this process: `RUNTIME_DIRECTORY` and `XDG_RUNTIME_DIR`.
#[expect(clippy::disallowed_methods, reason = "no option of the server: load.rs reads those")]
#[must_use]
pub fn runtime_directories() -> Vec<PathBuf> {
    // systemd separates the paths of several directories by colons.
    let service = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
    let session = std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_default();
    let directories = std::env::split_paths(&service).chain([session.into()]);
    directories.filter(|directory| directory.is_absolute()).collect()
}

/// Where the session of this user keeps files: `XDG_RUNTIME_DIR`.
#[expect(clippy::disallowed_methods, reason = "no option of the server: load.rs reads those")]
#[must_use]
pub fn session_directory() -> Option<PathBuf> {
    let session = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    session.is_absolute().then_some(session)
}
