//! Chance against the running server: bytes, frames, JSON and HTTP that no client sends on purpose. Afterwards a
//! connection that was there all the time still works, others can come, and nothing is left behind.
//!
//! Cases are bounded, so that all of it takes some seconds; a failing case is printed, reduced. The parsers have
//! longer runs of their own in tests/fuzz.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use crate::support::{
    Client, Handshake, Http, PING, PONG, Request, Server, Setup, Wire, drain, eventually, frame,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Bytes that a failure shows as text.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "b\"{}\"", self.0.escape_ascii())
    }
}

/// A server, and a subscriber that no input may disturb.
struct Target {
    server: Server,
    witness: std::cell::RefCell<Client>,
}

impl Target {
    fn start() -> Self {
        let setup = Setup::new().workers(2).env("RINGVERB_AUTH_WINDOW", "0");
        // No ping of the server may come between the witness's own.
        let server = setup.env("REVERB_APP_PING_INTERVAL", "3600").start();
        let mut witness = server.connect();
        witness.subscribe("witness");
        Self { server, witness: witness.into() }
    }

    /// The witness gets its events and its answers, and nothing else.
    fn check(&self) {
        let mut witness = self.witness.borrow_mut();
        witness.ask(PING, PONG);
    }

    fn finish(self) {
        self.server.publish("witness", "e", "x");
        let mut witness = self.witness.into_inner();
        witness.expect(r#"{"event":"e","data":"x","channel":"witness"}"#);
        eventually("the others are gone", || (self.server.open_connections() == 1).then_some(()));
        assert_eq!(self.server.get("/channels"), r#"{"channels":{"witness":{}}}"#);
        witness.close();
        self.server.stop();
    }
}

fn run<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(&Target, S::Value)) {
    let target = Target::start();
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let result = TestRunner::new(config).run(strategy, |value| {
        test(&target, value);
        target.check();
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    target.finish();
}

/// Sends pieces, says that no more comes, and reads until the server ends the connection.
fn send_and_drain(wire: Wire, pieces: &[Bytes]) {
    let mut stream = wire.stream;
    // Longer than the server gives a peer to answer its close frame.
    stream.set_read_timeout(Some(Duration::from_secs(6))).expect("SO_RCVTIMEO");
    for piece in pieces {
        // The server may end the connection at any byte.
        if stream.write_all(&piece.0).is_err() {
            return;
        }
    }
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    drain(&mut stream);
}

/// The same bytes in pieces of that size.
fn cut(parts: &[Bytes], size: usize) -> Vec<Bytes> {
    let bytes = parts.iter().map(|part| part.0.as_slice()).collect::<Vec<_>>().concat();
    bytes.chunks(size).map(|piece| Bytes(piece.to_vec())).collect()
}

/// Bytes in pieces.
fn pieces() -> impl Strategy<Value = Vec<Bytes>> {
    vec(vec(any::<u8>(), 0..200).prop_map(Bytes), 0..6)
}

/// Frames that are right in most things.
fn frames() -> impl Strategy<Value = Vec<Bytes>> {
    let first = prop_oneof![
        8 => prop::sample::select(vec![0x81_u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a, 0x88]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        4 => json().prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..130),
        1 => vec(any::<u8>(), 9_990..10_010),
        1 => Just(vec![0x03, 0xe8]),
    ];
    let whole = (first.clone(), payload).prop_map(|(first, payload)| frame::raw(first, &payload));
    let headers = (first, any::<u64>()).prop_map(|(first, length)| frame::header(first, length));
    vec(prop_oneof![12 => whole, 1 => headers, 1 => vec(any::<u8>(), 1..20)].prop_map(Bytes), 0..12)
}

/// Text that is close to a message of the protocol.
fn json() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "\\u0000",
        "\\ud800",
        "null",
        "true",
        "-0",
        "1e999",
        "7",
        "\"event\":",
        "\"data\":",
        "\"channel\":",
        "\"auth\":",
        "\"channel_data\":",
        "\"user_id\":",
        "\"pusher:subscribe\"",
        "\"pusher:unsubscribe\"",
        "\"pusher:ping\"",
        "\"client-x\"",
        "\"news\"",
        "\"private-p\"",
        "\"presence-r\"",
        "\"cache-c\"",
        "\"#server-to-user-1\"",
        "\"\"",
        "{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":",
        "}}",
        " ",
        "\u{0}",
        "é",
        "😀",
    ]);
    let soup = vec(token, 0..25).prop_map(|tokens| tokens.concat());
    let channels =
        prop::sample::select(vec!["a", "b", "cache-a", "private-a", "presence-a", "é", ""]);
    let events =
        prop::sample::select(vec!["pusher:subscribe", "pusher:unsubscribe", "client-x", "x"]);
    let message = (events, channels, any::<bool>()).prop_map(|(event, channel, inside)| {
        let channel = format!(r#""channel":"{channel}""#);
        if inside {
            format!(r#"{{"event":"{event}","data":{{{channel},"auth":"app-key:x"}}}}"#)
        } else {
            format!(r#"{{"event":"{event}","data":{{}},{channel}}}"#)
        }
    });
    prop_oneof![1 => soup, 2 => message, 1 => sign_in(), 1 => any::<String>()]
}

/// Sign-ins with a right signature would name a socket id; these are wrong in all other ways.
fn sign_in() -> impl Strategy<Value = String> {
    let id = prop::sample::select(vec![
        r#""7""#,
        "7",
        r#""""#,
        "null",
        r#"{"a":1}"#,
        r#""\u0000""#,
        "[]",
    ]);
    let watchlist =
        vec(prop::sample::select(vec![r#""1""#, "2", "null", r#""é""#, "[[]]", "{}"]), 0..150);
    let auth = prop::sample::select(vec![r#""app-key:x""#, r#""""#, "null", "5", r#"":""#]);
    (id, watchlist, auth, any::<bool>()).prop_map(|(id, watchlist, auth, twice)| {
        let list = watchlist.join(",");
        let user_data = format!(r#"{{"id":{id},"user_info":{{}},"watchlist":[{list}]}}"#);
        let user_data = serde_json::Value::from(user_data);
        let data = format!(r#"{{"auth":{auth},"user_data":{user_data}}}"#);
        // Some SDKs encode `data` twice.
        let data = if twice { serde_json::Value::from(data).to_string() } else { data };
        format!(r#"{{"event":"pusher:signin","data":{data}}}"#)
    })
}

/// Heads and bodies that are close to requests.
fn requests() -> impl Strategy<Value = Bytes> {
    let token = prop::sample::select(vec![
        "GET ",
        "POST ",
        "HEAD ",
        "/up",
        "/app/app-key",
        "/apps/1001/events",
        "/apps/1001/channels/",
        "%2F",
        "%",
        "?",
        "protocol=7",
        "&",
        "auth_key=app-key",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "Host: x",
        "Content-Length: 5",
        "Content-Length: ",
        "Transfer-Encoding: chunked",
        "5\r\nhello\r\n0\r\n\r\n",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Expect: 100-continue",
        "Connection: close",
        ": ",
        "\0",
        "é",
    ]);
    let soup = vec(token, 0..30).prop_map(|tokens| tokens.concat().into_bytes());
    let mutated = (any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(
        |(index, byte, upgrade)| {
            let mut bytes = if upgrade {
                Handshake::new().bytes()
            } else {
                Request::events(r#"{"name":"e","channel":"c","data":"x"}"#).bytes()
            };
            let at = index.index(bytes.len());
            bytes[at] = byte;
            bytes
        },
    );
    prop_oneof![soup, mutated].prop_map(Bytes)
}

#[test]
fn bytes_instead_of_a_handshake() {
    run(300, &pieces(), |target, pieces| send_and_drain(target.server.wire(), &pieces));
}

#[test]
fn bytes_after_a_handshake() {
    run(300, &pieces(), |target, pieces| {
        send_and_drain(Client::open(&target.server, &Handshake::new()).wire, &pieces);
    });
}

#[test]
fn frames_in_any_pieces_do_not_harm_the_server() {
    run(300, &(frames(), 1..400_usize), |target, (frames, size)| {
        let pieces = cut(&frames, size);
        send_and_drain(Client::open(&target.server, &Handshake::new()).wire, &pieces);
    });
}

#[test]
fn messages_never_end_a_connection() {
    run(300, &vec(json(), 1..20), |target, messages| {
        let mut client = target.server.connect();
        for message in &messages {
            client.send(message);
        }
        client.send_bytes(&frame::raw(frame::FIN | frame::PING, b"end"));
        // Every answer is JSON with an event; none is a close.
        loop {
            let answer = client.frame();
            if answer.opcode == frame::PONG {
                break;
            }
            assert_eq!(answer.opcode, frame::TEXT);
            let text = String::from_utf8(answer.payload).expect("text in UTF-8");
            assert!(crate::support::json(&text)["event"].is_string(), "{text}");
        }
        client.close_among_events();
    });
}

#[test]
fn requests_that_are_none() {
    run(300, &(vec(requests(), 1..4), 1..300_usize), |target, (requests, size)| {
        let pieces = cut(&requests, size);
        send_and_drain(target.server.wire(), &pieces);
    });
}

#[test]
fn signed_bodies_of_all_kinds() {
    let body = prop_oneof![
        json().prop_map(String::into_bytes),
        (json(), json()).prop_map(|(name, data)| {
            serde_json::json!({"name": name, "channels": [data], "data": data})
                .to_string()
                .into_bytes()
        }),
        vec(any::<u8>(), 0..300),
    ];
    let paths = prop::sample::select(vec![
        "/events",
        "/batch_events",
        "/users/1/terminate_connections",
        "/users/%C3%A9/terminate_connections",
    ]);
    run(300, &(paths, body), |target, (path, body)| {
        let mut http = Http::new(&target.server);
        let reply = http.ask(&Request::new("POST", path).body(&body));
        assert!(matches!(reply.status, 200 | 400 | 413 | 422), "{reply:?}");
        let reply = http.ask(&Request::get("/connections"));
        assert_eq!(reply.status, 200, "after {path}");
    });
}
