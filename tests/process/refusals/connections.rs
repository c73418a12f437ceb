//! Connections that the server closes.

use std::io::ErrorKind;
use std::io::Write;
use std::time::Duration;

use ringverb::cause::Cause;
use serde_json::json;

use super::case::{Answer, Case, Seen, error_of, silence};
use crate::support::{
    Client, Request, Wire, eventually, frame, sign, small_window, wire_with_small_window,
};

fn closed(mut client: Client, bytes: &[u8]) -> Seen {
    client.send_bytes(bytes);
    let (code, reason) = client.closed();
    Seen::socket(&client, Answer::Close(code, reason))
}

/// An error and a close frame of the same code, after events.
fn ended(mut client: Client) -> Seen {
    let event = loop {
        let event = client.event();
        if event["event"] == "pusher:error" {
            break event;
        }
    };
    let answer = error_of(&event);
    let Answer::Error(code, _) = &answer else { panic!("an error") };
    assert_eq!(u64::from(client.closed().0), *code);
    Seen::socket(&client, answer)
}

const UP: &[u8] = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n";

/// A kept connection that the server has accepted. Silent ones are accepted later, in any order.
fn answered(mut wire: Wire) -> Wire {
    wire.send(UP);
    assert_eq!(wire.reply(true).status, 200);
    wire
}

#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    Case {
        cause: Cause::NothingSent, env: &[("RINGVERB_HANDSHAKE_TIMEOUT", "1")],
        act: |server| silence(server, b""),
        answer: "",
        line: "a connection was closed because it sent nothing for 1 s: is it a health check that only connects?",
    },
    Case {
        cause: Cause::RequestTimeout, env: &[("RINGVERB_HANDSHAKE_TIMEOUT", "1")],
        act: |server| silence(server, b"GET /up HTT"),
        answer: "",
        line: "a connection was closed because its request was not complete after 1 s (RINGVERB_HANDSHAKE_TIMEOUT)",
    },
    Case {
        cause: Cause::AnswerUnread, env: &[("RINGVERB_HANDSHAKE_TIMEOUT", "1")],
        act: |server| {
            let mut wire = wire_with_small_window(server);
            wire.stream.set_write_timeout(Some(Duration::from_millis(200))).expect("SO_SNDTIMEO");
            let requests = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
            let seen = Seen::http(&wire, Answer::Silence);
            // First the buffers fill, then the server closes.
            eventually("the end of the connection", || match wire.stream.write_all(&requests) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => Some(()),
                _ => None,
            });
            seen
        },
        answer: "",
        line: "a connection was closed because it did not read its answer within 1 s (RINGVERB_HANDSHAKE_TIMEOUT)",
    },
    Case {
        cause: Cause::HttpConnections, env: &[("descriptors", "250")],
        act: |server| {
            let mut wires: Vec<Wire> = (0..65).map(|_| answered(server.wire())).collect();
            wires[0].ended();
            Seen::http(&wires[0], Answer::Silence)
        },
        answer: "",
        line: "an idle HTTP connection was closed for a newer one: a worker has room for 64; raise LimitNOFILE \
               (ulimit -n), or close idle connections in the proxy sooner",
    },
    Case {
        cause: Cause::SocketsPerIp, env: &[("RINGVERB_CONNECTIONS_PER_IP_MAX", "1")],
        act: |server| {
            let mut wires: Vec<Wire> = (0..64).map(|_| answered(server.wire())).collect();
            let mut newest = server.wire();
            newest.send(UP);
            wires[0].ended();
            Seen::http(&newest, Answer::Silence)
        },
        answer: "",
        line: "127.0.0.1 has 64 HTTP connections already; RINGVERB_CONNECTIONS_PER_IP_MAX sets the limit, and if this \
               is your proxy or your backend, RINGVERB_TRUSTED_PROXIES must name it",
    },
    Case {
        cause: Cause::MessageTooLarge, env: &[],
        act: |server| closed(server.connect(), &frame::text(&"x".repeat(10_001))),
        answer: "closed 1009 Maximum message size exceeded",
        line: "a connection was closed, its message was larger than 10000 bytes (REVERB_APP_MAX_MESSAGE_SIZE)",
    },
    Case {
        cause: Cause::Violation, env: &[],
        act: |server| closed(server.connect(), &frame::unmasked(frame::FIN | frame::TEXT, b"{}")),
        answer: "closed 1002 Frame is not masked",
        line: "a connection was closed with 1002, because it broke the WebSocket protocol: Frame is not masked; is a \
               proxy or a hand-made client in between?",
    },
    Case {
        cause: Cause::Violation, env: &[],
        act: |server| closed(server.connect(), &frame::raw(frame::FIN | frame::TEXT, b"\xff")),
        answer: "closed 1007 Invalid UTF-8",
        line: "a connection was closed with 1007, because it broke the WebSocket protocol: Invalid UTF-8; is a proxy \
               or a hand-made client in between?",
    },
    Case {
        cause: Cause::NoPong, env: &[("REVERB_APP_PING_INTERVAL", "1"), ("RINGVERB_PONG_TIMEOUT", "1")],
        act: |server| ended(server.connect()),
        answer: "4201 Pong reply not received in time",
        line: "a connection was closed because it did not answer a ping within 1 s: the client or its network is gone",
    },
    Case {
        cause: Cause::NotAuthorizedInTime, env: &[("RINGVERB_AUTHORIZE_WITHIN", "1")],
        act: |server| ended(server.connect()),
        answer: "4009 Connection not authorized within timeout",
        line: "a connection was closed because it neither signed in nor joined a private channel within 1 s \
               (RINGVERB_AUTHORIZE_WITHIN)",
    },
    Case {
        cause: Cause::Terminated, env: &[],
        act: |server| {
            let mut client = server.connect();
            let auth = sign(&[&client.socket_id, "::user::", r#"{"id":"7"}"#]);
            let data = json!({"auth": format!("app-key:{auth}"), "user_data": r#"{"id":"7"}"#});
            client.send(&json!({"event": "pusher:signin", "data": data}).to_string());
            client.event();
            assert_eq!(server.answer(&Request::post("/users/7/terminate_connections", "{}")).0, 200);
            ended(client)
        },
        answer: "4009 Connection terminated by the application",
        line: "a connection of user \"7\" was closed because the app's backend asked for it (terminate_connections)",
    },
];

/// How much waited depends on what the kernel took.
#[test]
fn a_slow_consumer_is_logged_with_its_waiting_bytes() {
    let mut server =
        super::Setup::new().workers(1).env("RINGVERB_SEND_QUEUE_BYTES_MAX", "65536").start();
    let mut client = small_window(&server);
    client.subscribe("news");
    let peer = client.wire.stream.local_addr().expect("an address");
    let data = "x".repeat(9_000);
    // The kernel's buffers take some MB.
    for _ in 0..2_000 {
        server.publish("news", "e", &data);
        if server.open_connections() == 0 {
            break;
        }
    }
    let line = server.line_with("cause=slow_consumer");
    let (_, line) =
        line.split_once("a connection was closed because it does not read: ").expect("the line");
    let (bytes, rest) = line.split_once(' ').expect("a number");
    assert!(bytes.parse::<usize>().expect("a number") > 50_000, "{line}");
    let expected = format!(
        "bytes waited for it (RINGVERB_SEND_QUEUE_BYTES_MAX, RINGVERB_CONNECTION_BYTES_MAX) cause=slow_consumer \
         peer={peer} app=1001 socket={}",
        client.socket_id
    );
    assert_eq!(rest, expected);
    assert_eq!(client.close_code_behind_events(), 4100);
}

/// Descriptors that are gone make accepting pause, and the line says what to raise.
#[test]
fn a_pause_of_accepting_is_logged_with_its_reason() {
    let mut server = super::Setup::new().workers(1).descriptors(64).start();
    let _wires: Vec<Wire> = (0..80).map(|_| server.wire()).collect();
    let line = server.line_with("cause=accept_paused");
    assert!(line.contains("accepting pauses: ") && line.contains("LimitNOFILE"), "{line}");
}
