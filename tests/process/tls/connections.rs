//! Connections over TLS, and clients that break its rules.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::support::{
    Client, DEADLINE, Handshake, Http, Request, Server, Setup, Wire, eventually, tls, within,
};

fn server() -> Server {
    Setup::new().secure().workers(2).start()
}

#[test]
fn a_client_subscribes_and_receives_events_over_each_version() {
    let mut server = server();
    for version in [&TLS13, &TLS12] {
        server.trust = Some(tls::client_of(&[version]));
        let mut one = server.connect();
        let mut other = server.connect();
        one.subscribe("private-a");
        other.subscribe("private-a");
        server.publish("private-a", "e", "x");
        for client in [&mut one, &mut other] {
            let event = client.event();
            assert_eq!((&event["event"], &event["data"]), (&"e".into(), &"x".into()));
        }
        let secure = one.wire.secure.as_ref().expect("TLS");
        assert_eq!(secure.protocol_version(), Some(version.version));
        one.close();
        other.close();
    }
}

#[test]
fn requests_of_a_kept_connection_are_answered_over_tls() {
    let server = server();
    let mut http = Http::new(&server);
    for number in 0..20 {
        let body = format!(r#"{{"name":"e","channel":"c","data":"{number}"}}"#);
        assert_eq!(http.ask(&Request::events(&body)).status, 200);
    }
    let channels = http.ask(&Request::get("/channels"));
    assert_eq!((channels.status, channels.body.as_str()), (200, r#"{"channels":{}}"#));
}

#[test]
fn messages_larger_than_a_record_arrive_in_both_directions() {
    let setup = Setup::new().env("REVERB_MAX_REQUEST_SIZE", "400000");
    let server = setup.env("REVERB_APP_MAX_MESSAGE_SIZE", "200000").secure().start();
    let mut sender = server.connect();
    sender.subscribe("private-a");
    let mut receiver = server.connect();
    receiver.subscribe("private-a");
    let data = "x".repeat(150_000);
    server.publish("private-a", "e", &data);
    for client in [&mut sender, &mut receiver] {
        assert_eq!(client.event()["data"], data.as_str());
    }
    let text = format!(r#"{{"event":"client-e","channel":"private-a","data":"{data}"}}"#);
    sender.send(&text);
    assert_eq!(receiver.event()["data"], data.as_str());
}

#[test]
fn a_client_that_reads_late_receives_everything_in_order() {
    let server = Setup::new().env("RINGVERB_SEND_QUEUE_BYTES_MAX", "64M").secure().start();
    let wire = crate::support::wire_with_small_window(&server);
    let mut slow = Client::open_on(wire.secured(&tls::client()), &Handshake::new()).established();
    slow.subscribe("a");
    let mut http = Http::new(&server);
    let filler = "y".repeat(8_000);
    for number in 0..200 {
        let body = format!(r#"{{"name":"e","channel":"a","data":"{number} {filler}"}}"#);
        assert_eq!(http.ask(&Request::events(&body)).status, 200);
    }
    for number in 0..200 {
        let event = slow.event();
        let data = event["data"].as_str().expect("a text");
        assert!(data.starts_with(&format!("{number} ")), "{number}: {}", &data[..10]);
    }
    slow.close();
}

#[test]
fn key_updates_of_a_client_are_answered_while_events_pass() {
    let server = server();
    let mut client = server.connect();
    client.subscribe("a");
    for number in 0..50 {
        client.wire.secure.as_mut().expect("TLS").refresh_traffic_keys().expect("TLS 1.3");
        server.publish("a", "e", &number.to_string());
        assert_eq!(client.event()["data"], number.to_string());
        client.sync();
    }
}

#[test]
fn sessions_are_resumed_by_any_worker_in_each_version() {
    let mut server = Setup::new().secure().workers(3).start();
    for version in [&TLS13, &TLS12] {
        server.trust = Some(tls::client_of(&[version]));
        let kind = |server: &Server| {
            let mut http = Http::new(server);
            assert_eq!(http.ask(&Request::get("/channels")).status, 200);
            http.wire.secure.as_ref().expect("TLS").handshake_kind()
        };
        assert_eq!(kind(&server), Some(HandshakeKind::Full));
        for _ in 0..12 {
            assert_eq!(kind(&server), Some(HandshakeKind::Resumed), "{version:?}");
        }
    }
}

#[test]
fn plain_http_gets_a_readable_answer() {
    let mut server = server();
    server.trust = None;
    let reply = Http::new(&server).ask_raw(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (400, "This port is TLS: use https:// or wss://.")
    );
    let line = server.line_with("a client speaks plain HTTP to this port, which is TLS");
    assert!(line.contains("RINGVERB_TLS_PORT"), "{line}");
}

#[test]
fn plain_and_tls_have_a_port_each() {
    let port = crate::support::free_port();
    let mut server = Setup::new().env("RINGVERB_TLS_PORT", &port.to_string()).secure().start();
    let trust = server.trust.take();
    let mut plain = server.connect();
    plain.subscribe("a");
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the TLS port");
    let wire = Wire::new(stream).secured(&trust.expect("TLS"));
    let mut secure = Client::open_on(wire, &Handshake::new()).established();
    secure.subscribe("a");
    server.publish("a", "e", "x");
    assert_eq!(plain.event()["data"], "x");
    assert_eq!(secure.event()["data"], "x");
}

#[test]
fn a_handshake_that_is_not_complete_in_time_is_ended() {
    let mut server = Setup::new().env("RINGVERB_HANDSHAKE_TIMEOUT", "1").secure().start();
    let mut stream = TcpStream::connect(server.address).expect("the server accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream.write_all(&[22, 3, 1, 1, 0, 1]).expect("the beginning of a hello");
    assert_eq!(stream.read(&mut [0; 100]).unwrap_or(0), 0);
    server.line_with("its TLS handshake was not complete after 1 s");
    // A client that is complete afterwards is served.
    server.get("/channels");
}

#[test]
fn garbage_in_place_of_a_handshake_ends_its_connection_only() {
    let server = server();
    let mut client = server.connect();
    client.subscribe("a");
    let hello = hello();
    let mut random = 1_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % u64::try_from(below).expect("small")).expect("small")
    };
    for number in 0..400 {
        let mut bytes = hello.clone();
        match number % 4 {
            0 => bytes = (0..200).map(|_| u8::try_from(next(256)).expect("a byte")).collect(),
            1 => bytes.truncate(next(bytes.len())),
            2 => {
                let at = next(bytes.len());
                bytes[at] ^= 1 << next(8);
            }
            // A second record of another kind, also an empty one, before the first one ends.
            _ => {
                let cut = 9 + next(50);
                let rest = bytes.split_off(cut);
                let [high, low] = u16::try_from(cut - 5).expect("short").to_be_bytes();
                (bytes[3], bytes[4]) = (high, low);
                bytes.extend([
                    [20, 21, 22, 23, 255][next(5)],
                    3,
                    3,
                    0,
                    u8::try_from(next(2)).expect("one"),
                ]);
                bytes.extend(rest);
            }
        }
        let mut stream = TcpStream::connect(server.address).expect("the server accepts");
        // The server may have closed already.
        let _ = stream.write_all(&bytes);
    }
    server.publish("a", "e", "x");
    assert_eq!(client.event()["data"], "x");
}

/// A client hello, as rustls sends it.
fn hello() -> Vec<u8> {
    let mut client = rustls::ClientConnection::new(tls::client(), tls::name()).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a hello");
    bytes
}

#[test]
fn a_record_that_was_changed_ends_the_connection_with_an_alert() {
    let mut server = server();
    let mut client = server.connect();
    client.subscribe("a");
    client.wire.send_changed_record();
    server.line_with(
        "a TLS connection was closed because of its client: it sent a record that does not decrypt",
    );
    let Wire { stream, secure, .. } = &mut client.wire;
    let secure = secure.as_mut().expect("TLS");
    let error = eventually("the end", || {
        secure.read_tls(stream).expect("bytes or the end");
        secure.process_new_packets().err()
    });
    let expected = rustls::AlertDescription::BadRecordMac;
    assert_eq!(error, rustls::Error::AlertReceived(expected));
}

#[test]
fn a_storm_of_handshakes_does_not_stop_deliveries() {
    let server = server();
    let mut client = server.connect();
    client.subscribe("a");
    let address = server.address;
    std::thread::scope(|scope| {
        let storm: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let config = tls::client();
                    for _ in 0..40 {
                        let stream = TcpStream::connect(address).expect("the server accepts");
                        let mut wire = Wire::new(stream).secured(&config);
                        wire.send(b"GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                        assert_eq!(wire.reply(true).status, 200);
                    }
                })
            })
            .collect();
        let mut http = Http::new(&server);
        for number in 0..200 {
            let body = format!(r#"{{"name":"e","channel":"a","data":"{number}"}}"#);
            let limit = Duration::from_secs(5);
            within(limit, "a delivery during handshakes", || {
                assert_eq!(http.ask(&Request::events(&body)).status, 200);
                assert_eq!(client.event()["data"], number.to_string());
            });
        }
        storm.into_iter().for_each(|one| one.join().expect("its handshakes succeed"));
    });
}

#[test]
fn a_client_that_announces_its_end_is_answered_and_leaves() {
    let server = server();
    let mut client = server.connect();
    client.subscribe("a");
    let secure = client.wire.secure.as_mut().expect("TLS");
    secure.send_close_notify();
    let Wire { stream, secure, .. } = &mut client.wire;
    let secure = secure.as_mut().expect("TLS");
    secure.write_tls(stream).expect("the server takes it");
    eventually("close_notify of the server", || {
        secure.read_tls(stream).expect("bytes");
        secure.process_new_packets().expect("TLS").peer_has_closed().then_some(())
    });
    eventually("nobody is left", || {
        (server.get("/channels") == r#"{"channels":{}}"#).then_some(())
    });
}

#[test]
fn commands_accept_the_configured_certificate_only() {
    let server = server();
    let mut client = server.connect();
    client.subscribe("a");
    let command = |setup: Setup, arguments: &[&str]| {
        let finished = setup.args(arguments).run();
        (finished.code, finished.stderr)
    };
    let with = || Setup::client_of(&server).secure();
    assert_eq!(command(with(), &["publish", "a", "e", "{}"]), (Some(0), String::new()));
    assert_eq!(client.event()["event"], "e");
    assert_eq!(command(with(), &["health"]), (Some(0), String::new()));
    let [other, key] = tls::pair("other");
    let foreign = Setup::client_of(&server);
    let foreign = foreign.env("RINGVERB_TLS_CERT", &other).env("RINGVERB_TLS_KEY", &key);
    let (code, stderr) = command(foreign, &["health"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("invalid peer certificate"), "{stderr}");
}

#[test]
fn a_drain_closes_tls_connections_in_order() {
    let server = server();
    let mut client = server.connect();
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(client.close_code_behind_events(), 4100);
    client.wire.ended();
    let finished = server.finish();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
}

#[test]
fn servers_with_one_ticket_secret_resume_the_sessions_of_each_other() {
    let start =
        |secret: &str| Setup::new().secure().env("RINGVERB_TLS_TICKET_SECRET", secret).start();
    let [mut one, mut two] = ["a secret of both nodes"; 2].map(start);
    let mut other = start("a secret of another node");
    for version in [&TLS13, &TLS12] {
        let trust = tls::client_of(&[version]);
        let kind = |server: &mut Server| {
            server.trust = Some(trust.clone());
            let mut http = Http::new(server);
            assert_eq!(http.ask(&Request::get("/channels")).status, 200);
            http.wire.secure.as_ref().expect("TLS").handshake_kind()
        };
        assert_eq!(kind(&mut one), Some(HandshakeKind::Full));
        assert_eq!(kind(&mut two), Some(HandshakeKind::Resumed));
        assert_eq!(kind(&mut one), Some(HandshakeKind::Resumed));
        assert_eq!(kind(&mut other), Some(HandshakeKind::Full));
    }
    let short = Setup::new().secure().env("RINGVERB_TLS_TICKET_SECRET", "short").run();
    assert!(short.stderr.contains("RINGVERB_TLS_TICKET_SECRET has 5 bytes"), "{}", short.stderr);
}
