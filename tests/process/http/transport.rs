//! HTTP itself: keep-alive, pipelining, framing of bodies, limits, and requests recorded from Laravel, sent again
//! byte for byte (docs/PROTOCOL.md C9 rule 59, C20 rules 115 to 117, D).

use std::path::Path;
use std::time::Duration;

use crate::support::{Client, Http, Request, Server, Setup, eventually, now};
use serde_json::Value;

const EVENT: &str = r#"{"name":"e","channel":"news","data":"x"}"#;
const UP: &[u8] = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n";

fn subscribed(server: &Server) -> Client {
    let mut client = server.connect();
    client.subscribe("news");
    client
}

#[track_caller]
fn expect_event(client: &mut Client, data: &str) {
    client.expect(&format!(r#"{{"event":"e","data":"{data}","channel":"news"}}"#));
}

#[test]
fn a_connection_serves_many_requests() {
    let server = Server::start();
    let mut client = subscribed(&server);
    let mut http = Http::new(&server);
    for number in 0..50 {
        let body = format!(r#"{{"name":"e","channel":"news","data":"{number}"}}"#);
        let reply = http.ask(&Request::events(&body));
        assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
        assert_eq!(reply.head.header("connection"), Some("keep-alive"));
        expect_event(&mut client, &number.to_string());
        // A refusal that is understood ends nothing.
        let status = match number % 3 {
            0 => http.ask(&Request::events("{}")).status,
            1 => http.ask(&Request::get("/channels").signature("x")).status,
            _ => http.ask(&Request::get("/nope")).status,
        };
        assert_eq!(status, [422, 401, 404][number % 3]);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Setup::new().workers(4).start();
    let mut client = subscribed(&server);
    let mut http = Http::new(&server);
    let mut bytes = Vec::new();
    for number in 0..10 {
        let body = format!(
            r#"{{"name":"e","channel":"news","data":"{number}","info":"subscription_count"}}"#
        );
        bytes.extend(match number % 3 {
            0 => Request::events(&body).bytes(),
            1 => Request::get(&format!("/channels/c{number}")).bytes(),
            _ => UP.to_vec(),
        });
    }
    http.wire.send(&bytes);
    for number in 0..10 {
        let expected = match number % 3 {
            0 => r#"{"channels":{"news":{"subscription_count":1}}}"#,
            1 => r#"{"occupied":false}"#,
            _ => r#"{"health":"OK"}"#,
        };
        let reply = http.wire.reply(true);
        assert_eq!((reply.status, reply.body.as_str()), (200, expected), "{number}");
    }
    for number in [0, 3, 6, 9] {
        expect_event(&mut client, &number.to_string());
    }
}

#[test]
fn a_request_may_be_cut_anywhere() {
    let server = Setup::new().workers(1).start();
    let mut client = subscribed(&server);
    let mut http = Http::new(&server);
    let request = Request::events(EVENT);
    for bytes in [request.bytes(), request.chunked_bytes(7)] {
        for cut in 0..bytes.len() {
            http.wire.send(&bytes[..cut]);
            // A round trip gives the server time to read the first part alone.
            client.sync();
            http.wire.send(&bytes[cut..]);
            assert_eq!(http.wire.reply(true).body, "{}", "cut at {cut}");
            expect_event(&mut client, "x");
        }
    }
}

#[test]
fn a_chunked_body_is_published() {
    let server = Server::start();
    let mut client = subscribed(&server);
    let mut http = Http::new(&server);
    for chunk_size in [1, 7, 1000] {
        http.wire.send(&Request::events(EVENT).chunked_bytes(chunk_size));
        assert_eq!(http.wire.reply(true).body, "{}");
        expect_event(&mut client, "x");
    }
    // A body that says it is in chunks and is not.
    let mut bytes = Request::events(EVENT).chunked_bytes(1000);
    let start = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    bytes.truncate(start);
    bytes.extend_from_slice(EVENT.as_bytes());
    let reply = http.ask_raw(&bytes);
    assert_eq!((reply.status, reply.body.as_str()), (400, "Bad request."));
    assert_eq!(reply.head.header("connection"), Some("close"));
    http.wire.ended();
    client.sync();
}

#[test]
fn a_client_that_expects_100_continue_receives_it() {
    let server = Server::start();
    let mut client = subscribed(&server);
    let mut http = Http::new(&server);
    let bytes = Request::events(EVENT).header("Expect", "100-continue").bytes();
    let (head, body) = bytes.split_at(bytes.len() - EVENT.len());
    http.wire.send(head);
    let interim = http.wire.head();
    assert_eq!((interim.status, interim.headers.len()), (100, 0));
    http.wire.send(body);
    assert_eq!(http.wire.reply(true).body, "{}");
    expect_event(&mut client, "x");
    // The body is there already, so the server does not ask for it.
    http.wire.send(&bytes);
    let reply = http.wire.reply(true);
    assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
    let reply = http.ask_raw(&Request::events(EVENT).header("Expect", "tea").bytes());
    assert_eq!(reply.status, 417);
}

#[test]
fn a_body_that_will_be_refused_is_not_asked_for() {
    let server = Server::start();
    let mut http = Http::new(&server);
    let head = "POST /apps/1001/events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999\r\n\r\n";
    assert_eq!(http.ask_raw(head.as_bytes()).status, 413);
    http.wire.ended();
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start();
    let mut http = Http::new(&server);
    http.wire.send(b"HEAD /up HTTP/1.1\r\nHost: x\r\n\r\n");
    let reply = http.wire.reply(false);
    assert_eq!((reply.status, reply.head.header("content-length")), (200, Some("15")));
    // Nothing stands between this answer and the next.
    assert_eq!(http.ask(&Request::new("HEAD", "/channels")).status, 200);
    http.wire.send(b"HEAD /nope HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(http.wire.reply(false).status, 404);
    assert_eq!(http.ask_raw(UP).body, r#"{"health":"OK"}"#);
}

/// An event whose request has this many bytes, head and body.
fn request_of(size: usize) -> Vec<u8> {
    let bytes = |padding: usize| {
        let data = "d".repeat(padding);
        let body = format!(r#"{{"name":"e","channel":"none","data":"{data}"}}"#);
        Request::events(&body)
            .query("auth_timestamp", &crate::support::unix_seconds().to_string())
            .bytes()
    };
    let without = bytes(size - 500).len() - (size - 500);
    let request = bytes(size - without);
    assert_eq!(request.len(), size);
    request
}

#[test]
fn requests_have_a_limit() {
    for limit in [10_000, 100_000] {
        let setup = Setup::new().env("REVERB_MAX_REQUEST_SIZE", &limit.to_string());
        let server = setup.start();
        let mut http = Http::new(&server);
        assert_eq!(http.ask_raw(&request_of(limit)).status, 200);
        let reply = http.ask_raw(&request_of(limit + 1));
        assert_eq!((reply.status, reply.body.as_str()), (413, "Payload too large."));
        assert_eq!(reply.head.header("connection"), Some("close"));
        http.wire.ended();
        // Declared is enough.
        for length in [limit.to_string(), "18446744073709551615".to_owned(), "9".repeat(40)] {
            let head = format!(
                "POST /apps/1001/events HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
            );
            assert_eq!(Http::new(&server).ask_raw(head.as_bytes()).status, 413, "{length}");
        }
        let chunk = format!(
            "POST /apps/1001/events HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{limit:x}\r\n"
        );
        assert_eq!(Http::new(&server).ask_raw(chunk.as_bytes()).status, 413);
    }
}

#[test]
fn heads_have_a_limit() {
    let server = Setup::new().env("REVERB_MAX_REQUEST_SIZE", "1000000").start();
    let long = format!("GET /up HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(17_000));
    assert_eq!(Http::new(&server).ask_raw(long.as_bytes()).status, 431);
    let many = format!("GET /up HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(64));
    assert_eq!(Http::new(&server).ask_raw(many.as_bytes()).status, 431);
    let fits = format!("GET /up HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(63));
    assert_eq!(Http::new(&server).ask_raw(fits.as_bytes()).status, 200);
    // A head that never ends is refused before it has ended.
    let endless = format!("GET /up HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(17_000));
    assert_eq!(Http::new(&server).ask_raw(endless.as_bytes()).status, 431);
}

#[test]
fn input_that_is_no_http_is_refused() {
    let server = Server::start();
    let mut witness = subscribed(&server);
    let cases: [(&[u8], u16); 17] = [
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x00\x00\x00\x00", 400),
        (b"GET  /up HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /up HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /up HTTP/2.0\r\n\r\n", 505),
        (b"GET /up\r\n\r\n", 400),
        (b"GET up HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"CONNECT host:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /up HTTP/1.1\r\nHost: h\r\nBad Name: x\r\n\r\n", 400),
        (b"GET /up HTTP/1.1\r\nHost: h\r\nName : x\r\n\r\n", 400),
        (b"GET /up HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", 400),
        (b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ];
    for (bytes, status) in cases {
        let shown = bytes.escape_ascii();
        let mut http = Http::new(&server);
        // What follows is not taken for another request.
        let reply = http.ask_raw(&[bytes, UP].concat());
        assert_eq!(reply.status, status, "{shown}");
        assert_eq!(reply.head.header("connection"), Some("close"), "{shown}");
        http.wire.ended();
        witness.sync();
    }
}

#[test]
fn a_request_names_its_host_once() {
    let server = Server::start();
    let text = "Bad request: HTTP/1.1 needs exactly one Host header field.";
    for head in [
        "GET /up HTTP/1.1\r\n\r\n",
        "GET /up HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET /up HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /app/app-key HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ] {
        let mut http = Http::new(&server);
        let reply = http.ask_raw(head.as_bytes());
        assert_eq!((reply.status, reply.body.as_str()), (400, text), "{head:?}");
        http.wire.ended();
    }
    // Health checks of old proxies speak HTTP/1.0 without one.
    assert_eq!(Http::new(&server).ask_raw(b"GET /up HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn an_answer_before_a_refusal_is_not_lost() {
    let server = Server::start();
    let mut client = subscribed(&server);
    let mut http = Http::new(&server);
    http.wire.send(&[&Request::events(EVENT).bytes(), UP, b"garbage\r\n\r\n"].concat());
    assert_eq!(http.wire.reply(true).body, "{}");
    assert_eq!(http.wire.reply(true).body, r#"{"health":"OK"}"#);
    assert_eq!(http.wire.reply(true).status, 400);
    http.wire.ended();
    expect_event(&mut client, "x");
}

#[test]
fn the_server_closes_only_where_http_requires_it() {
    let server = Server::start();
    for (request, keeps) in [
        ("GET /up HTTP/1.1\r\nHost: x\r\n\r\n", true),
        ("GET /up HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", true),
        ("GET /up HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false),
        ("GET /up HTTP/1.1\r\nHost: h\r\nConnection: foo, Close\r\n\r\n", false),
        ("GET /up HTTP/1.0\r\n\r\n", false),
        ("GET /up HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ("GET /nope HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false),
        ("\r\nGET /up HTTP/1.1\r\nHost: h\r\n\r\n", true),
    ] {
        let mut http = Http::new(&server);
        let reply = http.ask_raw(request.as_bytes());
        let expected = if keeps { "keep-alive" } else { "close" };
        assert_eq!(reply.head.header("connection"), Some(expected), "{request:?}");
        if keeps {
            assert_eq!(http.ask_raw(UP).status, 200, "{request:?}");
        } else {
            http.wire.ended();
        }
    }
}

#[test]
fn a_client_may_close_its_half_and_still_get_its_answer() {
    let server = Server::start();
    let mut http = Http::new(&server);
    http.wire.send(UP);
    http.wire.stream.shutdown(std::net::Shutdown::Write).expect("half closed");
    assert_eq!(http.wire.reply(true).body, r#"{"health":"OK"}"#);
    http.wire.ended();
}

/// The requests as Laravel sent them; the timestamps are of the day of recording.
#[test]
fn recorded_requests_of_laravel_are_accepted() {
    let server = Setup::new().env("RINGVERB_AUTH_WINDOW", "0").start();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/fixtures/laravel");
    let entries = folder.read_dir().expect("the recordings");
    let paths: Vec<_> = entries.map(|entry| entry.expect("a recording").path()).collect();
    assert_eq!(paths.len(), 5);
    for path in paths {
        let bytes = std::fs::read(&path).expect("a recording");
        let at = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let text = std::str::from_utf8(&bytes[at..]).expect("JSON");
        let body = crate::support::json(text);
        let one = [body["channel"].clone()];
        let channels = body["channels"].as_array().map_or(&one[..], Vec::as_slice);
        let mut clients: Vec<Client> = Vec::new();
        for channel in channels.iter().filter_map(Value::as_str) {
            let mut client = server.connect();
            if channel.starts_with("presence-") {
                client.join(channel, r#"{"user_id":1}"#);
            } else if !channel.starts_with('#') {
                client.subscribe(channel);
            }
            clients.push(client);
        }
        for piece in [bytes.len(), 97] {
            let mut http = Http::new(&server);
            bytes.chunks(piece).for_each(|piece| http.wire.send(piece));
            let reply = http.wire.reply(true);
            assert_eq!((reply.status, reply.body.as_str()), (200, "{}"), "{}", path.display());
            for (client, channel) in clients.iter_mut().zip(channels) {
                if !channel.as_str().is_some_and(|name| name.starts_with('#')) {
                    expect_recorded(client, text, channel, &body["name"]);
                }
            }
        }
    }
}

/// The event has the very characters of the recorded body.
fn expect_recorded(client: &mut Client, body: &str, channel: &Value, name: &Value) {
    let start = body.find(r#""data":"#).expect("data") + r#""data":"#.len();
    let mut values = serde_json::Deserializer::from_str(&body[start..]).into_iter::<Value>();
    assert!(values.next().expect("data").expect("data").is_string());
    let data = &body[start..start + values.byte_offset()];
    client.expect(&format!(r#"{{"event":{name},"data":{data},"channel":{channel}}}"#));
}

#[test]
fn the_first_byte_has_less_time_than_the_last() {
    let server = Setup::new().start();
    let silent = server.wire();
    let mut slow = server.wire();
    slow.send(b"GET /up HTTP/1.1\r\n");
    let begin = now();
    eventually("the silent one is closed", || silent.is_closed().then_some(()));
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(3), "{took:?}");
    // Where the test itself was held up, the time of the slow one may be over, too.
    if took < Duration::from_secs(9) {
        slow.send(b"Host: x\r\n\r\n");
        assert_eq!(slow.reply(true).status, 200);
    }
}

#[test]
fn between_two_requests_there_is_more_time_than_for_one() {
    let server = Setup::new().env("RINGVERB_HANDSHAKE_TIMEOUT", "2").start();
    let mut kept = server.wire();
    kept.send(UP);
    assert_eq!(kept.reply(true).status, 200);
    let mut slow = server.wire();
    slow.send(b"GET /up HTTP/1.1\r\n");
    eventually("the time for a request is over", || slow.is_closed().then_some(()));
    kept.send(UP);
    assert_eq!(kept.reply(true).status, 200);
}
