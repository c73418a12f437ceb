//! The port of a start: whether it is free, and which process uses it otherwise.
//!
//! A server of this user answers at the take-over socket of its address, whatever its program is called. For others,
//! /proc/net/tcp has the listening sockets with their inodes, and /proc/PID/fd who has an inode open. The kernel shows
//! the descriptors of other users' processes to root only, and so those of a server, which no other process may trace
//! (`life.rs`). Then a server of the socket's user is the one, if there is only one; otherwise the user is named. Owns
//! no state. Does not end or signal a process.
//! Limit: the processes of `doctor/processes.rs`. Cost: one `bind`; if the port is in use, a read of the links of each
//! process until the inode is found.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rustix::process::Pid;

use super::finding::{Finding, Verdict};
use super::processes::{PROGRAM, ids};
use crate::server::port;
use crate::server::probe::StartError;
use crate::server::takeover::rendezvous::Places;
use crate::server::takeover::replacement::is_orphan;
use crate::text::shown;
use crate::worker::transfer::peer_credentials;

pub(super) fn examine(address: SocketAddr, can_take_over: bool) -> Finding {
    let finding = |verdict, text: String| Finding::new(verdict, "port", text);
    if address.port() == 0 {
        return finding(
            Verdict::Good,
            format!("the kernel chooses a free port of {}", address.ip()),
        );
    }
    let error = match port::try_bind(address) {
        Ok(()) => return finding(Verdict::Good, format!("{address} is free")),
        Err(error) => error,
    };
    if error.kind() != io::ErrorKind::AddrInUse {
        return finding(Verdict::Problem, StartError::Bind(address, error).to_string());
    }
    let Some(socket) = listening_at(address) else {
        return finding(Verdict::Problem, format!("{address} is in use; `ss -ltnp` shows by whom"));
    };
    match holder(&socket, address) {
        Some(holder) if i32::try_from(holder.process).is_ok_and(is_orphan) => finding(
            Verdict::Warning,
            format!(
                "{address} is in use by {PROGRAM}, process {}, whose parent is gone: a start takes over from it",
                holder.process
            ),
        ),
        Some(holder) => finding(Verdict::Problem, holder.sentence(address, can_take_over)),
        None => finding(
            Verdict::Problem,
            format!(
                "{address} is in use by a process of the user with the id {}: stop it, or choose another port with \
                 --port",
                socket.user
            ),
        ),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct ListeningSocket {
    user: u32,
    inode: u64,
}

fn listening_at(address: SocketAddr) -> Option<ListeningSocket> {
    ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().find_map(|path| {
        let table = fs::read_to_string(path).ok()?;
        table.lines().skip(1).find_map(|line| listening_socket(line, address))
    })
}

/// A line of the table, if it is a listening socket that is in the way of this address.
fn listening_socket(line: &str, address: SocketAddr) -> Option<ListeningSocket> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, state) = (fields.get(1)?, fields.get(3)?);
    let (ip, port) = local.split_once(':')?;
    if *state != LISTEN || u16::from_str_radix(port, 16).ok()? != address.port() {
        return None;
    }
    let ip = parse_ip(ip)?.to_canonical();
    let is_in_the_way =
        ip.is_unspecified() || address.ip().is_unspecified() || ip == address.ip().to_canonical();
    let (user, inode) = (fields.get(7)?.parse().ok()?, fields.get(9)?.parse().ok()?);
    is_in_the_way.then_some(ListeningSocket { user, inode })
}

/// Words of 32 bits, each in the byte order of the machine.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = hex.get(at..at + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

pub(in crate::server) struct Holder {
    process: u32,
    program: String,
    is_server: bool,
}

impl Holder {
    /// A guess by the name of the program, which any program may have. `of_server` is for a process that has shown what
    /// it is.
    pub(in crate::server) fn of(process: u32) -> Self {
        let program = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        let program = program.trim_end().to_owned();
        let is_server = program == PROGRAM;
        Self { process, program, is_server }
    }

    /// A process that has answered as a server does. Its program may have any name.
    pub(in crate::server) fn of_server(process: u32) -> Self {
        Self { is_server: true, ..Self::of(process) }
    }

    pub(in crate::server) fn is_server(&self) -> bool {
        self.is_server
    }

    pub(super) fn id(&self) -> u32 {
        self.process
    }

    /// The name of a foreign program may have control characters, which are escaped.
    pub(in crate::server) fn program_and_process(&self) -> String {
        format!("{}, process {}", shown(&self.program), self.process)
    }

    /// The process that may be sent a signal. `None` for another program, which must not get one.
    pub(in crate::server) fn server(&self) -> Option<Pid> {
        let process = i32::try_from(self.process).ok().filter(|_| self.is_server);
        process.and_then(Pid::from_raw)
    }

    /// Why a start fails. `can_take_over`: a start with `--takeover` would not.
    pub(in crate::server) fn sentence(&self, address: SocketAddr, can_take_over: bool) -> String {
        let Self { process, program, is_server } = self;
        if !is_server {
            let program = shown(program);
            return format!(
                "{address} is in use by {program}, process {process}: stop it, or choose another port with --port"
            );
        }
        let or_replace = if can_take_over { " start with --takeover," } else { "" };
        format!(
            "{address} is in use by {PROGRAM}, process {process}: stop it,{or_replace} or choose another --port"
        )
    }
}

/// The process that listens in the way of this address, if this user may see it.
pub(in crate::server) fn live_holder(address: SocketAddr) -> Option<Holder> {
    holder(&listening_at(address)?, address)
}

pub(super) fn is_listened_at(address: SocketAddr) -> bool {
    listening_at(address).is_some()
}

/// The server of this user that offers a take-over of this address. It is connected to and sent nothing, as by a start.
fn server_at_rendezvous(address: SocketAddr) -> Option<Holder> {
    let stream = Places::new().find(address).ok()??;
    // The id is 0 for a process of another PID namespace.
    let process = u32::try_from(peer_credentials(&stream).ok()?.process).ok()?;
    (process > 0).then(|| Holder::of_server(process))
}

fn holder(socket: &ListeningSocket, address: SocketAddr) -> Option<Holder> {
    let listening = || process_with(socket).or_else(|| only_hidden_server(socket.user));
    server_at_rendezvous(address).or_else(|| listening().map(Holder::of))
}

/// The server that certainly serves this address: it answers at the take-over socket, or is seen to have the port.
pub(super) fn certain_server(address: SocketAddr) -> Option<Holder> {
    let socket = listening_at(address)?;
    let seen = || process_with(&socket).map(Holder::of).filter(Holder::is_server);
    server_at_rendezvous(address).or_else(seen)
}

fn process_with(socket: &ListeningSocket) -> Option<u32> {
    let link = format!("socket:[{}]", socket.inode);
    let holds = |process: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"));
        let mut entries = descriptors.into_iter().flatten().flatten();
        entries.any(|entry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == link.as_str())
        })
    };
    ids(Path::new("/proc")).find(holds)
}

/// The server of this user whose descriptors the kernel hides. `None` also if there are several: which of them has the
/// socket is hidden, too.
fn only_hidden_server(user: u32) -> Option<u32> {
    let is_hidden = |process: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"));
        descriptors.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    let of_user = |process: &u32| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        real_user(&status) == Some(user)
    };
    let is_server = |process: &u32| Holder::of(*process).is_server();
    let mut found = ids(Path::new("/proc"))
        .filter(|process| is_server(process) && of_user(process) && is_hidden(process));
    found.next().filter(|_| found.next().is_none())
}

/// The user of /proc/PID/status. The owner of the files there is root for a process that hides.
fn real_user(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_user_of_a_process_is_read_from_its_status() {
        assert_eq!(real_user("Name:\tx\nUid:\t1001\t0\t0\t0\nGid:\t5\n"), Some(1001));
        assert_eq!(real_user("Name:\tx\n"), None);
        assert_eq!(real_user("Uid:\tx"), None);
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert_eq!(real_user(&own), Some(rustix::process::getuid().as_raw()));
    }

    #[test]
    fn a_listening_socket_is_found_with_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let finding = examine(address, true);
        assert_eq!(finding.verdict, Verdict::Problem);
        let process = format!("process {}", std::process::id());
        assert!(
            finding.text.contains(&process) && finding.text.contains("--port"),
            "{}",
            finding.text
        );
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert!(examine(any, true).text.contains(&process));
        drop(listener);
        assert_eq!(examine(address, true).verdict, Verdict::Good);
        let elsewhere = examine("192.0.2.1:80".parse().unwrap(), true);
        assert!(
            elsewhere.verdict == Verdict::Problem && elsewhere.text.contains("--host"),
            "{}",
            elsewhere.text
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_the_table() {
        let line = |local: &str, state: &str| {
            format!(
                "  0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000  0 4242 1 0 100 0"
            )
        };
        let found = |text: &str, address: &str| listening_socket(text, address.parse().unwrap());
        let socket = Some(ListeningSocket { user: 1000, inode: 4242 });
        assert_eq!(found(&line("0100007F:1F90", "0A"), "127.0.0.1:8080"), socket);
        assert_eq!(found(&line("00000000:1F90", "0A"), "10.0.0.1:8080"), socket);
        assert_eq!(found(&line("0100007F:1F90", "0A"), "0.0.0.0:8080"), socket);
        let mapped = "0000000000000000FFFF00000100007F:1F90";
        assert_eq!(found(&line(mapped, "0A"), "127.0.0.1:8080"), socket);
        let loopback = "00000000000000000000000001000000:1F90";
        assert_eq!(found(&line(loopback, "0A"), "[::1]:8080"), socket);
        for (local, state) in
            [("0100007F:1F90", "01"), ("0100007F:1F91", "0A"), ("0200007F:1F90", "0A")]
        {
            assert_eq!(found(&line(local, state), "127.0.0.1:8080"), None, "{local} {state}");
        }
        assert_eq!(found("", "127.0.0.1:8080"), None);
        assert_eq!(found("0: zz:1F90 x 0A", "127.0.0.1:8080"), None);
    }
}
