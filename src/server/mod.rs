//! The process: command line, checks before the start, messages to the operator, life and end; and the commands that
//! speak to a running server.

mod banner;
mod check;
mod cli;
mod client;
mod delay;
mod ending;
mod exchange;
mod handover;
mod life;
mod listening;
mod locked;
mod meeting;
mod memory;
mod probe;
mod supervision;
mod takeover;
mod watch;

use std::process::ExitCode;

use rustix::process::Pid;

use crate::config::Config;
use crate::config::load::{Merged, Sources, merge};
use crate::config::validate::{DevelopmentApp, build};
use crate::output;
use cli::{Arguments, ClientCommand, Command};
use life::Ended;
use locked::LockedMemory;
pub use probe::StartError;

/// Runs the command line. 0 is a clean end, 1 a failure while running, 2 a wrong command line or configuration.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::read();
    if let Some(stand_in) = arguments.minds() {
        return mind(stand_in, arguments.prints_events());
    }
    exchange::mind_after_failure(arguments.role(), run(&arguments))
}

/// Waits for a process that serves instead of this one.
fn mind(stand_in: Pid, prints_events: bool) -> ExitCode {
    let settings = output::Settings { prints_events, colour: false };
    if let Err(error) = output::start(settings) {
        return fail(&StartError::Start(error));
    }
    let status = exchange::mind(stand_in);
    output::finish();
    status
}

fn run(arguments: &Arguments) -> ExitCode {
    let merged = match Sources::gather(
        arguments.flags(),
        arguments.config.as_deref(),
        arguments.env_file.as_deref(),
        arguments.env.as_deref(),
    ) {
        Ok(sources) => merge(&sources),
        Err(problems) => return refuse(&problems),
    };
    match &arguments.command {
        Some(Command::Check) => run_check(&merged),
        Some(Command::Client(command)) => run_client(command, &merged),
        Some(Command::Start) | None => start(&merged, arguments),
    }
}

fn warn(merged: &Merged) {
    merged.warnings.iter().for_each(|warning| output::complain(&format!("warning: {warning}\n")));
}

fn run_client(command: &ClientCommand, merged: &Merged) -> ExitCode {
    warn(merged);
    match build(merged, &drawn_credentials()) {
        Ok(config) => {
            let scheme = merged.server.get("scheme").map(|given| given.value.as_str());
            client::run(command, config, scheme)
        }
        Err(problems) => refuse_client(&problems),
    }
}

fn run_check(merged: &Merged) -> ExitCode {
    warn(merged);
    match build(merged, &drawn_credentials()) {
        Ok(config) => {
            output::log_text(&check::render(merged, &config));
            let memory = LockedMemory::of(life::worker_count(&config));
            let told = match memory.warning() {
                Some(warning) => format!("warning: {warning}\n"),
                None => format!("{memory}.\n"),
            };
            output::log_text(&told);
            ExitCode::SUCCESS
        }
        Err(problems) => refuse(&problems),
    }
}

fn start(merged: &Merged, arguments: &Arguments) -> ExitCode {
    let config = match build(merged, &drawn_credentials()) {
        Ok(config) => config,
        Err(problems) => {
            warn(merged);
            return refuse(&problems);
        }
    };
    let settings = output::Settings { prints_events: config.print_events, colour: config.colour };
    if let Err(error) = output::start(settings) {
        return fail(&StartError::Start(error));
    }
    let status = run_server(merged, config, arguments);
    output::finish();
    status
}

fn run_server(merged: &Merged, config: Config, arguments: &Arguments) -> ExitCode {
    warn(merged);
    let public = banner::Public::of(merged);
    let facts = match probe::run() {
        Ok(facts) => facts,
        Err(error) => return fail(&error),
    };
    if let Some(warning) = facts.warning() {
        output::complain(&format!("warning: {warning}\n"));
    }
    if let Some(warning) = LockedMemory::of(life::worker_count(&config)).warning() {
        output::complain(&format!("warning: {warning}\n"));
    }
    let summary = banner::Summary::of(&config, &facts);
    let on_start = |started| output::log_text(&banner::render(&started, &summary, &public));
    match life::serve(config, arguments.takeover(), arguments.role(), on_start) {
        Ok(Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::Replaced(replacement)) => replacement.run(),
        Err(error) => fail(&error),
    }
}

fn refuse(problems: &[String]) -> ExitCode {
    tell(problems);
    output::complain(
        "ringverb did not start: mend the configuration above; `ringverb check` shows it whole.\n",
    );
    ExitCode::from(2)
}

fn refuse_client(problems: &[String]) -> ExitCode {
    tell(problems);
    output::complain(
        "Nothing was sent: mend the configuration above; `ringverb check` shows it whole.\n",
    );
    ExitCode::from(2)
}

fn tell(problems: &[String]) {
    problems.iter().for_each(|problem| output::complain(&format!("error: {problem}\n")));
}

fn fail(error: &StartError) -> ExitCode {
    output::complain(&format!("error: {error}\n"));
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
