//! The simulator, its choices from the fuzzer: clients, cores and a kernel that is as nasty as it may be. The modules
//! are those of tests/simulator, which also replays the corpus.
#![no_main]
#![allow(dead_code, reason = "each target uses its part of the simulator")]

#[path = "../../simulator/backend.rs"]
mod backend;
#[path = "../../simulator/backends.rs"]
mod backends;
#[path = "../../simulator/client.rs"]
mod client;
#[path = "../../simulator/http.rs"]
mod http;
#[path = "../../simulator/kernel.rs"]
mod kernel;
#[path = "../../simulator/line.rs"]
mod line;
#[path = "../../simulator/moving.rs"]
mod moving;
#[path = "../../simulator/process.rs"]
mod process;
#[path = "../../simulator/random.rs"]
mod random;
#[path = "../../simulator/redis.rs"]
mod redis;
#[path = "../../simulator/simulation.rs"]
mod simulation;

libfuzzer_sys::fuzz_target!(|data: &[u8]| simulation::run_script(data));
