//! The commands that speak to a running server, and their arguments.
//!
//! Plain values: text and structure only, read by clap. `client/` carries them out, `shared.rs` has the arguments that
//! several commands have, and `notes.rs` the examples below their help. No command needs a secret as an argument,
//! because other users of the host can read command lines: `ringverb app` also reads it from a file or from standard
//! input. Does not connect to a server. The doc comments of fields are the help.
//! Limit: that of the command line (the kernel's ARG_MAX). Cost: a few allocations for each option, once at the start.

use clap::{Args, Subcommand};

use super::change::{AdminTarget, AppArguments, DisconnectArguments, UnsubscribeArguments};
use super::notes::{
    APP_EXAMPLES, CHANNELS_EXAMPLES, DISCONNECT_EXAMPLES, HEALTH_NOTES, LISTEN_EXAMPLES,
    PUBLISH_EXAMPLES, RELOAD_NOTES, TOP_NOTES, UNSUBSCRIBE_EXAMPLES, USERS_EXAMPLES,
};
use super::shared::{Address, CommandTarget, FileArguments};

/// Commands that speak to a running server, with the app of the same configuration.
#[derive(Clone, Debug, Subcommand)]
pub(in crate::server) enum ClientCommand {
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
    pub(in crate::server) fn address(&self) -> Option<&Address> {
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

    pub(super) fn files(&self) -> &FileArguments {
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

#[derive(Args, Clone, Debug)]
pub(in crate::server) struct PublishArguments {
    /// Name on the wire: private-orders.1, not orders.1
    pub(in crate::server) channel: String,
    /// Name of the event
    pub(in crate::server) event: String,
    /// Data of the event
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    pub(in crate::server) data: String,
    /// Send the data as plain text, whatever it is
    #[arg(long)]
    pub(in crate::server) text: bool,
    /// Leave out this connection: what toOthers() does
    #[arg(long, value_name = "ID")]
    pub(in crate::server) socket_id: Option<String>,
    /// Ask for attributes of the channel, too, and print them: user_count, subscription_count, cache
    #[arg(long, value_name = "ATTRIBUTES")]
    pub(in crate::server) info: Option<String>,
    #[command(flatten)]
    pub(in crate::server) target: CommandTarget,
}

#[derive(Args, Clone, Debug)]
pub(in crate::server) struct ChannelsArguments {
    /// Only channels that start with this, such as presence-
    #[arg(default_value = "", hide_default_value = true)]
    pub(in crate::server) prefix: String,
    #[command(flatten)]
    pub(in crate::server) target: CommandTarget,
}

#[derive(Args, Clone, Debug)]
pub(in crate::server) struct UsersArguments {
    /// Name on the wire: presence-room, not room
    pub(in crate::server) channel: String,
    #[command(flatten)]
    pub(in crate::server) target: CommandTarget,
}

#[derive(Args, Clone, Debug, Default)]
pub(in crate::server) struct ListenArguments {
    /// Names on the wire: private-orders.1, not orders.1
    #[arg(required = true, value_name = "CHANNEL")]
    pub(in crate::server) channels: Vec<String>,
    /// User to join presence channels as [ringverb-listen]
    #[arg(long, value_name = "ID")]
    pub(in crate::server) user: Option<String>,
    /// Print each event as it came, one line of JSON; notes go to standard error
    #[arg(long)]
    pub(in crate::server) json: bool,
    /// End after that many events; messages of the protocol do not count
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::server) count: Option<u64>,
    #[command(flatten)]
    pub(in crate::server) target: CommandTarget,
}

#[derive(Args, Clone, Debug, Default)]
pub(in crate::server) struct TopArguments {
    /// Print the state once as text, with the rates of one second
    #[arg(long)]
    pub(in crate::server) once: bool,
    #[command(flatten)]
    pub(in crate::server) target: AdminTarget,
}
