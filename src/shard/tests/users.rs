//! Sign-in, watchlists, numbers of subscribers, webhooks: rule by rule, and at random from one seed (docs/PROTOCOL.md
//! C6, C10, C24).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::net::{Client, Net, Received};
use super::rules::assert_error;
use crate::app::{App, ClientEventsFrom, Webhook, WebhookKind, sample};
use crate::pusher::error_code;
use crate::pusher::webhook_event::Happening;
use crate::shard::access::AccessCommand;

pub(super) fn names(received: &[Received]) -> Vec<&str> {
    received.iter().map(|one| one.event().trim_start_matches("pusher")).collect()
}

fn signed_in(net: &mut Net, core: usize, id: &str, watchlist: &[&str]) -> Client {
    let client = net.connect(core);
    net.events(client);
    net.sign_in(client, id, watchlist);
    client
}

pub(super) fn counting() -> App {
    let mut app = sample();
    app.sends_subscription_count = true;
    app.webhooks = vec![Webhook {
        url: "http://127.0.0.1/".to_owned(),
        kinds: WebhookKind::ALL.to_vec(),
        channel_prefixes: Vec::new(),
    }];
    app
}

#[test]
fn a_user_has_a_channel_of_their_own() {
    let mut net = Net::new(3);
    let client = signed_in(&mut net, 0, "7", &[]);
    let received = net.events(client);
    assert_eq!(names(&received), [":signin_success"]);
    let user_data: Value =
        serde_json::from_str(received[0].data()["user_data"].as_str().unwrap()).unwrap();
    assert_eq!(user_data["id"], json!("7"));
    let subscribe = |channel: &str| {
        json!({"event": "pusher:subscribe", "data": {"channel": channel}}).to_string()
    };
    net.say(client, &subscribe("#server-to-user-8"));
    assert_eq!(net.events(client)[0].data()["code"], json!(4009));
    net.say(client, &subscribe("#server-to-user-7"));
    assert_eq!(names(&net.events(client)), ["_internal:subscription_succeeded"]);
    net.publish(2, "#server-to-user-7", &json!({"a": 1}), None);
    assert_eq!(net.events(client)[0].data(), json!({"a": 1}));
    net.sign_in(client, "8", &[]);
    assert_eq!(
        net.events(client)[0].data()["message"],
        json!(error_code::SIGNED_IN_ALREADY.message)
    );
    net.sign_in(client, "7", &[]);
    assert_eq!(names(&net.events(client)), [":signin_success"], "again: acknowledged again");
}

#[test]
fn a_wrong_signature_or_no_text_for_an_id_is_refused() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    net.events(client);
    let text = json!({"event": "pusher:signin", "data": {"auth": "app-key:bad", "user_data": "{\"id\":\"7\"}"}});
    net.say(client, &text.to_string());
    assert_eq!(net.events(client)[0].data()["code"], json!(4009));
    let refusals = &net.shards[0].outbox.refusals;
    assert!(refusals.iter().any(|refusal| refusal.line.contains("REVERB_APP_SECRET")));
    let subscribe = json!({"event": "pusher:subscribe", "data": {"channel": "#server-to-user-7"}});
    net.say(client, &subscribe.to_string());
    assert_eq!(net.events(client)[0].data()["code"], json!(4009), "still nobody");
}

#[test]
fn a_user_is_terminated_by_either_selector() {
    let mut net = Net::new(3);
    let by_sign_in = signed_in(&mut net, 1, "7", &[]);
    let by_presence = net.connect(2);
    let other = signed_in(&mut net, 2, "8", &[]);
    net.subscribe(by_presence, "presence-r", Some(&json!(7)));
    for client in [by_sign_in, by_presence, other] {
        net.events(client);
    }
    net.shards[0].end_access(AccessCommand::terminate(super::net::APP, "7"));
    net.post(0);
    for client in [by_sign_in, by_presence] {
        let received = net.events(client);
        assert_eq!(received.last(), Some(&Received::Closed(4009)), "{received:?}");
    }
    assert!(net.events(other).is_empty());
}

#[test]
fn a_signed_in_connection_is_a_member_without_channel_data() {
    let mut net = Net::new(2);
    let client = signed_in(&mut net, 0, "7", &[]);
    net.events(client);
    net.subscribe(client, "presence-r", None);
    let received = net.events(client);
    assert_eq!(received[0].data()["presence"]["hash"], json!({"7": {"n": "7"}}));
}

#[test]
fn watchers_receive_the_first_and_the_last_connection_of_a_user() {
    for cores in [1, 3] {
        let mut net = Net::new(cores);
        let there = signed_in(&mut net, 0, "a", &[]);
        let watcher = signed_in(&mut net, usize::from(cores) - 1, "w", &["a", "b", "a"]);
        let received = net.events(watcher);
        assert_eq!(names(&received), [":signin_success", "_internal:watchlist_events"]);
        let list = json!({"events": [{"name": "online", "user_ids": ["a"]}, {"name": "offline", "user_ids": ["b"]}]});
        assert_eq!(received[1].data(), list);
        let second = signed_in(&mut net, usize::from(cores) / 2, "a", &[]);
        net.settle();
        net.vanish(there);
        assert!(net.events(watcher).is_empty(), "one of two went");
        net.vanish(second);
        let gone = json!({"events": [{"name": "offline", "user_ids": ["a"]}]});
        assert_eq!(net.events(watcher)[0].data(), gone);
        let back = signed_in(&mut net, 0, "b", &[]);
        let came = json!({"events": [{"name": "online", "user_ids": ["b"]}]});
        assert_eq!(net.events(watcher)[0].data(), came);
        net.vanish(watcher);
        net.vanish(back);
        net.settle();
        assert!(net.shards.iter().all(|shard| shard.user_and_count_entries() == 0));
    }
}

#[test]
fn a_watchlist_is_cut_at_a_hundred() {
    let mut net = Net::new(2);
    let ids: Vec<String> = (0..105).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let client = signed_in(&mut net, 0, "w", &ids);
    let received = net.events(client);
    assert_eq!(names(&received), [":signin_success", ":error", "_internal:watchlist_events"]);
    assert_eq!(received[1].data()["code"], json!(4302));
    assert_eq!(received[2].data()["events"][0]["user_ids"].as_array().unwrap().len(), 100);
}

#[test]
fn a_connection_without_authorization_is_closed_after_its_time() {
    let mut app = sample();
    app.authorize_within_seconds = Some(5);
    let mut net = Net::with_app(2, app);
    let idle = net.connect(0);
    let public = net.connect(1);
    let private = net.connect(1);
    let user = signed_in(&mut net, 0, "7", &[]);
    net.subscribe(public, "news", None);
    net.subscribe(private, "private-x", None);
    for client in [idle, public, private, user] {
        net.events(client);
    }
    net.advance(4);
    assert!(net.events(idle).is_empty());
    net.advance(1);
    for (client, closed) in [(idle, true), (public, true), (private, false), (user, false)] {
        let received = net.events(client);
        assert_eq!(received.contains(&Received::Closed(4009)), closed, "{received:?}");
    }
}

#[test]
fn only_a_backend_publishes_to_the_channel_of_a_user() {
    let channel = "#server-to-user-7";
    let event = json!({"event": "client-x", "channel": channel, "data": {}}).to_string();
    for (from, on_public) in [
        (ClientEventsFrom::All, false),
        (ClientEventsFrom::All, true),
        (ClientEventsFrom::Members, false),
        (ClientEventsFrom::Members, true),
    ] {
        let mut app = counting();
        (app.client_events_from, app.client_events_on_public) = (from, on_public);
        let mut net = Net::with_app(3, app);
        let [receiver, of_the_user] = [0, 1].map(|core| signed_in(&mut net, core, "7", &[]));
        let stranger = net.connect(2);
        for client in [receiver, of_the_user] {
            net.subscribe(client, channel, None);
        }
        for client in [receiver, of_the_user, stranger] {
            net.events(client);
        }
        for sender in [stranger, of_the_user] {
            net.say(sender, &event);
            assert_error(&net.events(sender), error_code::CLIENT_EVENT_ON_PUBLIC);
            assert!(net.events(receiver).is_empty(), "{from:?}");
        }
        let is_client_event =
            |happening: &Happening| matches!(happening, Happening::ClientEvent(_));
        assert!(!net.webhooks.iter().any(|one| is_client_event(&one.happening)), "{from:?}");
        net.publish(2, channel, &json!({}), None);
        assert_eq!(net.events(receiver).len(), 1, "a backend reaches it");
    }
}

#[test]
fn client_events_have_a_rate() {
    let mut app = sample();
    app.client_events_per_second_max = Some(2);
    let mut net = Net::with_app(2, app);
    let (sender, hearer) = (net.connect(0), net.connect(1));
    for client in [sender, hearer] {
        net.subscribe(client, "private-x", None);
        net.events(client);
    }
    let text = json!({"event": "client-e", "channel": "private-x", "data": 1}).to_string();
    for _ in 0..3 {
        net.say(sender, &text);
    }
    assert_eq!(net.events(sender)[0].data()["code"], json!(4301));
    assert_eq!(net.events(hearer).len(), 2);
    net.advance(1);
    net.say(sender, &text);
    assert!(net.events(sender).is_empty());
    assert_eq!(net.events(hearer).len(), 1);
}

#[test]
fn verbose_errors_name_the_wrong_part_of_a_signature() {
    let mut net = Net::with_all(1, sample(), 1 << 20, true);
    let client = net.connect(0);
    net.events(client);
    let subscribe = |data: Value| json!({"event": "pusher:subscribe", "data": data}).to_string();
    let unsigned_data = {
        let text = format!("{}:private-x", client.socket_id);
        let secret = crate::app::Secret::new("app-secret");
        let hex = crate::pusher::signature::sign(&secret, &[text.as_bytes()]);
        let auth = format!("app-key:{}", String::from_utf8_lossy(&hex));
        json!({"channel": "private-x", "auth": auth, "channel_data": "{}"})
    };
    for (data, part) in [
        (json!({"channel": "private-x"}), "no signature"),
        (json!({"channel": "private-x", "auth": "other:00"}), "REVERB_APP_KEY"),
        (json!({"channel": "private-x", "auth": "app-key:00"}), "REVERB_APP_SECRET"),
        (unsigned_data, "not part of what was signed"),
        (json!({"channel": "#server-to-user-1"}), "signin"),
    ] {
        net.say(client, &subscribe(data.clone()));
        let received = net.events(client);
        let message = received[0].data()["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains(part) && message.contains(data["channel"].as_str().unwrap()),
            "{message}"
        );
    }
    net.publish(0, "private-nobody", &json!(1), None);
    net.publish(0, "#server-to-user-7", &json!(1), None);
    let notes = &net.shards[0].outbox.notes;
    assert!(notes.iter().any(|note| note.contains("which has no subscribers")));
    assert!(
        notes
            .iter()
            .any(|note| note.contains("#server-to-user-7\", and no connection is signed in")),
        "{notes:?}"
    );
}

/// One webhook of each kind, in the order in which things happened.
#[test]
fn each_event_of_a_channel_causes_a_webhook() {
    let mut net = Net::with_app(3, counting());
    let client = net.connect(0);
    net.subscribe(client, "presence-cache-r", Some(&json!(7)));
    net.settle();
    let text = json!({"event": "client-e", "channel": "presence-cache-r", "data": {"a": 1}});
    net.say(client, &text.to_string());
    net.subscribe(client, "private-x", None);
    net.settle();
    net.unsubscribe(client, "presence-cache-r");
    net.settle();
    let told: Vec<(&str, &str)> =
        net.webhooks.iter().map(|event| (event.kind().name(), &*event.channel)).collect();
    let expected = [
        ("channel_occupied", "presence-cache-r"),
        ("member_added", "presence-cache-r"),
        ("cache_miss", "presence-cache-r"),
        ("client_event", "presence-cache-r"),
        ("channel_occupied", "private-x"),
        ("subscription_count", "private-x"),
        ("member_removed", "presence-cache-r"),
        ("channel_vacated", "presence-cache-r"),
    ];
    let mut sorted = (told.clone(), expected.to_vec());
    sorted.0.sort_unstable();
    sorted.1.sort_unstable();
    assert_eq!(sorted.0, sorted.1);
    let of = |channel: &str| -> Vec<&str> {
        told.iter().filter(|(_, name)| *name == channel).map(|(kind, _)| *kind).collect()
    };
    let order = ["channel_occupied", "member_added", "member_removed", "channel_vacated"];
    let in_home: Vec<&str> =
        of("presence-cache-r").into_iter().filter(|kind| order.contains(kind)).collect();
    assert_eq!(in_home, order);
    assert_eq!(of("private-x"), ["channel_occupied", "subscription_count"]);
}

const USERS: [&str; 4] = ["a", "b", "c", "d"];
const CHANNELS: [&str; 3] = ["news", "private-p", "presence-r"];

struct Actor {
    client: Client,
    user: Option<&'static str>,
    channels: BTreeSet<&'static str>,
    watches: BTreeSet<&'static str>,
    /// By user watched, as received.
    online: BTreeMap<String, bool>,
    counts: HashMap<String, u64>,
}

impl Actor {
    fn note(&mut self, received: &Received) {
        let data = received.data();
        match received.event() {
            "pusher_internal:watchlist_events" => {
                for event in data["events"].as_array().unwrap() {
                    let online = event["name"] == "online";
                    for id in event["user_ids"].as_array().unwrap() {
                        let before = self.online.insert(id.as_str().unwrap().to_owned(), online);
                        assert_ne!(before, Some(online), "told twice: {received:?}");
                    }
                }
            }
            "pusher_internal:subscription_count" => {
                let count = data["subscription_count"].as_u64().unwrap();
                self.counts.insert(received.channel().to_owned(), count);
            }
            _ => {}
        }
    }
}

fn below(state: &mut u64, bound: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state % bound as u64).unwrap()
}

/// Some of the names, at random.
fn some(state: &mut u64, names: &[&'static str]) -> BTreeSet<&'static str> {
    names.iter().copied().filter(|_| below(state, 2) == 0).collect()
}

fn act(net: &mut Net, actors: &mut Vec<Actor>, state: &mut u64) {
    match below(state, 16) {
        0..=2 if actors.len() < 10 => {
            let client = net.connect(below(state, net.cores()));
            actors.push(Actor {
                client,
                user: None,
                channels: BTreeSet::new(),
                watches: BTreeSet::new(),
                online: BTreeMap::new(),
                counts: HashMap::new(),
            });
        }
        3..=5 if !actors.is_empty() => {
            let at = below(state, actors.len());
            if actors[at].user.is_none() {
                let user = USERS[below(state, USERS.len())];
                let watches = some(state, &USERS);
                let list: Vec<&str> = watches.iter().copied().collect();
                net.sign_in(actors[at].client, user, &list);
                (actors[at].user, actors[at].watches) = (Some(user), watches);
            }
        }
        6..=7 if !actors.is_empty() => {
            let gone = actors.swap_remove(below(state, actors.len()));
            net.vanish(gone.client);
        }
        8..=10 if !actors.is_empty() => {
            let at = below(state, actors.len());
            let channel = CHANNELS[below(state, CHANNELS.len())];
            let id = json!(at % 3);
            let user = channel.starts_with("presence-").then_some(&id);
            if actors[at].channels.insert(channel) {
                net.subscribe(actors[at].client, channel, user);
            } else {
                actors[at].channels.remove(channel);
                net.unsubscribe(actors[at].client, channel);
            }
        }
        _ => {
            for _ in 0..4 {
                let lane = below(state, net.lane_count());
                net.carry(lane);
            }
        }
    }
    for actor in actors.iter_mut() {
        for received in net.read(actor.client) {
            actor.note(&received);
        }
    }
}

fn run(seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let cores = u16::try_from(1 + below(&mut state, 5)).unwrap();
    let mut net = Net::with_app(cores, counting());
    let mut actors = Vec::new();
    for _ in 0..300 {
        act(&mut net, &mut actors, &mut state);
    }
    net.settle();
    for actor in &mut actors {
        for received in net.read(actor.client) {
            actor.note(&received);
        }
    }
    let here: BTreeSet<&str> = actors.iter().filter_map(|actor| actor.user).collect();
    for actor in &actors {
        let truth: BTreeMap<String, bool> =
            (actor.watches.iter()).map(|user| ((*user).to_owned(), here.contains(user))).collect();
        assert_eq!(actor.online, truth, "what a watcher was told is what is true");
        for channel in actor.channels.iter().filter(|name| !name.starts_with("presence-")) {
            let count = actors.iter().filter(|other| other.channels.contains(channel)).count();
            assert_eq!(actor.counts[*channel], count as u64, "{channel}");
        }
    }
    while let Some(actor) = actors.pop() {
        net.vanish(actor.client);
    }
    net.settle();
    check_webhooks(&net);
    for shard in &net.shards {
        assert_eq!(shard.channel_counts(), (0, 0));
        assert_eq!(shard.user_and_count_entries(), 0, "nothing is left when all have left");
    }
}

/// Coming and going alternate, and in the end all have gone.
fn check_webhooks(net: &Net) {
    let mut inside: HashMap<(String, String), bool> = HashMap::new();
    for event in &net.webhooks {
        let (user, is_in) = match &event.happening {
            Happening::Occupied => (String::new(), true),
            Happening::Vacated => (String::new(), false),
            Happening::MemberAdded { user_id } => (user_id.to_string(), true),
            Happening::MemberRemoved { user_id } => (user_id.to_string(), false),
            _ => continue,
        };
        let before = inside.insert((event.channel.to_string(), user), is_in).unwrap_or_default();
        assert_ne!(before, is_in, "{event:?} twice in a row");
    }
    assert!(inside.values().all(|is_in| !is_in), "{inside:?}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a failing seed is replayed by name")]
fn random_sign_ins_keep_watchers_exact() {
    if let Ok(seed) = std::env::var("RINGVERB_SEED") {
        return run(seed.parse().expect("a number"));
    }
    for seed in 0..400 {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed}: run it alone with RINGVERB_SEED={seed}");
    }
}
