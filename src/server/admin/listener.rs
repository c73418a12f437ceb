//! The socket of the admin listener: that of the old process, or a new one.
//!
//! Owns the socket and its file. A place that is configured must be free, or the server does not start. The default
//! place may belong to another server of the host: then this server starts without an admin listener and logs that. A
//! socket file is made so that only the user of the server can connect, and is removed when the server ends, unless a
//! new process has it. Does not accept (`server.rs`).
//! Limit: `BACKLOG` connections that are not accepted yet; `slots.rs` limits those that are. Cost: once at the start, a
//! few system calls.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::admin::AdminPlace;
use crate::server::doctor::port::live_holder;
use crate::server::{own_file, port};

/// More than the slots, so that a flood is refused with a reason instead of timing out.
const BACKLOG: i32 = 64;

pub(in crate::server) struct AdminListener {
    pub(super) socket: Socket,
    pub(super) place: AdminPlace,
    file: Option<Box<(PathBuf, Metadata)>>,
}

impl AdminListener {
    pub(super) fn new(socket: Socket, place: &AdminPlace) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (place, file) = match place {
            AdminPlace::Unix(path) => {
                (place.clone(), Some(Box::new((path.clone(), fs::symlink_metadata(path)?))))
            }
            // The kernel may have chosen the port.
            _ => {
                let bound = socket.local_addr()?.as_socket();
                (bound.map_or_else(|| place.clone(), AdminPlace::Tcp), None)
            }
        };
        Ok(Self { socket, place, file })
    }

    /// To be called when the server ends and no other process listens there.
    pub(super) fn remove_file(&self) {
        if let Some(file) = &self.file {
            own_file::remove(&file.0, &file.1);
        }
    }
}

/// Whether an inherited listener is the one that the configuration wants.
pub(super) fn is_at(socket: &Socket, place: &AdminPlace) -> bool {
    let Ok(bound) = socket.local_addr() else { return false };
    match place {
        AdminPlace::Off => false,
        AdminPlace::Tcp(wanted) => bound.as_socket().is_some_and(|bound| {
            bound.ip() == wanted.ip() && (wanted.port() == 0 || bound.port() == wanted.port())
        }),
        // A file that was removed since cannot be connected to.
        AdminPlace::Unix(path) => bound.as_pathname() == Some(path) && path.exists(),
    }
}

pub(super) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = port::socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

pub(super) fn bind_file(path: &Path) -> io::Result<Socket> {
    remove_left_over(path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux gives the file the permissions of the socket, so that no other user can connect in between.
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Removes the socket file of a server that was killed: no process accepts there.
fn remove_left_over(path: &Path) {
    let Ok(found) = fs::symlink_metadata(path) else { return };
    let is_left_over = found.file_type().is_socket()
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_left_over {
        own_file::remove(path, &found);
    }
}

/// The first half of a sentence. `start_refusal` adds what to change, and so does the log of a start without the
/// listener.
pub(super) fn bind_error_text(place: &AdminPlace, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("{place} is in use"),
        _ => format!("{place} cannot be listened on: {error}"),
    }
}

/// Why a start with this place fails, and what to change. To find the process that has a port may take a second.
pub(in crate::server) fn start_refusal(place: &AdminPlace, error: &io::Error) -> String {
    let is_in_use = error.kind() == io::ErrorKind::AddrInUse;
    let holder = match place {
        AdminPlace::Tcp(address) if is_in_use => live_holder(*address),
        _ => None,
    };
    let by = match (place, holder) {
        (_, Some(holder)) => format!(" by {}", holder.program_and_process()),
        (AdminPlace::Unix(_), None) if is_in_use => {
            " by another server, or is no socket".to_owned()
        }
        _ => String::new(),
    };
    format!(
        "no admin listener: {}{by}. Choose another place with RINGVERB_ADMIN, or switch it off with RINGVERB_ADMIN=off",
        bind_error_text(place, error)
    )
}

/// `ringverb check` asks this. Nothing is left listening.
///
/// # Errors
/// As `bind` or `connect` gives them: `AddrInUse` if another process listens there.
pub(in crate::server) fn probe(place: &AdminPlace) -> io::Result<()> {
    match place {
        AdminPlace::Off => Ok(()),
        AdminPlace::Tcp(address) => port::try_bind(*address),
        AdminPlace::Unix(path) => match UnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().unwrap_or(path);
                fs::metadata(folder).map(drop)
            }
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    use super::super::claim::{Claimed, bind_or_inherit};
    use crate::config::admin::Admin;

    fn admin(place: AdminPlace, is_explicit: bool) -> Admin {
        Admin { place, is_explicit, token: None }
    }

    fn path() -> PathBuf {
        std::env::temp_dir().join(format!("ringverb-admin-{:016x}", getrandom::u64().unwrap()))
    }

    fn listens(claimed: Claimed) -> AdminListener {
        match claimed {
            Claimed::Listens(listener) => listener,
            Claimed::Without(why) => panic!("{why}"),
            Claimed::Off => panic!("off"),
        }
    }

    #[test]
    fn a_default_that_is_in_use_is_no_error_and_a_configured_one_is() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = AdminPlace::Tcp(taken.local_addr().unwrap());
        let claimed = bind_or_inherit(&admin(place.clone(), false), None).unwrap();
        assert!(matches!(claimed, Claimed::Without(why) if why.contains("is in use")));
        let error = bind_or_inherit(&admin(place, true), None).map(drop).unwrap_err().to_string();
        assert!(error.contains("is in use") && error.contains("RINGVERB_ADMIN=off"), "{error}");
    }

    #[test]
    fn the_listener_of_the_old_process_is_used_where_the_configuration_wants_it() {
        let any = AdminPlace::parse("127.0.0.1:0").unwrap();
        let old = listens(bind_or_inherit(&admin(any.clone(), true), None).unwrap());
        let new = listens(
            bind_or_inherit(&admin(any, true), Some(old.socket.try_clone().unwrap().into()))
                .unwrap(),
        );
        assert_eq!(old.place, new.place);
        let elsewhere = admin(AdminPlace::parse("127.0.0.2:0").unwrap(), true);
        let other = listens(
            bind_or_inherit(&elsewhere, Some(old.socket.try_clone().unwrap().into())).unwrap(),
        );
        assert_ne!(old.place, other.place);
        let off = bind_or_inherit(
            &admin(AdminPlace::Off, true),
            Some(old.socket.try_clone().unwrap().into()),
        )
        .unwrap();
        assert!(matches!(off, Claimed::Off));
    }

    #[test]
    fn a_socket_file_is_only_for_its_user_and_a_stale_one_is_replaced() {
        let path = path();
        let place = admin(AdminPlace::Unix(path.clone()), true);
        let first = listens(bind_or_inherit(&place, None).unwrap());
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(bind_or_inherit(&place, None).is_err(), "somebody listens");
        drop(first);
        let second = listens(bind_or_inherit(&place, None).unwrap());
        second.remove_file();
        assert!(!path.exists());
        fs::write(&path, "a file of somebody").unwrap();
        assert!(bind_or_inherit(&place, None).is_err(), "it is no socket");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file of somebody");
        fs::remove_file(path).unwrap();
    }
}
