//! See `bodies/event_parser.rs`.
#![no_main]

#[path = "../bodies/event_parser.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::check(data));
