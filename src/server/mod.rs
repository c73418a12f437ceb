//! The process: command line, checks before the start, messages to the operator, life and end; and the commands that
//! speak to a running server.

mod banner;
mod check;
mod cli;
mod client;
mod handover;
mod life;
mod memory;
mod probe;
mod supervision;
mod takeover;
mod watch;

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::config::Config;
use crate::config::load::{Merged, Sources, merge};
use crate::config::validate::{DevelopmentApp, build};
use cli::{Arguments, ClientCommand, Command};
pub use probe::StartError;

/// Runs the command line. 0 is a clean end, 1 a failure while running, 2 a wrong command line or configuration.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::read();
    let merged = match Sources::gather(
        arguments.flags(),
        arguments.config.as_deref(),
        arguments.env_file.as_deref(),
    ) {
        Ok(sources) => merge(&sources),
        Err(problems) => return refuse(&problems),
    };
    for warning in &merged.warnings {
        eprintln!("warning: {warning}");
    }
    match arguments.command {
        Some(Command::Check) => run_check(&merged),
        Some(Command::Client(command)) => run_client(&command, &merged),
        Some(Command::Start) | None => start(&merged, arguments.takeover()),
    }
}

fn run_client(command: &ClientCommand, merged: &Merged) -> ExitCode {
    match build(merged, &drawn_credentials()) {
        Ok(config) => {
            let scheme = merged.server.get("scheme").map(|given| given.value.as_str());
            client::run(command, config, scheme)
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

fn start(merged: &Merged, takeover: Option<cli::TakeOver>) -> ExitCode {
    let config = match build(merged, &drawn_credentials()) {
        Ok(config) => config,
        Err(problems) => return refuse(&problems),
    };
    start_logging(&config);
    let public = banner::Public::of(merged);
    let facts = match probe::run() {
        Ok(facts) => facts,
        Err(error) => return fail(&error),
    };
    if let Some(warning) = facts.warning() {
        eprintln!("warning: {warning}");
    }
    let summary = banner::Summary::of(&config, &facts);
    let events_printed = config.print_events;
    let on_start = |started| {
        let text = banner::render(&started, &summary, &public);
        if events_printed { eprint!("{text}") } else { print!("{text}") }
    };
    match life::serve(config, takeover, on_start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Text for a person on a terminal, plain lines for a file or Supervisor. Standard output is the events' alone where
/// they are printed.
fn start_logging(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let colour = |terminal: bool| terminal && config.colour;
    if config.print_events {
        log.with_ansi(colour(std::io::stderr().is_terminal())).with_writer(std::io::stderr).init();
    } else {
        log.with_ansi(colour(std::io::stdout().is_terminal())).init();
    }
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
