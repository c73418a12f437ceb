//! The log for programs: each line is one JSON object with stable names, and the access log of the HTTP API.

use std::fs::File;
use std::sync::mpsc::Receiver;

use rustix::process::Signal;
use serde_json::Value;

use super::output::{find, pipe, read};
use crate::support::{APP_ID, Client, Handshake, Request, Server, Setup, json};

/// Starts it with its log going to a pipe.
fn started(setup: Setup) -> (Server, Receiver<String>) {
    let (reader, writer) = pipe();
    let errors = writer.try_clone().expect("a descriptor");
    (setup.start_onto(writer, errors), read(File::from(reader)))
}

fn access() -> Setup {
    Setup::new().workers(2).env("RINGVERB_ACCESS_LOG", "true")
}

/// The next line of this event. Every line before it must be an object, too.
fn event(lines: &Receiver<String>, name: &str) -> Value {
    loop {
        let line = find(lines, "");
        let object = json(&line);
        for member in ["time", "level", "event"] {
            assert!(object[member].is_string(), "{member}: {line}");
        }
        if object["event"] == name {
            return object;
        }
    }
}

#[test]
fn a_log_that_is_no_terminal_is_lines_of_json_from_the_start_message_to_the_end() {
    let setup = access().env("RINGVERB_LOG_FORMAT", "auto").env("RINGVERB_LOG_LEVEL", "info");
    let (server, lines) = started(setup.env("RINGVERB_ALLOWED_ORIGINS", "https://good.test"));
    let start = event(&lines, "server_started");
    assert!(start["message"].as_str().is_some_and(|text| text.contains("127.0.0.1")), "{start}");

    Client::open(&server, &Handshake::new().header("Origin", "https://evil.test")).event();
    let refused = event(&lines, "refused");
    assert_eq!(refused["reason"], "origin");
    assert_eq!((&refused["level"], &refused["app"]), (&"warn".into(), &APP_ID.into()));
    assert!(refused["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")));

    let good = Handshake::new().header("Origin", "https://good.test");
    let mut client = Client::open(&server, &good).established();
    client.send_subscribe("private-a", None);
    client.event();
    client.send(r#"{"event":"pusher:subscribe","data":{"channel":"private-b","auth":"x"}}"#);
    client.event();
    let refused = event(&lines, "refused");
    assert_eq!(
        (&refused["channel"], &refused["reason"]),
        (&"private-b".into(), &"auth_form".into())
    );
    assert!(refused["socket_id"].as_str().is_some_and(|id| id.contains('.')), "{refused}");

    server.publish("news", "hello", "{}");
    let published = event(&lines, "access");
    assert_eq!((&published["status"], &published["method"]), (&200.into(), &"POST".into()));
    assert_eq!(published["path"], format!("/apps/{APP_ID}/events"));
    assert!(published["duration_ms"].as_f64().is_some_and(|time| time > 0.0), "{published}");
    for bytes in ["received_bytes", "sent_bytes"] {
        assert!(published[bytes].as_u64().is_some_and(|bytes| bytes > 50), "{published}");
    }
    let (status, _) = server.answer(&Request::get("/channels").signature("0"));
    assert_eq!((status, &event(&lines, "access")["status"]), (401, &401.into()));

    server.signal(Signal::TERM);
    event(&lines, "server_stopped");
}

#[test]
fn the_access_log_is_text_in_a_log_of_text_and_no_level_leaves_it_out() {
    let (server, lines) = started(access().env("RINGVERB_LOG_LEVEL", "error"));
    Client::open(&server, &Handshake::to("/app/wrong?protocol=7")).event();
    server.publish("news", "hello", "{}");
    // The refusal came before.
    let mut line = find(&lines, "");
    while !line.contains("request answered") {
        assert!(!line.contains("cause="), "{line}");
        line = find(&lines, "");
    }
    for part in [" INFO request answered", "method=POST", "/events status=200 duration_ms="] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains("auth_signature"), "{line}");
}

/// `replacement_failed` is what operators watch, so a take-over that succeeds has an event of its own.
#[test]
fn a_take_over_is_logged_as_complete_with_the_id_of_the_new_process() {
    let (old, lines) = started(Setup::new().workers(1).env("RINGVERB_LOG_FORMAT", "json"));
    let new = Setup::new().workers(1).reaching(&old).arg("--takeover").start_as_configured();
    let complete = event(&lines, "takeover_complete");
    assert_eq!(complete["process"], new.id(), "{complete}");
    assert_eq!(complete["level"], "info", "{complete}");
    assert_eq!(old.finish().code, Some(0));
}

#[test]
fn without_the_option_no_request_is_logged() {
    let (server, lines) = started(Setup::new().workers(1).env("RINGVERB_LOG_FORMAT", "json"));
    server.publish("news", "hello", "{}");
    server.signal(Signal::TERM);
    loop {
        let line = find(&lines, "");
        let object = json(&line);
        assert_ne!(object["event"], "access", "{line}");
        if object["event"] == "server_stopped" {
            return;
        }
    }
}

#[test]
fn an_unknown_time_zone_is_warned_of_once_and_a_known_one_is_in_each_line() {
    let setup = |zone: &str| {
        let setup = Setup::new().env("RINGVERB_LOG_FORMAT", "text").env("TZ", zone);
        setup.env("RINGVERB_LOG_TIME", "local")
    };
    let finish = |server: Server| {
        server.signal(Signal::TERM);
        server.finish()
    };
    let unknown = finish(setup("Mars/Olympus").start());
    let warnings = unknown.stderr.matches("TZ is \"Mars/Olympus\", which names no zone").count();
    assert_eq!(warnings, 1, "{}", unknown.stderr);
    assert!(unknown.stderr.contains("set RINGVERB_LOG_TIME=utc"), "{}", unknown.stderr);
    assert!(unknown.stdout.contains("+00:00  INFO Stopped"), "{}", unknown.stdout);
    // A rule of POSIX needs no files.
    let known = finish(setup("IST-5:30").start());
    assert_eq!(known.stderr, "");
    assert!(known.stdout.contains("+05:30  INFO Stopped"), "{}", known.stdout);
    let utc = finish(setup("Mars/Olympus").env("RINGVERB_LOG_TIME", "utc").start());
    assert_eq!(utc.stderr, "", "the zone is not used");
}
