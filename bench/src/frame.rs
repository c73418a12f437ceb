//! Client-side WebSocket framing (RFC 6455 section 5): masked frames out, unmasked frames in. PURE: bytes only.
//!
//! Owns no state. Not the server's codec, so that a fault of that one is found here. Limit: `PAYLOAD_BYTES_MAX` of a
//! frame. Cost: encoding copies the bytes once; decoding copies none.

/// RFC 6455 section 5.2.
pub(crate) mod opcode {
    pub(crate) const CONTINUATION: u8 = 0x0;
    pub(crate) const TEXT: u8 = 0x1;
    pub(crate) const CLOSE: u8 = 0x8;
    pub(crate) const PING: u8 = 0x9;
    pub(crate) const PONG: u8 = 0xA;
}

/// Largest frame accepted from a server; far above anything a scenario asks for.
const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// A mask must be there but need not be secret on a loopback bench. Zero leaves the payload as it
/// is, so that the server pays for unmasking and the client pays nothing.
const MASK: [u8; 4] = [0; 4];

/// Appends one unfragmented, masked frame.
pub(crate) fn encode(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    let length = payload.len();
    if let Ok(short @ 0..=125) = u8::try_from(length) {
        out.push(0x80 | short);
    } else if let Ok(medium) = u16::try_from(length) {
        out.push(0x80 | 126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(0x80 | 127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
    out.extend_from_slice(&MASK);
    out.extend_from_slice(payload);
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A server must not mask (RFC 6455 section 5.1).
    Masked,
    /// No extension was negotiated.
    ReservedBits,
    TooLarge,
}

/// The first frame in `bytes` and how many bytes it takes, or `None` while it is incomplete.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Fault> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Fault::ReservedBits);
    }
    if second & 0x80 != 0 {
        return Err(Fault::Masked);
    }
    let (length, header) = match (second & 0x7F, rest) {
        (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            (usize::try_from(length).map_err(|_| Fault::TooLarge)?, 10)
        }
        (126 | 127, _) => return Ok(None),
        (short, _) => (usize::from(short), 2),
    };
    if length > PAYLOAD_BYTES_MAX {
        return Err(Fault::TooLarge);
    }
    let end = header + length;
    if bytes.len() < end {
        return Ok(None);
    }
    let payload = &bytes[header..end];
    Ok(Some((Frame { fin: first & 0x80 != 0, opcode: first & 0x0F, payload }, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server would send for `payload`.
    fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut masked = Vec::new();
        encode(opcode, payload, &mut masked);
        let mask = masked.len() - payload.len() - 4;
        masked.drain(mask..mask + 4);
        masked[1] &= 0x7F;
        masked
    }

    #[test]
    fn the_header_grows_at_126_and_65536() {
        for (length, header) in
            [(0, 6), (1, 6), (125, 6), (126, 8), (65_535, 8), (65_536, 14), (100_000, 14)]
        {
            let mut out = Vec::new();
            encode(opcode::TEXT, &vec![b'x'; length], &mut out);
            assert_eq!(out.len(), header + length);
            assert_eq!(out[0], 0x81);
            assert_eq!(out[1] & 0x80, 0x80, "client frames are masked");
        }
    }

    #[test]
    fn frames_survive_every_cut() {
        let mut stream = server_frame(opcode::TEXT, b"hello");
        stream.extend(server_frame(opcode::PING, b""));
        stream.extend(server_frame(opcode::TEXT, &[b'y'; 300]));
        for cut in 0..stream.len() {
            let mut buffer = stream[..cut].to_vec();
            let mut seen = Vec::new();
            for more in [&stream[cut..], &[]] {
                while let Some((frame, used)) = decode(&buffer).unwrap() {
                    assert!(frame.fin);
                    seen.push((frame.opcode, frame.payload.len()));
                    buffer.drain(..used);
                }
                buffer.extend_from_slice(more);
            }
            assert!(buffer.is_empty());
            assert_eq!(seen, [(opcode::TEXT, 5), (opcode::PING, 0), (opcode::TEXT, 300)]);
        }
    }

    #[test]
    fn faults_are_seen_before_the_payload() {
        assert_eq!(decode(&[0x81, 0x85]), Err(Fault::Masked));
        assert_eq!(decode(&[0xC1, 0x05]), Err(Fault::ReservedBits));
        let huge = [0x82, 127, 0xFF, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(decode(&huge), Err(Fault::TooLarge));
        assert_eq!(decode(&[]), Ok(None));
        assert_eq!(decode(&[0x81]), Ok(None));
    }
}
