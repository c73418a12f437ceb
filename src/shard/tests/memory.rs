//! What connections are charged, and what one client can cause with short messages.

use serde_json::{Value, json};

use super::net::{Client, Net, Received};
use crate::app::{AppIndex, RateLimit, sample};
use crate::counters::{RefusalCounters, Refused};
use crate::limits;

fn refused(net: &mut Net, why: Refused) -> u64 {
    let counters = RefusalCounters::default();
    counters.drain_from(&mut net.shards[0].outbox.refused);
    counters.get()[why as usize]
}

fn check(net: &Net) {
    let faults: Vec<String> = net.shards.iter().filter_map(|shard| shard.account_fault()).collect();
    assert!(faults.is_empty(), "{faults:?}");
}

/// Codes of the `pusher:error` events among these.
fn errors(received: &[Received]) -> Vec<Value> {
    let errors = received.iter().filter(|one| one.event() == "pusher:error");
    errors.map(|one| one.data()["code"].clone()).collect()
}

fn ping(net: &mut Net, client: Client, payload: &[u8]) {
    net.shards[client.core].on_ping_frame(client.key, payload);
}

#[test]
fn everything_that_is_charged_is_discharged() {
    let mut net = Net::new(3);
    let clients: Vec<Client> = (0..9).map(|number| net.connect(number % 3)).collect();
    for (number, client) in clients.iter().enumerate() {
        net.sign_in(*client, &format!("u{number}"), &["u1", "u2", "u3"]);
        for channel in 0..70 {
            net.subscribe(*client, &format!("c{channel}"), None);
        }
        net.subscribe(*client, "presence-r", Some(&json!(number)));
        net.settle();
        check(&net);
        assert!(net.shards[client.core].charged_bytes() > 70 * 288);
        for channel in (0..70).step_by(3) {
            net.unsubscribe(*client, &format!("c{channel}"));
            check(&net);
        }
        net.sign_in(*client, &format!("u{number}"), &["u4"]);
        check(&net);
    }
    net.settle();
    for client in clients {
        net.vanish(client);
        check(&net);
    }
    net.settle();
    assert!(net.shards.iter().all(|shard| shard.charged_bytes() == 0));
}

#[test]
fn a_subscription_over_the_limit_of_a_connection_is_refused_and_the_others_stay() {
    let mut app = sample();
    app.channels_per_connection_max = 100_000;
    // The net adds 1 MiB to this.
    let mut net = Net::with_queue(1, app, 1 << 16);
    let client = net.connect(0);
    let mut last = Vec::new();
    for number in 0..3_000 {
        net.subscribe(client, &format!("{number:0>190}"), None);
        last = net.events(client);
        if !errors(&last).is_empty() {
            assert!((1_000..1_300).contains(&number), "{number}");
            break;
        }
    }
    assert_eq!(errors(&last), [json!(4300)]);
    check(&net);
    net.unsubscribe(client, &format!("{:0>190}", 0));
    net.subscribe(client, "short", None);
    assert_eq!(net.events(client).len(), 1, "there is room again");
    net.publish(0, "short", &json!(1), None);
    assert_eq!(net.events(client).len(), 1);
    assert_eq!(refused(&mut net, Refused::ConnectionMemory), 1);
}

#[test]
fn without_headroom_subscriptions_and_sign_ins_are_refused_until_it_is_measured_again() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    net.subscribe(client, "before", None);
    net.events(client);
    net.shards[0].set_headroom(1 << 20);
    net.shards[0].set_headroom(1_000);
    for channel in ["a", "b", "c", "d", "e"] {
        net.subscribe(client, channel, None);
    }
    let received = net.events(client);
    assert_eq!(errors(&received), [json!(4100), json!(4100)], "{received:?}");
    net.sign_in(client, &"u".repeat(200), &[]);
    assert_eq!(errors(&net.events(client)), [json!(4100)]);
    // What is there goes on, and what is given back can be used.
    net.publish(0, "before", &json!(1), None);
    assert_eq!(net.events(client).len(), 1);
    net.unsubscribe(client, "before");
    net.subscribe(client, "after", None);
    assert_eq!(errors(&net.events(client)), [] as [Value; 0]);
    net.shards[0].set_headroom(1 << 20);
    net.sign_in(client, &"u".repeat(200), &[]);
    assert_eq!(errors(&net.events(client)), [] as [Value; 0]);
    check(&net);
}

/// A measurement reaches a core some time after it was made.
#[test]
fn headroom_is_reduced_by_bytes_charged_since_the_measurement() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    net.shards[0].set_headroom(1_000);
    net.subscribe(client, "a", None);
    net.subscribe(client, "b", None);
    // Measured before these two subscriptions: there is room for one more.
    net.shards[0].set_headroom(1_000);
    net.subscribe(client, "c", None);
    net.events(client);
    net.subscribe(client, "d", None);
    assert_eq!(errors(&net.events(client)), [json!(4100)]);
    assert!(net.shards[0].note_http(0, 50));
    assert!(!net.shards[0].note_http(0, 500));
    net.shards[0].set_headroom(1_000);
    net.shards[0].set_headroom(1_000);
    assert!(net.shards[0].note_http(0, 500));
}

#[test]
fn a_repeated_presence_subscription_shares_the_encoded_roster() {
    let mut net = Net::new(2);
    let members: Vec<Client> = (0..50).map(|_| net.connect(1)).collect();
    for (number, member) in members.iter().enumerate() {
        net.subscribe(*member, "presence-r", Some(&json!(format!("{number:0>500}"))));
        net.settle();
        net.read(*member);
    }
    let client = net.connect(0);
    let user = json!("me");
    net.subscribe(client, "presence-r", Some(&user));
    let first = net.events(client);
    assert_eq!(first[0].data()["presence"]["count"], 51);
    for _ in 0..300 {
        net.subscribe(client, "presence-r", Some(&user));
    }
    let again = net.events(client);
    assert_eq!(again, [first[0].clone()], "one answer, and the same");
    net.subscribe(client, "presence-r", Some(&user));
    net.vanish(members[0]);
    let last = net.events(client);
    let answers = last.iter().filter(|one| one.event() == "pusher_internal:subscription_succeeded");
    assert_eq!(answers.count(), 1, "{last:?}");
    net.subscribe(client, "presence-r", Some(&user));
    assert_eq!(net.events(client)[0].data()["presence"]["count"], 50, "the roster has changed");
}

#[test]
fn a_connection_that_reads_nothing_has_few_unsent_pongs() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    net.events(client);
    ping(&mut net, client, b"first");
    let _ = net.shards[0].unmark_dirty(client.key.slot);
    net.shards[0].on_sent(client.key.slot, 0, true);
    for number in 0..90_u8 {
        ping(&mut net, client, &[number; 100]);
    }
    assert!(net.shards[0].kept_bytes(client.key) < 200);
    net.shards[0].unblock(client.key.slot);
    assert_eq!(net.read(client), [Received::Pong(b"first".to_vec())]);
    assert_eq!(net.read(client), [Received::Pong(vec![89; 100])], "the latest is answered");
    assert_eq!(net.read(client), []);
}

#[test]
fn pings_of_a_reading_client_are_answered_up_to_a_rate() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    net.events(client);
    for number in 0..limits::CONTROL_FRAMES_PER_SECOND_MAX {
        ping(&mut net, client, &number.to_be_bytes());
        assert_eq!(net.read(client), [Received::Pong(number.to_be_bytes().to_vec())]);
    }
    ping(&mut net, client, b"over");
    assert_eq!(net.read(client), []);
    assert_eq!(refused(&mut net, Refused::ControlFrameRate), 1);
    ping(&mut net, client, b"over too");
    net.advance(1);
    assert_eq!(net.read(client), [Received::Pong(b"over too".to_vec())], "the latest, later");
    ping(&mut net, client, b"later");
    assert_eq!(net.read(client), [Received::Pong(b"later".to_vec())]);
}

#[test]
fn messages_over_the_rate_get_one_error_a_window_and_each_subscription_is_answered() {
    let mut app = sample();
    app.rate_limit =
        Some(RateLimit { attempts_max: 3, decay_seconds: 10, terminate_on_limit: false });
    let mut net = Net::with_app(1, app);
    let client = net.connect(0);
    net.events(client);
    for _ in 0..100 {
        net.say(client, "{\"event\":\"pusher:ping\"}");
    }
    let received = net.events(client);
    assert_eq!((received.len(), errors(&received)), (4, vec![json!(4301)]));
    for _ in 0..3 {
        net.subscribe(client, "news", None);
    }
    assert_eq!(errors(&net.events(client)), vec![json!(4301); 3]);
    net.advance(10);
    net.subscribe(client, "news", None);
    assert_eq!(errors(&net.events(client)), [] as [Value; 0]);
}

#[test]
fn client_events_over_the_rate_get_one_error_a_second() {
    let mut app = sample();
    app.client_events_per_second_max = Some(2);
    let mut net = Net::with_app(1, app);
    let client = net.connect(0);
    net.subscribe(client, "private-x", None);
    net.events(client);
    for second in 0..2 {
        for _ in 0..20 {
            net.say(client, "{\"event\":\"client-e\",\"channel\":\"private-x\",\"data\":1}");
        }
        assert_eq!(errors(&net.events(client)), [json!(4301)], "{second}");
        net.advance(1);
    }
}

/// The client continues in a process with the same configuration and clock.
fn transferred(from: &Net, client: Client, to: &mut Net) -> Client {
    let mut exported = from.shards[client.core].export_connections();
    let (key, state) = exported.next().unwrap().unwrap();
    assert!(key == client.key && exported.next().is_none(), "the only one");
    let key = to.shards[0].import_connection(state);
    to.shards[0].finish_import();
    to.post(0);
    to.settle();
    Client { core: 0, key, ..client }
}

#[test]
fn an_error_for_a_rate_is_not_repeated_after_a_take_over() {
    let mut app = sample();
    app.rate_limit =
        Some(RateLimit { attempts_max: 30, decay_seconds: 10, terminate_on_limit: false });
    app.client_events_per_second_max = Some(2);
    let net = || {
        let mut net = Net::with_app(1, app.clone());
        net.advance(20);
        net
    };
    let (event, ping) = (
        "{\"event\":\"client-e\",\"channel\":\"private-x\",\"data\":1}",
        "{\"event\":\"pusher:ping\"}",
    );
    let mut old = net();
    let client = old.connect(0);
    old.subscribe(client, "private-x", None);
    old.settle();
    (0..5).for_each(|_| old.say(client, event));
    assert_eq!(errors(&old.events(client)), [json!(4301)], "of the client events");
    let mut new = net();
    let client = transferred(&old, client, &mut new);
    (0..5).for_each(|_| new.say(client, event));
    assert_eq!(new.events(client), [], "the error of this second was sent");
    (0..30).for_each(|_| new.say(client, ping));
    assert_eq!(errors(&new.events(client)), [json!(4301)], "of the messages");
    let mut newest = net();
    let client = transferred(&new, client, &mut newest);
    (0..5).for_each(|_| newest.say(client, ping));
    assert_eq!(newest.events(client), [], "the error of this window was sent");
    newest.advance(10);
    (0..3).for_each(|_| newest.say(client, event));
    assert_eq!(errors(&newest.events(client)), [json!(4301)], "another second and window");
}

/// A client whose second is not over has its error still to come.
#[test]
fn an_error_for_a_rate_that_was_not_sent_before_a_take_over_is_sent_after_it() {
    let mut app = sample();
    app.client_events_per_second_max = Some(2);
    let (mut old, mut new) = (Net::with_app(1, app.clone()), Net::with_app(1, app));
    let event = "{\"event\":\"client-e\",\"channel\":\"private-x\",\"data\":1}";
    let client = old.connect(0);
    old.subscribe(client, "private-x", None);
    old.settle();
    (0..2).for_each(|_| old.say(client, event));
    old.events(client);
    let client = transferred(&old, client, &mut new);
    (0..2).for_each(|_| new.say(client, event));
    assert_eq!(errors(&new.events(client)), [json!(4301)]);
}

#[test]
fn many_subscriptions_are_found_and_left_in_any_order() {
    let mut app = sample();
    app.channels_per_connection_max = 1_000;
    let mut net = Net::with_app(2, app);
    let client = net.connect(0);
    let name = |number: usize| format!("c{number}");
    (0..1_000).for_each(|number| net.subscribe(client, &name(number), None));
    net.settle();
    net.subscribe(client, "one-more", None);
    net.settle();
    assert_eq!(errors(&net.read(client)), [json!(4300)]);
    // Every third leaves, in an order that is neither that of the list nor its opposite.
    (0..1_000).for_each(|number| {
        let number = number * 7 % 1_000;
        if number % 3 == 0 {
            net.unsubscribe(client, &name(number));
        }
    });
    net.events(client);
    check(&net);
    for number in 0..1_000 {
        net.publish(1, &name(number), &json!(number), None);
        net.settle();
        let received = net.read(client);
        assert_eq!(received.len(), usize::from(number % 3 != 0), "{number}");
    }
    (0..1_000).for_each(|number| net.unsubscribe(client, &name(number)));
    net.settle();
    check(&net);
    assert_eq!(net.shards.iter().map(|shard| shard.channel_counts().0).sum::<usize>(), 0);
}

#[test]
fn a_join_with_a_roster_over_the_memory_limit_is_refused() {
    let mut net = Net::new(2);
    for number in 0..30 {
        let member = net.connect(number % 2);
        net.subscribe(member, "presence-r", Some(&json!(format!("{number:0>1000}"))));
        net.settle();
        net.read(member);
    }
    net.shards.iter_mut().for_each(|shard| shard.set_headroom(20_000));
    let late = net.connect(0);
    net.subscribe(late, "presence-r", Some(&json!("late")));
    assert_eq!(errors(&net.events(late)), [json!(4100)]);
    check(&net);
    net.shards.iter_mut().for_each(|shard| shard.set_headroom(1 << 24));
    net.subscribe(late, "presence-r", Some(&json!("late")));
    assert_eq!(net.events(late)[0].data()["presence"]["count"], 31);
}

/// A refusal would leave the subscriber without an answer to this and to every later request.
#[test]
fn a_repeated_subscription_to_a_presence_channel_is_answered_without_headroom() {
    let mut net = Net::new(1);
    let (member, other) = (net.connect(0), net.connect(0));
    net.subscribe(member, "presence-r", Some(&json!("a")));
    net.events(member);
    net.subscribe(other, "presence-r", Some(&json!("b")));
    // So the roster has to be encoded again.
    net.unsubscribe(other, "presence-r");
    net.events(member);
    net.shards[0].set_headroom(0);
    for _ in 0..2 {
        net.subscribe(member, "presence-r", Some(&json!("a")));
        assert_eq!(net.events(member)[0].data()["presence"]["count"], 1);
    }
    net.shards[0].check_invariants(&[]).unwrap();
}

/// As for a roster that came from other nodes: it was never encoded here.
#[test]
fn the_first_join_after_a_take_over_is_charged_for_the_roster_and_so_is_a_repeated_one() {
    let mut net = Net::new(1);
    for number in 0..30 {
        let member = net.connect(0);
        net.subscribe(member, "presence-r", Some(&json!(format!("{number:0>1000}"))));
        net.settle();
        net.read(member);
    }
    let key = net.shards[0].channel_key(AppIndex(0), "presence-r").unwrap();
    let home = &mut net.shards[0].home;
    let index = home.channels.find_index(&key).unwrap();
    let roster = home.channels.get_mut(index).roster.take().unwrap();
    home.channels.get_mut(index).roster = Some(Box::new(roster.into_transferred()));
    // Enough for the answer of 60 KB, and not for what it is made from. The first call subtracts what was charged
    // before.
    net.shards[0].set_headroom(150_000);
    net.shards[0].set_headroom(150_000);
    let late = net.connect(0);
    // A new user, and a user in the roster.
    for user in ["late".to_owned(), format!("{:0>1000}", 7)] {
        net.subscribe(late, "presence-r", Some(&json!(user)));
        assert_eq!(errors(&net.events(late)), [json!(4100)], "{user}");
    }
    net.shards[0].set_headroom(1 << 24);
    net.subscribe(late, "presence-r", Some(&json!("late")));
    assert_eq!(net.events(late)[0].data()["presence"]["count"], 31);
}
