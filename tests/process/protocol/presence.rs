//! Presence channels: rosters, announcements, one user on many connections and cores (docs/PROTOCOL.md C4, C15, D).

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{
    Client, Http, INVALID, Request, Server, Setup, channel_auth, data, error_event, eventually,
};
use serde_json::{Value, json};

const SEVEN: &str = r#"{"user_id":7,"user_info":{"n":"A"}}"#;
const EIGHT: &str = r#"{"user_id":"8","user_info":{"n":"é/"}}"#;

fn member_added(channel_data: &str) -> String {
    let data = Value::from(channel_data);
    format!(r#"{{"event":"pusher_internal:member_added","data":{data},"channel":"presence-r"}}"#)
}

fn member_removed(user_id: &str) -> String {
    let data = Value::from(format!(r#"{{"user_id":{user_id}}}"#));
    format!(r#"{{"event":"pusher_internal:member_removed","data":{data},"channel":"presence-r"}}"#)
}

#[test]
fn a_presence_channel_has_the_transcript_of_reverb() {
    let server = Server::start();
    let (mut a, mut b) = (server.connect(), server.connect());
    a.send_subscribe("presence-r", Some(SEVEN));
    a.expect(
        r#"{"event":"pusher_internal:subscription_succeeded","data":"{\"presence\":{\"count\":1,\"ids\":[7],\"hash\":{\"7\":{\"n\":\"A\"}}}}","channel":"presence-r"}"#,
    );
    b.send_subscribe("presence-r", Some(EIGHT));
    b.expect(
        r#"{"event":"pusher_internal:subscription_succeeded","data":"{\"presence\":{\"count\":2,\"ids\":[7,\"8\"],\"hash\":{\"7\":{\"n\":\"A\"},\"8\":{\"n\":\"é/\"}}}}","channel":"presence-r"}"#,
    );
    a.expect(&member_added(EIGHT));
    b.send(r#"{"event":"client-hi","channel":"presence-r","data":{"x":1}}"#);
    a.expect(r#"{"event":"client-hi","channel":"presence-r","data":{"x":1},"user_id":"8"}"#);
    a.send(r#"{"event":"client-typing","channel":"presence-r","data":{"on":true}}"#);
    b.expect(r#"{"event":"client-typing","channel":"presence-r","data":{"on":true},"user_id":7}"#);
    server.publish("presence-r", "e", "x");
    a.expect(r#"{"event":"e","data":"x","channel":"presence-r"}"#);
    b.expect(r#"{"event":"e","data":"x","channel":"presence-r"}"#);
    b.unsubscribe("presence-r");
    a.expect(&member_removed(r#""8""#));
    a.sync();
    b.sync();
}

#[test]
fn a_user_on_several_connections_comes_once_and_goes_once() {
    let server = Setup::new().workers(4).start();
    let mut witness = server.connect();
    witness.join("presence-r", SEVEN);
    let mut tabs: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for (index, tab) in tabs.iter_mut().enumerate() {
        let roster = tab.join("presence-r", EIGHT);
        assert_eq!(roster["count"].to_string(), "2", "tab {index}: {roster}");
        if index == 0 {
            witness.expect(&member_added(EIGHT));
        }
        // Again, which is silent for the others.
        assert_eq!(tab.join("presence-r", EIGHT), roster);
    }
    for (index, tab) in tabs.into_iter().enumerate() {
        match index % 3 {
            0 => tab.close(),
            1 => drop(tab),
            _ => {
                let mut tab = tab;
                tab.unsubscribe("presence-r");
                tab.sync();
            }
        }
    }
    witness.expect(&member_removed(r#""8""#));
    server.publish("presence-r", "e", "x");
    witness.expect(r#"{"event":"e","data":"x","channel":"presence-r"}"#);
}

#[test]
fn ids_are_compared_as_text_and_shown_as_they_came() {
    let server = Server::start();
    let mut a = server.connect();
    a.join("presence-r", r#"{"user_id":5}"#);
    let mut b = server.connect();
    // The same user: no member is sent anything.
    let roster = b.join("presence-r", r#"{"user_id":"5"}"#);
    assert_eq!(roster.to_string(), r#"{"count":1,"hash":{"5":null},"ids":[5]}"#);
    let big = r#"{"user_id":12345678901234567890,"user_info":{"f":1.0,"e":{},"l":[]},"role":"x"}"#;
    let mut c = server.connect();
    c.send_subscribe("presence-r", Some(big));
    c.expect(
        r#"{"event":"pusher_internal:subscription_succeeded","data":"{\"presence\":{\"count\":2,\"ids\":[5,12345678901234567890],\"hash\":{\"5\":null,\"12345678901234567890\":{\"f\":1.0,\"e\":{},\"l\":[]}}}}","channel":"presence-r"}"#,
    );
    a.expect(&member_added(big));
    b.expect(&member_added(big));
    c.close();
    a.expect(&member_removed("12345678901234567890"));
    b.expect(&member_removed("12345678901234567890"));
    b.close();
    a.sync();
    assert_eq!(server.get("/channels/presence-r/users"), r#"{"users":[{"id":"5"}]}"#);
}

#[test]
fn channel_data_of_every_kind() {
    let server = Server::start();
    let mut witness = server.connect();
    witness.join("presence-r", SEVEN);
    for (channel_data, id, info) in [
        (r#"{"user_id":"u9"}"#, r#""u9""#, "null"),
        (r#"{"user_id":"b","user_info":"str"}"#, r#""b""#, r#""str""#),
        (r#"{"user_id":0,"user_info":[]}"#, "0", "[]"),
        (r#"{"user_id":-1,"user_info":5}"#, "-1", "5"),
        (r#"{"user_info":{"a":{"b":[1]}},"user_id":"x"}"#, r#""x""#, r#"{"a":{"b":[1]}}"#),
        (r#"{"user_id":"é\"\\","user_info":null}"#, r#""é\"\\""#, "null"),
    ] {
        let mut client = server.connect();
        let roster = client.join("presence-r", channel_data);
        assert_eq!(roster["ids"].to_string(), format!("[7,{id}]"));
        let text = crate::support::json(id);
        let text = text.as_str().map_or_else(|| id.to_owned(), str::to_owned);
        assert_eq!(roster["hash"][text.as_str()].to_string(), info, "{channel_data}");
        witness.expect(&member_added(channel_data));
        client.close();
        witness.expect(&member_removed(id));
    }
}

#[test]
fn joins_that_are_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let unauthorized = error_event(4009, "Connection is unauthorized");
    let id = client.socket_id.clone();
    for (channel_data, answer) in [
        (r#"{"user_info":{}}"#, INVALID),
        (r#"{"user_id":""}"#, INVALID),
        (r#"{"user_id":null}"#, INVALID),
        (r#"{"user_id":[1]}"#, INVALID),
        (r#"{"user_id":true}"#, INVALID),
        ("nojson", INVALID),
        ("[]", INVALID),
    ] {
        let message = client.subscribe_message("presence-q", Some(channel_data));
        client.ask(&message, answer);
    }
    let message = client.subscribe_message("presence-q", None);
    client.ask(&message, INVALID);
    let signed = channel_auth(&id, "presence-q", Some(SEVEN));
    for (auth, channel_data) in [("app-key:x", SEVEN), (&signed, EIGHT)] {
        let data = json!({"channel": "presence-q", "auth": auth, "channel_data": channel_data});
        let message = json!({"event": "pusher:subscribe", "data": data}).to_string();
        client.ask(&message, &unauthorized);
    }
    assert_eq!(server.get("/channels"), r#"{"channels":{}}"#);
    assert_eq!(server.answer(&Request::get("/channels/presence-q/users")).0, 404);
}

#[test]
fn presence_cache_channels_keep_published_events_only() {
    let server = Server::start();
    let mut a = server.connect();
    a.join("presence-cache-c", SEVEN);
    a.expect(r#"{"event":"pusher:cache_miss","channel":"presence-cache-c"}"#);
    server.publish("presence-cache-c", "e", r#"{"v":1}"#);
    let cached = r#"{"event":"e","data":"{\"v\":1}","channel":"presence-cache-c"}"#;
    a.expect(cached);
    let mut b = server.connect();
    b.join("presence-cache-c", EIGHT);
    b.expect(cached);
    assert_eq!(a.event()["event"], "pusher_internal:member_added");
    b.send(r#"{"event":"client-c","channel":"presence-cache-c","data":1}"#);
    assert_eq!(a.event()["event"], "client-c");
    // Neither this client event nor this member_removed takes the cached event's place (rules 37, 134).
    b.close();
    assert_eq!(a.event()["event"], "pusher_internal:member_removed");
    let mut c = server.connect();
    c.join("presence-cache-c", r#"{"user_id":9}"#);
    c.expect(cached);
    c.sync();
}

#[test]
fn the_number_of_members_may_be_limited() {
    let server = Setup::new().env("RINGVERB_PRESENCE_MEMBERS_MAX", "2").workers(4).start();
    let full = error_event(4100, "The presence channel has as many members as it may have");
    let mut members: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for (index, member) in members.iter_mut().enumerate() {
        member.join("presence-r", &format!(r#"{{"user_id":{index}}}"#));
    }
    members[0].expect(&member_added(r#"{"user_id":1}"#));
    let mut third = server.connect();
    let message = third.subscribe_message("presence-r", Some(r#"{"user_id":2}"#));
    third.ask(&message, &full);
    // A second connection of a member is no further member.
    server.connect().join("presence-r", r#"{"user_id":1}"#);
    members.pop().expect("a member").close();
    let removed = member_removed("1");
    members[0].expect(&removed);
    third.send(&third.subscribe_message("presence-r", Some(r#"{"user_id":2}"#)));
    assert_eq!(data(&third.event())["presence"]["count"].to_string(), "2");
}

/// Members come and go on four cores. What a connection receives after its own roster adds up to the
/// roster at the end: each change once.
#[test]
fn rosters_and_announcements_add_up_over_four_cores() {
    const USERS: usize = 30;
    let server = Setup::new().workers(4).start();
    let mut clients: Vec<(Client, BTreeSet<String>)> = Vec::new();
    for number in 0..2 * USERS {
        let mut client = server.connect();
        // Two connections a user; the subscriptions of all are under way at once.
        let channel_data = format!(r#"{{"user_id":"u{}"}}"#, number % USERS);
        client.send_subscribe("presence-r", Some(&channel_data));
        clients.push((client, BTreeSet::new()));
    }
    for (client, roster) in &mut clients {
        let event = client.event();
        assert_eq!(event["event"], "pusher_internal:subscription_succeeded", "{event}");
        let ids = data(&event)["presence"]["ids"].clone();
        roster.extend(
            ids.as_array().expect("ids").iter().map(|id| id.as_str().expect("text").to_owned()),
        );
    }
    // Both connections of the first ten users leave, each in its own way.
    for number in (0..10).chain(USERS..USERS + 10).rev() {
        let (client, _) = clients.remove(number);
        if number % 2 == 0 { client.close_among_events() } else { drop(client) }
    }
    let expected: BTreeSet<String> = (10..USERS).map(|number| format!("u{number}")).collect();
    let listed = || -> BTreeSet<String> {
        let users = crate::support::json(&server.get("/channels/presence-r/users"));
        let ids = users["users"].as_array().expect("users").iter().map(|user| user["id"].as_str());
        ids.map(|id| id.expect("text").to_owned()).collect()
    };
    eventually("ten users are gone", || (listed() == expected).then_some(()));
    server.publish("presence-r", "end", "x");
    for (index, (client, roster)) in clients.iter_mut().enumerate() {
        while follow(client, roster) {}
        assert_eq!(*roster, expected, "as connection {index} was told");
    }
    let count = server.answer(&Request::get("/channels/presence-r").query("info", "user_count"));
    assert_eq!(count, (200, r#"{"occupied":true,"user_count":20}"#.to_owned()));
}

/// Takes one announcement into account; `false` at the event `end`.
fn follow(client: &mut Client, roster: &mut BTreeSet<String>) -> bool {
    let event = client.event();
    let id = || data(&event)["user_id"].as_str().expect("a user").to_owned();
    match event["event"].as_str() {
        Some("pusher_internal:member_added") => assert!(roster.insert(id()), "again: {event}"),
        Some("pusher_internal:member_removed") => assert!(roster.remove(&id()), "again: {event}"),
        Some("end") => return false,
        _ => panic!("neither came nor went: {event}"),
    }
    true
}

/// A member whose end is found while an event is being sent to it: those behind it in the same flush are sent
/// that too. The news of it was once taken for the event that had just been sent to them, and lost.
#[test]
fn members_that_vanish_during_a_publish_are_removed_everywhere() {
    const VANISHING: std::ops::Range<usize> = 120..160;
    let server = Setup::new().workers(1).start();
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..250 {
        let mut client = server.connect();
        client.join("presence-r", &format!(r#"{{"user_id":{number}}}"#));
        clients.push(client);
    }
    let mut http = Http::new(&server);
    let publish = Request::events(r#"{"name":"e","channel":"presence-r","data":"x"}"#).bytes();
    let mut behind = clients.split_off(VANISHING.end);
    let mut vanishing = clients.split_off(VANISHING.start);
    while let Some(client) = vanishing.pop() {
        http.wire.send(&publish);
        // The first in the channel has its event: the others' are being sent.
        while clients[0].event()["event"] != "e" {}
        // It has not read what it was sent, so that its end is a reset.
        drop(client);
        assert_eq!(http.wire.reply(true).status, 200);
    }
    eventually("they are gone", || {
        let request = Request::get("/channels/presence-r").query("info", "user_count");
        let (_, body) = server.answer(&request);
        (body == r#"{"occupied":true,"user_count":210}"#).then_some(())
    });
    server.publish("presence-r", "end", "x");
    for (index, client) in behind.iter_mut().enumerate() {
        let (mut events, mut removed) = (0, BTreeSet::new());
        loop {
            let event = client.event();
            match event["event"].as_str() {
                Some("e") => events += 1,
                Some("pusher_internal:member_removed") => {
                    assert!(removed.insert(data(&event)["user_id"].to_string()), "{event}");
                }
                Some("end") => break,
                _ => {}
            }
        }
        let all = VANISHING.len();
        assert_eq!((events, removed.len()), (all, all), "{index}. behind those who vanished");
    }
}

/// A user who comes and goes while others watch: the watchers receive online and offline in turns, never the same
/// twice.
#[test]
fn joins_and_leaves_are_sent_alternately() {
    let server = Setup::new().workers(4).start();
    let mut watchers: BTreeMap<u16, Client> = BTreeMap::new();
    for number in 0..4 {
        let mut watcher = server.connect();
        watcher.join("presence-r", r#"{"user_id":"w"}"#);
        watchers.insert(number, watcher);
    }
    let mut client = server.connect();
    let message = client.subscribe_message("presence-r", Some(SEVEN));
    for _ in 0..30 {
        client.send(&message);
        client.unsubscribe("presence-r");
    }
    client.close_among_events();
    eventually("the user is gone", || {
        let users = server.get("/channels/presence-r/users");
        (users == r#"{"users":[{"id":"w"}]}"#).then_some(())
    });
    server.publish("presence-r", "end", "x");
    for watcher in watchers.values_mut() {
        let mut inside = false;
        loop {
            let event = watcher.event();
            match event["event"].as_str() {
                Some("pusher_internal:member_added") if !inside => inside = true,
                Some("pusher_internal:member_removed") if inside => inside = false,
                Some("end") if !inside => break,
                _ => panic!("out of turn: {event}"),
            }
        }
    }
}
