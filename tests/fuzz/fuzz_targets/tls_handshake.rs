//! See `bodies/tls_handshake.rs`.
#![no_main]

#[path = "../bodies/tls_handshake.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::check(data));
