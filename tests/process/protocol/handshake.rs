//! From the first byte of a connection to `connection_established`, and everything that ends before it
//! (docs/PROTOCOL.md C2, C8, C17, C18, D).

use std::io::ErrorKind;
use std::io::{Read, Write};
use std::time::Duration;

use crate::support::{
    Client, Handshake, Http, PING, PONG, Server, Setup, Wire, eventually, frame, now, schedule,
};

#[test]
fn the_sample_of_the_rfc_and_the_established_frame() {
    let server = Server::start();
    let mut wire = server.wire();
    wire.send(&Handshake::new().bytes());
    let (mut client, head) = Client::upgraded(wire);
    let field = |name: &str| head.header(name).map(str::to_lowercase);
    assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(field("upgrade").as_deref(), Some("websocket"));
    assert_eq!(field("connection").as_deref(), Some("upgrade"));
    assert_eq!(field("content-length"), None);

    let text = client.text();
    let event = crate::support::json(&text);
    let data = crate::support::data(&event);
    let socket_id = data["socket_id"].as_str().expect("a string");
    assert_eq!(
        text,
        format!(
            r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"{socket_id}\",\"activity_timeout\":30}}"}}"#
        )
    );
    client.sync();
}

#[test]
fn socket_ids_have_their_form_and_differ() {
    let server = Setup::new().workers(4).start();
    let clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    let mut ids: Vec<&str> = clients.iter().map(|client| client.socket_id.as_str()).collect();
    for id in &ids {
        let (left, right) = id.split_once('.').expect("a dot");
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        assert!(digits(left) && digits(right), "{id}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 100);
}

#[test]
fn the_activity_timeout_is_the_apps() {
    let server = Setup::new().env("REVERB_APP_ACTIVITY_TIMEOUT", "7").start();
    let event = Client::open(&server, &Handshake::new()).event();
    assert_eq!(crate::support::data(&event)["activity_timeout"].to_string(), "7");
}

#[test]
fn nothing_offered_is_negotiated() {
    let server = Server::start();
    let mut wire = server.wire();
    let offer = Handshake::new()
        .header("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
        .header("Sec-WebSocket-Protocol", "foo, bar")
        .header("Connection", "keep-alive, Upgrade")
        .header("Upgrade", "WebSocket");
    wire.send(&offer.bytes());
    let (client, head) = Client::upgraded(wire);
    assert_eq!(head.header("sec-websocket-extensions"), None);
    assert_eq!(head.header("sec-websocket-protocol"), None);
    client.established().sync();
}

#[test]
fn unsupported_protocol_versions_are_refused() {
    const UNSUPPORTED: (u16, &str) = (4007, "Unsupported protocol version");
    const MALFORMED: (u16, &str) = (4006, "Invalid version string format");
    let server = Server::start();
    for query in ["", "?", "?client=js", "?protocol=5", "?protocol=6", "?protocol=7&x=%zz&&="] {
        let handshake = Handshake::to(&format!("/app/app-key{query}"));
        Client::open(&server, &handshake).established().sync();
    }
    for (version, (code, message)) in [
        ("4", UNSUPPORTED),
        ("8", UNSUPPORTED),
        ("99999999999", UNSUPPORTED),
        ("0", UNSUPPORTED),
        ("99", UNSUPPORTED),
        ("abc", MALFORMED),
        ("", MALFORMED),
        ("-7", MALFORMED),
        ("7.0", MALFORMED),
    ] {
        let handshake = Handshake::to(&format!("/app/app-key?protocol={version}"));
        Client::open(&server, &handshake).refused(code, message);
    }
}

#[test]
fn an_unknown_key_is_an_error_on_the_socket() {
    let server = Server::start();
    for target in ["/app/nope?protocol=7", "/app/APP-KEY", "/app/app-key%00", "/app/%ff"] {
        let mut client = Client::open(&server, &Handshake::to(target));
        client.refused(4001, "Application does not exist");
    }
    // What such a client says is not looked at.
    let mut wire = server.wire();
    wire.send(&[Handshake::to("/app/nope").bytes(), frame::text(PING)].concat());
    Client::upgraded(wire).0.refused(4001, "Application does not exist");
}

#[test]
fn malformed_upgrades_are_refused_with_their_status() {
    let server = Server::start();
    let new = Handshake::new;
    let upgrade = ("upgrade", "websocket");
    let version = ("sec-websocket-version", "13");
    let none = ("connection", "keep-alive");
    let cases = [
        ("no Upgrade", new().without("Upgrade").without("Connection"), 426, upgrade),
        ("Upgrade: h2c", new().header("Upgrade", "h2c"), 426, upgrade),
        ("Connection without it", new().header("Connection", "keep-alive"), 426, upgrade),
        ("version 8", new().header("Sec-WebSocket-Version", "8"), 426, version),
        ("no version", new().without("Sec-WebSocket-Version"), 426, version),
        ("no key", new().without("Sec-WebSocket-Key"), 400, none),
        ("short key", new().header("Sec-WebSocket-Key", "c2hvcnQ="), 400, none),
        (
            "key not base64",
            new().header("Sec-WebSocket-Key", "!!!!!!!!!!!!!!!!!!!!!!=="),
            400,
            none,
        ),
        ("HTTP/1.0", new().line("GET /app/app-key HTTP/1.0"), 426, upgrade),
        ("POST", new().line("POST /app/app-key HTTP/1.1"), 405, ("allow", "GET, HEAD")),
        ("trailing slash", new().line("GET /app/app-key/ HTTP/1.1"), 404, none),
        ("empty key", new().line("GET /app/ HTTP/1.1"), 404, none),
        ("no key at all", new().line("GET /app HTTP/1.1"), 404, none),
        ("deeper", new().line("GET /app/app-key/x HTTP/1.1"), 404, none),
        ("unknown path", new().line("GET /nope HTTP/1.1"), 404, none),
        ("an API path", new().line("GET /up HTTP/1.1"), 400, none),
    ];
    for (name, handshake, status, (field, value)) in cases {
        let reply = Http::new(&server).ask_raw(&handshake.bytes());
        assert_eq!(reply.status, status, "{name}: {reply:?}");
        assert_eq!(reply.head.header(field), Some(value), "{name}: {reply:?}");
        assert!(!reply.body.is_empty(), "{name}");
    }
    let mut http = Http::new(&server);
    http.wire.send(&new().line("HEAD /app/app-key HTTP/1.1").bytes());
    assert_eq!(http.wire.reply(false).status, 405);
}

#[test]
fn after_a_refused_upgrade_the_connection_speaks_http_still() {
    let server = Server::start();
    let mut http = Http::new(&server);
    let reply = http.ask_raw(&Handshake::new().without("Sec-WebSocket-Key").bytes());
    assert_eq!((reply.status, reply.body.as_str()), (400, "Invalid Sec-WebSocket-Key."));
    Client::open_on(http.wire, &Handshake::new()).established().sync();
}

#[test]
fn a_key_may_be_percent_encoded_and_a_target_absolute() {
    let server = Server::start();
    for target in
        ["/app/app%2Dkey?protocol=7", "/app/%61%70p-key", "http://127.0.0.1/app/app-key?protocol=7"]
    {
        Client::open(&server, &Handshake::to(target)).established().sync();
    }
    // Only the key is decoded; the rest of a path is what it is.
    let reply = Http::new(&server).ask_raw(&Handshake::to("/%61pp/app-key").bytes());
    assert_eq!(reply.status, 404);
}

#[test]
fn a_path_prefix_precedes_everything_and_sockets_are_served_without_it_too() {
    for setup in [Setup::new().env("REVERB_SERVER_PATH", "/ws"), Setup::new().arg("--path=ws/")] {
        let server = setup.start();
        Client::open(&server, &Handshake::to("/ws/app/app-key")).established().sync();
        let up = Http::new(&server).ask_raw(b"GET /ws/up HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!((up.status, up.body.as_str()), (200, r#"{"health":"OK"}"#));
        Client::open(&server, &Handshake::to("/app/app-key")).established().sync();
        for target in ["/wsapp/app-key", "/app", "/apps", "/ws/ws/app/app-key", "/up", "/ws"] {
            let reply = Http::new(&server).ask_raw(&Handshake::to(target).bytes());
            assert_eq!(reply.status, 404, "{target}");
        }
    }
}

#[test]
fn frames_may_follow_the_handshake_in_one_packet() {
    // With more cores a pong may overtake a subscription that is asked of another core.
    let server = Setup::new().workers(1).start();
    let subscribe = r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#;
    let frames = [frame::text(PING), frame::text(subscribe), frame::text(PING)].concat();
    // Cut everywhere in the frames, so that a part of one waits while the connection changes hands.
    for cut in 0..=frames.len() {
        let mut wire = server.wire();
        wire.send(&[&Handshake::new().bytes(), &frames[..cut]].concat());
        let (client, _) = Client::upgraded(wire);
        let mut client = client.established();
        client.send_bytes(&frames[cut..]);
        client.expect(PONG);
        client.expect(&crate::support::succeeded("news"));
        client.expect(PONG);
        client.sync();
    }
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let server = Server::start();
    let mut wire = server.wire();
    for byte in Handshake::new().bytes() {
        wire.send(&[byte]);
    }
    Client::upgraded(wire).0.established().sync();
}

#[test]
fn a_half_sent_head_is_cut_off() {
    let setup = Setup::new().env("RINGVERB_HANDSHAKE_TIMEOUT", "1");
    let server = setup.env("RINGVERB_KEEPALIVE_TIMEOUT", "1").start();
    let bytes = Handshake::new().bytes();
    let body = b"POST /apps/1001/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf";
    let half = bytes.len() - 1;
    let mut wires: Vec<_> = [&bytes[..0], &bytes[..1], &bytes[..60], &bytes[..half], body]
        .iter()
        .map(|part| {
            let mut wire = server.wire();
            wire.send(part);
            wire
        })
        .collect();
    // A connection kept alive for nothing.
    let mut http = Http::new(&server);
    assert_eq!(http.ask_raw(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    wires.push(http.wire);
    // An established connection has no such deadline: it outlives all of them.
    let mut client = server.connect();
    for wire in &mut wires {
        wire.ended();
    }
    client.ask(PING, PONG);
}

#[test]
fn drops_of_a_head_do_not_move_its_deadline() {
    let server = Setup::new().env("RINGVERB_HANDSHAKE_TIMEOUT", "1").start();
    let mut stream = server.wire().stream;
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    stream.write_all(b"GET /app/app-key HTTP/1.1\r\nX-Slow: ").expect("a start");
    eventually("the head is cut off", || {
        // The read is the pause; an error of the write is the end that is waited for.
        let sent = stream.write_all(b"z");
        match (sent, stream.read(&mut [0; 16])) {
            (Err(_), _) | (_, Ok(0)) => Some(()),
            (_, Ok(_)) => panic!("an answer to half a head"),
            (_, Err(error)) => (error.kind() != ErrorKind::WouldBlock).then_some(()),
        }
    });
}

#[test]
fn other_origins_than_the_allowed_ones_are_refused() {
    const REFUSED: (u16, &str) = (4009, "Origin not allowed");
    let origins = "example.com, *.foo.test,https://full.test";
    for missing in [false, true] {
        let setup = Setup::new().env("RINGVERB_ALLOWED_ORIGINS", origins);
        let setup = setup.env("RINGVERB_ALLOW_MISSING_ORIGIN", &missing.to_string());
        let server = setup.start();
        for (origin, allowed) in [
            (Some("https://example.com"), true),
            (Some("http://example.com:8080"), true),
            (Some("https://a.foo.test"), true),
            (Some("https://full.test"), true),
            (Some("https://foo.test"), false),
            (Some("http://full.test"), false),
            (Some("https://evil.com"), false),
            (Some("https://example.com.evil.com"), false),
            (Some("null"), false),
            (Some(""), false),
            (None, missing),
        ] {
            let mut handshake = Handshake::new();
            if let Some(origin) = origin {
                handshake = handshake.header("Origin", origin);
            }
            let mut client = Client::open(&server, &handshake);
            if allowed {
                client.established().sync();
            } else {
                client.refused(REFUSED.0, REFUSED.1);
            }
        }
        // Bytes that are no text are an origin that is not allowed, and not a missing one.
        let bytes = Handshake::new().header("Origin", "BYTES").bytes();
        let at = bytes.windows(5).position(|window| window == b"BYTES").expect("the field");
        let mut wire = server.wire();
        wire.send(&[&bytes[..at], b"https://\xff", &bytes[at + 5..]].concat());
        Client::upgraded(wire).0.refused(REFUSED.0, REFUSED.1);
    }
}

#[test]
fn a_connection_over_quota_is_closed_and_a_freed_place_is_usable() {
    const QUOTA: &str = "Application is over connection quota";
    let setup = Setup::new().env("REVERB_APP_MAX_CONNECTIONS", "2").workers(4);
    let server = setup.start();
    // No connection is subscribed: open connections count, not subscribed ones.
    let (first, mut second) = (server.connect(), server.connect());
    for _ in 0..10 {
        Client::open(&server, &Handshake::new()).refused(4004, QUOTA);
    }
    assert_eq!(server.open_connections(), 2);
    first.close();
    let mut third = server.connect();
    Client::open(&server, &Handshake::new()).refused(4004, QUOTA);
    third.ask(PING, PONG);
    second.ask(PING, PONG);
    // A connection that vanishes frees its place too, as soon as its end was seen.
    drop(third);
    eventually("the place is free", || {
        let mut client = Client::open(&server, &Handshake::new());
        let event = client.event();
        (event["event"] == "pusher:connection_established").then_some(())
    });
}

#[test]
fn over_quota_may_invite_to_come_back() {
    let setup = Setup::new().env("REVERB_APP_MAX_CONNECTIONS", "1");
    let server = setup.env("RINGVERB_OVER_QUOTA_CODE", "4100").start();
    let _client = server.connect();
    let mut client = Client::open(&server, &Handshake::new());
    client.refused(4100, "Application is over connection quota");
}

#[test]
fn errors_may_be_objects() {
    let server = Setup::new().env("RINGVERB_ERROR_DATA", "object").start();
    let mut client = server.connect();
    client.ask(
        "not json",
        r#"{"event":"pusher:error","data":{"code":4200,"message":"Invalid message format"}}"#,
    );
}

/// Handshakes that arrive while the server ends idle connections. A canceled operation once still used the descriptor
/// of such a socket when the WebSocket took it, which ended the whole process.
///
/// The server counts deadlines in seconds of its own clock. The first round finds the end of such a second by
/// handshakes over more than a second; each further round sends all handshakes within 40 ms around the end of one.
#[test]
fn a_handshake_that_arrives_as_its_deadline_expires_does_not_end_the_server() {
    const CONNECTIONS: usize = 400;
    const ROUNDS_MAX: u32 = 12;
    /// Rounds in which the server has answered some of the handshakes and closed the other connections.
    const HITS: u32 = 4;
    const SECOND: Duration = Duration::from_secs(1);
    const STEP: Duration = Duration::from_millis(10);
    let setup = Setup::new().workers(1).env("RINGVERB_HANDSHAKE_TIMEOUT", "1");
    let server = setup.env("RINGVERB_KEEPALIVE_TIMEOUT", "1").start();
    let handshake = Handshake::to("/app/no-such-key").bytes();
    let mut expiry = None;
    let mut hits = 0;
    for round in 0..ROUNDS_MAX {
        let mut wires: Vec<_> = (0..CONNECTIONS).map(|_| server.wire()).collect();
        for wire in &mut wires {
            wire.send(b"GET /up HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for wire in &mut wires {
            assert_eq!(wire.reply(true).status, 200);
        }
        // Each deadline is the end of the first second of the server's clock that begins after its answer.
        let answered = now();
        let (start, pause) = match expiry {
            None => (answered + SECOND - 5 * STEP, Duration::from_millis(3)),
            Some(mut end) => {
                while end < answered + SECOND {
                    end += SECOND;
                }
                (end - 2 * STEP, Duration::from_micros(100))
            }
        };
        let mut sent = Vec::new();
        for (due, wire) in schedule(start, pause).zip(&mut wires) {
            sent.push(due);
            wire.send_to_closing(&handshake);
        }
        let answers: Vec<bool> = wires.iter_mut().map(Wire::is_answered).collect();
        expiry = match answers.iter().position(|is_answered| !is_answered) {
            Some(0) => expiry.map(|end| end - STEP),
            Some(first) => {
                hits += u32::from(expiry.is_some());
                Some(sent[first])
            }
            None => expiry.map(|end| end + STEP),
        };
        drop(wires);
        let reply = Http::new(&server).ask_raw(b"GET /up HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(reply.status, 200, "round {round}");
        if hits == HITS {
            return;
        }
    }
    assert!(hits > 0, "no handshakes met their deadline in {ROUNDS_MAX} rounds");
}
