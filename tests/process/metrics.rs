//! `/metrics`: what clients and backends have counted themselves is what the server exports, and both formats are what
//! Prometheus reads.

mod apps;
mod prometheus;
mod recount;

use std::collections::BTreeMap;

use crate::admin::AdminClient;
use crate::support::{APP_ID, Client, PING, PONG, Redis, Request, Setup, eventually};

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
    // The server pings a connection that was silent for a second. So at least this time passes before the pong.
    let mut silent_for_a_second = server.connect();
    assert_eq!(silent_for_a_second.event()["event"], "pusher:ping");
    client.send(PONG);
    let samples = eventually("the pong has arrived", || {
        let samples = scrape(&admin);
        (samples["ringverb_client_round_trip_seconds_count"] == 1.0).then_some(samples)
    });
    let time = samples["ringverb_client_round_trip_seconds_sum"];
    assert!((0.9..60.0).contains(&time), "{time}");
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
