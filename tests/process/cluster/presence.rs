//! Presence, sign-in, counts and webhooks of several nodes that meet in a real Redis (docs/PROTOCOL.md rules 22, 23,
//! 43, 77, 88, 97, 98, 112, 137). Who dies, and what becomes of what they had, is in faults.rs.

use std::collections::BTreeSet;

use crate::support::cluster::{
    channel_topics, event, ids, member_added, member_removed, nodes, nodes_with, signed_in,
    subscribed_nodes, user, users, watched,
};
use crate::support::{
    Client, Endpoint, Http, Redis, Request, Server, Setup, data, error_event, eventually,
    json as parse,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const SEVEN: &str = r#"{"user_id":7,"user_info":{"n":"A"}}"#;
const EIGHT: &str = r#"{"user_id":"8","user_info":{"n":"é/"}}"#;

fn joined(client: &mut Client, channel: &str, channel_data: &str) -> Vec<String> {
    ids(&client.join(channel, channel_data))
}

#[test]
fn the_transcript_over_two_nodes() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [1, 2]);
    let (mut seven, mut eight) = (a.connect(), b.connect());
    seven.send_subscribe("presence-r", Some(SEVEN));
    seven.expect(
        r#"{"event":"pusher_internal:subscription_succeeded","data":"{\"presence\":{\"count\":1,\"ids\":[7],\"hash\":{\"7\":{\"n\":\"A\"}}}}","channel":"presence-r"}"#,
    );
    let roster = eight.join("presence-r", EIGHT);
    assert_eq!(ids(&roster), ["7", "8"]);
    // As the app gave them: a number, and a text.
    let list: BTreeSet<String> =
        roster["ids"].as_array().expect("ids").iter().map(Value::to_string).collect();
    assert_eq!(list, BTreeSet::from(["\"8\"".to_owned(), "7".to_owned()]));
    assert_eq!(roster["hash"], json!({ "7": { "n": "A" }, "8": { "n": "é/" } }));
    seven.expect(&member_added(EIGHT));
    eight.send(r#"{"event":"client-hi","channel":"presence-r","data":{"x":1}}"#);
    seven.expect(r#"{"event":"client-hi","channel":"presence-r","data":{"x":1},"user_id":"8"}"#);
    seven.send(r#"{"event":"client-hi","channel":"presence-r","data":{"x":2}}"#);
    eight.expect(r#"{"event":"client-hi","channel":"presence-r","data":{"x":2},"user_id":7}"#);
    eight.unsubscribe("presence-r");
    seven.expect(&member_removed(r#""8""#));
    assert_eq!(joined(&mut eight, "presence-r", EIGHT), ["7", "8"]);
    seven.expect(&member_added(EIGHT));
    seven.close();
    eight.expect(&member_removed("7"));
    eight.sync();
}

#[test]
fn a_user_on_two_nodes_comes_once_and_goes_once() {
    let redis = Redis::start();
    let nodes = nodes(&redis, [1, 2, 4]);
    let mut witnesses = nodes.each_ref().map(Server::connect);
    for (index, witness) in witnesses.iter_mut().enumerate() {
        assert_eq!(joined(witness, "presence-r", &user(index)).len(), index + 1);
    }
    for (index, witness) in witnesses.iter_mut().enumerate() {
        for other in index + 1..3 {
            witness.expect(&member_added(&user(other)));
        }
    }
    let roster = ["0", "1", "2", "8"];
    for round in 0..10 {
        let mut tabs: Vec<Client> = (0..6).map(|tab| nodes[(round + tab) % 3].connect()).collect();
        for (index, tab) in tabs.iter_mut().enumerate() {
            assert_eq!(joined(tab, "presence-r", EIGHT), roster);
            if index == 0 {
                for witness in &mut witnesses {
                    witness.expect(&member_added(EIGHT));
                }
            }
            // Again, which is silent for the others.
            assert_eq!(joined(tab, "presence-r", EIGHT), roster);
        }
        let request = Request::get("/channels/presence-r").query("info", "user_count");
        for node in &nodes {
            assert_eq!(node.ask(&request).body, r#"{"occupied":true,"user_count":4}"#);
            assert_eq!(users(node, "presence-r"), roster);
        }
        for (index, mut tab) in tabs.into_iter().enumerate() {
            match index % 3 {
                0 => tab.close_among_events(),
                1 => drop(tab),
                _ => tab.unsubscribe("presence-r"),
            }
        }
        for witness in &mut witnesses {
            witness.expect(&member_removed(r#""8""#));
            witness.sync();
        }
    }
}

/// No member is both missing from the roster and unannounced, and none is announced twice.
#[test]
fn rosters_and_announcements_agree_while_all_join_at_once() {
    const EACH: usize = 12;
    let redis = Redis::start();
    let nodes = nodes(&redis, [1, 2, 2]);
    for round in 0..5 {
        let channel = format!("presence-{round}");
        let mut clients: Vec<Client> =
            (0..EACH * 3).map(|index| nodes[index % 3].connect()).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            client.send_subscribe(&channel, Some(&user(index)));
        }
        let all: BTreeSet<String> = (0..EACH * 3).map(|index| index.to_string()).collect();
        for client in &mut clients {
            let first = client.event();
            assert_eq!(first["event"], "pusher_internal:subscription_succeeded", "{first}");
            let mut known: BTreeSet<String> = ids(&data(&first)["presence"]).into_iter().collect();
            while known.len() < all.len() {
                let told = client.event();
                assert_eq!(told["event"], "pusher_internal:member_added", "{told}");
                let id = data(&told)["user_id"].as_str().expect("a text").to_owned();
                assert!(known.insert(id), "{told} again");
            }
            assert_eq!(known, all);
        }
        for node in &nodes {
            assert_eq!(users(node, &channel).len(), all.len());
        }
        let mut last = clients.pop().expect("one of them");
        drop(clients);
        let mut left = BTreeSet::new();
        while left.len() < all.len() - 1 {
            let told = last.event();
            assert_eq!(told["event"], "pusher_internal:member_removed", "{told}");
            assert!(left.insert(data(&told)["user_id"].to_string()), "{told} again");
        }
        last.sync();
    }
    eventually("nothing is left", || channel_topics(&redis).is_empty().then_some(()));
}

#[test]
fn a_node_that_ends_in_order_takes_its_members_with_it_at_once() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [1, 2]);
    let mut witness = a.connect();
    witness.join("presence-r", &user(0));
    let mut members: Vec<Client> = (1..6).map(|_| b.connect()).collect();
    for (index, member) in members.iter_mut().enumerate() {
        member.join("presence-r", &user(index + 1));
        witness.expect(&member_added(&user(index + 1)));
    }
    let start = crate::support::now();
    b.signal(Signal::TERM);
    let mut gone = BTreeSet::new();
    for _ in 1..6 {
        let told = witness.event();
        assert_eq!(told["event"], "pusher_internal:member_removed", "{told}");
        gone.insert(data(&told)["user_id"].to_string());
    }
    assert_eq!(gone.len(), 5);
    assert_eq!(b.finish().code, Some(0));
    let took = start.elapsed();
    assert!(took.as_secs() < 8, "{took:?}: it is not the lease that ends them");
    witness.sync();
    assert_eq!(users(&a, "presence-r"), ["0"]);
    assert_eq!(subscribed_nodes(&redis, "presence-r"), 1);
}

#[test]
fn the_number_of_members_is_limited_over_all_nodes() {
    let redis = Redis::start();
    let max = |setup: Setup| setup.env("RINGVERB_PRESENCE_MEMBERS_MAX", "3");
    let nodes = nodes_with(&redis, [1, 2, 1], max);
    let mut clients = nodes.each_ref().map(Server::connect);
    for (index, client) in clients.iter_mut().enumerate() {
        client.join("presence-r", &user(index));
    }
    for (index, client) in clients.iter_mut().enumerate() {
        for later in index + 1..3 {
            client.expect(&member_added(&user(later)));
        }
    }
    for node in &nodes {
        let mut fourth = node.connect();
        let message = fourth.subscribe_message("presence-r", Some(&user(9)));
        let full = error_event(4100, "The presence channel has as many members as it may have");
        fourth.ask(&message, &full);
        // A second connection of a member is no further member, wherever the first one is.
        assert_eq!(joined(&mut node.connect(), "presence-r", &user(1)), ["0", "1", "2"]);
    }
}

#[test]
fn watchers_receive_a_user_of_any_node() {
    let redis = Redis::start();
    let nodes = nodes(&redis, [1, 2, 2]);
    let mut there = signed_in(&nodes[2], &json!({ "id": "early" }));
    // Behind the word that the user is there.
    there.subscribe("#server-to-user-early");
    let mut watchers: Vec<Client> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let watchlist = ["early", "late", "never"];
        let id = format!("watcher {index}");
        let mut watcher = signed_in(node, &json!({ "id": id, "watchlist": watchlist }));
        let mut told = watched(&mut watcher);
        for list in told.as_array_mut().expect("lists") {
            let ids = list["user_ids"].as_array_mut().expect("ids");
            ids.sort_by_key(Value::to_string);
        }
        let due = json!([
            { "name": "online", "user_ids": ["early"] },
            { "name": "offline", "user_ids": ["late", "never"] },
        ]);
        assert_eq!(told, due);
        watchers.push(watcher);
    }
    let mut told = |name: &str, id: &str| {
        for watcher in &mut watchers {
            assert_eq!(watched(watcher), json!([{ "name": name, "user_ids": [id] }]));
            watcher.sync();
        }
    };
    for round in 0..5 {
        let mut first = signed_in(&nodes[round % 3], &json!({ "id": "late" }));
        told("online", "late");
        first.subscribe("#server-to-user-late");
        // On another node, too: that is no news, and neither is it when the first one goes.
        let mut second = signed_in(&nodes[(round + 1) % 3], &json!({ "id": "late" }));
        second.subscribe("#server-to-user-late");
        nodes[(round + 1) % 3].publish("#server-to-user-late", "e", "x");
        // It came behind the word that the second one is there.
        first.expect(&event("#server-to-user-late", "e", "x"));
        first.close();
        second.close_among_events();
        told("offline", "late");
    }
    drop(there);
    told("offline", "early");
}

#[test]
fn subscriptions_are_counted_over_all_nodes() {
    let redis = Redis::start();
    let counting = |setup: Setup| setup.env("RINGVERB_SUBSCRIPTION_COUNT", "true");
    let nodes = nodes_with(&redis, [1, 2, 1], counting);
    let mut clients: Vec<Client> = (0..6).map(|index| nodes[index % 3].connect()).collect();
    let until = |client: &mut Client, count: usize| loop {
        let told = client.event();
        assert_eq!(told["event"], "pusher_internal:subscription_count", "{told}");
        assert_eq!(told["channel"], "news");
        if data(&told) == json!({ "subscription_count": count }) {
            return;
        }
    };
    for index in 0..6 {
        clients[index].subscribe("news");
        for client in &mut clients[..=index] {
            until(client, index + 1);
        }
    }
    while let Some(last) = clients.pop() {
        last.close_among_events();
        let left = clients.len();
        for client in &mut clients {
            until(client, left);
        }
    }
    let request = Request::get("/channels/news").query("info", "subscription_count");
    for node in &nodes {
        let is_empty = || node.ask(&request).body.contains("false").then_some(());
        eventually("nobody is subscribed", is_empty);
    }
}

/// Endpoint and node by node: each join and leave is sent once, by one of the nodes.
#[test]
fn all_nodes_together_send_each_webhook_once() {
    let redis = Redis::start();
    let endpoint = Endpoint::start(true);
    let nodes = nodes_with(&redis, [1, 2, 2], |setup| {
        setup
            .env("RINGVERB_WEBHOOK_URL", &endpoint.url)
            .env(
                "RINGVERB_WEBHOOK_EVENTS",
                "channel_occupied,channel_vacated,member_added,member_removed",
            )
            .env("RINGVERB_WEBHOOK_DEBOUNCE", "0")
    });
    let told = || {
        let event = endpoint.next();
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        [text("name"), text("channel"), text("user_id")].join(" ").trim_end().to_owned()
    };
    for round in 0..3 {
        let mut clients: Vec<Client> =
            (0..6).map(|index| nodes[(index + round) % 3].connect()).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            client.subscribe("news");
            if index == 0 {
                assert_eq!(told(), "channel_occupied news");
            }
        }
        for (index, client) in clients.iter_mut().enumerate() {
            client.join("presence-r", &user("x"));
            if index == 0 {
                let mut both = [told(), told()];
                both.sort_unstable();
                assert_eq!(both, ["channel_occupied presence-r", "member_added presence-r x"]);
            }
        }
        clients[3].join("presence-other", &user("y"));
        let mut both = [told(), told()];
        both.sort_unstable();
        assert_eq!(both, ["channel_occupied presence-other", "member_added presence-other y"]);
        // One after the other: at the same moment on two nodes, either may be the last.
        while let Some(client) = clients.pop() {
            if clients.len() == 3 {
                client.close();
                let mut both = [told(), told()];
                both.sort_unstable();
                assert_eq!(
                    both,
                    ["channel_vacated presence-other", "member_removed presence-other y"]
                );
                continue;
            }
            client.close_among_events();
            let count = clients.len();
            let request = Request::get("/channels/news").query("info", "subscription_count");
            eventually("it is out", || {
                let body = parse(&nodes[0].ask(&request).body);
                let left = body["subscription_count"].as_u64().unwrap_or_default();
                (left == count as u64).then_some(())
            });
        }
        let mut rest = [told(), told(), told()];
        rest.sort_unstable();
        let due =
            ["channel_vacated news", "channel_vacated presence-r", "member_removed presence-r x"];
        assert_eq!(rest, due);
    }
    for node in nodes {
        node.stop();
    }
    let more: Vec<Value> = endpoint.events.try_iter().collect();
    assert!(more.is_empty(), "{more:?}");
}

/// A page that is loaded again may come back on another node. Within the debounce no webhook reports that, and the
/// last webhook is never the leave of a user who is present.
#[test]
fn a_reload_that_reconnects_to_another_node_causes_no_webhook() {
    let redis = Redis::start();
    let endpoint = Endpoint::start(true);
    let nodes = nodes_with(&redis, [1, 2], |setup| {
        setup
            .env("RINGVERB_WEBHOOK_URL", &endpoint.url)
            .env(
                "RINGVERB_WEBHOOK_EVENTS",
                "channel_occupied,channel_vacated,member_added,member_removed",
            )
            .env("RINGVERB_WEBHOOK_DEBOUNCE", "2000")
    });
    for round in 0..10 {
        let mut page = nodes[round % 2].connect();
        page.join("presence-r", &user(7));
        page.close();
    }
    let mut last = nodes[0].connect();
    last.subscribe("end");
    let mut told = Vec::new();
    while told.last().is_none_or(|name| name != "channel_vacated") {
        told.push(endpoint.next()["name"].as_str().expect("a name").to_owned());
    }
    // Behind what any node still holds back.
    last.close();
    while endpoint.next()["channel"] != "end" {}
    told.sort_unstable();
    let due = ["channel_occupied", "channel_occupied", "channel_vacated", "member_added"];
    let without_removed: Vec<_> = told.iter().filter(|name| *name != "member_removed").collect();
    assert_eq!(without_removed, due, "all that was told: {told:?}");
}

#[test]
fn presence_cache_channels_over_two_nodes() {
    let redis = Redis::start();
    let [a, b] = nodes(&redis, [1, 2]);
    let channel = "presence-cache-c";
    let mut one = a.connect();
    one.join(channel, &user(1));
    one.expect(r#"{"event":"pusher:cache_miss","channel":"presence-cache-c"}"#);
    let mut publisher = Http::new(&b);
    let body = json!({ "name": "e", "channel": channel, "data": "1" }).to_string();
    assert_eq!(publisher.ask(&Request::events(&body)).status, 200);
    one.expect(&event(channel, "e", "1"));
    let mut two = b.connect();
    assert_eq!(joined(&mut two, channel, &user(2)), ["1", "2"]);
    two.expect(&event(channel, "e", "1"));
    assert_eq!(one.event()["event"], "pusher_internal:member_added");
    // Neither client events nor announcements take the cached event's place (rules 37, 134).
    two.send(r#"{"event":"client-c","channel":"presence-cache-c","data":1}"#);
    assert_eq!(one.event()["event"], "client-c");
    two.close();
    assert_eq!(one.event()["event"], "pusher_internal:member_removed");
    let mut three = b.connect();
    assert_eq!(joined(&mut three, channel, &user(3)), ["1", "3"]);
    three.expect(&event(channel, "e", "1"));
    three.sync();
}
