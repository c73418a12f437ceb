//! The kernel over one io_uring, in whose wait the worker parks. [unsafe island]
//!
//! Owns the ring. Does not read or accept by it: reading, accepting and batches of one or two sends are ordinary system
//! calls, because the ring costs more than it saves there. `Uring` has the requests, and the versions of Linux.
//!
//! Limits: `limits::RING_ENTRIES` submissions; `limits::RING_COMPLETIONS_LARGE` completions, or
//! `limits::RING_COMPLETIONS` where locked memory is short. A full submission queue is submitted at once.
//! `early_events` has completions that were taken out before `reap`, to make room in the ring; a watch that ended has
//! one, and is not armed again before `reap`. Cost: an entry of the submission queue for each request, and one system
//! call for all that wait; one for a batch of up to 64 sends.
#![allow(
    unsafe_code,
    reason = "requests of the ring refer to memory and descriptors by raw values"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, types};

use super::{OWN_KINDS, PARK_MS_MAX, pack, pack_parts};
use crate::limits;
use crate::mailbox::Doorbell;
use crate::tick::kernel::{Accepted, Kernel, KernelEvent, Received, Send, Sent, Token, Watched};
use crate::tls::TlsChannel;
use crate::worker::time::Clock;
use completion::{Completion, SENT};

/// Kinds of requests beside `SENT` that cause no report: see `pack`.
const CANCEL: u64 = OWN_KINDS + 1;
const NO_OP: u64 = OWN_KINDS + 2;

/// Requests: multishot POLL_ADD for reading (one-shot before an upgrade), one-shot POLL_ADD for writing, SEND that
/// never waits, ASYNC_CANCEL. What is pushed waits in the submission queue for the next `submit`, `park` or batch of
/// sends.
///
/// Kernel floor: Linux 5.19. NODROP is of 5.5, EXT_ARG of 5.11, multishot POLL_ADD of 5.13, CQE_SKIP_SUCCESS of 5.17,
/// SUBMIT_ALL of 5.18, COOP_TASKRUN with TASKRUN_FLAG and the cancellation of all requests of one token of 5.19.
/// SINGLE_ISSUER (6.0) and DEFER_TASKRUN (6.1) are used where the kernel has both, NO_IOWAIT where it has it (6.15).
/// System calls: io_uring_setup, io_uring_enter and mmap; io_uring_register is not used.
///
/// With DEFER_TASKRUN the kernel posts completions only inside `io_uring_enter` with GETEVENTS, about 20 a call. With
/// it the ring also belongs to the thread that created it. No thread may poll its descriptor: Linux 6.18 loses wake-ups
/// then.
pub struct Uring {
    ring: IoUring,
    /// Completions that were taken out of the ring before `reap`, to make room in it.
    early_events: Vec<KernelEvent>,
    clock: Clock,
    /// The kernel has lost completions since the last `reap`.
    has_lost_completions: bool,
    /// Completions that the kernel has dropped so far, as it counts them.
    dropped_count: u32,
    /// Flags of a call that waits. Without NO_IOWAIT the kernel counts an idle worker as one that waits for a disk.
    wait_flags: EnterFlags,
    /// Errors that the next calls of the kernel are to return.
    #[cfg(test)]
    faults: std::collections::VecDeque<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Does not wait, and fetches nothing.
    Submit,
    /// Does not wait, and fetches due completions.
    Look,
    /// Waits for a completion, for this many milliseconds at most.
    For(u64),
    Forever,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EnterOutcome {
    Done,
    /// Completions have to be taken out first.
    Full,
    /// The kernel has no memory for requests now.
    NoMemory,
}

/// Tries of a submission that finds no memory in the kernel, before the next tick tries again.
const TRIES: u32 = 8;
/// Tries with a pause of 1 ms where the worker cannot continue without: one second. A kernel without 256 bytes for that
/// long cannot serve anyway.
const TRIES_MAX: u32 = 1_000;
const PAUSE_MS: u64 = 1;
/// Calls in one `park` that fetch due completions. Newer kernels post about 20 a call, so these fetch half of a small
/// ring, also into a large one. What is due belongs in one tick, so that each connection is sent to once. More than
/// that comes in the next tick.
const LOOKS_MAX: u32 = limits::RING_COMPLETIONS / 2 / 20;

impl Uring {
    fn watch_input(&mut self, descriptor: BorrowedFd<'_>, token: Token, is_multishot: bool) {
        let mask = u32::try_from(libc::POLLIN | libc::POLLRDHUP).unwrap_or_default();
        let poll =
            opcode::PollAdd::new(types::Fd(descriptor.as_raw_fd()), mask).multi(is_multishot);
        self.push(&poll.build().user_data(pack(token)));
    }

    fn push(&mut self, entry: &Entry) {
        for attempt in 0.. {
            // SAFETY: the entries pushed through here carry no pointers: polls, their cancellation, and no-ops.
            let pushed = unsafe { self.ring.submission().push(entry) };
            if pushed.is_ok() {
                return;
            }
            self.submit_or_wait(attempt);
            if self.ring.submission().is_full() {
                // The kernel accepts no submissions while completions overflow.
                self.drain_completions();
            }
        }
    }

    /// Enters the kernel, and sorts its errors by what the caller has to do.
    ///
    /// Possible errors: EINTR and ETIME; EBUSY (completions overflow); EAGAIN and ENOMEM (no memory for a request);
    /// EBADR (a completion found no room and no memory: it is lost). Other errors mean that the ring or an entry is
    /// malformed, which no input can cause. That is a broken invariant and ends the process.
    fn enter(&mut self, submits: bool, wait: Wait) -> EnterOutcome {
        loop {
            let Err(error) = self.call(submits, wait) else { return EnterOutcome::Done };
            match error.raw_os_error() {
                Some(libc::EINTR) if matches!(wait, Wait::Submit | Wait::Look) => {}
                Some(libc::EINTR | libc::ETIME) => return EnterOutcome::Done,
                Some(libc::EBUSY) => return EnterOutcome::Full,
                Some(libc::EAGAIN | libc::ENOMEM) => return EnterOutcome::NoMemory,
                Some(libc::EBADR) => {
                    self.has_lost_completions = true;
                    return EnterOutcome::Done;
                }
                _ => panic!("io_uring_enter failed on a ring that worked before: {error}"),
            }
        }
    }

    fn call(&mut self, submits: bool, wait: Wait) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(fault) = self.faults.pop_front() {
            return Err(io::Error::from_raw_os_error(fault));
        }
        let queued = if submits { self.ring.submission().len() } else { 0 };
        let queued = u32::try_from(queued).unwrap_or(u32::MAX);
        let (wanted, flags) = match wait {
            Wait::Submit => (0, EnterFlags::empty()),
            Wait::Look => (0, EnterFlags::GETEVENTS),
            Wait::Forever => (1, self.wait_flags),
            Wait::For(milliseconds) => {
                let nanos = u32::try_from(milliseconds % 1_000 * 1_000_000).unwrap_or_default();
                let time = types::Timespec::new().sec(milliseconds / 1_000).nsec(nanos);
                let arguments = types::SubmitArgs::new().timespec(&time);
                let flags = (self.wait_flags | EnterFlags::EXT_ARG).bits();
                // SAFETY: EXT_ARG is supported (`from_ring` checks it), and with it the kernel reads `arguments`, which
                // live through the call, as what they are.
                return unsafe { self.ring.submitter().enter(queued, 1, flags, Some(&arguments)) };
            }
        };
        // SAFETY: without EXT_ARG the argument is a signal set, and there is none.
        unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, wanted, flags.bits(), None) }
    }

    /// One step of a loop that needs room in the queue. Pauses from the ninth attempt on if the kernel has no memory.
    fn submit_or_wait(&mut self, attempt: u32) {
        assert!(attempt < TRIES_MAX, "the kernel has had no memory for io_uring for a second");
        if self.enter(true, Wait::Submit) == EnterOutcome::NoMemory && attempt >= TRIES {
            pause();
        }
    }

    /// The kernel keeps completions that found no room.
    fn has_overflow(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// The kernel has completions to post when it is entered next: they found no room, or are due.
    fn has_more(&mut self) -> bool {
        let queue = self.ring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Empties the ring's completion queue. No system call.
    fn complete(&mut self, each: impl FnMut(Completion)) {
        let completions = self.ring.completion().map(|entry| Completion {
            data: entry.user_data(),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
        });
        completions.for_each(each);
        // The kernel reports a drop as EBADR only to a call that waits and submits nothing.
        let dropped = self.ring.completion().overflow();
        self.has_lost_completions |= std::mem::replace(&mut self.dropped_count, dropped) != dropped;
    }

    /// Moves all completions from the ring to `early_events`, because the kernel accepts no submission while they
    /// overflow.
    fn drain_completions(&mut self) {
        let mut early = std::mem::take(&mut self.early_events);
        self.complete(|completion| early.extend(completion.event()));
        self.early_events = early;
    }

    /// Fetches completions that are due, as long as they find room.
    fn fetch_due_completions(&mut self) {
        let room = (limits::RING_COMPLETIONS / 2) as usize;
        for _ in 0..LOOKS_MAX {
            if !self.ring.submission().taskrun() || self.ring.completion().len() > room {
                return;
            }
            self.enter(false, Wait::Look);
        }
    }

    fn push_send(&mut self, send: &Send<'_, OwnedFd>, index: u32) -> bool {
        // MSG_WAITALL: without it a short send is a silent success under SKIP_SUCCESS and its tail is lost.
        // MSG_DONTWAIT: without it the send may stay pending and go on reading the buffer.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
        let length = u32::try_from(send.bytes.len()).unwrap_or(u32::MAX);
        let entry =
            opcode::Send::new(types::Fd(send.socket.as_raw_fd()), send.bytes.as_ptr(), length)
                .flags(flags)
                .build()
                .flags(Flags::SKIP_SUCCESS)
                .user_data(pack_parts(SENT, index, 0));
        // SAFETY: with MSG_DONTWAIT the kernel is done with the bytes when the submission returns. `send_by_ring` does
        // not return before all was submitted, and its caller keeps the bytes alive until then.
        unsafe { self.ring.submission().push(&entry).is_ok() }
    }

    /// Submits all pushed sends and stores their results: the kernel completes a send that never waits within its
    /// submission. Earlier entries are submitted too.
    fn send_by_ring(&mut self, results: &mut [Sent]) {
        let mut early = std::mem::take(&mut self.early_events);
        let mut sort_completion = |completion: Completion| match completion.sent() {
            // Only sends of this batch are completed, because each batch waits here for its completions.
            Some((index, sent)) => {
                if let Some(result) = results.get_mut(index) {
                    *result = sent;
                }
            }
            None => early.extend(completion.event()),
        };
        // The entries point to the frames, so nothing else happens before the kernel has taken them all.
        let mut attempts = 0..;
        while !self.ring.submission().is_empty() {
            self.submit_or_wait(attempts.next().unwrap_or(u32::MAX));
            self.complete(&mut sort_completion);
        }
        // The kernel may still hold results of this batch that overflowed. Fetch them, because a send without a result
        // counts as complete.
        while self.has_overflow() {
            self.enter(false, Wait::Look);
            self.complete(&mut sort_completion);
        }
        self.early_events = early;
    }
}

impl Kernel for Uring {
    type Socket = OwnedFd;
    type Listener = OwnedFd;
    type Channel = TlsChannel;

    fn watch_listener(&mut self, listener: &OwnedFd, index: u32) {
        self.watch_input(listener.as_fd(), Token::Readable(Watched::Listener(index)), true);
    }

    fn unwatch_listener(&mut self, listener: &OwnedFd, index: u32) {
        self.unwatch(listener, Watched::Listener(index), false);
    }

    fn accept(&mut self, listener: &OwnedFd) -> Accepted<OwnedFd> {
        super::accept(listener)
    }

    fn watch_readable(&mut self, socket: &OwnedFd, watched: Watched) {
        self.watch_input(socket.as_fd(), Token::Readable(watched), true);
    }

    /// A cancellation costs more than a second watch: to find a poll, the kernel walks a list that has one in 256 of
    /// all polls of a large ring, and one in 32 of a small one.
    fn watch_readable_once(&mut self, socket: &OwnedFd, watched: Watched) {
        self.watch_input(socket.as_fd(), Token::Readable(watched), false);
    }

    fn watch_writable(&mut self, socket: &OwnedFd, watched: Watched) {
        let mask = u32::try_from(libc::POLLOUT).unwrap_or_default();
        let poll = opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), mask);
        self.push(&poll.build().user_data(pack(Token::Writable(watched))));
    }

    /// A pending watch keeps the file open and delays its FIN. ASYNC_CANCEL and not POLL_REMOVE: the latter fails with
    /// EALREADY while the poll's wake-up is under way, and a multishot poll that stays armed would keep the socket open
    /// without end.
    fn unwatch(&mut self, _socket: &OwnedFd, watched: Watched, writable_too: bool) {
        let tokens = [Token::Readable(watched), Token::Writable(watched)];
        for token in tokens.into_iter().take(if writable_too { 2 } else { 1 }) {
            let data = pack(token);
            let cancel = match watched {
                // After `Token::Lost` the caller arms its listeners again, whether or not their watches had ended.
                Watched::Listener(_) => {
                    opcode::AsyncCancel2::new(types::CancelBuilder::user_data(data).all()).build()
                }
                _ => opcode::AsyncCancel::new(data).build(),
            };
            let cancel = cancel.flags(Flags::SKIP_SUCCESS);
            self.push(&cancel.user_data(pack_parts(CANCEL, 0, 0)));
        }
    }

    fn watch_doorbell(&mut self, doorbell: &Doorbell) {
        self.watch_input(doorbell.as_event_fd(), Token::Doorbell, true);
    }

    /// Entries that the kernel cannot accept now stay in the queue for the next call. A canceled poll keeps its file
    /// until its deferred work has run, so this also fetches completions.
    fn submit(&mut self) {
        for _ in 0..TRIES {
            if self.ring.submission().is_empty() {
                break;
            }
            match self.enter(true, Wait::Look) {
                EnterOutcome::Done => {}
                EnterOutcome::Full => self.drain_completions(),
                EnterOutcome::NoMemory => std::thread::yield_now(),
            }
        }
        self.fetch_due_completions();
    }

    fn park(&mut self, timeout_ms: Option<u64>) {
        let is_quiet = self.early_events.is_empty()
            && !self.has_lost_completions
            && self.ring.completion().is_empty();
        let wait = match timeout_ms {
            Some(milliseconds) if is_quiet && milliseconds > 0 => {
                Wait::For(milliseconds.min(PARK_MS_MAX))
            }
            None if is_quiet => Wait::Forever,
            _ => Wait::Look,
        };
        if wait == Wait::Look && self.ring.submission().is_empty() && !self.has_more() {
            return;
        }
        match self.enter(true, wait) {
            EnterOutcome::Done => {}
            EnterOutcome::Full => self.drain_completions(),
            // A call that cannot submit does not wait either, and returns no completions.
            EnterOutcome::NoMemory => {
                let wait = if wait == Wait::Look { wait } else { Wait::For(PAUSE_MS) };
                self.enter(false, wait);
            }
        }
        self.fetch_due_completions();
    }

    fn reap(&mut self, events: &mut Vec<KernelEvent>) {
        events.append(&mut self.early_events);
        self.complete(|completion| events.extend(completion.event()));
        if std::mem::take(&mut self.has_lost_completions) {
            events.push(KernelEvent {
                token: Token::Lost,
                is_armed: false,
                has_end: false,
                has_failed: false,
            });
        }
    }

    /// Larger batches take one system call for as many sends as the queue has room for.
    fn send_all<'a>(
        &mut self,
        mut sends: impl Iterator<Item = Send<'a, OwnedFd>>,
        results: &mut Vec<Sent>,
    ) {
        results.clear();
        let (first, second, third) = (sends.next(), sends.next(), sends.next());
        let Some(third) = third else {
            let few = first.iter().chain(second.iter());
            return results.extend(few.map(super::send));
        };
        for send in first.into_iter().chain(second).chain([third]).chain(sends) {
            let index = u32::try_from(results.len()).unwrap_or(u32::MAX);
            let is_pushed = self.push_send(&send, index) || {
                self.send_by_ring(results);
                self.push_send(&send, index)
            };
            debug_assert!(is_pushed, "`send_by_ring` returns with an empty queue");
            results.push(if is_pushed { Sent::Whole } else { Sent::Part(0) });
        }
        self.send_by_ring(results);
        if self.has_lost_completions {
            // It is unknown which sends were cut short; `reap` reports the loss, which ends all connections.
            results.fill(Sent::Failed);
        }
    }

    fn receive(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Received {
        super::receive(socket, buffer)
    }

    fn shut_down(&mut self, socket: &OwnedFd) -> bool {
        super::shut_down(socket)
    }

    fn stamp(&self) -> u64 {
        self.clock.stamp()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the worker cannot go on, and spinning does not help"
)]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(PAUSE_MS));
}

mod completion;
mod prove;
mod setup;
#[cfg(test)]
mod tests;
