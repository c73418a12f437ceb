//! Accepted events as lines of JSON on standard output, for `--print-events json`: a test double for the test suite of
//! an app. One object a line: `app_id`, `event`, `data` and `channel` as published, and `socket_id` where one was left
//! out.

use crate::api::Publication;
use crate::pusher::json;
use crate::ws::frame;

/// The lines of one request.
pub(super) fn lines(app_id: &str, publications: &[Publication]) -> Vec<u8> {
    let mut out = Vec::new();
    for publication in publications {
        out.extend_from_slice(b"{\"app_id\":");
        json::write_string(app_id, &mut out);
        if let Some(except) = publication.except {
            out.extend_from_slice(format!(",\"socket_id\":\"{except}\"").as_bytes());
        }
        // The event's own object goes on where this one is.
        out.push(b',');
        let event = frame::server_payload(&publication.frame);
        // No line breaks: name and data are spans of JSON strings, and those hold none.
        out.extend_from_slice(event.strip_prefix(b"{").unwrap_or_default());
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pusher::socket_id::SocketId;

    #[test]
    fn one_object_a_line() {
        let text = "{\"event\":\"e\",\"data\":\"{\\\"a\\\":1}\",\"channel\":\"c\"}";
        let publication = Publication {
            channel: "c".to_owned(),
            frame: frame::encode_text(text.as_bytes()).into(),
            except: SocketId::parse("1.2"),
        };
        let expected = format!("{{\"app_id\":\"7\",\"socket_id\":\"1.2\",{}\n", &text[1..]);
        assert_eq!(String::from_utf8(lines("7", &[publication])).unwrap(), expected);
    }
}
