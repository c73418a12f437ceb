//! Which kernel a server uses. io_uring is tried with a real ring of the size that is then used, before any worker
//! starts, because sandboxes refuse it in several ways: each of its system calls alone, or only some of its features.
//!
//! Owns nothing that stays: the ring is closed again. Does not count the locked memory of all workers, which
//! `server/locked.rs` does: this probe makes one ring. Input: the option and the size of rings. Output: a `Choice`, or
//! a `KernelRefusal` with its remedy. Limits: the three steps of `uring/prove.rs`, each of at most a second. Cost: a
//! ring and some system calls at the start of the process, nothing afterwards.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{RingSize, Uring};
use crate::config::Io;
use crate::worker::time::Clock;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Uring(RingSize),
    /// With the reason if the configuration would have allowed io_uring.
    Epoll(Option<KernelRefusal>),
}

impl Choice {
    /// The value of `RINGVERB_IO` that asks for it. The console shows it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Uring(_) => "io_uring",
            Self::Epoll(_) => "epoll",
        }
    }
}

/// Name and reason in a few words, for the start message.
impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uring(_) => formatter.write_str("io_uring"),
            Self::Epoll(None) => formatter.write_str("epoll (RINGVERB_IO)"),
            Self::Epoll(Some(refusal)) => write!(formatter, "epoll ({})", refusal.in_short()),
        }
    }
}

/// Why io_uring cannot be used. `Display` names the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelRefusal {
    Step {
        /// The system call or feature that failed.
        what: &'static str,
        /// The error of the system, if it is one.
        code: Option<i32>,
        text: String,
        /// `kernel.io_uring_disabled`, which exists where the kernel has io_uring (Linux 6.6).
        disabled: Option<String>,
    },
    /// The rings of all workers do not fit; the whole sentence.
    LockedMemory(String),
}

const SECCOMP: &str = "run the container with a seccomp profile that allows io_uring_setup and io_uring_enter, such as \
                       packaging/seccomp-io_uring.json (Docker and Podman: --security-opt seccomp=FILE)";
const FLOOR: &str = "ringverb needs Linux 5.19 or newer for io_uring";

impl KernelRefusal {
    fn new(what: &'static str, error: &io::Error) -> Self {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        let disabled = disabled.map(|text| text.trim().chars().take(8).collect());
        Self::Step { what, code: error.raw_os_error(), text: error.to_string(), disabled }
    }

    /// The kernel had too little locked memory for one ring.
    #[must_use]
    pub fn is_for_memory(&self) -> bool {
        matches!(self, Self::Step { code: Some(libc::ENOMEM), .. } | Self::LockedMemory(_))
    }

    fn in_short(&self) -> &'static str {
        let Self::Step { code, disabled, .. } = self else {
            return "too little locked memory for io_uring";
        };
        match (code, disabled.as_deref()) {
            (Some(libc::EPERM | libc::EACCES), Some("1" | "2")) => {
                "io_uring is off: kernel.io_uring_disabled"
            }
            (Some(libc::EPERM | libc::EACCES), _) | (Some(libc::ENOSYS), Some(_)) => {
                "io_uring is refused: seccomp"
            }
            (Some(libc::ENOSYS), None) => "io_uring is missing",
            (Some(libc::ENOMEM), _) => "too little locked memory for io_uring",
            (Some(libc::EINVAL), _) => "this kernel's io_uring is too old",
            _ => "io_uring does not work",
        }
    }
}

impl fmt::Display for KernelRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, code, text, disabled) = match self {
            Self::Step { what, code, text, disabled } => (what, code, text, disabled.as_deref()),
            Self::LockedMemory(sentence) => return formatter.write_str(sentence),
        };
        match (code, disabled) {
            // The value 1 allows root and one group, so an error has another reason there.
            (Some(libc::EPERM | libc::EACCES), Some(value @ ("1" | "2"))) => {
                let group = "name a group of this user in kernel.io_uring_group, or ";
                let group = if value == "1" { group } else { "" };
                write!(
                    formatter,
                    "io_uring is switched off on this host (kernel.io_uring_disabled = {value}): {group}run \
                     `sysctl kernel.io_uring_disabled=0`, and write it to /etc/sysctl.d for the next boot"
                )
            }
            (Some(libc::EPERM | libc::EACCES), _) | (Some(libc::ENOSYS), Some(_)) => write!(
                formatter,
                "{what} is refused ({text}), most likely by the container's seccomp profile: {SECCOMP}"
            ),
            (Some(libc::ENOSYS), None) => write!(
                formatter,
                "{what} is refused ({text}): this kernel has no io_uring (CONFIG_IO_URING; {FLOOR}), or a sandbox \
                 hides it. In a container, {SECCOMP}"
            ),
            (Some(libc::ENOMEM), _) => write!(
                formatter,
                "{what} is refused ({text}): no locked memory is left for its rings. Raise RLIMIT_MEMLOCK \
                 (LimitMEMLOCK= in the systemd unit, `ulimit -l` in a shell)"
            ),
            (Some(libc::EMFILE | libc::ENFILE), _) => write!(
                formatter,
                "{what} is refused ({text}): no descriptor is left. Raise the limit with `ulimit -n`"
            ),
            (Some(libc::EINVAL), _) => write!(
                formatter,
                "{what} lacks a feature ({text}): {FLOOR}, and this is an older kernel or a sandbox that imitates one; \
                 `uname -r` shows its version"
            ),
            _ => write!(
                formatter,
                "{what} does not work ({text}): {FLOOR}, and no sandbox around it"
            ),
        }
    }
}

/// Decides which kernel the workers use, and with which rings: `size`, or small ones where a large one has no room now.
///
/// # Errors
/// When only io_uring is allowed and cannot be used.
pub fn choose(io: Io, size: RingSize) -> Result<Choice, KernelRefusal> {
    if io == Io::Epoll {
        return Ok(Choice::Epoll(None));
    }
    match try_uring(size) {
        Ok(()) => Ok(Choice::Uring(size)),
        Err(refusal) if size == RingSize::Large && refusal.is_for_memory() => {
            choose(io, RingSize::Small)
        }
        Err(refusal) if io == Io::Auto => Ok(Choice::Epoll(Some(refusal))),
        Err(refusal) => Err(refusal),
    }
}

/// A ring for a worker: a small one where the locked memory that is left has no room for a large one, because other
/// processes of the user share it. `smaller` counts those.
///
/// # Errors
/// As `Uring::new`.
pub fn ring_that_fits(clock: Clock, size: RingSize, smaller: &AtomicUsize) -> io::Result<Uring> {
    match Uring::new(clock, size) {
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && size != RingSize::Small => {
            let ring = Uring::new(clock, RingSize::Small)?;
            smaller.fetch_add(1, Ordering::Relaxed);
            Ok(ring)
        }
        ring => ring,
    }
}

fn try_uring(size: RingSize) -> Result<(), KernelRefusal> {
    let ring = Uring::new(Clock::start(), size);
    let mut ring = ring.map_err(|error| KernelRefusal::new("io_uring_setup", &error))?;
    ring.prove().map_err(|(what, error)| KernelRefusal::new(what, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: i32, disabled: Option<&str>) -> KernelRefusal {
        let error = io::Error::from_raw_os_error(code);
        KernelRefusal::Step {
            what: "io_uring_setup",
            code: error.raw_os_error(),
            text: error.to_string(),
            disabled: disabled.map(str::to_owned),
        }
    }

    #[test]
    fn every_refusal_names_its_reason_and_the_remedy() {
        for (code, disabled, part, short) in [
            (
                libc::EPERM,
                Some("2"),
                "sysctl kernel.io_uring_disabled=0",
                "kernel.io_uring_disabled",
            ),
            (libc::EPERM, Some("1"), "kernel.io_uring_group", "kernel.io_uring_disabled"),
            (libc::EPERM, Some("0"), "--security-opt seccomp=FILE", "seccomp"),
            (libc::EPERM, None, "--security-opt seccomp=FILE", "seccomp"),
            (libc::ENOSYS, Some("0"), "--security-opt seccomp=FILE", "seccomp"),
            (libc::ENOSYS, None, "CONFIG_IO_URING", "missing"),
            (libc::ENOSYS, None, "--security-opt seccomp=FILE", "missing"),
            (libc::ENOMEM, Some("0"), "RLIMIT_MEMLOCK", "locked memory"),
            (libc::EMFILE, None, "ulimit -n", "does not work"),
            (libc::EINVAL, None, "Linux 5.19 or newer", "too old"),
            (libc::EIO, None, "io_uring_setup does not work", "does not work"),
        ] {
            let refusal = refusal(code, disabled);
            assert!(refusal.to_string().contains(part), "{part} in {refusal}");
            let choice = Choice::Epoll(Some(refusal)).to_string();
            assert!(choice.starts_with("epoll (") && choice.contains(short), "{short} in {choice}");
        }
        assert!(!refusal(libc::EPERM, Some("2")).to_string().contains("group"));
        assert!(refusal(libc::ENOMEM, None).is_for_memory());
    }

    /// These machines allow io_uring; tests/kernels.rs has a process that does not.
    #[test]
    fn io_uring_is_used_where_it_works_and_epoll_where_it_is_asked_for() {
        for size in [RingSize::Small, RingSize::Large] {
            for io in [Io::Auto, Io::IoUring] {
                assert!(matches!(choose(io, size), Ok(Choice::Uring(used)) if used == size));
            }
            assert!(matches!(choose(Io::Epoll, size), Ok(Choice::Epoll(None))));
        }
        assert_eq!(Choice::Epoll(None).to_string(), "epoll (RINGVERB_IO)");
    }
}
