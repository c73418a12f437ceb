//! RFC 6455 from end to end: what each close frame is answered with, a whole conversation cut wherever TCP may cut it,
//! every form of a length, and that some test provokes each error of the server.
//!
//! `framing.rs` has the violations one by one; `tests/autobahn` runs the cases of others against the same framing.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::frame::{
    CLOSE, CONTINUATION, FIN, PING as PING_FRAME, PONG as PONG_FRAME, TEXT,
};
use crate::support::{
    Client, Frame, Handshake, PING, PONG, Request, Server, Setup, Wire, frame, rust_text_below,
    succeeded,
};
use serde_json::json;

/// What a close frame is answered with: the same, or that it must not be.
fn answer(code: u16, reason: &str) -> (u16, String) {
    // RFC 6455 section 7.4 and the registry it opened: 1004 to 1006 and 1015 are never on the wire, what lies between
    // the registered ones and 3000 is not assigned yet.
    match code {
        1000..=1003 | 1007..=1014 | 3000..=4999 => (code, reason.to_owned()),
        _ => (1002, "Invalid close code".to_owned()),
    }
}

#[test]
fn each_close_code_has_its_answer() {
    let server = Server::start();
    let reserved = 0..=1100_u16;
    let edges = [1999, 2000, 2998, 2999, 3000, 3001, 3999, 4000, 4001, 4200, 4998, 4999];
    let beyond = [5000, 5001, 9999, 32_767, 32_768, 65_534, 65_535];
    for code in reserved.chain(edges).chain(beyond) {
        let mut client = Client::open(&server, &Handshake::new()).established();
        client.send_bytes(&frame::close(code, "why"));
        assert_eq!(client.closed(), answer(code, "why"), "code {code}");
    }
}

#[test]
fn each_close_payload_has_its_answer() {
    let malformed = (1002, "Malformed close frame".to_owned());
    let not_text = (1007, "Invalid UTF-8".to_owned());
    let too_long = (1002, "Control frame is too long".to_owned());
    let close = |reason: &[u8]| [&1000_u16.to_be_bytes()[..], reason].concat();
    let echo = |reason: &str| (close(reason.as_bytes()), (1000, reason.to_owned()));
    let mut cases = vec![
        (Vec::new(), (1000, String::new())),
        echo(""),
        echo("r"),
        echo(&"r".repeat(123)),
        echo(&"€".repeat(41)),
        echo("\0"),
        echo("\u{10ffff}"),
        (close(&[b'r'; 124]), too_long),
        (close(b"\xff"), not_text.clone()),
        (close(b"cut \xe2\x82"), not_text.clone()),
        (close(b"overlong \xc0\xaf"), not_text.clone()),
        (close(b"surrogate \xed\xa0\x80"), not_text.clone()),
        (close(b"beyond \xf4\x90\x80\x80"), not_text),
        // Two faults: the code stands first.
        ([&1005_u16.to_be_bytes()[..], b"\xff"].concat(), answer(1005, "")),
    ];
    cases.extend((0..=255_u8).map(|byte| (vec![byte], malformed.clone())));
    let server = Server::start();
    for (payload, expected) in cases {
        let mut client = server.connect();
        client.send_bytes(&frame::raw(FIN | CLOSE, &payload));
        let shown = payload.escape_ascii();
        assert_eq!(client.closed(), expected, "payload {shown}");
    }
}

/// All that a client of one connection sends, and what it receives.
fn conversation() -> (Vec<u8>, Vec<Frame>) {
    let text = |text: &str| Frame { opcode: TEXT, payload: text.as_bytes().to_vec() };
    let pong = |payload: &[u8]| Frame { opcode: PONG_FRAME, payload: payload.to_vec() };
    let long = format!(r#"{{"event":"pusher:ping","é":"{}"}}"#, "€".repeat(60));
    let (start, rest) = long.as_bytes().split_at(50);
    let (middle, end) = rest.split_at(51);
    let sent = [
        Handshake::new().bytes(),
        frame::text(r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#),
        frame::raw(FIN | PING_FRAME, b"\xff\0"),
        frame::text(PING),
        frame::raw(TEXT, start),
        frame::raw(FIN | PING_FRAME, b"within"),
        frame::raw(CONTINUATION, middle),
        frame::raw(FIN | PONG_FRAME, b""),
        frame::raw(FIN | CONTINUATION, end),
        frame::text(&long),
        frame::close(4321, "bye €"),
    ];
    let received = vec![
        text(&succeeded("news")),
        pong(b"\xff\0"),
        text(PONG),
        pong(b"within"),
        text(PONG),
        text(PONG),
        Frame {
            opcode: CLOSE,
            payload: [&4321_u16.to_be_bytes()[..], "bye €".as_bytes()].concat(),
        },
    ];
    (sent.concat(), received)
}

/// Reads the welcome on a wire on which a handshake was sent.
fn welcomed(wire: Wire) -> Wire {
    let (client, head) = Client::upgraded(wire);
    assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client.established().wire
}

/// All frames to the end.
fn frames(mut wire: Wire) -> Vec<Frame> {
    std::iter::from_fn(|| wire.frame()).collect()
}

#[test]
fn a_conversation_may_be_cut_at_every_byte() {
    let server = Setup::new().workers(1).start();
    let mut other = server.connect();
    let (sent, received) = conversation();
    // At 0 and at the end it is whole.
    for cut in 0..=sent.len() {
        let mut wire = server.wire();
        wire.send(&sent[..cut]);
        // The one worker has most likely read the first segment when it answers another client.
        other.ask(PING, PONG);
        // Nothing stands behind the close frame, so the server is there for all of it.
        wire.send(&sent[cut..]);
        assert_eq!(frames(welcomed(wire)), received, "cut at {cut}");
    }
    assert_eq!(server.open_connections(), 1);
}

/// The same for a client that waits for its welcome: both sockets are the reactor's then, which reads them in turn.
#[test]
fn frames_after_the_greeting_may_be_cut_at_every_byte() {
    let server = Setup::new().workers(1).start();
    let mut other = server.connect();
    let (sent, received) = conversation();
    let (handshake, sent) = sent.split_at(Handshake::new().bytes().len());
    for cut in 0..=sent.len() {
        let mut wire = server.wire();
        wire.send(handshake);
        let mut wire = welcomed(wire);
        wire.send(&sent[..cut]);
        other.ask(PING, PONG);
        wire.send(&sent[cut..]);
        assert_eq!(frames(wire), received, "cut at {cut}");
    }
}

#[test]
fn a_conversation_may_come_byte_by_byte() {
    let server = Setup::new().workers(1).start();
    let mut other = server.connect();
    let (sent, received) = conversation();
    for each_is_read_alone in [false, true] {
        let mut wire = server.wire();
        for byte in &sent {
            wire.send(&[*byte]);
            if each_is_read_alone {
                other.ask(PING, PONG);
            }
        }
        assert_eq!(frames(welcomed(wire)), received, "each byte read alone: {each_is_read_alone}");
    }
}

/// Where a length takes another form, and around.
const LENGTHS: [usize; 8] = [124, 125, 126, 127, 128, 65_535, 65_536, 65_537];

#[test]
fn each_form_of_a_length_is_read() {
    let setup = Setup::new().env("REVERB_APP_MAX_MESSAGE_SIZE", "100000").workers(1);
    let server = setup.start();
    let (mut client, mut other) = (server.connect(), server.connect());
    let around = r#"{"event":"pusher:ping","p":""}"#.len();
    for length in LENGTHS {
        let text = format!(r#"{{"event":"pusher:ping","p":"{}"}}"#, "p".repeat(length - around));
        let bytes = frame::text(&text);
        // Within the header, at its end, and one byte into the payload.
        for cut in 0..=15 {
            client.send_bytes(&bytes[..cut]);
            other.ask(PING, PONG);
            client.send_bytes(&bytes[cut..]);
            assert_eq!(client.text(), PONG, "{length} bytes cut at {cut}");
        }
    }
}

#[test]
fn each_form_of_a_length_is_written() {
    let server = Setup::new().env("REVERB_MAX_REQUEST_SIZE", "100000").start();
    let mut client = server.connect();
    client.subscribe("c");
    let around = r#"{"event":"e","data":"","channel":"c"}"#.len();
    for length in LENGTHS {
        let data = "x".repeat(length - around);
        let body = json!({ "name": "e", "channel": "c", "data": data }).to_string();
        assert_eq!(server.answer(&Request::events(&body)), (200, "{}".to_owned()));
        // That the form is the shortest one is checked with every frame.
        let text = client.text();
        assert_eq!(text.len(), length);
        assert_eq!(text, format!(r#"{{"event":"e","data":"{data}","channel":"c"}}"#));
    }
}

/// The server's table of errors: each code and its text.
fn errors() -> Vec<(u16, String)> {
    let table = include_str!("../../../src/pusher/error_code.rs");
    let mut errors: Vec<(u16, String)> = Vec::new();
    for entry in table.split("\npub const ").skip(1) {
        let field =
            |name: &str| entry.split_once(name).unwrap_or_else(|| panic!("{name} {entry}")).1;
        let code = field("code: ")[..4].parse().expect("a code");
        // One takes the text of another.
        let text = field("message: ").strip_prefix('"').and_then(|text| text.split('"').next());
        let text = text.map_or_else(|| errors[errors.len() - 1].1.clone(), str::to_owned);
        errors.push((code, text));
    }
    errors
}

#[test]
fn the_codes_of_the_protocol_that_are_sent() {
    let sent: BTreeSet<u16> = errors().into_iter().map(|(code, _)| code).collect();
    // Of docs/PROTOCOL.md C8 these are never sent: 4000, TLS is the proxy's; 4005, such a path gets a 404; 4008, no
    // version is fine; 4202, the silent get 4201; 4303, no broker can fail.
    let expected = [4001, 4003, 4004, 4006, 4007, 4009, 4100, 4200, 4201, 4300, 4301, 4302];
    assert_eq!(sent, BTreeSet::from(expected));
}

#[test]
fn each_error_is_received_in_a_test() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process");
    let source = rust_text_below(&tests);
    let errors = errors();
    assert!(errors.len() > 20, "{errors:?}");
    let silent: Vec<_> = errors.iter().filter(|(_, text)| !source.contains(text)).collect();
    assert!(silent.is_empty(), "no test waits for these: {silent:?}");
}

/// Echo mode is for a program of its own: see `tests/autobahn`.
#[test]
#[cfg(not(feature = "echo"))]
fn the_server_has_no_echo_mode() {
    let finished = Setup::new().args(&["--echo", "--port", "0"]).run();
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("unexpected argument '--echo'"), "{finished:?}");
    // No option of the environment makes up for the flag.
    for name in ["RINGVERB_ECHO", "REVERB_ECHO", "ECHO"] {
        let server = Setup::new().env(name, "true").start();
        server.connect().ask(PING, PONG);
    }
}
