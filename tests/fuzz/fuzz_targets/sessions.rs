//! The simulator of one process, its choices from the fuzzer: most of them are those of backends, so of the sessions
//! that speak HTTP. The modules are those of tests/simulator, which also replays the corpus.
#![no_main]
#![allow(dead_code, reason = "each target uses its part of the simulator")]

include!("../simulator.rs");

libfuzzer_sys::fuzz_target!(|data: &[u8]| simulation::run_http_script(data));
