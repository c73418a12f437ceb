//! Requests of the HTTP API by their structure, signed as the official libraries sign: chance alone never gets past the
//! signature. What is signed rightly is not refused for it; what was changed afterwards, wherever, is never carried
//! out.

use std::collections::HashMap;
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Result, Unstructured};
use ringverb::api::{Denied, Plan, RequestContext, plan, target};
use ringverb::app::{App, Apps, Secret};
use ringverb::cause::LineBudget;
use ringverb::config::validate::{DevelopmentApp, build_config};
use ringverb::config::{Sources, merge};
use ringverb::http1::request::{Progress, RequestLimits, RequestReader};
use ringverb::metrics::CoreMetrics;
use ringverb::pusher::json::Validator;
use ringverb::pusher::signature;

const NOW: u64 = 1_800_000_000;

#[rustfmt::skip]
const PATHS: &[&str] = &[
    "/events", "/batch_events", "/channels", "/channels/news", "/channels/presence-room",
    "/channels/presence-room/users",
    "/connections", "/users/7/terminate_connections", "/users/%37/terminate_connections", "/nothing", "",
];
#[rustfmt::skip]
const CHANNELS: &[&str] = &["news", "private-p", "presence-room", "cache-c", "private-encrypted-x", "", "a b",
    "#server-to-user-7", "é"];
#[rustfmt::skip]
const NAMES: &[&str] = &["filter_by_prefix", "info", "info[]", "auth_version", "x", "Auth_Key2", "body_md5x"];
#[rustfmt::skip]
const VALUES: &[&str] = &["presence-", "user_count", "user_count,subscription_count", "cache", "%7E", "a%20b", "",
    "1.0"];

/// What happens to a request behind its signature.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Tampering {
    None,
    Signature(u8),
    Query,
    Body(u16),
    Path,
    Key,
}

#[derive(Debug)]
struct Spec {
    method: &'static str,
    path: &'static str,
    query: Vec<(&'static str, &'static str)>,
    body: String,
    chunks: Option<u8>,
    cut: u8,
    timestamp: u64,
    tampering: Tampering,
}

impl<'a> Arbitrary<'a> for Spec {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let path = *input.choose(PATHS)?;
        let posts = path.contains("events") || path.contains("terminate");
        let usual = if posts { "POST" } else { "GET" };
        let method = if input.ratio(1, 10)? {
            *input.choose(&["GET", "POST", "PUT", "HEAD"])?
        } else {
            usual
        };
        let mut query: Vec<(&str, &str)> = Vec::new();
        for _ in 0..input.int_in_range(0..=3)? {
            let name = *input.choose(NAMES)?;
            // One that is given twice is signed once: another test's matter.
            if query
                .iter()
                .all(|(known, _)| known.trim_end_matches("[]") != name.trim_end_matches("[]"))
            {
                query.push((name, *input.choose(VALUES)?));
            }
        }
        let body = match (posts, path) {
            (true, "/batch_events") => batch(input)?,
            (true, "/events") => event(input)?,
            _ if input.ratio(1, 10)? => event(input)?,
            _ => String::new(),
        };
        let timestamp =
            if input.ratio(1, 10)? { NOW - u64::from(u16::arbitrary(input)?) } else { NOW };
        let tampering = if input.ratio(1, 2)? { Tampering::None } else { input.arbitrary()? };
        Ok(Self {
            method,
            path,
            query,
            body,
            chunks: input.arbitrary()?,
            cut: input.arbitrary()?,
            timestamp,
            tampering,
        })
    }
}

fn batch(input: &mut Unstructured<'_>) -> Result<String> {
    let count = input.int_in_range(0..=12)?;
    let events = (0..count).map(|_| event(input)).collect::<Result<Vec<_>>>()?;
    Ok(format!("{{\"batch\":[{}]}}", events.join(",")))
}

/// A body that is right in most things.
fn event(input: &mut Unstructured<'_>) -> Result<String> {
    let mut fields = Vec::new();
    for field in ["name", "data", "channel", "channels", "socket_id", "info", "other"] {
        let usual = !matches!(field, "channel" | "socket_id" | "info" | "other");
        if input.ratio(if usual { 9 } else { 2 }, 10)? {
            let value =
                if input.ratio(1, 12)? { anything(input, 3)? } else { usual_value(input, field)? };
            fields.push(format!("\"{field}\":{value}"));
        }
    }
    Ok(format!("{{{}}}", fields.join(",")))
}

fn usual_value(input: &mut Unstructured<'_>, field: &str) -> Result<String> {
    let quoted = |text: &str| format!("\"{text}\"");
    Ok(match field {
        "channel" => quoted(input.choose(CHANNELS)?),
        "channels" => {
            let count = input.int_in_range(0..=5)?;
            let names = (0..count)
                .map(|_| Ok(quoted(input.choose(CHANNELS)?)))
                .collect::<Result<Vec<_>>>()?;
            format!("[{}]", names.join(","))
        }
        "data" => {
            quoted(input.choose(&["{}", "{\\\"a\\\":1}", "x", "\\u00e9", "\\ud83d\\ude00", ""])?)
        }
        "socket_id" => quoted(input.choose(&["1.2", "12.34", "0.1", "x", ""])?),
        "info" => {
            quoted(input.choose(&["user_count", "subscription_count", "cache", "nothing"])?)
        }
        _ => quoted(input.choose(&["e", "client-e", "App\\\\Events\\\\E", "pusher:x", ""])?),
    })
}

/// Any JSON, or nearly.
fn anything(input: &mut Unstructured<'_>, depth: u8) -> Result<String> {
    if depth > 0 && input.ratio(1, 3)? {
        let inner = anything(input, depth - 1)?;
        let forms = [
            format!("[{inner}]"),
            format!("{{\"k\":{inner}}}"),
            format!("[{inner},{inner}]"),
            format!("[{inner}"),
        ];
        return Ok(input.choose(&forms)?.clone());
    }
    Ok((*input.choose(&[
        "null",
        "true",
        "0",
        "-1e5",
        "\"\"",
        "\"\\ud800\"",
        "[]",
        "{}",
        "nul",
        "1e999",
    ])?)
    .to_owned())
}

fn app() -> App {
    let names = [("ID", "1001"), ("KEY", "app-key"), ("SECRET", "app-secret")];
    let variable = |(name, value): (&str, &str)| (format!("REVERB_APP_{name}"), value.to_owned());
    let environment: HashMap<String, String> = names.into_iter().map(variable).collect();
    let merged = merge(&Sources { environment, ..Sources::default() });
    let unused = || String::from("unused");
    let development = DevelopmentApp { id: unused(), key: unused(), secret: unused() };
    build_config(&merged, &development).expect("a good configuration").apps.remove(0)
}

static APPS: LazyLock<Apps> = LazyLock::new(|| Apps::new(vec![app()]));

/// A request that is signed, before and after a change.
struct Signed {
    method: &'static str,
    path: String,
    pairs: Vec<(String, String)>,
    body: Vec<u8>,
    signature: String,
}

impl Spec {
    fn sign(&self) -> Signed {
        let path = format!("/apps/1001{}", self.path);
        let timestamp = self.timestamp.to_string();
        let own = [("auth_key", "app-key"), ("auth_timestamp", &timestamp)];
        let mut pairs: Vec<(String, String)> = (self.query.iter().copied().chain(own))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        if !self.body.is_empty() {
            pairs.push(("body_md5".to_owned(), signature::body_md5(self.body.as_bytes())));
        }
        // What is signed is decoded and in lower case, and a list is named without its brackets.
        let decoded = |text: &str| text.replace("%7E", "~").replace("%20", " ");
        let mut signed: Vec<(String, String)> = pairs
            .iter()
            .map(|(name, value)| (name.trim_end_matches("[]").to_lowercase(), decoded(value)))
            .collect();
        signed.sort();
        let text = format!("{}\n{path}\n{}", self.method, joined(&signed));
        let hex = signature::sign(&Secret::new("app-secret"), &[text.as_bytes()]);
        let signature = String::from_utf8(hex.to_vec()).expect("hex");
        let body = self.body.clone().into_bytes();
        Signed { method: self.method, path, pairs, body, signature }
    }
}

fn joined(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

impl Signed {
    /// Whether there was anything to change.
    fn tamper(&mut self, how: Tampering) -> bool {
        match how {
            Tampering::None => return false,
            Tampering::Signature(at) => {
                let at = usize::from(at) % self.signature.len();
                let other = if self.signature.as_bytes()[at] == b'0' { "1" } else { "0" };
                self.signature.replace_range(at..=at, other);
            }
            Tampering::Query => self.pairs.push(("extra".to_owned(), "1".to_owned())),
            Tampering::Body(_) if self.body.is_empty() => return false,
            Tampering::Body(at) => {
                let at = usize::from(at) % self.body.len();
                self.body[at] ^= 1;
            }
            Tampering::Path => self.path.push('s'),
            Tampering::Key => {
                let key = self.pairs.iter_mut().find(|(name, _)| name == "auth_key");
                key.expect("every request has it").1.push('x');
            }
        }
        true
    }

    fn encode(&self, chunks: Option<u8>) -> Vec<u8> {
        let Self { method, path, pairs, body, signature } = self;
        let query = joined(pairs);
        let mut bytes =
            format!("{method} {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: x\r\n")
                .into_bytes();
        match chunks.filter(|_| !body.is_empty()) {
            None => {
                bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                bytes.extend(body);
            }
            Some(size) => {
                bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(usize::from(size).max(1)) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
            }
        }
        bytes
    }
}

pub(crate) fn check(data: &[u8]) {
    let Ok(spec) = Spec::arbitrary(&mut Unstructured::new(data)) else { return };
    let mut signed = spec.sign();
    let changed = signed.tamper(spec.tampering);
    let bytes = signed.encode(spec.chunks);
    let mut reader = RequestReader::new(RequestLimits { request_size_max: 100_000 });
    let mut buffer = Vec::new();
    let mut request = None;
    for piece in bytes.chunks(usize::from(spec.cut).max(1)) {
        buffer.extend_from_slice(piece);
        match reader.read(&mut buffer).expect("a request of good form") {
            Progress::Complete(complete) => request = Some(complete),
            Progress::Incomplete { .. } => {}
        }
    }
    let request = request.expect("a whole request");
    let mut validator = Validator::default();
    let mut context = RequestContext {
        apps: &APPS,
        prefix: "",
        unix_seconds: NOW,
        draining: false,
        validator: &mut validator,
        lines: &mut LineBudget::default(),
        verbose_errors: true,
        debug: true,
        metrics: &CoreMetrics::new(1),
    };
    let plan = plan(&request, &target(request.method(), request.path(), ""), &mut context);
    let signature_is_refused = |text: &[u8]| text == b"Authentication signature invalid.";
    match plan {
        Plan::Refuse(Denied { response, log_line: noted, .. })
        | Plan::Unauthenticated(Denied { response, log_line: noted, .. }) => {
            let line = noted.line.expect("whoever develops an app wants each line");
            let refused = response.status == 401 && signature_is_refused(&response.body);
            assert!(changed || !refused, "{spec:?} {line}");
            assert!(!line.contains("app-secret"), "{spec:?} {line}");
            assert!(response.status >= 400, "{spec:?} was answered {}", response.status);
        }
        Plan::Respond(response) => {
            assert!(!changed, "{spec:?} was answered {}", response.status);
        }
        carried_out => {
            assert!(!changed, "{spec:?} was changed and is carried out: {carried_out:?}");
            if let Plan::Publish { publications, .. } = carried_out {
                for one in publications {
                    assert!(spec.body.contains("channel") && !one.channel.is_empty(), "{spec:?}");
                    assert!(one.frame.len() > 2 && one.frame[0] == 0x81, "{spec:?}");
                }
            }
        }
    }
}
