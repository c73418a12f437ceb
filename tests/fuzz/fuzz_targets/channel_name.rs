//! See `bodies/channel_name.rs`.
#![no_main]

#[path = "../bodies/channel_name.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::check(data));
