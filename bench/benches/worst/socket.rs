//! Frames of WebSocket clients, before anybody looks at what they say.

use std::hint::black_box;

use ringverb::ws::reader::{self, Flow, FrameLimits, MessageKind};

use super::{Entry, Peer, Run, entry};

pub(super) const ENTRIES: &[Entry] = &[
    entry("frames: one text of three-byte characters", Peer::Anybody, one_text),
    entry("frames: one text, read 16 bytes at a time", Peer::Anybody, text_in_pieces),
    entry("frames: empty texts", Peer::Anybody, empty_texts),
    entry("frames: fragments without payload", Peer::Anybody, empty_fragments),
    entry("frames: fragments of one byte", Peer::Anybody, tiny_fragments),
    entry("frames: empty pings between fragments", Peer::Anybody, pings),
];

const TEXT: u8 = 0x1;
const CONTINUATION: u8 = 0x0;
const PING: u8 = 0x9;
const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

struct Counter(usize);

impl reader::Sink for Counter {
    fn message(&mut self, _: MessageKind, payload: &mut [u8]) -> Flow {
        self.0 += 1 + payload.len();
        Flow::Continue
    }

    fn ping(&mut self, payload: &[u8]) -> Flow {
        self.0 += 1 + payload.len();
        Flow::Continue
    }

    fn pong(&mut self, _: &[u8]) -> Flow {
        Flow::Continue
    }

    fn close(&mut self, _: Option<u16>, _: &str) -> Flow {
        Flow::Stop
    }
}

fn frame(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => out.push(0x80 | short.to_le_bytes()[0]),
        Ok(medium) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        Err(_) => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// The reader unmasks where the bytes are, so each run reads a copy.
fn reading(bytes: Vec<u8>, piece: usize) -> (usize, Run) {
    let limits = FrameLimits { message_size_max: 1 << 20 };
    let mut copy = Vec::new();
    let length = bytes.len();
    let run = move || {
        copy.clear();
        copy.extend_from_slice(black_box(&bytes));
        let (mut partial, mut counter) = (None, Counter(0));
        for piece in copy.chunks_mut(piece) {
            let flow = reader::read(&mut partial, piece, limits, &mut counter);
            assert_eq!(flow, Ok(Flow::Continue));
        }
        assert!(counter.0 > 0 && partial.is_none());
    };
    (length, Box::new(run))
}

fn text(size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(FIN | TEXT, "€".repeat(size / 3).as_bytes(), &mut bytes);
    bytes
}

fn one_text(size: usize) -> (usize, Run) {
    reading(text(size), usize::MAX)
}

fn text_in_pieces(size: usize) -> (usize, Run) {
    reading(text(size), 16)
}

fn many(size: usize, first: u8, payload: &[u8]) -> Vec<u8> {
    let mut one = Vec::new();
    frame(first, payload, &mut one);
    one.repeat(size / one.len())
}

fn empty_texts(size: usize) -> (usize, Run) {
    reading(many(size, FIN | TEXT, b""), usize::MAX)
}

/// A message that is begun, goes on with these frames, and ends.
fn fragmented(between: &[u8]) -> (usize, Run) {
    let mut bytes = Vec::new();
    frame(TEXT, b"a", &mut bytes);
    bytes.extend_from_slice(between);
    frame(FIN | CONTINUATION, b"b", &mut bytes);
    reading(bytes, usize::MAX)
}

fn empty_fragments(size: usize) -> (usize, Run) {
    fragmented(&many(size, CONTINUATION, b""))
}

fn tiny_fragments(size: usize) -> (usize, Run) {
    fragmented(&many(size, CONTINUATION, b"c"))
}

fn pings(size: usize) -> (usize, Run) {
    fragmented(&many(size, FIN | PING, b""))
}
