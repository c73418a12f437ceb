//! What one client, or a Redis that is no master any more, can do to a cluster: other clients receive what other
//! nodes publish, no node is considered dead, and a node whose messages reach no other notices.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use crate::support::cluster::{
    event, member_added, nodes, nodes_with, redis_connections_are, subscribed_nodes, user, users,
};
use crate::support::{
    Client, Endpoint, Redis, Setup, eventually, frame, now, resident_bytes, within,
};
use rustix::process::Signal;
use serde_json::json;

/// Within which a node notices that Redis is no master or passes nothing on: 5 s, and a busy machine.
const NOTICED: Duration = Duration::from_secs(9);

/// Pairs of a subscription to a channel of its own and its end.
fn pairs(from: usize, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in from..from + count {
        for word in ["subscribe", "unsubscribe"] {
            let data = json!({ "channel": format!("flood-{number}") });
            let message = json!({ "event": format!("pusher:{word}"), "data": data });
            bytes.extend(frame::text(&message.to_string()));
        }
    }
    bytes
}

/// Sends pairs until the server takes no more for a moment; how many bytes it took. What it answers is read.
fn flood(client: Client, most: usize) -> std::thread::JoinHandle<usize> {
    let stream = client.wire.stream;
    let mut reader = stream.try_clone().expect("a descriptor");
    std::thread::spawn(move || crate::support::drain(&mut reader));
    std::thread::spawn(move || {
        let mut stream = stream;
        stream.set_write_timeout(Some(Duration::from_secs(12))).expect("a timeout");
        let mut sent = 0;
        for first in (0..most).step_by(1_000) {
            let bytes = pairs(first, 1_000.min(most - first));
            if stream.write_all(&bytes).is_err() {
                break;
            }
            sent += bytes.len();
        }
        sent
    })
}

#[test]
fn a_client_that_comes_and_goes_in_many_channels_takes_no_node_out_of_its_cluster() {
    const PAIRS: usize = 200_000;
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [1, 1]);
    let (mut member, mut other) = (a.connect(), b.connect());
    member.join("presence-r", &user("a"));
    other.join("presence-r", &user("b"));
    member.expect(&member_added(&user("b")));
    member.subscribe("news");
    let before = resident_bytes(a.id());
    let flooder = a.connect();
    let flood = flood(flooder, PAIRS);
    let mut delays = Vec::new();
    let start = now();
    let mut grown = 0;
    while start.elapsed() < Duration::from_secs(14) {
        let sent = now();
        b.publish("news", "e", "x");
        member.expect(&event("news", "e", "x"));
        delays.push(sent.elapsed());
        grown = grown.max(resident_bytes(a.id()).saturating_sub(before));
    }
    delays.sort_unstable();
    let worst = delays[delays.len() - 1 - delays.len() / 100];
    assert!(worst < Duration::from_millis(250), "99 of 100 came within {worst:?}");
    assert!(grown < 64 << 20, "{grown} bytes more");
    // A new channel is subscribed to in the same time.
    within(Duration::from_secs(2), "a subscription", || member.subscribe("fresh"));
    other.sync();
    member.sync();
    for node in [&a, &b] {
        assert_eq!(users(node, "presence-r"), ["a", "b"], "nobody is thought dead");
    }
    for node in [&a, &b] {
        node.publish("news", "e", "after");
        member.expect(&event("news", "e", "after"));
    }
    for node in [b, a] {
        node.signal(Signal::TERM);
        let text = node.finish().stdout;
        assert!(
            !text.contains("has sent nothing")
                && !text.contains("Clients of this node still reach each other"),
            "{text}"
        );
    }
    flood.join().expect("the flood");
}

/// With the backend's webhooks, of members on any node.
#[test]
fn a_client_that_comes_and_goes_displaces_no_event_of_members() {
    let redis = Redis::start();
    let endpoint = Endpoint::start(true);
    let [a, _b] = nodes_with(&redis, [1, 1], |setup| {
        setup
            .env("RINGVERB_WEBHOOK_URL", &endpoint.url)
            .env("RINGVERB_WEBHOOK_DEBOUNCE", "0")
            .env("RINGVERB_WEBHOOK_QUEUE_MAX", "200")
    });
    let floods: Vec<_> = (0..4).map(|_| flood(a.connect(), 20_000)).collect();
    for number in 0..100 {
        let mut client = a.connect();
        client.join(&format!("presence-{number}"), &user("a"));
    }
    let mut added = 0;
    let mut occupied = std::collections::BTreeSet::new();
    let start = now();
    while added < 100 && start.elapsed() < std::time::Duration::from_secs(20) {
        let told = endpoint.next();
        let channel = told["channel"].as_str().expect("a name").to_owned();
        if told["name"] == "channel_occupied" {
            occupied.insert(channel);
        } else if told["name"] == "member_added" {
            assert!(occupied.contains(&channel), "{channel} has a member and is not occupied");
            added += 1;
        }
    }
    assert_eq!(added, 100);
    drop(a);
    floods.into_iter().for_each(|flood| drop(flood.join()));
}

#[test]
fn a_topic_that_is_left_and_subscribed_to_again_stays() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [2, 1]);
    let mut client = a.connect();
    client.subscribe("news");
    let commands = |redis: &Redis| {
        let stats = redis.command(&["INFO", "commandstats"]);
        let line = stats.lines().find(|line| line.starts_with("cmdstat_unsubscribe:"));
        line.map_or(0, |line| {
            let calls = line.split("calls=").nth(1).and_then(|rest| rest.split(',').next());
            calls.and_then(|calls| calls.parse::<usize>().ok()).expect("a number")
        })
    };
    for _ in 0..100 {
        client.unsubscribe("news");
        client.subscribe("news");
        b.publish("news", "e", "x");
        client.expect(&event("news", "e", "x"));
    }
    assert_eq!((commands(&redis), subscribed_nodes(&redis, "news")), (0, 1));
    client.unsubscribe("news");
    client.sync();
    assert_eq!(subscribed_nodes(&redis, "news"), 1, "it stays for a moment");
    eventually("it is unsubscribed from", || (subscribed_nodes(&redis, "news") == 0).then_some(()));
}

/// A failover that leaves the connections as they are.
#[test]
fn a_master_that_becomes_a_replica_is_noticed_by_all_its_nodes() {
    let (redis, other) = (Redis::start(), Redis::start());
    let [mut a, b] = nodes(&redis, [2, 1]);
    let (mut one, mut two) = (a.connect(), b.connect());
    one.subscribe("cache-x");
    assert_eq!(one.event()["event"], "pusher:cache_miss");
    two.subscribe("cache-x");
    assert_eq!(two.event()["event"], "pusher:cache_miss");
    redis.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    let line = within(NOTICED, "a demotion", || {
        a.line_with("Clients of this node still reach each other")
    });
    assert!(line.contains("not master"), "{line}");
    // It is delivered here, and stored by the next master.
    a.publish("cache-x", "e", "meanwhile");
    one.expect(&event("cache-x", "e", "meanwhile"));
    redis.command(&["REPLICAOF", "NO", "ONE"]);
    redis_connections_are(&redis, 3);
    two.expect(&event("cache-x", "e", "meanwhile"));
    for node in [&a, &b] {
        node.publish("cache-x", "e", "after");
        for client in [&mut one, &mut two] {
            client.expect(&event("cache-x", "e", "after"));
        }
    }
}

/// The event itself tells it before anybody asks for the role.
#[test]
fn an_event_that_a_replica_does_not_store_is_not_lost() {
    let (redis, other) = (Redis::start(), Redis::start());
    let [mut a, b] = nodes(&redis, [1, 1]);
    let mut two = b.connect();
    two.subscribe("cache-x");
    assert_eq!(two.event()["event"], "pusher:cache_miss");
    redis.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    a.publish("cache-x", "e", "first");
    within(NOTICED, "a demotion", || a.line_with("Clients of this node still reach each other"));
    two.expect(&event("cache-x", "e", "first"));
    redis.command(&["REPLICAOF", "NO", "ONE"]);
    redis_connections_are(&redis, 2);
    a.publish("cache-x", "e", "second");
    two.expect(&event("cache-x", "e", "second"));
    two.sync();
}

/// One node reaches a replica of the others' master: it receives everything, and no other node receives its messages.
#[test]
fn a_node_logs_that_its_redis_is_a_replica() {
    let (master, replica) = (Redis::start(), Redis::start());
    replica.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    let [a] = nodes(&master, [1]);
    let mut b = Setup::new().workers(1).meeting_in(&replica).start();
    let line = b.line_so_far_with("Clients of this node still reach each other");
    assert!(line.contains("\"replica\"") && line.contains("REDIS_HOST"), "{line}");
    let mut client = b.connect();
    client.subscribe("news");
    b.publish("news", "e", "x");
    client.expect(&event("news", "e", "x"));
    drop(a);
}

/// Passes connections on to a Redis, which calls itself a master here, whatever it is.
fn masquerade(redis: &Redis) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let to = ("127.0.0.1", redis.port());
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(to) else { continue };
            for (mut from, mut to) in [
                (near.try_clone().expect("a descriptor"), far.try_clone().expect("a descriptor")),
                (far, near),
            ] {
                std::thread::spawn(move || {
                    let mut chunk = vec![0; 64 * 1024];
                    while let Ok(count @ 1..) = from.read(&mut chunk) {
                        let text: Vec<u8> = replace(&chunk[..count]);
                        if to.write_all(&text).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    port
}

fn replace(bytes: &[u8]) -> Vec<u8> {
    let (role, instead) = (b"role\r\n$7\r\nreplica", b"role\r\n$6\r\nmaster");
    match bytes.windows(role.len()).position(|window| window == role) {
        Some(at) => [&bytes[..at], instead, &replace(&bytes[at + role.len()..])].concat(),
        None => bytes.to_vec(),
    }
}

/// What one node publishes goes to a replica of the server at which the others are: it receives everything, and no
/// other node receives its messages.
#[test]
fn a_session_that_receives_others_and_reaches_none_ends() {
    let (master, replica) = (Redis::start(), Redis::start());
    replica.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    eventually("the replica is in step", || {
        let info = replica.command(&["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    });
    let [a] = nodes(&master, [2]);
    let port = masquerade(&replica).to_string();
    let mut b = Setup::new().workers(2).meeting_in(&replica).env("REDIS_PORT", &port).start();
    b.line_so_far_with("connected to Redis");
    let mut client = b.connect();
    client.subscribe("news");
    a.publish("news", "e", "x");
    client.expect(&event("news", "e", "x"));
    let line = within(NOTICED, "a partition", || {
        b.line_with("Clients of this node still reach each other")
    });
    assert!(line.contains("one-way partition") && line.contains("REDIS_HOST"), "{line}");
    b.publish("news", "e", "y");
    client.expect(&event("news", "e", "y"));
}
