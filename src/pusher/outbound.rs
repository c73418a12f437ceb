//! Messages of the server: the JSON of each event (docs/PROTOCOL.md C15). PURE; appends to a buffer, owns no state and
//! knows no frame header.
//!
//! `data` of the server's own events is a string that contains JSON (rule 2). A publisher's `data` is copied as the raw
//! span of the request. Limits: those of the callers, for each text that is copied. Cost: `event` and `client_event`
//! copy each byte once and allocate nothing; an event whose `data` is made here is built in one more buffer.

use super::error_code::ErrorCode;
use super::json;
use super::socket_id::SocketId;
use crate::text::two_sentences;

/// Sent to clients that have shown no WebSocket control frame, because they may not answer one.
pub const PING: &[u8] = br#"{"event":"pusher:ping"}"#;
/// Without `data`, as Reverb sends it.
pub const PONG: &[u8] = br#"{"event":"pusher:pong"}"#;

pub fn connection_established(
    socket_id: SocketId,
    activity_timeout_seconds: u32,
    out: &mut Vec<u8>,
) {
    let parts: [&[u8]; 2] = [
        br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\""#,
        br#"\",\"activity_timeout\":"#,
    ];
    out.extend_from_slice(parts[0]);
    socket_id.write(out);
    out.extend_from_slice(parts[1]);
    out.extend_from_slice(itoa::Buffer::new().format(activity_timeout_seconds).as_bytes());
    out.extend_from_slice(br#"}"}"#);
}

/// `pusher:error`. Reverb's `data` is a string, Pusher's an object (docs/PROTOCOL.md rule 4). `why` is the reason for
/// developers.
pub fn error(error: ErrorCode, why: Option<&str>, data_is_object: bool, out: &mut Vec<u8>) {
    let mut inner = format!("{{\"code\":{},\"message\":", error.code).into_bytes();
    write_message(error, why, &mut inner);
    inner.push(b'}');
    out.extend_from_slice(b"{\"event\":\"pusher:error\",\"data\":");
    if data_is_object {
        out.extend_from_slice(&inner);
    } else {
        json::write_string(&String::from_utf8_lossy(&inner), out);
    }
    out.push(b'}');
}

fn write_message(error: ErrorCode, why: Option<&str>, out: &mut Vec<u8>) {
    match why {
        None => json::write_string(error.message, out),
        Some(why) => json::write_string(&two_sentences(error.message, why), out),
    }
}

/// `pusher:signin_success`: the text that was signed, in an object (docs/PROTOCOL.md rules 4, 40).
pub fn signin_success(user_data: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"pusher:signin_success\",\"data\":{\"user_data\":");
    json::write_string(user_data, out);
    out.extend_from_slice(b"}}");
}

/// `pusher_internal:watchlist_events`: the watched users that are online and offline (docs/PROTOCOL.md rule 43). An
/// empty list is left out.
pub fn watchlist_events(online: &[&str], offline: &[&str], out: &mut Vec<u8>) {
    let mut inner = b"{\"events\":[".to_vec();
    for (name, ids) in [("online", online), ("offline", offline)] {
        if ids.is_empty() {
            continue;
        }
        if inner.ends_with(b"}") {
            inner.push(b',');
        }
        inner.extend_from_slice(format!("{{\"name\":\"{name}\",\"user_ids\":[").as_bytes());
        for (index, id) in ids.iter().enumerate() {
            if index > 0 {
                inner.push(b',');
            }
            json::write_string(id, &mut inner);
        }
        inner.extend_from_slice(b"]}");
    }
    inner.extend_from_slice(b"]}");
    out.extend_from_slice(b"{\"event\":\"pusher_internal:watchlist_events\",\"data\":");
    json::write_string(&String::from_utf8_lossy(&inner), out);
    out.push(b'}');
}

/// `count`: connections, not users (docs/PROTOCOL.md rule 137).
pub fn subscription_count(channel: &str, count: u64, out: &mut Vec<u8>) {
    write_internal_event(
        "subscription_count",
        &format!("{{\"subscription_count\":{count}}}"),
        channel,
        out,
    );
}

/// `pusher:subscription_error`, in the form that pusher-js passes to the channel's listeners. `why`: the log line, with
/// verbose errors.
pub fn subscription_error(channel: &str, error: ErrorCode, why: Option<&str>, out: &mut Vec<u8>) {
    let (kind, status) = match error.code {
        4009 => ("AuthError", 401),
        code => ("LimitReached", code),
    };
    out.extend_from_slice(b"{\"event\":\"pusher:subscription_error\",\"channel\":");
    json::write_string(channel, out);
    out.extend_from_slice(format!(",\"data\":{{\"type\":\"{kind}\",\"error\":").as_bytes());
    write_message(error, why, out);
    out.extend_from_slice(format!(",\"status\":{status}}}}}").as_bytes());
}

/// Of a channel without a roster, whose `data` is an empty object.
pub fn subscription_succeeded(channel: &str, out: &mut Vec<u8>) {
    write_internal_event("subscription_succeeded", "{}", channel, out);
}

/// `pusher_internal:subscription_succeeded` of a presence channel. `members` are (id as JSON, id as text, info
/// as JSON).
pub fn presence_succeeded<'a>(
    channel: &str,
    members: impl ExactSizeIterator<Item = (&'a str, &'a str, &'a str)> + Clone,
    out: &mut Vec<u8>,
) {
    let mut inner = String::from("{\"presence\":{\"count\":");
    inner.push_str(&members.len().to_string());
    inner.push_str(",\"ids\":[");
    for (index, (id_json, _, _)) in members.clone().enumerate() {
        if index > 0 {
            inner.push(',');
        }
        inner.push_str(id_json);
    }
    inner.push_str("],\"hash\":{");
    let mut name = Vec::new();
    for (index, (_, id_text, info)) in members.enumerate() {
        if index > 0 {
            inner.push(',');
        }
        name.clear();
        json::write_string(id_text, &mut name);
        inner.push_str(&String::from_utf8_lossy(&name));
        inner.push(':');
        inner.push_str(info);
    }
    inner.push_str("}}}");
    write_internal_event("subscription_succeeded", &inner, channel, out);
}

/// `pusher_internal:member_added`: the whole `channel_data`, as it was signed (docs/PROTOCOL.md rule 22).
pub fn member_added(channel: &str, channel_data: &str, out: &mut Vec<u8>) {
    write_internal_event("member_added", channel_data, channel, out);
}

pub fn member_removed(channel: &str, user_id_json: &str, out: &mut Vec<u8>) {
    write_internal_event(
        "member_removed",
        &format!("{{\"user_id\":{user_id_json}}}"),
        channel,
        out,
    );
}

/// Without `data`, as Reverb sends it.
pub fn cache_miss(channel: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"pusher:cache_miss\",\"channel\":");
    json::write_string(channel, out);
    out.push(b'}');
}

/// An event of the app's backend. `event` and `data` are raw spans of the request.
pub fn event(event: &str, data: &str, channel: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(data.as_bytes());
    out.extend_from_slice(b",\"channel\":");
    json::write_string(channel, out);
    out.push(b'}');
}

/// A client event. `event` and `data` are raw spans of the message; `user_id` is there on presence channels
/// (rule 33).
pub fn client_event(
    event: &str,
    channel: &str,
    data: &str,
    user_id_json: Option<&str>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"event\":");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b",\"channel\":");
    json::write_string(channel, out);
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(data.as_bytes());
    if let Some(user_id) = user_id_json {
        out.extend_from_slice(b",\"user_id\":");
        out.extend_from_slice(user_id.as_bytes());
    }
    out.push(b'}');
}

fn write_internal_event(name: &str, data: &str, channel: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"pusher_internal:");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\",\"data\":");
    json::write_string(data, out);
    out.extend_from_slice(b",\"channel\":");
    json::write_string(channel, out);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pusher::error_code;

    fn check(write: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn written_messages_are_the_bytes_of_reverb() {
        let socket_id = SocketId::parse("83.41").unwrap();
        check(
            |out| connection_established(socket_id, 30, out),
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"83.41\",\"activity_timeout\":30}"}"#,
        );
        check(
            |out| error(error_code::NO_SUCH_APP, None, false, out),
            r#"{"event":"pusher:error","data":"{\"code\":4001,\"message\":\"Application does not exist\"}"}"#,
        );
        check(
            |out| error(error_code::NO_SUCH_APP, Some("a\"b"), true, out),
            r#"{"event":"pusher:error","data":{"code":4001,"message":"Application does not exist. a\"b"}}"#,
        );
        check(
            |out| subscription_error("private-x", error_code::UNAUTHORIZED, None, out),
            concat!(
                r#"{"event":"pusher:subscription_error","channel":"private-x","#,
                r#""data":{"type":"AuthError","error":"Connection is unauthorized","status":401}}"#
            ),
        );
        check(
            |out| subscription_succeeded("news", out),
            r#"{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"news"}"#,
        );
        check(
            |out| signin_success(r#"{"id":"7"}"#, out),
            r#"{"event":"pusher:signin_success","data":{"user_data":"{\"id\":\"7\"}"}}"#,
        );
        check(
            |out| watchlist_events(&["1", "2"], &["3"], out),
            concat!(
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":["#,
                r#"{\"name\":\"online\",\"user_ids\":[\"1\",\"2\"]},"#,
                r#"{\"name\":\"offline\",\"user_ids\":[\"3\"]}]}"}"#
            ),
        );
        check(
            |out| watchlist_events(&[], &["3"], out),
            concat!(
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":["#,
                r#"{\"name\":\"offline\",\"user_ids\":[\"3\"]}]}"}"#
            ),
        );
        check(
            |out| subscription_count("x", 5, out),
            r#"{"event":"pusher_internal:subscription_count","data":"{\"subscription_count\":5}","channel":"x"}"#,
        );
        check(
            |out| member_removed("presence-r", "7", out),
            r#"{"event":"pusher_internal:member_removed","data":"{\"user_id\":7}","channel":"presence-r"}"#,
        );
        check(
            |out| cache_miss("cache-c", out),
            r#"{"event":"pusher:cache_miss","channel":"cache-c"}"#,
        );
        check(
            |out| event(r#""App\\Events\\Posted""#, r#""{\"id\":1}""#, "news", out),
            r#"{"event":"App\\Events\\Posted","data":"{\"id\":1}","channel":"news"}"#,
        );
        check(
            |out| client_event("\"client-hi\"", "presence-r", "{\"x\":1}", Some("\"8\""), out),
            r#"{"event":"client-hi","channel":"presence-r","data":{"x":1},"user_id":"8"}"#,
        );
    }

    #[test]
    fn presence_keeps_the_type_of_ids() {
        let members = [("7", "7", r#"{"n":"A"}"#), ("\"8\"", "8", "null")];
        check(
            |out| presence_succeeded("presence-r", members.into_iter(), out),
            concat!(
                r#"{"event":"pusher_internal:subscription_succeeded","data":"{\"presence\":{\"count\":2,"#,
                r#"\"ids\":[7,\"8\"],\"hash\":{\"7\":{\"n\":\"A\"},\"8\":null}}}","channel":"presence-r"}"#
            ),
        );
    }
}
