//! See `bodies/api_request.rs`.
#![no_main]

#[path = "../bodies/api_request.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::check(data));
