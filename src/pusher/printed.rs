//! Accepted events as lines of JSON on standard output, for `--print-events json`: a test double for the test suite of
//! an app.
//!
//! Owns the form of a line: one object with `app_id`, `event`, `data` and `channel` as published, and `socket_id` where
//! one was left out. Does not write to a stream: `output` does. Limit: none of its own; `output/lane.rs` bounds the
//! text that waits. Cost: linear in the event; a few allocations a line, only with that option.

use super::json;
use super::socket_id::SocketId;

/// The line of one event. `payload`: the message that subscribers receive; `except`: the connection that does not.
#[must_use]
pub(crate) fn line(app_id: &str, except: Option<SocketId>, payload: &[u8]) -> Vec<u8> {
    let mut out = b"{\"app_id\":".to_vec();
    json::write_string(app_id, &mut out);
    if let Some(except) = except {
        out.extend_from_slice(format!(",\"socket_id\":\"{except}\"").as_bytes());
    }
    // The members of the event's own object follow.
    out.push(b',');
    // No line breaks: name and data are spans of JSON strings, which contain none.
    out.extend_from_slice(payload.strip_prefix(b"{").unwrap_or_default());
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_a_line() {
        let text = "{\"event\":\"e\",\"data\":\"{\\\"a\\\":1}\",\"channel\":\"c\"}";
        let expected = format!("{{\"app_id\":\"7\",\"socket_id\":\"1.2\",{}\n", &text[1..]);
        assert_eq!(
            String::from_utf8(line("7", SocketId::parse("1.2"), text.as_bytes())).unwrap(),
            expected
        );
    }
}
