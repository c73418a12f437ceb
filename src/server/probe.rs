//! Can this machine run the server, and over which interface of the kernel?
//!
//! Owns the texts of `StartError`: each has its remedy, which is a command, an option or a setting of the system. Asked
//! before anything starts. `worker/kernel/probe.rs` tries io_uring, and all workers use the same interface. It also
//! raises the limit of descriptors as far as the kernel allows. Output: the kernel interface, or a `StartError`. Does
//! not start a thread that lasts.
//! Limits: `limits::DESCRIPTORS_MAX` for the descriptors that it asks for. Cost: once at the start, some system calls.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::locked::LockedMemory;
use super::takeover::explain_error;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Io;
use crate::limits::DESCRIPTORS_MAX;
use crate::worker::kernel::{Choice, KernelRefusal, choose};

/// Why the server does not run: what happened, why, what to do next.
#[derive(Debug)]
pub(crate) enum StartError {
    /// io_uring cannot be used, and the configuration allows nothing else.
    NoRing(KernelRefusal),
    Bind(SocketAddr, io::Error),
    /// A process listens on the port; the whole sentence.
    Held(String),
    /// The admin listener cannot be had where it is configured; the whole sentence.
    Admin(String),
    /// The server that runs does not give its listeners away; it serves on.
    TakeOver(io::Error),
    /// This process has no app, and the running server has configured ones.
    NoAppsForTakeOver,
    /// A worker's rings could not be made: what its kind needs, and the error.
    Worker(LockedMemory, io::ErrorKind, String),
    /// A thread or descriptor could not be made.
    Start(io::Error),
    Random,
    /// Not all connections closed within the grace period.
    Grace,
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRing(refusal) => write!(
                formatter,
                "io_uring cannot be used, and RINGVERB_IO allows nothing else: {refusal}; or set RINGVERB_IO=auto, \
                 which uses epoll instead"
            ),
            Self::Bind(address, error) => write_bind(formatter, *address, error),
            Self::Held(sentence) | Self::Admin(sentence) => formatter.write_str(sentence),
            Self::TakeOver(error) => write!(
                formatter,
                "could not replace the running server, which continues: {}. Start this one as the same user; or stop \
                 the other one first, and start this one without --takeover",
                explain_error(error, "it refused, because it belongs to another user, or it ended")
            ),
            Self::NoAppsForTakeOver => formatter.write_str(
                "could not replace the running server, which continues: it has configured apps, and this process has \
                 none. As a development server it would refuse all clients. Put the configuration back in its place \
                 (.env, ringverb.toml or the environment; `ringverb check` lists what is found) and try again; or stop \
                 the running server first to start a development server",
            ),
            Self::Worker(memory, io::ErrorKind::OutOfMemory, _) => {
                formatter.write_str(&memory.error())
            }
            Self::Worker(_, _, error) => write_start(formatter, error),
            Self::Start(error) => write_start(formatter, error),
            Self::Random => formatter.write_str("the kernel returned no random numbers, and without them socket ids \
                                                 could be guessed"),
            Self::Grace => formatter.write_str(
                "some connections were still open at the end of the grace period and were cut off. \
                 RINGVERB_SHUTDOWN_GRACE sets its length",
            ),
        }
    }
}

fn write_start(formatter: &mut fmt::Formatter<'_>, error: &dyn fmt::Display) -> fmt::Result {
    write!(
        formatter,
        "the server could not be set up: {error}; are descriptors, threads and memory left (ulimit -a)?"
    )
}

fn write_bind(
    formatter: &mut fmt::Formatter<'_>,
    address: SocketAddr,
    error: &io::Error,
) -> fmt::Result {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => write!(
            formatter,
            "{address} is in use: is Reverb or another ringverb still running? `ss -ltnp 'sport = :{port}'` shows who; \
             or choose another port with --port"
        ),
        io::ErrorKind::PermissionDenied => write!(
            formatter,
            "no permission to listen on {address}: ports below 1024 need `setcap cap_net_bind_service=+ep` on the \
             binary; or listen on 8080 behind nginx"
        ),
        io::ErrorKind::AddrNotAvailable => write!(
            formatter,
            "{} is not an address of this host: --host 0.0.0.0 listens on all of them",
            address.ip()
        ),
        _ => write!(formatter, "cannot listen on {address}: {error}"),
    }
}

#[derive(Debug)]
pub(super) struct KernelFacts {
    pub(super) kernel: String,
    /// Over which interface workers wait for their sockets.
    pub(super) io: Choice,
    /// The soft limit after it was raised. Each worker has a table of its own with so many.
    pub(super) descriptors: u64,
}

/// Below so many a warning says how to get more. Some hosts have a hard limit of 4,096.
const DESCRIPTORS_FEW: u64 = 10_000;

impl KernelFacts {
    /// Why epoll is used although io_uring was allowed.
    pub(super) fn note(&self) -> Option<String> {
        let Choice::Epoll(Some(refusal)) = &self.io else { return None };
        Some(format!(
            "io_uring cannot be used, so this server uses epoll, which costs more processor time: {refusal}. \
             RINGVERB_IO=epoll uses epoll without this message"
        ))
    }

    /// `None` if there are enough descriptors.
    pub(super) fn warning(&self) -> Option<String> {
        (self.descriptors < DESCRIPTORS_FEW).then(|| {
            format!(
                "only {} descriptors are allowed, which is enough for about {} connections of each worker: raise \
                 LimitNOFILE (systemd), minfds (Supervisor) or `ulimit -Hn`",
                self.descriptors,
                self.descriptors.saturating_sub(64)
            )
        })
    }
}

/// Also raises the limit of descriptors of this process as far as it goes.
pub(super) fn run(io: Io, memory: &LockedMemory) -> Result<KernelFacts, StartError> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let io = choose_kernel(io, memory).map_err(StartError::NoRing)?;
    Ok(KernelFacts { kernel, io, descriptors: raise_descriptors() })
}

/// All workers use io_uring, or none does. So the locked memory must be enough for the rings of all.
fn choose_kernel(io: Io, memory: &LockedMemory) -> Result<Choice, KernelRefusal> {
    let too_little = || KernelRefusal::LockedMemory(memory.error());
    if io != Io::Epoll && !memory.is_enough_to_start() {
        return if io == Io::Auto {
            Ok(Choice::Epoll(Some(too_little())))
        } else {
            Err(too_little())
        };
    }
    match choose(io, memory.ring_size()) {
        Ok(Choice::Epoll(Some(refusal))) if refusal.is_for_memory() => {
            Ok(Choice::Epoll(Some(too_little())))
        }
        Err(refusal) if refusal.is_for_memory() => Err(too_little()),
        chosen => chosen,
    }
}

fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX).min(DESCRIPTORS_MAX);
    let raised = Rlimit { current: Some(most), maximum: limit.maximum };
    // Refused in odd sandboxes; then the old limit stands.
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => Some(most),
        Err(_) => limit.current,
    };
    current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::kernel::RingSize;

    fn text(error: &StartError) -> String {
        error.to_string()
    }

    #[test]
    fn every_message_names_the_remedy() {
        let os = io::Error::from_raw_os_error;
        let address: SocketAddr = "0.0.0.0:80".parse().unwrap();
        for (error, part) in [
            (
                StartError::NoRing(KernelRefusal::LockedMemory("why".into())),
                "why; or set RINGVERB_IO=auto",
            ),
            (StartError::Bind(address, os(libc::EADDRINUSE)), "ss -ltnp 'sport = :80'"),
            (StartError::Bind(address, os(libc::EACCES)), "setcap"),
            (StartError::Bind(address, os(libc::EADDRNOTAVAIL)), "--host 0.0.0.0"),
            (
                StartError::Worker(
                    LockedMemory::for_workers(32),
                    io::ErrorKind::OutOfMemory,
                    String::new(),
                ),
                "32 workers need 896 KiB of locked memory",
            ),
            (
                StartError::Worker(
                    LockedMemory::for_workers(1),
                    io::ErrorKind::Other,
                    "odd".into(),
                ),
                "odd; are descriptors",
            ),
            (StartError::Grace, "RINGVERB_SHUTDOWN_GRACE"),
        ] {
            assert!(text(&error).contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn an_end_of_the_other_process_is_no_riddle() {
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset] {
            let error = StartError::TakeOver(kind.into());
            assert!(text(&error).contains("continues: it refused, because"), "{error}");
        }
        let timeout = StartError::TakeOver(io::Error::from_raw_os_error(libc::EAGAIN));
        assert!(text(&timeout).contains("no answer within 10 s"), "{timeout}");
    }

    #[test]
    fn few_descriptors_are_warned_of() {
        let facts = |descriptors| KernelFacts {
            kernel: String::new(),
            io: Choice::Uring(RingSize::Small),
            descriptors,
        };
        assert!(facts(1024).warning().unwrap().contains("LimitNOFILE"));
        assert!(facts(100_000).warning().is_none());
    }

    #[test]
    fn too_little_locked_memory_for_all_workers_selects_epoll_with_a_warning() {
        let memory = |limit_bytes| LockedMemory { limit_bytes, ..LockedMemory::for_workers(9) };
        let poor = memory(Some(64 << 10));
        let facts = run(Io::Auto, &poor).unwrap();
        assert_eq!(facts.io.to_string(), "epoll (too little locked memory for io_uring)");
        let note = facts.note().unwrap();
        for part in [
            "so this server uses epoll",
            "9 workers need 252 KiB",
            "ulimit -l",
            "RINGVERB_IO=epoll",
        ] {
            assert!(note.contains(part), "{part} in {note}");
        }
        let error = run(Io::IoUring, &poor).unwrap_err().to_string();
        assert!(
            error.contains("9 workers need 252 KiB") && error.contains("RINGVERB_IO=auto"),
            "{error}"
        );
        let facts = run(Io::Epoll, &poor).unwrap();
        assert_eq!(facts.io.to_string(), "epoll (RINGVERB_IO)");
        assert_eq!(facts.note(), None);
        let facts = run(Io::Auto, &memory(None)).unwrap();
        assert_eq!((facts.note(), facts.io), (None, Choice::Uring(RingSize::Large)));
        let facts =
            run(Io::Auto, &memory(Some(2 * memory(None).needed_bytes_with_large_rings - 1)))
                .unwrap();
        assert_eq!((facts.note(), facts.io), (None, Choice::Uring(RingSize::Small)));
    }
}
