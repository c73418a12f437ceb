//! Can this machine run the server? Asked before anything starts, answered with the remedy.
//!
//! Kernel floor: Linux 5.19. Multishot POLL_ADD is of 5.13, CQE_SKIP_SUCCESS of 5.17, SUBMIT_ALL of 5.18,
//! COOP_TASKRUN with TASKRUN_FLAG of 5.19.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::locked::LockedMemory;
use super::takeover::explained;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::DESCRIPTORS_MAX;

/// Why the server does not run: what happened, why, what to do next.
#[derive(Debug)]
pub enum StartError {
    /// The kernel is too old; its release.
    OldKernel(String),
    /// io_uring is refused: the error and `kernel.io_uring_disabled`.
    NoRing(io::Error, Option<String>),
    Bind(SocketAddr, io::Error),
    /// A process listens on the port; the whole sentence.
    Held(String),
    /// The server that runs does not give its listeners away; it serves on.
    TakeOver(io::Error),
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
            Self::OldKernel(release) => write!(
                formatter,
                "Linux {release} is too old: ringverb needs 5.19 or newer for its io_uring features"
            ),
            Self::NoRing(error, disabled) => write_no_ring(formatter, error, disabled.as_deref()),
            Self::Bind(address, error) => write_bind(formatter, *address, error),
            Self::Held(sentence) => formatter.write_str(sentence),
            Self::TakeOver(error) => write!(
                formatter,
                "could not replace the running server, which continues: {}. Start this one as the same user; or stop the \
                 other one first, and start this one without --takeover",
                explained(error, "it refused, because it belongs to another user, or it ended")
            ),
            Self::Worker(memory, io::ErrorKind::OutOfMemory, _) => {
                formatter.write_str(&memory.error())
            }
            Self::Worker(_, _, error) => write_start(formatter, error),
            Self::Start(error) => write_start(formatter, error),
            Self::Random => formatter.write_str("the kernel returned no random numbers, and without them socket ids could be guessed"),
            Self::Grace => formatter.write_str(
                "some connections were still open at the end of the grace period and were cut off. RINGVERB_SHUTDOWN_GRACE sets \
                 its length",
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

fn write_no_ring(
    formatter: &mut fmt::Formatter<'_>,
    error: &io::Error,
    disabled: Option<&str>,
) -> fmt::Result {
    match (error.raw_os_error(), disabled) {
        // 1 lets root and one group through, so another error has another reason.
        (Some(libc::EPERM | libc::EACCES), Some(value @ ("1" | "2"))) => write!(
            formatter,
            "io_uring is switched off on this host (kernel.io_uring_disabled = {value}): \
             run `sysctl kernel.io_uring_disabled=0`{}, and write it to /etc/sysctl.d for the next boot",
            if *value == *"1" { " or name a group of this user in kernel.io_uring_group" } else { "" }
        ),
        (Some(libc::EPERM | libc::EACCES), _) => formatter.write_str(
            "io_uring is refused, most likely by the container's seccomp profile: run the container with a profile that \
             allows io_uring_setup, io_uring_enter and io_uring_register (with Docker: --security-opt seccomp=FILE)",
        ),
        (Some(libc::ENOSYS), _) => formatter.write_str(
            "this kernel was built without io_uring (CONFIG_IO_URING), or a sandbox hides it: use another kernel or sandbox",
        ),
        (Some(libc::ENOMEM), _) => formatter.write_str(&LockedMemory::of(1).error()),
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            formatter.write_str("no descriptor is left for io_uring: raise the limit with `ulimit -n`")
        }
        (Some(libc::EINVAL), _) => formatter.write_str(
            "io_uring does not support COOP_TASKRUN: ringverb needs Linux 5.19 or newer, and this one looks like an older \
             kernel or a sandbox that imitates one; `uname -r` shows its version",
        ),
        _ => write!(formatter, "io_uring cannot be set up: {error}; ringverb needs Linux 5.19 or newer"),
    }
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
            "no permission to listen on {address}: ports below 1024 need `setcap cap_net_bind_service=+ep` on the binary; \
             or listen on 8080 behind nginx"
        ),
        io::ErrorKind::AddrNotAvailable => write!(
            formatter,
            "{} is not an address of this host: --host 0.0.0.0 listens on all of them",
            address.ip()
        ),
        _ => write!(formatter, "cannot listen on {address}: {error}"),
    }
}

/// What was found.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) kernel: String,
    /// Descriptors the process may have.
    pub(super) descriptors: u64,
}

/// Below so many descriptors a warning says how to get more.
const DESCRIPTORS_FEW: u64 = 10_000;

impl Facts {
    /// What the operator should know, if anything.
    pub(super) fn warning(&self) -> Option<String> {
        (self.descriptors < DESCRIPTORS_FEW).then(|| {
            format!(
                "only {} descriptors are allowed, which is enough for about {} connections of each worker: raise LimitNOFILE (systemd), \
                 minfds (Supervisor) or `ulimit -Hn`",
                self.descriptors,
                self.descriptors.saturating_sub(64)
            )
        })
    }
}

/// Checks kernel and io_uring, and raises the limit of descriptors as far as it goes.
pub(super) fn run() -> Result<Facts, StartError> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    if version(&kernel).is_some_and(|version| version < (5, 19)) {
        return Err(StartError::OldKernel(kernel));
    }
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    let ring: Result<io_uring::IoUring, _> =
        io_uring::IoUring::builder().setup_coop_taskrun().setup_taskrun_flag().build(8);
    if let Err(error) = ring {
        return Err(StartError::NoRing(error, disabled.map(|text| text.trim().to_owned())));
    }
    Ok(Facts { kernel, descriptors: raise_descriptors() })
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

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: &StartError) -> String {
        error.to_string()
    }

    #[test]
    fn versions() {
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("5.15.0-101-generic"), Some((5, 15)));
        assert_eq!(version("odd"), None);
    }

    #[test]
    fn every_message_names_the_remedy() {
        let os = io::Error::from_raw_os_error;
        let address: SocketAddr = "0.0.0.0:80".parse().unwrap();
        for (error, part) in [
            (StartError::OldKernel("5.4".into()), "5.19 or newer"),
            (
                StartError::NoRing(os(libc::EPERM), Some("2".into())),
                "sysctl kernel.io_uring_disabled=0",
            ),
            (StartError::NoRing(os(libc::EPERM), Some("1".into())), "kernel.io_uring_group"),
            (StartError::NoRing(os(libc::ENOMEM), Some("1".into())), "ulimit -l"),
            (StartError::NoRing(os(libc::EPERM), Some("0".into())), "seccomp"),
            (StartError::NoRing(os(libc::ENOSYS), None), "CONFIG_IO_URING"),
            (StartError::NoRing(os(libc::ENOMEM), None), "ulimit -l"),
            (StartError::NoRing(os(libc::EMFILE), None), "ulimit -n"),
            (StartError::NoRing(os(libc::EINVAL), None), "5.19"),
            (StartError::Bind(address, os(libc::EADDRINUSE)), "ss -ltnp 'sport = :80'"),
            (StartError::Bind(address, os(libc::EACCES)), "setcap"),
            (StartError::Bind(address, os(libc::EADDRNOTAVAIL)), "--host 0.0.0.0"),
            (
                StartError::Worker(LockedMemory::of(32), io::ErrorKind::OutOfMemory, String::new()),
                "32 workers need 3840 KiB of locked memory",
            ),
            (
                StartError::Worker(LockedMemory::of(1), io::ErrorKind::Other, "odd".into()),
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
        let facts = |descriptors| Facts { kernel: String::new(), descriptors };
        assert!(facts(1024).warning().unwrap().contains("LimitNOFILE"));
        assert!(facts(100_000).warning().is_none());
    }
}
