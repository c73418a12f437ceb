//! The client's side of a WebSocket (RFC 6455): handshake, masked frames out, whole messages in.
//!
//! Owns one connection and the fragments of one message. Written apart from `ws`, which has the server's side: it masks
//! what it sends, refuses masked frames, and checks the accept key. Pings are answered. Does not read JSON.
//! Limit: `MESSAGE_MAX` bytes of a message, over which the connection is an error. Cost: one copy of each frame's
//! payload, one system call for each frame sent.

use std::io::{self, ErrorKind};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::connection::ServerConnection;
use super::http::percent_encoded;
use super::outcome::{CommandFailure, escaped_text};
use super::peer::ServerPeer;
use crate::ws::close;
use crate::ws::frame::Opcode;
use crate::ws::handshake::{self, UpgradeRequest};
use crate::ws::mask::unmask;

/// No event is larger: `max_request_size` ends at 16 MiB.
const MESSAGE_MAX: usize = 64 << 20;

pub(super) struct ClientSocket {
    connection: ServerConnection,
    /// The fragments of a message that is not complete. Empty between messages.
    message: Vec<u8>,
}

/// What `receive` waited for, or why it stopped waiting.
#[derive(Debug)]
pub(super) enum ServerInput {
    Text(Vec<u8>),
    /// Nothing came within the time, and the connection stands.
    Silence,
    /// The code and text of the close frame. `None` if it has none, or if there was no close frame.
    Closed(Option<(u16, String)>),
}

impl ClientSocket {
    pub(super) fn open(peer: &ServerPeer) -> Result<Self, CommandFailure> {
        let mut connection = ServerConnection::open(peer)?;
        let key = STANDARD.encode(random_bytes::<16>());
        let origin = origin_for(&peer.app.allowed_origins);
        let origin = origin.map_or_else(String::new, |origin| format!("Origin: {origin}\r\n"));
        let request = format!(
            "GET {}/app/{}?protocol=7&client=ringverb&version={} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{origin}\r\n",
            peer.prefix,
            percent_encoded(&peer.app.key),
            env!("CARGO_PKG_VERSION"),
            peer.authority()
        );
        connection.send(request.as_bytes()).map_err(|error| connection.connection_lost(&error))?;
        let head = connection.receive_head()?;
        if head.status != 101 {
            let body = escaped_text(String::from_utf8_lossy(&connection.input).trim());
            return Err(connection.unexpected_answer(&format!(
                "it answers {} instead of opening a WebSocket ({body})",
                head.status
            )));
        }
        if !is_accepted(&key, head.field("sec-websocket-accept")) {
            return Err(connection.unexpected_answer("its handshake is not that of a WebSocket"));
        }
        Ok(Self { connection, message: Vec::new() })
    }

    pub(super) fn send(&mut self, text: &str) -> io::Result<()> {
        self.send_frame(Opcode::Text, text.as_bytes())
    }

    /// To be called last: what arrives after the close frame is not read.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.send_frame(Opcode::Close, &close::encode_payload(close::NORMAL, ""))
    }

    fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        self.connection.send(&masked_frame(opcode, payload, random_bytes()))
    }

    /// Pings are answered and fragments are joined before it returns.
    pub(super) fn receive(&mut self, wait: Duration) -> io::Result<ServerInput> {
        self.connection.set_read_timeout(wait)?;
        loop {
            let Some(frame) = ServerFrame::pop_frame(&mut self.connection.input)? else {
                match self.connection.receive_more() {
                    Ok(true) => continue,
                    Ok(false) => return Ok(ServerInput::Closed(None)),
                    Err(error) => match error.kind() {
                        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                            return Ok(ServerInput::Silence);
                        }
                        _ => return Err(error),
                    },
                }
            };
            match frame.opcode {
                OPCODE_CLOSE => {
                    // The server ends the connection whether it gets its answer or not.
                    self.close().ok();
                    let reason = close::decode_payload(&frame.payload).ok().flatten();
                    return Ok(ServerInput::Closed(
                        reason.map(|(code, text)| (code, text.to_owned())),
                    ));
                }
                OPCODE_PING => self.send_frame(Opcode::Pong, &frame.payload)?,
                OPCODE_PONG => {}
                _ => {
                    self.message.extend_from_slice(&frame.payload);
                    if self.message.len() > MESSAGE_MAX {
                        return Err(malformed_error());
                    }
                    if frame.fin {
                        return Ok(ServerInput::Text(std::mem::take(&mut self.message)));
                    }
                }
            }
        }
    }
}

const OPCODE_CLOSE: u8 = Opcode::Close as u8;
const OPCODE_PING: u8 = Opcode::Ping as u8;
const OPCODE_PONG: u8 = Opcode::Pong as u8;

fn malformed_error() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "it sends no WebSocket frames")
}

/// A server's frames are not masked (RFC 6455 section 5.1).
#[derive(Debug, PartialEq, Eq)]
struct ServerFrame {
    fin: bool,
    opcode: u8,
    payload: Vec<u8>,
}

impl ServerFrame {
    /// `None` while the frame is incomplete.
    fn pop_frame(input: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let &[first, second, ref rest @ ..] = input.as_slice() else { return Ok(None) };
        if second & 0x80 != 0 {
            return Err(malformed_error());
        }
        let (length, header) = match (second, rest) {
            (126, [high, low, ..]) => (u64::from(u16::from_be_bytes([*high, *low])), 4),
            (127, rest) => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 10),
                None => return Ok(None),
            },
            (126, _) => return Ok(None),
            (length, _) => (u64::from(length), 2),
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= MESSAGE_MAX);
        let end = header + length.ok_or_else(malformed_error)?;
        let Some(payload) = input.get(header..end) else { return Ok(None) };
        let frame =
            Self { fin: first & 0x80 != 0, opcode: first & 0x0f, payload: payload.to_vec() };
        input.drain(..end);
        Ok(Some(frame))
    }
}

/// One frame with the whole message, masked as RFC 6455 section 5.3 demands of a client.
fn masked_frame(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode as u8];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => out.push(0x80 | short),
        (_, Ok(medium)) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], mask, 0);
    out
}

/// Whether the answer fits the key: a server that only answers 101 is no WebSocket server (RFC 6455 section 4.1).
fn is_accepted(key: &str, given: Option<&str>) -> bool {
    let request = UpgradeRequest {
        method: "GET",
        http_11: true,
        upgrade: Some("websocket"),
        connection: Some("Upgrade"),
        version: Some("13"),
        key: Some(key),
    };
    let expected = handshake::check(&request);
    expected.is_ok_and(|expected| Some(expected.as_bytes()) == given.map(str::as_bytes))
}

/// An origin the app accepts (docs/PROTOCOL.md rule 108): a client that has its secret need not be a page of it.
fn origin_for(patterns: &[String]) -> Option<String> {
    if patterns.iter().any(|pattern| pattern == "*") {
        return None;
    }
    let origin = patterns.first()?.replace('*', "x");
    Some(if origin.contains("://") { origin } else { format!("http://{origin}") })
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        panic!("the kernel returned no random numbers: {error}");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pusher::origin::is_allowed;
    use crate::ws::frame::{Header, encode};

    #[test]
    fn frames_of_the_server_are_read_in_any_cut() {
        let mut bytes = Vec::new();
        for length in [0, 125, 126, 65_535, 65_536] {
            encode(Opcode::Text, &vec![b'x'; length], &mut bytes);
        }
        let (mut input, mut lengths) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(7) {
            input.extend_from_slice(piece);
            while let Some(frame) = ServerFrame::pop_frame(&mut input).unwrap() {
                assert!(frame.fin && frame.opcode == 1);
                lengths.push(frame.payload.len());
            }
        }
        assert_eq!(lengths, [0, 125, 126, 65_535, 65_536]);
        assert!(input.is_empty());
        assert!(ServerFrame::pop_frame(&mut vec![0x81, 0x80]).is_err());
        assert!(ServerFrame::pop_frame(&mut [&[0x81, 127][..], &[0xff; 8]].concat()).is_err());
    }

    #[test]
    fn frames_of_the_client_are_read_by_the_server() {
        for length in [0_usize, 125, 126, 65_535, 65_536] {
            let frame = masked_frame(Opcode::Text, &vec![b'x'; length], [1, 2, 3, 4]);
            let (header, size) = Header::decode(&frame).unwrap().unwrap();
            assert_eq!((header.payload_len, size + length), (length as u64, frame.len()));
            let mut payload = frame[size..].to_vec();
            unmask(&mut payload, header.mask, 0);
            assert!(payload.iter().all(|byte| *byte == b'x'));
        }
    }

    #[test]
    fn the_accept_key_is_compared() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        assert!(is_accepted(key, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        assert!(!is_accepted(key, Some("x")) && !is_accepted(key, None));
    }

    #[test]
    fn the_origin_is_one_the_app_accepts() {
        for patterns in
            [&["a.test"][..], &["*.b.test", "a"], &["https://*.c.test:81"], &["d.test:80"]]
        {
            let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
            let origin = origin_for(&patterns);
            assert!(
                origin.is_some() && is_allowed(&patterns, origin.as_deref(), false),
                "{origin:?}"
            );
        }
        assert_eq!(origin_for(&["a".to_owned(), "*".to_owned()]), None);
    }
}
