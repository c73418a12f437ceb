//! The process: command line, checks before the start, messages to the operator, life and end; and the commands that
//! speak to a running server.

mod banner;
mod check;
mod cli;
mod client;
mod life;
mod probe;

use std::process::ExitCode;

use crate::config::load::{Merged, Sources, merge};
use crate::config::validate::{DevelopmentApp, build};
use cli::{Arguments, ClientCommand, Command};
pub use probe::StartError;

/// Runs the command line. 0 is a clean end, 1 a failure while running, 2 a wrong command line or configuration.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::read();
    let sources = match Sources::gather(
        arguments.flags(),
        arguments.config.as_deref(),
        arguments.env_file.as_deref(),
    ) {
        Ok(sources) => sources,
        Err(problems) => return refuse(&problems),
    };
    let merged = merge(&sources);
    let colour = wants_colour(&sources);
    for warning in &merged.warnings {
        eprintln!("warning: {warning}");
    }
    match arguments.command {
        Some(Command::Check) => run_check(&merged),
        Some(Command::Client(command)) => run_client(&command, &merged, colour),
        Some(Command::Start) | None => start(&merged, colour),
    }
}

/// On a terminal, unless its owner does not want it (no-color.org: any text at all says so).
fn wants_colour(sources: &Sources) -> bool {
    let refused = sources.environment.get("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::io::IsTerminal::is_terminal(&std::io::stdout())
}

fn run_client(command: &ClientCommand, merged: &Merged, colour: bool) -> ExitCode {
    match build(merged, &drawn_credentials()) {
        Ok(config) => {
            let scheme = merged.server.get("scheme").map(|given| given.value.as_str());
            client::run(command, config, scheme, colour)
        }
        Err(problems) => refuse_client(&problems),
    }
}

fn run_check(merged: &Merged) -> ExitCode {
    match build(merged, &drawn_credentials()) {
        Ok(config) => {
            print!("{}", check::render(merged, &config));
            ExitCode::SUCCESS
        }
        Err(problems) => refuse(&problems),
    }
}

fn start(merged: &Merged, colour: bool) -> ExitCode {
    let config = match build(merged, &drawn_credentials()) {
        Ok(config) => config,
        Err(problems) => return refuse(&problems),
    };
    start_logging(config.debug, colour);
    let public = banner::Public::of(merged);
    let facts = match probe::run() {
        Ok(facts) => facts,
        Err(error) => return fail(&error),
    };
    if let Some(warning) = facts.warning() {
        eprintln!("warning: {warning}");
    }
    let summary = banner::Summary::of(&config, &facts);
    match life::serve(config, |started| print!("{}", banner::render(&started, &summary, &public))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Text for a person on a terminal, plain lines for a file or Supervisor.
fn start_logging(debug: bool, colour: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| if debug { "debug" } else { "info" }.into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_target(false).init();
}

fn refuse(problems: &[String]) -> ExitCode {
    tell(problems);
    eprintln!(
        "ringverb did not start: mend the configuration above; `ringverb check` shows it whole."
    );
    ExitCode::from(2)
}

fn refuse_client(problems: &[String]) -> ExitCode {
    tell(problems);
    eprintln!("Nothing was sent: mend the configuration above; `ringverb check` shows it whole.");
    ExitCode::from(2)
}

fn tell(problems: &[String]) {
    for problem in problems {
        eprintln!("error: {problem}");
    }
}

fn fail(error: &StartError) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// Six digits, and twice 20 lowercase characters, as `reverb:install` draws them.
fn drawn_credentials() -> DevelopmentApp {
    let mut bytes = [0_u8; 48];
    if let Err(error) = getrandom::fill(&mut bytes) {
        panic!("the kernel gives no random numbers: {error}");
    }
    let text = |bytes: &[u8], alphabet: &[u8]| -> String {
        bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
    };
    const LOWERCASE: &[u8] = b"abcdefghijklmnopqrstuvwxyz012345";
    DevelopmentApp {
        id: text(&bytes[..1], b"123456789") + &text(&bytes[1..6], b"0123456789"),
        key: text(&bytes[6..26], LOWERCASE),
        secret: text(&bytes[26..46], LOWERCASE),
    }
}
