//! Publishers wait while the mailboxes are full, and are answered, in order, when there is room again. They do not wait
//! for mail of later publishers.

use std::collections::BTreeSet;

use serde_json::json;

use crate::http::{self, Form, take_answer};
use crate::kernel::Wire;
use crate::process::{HTTP_CONNECTIONS_MAX, Process, Shape, new_world};
use crate::random::Random;

/// Channels of one request: as many as its size allows.
const CHANNELS: usize = 1_200;
/// More mail than a core may have waiting.
const REQUESTS: usize = 16;
/// Channels of one small request. About half of them have their home on the other core.
const CHANNELS_OF_A_SMALL_REQUEST: usize = 24;
/// Less mail than a small request causes, so that overflow queues grow with each.
const RING_CAPACITY: usize = 4;
/// Ticks in which a core has read and carried out a request.
const TICKS_OF_A_REQUEST_MAX: usize = 100;

fn publish(number: usize, channels: usize, unix_seconds: u64) -> Vec<u8> {
    let channels: Vec<String> = (0..channels).map(|channel| format!("{channel}")).collect();
    let body = json!({"name": "e", "data": number.to_string(), "channels": channels}).to_string();
    let target = http::signed("POST", "events", &[], Some(body.as_bytes()), unix_seconds);
    http::write("POST", &target, Some(body.as_bytes()), Form::default()).bytes
}

#[test]
fn publishers_are_answered_when_there_is_room_in_the_mailboxes_again() {
    for seed in 1..5 {
        let world = new_world(Random::new(seed));
        let shape = Shape::plain(2, 4, seed);
        let mut process = Process::new(&world, shape, None);
        let mut wires = Vec::new();
        for number in 0..REQUESTS {
            let mut wire = Wire::with_room(1 << 20);
            wire.is_http = true;
            let wire = world.borrow_mut().add_wire(wire);
            // Each has another request behind the publish.
            let mut bytes = publish(number, CHANNELS, process.unix_seconds());
            bytes.extend_from_slice(b"GET /up HTTP/1.1\r\nHost: sim\r\n\r\n");
            world.borrow_mut().send(wire, &bytes);
            process.connect(0, wire);
            wires.push(wire);
        }
        // The other core has no tick: its rings fill, and then the overflow.
        for _ in 0..200 {
            process.tick(0);
        }
        assert!(process.cores[0].mailbox.is_congested(), "too little was published");
        let unanswered: BTreeSet<usize> = wires
            .iter()
            .copied()
            .filter(|wire| world.borrow().wires[*wire].to_client.is_empty())
            .collect();
        assert_eq!(unanswered.len(), REQUESTS, "somebody was answered while mail waits");
        process.settle();
        for wire in wires {
            let mut input = world.borrow_mut().take(wire, usize::MAX);
            let answer = take_answer(&mut input, false).expect("an answer to the publish");
            assert_eq!((answer.status, &answer.body[..]), (200, &b"{}"[..]));
            let answer = take_answer(&mut input, false).expect("an answer to the probe");
            assert_eq!((answer.status, answer.body.len()), (200, 15));
            world.borrow_mut().end(wire);
        }
        process.settle();
        process.check_empty();
    }
}

/// Each publisher once waited until all mail of its core was in the rings: for ever, while others published.
#[test]
fn publishers_are_answered_when_their_own_mail_is_in_the_rings_although_later_mail_waits() {
    for seed in 1..5 {
        let world = new_world(Random::new(seed));
        let mut process = Process::new(&world, Shape::plain(2, RING_CAPACITY, seed), None);
        // Each with the number of mails that its core had sent then, its own included.
        let mut publishers = Vec::new();
        let mut answered = 0;
        for number in 0..HTTP_CONNECTIONS_MAX {
            let mut wire = Wire::with_room(1 << 20);
            wire.is_http = true;
            let wire = world.borrow_mut().add_wire(wire);
            let channels = CHANNELS_OF_A_SMALL_REQUEST;
            let bytes = publish(number, channels, process.unix_seconds());
            world.borrow_mut().send(wire, &bytes);
            process.connect(0, wire);
            let sent_of = |process: &Process| process.cores[0].mailbox.mail_totals().sent;
            let sent_before = sent_of(&process);
            // A tick may read a part of the request.
            for _ in 0..TICKS_OF_A_REQUEST_MAX {
                if sent_of(&process) == sent_before {
                    process.tick(0);
                }
            }
            let (core, sent) = (&process.cores[0], sent_of(&process));
            assert!(sent > sent_before, "the request was not carried out");
            publishers.push((wire, sent));
            let waiting = core.mailbox.overflow_len();
            assert!(waiting > number, "the overflow queue runs empty: {waiting}");
            let is_answered = |wire: usize| !world.borrow().wires[wire].to_client.is_empty();
            for (wire, sent_with_it) in &publishers {
                let in_rings = *sent_with_it <= sent - waiting as u64;
                assert_eq!(is_answered(*wire), in_rings, "publisher {number}, seed {seed}");
            }
            answered = publishers.iter().filter(|(wire, _)| is_answered(*wire)).count();
            core.note_gauges();
            let gauge = core.shard.metrics().publishers_waiting.get();
            assert_eq!(gauge, (publishers.len() - answered) as u64);
            process.tick(1);
        }
        assert!(answered >= HTTP_CONNECTIONS_MAX / 8, "{answered} publishers were answered");
        process.settle();
        for (wire, _) in publishers {
            let mut input = world.borrow_mut().take(wire, usize::MAX);
            let answer = take_answer(&mut input, false).expect("an answer to the publish");
            assert_eq!((answer.status, &answer.body[..]), (200, &b"{}"[..]));
            world.borrow_mut().end(wire);
        }
        process.settle();
        process.check_empty();
    }
}
