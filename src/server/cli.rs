//! The command line: `ringverb`, `ringverb start`, `ringverb check`, with the flags of `reverb:start`; and the commands
//! that speak to a running server. Each command has the options that apply to it, and no others.

mod change;
mod notes;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use rustix::process::Pid;

use super::takeover::replacement::Role;
pub(super) use change::{
    AdminTarget, AppArguments, AppCommand, DisconnectArguments, UnsubscribeArguments,
    WhoseArguments,
};
use notes::{
    APP_EXAMPLES, CHANNELS_EXAMPLES, CHECK_NOTES, COMPLETIONS_EXAMPLES, DISCONNECT_EXAMPLES,
    DOCTOR_NOTES, EXAMPLES, HEALTH_NOTES, LISTEN_EXAMPLES, LONG, PUBLISH_EXAMPLES, RELOAD_NOTES,
    TOP_NOTES, UNSUBSCRIBE_EXAMPLES, USERS_EXAMPLES,
};

use crate::config::options::{self, OptionId};

const SERVER: &str = "Server";
const FILES: &str = "Files";

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

/// Where the configuration is.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct FileArguments {
    /// Configuration file [ringverb.toml, if it exists]
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    pub(super) config: Option<PathBuf>,
    /// Laravel's environment file [.env, if it exists]
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    pub(super) env_file: Option<PathBuf>,
    /// Read .env.NAME instead of .env if it exists, as artisan does [APP_ENV of the environment]
    #[arg(long, value_name = "NAME", help_heading = FILES)]
    pub(super) env: Option<String>,
    #[arg(long, value_name = "FILE", help_heading = FILES, help = OptionId::LaravelConfig.spec().flag_help())]
    pub(super) laravel_config: Option<String>,
}

impl FileArguments {
    const NONE: Self = Self { config: None, env_file: None, env: None, laravel_config: None };
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
    /// Check the configuration only, and ask nothing of this machine and the network
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

/// Commands that speak to a running server, with the app of the same configuration.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Publish one event to a channel of a running server
    #[command(after_help = PUBLISH_EXAMPLES)]
    Publish(PublishArguments),
    /// List the occupied channels of a running server
    #[command(after_help = CHANNELS_EXAMPLES)]
    Channels(ChannelsArguments),
    /// List the users in a presence channel of a running server
    #[command(after_help = USERS_EXAMPLES)]
    Users(UsersArguments),
    /// Show the events of channels of a running server as they come
    #[command(after_help = LISTEN_EXAMPLES)]
    Listen(ListenArguments),
    /// Ask a running server whether it is up, as a load balancer does
    #[command(after_help = HEALTH_NOTES)]
    Health(Address),
    /// Watch a running server in the terminal: rates, cores, memory, refusals
    #[command(after_help = TOP_NOTES)]
    Top(TopArguments),
    /// Close connections of a running server, or tell clients to connect again
    #[command(after_help = DISCONNECT_EXAMPLES)]
    Disconnect(DisconnectArguments),
    /// End a subscription of a user or of a connection
    #[command(after_help = UNSUBSCRIBE_EXAMPLES)]
    Unsubscribe(UnsubscribeArguments),
    /// Let a running server read its configuration again; connections stay
    #[command(after_help = RELOAD_NOTES)]
    Reload(AdminTarget),
    /// Show and change the apps of a running server (RINGVERB_APPS_FILE)
    #[command(after_help = APP_EXAMPLES)]
    App(AppArguments),
}

impl ClientCommand {
    /// Where the server is, for commands that speak to its own port.
    pub(super) fn address(&self) -> Option<&Address> {
        match self {
            Self::Publish(arguments) => Some(&arguments.target.address),
            Self::Channels(arguments) => Some(&arguments.target.address),
            Self::Users(arguments) => Some(&arguments.target.address),
            Self::Listen(arguments) => Some(&arguments.target.address),
            Self::Disconnect(arguments) => Some(&arguments.target.address),
            Self::Unsubscribe(arguments) => Some(&arguments.target.address),
            Self::Health(address) => Some(address),
            Self::Top(_) | Self::Reload(_) | Self::App(_) => None,
        }
    }

    fn files(&self) -> &FileArguments {
        match (self, self.address()) {
            (_, Some(address)) => &address.files,
            (Self::Top(arguments), _) => &arguments.target.files,
            (Self::Reload(target), _) => &target.files,
            (Self::App(arguments), _) => &arguments.target.files,
            // All others have an address.
            (_, None) => const { &FileArguments::NONE },
        }
    }
}

/// Which server and app.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct CommandTarget {
    /// App to speak for, if several are configured [the first]
    #[arg(long, value_name = "ID", help_heading = SERVER)]
    pub(super) app: Option<String>,
    #[command(flatten)]
    pub(super) address: Address,
}

/// Where the server is.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Address {
    /// The server's own address, such as http://127.0.0.1:8080/prefix [from the configuration]
    #[arg(long, value_name = "URL", help_heading = SERVER)]
    pub(super) url: Option<String>,
    /// Address of the server [from the configuration]
    #[arg(long, value_name = "ADDRESS", help_heading = SERVER)]
    pub(super) host: Option<String>,
    /// Port of the server [from the configuration, or 8080]
    #[arg(long, value_name = "PORT", help_heading = SERVER)]
    pub(super) port: Option<String>,
    /// Prefix of the server's URL paths [from the configuration]
    #[arg(long, value_name = "PATH", help_heading = SERVER)]
    pub(super) path: Option<String>,
    #[command(flatten)]
    pub(super) files: FileArguments,
}

#[derive(Args, Clone, Debug)]
pub(super) struct PublishArguments {
    /// Name on the wire: private-orders.1, not orders.1
    pub(super) channel: String,
    /// Name of the event
    pub(super) event: String,
    /// Data of the event
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    pub(super) data: String,
    /// Send the data as plain text, whatever it is
    #[arg(long)]
    pub(super) text: bool,
    /// Leave out this connection: what toOthers() does
    #[arg(long, value_name = "ID")]
    pub(super) socket_id: Option<String>,
    /// Ask for attributes of the channel, too, and print them: user_count, subscription_count, cache
    #[arg(long, value_name = "ATTRIBUTES")]
    pub(super) info: Option<String>,
    #[command(flatten)]
    pub(super) target: CommandTarget,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ChannelsArguments {
    /// Only channels that start with this, such as presence-
    #[arg(default_value = "", hide_default_value = true)]
    pub(super) prefix: String,
    #[command(flatten)]
    pub(super) target: CommandTarget,
}

#[derive(Args, Clone, Debug)]
pub(super) struct UsersArguments {
    /// Name on the wire: presence-room, not room
    pub(super) channel: String,
    #[command(flatten)]
    pub(super) target: CommandTarget,
}

#[derive(Args, Clone, Debug, Default)]
pub(super) struct ListenArguments {
    /// Names on the wire: private-orders.1, not orders.1
    #[arg(required = true, value_name = "CHANNEL")]
    pub(super) channels: Vec<String>,
    /// User to join presence channels as [ringverb-listen]
    #[arg(long, value_name = "ID")]
    pub(super) user: Option<String>,
    /// Print each event as it came, one line of JSON; notes go to standard error
    #[arg(long)]
    pub(super) json: bool,
    /// End after that many events; messages of the protocol do not count
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    #[command(flatten)]
    pub(super) target: CommandTarget,
}

/// `ringverb top`.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct TopArguments {
    /// Print the state once as text, with the rates of one second
    #[arg(long)]
    pub(super) once: bool,
    #[command(flatten)]
    pub(super) target: AdminTarget,
}

impl Arguments {
    /// Reads the process's arguments; ends the process for `--help`, `--version` and mistakes (2).
    pub(super) fn read() -> Self {
        let command = Self::described();
        let matches = command.try_get_matches_from(without_help_of_help(std::env::args_os()));
        let matches = matches.unwrap_or_else(|error| suggesting_start(error).exit());
        match Self::from_arg_matches(&matches) {
            Ok(arguments) => arguments,
            Err(error) => error.exit(),
        }
    }

    /// The definition with examples and the names in the environment.
    pub(super) fn described() -> clap::Command {
        Self::command()
            .after_help(format!("{EXAMPLES}\n--help lists the names in the environment, too."))
            .after_long_help(format!("{EXAMPLES}{LONG}{}", options::help()))
            .long_version(long_version())
    }

    /// What is taken over, if anything: the stages of SIGUSR2 take all.
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

    /// It runs a server, and no command.
    pub(super) fn is_start(&self) -> bool {
        matches!(self.command, Some(Command::Start(_)) | None)
    }

    /// The child for which this process waits, and does nothing else.
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
        flags.extend(given([(OptionId::LaravelConfig, &self.files().laravel_config)]));
        match &self.command {
            None | Some(Command::Describe(_)) => {}
            Some(Command::Start(start)) => flags.extend(start.flags()),
            Some(Command::Check(check)) => flags.extend(check.server.flags()),
            Some(Command::Doctor(doctor)) => flags.extend(doctor.server.flags()),
            Some(Command::Client(client)) => {
                if let Some(Address { host, port, path, .. }) = client.address() {
                    flags.extend(given([
                        (OptionId::Host, host),
                        (OptionId::Port, port),
                        (OptionId::Path, path),
                    ]));
                }
                if let ClientCommand::Top(TopArguments { target, .. })
                | ClientCommand::Reload(target)
                | ClientCommand::App(AppArguments { target, .. }) = client
                {
                    flags.extend(given([(OptionId::Admin, &target.admin)]));
                }
            }
        }
        flags
    }
}

impl StartArguments {
    fn flags(&self) -> HashMap<OptionId, String> {
        let mut flags = self.server.flags();
        flags.extend(given([(OptionId::PrintEvents, &self.print_events)]));
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
        given(flags).collect()
    }
}

/// What `--version` prints: the version, the commit of a release, and what is built in.
fn long_version() -> String {
    let commit = COMMIT.unwrap_or("unknown, because this is no release build");
    format!("{}\ncommit: {commit}\nfeatures: {FEATURES}", env!("CARGO_PKG_VERSION"))
}

/// `help --help` is `help`.
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

fn given<const N: usize>(
    flags: [(OptionId, &Option<String>); N],
) -> impl Iterator<Item = (OptionId, String)> {
    let given = flags.map(|(id, value)| Some((id, value.clone()?)));
    given.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        let line = ["ringverb", "start", "--port", "9", "--debug", "--print-events", "json"];
        let flags = Arguments::parse_from(line).flags();
        let values = [OptionId::Port, OptionId::Debug, OptionId::PrintEvents];
        assert_eq!(values.map(|id| flags[&id].as_str()), ["9", "true", "json"]);
        assert_eq!(flags.len(), 3);
        assert!(Arguments::try_parse_from(["ringverb", "--print-events", "xml"]).is_err());
    }

    /// `php artisan reverb:start` has these options; options before the command still work.
    #[test]
    fn artisans_command_is_known_and_options_may_precede_any_command() {
        let line =
            "ringverb reverb:start --host=127.0.0.1 --port=9 --path=/ws --hostname=a.test --debug";
        let arguments = Arguments::parse_from(line.split(' '));
        assert!(matches!(arguments.command, Some(Command::Start(_))));
        let flags = arguments.flags();
        for (id, value) in [
            (OptionId::Host, "127.0.0.1"),
            (OptionId::Port, "9"),
            (OptionId::Path, "/ws"),
            (OptionId::Hostname, "a.test"),
            (OptionId::Debug, "true"),
        ] {
            assert_eq!(flags[&id], value);
        }
        let line = "ringverb --port 8 --env-file a --takeover start --port 9 --config b";
        let arguments = Arguments::parse_from(line.split(' '));
        assert_eq!(arguments.flags()[&OptionId::Port], "9");
        let files = arguments.files();
        assert_eq!((files.env_file, files.config), (Some("a".into()), Some("b".into())));
        assert_eq!(arguments.takeover(), Some(TakeOver::Connections));
        let line = "ringverb start --port 9 --stand-in-for=7";
        let arguments = Arguments::parse_from(line.split(' '));
        assert_eq!(arguments.role(), Role::StandIn(Pid::from_raw(7).unwrap()));
        assert_eq!(arguments.takeover(), Some(TakeOver::Connections));
        let line = "ringverb start --takeover=listeners --takeover";
        assert!(Arguments::try_parse_from(line.split(' ')).is_err());
    }

    #[test]
    fn the_long_version_has_commit_and_features() {
        let version = Arguments::described().render_long_version();
        let parts = [env!("CARGO_PKG_VERSION"), "\ncommit: ", "\nfeatures: io_uring epoll"];
        for part in parts {
            assert!(version.contains(part), "{version}");
        }
        assert!(Arguments::described().render_version().lines().count() == 1);
    }

    #[test]
    fn each_command_has_the_options_that_apply_to_it() {
        let mut command = Arguments::command();
        let names = ["--workers", "--debug", "--takeover", "--print-events", "--hostname", "--io"];
        for name in ["publish", "listen", "channels", "users", "health", "check", "doctor"] {
            let found = command.find_subcommand_mut(name).expect("a command");
            let help = found.render_long_help().to_string();
            let is_server = ["check", "doctor"].contains(&name);
            let own = if is_server { &names[1..4] } else { &names[..] };
            for option in own {
                assert!(!help.contains(option), "{name} {option}");
            }
            assert!(help.contains("--port") && help.contains("--env-file"), "{name}: {help}");
            assert_eq!(
                help.contains("--app"),
                !["health", "check", "doctor"].contains(&name),
                "{name}"
            );
        }
    }
}
