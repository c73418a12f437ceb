//! The last byte of a request arrives in the tick in which its time is up: it came in time, and is answered.
//!
//! A handshake that arrived so once ended the whole process. It needs no attacker: a proxy that uses a connection
//! again after exactly the time for which the server keeps it does the same.

use std::net::{Ipv4Addr, SocketAddr};

use crate::http::{self, Form, take_answer};
use crate::kernel::{Shared, Wire};
use crate::process::{KEEPALIVE_SECONDS, Process, Shape, new_world};
use crate::random::Random;

/// Each may report, accept and end watches in another way.
const SEEDS: std::ops::Range<u64> = 1..33;
const REQUEST_SECONDS: u64 = 10;
const FIRST_BYTE_SECONDS: u64 = 5;

/// How far the client is when the time begins.
#[derive(Clone, Copy, Debug)]
enum Begun {
    Nothing,
    /// All but the last byte.
    Nearly,
    /// The head, after which the server has asked for the body.
    Head,
    /// One request was answered, and the next one has not begun.
    Served,
}

impl Begun {
    fn seconds(self) -> u64 {
        match self {
            Self::Nothing => FIRST_BYTE_SECONDS,
            Self::Nearly | Self::Head => REQUEST_SECONDS,
            Self::Served => KEEPALIVE_SECONDS.into(),
        }
    }
}

const UP: &[u8] = b"GET /up HTTP/1.1\r\nHost: sim\r\n\r\n";
const LAST_UP: &[u8] = b"GET /up HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n";

fn requests(unix_seconds: u64) -> [(Vec<u8>, u16); 5] {
    let body = http::event_body(1, "news", None, None).to_string();
    let target = http::signed("POST", "events", &[], Some(body.as_bytes()), unix_seconds);
    let publish = http::write("POST", &target, Some(body.as_bytes()), Form::expecting());
    let question = http::signed("GET", "channels", &[], None, unix_seconds);
    [
        (http::handshake(), 101),
        (UP.to_vec(), 200),
        (LAST_UP.to_vec(), 200),
        (publish.bytes, 200),
        (http::write("GET", &question, None, Form::default()).bytes, 200),
    ]
}

/// A process with a client that has begun, and what the client has not sent.
fn begin(seed: u64, request: &[u8], begun: Begun) -> (Shared, Process, usize, Vec<u8>) {
    let world = new_world(Random::new(seed));
    let shape = Shape::plain(1 + u16::try_from(seed % 2).expect("small"), 1, seed);
    let mut process = Process::new(&world, shape, None);
    let mut wire = Wire::with_room(1 << 20);
    (wire.is_http, wire.peer) = (true, SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)));
    let wire = world.borrow_mut().add_wire(wire);
    process.connect(0, wire);
    let sent = match begun {
        Begun::Nothing | Begun::Served => 0,
        Begun::Nearly => request.len() - 1,
        Begun::Head => request.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4,
    };
    if let Begun::Served = begun {
        world.borrow_mut().send(wire, UP);
    }
    world.borrow_mut().send(wire, &request[..sent]);
    process.settle();
    let mut input = world.borrow_mut().take(wire, usize::MAX);
    if let Begun::Served = begun {
        assert_eq!(take_answer(&mut input, false).expect("an answer").status, 200);
    }
    if let Some(answer) = take_answer(&mut input, false) {
        assert_eq!(answer.status, 100);
    }
    process.advance(begun.seconds() - 1);
    process.settle();
    assert!(!world.borrow().wires[wire].closed, "{begun:?}: closed before its time");
    (world, process, wire, request[sent..].to_vec())
}

#[test]
fn a_request_that_is_complete_at_its_deadline_is_answered() {
    let cases = [Begun::Nothing, Begun::Nearly, Begun::Head, Begun::Served];
    for (seed, begun) in SEEDS.flat_map(|seed| cases.map(|begun| (seed, begun))) {
        for (request, status) in requests(1_750_000_000) {
            let is_whole = request.ends_with(b"\r\n\r\n");
            if is_whole && matches!(begun, Begun::Head) {
                continue;
            }
            // The kernel has reported it, or does so when the tick is over.
            for is_reported in [true, false] {
                let (world, mut process, wire, rest) = begin(seed, &request, begun);
                if is_reported {
                    world.borrow_mut().send(wire, &rest);
                } else {
                    world.borrow_mut().slip_in(wire, &rest);
                }
                process.advance(1);
                let mut input = world.borrow_mut().take(wire, usize::MAX);
                world.borrow_mut().arrive(wire);
                process.settle();
                input.extend(world.borrow_mut().take(wire, usize::MAX));
                let case = format!("seed {seed}, {begun:?}, reported: {is_reported}, {status}");
                let answer = take_answer(&mut input, false);
                let answer = answer.unwrap_or_else(|| panic!("{case}: no answer"));
                let is_continue = answer.status == 100;
                let answer =
                    if is_continue { take_answer(&mut input, false) } else { Some(answer) };
                assert_eq!(answer.map(|answer| answer.status), Some(status), "{case}");
                process.exit();
            }
        }
    }
}

/// Without the last byte the same second is the end: the test above is about that one.
#[test]
fn a_request_without_its_last_byte_ends_with_its_deadline() {
    for (seed, begun) in SEEDS
        .flat_map(|seed| [Begun::Nothing, Begun::Nearly, Begun::Served].map(|begun| (seed, begun)))
    {
        let (world, mut process, wire, _) = begin(seed, UP, begun);
        process.advance(1);
        process.settle();
        assert!(world.borrow().wires[wire].closed, "seed {seed}, {begun:?}: still open");
        for core in &process.cores {
            assert_eq!((core.http_sessions(), core.shard.http_bytes()), (0, 0));
        }
    }
}

/// A client that sends one byte now and then is not there for longer than one request may take.
#[test]
fn empty_lines_in_pieces_do_not_prolong_the_time_of_a_request() {
    for seed in SEEDS {
        let (world, mut process, wire, _) = begin(seed, UP, Begun::Nothing);
        for second in 0..REQUEST_SECONDS + 1 {
            if world.borrow().wires[wire].closed {
                break;
            }
            let byte = if second % 2 == 0 { b"\r" } else { b"\n" };
            world.borrow_mut().send(wire, byte);
            process.settle();
            process.advance(1);
            process.settle();
        }
        assert!(world.borrow().wires[wire].closed, "seed {seed}: still open");
    }
}
