//! `ringverb publish`: one event to one channel, and how many it reached.
//!
//! Owns no state. The names and the data are checked here first, so that a mistake has an error text before a request
//! is made. When no client was subscribed, a note says under which name a Laravel channel is known on the wire. Input:
//! the arguments. Output: a sentence and the exit code. Does not open a WebSocket.
//! Limits: those of the server, which refuses what is too large. Cost: one request, with a copy of the data.

use super::http::{self, HttpAnswer};
use super::outcome::{CommandFailure, escaped_text, member, print, print_to_stderr, quoted};
use super::peer::ServerPeer;
use crate::pusher::channel_name::{Access, classify};
use crate::pusher::json::Validator;
use crate::pusher::socket_id::SocketId;
use crate::server::cli::PublishArguments;

/// The values that `info` of a publish may name; `--info` is checked here, because the server ignores others.
const ATTRIBUTES: [&str; 3] = ["user_count", "subscription_count", "cache"];

pub(super) fn run(peer: &ServerPeer, arguments: &PublishArguments) -> Result<(), CommandFailure> {
    check_arguments(arguments).map_err(CommandFailure::Usage)?;
    let channel = &arguments.channel;
    let presence = classify(channel).is_ok_and(|kind| kind.access == Access::Presence);
    let count = if presence { "user_count" } else { "subscription_count" };
    let answer = publish_event(peer, arguments, count)?;
    let body = answer.object(peer)?;
    let attributes = member(&body, "channels").and_then(|channels| member(channels, channel));
    let counted = attributes.and_then(|attributes| member(attributes, count)?.parse::<u64>().ok());
    let people = match (counted.unwrap_or(0), presence) {
        (1, true) => "1 user".to_owned(),
        (1, false) => "1 subscriber".to_owned(),
        (many, true) => format!("{many} users"),
        (many, false) => format!("{many} subscribers"),
    };
    print(&format!(
        "published {} to {} ({people})\n",
        escaped_text(&arguments.event),
        escaped_text(channel)
    ))?;
    if let Some(attributes) = attributes.filter(|_| arguments.info.is_some()) {
        print(&format!("{}\n", attributes.replace(['\n', '\r'], " ")))?;
    }
    if counted.unwrap_or(0) == 0 {
        match channel.strip_prefix("#server-to-user-") {
            Some(user) => print_to_stderr(&format!(
                "no connection is signed in as user {}: pusher-js signs in by pusher.signin(), and Laravel's Echo has \
                 no such call",
                escaped_text(user)
            )),
            None => print_to_stderr(
                "nobody is subscribed: Laravel's PrivateChannel('x') is named private-x on the wire, \
                 PresenceChannel('x') presence-x; `ringverb channels` lists the occupied ones",
            ),
        }
    }
    Ok(())
}

fn check_arguments(arguments: &PublishArguments) -> Result<(), String> {
    let PublishArguments { channel, event, data, .. } = arguments;
    if !arguments.text && Validator::default().check(data.as_bytes()).is_none() {
        return Err(format!(
            "\"{}\" is not JSON. Names and texts need double quotes, and the shell removes those unless single quotes \
             enclose the whole: ringverb publish {} {} '{{\"name\":\"value\"}}'. --text sends it as plain text",
            escaped_text(data),
            escaped_text(channel),
            escaped_text(event)
        ));
    }
    let mut asked = arguments.info.iter().flat_map(|info| info.split(',')).map(str::trim);
    if let Some(unknown) = asked.find(|name| !ATTRIBUTES.contains(name)) {
        return Err(format!(
            "--info has the attribute \"{}\", which does not exist: it takes one or more of {}, comma separated",
            escaped_text(unknown),
            ATTRIBUTES.join(", ")
        ));
    }
    match &arguments.socket_id {
        Some(id) if SocketId::parse(id).is_none() => Err(format!(
            "--socket-id is {}, but a socket id is two numbers joined by a dot, as Echo.socketId() returns it",
            escaped_text(id)
        )),
        _ => Ok(()),
    }
}

fn publish_event(
    peer: &ServerPeer,
    arguments: &PublishArguments,
    count: &str,
) -> Result<HttpAnswer, CommandFailure> {
    let mut attributes = count.to_owned();
    for attribute in arguments.info.iter().flat_map(|info| info.split(',')).map(str::trim) {
        if !attribute.is_empty() && attribute != count {
            attributes.push(',');
            attributes.push_str(attribute);
        }
    }
    let mut body = format!(
        "{{\"name\":{},\"channel\":{},\"data\":{},\"info\":{}",
        quoted(&arguments.event),
        quoted(&arguments.channel),
        quoted(&arguments.data),
        quoted(&attributes)
    );
    if let Some(id) = &arguments.socket_id {
        body.push_str(&format!(",\"socket_id\":{}", quoted(id)));
    }
    body.push('}');
    http::ask(peer, "POST", "/events", &[], &body)
}
