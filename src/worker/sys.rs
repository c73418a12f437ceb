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

use crate::limits;
use crate::shard::ConnectionKey;

/// What a completion belongs to, packed into its user_data: kind in the top 4 bits, then slot, then
/// generation. The generation tells a completion that arrives after its slot was used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Readable(ConnectionKey),
    Writable(ConnectionKey),
    /// A send, by its place in the batch.
    Sent(u32),
    Doorbell,
    /// Wakes this worker for another tick, after monoio had its turn.
    Again,
    Cancel,
}

const SLOT_MAX: u32 = (1 << 28) - 1;

impl Token {
    fn pack(self) -> u64 {
        let (kind, slot, generation) = match self {
            Self::Readable(key) => (0, key.slot, key.generation),
            Self::Writable(key) => (1, key.slot, key.generation),
            Self::Sent(index) => (2, index, 0),
            Self::Doorbell => (3, 0, 0),
            Self::Again => (4, 0, 0),
            Self::Cancel => (5, 0, 0),
        };
        assert!(slot <= SLOT_MAX, "a worker has fewer than 2^28 sockets");
        kind << 60 | u64::from(slot) << 32 | u64::from(generation)
    }

    #[expect(clippy::cast_possible_truncation, reason = "unpacks what `pack` put there")]
    fn unpack(data: u64) -> Self {
        let slot = (data >> 32) as u32 & SLOT_MAX;
        let key = ConnectionKey { slot, generation: data as u32 };
        match data >> 60 {
            0 => Self::Readable(key),
            1 => Self::Writable(key),
            2 => Self::Sent(slot),
            3 => Self::Doorbell,
            4 => Self::Again,
            _ => Self::Cancel,
        }
    }
}

/// One completion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) token: Token,
    pub(super) result: i32,
    /// A multishot request goes on; without it the watch must be armed anew. The kernel ends one when there is no
    /// room for its completion, so after a burst any of them may have ended.
    pub(super) more: bool,
}

impl Event {
    /// A poll saw the peer's end, or an error.
    pub(super) fn says_end(self) -> bool {
        self.result > 0
            && self.result & i32::from(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
    }

    /// The kernel could not watch, for want of memory.
    pub(super) fn is_failure(self) -> bool {
        self.result < 0
    }
}

/// One send of a batch.
pub(super) struct Send<'a> {
    pub(super) socket: BorrowedFd<'a>,
    pub(super) bytes: &'a [u8],
}

/// A send that the kernel took whole: no completion came.
pub(super) const SENT_WHOLE: i32 = i32::MAX;

pub(super) struct Ring {
    uring: IoUring,
    /// Completions taken out early, to make room for submissions.
    early: Vec<Event>,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        Self::with_sizes(limits::RING_ENTRIES, limits::RING_COMPLETIONS)
    }

    fn with_sizes(entries: u32, completions: u32) -> io::Result<Self> {
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
        Ok(Self { uring, early: Vec::new() })
    }

    /// Readable while completions wait.
    pub(super) fn duplicate_fd(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring's descriptor is open as long as `self`, and the borrow ends before this function does.
        let ring = unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) };
        ring.try_clone_to_owned()
    }

    /// Reports each time the socket becomes readable, until `unwatch`.
    pub(super) fn watch_readable(&mut self, socket: BorrowedFd<'_>, token: Token) {
        let mask = u32::try_from(libc::POLLIN | libc::POLLRDHUP).unwrap_or_default();
        let poll = opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), mask).multi(true);
        self.push(&poll.build().user_data(token.pack()));
    }

    /// Reports once that the socket is writable.
    pub(super) fn watch_writable(&mut self, socket: BorrowedFd<'_>, key: ConnectionKey) {
        let mask = u32::try_from(libc::POLLOUT).unwrap_or_default();
        let poll = opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), mask);
        self.push(&poll.build().user_data(Token::Writable(key).pack()));
    }

    /// Ends the watches of a socket. Needed before it is closed: a pending watch holds the file and delays its FIN.
    /// ASYNC_CANCEL and not POLL_REMOVE: the latter fails with EALREADY while the poll's wake-up is on its way, and
    /// a multishot poll that stays armed would keep the socket open for ever.
    pub(super) fn unwatch(&mut self, key: ConnectionKey, writable_too: bool) {
        let tokens = [Token::Readable(key), Token::Writable(key)];
        for token in tokens.into_iter().take(if writable_too { 2 } else { 1 }) {
            let cancel = opcode::AsyncCancel::new(token.pack()).build();
            self.push(&cancel.flags(Flags::SKIP_SUCCESS).user_data(Token::Cancel.pack()));
        }
    }

    /// Makes the ring readable again, so that another tick follows.
    pub(super) fn request_again(&mut self) {
        self.push(&opcode::Nop::new().build().user_data(Token::Again.pack()));
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

    /// Hands what was pushed to the kernel. Errors other than "later" cannot be mended and end the process.
    pub(super) fn submit(&mut self) {
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

    /// Completions wait here and not in the ring, which is thus not readable for them.
    pub(super) fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Moves all completions to `events`.
    pub(super) fn reap(&mut self, events: &mut Vec<Event>) {
        events.append(&mut self.early);
        if self.uring.submission().cq_overflow() {
            // The kernel holds completions back that found no room: entering brings them.
            let _ = self.uring.submitter().submit_and_wait(0);
        }
        events.extend(self.uring.completion().map(|entry| Event {
            token: Token::unpack(entry.user_data()),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
        }));
    }

    /// Sends a batch of at most `SENDS_PER_SUBMIT` with one system call. `results` gets one entry per send:
    /// `SENT_WHOLE`, a short count, or a negative errno. Other completions that come meanwhile go to `events`.
    pub(super) fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = Send<'a>>,
        results: &mut Vec<i32>,
        events: &mut Vec<Event>,
    ) {
        // What was pushed before goes first: from here on the queue holds nothing but this batch.
        self.submit();
        results.clear();
        for (send, index) in sends.zip(0_u32..) {
            results.push(SENT_WHOLE);
            // MSG_WAITALL: without it a short send is a silent success under SKIP_SUCCESS and its tail is lost.
            // MSG_DONTWAIT: without it the send may stay pending and go on reading the buffer.
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
            let length = u32::try_from(send.bytes.len()).unwrap_or(u32::MAX);
            let entry =
                opcode::Send::new(types::Fd(send.socket.as_raw_fd()), send.bytes.as_ptr(), length)
                    .flags(flags)
                    .build()
                    .flags(Flags::SKIP_SUCCESS)
                    .user_data(Token::Sent(index).pack());
            // SAFETY: with MSG_DONTWAIT the kernel is done with the bytes when the submission returns, and the
            // loop below does not leave this function, within which `'a` keeps them alive, before all was
            // submitted.
            let pushed = unsafe { self.uring.submission().push(&entry) };
            assert!(pushed.is_ok(), "the queue was empty and holds a batch");
        }
        let first = events.len();
        while !self.uring.submission().is_empty() {
            self.submit();
            self.reap(events);
        }
        self.reap(events);
        // A result that found no room is behind others in the kernel, and a result not seen is a send taken for whole.
        while self.uring.submission().cq_overflow() {
            self.reap(events);
        }
        events.retain_from(first, |event| match event.token {
            Token::Sent(index) => {
                results[index as usize] = event.result;
                false
            }
            _ => true,
        });
    }
}

/// `Vec::retain` for the tail of a vector.
trait RetainFrom<T> {
    fn retain_from(&mut self, first: usize, keep: impl FnMut(&T) -> bool);
}

impl<T> RetainFrom<T> for Vec<T> {
    fn retain_from(&mut self, first: usize, mut keep: impl FnMut(&T) -> bool) {
        let mut index = 0;
        self.retain(|item| {
            index += 1;
            index <= first || keep(item)
        });
    }
}

/// Borrows the descriptor of something that owns one.
pub(super) fn borrow<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    // SAFETY: `owner` is a monoio stream or listener, which keeps its descriptor open as long as it lives.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

/// Takes the descriptor out of a stream.
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
                prop_assert_eq!(Token::unpack(token.pack()), token);
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
        let mut ring = Ring::new().unwrap();
        let (mut results, mut events) = (Vec::new(), Vec::new());
        let big = vec![7; 8 << 20];
        let mut send = |bytes: &[u8], ring: &mut Ring| {
            let sends = [Send { socket: std::os::fd::AsFd::as_fd(&ours), bytes }];
            ring.send_all(sends.into_iter(), &mut results, &mut events);
            results[0]
        };
        assert_eq!(send(b"hello", &mut ring), SENT_WHOLE);
        let short = send(&big, &mut ring);
        assert!(short > 0 && short < 8 << 20, "{short}");
        assert_eq!(send(b"x", &mut ring), -libc::EAGAIN);
        drop(theirs);
        assert_eq!(send(b"x", &mut ring), -libc::EPIPE);
        assert!(events.is_empty());
    }

    /// Event counters, and a tiny ring that watches them.
    fn tiny_ring(count: u32) -> (Ring, Vec<OwnedFd>) {
        let mut ring = Ring::with_sizes(8, 8).unwrap();
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
        ring.watch_readable(std::os::fd::AsFd::as_fd(counter), Token::Readable(key));
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
                assert!(!event.is_failure(), "{event:?}");
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
            let sends = sockets
                .into_iter()
                .map(|socket| Send { socket: std::os::fd::AsFd::as_fd(socket), bytes: b"four" });
            ring.send_all(sends, &mut results, &mut events);
            let failed = -libc::EPIPE;
            assert_eq!(
                results,
                [SENT_WHOLE, failed, SENT_WHOLE, failed, SENT_WHOLE, failed, SENT_WHOLE]
            );
            assert_eq!(rustix::io::read(&theirs, &mut [0; 64][..]), Ok(16));
            let seen = deal(&mut ring, &counters, std::mem::take(&mut events));
            assert_eq!(seen, vec![1; 100]);
        }
    }

    /// A descriptor that cannot be watched is reported as such, and not as one that is readable.
    #[test]
    fn a_watch_that_fails_says_so() {
        let mut ring = Ring::with_sizes(8, 8).unwrap();
        let key = ConnectionKey { slot: 0, generation: 1 };
        let nobody = types::Fd(RawFd::MAX);
        let poll = opcode::PollAdd::new(nobody, 1).multi(true);
        ring.push(&poll.build().user_data(Token::Readable(key).pack()));
        ring.submit();
        let mut events = Vec::new();
        ring.reap(&mut events);
        assert!(events.len() == 1 && events[0].is_failure() && !events[0].says_end(), "{events:?}");
    }
}
