//! After a session was down: what is requested, held, replayed and delivered.

use super::*;
use crate::shard::AccessCommand;

/// A session that was up, has received event 4 of `PEER`, was lost, and is up again. It has a subscriber.
fn came_back() -> TestSession {
    let mut session = TestSession::up();
    session.subscribe();
    session.receive_event(PEER, 4, "four");
    assert_eq!(session.delivered(), ["four"]);
    session.reconnect();
    session
}

/// Redis answers all that was sent, so that the request was received by so many sessions, this one among them.
fn answer(session: &mut TestSession, receivers: u32) {
    while let Some(awaited) = session.session.awaited.front() {
        let reply = match awaited {
            AwaitedReply::ReplayRequested => format!(":{receivers}\r\n"),
            _ => ":1\r\n".to_owned(),
        };
        session.answer(&reply);
    }
}

#[test]
fn the_replay_request_has_the_received_numbers_and_follows_all_topics() {
    let mut session = came_back();
    let sent = session.commands();
    let place = |text: &str| sent.iter().position(|command| command.contains(text));
    let request = place("PUBLISH all ReplayRequest").expect("it is sent");
    assert!(place("SUBSCRIBE n/news") < Some(request), "{sent:?}");
    assert!(place("SessionUp") < Some(request), "{sent:?}");
    assert!(sent[request].contains("9/0#4"), "{sent:?}");
    session.session.carry_out(&mut session.shard).unwrap();
    assert_eq!(session.commands(), [""; 0], "once");
}

#[test]
fn a_process_that_has_just_started_requests_nothing() {
    let mut session = TestSession::new(Login::default());
    session.session.open();
    session.answer(MASTER);
    let sent = session.commands();
    assert!(sent.iter().all(|command| !command.contains("ReplayRequest")), "{sent:?}");
    session.subscribe();
    session.receive_event(PEER, 7, "new");
    assert_eq!(session.delivered(), ["new"], "nothing is held");
}

#[test]
fn new_events_wait_until_their_sender_has_replayed_the_missed_ones() {
    let mut session = came_back();
    answer(&mut session, 2);
    session.receive_event(PEER, 7, "seven");
    assert_eq!(session.delivered(), [""; 0], "held");
    session.receive_replay(PEER, 4, "four");
    session.receive_replay(PEER, 5, "five");
    session.receive_replay(PEER, 6, "six");
    assert_eq!(session.delivered(), ["five", "six"], "four was received before");
    session.receive_replay_done(PEER);
    assert_eq!(session.delivered(), ["seven"]);
    session.receive_event(PEER, 8, "eight");
    assert_eq!(session.delivered(), ["eight"], "nothing is held any longer");
}

#[test]
fn an_event_that_waits_and_is_replayed_is_delivered_once() {
    let mut session = came_back();
    answer(&mut session, 2);
    session.receive_event(PEER, 5, "five");
    session.receive_replay(PEER, 5, "five");
    session.receive_replay_done(PEER);
    assert_eq!(session.delivered(), ["five"]);
}

#[test]
fn each_sender_is_waited_for_by_itself() {
    let mut session = came_back();
    answer(&mut session, 3);
    session.commands();
    session.receive_event(PEER, 5, "of 9");
    session.receive_event(THIRD, 5, "of 3");
    assert_eq!(session.commands(), [""; 0], "both have received the request to all");
    session.receive_replay_done(THIRD);
    assert_eq!(session.delivered(), ["of 3"]);
    session.receive_replay_done(PEER);
    assert_eq!(session.delivered(), ["of 9"]);
}

#[test]
fn a_sender_that_never_answers_is_waited_for_during_a_lease_and_no_longer() {
    let mut session = came_back();
    answer(&mut session, 1);
    session.commands();
    session.receive_event(PEER, 5, "five");
    assert_eq!(
        session.commands(),
        [""; 0],
        "it was there before, and asks by itself when it is up"
    );
    let mut seconds = 0;
    while session.delivered().is_empty() {
        seconds += 1;
        assert!(seconds < 60, "never");
        session.session.clock += 1;
        session.session.expire(&mut session.shard);
    }
    let lease = crate::shard::LEASE_SECONDS;
    assert!((lease..=lease + crate::shard::ANSWER_SECONDS).contains(&seconds), "{seconds} s");
}

#[test]
fn no_more_events_than_the_limit_wait_for_a_replay() {
    let mut session = came_back();
    answer(&mut session, 2);
    let text = "x".repeat(1 << 20);
    let mut number = 5;
    while session.session.catch_up.waits_for(PEER) {
        assert!(number < 40, "all is held");
        session.receive_event(PEER, number, &text);
        number += 1;
    }
    assert!((20..=22).contains(&number), "16 MiB: {number}");
    assert_eq!(session.session.senders[&PEER].number, number - 1, "all was taken, in order");
    let metrics = session.shard.metrics().clone();
    session.session.note_gauges(&metrics.cluster);
    assert_eq!(
        (metrics.cluster.catch_up_bytes.get(), metrics.cluster.catch_ups_given_up.get()),
        (0, 1)
    );
    assert!(session.session.notes.iter().any(|note| note.contains("without Redis")));
}

#[test]
fn bytes_that_wait_for_a_replay_and_bytes_that_are_kept_for_one_are_gauges_with_peaks() {
    let mut session = came_back();
    answer(&mut session, 2);
    session.receive_event(PEER, 5, "five");
    session.publish("news", "ours");
    let metrics = session.shard.metrics().clone();
    let cluster = &metrics.cluster;
    session.session.note_gauges(cluster);
    assert!(cluster.catch_up_bytes.get() > 4 && cluster.replay_bytes.get() > 4);
    session.receive_replay_done(PEER);
    session.session.clock += super::super::recent::SECONDS_MAX + 1;
    session.session.expire(&mut session.shard);
    session.session.note_gauges(cluster);
    assert_eq!((cluster.catch_up_bytes.get(), cluster.replay_bytes.get()), (0, 0));
    assert!(cluster.catch_up_bytes.peak() > 4 && cluster.replay_bytes.peak() > 4, "peaks stay");
    assert_eq!((cluster.catch_ups_given_up.get(), cluster.replay_discarded.get()), (0, 0));
}

#[test]
fn a_sender_that_was_down_too_is_asked_by_itself() {
    let mut session = came_back();
    answer(&mut session, 2);
    session.commands();
    session.receive(THIRD, 1, SessionMessage::SessionUp.into()).unwrap();
    let sent = session.commands();
    assert!(
        sent.iter().any(|command| command.starts_with("PUBLISH session/3:0 ReplayRequest")),
        "{sent:?}"
    );
    session.receive_event(THIRD, 2, "of 3");
    assert_eq!(session.delivered(), [""; 0]);
    session.receive_replay_done(THIRD);
    assert_eq!(session.delivered(), ["of 3"]);
}

/// What another session that was down is sent.
#[test]
fn a_replay_request_is_answered_with_the_missed_events() {
    let mut session = TestSession::up();
    ["one", "two", "three"].iter().for_each(|text| session.publish("news", text));
    let first = session.session.last_number - 2;
    session.shard.end_access(AccessCommand::terminate(AppIndex(0), "u"));
    session.session.carry_out(&mut session.shard).unwrap();
    let own = SessionId { node: NODE, core: 0 };
    let replay = |text: &str, number| format!("PUBLISH session/9:0 Replay({text}#{number})");
    let all = [
        replay("one", first),
        replay("two", first + 1),
        replay("three", first + 2),
        replay("terminate u", first + 3),
    ];
    /// Time away, what was received by then, and the replays.
    type Row<'a> = (&'a str, u32, Vec<(SessionId, u64)>, &'a [String]);
    let rows: [Row<'_>; 5] = [
        ("all", 0, vec![], &all),
        ("what is newer than what it has received", 0, vec![(own, first)], &all[1..]),
        ("nothing is", 0, vec![(own, first + 3)], &[]),
        ("numbers of another session are no matter", 0, vec![(PEER, first + 3)], &all),
        ("a number beyond ours", 0, vec![(own, u64::MAX)], &[]),
    ];
    session.commands();
    for (number, (what, away_seconds, received, replays)) in (1..).zip(rows) {
        let request = SessionMessage::ReplayRequest { away_seconds, received };
        session.receive(PEER, number, request.into()).unwrap();
        let sent = session.commands();
        let (last, before) = sent.split_last().unwrap();
        assert!(last.starts_with("PUBLISH session/9:0 ReplayDone"), "{what}: {last}");
        let before: Vec<&str> =
            before.iter().map(|sent| sent.rsplit_once('#').unwrap().0).collect();
        assert_eq!(before, replays, "{what}");
    }
}

#[test]
fn events_older_than_the_outage_are_not_replayed() {
    let mut session = TestSession::up();
    session.publish("news", "old");
    session.session.clock += 20;
    session.publish("news", "new");
    session.commands();
    for (number, away_seconds, replays) in [
        (1, 20 - REPLAY_MARGIN_SECONDS - 1, 1),
        (2, 20 - REPLAY_MARGIN_SECONDS, 2),
        (3, u32::MAX, 2),
    ] {
        let request = SessionMessage::ReplayRequest { away_seconds, received: Vec::new() };
        session.receive(PEER, number, request.into()).unwrap();
        let sent = session.commands();
        let count = sent.iter().filter(|command| command.contains("Replay(")).count();
        assert_eq!(count, replays, "{away_seconds} s: {sent:?}");
    }
}

#[test]
fn a_replay_into_a_full_output_is_refused_and_still_answered() {
    let mut session = TestSession::up();
    session.publish("news", "one");
    session.session.output = vec![b'x'; RETRANSMIT_BYTES_MAX + 1];
    session.session.sent_bytes = 0;
    session.session.replay(PEER, 0, 0);
    let output = session.session.output.split_off(RETRANSMIT_BYTES_MAX + 1);
    session.session.output = output;
    let sent = session.commands();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].starts_with("PUBLISH session/9:0 ReplayDone"), "{sent:?}");
    assert!(session.session.notes.iter().any(|note| note.contains("retransmission")));
}

#[test]
fn a_replay_for_an_unknown_app_or_a_bad_name_delivers_nothing_and_counts_as_received() {
    let mut session = TestSession::up();
    for (number, app, channel) in [(5, "2", "news"), (6, "1001", "x".repeat(300).as_str())] {
        let what = Replayed::Event { except: None, cache: false };
        let message =
            SessionMessage::Replay { number, app: app.into(), channel: channel.into(), what };
        session.receive_on("all", PEER, 50, message.into(), &frame::encode_text(b"e")).unwrap();
    }
    assert_eq!(session.session.senders[&PEER].number, 6, "only a known app's");
    session.subscribe();
    session.receive_replay(PEER, 7, "seven");
    assert_eq!(session.delivered(), ["seven"]);
}
