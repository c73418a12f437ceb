//! Values that no correct clock, node or process gives: they must not end the process, nor leave anything behind.

use serde_json::json;

use super::net::{APP, Net};
use crate::app::{RateLimit, sample};
use crate::clock::Moment;
use crate::counters::{RefusalCounters, Refused};
use crate::pusher::socket_id::SocketId;
use crate::shard::local::connection::SubscriptionState;
use crate::shard::{ChannelState, ConnectionKey, ConnectionState, Described, HomeState, Shard};

/// A connection as another process gives it.
fn given(subscriptions: &[&str], seconds: u32) -> ConnectionState {
    ConnectionState {
        app: sample().id.as_str().into(),
        socket_id: SocketId::parse("1.2").unwrap(),
        subscriptions: subscriptions.iter().map(|name| ((*name).into(), None)).collect(),
        begun_frame: Vec::new(),
        unsent: Vec::new(),
        is_closing: false,
        last_inbound_seconds: seconds,
        rate_window_seconds: seconds,
        rate_count: 1,
        awaits_pong: false,
        speaks_control_frames: false,
        is_authorized: false,
        authorize_by_seconds: None,
        user: None,
        client_event_count: 0,
        client_event_second: 0,
    }
}

fn limited() -> Net {
    let limit = RateLimit { attempts_max: 2, decay_seconds: 10, terminate_on_limit: false };
    let mut app = sample();
    app.rate_limit = Some(limit);
    Net::with_app(1, app)
}

fn subscriptions(shard: &Shard, key: ConnectionKey) -> usize {
    shard.get(key).unwrap().subscriptions.len()
}

#[test]
fn time_stands_still_when_the_clock_goes_back() {
    let mut net = limited();
    let client = net.connect(0);
    let shard = &mut net.shards[0];
    shard.advance(Moment(100_000));
    shard.on_message(client.key, br#"{"event":"pusher:ping"}"#);
    shard.advance(Moment(50_000));
    assert_eq!(shard.now(), Moment(100_000));
    shard.on_message(client.key, br#"{"event":"pusher:ping"}"#);
    shard.advance(Moment(101_000));
    assert_eq!(shard.now(), Moment(101_000));
    assert!(shard.get(client.key).is_some());
}

#[test]
fn times_of_another_process_that_are_in_the_future_count_as_now() {
    let mut net = limited();
    let shard = &mut net.shards[0];
    shard.advance(Moment(5_000));
    let key = shard.import_connection(given(&[], u32::MAX));
    shard.finish_import();
    let connection = shard.get(key).unwrap();
    assert_eq!((connection.last_inbound_seconds, connection.rate_window_seconds), (5, 5));
    shard.on_message(key, br#"{"event":"pusher:ping"}"#);
    let silent = u64::from(sample().ping_interval_seconds + sample().pong_timeout_seconds) + 10;
    for second in 6..6 + silent {
        shard.advance(Moment(second * 1_000));
    }
    assert!(shard.get(key).unwrap().is_closing(), "a silent client is pinged and closed");
}

#[test]
fn a_second_of_client_events_that_is_in_the_future_counts_as_this_one() {
    let mut app = sample();
    app.client_events_per_second_max = Some(2);
    let mut net = Net::with_app(1, app);
    let shard = &mut net.shards[0];
    shard.advance(Moment(5_000));
    let mut state = given(&["private-a"], 5);
    (state.client_event_count, state.client_event_second) = (1, u32::MAX);
    let key = shard.import_connection(state);
    shard.finish_import();
    let event = br#"{"event":"client-e","channel":"private-a","data":{}}"#;
    let counters = RefusalCounters::default();
    let mut refused_after = |now| {
        shard.advance(Moment(now));
        shard.on_message(key, event);
        counters.drain_from(&mut shard.outbox.refused);
        counters.get()[Refused::MessageRate as usize]
    };
    assert_eq!(refused_after(5_000), 0, "the second one");
    assert_eq!(refused_after(5_000), 1, "the third one in this second");
    assert_eq!(refused_after(6_000), 1, "another second has begun");
}

#[test]
fn a_channel_that_another_process_names_twice_is_subscribed_once() {
    let names: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    let names: Vec<&str> = names.iter().chain(&names).map(String::as_str).collect();
    let mut net = Net::new(1);
    let shard = &mut net.shards[0];
    let key = shard.import_connection(given(&names, 0));
    shard.finish_import();
    assert_eq!(subscriptions(shard, key), 40);
    let all = &shard.get(key).unwrap().subscriptions;
    assert!(
        all.iter().all(|one| matches!(one.state, SubscriptionState::Active { position: 0, .. }))
    );
    assert_eq!(shard.account_fault(), None);
    shard.remove(key);
    assert_eq!(shard.channel_counts(), (0, 0));
    assert_eq!(shard.charged_bytes(), 0);
}

/// An event that is larger than the whole cache is forgotten at once, and the channel with it.
#[test]
fn a_transferred_cached_event_without_room_leaves_no_entry() {
    let mut net = Net::new(1);
    let shard = &mut net.shards[0];
    let cached = Some((vec![b'x'; 2 << 20], u32::MAX));
    let home = HomeState { members: Vec::new(), cached, count_sent: Some((3, 0)) };
    let (app, name) = (sample().id.as_str().into(), "cache-a".into());
    shard.import_channel(ChannelState { app, name, home });
    shard.finish_import();
    assert_eq!(shard.channel_counts(), (0, 0));
    assert_eq!(shard.user_and_count_entries(), 0);
}

/// The number comes before the connections, which other cores may send later.
#[test]
fn a_transferred_number_waits_for_its_subscribers_and_leaves_no_entry_without_them() {
    let mut net = Net::new(1);
    let shard = &mut net.shards[0];
    let home = HomeState { members: Vec::new(), cached: None, count_sent: Some((3, 0)) };
    let (app, name) = (sample().id.as_str().into(), "a".into());
    shard.import_channel(ChannelState { app, name, home });
    assert_eq!(shard.check_invariants(&[]), Ok(()));
    shard.finish_import();
    shard.advance(Moment(4_999));
    assert_eq!(shard.user_and_count_entries(), 1);
    shard.advance(Moment(5_000));
    assert_eq!(shard.channel_counts(), (0, 0));
    assert_eq!(shard.user_and_count_entries(), 0);
}

#[test]
fn numbers_of_other_nodes_do_not_overflow_a_sum() {
    let mut sum = Described { subscription_count: 2, ..Described::default() };
    sum.merge(Described { subscription_count: usize::MAX, ..Described::default() });
    assert_eq!(sum.subscription_count, usize::MAX);
}

/// In a cluster a subscription that is ended before its answer is withdrawn at the home, which answers. One that ends
/// by its answer must not wait for a second.
#[test]
fn a_core_forgets_a_channel_that_was_full_for_its_only_client() {
    let mut app = sample();
    app.presence_members_max = Some(1);
    let mut net = Net::in_cluster(2, app);
    let channel = net.shards[0].channel_key(APP, "presence-a").unwrap();
    let home = usize::from(net.shards[0].context.keys.home(&channel));
    let (member, other) = (net.connect(home), net.connect(1 - home));
    net.subscribe(member, "presence-a", Some(&json!("1")));
    net.settle();
    net.subscribe(other, "presence-a", Some(&json!("2")));
    net.settle();
    assert_eq!(subscriptions(&net.shards[1 - home], other.key), 0, "it was full");
    assert_eq!(net.shards[1 - home].channel_counts(), (0, 0));
    assert_eq!(net.shards[home].channel_counts(), (1, 1));
}
