//! The protocol's rules, one by one, over several cores (docs/PROTOCOL.md C4, C5, C15, C17).

use serde_json::{Value, json};

use super::net::{APP, Client, Net, Received};
use crate::app::{AppIndex, ClientEventsFrom, sample};
use crate::cause::{Cause, LINES_AT_ONCE};
use crate::pusher::error_code::{self, ErrorCode};
use crate::shard::access::AccessCommand;
use crate::shard::{Answer, Question};

pub(super) fn names(received: &[Received]) -> Vec<&str> {
    received.iter().map(|one| one.event().trim_start_matches("pusher_internal:")).collect()
}

pub(super) fn assert_error(received: &[Received], error: ErrorCode) {
    let expected = json!({"code": error.code, "message": error.message});
    assert_eq!(received.len(), 1, "{received:?}");
    assert_eq!(received[0].event(), "pusher:error");
    assert_eq!(received[0].data(), expected);
}

pub(super) fn users(net: &Net, channel: &str) -> Vec<String> {
    let question = Question::Users { app: APP, name: channel.to_owned() };
    let answers = net.shards.iter().map(|shard| shard.answer(&question));
    answers
        .flat_map(|answer| match answer {
            Answer::Users(users) => users,
            _ => Vec::new(),
        })
        .map(String::from)
        .collect()
}

#[test]
fn a_publish_reaches_every_core_once_and_not_the_sender() {
    for publisher in 0..4 {
        let mut net = Net::new(4);
        let clients: Vec<Client> = (0..8).map(|index| net.connect(index % 4)).collect();
        for client in &clients {
            net.subscribe(*client, "news", None);
            assert_eq!(names(&net.events(*client)), ["subscription_succeeded"]);
        }
        net.publish(publisher, "news", &json!({"n": 1}), Some(clients[5]));
        for client in &clients {
            let expected: &[&str] = if *client == clients[5] { &[] } else { &["e"] };
            assert_eq!(names(&net.events(*client)), expected);
        }
        net.unsubscribe(clients[0], "news");
        net.publish(publisher, "news", &json!({"n": 2}), None);
        assert!(net.events(clients[0]).is_empty());
        assert_eq!(net.events(clients[1])[0].data(), json!({"n": 2}));
    }
}

#[test]
fn private_channels_want_a_signature() {
    let mut net = Net::new(2);
    let client = net.connect(0);
    net.events(client);
    for data in [
        json!({"channel": "private-x"}),
        json!({"channel": "private-x", "auth": "app-key:bad"}),
        json!({"channel": "private-x", "auth": "nonsense"}),
        json!({"channel": "#server-to-user-7"}),
    ] {
        net.say(client, &json!({"event": "pusher:subscribe", "data": data}).to_string());
        assert_error(&net.events(client), error_code::UNAUTHORIZED);
    }
    net.subscribe(client, "private-x", None);
    assert_eq!(names(&net.events(client)), ["subscription_succeeded"]);
    net.subscribe(client, "private-x", None);
    assert_eq!(names(&net.events(client)), ["subscription_succeeded"], "again: acknowledged again");
    assert_eq!(net.shards.iter().map(|shard| shard.channel_counts().0).sum::<usize>(), 1);
}

/// `socket_id:private-x:{}` is the signed text of a channel of that name, and of `private-x` with `{}` as its data.
#[test]
fn a_name_with_a_colon_is_refused_where_it_is_signed() {
    let mut net = Net::new(2);
    let client = net.connect(0);
    net.events(client);
    for channel in ["private-x:{}", "presence-x:{\"user_id\":\"1\"}", "private-encrypted-a:b"] {
        net.subscribe(client, channel, None);
        assert_error(&net.events(client), error_code::BAD_CHANNEL_NAME);
    }
    net.subscribe(client, "public:a:b", None);
    assert_eq!(names(&net.events(client)), ["subscription_succeeded"]);
    assert_eq!(net.shards.iter().map(|shard| shard.channel_counts().0).sum::<usize>(), 1);
}

/// Other apps with many channels do not make an app's listing slower.
#[test]
fn the_cost_of_a_listing_depends_on_its_own_app_only() {
    let cost = |others: usize| {
        let [mut large, mut small] = [sample(), sample()];
        large.channels_per_connection_max = 1_000;
        (small.id, small.key) = ("2".to_owned(), "second".to_owned());
        let mut net = Net::with_apps(1, vec![large, small]);
        for connection in 0..others / 100 {
            let client = net.connect(0);
            for channel in 0..100 {
                net.subscribe(client, &format!("c{connection}-{channel}"), None);
            }
        }
        let client = net.connect_to(AppIndex(1), 0);
        for channel in 0..10 {
            net.subscribe(client, &format!("c{channel}"), None);
        }
        net.settle();
        let question = Question::Channels { app: AppIndex(1), prefix: String::new() };
        let shard = &net.shards[0];
        crate::clock::fastest(9, || match shard.answer(&question) {
            Answer::Channels(channels) => assert_eq!(channels.len(), 10),
            other => panic!("{other:?}"),
        })
    };
    let (alone, among_others) = (cost(0), cost(20_000));
    assert!(among_others < alone * 20, "{among_others:?} against {alone:?}");
}

/// Names are compared within an app. An app's index grows and shrinks with its channels, and loses none.
#[test]
fn channels_of_two_apps_with_one_name_are_two_channels() {
    let [first, mut second] = [sample(), sample()];
    (second.id, second.key) = ("2".to_owned(), "second".to_owned());
    let mut net = Net::with_apps(1, vec![first, second]);
    let [one, two] = [net.connect(0), net.connect_to(AppIndex(1), 0)];
    net.subscribe(one, "news", None);
    net.subscribe(two, "news", None);
    let count = |net: &Net, app: u16| {
        let question = Question::Channels { app: AppIndex(app), prefix: String::new() };
        match net.shards[0].answer(&question) {
            Answer::Channels(channels) => channels.len(),
            other => panic!("{other:?}"),
        }
    };
    net.settle();
    assert_eq!((count(&net, 0), count(&net, 1)), (1, 1));
    for _ in 0..3 {
        let clients: Vec<Client> = (0..60).map(|_| net.connect_to(AppIndex(1), 0)).collect();
        for (number, client) in clients.iter().enumerate() {
            for channel in 0..50 {
                net.subscribe(*client, &format!("c{number}-{channel}"), None);
            }
        }
        net.settle();
        assert_eq!((count(&net, 0), count(&net, 1)), (1, 3_001));
        clients.into_iter().for_each(|client| net.vanish(client));
        net.settle();
        assert_eq!((count(&net, 0), count(&net, 1)), (1, 1));
    }
    assert_eq!(net.shards[0].channel_counts(), (2, 2));
}

#[test]
fn a_right_signature_with_another_key_is_refused() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    net.events(client);
    let signed = format!("{}:private-x", client.socket_id);
    let hex = crate::pusher::signature::sign(
        &crate::app::Secret::new("app-secret"),
        &[signed.as_bytes()],
    );
    let auth = format!("other-key:{}", String::from_utf8_lossy(&hex));
    let data = json!({"channel": "private-x", "auth": auth});
    net.say(client, &json!({"event": "pusher:subscribe", "data": data}).to_string());
    assert_error(&net.events(client), error_code::UNAUTHORIZED);
}

#[test]
fn presence_is_exact_across_cores() {
    let mut net = Net::new(4);
    let [anna, ben, ben_again] = [0, 1, 2].map(|core| net.connect(core));
    net.subscribe(anna, "presence-r", Some(&json!(7)));
    let roster = net.events(anna)[0].data();
    assert_eq!(roster, json!({"presence": {"count": 1, "ids": [7], "hash": {"7": {"n": 7}}}}));
    net.subscribe(ben, "presence-r", Some(&json!("8")));
    let roster = net.events(ben)[0].data();
    assert_eq!(roster["presence"]["ids"], json!([7, "8"]));
    let added = net.events(anna);
    assert_eq!(names(&added), ["member_added"]);
    assert_eq!(added[0].data(), json!({"user_id": "8", "user_info": {"n": "8"}}));
    // The same user, spelled as a number: one member (docs/PROTOCOL.md rule 28).
    net.subscribe(ben_again, "presence-r", Some(&json!(8)));
    assert_eq!(net.events(ben_again)[0].data()["presence"]["count"], json!(2));
    assert!(net.events(anna).is_empty() && net.events(ben).is_empty());
    net.subscribe(ben_again, "presence-r", Some(&json!(8)));
    assert_eq!(names(&net.events(ben_again)), ["subscription_succeeded"]);
    assert_eq!(users(&net, "presence-r"), ["7", "8"]);
    net.unsubscribe(ben, "presence-r");
    assert!(net.events(anna).is_empty(), "one connection of the user is left");
    net.vanish(ben_again);
    let removed = net.events(anna);
    assert_eq!(names(&removed), ["member_removed"]);
    assert_eq!(removed[0].data(), json!({"user_id": "8"}));
    net.vanish(anna);
    net.settle();
    assert!(users(&net, "presence-r").is_empty());
    assert!(net.shards.iter().all(|shard| shard.channel_counts() == (0, 0)));
}

#[test]
fn presence_without_a_user_is_refused() {
    let mut net = Net::new(2);
    let client = net.connect(1);
    net.events(client);
    net.subscribe(client, "presence-r", None);
    assert_error(&net.events(client), error_code::INVALID_MESSAGE);
    net.subscribe(client, "presence-r", Some(&json!("")));
    assert_error(&net.events(client), error_code::INVALID_MESSAGE);
}

#[test]
fn cache_channels_greet_with_the_last_event() {
    let mut net = Net::new(3);
    let first = net.connect(0);
    net.subscribe(first, "cache-c", None);
    assert_eq!(names(&net.events(first)), ["subscription_succeeded", "pusher:cache_miss"]);
    net.publish(2, "cache-c", &json!(1), None);
    assert_eq!(names(&net.events(first)), ["e"]);
    net.vanish(first);
    // The cached event outlives the last subscriber (docs/PROTOCOL.md rule 32).
    for core in 0..3 {
        let late = net.connect(core);
        net.subscribe(late, "cache-c", None);
        let received = net.events(late);
        assert_eq!(names(&received), ["subscription_succeeded", "e"]);
        assert_eq!(received[1].data(), json!(1));
        net.vanish(late);
    }
    net.advance(31 * 60);
    let too_late = net.connect(1);
    net.subscribe(too_late, "cache-c", None);
    assert_eq!(names(&net.events(too_late)), ["subscription_succeeded", "pusher:cache_miss"]);
    net.vanish(too_late);
    net.settle();
    assert!(net.shards.iter().all(|shard| shard.channel_counts() == (0, 0)));
}

#[test]
fn client_events_follow_the_rules_of_their_channel() {
    let event = |channel: &str| {
        json!({"event": "client-x", "channel": channel, "data": {"a": {}}, "user_id": "spoof"})
            .to_string()
    };
    let mut net = Net::new(3);
    let [sender, other, stranger] = [0, 1, 2].map(|core| net.connect(core));
    for (client, user) in [(sender, json!(7)), (other, json!("8"))] {
        net.subscribe(client, "presence-r", Some(&user));
        net.subscribe(client, "private-p", None);
        net.subscribe(client, "news", None);
    }
    net.subscribe(stranger, "private-other", None);
    for client in [sender, other, stranger] {
        net.events(client);
    }
    net.say(sender, &event("presence-r"));
    let expected =
        json!({"event": "client-x", "channel": "presence-r", "data": {"a": {}}, "user_id": 7});
    assert_eq!(net.events(other), [Received::Event(expected)]);
    net.say(sender, &event("private-p"));
    let expected = json!({"event": "client-x", "channel": "private-p", "data": {"a": {}}});
    assert_eq!(net.events(other), [Received::Event(expected)]);
    assert!(net.events(sender).is_empty());
    net.say(sender, &event("news"));
    assert_error(&net.events(sender), error_code::CLIENT_EVENT_ON_PUBLIC);
    net.say(stranger, &event("private-p"));
    assert_error(&net.events(stranger), error_code::NOT_A_MEMBER);
    assert!(net.events(other).is_empty());
}

#[test]
fn client_events_by_configuration() {
    let event = json!({"event": "client-x", "channel": "news", "data": {}}).to_string();
    for (from, on_public, expected) in [
        (ClientEventsFrom::None, true, Some(error_code::CLIENT_EVENTS_DISABLED)),
        (ClientEventsFrom::Members, true, Some(error_code::NOT_A_MEMBER)),
        (ClientEventsFrom::All, true, None),
        (ClientEventsFrom::All, false, Some(error_code::CLIENT_EVENT_ON_PUBLIC)),
    ] {
        let mut app = sample();
        app.client_events_from = from;
        app.client_events_on_public = on_public;
        let mut net = Net::with_app(2, app);
        let [sender, listener] = [0, 1].map(|core| net.connect(core));
        net.subscribe(listener, "news", None);
        net.events(listener);
        net.events(sender);
        net.say(sender, &event);
        match expected {
            Some(error) => assert_error(&net.events(sender), error),
            None => assert_eq!(names(&net.events(listener)), ["client-x"]),
        }
    }
}

#[test]
fn the_silent_are_pinged_then_closed() {
    let mut net = Net::new(2);
    let [silent, ponger, framer] = [0, 1, 1].map(|core| net.connect(core));
    for client in [silent, ponger, framer] {
        net.events(client);
    }
    net.shards[1].on_ping_frame(framer.key, b"");
    net.read_raw(framer);
    net.advance(59);
    assert!(net.events(silent).is_empty());
    net.advance(2);
    assert_eq!(names(&net.events(silent)), ["pusher:ping"]);
    assert_eq!(names(&net.events(ponger)), ["pusher:ping"]);
    assert_eq!(net.events(framer), [Received::Ping]);
    net.say(ponger, "{\"event\":\"pusher:pong\",\"data\":{}}");
    net.shards[1].on_pong_frame(framer.key);
    net.advance(31);
    let last = net.events(silent);
    assert_error(&last[..1], error_code::NO_PONG);
    assert_eq!(last[1..], [Received::Closed(4201)]);
    assert!(net.events(ponger).is_empty() && net.events(framer).is_empty());
    assert_eq!(
        net.shards[0]
            .context
            .settings
            .apps
            .get(APP)
            .connections_open
            .load(std::sync::atomic::Ordering::Relaxed),
        2
    );
}

#[test]
fn terminate_closes_a_users_connections_on_all_cores() {
    let mut net = Net::new(3);
    let clients: Vec<Client> = (0..6).map(|index| net.connect(index % 3)).collect();
    for (index, client) in clients.iter().enumerate() {
        let user: Value = if index < 3 { json!(7) } else { json!(format!("u{index}")) };
        net.subscribe(*client, "presence-r", Some(&user));
    }
    for client in &clients {
        net.events(*client);
    }
    net.shards[1].end_access(AccessCommand::terminate(APP, "7"));
    net.post(1);
    for (index, client) in clients.iter().enumerate() {
        let received = net.events(*client);
        if index < 3 {
            assert_eq!(received.last(), Some(&Received::Closed(4009)));
        } else {
            assert_eq!(names(&received), ["member_removed"]);
        }
    }
}

#[test]
fn a_refusal_is_logged_with_its_reason_and_without_secrets() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    for (data, cause, part) in [
        (json!({"channel": "private-x"}), Cause::AuthMissing, "no signature came with it"),
        (
            json!({"channel": "private-x", "auth": "nonsense"}),
            Cause::AuthForm,
            "8 bytes is not KEY:SIGNATURE",
        ),
        (json!({"channel": "private-x", "auth": "other:bad"}), Cause::AuthKey, "key \"other\""),
        (
            json!({"channel": "private-x", "auth": "app-key:bad"}),
            Cause::AuthMismatch,
            "REVERB_APP_SECRET",
        ),
        (json!({"channel": "#server-to-user-7"}), Cause::OtherUser, "signed in"),
    ] {
        let channel = data["channel"].as_str().unwrap().to_owned();
        net.say(client, &json!({"event": "pusher:subscribe", "data": data}).to_string());
        let refusals = std::mem::take(&mut net.shards[0].outbox.refusals);
        let [refusal] = &refusals[..] else { panic!("{refusals:?}") };
        assert!(refusal.line.contains(part) && refusal.line.contains(&channel), "{refusal:?}");
        assert!(!refusal.line.contains("app-secret"), "{refusal:?}");
        assert_eq!((refusal.cause, refusal.left_out), (cause, 0));
        assert_eq!((refusal.connection, refusal.socket_id), (client.key, client.socket_id));
        assert_eq!(refusal.app, Some(APP));
    }
    for _ in 0..100 {
        net.say(client, "{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":\"private-x\"}}");
    }
    let refusals = std::mem::take(&mut net.shards[0].outbox.refusals);
    assert_eq!(refusals.len(), usize::from(LINES_AT_ONCE) - 1, "a flood is cut off");
    net.say(client, "not json");
    assert_eq!(net.shards[0].outbox.refusals.len(), 1, "another cause has its own lines");
    net.advance(1);
    net.say(client, "{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":\"private-x\"}}");
    assert_eq!(net.shards[0].outbox.refusals[1].left_out, 81);
}
