//! What the cluster's Redis can send.

use std::hint::black_box;

use ringverb::resp::reader::Reader;

use super::{Entry, Peer, Run, entry};

pub(super) const ENTRIES: &[Entry] = &[
    entry("RESP: an array of empty texts", Peer::Redis, empty_texts),
    entry("RESP: arrays in arrays", Peer::Redis, nested),
    entry("RESP: one blob, 100 bytes at a time", Peer::Redis, blob),
    entry("RESP: a line, a byte at a time", Peer::Redis, line),
    entry("RESP: small pushes", Peer::Redis, pushes),
];

fn reading(bytes: Vec<u8>, piece: usize) -> (usize, Run) {
    let length = bytes.len();
    let run = move || {
        let mut reader = Reader::default();
        let mut values = 0;
        for piece in black_box(&bytes).chunks(piece) {
            reader.push(piece);
            while let Some(value) = reader.next().expect("good RESP") {
                black_box(value);
                values += 1;
            }
        }
        assert!(values > 0);
    };
    (length, Box::new(run))
}

fn empty_texts(size: usize) -> (usize, Run) {
    let count = size / 3;
    reading(format!("*{count}\r\n{}", "+\r\n".repeat(count)).into_bytes(), 64 * 1024)
}

fn nested(size: usize) -> (usize, Run) {
    let value = "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n";
    let count = size / value.len();
    reading(format!("*{count}\r\n{}", value.repeat(count)).into_bytes(), 64 * 1024)
}

fn blob(size: usize) -> (usize, Run) {
    reading(format!("${size}\r\n{}\r\n", "b".repeat(size)).into_bytes(), 100)
}

/// A line has at most 64 KiB.
fn line(size: usize) -> (usize, Run) {
    reading(format!("+{}\r\n", "l".repeat(size.min(60_000))).into_bytes(), 1)
}

fn pushes(size: usize) -> (usize, Run) {
    let push = ">3\r\n+message\r\n$1\r\nc\r\n$1\r\nm\r\n";
    reading(push.repeat(size / push.len()).into_bytes(), 64 * 1024)
}
