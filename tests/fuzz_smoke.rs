//! The fuzz targets without a fuzzer: on stable Rust each body takes its seed corpus, as it is and mutated.
//! The mutations are the same in every run. Long runs: tests/fuzz/Cargo.toml.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

#[path = "fuzz/bodies/api_request.rs"]
mod api_request;
#[path = "fuzz/bodies/channel_name.rs"]
mod channel_name;
#[path = "fuzz/bodies/envelope.rs"]
mod envelope;
#[path = "fuzz/bodies/event_parser.rs"]
mod event_parser;
#[path = "fuzz/bodies/frame_decoder.rs"]
mod frame_decoder;
#[path = "fuzz/bodies/frames.rs"]
mod frames;
#[path = "fuzz/bodies/http_request.rs"]
mod http_request;
#[path = "fuzz/bodies/proxy_header.rs"]
mod proxy_header;
#[path = "fuzz/bodies/resp.rs"]
mod resp;
#[path = "fuzz/bodies/tls_handshake.rs"]
mod tls_handshake;
#[path = "fuzz/bodies/tls_record.rs"]
mod tls_record;

type Body = fn(&[u8]);

const TARGETS: &[(&str, Body)] = &[
    ("api_request", api_request::check),
    ("channel_name", channel_name::check),
    ("envelope", envelope::check),
    ("event_parser", event_parser::check),
    ("frame_decoder", frame_decoder::check),
    ("frames", frames::check),
    ("http_request", http_request::check),
    ("proxy_header", proxy_header::check),
    ("resp", resp::check),
    ("tls_handshake", tls_handshake::check),
    ("tls_record", tls_record::check),
];

/// Mutated inputs for each target: about a second in a debug build.
const MUTATIONS: usize = 20_000;
const INPUT_BYTES_MAX: usize = 8 * 1024;

/// An input of TLS takes as long as 20 others.
fn mutations_of(name: &str) -> usize {
    match name {
        // Some of these inputs are three handshakes.
        "tls_handshake" => MUTATIONS / 40,
        "tls_record" => MUTATIONS / 20,
        _ => MUTATIONS,
    }
}

/// Tokens that a blind mutation would hardly make.
#[rustfmt::skip]
const DICTIONARY: &[&[u8]] = &[
    b"\"", b"\\", b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b":", b",", b"null", b"1e999", b"-0",
    b"pusher:", b"client-", b"\"data\":", b"\"event\":", b"\"channel\":", b"cache-", b"presence-", b"*", b"://", b"\n",
    b"\r\n", b"\r\n\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"%00", b"%",
    b"\x81\x80", b"\x00\x80", b"\x88\x82", b"\xfe\x00\x7e", b"\xff", b"\x80", b"\xf4\x8f\xbf\xbf", b"\xed\xa0\x80",
    b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    b"*1\r\n", b"%1\r\n", b">2\r\n", b"|1\r\n", b"$1\r\n", b"$-1\r\n", b":1\r\n", b"+", b"=4\r\n",
    b"\x0f\x01\x00\x00", b"\xff\xff\xff\xff\x0f", b"\x041001", b"\x07cache-c", b"\x81\x02{}",
];

#[test]
fn every_seed_of_the_corpus_passes() {
    for (name, body) in TARGETS {
        for (file, seed) in corpus(name) {
            assert!(passes(*body, &seed), "{name}: {} fails", file.display());
        }
    }
}

#[test]
fn mutations_of_all_seeds_pass() {
    for (name, body) in TARGETS {
        let seeds: Vec<_> = corpus(name).into_iter().map(|(_, seed)| seed).collect();
        if let Some(input) = find_failure(*body, &seeds, mutations_of(name)) {
            panic!("{name} fails on b\"{}\"", input.escape_ascii());
        }
    }
}

/// A harness that cannot fail proves nothing: this body is broken in a way that only a mutation of the seed shows.
#[test]
fn a_broken_target_is_found_by_mutation() {
    fn canary(data: &[u8]) {
        assert!(!data.windows(2).any(|pair| pair == b"{{"), "gas");
    }
    assert!(passes(canary, b"{coal}"));
    assert!(!passes(canary, b"{{gas}}"), "a panic of a body goes unnoticed");
    let found = find_failure(canary, &[b"{coal}".to_vec()], MUTATIONS);
    assert!(found.is_some(), "the mutations do not reach a neighbor of the seed");
}

#[test]
fn every_target_is_here() {
    let listed: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for folder in ["bodies", "fuzz_targets", "corpus"] {
        let entries = files(&fuzz_folder().join(folder));
        let stem = |path: &PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into());
        let mut found: BTreeSet<String> = entries.iter().filter_map(stem).collect();
        // tests/simulator replays these.
        for target in ["simulation", "nodes", "sessions"] {
            let is_here = found.remove(target);
            assert_eq!(is_here, folder != "bodies", "tests/fuzz/{folder}: {target}");
        }
        assert_eq!(found, listed, "tests/fuzz/{folder} and the targets of this file differ");
    }
}

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a folder entry").path()).collect();
    // The order of a folder differs between machines, the inputs must not.
    paths.sort();
    paths
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = files(&fuzz_folder().join("corpus").join(name));
    assert!(!paths.is_empty(), "{name} has no seeds");
    let read = |path: PathBuf| {
        let seed = std::fs::read(&path).expect("a seed can be read");
        (path, seed)
    };
    paths.into_iter().map(read).collect()
}

fn passes(body: Body, input: &[u8]) -> bool {
    catch_unwind(|| body(input)).is_ok()
}

/// The first of `count` mutations that the body fails on.
fn find_failure(body: Body, seeds: &[Vec<u8>], count: usize) -> Option<Vec<u8>> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    (0..count).map(|_| mutate(seeds, &mut random)).find(|input| !passes(body, input))
}

/// One to four changes to a seed.
fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(16)).min(input.len());
        match random.below(7) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.byte(),
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => {
                let piece = input[at..end].to_vec();
                insert(&mut input, at, &piece);
            }
            5 => insert(&mut input, at, DICTIONARY[random.below(DICTIONARY.len())]),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let tail = &other[random.below(other.len() + 1)..];
                input.truncate(at);
                insert(&mut input, at, tail);
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

/// xorshift64: poor as randomness goes, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("a length fits u64");
        usize::try_from(self.next() % end).expect("below a length")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}
