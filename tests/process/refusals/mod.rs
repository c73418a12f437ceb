//! Each cause for which the server refuses or closes something (`ringverb::cause`): a wrong input, the answer to it,
//! and the line in the log, written by hand here, which names the wrong value and what to change.
//!
//! Each case runs twice. In production the answer is that of Reverb, byte for byte. In development the answer has the
//! line, too.

mod case;
mod connections;
mod handshakes;
mod messages;
mod requests;
mod tls;
use std::collections::BTreeSet;

use crate::support::{APP_ID, Client, Handshake, Server, Setup, Wire};
use case::{Answer, Case, Seen, http, refused_handshake};
use ringverb::cause::Cause;
use ringverb::http1::refusal::RequestRefusal as HttpRefusal;
use ringverb::ws::violation::Violation;

impl Answer {
    fn shown(&self) -> String {
        match self {
            Self::Http(code, text) => format!("{code} {text}"),
            Self::Error(code, text) => format!("{code} {text}"),
            Self::Close(code, text) => format!("closed {code} {text}"),
            Self::Silence => String::new(),
        }
    }

    /// The same in development.
    fn explained(&self, answer: &str, line: &str) -> String {
        match self {
            Self::Silence => answer.to_owned(),
            Self::Http(422, _) => {
                let fields = answer.strip_suffix('}').expect("an object");
                format!("{fields},\"error\":{}}}", serde_json::json!(line))
            }
            Self::Http(400, _) if answer == "400 {}" => {
                format!("400 {}", serde_json::json!({ "error": line }))
            }
            // What they say themselves is not said twice.
            Self::Http(..) if answer.contains("RINGVERB_") || is_in_answer(answer) => {
                answer.to_owned()
            }
            Self::Http(..) => format!("{} {}", shortened(answer), sentence(line)),
            // What Reverb drops without an answer.
            Self::Error(..) if answer.is_empty() => {
                format!("4200 Invalid message format. {}", sentence(line))
            }
            Self::Error(..) if is_in_answer(answer) => answer.to_owned(),
            Self::Error(..) => format!("{}. {}", answer.trim_end_matches('.'), sentence(line)),
            // A close frame has no room for the line.
            Self::Close(1009, _) => {
                format!("{answer}. Message larger than 10000 bytes (REVERB_APP_MAX_MESSAGE_SIZE)")
            }
            Self::Close(..) => format!("{answer}. Is a proxy or a hand-made client in between?"),
        }
    }
}

fn is_in_answer(answer: &str) -> bool {
    ["400 The query has more", "401 Authentication timestamp", "413 The event for", "4302 "]
        .iter()
        .any(|start| answer.starts_with(start))
}

/// The answer to a body that is not JSON leaves this to the line.
fn shortened(answer: &str) -> &str {
    if answer.ends_with("not a JSON object.") { "400 Bad request." } else { answer }
}

/// A line as a sentence of its own.
fn sentence(line: &str) -> String {
    let (first, rest) = line.split_once(' ').expect("words");
    if !first.chars().all(|one| one.is_ascii_alphabetic()) {
        return line.to_owned();
    }
    format!("{}{} {rest}", first[..1].to_uppercase(), &first[1..])
}

impl Seen {
    /// A connection that speaks HTTP, or nothing yet.
    fn http(wire: &Wire, answer: Answer) -> Self {
        Self { answer, peer: wire.stream.local_addr().ok(), app: false, socket_id: None }
    }

    fn of_app(self) -> Self {
        Self { app: true, ..self }
    }

    /// An open WebSocket.
    fn socket(client: &Client, answer: Answer) -> Self {
        let socket_id = Some(client.socket_id.clone());
        Self { answer, peer: client.wire.stream.local_addr().ok(), app: true, socket_id }
    }

    fn fields(&self) -> String {
        let mut fields = String::new();
        if let Some(peer) = self.peer {
            fields += &format!(" peer={peer}");
        }
        if self.app {
            fields += &format!(" app={APP_ID}");
        }
        if let Some(socket_id) = &self.socket_id {
            fields += &format!(" socket={socket_id}");
        }
        fields
    }
}

/// Runs cases, in production and in development.
fn run(cases: &[Case]) {
    for case in cases {
        for development in [false, true] {
            run_in(case, development);
        }
    }
}

fn run_in(case: &Case, development: bool) {
    let mut setup = Setup::new().workers(1);
    for (name, value) in case.env {
        setup = match *name {
            "descriptors" => setup.descriptors(value.parse().expect("a number")),
            _ => setup.env(name, value),
        };
    }
    let mut server =
        setup.env("RINGVERB_DEVELOPMENT", if development { "true" } else { "false" }).start();
    let seen = (case.act)(&server);
    let name = case.cause.name();
    let line = server.line_with(&format!(" cause={name}"));
    let level = if case.cause.is_ordinary() { "INFO" } else { "WARN" };
    let (_, text) = line.split_once(' ').expect("a time");
    let expected = format!("{level:>5} {} cause={name}{}", case.line, seen.fields());
    assert_eq!(text, expected);
    assert!(!line.contains(crate::support::APP_SECRET), "{line}");
    let answer = if development {
        seen.answer.explained(case.answer, case.line)
    } else {
        case.answer.to_owned()
    };
    assert_eq!(seen.answer.shown(), answer, "{name}, in development: {development}");
    let counted = case.cause.counter().name();
    server.signal(rustix::process::Signal::TERM);
    let stdout = server.finish().stdout;
    let sum = stdout.lines().find(|line| line.contains("refused since the start: "));
    let sum = sum.unwrap_or_else(|| panic!("{name} is not counted: {stdout}"));
    assert!(sum.contains(&format!(" by {counted}")), "{sum}");
}

/// What no peer can provoke, and which test provokes it.
const ELSEWHERE: &[(Cause, &str)] = &[
    (
        Cause::HttpMemory,
        "the bytes of a request are more than 6 % of the memory: alone/connection_memory.rs",
    ),
    (Cause::MemoryPublish, "alone/memory.rs"),
    (Cause::Disconnected, "console.rs"),
    (Cause::Memory, "alone/memory.rs"),
    (Cause::Shed, "shard/tests/refusals.rs"),
    (Cause::InputMemory, "shard/tests/refusals.rs"),
    (Cause::MemorySubscription, "shard/tests/refusals.rs"),
    (Cause::Kernel, "tick/tests.rs"),
    (Cause::AppGone, "takeover/connections.rs, by a take-over"),
    (Cause::CoreSilent, "a core that hangs for 5 s"),
    (Cause::TakeOver, "simulator/unfinished.rs"),
    (Cause::TimestampFar, "requests.rs, by a test of its own"),
    (Cause::SlowConsumer, "connections.rs, by a test of its own"),
    (Cause::AcceptPaused, "connections.rs, by a test of its own"),
    (Cause::UserIdTooLong, "shard/tests/refusals.rs"),
    (Cause::AppRemoved, "change.rs"),
    (Cause::AppSwitchedOff, "change.rs"),
    (Cause::ConnectionTerminated, "change.rs"),
    (Cause::ReconnectForced, "change.rs"),
    (Cause::AccessWithdrawn, "change.rs"),
    (Cause::SubscriptionEnded, "console.rs"),
];

#[test]
fn each_cause_has_a_case() {
    let cases = requests::CASES.iter().chain(handshakes::CASES).chain(messages::CASES);
    let cases = cases.chain(messages::SUBSCRIPTIONS).chain(connections::CASES).chain(tls::CASES);
    let mut covered: Vec<Cause> = cases.map(|case| case.cause).collect();
    covered.extend(ELSEWHERE.iter().map(|(cause, _)| *cause));
    let once: BTreeSet<Cause> = covered.iter().copied().collect();
    let missing: Vec<_> = Cause::ALL.iter().filter(|cause| !once.contains(cause)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

/// But for 503, which needs a server without memory (alone/memory.rs).
#[test]
fn each_status_and_code_has_a_case() {
    let cases = requests::CASES.iter().chain(handshakes::CASES).chain(messages::CASES);
    let cases = cases.chain(messages::SUBSCRIPTIONS).chain(connections::CASES).chain(tls::CASES);
    let number = |text: &str| text.trim_start_matches("closed ").split(' ').next()?.parse().ok();
    let covered: BTreeSet<u16> = cases.filter_map(|case| number(case.answer)).collect();
    let mut expected: BTreeSet<u16> = HttpRefusal::ALL.map(HttpRefusal::status).into();
    expected.extend(Violation::ALL.map(Violation::close_code));
    expected.extend([401, 404, 405, 422, 426, 429]);
    expected.extend([4001, 4003, 4004, 4006, 4007, 4009, 4100, 4200, 4201, 4300, 4301, 4302]);
    let missing: Vec<_> = expected.difference(&covered).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn requests_that_are_refused() {
    run(requests::CASES);
}

#[test]
fn handshakes_that_are_refused() {
    run(handshakes::CASES);
}

#[test]
fn messages_that_are_refused() {
    run(messages::CASES);
}

#[test]
fn subscriptions_that_are_refused() {
    run(messages::SUBSCRIPTIONS);
}

#[test]
fn connections_that_are_closed() {
    run(connections::CASES);
}

#[test]
fn tls_that_is_refused() {
    run(tls::CASES);
}

/// A flood of one cause is a few lines and a sum, and other causes keep their lines.
#[test]
fn a_flood_of_one_cause_does_not_hide_the_others() {
    let mut server = Setup::new().workers(1).start();
    for _ in 0..200 {
        assert_eq!(
            http(&server, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n").answer.shown(),
            "404 Not found."
        );
    }
    refused_handshake(&server, &Handshake::to("/app/wrong"));
    server.line_with("no app has the key \"wrong\"");
    let lines = server.stdout().matches("cause=unknown_path").count();
    // 20 at once, and one for each second that this took.
    assert!((20..100).contains(&lines), "{lines}");
    server.signal(rustix::process::Signal::TERM);
    let stdout = server.finish().stdout;
    assert!(
        stdout.contains("1 by no_such_app, ") || stdout.contains("200 by not_found"),
        "{stdout}"
    );
}

#[test]
fn debug_shows_a_refusal_as_such() {
    let mut server = Setup::new().workers(1).arg("--debug").start();
    let mut client = server.connect();
    client.ask(crate::support::PING, crate::support::PONG);
    server.line_with("Message Handled");
    client.ask("nonsense", crate::support::INVALID);
    client.ask(crate::support::PING, crate::support::PONG);
    let line = server.line_with("message \"nonsense\" is not a JSON object");
    assert!(line.ends_with(&format!(" socket={}", client.socket_id)), "{line}");
    let handled = |server: &Server| server.stdout().matches("Message Handled").count();
    server.line_with("Message Handled");
    assert_eq!(handled(&server), 2, "of both pings, and not of the nonsense");
    // The log of a signature that does not match has the text that should have been signed.
    let forged = crate::support::Request::events("{}").signature(&"0".repeat(64));
    assert_eq!(server.answer(&forged).0, 401);
    let line = server.line_with("cause=api_signature_mismatch");
    assert!(line.contains(r"POST\n/apps/1001/events\nauth_key=app-key"), "{line}");
}

/// Behind a proxy that is named, the client is its client.
#[test]
fn a_line_names_the_client_that_a_trusted_proxy_names() {
    let mut server = Setup::new().env("RINGVERB_TRUSTED_PROXIES", "127.0.0.1").start();
    let request =
        b"GET /nothing HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7, 198.51.100.1\r\n\r\n";
    let seen = http(&server, request);
    let line = server.line_with("cause=unknown_path");
    let peer = seen.peer.expect("an address");
    assert!(line.ends_with(&format!(" client=198.51.100.1 peer={peer}")), "{line}");
}
