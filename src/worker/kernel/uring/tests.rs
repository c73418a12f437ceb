//! The ring against the real kernel, and with errors that the kernel returns when it has no memory.
//!
//! What both kernels promise is in `tests/kernels.rs`. Each test here runs with DEFER_TASKRUN and without.

use super::setup::build;
use super::*;
use crate::shard::ConnectionKey;
use crate::slot::Slot;
use crate::worker::kernel::RingSize;

const BOTH: [bool; 2] = [true, false];

fn ring(deferred: bool, entries: u32, completions: u32) -> Uring {
    Uring::from_ring(build(entries, completions, deferred).unwrap(), Clock::start()).unwrap()
}

fn tiny(deferred: bool) -> Uring {
    ring(deferred, 8, 8)
}

fn key(slot: u32) -> Watched {
    Watched::Connection(ConnectionKey { slot: Slot::new(slot), generation: 1 })
}

fn counter() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap()
}

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = rustix::net::SocketFlags::NONBLOCK;
    let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
    rustix::net::socketpair(family, kind, flags, None).unwrap()
}

fn add(counter: &OwnedFd) {
    rustix::io::write(counter, &1_u64.to_ne_bytes()).unwrap();
}

/// Event counters, and a tiny ring that watches them.
fn tiny_ring(deferred: bool, count: u32) -> (Uring, Vec<OwnedFd>) {
    let mut ring = tiny(deferred);
    let counters: Vec<OwnedFd> = (0..count).map(|_| counter()).collect();
    for (counter, slot) in counters.iter().zip(0..) {
        ring.watch_readable(counter, key(slot));
    }
    ring.submit();
    (ring, counters)
}

/// Deals with completions as the reactor does, until there are none.
fn deal(ring: &mut Uring, counters: &[OwnedFd]) -> Vec<u32> {
    let (mut seen, mut events) = (vec![0; counters.len()], Vec::new());
    for _ in 0..1_000 {
        ring.park(Some(0));
        ring.reap(&mut events);
        if events.is_empty() {
            return seen;
        }
        for event in events.drain(..) {
            assert!(!event.has_failed, "{event:?}");
            let Token::Readable(Watched::Connection(key)) = event.token else { continue };
            let counter = &counters[key.slot.index()];
            if rustix::io::read(counter, &mut [0; 8][..]).is_ok() {
                seen[key.slot.index()] += 1;
            }
            if !event.is_armed {
                ring.watch_readable(counter, Watched::Connection(key));
            }
        }
    }
    panic!("completions without end");
}

fn tokens(ring: &mut Uring) -> Vec<Token> {
    let mut events = Vec::new();
    ring.reap(&mut events);
    events.into_iter().map(|event| event.token).collect()
}

fn send_all(ring: &mut Uring, sends: &[(&OwnedFd, &[u8])]) -> Vec<Sent> {
    let mut results = vec![Sent::Failed; 3];
    let sends = sends.iter().map(|&(socket, bytes)| Send { socket, bytes });
    ring.send_all(sends, &mut results);
    results
}

/// Eight completions have room and 200 come, over and over: each counter is reported, and reported again.
#[test]
fn a_completion_queue_that_overflows_loses_nothing() {
    for deferred in BOTH {
        let (mut ring, counters) = tiny_ring(deferred, 200);
        let mut overflowed = false;
        for round in 0..20 {
            counters.iter().for_each(add);
            ring.park(None);
            overflowed |= ring.ring.submission().cq_overflow();
            assert_eq!(deal(&mut ring, &counters), vec![1; 200], "round {round}, {deferred}");
        }
        assert!(overflowed, "the queue was never too small: the test shows nothing");
    }
}

/// The queue of a worker holds what is ready, and `park` fetches it all although the kernel posts about 20 a call.
#[test]
fn one_park_returns_all_ready_reports_and_ends_no_watch() {
    let mut ring = Uring::new(Clock::start(), RingSize::Small).unwrap();
    let counters: Vec<OwnedFd> = (0..400).map(|_| counter()).collect();
    for (counter, slot) in counters.iter().zip(0..) {
        ring.watch_readable(counter, key(slot));
    }
    ring.submit();
    for _ in 0..3 {
        counters.iter().for_each(add);
        ring.park(None);
        let mut events = Vec::new();
        ring.reap(&mut events);
        assert_eq!(events.len(), 400);
        assert!(events.iter().all(|event| event.is_armed && !event.has_failed), "{events:?}");
    }
}

/// Sends in the middle of such a burst: their results are right, and the watches' completions wait outside.
#[test]
fn sends_while_completions_overflow() {
    for deferred in BOTH {
        let (mut ring, counters) = tiny_ring(deferred, 100);
        let (ours, theirs) = pair();
        let (closed, _) = pair();
        for _ in 0..20 {
            counters.iter().for_each(add);
            let sockets = [&ours, &closed, &ours, &closed, &ours, &closed, &ours];
            let sends = sockets.map(|socket| (socket, &b"four"[..]));
            let results = send_all(&mut ring, &sends);
            let (whole, failed) = (Sent::Whole, Sent::Failed);
            assert_eq!(results, [whole, failed, whole, failed, whole, failed, whole]);
            assert_eq!(rustix::io::read(&theirs, &mut [0; 64][..]), Ok(16));
            assert_eq!(deal(&mut ring, &counters), vec![1; 100]);
        }
    }
}

/// A full send posts nothing, a short one its count, a full socket EAGAIN, a closed peer its error, and all of it is
/// known when the call returns. Three sends go by the ring, and 40 do not fit its queue of eight.
#[test]
fn short_and_failed_sends_are_known_at_once_however_many_there_are() {
    let big = vec![7; 8 << 20];
    for (deferred, count) in BOTH.into_iter().flat_map(|deferred| [(deferred, 3), (deferred, 40)]) {
        let mut ring = tiny(deferred);
        let pairs: Vec<_> = (0..count).map(|_| pair()).collect();
        let mut expected = vec![Sent::Whole; count];
        let mut sends: Vec<(&OwnedFd, &[u8])> =
            pairs.iter().map(|(ours, _)| (ours, &b"hello"[..])).collect();
        assert_eq!(send_all(&mut ring, &sends), expected);
        sends[1].1 = &big;
        let short = send_all(&mut ring, &sends)[1];
        let Sent::Part(taken) = short else { panic!("{short:?}") };
        assert!(taken > 0 && taken < big.len());
        expected[1] = Sent::Part(0);
        assert_eq!(send_all(&mut ring, &sends), expected);
        let mut pairs = pairs;
        drop(pairs.swap_remove(count - 1).1);
        let (gone, _) = pair();
        let mut sends: Vec<(&OwnedFd, &[u8])> =
            pairs.iter().map(|(ours, _)| (ours, &b"x"[..])).collect();
        sends.push((&gone, b"x"));
        expected[count - 1] = Sent::Failed;
        assert_eq!(send_all(&mut ring, &sends), expected);
        assert!(tokens(&mut ring).is_empty(), "answers to sends are no reports");
    }
}

/// What was pushed before a batch goes with it.
#[test]
fn a_batch_of_sends_submits_the_watches_before_it() {
    for deferred in BOTH {
        let (mut ring, _) = tiny_ring(deferred, 0);
        let (ours, _theirs) = pair();
        let counters: Vec<OwnedFd> = (0..6).map(|_| counter()).collect();
        for (counter, slot) in counters.iter().zip(0..) {
            add(counter);
            ring.watch_readable(counter, key(slot));
        }
        let sends = [(&ours, &b"four"[..]); 5];
        assert_eq!(send_all(&mut ring, &sends), [Sent::Whole; 5]);
        assert!(ring.ring.submission().is_empty());
        assert_eq!(deal(&mut ring, &counters), vec![1; 6]);
    }
}

/// A descriptor that cannot be watched is reported as such, and not as one that is readable.
#[test]
fn a_failed_watch_is_reported() {
    for deferred in BOTH {
        let mut ring = tiny(deferred);
        let poll = opcode::PollAdd::new(types::Fd(i32::MAX), 1).multi(true);
        ring.push(&poll.build().user_data(pack(Token::Readable(key(0)))));
        ring.submit();
        let mut events = Vec::new();
        ring.reap(&mut events);
        assert!(events.len() == 1 && events[0].has_failed && !events[0].has_end, "{events:?}");
    }
}

/// Deferred work holds the files of canceled polls: `submit` runs it, so that closing ends the connections.
#[test]
fn sockets_that_are_closed_after_submit_are_closed_for_their_peers() {
    for deferred in BOTH {
        let mut ring =
            Uring::from_ring(build(128, 1024, deferred).unwrap(), Clock::start()).unwrap();
        let pairs: Vec<_> = (0..200).map(|_| pair()).collect();
        for ((ours, _), slot) in pairs.iter().zip(0..) {
            ring.watch_readable(ours, key(slot));
        }
        ring.submit();
        for ((ours, _), slot) in pairs.iter().zip(0..) {
            ring.unwatch(ours, key(slot), false);
        }
        ring.submit();
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        drop(ours);
        for peer in &theirs {
            assert_eq!(rustix::io::read(peer, &mut [0; 8][..]), Ok(0), "the end of the stream");
        }
        assert!(tokens(&mut ring).is_empty(), "a watch that was ended reports nothing");
    }
}

/// After lost completions a listener may be watched twice; both watches end.
#[test]
fn a_listener_that_is_watched_twice_can_be_unwatched() {
    for deferred in BOTH {
        let mut ring = tiny(deferred);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = crate::worker::kernel::prepare_listener(listener).unwrap();
        ring.watch_listener(&listener, 3);
        ring.watch_listener(&listener, 3);
        ring.submit();
        ring.unwatch(&listener, Watched::Listener(3), false);
        ring.submit();
        drop(listener);
        let refused = std::net::TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}

/// The kernel has no memory for requests: the worker is not stuck in this tick, and the next one submits.
#[test]
fn without_memory_for_requests_a_submission_waits_for_the_next_tick() {
    let (mut ring, counters) = tiny_ring(true, 1);
    add(&counters[0]);
    ring.watch_readable(&counters[0], key(0));
    ring.faults.extend([libc::EAGAIN; 100]);
    ring.submit();
    assert!(ring.faults.len() > 50, "{} tries in one tick", 100 - ring.faults.len());
    assert!(!ring.ring.submission().is_empty());
    ring.faults.clear();
    ring.submit();
    assert!(ring.ring.submission().is_empty());
    assert!(!tokens(&mut ring).is_empty());
}

/// What is ready is reported although the kernel cannot take a new request, and nothing waits for ever.
#[test]
fn without_memory_for_requests_a_park_still_returns_reports() {
    for (deferred, error) in [(true, libc::EAGAIN), (false, libc::ENOMEM)] {
        let (mut ring, counters) = tiny_ring(deferred, 2);
        ring.watch_readable(&counters[0], key(7));
        ring.faults.push_back(error);
        ring.park(None);
        assert_eq!(tokens(&mut ring), [], "it came back although nothing happened");
        add(&counters[1]);
        ring.faults.push_back(error);
        ring.park(None);
        assert_eq!(tokens(&mut ring), [Token::Readable(key(1))]);
        assert!(!ring.ring.submission().is_empty(), "for the next call");
    }
}

#[test]
fn a_signal_or_a_full_queue_ends_a_park_early() {
    for error in [libc::EINTR, libc::EBUSY, libc::ETIME] {
        let (mut ring, _counters) = tiny_ring(true, 1);
        ring.faults.push_back(error);
        ring.park(None);
        assert_eq!(tokens(&mut ring), []);
    }
}

/// A send must not be left behind in the queue: its frame may be gone in the next tick.
#[test]
fn sends_wait_for_memory_and_are_all_made() {
    let mut ring = tiny(true);
    let (ours, theirs) = pair();
    ring.faults.extend([libc::EAGAIN; 30]);
    ring.faults.extend([libc::EINTR, libc::EBUSY, libc::EAGAIN]);
    assert_eq!(send_all(&mut ring, &[(&ours, &b"four"[..]); 4]), [Sent::Whole; 4]);
    assert_eq!(rustix::io::read(&theirs, &mut [0; 64][..]), Ok(16));
}

/// Where a control group is out of memory, some kernels say ENOMEM and not EAGAIN.
#[test]
fn requests_wait_for_memory_whichever_error_the_kernel_returns() {
    let mut ring = tiny(true);
    let (ours, theirs) = pair();
    ring.faults.extend([libc::ENOMEM; 5]);
    assert_eq!(send_all(&mut ring, &[(&ours, &b"four"[..]); 3]), [Sent::Whole; 3]);
    assert_eq!(rustix::io::read(&theirs, &mut [0; 64][..]), Ok(12));
}

/// An answer to no send of this batch changes none of its results.
#[test]
fn an_answer_to_an_unknown_send_is_ignored() {
    let mut ring = tiny(true);
    let (ours, _theirs) = pair();
    ring.push(&opcode::Nop::new().build().user_data(pack_parts(SENT, 7, 0)));
    ring.submit();
    assert_eq!(send_all(&mut ring, &[(&ours, &b"four"[..]); 3]), [Sent::Whole; 3]);
    ring.push(&opcode::Nop::new().build().user_data(pack_parts(SENT, 7, 0)));
    ring.submit();
    assert_eq!(tokens(&mut ring), []);
}

#[test]
fn lost_completions_are_reported_once_and_no_send_counts_as_complete() {
    let mut ring = tiny(true);
    let (ours, _theirs) = pair();
    ring.faults.push_back(libc::EBADR);
    assert_eq!(send_all(&mut ring, &[(&ours, &b"four"[..]); 3]), [Sent::Failed; 3]);
    ring.park(None);
    assert_eq!(tokens(&mut ring), [Token::Lost], "and the park did not wait");
    assert_eq!(tokens(&mut ring), []);
    ring.faults.push_back(libc::EBADR);
    ring.park(None);
    assert_eq!(tokens(&mut ring), [Token::Lost]);
    // The kernel only counts, where a call submits something.
    ring.dropped_count = 7;
    assert_eq!(tokens(&mut ring), [Token::Lost]);
}

#[test]
fn a_working_ring_passes_the_probe_and_a_broken_one_names_the_failed_step() {
    for deferred in BOTH {
        ring(deferred, 128, 1024).prove().unwrap();
        let mut ring = tiny(deferred);
        ring.faults.push_back(libc::ENOSYS);
        let (what, error) = ring.prove().unwrap_err();
        assert_eq!((what, error.raw_os_error()), ("io_uring_enter", Some(libc::ENOSYS)));
        // A sandbox that takes everything and completes nothing.
        let mut ring = tiny(deferred);
        ring.faults.push_back(libc::ETIME);
        let (what, error) = ring.prove().unwrap_err();
        assert_eq!((what, error.kind()), ("io_uring_enter", io::ErrorKind::TimedOut));
    }
}
