//! The binary: everything is in the library.
//!
//! Only the choice of the allocator is made here, because a library must not make it: tests and benchmarks of the
//! library count allocations with allocators of their own.

use std::process::ExitCode;

/// Small, quick to give memory back, and what the memory figures were measured with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringverb::main()
}
