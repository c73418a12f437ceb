//! The command line: `ringverb`, `ringverb start`, `ringverb check`, with the flags of `reverb:start`; and the commands
//! that speak to a running server.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use rustix::process::Pid;

use super::exchange::Role;
use crate::config::options;

const SERVER: &str = "Server";
const FILES: &str = "Files";

/// A Pusher Channels server for Laravel: takes the place of Laravel Reverb.
#[derive(Debug, Parser)]
#[command(name = "ringverb", version)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    /// Address to listen on [0.0.0.0]
    #[arg(long, global = true, value_name = "ADDRESS", help_heading = SERVER)]
    host: Option<String>,
    /// Port to listen on; 0 lets the kernel choose [8080]
    #[arg(long, global = true, value_name = "PORT", help_heading = SERVER)]
    port: Option<String>,
    /// Prefix of every URL path, such as /ws
    #[arg(long, global = true, value_name = "PATH", help_heading = SERVER)]
    path: Option<String>,
    /// Threads, each pinned to a core; 0 is one per core [0]
    #[arg(long, global = true, value_name = "N", help_heading = SERVER)]
    workers: Option<String>,
    /// Host name browsers use; shown in the start message only [localhost]
    #[arg(long, global = true, value_name = "NAME", help_heading = SERVER)]
    hostname: Option<String>,
    /// Log each message
    #[arg(long, global = true, help_heading = SERVER)]
    debug: bool,
    /// Write each accepted event to standard output, for the test suite of an app
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["json"], help_heading = SERVER)]
    print_events: Option<String>,
    /// Take the place of the server that runs there, with its connections, or with its listeners only: then it drains.
    /// Start as usual if there is none
    #[arg(long, global = true, value_name = "WHAT", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "connections", help_heading = SERVER)]
    takeover: Option<TakeOver>,
    /// Stages of SIGUSR2 (`exchange.rs`), each with the id of the other process
    #[arg(long, global = true, value_name = "PID", require_equals = true, hide = true)]
    stand_in_for: Option<i32>,
    #[arg(long, global = true, value_name = "PID", require_equals = true, hide = true)]
    takes_back_from: Option<i32>,
    #[arg(long, global = true, value_name = "PID", require_equals = true, hide = true)]
    minds: Option<i32>,
    /// Configuration file [ringverb.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE", help_heading = FILES)]
    pub(super) config: Option<PathBuf>,
    /// Laravel's environment file [.env, if it is there]
    #[arg(long, global = true, value_name = "FILE", help_heading = FILES)]
    pub(super) env_file: Option<PathBuf>,
    /// Read .env.NAME instead of .env if it is there, as artisan does [APP_ENV of the environment]
    #[arg(long, global = true, value_name = "NAME", help_heading = FILES)]
    pub(super) env: Option<String>,
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
    Start,
    /// Check the configuration and print it, secrets masked
    Check,
    #[command(flatten)]
    Client(ClientCommand),
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
}

/// Which server and app.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Target {
    /// App to speak for, if several are configured [the first]
    #[arg(long, value_name = "ID")]
    pub(super) app: Option<String>,
    /// The server's own address, such as http://127.0.0.1:8080/prefix [of the configuration]
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct PublishArguments {
    /// Name on the wire: private-orders.1, not orders.1
    pub(super) channel: String,
    /// Name of the event
    pub(super) event: String,
    /// What the event carries
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
    pub(super) target: Target,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ChannelsArguments {
    /// Only channels that start with this, such as presence-
    #[arg(default_value = "", hide_default_value = true)]
    pub(super) prefix: String,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Args, Clone, Debug)]
pub(super) struct UsersArguments {
    /// Name on the wire: presence-room, not room
    pub(super) channel: String,
    #[command(flatten)]
    pub(super) target: Target,
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
    pub(super) target: Target,
}

const EXAMPLES: &str = "Examples:
  ringverb                        serve the app of ./.env, or a development app if there is none
  ringverb --port 9000 --debug    another port, and a line per message
  ringverb check                  what would be served, and where each value comes from
  ringverb --env-file /srv/app/.env --config /etc/ringverb.toml

  ringverb listen private-orders.1                                 in one terminal,
  ringverb publish private-orders.1 order.shipped '{\"id\":1}'       in another
";

const PUBLISH_EXAMPLES: &str = "Examples:
  ringverb publish news hello '{\"message\":\"hi\"}'
  ringverb publish private-orders.1 'App\\Events\\OrderShipped' '{\"id\":1}' --socket-id 1.2
  ringverb publish news hello 'no JSON at all' --text
";

const CHANNELS_EXAMPLES: &str = "Examples:
  ringverb channels
  ringverb channels presence- --app 1001
";

const USERS_EXAMPLES: &str = "Examples:
  ringverb users presence-room
";

const LISTEN_EXAMPLES: &str =
    "Private and presence channels are joined with the app's own secret, \
'#server-to-user-7' after signing in as user 7.

Examples:
  ringverb listen news private-orders.1
  ringverb listen presence-room --user 7
  ringverb listen '#server-to-user-7'
  ringverb listen news --json --count 1 | jq .data
";

const LONG: &str = "
Every option can be given in the environment, in .env and in ringverb.toml. A flag wins over the
environment, the environment over .env, .env over ringverb.toml. Exit status: 0 after a clean end,
1 if the server fails, refuses or cannot be reached, 2 for a wrong command line or configuration.
";

impl Arguments {
    /// What is taken over, if anything: the stages of SIGUSR2 take all.
    pub(super) fn takeover(&self) -> Option<TakeOver> {
        match self.role() {
            Role::Server => self.takeover,
            Role::StandIn(_) | Role::TakesBack(_) => Some(TakeOver::Connections),
        }
    }

    pub(super) fn role(&self) -> Role {
        let process = |number: Option<i32>| number.and_then(Pid::from_raw);
        match (process(self.stand_in_for), process(self.takes_back_from)) {
            (Some(parent), _) => Role::StandIn(parent),
            (_, Some(child)) => Role::TakesBack(child),
            _ => Role::Server,
        }
    }

    /// The child for which this process waits, and does nothing else.
    pub(super) fn minds(&self) -> Option<Pid> {
        self.minds.and_then(Pid::from_raw)
    }

    pub(super) fn prints_events(&self) -> bool {
        self.print_events.is_some()
    }

    /// Reads the process's arguments; ends the process for `--help`, `--version` and mistakes (2).
    pub(super) fn read() -> Self {
        let command = Self::command()
            .after_help(format!("{EXAMPLES}\n--help lists the names in the environment, too."))
            .after_long_help(format!("{EXAMPLES}{LONG}{}", options::help()));
        match Self::from_arg_matches(&command.get_matches()) {
            Ok(arguments) => arguments,
            Err(error) => error.exit(),
        }
    }

    /// The flags that were given, by option key.
    pub(super) fn flags(&self) -> HashMap<String, String> {
        let given = [
            ("host", &self.host),
            ("port", &self.port),
            ("path", &self.path),
            ("workers", &self.workers),
            ("hostname", &self.hostname),
            ("print_events", &self.print_events),
        ];
        let mut flags: HashMap<String, String> = given
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)))
            .collect();
        if self.debug {
            flags.insert("debug".to_owned(), "true".to_owned());
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        let line = ["ringverb", "start", "--port", "9", "--debug", "--print-events", "json"];
        let flags = Arguments::parse_from(line).flags();
        let value = |key: &str| flags[key].as_str();
        assert_eq!((value("port"), value("debug"), value("print_events")), ("9", "true", "json"));
        assert_eq!(flags.len(), 3);
        assert!(Arguments::try_parse_from(["ringverb", "--print-events", "xml"]).is_err());
    }
}
