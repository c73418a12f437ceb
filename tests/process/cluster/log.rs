//! What the log says of Redis and of other nodes: once for the node, not once for each worker.

use std::net::TcpListener;

use crate::support::cluster::{PREFIX, nodes, redis_connections_are};
use crate::support::{Redis, Setup};

const ALONE: &str = ". Clients of this node still reach each other; retrying.";

#[test]
fn an_outage_of_redis_and_its_end_are_one_log_line_each_for_all_workers() {
    let mut redis = Redis::start();
    redis.stop();
    let mut server = Setup::new().workers(3).meeting_in(&redis).start();
    let line = server.line_so_far_with("cannot reach Redis");
    let address = format!("127.0.0.1:{}", redis.port());
    let told = format!(" WARN cannot reach Redis at {address}: connection refused{ALONE}");
    assert!(line.ends_with(&told), "{line}");
    redis.restart();
    redis_connections_are(&redis, 3);
    let line = server.line_with("connected to Redis");
    assert!(line.ends_with(&format!(" INFO connected to Redis at {address}")), "{line}");
    redis.stop();
    let line = server.line_with(" ended: ");
    // Closed or reset.
    let told = format!(" WARN the connection to Redis at {address} ended: ");
    assert!(line.contains(&told) && line.ends_with(ALONE), "{line}");
    redis.restart();
    redis_connections_are(&redis, 3);
    server.line_with("connected to Redis");
    server.signal(rustix::process::Signal::TERM);
    let stdout = server.finish().stdout;
    assert_eq!(stdout.matches("connected to Redis").count(), 2, "{stdout}");
    assert_eq!(stdout.matches(ALONE).count(), 2, "{stdout}");
}

/// A wrong port, for instance.
#[test]
fn an_address_that_accepts_and_never_answers_is_named() {
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = mute.local_addr().expect("an address").port();
    let mut server = Setup::new()
        .workers(2)
        .env("REVERB_SCALING_ENABLED", "true")
        .env("REDIS_HOST", "127.0.0.1")
        .env("REDIS_PORT", &port.to_string())
        .start();
    let line = server.line_so_far_with(" ended: ");
    let told = format!(
        "the connection to Redis at 127.0.0.1:{port} ended: it has not answered for 5 seconds{ALONE}"
    );
    assert!(line.ends_with(&told), "{line}");
}

#[test]
fn a_node_without_heartbeats_is_logged_once_with_its_host() {
    let redis = Redis::start();
    let [mut a, mut b] = nodes(&redis, [3, 2]);
    let line = b.line_so_far_with("this is node ");
    let (_, rest) = line.split_once("this is node ").expect("the line");
    let (node, who) = rest.split_once(' ').expect("a number");
    assert_eq!(node.len(), 16, "{line}");
    assert!(who.starts_with("(host ") && who.ends_with(&format!(", pid {})", b.id())), "{line}");
    // A worker of the first node that connects to Redis later than the second node may know that node only by its next
    // heartbeat.
    let mut tap = redis.tap(&format!("{PREFIX}:rv1:all"));
    let sender = varint(u64::from_str_radix(node, 16).expect("16 digits"));
    while !tap.next().starts_with(&sender) {}
    b.pause();
    let line = a.line_with("has sent nothing for 10 s");
    assert!(line.contains(&format!("node {node} has sent nothing")), "{line}");
    b.kill();
    a.signal(rustix::process::Signal::TERM);
    let stdout = a.finish().stdout;
    assert_eq!(stdout.matches("has sent nothing").count(), 1, "{stdout}");
}

/// A number as messages of nodes begin with it: seven bits a byte, the lowest first.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}
