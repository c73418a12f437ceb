//! The raw ring and descriptors of a worker. [unsafe island]
//!
//! A second io_uring beside monoio's, set up with COOP_TASKRUN: its descriptor is watched from a monoio task.
//! (The descriptor of a DEFER_TASKRUN ring must not be polled: Linux 6.18 loses wake-ups.) Knows no shard and
//! no protocol. Three operations: multishot POLL_ADD for reading, one-shot POLL_ADD for writing, SEND that
//! never waits.
#![allow(unsafe_code, reason = "the raw ring and raw descriptors are the crate's unsafe island")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, cqueue, opcode, types};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::time::Clock;
use crate::limits;
use crate::mailbox::Doorbell;
use crate::shard::ConnectionKey;
use crate::tick::kernel::{Event, Kernel, Received, Send, Sent, Token};
use crate::tick::socket_bytes;

const _: () = assert!(socket_bytes::<OwnedFd>() <= 16, "part of an idle connection's budget");

const SLOT_MAX: u32 = (1 << 28) - 1;
/// `server/probe.rs` sets the limit of descriptors. Each slot in use holds one, so no slot is beyond `SLOT_MAX`.
const _: () = assert!(limits::DESCRIPTORS_MAX <= SLOT_MAX as u64);

/// A token as user_data: kind in the top 4 bits, then slot, then generation.
fn pack(token: Token) -> u64 {
    let (kind, slot, generation) = match token {
        Token::Readable(key) => (0, key.slot, key.generation),
        Token::Writable(key) => (1, key.slot, key.generation),
        Token::Sent(index) => (2, index, 0),
        Token::Doorbell => (3, 0, 0),
        Token::Again => (4, 0, 0),
        Token::Cancel => (5, 0, 0),
        // Never submitted.
        Token::Lost => (6, 0, 0),
    };
    debug_assert!(slot <= SLOT_MAX, "DESCRIPTORS_MAX keeps it below");
    kind << 60 | u64::from(slot) << 32 | u64::from(generation)
}

#[expect(clippy::cast_possible_truncation, reason = "unpacks what `pack` put there")]
fn unpack(data: u64) -> Token {
    let slot = (data >> 32) as u32 & SLOT_MAX;
    let key = ConnectionKey { slot, generation: data as u32 };
    match data >> 60 {
        0 => Token::Readable(key),
        1 => Token::Writable(key),
        2 => Token::Sent(slot),
        3 => Token::Doorbell,
        4 => Token::Again,
        5 => Token::Cancel,
        _ => Token::Lost,
    }
}

pub(super) struct Ring {
    uring: IoUring,
    /// Completions taken out early, to make room for submissions.
    early: Vec<Event>,
    clock: Clock,
    /// The kernel has lost completions since the last `reap`.
    lost: bool,
    /// Completions that the kernel has dropped so far, as it counts them.
    dropped: u32,
    /// Errors that the next calls of the kernel are to return.
    #[cfg(test)]
    faults: std::collections::VecDeque<i32>,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entered {
    Done,
    /// Completions have to be taken out first.
    Full,
    /// The kernel has no memory for requests now.
    NoMemory,
}

/// Tries of a submission that finds no memory in the kernel, before the next tick tries again.
const TRIES: u32 = 8;
/// Tries with a pause of `PAUSE`, where the worker cannot go on without: a second. The kernel that has no 256 bytes for
/// so long leaves nothing to serve with.
const TRIES_MAX: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(1);

/// One completion, as the kernel reports it.
#[derive(Clone, Copy, Debug)]
struct Completion {
    token: Token,
    result: i32,
    more: bool,
}

impl Completion {
    fn event(self) -> Event {
        let end = i32::from(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR);
        let failed = self.result < 0;
        Event { token: self.token, more: self.more, end: !failed && self.result & end != 0, failed }
    }

    fn sent(self) -> Sent {
        match usize::try_from(self.result) {
            Ok(count) => Sent::Part(count),
            Err(_) if self.result == -libc::EAGAIN => Sent::Part(0),
            Err(_) => Sent::Failed,
        }
    }
}

impl Ring {
    pub(super) fn new(clock: Clock) -> io::Result<Self> {
        Self::with_sizes(clock, limits::RING_ENTRIES, limits::RING_COMPLETIONS)
    }

    fn with_sizes(clock: Clock, entries: u32, completions: u32) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_cqsize(completions)
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(entries)?;
        // Completions that find no room wait in the kernel instead of being dropped (Linux 5.5).
        if !uring.params().is_feature_nodrop() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self {
            uring,
            early: Vec::new(),
            clock,
            lost: false,
            dropped: 0,
            #[cfg(test)]
            faults: std::collections::VecDeque::new(),
        })
    }

    /// Readable while completions wait.
    pub(super) fn duplicate_fd(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring's descriptor is open as long as `self`, and the borrow ends before this function does.
        let ring = unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) };
        ring.try_clone_to_owned()
    }

    fn watch_multi(&mut self, descriptor: RawFd, token: Token) {
        let mask = u32::try_from(libc::POLLIN | libc::POLLRDHUP).unwrap_or_default();
        let poll = opcode::PollAdd::new(types::Fd(descriptor), mask).multi(true);
        self.push(&poll.build().user_data(pack(token)));
    }

    fn push(&mut self, entry: &Entry) {
        for attempt in 0.. {
            // SAFETY: the entries pushed through here carry no pointers: polls, their cancellation, and no-ops.
            let pushed = unsafe { self.uring.submission().push(entry) };
            if pushed.is_ok() {
                return;
            }
            self.submit_or_wait(attempt);
            if self.uring.submission().is_full() {
                // The kernel takes nothing while completions overflow.
                let mut early = std::mem::take(&mut self.early);
                self.reap(&mut early);
                self.early = early;
            }
        }
    }

    /// Enters the kernel once.
    ///
    /// Reachable errors: EINTR; EBUSY (completions overflow); EAGAIN and ENOMEM (no memory for a request). EBADR (a
    /// completion found no room and no memory: it is lost) comes to who waits for completions; `complete` counts
    /// instead. Others say that the ring or an entry is malformed, which no input causes: a broken invariant, which
    /// ends the process.
    ///
    /// The same on monoio's ring: its `submit` takes completions out and tries at EAGAIN and EBUSY again, without a
    /// bound. `Op::poll_read` and the like unwrap what `submit` returns otherwise, so the errors that end the process
    /// here end it there. `block_on` ignores the errors of a wait, EBADR too. What is lost there is a task's wake-up: a
    /// session then waits for its deadline, the tick for the next second, and a listener for ever. That takes 1,024
    /// completions in one turn and a kernel without 64 bytes at that moment.
    fn enter(&mut self) -> Entered {
        loop {
            let Err(error) = self.call() else { return Entered::Done };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EBUSY) => return Entered::Full,
                Some(libc::EAGAIN | libc::ENOMEM) => return Entered::NoMemory,
                Some(libc::EBADR) => self.lost = true,
                _ => panic!("io_uring_enter failed on a ring that worked before: {error}"),
            }
        }
    }

    fn call(&mut self) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(fault) = self.faults.pop_front() {
            return Err(io::Error::from_raw_os_error(fault));
        }
        self.uring.submit()
    }

    /// One step of a loop that cannot go on before the queue has room. It gives the kernel time, but not for ever.
    fn submit_or_wait(&mut self, attempt: u32) {
        assert!(attempt < TRIES_MAX, "the kernel has had no memory for io_uring for a second");
        if self.enter() == Entered::NoMemory && attempt >= TRIES {
            pause();
        }
    }

    /// The kernel holds completions back that found no room.
    fn overflows(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }

    /// Takes all completions out of the ring.
    fn complete(&mut self, mut each: impl FnMut(Completion)) {
        if self.overflows() {
            // Entering brings them.
            self.enter();
        }
        self.uring.completion().for_each(|entry| {
            each(Completion {
                token: unpack(entry.user_data()),
                result: entry.result(),
                more: cqueue::more(entry.flags()),
            });
        });
        // The kernel reports a drop as EBADR to those who wait in it only, which this ring never does.
        let dropped = self.uring.completion().overflow();
        self.lost |= std::mem::replace(&mut self.dropped, dropped) != dropped;
    }
}

impl Kernel for Ring {
    type Socket = OwnedFd;

    fn watch_readable(&mut self, socket: &OwnedFd, key: ConnectionKey) {
        self.watch_multi(socket.as_raw_fd(), Token::Readable(key));
    }

    fn watch_doorbell(&mut self, doorbell: &Doorbell) {
        self.watch_multi(doorbell.as_event_fd().as_raw_fd(), Token::Doorbell);
    }

    fn watch_writable(&mut self, socket: &OwnedFd, key: ConnectionKey) {
        let mask = u32::try_from(libc::POLLOUT).unwrap_or_default();
        let poll = opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), mask);
        self.push(&poll.build().user_data(pack(Token::Writable(key))));
    }

    /// A pending watch holds the file and delays its FIN. ASYNC_CANCEL and not POLL_REMOVE: the latter fails with
    /// EALREADY while the poll's wake-up is on its way, and a multishot poll that stays armed would keep the socket
    /// open for ever.
    fn unwatch(&mut self, key: ConnectionKey, writable_too: bool) {
        let tokens = [Token::Readable(key), Token::Writable(key)];
        for token in tokens.into_iter().take(if writable_too { 2 } else { 1 }) {
            let cancel = opcode::AsyncCancel::new(pack(token)).build();
            self.push(&cancel.flags(Flags::SKIP_SUCCESS).user_data(pack(Token::Cancel)));
        }
    }

    /// Makes the ring readable again.
    fn request_again(&mut self) {
        self.push(&opcode::Nop::new().build().user_data(pack(Token::Again)));
    }

    /// What the kernel cannot take now stays in the queue for the next tick, which comes within a second.
    fn submit(&mut self) {
        for _ in 0..TRIES {
            if self.uring.submission().is_empty() {
                return;
            }
            match self.enter() {
                Entered::Done => {}
                Entered::Full => return,
                Entered::NoMemory => std::thread::yield_now(),
            }
        }
    }

    fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    fn reap(&mut self, events: &mut Vec<Event>) {
        events.append(&mut self.early);
        self.complete(|completion| events.push(completion.event()));
        if std::mem::take(&mut self.lost) {
            events.push(Event { token: Token::Lost, more: false, end: false, failed: false });
        }
    }

    /// One system call for the whole batch.
    fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = Send<'a, OwnedFd>>,
        results: &mut Vec<Sent>,
        events: &mut Vec<Event>,
    ) {
        // What was pushed before goes first: from here on the queue holds nothing but this batch.
        let mut attempts = 0..;
        while !self.uring.submission().is_empty() {
            self.submit_or_wait(attempts.next().unwrap_or(u32::MAX));
            let mut early = std::mem::take(&mut self.early);
            self.complete(|completion| early.push(completion.event()));
            self.early = early;
        }
        results.clear();
        for (send, index) in sends.zip(0_u32..) {
            // MSG_WAITALL: without it a short send is a silent success under SKIP_SUCCESS and its tail is lost.
            // MSG_DONTWAIT: without it the send may stay pending and go on reading the buffer.
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
            let length = u32::try_from(send.bytes.len()).unwrap_or(u32::MAX);
            let entry =
                opcode::Send::new(types::Fd(send.socket.as_raw_fd()), send.bytes.as_ptr(), length)
                    .flags(flags)
                    .build()
                    .flags(Flags::SKIP_SUCCESS)
                    .user_data(pack(Token::Sent(index)));
            // SAFETY: with MSG_DONTWAIT the kernel is done with the bytes when the submission returns, and the
            // loop below does not leave this function, within which `'a` keeps them alive, before all was
            // submitted.
            let pushed = unsafe { self.uring.submission().push(&entry) };
            // A batch has at most `SENDS_PER_SUBMIT` sends, and `limits` keeps that below `RING_ENTRIES`.
            debug_assert!(pushed.is_ok(), "the queue was empty and holds a batch");
            results.push(if pushed.is_ok() { Sent::Whole } else { Sent::Part(0) });
        }
        let mut sort = |completion: Completion| match completion.token {
            // The kernel answers sends of this batch only, because each batch waits for its answers below.
            Token::Sent(index) => {
                if let Some(result) = results.get_mut(index as usize) {
                    *result = completion.sent();
                }
            }
            _ => events.push(completion.event()),
        };
        // The entries point to the frames, so nothing else happens before the kernel has taken them all.
        let mut attempts = 0..;
        while !self.uring.submission().is_empty() {
            self.submit_or_wait(attempts.next().unwrap_or(u32::MAX));
            self.complete(&mut sort);
        }
        self.complete(&mut sort);
        // A result that found no room is behind others in the kernel, and a result not seen is a send taken for whole.
        while self.overflows() {
            self.complete(&mut sort);
        }
        if self.lost {
            // Which sends were cut short is not known; `reap` ends all connections.
            results.fill(Sent::Failed);
        }
    }

    fn receive(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Received {
        loop {
            return match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Received::Nothing,
                Ok((0, _)) | Err(_) => Received::Gone,
                Ok((count, _)) => Received::Bytes(count),
            };
        }
    }

    fn shut_down(&mut self, socket: &OwnedFd) -> bool {
        rustix::net::shutdown(socket, rustix::net::Shutdown::Write).is_ok()
    }

    fn stamp(&self) -> u64 {
        self.clock.stamp()
    }
}

#[expect(clippy::disallowed_methods, reason = "the worker cannot go on, and spinning helps nobody")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// Borrows the descriptor of something that owns one.
pub(super) fn borrow<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    // SAFETY: `owner` is a monoio stream or listener, which keeps its descriptor open as long as it lives.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

/// Takes the descriptor out of a stream.
///
/// # Panics
/// In monoio, when an operation on the stream is in flight or was cancelled since the runtime parked last. The caller
/// has to know: `Session::may_be_in_flight`.
pub(super) fn take_fd<T: IntoRawFd>(owner: T) -> OwnedFd {
    let raw: RawFd = owner.into_raw_fd();
    // SAFETY: `into_raw_fd` gives up ownership, so this is the only owner.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Gives the calling thread a descriptor table of its own, with all that is open now: RLIMIT_NOFILE then counts for
/// each worker alone, and the kernel takes no reference on a file for a system call of the table's only thread.
pub(super) fn own_descriptor_table() -> io::Result<()> {
    // SAFETY: descriptors that exist now stay open in the tables of both sides, and none that is opened later goes to
    // another thread: workers exchange mail, which holds no descriptor.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }
        .map_err(io::Error::from)
}

/// Marks a descriptor as a stream for monoio, which offers readiness on streams only.
pub(super) fn watchable(descriptor: OwnedFd) -> io::Result<monoio::net::TcpStream> {
    monoio::net::TcpStream::from_std(std::net::TcpStream::from(descriptor))
}

/// Who is at the other end of a Unix socket, by the kernel's word.
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

/// Holds these signals back, or lets them through, for the calling thread and the threads that it starts. What comes
/// in while all threads hold it back stays pending, also through `replace_program`.
pub(crate) fn hold_signals(signals: &[i32], hold: bool) -> io::Result<()> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: it initializes the set that it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `sigemptyset` has initialized it.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: the set is a valid one; a number that is no signal is refused.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    let how = if hold { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: the set lives through the call, and the old one is not asked for.
    match unsafe { libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Executes another program in this process, with the environment and the held signals of this one. Returns only if
/// that fails. `std::os::unix::process::CommandExt::exec` would let the held signals through.
pub(crate) fn replace_program(path: &CStr, arguments: &[CString]) -> io::Error {
    let mut pointers: Vec<*const libc::c_char> =
        arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: all strings end in a zero byte, the list ends in a null pointer, and both live through the call.
    unsafe { libc::execv(path.as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests;
