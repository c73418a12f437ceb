//! One event as text. PURE. Owns no state.
//!
//! For a person it is a line with time, name and channel and then its data, with colors on a terminal; for a program it
//! is one line of JSON. Texts of events come from anybody, so control bytes are escaped and names are cut at
//! `NAME_MAX`.
//! Limit: `NAME_MAX` characters of a name. Cost: linear in the bytes of the event; one text is built for it.

use crate::pusher::debug_text::pretty_data;
use crate::pusher::json;
use crate::text::visible;

/// An event of the server, as raw spans of a message that `Validator` has passed. The names are decoded.
#[derive(Debug)]
pub(super) struct ShownEvent<'a> {
    /// The whole message, which `--json` prints.
    pub(super) message: &'a str,
    pub(super) name: &'a str,
    pub(super) channel: &'a str,
    pub(super) data: Option<&'a str>,
    /// The user who sent it, if it is a client's event on a presence channel.
    pub(super) user_id: Option<&'a str>,
}

const BOLD_GREEN: &str = "\x1b[1;32m";
const CYAN: &str = "\x1b[36m";
const GRAY: &str = "\x1b[90m";
const PLAIN: &str = "\x1b[0m";
/// Characters; by rule 29 a channel has at most 200 bytes, an event more only if it is configured so.
const NAME_MAX: usize = 200;

/// The message as it came, on one line: line breaks in JSON are only between its parts.
pub(super) fn one_line(event: &ShownEvent<'_>) -> String {
    event.message.trim_ascii().replace(['\n', '\r'], " ") + "\n"
}

/// The form for a person. The data is on the lines below the names, indented.
pub(super) fn lines(event: &ShownEvent<'_>, unix_seconds: u64, color: bool) -> String {
    let mut out = String::new();
    let mut part = |paint: &str, text: &str, end: &str| {
        out.push_str(if color { paint } else { "" });
        visible(text, NAME_MAX, &mut out);
        out.push_str(if color { PLAIN } else { "" });
        out.push_str(end);
    };
    part(GRAY, &time_of_day(unix_seconds), " ");
    part(CYAN, event.channel, " ");
    match event.user_id.and_then(json::string) {
        Some(user) => {
            part(BOLD_GREEN, event.name, " ");
            part(GRAY, &format!("from user {user}"), "\n");
        }
        None => part(BOLD_GREEN, event.name, "\n"),
    }
    if let Some(data) = event.data {
        pretty_data(data, color, &mut out);
    }
    out
}

/// In UTC: the standard library knows no time zones.
fn time_of_day(unix_seconds: u64) -> String {
    let (hours, minutes) = (unix_seconds / 3600 % 24, unix_seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}Z", unix_seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ShownEvent<'static> {
        ShownEvent {
            message: " {\"event\":\"a\",\r\n\"channel\":\"c\"}\n",
            name: "order.shipped",
            channel: "private-orders.1",
            data: Some(r#""{\"id\":1}""#),
            user_id: None,
        }
    }

    #[test]
    fn an_event_for_a_program_is_one_json_line() {
        assert_eq!(one_line(&sample()), "{\"event\":\"a\",  \"channel\":\"c\"}\n");
    }

    #[test]
    fn an_event_for_a_person_is_readable_text() {
        let text = "12:34:56Z private-orders.1 order.shipped\n  {\n      \"id\": 1\n  }\n";
        assert_eq!(lines(&sample(), 86_400 * 3 + 45_296, false), text);
        let event =
            ShownEvent { data: None, user_id: Some("\"7\""), name: "client-\u{1b}", ..sample() };
        assert_eq!(
            lines(&event, 0, false),
            "00:00:00Z private-orders.1 client-\\u001b from user 7\n"
        );
        assert_eq!(
            lines(&ShownEvent { user_id: None, ..event }, 0, true),
            "\x1b[90m00:00:00Z\x1b[0m \x1b[36mprivate-orders.1\x1b[0m \x1b[1;32mclient-\\u001b\x1b[0m\n"
        );
    }
}
