//! Requests as backends and others send them, and a strict reader of answers.
//!
//! Both are of this world alone: a fault of the server's reader or writer must not cancel itself out.

use std::collections::BTreeMap;

use ringverb::app::Secret;
use ringverb::pusher::signature;
use serde_json::{Value, json};

use crate::random::Random;

/// A handshake's key and the answer to it (RFC 6455 section 1.3).
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The request size of the default configuration.
const REQUEST_BYTES_MAX: usize = 10_000;

/// How a request is written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Form {
    is_http_10: bool,
    asks_for_end: bool,
    expects_continue: bool,
    is_chunked: bool,
    /// Behind a proxy that names its client.
    is_forwarded: bool,
    /// An empty line comes ahead of it, as some clients send one behind a body.
    has_empty_line: bool,
}

impl Form {
    pub(crate) fn any(random: &Random) -> Self {
        Self {
            is_http_10: random.one_in(8),
            asks_for_end: random.one_in(5),
            expects_continue: random.one_in(6),
            is_chunked: random.one_in(6),
            is_forwarded: random.one_in(2),
            has_empty_line: random.one_in(6),
        }
    }

    pub(crate) fn expecting() -> Self {
        Self { expects_continue: true, ..Self::default() }
    }

    /// Whether the client asks for the end of the connection.
    pub(crate) fn closes(self) -> bool {
        self.asks_for_end || self.is_http_10
    }

    fn may_expect(self, has_body: bool) -> bool {
        self.expects_continue && has_body && !self.is_http_10
    }
}

/// The bytes of a request, and where its head ends if its client may wait for `100 Continue` there.
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    pub(crate) waits_at: Option<usize>,
}

pub(crate) fn write(method: &str, target: &str, body: Option<&[u8]>, form: Form) -> Written {
    let mut bytes = Vec::new();
    if form.has_empty_line {
        bytes.extend_from_slice(b"\r\n");
    }
    let version = if form.is_http_10 { "1.0" } else { "1.1" };
    let mut line = |text: &str| {
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    };
    line(&format!("{method} {target} HTTP/{version}"));
    line("Host: sim");
    if form.asks_for_end {
        line("Connection: close");
    }
    if form.is_forwarded {
        line(&format!("X-Forwarded-For: {}", crate::process::CLIENT_OF_A_PROXY));
    }
    let waits = form.may_expect(body.is_some());
    if waits {
        line("Expect: 100-continue");
    }
    let is_chunked = form.is_chunked && !form.is_http_10;
    match body {
        Some(_) if is_chunked => line("Transfer-Encoding: chunked"),
        Some(body) => line(&format!("Content-Length: {}", body.len())),
        None => {}
    }
    line("");
    let waits_at = waits.then_some(bytes.len());
    match body {
        Some(body) if is_chunked => {
            let (one, two) = body.split_at(body.len() / 3);
            for part in [one, two].into_iter().filter(|part| !part.is_empty()) {
                bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                bytes.extend_from_slice(part);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        body => bytes.extend_from_slice(body.unwrap_or_default()),
    }
    Written { bytes, waits_at }
}

/// The target of a request to the API, signed.
pub(crate) fn signed(
    method: &str,
    resource: &str,
    parameters: &[(&str, &str)],
    body: Option<&[u8]>,
    unix_seconds: u64,
) -> String {
    let path = format!("/apps/1001/{resource}");
    let mut given: BTreeMap<&str, String> =
        parameters.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    given.insert("auth_key", "app-key".to_owned());
    given.insert("auth_timestamp", unix_seconds.to_string());
    given.insert("auth_version", "1.0".to_owned());
    if let Some(body) = body {
        given.insert("body_md5", signature::body_md5(body));
    }
    let pairs: Vec<String> = given.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = pairs.join("&");
    let text = format!("{method}\n{path}\n{query}");
    let hex = signature::sign(&Secret::new("app-secret"), &[text.as_bytes()]);
    format!("{path}?{query}&auth_signature={}", String::from_utf8_lossy(&hex))
}

/// The body of a publish.
pub(crate) fn event_body(
    number: u64,
    channel: &str,
    except: Option<&str>,
    info: Option<&str>,
) -> Value {
    let mut body = json!({"name": "e", "data": number.to_string(), "channel": channel});
    if let Some(socket_id) = except {
        body["socket_id"] = json!(socket_id);
    }
    if let Some(info) = info {
        body["info"] = json!(info);
    }
    body
}

pub(crate) fn handshake() -> Vec<u8> {
    let text = format!(
        "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n"
    );
    text.into_bytes()
}

/// Bytes that no server answers but with a refusal: with its status, and the end of the connection.
pub(crate) fn refused(random: &Random) -> (Vec<u8>, u16) {
    let text = |text: &str| text.as_bytes().to_vec();
    let long = "x".repeat(REQUEST_BYTES_MAX);
    match random.below(10) {
        0 => (text("\x16\x03\x01 is no HTTP\r\n\r\n"), 400),
        1 => (text("GET /up HTTP/1.1\r\n\r\n"), 400),
        2 => (text("GET /up HTTP/1.1\nHost: sim\n\n"), 400),
        3 => (text("GET /up HTTP/2.0\r\nHost: sim\r\n\r\n"), 505),
        4 => (text("GET /up HTTP/1.1\r\nHost: sim\r\nExpect: gifts\r\n\r\n"), 417),
        5 => {
            let head = "POST /up HTTP/1.1\r\nHost: sim\r\nTransfer-Encoding: gzip\r\n\r\n";
            (text(head), 501)
        }
        6 => {
            let head = "POST /up HTTP/1.1\r\nHost: sim\r\nContent-Length: 20000\r\n\r\n";
            (text(&format!("{head}{long}{long}")), 413)
        }
        7 => {
            let head = "POST /up HTTP/1.1\r\nHost: sim\r\nTransfer-Encoding: chunked\r\n\r\n";
            (text(&format!("{head}4000\r\n{long}{long}")), 413)
        }
        8 => (text(&format!("GET /up HTTP/1.1\r\nHost: sim\r\nX-Long: {long}\r\n\r\n")), 413),
        _ => {
            let head = "POST /up HTTP/1.1\r\nHost: sim\r\nContent-Length: 1\r\nContent-Length: 2";
            (text(&format!("{head}\r\n\r\nxx")), 400)
        }
    }
}

/// One answer of the server.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// It says that the connection ends behind it.
    pub(crate) closes: bool,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

/// Takes the next whole answer from what has come. `is_head`: it answers HEAD.
pub(crate) fn take_answer(input: &mut Vec<u8>, is_head: bool) -> Option<Answer> {
    let end = input.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&input[..end]).expect("text");
    let mut lines = head.split("\r\n");
    let line = lines.next().expect("a first line");
    let rest = line.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("no answer: {line:?}"));
    let (status, phrase) = rest.split_once(' ').expect("a phrase");
    assert_eq!(status.len(), 3, "{line:?}");
    assert!(phrase.bytes().all(|byte| byte == b' ' || byte.is_ascii_alphabetic()), "{line:?}");
    let status: u16 = status.parse().expect("a number");
    let mut fields = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no field: {line:?}"));
        assert!(name.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphabetic()), "{line:?}");
        assert!(!value.contains(|c: char| c.is_ascii_control()), "{line:?}");
        let twice = fields.insert(name.to_ascii_lowercase(), value.to_owned());
        assert!(twice.is_none(), "{name} comes twice");
    }
    let field = |name: &str| fields.get(name).map(String::as_str);
    let head_bytes = end + 4;
    if status < 200 {
        let is_upgrade = status == 101;
        assert_eq!(status, if is_upgrade { 101 } else { 100 });
        if is_upgrade {
            assert_eq!(field("sec-websocket-accept"), Some(WEBSOCKET_ACCEPT));
            assert_eq!(field("upgrade"), Some("websocket"));
            assert_eq!(field("connection"), Some("Upgrade"));
        } else {
            assert!(fields.is_empty(), "{fields:?}");
        }
        input.drain(..head_bytes);
        return Some(Answer { status, closes: false, body: Vec::new() });
    }
    let length: usize =
        field("content-length").and_then(|length| length.parse().ok()).expect("a length");
    assert!(field("content-type").is_some(), "no type: {head}");
    let closes = match field("connection") {
        Some("close") => true,
        Some("keep-alive") => false,
        other => panic!("connection: {other:?}"),
    };
    let length = if is_head { 0 } else { length };
    if input.len() < head_bytes + length {
        return None;
    }
    let body = input[head_bytes..head_bytes + length].to_vec();
    input.drain(..head_bytes + length);
    Some(Answer { status, closes, body })
}
