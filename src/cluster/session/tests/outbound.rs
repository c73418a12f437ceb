//! Effects of the shard as commands, and what is kept until Redis has confirmed it.

use crate::buffer::FrameBytes;
use crate::limits::CLUSTER_EFFECTS_MAX;
use std::sync::Arc as Shared;

use super::*;
use crate::shard::{AccessCommand, NodeSnapshot, OperatorQuestion, Question, ToCluster};

/// Effects in, commands out, on a session that is up and on one that is down.
#[test]
fn each_effect_is_one_command_and_only_effects_that_no_snapshot_repeats_wait_for_a_session() {
    let channel = TestSession::up().shard.channel_key(AppIndex(0), "cache-c").unwrap();
    let channel = || channel.clone();
    let frame = || FrameBytes::from(frame::encode_text(b"e"));
    let publish = |ttl| ToCluster::Publish {
        channel: channel(),
        frame: frame(),
        except: None,
        cache_ttl_seconds: ttl,
    };
    let count = |is_transition| ToCluster::Send {
        channel: channel(),
        message: ChannelMessage::Count(1),
        is_transition,
    };
    let question = Shared::new(Question::Connections { app: AppIndex(0) });
    let of_operator = Box::new(OperatorQuestion::Connections { app: None, contains: "a".into() });
    let rows: Vec<(ToCluster, &str, bool)> = vec![
        (publish(None), "PUBLISH n/cache-c Event(e)", true),
        (publish(Some(60)), "EVAL key/cache-c n/cache-c Event(e)", true),
        (
            ToCluster::EndAccess(Box::new(AccessCommand::terminate(AppIndex(0), "u"))),
            "PUBLISH all Terminate",
            true,
        ),
        (ToCluster::Subscribe { channel: channel(), ticket: 1 }, "SUBSCRIBE n/cache-c", false),
        (ToCluster::Unsubscribe { channel: channel() }, "UNSUBSCRIBE n/cache-c", false),
        (count(false), "PUBLISH n/cache-c Count", false),
        (count(true), "PUBLISH n/cache-c Count", false),
        (
            ToCluster::Synchronize {
                channel: channel(),
                ticket: 1,
                snapshot: NodeSnapshot::default(),
            },
            "PUBLISH n/cache-c Synchronize",
            false,
        ),
        (ToCluster::Fetch { channel: channel(), ticket: 1 }, "GET key/cache-c", false),
        (
            ToCluster::StoreIfAbsent { channel: channel(), frame: frame(), seconds: 9 },
            "SET key/cache-c",
            false,
        ),
        (
            ToCluster::Reply { to: PEER, message: SessionMessage::ReplayDone.into() },
            "PUBLISH session/9:0 ReplayDone",
            false,
        ),
        (ToCluster::SendToAll { message: SessionMessage::NodeEnds }, "PUBLISH all NodeEnds", false),
        (ToCluster::Ask { id: 4, question }, "PUBLISH ask Ask", false),
        (ToCluster::AskOperator { id: 5, question: of_operator }, "PUBLISH ask Ask", false),
    ];
    for (effect, command, is_kept) in rows {
        let what = format!("{effect:?}");
        let (mut up, mut down) = (TestSession::up(), TestSession::up());
        down.session.close(&mut down.shard);
        down.session.carry_out_one(clone_of(&effect));
        up.session.carry_out_one(effect);
        let without_number = |commands: Vec<String>| {
            let each = commands.iter().map(|command| command.split('#').next().unwrap().to_owned());
            each.collect::<Vec<_>>()
        };
        assert_eq!(without_number(up.commands()), [command], "{what}");
        assert_eq!(up.session.awaited.len(), 1, "one reply is awaited: {what}");
        assert_eq!(down.commands(), [""; 0], "{what}");
        down.session.open();
        down.answer(MASTER);
        let sent = without_number(down.commands());
        assert_eq!(sent.contains(&command.to_owned()), is_kept, "{what}: {sent:?}");
    }
}

/// The effects have no `Clone`, because nothing but this test needs it.
fn clone_of(effect: &ToCluster) -> ToCluster {
    match effect {
        ToCluster::Publish { channel, frame, except, cache_ttl_seconds } => ToCluster::Publish {
            channel: channel.clone(),
            frame: frame.clone(),
            except: *except,
            cache_ttl_seconds: *cache_ttl_seconds,
        },
        ToCluster::EndAccess(command) => ToCluster::EndAccess(command.clone()),
        ToCluster::Subscribe { channel, ticket } => {
            ToCluster::Subscribe { channel: channel.clone(), ticket: *ticket }
        }
        ToCluster::Unsubscribe { channel } => ToCluster::Unsubscribe { channel: channel.clone() },
        ToCluster::Send { channel, message, is_transition } => ToCluster::Send {
            channel: channel.clone(),
            message: message.clone(),
            is_transition: *is_transition,
        },
        ToCluster::Synchronize { channel, ticket, snapshot } => ToCluster::Synchronize {
            channel: channel.clone(),
            ticket: *ticket,
            snapshot: snapshot.clone(),
        },
        ToCluster::Fetch { channel, ticket } => {
            ToCluster::Fetch { channel: channel.clone(), ticket: *ticket }
        }
        ToCluster::StoreIfAbsent { channel, frame, seconds } => ToCluster::StoreIfAbsent {
            channel: channel.clone(),
            frame: frame.clone(),
            seconds: *seconds,
        },
        ToCluster::Reply { to, message } => ToCluster::Reply { to: *to, message: message.clone() },
        ToCluster::SendToAll { message } => ToCluster::SendToAll { message: message.clone() },
        ToCluster::Ask { id, question } => ToCluster::Ask { id: *id, question: question.clone() },
        ToCluster::AskOperator { id, question } => {
            ToCluster::AskOperator { id: *id, question: question.clone() }
        }
    }
}

#[test]
fn numbers_grow_by_one_over_all_messages_and_connections() {
    let mut session = TestSession::up();
    ["one", "two"].iter().for_each(|text| session.publish("news", text));
    let first = session.session.last_number - 1;
    let expected = |text: &str, number: u64| format!("PUBLISH n/news Event({text})#{number}");
    assert_eq!(session.commands(), [expected("one", first), expected("two", first + 1)]);
    session.reconnect();
    let sent = session.commands();
    assert_eq!(sent[..2], [expected("one", first), expected("two", first + 1)], "as they were");
    assert_eq!(sent[2], format!("PUBLISH all SessionUp#{}", first + 2));
}

#[test]
fn subscribe_and_unsubscribe_are_counted_until_redis_has_confirmed_them() {
    let mut session = TestSession::up();
    let channel = session.shard.channel_key(AppIndex(0), "news").unwrap();
    for (effect, count) in [
        (ToCluster::Subscribe { channel: channel.clone(), ticket: 1 }, 1),
        (ToCluster::Unsubscribe { channel: channel.clone() }, 2),
        (ToCluster::Fetch { channel, ticket: 1 }, 2),
    ] {
        session.session.carry_out_one(effect);
        assert_eq!(session.session.topics_in_flight, count);
    }
    for count in [1, 0, 0] {
        session.answer(":1\r\n");
        assert_eq!(session.session.topics_in_flight, count);
    }
}

#[test]
fn a_confirmed_event_is_dropped_and_its_bytes_are_released() {
    let mut session = TestSession::up();
    session.publish("news", "one");
    session.publish("cache-c", "two");
    assert!(session.session.kept_bytes > 0);
    session.answer(":1\r\n");
    session.answer(":1\r\n");
    assert_eq!(session.session.kept_bytes, 0);
    session.reconnect();
    let sent = session.commands();
    assert!(sent.iter().all(|command| !command.contains("Event")), "{sent:?}");
}

/// An event that was dropped before it was stored counts as one that will not be: events of other nodes are newer.
#[test]
fn the_shard_counts_a_cached_event_that_was_dropped_as_one_that_will_not_be_stored() {
    let mut session = TestSession::up();
    session.session.close(&mut session.shard);
    let text = "x".repeat(KEPT_BYTES_MAX - 100);
    session.publish("cache-c", &text);
    assert_eq!((session.session.unstored.len(), session.session.dropped_events), (1, 1));
    session.session.carry_out(&mut session.shard).unwrap();
    assert!(session.session.unstored.is_empty());
    assert_eq!(session.session.kept_bytes, 0);
}

#[test]
fn more_effects_than_one_tick_may_cause_end_the_session_and_the_next_one_is_whole() {
    let mut session = TestSession::up();
    session.subscribe();
    let channel = session.shard.channel_key(AppIndex(0), "other").unwrap();
    for _ in 0..=CLUSTER_EFFECTS_MAX {
        session.shard.outbox.cluster.push(ToCluster::Unsubscribe { channel: channel.clone() });
    }
    assert_eq!(session.session.carry_out(&mut session.shard), Err(Lost::Overrun));
    session.session.close(&mut session.shard);
    session.session.carry_out(&mut session.shard).unwrap();
    session.session.open();
    session.answer(MASTER);
    let sent = session.commands();
    assert!(sent.contains(&"SUBSCRIBE n/news".to_owned()), "{sent:?}");
}

#[test]
fn a_session_ends_when_redis_leaves_too_much_output_unread() {
    let mut session = TestSession::up();
    session.session.output = vec![b'x'; session.session.sent_bytes + OUTPUT_BYTES_MAX];
    session.session.carry_out(&mut session.shard).unwrap();
    session.session.output.push(b'x');
    assert_eq!(session.session.carry_out(&mut session.shard), Err(Lost::TooSlow));
}

/// A Redis that reads all and answers nothing: its replies would wait in a list without an end.
#[test]
fn a_session_ends_when_redis_leaves_too_many_commands_or_events_unanswered() {
    let mut session = TestSession::up();
    let cluster = session.shard.metrics().clone();
    session.session.awaited = (0..AWAITED_MAX).map(|_| AwaitedReply::Ignored).collect();
    session.session.carry_out(&mut session.shard).unwrap();
    session.session.note_gauges(&cluster.cluster);
    assert_eq!(cluster.cluster.replies_awaited.get(), AWAITED_MAX as u64);
    session.session.awaited.push_back(AwaitedReply::Ignored);
    assert_eq!(session.session.carry_out(&mut session.shard), Err(Lost::TooSlow));

    let mut session = TestSession::up();
    let text = "x".repeat(1 << 20);
    let mut published = 0;
    let end = loop {
        let key = session.shard.channel_key(AppIndex(0), "news").unwrap();
        session.shard.publish(key, frame::encode_text(text.as_bytes()).into(), None, true);
        published += 1;
        assert!(published < 100, "all is kept");
        let end = session.session.carry_out(&mut session.shard);
        // Redis reads what it is sent.
        session.session.note_sent(session.session.output().len());
        if end.is_err() {
            break end;
        }
    };
    assert_eq!((end, published), (Err(Lost::TooSlow), OUTPUT_BYTES_MAX >> 20));
    session.session.close(&mut session.shard);
    assert!(session.session.kept_bytes <= KEPT_BYTES_MAX && session.session.dropped_events > 40);
}
