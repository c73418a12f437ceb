//! Tests of the bounds of gathered answers: their number, their bytes, and the memory budget. They own one set of
//! questions each, without a cluster. Input: answers as a shard receives them. Limits: some MB of rows.

use super::*;
use crate::app::{Apps, sample};
use crate::pusher::socket_id::SocketId;
use crate::shard::{
    NodeChannelRow, NodeConnectionDetails, NodeConnectionRow, NodeRows, OperatorAnswer,
    OperatorOutcome, Settings,
};
use crate::slot::Slot;

/// A shard that has received these answers.
fn shard(answered: Vec<GatherAnswer>) -> Shard {
    let mut shard = Shard::new(Settings::single_core(Arc::new(Apps::new(vec![sample()]))));
    shard.outbox.answered = answered;
    shard
}

#[test]
fn questions_of_callers_have_a_bound_and_an_ended_one_makes_room() {
    let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
    let begin = |gathers: &mut Gathers| {
        assert!(gathers.has_room_for_caller_question());
        gathers.begin(Asker::Caller, Moment::default(), None, 1, 0)
    };
    let ids: Vec<u32> = (0..CALLER_QUESTIONS_MAX).map(|_| begin(&mut gathers)).collect();
    assert!(!gathers.has_room_for_caller_question());
    assert!(gathers.has_room_for_node_question(), "callers do not use the room of nodes");
    for id in ids {
        gathers.end(id);
        assert!(gathers.end(id).is_none(), "it counts once");
    }
    assert_eq!(gathers.caller_question_count, 0);
    begin(&mut gathers);
    let metrics = &gathers.metrics;
    assert_eq!((metrics.gathers.get(), metrics.gathers.peak()), (1, 16), "now, and the most");
    assert_eq!(metrics.gathers_refused.get(), 1);
}

fn rows(channels: usize) -> Answer {
    let name: Box<str> = "c".repeat(100).into();
    let row = NodeChannelRow { name, subscribers: 2, users: 0 };
    let rows = NodeRows { channels: vec![row; channels], ..NodeRows::default() };
    let outcome = OperatorOutcome::Rows(rows);
    Answer::Operator(Box::new(OperatorAnswer { node: 2, host: "web-2".into(), core: 0, outcome }))
}

#[test]
fn answers_of_nodes_over_their_memory_are_counted_and_an_operator_still_has_the_sums() {
    const ROWS: usize = 100_000;
    let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
    let now = Moment::default();
    let id = gathers.begin(Asker::Caller, now, None, 0, 1);
    let answers = (0..4).map(|_| GatherAnswer::Node { id, answers: vec![rows(ROWS)] });
    let mut answered: Vec<_> = answers.collect();
    answered.push(GatherAnswer::Nodes { id, count: 4 });
    gathers.note_answers(&mut shard(answered));
    let metrics = gathers.metrics.clone();
    let held = metrics.gathered_bytes.get();
    assert!(held <= CALLER_BYTES_MAX as u64 && held > CALLER_BYTES_MAX as u64 / 2, "{held}");
    let sums = gathers.take_answers(id).expect("complete").into_iter().map(|answer| match answer {
        Answer::Operator(answer) => match answer.outcome {
            OperatorOutcome::Rows(rows) => {
                (rows.channels.len() as u64 + rows.left_out, rows.left_out_subscribers)
            }
            _ => panic!("rows"),
        },
        _ => panic!("of an operator"),
    });
    let sums: Vec<(u64, u64)> = sums.collect();
    let cut = (ROWS as u64, 2 * ROWS as u64);
    assert_eq!(sums, [(ROWS as u64, 0), (ROWS as u64, 0), cut, cut]);
    assert_eq!((metrics.gathered_discarded.get(), metrics.gathered_bytes.get()), (2, 0));
}

#[test]
fn an_answer_to_a_session_without_room_counts_as_one_that_did_not_come_in_time() {
    let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
    let now = Moment::default();
    let key = SessionKey { slot: Slot::FIRST, generation: 1 };
    let id = gathers.begin(Asker::Session(key), now, None, 0, 1);
    // As if other sessions had the rest.
    gathers.session_bytes = SESSION_BYTES_MAX - 100;
    let users = |bytes| Answer::Users(vec!["u".repeat(bytes).into()]);
    let answered = vec![
        GatherAnswer::Nodes { id, count: 2 },
        GatherAnswer::Node { id, answers: vec![users(100)] },
        GatherAnswer::Node { id, answers: vec![users(10)] },
    ];
    gathers.note_answers(&mut shard(answered));
    assert_eq!(gathers.next_complete_session(), Some((key, id)));
    let metrics = gathers.metrics.clone();
    assert_eq!(
        (metrics.gathered_discarded.get(), metrics.cluster.questions.incomplete.get()),
        (1, 1)
    );
    gathers.session_bytes -= SESSION_BYTES_MAX - 100;
    assert_eq!(gathers.take_answers(id).map(|answers| answers.len()), Some(1));
}

/// A node over `NODE_QUESTIONS_MAX` does not answer.
#[test]
fn a_node_that_does_not_answer_makes_the_question_incomplete_after_its_time() {
    let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
    let key = SessionKey { slot: Slot::FIRST, generation: 1 };
    let id = gathers.begin(Asker::Session(key), Moment::default(), None, 0, 1);
    gathers.note_answers(&mut shard(vec![GatherAnswer::Nodes { id, count: 1 }]));
    let out = &mut ClusterOutbox::default();
    gathers.expire(Moment(NODES_TIME_MS - 1), out);
    assert_eq!(gathers.next_complete_session(), None);
    gathers.expire(Moment(NODES_TIME_MS), out);
    assert_eq!(gathers.next_complete_session(), Some((key, id)));
    let questions = &gathers.metrics.cluster.questions;
    assert_eq!((questions.incomplete.get(), questions.resolved.get()), (1, 0));
}

/// Of all questions to other nodes, by their results and by their times.
fn counts(gathers: &Gathers) -> [u64; 3] {
    let questions = &gathers.metrics.cluster.questions;
    let times = questions.time_ms.read();
    [questions.resolved.get(), questions.incomplete.get(), times.counts.iter().sum()]
}

#[test]
fn each_question_to_other_nodes_has_one_result_and_one_time() {
    let key = SessionKey { slot: Slot::FIRST, generation: 1 };
    let new = || {
        let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
        let id = gathers.begin(Asker::Session(key), Moment::default(), None, 0, 1);
        (gathers, id)
    };
    let users = |bytes| Answer::Users(vec!["u".repeat(bytes).into()]);
    // With this one, whose session answers, too.
    let nodes = |id| GatherAnswer::Nodes { id, count: 2 };
    let own = |id| GatherAnswer::Node { id, answers: Vec::new() };
    let (mut gathers, id) = new();
    let answers = vec![users(1)];
    gathers.note_answers(&mut shard(vec![nodes(id), own(id), GatherAnswer::Node { id, answers }]));
    gathers.end(id);
    assert_eq!(counts(&gathers), [1, 0, 1], "answered");
    let (mut gathers, id) = new();
    gathers.session_bytes = SESSION_BYTES_MAX - 100;
    let answers = vec![users(100)];
    gathers.note_answers(&mut shard(vec![nodes(id), own(id), GatherAnswer::Node { id, answers }]));
    gathers.session_bytes -= SESSION_BYTES_MAX - 100;
    gathers.end(id);
    assert_eq!(counts(&gathers), [0, 1, 1], "no room for the answer");
    let (mut gathers, id) = new();
    gathers.expire(Moment(NODES_TIME_MS), &mut ClusterOutbox::default());
    gathers.end(id);
    assert_eq!(counts(&gathers), [0, 1, 1], "no answer in time");
    let (mut gathers, id) = new();
    gathers.note_answers(&mut shard(vec![GatherAnswer::NodesGone]));
    gathers.end(id);
    assert_eq!(counts(&gathers), [0, 1, 1], "the session was lost");
    let (mut gathers, id) = new();
    gathers.end(id);
    assert_eq!(counts(&gathers), [0, 1, 1], "the asker has ended");
}

/// A part of a node would be given as the whole of it.
#[test]
fn a_node_of_which_one_core_has_no_room_counts_as_one_that_did_not_answer() {
    let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
    let key = SessionKey { slot: Slot::FIRST, generation: 1 };
    let id = gathers.begin(Asker::Session(key), Moment::default(), None, 0, 1);
    gathers.session_bytes = SESSION_BYTES_MAX - 100;
    let users = |bytes| Answer::Users(vec!["u".repeat(bytes).into()]);
    let answers = vec![users(10), users(100), users(10)];
    gathers.note_answers(&mut shard(vec![GatherAnswer::Node { id, answers }]));
    assert_eq!(gathers.session_bytes, SESSION_BYTES_MAX - 100);
    assert_eq!(gathers.metrics.gathered_discarded.get(), 1);
    gathers.session_bytes = 0;
    assert_eq!(gathers.end(id).map(|answers| answers.len()), Some(0));
}

#[test]
fn the_details_of_a_connection_without_room_are_discarded_and_the_core_counts_as_busy() {
    let row = NodeConnectionRow {
        socket_id: SocketId::parse("1.2").unwrap(),
        app: "1".into(),
        user: None,
        channels: 1,
        queue_bytes: 0,
        age_seconds: None,
        silent_seconds: 0,
    };
    let details = NodeConnectionDetails {
        row,
        channel_names: vec!["c".repeat(1_000).into()],
        address: None,
        round_trip: None,
        kept_bytes: 0,
        is_tls: false,
        is_closing: false,
        is_blocked: false,
        is_pinged: false,
        has_signed_in: false,
    };
    let outcome = OperatorOutcome::Inside(Some(Box::new(details)));
    let answer = OperatorAnswer { node: 2, host: "web-2".into(), core: 0, outcome };
    let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
    let id = gathers.begin(Asker::Caller, Moment::default(), None, 0, 1);
    gathers.caller_bytes = CALLER_ROWS_BYTES_MAX;
    let answers = vec![Answer::Operator(Box::new(answer))];
    gathers.note_answers(&mut shard(vec![GatherAnswer::Node { id, answers }]));
    let more = gathers.caller_bytes - CALLER_ROWS_BYTES_MAX;
    assert!(more < 500, "{more}");
    assert_eq!(gathers.metrics.gathered_discarded.get(), 1);
    gathers.caller_bytes = more;
    let answers = gathers.take_answers(id).expect("complete");
    assert!(matches!(&answers[..], [Answer::Operator(answer)] if answer.had_no_memory()));
}

#[test]
fn memory_that_was_taken_for_an_answer_that_is_not_kept_is_given_back() {
    let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
    let key = SessionKey { slot: Slot::FIRST, generation: 1 };
    let id = gathers.begin(Asker::Session(key), Moment::default(), None, 0, 1);
    let users = |mib: usize| Answer::Users(vec!["u".repeat(mib << 20).into()]);
    let mut shard = shard(vec![GatherAnswer::Node { id, answers: vec![users(2), users(2)] }]);
    shard.set_headroom(3 << 20);
    shard.set_http_reserve(0);
    gathers.note_answers(&mut shard);
    assert_eq!(gathers.metrics.gathered_discarded.get(), 1);
    assert!(shard.reserve_for_answers(0, (2 << 20) + 1000), "2 MiB are free again");
}

#[test]
fn a_shortened_answer_is_charged_to_the_memory_budget() {
    const HEADROOM: usize = 10_000;
    let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
    let id = gathers.begin(Asker::Caller, Moment::default(), None, 0, 1);
    let mut shard = shard(vec![GatherAnswer::Node { id, answers: vec![rows(1_000)] }]);
    shard.set_headroom(HEADROOM as u64);
    shard.set_http_reserve(0);
    gathers.note_answers(&mut shard);
    let held = gathers.caller_bytes;
    assert!(held > 0 && held < 1_000, "the sums without the rows: {held}");
    assert!(!shard.reserve_for_answers(0, HEADROOM - held + 1), "the rest is less");
    assert!(shard.reserve_for_answers(0, HEADROOM - held));
}

#[test]
fn a_shortened_answer_without_memory_is_discarded() {
    let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
    let id = gathers.begin(Asker::Caller, Moment::default(), None, 0, 1);
    let mut shard = shard(vec![GatherAnswer::Node { id, answers: vec![rows(1_000)] }]);
    shard.set_headroom(1);
    shard.set_http_reserve(0);
    gathers.note_answers(&mut shard);
    assert_eq!((gathers.caller_bytes, gathers.metrics.gathered_discarded.get()), (0, 1));
    assert!(shard.reserve_for_answers(0, 1), "nothing was taken");
}

/// The reserve is one, for sessions and operators together.
#[test]
fn sessions_and_operators_share_the_reserve_for_http() {
    let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
    let key = SessionKey { slot: Slot::FIRST, generation: 1 };
    let session = gathers.begin(Asker::Session(key), Moment::default(), None, 0, 1);
    let caller = gathers.begin(Asker::Caller, Moment::default(), None, 0, 1);
    let answers = |bytes: usize| vec![Answer::Users(vec!["u".repeat(bytes).into()])];
    let answered =
        [session, caller].map(|id| GatherAnswer::Node { id, answers: answers(700 << 10) });
    let mut shard = shard(answered.into());
    shard.set_headroom(0);
    shard.set_http_reserve(1 << 20);
    gathers.note_answers(&mut shard);
    assert_eq!(gathers.metrics.gathered_discarded.get(), 1, "the second finds no room");
}

#[test]
fn answers_of_nodes_take_no_more_than_the_memory_budget_has() {
    let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
    let key = SessionKey { slot: Slot::FIRST, generation: 1 };
    let id = gathers.begin(Asker::Session(key), Moment::default(), None, 0, 4);
    let users = || vec![Answer::Users(vec!["u".repeat(1 << 20).into()])];
    let answered = (0..4).map(|_| GatherAnswer::Node { id, answers: users() });
    let mut shard = shard(answered.collect());
    shard.set_headroom(2 << 20);
    shard.set_http_reserve(0);
    gathers.note_answers(&mut shard);
    let discarded = gathers.metrics.gathered_discarded.get();
    assert_eq!((discarded, gathers.end(id).map(|answers| answers.len())), (3, Some(1)));
    // A few bytes are still gathered for backends when clients have used all.
    shard.set_headroom(0);
    shard.set_http_reserve(1 << 10);
    let id = gathers.begin(Asker::Session(key), Moment::default(), None, 0, 1);
    let answers = vec![Answer::Users(vec!["ada".into()])];
    shard.outbox.answered.push(GatherAnswer::Node { id, answers });
    gathers.note_answers(&mut shard);
    assert_eq!(gathers.end(id).map(|answers| answers.len()), Some(1));
}
