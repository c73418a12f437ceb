//! The cipher of the simulator in place of TLS: records, a handshake, key updates in a simple form, and an end.
//!
//! It is no cryptography. It has what makes TLS difficult for the tick: a record is useless until it is whole, bytes on
//! the wire differ from those of the content, a record that is lost, doubled or sealed twice is noticed, and the server
//! may owe an answer without content. Both ends are here; the wire (`kernel`) has the client's end.

use ringverb::proxy_header::OWN_HEADERS;
use ringverb::tls::socket::{ChannelEnd, Opened, SecureChannel};
use std::net::{IpAddr, SocketAddr};

use crate::random::Random;

const HEADER: usize = 5;
const CHECK: usize = 4;
const HELLO: u8 = 22;
const DATA: u8 = 23;
/// A request for an answer, and the answer.
const UPDATE: u8 = 24;
const END: u8 = 21;
/// The content of a hello.
const GREETING: &[u8] = b"simulated";

/// One direction: records are numbered.
#[derive(Debug, Default, Clone, Copy)]
struct Numbered(u32);

impl Numbered {
    /// Seals `out[begin + HEADER..]`.
    fn seal(&mut self, kind: u8, out: &mut Vec<u8>, begin: usize) {
        let number = self.0;
        self.0 += 1;
        let check = sum(number, &out[begin + HEADER..]);
        mangle(number, &mut out[begin + HEADER..]);
        out.extend_from_slice(&check.to_be_bytes());
        let length = u16::try_from(out.len() - begin - HEADER).expect("short records");
        let [high, low] = length.to_be_bytes();
        out[begin..begin + HEADER].copy_from_slice(&[kind, 3, 3, high, low]);
    }

    fn send(&mut self, kind: u8, content: &[u8], out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&[0; HEADER]);
        out.extend_from_slice(content);
        self.seal(kind, out, begin);
    }

    /// Opens the first record in place: its kind and its length. `None`: it is not whole.
    fn open(&mut self, input: &mut [u8]) -> Option<(u8, usize)> {
        let length = record_bytes(input);
        if input.len() < length {
            return None;
        }
        let (content, check) = input[HEADER..length].split_at_mut(length - HEADER - CHECK);
        mangle(self.0, content);
        let expected = sum(self.0, content).to_be_bytes();
        assert_eq!(check, expected, "record {} was lost, changed, doubled or sealed twice", self.0);
        self.0 += 1;
        Some((input[0], length))
    }
}

fn record_bytes(input: &[u8]) -> usize {
    match input {
        [_, _, _, high, low, ..] => HEADER + usize::from(u16::from_be_bytes([*high, *low])),
        _ => HEADER,
    }
}

fn mangle(number: u32, bytes: &mut [u8]) {
    let mut key = number.wrapping_mul(0x9e37_79b9) | 1;
    for byte in bytes {
        key ^= key << 13;
        key ^= key >> 17;
        key ^= key << 5;
        *byte ^= key.to_be_bytes()[0];
    }
}

fn sum(number: u32, bytes: &[u8]) -> u32 {
    let each = bytes.iter().map(|byte| u32::from(*byte));
    each.fold(number, |sum, byte| (sum ^ byte).wrapping_mul(0x0100_0193))
}

/// The server's end.
#[derive(Debug, Default)]
pub(crate) struct SimChannel {
    is_established: bool,
    sending: Numbered,
    receiving: Numbered,
    owes: bool,
    is_closed: bool,
}

impl SecureChannel for SimChannel {
    type Acceptor = ();

    fn accept((): &()) -> Option<Self> {
        Some(Self::default())
    }

    fn is_established(&self) -> bool {
        self.is_established
    }

    fn heap_bytes(&self) -> usize {
        // As a handshake of TLS has.
        if self.is_established { 0 } else { 1_000 }
    }

    fn first_record_bytes(&self, input: &[u8]) -> usize {
        record_bytes(input)
    }

    fn open(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> Opened {
        let mut opened = Opened { used: 0, plain: 0, end: None };
        if !self.is_established && input.first().is_some_and(|byte| *byte != HELLO) {
            return Opened { end: Some(ChannelEnd::NotTls), ..opened };
        }
        while let Some((kind, length)) = self.receiving.open(&mut input[opened.used..]) {
            let content = opened.used + HEADER..opened.used + length - CHECK;
            match kind {
                HELLO => {
                    assert_eq!(&input[content], GREETING);
                    assert!(!std::mem::replace(&mut self.is_established, true), "one handshake");
                    self.sending.send(HELLO, GREETING, out);
                }
                DATA => {
                    let bytes = content.len();
                    input.copy_within(content, opened.plain);
                    opened.plain += bytes;
                }
                UPDATE => self.owes = true,
                END => opened.end = Some(ChannelEnd::Closed),
                other => panic!("record {other}"),
            }
            opened.used += length;
            if opened.end.is_some() {
                break;
            }
        }
        opened
    }

    fn has_pending_record(&self) -> bool {
        self.owes && !self.is_closed
    }

    fn begin_record(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        if self.is_closed || !self.is_established {
            return None;
        }
        if std::mem::take(&mut self.owes) {
            self.sending.send(UPDATE, &[], out);
        }
        let begin = out.len();
        out.extend_from_slice(&[0; HEADER]);
        Some(begin)
    }

    fn end_record(&mut self, out: &mut Vec<u8>, begin: usize) -> bool {
        self.sending.seal(DATA, out, begin);
        true
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.is_established && !std::mem::replace(&mut self.is_closed, true) {
            self.sending.send(END, &[], out);
        }
    }

    fn is_exhausted(&self) -> bool {
        false
    }

    fn export(&self) -> Option<Vec<u8>> {
        self.is_established.then(|| {
            let numbers = [self.sending.0, self.receiving.0].map(u32::to_le_bytes).concat();
            [&numbers[..], &[u8::from(self.owes), u8::from(self.is_closed)]].concat()
        })
    }

    fn import(bytes: &[u8]) -> Option<Self> {
        let number =
            |at: usize| Some(Numbered(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)));
        let &[owes, is_closed] = bytes.get(8..)? else { return None };
        Some(Self {
            is_established: true,
            sending: number(0)?,
            receiving: number(4)?,
            owes: owes == 1,
            is_closed: is_closed == 1,
        })
    }
}

/// The client's end of a wire.
#[derive(Debug, Default)]
pub(crate) struct SimClient {
    has_begun: bool,
    is_answered: bool,
    /// The server has announced its end.
    has_ended: bool,
    sending: Numbered,
    receiving: Numbered,
    /// Requests that were sent, and answers. One answer may be for several requests.
    requests: u32,
    answers: u32,
    input: Vec<u8>,
}

impl SimClient {
    /// Seals what the client sends. `update`: it requests an answer before.
    pub(crate) fn seal(&mut self, content: &[u8], update: bool) -> Vec<u8> {
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.has_begun, true) {
            self.sending.send(HELLO, GREETING, &mut out);
        }
        if update {
            self.requests += 1;
            self.sending.send(UPDATE, &[], &mut out);
        }
        if !content.is_empty() {
            self.sending.send(DATA, content, &mut out);
        }
        out
    }

    /// Announces that the client sends no more.
    pub(crate) fn close(&mut self) -> Vec<u8> {
        let mut out = self.seal(&[], false);
        self.sending.send(END, &[], &mut out);
        out
    }

    /// The content of what the server has sent.
    pub(crate) fn open(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.extend_from_slice(bytes);
        let (mut used, mut content) = (0, Vec::new());
        while let Some((kind, length)) = self.receiving.open(&mut self.input[used..]) {
            assert!(!self.has_ended, "a record after the end");
            let record = &self.input[used + HEADER..used + length - CHECK];
            match kind {
                HELLO => assert!(!std::mem::replace(&mut self.is_answered, true)),
                DATA => content.extend_from_slice(record),
                UPDATE => {
                    self.answers += 1;
                    assert!(self.answers <= self.requests, "an answer without a request");
                }
                END => self.has_ended = true,
                other => panic!("record {other}"),
            }
            used += length;
        }
        self.input.drain(..used);
        content
    }
}

/// A header that names the peer itself, or that the peer speaks for itself: either way the rules are the peer's.
pub(crate) fn proxy_header(random: &Random, peer: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(address) = peer.ip() else { return OWN_HEADERS[1].to_vec() };
    let port = peer.port();
    match random.below(4) {
        0 => OWN_HEADERS[0].to_vec(),
        1 => OWN_HEADERS[1].to_vec(),
        2 => format!("PROXY TCP4 {address} 10.0.0.2 {port} 80\r\n").into_bytes(),
        _ => {
            let fields = random.below(40);
            let length = u16::try_from(12 + fields).expect("small").to_be_bytes();
            let start = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &address.octets()].concat();
            [&start[..], &[10, 0, 0, 2], &port.to_be_bytes(), &[0, 80], &vec![4; fields]].concat()
        }
    }
}
