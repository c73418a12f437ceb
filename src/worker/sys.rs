//! System calls that a worker or the control thread needs and that no crate offers safely. [unsafe island]
//!
//! Owns no state, and never panics: errors are returned. One small function for each call: a descriptor table of the
//! thread's own, deferred accepts, the round trip of a socket, memory returned to the kernel, the credentials of a
//! peer, held signals, another program in this process, the state of the clock. Each block says why it is sound. All
//! other system calls go through `rustix`, `socket2` or the standard library. No limits: a call keeps nothing. Cost:
//! one system call for each function (`return_freed_memory`: as many as there is to return, some 0.1 ms).
#![allow(unsafe_code, reason = "descriptor tables, credentials and signals have no safe interface")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsRawFd;

use crate::operator_requests::RoundTrip;

/// Gives the calling thread a descriptor table of its own, with all that is open now: RLIMIT_NOFILE then counts for
/// each worker alone, and the kernel takes no reference on a file for a system call of the table's only thread.
pub(super) fn own_descriptor_table() -> io::Result<()> {
    // SAFETY: descriptors that exist now stay open in the tables of both sides, and none that is opened later goes to
    // another thread: workers exchange mail, which holds no descriptor.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }
        .map_err(io::Error::from)
}

/// The kernel reports a connection of this listener when its first bytes have arrived, and one that sends nothing after
/// about a second (TCP_DEFER_ACCEPT, tcp(7)).
pub(super) fn defer_accept(listener: &impl AsRawFd) -> io::Result<()> {
    let seconds: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&seconds)).unwrap_or_default();
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
    let value = (&raw const seconds).cast();
    // SAFETY: `value` points to an integer of that length, which lives through the call.
    match unsafe { libc::setsockopt(listener.as_raw_fd(), level, option, value, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns memory that was freed to the kernel. The allocator does so by itself only while the process allocates much,
/// so what a quiet server has freed would stay in its resident set.
pub(crate) fn return_freed_memory() {
    // SAFETY: the call takes no pointer and may come from any thread. In a process with another global allocator it
    // finds nothing to return.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// The process and user at the other end of a Unix socket, as the kernel reports them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerCredentials {
    /// 0 for a process that has no id in this PID namespace. rustix cannot represent that.
    pub(crate) process: i32,
    pub(crate) user: u32,
}

pub(crate) fn peer_credentials(
    peer: &std::os::unix::net::UnixStream,
) -> io::Result<PeerCredentials> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&found)).unwrap_or_default();
    let (value, length_at) = (std::ptr::from_mut(&mut found).cast(), &raw mut length);
    // SAFETY: `value` and `length_at` point to a `ucred` and its length, which live through the call; any bytes are a
    // valid `ucred`.
    let result = unsafe {
        libc::getsockopt(peer.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, value, length_at)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(PeerCredentials { process: found.pid, user: found.uid })
}

/// Whether a program such as an NTP client keeps the clock of this host right, as the kernel knows it.
pub(crate) fn is_clock_synchronized() -> io::Result<bool> {
    // SAFETY: `timex` has integers only, so zeros are a valid value; with `modes` 0 nothing is changed.
    let mut found: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `found` lives through the call, and no other thread has it.
    let state = unsafe { libc::adjtimex(&raw mut found) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state != libc::TIME_ERROR && found.status & libc::STA_UNSYNC == 0)
}

/// The kernel's estimate for a TCP connection (TCP_INFO, tcp(7)).
pub(super) fn round_trip(socket: &impl AsRawFd) -> io::Result<RoundTrip> {
    let mut found = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or_default();
    let (value, length_at) = (found.as_mut_ptr().cast(), &raw mut length);
    // SAFETY: `value` and `length_at` point to a `tcp_info` and its length, which live through the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, value, length_at)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a `tcp_info` has integers only, and the bytes that the kernel has not written are zero.
    let found = unsafe { found.assume_init() };
    Ok(RoundTrip { microseconds: found.tcpi_rtt, retransmissions: found.tcpi_total_retrans })
}

/// For the calling thread and the threads that it starts. A signal that arrives while all threads block it stays
/// pending, even through `replace_program`.
pub(crate) fn block_signals(signals: &[i32]) -> io::Result<()> {
    change_signal_mask(libc::SIG_BLOCK, signals)
}

/// A pending signal arrives now.
pub(crate) fn unblock_signals(signals: &[i32]) -> io::Result<()> {
    change_signal_mask(libc::SIG_UNBLOCK, signals)
}

fn change_signal_mask(how: i32, signals: &[i32]) -> io::Result<()> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: it initializes the set that it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `sigemptyset` has initialized it.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: the set is a valid one; a number that is no signal is refused.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    // SAFETY: the set lives through the call, and the old one is not asked for.
    match unsafe { libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Executes another program in this process, with its environment and its blocked signals. Returns only if that fails.
/// `std::os::unix::process::CommandExt::exec` would unblock the signals.
pub(crate) fn replace_program(path: &CStr, arguments: &[CString]) -> io::Error {
    let mut pointers: Vec<*const libc::c_char> =
        arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: all strings end in a zero byte, the list ends in a null pointer, and both live through the call.
    unsafe { libc::execv(path.as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}
