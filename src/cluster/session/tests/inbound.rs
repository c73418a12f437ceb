//! Messages of other sessions: each once, in its sender's order, on a topic of its kind.

use super::super::awaited::SENDERS_MAX;
use super::*;
use crate::app::App;
use crate::shard::{AccessAction, AccessTarget, NodeSnapshot, ShardConfiguration, WireQuestion};

#[test]
fn an_event_is_delivered_once_and_by_its_senders_order() {
    /// What is received, by sender and number, and how many of them are delivered.
    type Row<'a> = (&'a str, &'a [(SessionId, u64)], usize);
    let rows: [Row<'_>; 5] = [
        ("once", &[(PEER, 1), (PEER, 1)], 1),
        ("each number", &[(PEER, 1), (PEER, 2)], 2),
        ("numbers may be left out", &[(PEER, 1), (PEER, 9)], 2),
        ("a lower number was received before", &[(PEER, 9), (PEER, 1)], 1),
        ("each sender has its own", &[(PEER, 9), (THIRD, 1)], 2),
    ];
    for (what, received, delivered) in rows {
        let mut session = TestSession::up();
        session.subscribe();
        for (from, number) in received {
            session.receive_event(*from, *number, "e");
        }
        assert_eq!(session.delivered().len(), delivered, "{what}");
    }
}

/// Redis refuses a retransmission by the number that it has stored. If it has lost that number, it stores the event
/// over a newer one, and nodes that read it afterwards remember another event than those that do not.
#[test]
fn an_event_that_redis_stores_twice_is_read_again() {
    let rows: [(bool, [&[&str]; 2]); 2] =
        [(true, [&[], &["GET key/cache-c"]]), (false, [&[], &[]])];
    for (cache, expected) in rows {
        let mut session = TestSession::new(Login::default());
        session.open();
        session.subscribe_to("cache-c");
        let frame = frame::encode_text(b"e");
        for commands in expected {
            let message = ChannelMessage::Event { except: None, cache };
            session.receive_on("c:1001:cache-c", PEER, 5, message.into(), &frame).unwrap();
            assert_eq!(session.commands(), commands, "cache: {cache}");
        }
        assert_eq!(session.delivered().iter().filter(|text| *text == "e").count(), 1);
    }
}

#[test]
fn own_events_are_not_delivered_again() {
    let mut session = TestSession::up();
    session.subscribe();
    for from in [SessionId { node: NODE, core: 0 }, SIBLING] {
        session.receive_event(from, 50, "own");
    }
    assert_eq!(session.delivered(), [""; 0]);
}

#[test]
fn a_message_on_a_topic_of_the_wrong_kind_is_ignored() {
    let event = || ChannelMessage::Event { except: None, cache: false }.into();
    let frame = frame::encode_text(b"e");
    let terminate = || -> NodeMessage {
        SessionMessage::Terminate { app: "1001".into(), user_id: "u".into() }.into()
    };
    let ask = || -> NodeMessage {
        let question = WireQuestion::Connections { app: "1001".into() };
        ApiMessage::Ask { id: 4, question }.into()
    };
    let mut session = TestSession::up();
    session.subscribe();
    let topics = ["all", "link:0000000000000007:0", "c:1001:news", "c:2:news", "c:1001:", "x"];
    let mut number = 0;
    for topic in topics {
        for (message, frame) in [(event(), &frame[..]), (terminate(), b""), (ask(), b"")] {
            number += 1;
            session.receive_on(topic, PEER, number, message, frame).unwrap();
        }
    }
    assert_eq!(session.delivered(), ["e"], "on its own topic only");
    let questions = session.session.take_questions();
    assert_eq!(questions.len(), 3, "on the three that are no channel's");
    assert!(questions.iter().all(|(from, id, asked)| (*from, *id) == (PEER, 4) && asked.is_some()));
    assert!(session.session.notes.is_empty(), "{:?}", session.session.notes);
}

#[test]
fn a_question_about_an_app_that_this_node_does_not_have_is_answered_without_one() {
    let mut session = TestSession::up();
    let question = WireQuestion::Connections { app: "2".into() };
    session.receive(PEER, 1, ApiMessage::Ask { id: 4, question }.into()).unwrap();
    let questions = session.session.take_questions();
    assert!(matches!(questions[..], [(PEER, 4, None)]), "{questions:?}");
}

/// The session of a node whose core has a subscriber of `news`, and does not serve the app any longer, or not yet
/// again. The subscriber's connection is still to be closed.
fn with_a_removed_app() -> TestSession {
    let mut session = TestSession::up();
    let counting = App { sends_subscription_count: true, ..sample() };
    apply(&mut session, vec![counting]);
    session.subscribe_to("news");
    assert_eq!(session.delivered(), ["connection_established"], "it waits for node 9");
    apply(&mut session, Vec::new());
    assert_eq!(session.session.apps.by_id("1001"), None);
    session
}

fn apply(session: &mut TestSession, wanted: Vec<App>) {
    let apps = Arc::new(session.session.apps.change_steps(wanted).unwrap().without_removed_apps);
    session.session.set_apps(apps.clone());
    session.shard.apply(ShardConfiguration { apps, verbose_errors: false, debug: false });
}

/// A later subscriber of a topic that is still subscribed to waits for no snapshot, so one that is discarded during
/// that time stays unknown.
#[test]
fn a_snapshot_of_an_app_that_is_removed_here_counts_when_the_app_returns() {
    let mut session = with_a_removed_app();
    let snapshot = Some(NodeSnapshot { count: 4, ..NodeSnapshot::default() });
    let (app, channel) = ("1001".into(), "news".into());
    let message = SessionMessage::Snapshot { app, channel, ticket: 0, snapshot };
    session.receive(PEER, 1, message.into()).unwrap();
    apply(&mut session, vec![App { sends_subscription_count: true, ..sample() }]);
    assert_eq!(session.delivered(), ["subscription_succeeded"], "node 9 has answered");
    session.subscribe_to("news");
    session.shard.settle();
    let delivered = session.delivered();
    let count = delivered.last().unwrap();
    assert!(
        count.contains(r#"{\"subscription_count\":6}"#),
        "two here and four there: {delivered:?}"
    );
}

/// A core that closes the connections of a removed app looks at some of them in each tick, so others are open when the
/// app returns.
#[test]
fn access_to_an_app_that_is_removed_here_can_be_taken_back() {
    for is_replayed in [false, true] {
        let mut session = with_a_removed_app();
        let key = session.client.unwrap();
        let target = AccessTarget::Socket(session.shard.get(key).unwrap().socket_id);
        let (app, action) = ("1001".into(), AccessAction::Terminate);
        let message = if is_replayed {
            let what = Replayed::EndAccess { app: "1001".into(), target, action };
            SessionMessage::Replay { number: 5, app, channel: "".into(), what }
        } else {
            SessionMessage::EndAccess { app, target, action }
        };
        session.receive(PEER, 5, message.into()).unwrap();
        let delivered = session.delivered();
        assert!(delivered.iter().any(|text| text.contains("4009")), "{is_replayed} {delivered:?}");
    }
}

/// Redis counts this node among the receivers, so each of its sessions answers for itself, without what it has.
#[test]
fn a_session_answers_questions_and_requests_of_its_own_node_with_nothing() {
    let own = SessionId { node: NODE, core: 0 };
    let ask = |from| -> (SessionId, NodeMessage) {
        let question = WireQuestion::Connections { app: "1001".into() };
        (from, ApiMessage::Ask { id: 4, question }.into())
    };
    let request = |from| -> (SessionId, NodeMessage) {
        (from, SessionMessage::ReplayRequest { away_seconds: 3, received: Vec::new() }.into())
    };
    let rows = [
        (ask(own), vec!["PUBLISH session/7:0 Answer(4, 0)"]),
        (ask(SIBLING), vec!["PUBLISH session/7:1 Answer(4, 0)"]),
        (request(SIBLING), vec!["PUBLISH session/7:1 ReplayDone"]),
        (request(own), vec![]),
        ((SIBLING, SessionMessage::Heartbeat.into()), vec![]),
    ];
    for ((from, message), answers) in rows {
        let mut session = TestSession::up();
        session.receive(from, 50, message.clone()).unwrap();
        let sent = session.commands();
        let without_number: Vec<&str> =
            sent.iter().map(|command| command.split('#').next().unwrap()).collect();
        assert_eq!(without_number, answers, "{message:?} of {from:?}");
        assert!(session.session.take_questions().is_empty());
    }
}

#[test]
fn an_echo_counts_by_its_highest_number() {
    let mut session = TestSession::up();
    let own = SessionId { node: NODE, core: 0 };
    for number in [7, 9, 8] {
        session.receive(own, number, SessionMessage::Heartbeat.into()).unwrap();
    }
    session.receive(SIBLING, 99, SessionMessage::Heartbeat.into()).unwrap();
    assert_eq!(session.session.partition.echo_received, 9);
}

#[test]
fn messages_of_a_session_reach_the_shard() {
    let mut session = TestSession::up();
    session.receive(PEER, 1, SessionMessage::Heartbeat.into()).unwrap();
    assert_eq!(session.shard.cluster_entries().1, 1, "the node is known");
    session.receive(PEER, 2, SessionMessage::NodeEnds.into()).unwrap();
    assert_eq!(session.shard.cluster_entries().1, 0, "and has ended");
    session.receive(PEER, 3, SessionMessage::Revive { node: NODE }.into()).unwrap();
    session.commands();
    session.subscribe();
    session.receive(PEER, 4, SessionMessage::Revive { node: NODE }.into()).unwrap();
    assert_eq!(session.commands(), ["SUBSCRIBE n/news"], "all topics are announced again");
}

#[test]
fn more_sessions_than_the_limit_make_room_by_forgetting_the_silent_ones() {
    let mut session = TestSession::up();
    let from = |node| SessionId { node: NodeId(node), core: 0 };
    for node in 100..100 + SENDERS_MAX as u64 {
        assert!(session.session.note_number(from(node), 5));
    }
    assert_eq!(session.session.senders.len(), SENDERS_MAX);
    assert!(!session.session.note_number(from(100), 5), "a known one needs no room");
    session.session.clock += LEASE + 1;
    assert!(session.session.note_number(from(1), 5));
    assert_eq!(session.session.senders.len(), 1, "all others were silent for more than a lease");
    assert!(session.session.notes.iter().any(|note| note.contains("100000")));
    for node in 100..100 + SENDERS_MAX as u64 {
        session.session.note_number(from(node), 5);
        assert!(session.session.senders.len() <= SENDERS_MAX);
    }
    assert_eq!(session.session.senders.len(), 1, "none was silent: all are forgotten");
}

const LEASE: u32 = crate::shard::LEASE_SECONDS;
