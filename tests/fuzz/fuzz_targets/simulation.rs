//! The simulator, its choices from the fuzzer: clients, cores and a kernel that is as nasty as it may be. The modules
//! are those of tests/simulator, which also replays the corpus.
#![no_main]
#![allow(dead_code, reason = "each target uses its part of the simulator")]

include!("../simulator.rs");

libfuzzer_sys::fuzz_target!(|data: &[u8]| simulation::run_script(data));
