//! Webhooks of the running server: whose events reach which endpoint, and that a backend which hangs holds nobody up
//! (PROTOCOL.md C10). Delivery itself is tested in src/webhook, with the Pusher libraries in tests/e2e.

mod support;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Client, Endpoint, Handshake, Server, Setup, eventually};

fn of_app(server: &Server, key: &str) -> Client {
    Client::open(server, &Handshake::to(&format!("/app/{key}?protocol=7"))).established()
}

#[test]
fn each_endpoint_hears_what_it_asked_for_of_its_app() {
    let (all, some, other) = (Endpoint::start(true), Endpoint::start(true), Endpoint::start(true));
    let file = format!(
        r#"
        [[apps]]
        id = "1"
        key = "first"
        secret = "app-secret"
        webhooks = [
            {{ url = "{}", events = ["channel_occupied", "channel_vacated"] }},
            {{ url = "{}", events = ["channel_occupied"], channel_prefixes = ["orders."] }},
        ]
        [[apps]]
        id = "2"
        key = "second"
        secret = "app-secret"
        webhooks = [{{ url = "{}", events = ["channel_occupied"] }}]
        "#,
        all.url, some.url, other.url
    );
    let setup = Setup::bare().workers(4).file("ringverb.toml", &file);
    let server = setup.env("RINGVERB_WEBHOOK_DEBOUNCE", "0").start();
    let (mut first, mut second) = (of_app(&server, "first"), of_app(&server, "second"));
    let occupied = |channel: &str, key: &str| json!({"name": "channel_occupied", "channel": channel, "key": key});
    first.subscribe("news");
    assert_eq!(all.next(), occupied("news", "first"));
    second.subscribe("orders.2");
    assert_eq!(other.next(), occupied("orders.2", "second"));
    first.subscribe("orders.1");
    assert_eq!(all.next(), occupied("orders.1", "first"));
    assert_eq!(some.next(), occupied("orders.1", "first"));
    first.unsubscribe("news");
    let vacated = json!({"name": "channel_vacated", "channel": "news", "key": "first"});
    assert_eq!(all.next(), vacated);
    first.close();
    second.close();
    server.stop();
    // The end flushed what was left, and nothing went where it did not belong.
    assert_eq!(all.next()["channel"], "orders.1");
    assert!(some.events.try_recv().is_err() && other.events.try_recv().is_err());
}

#[test]
fn a_backend_that_hangs_holds_nobody_up() {
    let (hangs, works) = (Endpoint::start(false), Endpoint::start(true));
    let server = Setup::new()
        .workers(2)
        .env("RINGVERB_WEBHOOK_URL", &format!("{},{}", hangs.url, works.url))
        .env("RINGVERB_WEBHOOK_EVENTS", "channel_occupied")
        .env("RINGVERB_SHUTDOWN_GRACE", "2")
        .start();
    let mut client = server.connect();
    client.subscribe("first");
    assert_eq!(hangs.next()["channel"], "first");
    // From here on one endpoint owes an answer for 30 s.
    for number in 0..50 {
        let channel = format!("channel-{number}");
        client.subscribe(&channel);
        server.publish(&channel, "e", "x");
        assert_eq!(client.event()["channel"], json!(channel));
    }
    let mut told: Vec<String> =
        (0..51).map(|_| works.next()["channel"].as_str().expect("a name").to_owned()).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 51, "{told:?}");
    client.close();
    server.signal(Signal::TERM);
    // `finish` waits 20 s, less than the backend would take.
    let finished = server.finish();
    assert_eq!(finished.code, Some(0));
    assert!(finished.stdout.contains("for webhooks are lost"), "{}", finished.stdout);
}

#[test]
fn a_reload_to_another_worker_is_not_told() {
    let endpoint = Endpoint::start(true);
    let server = Setup::new()
        .workers(4)
        .env("RINGVERB_WEBHOOK_URL", &endpoint.url)
        .env("RINGVERB_WEBHOOK_EVENTS", "member_added,member_removed")
        .env("RINGVERB_WEBHOOK_DEBOUNCE", "4000")
        .start();
    let mut page = server.connect();
    page.join("presence-r", r#"{"user_id":7}"#);
    for _ in 0..20 {
        page.close();
        page = server.connect();
        page.join("presence-r", r#"{"user_id":7}"#);
    }
    let mut other = server.connect();
    other.join("presence-r", r#"{"user_id":8}"#);
    page.close_among_events();
    eventually("one is left", || {
        (server.get("/channels/presence-r/users") == r#"{"users":[{"id":"8"}]}"#).then_some(())
    });
    let told: Vec<(Value, Value)> = (0..3)
        .map(|_| endpoint.next())
        .map(|event| (event["name"].clone(), event["user_id"].clone()))
        .collect();
    let expected = [("member_added", "7"), ("member_added", "8"), ("member_removed", "7")];
    assert_eq!(told, expected.map(|(name, id)| (json!(name), json!(id))));
}
