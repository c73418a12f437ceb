//! Where a new process finds the running one, and how each checks the other.
//!
//! Owns the place: a socket file in a directory that only this user (or root) can write: `RUNTIME_DIRECTORY` of
//! systemd, `XDG_RUNTIME_DIR`, /run/ringverb, /run/user/UID, and for root /run. Other users can neither occupy nor
//! reach it. Without such a directory it is an abstract socket with a random name, which the new process finds in
//! /proc/net/unix. Another user can connect to it or list decoys, but cannot occupy it. Each side checks the other
//! before it sends or reads anything: `check_user`, `check_namespaces`. Two processes of one user in one container
//! cannot be distinguished. Does not read or write a message of the protocol.
//! Limit: `ROUNDS` attempts with a pause between them. Cost: once a start; one read of /proc/net/unix without a
//! directory.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::directories::runtime_directories;
use crate::output::PEER;
use crate::server::own_file;
use crate::server::wait::sleep;
use crate::worker::time::Clock;
use crate::worker::transfer::{check_user, peer_credentials};

/// The directories in which a socket file may be, the preferred one first. They need not exist.
#[derive(Clone, Debug)]
pub(in crate::server) struct Places(Vec<PathBuf>);

/// The socket at which a process waits for others.
pub(in crate::server) struct Point {
    pub(in crate::server) listener: UnixListener,
    file: Option<SocketFile>,
}

struct SocketFile {
    path: PathBuf,
    own_metadata: Metadata,
}

/// Other users can list any number of names. After so many rounds over those that do not answer, there is no server.
const ROUNDS: u32 = 200;
const ROUND_PAUSE: Duration = Duration::from_millis(10);

impl Places {
    /// The places of this user and this environment, in the order of preference.
    pub(in crate::server) fn new() -> Self {
        let user = rustix::process::geteuid();
        let mut directories = vec![PathBuf::from("/run/ringverb")];
        directories.splice(0..0, runtime_directories());
        directories.push(format!("/run/user/{}", user.as_raw()).into());
        if user.is_root() {
            directories.push("/run".into());
        }
        Self(directories)
    }

    #[cfg(test)]
    pub(in crate::server) fn without_directories() -> Self {
        Self(Vec::new())
    }

    fn private_directories(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path).filter(|path| fs::metadata(path).is_ok_and(is_private))
    }

    /// # Errors
    /// When neither a socket file nor an abstract socket can be made.
    pub(in crate::server) fn open(&self, address: SocketAddr) -> io::Result<Point> {
        let name = file_name(address)?;
        if let Some(point) =
            self.private_directories().find_map(|directory| bind(&directory.join(&name)).ok())
        {
            return Ok(point);
        }
        let random = getrandom::u64().map_err(io::Error::other)?;
        let name =
            UnixAddress::from_abstract_name(format!("{}{random:016x}", name_prefix(address)))?;
        Ok(Point { listener: UnixListener::bind_addr(&name)?, file: None })
    }

    /// Connects to the process that serves this address and may be believed; `None` when there is none.
    ///
    /// # Errors
    /// When a server is there that must not be believed, or the kernel refuses.
    pub(in crate::server) fn find(&self, address: SocketAddr) -> io::Result<Option<UnixStream>> {
        let name = file_name(address)?;
        for directory in self.private_directories() {
            // A file without a process behind it was left by one that was killed.
            if let Ok(stream) = UnixStream::connect(directory.join(&name)) {
                check_user(&stream)?;
                return Ok(Some(stream));
            }
        }
        find_abstract(address)
    }
}

impl Point {
    /// Looks at a peer before anything else is done for it. An abstract socket can be reached from other containers,
    /// so there the kernel has to show that the peer is in the same one.
    pub(in crate::server) fn check(&self, peer: &UnixStream) -> io::Result<()> {
        check_user(peer)?;
        check_namespaces(peer, self.file.is_none())
    }

    /// No process can connect from here on, though workers' tables have copies of the descriptor.
    pub(in crate::server) fn close(&self) {
        // Without effect if it is shut down already.
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both).ok();
    }

    /// At the end of the server, so that no file stays without a process behind it.
    pub(in crate::server) fn remove(&self) {
        // After a take-over the file at this path is the new process's.
        if let Some(SocketFile { path, own_metadata }) = &self.file {
            own_file::remove(path, own_metadata);
        }
    }
}

/// Only root and this user can put a file there or take one away.
#[expect(clippy::needless_pass_by_value, reason = "as `Result::is_ok_and` gives it")]
fn is_private(found: Metadata) -> bool {
    let owner = found.uid();
    let is_ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
    found.is_dir() && is_ours && found.mode() & 0o022 == 0
}

/// Addresses belong to a network namespace, and a directory may be seen from several.
fn file_name(address: SocketAddr) -> io::Result<String> {
    let network = fs::read_link("/proc/self/ns/net")?;
    let network: String = network.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    Ok(format!("ringverb-{network}-{address}.sock"))
}

fn name_prefix(address: SocketAddr) -> String {
    format!("ringverb {address} ")
}

/// Binds under another name and moves it: a file that was left there is no obstacle.
fn bind(path: &Path) -> io::Result<Point> {
    let new = path.with_extension(std::process::id().to_string());
    // A process that was killed may have had the same id.
    fs::remove_file(&new).ok();
    let listener = UnixListener::bind(&new)?;
    let moved = fs::set_permissions(&new, Permissions::from_mode(0o600))
        .and_then(|()| fs::symlink_metadata(&new))
        .and_then(|own| fs::rename(&new, path).map(|()| own));
    match moved {
        Ok(own) => {
            Ok(Point { listener, file: Some(SocketFile { path: path.into(), own_metadata: own }) })
        }
        Err(error) => {
            // If it stays, no process looks for this name.
            fs::remove_file(&new).ok();
            Err(error)
        }
    }
}

fn find_abstract(address: SocketAddr) -> io::Result<Option<UnixStream>> {
    let mut names = listed_names(&name_prefix(address))?;
    let mut refusal = None;
    for _ in 0..ROUNDS {
        let mut busy = Vec::new();
        for name in names {
            match connect(&name) {
                Ok(stream) => match check_user(&stream) {
                    Ok(()) => return Ok(Some(stream)),
                    Err(error) => refusal = Some(error),
                },
                // Its queue is full: ours may be flooded.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => busy.push(name),
                Err(_) => {}
            }
        }
        if busy.is_empty() {
            break;
        }
        names = busy;
        sleep(ROUND_PAUSE);
    }
    if let Some(error) = refusal {
        tracing::warn!(
            event = "takeover_unavailable",
            "other users own sockets with the name of the server's take-over socket: {error}"
        );
    }
    Ok(None)
}

/// The abstract sockets of this network namespace with such a name, as `connect` takes them.
fn listed_names(prefix: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut lines = BufReader::new(fs::File::open("/proc/net/unix")?);
    let mut line = Vec::new();
    let start = format!(" @{prefix}");
    while lines.by_ref().take(1_024).read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        if let Some(at) = text.find(&start) {
            names.push(format!("\0{}", text[at + 2..].trim_end_matches('\n')));
        }
        line.clear();
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Without waiting: another user's socket may never accept.
fn connect(name: &str) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(name)?)?;
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}

/// Refuses a peer of another container: containers that share a network namespace often all run as root. `must_show`:
/// also one of whom the kernel does not show where it is.
///
/// The process id of a peer in a foreign PID namespace is 0, and one in a nested namespace has several ids. Mount and
/// user namespaces are shown to a process that could trace the peer; a process that is not dumpable hides them.
fn check_namespaces(peer: &UnixStream, must_show: bool) -> io::Result<()> {
    let refused = |why: &str| {
        let text = format!(
            "{why}: only a process of the same container or unit may take over; start it there, or send SIGUSR2 to the \
             server"
        );
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    };
    let process = peer_credentials(peer)?.process;
    if process == 0 {
        return refused("the other side is in another PID namespace");
    }
    let other = PathBuf::from(format!("/proc/{process}"));
    let depths = [pid_namespace_depth(&other), pid_namespace_depth(Path::new("/proc/self"))];
    if let [Some(theirs), Some(ours)] = depths
        && theirs != ours
    {
        return refused("the other side is in a nested PID namespace");
    }
    for kind in ["user", "mnt"] {
        let ours = fs::read_link(format!("/proc/self/ns/{kind}"))?;
        match fs::read_link(other.join("ns").join(kind)) {
            Ok(theirs) if theirs == ours => {}
            Ok(_) => return refused(&format!("the other side is in another {kind} namespace")),
            Err(_) if !must_show => {}
            Err(error) => {
                return refused(&format!(
                    "the {kind} namespace of the other side is hidden ({error})"
                ));
            }
        }
    }
    Ok(())
}

/// Counts peers that may not take over, and logs one line a minute, because any process of the host may connect at any
/// rate.
pub(in crate::server) struct RefusedPeers {
    clock: Clock,
    count: u64,
    logged_ms: Option<u64>,
}

impl RefusedPeers {
    pub(in crate::server) fn new() -> Self {
        Self { clock: Clock::start(), count: 0, logged_ms: None }
    }

    pub(in crate::server) fn refuse(&mut self, why: &io::Error) {
        const LINE_EVERY_MS: u64 = 60_000;
        self.count += 1;
        let now_ms = self.clock.now().0;
        if self.logged_ms.is_none_or(|logged_ms| now_ms.saturating_sub(logged_ms) >= LINE_EVERY_MS)
        {
            self.logged_ms = Some(now_ms);
            tracing::warn!(target: PEER, event = "takeover_refused", count = self.count, "take-over refused: {why}");
        }
    }
}

/// In how many PID namespaces a process has an id, as far as this one sees.
fn pid_namespace_depth(process: &Path) -> Option<usize> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(ids.split_ascii_whitespace().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    /// A directory below /tmp with these permissions.
    fn directory(mode: u32) -> PathBuf {
        let name = format!("ringverb-{:016x}", getrandom::u64().unwrap());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn files(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn a_private_directory_is_the_place() {
        let (path, address) = (directory(0o700), address());
        let places = Places(vec!["/nowhere".into(), path.clone()]);
        assert!(places.find(address).unwrap().is_none());
        let point = places.open(address).unwrap();
        assert_eq!(files(&path), 1);
        assert!(listed_names(&name_prefix(address)).unwrap().is_empty(), "no abstract socket");
        let _stream = places.find(address).unwrap().expect("it is there");
        let (peer, _) = point.listener.accept().unwrap();
        point.check(&peer).unwrap();
        // Another process takes its place, and the end of the first one leaves that alone.
        let next = places.open(address).unwrap();
        point.remove();
        point.close();
        let _stream = places.find(address).unwrap().expect("the next one is there");
        next.listener.accept().unwrap();
        next.remove();
        assert_eq!(files(&path), 0);
        fs::remove_dir(path).unwrap();
    }

    #[test]
    fn a_stale_socket_file_is_replaced() {
        let (path, address) = (directory(0o755), address());
        let places = Places(vec![path.clone()]);
        drop(places.open(address).unwrap());
        assert!(places.find(address).unwrap().is_none(), "nobody is behind it");
        let point = places.open(address).unwrap();
        assert!(places.find(address).unwrap().is_some());
        point.remove();
        fs::remove_dir(path).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_is_not_used() {
        for mode in [0o770, 0o707, 0o1777] {
            let (path, address) = (directory(mode), address());
            let places = Places(vec![path.clone()]);
            let point = places.open(address).unwrap();
            assert_eq!(files(&path), 0, "{mode:o}");
            let _stream = places.find(address).unwrap().expect("by its abstract name");
            let (peer, _) = point.listener.accept().unwrap();
            point.check(&peer).unwrap();
            fs::remove_dir(path).unwrap();
        }
    }

    #[test]
    fn two_servers_are_not_mixed_up() {
        let (places, one, other) = (Places::without_directories(), address(), address());
        let _point = places.open(one).unwrap();
        assert!(places.find(other).unwrap().is_none());
        assert!(places.find(one).unwrap().is_some());
    }

    #[test]
    fn the_kernel_shows_id_depth_and_credentials_of_this_process() {
        assert!(pid_namespace_depth(Path::new("/proc/self")).unwrap() >= 1);
        assert_eq!(pid_namespace_depth(Path::new("/proc/none")), None);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let credentials = peer_credentials(&ours).unwrap();
        assert_eq!(credentials.process, i32::try_from(std::process::id()).unwrap());
        check_namespaces(&ours, true).unwrap();
    }
}
