//! The system calls that the standard library does not offer: sockets bound before they connect, epoll, CPU pinning,
//! the descriptor limit, signals. The only module with `unsafe`.
//!
//! Owns an epoll set. Never closes a descriptor by hand: `OwnedFd` or `TcpStream` owns each from the line that makes
//! it. Limit: 1,024 events of one wait. Cost: one system call for each function; `connect_from` has five.

#![allow(unsafe_code, reason = "system calls without a safe wrapper in the standard library")]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn socklen_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(mem::size_of::<T>()).expect("socket addresses and options are small")
}

fn sockaddr_of(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("AF_INET is 2"),
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

fn set_option(fd: RawFd, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is a c_int that lives across the call, and the length given is its size.
    let result = unsafe {
        libc::setsockopt(fd, level, name, (&raw const on).cast(), socklen_of::<libc::c_int>())
    };
    check(result).map(|_| ())
}

/// Starts a non-blocking connect from `source` (any port) to `target`. Writable means decided: ask
/// `TcpStream::take_error`.
pub(crate) fn connect_from(source: Ipv4Addr, target: SocketAddrV4) -> io::Result<TcpStream> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::socket(libc::AF_INET, kind, 0) })?;
    // SAFETY: `fd` was opened the line before and nobody else has it.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    // The port is chosen at connect, per target: otherwise all sources share 28,000 ports.
    set_option(fd, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT)?;
    let from = sockaddr_of(SocketAddrV4::new(source, 0));
    // SAFETY: `from` is an initialized sockaddr_in and the length given is its size.
    let result =
        unsafe { libc::bind(fd, (&raw const from).cast(), socklen_of::<libc::sockaddr_in>()) };
    check(result)?;
    let to = sockaddr_of(target);
    // SAFETY: `to` is an initialized sockaddr_in and the length given is its size.
    let result =
        unsafe { libc::connect(fd, (&raw const to).cast(), socklen_of::<libc::sockaddr_in>()) };
    match check(result) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What this listener accepts has TCP_NODELAY.
pub(crate) fn inherit_nodelay(listener: &TcpListener) -> io::Result<()> {
    set_option(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY)
}

/// The kernel completes an accept when the first bytes have arrived, or about a second later.
pub(crate) fn defer_accept(listener: &TcpListener) -> io::Result<()> {
    set_option(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT)
}

/// Accepts a connection, without its address and non-blocking.
pub(crate) fn accept_nonblocking(listener: &TcpListener) -> io::Result<TcpStream> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: null pointers ask for no address.
    let fd = check(unsafe { libc::accept4(listener.as_raw_fd(), address, length, flags) })?;
    // SAFETY: `fd` was opened the line before and nobody else has it.
    Ok(unsafe { TcpStream::from_raw_fd(fd) })
}

pub(crate) const READABLE: u32 = 0x1;
pub(crate) const WRITABLE: u32 = 0x4;

/// A level-triggered epoll set.
pub(crate) struct Epoll {
    fd: OwnedFd,
    ready: Vec<libc::epoll_event>,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `fd` was opened the line before and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, ready: vec![libc::epoll_event { events: 0, u64: 0 }; 1024] })
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: RawFd,
        events: u32,
        token: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: `event` is initialized and lives across the call; the kernel copies it.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &raw mut event) };
        check(result).map(|_| ())
    }

    pub(crate) fn add(&self, fd: RawFd, events: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events, token)
    }

    pub(crate) fn modify(&self, fd: RawFd, events: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, events, token)
    }

    pub(crate) fn remove(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Appends the tokens of the ready descriptors to `tokens`. A closed descriptor leaves the set
    /// by itself, because no descriptor of this process is duplicated.
    pub(crate) fn wait(&mut self, timeout: Duration, tokens: &mut Vec<u64>) -> io::Result<()> {
        let timeout = timeout.min(Duration::from_secs(60));
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).expect("at most a minute"),
            tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
        };
        let capacity = libc::c_int::try_from(self.ready.len()).expect("a fixed small length");
        // epoll_wait counts in milliseconds, too coarse for a schedule of thousands a second.
        // SAFETY: `ready` has room for `capacity` events and is not touched during the call;
        // `timeout` is initialized and lives across it; no signal mask is passed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.ready.as_mut_ptr(),
                capacity,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        let result = libc::c_int::try_from(result).expect("a count of events, or -1");
        let count = match check(result) {
            Ok(count) => usize::try_from(count).expect("not negative"),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        tokens.extend(self.ready[..count].iter().map(|event| event.u64));
        Ok(())
    }
}

/// Lets timed waits of this thread end on time: the default slack is 50 us.
pub(crate) fn exact_timers() -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) }).map(|_| ())
}

/// Pins the calling thread, and the threads and processes it starts later, to one CPU.
pub(crate) fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is an array of integers, for which all zeros is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    if cpu >= mem::size_of_val(&set) * 8 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such CPU"));
    }
    // SAFETY: `cpu` is within the set, checked above.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is initialized and the length given is its size.
    let result = unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &raw const set) };
    check(result).map(|_| ())
}

/// Raises the soft limit of open descriptors to the hard one and returns it.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives across the call, which fills it.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is initialized and lives across the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_max)
}

extern "C" fn leave(_: libc::c_int) {
    // SAFETY: async-signal-safe, and it does not return.
    unsafe { libc::_exit(0) }
}

/// SIGTERM ends this process with exit code 0.
pub(crate) fn exit_on_sigterm() -> io::Result<()> {
    let handler = leave as extern "C" fn(libc::c_int);
    // SAFETY: the handler calls nothing that is not async-signal-safe.
    let before = unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The process that `command` starts gets SIGTERM when this one ends, however it ends: an interrupt
/// at the terminal leaves no server behind. To be started from the main thread, with whose end it
/// would otherwise go.
pub(crate) fn end_with_us(command: &mut Command) {
    let ask = || {
        // SAFETY: no memory is passed.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) }).map(|_| ())
    };
    // SAFETY: `ask` makes one system call and allocates nothing, which is sound between fork and
    // exec.
    unsafe { command.pre_exec(ask) };
}

pub(crate) fn terminate(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(pid, libc::SIGTERM) }).map(|_| ())
}

/// Closing this socket sends a reset instead of an end.
pub(crate) fn reset_at_close(fd: RawFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = libc::socklen_t::try_from(size_of::<libc::linger>()).map_err(io::Error::other)?;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_LINGER);
    // SAFETY: `linger` lives across the call and has the length that is given; the kernel copies it.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const linger).cast(), length) };
    check(result).map(|_| ())
}
