//! Edges of a cluster in a real Redis: moments that coincide on two nodes, ends while Redis hangs, names and people of
//! every kind, a user of Redis with few rights.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::cluster::{
    channel_topics, event, ids, member_added, member_removed, nodes, nodes_with,
    redis_connections_are, signed_in, subscribed_nodes, topic_of, user, users, watched,
};
use crate::support::{
    Client, Endpoint, Http, Redis, Request, Server, Setup, eventually, json as parse, now, within,
};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn tabs_that_open_and_close_at_the_same_moment_cause_one_webhook() {
    const ROUNDS: usize = 15;
    let redis = Redis::start();
    let endpoint = Endpoint::start(true);
    let nodes = nodes_with(&redis, [1, 2], |setup| {
        setup
            .env("RINGVERB_WEBHOOK_URL", &endpoint.url)
            .env(
                "RINGVERB_WEBHOOK_EVENTS",
                "channel_occupied,channel_vacated,member_added,member_removed",
            )
            .env("RINGVERB_WEBHOOK_DEBOUNCE", "0")
    });
    let channels: Vec<String> = (0..ROUNDS).map(|round| format!("presence-{round}")).collect();
    for channel in &channels {
        let mut tabs = nodes.each_ref().map(Server::connect);
        for tab in &mut tabs {
            tab.send_subscribe(channel, Some(&user(7)));
        }
        for tab in &mut tabs {
            assert_eq!(tab.event()["event"], "pusher_internal:subscription_succeeded");
        }
    }
    // A node stays subscribed for some seconds to a topic that it has needed: all channels share this wait.
    for channel in &channels {
        eventually("nobody is there", || {
            let empty = |node: &Server| users(node, channel).is_empty();
            (nodes.iter().all(empty) && subscribed_nodes(&redis, channel) == 0).then_some(())
        });
    }
    let mut told = BTreeMap::new();
    let mut last = nodes[0].connect();
    last.subscribe("end");
    for node in nodes {
        node.stop();
    }
    for event in endpoint.events.try_iter() {
        let name = event["name"].as_str().expect("a name").to_owned();
        if event["channel"] != "end" {
            *told.entry(name).or_insert(0) += 1;
        }
    }
    let names = ["channel_occupied", "channel_vacated", "member_added", "member_removed"];
    // One tab may have come and gone before the other came, in Redis's order; but all four pair up.
    let rounds = told["member_added"];
    assert_eq!(told, names.map(|name| (name.to_owned(), rounds)).into());
    assert!((ROUNDS..2 * ROUNDS).contains(&rounds), "{told:?}");
}

#[test]
fn one_user_is_one_whether_the_id_is_a_number_or_a_text() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [1, 2]);
    let mut one = a.connect();
    one.join("presence-r", r#"{"user_id":5}"#);
    let mut two = b.connect();
    let roster = two.join("presence-r", r#"{"user_id":"5","user_info":{"other":1}}"#);
    // As the first connection gave it.
    assert_eq!(roster.to_string(), r#"{"count":1,"hash":{"5":null},"ids":[5]}"#);
    let big = r#"{"user_id":12345678901234567890,"user_info":{"f":1.0,"e":{},"l":[]},"role":"x"}"#;
    let mut three = b.connect();
    three.join("presence-r", big);
    one.expect(&member_added(big));
    let roster = a.connect().join("presence-r", r#"{"user_id":5}"#);
    assert_eq!(ids(&roster), ["12345678901234567890", "5"]);
    assert_eq!(roster["hash"]["12345678901234567890"].to_string(), r#"{"e":{},"f":1.0,"l":[]}"#);
    one.sync();
    // The connection that gave the id first leaves; the user stays.
    one.close();
    two.expect(&member_added(big));
    three.close();
    two.expect(&member_removed("12345678901234567890"));
    two.sync();
    eventually("one is left", || (users(&a, "presence-r") == ["5"]).then_some(()));
}

#[test]
fn a_node_that_starts_later_receives_many_members_with_large_data() {
    const MEMBERS: usize = 250;
    let redis = Redis::start();
    let [a] = nodes(&redis, [2]);
    let info = "ü".repeat(1_500);
    let member = |id: usize| json!({ "user_id": id, "user_info": info }).to_string();
    let mut members: Vec<Client> = (0..MEMBERS).map(|_| a.connect()).collect();
    for (id, client) in members.iter_mut().enumerate() {
        client.send_subscribe("presence-r", Some(&member(id)));
    }
    eventually("all are in", || (users(&a, "presence-r").len() == MEMBERS).then_some(()));
    let b = Setup::new().workers(1).meeting_in(&redis).start();
    redis_connections_are(&redis, 3);
    let mut late = b.connect();
    let roster = late.join("presence-r", &member(MEMBERS));
    assert_eq!(ids(&roster).len(), MEMBERS + 1);
    assert_eq!(roster["hash"]["17"], json!(info));
    drop(members);
    for _ in 0..MEMBERS {
        assert_eq!(late.event()["event"], "pusher_internal:member_removed");
    }
    late.sync();
    assert_eq!(users(&a, "presence-r"), [MEMBERS.to_string()]);
}

#[test]
fn watched_and_signed_in_users_leave_no_key_in_redis() {
    let redis = Redis::start();
    let nodes = nodes(&redis, [1, 2, 2]);
    let mut watchers = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let list: Vec<String> = (0..30).map(|id| format!("user {id}")).collect();
        let mut watcher =
            signed_in(node, &json!({ "id": format!("user {index}"), "watchlist": list }));
        watched(&mut watcher);
        watchers.push(watcher);
    }
    assert_eq!(channel_topics(&redis).len(), 30);
    // Cut before and while anything was answered.
    for round in 0..30 {
        let mut client = nodes[round % 3].connect();
        let user_data =
            json!({ "id": "brief", "watchlist": [format!("never {round}")] }).to_string();
        let auth = crate::support::sign(&[&client.socket_id, "::user::", &user_data]);
        let data = json!({ "auth": format!("app-key:{auth}"), "user_data": user_data });
        client.send(&json!({ "event": "pusher:signin", "data": data }).to_string());
        if round % 2 == 0 {
            client.event();
        }
    }
    drop(watchers);
    eventually("nobody holds anything", || channel_topics(&redis).is_empty().then_some(()));
}

#[test]
fn users_that_leave_while_redis_hangs_leave_no_key_there() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [1, 2]);
    let mut stays = a.connect();
    stays.subscribe("stays");
    redis.pause();
    for round in 0..20 {
        let mut client = [&a, &b][round % 2].connect();
        client.send_subscribe(&format!("news-{round}"), None);
        client.send_subscribe("presence-r", Some(&user(round)));
        if round % 3 == 0 {
            client.unsubscribe("presence-r");
            client.unsubscribe(&format!("news-{round}"));
        }
        if round % 3 == 1 {
            while client.event()["event"] != "pusher_internal:subscription_succeeded" {}
        }
    }
    redis.go_on();
    let left = || (channel_topics(&redis) == [topic_of("stays")].into()).then_some(());
    eventually("only what somebody has is held", left);
    eventually("nobody is in the room", || {
        let empty = |node: &Server| users(node, "presence-r").is_empty();
        [&a, &b].into_iter().all(empty).then_some(())
    });
    b.publish("stays", "e", "x");
    stays.expect(&event("stays", "e", "x"));
    stays.sync();
}

#[test]
fn events_published_before_the_end_are_delivered() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [2, 1]);
    let mut client = b.connect();
    client.subscribe("news");
    let mut http = Http::new(&a);
    for number in 0..200 {
        let body = json!({ "name": "n", "channel": "news", "data": number.to_string() });
        assert_eq!(http.ask(&Request::events(&body.to_string())).status, 200);
    }
    a.stop();
    for number in 0..200 {
        client.expect(&event("news", "n", &number.to_string()));
    }
    client.sync();
}

#[test]
fn a_node_ends_although_redis_hangs() {
    let mut redis = Redis::start();
    let [a, b] = nodes(&redis, [1, 2]);
    let mut client = a.connect();
    client.join("presence-r", &user(1));
    redis.pause();
    a.publish("presence-r", "e", "x");
    client.expect(&event("presence-r", "e", "x"));
    client.send_subscribe("waits", None);
    let start = now();
    a.signal(Signal::TERM);
    let finished = a.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
    redis.go_on();
    redis.stop();
    b.stop();
}

#[test]
fn a_question_does_not_wait_long_for_a_node_that_hangs() {
    /// Half of a lease: after a whole one the node would be thought dead anyway.
    const SHORT: Duration = Duration::from_secs(5);
    let redis = Redis::start();
    let nodes = nodes(&redis, [1, 2, 1]);
    let mut clients = nodes.each_ref().map(Server::connect);
    for (index, client) in clients.iter_mut().enumerate() {
        client.subscribe("news");
        client.join("presence-r", &user(index));
    }
    for (index, client) in clients.iter_mut().enumerate() {
        for later in index + 1..3 {
            client.expect(&member_added(&user(later)));
        }
    }
    nodes[2].pause();
    let request = Request::get("/channels").query("info", "subscription_count,user_count");
    for node in &nodes[..2] {
        let body = within(SHORT, "a question", || parse(&node.ask(&request).body));
        // Members of each node that is believed to live count; subscriptions that only the silent node can count do
        // not.
        let due = json!({ "channels": {
            "news": { "subscription_count": 2 }, "presence-r": { "user_count": 3 },
        } });
        assert_eq!(body, due);
        let there = within(SHORT, "a question", || users(node, "presence-r"));
        assert_eq!(there, ["0", "1", "2"]);
    }
    // A channel's first subscriber does not wait for its answer for long either.
    let mut late = nodes[1].connect();
    within(SHORT, "a join", || late.join("presence-new", &user(1)));
    nodes[2].signal(Signal::CONT);
    nodes[0].publish("news", "e", "x");
    for client in &mut clients {
        while client.event()["event"] != "e" {}
    }
}

/// What the documentation says that a user of Redis needs, and nothing else.
#[test]
fn a_user_of_redis_with_few_rights_is_enough() {
    let redis = Redis::start();
    let rights = ["+hello", "+auth", "+ping", "+subscribe", "+unsubscribe", "+publish"];
    let stored = ["+get", "+set", "+eval"];
    let user_of_redis = ["ACL", "SETUSER", "ring", "on", ">secret", "~reverb:*", "&reverb:*"];
    let words: Vec<&str> = [&user_of_redis[..], &rights, &stored].concat();
    assert_eq!(redis.command(&words), "+OK\r\n");
    let start = |workers: u16| {
        let setup = Setup::new().workers(workers).meeting_in(&redis);
        setup.env("REDIS_USERNAME", "ring").env("REDIS_PASSWORD", "secret").start()
    };
    let [a, b] = [1, 2].map(start);
    redis_connections_are(&redis, 3);
    let mut client = b.connect();
    client.join("presence-r", &user(1));
    a.publish("presence-r", "e", "x");
    client.expect(&event("presence-r", "e", "x"));
    client.subscribe("cache-x");
    client.expect(r#"{"event":"pusher:cache_miss","channel":"cache-x"}"#);
    a.publish("cache-x", "e", "stored");
    client.expect(&event("cache-x", "e", "stored"));
    client.unsubscribe("cache-x");
    eventually("it is let go", || (subscribed_nodes(&redis, "cache-x") == 0).then_some(()));
    client.subscribe("cache-x");
    client.expect(&event("cache-x", "e", "stored"));
    // Without the right to store anything, events of such channels go on.
    redis.command(&["ACL", "SETUSER", "ring", "-get", "-set", "-eval"]);
    for number in 0..5 {
        a.publish("cache-x", "e", &number.to_string());
        client.expect(&event("cache-x", "e", &number.to_string()));
    }
    client.sync();
    assert!(b.get("/channels/presence-r").contains("true"));
}
