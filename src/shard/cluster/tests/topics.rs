//! When topics are subscribed to and unsubscribed from.

use super::super::topics::{CANCELED_MAX, IDLE_MAX, WITHDRAW_SEARCHED_MAX};
use super::Event::{
    AnswerRoom, Down, Leave, PeerUp, Seconds, Snapshot, SnapshotSent, Subscribe, Subscribed, Up,
    Withdraw,
};
use super::*;

#[test]
fn a_topic_is_subscribed_to_once_when_the_session_has_room() {
    check(
        Node::new,
        &[
            ("not where it is caused", &[Subscribe("a")], ""),
            ("when there is room", &[Subscribe("a"), AnswerRoom(9)], "subscribe#0 a"),
            ("once for two", &[Subscribe("a"), Subscribe("a"), AnswerRoom(9)], "subscribe#0 a"),
            ("not again", &[Subscribe("a"), AnswerRoom(9), AnswerRoom(9)], "subscribe#0 a"),
            (
                "a third of the room, oldest first",
                &[Subscribe("a"), Subscribe("b"), Subscribe("c"), AnswerRoom(5)],
                "subscribe#0 a, subscribe#1 b",
            ),
            (
                "who comes later does not wait",
                &[Subscribe("a"), AnswerRoom(9), Subscribed("a", 0), Subscribe("a")],
                "subscribe#0 a, release a, granted a",
            ),
            (
                "without a session nobody waits",
                &[Down, Subscribe("a")],
                "no node answers, granted a",
            ),
        ],
    );
}

#[test]
fn a_topic_without_subscribers_before_its_subscribe_is_sent_is_never_subscribed() {
    check(
        Node::new,
        &[
            ("withdrawn", &[Subscribe("a"), Withdraw("a"), AnswerRoom(9)], "full a"),
            (
                "needed again, by a new ticket",
                &[Subscribe("a"), Withdraw("a"), Subscribe("a"), AnswerRoom(9)],
                "full a, subscribe#1 a",
            ),
            (
                "one of two stays",
                &[Subscribe("a"), Subscribe("a"), Withdraw("a"), AnswerRoom(9)],
                "full a, subscribe#0 a",
            ),
            (
                "what was sent is unsubscribed from after its time",
                &[
                    Subscribe("a"),
                    AnswerRoom(9),
                    Withdraw("a"),
                    Subscribed("a", 0),
                    Seconds(2),
                    AnswerRoom(9),
                ],
                "subscribe#0 a, full a, unsubscribe a",
            ),
            (
                "the session is down: it is not sent on the next one",
                &[Subscribe("a"), Withdraw("a"), Down, Up, AnswerRoom(9)],
                "full a, no node answers",
            ),
        ],
    );
}

/// A reload may come between the subscription and the room for its SUBSCRIBE. A subscriber waits for what was sent: not
/// for snapshots that were never requested, and not for less than the confirmation of Redis.
#[test]
fn a_topic_waits_for_what_was_sent_after_a_change_of_the_configuration() {
    let app = |sends_subscription_count| App { sends_subscription_count, ..sample() };
    for (before, events, effects) in [
        (true, &[Subscribed("a", 0)][..], "subscribe#0 a, release a"),
        (false, &[SnapshotSent("a", 0, 1)], "subscribe#0 a, synchronize#0 a"),
        (
            false,
            &[SnapshotSent("a", 0, 1), Subscribed("a", 0)],
            "subscribe#0 a, synchronize#0 a, release a",
        ),
    ] {
        let mut node = Node::with_app(app(before), IDLE_SECONDS);
        node.apply(Subscribe("a"));
        node.context.settings.apps = Arc::new(Apps::new(vec![app(!before)]));
        node.apply(AnswerRoom(9));
        events.iter().for_each(|event| node.apply(*event));
        assert_eq!(node.take_effects(), effects, "{events:?}");
    }
}

/// Otherwise the other node would count the subscribers of this one for ever.
#[test]
fn a_node_with_our_snapshot_is_sent_quit_although_the_app_is_removed_or_counts_no_longer() {
    let counting = App { sends_subscription_count: true, ..sample() };
    let removed = App { is_removed: true, ..sample() };
    for peers in [&[9][..], &[]] {
        for after in [removed.clone(), sample()] {
            let mut node = Node::with_app(counting.clone(), IDLE_SECONDS);
            let receivers = 1 + u32::try_from(peers.len()).unwrap();
            let sent = SnapshotSent("a", 0, receivers);
            let begin = [Subscribe("a"), AnswerRoom(9), Subscribed("a", 0), sent];
            begin.into_iter().for_each(|event| node.apply(event));
            peers.iter().for_each(|peer| node.apply(Snapshot(*peer, "a", 0, Some(&[]))));
            node.take_effects();
            node.configure(after);
            let end = [Leave("a"), Seconds(IDLE_SECONDS), AnswerRoom(9)];
            end.into_iter().for_each(|event| node.apply(event));
            assert_eq!(node.take_effects(), "quit a, unsubscribe a", "{peers:?}");
        }
    }
}

/// The cluster side drops the topic and subscribes to it again. The list of idle topics then has one entry for it.
#[test]
fn an_idle_topic_in_doubt_is_needed_again_and_is_idle_once() {
    let mut node = Node::with_app(App { sends_subscription_count: true, ..sample() }, IDLE_SECONDS);
    let answered = |ticket| {
        [
            AnswerRoom(9),
            Subscribed("a", ticket),
            SnapshotSent("a", ticket, 2),
            Snapshot(9, "a", ticket, Some(&[])),
        ]
    };
    let first = [&[Subscribe("a")][..], &answered(0), &[Leave("a"), PeerUp(9)]].concat();
    first.into_iter().for_each(|event| node.apply(event));
    node.take_effects();
    let again = [&[Subscribe("a")][..], &answered(1), &[Leave("a")]].concat();
    again.into_iter().for_each(|event| node.apply(event));
    let effects = node.take_effects();
    assert!(effects.contains("unsubscribe a") && effects.contains("subscribe#1 a"), "{effects}");
    [Seconds(2), AnswerRoom(9)].into_iter().for_each(|event| node.apply(event));
    assert_eq!(node.take_effects().matches("unsubscribe a").count(), 1);
}

/// `a` is subscribed to, and then no core needs it.
const LEFT: [Event; 4] = [Subscribe("a"), AnswerRoom(9), Subscribed("a", 0), Leave("a")];

#[test]
fn a_topic_stays_subscribed_for_a_while_after_the_last_subscriber_has_left() {
    let after = |more: &[Event]| [&LEFT[..], more].concat();
    check(
        Node::new,
        &[
            ("it stays", &after(&[Seconds(1), AnswerRoom(9)]), "subscribe#0 a, release a"),
            (
                "its time is over",
                &after(&[Seconds(2), AnswerRoom(9)]),
                "subscribe#0 a, release a, unsubscribe a",
            ),
            ("there is no room", &after(&[Seconds(2), AnswerRoom(0)]), "subscribe#0 a, release a"),
            (
                "somebody is back",
                &after(&[Subscribe("a"), Seconds(9), AnswerRoom(9)]),
                "subscribe#0 a, release a, granted a",
            ),
            (
                "and has left again: the time begins again",
                &after(&[Seconds(1), Subscribe("a"), Leave("a"), Seconds(1), AnswerRoom(9)]),
                "subscribe#0 a, release a, granted a",
            ),
            (
                "and ends",
                &after(&[Seconds(1), Subscribe("a"), Leave("a"), Seconds(2), AnswerRoom(9)]),
                "subscribe#0 a, release a, granted a, unsubscribe a",
            ),
            (
                "the session is down: nothing keeps it",
                &after(&[Down, Up, AnswerRoom(9)]),
                "subscribe#0 a, release a, no node answers",
            ),
            (
                "time without a session does not count",
                &after(&[Down, Seconds(9), Up, Subscribe("a"), AnswerRoom(9)]),
                "subscribe#0 a, release a, no node answers, subscribe#1 a",
            ),
        ],
    );
}

#[test]
fn without_that_while_the_topic_is_unsubscribed_from_at_once() {
    let new = || Node::with_app(sample(), 0);
    check(new, &[("at once", &LEFT, "subscribe#0 a, release a, unsubscribe a")]);
}

#[test]
fn other_nodes_are_sent_a_quit_where_they_have_a_snapshot_of_this_one() {
    const ROOM: &str = "presence-r";
    let confirmed = [
        Subscribe(ROOM),
        AnswerRoom(9),
        Subscribed(ROOM, 0),
        SnapshotSent(ROOM, 0, 1),
        Leave(ROOM),
    ];
    let after = |more: &[Event]| [&confirmed[..], more].concat();
    let asked = "subscribe#0 presence-r, synchronize#0 presence-r";
    check(
        Node::new,
        &[
            (
                "its time is over",
                &after(&[Seconds(2), AnswerRoom(9)]),
                &format!("{asked}, release presence-r, quit presence-r, unsubscribe presence-r"),
            ),
            ("never sent", &[Subscribe(ROOM), Withdraw(ROOM), AnswerRoom(9)], "full presence-r"),
        ],
    );
}

#[test]
fn an_idle_topic_is_announced_again_if_a_snapshot_is_in_doubt() {
    const ROOM: &str = "presence-r";
    let left = [
        Subscribe(ROOM),
        AnswerRoom(9),
        Subscribed(ROOM, 0),
        SnapshotSent(ROOM, 0, 1),
        Event::Receive(9, ROOM, Received::Joined("u")),
        Leave(ROOM),
    ];
    let after = |more: &[Event]| [&left[..], more].concat();
    let before =
        "subscribe#0 presence-r, synchronize#0 presence-r, release presence-r, deliver presence-r";
    check(
        Node::new,
        &[
            (
                "no doubt",
                &after(&[Subscribe(ROOM), AnswerRoom(9)]),
                &format!("{before}, granted presence-r"),
            ),
            (
                "the sender's session is new",
                &after(&[PeerUp(9), Subscribe(ROOM), AnswerRoom(9)]),
                &format!(
                    "{before}, quit presence-r, unsubscribe presence-r, subscribe#1 presence-r, \
                     synchronize#1 presence-r"
                ),
            ),
            (
                "somebody is there: the sweep decides",
                &after(&[Subscribe(ROOM), PeerUp(9), Subscribe(ROOM), AnswerRoom(9)]),
                &format!("{before}, granted presence-r, granted presence-r"),
            ),
        ],
    );
}

#[test]
fn idle_topics_are_limited_and_the_oldest_is_unsubscribed_first() {
    let mut node = Node::new();
    node.checks_invariants = false;
    for number in 0..=IDLE_MAX {
        let name = format!("n{number}");
        node.subscribe(&name);
        node.apply(AnswerRoom(9));
        let (channel, ticket) = (&node.key(&name), u32::try_from(number).unwrap());
        node.report(FromCluster::Subscribed { channel, ticket });
        node.carry_out();
        node.leave(&name);
        node.carry_out();
    }
    node.checks_invariants = true;
    node.take_effects();
    assert_eq!(node.cluster.idle.len(), IDLE_MAX + 1);
    node.apply(AnswerRoom(9));
    assert_eq!(node.take_effects(), "unsubscribe n0");
    assert_eq!(node.cluster.idle.len(), IDLE_MAX);
    node.apply(AnswerRoom(9));
    assert_eq!(node.take_effects(), "");
}

#[test]
fn requests_that_are_withdrawn_at_once_do_not_fill_the_queue() {
    let mut node = Node::new();
    node.subscribe("stays");
    for _ in 0..1_000 {
        node.subscribe("a");
        node.withdraw("a");
        node.carry_out();
        assert!(node.cluster.unsent.len() <= CANCELED_MAX + 2 * 2);
    }
    assert_eq!(node.cluster.topics_waiting(), 1);
    node.take_effects();
    node.apply(AnswerRoom(9));
    assert_eq!(node.take_effects(), "subscribe#0 stays");
}

#[test]
fn a_withdrawn_request_is_searched_for_among_the_newest() {
    for (behind, effects) in [(WITHDRAW_SEARCHED_MAX - 1, "full a"), (WITHDRAW_SEARCHED_MAX, "")] {
        let mut node = Node::new();
        node.subscribe("a");
        for number in 0..behind {
            let (channel, ticket) = (node.key("a"), u32::try_from(number + 2).unwrap());
            let connection = connection();
            let mail = Mail::Subscribe { channel, connection, ticket, core: 0, join: None };
            assert!(node.with(|cluster, here| cluster.hold_back(here, mail)).is_none());
        }
        node.apply(Withdraw("a"));
        assert_eq!(node.take_effects(), effects, "{behind} newer ones");
    }
}

/// None of the three numbers is of another core's or another connection's request.
#[test]
fn a_request_is_withdrawn_by_its_connection_ticket_and_core_only() {
    let other = ConnectionKey { slot: Slot::new(0), generation: 2 };
    for (key, ticket, core) in [(other, 1, 0), (connection(), 2, 0), (connection(), 1, 1)] {
        let mut node = Node::new();
        node.subscribe("a");
        let channel = node.key("a");
        node.with(|cluster, here| cluster.withdraw_subscribe(here, &channel, key, ticket, core));
        assert_eq!(node.take_effects(), "", "{key:?} {ticket} {core}");
        node.apply(AnswerRoom(9));
        assert_eq!(node.take_effects(), "subscribe#0 a");
    }
}
