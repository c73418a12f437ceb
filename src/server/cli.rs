//! The command line: `ringverb`, `ringverb start`, `ringverb check`, with the flags of `reverb:start`; and the commands
//! that speak to a running server.
//!
//! Owns the structure of commands and flags, which `clap` parses. Each command has the options that apply to it, and no
//! others. The flags of options come from the table in `config/options`, with their help. Does not read files and does
//! not check values: `config` does, so that all problems of flags, environment and files are reported together. Output:
//! `Arguments`. Examples are in `notes.rs`. The doc comments of fields are the help.
//! Limit: help lines of 100 columns. Cost: once at the start; clap builds the definition of all commands, with some
//! allocations for each option.

mod change;
mod client;
mod notes;
mod shared;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use rustix::process::Pid;

use super::takeover::replacement::Role;
pub(super) use change::{
    AppArguments, AppCommand, DisconnectArguments, UnsubscribeArguments, WhoseArguments,
};
use notes::{CHECK_NOTES, COMPLETIONS_EXAMPLES, DOCTOR_NOTES, EXAMPLES, LONG};

use crate::config::options::{self, OptionId};
pub(super) use client::{ClientCommand, ListenArguments, PublishArguments, TopArguments};
use shared::SERVER;
pub(super) use shared::{Address, CommandTarget, FileArguments};

/// Set by `packaging/release`: commit and its date.
const COMMIT: Option<&str> = option_env!("RINGVERB_COMMIT");
const FEATURES: &str = "io_uring epoll tls redis webhooks";

/// A Pusher Channels server for Laravel: takes the place of Laravel Reverb.
#[derive(Debug, Parser)]
#[command(name = "ringverb", version)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    start: StartArguments,
}

#[derive(Args, Clone, Debug, Default)]
pub(super) struct StartArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Print each message
    #[arg(long, help_heading = SERVER)]
    debug: bool,
    /// Write each accepted event to standard output, for the test suite of an app
    #[arg(long, value_name = "FORMAT", value_parser = ["json"], help_heading = SERVER)]
    print_events: Option<String>,
    /// Replace the running server and take over its connections, or only its listeners: it then closes its
    /// connections. Without a running server this is an ordinary start
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "connections", help_heading = SERVER)]
    takeover: Option<TakeOver>,
    /// Stages of SIGUSR2 (`takeover/replacement.rs`), each with the id of the other process
    #[arg(long, value_name = "PID", require_equals = true, hide = true)]
    stand_in_for: Option<i32>,
    #[arg(long, value_name = "PID", require_equals = true, hide = true)]
    takes_back_from: Option<i32>,
    #[arg(long, value_name = "PID", require_equals = true, hide = true)]
    minds: Option<i32>,
    #[command(flatten)]
    files: FileArguments,
}

/// Options of the server that a check looks at, too.
#[derive(Args, Clone, Debug, Default)]
struct ServerArguments {
    #[arg(long, value_name = "ADDRESS", help_heading = SERVER, help = OptionId::Host.spec().flag_help())]
    host: Option<String>,
    #[arg(long, value_name = "PORT", help_heading = SERVER, help = OptionId::Port.spec().flag_help())]
    port: Option<String>,
    #[arg(long, value_name = "PATH", help_heading = SERVER, help = OptionId::Path.spec().flag_help())]
    path: Option<String>,
    #[arg(long, value_name = "N", help_heading = SERVER, help = OptionId::Workers.spec().flag_help())]
    workers: Option<String>,
    #[arg(long, value_name = "NAME", help_heading = SERVER, help = OptionId::Io.spec().flag_help())]
    io: Option<String>,
    #[arg(long, value_name = "NAME", help_heading = SERVER, help = OptionId::Hostname.spec().flag_help())]
    hostname: Option<String>,
}

/// What a new process takes over from the one that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TakeOver {
    Connections,
    Listeners,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server (the same as no command)
    #[command(visible_alias = "reverb:start")]
    Start(StartArguments),
    /// Check the configuration and what a start would find: port, kernel, Redis, webhooks
    #[command(after_help = CHECK_NOTES)]
    Check(CheckArguments),
    /// Find what limits this host to how many connections, and what else is wrong with it
    #[command(after_help = DOCTOR_NOTES)]
    Doctor(DoctorArguments),
    #[command(flatten)]
    Client(ClientCommand),
    #[command(flatten)]
    Describe(DescribeCommand),
}

/// Commands that print what is known about the command line. They read no configuration.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum DescribeCommand {
    /// Print the completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions { shell: Shell },
    /// Write the manual pages into a folder, for packages
    #[command(hide = true)]
    ManualPages { folder: PathBuf },
}

/// The shells that have completions.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Clone, Debug, Default)]
pub(super) struct CheckArguments {
    /// Show the values that are defaults, too
    #[arg(long)]
    pub(super) all: bool,
    /// Check the configuration and its files only, and ask nothing of this machine and the network
    #[arg(long)]
    pub(super) offline: bool,
    #[command(flatten)]
    server: ServerArguments,
    #[command(flatten)]
    files: FileArguments,
}

#[derive(Args, Clone, Debug, Default)]
pub(super) struct DoctorArguments {
    /// Connections that the host is to serve
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(super) connections: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    server: ServerArguments,
    #[command(flatten)]
    files: FileArguments,
}

impl Arguments {
    /// Ends the process for `--help`, `--version` and mistakes (2).
    pub(super) fn read() -> Self {
        let command = Self::described();
        let matches = command.try_get_matches_from(without_help_of_help(std::env::args_os()));
        let matches = matches.unwrap_or_else(|error| suggesting_start(error).exit());
        match Self::from_arg_matches(&matches) {
            Ok(arguments) => arguments,
            Err(error) => error.exit(),
        }
    }

    /// Help, completions and manual pages are made from this definition, with examples and the names in the
    /// environment.
    pub(super) fn described() -> clap::Command {
        Self::command()
            .after_help(format!("{EXAMPLES}\n--help lists the names in the environment, too."))
            .after_long_help(format!("{EXAMPLES}{LONG}{}", options::help()))
            .long_version(long_version())
    }

    /// The stages of SIGUSR2 take over everything, whatever the options of the start say.
    pub(super) fn takeover(&self) -> Option<TakeOver> {
        match self.role() {
            Role::Server => self.of_start(|start| start.takeover),
            Role::StandIn(_) | Role::TakesBack(_) => Some(TakeOver::Connections),
        }
    }

    pub(super) fn role(&self) -> Role {
        let process = |number: Option<i32>| number.and_then(Pid::from_raw);
        let stand_in_for = process(self.of_start(|start| start.stand_in_for));
        let takes_back_from = process(self.of_start(|start| start.takes_back_from));
        match (stand_in_for, takes_back_from) {
            (Some(parent), _) => Role::StandIn(parent),
            (_, Some(child)) => Role::TakesBack(child),
            _ => Role::Server,
        }
    }

    /// Without a command, or with `start`, this process becomes a server.
    pub(super) fn is_start(&self) -> bool {
        matches!(self.command, Some(Command::Start(_)) | None)
    }

    /// The child that this process waits for. It then does nothing else.
    pub(super) fn minds(&self) -> Option<Pid> {
        self.of_start(|start| start.minds).and_then(Pid::from_raw)
    }

    pub(super) fn prints_events(&self) -> bool {
        self.of_start(|start| start.print_events.as_ref()).is_some()
    }

    /// An option of a start, after the command or before it.
    fn of_start<'a, T>(&'a self, get: impl Fn(&'a StartArguments) -> Option<T>) -> Option<T> {
        let of_command = match &self.command {
            Some(Command::Start(start)) => get(start),
            _ => None,
        };
        of_command.or_else(|| get(&self.start))
    }

    /// The files that were named, after the command or before it.
    pub(super) fn files(&self) -> FileArguments {
        let before = self.start.files.clone();
        let after = match &self.command {
            None => return before,
            Some(Command::Describe(_)) => return before,
            Some(Command::Start(start)) => &start.files,
            Some(Command::Check(check)) => &check.files,
            Some(Command::Doctor(doctor)) => &doctor.files,
            Some(Command::Client(client)) => client.files(),
        }
        .clone();
        FileArguments {
            config: after.config.or(before.config),
            env_file: after.env_file.or(before.env_file),
            env: after.env.or(before.env),
            laravel_config: after.laravel_config.or(before.laravel_config),
        }
    }

    /// The flags that were given, by option. Those after a command win over those before it.
    pub(super) fn flags(&self) -> HashMap<OptionId, String> {
        let mut flags = self.start.flags();
        flags.extend(given_flags([(OptionId::LaravelConfig, &self.files().laravel_config)]));
        match &self.command {
            None | Some(Command::Describe(_)) => {}
            Some(Command::Start(start)) => flags.extend(start.flags()),
            Some(Command::Check(check)) => flags.extend(check.server.flags()),
            Some(Command::Doctor(doctor)) => flags.extend(doctor.server.flags()),
            Some(Command::Client(client)) => {
                if let Some(Address { host, port, path, .. }) = client.address() {
                    flags.extend(given_flags([
                        (OptionId::Host, host),
                        (OptionId::Port, port),
                        (OptionId::Path, path),
                    ]));
                }
                if let ClientCommand::Top(TopArguments { target, .. })
                | ClientCommand::Reload(target)
                | ClientCommand::App(AppArguments { target, .. }) = client
                {
                    flags.extend(given_flags([(OptionId::Admin, &target.admin)]));
                }
            }
        }
        flags
    }
}

impl StartArguments {
    fn flags(&self) -> HashMap<OptionId, String> {
        let mut flags = self.server.flags();
        flags.extend(given_flags([(OptionId::PrintEvents, &self.print_events)]));
        if self.debug {
            flags.insert(OptionId::Debug, "true".to_owned());
        }
        flags
    }
}

impl ServerArguments {
    fn flags(&self) -> HashMap<OptionId, String> {
        let Self { host, port, path, workers, io, hostname } = self;
        let flags = [
            (OptionId::Host, host),
            (OptionId::Port, port),
            (OptionId::Path, path),
            (OptionId::Workers, workers),
            (OptionId::Io, io),
            (OptionId::Hostname, hostname),
        ];
        given_flags(flags).collect()
    }
}

/// `--version` prints it, so that a report of a bug names the build.
fn long_version() -> String {
    let commit = COMMIT.unwrap_or("unknown, because this is no release build");
    format!("{}\ncommit: {commit}\nfeatures: {FEATURES}", env!("CARGO_PKG_VERSION"))
}

/// `help --help` is `help`: the help of `help` itself would be of no use.
fn without_help_of_help(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    if arguments.get(1).is_some_and(|command| command == "help") {
        arguments.retain(|argument| argument != "--help" && argument != "-h");
    }
    arguments
}

/// The names that other servers have for `start` are near to no command of this one.
fn suggesting_start(mut error: clap::Error) -> clap::Error {
    const NAMES: [&str; 5] = ["serve", "server", "run", "up", "daemon"];
    let is_start = matches!(
        error.get(ContextKind::InvalidSubcommand),
        Some(ContextValue::String(name)) if NAMES.contains(&name.as_str())
    );
    if is_start {
        let start = ContextValue::Strings(vec!["start".to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, start);
    }
    error
}

fn given_flags<const N: usize>(
    flags: [(OptionId, &Option<String>); N],
) -> impl Iterator<Item = (OptionId, String)> {
    let given = flags.map(|(id, value)| Some((id, value.clone()?)));
    given.into_iter().flatten()
}

#[cfg(test)]
mod tests;
