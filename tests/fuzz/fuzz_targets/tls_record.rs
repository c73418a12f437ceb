//! See `bodies/tls_record.rs`.
#![no_main]

#[path = "../bodies/tls_record.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::check(data));
