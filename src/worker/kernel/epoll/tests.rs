//! What only epoll can get wrong. What both kernels promise is in `tests/kernels.rs`.

use super::*;
use crate::shard::ConnectionKey;

fn key(slot: u32) -> Watched {
    Watched::Connection(ConnectionKey { slot, generation: 1 })
}

fn counter() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap()
}

fn add(counter: &OwnedFd) {
    rustix::io::write(counter, &1_u64.to_ne_bytes()).unwrap();
}

fn reports(kernel: &mut Epoll) -> Vec<Event> {
    let mut events = Vec::new();
    kernel.park(Some(0));
    kernel.reap(&mut events);
    events
}

/// A file that cannot be watched stands for a kernel without memory: both are errors of `epoll_ctl`.
#[test]
fn a_watch_that_fails_says_so_in_both_directions() {
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

/// More descriptors than one call returns are ready, in both instances: the next calls bring the rest.
#[test]
fn what_one_call_does_not_return_comes_with_the_next() {
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
            seen[key.slot as usize][direction] += 1;
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
