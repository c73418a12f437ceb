//! Limits of each client address: how many connections, how many handshakes and failed authentications a second, and
//! whose word about addresses is taken.

use std::net::Shutdown;

use crate::support::{
    Client, Finished, Handshake, Head, PING, PONG, Request, Server, Setup, eventually, frame,
};

const TOO_MANY: &str = "Too many connections from this address";
const HERE: [u8; 4] = [127, 0, 0, 1];

fn open(server: &Server, source: [u8; 4], handshake: &Handshake) -> Client {
    Client::open_on(server.wire_from(source), handshake)
}

fn connect(server: &Server, source: [u8; 4]) -> Client {
    open(server, source, &Handshake::new()).established()
}

fn forwarded(list: &str) -> Handshake {
    Handshake::new().header("X-Forwarded-For", list)
}

fn limited(most: u16) -> Setup {
    Setup::new().workers(2).env("RINGVERB_CONNECTIONS_PER_IP_MAX", &most.to_string())
}

/// Exactly so many can be open, and so many again once they are gone.
fn room_for(server: &Server, source: [u8; 4], most: usize) -> Vec<Client> {
    let clients: Vec<Client> = (0..most)
        .map(|_| {
            eventually("room", || {
                let mut client = open(server, source, &Handshake::new());
                let text = client.text();
                text.contains("connection_established").then_some(client)
            })
        })
        .collect();
    open(server, source, &Handshake::new()).refused(4100, TOO_MANY);
    clients
}

#[test]
fn an_address_has_so_many_connections() {
    let server = limited(5).start();
    let mut clients: Vec<Client> = (0..5).map(|_| connect(&server, HERE)).collect();
    for _ in 0..4 {
        open(&server, HERE, &Handshake::new()).refused(4100, TOO_MANY);
    }
    // Others have their own, on whichever worker; and requests of the API are no client's connections.
    let others: Vec<Client> = (0..5).map(|_| connect(&server, [127, 0, 0, 2])).collect();
    assert_eq!(server.open_connections(), 10);
    for client in &mut clients {
        client.ask(PING, PONG);
    }
    clients.pop().expect("five").close();
    clients.extend(room_for(&server, HERE, 1));
    drop((clients, others));
    room_for(&server, HERE, 5);
}

/// Whichever way a connection ends, its place is free again.
#[test]
fn every_end_frees_a_place() {
    let setup = limited(3)
        .env("REVERB_APP_MAX_CONNECTIONS", "4")
        .env("RINGVERB_ALLOWED_ORIGINS", "example.com")
        .env("RINGVERB_ALLOW_MISSING_ORIGIN", "true")
        .env("RINGVERB_SEND_QUEUE_BYTES_MAX", "4096");
    let server = setup.start();
    // Without a word, half closed, in order, by a violation, by a close that is never answered, by a reset.
    drop(room_for(&server, HERE, 3));
    for client in room_for(&server, HERE, 3) {
        client.wire.stream.shutdown(Shutdown::Write).expect("half closed");
    }
    let mut clients = room_for(&server, HERE, 3);
    clients.pop().expect("three").close_among_events();
    let mut violator = clients.pop().expect("two");
    violator.send_bytes(&frame::raw(frame::FIN | 3, b""));
    let mut silent = clients.pop().expect("one");
    silent.send_bytes(&frame::raw(frame::FIN | 3, b""));
    // Slow consumers: their pongs are never read.
    for mut client in room_for(&server, HERE, 3) {
        let pings = frame::raw(frame::FIN | frame::PING, &[b'p'; 125]).repeat(60_000);
        client.wire.send_to_closing(&pings);
    }
    let again = room_for(&server, HERE, 3);
    drop((violator, silent));
    // Those who are refused for another reason are not counted at all.
    drop(again);
    let mut held = room_for(&server, HERE, 3);
    held.pop();
    for _ in 0..5 {
        let origin = Handshake::new().header("Origin", "https://evil.test");
        open(&server, HERE, &origin).refused(4009, "Origin not allowed");
        let key = Handshake::to("/app/nobody?protocol=7");
        open(&server, HERE, &key).refused(4001, "Application does not exist");
        let version = Handshake::to("/app/app-key?protocol=4");
        open(&server, HERE, &version).refused(4007, "Unsupported protocol version");
        let mut plain = server.wire_from(HERE);
        plain.send(b"GET /app/app-key HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(plain.head().status, 426);
    }
    held.extend(room_for(&server, HERE, 1));
}

/// Who does not answer pings is closed by the server, and then its place is free.
#[test]
fn the_silent_free_their_places() {
    let setup = limited(3).env("REVERB_APP_PING_INTERVAL", "1").env("RINGVERB_PONG_TIMEOUT", "1");
    let server = setup.start();
    let silent = room_for(&server, HERE, 3);
    let again: Vec<Client> = (0..3)
        .map(|_| {
            eventually("a place", || {
                let mut client = open(&server, HERE, &Handshake::new());
                client.text().contains("connection_established").then_some(client)
            })
        })
        .collect();
    drop((silent, again));
}

/// The app's own quota comes behind the address's count: who is over it gives the place back.
#[test]
fn a_refused_connection_over_the_quota_is_not_counted() {
    let server = limited(3).env("REVERB_APP_MAX_CONNECTIONS", "2").start();
    let two = [connect(&server, HERE), connect(&server, [127, 0, 0, 2])];
    for _ in 0..9 {
        open(&server, HERE, &Handshake::new())
            .refused(4004, "Application is over connection quota");
    }
    drop(two);
    eventually("room", || (server.open_connections() == 0).then_some(()));
    let _two = [connect(&server, HERE), connect(&server, HERE)];
}

#[test]
fn the_log_sums_up_refusals() {
    let mut server = limited(2).start();
    let mut clients: Vec<Client> = (0..2).map(|_| connect(&server, HERE)).collect();
    for _ in 0..3 {
        open(&server, HERE, &Handshake::new()).refused(4100, TOO_MANY);
    }
    let line = server.line_with("refused in ");
    assert!(line.contains(" by connections_per_ip"), "{line}");
    // The next one comes a minute later.
    open(&server, HERE, &Handshake::new()).refused(4100, TOO_MANY);
    server.signal(rustix::process::Signal::TERM);
    for client in &mut clients {
        assert_eq!(client.closed().0, 4100);
    }
    drop(clients);
    let Finished { code, stdout, .. } = server.finish();
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("refused since the start: 4 by connections_per_ip\n"), "{stdout}");
    assert_eq!(stdout.matches("refused in ").count(), 1, "{stdout}");
    assert!(stdout.contains("127.0.0.1 has 2 connections already"), "{stdout}");
    assert!(stdout.contains("RINGVERB_TRUSTED_PROXIES"), "{stdout}");
}

#[test]
fn an_address_begins_so_many_handshakes() {
    let name = "RINGVERB_HANDSHAKES_PER_IP_PER_SECOND_MAX";
    let server = Setup::new().workers(2).env(name, "4").start();
    // A window is a second of the clock, and the next one may begin at any handshake.
    let (mut refused, mut taken) = (0, Vec::new());
    eventually("refusals", || {
        let mut wire = server.wire_from(HERE);
        wire.send(&Handshake::new().bytes());
        let head = wire.head();
        if head.status == 101 {
            taken.push(wire);
            return None;
        }
        assert_eq!(head.status, 429);
        assert_eq!(head.header("retry-after"), Some("1"));
        assert_eq!(head.header("connection"), Some("close"));
        let length = head.header("content-length").and_then(|text| text.parse().ok());
        let body = wire.take(length.expect("a length"));
        assert_eq!(body, b"Too many handshakes: 4 a second from one address; try again.");
        wire.ended();
        refused += 1;
        // Neither another client nor the API is concerned.
        connect(&server, [127, 0, 0, 9]).close();
        assert_eq!(server.answer(&Request::get("/channels")).0, 200);
        (refused >= 3).then_some(())
    });
    assert!(taken.len() >= 4, "{}", taken.len());
    eventually("the next second", || {
        let mut wire = server.wire_from(HERE);
        wire.send(&Handshake::new().bytes());
        (wire.head().status == 101).then_some(())
    });
}

#[test]
fn forwarded_addresses_of_untrusted_peers_are_ignored() {
    let server = limited(1).start();
    let _client = open(&server, HERE, &forwarded("198.51.100.1")).established();
    open(&server, HERE, &forwarded("198.51.100.2")).refused(4100, TOO_MANY);
}

#[test]
fn a_named_proxy_is_believed() {
    let server = limited(1).env("RINGVERB_TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8,::1").start();
    let a = open(&server, HERE, &forwarded("198.51.100.1")).established();
    // The same client, whatever it says of itself, and through however many proxies.
    for list in
        ["198.51.100.1", "1.2.3.4, 198.51.100.1", "198.51.100.1, 10.1.1.1", "198.51.100.1:99"]
    {
        open(&server, HERE, &forwarded(list)).refused(4100, TOO_MANY);
    }
    let _b = open(&server, HERE, &forwarded("198.51.100.1, 198.51.100.2")).established();
    // The proxies of one customer's network of IPv6.
    let _c = open(&server, HERE, &forwarded("2001:db8:0:1::1")).established();
    open(&server, HERE, &forwarded("2001:db8:0:1:ffff::2")).refused(4100, TOO_MANY);
    let _d = open(&server, HERE, &forwarded("2001:db8:0:2::1")).established();
    // Not a proxy of ours.
    let _e = open(&server, [127, 0, 0, 2], &forwarded("198.51.100.9")).established();
    open(&server, [127, 0, 0, 2], &forwarded("198.51.100.8")).refused(4100, TOO_MANY);
    a.close();
    eventually("a place", || {
        let mut client = open(&server, HERE, &forwarded("198.51.100.1"));
        client.text().contains("connection_established").then_some(())
    });
}

/// nginx appends the address it sees to whatever the client wrote, and those may be any bytes.
#[test]
fn bytes_that_are_no_text_do_not_hide_the_address_that_the_proxy_appended() {
    let server = limited(1).env("RINGVERB_TRUSTED_PROXIES", "127.0.0.1").start();
    let open = |list: &[u8]| {
        let bytes = Handshake::new().header("X-Forwarded-For", "LIST").bytes();
        let at = bytes.windows(4).position(|window| window == b"LIST").expect("the field");
        let mut wire = server.wire_from(HERE);
        wire.send(&[&bytes[..at], list, &bytes[at + 4..]].concat());
        Client::upgraded(wire).0
    };
    let _first = open(b"\xff\xfe, 198.51.100.1").established();
    open(b"\xff, 198.51.100.1").refused(4100, TOO_MANY);
    // Another client of the same proxy is another client.
    let _second = open(b"\xff\xfe, 198.51.100.2").established();
}

/// Answers to requests of one address until one is refused for its failures; how many failed before.
fn fail_until_refused(server: &Server, source: [u8; 4], bytes: &[u8]) -> Head {
    eventually("a refusal for too many failures", || {
        let mut wire = server.wire_from(source);
        for _ in 0..5 {
            wire.send(bytes);
            let reply = wire.reply(true);
            if reply.status == 429 {
                let text = "Too many failed authentications: 4 a second from one address";
                assert!(reply.body.starts_with(text), "{}", reply.body);
                // Signed or not: nothing of this address is looked at for the rest of the second.
                return Some(reply.head);
            }
            assert!(matches!(reply.status, 400 | 401 | 404), "{reply:?}");
        }
        None
    })
}

#[test]
fn an_address_may_fail_to_authenticate_so_often() {
    let name = "RINGVERB_AUTH_FAILURES_PER_IP_PER_SECOND_MAX";
    let server = Setup::new().workers(2).env(name, "4").start();
    let unsigned = b"GET /apps/1001/channels HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let unknown = b"GET /apps/1/channels HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let many = format!("GET /apps/1001/channels?{} HTTP/1.1\r\nHost: x\r\n\r\n", "a=b&".repeat(99));
    let wrong = Request::get("/channels").signed_path("/apps/1001/other").bytes();
    for bytes in [unsigned.clone(), unknown, many.into_bytes(), wrong] {
        let head = fail_until_refused(&server, HERE, &bytes);
        assert_eq!(head.header("retry-after"), Some("1"));
    }
    // Only the API is closed to the address, and only for it.
    eventually("a good request refused in a second with failures", || {
        fail_until_refused(&server, HERE, &unsigned);
        let mut wire = server.wire_from(HERE);
        wire.send(&Request::get("/channels").bytes());
        (wire.reply(true).status == 429).then_some(())
    });
    let mut wire = server.wire_from(HERE);
    wire.send(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.reply(true).status, 200);
    connect(&server, HERE).close();
    let mut other = server.wire_from([127, 0, 0, 2]);
    other.send(&Request::get("/channels").bytes());
    assert_eq!(other.reply(true).status, 200);
    eventually("the next second", || {
        let mut wire = server.wire_from(HERE);
        wire.send(&Request::get("/channels").bytes());
        (wire.reply(true).status == 200).then_some(())
    });
    server.signal(rustix::process::Signal::TERM);
    let stdout = server.finish().stdout;
    let line = stdout.lines().find(|line| line.contains("refused since the start: "));
    let line = line.unwrap_or_else(|| panic!("no sum: {stdout}"));
    assert!(
        line.contains(" by unauthenticated") && line.contains(" by auth_failures_per_ip"),
        "{line}"
    );
}

#[test]
fn failures_count_for_the_client_that_a_named_proxy_names() {
    let name = "RINGVERB_AUTH_FAILURES_PER_IP_PER_SECOND_MAX";
    let setup = Setup::new().workers(1).env(name, "4");
    let server = setup.env("RINGVERB_TRUSTED_PROXIES", "127.0.0.1").start();
    let field = "X-Forwarded-For: 198.51.100.1\r\n";
    let bytes = format!("GET /apps/1/channels HTTP/1.1\r\nHost: x\r\n{field}\r\n");
    fail_until_refused(&server, HERE, bytes.as_bytes());
    let good = |client| Request::get("/channels").header("X-Forwarded-For", client);
    assert_eq!(server.answer(&good("198.51.100.2")).0, 200);
}

/// Unknown ids are failed authentications too, and are counted without the option.
#[test]
fn unknown_ids_are_counted() {
    let server = Server::start();
    for _ in 0..3 {
        let (status, body) = server.answer(&Request::to("GET", "/apps/1/channels"));
        assert_eq!((status, body.as_str()), (404, "No matching application for ID [1]."));
    }
    server.signal(rustix::process::Signal::TERM);
    let finished = server.finish();
    assert!(
        finished.stdout.contains("refused since the start: 3 by unauthenticated\n"),
        "{finished:?}"
    );
}

#[test]
fn a_limit_that_is_no_number_is_an_error() {
    for (name, value, text) in [
        (
            "RINGVERB_TRUSTED_PROXIES",
            "10.0.0.0/8, proxy",
            r#"names "proxy", which is neither an address nor"#,
        ),
        ("RINGVERB_CONNECTIONS_PER_IP_MAX", "0", "a number from 1 to 65535"),
        ("RINGVERB_CONNECTIONS_PER_IP_MAX", "65536", "a number from 1 to 65535"),
        ("RINGVERB_HANDSHAKES_PER_IP_PER_SECOND_MAX", "none", "a number, 1 or more"),
        ("RINGVERB_AUTH_FAILURES_PER_IP_PER_SECOND_MAX", "0", "a number, 1 or more"),
        ("RINGVERB_MEMORY_MAX", "512X", "bytes, or a size such as 64K: at least 16M"),
    ] {
        let finished = Setup::new().env(name, value).run();
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains(text) && finished.stderr.contains(name), "{finished:?}");
    }
}
