//! Requests of which only a part has come when the process gives its connections to another one.

use std::net::{Ipv4Addr, SocketAddr};

use crate::http::{self, Answer, Form, take_answer};
use crate::kernel::{Shared, Wire};
use crate::process::{Process, Shape, new_world};
use crate::random::Random;

const SEEDS: std::ops::Range<u64> = 1..33;
const ROOM: usize = 1 << 20;
/// The announcement of the end, in the simulator's cipher.
const RECORD_BYTES_WITHOUT_CONTENT: usize = 9;

/// A process with clients that have sent these bytes, and their wires.
fn begin(seed: u64, sent: &[&[u8]]) -> (Shared, Process, Vec<usize>) {
    begin_in(new_world(Random::new(seed)), seed, sent)
}

/// The same with a cipher.
fn begin_secure(seed: u64, sent: &[u8]) -> (Shared, Process, usize) {
    let world = new_world(Random::new(seed));
    world.borrow_mut().is_secure = true;
    let (world, process, wires) = begin_in(world, seed, &[sent]);
    (world, process, wires[0])
}

fn begin_in(world: Shared, seed: u64, sent: &[&[u8]]) -> (Shared, Process, Vec<usize>) {
    let shape = Shape::plain(1 + u16::try_from(seed % 2).expect("small"), 1, seed);
    let mut process = Process::new(&world, shape, None);
    let wires = sent.iter().map(|bytes| {
        let mut wire = Wire::with_room(ROOM);
        (wire.is_http, wire.peer) = (true, SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)));
        let wire = world.borrow_mut().add_wire(wire);
        process.connect(0, wire);
        world.borrow_mut().send(wire, bytes);
        wire
    });
    let wires = wires.collect();
    process.settle();
    (world, process, wires)
}

/// The process transfers its connections; no session has paused in time.
fn pause(process: &mut Process) {
    for core in &mut process.cores {
        core.http.accepts = false;
        core.set_transferring(true);
    }
    process.settle();
    process.cores.iter_mut().for_each(ringverb::tick::Core::pause);
    process.tick_all();
}

fn answers(world: &Shared, wire: usize) -> Vec<Answer> {
    let mut input = world.borrow_mut().take(wire, usize::MAX);
    let answers = std::iter::from_fn(|| take_answer(&mut input, false)).collect();
    assert!(input.is_empty(), "half an answer");
    answers
}

fn publish(form: Form) -> Vec<u8> {
    let body = http::event_body(1, "news", None, None).to_string();
    let target = http::signed("POST", "events", &[], Some(body.as_bytes()), 1_750_000_000);
    http::write("POST", &target, Some(body.as_bytes()), form).bytes
}

fn head_end(request: &[u8]) -> usize {
    request.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4
}

#[test]
fn a_request_without_its_whole_body_is_refused_at_a_take_over() {
    for seed in SEEDS {
        let (plain, waiting) = (publish(Form::default()), publish(Form::expecting()));
        let whole_first = [&plain[..], &plain[..plain.len() - 1]].concat();
        let cases: [(&[u8], &[u16]); 4] = [
            (&plain[..plain.len() - 1], &[503]),
            (&plain[..head_end(&plain)], &[503]),
            (&waiting[..head_end(&waiting)], &[100, 503]),
            (&whole_first, &[200, 503]),
        ];
        let (world, mut process, wires) = begin(seed, &cases.map(|(sent, _)| sent));
        assert_eq!(process.cores.iter().map(|core| core.busy_sessions()).sum::<usize>(), 4);
        pause(&mut process);
        for (wire, (_, statuses)) in wires.into_iter().zip(cases) {
            let answers = answers(&world, wire);
            let found: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(found, statuses, "seed {seed}");
            let last = answers.last().expect("the refusal");
            let text = String::from_utf8_lossy(&last.body);
            assert!(last.closes && text.contains("was not carried out"), "{text}");
            assert!(world.borrow().wires[wire].shut, "nothing follows the refusal");
        }
        assert_eq!(process.cores.iter().flat_map(|core| core.export_sessions()).count(), 0);
        process.exit();
    }
}

/// A new process goes on with these.
#[test]
fn a_request_without_its_whole_head_is_not_refused_at_a_take_over() {
    for seed in SEEDS {
        let request = publish(Form::default());
        let sent: [&[u8]; 3] = [b"", &request[..1], &request[..head_end(&request) - 1]];
        let (world, mut process, wires) = begin(seed, &sent);
        pause(&mut process);
        for wire in wires {
            assert!(answers(&world, wire).is_empty(), "seed {seed}");
        }
        assert_eq!(process.cores.iter().flat_map(|core| core.export_sessions()).count(), 3);
        process.exit();
    }
}

/// The take-over fails: the process goes on, with the connections that it has not refused.
#[test]
fn a_process_whose_take_over_fails_continues_and_closes_refused_sessions() {
    for seed in SEEDS {
        let request = publish(Form::default());
        let sent: [&[u8]; 2] = [&request[..request.len() - 1], &request[..10]];
        let (world, mut process, wires) = begin(seed, &sent);
        pause(&mut process);
        for core in 0..process.cores.len() {
            process.cores[core].set_transferring(false);
            process.resume(core);
        }
        world.borrow_mut().send(wires[0], &request[request.len() - 1..]);
        world.borrow_mut().send(wires[1], &request[10..]);
        process.settle();
        assert_eq!(answers(&world, wires[0]).len(), 1, "seed {seed}: the refusal alone");
        assert_eq!(answers(&world, wires[1])[0].status, 200, "seed {seed}");
        process.advance(3);
        process.settle();
        assert!(world.borrow().wires[wires[0]].closed, "seed {seed}");
        process.exit();
    }
}

/// The refusal as a sealed record leaves no room for the whole announcement of the end behind it. The core is paused:
/// the rest is sent if its process continues, and is lost if the process ends. The client reads the refusal in each
/// case.
#[test]
fn a_refusal_arrives_although_the_announcement_of_the_end_has_no_room() {
    let request = publish(Form::default());
    let sent = &request[..request.len() - 1];
    for (seed, is_taken) in SEEDS.flat_map(|seed| [(seed, false), (seed, true)]) {
        let (world, mut process, wire) = begin_secure(seed, sent);
        assert!(answers(&world, wire).is_empty(), "seed {seed}: the handshake alone");
        pause(&mut process);
        let whole = world.borrow().wires[wire].to_client.len();
        process.exit();
        for missing in 1..=RECORD_BYTES_WITHOUT_CONTENT {
            let (world, mut process, wire) = begin_secure(seed, sent);
            answers(&world, wire);
            world.borrow_mut().wires[wire].room = whole - missing;
            pause(&mut process);
            let found = answers(&world, wire);
            assert_eq!(found.len(), 1, "seed {seed}, without {missing} bytes: the refusal");
            assert!(found[0].status == 503 && found[0].closes, "seed {seed}");
            process.tick_all();
            assert!(!world.borrow().wires[wire].shut, "seed {seed}: the rest has not left");
            if is_taken {
                process.exit();
                let closed = &world.borrow().wires[wire];
                assert!(closed.closed_by_exit && !closed.shut && !closed.cut, "seed {seed}");
                continue;
            }
            for core in 0..process.cores.len() {
                process.cores[core].set_transferring(false);
                process.resume(core);
            }
            process.settle();
            assert_eq!(world.borrow().wires[wire].to_client.len(), missing, "seed {seed}");
            assert!(answers(&world, wire).is_empty(), "seed {seed}: the announcement alone");
            assert!(world.borrow().wires[wire].shut, "seed {seed}: its half ends behind that");
            process.exit();
        }
    }
}
