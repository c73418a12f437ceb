//! RFC 6455 on the wire: what is a violation and how it ends, and that every cut of right bytes is right
//! (docs/PROTOCOL.md rule 57, D).

use crate::support::frame::{
    BINARY, CLOSE, CONTINUATION, FIN, PING as PING_FRAME, PONG as PONG_FRAME, TEXT,
};
use crate::support::{
    Client, Frame, Handshake, INVALID, PING, PONG, Server, Setup, frame, succeeded,
};

const RSV1: u8 = 0x40;

/// Each on a connection of its own: sent, it ends the connection with this code and reason.
fn violations() -> Vec<(&'static str, Vec<u8>, u16, &'static str)> {
    let start = frame::raw(TEXT, br#"{"event":"#);
    let rest = br#""pusher:ping"}"#;
    let after_start = |more: Vec<u8>| [start.clone(), more].concat();
    let long = [b'x'; 126];
    let medium_form = [&[FIN | TEXT, 0xfe, 0, 2][..], &[0; 4], b"{}"].concat();
    let long_form = [&[FIN | TEXT, 0xff][..], &200_u64.to_be_bytes(), &[0; 4]].concat();
    let top_bit = [&[FIN | TEXT, 0xff][..], &(1_u64 << 63).to_be_bytes(), &[0; 4]].concat();
    let unmasked = "Frame is not masked";
    let bits = "Reserved bits are set";
    let opcode = "Unknown opcode";
    let form = "Malformed frame length";
    let inside = "Previous message is not finished";
    let mut cases = vec![
        ("unmasked text", frame::unmasked(FIN | TEXT, PING.as_bytes()), 1002, unmasked),
        ("unmasked ping", frame::unmasked(FIN | PING_FRAME, b""), 1002, unmasked),
        ("unmasked close", frame::unmasked(FIN | CLOSE, b"\x03\xe8"), 1002, unmasked),
        ("RSV1", frame::raw(FIN | RSV1 | TEXT, PING.as_bytes()), 1002, bits),
        ("RSV2", frame::raw(FIN | 0x20 | TEXT, PING.as_bytes()), 1002, bits),
        ("RSV3 on a ping", frame::raw(FIN | 0x10 | PING_FRAME, b""), 1002, bits),
        ("RSV1 on a continuation", after_start(frame::raw(FIN | RSV1, rest)), 1002, bits),
        (
            "ping of 126 bytes",
            frame::raw(FIN | PING_FRAME, &long),
            1002,
            "Control frame is too long",
        ),
        ("close of 126 bytes", frame::raw(FIN | CLOSE, &long), 1002, "Control frame is too long"),
        ("ping in fragments", frame::raw(PING_FRAME, b"x"), 1002, "Control frame is fragmented"),
        ("continuation first", frame::raw(FIN | CONTINUATION, rest), 1002, "Nothing to continue"),
        ("text within a message", after_start(frame::text(PING)), 1002, inside),
        ("binary within a message", after_start(frame::raw(BINARY, b"")), 1002, inside),
        ("16-bit length of 2", medium_form, 1002, form),
        ("64-bit length of 200", long_form, 1002, form),
        ("64-bit length with its top bit", top_bit, 1002, form),
        ("close of one byte", frame::raw(FIN | CLOSE, &[3]), 1002, "Malformed close frame"),
        ("close reason not UTF-8", frame::raw(FIN | CLOSE, b"\x03\xe8\xff"), 1007, "Invalid UTF-8"),
    ];
    for reserved in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(("reserved opcode", frame::raw(FIN | reserved, b""), 1002, opcode));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        cases.push(("close code", frame::close(code, ""), 1002, "Invalid close code"));
    }
    cases
}

#[test]
fn violations_end_the_connection() {
    let server = Server::start();
    let mut witness = server.connect();
    for (name, bytes, code, reason) in violations() {
        let mut client = server.connect();
        // What stands behind the violation is not read.
        client.send_bytes(&[bytes, frame::text(PING)].concat());
        assert_eq!(client.closed(), (code, reason.to_owned()), "{name}");
        witness.ask(PING, PONG);
    }
}

#[test]
fn violations_are_found_byte_by_byte_too() {
    let server = Server::start();
    for (name, bytes, code, reason) in violations() {
        let mut client = server.connect();
        for byte in &bytes {
            // The server may have seen enough.
            client.wire.send_to_closing(&[*byte]);
        }
        assert_eq!(client.closed(), (code, reason.to_owned()), "{name}");
    }
}

#[test]
fn text_that_is_not_utf8_fails_fast() {
    // Some end within a frame or message: the fault is answered before the rest comes.
    let overlong = b"\"\xc0\xaf\"";
    let surrogate = b"\"\xed\xa0\x80\"";
    let part = |payload: &[u8]| frame::raw(TEXT, payload);
    let last = |payload: &[u8]| frame::raw(FIN | CONTINUATION, payload);
    let mut header_of_100 = frame::header(FIN | TEXT, 100);
    header_of_100.extend([b'"' ^ 0x37, 0xff ^ 0xfa]);
    let cases = [
        ("whole", frame::raw(FIN | TEXT, b"\"\xff\xfe\"")),
        ("overlong", frame::raw(FIN | TEXT, overlong)),
        ("surrogate", frame::raw(FIN | TEXT, surrogate)),
        ("cut character at the end", frame::raw(FIN | TEXT, b"\"\xe2\x82")),
        ("first fragment of more", part(b"\"\xff")),
        ("second fragment of more", [part(b"\"\xe2"), frame::raw(CONTINUATION, b"\x28")].concat()),
        ("cut character at the end of the last", [part(b"\"\xe2"), last(b"\x82")].concat()),
        ("above U+10FFFF, in two fragments", [part(b"\xf4"), last(b"\x90\x80\x80")].concat()),
        ("two bytes of a frame of 100", header_of_100),
    ];
    let server = Server::start();
    for (name, bytes) in cases {
        let mut client = server.connect();
        client.send_bytes(&bytes);
        assert_eq!(client.closed(), (1007, "Invalid UTF-8".to_owned()), "{name}");
    }
}

#[test]
fn characters_may_be_cut_by_fragments() {
    let server = Server::start();
    let text = r#"{"event":"pusher:ping","é€😀":"é€😀"}"#.as_bytes();
    for cut in 0..=text.len() {
        let mut client = server.connect();
        client.send_bytes(&frame::raw(TEXT, &text[..cut]));
        client.send_bytes(&frame::raw(FIN | CONTINUATION, &text[cut..]));
        client.expect(PONG);
    }
}

#[test]
fn a_close_is_echoed_and_the_connection_ends() {
    let server = Server::start();
    let longest = "r".repeat(123);
    let mut closes = vec![
        (frame::close(1011, "é€"), 1011, "é€"),
        (frame::close(3000, &longest), 3000, longest.as_str()),
        (frame::raw(FIN | CLOSE, b""), 1000, ""),
    ];
    // Every code that has a meaning on the wire, and the ends of what libraries and applications have for theirs.
    for code in (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4321, 4999]) {
        closes.push((frame::close(code, ""), code, ""));
        closes.push((frame::close(code, "bye"), code, "bye"));
    }
    for (sent, code, reason) in closes {
        let mut client = server.connect();
        client.send_bytes(&[sent, frame::text(PING)].concat());
        assert_eq!(client.closed(), (code, reason.to_owned()));
    }
    assert_eq!(server.open_connections(), 0);
}

#[test]
fn a_close_may_come_within_a_message() {
    let server = Server::start();
    let mut client = server.connect();
    client.send_bytes(&frame::raw(TEXT, br#"{"event"#));
    client.send_bytes(&frame::close(1000, ""));
    assert_eq!(client.closed(), (1000, String::new()));
}

#[test]
fn pings_are_answered_with_their_payload() {
    let server = Server::start();
    let mut client = server.connect();
    for payload in [&b""[..], b"hi", b"\xff\x00\xfe", &[b'p'; 125]] {
        client.send_bytes(&frame::raw(FIN | PING_FRAME, payload));
        let Frame { opcode, payload: got } = client.frame();
        assert_eq!((opcode, got.as_slice()), (PONG_FRAME, payload));
    }
    client.send_bytes(&frame::raw(FIN | PONG_FRAME, b"nobody asked"));
    client.sync();
}

#[test]
fn a_message_in_fragments_with_a_ping_between() {
    let server = Server::start();
    let mut client = server.connect();
    let fragments = [
        frame::raw(TEXT, br#"{"event":"pu"#),
        frame::raw(FIN | PING_FRAME, b"m"),
        frame::raw(CONTINUATION, b"sher:pi"),
        frame::raw(CONTINUATION, b""),
        frame::raw(FIN | PONG_FRAME, b"x"),
        frame::raw(FIN | CONTINUATION, br#"ng"}"#),
    ];
    for in_one_segment in [true, false] {
        if in_one_segment {
            client.send_bytes(&fragments.concat());
        } else {
            fragments.iter().for_each(|fragment| client.send_bytes(fragment));
        }
        assert_eq!(client.frame(), Frame { opcode: PONG_FRAME, payload: b"m".to_vec() });
        client.expect(PONG);
    }
    // Each byte in a fragment of its own.
    let bytes = PING.as_bytes();
    let mut message = frame::raw(TEXT, &bytes[..1]);
    for byte in &bytes[1..] {
        message.extend(frame::raw(CONTINUATION, &[*byte]));
    }
    message.extend(frame::raw(FIN | CONTINUATION, b""));
    client.send_bytes(&message);
    client.expect(PONG);
}

#[test]
fn a_message_may_be_cut_at_every_byte() {
    let server = Server::start();
    let (mut client, mut other) = (server.connect(), server.connect());
    let pad = "p".repeat(200);
    let medium = frame::text(&format!(r#"{{"event":"pusher:ping","data":{{}},"é":"{pad}"}}"#));
    let fragments = [
        frame::raw(TEXT, br#"{"event":"#),
        frame::raw(FIN | PING_FRAME, b""),
        frame::raw(FIN | CONTINUATION, br#""pusher:ping"}"#),
    ]
    .concat();
    for (bytes, ping_between) in [(frame::text(PING), false), (medium, false), (fragments, true)] {
        for cut in 0..=bytes.len() {
            client.send_bytes(&bytes[..cut]);
            // A round trip of another connection gives the server time to read the first part alone.
            other.ask(PING, PONG);
            client.send_bytes(&bytes[cut..]);
            if ping_between {
                assert_eq!(client.frame(), Frame { opcode: PONG_FRAME, payload: Vec::new() });
            }
            assert_eq!(client.text(), PONG, "cut at {cut}");
        }
    }
}

/// All that is said from the handshake to the close, in two parts wherever it is cut: the answers are the same.
#[test]
fn a_whole_conversation_may_be_cut_at_every_byte() {
    let server = Setup::new().workers(1).start();
    let mut other = server.connect();
    let pad = "p".repeat(130);
    let conversation = [
        Handshake::new().bytes(),
        frame::text(r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#),
        frame::raw(FIN | PING_FRAME, b"one"),
        frame::raw(TEXT, br#"{"event":"pusher:p"#),
        frame::raw(FIN | PING_FRAME, b"two"),
        frame::raw(FIN | CONTINUATION, br#"ing"}"#),
        frame::text(&format!(r#"{{"event":"pusher:ping","data":{{}},"é":"{pad}"}}"#)),
        frame::raw(FIN | PONG_FRAME, b"nobody asked"),
        frame::close(4000, "that was all"),
    ]
    .concat();
    let frame = |opcode, payload: &str| Frame { opcode, payload: payload.as_bytes().to_vec() };
    let answers = [
        frame(TEXT, &succeeded("news")),
        frame(PONG_FRAME, "one"),
        frame(PONG_FRAME, "two"),
        frame(TEXT, PONG),
        frame(TEXT, PONG),
    ];
    for cut in 0..=conversation.len() {
        let mut wire = server.wire();
        wire.send(&conversation[..cut]);
        // A round trip of another connection gives the server time to read the first part alone.
        other.ask(PING, PONG);
        wire.send(&conversation[cut..]);
        let mut client = Client::upgraded(wire).0.established();
        for answer in &answers {
            assert_eq!(client.frame(), *answer, "cut at {cut}");
        }
        assert_eq!(client.closed(), (4000, "that was all".to_owned()), "cut at {cut}");
    }
}

#[test]
fn many_frames_in_one_segment_are_answered_in_order() {
    let server = Setup::new().workers(1).start();
    let mut client = server.connect();
    let mut bytes = Vec::new();
    // Few ping frames: of many in one read the server answers some only (RFC 6455 section 5.5.3).
    let has_ping_frame = |number: u16| number.is_multiple_of(100);
    for number in 0..1000_u16 {
        if has_ping_frame(number) {
            bytes.extend(frame::raw(FIN | PING_FRAME, &number.to_be_bytes()));
        }
        bytes.extend(frame::text(PING));
    }
    // The last frame is not whole.
    let (most, last) = bytes.split_at(bytes.len() - 3);
    client.send_bytes(most);
    for number in 0..1000_u16 {
        let payload = number.to_be_bytes().to_vec();
        if has_ping_frame(number) {
            assert_eq!(client.frame(), Frame { opcode: PONG_FRAME, payload });
        }
        if number == 999 {
            client.send_bytes(last);
        }
        client.expect(PONG);
    }
}

#[test]
fn binary_frames_are_read_as_text() {
    let server = Server::start();
    let mut client = server.connect();
    client.send_bytes(&frame::raw(FIN | BINARY, PING.as_bytes()));
    client.expect(PONG);
    client.send_bytes(&frame::raw(BINARY, &PING.as_bytes()[..9]));
    client.send_bytes(&frame::raw(FIN | CONTINUATION, &PING.as_bytes()[9..]));
    client.expect(PONG);
    for garbage in [&b"\xff\xfe\x00garbage"[..], b"", b"{\"event\":\"pusher:ping\xff\"}"] {
        client.send_bytes(&frame::raw(FIN | BINARY, garbage));
        client.expect(INVALID);
    }
    client.ask(PING, PONG);
}

/// A ping event of exactly that many bytes.
fn ping_of(size: usize) -> String {
    let frame = r#"{"event":"pusher:ping","data":{},"p":""}"#.len();
    format!(r#"{{"event":"pusher:ping","data":{{}},"p":"{}"}}"#, "p".repeat(size - frame))
}

#[test]
fn a_message_over_its_limit_closes_with_1009() {
    const TOO_BIG: (u16, &str) = (1009, "Maximum message size exceeded");
    let refused = |mut client: Client, name: &str| {
        let (code, reason) = client.closed();
        assert_eq!((code, reason.as_str()), TOO_BIG, "{name}");
    };
    for (setup, limit) in [
        (Setup::new(), 10_000),
        (Setup::new().env("REVERB_APP_MAX_MESSAGE_SIZE", "100"), 100),
        (Setup::new().env("REVERB_APP_MAX_MESSAGE_SIZE", "100000"), 100_000),
    ] {
        let server = setup.start();
        for size in [limit - 1, limit] {
            let mut client = server.connect();
            client.ask(&ping_of(size), PONG);
            let text = ping_of(size);
            let (left, right) = text.as_bytes().split_at(size / 2);
            client.send_bytes(&frame::raw(TEXT, left));
            client.send_bytes(&frame::raw(FIN | PING_FRAME, &[b'x'; 125]));
            assert_eq!(client.frame().opcode, PONG_FRAME);
            client.send_bytes(&frame::raw(FIN | CONTINUATION, right));
            client.expect(PONG);
        }
        let mut client = server.connect();
        client.send(&ping_of(limit + 1));
        refused(client, "one byte too many");

        let text = ping_of(limit + 1);
        let mut client = server.connect();
        client.send_bytes(&frame::raw(TEXT, &text.as_bytes()[..limit]));
        client.sync();
        client.send_bytes(&frame::raw(FIN | CONTINUATION, &text.as_bytes()[limit..]));
        refused(client, "one byte too many in fragments");

        // Declared is enough: nothing of it has to come.
        for length in [limit as u64 + 1, 1 << 32, (1 << 63) - 1] {
            let mut client = server.connect();
            client.send_bytes(&frame::header(FIN | TEXT, length));
            refused(client, "declared");
        }
    }
}
