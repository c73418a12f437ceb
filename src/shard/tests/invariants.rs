//! Each invariant of the shard is violated once, and `check_invariants` must name it. A check that finds nothing would
//! let the simulator pass whatever happens.

use crate::shard::slots::ChannelSlot;
use crate::slot::Slot;
use serde_json::json;

use super::net::Net;
use crate::app::AppIndex;
use crate::shard::local::channel_table::LocalChannel;
use crate::shard::local::connection::SubscriptionState;
use crate::shard::state::{HomeState, MemberState};
use crate::shard::{ChannelKey, Mail, Shard};

type Corrupt = fn(&mut Shard);

const ROOM: &str = "presence-r";
const USER: &str = "#server-to-user-1";

/// A core with one connection, in slot 0. Its subscriptions are `a` and `presence-r`, it is signed in as user 1 and
/// watches user 2. All its frames are sent.
fn shard() -> Shard {
    let mut net = Net::new(1);
    let client = net.connect(0);
    net.subscribe(client, "a", None);
    net.subscribe(client, ROOM, Some(&json!("1")));
    net.sign_in(client, "1", &["2"]);
    net.settle();
    net.read(client);
    let mut shard = net.shards.remove(0);
    shard.outbox.dirty.clear();
    check(&shard).expect("all holds before");
    shard
}

fn check(shard: &Shard) -> Result<(), String> {
    shard.check_invariants(&[])?;
    shard.check_sides_agree()?;
    shard.check_gauges()
}

fn key(shard: &Shard, name: &str) -> ChannelKey {
    shard.channel_key(AppIndex(0), name).unwrap()
}

fn each_is_named(rows: &[(&str, Corrupt)]) {
    for (violation, corrupt) in rows {
        let mut shard = shard();
        corrupt(&mut shard);
        let found = check(&shard).expect_err(violation);
        assert!(found.contains(violation), "{found}, not {violation}");
    }
}

#[test]
fn violations_at_a_connection_are_named() {
    each_is_named(&[
        ("slot 0 is dirty and in no list", |shard| {
            shard.local.connections[Slot::new(0)].is_dirty = true
        }),
        ("slot 0 is dirty and blocked", |shard| {
            shard.outbox.dirty.push(Slot::new(0));
            shard.local.connections[Slot::new(0)].is_dirty = true;
            shard.local.connections[Slot::new(0)].is_blocked = true;
        }),
        ("slot 0 has frames that nobody sends", |shard| {
            let client = shard.keys().next().unwrap();
            shard.on_ping_frame(client, b"");
            shard.outbox.dirty.clear();
            shard.local.connections[Slot::new(0)].is_dirty = false;
        }),
        ("slot 0 is over its limit and nobody closes it", |shard| {
            shard.local.connections[Slot::new(0)].has_overflowed = true;
        }),
        ("slot 0 is closing and still in a channel", |shard| {
            shard.local.connections[Slot::new(0)].is_closing = true;
        }),
        ("slot 0 is to be looked at 2 times", |shard| {
            let client = shard.keys().next().unwrap();
            shard.local.wheel.add(client, 60);
        }),
        ("slot 0 is charged", |shard| shard.local.connections[Slot::new(0)].charged_bytes += 1),
        ("the account says", |shard| {
            shard.local.connections[Slot::new(0)].charged_bytes += 1;
            shard.local.connections[Slot::new(0)].subscriptions[0].charge += 1;
        }),
        ("mail of the shard to itself is left", |shard| {
            let channel = key(shard, "a");
            shard.outbox.own_mail.to_home.push_back(Mail::Disinterest { channel, core: 0 });
        }),
    ]);
}

#[test]
fn violations_between_a_connection_and_its_channels_are_named() {
    each_is_named(&[
        ("channel 0 is not at 1", |shard| {
            shard.local.connections[Slot::new(0)].subscriptions[1].channel = ChannelSlot::new(0);
        }),
        ("is subscribed to channel 99, which is gone", |shard| {
            shard.local.connections[Slot::new(0)].subscriptions[0].channel = ChannelSlot::new(99);
        }),
        ("no answer of a will come", |shard| {
            let state = SubscriptionState::Pending { ticket: 1 };
            shard.local.connections[Slot::new(0)].subscriptions[0].state = state;
        }),
        ("no second answer will come", |shard| {
            let state = SubscriptionState::Active { position: 0, asks_again: true };
            shard.local.connections[Slot::new(0)].subscriptions[0].state = state;
        }),
        ("a has Some", |shard| {
            shard.local.channels[ChannelSlot::new(0)].subscribers[0].subscription_index = 7;
        }),
        ("a has None at 5", |shard| {
            let state = SubscriptionState::Active { position: 5, asks_again: false };
            shard.local.connections[Slot::new(0)].subscriptions[0].state = state;
        }),
        ("a: subscribers, and the home does not know", |shard| {
            shard.local.channels[ChannelSlot::new(0)].is_active = false;
        }),
        ("2 active subscriptions, 3 subscribers", |shard| {
            let subscribers = &mut shard.local.channels[ChannelSlot::new(0)].subscribers;
            subscribers.push(subscribers[0]);
        }),
        ("a: its number has changed, and nobody sends it", |shard| {
            shard.local.channels[ChannelSlot::new(0)].count_changed = true;
        }),
        ("b is not in the index of its app", |shard| {
            shard.local.channels[ChannelSlot::new(0)].key = key(shard, "b");
        }),
        ("b is kept for nobody", |shard| {
            let channel = key(shard, "b");
            shard.local.channels.insert(LocalChannel::new(channel));
        }),
    ]);
}

#[test]
fn violations_at_users_are_named() {
    each_is_named(&[
        ("#server-to-user-1: 1 signed in, not 0", |shard| {
            let extras = shard.local.connections[Slot::new(0)].extras.as_mut().unwrap();
            extras.signed_in = None;
        }),
        ("#server-to-user-2: 1 watchers, not 0", |shard| {
            let extras = shard.local.connections[Slot::new(0)].extras.as_mut().unwrap();
            extras.watched.clear();
        }),
        ("slot 0 waits for 1 users, and 0 are unknown", |shard| {
            let extras = shard.local.connections[Slot::new(0)].extras.as_mut().unwrap();
            extras.watched_unknown = 1;
        }),
        ("a user has no entry", |shard| {
            let user = key(shard, "#server-to-user-3");
            let extras = shard.local.connections[Slot::new(0)].extras.as_mut().unwrap();
            (extras.watched_unknown, extras.watched) = (1, vec![user, extras.watched[0].clone()]);
        }),
        ("#server-to-user-9 is kept for nobody", |shard| {
            let user = key(shard, "#server-to-user-9");
            shard.home.restore(
                &shard.context,
                crate::shard::Restore::User { user, core: 0, signed_in: false, watching: false },
            );
        }),
    ]);
}

#[test]
fn violations_at_a_home_are_named() {
    each_is_named(&[
        ("b is kept for nobody", |shard| {
            let channel = key(shard, "b");
            shard.home.channels.find_or_insert(&channel);
        }),
        ("a has a roster without users", |shard| {
            let index = shard.home.channels.find_index(&key(shard, "a")).unwrap();
            shard.home.channels.get_mut(index).roster = Some(Box::default());
        }),
        ("presence-r: 1 is in the roster and nowhere else", |shard| restore_member(shard, 0)),
    ]);
}

#[test]
fn disagreements_of_the_two_sides_are_named() {
    each_is_named(&[
        ("a: the home is not interested", |shard| {
            let index = shard.home.channels.find_index(&key(shard, "a")).unwrap();
            shard.home.channels.get_mut(index).interested.remove(0);
            let cached = Some((b"x".to_vec(), u32::MAX));
            shard
                .home
                .channels
                .restore(&key(shard, "a"), HomeState { cached, ..HomeState::default() });
        }),
        ("b: interest true, active false", |shard| {
            let channel = key(shard, "b");
            shard.home.channels.restore_interest(&channel, 0, None);
        }),
        ("presence-r: 1 has 1 connections, not 2", |shard| restore_member(shard, 2)),
        ("#server-to-user-1: signed in here true, and not at home", |shard| {
            let (user, core) = (key(shard, USER), 0);
            shard.home.note_user(&shard.context, &mut shard.outbox, (&user, core), false, false);
            shard.outbox.own_mail = Default::default();
        }),
        ("#server-to-user-2: watched here true, and not at home", |shard| {
            let user = key(shard, "#server-to-user-2");
            shard.home.unwatch(&shard.context, &mut shard.outbox, &user, 0);
            shard.outbox.own_mail = Default::default();
        }),
    ]);
}

#[test]
fn gauges_that_are_wrong_are_named() {
    each_is_named(&[
        ("0 bytes wait to be sent, the gauge has 7", |shard| {
            shard.metrics().send_queue_bytes.add(7);
        }),
        ("subscribers, the gauge has", |shard| {
            shard.metrics().app(AppIndex(0)).subscribers[0].add(1);
        }),
        ("occupied channels, the gauge has", |shard| {
            shard.metrics().app(AppIndex(0)).channels[0].sub(1);
        }),
    ]);
}

/// The home believes that user 1 has so many connections in the presence channel.
fn restore_member(shard: &mut Shard, connections: u32) {
    let user = crate::pusher::inbound::UserId { json: "\"1\"".into(), text: "1".into() };
    let members = vec![MemberState { user, user_info: "{}".into(), connections }];
    shard.home.channels.restore(&key(shard, ROOM), HomeState { members, ..HomeState::default() });
}
