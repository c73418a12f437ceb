//! `ringverb channels` and `ringverb users`: occupied channels, and the members of one.
//!
//! Owns no state. Each asks the HTTP API once and prints a table. Names come from clients, so they are escaped and cut
//! before a terminal sees them. Does not keep a connection open.
//! Limits: those of `http.rs`. Cost: one request; linear in the channels or users of the answer.

use super::http::{self, percent_encoded};
use super::outcome::{CommandFailure, escaped_text, member, print};
use super::peer::ServerPeer;
use crate::pusher::channel_name::{Access, classify};
use crate::pusher::json;

pub(super) fn channels(peer: &ServerPeer, prefix: &str) -> Result<(), CommandFailure> {
    let mut query = vec![("info", "subscription_count,user_count")];
    if !prefix.is_empty() {
        query.push(("filter_by_prefix", prefix));
    }
    let body = http::ask(peer, "GET", "/channels", &query, "")?.object(peer)?;
    let rows: Vec<[String; 3]> = member(&body, "channels")
        .and_then(json::members)
        .into_iter()
        .flatten()
        .map(|(name, attributes)| {
            let count = |name| member(attributes, name).map_or("-".to_owned(), escaped_text);
            [shown_text(name), count("subscription_count"), count("user_count")]
        })
        .collect();
    if rows.is_empty() {
        let which = if prefix.is_empty() {
            String::new()
        } else {
            format!(" that starts with {}", escaped_text(prefix))
        };
        return print(&format!("no channel{which} is occupied\n"));
    }
    print(&table(["CHANNEL", "SUBSCRIBERS", "USERS"], &rows))
}

pub(super) fn users(peer: &ServerPeer, channel: &str) -> Result<(), CommandFailure> {
    if classify(channel).map(|kind| kind.access) != Ok(Access::Presence) {
        let channel = escaped_text(channel);
        return Err(CommandFailure::Usage(format!(
            "{channel} is not a presence channel, and only those have users; `ringverb channels {channel}` shows \
             the number of subscribers"
        )));
    }
    let path = format!("/channels/{}/users", percent_encoded(channel));
    let answer = http::ask(peer, "GET", &path, &[], "")?;
    // The answer for an empty channel; one for a wrong app or path has a text.
    let empty = answer.status == 404 && answer.body.trim() == "{}";
    let body = if empty { String::from("{}") } else { answer.object(peer)? };
    let users = member(&body, "users").and_then(json::elements).into_iter().flatten();
    let ids: Vec<String> =
        users.filter_map(|user| member(user, "id")).map(|id| shown_text(id) + "\n").collect();
    if ids.is_empty() {
        return print(&format!("nobody is in {}\n", escaped_text(channel)));
    }
    print(&ids.concat())
}

/// A raw span of a string, or of a number, as a person reads it.
fn shown_text(span: &str) -> String {
    escaped_text(&json::string(span).unwrap_or(span.into()))
}

/// Names to the left, numbers to the right.
fn table(head: [&str; 3], rows: &[[String; 3]]) -> String {
    let rows = rows.iter().map(|row| row.each_ref().map(String::as_str));
    let all = || std::iter::once(head).chain(rows.clone());
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second, third) = (width(0), width(1), width(2));
    all()
        .map(|[name, subscribers, users]| {
            format!("{name:<first$}  {subscribers:>second$}  {users:>third$}\n")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_table_are_aligned() {
        let rows =
            [["é", "12", "-"], ["presence-room", "-", "3"]].map(|row| row.map(str::to_owned));
        let expected =
            "CHANNEL        COUNT  U\né                 12  -\npresence-room      -  3\n";
        assert_eq!(table(["CHANNEL", "COUNT", "U"], &rows), expected);
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(shown_text("\"a\\u001b[2J\\n\""), "a\\u001b[2J\\n");
        assert_eq!(shown_text("7"), "7");
    }
}
