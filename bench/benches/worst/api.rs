//! API requests: what is done before the signature is known to be good, and what a backend can make of a good one.

use std::hint::black_box;

use ringverb::api::{Plan, RequestContext, plan, render, target};
use ringverb::app::{Apps, Secret};
use ringverb::cause::LineBudget;
use ringverb::http1::request::{Progress, Request, RequestLimits, RequestReader};
use ringverb::metrics::CoreMetrics;
use ringverb::pusher::json::Validator;
use ringverb::pusher::signature;
use ringverb::shard::{Answer, Described, Question};

use super::setup::config;
use super::{Entry, Peer, Run, entry};

const NOW: u64 = 1_795_455_487;
const PREFIX: &str = "/ws";
/// A head has at most 16 KiB.
const QUERY_BYTES_MAX: usize = 15_000;

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        bytes_max: QUERY_BYTES_MAX,
        ..entry("API: many parameters", Peer::Anybody, many_parameters)
    },
    Entry { bytes_max: QUERY_BYTES_MAX, ..entry("API: no key", Peer::Anybody, no_key) },
    Entry {
        bytes_max: QUERY_BYTES_MAX,
        ..entry("API: an unknown app id", Peer::Anybody, unknown_id)
    },
    Entry {
        bytes_max: QUERY_BYTES_MAX,
        ..entry("API: wrong signature over 64 parameters", Peer::Anybody, wrong_signature)
    },
    Entry {
        bytes_max: QUERY_BYTES_MAX,
        ..entry("API: wrong signature, an array", Peer::Anybody, wrong_array)
    },
    Entry {
        bytes_max: QUERY_BYTES_MAX,
        ..entry("API: wrong signature, escapes", Peer::Anybody, wrong_escapes)
    },
    entry("API: wrong signature over a body", Peer::Anybody, wrong_body),
    entry("events: one channel", Peer::Backend, one_channel),
    entry("events: many channels", Peer::Backend, many_channels),
    entry("events: many channels with info", Peer::Backend, channels_with_info),
    entry("events: data for ten channels", Peer::Backend, data_for_channels),
    entry("events: escaped members", Peer::Backend, escaped_members),
    entry("events: channels that are none", Peer::Backend, wrong_channels),
    entry("batch_events: small events", Peer::Backend, small_events),
    entry("batch_events: small events with info", Peer::Backend, small_events_with_info),
    entry("batch_events: empty objects", Peer::Backend, empty_objects),
];

fn read(bytes: &[u8]) -> Request {
    let mut reader = RequestReader::new(RequestLimits { request_size_max: 1 << 20 });
    match reader.read(&mut bytes.to_vec()) {
        Ok(Progress::Complete(request)) => request,
        other => panic!("{other:?}"),
    }
}

/// Reads and plans a request; `check` looks at the plan.
fn planning(bytes: Vec<u8>, check: fn(&Plan)) -> (usize, Run) {
    let apps = Apps::new(config().apps);
    let mut validator = Validator::default();
    // Of a flood, whose lines are left out.
    let mut lines = LineBudget::default();
    let metrics = CoreMetrics::new(1);
    let length = bytes.len();
    let run = move || {
        let request = read(black_box(&bytes));
        let target = target(request.method(), request.path(), PREFIX);
        let mut context = RequestContext {
            apps: &apps,
            prefix: PREFIX,
            unix_seconds: NOW,
            draining: false,
            validator: &mut validator,
            lines: &mut lines,
            verbose_errors: false,
            debug: false,
            metrics: &metrics,
        };
        check(&plan(&request, &target, &mut context));
    };
    (length, Box::new(run))
}

fn refused(plan: &Plan) {
    assert!(matches!(plan, Plan::Unauthenticated(_)));
}

/// The path has an escape and the prefix, so that all four forms of it are tried.
fn unsigned(path: &str, query: &str, body: &str) -> (usize, Run) {
    let length = body.len();
    let text = format!(
        "POST {PREFIX}{path}?{query} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    planning(text.into_bytes(), refused)
}

const EVENTS: &str = "/apps/%31001/events";

fn keyed() -> String {
    format!(
        "auth_key=app-key&auth_timestamp={NOW}&auth_version=1.0&auth_signature={}",
        "a".repeat(64)
    )
}

fn many_parameters(size: usize) -> (usize, Run) {
    unsigned(EVENTS, &format!("{}{}", "a&".repeat(size / 2), keyed()), "{}")
}

fn no_key(size: usize) -> (usize, Run) {
    unsigned(EVENTS, &format!("a={}", "b".repeat(size)), "{}")
}

fn unknown_id(size: usize) -> (usize, Run) {
    unsigned(&format!("/apps/{}/events", "1".repeat(size)), "", "{}")
}

fn wrong_signature(size: usize) -> (usize, Run) {
    let value = "b".repeat(size / 60);
    let more: String = (0..60).map(|number| format!("&a{number}={value}")).collect();
    unsigned(EVENTS, &(keyed() + &more), "{}")
}

fn wrong_array(size: usize) -> (usize, Run) {
    let more = format!("&a[]={}", "b".repeat(size / 60)).repeat(60);
    unsigned(EVENTS, &(keyed() + &more), "{}")
}

fn wrong_escapes(size: usize) -> (usize, Run) {
    let more = format!("&a={}", "%41".repeat(size / 180)).repeat(60);
    unsigned(EVENTS, &(keyed() + &more), "{}")
}

fn wrong_body(size: usize) -> (usize, Run) {
    unsigned(EVENTS, &keyed(), &"b".repeat(size))
}

/// A request that is signed.
fn signed(path: &str, body: &str, check: fn(&Plan)) -> (usize, Run) {
    let path = format!("{PREFIX}/apps/1001/{path}");
    let md5 = signature::body_md5(body.as_bytes());
    let query = format!("auth_key=app-key&auth_timestamp={NOW}&auth_version=1.0&body_md5={md5}");
    let text = format!("POST\n{path}\n{query}");
    let signed = signature::sign(&Secret::new("app-secret"), &[text.as_bytes()]);
    let (signed, length) = (String::from_utf8_lossy(&signed), body.len());
    let text = format!(
        "POST {path}?{query}&auth_signature={signed} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let (_, run) = planning(text.into_bytes(), check);
    (length, run)
}

/// Answers `info` as well, as if nobody subscribed to anything.
fn published(plan: &Plan) {
    let Plan::Publish { publications, info, reply, .. } = plan else { panic!("{plan:?}") };
    let count = match info {
        Some(Question::Describe { names, .. }) => names.len(),
        _ => 0,
    };
    let answer = Answer::Described(vec![Described::default(); count]);
    assert!(!publications.is_empty());
    assert_eq!(render(reply, vec![answer]).status, 200);
}

fn invalid(plan: &Plan) {
    assert!(matches!(plan, Plan::Refuse(denied) if denied.response.status == 422), "{plan:?}");
}

fn names(count: usize) -> String {
    let names: Vec<String> = (0..count).map(|number| format!("\"c{number:06}\"")).collect();
    names.join(",")
}

fn one_channel(size: usize) -> (usize, Run) {
    let data = "\\n".repeat(size / 2);
    signed("events", &format!(r#"{{"name":"e","channel":"c","data":"{data}"}}"#), published)
}

fn many_channels(size: usize) -> (usize, Run) {
    let names = names(size / 10);
    signed("events", &format!(r#"{{"name":"e","data":"x","channels":[{names}]}}"#), published)
}

fn channels_with_info(size: usize) -> (usize, Run) {
    let (names, info) = (names(size / 10), r#""info":"subscription_count""#);
    signed(
        "events",
        &format!(r#"{{"name":"e","data":"x",{info},"channels":[{names}]}}"#),
        published,
    )
}

/// Each byte of data is copied for each of these channels. Of more data and channels 16 MiB are the bound.
fn data_for_channels(size: usize) -> (usize, Run) {
    let (names, data) = (names(10), "d".repeat(size));
    signed("events", &format!(r#"{{"name":"e","data":"{data}","channels":[{names}]}}"#), published)
}

fn escaped_members(size: usize) -> (usize, Run) {
    let members = r#""\n":1,"#.repeat(size / 7);
    signed("events", &format!(r#"{{{members}"name":"e","data":"x","channel":"c"}}"#), published)
}

fn wrong_channels(size: usize) -> (usize, Run) {
    let numbers = "1,".repeat(size / 2);
    signed("events", &format!(r#"{{"name":"e","data":"x","channels":[{numbers}1]}}"#), invalid)
}

fn small_events(size: usize) -> (usize, Run) {
    batch(size, r#"{"name":"e","channel":"c","data":"d"}"#, published)
}

fn small_events_with_info(size: usize) -> (usize, Run) {
    batch(size, r#"{"name":"e","channel":"c","data":"d","info":"user_count"}"#, published)
}

fn empty_objects(size: usize) -> (usize, Run) {
    batch(size, "{}", invalid)
}

fn batch(size: usize, event: &str, check: fn(&Plan)) -> (usize, Run) {
    let events = vec![event; size / (event.len() + 1)].join(",");
    signed("batch_events", &format!(r#"{{"batch":[{events}]}}"#), check)
}
