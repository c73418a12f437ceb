//! What anybody can send to the HTTP port before a request is authenticated.

use std::hint::black_box;

use ringverb::http1::query::{decode_form, parse_query, percent_decode, raw_pairs};
use ringverb::http1::request::{Progress, RequestLimits, RequestReader};
use ringverb::pusher::origin;

use super::{Entry, Peer, Run, entry};

/// A head has at most 16 KiB.
const HEAD_BYTES_MAX: usize = 16_000;
/// What a session receives at once.
const RECEIVED_AT_ONCE: usize = 8 * 1024;

pub(super) const ENTRIES: &[Entry] = &[
    Entry { bytes_max: HEAD_BYTES_MAX, ..entry("head: 63 fields", Peer::Anybody, many_fields) },
    Entry { bytes_max: HEAD_BYTES_MAX, ..entry("head: one long path", Peer::Anybody, long_path) },
    Entry {
        bytes_max: HEAD_BYTES_MAX,
        ..entry("head: in pieces of 16 bytes", Peer::Anybody, pieces)
    },
    Entry {
        bytes_max: HEAD_BYTES_MAX,
        ..entry("head: a list in Connection", Peer::Anybody, tokens)
    },
    entry("body: chunks of one byte", Peer::Anybody, chunks),
    entry("body: one chunk a read", Peer::Anybody, chunk_a_read),
    entry("requests in one segment", Peer::Anybody, pipelined),
    Entry { bytes_max: HEAD_BYTES_MAX, ..entry("query: pairs", Peer::Anybody, pairs) },
    Entry { bytes_max: HEAD_BYTES_MAX, ..entry("query: escapes", Peer::Anybody, escapes) },
    Entry { bytes_max: HEAD_BYTES_MAX, ..entry("path: escapes", Peer::Anybody, escaped_path) },
    Entry {
        bytes_max: HEAD_BYTES_MAX,
        ..entry("origin against two stars", Peer::Anybody, starred_origin)
    },
];

fn reader() -> RequestReader {
    RequestReader::new(RequestLimits { request_size_max: 1 << 20 })
}

/// Reads an input as a session does: piece by piece, every request that is complete.
fn reading(bytes: Vec<u8>, piece: usize, requests: usize) -> (usize, Run) {
    let mut buffer = Vec::new();
    let length = bytes.len();
    let run = move || {
        let mut reader = reader();
        let mut complete = 0;
        buffer.clear();
        for piece in black_box(&bytes).chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Progress::Complete(request) = reader.read(&mut buffer).expect("good requests")
            {
                black_box((request.keep_alive(), request.wants_upgrade()));
                complete += 1;
            }
        }
        assert_eq!(complete, requests);
    };
    (length, Box::new(run))
}

fn many_fields(size: usize) -> (usize, Run) {
    let field = format!("x: {}\r\n", "y".repeat((size / 63).saturating_sub(6)));
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", field.repeat(63));
    reading(head.into_bytes(), RECEIVED_AT_ONCE, 1)
}

fn long_path(size: usize) -> (usize, Run) {
    let head = format!("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", "/a".repeat(size / 2 - 16));
    reading(head.into_bytes(), RECEIVED_AT_ONCE, 1)
}

fn pieces(size: usize) -> (usize, Run) {
    let head = format!(
        "GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n",
        "\r\t".replace('\r', "y").repeat(size / 2 - 20)
    );
    reading(head.into_bytes(), 16, 1)
}

fn tokens(size: usize) -> (usize, Run) {
    let head =
        format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: {}\r\n\r\n", "a,".repeat(size / 2 - 24));
    reading(head.into_bytes(), RECEIVED_AT_ONCE, 1)
}

fn chunks(size: usize) -> (usize, Run) {
    reading(chunked(size), RECEIVED_AT_ONCE, 1)
}

fn chunk_a_read(size: usize) -> (usize, Run) {
    reading(chunked(size), 6, 1)
}

fn chunked(size: usize) -> Vec<u8> {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    format!("{head}{}0\r\n\r\n", "1\r\na\r\n".repeat(size / 6)).into_bytes()
}

fn pipelined(size: usize) -> (usize, Run) {
    let request = "GET / HTTP/1.1\r\nHost:\r\n\r\n";
    let count = size / request.len();
    reading(request.repeat(count).into_bytes(), RECEIVED_AT_ONCE, count)
}

/// What a handshake looks for in its query.
fn pairs(size: usize) -> (usize, Run) {
    let text = "a&".repeat(size / 2);
    let run = move || {
        let mut pairs = raw_pairs(black_box(&text));
        assert!(pairs.all(|(name, _)| decode_form(name) != "protocol"));
    };
    (size, Box::new(run))
}

fn escapes(size: usize) -> (usize, Run) {
    let text = format!("a={}", "%41+".repeat(size / 4));
    (text.len(), Box::new(move || assert!(!parse_query(black_box(&text)).is_empty())))
}

fn escaped_path(size: usize) -> (usize, Run) {
    let text = "%41".repeat(size / 3);
    (text.len(), Box::new(move || assert!(!percent_decode(black_box(&text)).is_empty())))
}

fn starred_origin(size: usize) -> (usize, Run) {
    let patterns = ["https://*-stage.*.example.com".to_owned()];
    let text = format!("https://{}", "-stage-".repeat(size / 7));
    let run = move || {
        assert!(!origin::is_allowed(&patterns, Some(black_box(&text)), false));
    };
    (size, Box::new(run))
}
