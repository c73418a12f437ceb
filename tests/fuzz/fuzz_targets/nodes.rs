//! The simulator of several nodes and a Redis, its choices from the fuzzer. The modules are those of tests/simulator,
//! which also replays the corpus.
#![no_main]
#![allow(dead_code, reason = "each target uses its part of the simulator")]

include!("../simulator.rs");

#[path = "../../simulator/cluster/mod.rs"]
mod cluster;

libfuzzer_sys::fuzz_target!(|data: &[u8]| cluster::run_script(data));
