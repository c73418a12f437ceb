//! What only epoll can get wrong. What both kernels promise is in `tests/kernels.rs`.

use super::*;
use crate::shard::ConnectionKey;
use crate::slot::Slot;

fn key(slot: u32) -> Watched {
    Watched::Connection(ConnectionKey { slot: Slot::new(slot), generation: 1 })
}

fn counter() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap()
}

fn add(counter: &OwnedFd) {
    rustix::io::write(counter, &1_u64.to_ne_bytes()).unwrap();
}

fn reports(kernel: &mut Epoll) -> Vec<KernelEvent> {
    let mut events = Vec::new();
    kernel.park(Some(0));
    kernel.reap(&mut events);
    events
}

/// A file that cannot be watched stands for a kernel without memory: both are errors of `epoll_ctl`.
#[test]
fn a_failed_watch_is_reported_in_both_directions() {
    let mut kernel = Epoll::new(Clock::start()).unwrap();
    let file = OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
    kernel.watch_readable(&file, key(1));
    kernel.watch_writable(&file, key(2));
    kernel.park(None);
    let mut events = Vec::new();
    kernel.reap(&mut events);
    assert_eq!(events, [failed(Token::Readable(key(1))), failed(Token::Writable(key(2)))]);
    kernel.unwatch(&file, key(1), true);
    assert_eq!(reports(&mut kernel), []);
}

/// The kernel may go on refusing, as with a listener over `fs.epoll.max_user_watches`.
#[test]
fn a_watch_that_is_tried_again_and_again_leaves_the_processor_to_others() {
    let mut kernel = Epoll::new(Clock::start()).unwrap();
    let file = OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
    let (start, mut tries) = (kernel.stamp(), 0);
    while kernel.stamp() < start + 50_000_000 {
        kernel.watch_readable(&file, key(1));
        kernel.park(None);
        kernel.reap(&mut Vec::new());
        tries += 1;
    }
    assert!(tries <= 51, "{tries} tries in 50 ms");
}

/// Arming a watch that goes on is no failure: after lost reports the caller arms all of them.
#[test]
fn a_watch_that_is_armed_twice_reports_once() {
    let mut kernel = Epoll::new(Clock::start()).unwrap();
    let counter = counter();
    for _ in 0..2 {
        kernel.watch_readable(&counter, key(1));
        kernel.watch_writable(&counter, key(1));
    }
    add(&counter);
    let tokens: Vec<Token> = reports(&mut kernel).iter().map(|event| event.token).collect();
    assert_eq!(tokens, [Token::Readable(key(1)), Token::Writable(key(1))]);
}

/// More descriptors than one call returns are ready, in both instances: the next calls bring the rest.
#[test]
fn events_that_one_call_does_not_return_come_with_the_next() {
    let mut kernel = Epoll::new(Clock::start()).unwrap();
    let count = limits::EPOLL_EVENTS_MAX + limits::EPOLL_EVENTS_MAX / 2;
    let counters: Vec<OwnedFd> = (0..count).map(|_| counter()).collect();
    for (counter, slot) in counters.iter().zip(0..) {
        add(counter);
        kernel.watch_readable(counter, key(slot));
        kernel.watch_writable(counter, key(slot));
    }
    let mut seen = vec![[0, 0]; count];
    for _ in 0..8 {
        for event in reports(&mut kernel) {
            let (direction, watched) = match event.token {
                Token::Readable(watched) => (0, watched),
                Token::Writable(watched) => (1, watched),
                other => panic!("{other:?}"),
            };
            let Watched::Connection(key) = watched else { panic!("{watched:?}") };
            seen[key.slot.index()][direction] += 1;
        }
    }
    assert!(seen.iter().all(|seen| *seen == [1, 1]), "each once: {seen:?}");
}

/// Another process that has the socket keeps it open: without the removal, it would be reported here for ever.
#[test]
fn a_socket_that_lives_on_elsewhere_is_reported_no_more() {
    let mut kernel = Epoll::new(Clock::start()).unwrap();
    let ours = counter();
    let theirs = ours.try_clone().unwrap();
    kernel.watch_readable(&ours, key(1));
    kernel.watch_writable(&ours, key(1));
    kernel.unwatch(&ours, key(1), true);
    drop(ours);
    add(&theirs);
    assert_eq!(reports(&mut kernel), []);
}
