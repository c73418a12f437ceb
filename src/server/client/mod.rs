//! Commands that speak to a running server, so that a developer can try each side alone: publish, channels, users,
//! listen. Blocking and plain: one connection, a deadline on every wait. Configuration comes from the same sources as
//! the server's; no TLS, since the server has none either.

mod connection;
mod http;
mod listen;
mod peer;
mod publish;
mod queries;
mod show;
mod socket;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::cli::ClientCommand;
use crate::config::Config;
use crate::output::{self, Kind};
use crate::pusher::json;
use crate::text::visible;
use peer::Peer;

/// How long the server may take for anything.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a command ends early.
#[derive(Debug)]
enum Failure {
    /// The command line or the configuration is wrong: 2.
    Usage(String),
    /// The server cannot be reached, or said no: 1.
    Server(String),
    /// Nobody reads standard output any more, as behind `| head`: no failure.
    OutputClosed,
}

/// Runs one command. `scheme` is the one of `REVERB_SCHEME`.
pub(super) fn run(command: &ClientCommand, config: Config, scheme: Option<&str>) -> ExitCode {
    let colour = config.colour && io::stdout().is_terminal();
    let target = command.target();
    let outcome = Peer::choose(config, target).and_then(|peer| {
        if scheme == Some("https") && target.url.is_none() {
            note(&format!(
                "REVERB_SCHEME is https, which the proxy serves; this command connects to the server itself, at {}",
                peer.url()
            ));
        }
        match command {
            ClientCommand::Publish(arguments) => publish::run(&peer, arguments),
            ClientCommand::Channels(arguments) => queries::channels(&peer, &arguments.prefix),
            ClientCommand::Users(arguments) => queries::users(&peer, &arguments.channel),
            ClientCommand::Listen(arguments) => listen::run(&peer, arguments, colour),
        }
    });
    let (status, sentence) = match outcome {
        Ok(()) | Err(Failure::OutputClosed) => return ExitCode::SUCCESS,
        Err(Failure::Server(sentence)) => (1, sentence),
        Err(Failure::Usage(sentence)) => (2, sentence),
    };
    output::tell(Kind::Error, &sentence);
    ExitCode::from(status)
}

/// What is no result: standard output stays for results.
fn note(text: &str) {
    output::tell(Kind::Note, text);
}

/// Writes results to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Server(format!("cannot write to standard output: {error}")),
    })
}

/// The member of that name; the last one, if there are several. `object` is a span of text that `Validator` passed.
fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let members = json::members(object)?;
    members.filter(|(given, _)| json::is_name(given, name)).map(|(_, value)| value).last()
}

/// A text of somebody else's, for a sentence.
fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 600;
    let mut out = String::new();
    visible(text, SHOWN_MAX, &mut out);
    out
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    json::write_string(text, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
