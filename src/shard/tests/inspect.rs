//! Questions of an operator: each entry once, in slices, and never more rows than the limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::net::{APP, Client, Net};
use crate::app::{App, sample};
use crate::clock::Moment;
use crate::pusher::socket_id::SocketId;
use crate::shard::inspect::{CHANNEL_ROWS_MAX, ROWS_MAX, SLICE_ENTRIES_MAX};
use crate::shard::operator::ANSWER_BYTES_MAX;
use crate::shard::{
    AccessEnd, Answer, ChannelRow, ConnectionDetails, ConnectionRow, Findings, GatherAnswer,
    Inspection, Inspector, Mail, OPERATOR_ORDERS_MAX, Observation, OperatorOrder, OperatorOutcome,
    OperatorQuestion, Shard,
};

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

fn details_of(net: &Net, client: Client) -> Option<Box<crate::shard::ConnectionDetails>> {
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
    // The table of channels, and then the rows that were found.
    assert!(slices > 2 * (count / SLICE_ENTRIES_MAX as usize), "{slices} slices");
    let one = Inspection::Channels { app: APP, contains: "c-20006".into() };
    assert_eq!(ask(&net, &one).0[0].channels.len(), 1);
    assert_eq!(details_of(&net, clients[0]).expect("open").channels.len(), ROWS_MAX);
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
    let seen = details_of(&net, one).expect("open");
    assert_eq!(seen.row.user.as_deref(), Some("ada"));
    assert!(seen.has_signed_in && !seen.is_closing && seen.kept_bytes > 0);
    assert_eq!(seen.channels.iter().map(|name| &**name).collect::<Vec<_>>(), ["news"]);
    assert_eq!(seen.row.age_seconds, None, "it was opened in this second");
    net.advance(5);
    assert_eq!(details_of(&net, one).expect("open").row.age_seconds, Some(5));
    let shard = &mut net.shards[0];
    assert_eq!(shard.end_for_operator(one.key, Some("other")), AccessEnd::NotSubscribed);
    assert_eq!(shard.end_for_operator(one.key, Some("news")), AccessEnd::Done);
    assert_eq!(shard.end_for_operator(one.key, Some("news")), AccessEnd::NotSubscribed);
    assert!(details_of(&net, one).is_some_and(|seen| seen.channels.is_empty()));
    let shard = &mut net.shards[0];
    assert_eq!(shard.end_for_operator(one.key, None), AccessEnd::Done);
    for channel in [None, Some("news")] {
        assert_eq!(shard.end_for_operator(one.key, channel), AccessEnd::NotOpen, "it is closing");
    }
    assert_eq!((found(&net, ""), details_of(&net, one).is_none()), (1, true));
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

fn inspect(shard: &Shard, mut inspector: Inspector) -> Findings {
    while !shard.inspect(&mut inspector) {}
    inspector.findings
}

/// A presence channel whose subscribers are on other cores or nodes has a row on its home, too.
#[test]
fn channels_and_rosters_have_one_limit_together() {
    const CHANNELS: usize = 1_200;
    let app = App { channels_per_connection_max: u32::MAX, ..sample() };
    let mut net = Net::with_app(2, app);
    let clients: Vec<Client> = [0, 0, 1].into_iter().map(|core| net.connect(core)).collect();
    for number in 0..CHANNELS {
        for (client, kind) in clients.iter().zip(["presence-a", "presence-b", "c"]) {
            let user = kind.starts_with("presence").then(|| json!("7"));
            net.subscribe(*client, &format!("{kind}-{number}"), user.as_ref());
            net.read_raw(*client);
        }
        net.settle();
    }
    let asked = || Inspection::Channels { app: APP, contains: "".into() };
    let all = inspect(&net.shards[1], Inspector::new(asked()));
    let rosters = all.channels.iter().filter(|row| row.subscribers == 0).count();
    assert_eq!((all.channels.len(), all.left_out), (CHANNELS + rosters, 0));
    assert!(
        (1_000..1_400).contains(&rosters),
        "half of the presence channels have their home here"
    );
    let cut = inspect(&net.shards[1], Inspector::for_node(asked()));
    assert_eq!(cut.channels.len(), ANSWER_BYTES_MAX / 48);
    assert_eq!(cut.channels.len() as u64 + cut.left_out, (CHANNELS + rosters) as u64);
    // A channel whose home has subscribers of it has one row there.
    let here = inspect(&net.shards[0], Inspector::new(asked())).channels;
    assert_eq!(here.iter().filter(|row| row.subscribers > 0).count(), 2 * CHANNELS);
    let with_users = here.iter().filter(|row| row.subscribers > 0 && row.users > 0).count();
    assert_eq!(with_users, 2 * CHANNELS - rosters);
}

/// Each subscription of a connection is looked at for a user.
#[test]
fn a_slice_ends_early_where_connections_have_many_subscriptions() {
    let app = App { channels_per_connection_max: u32::MAX, ..sample() };
    let mut net = Net::with_app(1, app);
    let clients: Vec<Client> = (0..4).map(|_| net.connect(0)).collect();
    for number in 0..SLICE_ENTRIES_MAX {
        for client in &clients {
            net.subscribe(*client, &format!("c-{number}"), None);
            net.read_raw(*client);
        }
    }
    for asked in [
        Inspection::Connections { app: None, contains: "".into() },
        Inspection::Channel { app: APP, name: "c-0".into() },
    ] {
        let (findings, slices) = ask(&net, &asked);
        assert_eq!(findings[0].connections.len(), clients.len());
        assert!(slices >= clients.len(), "{slices} slices for {asked:?}");
    }
}

#[test]
fn the_members_of_a_channel_are_a_slice_of_their_own() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    net.subscribe(client, "presence-a", Some(&json!("7")));
    let mut inspector = Inspector::new(Inspection::Channel { app: APP, name: "presence-a".into() });
    assert!(!net.shards[0].inspect(&mut inspector));
    let found = |inspector: &Inspector| {
        (inspector.findings.connections.len(), inspector.findings.members.len())
    };
    assert_eq!(found(&inspector), (1, 0));
    assert!(net.shards[0].inspect(&mut inspector));
    assert_eq!(found(&inspector), (1, 1));
}

#[test]
fn an_answer_to_another_node_is_cut_at_its_bytes_and_what_is_left_out_is_counted() {
    let net = Net::new(1);
    let apps = &net.shards[0].context.settings.apps;
    let text = |number: usize, length: usize| format!("{number:0>length$}");
    let row = |number: usize, subscribers, users| ChannelRow {
        name: Arc::from(text(number, 200)),
        subscribers,
        users,
    };
    const ROWS: usize = 500;
    // Each is over its share. The subscribers of the last channels are on other nodes.
    let mut channels: Vec<ChannelRow> = (0..ROWS).map(|number| row(number, 2, 0)).collect();
    channels.extend((0..10).map(|number| row(ROWS + number, 0, 50)));
    let members = (0..ROWS).map(|number| (text(number, 100).into(), text(number, 100).into()));
    let found = Findings {
        channels,
        members: members.collect(),
        left_out: 7,
        left_out_subscribers: 9,
        ..Findings::default()
    };
    let rows = found.to_node_answer(apps);
    let bytes: usize = rows.channels.iter().map(|row| row.name.len() + 48).sum();
    let more: usize = rows.members.iter().map(|(id, info)| id.len() + info.len() + 48).sum();
    assert!(bytes + more <= ANSWER_BYTES_MAX && bytes + more > ANSWER_BYTES_MAX / 2);
    let [kept, members] = [rows.channels.len(), rows.members.len()];
    assert!(kept > 100 && kept < ROWS && members > 100 && members < ROWS);
    assert_eq!(rows.left_out, (ROWS + 10 - kept + 7) as u64);
    assert_eq!(rows.left_out_members, (ROWS - members) as u64);
    assert_eq!(rows.left_out_subscribers, 2 * (ROWS + 10 - kept) as u64 + 9);
    assert_eq!(rows.channels.iter().filter(|row| row.users == 50).count(), 10, "they come first");
}

#[test]
fn details_of_a_connection_for_another_node_count_its_user_and_address() {
    let mut net = Net::new(1);
    let client = net.connect(0);
    let details = details_of(&net, client).expect("open");
    let user: Box<str> = "u".repeat(ANSWER_BYTES_MAX - 500).into();
    let row = ConnectionRow { user: Some(user), ..details.row.clone() };
    let channels: Vec<Arc<str>> = (0..10).map(|_| Arc::from("c".repeat(100))).collect();
    let details = ConnectionDetails { row, channels, ..*details };
    let answer = details.to_node_answer(&net.shards[0].context.settings.apps);
    assert!((1..4).contains(&answer.channel_names.len()), "what the user leaves");
}

fn order(shard: &Shard, id: u32) -> OperatorOrder {
    let question = OperatorQuestion::Connections { app: None, contains: "".into() };
    OperatorOrder {
        gathering_core: 0,
        question_number: id,
        received_at: shard.now(),
        question: Arc::new(question),
    }
}

/// The numbers of the questions that were answered `Busy`.
fn busy(shard: &mut Shard) -> Vec<u32> {
    let answered = std::mem::take(&mut shard.outbox.answered);
    let ids = answered.into_iter().map(|answered| match answered {
        GatherAnswer::Core { id, answer: Answer::Operator(answer) } => {
            assert_eq!(answer.outcome, OperatorOutcome::Busy);
            id
        }
        _ => panic!("an answer of this core"),
    });
    ids.collect()
}

#[test]
fn questions_of_other_operators_over_the_limit_are_answered_busy_and_counted() {
    let mut net = Net::in_cluster(1, sample());
    let shard = &mut net.shards[0];
    let most = u32::try_from(OPERATOR_ORDERS_MAX).unwrap();
    for id in 0..most {
        shard.queue_operator_order(order(shard, id));
    }
    assert_eq!(busy(shard), [0_u32; 0]);
    shard.queue_operator_order(order(shard, most));
    assert_eq!(busy(shard), [most]);
    let metrics = shard.metrics().clone();
    assert_eq!((metrics.operator_orders.get(), metrics.operator_orders_refused.get()), (32, 1));
    assert_eq!(
        shard.next_operator_order(0).map(|order| order.question_number),
        Some(0),
        "the oldest"
    );
    shard.queue_operator_order(order(shard, most + 1));
    assert_eq!(busy(shard), [0_u32; 0], "there is room again");
    while shard.next_operator_order(0).is_some() {}
    assert_eq!((metrics.operator_orders.get(), metrics.operator_orders.peak()), (0, 32));
}

/// The node that asks has reported to its operator that this node does not answer.
#[test]
fn an_order_whose_asker_no_longer_waits_is_not_carried_out() {
    let mut net = Net::in_cluster(1, sample());
    let shard = &mut net.shards[0];
    shard.queue_operator_order(order(shard, 1));
    net.advance(1);
    let shard = &mut net.shards[0];
    shard.queue_operator_order(order(shard, 2));
    let first = shard.next_operator_order(0).expect("in time");
    assert_eq!(first.question_number, 1);
    net.advance(1);
    let shard = &mut net.shards[0];
    assert!(first.is_late(shard.now(), 0));
    shard.queue_operator_order(order(shard, 3));
    net.advance(1);
    let shard = &mut net.shards[0];
    assert_eq!(
        shard.next_operator_order(0).map(|order| order.question_number),
        Some(3),
        "2 is late"
    );
    assert_eq!(busy(shard), [2], "the core that gathers has an answer of each core");
    assert_eq!(shard.metrics().operator_orders_refused.get(), 1);
}

/// The question has spent the time of its asker in Redis, or in the mail of its node.
#[test]
fn an_action_that_arrives_after_its_deadline_is_not_carried_out() {
    let mut net = Net::in_cluster(1, sample());
    net.advance(2);
    let shard = &mut net.shards[0];
    let socket_id = SocketId::parse("1.2").unwrap();
    let question =
        OperatorQuestion::EndAccessUntil { socket_id, channel: None, deadline_unix_ms: 1_000 };
    assert_eq!(question.access_to_end(), Some((socket_id, None)));
    let question = Arc::new(question);
    let inspect =
        |id, received_at| Mail::Inspect { id, from: 0, received_at, question: question.clone() };
    let now = shard.now();
    shard.on_mail(inspect(1, now));
    assert!(shard.next_operator_order(6_200).is_none(), "late by the clocks");
    assert_eq!(busy(shard), [1]);
    let notes = std::mem::take(&mut shard.outbox.notes);
    assert!(notes.len() == 1 && notes[0].contains("is 6.2 s old"), "{notes:?}");
    shard.on_mail(inspect(2, Moment(0)));
    assert!(shard.next_operator_order(1_000).is_none(), "it waited for this core");
    assert_eq!(busy(shard), [2]);
    assert!(shard.outbox.notes.is_empty(), "its clock is not the reason");
    shard.on_mail(inspect(3, now));
    assert_eq!(shard.next_operator_order(1_000).map(|order| order.question_number), Some(3));
}
