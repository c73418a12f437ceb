//! Bytes from a socket, read as HTTP heads and WebSocket frames, and frames to send.
//!
//! Owns the socket and what was received and not used yet. Does not use the server's codec, and checks what every frame
//! of the server must be. Limit: `time::DEADLINE` for each wait. Cost: one connection; a read is one system call, and
//! bytes are copied freely.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection};

use super::time::DEADLINE;
use super::tls;

/// A socket and what was received and not used yet.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    /// Bytes that `send` has sent, and bytes that were received.
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// With TLS.
    pub(crate) secure: Option<Box<ClientConnection>>,
}

/// Status line and header fields; names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) head: Head,
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// A frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Head {
    fn parse(text: &str) -> Self {
        let mut lines = text.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        assert!(status_line.starts_with("HTTP/1.1 "), "no answer of HTTP/1.1: {text:?}");
        let status = status_line[9..12].parse().unwrap_or_else(|_| panic!("status of {text:?}"));
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("field {line:?}"));
            (name.to_lowercase(), value.to_owned())
        };
        Self { status, headers: lines.map(field).collect() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(given, _)| given == name);
        let first = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice in {self:?}");
        first
    }
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(DEADLINE)).expect("SO_RCVTIMEO");
        stream.set_write_timeout(Some(DEADLINE)).expect("SO_SNDTIMEO");
        Self { stream, input: Vec::new(), sent_bytes: 0, received_bytes: 0, secure: None }
    }

    /// The handshake comes with the first bytes.
    pub(crate) fn secured(self, config: &Arc<ClientConfig>) -> Self {
        let secure = ClientConnection::new(config.clone(), tls::name()).expect("a client");
        Self { secure: Some(Box::new(secure)), ..self }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.write(bytes).expect("the server takes what it is sent");
        self.sent_bytes += bytes.len() as u64;
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.secure {
            None => self.stream.write_all(bytes),
            Some(secure) => rustls::Stream::new(&mut **secure, &mut self.stream).write_all(bytes),
        }
    }

    fn read(&mut self, chunk: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.secure {
            None => self.stream.read(chunk),
            Some(secure) => rustls::Stream::new(&mut **secure, &mut self.stream).read(chunk),
        }
    }

    /// With TLS: sends a record of which a bit was changed on its way.
    pub(crate) fn send_changed_record(&mut self) {
        let secure = self.secure.as_mut().expect("TLS");
        secure.writer().write_all(&frame::text("hello")).expect("room");
        let mut bytes = Vec::new();
        secure.write_tls(&mut bytes).expect("bytes");
        *bytes.last_mut().expect("a record") ^= 1;
        self.stream.write_all(&bytes).expect("the server takes it");
    }

    /// Sends although the server may have closed already.
    pub(crate) fn send_to_closing(&mut self, bytes: &[u8]) {
        // That it is closed is what the caller wants to see; the next read tells.
        let _ = self.write(bytes);
    }

    /// Waits for bytes; `false` at the end of the connection.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.input.extend_from_slice(&chunk[..count]);
                self.received_bytes += count as u64;
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!(
                "{error}: nothing came within {DEADLINE:?}; unread: {:?}",
                self.input.escape_ascii().to_string()
            ),
        }
    }

    fn need(&mut self, count: usize) -> bool {
        while self.input.len() < count {
            if !self.fill() {
                return false;
            }
        }
        true
    }

    /// Waits for the first byte of an answer; `false` if the server closes the connection without one.
    pub(crate) fn is_answered(&mut self) -> bool {
        self.need(1)
    }

    pub(crate) fn head(&mut self) -> Head {
        loop {
            if let Some(at) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.input.drain(..at + 4).collect();
                let text = String::from_utf8(head).expect("a head in UTF-8");
                return Head::parse(text.trim_end_matches("\r\n\r\n"));
            }
            assert!(self.fill(), "closed within a head: {:?}", self.input.escape_ascii());
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        assert!(self.need(count), "closed before {count} bytes: {:?}", self.input.escape_ascii());
        self.input.drain(..count).collect()
    }

    /// The answer to a request; that to HEAD has no body.
    pub(crate) fn reply(&mut self, with_body: bool) -> Reply {
        let head = self.head();
        let length = head.header("content-length").map_or(0, |text| text.parse().expect("length"));
        let body = self.take(if with_body { length } else { 0 });
        let body = String::from_utf8(body).expect("a body in UTF-8");
        Reply { status: head.status, head, body }
    }

    /// The next frame; `None` when the server has ended the connection. Checks what every frame of the server must
    /// be: whole, unmasked, without reserved bits, with its length in the shortest form.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        let frame = self.frame_or_cut();
        assert!(
            frame.is_some() || self.input.is_empty(),
            "closed within a frame: {:?}",
            self.input
        );
        frame
    }

    /// The same where the server may end the connection within a frame: what is left of that is not returned.
    pub(crate) fn frame_or_cut(&mut self) -> Option<Frame> {
        if !self.need(2) {
            return None;
        }
        let first = self.input[0];
        assert_eq!(first & 0xf0, 0x80, "first byte {first:#x}");
        let (header, length) = match self.input[1] {
            126 => {
                if !self.need(4) {
                    return None;
                }
                let length = u16::from_be_bytes([self.input[2], self.input[3]]);
                assert!(length > 125, "length {length} is not in its shortest form");
                (4, usize::from(length))
            }
            127 => {
                if !self.need(10) {
                    return None;
                }
                let bytes = self.input[2..10].try_into().expect("eight bytes");
                let length = usize::try_from(u64::from_be_bytes(bytes)).expect("a length");
                assert!(length > 65_535, "length {length} is not in its shortest form");
                (10, length)
            }
            length => {
                assert!(length < 126, "a server's frame is not masked");
                (2, usize::from(length))
            }
        };
        if !self.need(header + length) {
            return None;
        }
        let payload = self.input[header..header + length].to_vec();
        self.input.drain(..header + length);
        Some(Frame { opcode: first & 0x0f, payload })
    }

    /// Whether the server has closed the connection, which has nothing to read.
    pub(crate) fn is_closed(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket that does not block");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket that blocks");
        match peeked {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// The server ends the connection, and sends nothing before.
    pub(crate) fn ended(&mut self) {
        let more = self.fill() || !self.input.is_empty();
        assert!(!more, "more came: {:?}", self.input.escape_ascii().to_string());
    }
}

/// Frames of a client, right and wrong.
pub(crate) mod frame {
    pub(crate) const CONTINUATION: u8 = 0x0;
    pub(crate) const TEXT: u8 = 0x1;
    pub(crate) const BINARY: u8 = 0x2;
    pub(crate) const CLOSE: u8 = 0x8;
    pub(crate) const PING: u8 = 0x9;
    pub(crate) const PONG: u8 = 0xa;
    pub(crate) const FIN: u8 = 0x80;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A masked frame with this first byte and its length in the shortest form.
    pub(crate) fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = header(first, payload.len() as u64);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// The header of `raw`, for a payload of that length.
    pub(crate) fn header(first: u8, length: u64) -> Vec<u8> {
        let mut bytes = vec![first];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ 0..=125), _) => bytes.push(0x80 | short),
            (_, Ok(medium)) => {
                bytes.push(0x80 | 126);
                bytes.extend(medium.to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes.extend(MASK);
        bytes
    }

    pub(crate) fn text(payload: &str) -> Vec<u8> {
        raw(FIN | TEXT, payload.as_bytes())
    }

    pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
        raw(FIN | CLOSE, &[&code.to_be_bytes()[..], reason.as_bytes()].concat())
    }

    /// A frame without a mask: no client may send one.
    pub(crate) fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("a short payload");
        [&[first, length], payload].concat()
    }
}
