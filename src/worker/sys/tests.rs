//! The raw ring against the real kernel, and with errors that the kernel returns when it has no memory.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn tokens_survive(slot in 0..=SLOT_MAX, generation: u32) {
        let key = ConnectionKey { slot, generation };
        let ours = [Token::Doorbell, Token::Again, Token::Cancel, Token::Lost, Token::Sent(slot)];
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

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = rustix::net::SocketFlags::NONBLOCK;
    let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
    rustix::net::socketpair(family, kind, flags, None).unwrap()
}

fn tokens(ring: &mut Ring) -> Vec<Token> {
    let mut events = Vec::new();
    ring.reap(&mut events);
    events.into_iter().map(|event| event.token).collect()
}

/// The kernel has no memory for requests: the worker is not stuck in this tick, and the next one submits.
#[test]
fn without_memory_for_requests_a_submission_waits_for_the_next_tick() {
    let (mut ring, counters) = tiny_ring(1);
    add(&counters[0]);
    watch(&mut ring, &counters[0], 0);
    ring.faults.extend([libc::EAGAIN; 100]);
    ring.submit();
    assert!(ring.faults.len() > 50, "{} tries in one tick", 100 - ring.faults.len());
    assert!(!ring.uring.submission().is_empty());
    ring.faults.clear();
    ring.submit();
    assert!(ring.uring.submission().is_empty());
    assert!(!tokens(&mut ring).is_empty());
}

/// A send must not be left behind in the queue: its frame may be gone in the next tick.
#[test]
fn sends_wait_for_memory_and_are_all_made() {
    let mut ring = Ring::with_sizes(Clock::start(), 8, 8).unwrap();
    let (ours, theirs) = pair();
    let (mut results, mut events) = (Vec::new(), Vec::new());
    ring.faults.extend([libc::EAGAIN; 30]);
    ring.faults.extend([libc::EINTR, libc::EBUSY, libc::EAGAIN]);
    let sends = (0..4).map(|_| Send { socket: &ours, bytes: b"four" });
    ring.send_all(sends, &mut results, &mut events);
    assert_eq!(results, [Sent::Whole; 4]);
    assert_eq!(rustix::io::read(&theirs, &mut [0; 64][..]), Ok(16));
}

/// Where a control group is out of memory, some kernels say ENOMEM and not EAGAIN.
#[test]
fn requests_wait_for_memory_whichever_error_the_kernel_returns() {
    let mut ring = Ring::with_sizes(Clock::start(), 8, 8).unwrap();
    let (ours, theirs) = pair();
    let (mut results, mut events) = (Vec::new(), Vec::new());
    ring.faults.extend([libc::ENOMEM; 5]);
    ring.send_all([Send { socket: &ours, bytes: b"four" }].into_iter(), &mut results, &mut events);
    assert_eq!(results, [Sent::Whole]);
    assert_eq!(rustix::io::read(&theirs, &mut [0; 64][..]), Ok(4));
}

/// An answer to no send of this batch changes none of its results.
#[test]
fn an_answer_to_an_unknown_send_is_ignored() {
    let mut ring = Ring::with_sizes(Clock::start(), 8, 8).unwrap();
    let (ours, _theirs) = pair();
    let (mut results, mut events) = (Vec::new(), Vec::new());
    ring.push(&opcode::Nop::new().build().user_data(pack(Token::Sent(7))));
    ring.submit();
    let sends = (0..2).map(|_| Send { socket: &ours, bytes: b"four" });
    ring.send_all(sends, &mut results, &mut events);
    assert_eq!(results, [Sent::Whole; 2]);
}

#[test]
fn lost_completions_are_reported_once_and_no_send_is_taken_for_whole() {
    let mut ring = Ring::with_sizes(Clock::start(), 8, 8).unwrap();
    let (ours, _theirs) = pair();
    let (mut results, mut events) = (Vec::new(), Vec::new());
    ring.faults.push_back(libc::EBADR);
    let sends = (0..2).map(|_| Send { socket: &ours, bytes: b"four" });
    ring.send_all(sends, &mut results, &mut events);
    assert_eq!(results, [Sent::Failed; 2]);
    assert_eq!(tokens(&mut ring), [Token::Lost]);
    assert_eq!(tokens(&mut ring), []);
    // The kernel only counts, where nobody waits.
    ring.dropped = 7;
    ring.request_again();
    ring.submit();
    assert_eq!(tokens(&mut ring), [Token::Again, Token::Lost]);
}
