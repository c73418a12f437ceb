//! `/metrics`: what clients and backends have counted themselves is what the server exports, and both formats are what
//! Prometheus reads.

mod prometheus;

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::json;

use crate::admin::AdminClient;
use crate::support::{
    APP_ID, Client, Frame, Handshake, Http, PING, PONG, Redis, Reply, Request, Setup, Wire,
    eventually, frame, pass,
};

/// Samples by name and labels, as they are written.
pub(crate) type Samples = BTreeMap<String, f64>;

pub(crate) fn setup() -> Setup {
    Setup::new().env("RINGVERB_ADMIN", "127.0.0.1:0")
}

fn samples(text: &str) -> Samples {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    });
    samples.collect()
}

pub(crate) fn scrape(admin: &AdminClient) -> Samples {
    let reply = admin.get("/metrics");
    assert_eq!(reply.status, 200, "{}", reply.body);
    samples(&reply.body)
}

/// The sum over all labels.
pub(crate) fn sum(samples: &Samples, name: &str) -> f64 {
    let is_it = |key: &&String| key.split('{').next() == Some(name);
    samples.iter().filter(|(key, _)| is_it(key)).map(|(_, value)| value).sum()
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
    /// public, private, presence
    subscribed: [u64; 3],
    left: [u64; 3],
    published: u64,
    calls: u64,
    call_bytes: u64,
    answer_bytes: u64,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.closed_by_client += other.closed_by_client;
        self.lost += other.lost;
        self.terminated += other.terminated;
        self.sent_messages += other.sent_messages;
        self.received_messages += other.received_messages;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.client_events += other.client_events;
        for kind in 0..3 {
            self.subscribed[kind] += other.subscribed[kind];
            self.left[kind] += other.left[kind];
        }
        self.published += other.published;
        self.calls += other.calls;
        self.call_bytes += other.call_bytes;
        self.answer_bytes += other.answer_bytes;
    }
}

/// A connection that counts.
struct Counting {
    client: Client,
    handshake_bytes: u64,
    channels: Vec<usize>,
}

const CHANNELS: [&str; 3] = ["news", "private-orders", "presence-room"];

impl Counting {
    fn open(server: SocketAddr, seen: &mut Seen) -> Self {
        let handshake = Handshake::new();
        let client = Client::open_on(wire(server), &handshake).established();
        seen.opened += 1;
        seen.received_messages += 1;
        Self { client, handshake_bytes: handshake.bytes().len() as u64, channels: Vec::new() }
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

    fn subscribe(&mut self, kind: usize, user: usize, seen: &mut Seen) {
        let data = json!({ "user_id": user.to_string() }).to_string();
        self.client.send_subscribe(CHANNELS[kind], (kind == 2).then_some(&data));
        seen.sent_messages += 1;
        self.read_until("pusher_internal:subscription_succeeded", seen);
        seen.subscribed[kind] += 1;
        self.channels.push(kind);
    }

    fn whisper(&mut self, seen: &mut Seen) {
        if self.channels.contains(&1) {
            self.client.send(r#"{"event":"client-a","channel":"private-orders","data":{"a":1}}"#);
            seen.sent_messages += 1;
            seen.client_events += 1;
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

    fn leave_all(&mut self, seen: &mut Seen) {
        for kind in std::mem::take(&mut self.channels) {
            self.client.unsubscribe(CHANNELS[kind]);
            seen.sent_messages += 1;
            seen.left[kind] += 1;
        }
        self.sync(seen);
    }

    /// Notes bytes and subscriptions at the end of the connection, or of the test.
    fn note(&self, seen: &mut Seen) {
        seen.sent_bytes += self.client.wire.sent_bytes - self.handshake_bytes;
        seen.received_bytes += self.client.wire.received_bytes;
    }

    fn note_left(&self, seen: &mut Seen) {
        self.channels.iter().for_each(|kind| seen.left[*kind] += 1);
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
        self.leave_all(seen);
        self.client.wire.stream.shutdown(Shutdown::Write).expect("a connection");
        self.client.wire.ended();
        seen.lost += 1;
        self.note(seen);
    }

    /// The backend ends the connections of its user.
    fn terminate(mut self, http: &mut Backend, user: usize, seen: &mut Seen) {
        let path = format!("/users/{user}/terminate_connections");
        assert_eq!(http.ask(&Request::post(&path, ""), seen).status, 200);
        self.read_until("pusher:error", seen);
        assert_eq!(self.client.frame().opcode, frame::CLOSE);
        self.client.wire.ended();
        seen.terminated += 1;
        self.note(seen);
        self.note_left(seen);
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

    fn publish(&mut self, channels: &[&str], seen: &mut Seen) {
        let body = json!({ "name": "e", "channels": channels, "data": "{}" }).to_string();
        assert_eq!(self.ask(&Request::events(&body), seen).status, 200);
        seen.published += channels.len() as u64;
    }
}

fn wire(server: SocketAddr) -> Wire {
    Wire::new(TcpStream::connect(server).expect("the server accepts"))
}

/// One thread of the churn. Connections that stay open are returned.
fn churn(server: SocketAddr, thread: usize, rounds: usize) -> (Seen, Vec<Counting>) {
    let mut seen = Seen::default();
    let mut http = Backend(Http { wire: wire(server) });
    let mut stays = Vec::new();
    for round in 0..rounds {
        // A user of its own, so that terminating one ends one.
        let user = thread * 1_000 + round;
        let mut one = Counting::open(server, &mut seen);
        (0..3).filter(|kind| !(round + kind + thread).is_multiple_of(4)).for_each(|kind| {
            one.subscribe(kind, user, &mut seen);
        });
        one.whisper(&mut seen);
        http.publish(&CHANNELS[..=round % 3], &mut seen);
        one.sync(&mut seen);
        let is_user = one.channels.contains(&2);
        match round % 4 {
            0 => one.close(&mut seen),
            1 => one.cut(&mut seen),
            2 if is_user => one.terminate(&mut http, user, &mut seen),
            _ if stays.len() < 5 => stays.push(one),
            _ => one.close(&mut seen),
        }
    }
    (seen, stays)
}

fn expected(seen: &Seen, open: u64) -> Vec<(String, u64)> {
    let app = |name: &str| format!("ringverb_{name}{{app_id=\"{APP_ID}\"}}");
    let ended = |by: &str, reason: &str| {
        format!("ringverb_disconnections_by_cause_total{{by=\"{by}\",reason=\"{reason}\"}}")
    };
    let checks =
        |limit: &str| format!("ringverb_rate_limit_checks_total{{limiter_type=\"{limit}\"}}");
    let typed = |name: &str, kind: usize| {
        let kind = ["public", "private", "presence"][kind];
        format!("ringverb_{name}{{app_id=\"{APP_ID}\",channel_type=\"{kind}\"}}")
    };
    let mut expected = vec![
        (app("connected"), open),
        (app("new_connections_total"), seen.opened),
        (app("new_disconnections_total"), seen.opened - open),
        (ended("client", "closed"), seen.closed_by_client),
        (ended("network", "lost"), seen.lost),
        (ended("server", "terminated"), seen.terminated),
        (app("ws_messages_received_total"), seen.sent_messages),
        (app("ws_messages_sent_total"), seen.received_messages),
        (app("socket_received_bytes"), seen.sent_bytes),
        (app("socket_transmitted_bytes"), seen.received_bytes),
        (app("client_events_total"), seen.client_events),
        (app("published_events_total"), seen.published),
        (app("http_calls_received_total"), seen.calls),
        (app("http_received_bytes"), seen.call_bytes),
        (app("http_transmitted_bytes"), seen.answer_bytes),
        ("ringverb_refusals_total{reason=\"terminated\"}".to_owned(), seen.terminated),
        (checks("message_rate"), seen.sent_messages),
        // This limit is not set.
        (checks("publish_rate"), 0),
    ];
    for kind in 0..3 {
        let now = seen.subscribed[kind] - seen.left[kind];
        expected.push((typed("channel_subscriptions_total", kind), seen.subscribed[kind]));
        expected.push((typed("channel_unsubscriptions_total", kind), seen.left[kind]));
        expected.push((typed("subscriptions", kind), now));
        expected.push((typed("active_channels", kind), u64::from(now > 0)));
    }
    expected
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
    check("nothing waits to be sent", sum("ringverb_send_queue_bytes") == 0.0);
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

#[test]
fn a_recount_after_churn_agrees_with_every_value() {
    const THREADS: usize = 4;
    let limited = setup().env("REVERB_APP_RATE_LIMITING_ENABLED", "true");
    let mut server = limited.env("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", "100000").workers(3).start();
    let admin = AdminClient::of(&mut server);
    let mut seen = Seen::default();
    let mut open = Vec::new();
    std::thread::scope(|scope| {
        let server = server.address;
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || churn(server, thread, 60))).collect();
        for thread in threads {
            let (part, stays) = thread.join().expect("a client");
            seen.add(&part);
            open.extend(stays);
        }
    });
    let refused = server.ask(&Request::to("GET", "/apps/nobody/channels"));
    assert_eq!(refused.status, 404);
    // Churn is over: what is left to arrive has been sent.
    for one in &mut open {
        one.sync(&mut seen);
        one.note(&mut seen);
    }
    let expected = expected(&seen, open.len() as u64);
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
        found.extend(check_cores(&samples));
        looks = if found == wrong { looks + 1 } else { 0 };
        wrong = found;
        (wrong.is_empty() || looks == 500).then_some(())
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let samples = scrape(&admin);
    assert_eq!(samples["ringverb_http_calls_received_total{app_id=\"\"}"], 1.0);
    assert_eq!(samples["ringverb_refusals_total{reason=\"unauthenticated\"}"], 1.0);
}

/// A slow consumer shows in the queue, and in the cause of its end.
#[test]
fn waiting_bytes_are_exported_with_their_peak_and_the_close_with_its_reason() {
    let mut server = setup().env("RINGVERB_SEND_QUEUE_BYTES_MAX", "64K").workers(1).start();
    let admin = AdminClient::of(&mut server);
    let mut slow = crate::support::small_window(&server);
    slow.subscribe("news");
    let data = "x".repeat(9_000);
    eventually("it is closed", || {
        server.publish("news", "e", &data);
        let samples = scrape(&admin);
        let closed =
            "ringverb_disconnections_by_cause_total{by=\"server\",reason=\"slow_consumer\"}";
        (samples[closed] == 1.0).then_some(())
    });
    let samples = scrape(&admin);
    assert!(samples["ringverb_send_queue_peak_bytes{core=\"0\"}"] > 9_000.0, "{samples:?}");
    drop(slow);
    eventually("the queue is gone", || {
        (scrape(&admin)["ringverb_send_queue_bytes{core=\"0\"}"] == 0.0).then_some(())
    });
}

#[test]
fn the_time_from_a_ping_to_its_pong_is_observed() {
    let mut server = setup().env("REVERB_APP_PING_INTERVAL", "1").workers(1).start();
    let admin = AdminClient::of(&mut server);
    let mut client = server.connect();
    assert_eq!(client.event()["event"], "pusher:ping");
    pass(std::time::Duration::from_millis(300));
    client.send(PONG);
    let samples = eventually("the pong has arrived", || {
        let samples = scrape(&admin);
        (samples["ringverb_client_round_trip_seconds_count"] == 1.0).then_some(samples)
    });
    let time = samples["ringverb_client_round_trip_seconds_sum"];
    assert!((0.25..60.0).contains(&time), "{time}");
    // A message before the pong ends the wait without an observation.
    assert_eq!(client.event()["event"], "pusher:ping");
    client.ask(PING, PONG);
    client.send(PONG);
    client.sync();
    assert_eq!(scrape(&admin)["ringverb_client_round_trip_seconds_count"], 1.0);
}

#[test]
fn a_take_over_exports_its_duration_and_begins_counters_again() {
    let port = crate::support::free_port().to_string();
    let start = |setup: Setup| {
        setup.args(&["--host", "127.0.0.1", "--port", &port]).workers(2).start_as_configured()
    };
    let mut old = start(setup());
    let admin = AdminClient::of(&mut old);
    let mut clients: Vec<Client> = (0..4).map(|_| old.connect()).collect();
    clients.iter_mut().for_each(|client| client.subscribe("private-a"));
    assert!(!scrape(&admin).contains_key("ringverb_takeover_duration_seconds"));
    let new = start(setup().arg("--takeover"));
    assert_eq!(old.finish().code, Some(0));
    let app = |name: &str| format!("ringverb_{name}{{app_id=\"{APP_ID}\"}}");
    let typed =
        |name: &str| format!("ringverb_{name}{{app_id=\"{APP_ID}\",channel_type=\"private\"}}");
    let samples = scrape(&admin);
    assert!(samples["ringverb_takeover_duration_seconds"] > 0.0);
    assert_eq!(samples[&app("connected")], 4.0);
    assert_eq!(samples[&app("new_connections_total")], 0.0, "nobody connected to this process");
    assert_eq!((samples[&typed("subscriptions")], samples[&typed("active_channels")]), (4.0, 1.0));
    assert_eq!(samples[&typed("channel_subscriptions_total")], 0.0);
    clients.into_iter().for_each(Client::close);
    eventually("the gauges are zero again", || {
        let samples = scrape(&admin);
        let gauges = [app("connected"), typed("subscriptions"), typed("active_channels")];
        gauges.iter().all(|name| samples[name] == 0.0).then_some(())
    });
    new.stop();
}

/// The names are soketi's, and so is the meaning: a question of the HTTP API goes to the other nodes.
#[test]
fn questions_between_nodes_are_counted_by_the_names_of_soketi() {
    let redis = Redis::start();
    let mut servers = [0, 1].map(|_| setup().meeting_in(&redis).workers(1).start());
    let admins = servers.each_mut().map(AdminClient::of);
    let mut client = servers[1].connect();
    client.subscribe("news");
    let of = |node: usize, name: &str| {
        sum(&scrape(&admins[node]), &format!("ringverb_horizontal_adapter_{name}"))
    };
    // The first node knows of the other one when its answer has the channel.
    let mut asked = 0.0;
    eventually("both nodes answer", || {
        asked += 1.0;
        let (status, body) = servers[0].answer(&Request::get("/channels"));
        assert_eq!(status, 200);
        body.contains("news").then_some(())
    });
    // Nothing was sent before the node had its session with Redis.
    let sent = of(0, "sent_requests");
    assert!(sent >= 1.0 && sent <= asked, "{sent} of {asked}");
    assert_eq!(of(0, "resolved_promises") + of(0, "uncomplete_promises"), sent);
    assert_eq!(of(0, "resolve_time_count"), sent);
    assert!(of(0, "received_responses") >= 1.0 && of(0, "received_requests") == 0.0);
    assert!(of(1, "received_requests") >= 1.0 && of(1, "sent_requests") == 0.0);
    drop(client);
}

fn samples_names(text: &str) -> Vec<String> {
    samples(text).into_keys().collect()
}
