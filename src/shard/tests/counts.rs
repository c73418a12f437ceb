//! Numbers of subscribers of a channel: when its subscribers receive them.

use serde_json::json;

use super::net::{Client, Net};
use super::users::{counting, names};

#[test]
fn subscription_counts_are_sent_at_a_limited_rate() {
    let mut net = Net::with_app(2, counting());
    let first = net.connect(0);
    net.subscribe(first, "news", None);
    let received = net.events(first);
    assert_eq!(
        names(&received),
        ["_internal:subscription_succeeded", "_internal:subscription_count"]
    );
    assert_eq!(received[1].data(), json!({"subscription_count": 1}));
    let others: Vec<Client> = (0..120).map(|index| net.connect(index % 2)).collect();
    for other in &others[..99] {
        net.subscribe(*other, "news", None);
        net.settle();
    }
    assert_eq!(net.events(first).len(), 99, "each change up to 100");
    for other in &others[99..] {
        net.subscribe(*other, "news", None);
        net.settle();
    }
    assert!(net.events(first).len() <= 1);
    net.advance(5);
    assert_eq!(net.events(first).last().unwrap().data(), json!({"subscription_count": 121}));
    net.subscribe(first, "presence-r", Some(&json!(1)));
    assert_eq!(names(&net.events(first)), ["_internal:subscription_succeeded"]);
}

/// The number is as before, so it is no change for the others.
#[test]
fn a_subscriber_who_takes_the_place_of_another_in_one_tick_receives_the_number() {
    let mut net = Net::with_app(1, counting());
    let (leaves, comes) = (net.connect(0), net.connect(0));
    net.subscribe(leaves, "news", None);
    net.settle();
    net.unsubscribe(leaves, "news");
    net.subscribe(comes, "news", None);
    net.settle();
    let received = net.events(comes);
    assert_eq!(
        names(&received),
        ["_internal:subscription_succeeded", "_internal:subscription_count"]
    );
    assert_eq!(received[1].data(), json!({"subscription_count": 1}));
    // Above the number up to which each change is sent, it comes at the end of the pause.
    let many: Vec<Client> = (0..120).map(|_| net.connect(0)).collect();
    many.iter().for_each(|client| net.subscribe(*client, "large", None));
    net.advance(5);
    net.unsubscribe(many[0], "large");
    net.subscribe(comes, "large", None);
    net.settle();
    net.advance(5);
    assert_eq!(net.events(comes).last().unwrap().data(), json!({"subscription_count": 120}));
}

/// The pause of a channel begins with its own last number: a change waits behind no other channel's.
#[test]
fn a_number_that_was_held_back_is_sent_when_the_pause_of_its_own_channel_is_over() {
    let mut net = Net::with_app(1, counting());
    let clients: Vec<Client> = (0..103).map(|_| net.connect(0)).collect();
    let join = |net: &mut Net, channel: &str, range: std::ops::Range<usize>| {
        for client in &clients[range] {
            net.subscribe(*client, channel, None);
        }
        net.settle();
    };
    join(&mut net, "early", 0..101);
    net.advance(3);
    join(&mut net, "late", 0..101);
    join(&mut net, "late", 101..102);
    net.advance(1);
    join(&mut net, "early", 101..102);
    assert_eq!(net.shards[0].counts_waiting(), 2);
    clients.iter().for_each(|client| drop(net.events(*client)));
    let told = |net: &mut Net| -> Vec<String> {
        net.events(clients[0]).iter().map(|event| event.channel().to_owned()).collect()
    };
    net.advance(1);
    assert_eq!(told(&mut net), ["early"], "5 s after its last number");
    net.advance(3);
    assert_eq!(told(&mut net), ["late"]);
    assert_eq!(net.shards[0].counts_waiting(), 0, "none waits any longer");
}

#[test]
fn a_channel_that_is_made_again_sends_its_number_at_a_limited_rate_and_leaves_no_entry() {
    let mut net = Net::with_app(1, counting());
    let clients: Vec<Client> = (0..102).map(|_| net.connect(0)).collect();
    for _ in 0..3 {
        for client in &clients {
            net.subscribe(*client, "news", None);
        }
        net.settle();
        assert!(net.shards[0].check_invariants(&[]).is_ok());
        for client in &clients {
            net.unsubscribe(*client, "news");
        }
        net.settle();
        net.advance(1);
        assert!(
            net.shards[0].check_invariants(&[]).is_ok(),
            "no number of a dropped channel waits"
        );
    }
}
