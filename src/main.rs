//! The binary: everything is in the library.

use std::process::ExitCode;

/// Small, quick to give memory back, and what the memory figures were measured with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringverb::main()
}
