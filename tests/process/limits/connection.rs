//! What one connection may cost the others: rate limits, slow consumers, the silent, the many (docs/PROTOCOL.md C3,
//! C16, C17).

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::support::{
    Client, Frame, Handshake, Http, PING, PONG, Request, Server, Setup, Wire, connections_in,
    error_event, eventually, frame, small_window,
};
use serde_json::json;

const RATE_LIMITED: &str = "Rate limit exceeded";

fn rate_limited(terminate: bool) -> Server {
    let setup = Setup::new()
        .env("REVERB_APP_RATE_LIMITING_ENABLED", "true")
        .env("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "3")
        .env("REVERB_APP_RATE_LIMIT_DECAY_SECONDS", "1");
    setup.env("REVERB_APP_RATE_LIMIT_TERMINATE", &terminate.to_string()).start()
}

#[test]
fn messages_over_the_rate_are_dropped_until_the_window_ends() {
    let server = rate_limited(false);
    let mut other = server.connect();
    // The clock of a window has whole seconds, so the next second may begin at any message: what counts is that
    // both answers come, and come back.
    let mut client = server.connect();
    // The client is sent one error a window, but each subscription is answered.
    let answer = |client: &mut Client| {
        client.send_subscribe("news", None);
        client.text()
    };
    let limited = error_event(4301, RATE_LIMITED);
    for _ in 0..2 {
        eventually("the limit", || (answer(&mut client) == limited).then_some(()));
        let succeeded = crate::support::succeeded("news");
        eventually("the next window", || (answer(&mut client) == succeeded).then_some(()));
    }
    other.ask(PING, PONG);
}

#[test]
fn messages_over_the_rate_are_not_processed() {
    let setup = Setup::new().env("REVERB_APP_RATE_LIMITING_ENABLED", "true");
    let server = setup.env("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "3").start();
    let mut client = server.connect();
    // Everything counts: pings, malformed text, subscriptions. Ping frames do not.
    client.ask(PING, PONG);
    client.ask("not json", crate::support::INVALID);
    client.subscribe("news");
    client.sync();
    let limited = error_event(4301, RATE_LIMITED);
    client.ask(r#"{"event":"pusher:subscribe","data":{"channel":"more"}}"#, &limited);
    // The client was sent the error already: this has no answer of its own.
    client.send("not json");
    client.sync();
    assert_eq!(server.get("/channels"), r#"{"channels":{"news":{}}}"#);
    server.publish("news", "e", "x");
    client.expect(r#"{"event":"e","data":"x","channel":"news"}"#);
    // Each connection has a rate of its own.
    server.connect().ask(PING, PONG);
}

#[test]
fn over_the_rate_the_connection_may_be_ended() {
    let server = rate_limited(true);
    let mut client = server.connect();
    client.subscribe("news");
    client.send_bytes(&frame::text(PING).repeat(8));
    let mut text = client.text();
    while text == PONG {
        text = client.text();
    }
    assert_eq!(text, error_event(4301, RATE_LIMITED));
    // A code after which pusher-js comes back (rule 105).
    assert_eq!(client.closed(), (4100, RATE_LIMITED.to_owned()));
    assert_eq!(server.get("/channels"), r#"{"channels":{}}"#);
}

#[test]
fn a_slow_consumer_is_closed_and_the_others_get_everything() {
    let setup = Setup::new().env("RINGVERB_SEND_QUEUE_BYTES_MAX", "65536").workers(2);
    let server = setup.start();
    let mut slow = small_window(&server);
    slow.subscribe("news");
    let mut others: Vec<Client> = (0..6).map(|_| server.connect()).collect();
    others.iter_mut().for_each(|client| client.subscribe("news"));
    let mut http = Http::new(&server);
    let text = "x".repeat(9_000);
    let mut published = 0;
    let body = |data: &str| json!({"name": "e", "channel": "news", "data": data}).to_string();
    eventually("the slow consumer is out", || {
        for _ in 0..10 {
            let data = format!("{published} {text}");
            let reply = http.ask(&Request::events(&body(&data)));
            assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
            for client in &mut others {
                let event = format!(r#"{{"event":"e","data":"{data}","channel":"news"}}"#);
                assert_eq!(client.text(), event);
            }
            published += 1;
        }
        let connections = http.ask(&Request::get("/connections")).body;
        (connections_in(&connections) == 6).then_some(())
    });
    let request = Request::get("/channels/news").query("info", "subscription_count");
    let body = r#"{"occupied":true,"subscription_count":6}"#;
    assert_eq!(server.answer(&request), (200, body.to_owned()));
    // What it has of the events is whole and in order; then comes the reason of the close.
    for number in 0.. {
        let Frame { opcode, payload } = slow.frame();
        let got = String::from_utf8_lossy(&payload).into_owned();
        if opcode == frame::CLOSE {
            assert_eq!(payload[..2], 4100_u16.to_be_bytes());
            assert!(got.ends_with("Connection is too slow to receive its events"), "{got}");
            break;
        }
        assert!(number < published && got.contains(&format!(r#""data":"{number} x"#)), "{number}");
    }
    slow.wire.ended();
}

#[test]
fn a_slow_consumer_that_never_reads_is_cut_off() {
    let setup = Setup::new().env("RINGVERB_SEND_QUEUE_BYTES_MAX", "4096").workers(1);
    let server = setup.start();
    let mut slow = small_window(&server);
    // The answers fill the queue: it never reads them, and the server does not keep them.
    let pings = frame::text(PING).repeat(100);
    let mut witness = server.connect();
    eventually("the slow consumer is out", || {
        slow.wire.send_to_closing(&pings);
        witness.ask(PING, PONG);
        (server.open_connections() == 1).then_some(())
    });
    // A close frame that cannot leave does not keep the socket: it ends within some seconds, by a reset if need be.
    eventually("the socket is gone", || {
        witness.ask(PING, PONG);
        slow.wire.stream.write_all(&pings).err()
    });
}

#[test]
fn the_silent_are_pinged_and_closed() {
    let setup = Setup::new().env("REVERB_APP_PING_INTERVAL", "1").env("RINGVERB_PONG_TIMEOUT", "1");
    let server = setup.start();
    let ping = r#"{"event":"pusher:ping"}"#;
    // Never subscribed, subscribed, and one that has shown that it knows ping frames.
    let mut silent = server.connect();
    let mut subscribed = server.connect();
    subscribed.subscribe("news");
    let mut controls = server.connect();
    controls.sync();
    for client in [&mut silent, &mut subscribed] {
        client.expect(ping);
        client.refused(4201, "Pong reply not received in time");
    }
    let ping_frame = Frame { opcode: frame::PING, payload: Vec::new() };
    assert_eq!(controls.frame(), ping_frame);
    controls.refused(4201, "Pong reply not received in time");
    assert_eq!(server.get("/channels"), r#"{"channels":{}}"#);
    assert_eq!(server.open_connections(), 0);
}

#[test]
fn a_connection_that_answers_pings_stays_open() {
    let setup = Setup::new().env("REVERB_APP_PING_INTERVAL", "1").env("RINGVERB_PONG_TIMEOUT", "2");
    let server = setup.start();
    let (mut events, mut frames) = (server.connect(), server.connect());
    frames.sync();
    for _ in 0..3 {
        events.expect(r#"{"event":"pusher:ping"}"#);
        events.send(r#"{"event":"pusher:pong","data":{}}"#);
        assert_eq!(frames.frame().opcode, frame::PING);
        frames.send_bytes(&frame::raw(frame::FIN | frame::PONG, b""));
    }
    frames.sync();
    events.ask(PING, PONG);
}

/// The last message and the end of the connection arrive together: both must be seen. The end is seen at once, not
/// when the connection has been silent for long.
#[test]
fn a_message_and_the_end_may_come_together() {
    for workers in [1, 2] {
        let server = Setup::new().workers(workers).start();
        for number in 0..300 {
            let mut client = server.connect();
            // More than the server reads at a time, now and then.
            let before = if number % 30 == 29 { 5_000 } else { 0 };
            let silent = frame::text(r#"{"event":"pusher:pong","data":{}}"#).repeat(before);
            client.send_bytes(&[silent, frame::text(PING)].concat());
            client.wire.stream.shutdown(Shutdown::Write).expect("half closed");
            let limit = Some(Duration::from_secs(5));
            client.wire.stream.set_read_timeout(limit).expect("SO_RCVTIMEO");
            // The answer may be lost; the connection may not be kept.
            let mut end = [0; 256];
            while let count @ 1.. = client.wire.stream.read(&mut end).unwrap_or_else(|error| {
                panic!("{error}: connection {number} of {workers} workers is kept")
            }) {
                assert!(count < end.len());
            }
        }
    }
}

/// The same where the message has no answer, so that no failed send shows that the client has gone.
#[test]
fn a_connection_that_closes_after_its_last_message_leaves_no_state() {
    let server = Setup::new().workers(2).start();
    let mut witness = server.connect();
    witness.join("presence-r", r#"{"user_id":"w"}"#);
    for number in 0..100 {
        let mut client = server.connect();
        client.join("presence-r", &format!(r#"{{"user_id":{number}}}"#));
        assert_eq!(witness.event()["event"], "pusher_internal:member_added");
        client.send(r#"{"event":"client-bye","channel":"presence-r","data":{}}"#);
        drop(client);
        assert_eq!(witness.event()["event"], "client-bye");
        assert_eq!(witness.event()["event"], "pusher_internal:member_removed", "user {number}");
    }
}

/// Bytes that still come while the server ends a connection, after a close or a violation: a watch that was just
/// being woken once kept the socket for ever.
#[test]
fn a_connection_that_ends_while_it_sends_is_ended() {
    let setup = Setup::new().workers(2).env("REVERB_APP_PING_INTERVAL", "3600");
    let server = setup.start();
    for round in 0..1_000 {
        let mut stream = Client::open(&server, &Handshake::new()).wire.stream;
        // Longer than the server waits for the answer to a close.
        stream.set_read_timeout(Some(Duration::from_secs(6))).expect("SO_RCVTIMEO");
        let first = match round % 2 {
            0 => frame::close(1000, ""),
            _ => frame::raw(frame::FIN | 3, b""),
        };
        let bytes = [first, frame::raw(frame::TEXT, &vec![b'x'; round * 37 % 12_000])].concat();
        // The server may end the connection at any byte: an error is an end too.
        let mut open = bytes.chunks(47 + round % 400).all(|piece| stream.write_all(piece).is_ok());
        open = open && stream.shutdown(Shutdown::Write).is_ok();
        while open {
            match stream.read(&mut [0; 4096]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("round {round}: the server holds the connection")
                }
                Ok(0) | Err(_) => open = false,
                Ok(_) => {}
            }
        }
    }
    eventually("all are gone", || (server.open_connections() == 0).then_some(()));
}

#[test]
fn channels_of_one_connection_are_limited() {
    let setup = Setup::new().env("RINGVERB_CHANNELS_PER_CONNECTION_MAX", "3");
    let server = setup.start();
    let mut client = server.connect();
    for channel in ["a", "b", "c", "a"] {
        client.subscribe(channel);
    }
    let message = client.subscribe_message("d", None);
    client.ask(&message, &error_event(4300, "Too many channels on one connection"));
    client.unsubscribe("b");
    client.subscribe("d");
    assert_eq!(server.get("/channels"), r#"{"channels":{"a":{},"c":{},"d":{}}}"#);
}

#[test]
fn a_roster_larger_than_a_send_queue_can_be_joined() {
    let setup = Setup::new().env("RINGVERB_SEND_QUEUE_BYTES_MAX", "4096");
    let server = setup.start();
    let info = "i".repeat(3_000);
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..10 {
        let mut client = server.connect();
        let data = format!(r#"{{"user_id":{number},"user_info":"{info}"}}"#);
        let roster = client.join("presence-r", &data);
        assert_eq!(roster["count"].to_string(), (number + 1).to_string());
        for earlier in &mut clients {
            assert_eq!(earlier.event()["event"], "pusher_internal:member_added");
        }
        clients.push(client);
    }
}

#[test]
fn many_connections_come_and_go_at_once() {
    let server = Setup::new().workers(4).start();
    for _ in 0..3 {
        let mut wires: Vec<Wire> = (0..300).map(|_| server.wire()).collect();
        for wire in &mut wires {
            wire.send(&Handshake::new().bytes());
        }
        let established = |wire| Client::upgraded(wire).0.established();
        let mut clients: Vec<Client> = wires.into_iter().map(established).collect();
        assert_eq!(server.open_connections(), 300);
        clients.iter_mut().for_each(|client| client.send_subscribe("news", None));
        clients.iter_mut().for_each(|client| client.expect(&crate::support::succeeded("news")));
        server.publish("news", "e", "x");
        for client in &mut clients {
            client.expect(r#"{"event":"e","data":"x","channel":"news"}"#);
        }
        drop(clients);
        eventually("all are gone", || (server.open_connections() == 0).then_some(()));
    }
    server.stop();
}
