//! Commands that speak to a running server, so that a developer can try each side alone (publish, channels, users,
//! listen), a container engine can see whether it is up (health), and an operator what it does (top) and change it
//! (reload, app, disconnect, unsubscribe). Configuration comes from the same sources as the server's, TLS included
//! (`secure.rs`).
//!
//! Owns the table of commands and their exit codes. Does not share state with a running server: each command sees what
//! any client or operator of it sees.
//! Limits: those of `connection.rs`, `http.rs` and `socket.rs`; a deadline on every wait. Cost: blocking and plain: one
//! process and one connection for a command.

mod access;
mod admin;
mod apps;
mod connection;
mod health;
mod http;
mod listen;
mod outcome;
mod peer;
mod publish;
mod queries;
mod secure;
mod show;
mod socket;
mod top;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use super::cli::{ClientCommand, CommandTarget};
use crate::config::Config;
use crate::output::{self, NoticeKind};
pub(super) use admin::identify as identify_admin_server;
pub(super) use health::answers_as_ringverb;
use outcome::{CommandFailure, print_to_stderr};
use peer::ServerPeer;

/// `scheme`: the one of `REVERB_SCHEME`, which is the proxy's and may cause a note.
pub(super) fn run(command: &ClientCommand, config: Config, scheme: Option<&str>) -> ExitCode {
    let color = config.color && io::stdout().is_terminal();
    let with_app = |config, target: &CommandTarget| {
        let peer = ServerPeer::choose_server(config, target)?;
        if scheme == Some("https") && target.address.url.is_none() && peer.tls.is_none() {
            print_to_stderr(&format!(
                "REVERB_SCHEME is https, which the proxy serves; this command connects to the server itself, at {}",
                peer.url()
            ));
        }
        Ok(peer)
    };
    let outcome = match command {
        ClientCommand::Publish(arguments) => {
            with_app(config, &arguments.target).and_then(|peer| publish::run(&peer, arguments))
        }
        ClientCommand::Channels(arguments) => with_app(config, &arguments.target)
            .and_then(|peer| queries::channels(&peer, &arguments.prefix)),
        ClientCommand::Users(arguments) => with_app(config, &arguments.target)
            .and_then(|peer| queries::users(&peer, &arguments.channel)),
        ClientCommand::Listen(arguments) => with_app(config, &arguments.target)
            .and_then(|peer| listen::run(&peer, arguments, color)),
        ClientCommand::Top(arguments) => top::run(config, arguments),
        ClientCommand::Disconnect(arguments) => with_app(config, &arguments.target)
            .and_then(|peer| access::disconnect(&peer, arguments)),
        ClientCommand::Unsubscribe(arguments) => with_app(config, &arguments.target)
            .and_then(|peer| access::unsubscribe(&peer, arguments)),
        ClientCommand::Reload(_) => apps::reload(&config),
        ClientCommand::App(arguments) => apps::run(&config, &arguments.command),
        ClientCommand::Health(address) => {
            ServerPeer::of_any_app(config, address).and_then(|peer| health::run(&peer))
        }
    };
    let (status, sentence) = match outcome {
        Ok(()) | Err(CommandFailure::OutputClosed) => return ExitCode::SUCCESS,
        Err(CommandFailure::Server(sentence)) => (1, sentence),
        Err(CommandFailure::Usage(sentence)) => (2, sentence),
    };
    output::notice(NoticeKind::Error, &sentence);
    ExitCode::from(status)
}
