//! Arguments that several commands have: where the configuration is, and which server and app a command is for.
//!
//! Owns arguments only; does not read a file. Each is flattened into the arguments of a command, so that it has the
//! same name and meaning everywhere. `config/load.rs` reads the files, `client/peer.rs` finds the server. The doc
//! comments of fields are the help.
//! No limits: the kernel bounds a command line (ARG_MAX). Cost: one allocation for each option that is given.

use std::path::PathBuf;

use clap::Args;

use crate::config::options::OptionId;

pub(super) const SERVER: &str = "Server";

const FILES: &str = "Files";

/// Every command that reads the configuration has these. `None`: the files that `config/load.rs` looks for.
#[derive(Args, Clone, Debug, Default)]
pub(in crate::server) struct FileArguments {
    /// Configuration file [ringverb.toml; without it and .env /etc/ringverb/ringverb.toml]
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    pub(in crate::server) config: Option<PathBuf>,
    /// Laravel's environment file [.env, if it exists]
    #[arg(long, value_name = "FILE", help_heading = FILES)]
    pub(in crate::server) env_file: Option<PathBuf>,
    /// Read .env.NAME instead of .env if it exists, as artisan does [APP_ENV of the environment]
    #[arg(long, value_name = "NAME", help_heading = FILES)]
    pub(in crate::server) env: Option<String>,
    #[arg(long, value_name = "FILE", help_heading = FILES, help = OptionId::LaravelConfig.spec().flag_help())]
    pub(in crate::server) laravel_config: Option<String>,
}

impl FileArguments {
    pub(super) const NONE: Self =
        Self { config: None, env_file: None, env: None, laravel_config: None };
}

/// For commands that speak for an app: without `app` it is the first one of the configuration.
#[derive(Args, Clone, Debug, Default)]
pub(in crate::server) struct CommandTarget {
    /// App to speak for, if several are configured [the first]
    #[arg(long, value_name = "ID", help_heading = SERVER)]
    pub(in crate::server) app: Option<String>,
    #[command(flatten)]
    pub(in crate::server) address: Address,
}

/// For commands that connect to the server's own port.
#[derive(Args, Clone, Debug, Default)]
pub(in crate::server) struct Address {
    /// The server's own address, such as http://127.0.0.1:8080/prefix [from the configuration]
    #[arg(long, value_name = "URL", help_heading = SERVER)]
    pub(in crate::server) url: Option<String>,
    /// Address of the server [from the configuration]
    #[arg(long, value_name = "ADDRESS", help_heading = SERVER)]
    pub(in crate::server) host: Option<String>,
    /// Port of the server [from the configuration, or 8080]
    #[arg(long, value_name = "PORT", help_heading = SERVER)]
    pub(in crate::server) port: Option<String>,
    /// Prefix of the server's URL paths [from the configuration]
    #[arg(long, value_name = "PATH", help_heading = SERVER)]
    pub(in crate::server) path: Option<String>,
    #[command(flatten)]
    pub(in crate::server) files: FileArguments,
}
