//! The command line: `ringverb`, `ringverb start`, `ringverb check`, with the flags of `reverb:start`.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::options;

/// A Pusher Channels server for Laravel: takes the place of Laravel Reverb.
#[derive(Debug, Parser)]
#[command(name = "ringverb", version)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    /// Address to listen on [0.0.0.0]
    #[arg(long, global = true, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on; 0 lets the kernel choose [8080]
    #[arg(long, global = true, value_name = "PORT")]
    port: Option<String>,
    /// Prefix of every URL path, such as /ws
    #[arg(long, global = true, value_name = "PATH")]
    path: Option<String>,
    /// Threads, each pinned to a core; 0 is one per core [0]
    #[arg(long, global = true, value_name = "N")]
    workers: Option<String>,
    /// Host name browsers use; shown in the start message only [localhost]
    #[arg(long, global = true, value_name = "NAME")]
    hostname: Option<String>,
    /// Log each message
    #[arg(long, global = true)]
    debug: bool,
    /// Configuration file [ringverb.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Laravel's environment file [.env, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
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

";

impl Arguments {
    /// Reads the process's arguments; ends the process for `--help`, `--version` and mistakes (2).
    pub(super) fn read() -> Self {
        let command = Self::command().after_help(format!("{EXAMPLES}{}", options::help()));
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
