//! Every counter and gauge that a client or a backend can count is recounted after churn: connections that come and go,
//! subscribe and leave, client events, publishes, refusals of each kind, webhooks.
//!
//! Each thread holds `HELD` connections at a time and opens the next one at once. It counts messages and bytes itself.
//! The test runs for `RINGVERB_CHURN_SECONDS`, 12 s by default. `/metrics` is read during the churn too: no counter may
//! fall, and what is read must not change what is counted.

use std::collections::{BTreeSet, VecDeque};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Samples, scrape, setup, sum};
use crate::admin::AdminClient;
use crate::support::{
    APP_ID, Client, Endpoint, Frame, Handshake, Http, Reply, Request, Wire, eventually, frame, now,
};

const THREADS: usize = 6;
/// Connections that a thread has open at a time.
const HELD: usize = 40;
/// Channels of each kind.
const NAMES: usize = 16;
const KINDS: [&str; 3] = ["public", "private", "presence"];
const SECONDS: u64 = 12;
/// The churn goes on until so many connections were opened: a slow machine needs longer.
const CONNECTIONS_MIN: u64 = 3_000;
/// Between two scrapes during the churn.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(200);

/// A channel: its kind and its number.
type Place = (usize, usize);

fn channel((kind, number): Place) -> String {
    let prefix = ["news", "private-orders", "presence-room"][kind];
    format!("{prefix}-{number}")
}

/// What one client or several have seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    opened: u64,
    closed_by_client: u64,
    lost: u64,
    terminated: u64,
    sent_messages: u64,
    received_messages: u64,
    sent_bytes: u64,
    received_bytes: u64,
    client_events: u64,
    /// By kind.
    subscribed: [u64; 3],
    left: [u64; 3],
    published: u64,
    calls: u64,
    call_bytes: u64,
    answer_bytes: u64,
    /// Refusals by reason.
    unauthorized: u64,
    malformed: u64,
    other: u64,
    unauthenticated: u64,
    invalid_requests: u64,
    no_such_app: u64,
    /// Bytes that refused handshakes were sent.
    refused_bytes: u64,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.opened, other.opened),
            (&mut self.closed_by_client, other.closed_by_client),
            (&mut self.lost, other.lost),
            (&mut self.terminated, other.terminated),
            (&mut self.sent_messages, other.sent_messages),
            (&mut self.received_messages, other.received_messages),
            (&mut self.sent_bytes, other.sent_bytes),
            (&mut self.received_bytes, other.received_bytes),
            (&mut self.client_events, other.client_events),
            (&mut self.published, other.published),
            (&mut self.calls, other.calls),
            (&mut self.call_bytes, other.call_bytes),
            (&mut self.answer_bytes, other.answer_bytes),
            (&mut self.unauthorized, other.unauthorized),
            (&mut self.malformed, other.malformed),
            (&mut self.other, other.other),
            (&mut self.unauthenticated, other.unauthenticated),
            (&mut self.invalid_requests, other.invalid_requests),
            (&mut self.no_such_app, other.no_such_app),
            (&mut self.refused_bytes, other.refused_bytes),
        ];
        pairs.into_iter().for_each(|(sum, part)| *sum += part);
        for kind in 0..3 {
            self.subscribed[kind] += other.subscribed[kind];
            self.left[kind] += other.left[kind];
        }
    }
}

/// A connection that counts.
struct Counting {
    client: Client,
    user: usize,
    handshake_bytes: u64,
    places: Vec<Place>,
}

impl Counting {
    fn open(server: SocketAddr, user: usize, seen: &mut Seen) -> Self {
        let handshake = Handshake::new();
        let client = Client::open_on(wire(server), &handshake).established();
        seen.opened += 1;
        seen.received_messages += 1;
        let handshake_bytes = handshake.bytes().len() as u64;
        Self { client, user, handshake_bytes, places: Vec::new() }
    }

    /// Reads messages until one has this name.
    fn read_until(&mut self, event: &str, seen: &mut Seen) {
        loop {
            let got = self.client.event();
            seen.received_messages += 1;
            if got["event"] == event {
                return;
            }
        }
    }

    fn send(&mut self, text: &str, seen: &mut Seen) {
        self.client.send(text);
        seen.sent_messages += 1;
    }

    fn subscribe(&mut self, place: Place, seen: &mut Seen) {
        let data = json!({ "user_id": self.user.to_string() }).to_string();
        let data = (place.0 == 2).then_some(&*data);
        let text = self.client.subscribe_message(&channel(place), data);
        self.send(&text, seen);
        self.read_until("pusher_internal:subscription_succeeded", seen);
        seen.subscribed[place.0] += 1;
        self.places.push(place);
    }

    /// A client event to the others of a private channel.
    fn whisper(&mut self, seen: &mut Seen) {
        let Some(place) = self.places.iter().find(|(kind, _)| *kind == 1).copied() else { return };
        let event = json!({ "event": "client-a", "channel": channel(place), "data": { "a": 1 } });
        self.send(&event.to_string(), seen);
        seen.client_events += 1;
    }

    /// Three messages that the server refuses. Each is answered with an error, and the connection stays.
    fn be_refused(&mut self, number: usize, seen: &mut Seen) {
        let text = match number % 3 {
            0 => {
                seen.unauthorized += 1;
                let data = json!({ "channel": "private-other", "auth": "app-key:0000" });
                json!({ "event": "pusher:subscribe", "data": data }).to_string()
            }
            1 => {
                seen.malformed += 1;
                "{\"event\":7}".to_owned()
            }
            _ => {
                // The app does not take client events on public channels.
                seen.other += 1;
                json!({ "event": "client-a", "channel": channel((0, 0)), "data": {} }).to_string()
            }
        };
        self.send(&text, seen);
        loop {
            let got = self.client.event();
            seen.received_messages += 1;
            let event = got["event"].as_str().unwrap_or_default();
            if event == "pusher:error" || event == "pusher:subscription_error" {
                return;
            }
        }
    }

    /// Reads all that the server has sent until now.
    fn sync(&mut self, seen: &mut Seen) {
        self.client.send_bytes(&frame::raw(frame::FIN | frame::PING, b""));
        loop {
            let Frame { opcode, .. } = self.client.frame();
            match opcode {
                frame::TEXT => seen.received_messages += 1,
                opcode => {
                    assert_eq!(opcode, frame::PONG);
                    return;
                }
            }
        }
    }

    fn leave(&mut self, count: usize, seen: &mut Seen) {
        for place in self.places.split_off(self.places.len().saturating_sub(count)) {
            self.client.unsubscribe(&channel(place));
            seen.sent_messages += 1;
            seen.left[place.0] += 1;
        }
        self.sync(seen);
    }

    /// Notes bytes at the end of the connection, or of the test.
    fn note(&self, seen: &mut Seen) {
        seen.sent_bytes += self.client.wire.sent_bytes - self.handshake_bytes;
        seen.received_bytes += self.client.wire.received_bytes;
    }

    fn note_left(&self, seen: &mut Seen) {
        self.places.iter().for_each(|(kind, _)| seen.left[*kind] += 1);
    }

    /// Closes in order: what was sent before the answer to the close frame arrives.
    fn close(mut self, seen: &mut Seen) {
        self.client.send_bytes(&frame::close(1000, ""));
        while self.client.frame().opcode == frame::TEXT {
            seen.received_messages += 1;
        }
        self.client.wire.ended();
        seen.closed_by_client += 1;
        self.note(seen);
        self.note_left(seen);
    }

    /// Ends without a close frame. It is in no channel, so that nothing is under way.
    fn cut(mut self, seen: &mut Seen) {
        self.leave(usize::MAX, seen);
        self.client.wire.stream.shutdown(Shutdown::Write).expect("a connection");
        self.client.wire.ended();
        seen.lost += 1;
        self.note(seen);
    }

    /// The backend ends the connections of its user.
    fn terminate(mut self, http: &mut Backend, seen: &mut Seen) {
        let path = format!("/users/{}/terminate_connections", self.user);
        assert_eq!(http.ask(&Request::post(&path, ""), seen).status, 200);
        self.read_until("pusher:error", seen);
        assert_eq!(self.client.frame().opcode, frame::CLOSE);
        self.client.wire.ended();
        seen.terminated += 1;
        self.note(seen);
        self.note_left(seen);
    }

    fn end(self, how: usize, http: &mut Backend, seen: &mut Seen) {
        let is_user = self.places.iter().any(|(kind, _)| *kind == 2);
        match how % 3 {
            0 => self.cut(seen),
            1 if is_user => self.terminate(http, seen),
            _ => self.close(seen),
        }
    }
}

/// A backend that counts.
struct Backend(Http);

impl Backend {
    fn ask(&mut self, request: &Request, seen: &mut Seen) -> Reply {
        let wire = &mut self.0.wire;
        let (sent, received) = (wire.sent_bytes, wire.received_bytes);
        let reply = self.0.ask(request);
        seen.calls += 1;
        seen.call_bytes += self.0.wire.sent_bytes - sent;
        seen.answer_bytes += self.0.wire.received_bytes - received;
        reply
    }

    fn publish(&mut self, places: &[Place], seen: &mut Seen) {
        let channels: Vec<String> = places.iter().map(|place| channel(*place)).collect();
        let body = json!({ "name": "e", "channels": channels, "data": "{}" }).to_string();
        assert_eq!(self.ask(&Request::events(&body), seen).status, 200);
        seen.published += places.len() as u64;
    }

    fn publish_batch(&mut self, places: &[Place], seen: &mut Seen) {
        let event = |place: &Place| json!({ "name": "e", "channel": channel(*place), "data": "1" });
        let batch: Vec<_> = places.iter().map(event).collect();
        let body = json!({ "batch": batch }).to_string();
        assert_eq!(self.ask(&Request::post("/batch_events", &body), seen).status, 200);
        seen.published += places.len() as u64;
    }

    /// A request with a wrong signature, or one without an event's name.
    fn be_refused(&mut self, number: usize, seen: &mut Seen) {
        if number.is_multiple_of(2) {
            seen.unauthenticated += 1;
            let wrong = Request::get("/channels").secret("another secret");
            assert_eq!(self.ask(&wrong, seen).status, 401);
        } else {
            seen.invalid_requests += 1;
            let nameless = Request::events("{\"channel\":\"news-1\",\"data\":\"1\"}");
            assert_eq!(self.ask(&nameless, seen).status, 422);
        }
    }
}

fn wire(server: SocketAddr) -> Wire {
    Wire::new(TcpStream::connect(server).expect("the server accepts"))
}

/// A handshake for an app that is not there: its connection is not counted as one.
fn knock(server: SocketAddr, seen: &mut Seen) {
    let handshake = Handshake::to("/app/another-key?protocol=7");
    let mut client = Client::open_on(wire(server), &handshake);
    assert_eq!(client.event()["event"], "pusher:error");
    assert_eq!(client.frame().opcode, frame::CLOSE);
    client.wire.ended();
    seen.no_such_app += 1;
    seen.refused_bytes += client.wire.received_bytes;
}

/// One thread of the churn. Connections that stay open are returned.
fn churn(
    server: SocketAddr,
    thread: usize,
    until: Instant,
    opened: &AtomicU64,
) -> (Seen, VecDeque<Counting>) {
    let mut seen = Seen::default();
    let mut http = Backend(Http { wire: wire(server) });
    let mut held = VecDeque::new();
    for round in 0.. {
        if now() >= until && opened.load(Ordering::Relaxed) >= CONNECTIONS_MIN {
            break;
        }
        opened.fetch_add(1, Ordering::Relaxed);
        // A user of its own, so that terminating one ends one.
        let mut one = Counting::open(server, thread * 10_000_000 + round, &mut seen);
        let number = |step: usize| (round * step + thread) % NAMES;
        for (kind, step) in [(0, 1), (1, 3), (2, 5)] {
            if !(round + kind + thread).is_multiple_of(4) {
                one.subscribe((kind, number(step)), &mut seen);
            }
        }
        one.whisper(&mut seen);
        match round % 5 {
            0 => http.publish(&[(0, number(1)), (1, number(7)), (2, number(11))], &mut seen),
            1 => http.publish_batch(&[(1, number(3)), (2, number(5))], &mut seen),
            2 => one.be_refused(round / 5, &mut seen),
            3 => http.be_refused(round / 5, &mut seen),
            _ => knock(server, &mut seen),
        }
        if round.is_multiple_of(7) {
            one.leave(1, &mut seen);
        }
        held.push_back(one);
        if held.len() > HELD {
            let oldest = held.pop_front().expect("it is full");
            oldest.end(round, &mut http, &mut seen);
        }
    }
    (seen, held)
}

fn expected(seen: &Seen, open: &[Counting]) -> Vec<(String, u64)> {
    let app = |name: &str| format!("ringverb_{name}{{app_id=\"{APP_ID}\"}}");
    let ended = |by: &str, reason: &str| {
        format!("ringverb_disconnections_by_cause_total{{by=\"{by}\",reason=\"{reason}\"}}")
    };
    let checks =
        |limit: &str| format!("ringverb_rate_limit_checks_total{{limiter_type=\"{limit}\"}}");
    let typed = |name: &str, kind: usize| {
        let kind = KINDS[kind];
        format!("ringverb_{name}{{app_id=\"{APP_ID}\",channel_type=\"{kind}\"}}")
    };
    let refused = |reason: &str| format!("ringverb_refusals_total{{reason=\"{reason}\"}}");
    let now_open = open.len() as u64;
    let mut expected = vec![
        (app("connected"), now_open),
        (app("new_connections_total"), seen.opened),
        (app("new_disconnections_total"), seen.opened - now_open),
        (ended("client", "closed"), seen.closed_by_client),
        (ended("network", "lost"), seen.lost),
        (ended("server", "terminated"), seen.terminated),
        (app("ws_messages_received_total"), seen.sent_messages),
        (app("ws_messages_sent_total"), seen.received_messages),
        (app("socket_received_bytes"), seen.sent_bytes),
        (app("socket_transmitted_bytes"), seen.received_bytes),
        (app("socket_discarded_bytes_total"), 0),
        // Each is sent one message, of no app.
        ("ringverb_ws_messages_sent_total{app_id=\"\"}".into(), seen.no_such_app),
        ("ringverb_socket_transmitted_bytes{app_id=\"\"}".into(), seen.refused_bytes),
        (app("client_events_total"), seen.client_events),
        (app("published_events_total"), seen.published),
        (app("http_calls_received_total"), seen.calls),
        (app("http_received_bytes"), seen.call_bytes),
        (app("http_transmitted_bytes"), seen.answer_bytes),
        (refused("terminated"), seen.terminated),
        (refused("unauthorized"), seen.unauthorized),
        (refused("malformed"), seen.malformed),
        (refused("other"), seen.other),
        (refused("unauthenticated"), seen.unauthenticated),
        (refused("invalid_request"), seen.invalid_requests),
        (refused("no_such_app"), seen.no_such_app),
        ("ringverb_connection_errors_total{error_type=\"no_such_app\"}".into(), seen.no_such_app),
        (checks("message_rate"), seen.sent_messages),
        // This limit is not set.
        (checks("publish_rate"), 0),
        ("ringverb_webhook_events_delivered_total".into(), seen.client_events),
        ("ringverb_webhook_requests_failed_total".into(), 0),
        ("ringverb_webhook_queue_events".into(), 0),
    ];
    for kind in 0..3 {
        let now = seen.subscribed[kind] - seen.left[kind];
        let places = open.iter().flat_map(|one| &one.places).filter(|(of, _)| *of == kind);
        let channels: BTreeSet<&Place> = places.collect();
        expected.push((typed("channel_subscriptions_total", kind), seen.subscribed[kind]));
        expected.push((typed("channel_unsubscriptions_total", kind), seen.left[kind]));
        expected.push((typed("subscriptions", kind), now));
        expected.push((typed("active_channels", kind), channels.len() as u64));
    }
    expected
}

/// All refusals and ends together: none was counted by a reason that is not expected.
fn totals(seen: &Seen) -> [(&'static str, u64); 3] {
    let Seen { terminated, unauthorized, malformed, other, .. } = seen;
    let of_messages = terminated + unauthorized + malformed + other;
    let of_requests = seen.unauthenticated + seen.invalid_requests + seen.no_such_app;
    [
        ("ringverb_refusals_total", of_messages + of_requests),
        (
            "ringverb_disconnections_by_cause_total",
            seen.closed_by_client + seen.lost + seen.terminated,
        ),
        ("ringverb_rate_limit_triggered_total", 0),
    ]
}

fn check_cores(samples: &Samples) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |what: &str, is_right: bool| {
        if !is_right {
            wrong.push(what.to_owned());
        }
    };
    let sum = |name: &str| sum(samples, name);
    check("all mail has arrived", {
        sum("ringverb_mail_sent_total") == sum("ringverb_mail_received_total")
    });
    check("cores send mail", sum("ringverb_mail_sent_total") > 0.0);
    check("no mail waits", sum("ringverb_mailbox_waiting") == 0.0);
    check("no mail was discarded", sum("ringverb_mail_discarded_total") == 0.0);
    check("nothing waits to be sent", sum("ringverb_send_queue_bytes") == 0.0);
    check("no request is open", sum("ringverb_http_connections") == 0.0);
    check("each app's row counts all of its requests", {
        sum("ringverb_http_calls_received_total")
            == samples
                .get(&format!("ringverb_http_calls_received_total{{app_id=\"{APP_ID}\"}}"))
                .copied()
                .unwrap_or_default()
    });
    let (sends, messages) =
        (sum("ringverb_socket_sends_total"), sum("ringverb_ws_messages_sent_total"));
    check("a send has one message or more, or a control frame", sends > 0.0 && messages > 0.0);
    check("events were observed", sum("ringverb_publish_to_flush_seconds_count") > 0.0);
    check("ticks were observed", sum("ringverb_tick_seconds_count") > 0.0);
    check("the cores were busy", sum("ringverb_tick_seconds_sum") > 0.0);
    check("it is ready", sum("ringverb_ready") == 1.0);
    check("memory is measured", sum("ringverb_memory_resident_bytes") > 1e6);
    wrong
}

/// Reads the metrics until the churn is over: a counter never falls, and no gauge is over what clients can have.
fn watch(admin: &AdminClient, over: &Receiver<()>) -> u64 {
    let (mut before, mut scrapes) = (Samples::new(), 0);
    while let Err(RecvTimeoutError::Timeout) = over.recv_timeout(SCRAPE_INTERVAL) {
        let samples = scrape(admin);
        let is_counter = |name: &&String| {
            let name = name.split('{').next().unwrap_or_default();
            ["_total", "_count", "_bucket"].iter().any(|end| name.ends_with(end))
        };
        for (name, value) in samples.iter().filter(|(name, _)| is_counter(name)) {
            let last = before.get(name).copied().unwrap_or_default();
            assert!(*value >= last, "{name} fell from {last} to {value}");
        }
        let open = sum(&samples, "ringverb_connected");
        assert!(open <= (THREADS * (HELD + 2)) as f64, "{open} connections");
        (before, scrapes) = (samples, scrapes + 1);
    }
    scrapes
}

#[test]
#[expect(clippy::disallowed_methods, reason = "an option of this test, not of the server")]
fn a_recount_after_churn_agrees_with_every_value() {
    let seconds = std::env::var("RINGVERB_CHURN_SECONDS").ok();
    let seconds = seconds.map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    let endpoint = Endpoint::start(true);
    let limited = setup().env("REVERB_APP_RATE_LIMITING_ENABLED", "true");
    let limited = limited.env("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "100000");
    let limited = limited.env("RINGVERB_WEBHOOK_URL", &endpoint.url);
    let mut server = limited.env("RINGVERB_WEBHOOK_EVENTS", "client_event").workers(3).start();
    let admin = AdminClient::of(&mut server);
    let mut seen = Seen::default();
    let mut open = Vec::new();
    let opened = AtomicU64::new(0);
    let (is_over, over) = mpsc::channel();
    let scrapes = std::thread::scope(|scope| {
        let (admin, opened) = (&admin, &opened);
        let watcher = scope.spawn(move || watch(admin, &over));
        let (server, until) = (server.address, now() + Duration::from_secs(seconds));
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || churn(server, thread, until, opened)))
            .collect();
        for thread in threads {
            let (part, held) = thread.join().expect("a client");
            seen.add(&part);
            open.extend(held);
        }
        drop(is_over);
        watcher.join().expect("the metrics")
    });
    // Churn is over: what is left to arrive has been sent.
    for one in &mut open {
        one.sync(&mut seen);
        one.note(&mut seen);
    }
    let expected = expected(&seen, &open);
    let mut wrong = Vec::new();
    // What is wrong and does not change any longer stays wrong.
    let mut looks = 0;
    eventually("every value agrees or stays wrong", || {
        let samples = scrape(&admin);
        let differs = |(name, value): &&(String, u64)| samples.get(name) != Some(&(*value as f64));
        let different = expected.iter().filter(differs).map(|(name, value)| {
            format!("{name}: {value} were counted, {:?} are exported", samples.get(name))
        });
        let mut found: Vec<String> = different.collect();
        found.extend(totals(&seen).into_iter().filter_map(|(name, value)| {
            let exported = sum(&samples, name);
            (exported != value as f64)
                .then(|| format!("all {name}: {value} were counted, {exported} are exported"))
        }));
        found.extend(check_cores(&samples));
        looks = if found == wrong { looks + 1 } else { 0 };
        wrong = found;
        (wrong.is_empty() || looks == 500).then_some(())
    });
    assert!(wrong.is_empty(), "{}\n{seen:?}", wrong.join("\n"));
    let posted = endpoint.events.try_iter().count() as u64;
    assert_eq!(posted, seen.client_events, "the endpoint has each client event once");
    eprintln!("{seconds} s, {scrapes} scrapes, {} values: {seen:?}", expected.len());
    assert!(seen.opened >= CONNECTIONS_MIN && scrapes > 1, "{seen:?}, {scrapes} scrapes");
    let refused = server.ask(&Request::to("GET", "/apps/nobody/channels"));
    assert_eq!(refused.status, 404);
    let samples = scrape(&admin);
    assert_eq!(samples["ringverb_http_calls_received_total{app_id=\"\"}"], 1.0);
}
