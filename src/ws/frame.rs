//! The frame header (RFC 6455 section 5.2): layout, encode for the server's frames, decode for the client's. PURE.
//!
//! Owns no state. Knows no message: what a sequence of frames means is in `reader`. A header is checked as far as it
//! can be by itself: a reserved bit or opcode, a missing mask, a length that is not in its shortest form. Limit: the
//! payload of a control frame has at most 125 bytes. Cost: 2 to 14 bytes are read or written for each frame.
//! `write_text_frame` writes a frame into reused space, so that a single frame needs one copy and no allocation.

use super::violation::Violation;
use crate::limits::CONTROL_PAYLOAD_MAX;

/// Bits of the first byte, then of the second.
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// Two bytes, eight of length, four of mask.
pub const HEADER_BYTES_MAX: usize = 14;

#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping and pong: never fragmented, at most 125 bytes (section 5.5).
    #[must_use]
    pub fn is_control(self) -> bool {
        self as u8 >= Self::Close as u8
    }
}

#[must_use]
pub fn header_size(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// A server's header has no mask, so it is 4 bytes shorter than `HEADER_BYTES_MAX`.
const SERVER_HEADER_BYTES_MAX: usize = 10;

/// Appends the header of a server frame: FIN set, not masked, the length in its shortest form.
pub fn encode_header(opcode: Opcode, payload_len: usize, out: &mut Vec<u8>) {
    with_server_header(opcode, payload_len, |header| out.extend_from_slice(header));
}

/// Passes the header to `write`, and does not return it, so that the compiler knows the length of each form where it is
/// copied.
#[inline]
fn with_server_header<R>(opcode: Opcode, payload_len: usize, write: impl FnOnce(&[u8]) -> R) -> R {
    let first = FIN | opcode as u8;
    match (u8::try_from(payload_len), u16::try_from(payload_len)) {
        (Ok(length), _) if length < LENGTH_16 => write(&[first, length]),
        (_, Ok(length)) => {
            let [high, low] = length.to_be_bytes();
            write(&[first, LENGTH_16, high, low])
        }
        _ => {
            let [a, b, c, d, e, f, g, h] = (payload_len as u64).to_be_bytes();
            write(&[first, LENGTH_64, a, b, c, d, e, f, g, h])
        }
    }
}

/// Appends the header of a client frame: for tests, and for a transfer, whose bytes another reader decodes.
pub fn encode_masked_header(
    fin: bool,
    opcode: Opcode,
    payload_len: u64,
    mask: [u8; 4],
    out: &mut Vec<u8>,
) {
    out.push(if fin { FIN } else { 0 } | opcode as u8);
    match (u8::try_from(payload_len), u16::try_from(payload_len)) {
        (Ok(length), _) if length < LENGTH_16 => out.push(MASKED | length),
        (_, Ok(length)) => {
            out.push(MASKED | LENGTH_16);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(MASKED | LENGTH_64);
            out.extend_from_slice(&payload_len.to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
}

/// Appends a complete server frame. The caller guarantees that a control payload fits 125 bytes.
pub fn encode(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(!opcode.is_control() || payload.len() <= CONTROL_PAYLOAD_MAX);
    out.reserve(header_size(payload.len()) + payload.len());
    encode_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// A text frame in a vector of exactly its size: frames are kept and shared, and spare capacity
/// would be kept with them.
#[must_use]
pub fn encode_text(payload: &[u8]) -> Vec<u8> {
    with_server_header(Opcode::Text, payload.len(), |header| {
        let mut out = Vec::with_capacity(header.len() + payload.len());
        out.extend_from_slice(header);
        out.extend_from_slice(payload);
        out
    })
}

/// Writes a text frame in `space`, to which `write` appends the payload, so that the payload needs no vector of its
/// own. Returns the frame, which does not begin at the start of `space`.
pub fn write_text_frame(space: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
    space.clear();
    space.extend_from_slice(&[0; SERVER_HEADER_BYTES_MAX]);
    write(space);
    let payload_len = space.len().saturating_sub(SERVER_HEADER_BYTES_MAX);
    // The header ends where the payload begins.
    let start = SERVER_HEADER_BYTES_MAX - header_size(payload_len);
    with_server_header(Opcode::Text, payload_len, |header| {
        if let Some(header_space) = space.get_mut(start..start + header.len()) {
            header_space.copy_from_slice(header);
        }
    });
    space.get(start..).unwrap_or_default()
}

/// The payload of a server frame: the bytes after its header (RFC 6455 section 5.2, a server's frame is not masked).
#[must_use]
pub fn server_payload(frame: &[u8]) -> &[u8] {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.get(header..).unwrap_or_default()
}

/// Whether these bytes are one whole text frame as `encode_text` makes it. Frames of other nodes are sent to clients
/// unchanged, so they are checked.
#[must_use]
pub fn is_server_text(frame: &[u8]) -> bool {
    let payload_len = server_payload(frame).len();
    with_server_header(Opcode::Text, payload_len, |header| {
        frame.len() == header.len() + payload_len && frame.starts_with(header)
    })
}

/// The header of a client frame. It breaks no rule that concerns a single header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub fin: bool,
    pub opcode: Opcode,
    pub mask: [u8; 4],
    pub payload_len: u64,
}

impl Header {
    /// Decodes the header at the start of `bytes` and returns its length; `None` while it is incomplete. The result
    /// depends on the earliest faulty byte alone, so it is the same for every cut of the bytes.
    ///
    /// # Errors
    /// As soon as the received bytes cannot become a valid header.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let (fin, opcode) = decode_first(first)?;
        let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
        check_second(second, opcode)?;
        let (payload_len, rest) = match second & LENGTH {
            LENGTH_16 => {
                let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
                let length = u64::from(u16::from_be_bytes(*length));
                (check_length(length, u64::from(LENGTH_16))?, rest)
            }
            LENGTH_64 => {
                let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (check_length(u64::from_be_bytes(*length), 1 << 16)?, rest)
            }
            length => (u64::from(length), rest),
        };
        let Some((&mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let header = Self { fin, opcode, mask, payload_len };
        Ok(Some((header, bytes.len() - rest.len())))
    }
}

fn decode_first(byte: u8) -> Result<(bool, Opcode), Violation> {
    if byte & RESERVED != 0 {
        return Err(Violation::ReservedBits);
    }
    let opcode = Opcode::from_bits(byte & OPCODE).ok_or(Violation::ReservedOpcode)?;
    let fin = byte & FIN != 0;
    if opcode.is_control() && !fin {
        return Err(Violation::ControlFragmented);
    }
    Ok((fin, opcode))
}

fn check_second(byte: u8, opcode: Opcode) -> Result<(), Violation> {
    if byte & MASKED == 0 {
        return Err(Violation::Unmasked);
    }
    if opcode.is_control() && usize::from(byte & LENGTH) > CONTROL_PAYLOAD_MAX {
        return Err(Violation::ControlTooLong);
    }
    Ok(())
}

/// The shortest form is mandatory, and the top bit of the long form is zero (section 5.2).
fn check_length(length: u64, smallest: u64) -> Result<u64, Violation> {
    let valid = length >= smallest && length >> 63 == 0;
    if valid { Ok(length) } else { Err(Violation::LengthForm) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client header for `length` in the form the byte count asks for, with mask 1 2 3 4.
    fn client_header(first: u8, length: u64, form: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match form {
            0 => bytes.push(MASKED | u8::try_from(length).unwrap()),
            2 => {
                bytes.push(MASKED | LENGTH_16);
                bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(MASKED | LENGTH_64);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn server_headers_use_the_shortest_length() {
        let cases: [(usize, &[u8]); 6] = [
            (0, &[0x81, 0]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (70_000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]),
        ];
        for (length, expected) in cases {
            let frame = encode_text(&vec![b'x'; length]);
            assert_eq!(&frame[..expected.len()], expected);
            assert_eq!(frame.len(), header_size(length) + length);
            assert_eq!(frame.capacity(), frame.len());
        }
    }

    #[test]
    fn frames_are_appended_to_the_output() {
        let mut out = vec![7];
        encode(Opcode::Pong, b"hi", &mut out);
        encode(Opcode::Close, b"", &mut out);
        assert_eq!(out, [7, 0x8a, 2, b'h', b'i', 0x88, 0]);
    }

    #[test]
    fn decode_reads_every_length_form() {
        for (length, form, size) in [(0, 0, 6), (125, 0, 6), (126, 2, 8), (65_535, 2, 8)] {
            let bytes = client_header(0x82, length, form);
            let mask = [1, 2, 3, 4];
            let header = Header { fin: true, opcode: Opcode::Binary, mask, payload_len: length };
            assert_eq!(Header::decode(&bytes), Ok(Some((header, size))));
        }
        let bytes = client_header(0x01, 1 << 62, 8);
        let (header, size) = Header::decode(&bytes).unwrap().unwrap();
        assert_eq!((header.fin, header.payload_len, size), (false, 1 << 62, HEADER_BYTES_MAX));
    }

    #[test]
    fn a_header_cut_short_is_neither_error_nor_header() {
        for bytes in
            [client_header(0x81, 5, 0), client_header(0x81, 500, 2), client_header(0x81, 70_000, 8)]
        {
            for cut in 0..bytes.len() {
                assert_eq!(Header::decode(&bytes[..cut]), Ok(None), "cut at {cut}");
            }
        }
    }

    #[test]
    fn faults_are_found_at_their_byte() {
        let cases: [(&[u8], Violation); 12] = [
            (&[0xc1], Violation::ReservedBits),
            (&[0xa1], Violation::ReservedBits),
            (&[0x91], Violation::ReservedBits),
            (&[0x83], Violation::ReservedOpcode),
            (&[0x8b], Violation::ReservedOpcode),
            (&[0x09], Violation::ControlFragmented),
            (&[0x81, 0x05], Violation::Unmasked),
            (&[0x89, 0xfe], Violation::ControlTooLong),
            (&[0x88, 0xff], Violation::ControlTooLong),
            (&[0x81, 0xfe, 0, 125], Violation::LengthForm),
            (&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Violation::LengthForm),
            (&[0x81, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0], Violation::LengthForm),
        ];
        for (bytes, violation) in cases {
            assert_eq!(Header::decode(bytes), Err(violation), "{bytes:x?}");
            let (_, before) = bytes.split_last().unwrap();
            assert_eq!(Header::decode(before), Ok(None), "{before:x?}");
        }
    }
}
