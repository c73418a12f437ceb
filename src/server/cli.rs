//! The command line: `ringverb`, `ringverb start`, `ringverb check`, with the flags of `reverb:start`.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

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
    /// Configuration file [ringverb.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE", help_heading = FILES)]
    pub(super) config: Option<PathBuf>,
    /// Laravel's environment file [.env, if it is there]
    #[arg(long, global = true, value_name = "FILE", help_heading = FILES)]
    pub(super) env_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server (the same as no command)
    Start,
    /// Check the configuration and print it, secrets masked
    Check,
}

const EXAMPLES: &str = "Examples:
  ringverb                        serve the app of ./.env, or a development app if there is none
  ringverb --port 9000 --debug    another port, and a line per message
  ringverb check                  what would be served, and where each value comes from
  ringverb --env-file /srv/app/.env --config /etc/ringverb.toml
";

const LONG: &str = "
Every option can be given in the environment, in .env and in ringverb.toml. A flag wins over the
environment, the environment over .env, .env over ringverb.toml. Exit status: 0 after a clean end,
1 if the server fails, 2 for a wrong command line or configuration.
";

impl Arguments {
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
        let arguments = Arguments::parse_from(["ringverb", "start", "--port", "9", "--debug"]);
        let flags = arguments.flags();
        assert_eq!(
            (flags["port"].as_str(), flags["debug"].as_str(), flags.len()),
            ("9", "true", 2)
        );
    }
}
