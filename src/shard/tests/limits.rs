//! Limits of a connection, an app and a presence channel, and what is closed at the limit.

use serde_json::json;

use super::net::{Client, Net, Received};
use super::rules::{assert_error, names, users};
use crate::app::{AppIndex, RateLimit, sample};
use crate::buffer::FrameBytes;
use crate::pusher::error_code;

#[test]
fn the_rate_limit_drops_or_closes() {
    for terminate_on_limit in [false, true] {
        let mut app = sample();
        app.rate_limit = Some(RateLimit { attempts_max: 3, decay_seconds: 2, terminate_on_limit });
        let mut net = Net::with_app(1, app);
        let client = net.connect(0);
        net.events(client);
        let ping = "{\"event\":\"pusher:ping\"}";
        for _ in 0..3 {
            net.say(client, ping);
            assert_eq!(names(&net.events(client)), ["pusher:pong"]);
        }
        net.say(client, ping);
        let received = net.events(client);
        assert_error(&received[..1], error_code::RATE_LIMITED);
        if terminate_on_limit {
            assert_eq!(received[1..], [Received::Closed(4100)]);
        } else {
            net.advance(2);
            net.say(client, ping);
            assert_eq!(names(&net.events(client)), ["pusher:pong"]);
        }
    }
}

#[test]
fn a_slow_consumer_is_closed_and_other_connections_are_served() {
    let mut net = Net::with_queue(2, sample(), 2_000);
    let [slow, quick] = [0, 0].map(|core| net.connect(core));
    for (client, user) in [(slow, json!(1)), (quick, json!(2))] {
        net.subscribe(client, "presence-r", Some(&user));
    }
    net.events(slow);
    net.events(quick);
    let mut received = 0;
    for number in 0..100 {
        net.publish(1, "presence-r", &json!(number), None);
        let events = net.events(quick);
        received += events.iter().filter(|one| one.event() == "e").count();
    }
    assert_eq!(received, 100, "the other one got everything");
    assert_eq!(users(&net, "presence-r"), ["2"], "the slow one has left");
    assert_eq!(net.events(slow), [Received::Closed(4100)]);
}

/// With an entry for each refused frame, 5,000 slow readers of 1,000 events in one tick had five million.
#[test]
fn a_slow_consumer_is_in_the_list_once_however_many_frames_it_is_refused() {
    let mut net = Net::with_queue(1, sample(), 2_000);
    for _ in 0..3 {
        let client = net.connect(0);
        net.subscribe(client, "a", None);
    }
    net.settle();
    let shard = &mut net.shards[0];
    let channel = shard.channel_key(AppIndex(0), "a").unwrap();
    let frame = FrameBytes::from(vec![b'x'; 100]);
    for _ in 0..1_000 {
        shard.local.deliver(&mut shard.outbox.dirty, &channel, &frame, None);
        for client in shard.keys().collect::<Vec<_>>() {
            shard.on_ping_frame(client, b"");
        }
    }
    assert_eq!(shard.local.slow_consumers.len(), 3);
    shard.settle();
    assert!(shard.local.slow_consumers.is_empty());
    let open = shard.local.connections.iter().filter(|(_, found)| !found.is_closing).count();
    assert_eq!(open, 0, "all are closed");
}

#[test]
fn one_connection_has_so_many_channels_at_most() {
    let mut net = Net::new(2);
    let client = net.connect(0);
    for number in 0..100 {
        net.subscribe(client, &format!("c{number}"), None);
    }
    net.events(client);
    net.subscribe(client, "one-more", None);
    assert_error(&net.events(client), error_code::TOO_MANY_CHANNELS);
    net.unsubscribe(client, "c50");
    net.subscribe(client, "one-more", None);
    assert_eq!(names(&net.events(client)), ["subscription_succeeded"]);
}

#[test]
fn a_full_presence_channel_refuses_new_members() {
    let mut app = sample();
    app.presence_members_max = Some(1);
    app.subscription_errors = true;
    let mut net = Net::with_app(3, app);
    let [anna, ben, anna_again] = [0, 1, 2].map(|core| net.connect(core));
    for client in [anna, ben, anna_again] {
        net.events(client);
    }
    net.subscribe(anna, "presence-r", Some(&json!(1)));
    net.subscribe(anna_again, "presence-r", Some(&json!(1)));
    assert_eq!(names(&net.events(anna)), ["subscription_succeeded"]);
    assert_eq!(names(&net.events(anna_again)), ["subscription_succeeded"], "no new user");
    net.subscribe(ben, "presence-r", Some(&json!(2)));
    let refused = net.events(ben);
    assert_error(&refused[..1], error_code::TOO_MANY_MEMBERS);
    assert_eq!(
        (refused[1].event(), refused[1].channel()),
        ("pusher:subscription_error", "presence-r")
    );
    assert_eq!(refused[1].data()["type"], json!("LimitReached"));
    net.vanish(anna);
    net.vanish(anna_again);
    net.settle();
    net.subscribe(ben, "presence-r", Some(&json!(2)));
    assert_eq!(names(&net.events(ben)), ["subscription_succeeded"]);
    net.vanish(ben);
    net.settle();
    assert!(net.shards.iter().all(|shard| shard.channel_counts() == (0, 0)));
}

#[test]
fn a_refused_connection_of_a_member_causes_no_member_removed() {
    // The refused connection's leave must not count against the user's other connection, admitted before it.
    let mut app = sample();
    app.presence_members_max = Some(1);
    let mut net = Net::with_app(2, app);
    let [anna, ben, ben_again] = [0, 1, 1].map(|core| net.connect(core));
    net.subscribe(anna, "presence-r", Some(&json!(1)));
    net.settle();
    net.subscribe(ben, "presence-r", Some(&json!(2)));
    net.vanish(ben);
    net.settle();
    net.vanish(anna);
    net.subscribe(ben_again, "presence-r", Some(&json!(2)));
    net.settle();
    assert_eq!(users(&net, "presence-r"), ["2"]);
}

#[test]
fn the_longest_queues_are_shed_first_and_short_ones_never() {
    let mut net = Net::new(1);
    let [long, shorter, short, idle] = [0; 4].map(|core| net.connect(core));
    for client in [long, shorter, short, idle] {
        net.subscribe(client, "news", None);
        net.events(client);
    }
    let data = json!("x".repeat(10_000));
    let waiting = |net: &Net, client: Client| {
        net.shards[0].send_queue(client.key.slot).map_or(0, |queue| queue.bytes())
    };
    for number in 0..30 {
        net.publish(0, "news", &data, None);
        for (client, reads_until) in [(shorter, 15), (short, 29), (idle, 30)] {
            if number < reads_until {
                net.read(client);
            }
        }
    }
    assert!(waiting(&net, long) > 300_000 && waiting(&net, shorter) > 150_000);
    assert!((10_000..16_384).contains(&waiting(&net, short)));
    let shed = |net: &mut Net| {
        net.shards[0].shed(0..100, |_| 0);
        net.post(0);
        net.settle();
    };
    let open = |net: &Net, client: Client| {
        net.shards[0].get(client.key).is_some_and(|found| !found.is_closing())
    };
    net.shards[0].shed(1..100, |_| 0);
    assert!(open(&net, long), "only those asked about");
    assert!(!open(&net, shorter));
    shed(&mut net);
    assert!(!open(&net, long));
    assert_eq!(net.events(long), [Received::Closed(4100)], "what it had not read is gone");
    shed(&mut net);
    assert!(open(&net, short) && open(&net, idle), "they are not what fills the memory");
    let counters = crate::counters::RefusalCounters::default();
    counters.drain_from(&mut net.shards[0].outbox.refused);
    assert_eq!(counters.get()[crate::counters::Refused::Shed as usize], 2);
}
