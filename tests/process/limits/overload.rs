//! Too much of everything. Whatever comes, a bystander gets each of its events once and in order, a new client is
//! served, what was refused is counted, and afterwards nothing is left.
//!
//! Sizes are for a debug build on two busy cores; `bench` has the same at full size.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use crate::support::{
    Client, Finished, Frame, Handshake, Http, PING, PONG, Request, Server, Setup, Wire,
    connections_in, drain, error_event, eventually, frame, raise_descriptor_limit, resident_bytes,
    small_window,
};
use serde_json::json;

/// A server, and a client that is connected all the time and that no other client may disturb.
struct Scene {
    server: Server,
    bystander: Client,
    http: Http,
    published: usize,
}

impl Scene {
    fn start(setup: Setup) -> Self {
        raise_descriptor_limit();
        // No ping of the server may come between.
        let server = setup.workers(2).env("REVERB_APP_PING_INTERVAL", "3600").start();
        let mut bystander = server.connect();
        bystander.subscribe("bystander");
        let mut http = Http::new(&server);
        // A connection that says nothing is closed sooner than one that waits for its next request.
        assert_eq!(http.ask(&Request::get("/connections")).status, 200);
        Self { server, bystander, http, published: 0 }
    }

    fn connect_many(&self, count: usize) -> Vec<Client> {
        // All handshakes first: the server deals with them together.
        let wires: Vec<Wire> = (0..count)
            .map(|_| {
                let mut wire = self.server.wire();
                wire.send(&Handshake::new().bytes());
                wire
            })
            .collect();
        wires.into_iter().map(|wire| Client::upgraded(wire).0.established()).collect()
    }

    /// The bystander receives its next events, each once and in order, and a new client is served.
    fn check(&mut self) {
        for _ in 0..3 {
            let data = format!("event {}", self.published);
            let body = json!({"name": "e", "channel": "bystander", "data": data}).to_string();
            let reply = self.http.ask(&Request::events(&body));
            assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
            let event = format!(r#"{{"event":"e","data":"{data}","channel":"bystander"}}"#);
            self.bystander.expect(&event);
            self.published += 1;
        }
        self.bystander.ask(PING, PONG);
        let mut newcomer = self.server.connect();
        newcomer.ask(PING, PONG);
        newcomer.close();
    }

    fn left(&mut self, connections: u64) {
        eventually("the others are gone", || {
            let body = self.http.ask(&Request::get("/connections")).body;
            (connections_in(&body) == connections).then_some(())
        });
    }

    /// Everybody else has gone. What the server says it refused is exactly this.
    fn finish(self, refused: &str) {
        let (refusals, stdout) = self.refused();
        assert_eq!(refusals, refused, "{stdout}");
    }

    /// What the server says it refused, and all else that it says, after everybody else has gone.
    fn refused(mut self) -> (String, String) {
        self.check();
        self.left(1);
        assert_eq!(self.server.get("/channels"), r#"{"channels":{"bystander":{}}}"#);
        self.bystander.close();
        self.server.signal(rustix::process::Signal::TERM);
        let Finished { code, stdout, .. } = self.server.finish();
        assert_eq!(code, Some(0), "{stdout}");
        let refusals = stdout.lines().find_map(|line| line.split_once("refused since the start: "));
        (refusals.map_or_else(String::new, |(_, refusals)| refusals.to_owned()), stdout)
    }
}

/// The socket ends with a reset.
fn reset(client: &Client) {
    let socket = socket2::SockRef::from(&client.wire.stream);
    socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

#[test]
fn a_flood_of_handshakes() {
    let name = "RINGVERB_HANDSHAKES_PER_IP_PER_SECOND_MAX";
    for limit in [None, Some("50")] {
        let setup = Setup::new();
        let mut scene = Scene::start(match limit {
            Some(limit) => setup.env(name, limit),
            None => setup,
        });
        let mut refused = 0;
        for round in 0..8 {
            // The flood comes from elsewhere: the scene's own clients are within their limit.
            let mut wires: Vec<Wire> =
                (0..250).map(|_| scene.server.wire_from([127, 0, 0, 66])).collect();
            for wire in &mut wires {
                wire.send(&Handshake::new().bytes());
            }
            if round % 2 == 0 {
                scene.check();
            }
            // Half of them do not wait for the answer.
            for wire in wires.iter_mut().skip(125) {
                refused += u32::from(wire.head().status == 429);
            }
        }
        if limit.is_none() {
            assert_eq!(refused, 0);
            scene.finish("");
        } else {
            assert!(refused > 500, "{refused}");
            scene.check();
            scene.left(1);
            drop(scene.bystander);
            scene.server.signal(rustix::process::Signal::TERM);
            let Finished { stdout, .. } = scene.server.finish();
            let refusals = stdout.rsplit_once(" by handshakes_per_ip").expect("a count").0;
            let count = refusals.rsplit(' ').next().unwrap_or_default();
            assert!(count.parse::<u32>().expect("a number") >= refused, "{stdout}");
            let lines = stdout.lines().filter(|line| line.contains("began more than")).count();
            assert!(lines < 200, "{lines} lines about a flood");
        }
    }
}

#[test]
fn a_flood_of_publishes() {
    const PUBLISHERS: usize = 6;
    const EACH: usize = 250;
    let mut scene = Scene::start(Setup::new());
    let mut audience = scene.connect_many(12);
    audience.iter_mut().for_each(|client| client.subscribe("flood"));
    let mut publishers: Vec<Http> = (0..PUBLISHERS).map(|_| Http::new(&scene.server)).collect();
    let padding = "x".repeat(500);
    // All requests of a publisher are on their way at once.
    for (index, publisher) in publishers.iter_mut().enumerate() {
        let request = |number| {
            let data = format!("{index} {number} {padding}");
            Request::events(&json!({"name": "e", "channel": "flood", "data": data}).to_string())
        };
        let bytes: Vec<u8> = (0..EACH).flat_map(|number| request(number).bytes()).collect();
        publisher.wire.send(&bytes);
    }
    scene.check();
    let mut order: Option<Vec<(usize, usize)>> = None;
    for client in &mut audience {
        let mut next = [0; PUBLISHERS];
        let got: Vec<(usize, usize)> = (0..PUBLISHERS * EACH)
            .map(|_| {
                let event = client.event();
                let mut words = event["data"].as_str().expect("data").split(' ');
                let mut number = || words.next().and_then(|word| word.parse().ok()).expect("two");
                let (publisher, number): (usize, usize) = (number(), number());
                assert_eq!(number, next[publisher], "each once, in the order of its publisher");
                next[publisher] += 1;
                (publisher, number)
            })
            .collect();
        assert!(order.get_or_insert_with(|| got.clone()) == &got, "one order for all");
        client.sync();
    }
    for publisher in &mut publishers {
        (0..EACH).for_each(|_| assert_eq!(publisher.wire.reply(true).status, 200));
    }
    drop(audience);
    scene.finish("");
}

#[test]
fn all_connections_in_one_channel() {
    let mut scene = Scene::start(Setup::new());
    let mut crowd = scene.connect_many(2_500);
    crowd.iter_mut().for_each(|client| client.send_subscribe("all", None));
    crowd.iter_mut().for_each(|client| client.expect(&crate::support::succeeded("all")));
    for number in 0..4 {
        scene.server.publish("all", "e", &number.to_string());
    }
    scene.check();
    for client in &mut crowd {
        for number in 0..4 {
            client.expect(&format!(r#"{{"event":"e","data":"{number}","channel":"all"}}"#));
        }
    }
    let request = Request::get("/channels/all").query("info", "subscription_count");
    let body = r#"{"occupied":true,"subscription_count":2500}"#;
    assert_eq!(scene.server.answer(&request), (200, body.to_owned()));
    drop(crowd);
    scene.finish("");
}

#[test]
fn many_channels_of_few_connections_are_served() {
    const EACH: usize = 5_000;
    let setup = Setup::new().env("RINGVERB_CHANNELS_PER_CONNECTION_MAX", "5000");
    let mut scene = Scene::start(setup.env("RINGVERB_CONNECTION_BYTES_MAX", "8000000"));
    let mut clients = scene.connect_many(10);
    for (index, client) in clients.iter_mut().enumerate() {
        for first in (0..EACH).step_by(500) {
            let text = |number| {
                let data = json!({ "channel": format!("c-{index}-{number}") });
                frame::text(&json!({ "event": "pusher:subscribe", "data": data }).to_string())
            };
            client.send_bytes(&(first..first + 500).flat_map(text).collect::<Vec<u8>>());
            // Channels have different homes, which answer as they come to it.
            let name = |number| crate::support::succeeded(&format!("c-{index}-{number}"));
            let mut due: BTreeSet<String> = (first..first + 500).map(name).collect();
            (0..500).for_each(|_| assert!(due.remove(&client.text())));
        }
    }
    scene.check();
    for (index, client) in clients.iter_mut().enumerate() {
        for number in [0, 1, EACH - 1] {
            let channel = format!("c-{index}-{number}");
            scene.server.publish(&channel, "e", "x");
            client.expect(&format!(r#"{{"event":"e","data":"x","channel":"{channel}"}}"#));
        }
        client.sync();
    }
    let listed = crate::support::json(&scene.server.get("/channels"));
    assert_eq!(listed["channels"].as_object().map(serde_json::Map::len), Some(10 * EACH + 1));
    drop(clients);
    scene.finish("");
}

#[test]
fn many_clients_that_never_read() {
    const SLOW: usize = 150;
    let setup = Setup::new().env("RINGVERB_SEND_QUEUE_BYTES_MAX", "65536");
    let mut scene = Scene::start(setup);
    let mut slow: Vec<Client> = (0..SLOW).map(|_| small_window(&scene.server)).collect();
    slow.iter_mut().for_each(|client| client.subscribe("news"));
    let mut quick = scene.connect_many(4);
    quick.iter_mut().for_each(|client| client.subscribe("news"));
    let before = resident_bytes(scene.server.id());
    let text = "x".repeat(9_000);
    let mut number = 0;
    eventually("the slow are out", || {
        for _ in 0..20 {
            scene.server.publish("news", "e", &format!("{number} {text}"));
            for client in &mut quick {
                let event = client.text();
                assert!(event.starts_with(&format!(r#"{{"event":"e","data":"{number} x"#)));
            }
            number += 1;
        }
        (scene.server.open_connections() == 5).then_some(())
    });
    scene.check();
    for client in &mut slow {
        // Without gaps up to the end; which comes in the middle of it for those who do not read their close either.
        for expected in 0.. {
            let Some(Frame { opcode, payload }) = client.wire.frame_or_cut() else { break };
            if opcode == frame::CLOSE {
                assert_eq!(payload[..2], 4100_u16.to_be_bytes());
                break;
            }
            let start = format!(r#"{{"event":"e","data":"{expected} x"#);
            assert!(payload.starts_with(start.as_bytes()), "a gap before {expected}");
        }
    }
    drop((slow, quick));
    // Their queues were 10 MB at least.
    eventually("the memory is back", || {
        (resident_bytes(scene.server.id()) < before + (8 << 20)).then_some(())
    });
    scene.finish(&format!("{SLOW} by slow_consumer"));
}

#[test]
fn thousands_leave_at_once() {
    let mut scene = Scene::start(Setup::new());
    for resets in [false, true] {
        let mut crowd = scene.connect_many(2_500);
        for (client, number) in crowd.iter_mut().zip(0_usize..) {
            client.send_subscribe(&format!("room-{}", number % 50), None);
        }
        crowd.iter_mut().for_each(|client| assert!(client.text().contains("succeeded")));
        let mut left = crowd.into_iter();
        for _ in 0..10 {
            for client in left.by_ref().take(250) {
                if resets {
                    reset(&client);
                }
                drop(client);
            }
            // In the middle of it.
            scene.server.connect().ask(PING, PONG);
        }
        scene.check();
        scene.left(1);
    }
    scene.finish("");
}

#[test]
fn all_come_back_at_once() {
    let mut scene = Scene::start(Setup::new());
    let mut crowd: Vec<Client> = Vec::new();
    for _ in 0..4 {
        crowd.drain(..).for_each(|client| reset(&client));
        crowd = scene.connect_many(1_000);
        crowd.iter_mut().for_each(|client| client.send_subscribe("all", None));
        crowd.iter_mut().for_each(|client| client.expect(&crate::support::succeeded("all")));
        scene.check();
        let request = Request::get("/channels/all").query("info", "subscription_count");
        eventually("no ghost of the last crowd", || {
            let body = scene.http.ask(&request).body;
            (body == r#"{"occupied":true,"subscription_count":1000}"#).then_some(())
        });
    }
    drop(crowd);
    scene.finish("");
}

#[test]
fn heads_and_bodies_without_end() {
    let setup = Setup::new().env("REVERB_MAX_REQUEST_SIZE", "100000");
    let mut scene = Scene::start(setup);
    let field = format!("X-Bomb: {}\r\n", "b".repeat(990));
    let head = format!("GET /app/app-key HTTP/1.1\r\nHost: x\r\n{}", field.repeat(40));
    let fields = format!("GET /up HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200));
    let post = "POST /apps/1001/events HTTP/1.1\r\nHost: x\r\n";
    let length = format!("{post}Content-Length: 999999999999999999999\r\n\r\n");
    let chunk = format!("{:x}\r\n{}\r\n", 10_000, "z".repeat(10_000)).repeat(20);
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunk}");
    for (bomb, status) in [(head, 431), (fields, 431), (length, 413), (chunked, 413)] {
        let mut wires: Vec<Wire> = (0..50).map(|_| scene.server.wire()).collect();
        for wire in &mut wires {
            wire.send_to_closing(bomb.as_bytes());
        }
        for wire in &mut wires {
            assert_eq!(wire.head().status, status);
            // More of it is not read for long.
            wire.send_to_closing(bomb.as_bytes());
        }
        scene.check();
        wires.iter_mut().for_each(|wire| drain(&mut wire.stream));
    }
    scene.finish("100 by request_too_large, 100 by head_too_large");
}

#[test]
fn deeply_nested_json_is_refused_without_harm() {
    let setup = Setup::new().env("REVERB_MAX_REQUEST_SIZE", "400000");
    let scene = Scene::start(setup.env("REVERB_APP_MAX_MESSAGE_SIZE", "400000"));
    let mut client = scene.server.connect();
    let (mut malformed, mut invalid) = (0, 0);
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [1_023, 1_024, 1_025, 50_000] {
            let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            for text in [nested.clone(), format!(r#"{{"event":"client-x","data":{nested}}}"#)] {
                client.ask(&text, &error_event(4200, "Invalid message format"));
                malformed += 1;
            }
            let body = format!(r#"{{"name":"e","channel":"deep","data":{nested}}}"#);
            let (status, _) = scene.server.answer(&Request::events(&body));
            assert!((400..500).contains(&status), "{status}");
            invalid += 1;
        }
    }
    client.ask(PING, PONG);
    drop(client);
    scene.finish(&format!("{malformed} by malformed, {invalid} by invalid_request"));
}

#[test]
fn messages_in_tiny_pieces() {
    const MOST: usize = 10_000;
    let mut scene = Scene::start(Setup::new());
    let pieces = |text: &str| {
        let (first, rest) = text.as_bytes().split_at(1);
        let (rest, last) = rest.split_at(rest.len() - 1);
        let mut bytes = frame::raw(frame::TEXT, first);
        rest.iter().for_each(|byte| bytes.extend(frame::raw(frame::CONTINUATION, &[*byte])));
        bytes.extend(frame::raw(frame::FIN | frame::CONTINUATION, last));
        bytes
    };
    let ping = |length: usize| {
        let shortest = r#"{"event":"pusher:ping","data":{"x":""}}"#.len();
        format!(r#"{{"event":"pusher:ping","data":{{"x":"{}"}}}}"#, "y".repeat(length - shortest))
    };
    let mut client = scene.server.connect();
    for length in [100, MOST - 1, MOST] {
        client.send_bytes(&pieces(&ping(length)));
        client.expect(PONG);
    }
    // Pieces of nothing, at length, and then a message all the same.
    let nothing = frame::raw(frame::CONTINUATION, b"").repeat(20_000);
    client.send_bytes(&frame::raw(frame::TEXT, b"{\"event\":"));
    for _ in 0..5 {
        client.send_bytes(&nothing);
        scene.check();
    }
    client.send_bytes(&frame::raw(frame::FIN | frame::CONTINUATION, b"\"pusher:ping\"}"));
    client.expect(PONG);
    client.send_bytes(&pieces(&ping(MOST + 1)));
    assert_eq!(client.closed().0, 1009);
    // Many of them, none of whose messages ever ends.
    let mut crowd = scene.connect_many(200);
    for client in &mut crowd {
        client.send_bytes(&frame::raw(frame::TEXT, b"{"));
        client.send_bytes(&frame::raw(frame::CONTINUATION, b"x").repeat(5_000));
    }
    scene.check();
    drop(crowd);
    scene.finish("1 by message_too_large");
}

#[test]
fn floods_of_pings_do_not_delay_other_clients() {
    const FLOODERS: usize = 10;
    const ROUNDS: usize = 3;
    let mut scene = Scene::start(Setup::new());
    // A client that reads, and sends at a usual rate, receives every answer, in order.
    let mut reader = scene.server.connect();
    for batch in 0..8 {
        let numbers = (0..10).map(|number| batch * 10 + number);
        let ping =
            |number: i32| frame::raw(frame::FIN | frame::PING, number.to_string().as_bytes());
        reader.send_bytes(&numbers.clone().flat_map(ping).collect::<Vec<u8>>());
        for number in numbers {
            let payload = number.to_string().into_bytes();
            assert_eq!(reader.frame(), Frame { opcode: frame::PONG, payload });
        }
    }
    // Of clients that read nothing, the server keeps next to nothing, however many pings they send.
    let before = resident_bytes(scene.server.id());
    let pings = frame::raw(frame::FIN | frame::PING, &[b'p'; 125]).repeat(20_000);
    let mut flooders: Vec<Client> = (0..FLOODERS).map(|_| small_window(&scene.server)).collect();
    for _ in 0..ROUNDS {
        flooders.iter_mut().for_each(|client| client.send_bytes(&pings));
        scene.check();
    }
    let after = resident_bytes(scene.server.id());
    assert!(after < before + (4 << 20), "{before} {after}");
    let open = FLOODERS as u64 + 2;
    assert_eq!(scene.server.open_connections(), open);
    drop((flooders, reader));
    let (refusals, stdout) = scene.refused();
    assert!(refusals.ends_with(" by control_frame_rate"), "{stdout}");
}

#[test]
fn compression_is_not_taken_up() {
    let mut scene = Scene::start(Setup::new());
    let offer = "permessage-deflate; client_max_window_bits, permessage-deflate";
    let handshake = Handshake::new().header("Sec-WebSocket-Extensions", offer);
    let mut wire = scene.server.wire();
    wire.send(&handshake.bytes());
    let (client, head) = Client::upgraded(wire);
    assert_eq!(head.header("sec-websocket-extensions"), None);
    let mut client = client.established();
    client.ask(PING, PONG);
    // So a client that compresses anyway breaks the protocol.
    client.send_bytes(&frame::raw(frame::FIN | 0x40 | frame::TEXT, b"\xaa\x56\x4a"));
    assert_eq!(client.closed().0, 1002);
    scene.check();
    scene.finish("1 by violation");
}

/// Unfinished requests are cut off, and counted; the server waits for no client.
#[test]
fn unfinished_handshakes_are_cut_off_and_counted() {
    let mut scene = Scene::start(Setup::new().env("RINGVERB_HANDSHAKE_TIMEOUT", "1"));
    let mut wires: Vec<Wire> = (0..300).map(|_| scene.server.wire()).collect();
    for (wire, number) in wires.iter_mut().zip(0_usize..) {
        let bytes = Handshake::new().bytes();
        // From not a byte to all but the last.
        wire.send(&bytes[..(bytes.len() - 1) * (number % 10) / 9]);
    }
    scene.check();
    for wire in &mut wires {
        drain(&mut wire.stream);
        // The peer is gone; more of it goes nowhere.
        let _ = wire.stream.write_all(b"x");
    }
    scene.http = Http::new(&scene.server);
    scene.finish("30 by nothing_sent, 270 by request_timeout");
}
