//! Arguments of the commands that change a running server: its apps, its configuration, and the access of clients.
//!
//! Plain values: text and structure only, read by clap; `client/apps.rs` and `client/access.rs` carry the commands out.
//! Values of options are checked by the server that applies them, with the same table of options as at the start. Does
//! not connect to a server. The doc comments of fields are the help.
//! No limits: the kernel bounds a command line (ARG_MAX). Cost: a few allocations for each option, once at the start.

use clap::{Args, Subcommand};

use super::shared::{CommandTarget, FileArguments, SERVER};

/// For commands that ask the admin listener.
#[derive(Args, Clone, Debug, Default)]
pub(in crate::server) struct AdminTarget {
    /// Address of the admin listener [RINGVERB_ADMIN]
    #[arg(long, value_name = "ADDRESS", global = true, help_heading = SERVER)]
    pub(in crate::server) admin: Option<String>,
    #[command(flatten)]
    pub(in crate::server) files: FileArguments,
}

#[derive(Args, Clone, Debug)]
pub(in crate::server) struct AppArguments {
    #[command(subcommand)]
    pub(in crate::server) command: AppCommand,
    #[command(flatten)]
    pub(in crate::server) target: AdminTarget,
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::server) enum AppCommand {
    /// List the apps
    List,
    /// Add an app; what is not given is generated and printed once
    Add {
        /// Options of the app, such as id=1001 max_connections=500
        #[arg(value_name = "NAME=VALUE")]
        options: Vec<String>,
    },
    /// Change options of an app; NAME= takes one away
    Set {
        id: String,
        #[arg(value_name = "NAME=VALUE", required = true)]
        options: Vec<String>,
    },
    /// Serve a disabled app again
    Enable { id: String },
    /// Close the connections of an app with 4003 and refuse its requests
    Disable { id: String },
    /// Remove an app; its connections are closed with 4001
    Remove { id: String },
}

/// Exactly one of both is given: clap refuses none and two.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(in crate::server) struct WhoseArguments {
    /// All connections of this user
    #[arg(long, value_name = "ID")]
    pub(in crate::server) user: Option<String>,
    /// The connection with this socket id
    #[arg(long, value_name = "ID")]
    pub(in crate::server) socket_id: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(in crate::server) struct DisconnectArguments {
    #[command(flatten)]
    pub(in crate::server) whose: WhoseArguments,
    /// Close with 4200, so that clients connect and authorize their channels again
    #[arg(long)]
    pub(in crate::server) reconnect: bool,
    #[command(flatten)]
    pub(in crate::server) target: CommandTarget,
}

#[derive(Args, Clone, Debug)]
pub(in crate::server) struct UnsubscribeArguments {
    /// Name on the wire: private-orders.1, not orders.1
    pub(in crate::server) channel: String,
    #[command(flatten)]
    pub(in crate::server) whose: WhoseArguments,
    #[command(flatten)]
    pub(in crate::server) target: CommandTarget,
}
