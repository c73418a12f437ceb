//! See `bodies/http_request.rs`.
#![no_main]

#[path = "../bodies/http_request.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::check(data));
