//! `ringverb disconnect` and `ringverb unsubscribe`: they take access back, as an app's backend does.
//!
//! Owns no state. Each asks the HTTP API once. The server answers the same whether or not the user or the connection is
//! there, because they may be on another node. Does not know where the user or the connection is.
//! Limits: those of `http.rs`. Cost: one connection, one request.

use super::http::{self, percent_encoded};
use super::outcome::{CommandFailure, escaped_text, print, quoted};
use super::peer::ServerPeer;
use crate::server::cli::{DisconnectArguments, UnsubscribeArguments, WhoseArguments};

/// The answer has no count, and an operator must not take the success for a number of closed connections.
const UNCOUNTED: &str =
    "if there are any: the server has accepted the request, and its answer has no number";

pub(super) fn disconnect(
    peer: &ServerPeer,
    arguments: &DisconnectArguments,
) -> Result<(), CommandFailure> {
    let how = match (arguments.reconnect, &arguments.whose.user) {
        (true, _) => "force_reconnect",
        (false, Some(_)) => "terminate_connections",
        (false, None) => "terminate",
    };
    let whose = ask(peer, &arguments.whose, how, "{}")?;
    print(&match arguments.reconnect {
        true => format!("{whose}: clients are asked to connect again, {UNCOUNTED}\n"),
        false => format!("{whose}: connections are closed, {UNCOUNTED}\n"),
    })
}

pub(super) fn unsubscribe(
    peer: &ServerPeer,
    arguments: &UnsubscribeArguments,
) -> Result<(), CommandFailure> {
    let body = format!("{{\"channel\":{}}}", quoted(&arguments.channel));
    let whose = ask(peer, &arguments.whose, "unsubscribe", &body)?;
    let channel = escaped_text(&arguments.channel);
    print(&format!("{whose}: subscriptions to {channel} are ended, {UNCOUNTED}\n"))
}

/// Returns the user or the connection as text, for the sentence that is printed.
fn ask(
    peer: &ServerPeer,
    whose: &WhoseArguments,
    how: &str,
    body: &str,
) -> Result<String, CommandFailure> {
    let (kind, name, id) = match (&whose.user, &whose.socket_id) {
        (Some(id), _) => ("users", "user", id),
        (None, Some(id)) => ("connections", "connection", id),
        (None, None) => {
            return Err(CommandFailure::Usage("give --user or --socket-id".to_owned()));
        }
    };
    let path = format!("/{kind}/{}/{how}", percent_encoded(id));
    http::ask(peer, "POST", &path, &[], body)?.object(peer)?;
    Ok(format!("{name} {}", escaped_text(id)))
}
