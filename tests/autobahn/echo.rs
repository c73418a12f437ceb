//! The server as an echo server, for suites that test a server's framing by its echo (`--features echo`).

use std::process::ExitCode;

fn main() -> ExitCode {
    ringverb::server::main()
}
