//! Every counter and gauge that a client or a backend can count is recounted after churn: connections that come and go,
//! subscribe and leave, client events, publishes, refusals of each kind, webhooks.
//!
//! Each thread holds `HELD` connections at a time and opens the next one at once. It counts messages and bytes itself.
//! The test runs for `RINGVERB_CHURN_SECONDS`, 12 s by default. `/metrics` is read during the churn too: no counter may
//! fall, and what is read must not change what is counted.

mod clients;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use super::{Samples, scrape, setup, sum};
use crate::admin::AdminClient;
use crate::support::{APP_ID, Endpoint, Request, eventually, now};
use clients::{CONNECTIONS_MIN, Counting, HELD, Place, Seen, churn};

const THREADS: usize = 6;
const KINDS: [&str; 3] = ["public", "private", "presence"];
const SECONDS: u64 = 12;
/// Looks at the metrics with the same differences, after which they stay.
const LOOKS_MAX: usize = 100;
/// Between two scrapes during the churn.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(200);

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

/// What is exported and does not agree with what the clients saw: a name and a text of each value.
fn differences(
    samples: &Samples,
    expected: &[(String, u64)],
    seen: &Seen,
) -> Vec<(String, String)> {
    let differs = |(name, value): &&(String, u64)| samples.get(name) != Some(&(*value as f64));
    let text = |(name, value): &(String, u64)| {
        (name.clone(), format!("{value} were counted, {:?} are exported", samples.get(name)))
    };
    let mut found: Vec<(String, String)> = expected.iter().filter(differs).map(text).collect();
    found.extend(totals(seen).into_iter().filter_map(|(name, value)| {
        let exported = sum(samples, name);
        (exported != value as f64).then(|| {
            (format!("all {name}"), format!("{value} were counted, {exported} are exported"))
        })
    }));
    found.extend(check_cores(samples).into_iter().map(|what| (what, "is not so".to_owned())));
    found
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
    // What is wrong and does not change any longer stays wrong.
    let (mut wrong, mut looks) = (Vec::new(), 0);
    let mut sums = seen;
    eventually("every value agrees or stays wrong", || {
        // Nothing answers the last client events, and other events may still be on their way from core to core. So a
        // message may be sent to a connection after its pong: once, a loaded machine sent one more than was counted.
        open.iter_mut().for_each(|one| one.sync(&mut seen));
        sums = seen;
        open.iter().for_each(|one| one.note(&mut sums));
        let found = differences(&scrape(&admin), &expected(&sums, &open), &sums);
        let names = |wrong: &[(String, String)]| -> Vec<String> {
            wrong.iter().map(|(name, _)| name.clone()).collect()
        };
        looks = if names(&found) == names(&wrong) { looks + 1 } else { 0 };
        wrong = found;
        (wrong.is_empty() || looks == LOOKS_MAX).then_some(())
    });
    let seen = sums;
    assert!(wrong.is_empty(), "{wrong:#?}\n{seen:?}");
    let posted = endpoint.events.try_iter().count() as u64;
    assert_eq!(posted, seen.client_events, "the endpoint has each client event once");
    eprintln!("{seconds} s, {scrapes} scrapes, {} values: {seen:?}", expected(&seen, &open).len());
    assert!(seen.opened >= CONNECTIONS_MIN && scrapes > 1, "{seen:?}, {scrapes} scrapes");
    let refused = server.ask(&Request::to("GET", "/apps/nobody/channels"));
    assert_eq!(refused.status, 404);
    let samples = scrape(&admin);
    assert_eq!(samples["ringverb_http_calls_received_total{app_id=\"\"}"], 1.0);
}
