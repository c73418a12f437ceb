//! The raw ring and descriptors of a worker. [unsafe island]
//!
//! A second io_uring beside monoio's, set up with COOP_TASKRUN: its descriptor is watched from a monoio task.
//! (The descriptor of a DEFER_TASKRUN ring must not be polled: Linux 6.18 loses wake-ups.) Knows no shard and
//! no protocol. Three operations: multishot POLL_ADD for reading, one-shot POLL_ADD for writing, SEND that
//! never waits.
#![allow(unsafe_code, reason = "the raw ring and raw descriptors are the crate's unsafe island")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

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

/// A token as user_data: kind in the top 4 bits, then slot, then generation.
fn pack(token: Token) -> u64 {
    let (kind, slot, generation) = match token {
        Token::Readable(key) => (0, key.slot, key.generation),
        Token::Writable(key) => (1, key.slot, key.generation),
        Token::Sent(index) => (2, index, 0),
        Token::Doorbell => (3, 0, 0),
        Token::Again => (4, 0, 0),
        Token::Cancel => (5, 0, 0),
    };
    assert!(slot <= SLOT_MAX, "a worker has fewer than 2^28 sockets");
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
        _ => Token::Cancel,
    }
}

pub(super) struct Ring {
    uring: IoUring,
    /// Completions taken out early, to make room for submissions.
    early: Vec<Event>,
    clock: Clock,
}

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
        Ok(Self { uring, early: Vec::new(), clock })
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
        loop {
            // SAFETY: the entries pushed through here carry no pointers: polls, their cancellation, and no-ops.
            let pushed = unsafe { self.uring.submission().push(entry) };
            if pushed.is_ok() {
                return;
            }
            self.submit();
            if self.uring.submission().is_full() {
                // The kernel takes nothing while completions overflow.
                let mut early = std::mem::take(&mut self.early);
                self.reap(&mut early);
                self.early = early;
            }
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
            let _ = self.uring.submitter().submit_and_wait(0);
        }
        self.uring.completion().for_each(|entry| {
            each(Completion {
                token: unpack(entry.user_data()),
                result: entry.result(),
                more: cqueue::more(entry.flags()),
            });
        });
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

    /// Errors other than "later" cannot be mended and end the process.
    fn submit(&mut self) {
        loop {
            if self.uring.submission().is_empty() {
                return;
            }
            match self.uring.submit() {
                Ok(_) => {}
                // Too many completions wait: what is submitted stays in the queue, and the next tick reaps.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                    std::thread::yield_now()
                }
                Err(error) => panic!("io_uring_enter failed on a ring that worked before: {error}"),
            }
        }
    }

    fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    fn reap(&mut self, events: &mut Vec<Event>) {
        events.append(&mut self.early);
        self.complete(|completion| events.push(completion.event()));
    }

    /// One system call for the whole batch.
    fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = Send<'a, OwnedFd>>,
        results: &mut Vec<Sent>,
        events: &mut Vec<Event>,
    ) {
        // What was pushed before goes first: from here on the queue holds nothing but this batch.
        self.submit();
        results.clear();
        for (send, index) in sends.zip(0_u32..) {
            results.push(Sent::Whole);
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
            assert!(pushed.is_ok(), "the queue was empty and holds a batch");
        }
        let mut sort = |completion: Completion| match completion.token {
            Token::Sent(index) => results[index as usize] = completion.sent(),
            _ => events.push(completion.event()),
        };
        while !self.uring.submission().is_empty() {
            self.submit();
            self.complete(&mut sort);
        }
        self.complete(&mut sort);
        // A result that found no room is behind others in the kernel, and a result not seen is a send taken for whole.
        while self.overflows() {
            self.complete(&mut sort);
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

/// Borrows the descriptor of something that owns one.
pub(super) fn borrow<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    // SAFETY: `owner` is a monoio stream or listener, which keeps its descriptor open as long as it lives.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

/// Takes the descriptor out of a stream.
///
/// # Panics
/// In monoio, when an operation on the stream is in flight or was cancelled since the runtime parked last.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tokens_survive(slot in 0..=SLOT_MAX, generation: u32) {
            let key = ConnectionKey { slot, generation };
            let ours = [Token::Doorbell, Token::Again, Token::Cancel, Token::Sent(slot)];
            for token in ours.into_iter().chain([Token::Readable(key), Token::Writable(key)]) {
                prop_assert_eq!(unpack(pack(token)), token);
            }
        }
    }

    /// MEASUREMENTS: a full send posts nothing, a short one its count, a full queue EAGAIN, a closed peer its
    /// error.
    #[test]
    fn send_results() {
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::empty(),
            None,
        )
        .unwrap();
        let mut ring = Ring::new(Clock::start()).unwrap();
        let (mut results, mut events) = (Vec::new(), Vec::new());
        let big = vec![7; 8 << 20];
        let mut send = |bytes: &[u8], ring: &mut Ring| {
            let sends = [Send { socket: &ours, bytes }];
            ring.send_all(sends.into_iter(), &mut results, &mut events);
            results[0]
        };
        assert_eq!(send(b"hello", &mut ring), Sent::Whole);
        let short = send(&big, &mut ring);
        assert!(matches!(short, Sent::Part(count) if count > 0 && count < 8 << 20), "{short:?}");
        assert_eq!(send(b"x", &mut ring), Sent::Part(0));
        drop(theirs);
        assert_eq!(send(b"x", &mut ring), Sent::Failed);
        assert!(events.is_empty());
    }

    /// Event counters, and a tiny ring that watches them.
    fn tiny_ring(count: u32) -> (Ring, Vec<OwnedFd>) {
        let mut ring = Ring::with_sizes(Clock::start(), 8, 8).unwrap();
        let flags = rustix::event::EventfdFlags::NONBLOCK;
        let counters: Vec<OwnedFd> =
            (0..count).map(|_| rustix::event::eventfd(0, flags).unwrap()).collect();
        for (counter, slot) in counters.iter().zip(0..) {
            watch(&mut ring, counter, slot);
        }
        ring.submit();
        (ring, counters)
    }

    fn watch(ring: &mut Ring, counter: &OwnedFd, slot: u32) {
        let key = ConnectionKey { slot, generation: 1 };
        ring.watch_readable(counter, key);
    }

    fn add(counter: &OwnedFd) {
        rustix::io::write(counter, &1_u64.to_ne_bytes()).unwrap();
    }

    /// Deals with completions as the reactor does, until there are none.
    fn deal(ring: &mut Ring, counters: &[OwnedFd], mut events: Vec<Event>) -> Vec<u32> {
        let mut seen = vec![0; counters.len()];
        for _ in 0..1_000 {
            ring.reap(&mut events);
            if events.is_empty() {
                return seen;
            }
            for event in events.drain(..) {
                assert!(!event.failed, "{event:?}");
                let Token::Readable(key) = event.token else { continue };
                let counter = &counters[key.slot as usize];
                if rustix::io::read(counter, &mut [0; 8][..]).is_ok() {
                    seen[key.slot as usize] += 1;
                }
                if !event.more {
                    watch(ring, counter, key.slot);
                }
            }
            ring.submit();
        }
        panic!("completions without end");
    }

    /// Eight completions have room and 200 come, over and over: each counter is reported, and reported again.
    #[test]
    fn a_completion_queue_that_overflows_loses_nothing() {
        let (mut ring, counters) = tiny_ring(200);
        let mut overflowed = false;
        for round in 0..20 {
            counters.iter().for_each(add);
            // The kernel posts when the thread enters it.
            ring.request_again();
            ring.submit();
            overflowed |= ring.uring.submission().cq_overflow();
            assert_eq!(deal(&mut ring, &counters, Vec::new()), vec![1; 200], "round {round}");
        }
        assert!(overflowed, "the queue was never too small: the test shows nothing");
    }

    /// Sends in the middle of such a burst: their results are right, and the watches' completions wait outside.
    #[test]
    fn sends_while_completions_overflow() {
        let (mut ring, counters) = tiny_ring(100);
        let flags = rustix::net::SocketFlags::NONBLOCK;
        let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
        let (ours, theirs) = rustix::net::socketpair(family, kind, flags, None).unwrap();
        let (closed, _) = rustix::net::socketpair(family, kind, flags, None).unwrap();
        let (mut results, mut events) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            counters.iter().for_each(add);
            let sockets = [&ours, &closed, &ours, &closed, &ours, &closed, &ours];
            let sends = sockets.into_iter().map(|socket| Send { socket, bytes: b"four" });
            ring.send_all(sends, &mut results, &mut events);
            let (whole, failed) = (Sent::Whole, Sent::Failed);
            assert_eq!(results, [whole, failed, whole, failed, whole, failed, whole]);
            assert_eq!(rustix::io::read(&theirs, &mut [0; 64][..]), Ok(16));
            let seen = deal(&mut ring, &counters, std::mem::take(&mut events));
            assert_eq!(seen, vec![1; 100]);
        }
    }

    /// A descriptor that cannot be watched is reported as such, and not as one that is readable.
    #[test]
    fn a_watch_that_fails_says_so() {
        let mut ring = Ring::with_sizes(Clock::start(), 8, 8).unwrap();
        let key = ConnectionKey { slot: 0, generation: 1 };
        let nobody = types::Fd(RawFd::MAX);
        let poll = opcode::PollAdd::new(nobody, 1).multi(true);
        ring.push(&poll.build().user_data(pack(Token::Readable(key))));
        ring.submit();
        let mut events = Vec::new();
        ring.reap(&mut events);
        assert!(events.len() == 1 && events[0].failed && !events[0].end, "{events:?}");
    }
}
