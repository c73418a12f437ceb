//! Nodes that die, hang and come back, and a Redis that does (docs/PROTOCOL.md rules 77, 88, 93; docs/decisions/0008):
//! who was acknowledged is served, nothing is said twice, and what is gone is gone within the lease.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::cluster::{
    event, ids, member_added, member_removed, nodes, nodes_with, redis_connections_are, signed_in,
    user, users, watched,
};
use crate::support::{
    Client, Endpoint, Http, Redis, Request, Server, Setup, data, json as parse, resident_bytes,
    within,
};
use rustix::process::Signal;
use serde_json::json;

/// The lease of ten seconds, the beat it may be late by, and a busy machine.
const LEASE: Duration = Duration::from_secs(18);
/// What nothing that a client asks for may take longer than, whatever Redis does: two beats and a busy machine.
pub(super) const AT_ONCE: Duration = Duration::from_secs(4);

pub(super) fn publish_numbers(server: &Server, channel: &str, numbers: std::ops::Range<usize>) {
    let mut http = Http::new(server);
    for number in numbers {
        let body = json!({ "name": "n", "channel": channel, "data": number.to_string() });
        assert_eq!(http.ask(&Request::events(&body.to_string())).status, 200);
    }
}

#[track_caller]
pub(super) fn expect_numbers(client: &mut Client, channel: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        client.expect(&event(channel, "n", &number.to_string()));
    }
}

/// So many events of this name, and about whom.
pub(super) fn told(client: &mut Client, name: &str, count: usize) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for _ in 0..count {
        let event = client.event();
        assert_eq!(event["event"], format!("pusher_internal:{name}"), "{event}; {told:?} before");
        let id = data(&event)["user_id"].as_str().expect("a text").to_owned();
        assert!(told.insert(id), "{event} again");
    }
    told
}

pub(super) fn set<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.map(str::to_owned).into()
}

#[test]
fn members_of_a_killed_node_are_removed_after_the_lease() {
    let redis = Redis::start();
    let endpoint = Endpoint::start(true);
    let [a, b, c] = nodes_with(&redis, [1, 2, 2], |setup| {
        setup
            .env("RINGVERB_WEBHOOK_URL", &endpoint.url)
            .env("RINGVERB_WEBHOOK_EVENTS", "member_removed,channel_vacated,channel_occupied")
            .env("RINGVERB_WEBHOOK_DEBOUNCE", "0")
    });
    let (mut one, mut two) = (a.connect(), b.connect());
    one.join("presence-r", &user("a"));
    two.join("presence-r", &user("b"));
    one.event();
    let mut others = ["c", "d", "a"].map(|id| {
        let mut client = c.connect();
        client.join("presence-r", &user(id));
        client
    });
    let mut watcher = signed_in(&a, &json!({ "id": "w", "watchlist": ["c"] }));
    watched(&mut watcher);
    let signed = signed_in(&c, &json!({ "id": "c" }));
    assert_eq!(watched(&mut watcher), json!([{ "name": "online", "user_ids": ["c"] }]));
    for witness in [&mut one, &mut two] {
        assert_eq!(told(witness, "member_added", 2), set(["c", "d"]));
        witness.sync();
    }
    assert_eq!(told(&mut others[0], "member_added", 1), set(["d"]));
    others[0].sync();
    // The end of `Server` is that of kill -9.
    drop(c);
    drop(signed);
    within(AT_ONCE, "a question", || {
        assert_eq!(a.open_connections(), 3);
    });
    within(LEASE, "the lease", || {
        for witness in [&mut one, &mut two] {
            assert_eq!(told(witness, "member_removed", 2), set(["c", "d"]));
        }
        assert_eq!(watched(&mut watcher), json!([{ "name": "offline", "user_ids": ["c"] }]));
    });
    let mut late = b.connect();
    assert_eq!(ids(&late.join("presence-r", &user("b"))), ["a", "b"]);
    for (node, witness) in [(&a, &mut one), (&b, &mut two)] {
        assert_eq!(users(node, "presence-r"), ["a", "b"]);
        witness.sync();
    }
    assert_eq!(endpoint.next()["name"], "channel_occupied");
    let removed = [endpoint.next(), endpoint.next()];
    assert!(removed.iter().all(|event| event["name"] == "member_removed"), "{removed:?}");
    let ids: BTreeSet<_> =
        removed.iter().map(|event| event["user_id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids, set(["c", "d"]));
    for node in [a, b] {
        node.stop();
    }
    drop(late);
    // They have left, too; nothing else was sent, and nothing twice.
    let mut rest: Vec<String> = endpoint
        .events
        .try_iter()
        .map(|event| format!("{} {}", event["name"], event["user_id"]))
        .collect();
    rest.sort_unstable();
    let due = [r#""channel_vacated" null"#, r#""member_removed" "a""#, r#""member_removed" "b""#];
    assert_eq!(rest, due);
}

#[test]
fn a_node_that_hung_is_thought_dead_and_is_back() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [2, 1]);
    let (mut one, mut two) = (a.connect(), b.connect());
    one.join("presence-r", &user("a"));
    two.join("presence-r", &user("b"));
    one.expect(&member_added(&user("b")));
    b.pause();
    within(LEASE, "the lease", || one.expect(&member_removed(r#""b""#)));
    assert_eq!(users(&a, "presence-r"), ["a"]);
    // What happens during the hang is sent to those who hung.
    let mut third = a.connect();
    assert_eq!(ids(&third.join("presence-r", &user("c"))), ["a", "c"]);
    one.expect(&member_added(&user("c")));
    a.publish("presence-r", "e", "meanwhile");
    b.signal(Signal::CONT);
    two.expect(&member_added(&user("c")));
    two.expect(&event("presence-r", "e", "meanwhile"));
    one.expect(&event("presence-r", "e", "meanwhile"));
    third.expect(&event("presence-r", "e", "meanwhile"));
    for witness in [&mut one, &mut third] {
        let back = witness.event();
        assert_eq!(back["event"], "pusher_internal:member_added", "{back}");
        assert_eq!(data(&back)["user_id"], "b");
    }
    for node in [&a, &b] {
        assert_eq!(users(node, "presence-r"), ["a", "b", "c"]);
        node.publish("presence-r", "e", "after");
        for client in [&mut one, &mut two, &mut third] {
            client.expect(&event("presence-r", "e", "after"));
        }
    }
    for client in [&mut one, &mut two, &mut third] {
        client.sync();
    }
}

/// All Redis connections are cut at once while events are published. Each comes back at its own time, and the messages
/// of the first one must not be lost because the others are still away.
#[test]
fn cut_redis_connections_lose_and_repeat_no_event() {
    let mut redis = Redis::start();
    let nodes = nodes(&redis, [1, 2, 1]);
    let mut clients = nodes.each_ref().map(Server::connect);
    for client in &mut clients {
        client.subscribe("news");
    }
    for round in 0..4 {
        let numbers = round * 60..(round + 1) * 60;
        publish_numbers(&nodes[round % 3], "news", numbers.start..numbers.start + 20);
        if round % 2 == 0 {
            redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        } else {
            redis.restart();
        }
        publish_numbers(&nodes[round % 3], "news", numbers.start + 20..numbers.start + 40);
        redis_connections_are(&redis, 4);
        publish_numbers(&nodes[round % 3], "news", numbers.start + 40..numbers.end);
        for client in &mut clients {
            expect_numbers(client, "news", numbers.clone());
        }
    }
    for client in &mut clients {
        client.sync();
    }
}

/// Only one of the nodes has lost its Redis connection; the others continue to publish.
#[test]
fn a_node_that_lost_its_redis_connection_receives_the_events_published_during_the_outage() {
    let redis = Redis::start();
    let [a] = nodes(&redis, [1]);
    let line_of_a = redis.command(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    let id = line_of_a.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id");
    let b = Setup::new().workers(1).meeting_in(&redis).start();
    redis_connections_are(&redis, 2);
    let (mut one, mut two) = (a.connect(), b.connect());
    for client in [&mut one, &mut two] {
        client.subscribe("news");
    }
    one.join("presence-r", &user("a"));
    two.join("presence-r", &user("b"));
    one.expect(&member_added(&user("b")));
    assert_eq!(redis.command(&["CLIENT", "KILL", "ID", id]), ":1\r\n");
    publish_numbers(&b, "news", 0..50);
    expect_numbers(&mut two, "news", 0..50);
    two.close();
    let mut two = b.connect();
    two.join("presence-r", &user("c"));
    let mut got = Vec::new();
    let (mut added, mut removed) = (false, false);
    while !(added && removed) {
        let told = one.event();
        match told["event"].as_str() {
            Some("n") => got.push(told["data"].as_str().expect("a number").to_owned()),
            Some("pusher_internal:member_added") => added = true,
            _ => removed = true,
        }
    }
    publish_numbers(&b, "news", 50..51);
    while got.last().is_none_or(|last| last != "50") {
        got.push(one.event()["data"].as_str().expect("a number").to_owned());
    }
    let due: Vec<String> = (0..51).map(|number| number.to_string()).collect();
    assert_eq!(got, due);
}

#[test]
fn messages_kept_for_other_nodes_are_bounded() {
    const EVENTS: usize = 2_600;
    const CHANNELS: usize = 50;
    let mut redis = Redis::start();
    let [mut a, b] = nodes(&redis, [1, 1]);
    let mut client = b.connect();
    client.subscribe("news-0");
    redis.stop();
    a.line_with("Clients of this node still reach each other");
    let before = resident_bytes(a.id());
    let mut http = Http::new(&a);
    let filler = "x".repeat(9_000);
    for number in 0..EVENTS {
        let channel = format!("news-{}", number % CHANNELS);
        let data = format!("{number} {filler}");
        let body = json!({ "name": "n", "channel": channel, "data": data }).to_string();
        assert_eq!(http.ask(&Request::events(&body)).status, 200);
    }
    let grown = resident_bytes(a.id()).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes more");
    redis.restart();
    let number = |client: &mut Client| -> usize {
        let event = client.event();
        let text = event["data"].as_str().expect("a text");
        text.split(' ').next().and_then(|text| text.parse().ok()).expect("a number")
    };
    let first = number(&mut client);
    assert!((1..EVENTS - 1_500).contains(&first), "from {first} on");
    let mut due = first;
    while due < EVENTS - CHANNELS {
        due += CHANNELS;
        assert_eq!(number(&mut client), due);
    }
    client.sync();
    a.line_with("were dropped");
}

#[test]
fn nodes_start_without_redis_and_meet_when_it_is_there() {
    let mut redis = Redis::start();
    redis.stop();
    let start = |workers| Setup::new().workers(workers).meeting_in(&redis).start();
    let [mut a, b] = [1, 2].map(start);
    a.line_so_far_with("Clients of this node still reach each other");
    let (mut one, mut two) = (a.connect(), b.connect());
    for (id, client) in [("a", &mut one), ("b", &mut two)] {
        within(AT_ONCE, "a join", || {
            assert_eq!(ids(&client.join("presence-r", &user(id))), [id]);
        });
    }
    a.publish("presence-r", "e", "alone");
    one.expect(&event("presence-r", "e", "alone"));
    assert_eq!(a.open_connections(), 1);
    redis.restart();
    redis_connections_are(&redis, 3);
    a.line_with("connected to Redis at 127.0.0.1:");
    assert_eq!(told(&mut one, "member_added", 1), set(["b"]));
    let mut rest = [two.event(), two.event()].map(|event| event["event"].clone());
    rest.sort_by_key(ToString::to_string);
    assert_eq!(rest, ["e", "pusher_internal:member_added"]);
    assert_eq!(a.open_connections(), 2);
}

#[test]
fn a_node_logs_why_redis_refuses_it() {
    const WRONG: &str = "wr0ng-pass";
    let redis = Redis::with_password("hunter2-of-redis");
    let start = |password: &str| {
        let setup = Setup::new().workers(1).meeting_in(&redis);
        setup.env("REDIS_PASSWORD", password).start()
    };
    for (password, why) in [(WRONG, "WRONGPASS"), ("null", "NOAUTH")] {
        let mut server = start(password);
        let line = server.line_so_far_with("Clients of this node still reach each other");
        assert!(line.contains(why) && line.contains("REDIS_PASSWORD"), "{line}");
        let mut client = server.connect();
        within(AT_ONCE, "a subscription", || client.subscribe("news"));
        server.publish("news", "e", "x");
        client.expect(&event("news", "e", "x"));
        server.signal(Signal::TERM);
        let finished = server.finish();
        assert_eq!(finished.code, Some(0));
        for text in [&finished.stdout, &finished.stderr] {
            assert!(!text.contains(WRONG), "{text}");
            assert_eq!(
                text.matches("Clients of this node still reach each other").count() & !1,
                0,
                "said once: {text}"
            );
        }
    }
    let good = ["hunter2-of-redis"; 2].map(start);
    redis_connections_are(&redis, 2);
    let mut client = good[0].connect();
    client.subscribe("news");
    good[1].publish("news", "e", "x");
    client.expect(&event("news", "e", "x"));
}

#[test]
fn counts_and_sign_ins_are_right_after_redis_was_away() {
    let mut redis = Redis::start();
    let counting = |setup: Setup| setup.env("RINGVERB_SUBSCRIPTION_COUNT", "true");
    let [a, b] = nodes_with(&redis, [2, 1], counting);
    let mut watcher = signed_in(&a, &json!({ "id": "w", "watchlist": ["early", "late"] }));
    let early = signed_in(&b, &json!({ "id": "early" }));
    // The list at the sign-in may have it already.
    let online = json!({ "name": "online", "user_ids": ["early"] });
    if !watched(&mut watcher).as_array().expect("a list").contains(&online) {
        assert_eq!(watched(&mut watcher), json!([online]));
    }
    let (mut one, mut two, mut three) = (a.connect(), b.connect(), b.connect());
    let until = |client: &mut Client, count: usize| {
        while data(&client.event()) != json!({ "subscription_count": count }) {}
    };
    one.subscribe("news");
    two.subscribe("news");
    three.subscribe("news");
    for client in [&mut one, &mut two, &mut three] {
        until(client, 3);
    }
    redis.stop();
    early.close();
    let _late = signed_in(&b, &json!({ "id": "late" }));
    three.close();
    let reply = b.answer(&Request::post("/users/w/terminate_connections", ""));
    assert_eq!(reply.0, 200);
    watcher.sync();
    redis.restart();
    let mut told = Vec::new();
    loop {
        let event = watcher.event();
        if event["event"] == "pusher:error" {
            break;
        }
        told.push(data(&event)["events"].to_string());
    }
    // What was kept may come before or after what is requested again.
    assert!(told.len() <= 2, "{told:?}");
    until(&mut one, 2);
    // A worker without its line answers for its own node, and any worker may be asked.
    redis_connections_are(&redis, 3);
    let body = a.ask(&Request::get("/channels/news").query("info", "subscription_count")).body;
    assert_eq!(parse(&body)["subscription_count"].to_string(), "2");
    let mut second = signed_in(&a, &json!({ "id": "w2", "watchlist": ["early", "late"] }));
    let lists = watched(&mut second);
    let due = json!([
        { "name": "online", "user_ids": ["late"] }, { "name": "offline", "user_ids": ["early"] },
    ]);
    assert_eq!(lists, due);
}
