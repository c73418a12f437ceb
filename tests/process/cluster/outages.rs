//! Redis is killed, hangs, or is given up while clients are connected.

use std::time::Duration;

use super::faults::{AT_ONCE, expect_numbers, publish_numbers, set, told};
use crate::support::cluster::{
    event, ids, member_added, member_removed, nodes, redis_connections_are, subscribed_nodes, user,
    users,
};
use crate::support::{Redis, data, now, within};

/// What two nodes do among themselves and each alone while Redis is away, and what they know when it is back.
fn outage(redis: &mut Redis, away: impl FnOnce(&mut Redis), back: impl FnOnce(&mut Redis)) {
    let [a, b] = nodes(redis, [1, 2]);
    let (mut one, mut two) = (a.connect(), b.connect());
    let mut leaves = b.connect();
    one.join("presence-r", &user("a"));
    two.join("presence-r", &user("b"));
    leaves.join("presence-r", &user("leaves"));
    assert_eq!(told(&mut one, "member_added", 2), set(["b", "leaves"]));
    two.expect(&member_added(&user("leaves")));
    for client in [&mut one, &mut two] {
        client.subscribe("news");
    }
    away(redis);
    // Each node goes on with its own.
    let mut comes = a.connect();
    let roster = within(AT_ONCE, "a join", || comes.join("presence-r", &user("comes")));
    assert_eq!(ids(&roster), ["a", "b", "comes", "leaves"], "who is elsewhere stays");
    one.expect(&member_added(&user("comes")));
    leaves.close();
    two.expect(&member_removed(r#""leaves""#));
    within(AT_ONCE, "a subscription to a new channel", || comes.subscribe("fresh"));
    within(AT_ONCE, "one to a cache channel", || {
        comes.subscribe("cache-x");
        assert_eq!(comes.event()["event"], "pusher:cache_miss");
    });
    within(AT_ONCE, "a question", || {
        assert!(a.get("/channels").contains(r#""fresh":"#));
    });
    within(AT_ONCE, "local delivery", || {
        publish_numbers(&a, "news", 0..49);
        a.publish("cache-x", "e", "kept");
        comes.expect(&event("cache-x", "e", "kept"));
        // The one worker of this node sends its publishes to Redis in order. So a client that receives the last number
        // knows that Redis has the cached event.
        publish_numbers(&a, "news", 49..50);
        expect_numbers(&mut one, "news", 0..50);
    });
    one.sync();
    comes.sync();
    back(redis);
    redis_connections_are(redis, 3);
    let mut events = 0;
    let mut added = false;
    while events < 50 || !added {
        let told = two.event();
        if told["event"] == "n" {
            assert_eq!(told["data"], events.to_string(), "{told}");
            events += 1;
        } else {
            assert_eq!(told["event"], "pusher_internal:member_added", "{told}");
            assert_eq!(data(&told)["user_id"], "comes");
            added = true;
        }
    }
    one.expect(&member_removed(r#""leaves""#));
    comes.expect(&member_removed(r#""leaves""#));
    let mut late = b.connect();
    late.subscribe("cache-x");
    late.expect(&event("cache-x", "e", "kept"));
    for node in [&a, &b] {
        assert_eq!(users(node, "presence-r"), ["a", "b", "comes"]);
        node.publish("fresh", "e", "x");
        comes.expect(&event("fresh", "e", "x"));
        publish_numbers(node, "news", 50..60);
        for client in [&mut one, &mut two] {
            expect_numbers(client, "news", 50..60);
        }
    }
    for client in [&mut one, &mut two, &mut comes, &mut late] {
        client.sync();
    }
    assert_eq!((subscribed_nodes(redis, "presence-r"), subscribed_nodes(redis, "fresh")), (2, 1));
}

#[test]
fn redis_is_killed_and_comes_back_empty() {
    outage(&mut Redis::start(), Redis::stop, Redis::restart);
}

/// It goes on before its silence is noticed: the lines hold.
#[test]
fn redis_hangs_for_a_moment() {
    outage(&mut Redis::start(), |redis| redis.pause(), |redis| redis.go_on());
}

#[test]
fn redis_hangs_until_its_connections_time_out() {
    let redis = Redis::start();
    let [mut a, b] = nodes(&redis, [1, 2]);
    let (mut one, mut two) = (a.connect(), b.connect());
    for client in [&mut one, &mut two] {
        client.subscribe("news");
    }
    one.join("presence-r", &user("a"));
    two.join("presence-r", &user("b"));
    one.expect(&member_added(&user("b")));
    redis.pause();
    publish_numbers(&a, "news", 0..20);
    within(AT_ONCE, "local delivery", || expect_numbers(&mut one, "news", 0..20));
    let start = now();
    let line = a.line_with("Clients of this node still reach each other");
    assert!(line.contains("has not answered"), "{line}");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?} until it was noticed");
    // From here on nothing waits at all.
    within(AT_ONCE, "a subscription", || one.subscribe("fresh"));
    publish_numbers(&a, "news", 20..40);
    let mut three = b.connect();
    assert_eq!(ids(&three.join("presence-r", &user("c"))), ["a", "b", "c"]);
    two.expect(&member_added(&user("c")));
    redis.go_on();
    expect_numbers(&mut one, "news", 20..40);
    one.expect(&member_added(&user("c")));
    expect_numbers(&mut two, "news", 0..40);
    for node in [&a, &b] {
        publish_numbers(node, "news", 40..50);
        for client in [&mut one, &mut two] {
            expect_numbers(client, "news", 40..50);
            client.sync();
        }
        assert_eq!(users(node, "presence-r"), ["a", "b", "c"]);
    }
    three.sync();
}
