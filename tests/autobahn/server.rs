//! The server as an echo server, for `tests/autobahn/run`: a program of its own, so that the one that is shipped never
//! is one. It differs from `src/main.rs` in nothing else.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringverb::main()
}
