//! Questions of an operator: each entry once, in slices, and never more rows than the limits.

use std::collections::BTreeMap;

use serde_json::json;

use super::net::{APP, Client, Net};
use crate::app::{App, sample};
use crate::shard::inspect::{CHANNEL_ROWS_MAX, ROWS_MAX, SLICE_ENTRIES_MAX};
use crate::shard::{AccessEnd, Findings, Inspection, Inspector, Observation};

/// The answers of all cores, and the slices of the longest.
fn ask(net: &Net, asked: &Inspection) -> (Vec<Findings>, usize) {
    let mut slices_max = 0;
    let findings = net.shards.iter().map(|shard| {
        let mut inspector = Inspector::new(asked.clone());
        let mut slices = 1;
        while !shard.inspect(&mut inspector) {
            slices += 1;
            assert!(slices < 10_000, "it ends");
        }
        slices_max = slices_max.max(slices);
        inspector.findings
    });
    (findings.collect(), slices_max)
}

fn channels(net: &Net, contains: &str) -> BTreeMap<String, (u32, u32)> {
    let (findings, _) = ask(net, &Inspection::Channels { app: APP, contains: contains.into() });
    let mut sums = BTreeMap::new();
    for row in findings.iter().flat_map(|one| &one.channels) {
        let sum: &mut (u32, u32) = sums.entry(row.name.to_string()).or_default();
        *sum = (sum.0 + row.subscribers, sum.1 + row.users);
    }
    sums
}

fn inside(net: &Net, client: Client) -> Option<Box<crate::shard::ConnectionDetails>> {
    let (findings, _) = ask(net, &Inspection::Connection { socket_id: client.socket_id });
    findings.into_iter().find_map(|one| one.details)
}

#[test]
fn channels_are_counted_over_all_cores_and_filtered_by_name() {
    let mut net = Net::new(3);
    let clients: Vec<Client> = (0..6).map(|number| net.connect(number % 3)).collect();
    for client in &clients {
        net.subscribe(*client, "news", None);
    }
    net.subscribe(clients[0], "presence-room", Some(&json!("7")));
    net.subscribe(clients[1], "presence-room", Some(&json!("7")));
    net.subscribe(clients[2], "presence-room", Some(&json!("8")));
    net.settle();
    let expected = [("news".to_owned(), (6, 0)), ("presence-room".to_owned(), (3, 2))];
    assert_eq!(channels(&net, ""), expected.clone().into());
    assert_eq!(channels(&net, "room"), expected[1..].iter().cloned().collect());
    assert_eq!(channels(&net, "nothing"), BTreeMap::new());
    let (findings, _) = ask(&net, &Inspection::Channel { app: APP, name: "presence-room".into() });
    let members: Vec<&str> =
        findings.iter().flat_map(|one| &one.members).map(|(id, _)| &**id).collect();
    assert_eq!(members, ["7", "8"]);
    let mut users: Vec<_> =
        findings.iter().flat_map(|one| &one.connections).map(|row| row.user.clone()).collect();
    users.sort();
    assert_eq!(users, [Some("7".into()), Some("7".into()), Some("8".into())]);
}

#[test]
fn a_question_about_many_channels_is_answered_in_slices_and_cut_at_its_limit() {
    /// A connection may have so many.
    const CHANNELS: usize = ROWS_MAX + 100;
    let app = App { channels_per_connection_max: u32::MAX, ..sample() };
    let mut net = Net::with_app(1, app);
    let count = CHANNEL_ROWS_MAX + 7;
    let clients: Vec<Client> = (0..=count / CHANNELS).map(|_| net.connect(0)).collect();
    for number in 0..count {
        let client = clients[number / CHANNELS];
        let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"c-{number}"}}}}"#);
        net.say(client, &text);
        net.read_raw(client);
    }
    let last = format!("c-{}", count - 1);
    net.subscribe(clients[0], &last, None);
    let all = Inspection::Channels { app: APP, contains: "".into() };
    let (findings, slices) = ask(&net, &all);
    let found = &findings[0];
    assert_eq!((found.channels.len(), found.left_out), (CHANNEL_ROWS_MAX, 7));
    assert_eq!(found.left_out_subscribers, 7);
    let most = found.channels.iter().max_by_key(|row| row.subscribers);
    assert_eq!(most.map(|row| (&*row.name, row.subscribers)), Some((&*last, 2)));
    assert!(slices > count / SLICE_ENTRIES_MAX as usize, "{slices} slices");
    let one = Inspection::Channels { app: APP, contains: "c-20006".into() };
    assert_eq!(ask(&net, &one).0[0].channels.len(), 1);
    assert_eq!(inside(&net, clients[0]).expect("open").channels.len(), ROWS_MAX);
}

/// The one that an operator looks for may be the last to have connected.
#[test]
fn over_the_limit_the_connections_with_the_longest_queues_are_kept_then_the_oldest() {
    const COUNT: usize = 3 * ROWS_MAX;
    let mut net = Net::new(1);
    let connect = |net: &mut Net| {
        let client = net.connect(0);
        net.read_raw(client);
        client
    };
    let oldest: Vec<Client> = (0..2).map(|_| connect(&mut net)).collect();
    net.advance(5);
    let others: Vec<Client> = (2..COUNT).map(|_| connect(&mut net)).collect();
    for client in others.iter().rev().take(3) {
        net.say(*client, r#"{"event":"pusher:ping","data":{}}"#);
    }
    let (findings, _) = ask(&net, &Inspection::Connections { app: None, contains: "".into() });
    let (rows, left_out) = (&findings[0].connections, findings[0].left_out);
    assert_eq!((rows.len(), left_out), (ROWS_MAX, (COUNT - ROWS_MAX) as u64));
    let has = |client: &Client| rows.iter().any(|row| row.socket_id == client.socket_id);
    assert!(others.iter().rev().take(3).all(has), "those with a queue");
    assert!(oldest.iter().all(has), "the oldest");
}

#[test]
fn connections_are_found_by_user_and_socket_id_until_a_disconnect() {
    let mut net = Net::new(2);
    let (one, other) = (net.connect(0), net.connect(1));
    net.sign_in(one, "ada", &[]);
    net.subscribe(one, "news", None);
    net.settle();
    let found = |net: &Net, contains: &str| {
        let asked = Inspection::Connections { app: None, contains: contains.into() };
        ask(net, &asked).0.iter().map(|one| one.connections.len()).sum::<usize>()
    };
    assert_eq!((found(&net, ""), found(&net, "ad"), found(&net, "bob")), (2, 1, 0));
    assert_eq!(found(&net, &other.socket_id.to_string()), 1);
    let seen = inside(&net, one).expect("open");
    assert_eq!(seen.connection_row.user.as_deref(), Some("ada"));
    assert!(seen.has_signed_in && !seen.is_closing && seen.kept_bytes > 0);
    assert_eq!(seen.channels.iter().map(|name| &**name).collect::<Vec<_>>(), ["news"]);
    assert_eq!(seen.connection_row.age_seconds, None, "it was opened in this second");
    net.advance(5);
    assert_eq!(inside(&net, one).expect("open").connection_row.age_seconds, Some(5));
    let shard = &mut net.shards[0];
    assert_eq!(shard.end_for_operator(one.key, Some("other")), AccessEnd::NotSubscribed);
    assert_eq!(shard.end_for_operator(one.key, Some("news")), AccessEnd::Done);
    assert_eq!(shard.end_for_operator(one.key, Some("news")), AccessEnd::NotSubscribed);
    assert!(inside(&net, one).is_some_and(|seen| seen.channels.is_empty()));
    let shard = &mut net.shards[0];
    assert_eq!(shard.end_for_operator(one.key, None), AccessEnd::Done);
    for channel in [None, Some("news")] {
        assert_eq!(shard.end_for_operator(one.key, channel), AccessEnd::NotOpen, "it is closing");
    }
    assert_eq!((found(&net, ""), inside(&net, one).is_none()), (1, true));
}

#[test]
fn observations_are_made_only_while_there_is_a_viewer() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    net.subscribe(client, "news", None);
    assert!(net.shards[0].outbox.observations.is_empty());
    net.shards[0].outbox.is_observed = true;
    net.subscribe(client, "private-a", None);
    net.say(client, r#"{"event":"client-e","channel":"private-a","data":{}}"#);
    net.say(client, r#"{"event":"pusher:unsubscribe","data":{"channel":"news"}}"#);
    net.shards[0].end_for_operator(client.key, None);
    let seen: Vec<&str> = net.shards[0]
        .outbox
        .observations
        .iter()
        .map(|observation| match observation {
            Observation::Connected { .. } => "connected",
            Observation::Disconnected { .. } => "disconnected",
            Observation::Subscribed { .. } => "subscribed",
            Observation::Unsubscribed { .. } => "unsubscribed",
            Observation::SignedIn { .. } => "signed in",
            Observation::ClientEvent { .. } => "client event",
        })
        .collect();
    let expected = ["subscribed", "client event", "unsubscribed", "unsubscribed", "disconnected"];
    assert_eq!(seen, expected);
}
