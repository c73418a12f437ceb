//! Publishers wait while the mailboxes are full, and are answered, in order, when there is room again.

use std::collections::BTreeSet;

use serde_json::json;

use crate::http::{self, Form, take_answer};
use crate::kernel::Wire;
use crate::process::{Process, Shape, new_world};
use crate::random::Random;

/// Channels of one request: as many as its size allows.
const CHANNELS: usize = 1_200;
/// More mail than a core may have waiting.
const REQUESTS: usize = 16;

fn publish(number: usize, unix_seconds: u64) -> Vec<u8> {
    let channels: Vec<String> = (0..CHANNELS).map(|channel| format!("{channel}")).collect();
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
            let mut bytes = publish(number, process.unix_seconds());
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
