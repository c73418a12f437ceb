//! Messages on Redis that no node has sent, or that arrive twice or cut; and no secret goes over Redis.

use serde_json::json;

use crate::support::cluster::{event, nodes, signed_in, topics, user};
use crate::support::{DEADLINE, Redis, Request};

#[test]
fn no_secret_goes_over_redis_or_into_the_log() {
    const PASSWORD: &str = "hunter2-of-redis";
    let redis = Redis::with_password(PASSWORD);
    let [a, b] = nodes(&redis, [1, 2]);
    let monitor = redis.monitor();
    let mut signatures = Vec::new();
    for (id, node) in [("7", &a), ("8", &b)] {
        let mut client = signed_in(node, &json!({ "id": id, "watchlist": ["9"] }));
        assert_eq!(client.event()["event"], "pusher_internal:watchlist_events");
        client.subscribe("private-x");
        client.join("presence-r", &user(id));
        signatures.push(crate::support::channel_auth(&client.socket_id, "private-x", None));
        signatures.push(crate::support::channel_auth(
            &client.socket_id,
            "presence-r",
            Some(&user(id)),
        ));
        client.send(r#"{"event":"client-e","channel":"private-x","data":"hello"}"#);
        let request = Request::events(r#"{"name":"e","channel":"private-x","data":"x"}"#);
        let target = request.target();
        signatures.push(target.split_once("auth_signature=").expect("a signature").1.to_owned());
        assert_eq!(node.answer(&request).0, 200);
        client.expect(&event("private-x", "e", "x"));
        assert_eq!(node.open_connections(), 1);
        node.answer(&Request::post(&format!("/users/{id}/terminate_connections"), ""));
        client.refused(4009, "Connection terminated by the application");
    }
    let [a, b] = [a, b].map(|node| {
        node.signal(rustix::process::Signal::TERM);
        node.finish()
    });
    redis.command(&["ECHO", "the end of what is watched"]);
    let mut said = String::new();
    while !said.contains("the end of what is watched") {
        said += &monitor.recv_timeout(DEADLINE).expect("Redis goes on");
        said.push('\n');
    }
    assert!(said.contains("client-e") && said.contains("rv1:c:1001:presence-r"), "{said}");
    for (place, text) in
        [("Redis", &said), ("a", &(a.stdout + &a.stderr)), ("b", &(b.stdout + &b.stderr))]
    {
        for secret in [crate::support::APP_SECRET, "auth_signature", PASSWORD] {
            assert!(!text.contains(secret), "{secret} in {place}: {text}");
        }
        for signature in &signatures {
            let hex = signature.rsplit(':').next().expect("hex");
            assert!(!text.contains(hex), "{hex} in {place}: {text}");
        }
    }
}

#[test]
fn messages_that_no_node_has_sent_are_ignored() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [1, 2]);
    let (mut one, mut two) = (a.connect(), b.connect());
    for client in [&mut one, &mut two] {
        client.subscribe("news");
    }
    one.join("presence-r", &user(1));
    two.join("presence-r", &user(2));
    one.event();
    let topics = topics(&redis);
    assert!(topics.len() >= 7, "{topics:?}");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).expect("eight bits")
    };
    for topic in &topics {
        for length in [0, 1, 2, 5, 20, 100, 5_000] {
            for _ in 0..10 {
                let payload: Vec<u8> = (0..length).map(|_| random()).collect();
                redis.publish_bytes(topic, &payload);
            }
        }
        redis.publish_bytes(topic, br#"{"event":"e","data":"x","channel":"news"}"#);
    }
    // What is stored by others is not taken for an event either.
    redis.command(&["SET", "reverb:rv1:cache:1001:cache-x", "no event at all"]);
    redis.command(&["LPUSH", "reverb:rv1:cache:1001:cache-y", "no string"]);
    for channel in ["cache-x", "cache-y"] {
        two.subscribe(channel);
        two.expect(&format!(r#"{{"event":"pusher:cache_miss","channel":"{channel}"}}"#));
    }
    for node in [&a, &b] {
        for channel in ["news", "presence-r"] {
            node.publish(channel, "end", "x");
            for client in [&mut one, &mut two] {
                client.expect(&event(channel, "end", "x"));
            }
        }
        assert_eq!(crate::support::cluster::users(node, "presence-r"), ["1", "2"]);
    }
    for client in [&mut one, &mut two] {
        client.sync();
    }
}

#[test]
fn duplicate_and_truncated_messages_of_nodes_are_ignored() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [1, 1]);
    let (mut one, mut two) = (a.connect(), b.connect());
    one.subscribe("news");
    two.subscribe("news");
    let mut tap = redis.tap(&crate::support::cluster::topic_of("news"));
    a.publish("news", "e", "once");
    let said = tap.next();
    for client in [&mut one, &mut two] {
        client.expect(&event("news", "e", "once"));
    }
    for end in 0..said.len() {
        redis.publish_bytes(&crate::support::cluster::topic_of("news"), &said[..end]);
    }
    for _ in 0..3 {
        assert_eq!(redis.publish_bytes(&crate::support::cluster::topic_of("news"), &said), 3);
    }
    a.publish("news", "e", "twice");
    for client in [&mut one, &mut two] {
        client.expect(&event("news", "e", "twice"));
        client.sync();
    }
}
