//! Signed requests of the HTTP API, and what its refusals mean (docs/PROTOCOL.md rules 48, 59 to 62).
//!
//! Owns the signature of a request, the reading of its answer, and the sentences for an operator when the server
//! refuses it: each names the option or the credential to look at. Knows no command.
//! Limit: `BODY_MAX` bytes of an answer. Cost: one connection for each request; the answer's bytes are in memory as a
//! whole.

use super::connection::ServerConnection;
use super::outcome::{CommandFailure, escaped_text, is_page, one_line};
use super::peer::ServerPeer;
use crate::pusher::json::{self, Validator};
use crate::pusher::signature;

/// An answer larger than this is no list of channels.
const BODY_MAX: usize = 64 << 20;

/// Complete: an answer that ends early is an error.
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Asks below `/apps/{id}`. `path` is percent-encoded, the values of `query` are not.
pub(super) fn ask(
    peer: &ServerPeer,
    method: &str,
    path: &str,
    query: &[(&str, &str)],
    body: &str,
) -> Result<HttpAnswer, CommandFailure> {
    let now = crate::worker::time::unix_seconds();
    let target = signed_target(peer, method, path, query, body, now);
    send(peer, method, &target, body)
}

/// `target` is what comes after the prefix of the server's paths.
pub(super) fn send(
    peer: &ServerPeer,
    method: &str,
    target: &str,
    body: &str,
) -> Result<HttpAnswer, CommandFailure> {
    let mut connection = ServerConnection::open(peer)?;
    let request = format!(
        "{method} {}{target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: ringverb/{}\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        peer.prefix,
        peer.authority(),
        env!("CARGO_PKG_VERSION"),
        body.len()
    );
    // A server that refuses a large body may answer and close before it has read all of it: its answer has the reason.
    let sent = connection.send(request.as_bytes());
    let head = match (connection.receive_head(), sent) {
        (Ok(head), _) => head,
        (Err(_), Err(error)) => return Err(connection.connection_lost(&error)),
        (Err(failure), Ok(())) => return Err(failure),
    };
    let body =
        read_body(&mut connection, head.field("content-length"), head.field("transfer-encoding"))?;
    Ok(HttpAnswer { status: head.status, body })
}

fn read_body(
    connection: &mut ServerConnection,
    length: Option<&str>,
    coding: Option<&str>,
) -> Result<String, CommandFailure> {
    if coding.is_some() {
        return Err(
            connection.unexpected_answer("its answer comes in chunks, which ringverb never sends")
        );
    }
    let length = match length.map(|length| length.trim().parse::<usize>()) {
        None => None,
        Some(Ok(length)) if length <= BODY_MAX => Some(length),
        Some(_) => {
            return Err(connection.unexpected_answer("the length of its answer makes no sense"));
        }
    };
    // Without a length the end of the connection ends the body.
    while length.is_none_or(|length| connection.input.len() < length) {
        if connection.input.len() > BODY_MAX {
            return Err(connection.unexpected_answer("its answer has no end"));
        }
        if !connection.receive_more().map_err(|error| connection.connection_lost(&error))? {
            if length.is_some() {
                return Err(
                    connection.unexpected_answer("it closed the connection within its answer")
                );
            }
            break;
        }
    }
    let length = length.unwrap_or(connection.input.len());
    Ok(String::from_utf8_lossy(&connection.input[..length]).into_owned())
}

/// Path below the prefix, and query. The prefix is not signed: Reverb removes it first, ringverb takes both (rule 49).
fn signed_target(
    peer: &ServerPeer,
    method: &str,
    path: &str,
    query: &[(&str, &str)],
    body: &str,
    unix_seconds: u64,
) -> String {
    let path = format!("/apps/{}{path}", percent_encoded(&peer.app.id));
    let timestamp = unix_seconds.to_string();
    let md5 = signature::body_md5(body.as_bytes());
    let mut pairs: Vec<(&str, &str)> = query.to_vec();
    pairs.extend([
        ("auth_key", peer.app.key.as_str()),
        ("auth_timestamp", &timestamp),
        ("auth_version", "1.0"),
    ]);
    if !body.is_empty() {
        pairs.push(("body_md5", &md5));
    }
    pairs.sort_unstable();
    let joined = |value: fn(&str) -> String| {
        let pairs: Vec<String> =
            pairs.iter().map(|(name, given)| format!("{name}={}", value(given))).collect();
        pairs.join("&")
    };
    let signed = format!("{method}\n{path}\n{}", joined(str::to_owned));
    let hex = signature::sign(&peer.app.secret, &[signed.as_bytes()]);
    let hex = String::from_utf8_lossy(&hex).into_owned();
    format!("{path}?{}&auth_signature={hex}", joined(percent_encoded))
}

/// Everything but the unreserved characters of RFC 3986 section 2.3.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl HttpAnswer {
    /// # Errors
    /// A sentence about any status but 200, and about a body that is no JSON object.
    pub(super) fn object(self, peer: &ServerPeer) -> Result<String, CommandFailure> {
        if self.status != 200 {
            return Err(self.refusal(peer));
        }
        if Validator::default().check_object(self.body.as_bytes()).is_none() {
            return Err(CommandFailure::Server(format!(
                "{} answers 200, but with {}: does ringverb listen there?",
                peer.url(),
                if self.body.is_empty() { "nothing".to_owned() } else { one_line(&self.body) }
            )));
        }
        Ok(self.body)
    }

    /// The reason that the server has given, with a hint at what to change.
    fn refusal(&self, peer: &ServerPeer) -> CommandFailure {
        if is_page(&self.body) {
            return CommandFailure::Server(format!(
                "{} answers {} with a page: {}: does ringverb listen there?",
                peer.url(),
                self.status,
                one_line(&self.body)
            ));
        }
        let reason = if self.status == 422 { validation_sentences(&self.body) } else { None };
        let reason = reason.unwrap_or_else(|| escaped_text(self.body.trim()));
        let reason = if reason.is_empty() { "no reason given".to_owned() } else { reason };
        let remedy = match self.status {
            // The text about clocks has its own remedy.
            401 if reason.contains("timestamp") => String::new(),
            401 => format!(
                "The server has another key or secret for app {}: does it run with the same REVERB_APP_KEY and \
                 REVERB_APP_SECRET? `ringverb check` shows where they come from here.",
                peer.app.id
            ),
            404 => format!(
                "Does the server at {} run with the same configuration? --app chooses the app, --path or --url a \
                 path prefix.",
                peer.url()
            ),
            413 => "The event is larger than the server takes: REVERB_MAX_REQUEST_SIZE and \
                    RINGVERB_EVENT_PAYLOAD_MAX are its limits."
                .to_owned(),
            _ => String::new(),
        };
        let hint = if remedy.is_empty() { remedy } else { format!("\nhint: {remedy}") };
        CommandFailure::Server(format!("the server refused with {}: {reason}{hint}", self.status))
    }
}

/// Laravel's form of a 422: `{"field":["sentence"]}`. `None`: the body has another form, and is shown as it is.
fn validation_sentences(body: &str) -> Option<String> {
    let body = Validator::default().check(body.as_bytes())?;
    let mut sentences = Vec::new();
    for (name, list) in json::members(body)? {
        // In development mode the server adds the whole reason.
        if json::is_name(name, "error") {
            return Some(escaped_text(&json::string(list)?));
        }
        for sentence in json::elements(list)? {
            sentences.push(escaped_text(&json::string(sentence)?));
        }
    }
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

#[cfg(test)]
mod tests {
    use super::super::peer::Proxied;
    use super::*;
    use crate::app::{Secret, sample};

    /// The worked example of docs/PROTOCOL.md rule 48.
    #[test]
    fn requests_are_signed_rightly() {
        let mut app = sample();
        app.id = "3".to_owned();
        app.key = "278d425bdf160c739803".to_owned();
        app.secret = Secret::new("7ad3773142a6692b25b8");
        let peer = ServerPeer {
            host: "h".to_owned(),
            port: 1,
            prefix: "/ws".to_owned(),
            app,
            tls: None,
            proxied: Proxied::default(),
        };
        let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let target = signed_target(&peer, "POST", "/events", &[], body, 1_353_088_179);
        assert_eq!(
            target,
            "/apps/3/events?auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
             &body_md5=ec365a775a4cd0599faeb73354201b6f\
             &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        );
        let target = signed_target(&peer, "GET", "/channels", &[("info", "a,b")], "", 1);
        assert!(target.contains("&info=a%2Cb&"), "{target}");
        assert!(!target.contains("body_md5"), "{target}");
    }

    #[test]
    fn a_refusal_is_shown_as_a_sentence() {
        let peer = ServerPeer {
            host: "h".to_owned(),
            port: 1,
            prefix: String::new(),
            app: sample(),
            tls: None,
            proxied: Proxied::default(),
        };
        let sentence = |status, body: &str| match (HttpAnswer { status, body: body.to_owned() })
            .object(&peer)
        {
            Err(CommandFailure::Server(sentence)) => sentence,
            other => panic!("{other:?}"),
        };
        for (status, body, parts) in [
            (401, "Authentication signature invalid.", ["signature invalid.", "REVERB_APP_SECRET"]),
            (401, "Authentication timestamp is 700 s away", ["700 s", "401"]),
            (404, "Not found.", ["Not found.", "http://h:1"]),
            (413, "Payload too large.", ["Payload too large.", "REVERB_MAX_REQUEST_SIZE"]),
            (
                422,
                r#"{"data":["The data field is required."],"name":["Too long."]}"#,
                [": The data field is required. Too long.", "422"],
            ),
            (
                422,
                r#"{"data":["Required."],"error":"data is missing"}"#,
                [": data is missing", "422"],
            ),
            (422, "{\"a\":1}\u{1b}", ["{\"a\":1}\\u001b", "422"]),
            (503, "", ["no reason given", "503"]),
            (200, "<html>", ["<html>", "does ringverb listen there?"]),
            (200, "", ["with nothing", "200"]),
            (
                404,
                "<!DOCTYPE html>\n<html>\n  <title>Not Found</title>",
                [
                    "404 with a page: <!DOCTYPE html> <html> <title>Not Found</title>",
                    "does ringverb listen there?",
                ],
            ),
            (502, &*format!("<html>{}", "x\n".repeat(999)), ["x …: does ringverb", "502"]),
        ] {
            let sentence = sentence(status, body);
            assert!(parts.iter().all(|part| sentence.contains(part)), "{sentence}");
        }
    }
}
