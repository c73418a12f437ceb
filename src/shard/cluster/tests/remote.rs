//! What other nodes have, by their messages.

use super::Event::{
    AnswerRoom, Down, Leave, PeerEnds, Receive, Revive, Seconds, Seen, Snapshot, SnapshotSent,
    Subscribe, Subscribed, Up, Watch,
};
use super::Received::{Count, Joined, Left, Occupied, Online, Quit, Synchronize};
use super::*;
use crate::shard::state::{HomeState, MemberState};

const ROOM: &str = "presence-r";
const USER: &str = "#server-to-user-u";

/// A connection of this node is in the presence channel.
const THERE: [Event; 4] =
    [Subscribe(ROOM), AnswerRoom(9), Subscribed(ROOM, 0), SnapshotSent(ROOM, 0, 1)];

fn there(more: &[Event]) -> Vec<Event> {
    [&THERE[..], more].concat()
}

fn node(events: &[Event]) -> Node {
    let mut node = Node::new();
    events.iter().for_each(|event| node.apply(*event));
    node
}

#[test]
fn members_of_other_nodes_are_in_the_roster_while_a_node_has_them() {
    let rows: [(&str, Vec<Event>, &[&str]); 12] = [
        ("joined", vec![Receive(9, ROOM, Joined("u"))], &["u"]),
        ("left", vec![Receive(9, ROOM, Joined("u")), Receive(9, ROOM, Left("u"))], &[]),
        (
            "another user left",
            vec![Receive(9, ROOM, Joined("u")), Receive(9, ROOM, Left("v"))],
            &["u"],
        ),
        (
            "on two nodes, left one",
            vec![
                Receive(9, ROOM, Joined("u")),
                Receive(3, ROOM, Joined("u")),
                Receive(9, ROOM, Left("u")),
            ],
            &["u"],
        ),
        (
            "joined twice, left once",
            vec![
                Receive(9, ROOM, Joined("u")),
                Receive(9, ROOM, Joined("u")),
                Receive(9, ROOM, Left("u")),
            ],
            &[],
        ),
        ("a snapshot", vec![Snapshot(9, ROOM, 0, Some(&["u", "v"]))], &["u", "v"]),
        (
            "a snapshot replaces what was known",
            vec![Receive(9, ROOM, Joined("u")), Snapshot(9, ROOM, 0, Some(&["v"]))],
            &["v"],
        ),
        (
            "of its node only",
            vec![Receive(9, ROOM, Joined("u")), Snapshot(3, ROOM, 0, Some(&["v"]))],
            &["u", "v"],
        ),
        (
            "no snapshot changes nothing",
            vec![Receive(9, ROOM, Joined("u")), Snapshot(9, ROOM, 0, None)],
            &["u"],
        ),
        ("a request has one, too", vec![Receive(9, ROOM, Synchronize(1, &["u"]))], &["u"]),
        (
            "the node has released the topic",
            vec![Receive(9, ROOM, Joined("u")), Receive(9, ROOM, Quit)],
            &[],
        ),
        ("the node ends", vec![Receive(9, ROOM, Joined("u")), PeerEnds(9)], &[]),
    ];
    for (what, more, members) in rows {
        assert_eq!(node(&there(&more)).members(ROOM), members, "{what}: {more:?}");
    }
}

#[test]
fn subscribers_are_sent_the_first_join_and_the_last_leave_of_a_user() {
    let before = "subscribe#0 presence-r, synchronize#0 presence-r, release presence-r";
    let is = |delivered: usize| format!("{before}{}", ", deliver presence-r".repeat(delivered));
    let (join, leave) = (Receive(9, ROOM, Joined("u")), Receive(9, ROOM, Left("u")));
    check(
        Node::new,
        &[
            ("the first join", &there(&[join]), &is(1)),
            ("the second node", &there(&[join, Receive(3, ROOM, Joined("u"))]), &is(1)),
            ("the last leave", &there(&[join, leave]), &is(2)),
            ("no member left", &there(&[leave]), &is(0)),
            ("an event", &there(&[Receive(9, ROOM, Received::Event("{}"))]), &is(1)),
            ("nobody is here", &[join, Receive(9, ROOM, Received::Event("{}"))], ""),
        ],
    );
}

#[test]
fn nothing_is_kept_of_a_topic_that_this_node_does_not_need() {
    for received in [Joined("u"), Occupied(true), Count(3), Online(true), Synchronize(1, &["u"])] {
        let node = node(&[Receive(9, ROOM, received)]);
        assert_eq!(node.cluster.entry_counts().0, 0, "{received:?}");
        assert_eq!(node.home.channels.len(), 0, "{received:?}");
    }
}

#[test]
fn a_request_is_answered_with_this_nodes_snapshot_or_with_none() {
    check(
        Node::new,
        &[
            (
                "it has the topic",
                &there(&[Receive(9, ROOM, Synchronize(7, &[]))]),
                "subscribe#0 presence-r, synchronize#0 presence-r, release presence-r, answer#7 to 9: presence-r",
            ),
            (
                "it does not",
                &[Receive(9, ROOM, Synchronize(7, &[]))],
                "answer#7 nothing to 9: presence-r",
            ),
        ],
    );
    let mut node = node(&THERE);
    node.home.channels.restore(&node.key(ROOM), own_member("mine"));
    node.receive(
        9,
        ROOM,
        ChannelMessage::Synchronize { ticket: 7, snapshot: snapshot(&["u"]) },
        b"",
    );
    let effects = node.take_effects();
    assert!(effects.contains("answer#7[mine] to 9: presence-r"), "own members only: {effects}");
}

fn own_member(id: &str) -> HomeState {
    let MemberSnapshot { user, user_info } = member(id);
    HomeState {
        members: vec![MemberState { user, user_info, connections: 1 }],
        ..HomeState::default()
    }
}

#[test]
fn a_dead_node_that_sends_again_is_asked_for_all_it_has() {
    let dead = [Seen(9), Seconds(LEASE_SECONDS + 1)];
    check(
        Node::new,
        &[
            ("dead", &[&dead[..], &[Seen(9)]].concat(), "revive 9"),
            ("once", &[&dead[..], &[Seen(9), Seen(9)]].concat(), "revive 9"),
            ("another", &[&dead[..], &[Seen(3)]].concat(), ""),
            ("not dead yet", &[Seen(9), Seconds(LEASE_SECONDS), Seen(9)], ""),
            ("it has ended in order", &[Seen(9), PeerEnds(9), Seen(9)], ""),
        ],
    );
}

#[test]
fn a_node_that_was_thought_dead_announces_all_it_has() {
    let announced = "subscribe#0 a, release a, subscribe#1 a";
    let there = [Subscribe("a"), AnswerRoom(9), Subscribed("a", 0)];
    let after = |more: &[Event]| [&there[..], more].concat();
    check(
        Node::new,
        &[
            ("this node", &after(&[Revive(OWN.0), AnswerRoom(9)]), announced),
            (
                "by two others: once",
                &after(&[Revive(OWN.0), Revive(OWN.0), AnswerRoom(9)]),
                announced,
            ),
            ("another node", &after(&[Revive(9), AnswerRoom(9)]), "subscribe#0 a, release a"),
        ],
    );
}

#[test]
fn a_second_request_to_announce_all_does_not_begin_again() {
    let mut node = node(&[Subscribe("a"), Subscribe("b"), AnswerRoom(9)]);
    node.take_effects();
    for event in [Revive(OWN.0), AnswerRoom(1), Revive(OWN.0), AnswerRoom(9)] {
        node.apply(event);
    }
    let effects = node.take_effects();
    assert_eq!(effects.matches("subscribe#").count(), 2, "{effects}");
}

#[test]
fn a_watched_user_is_online_while_any_node_has_them() {
    let watched = [Down, Watch(USER), Up, AnswerRoom(9)];
    let after = |more: &[Event]| [&watched[..], more].concat();
    let before =
        format!("no node answers, offline {USER}, subscribe#0 {USER}, synchronize#0 {USER}");
    let then = |more: &str| format!("{before}{more}");
    let (on, off) = (format!(", online {USER}"), format!(", offline {USER}"));
    check(
        Node::new,
        &[
            ("online", &after(&[Receive(9, USER, Online(true))]), &then(&on)),
            (
                "once",
                &after(&[Receive(9, USER, Online(true)), Receive(3, USER, Online(true))]),
                &then(&on),
            ),
            (
                "one of two",
                &after(&[
                    Receive(9, USER, Online(true)),
                    Receive(3, USER, Online(true)),
                    Receive(9, USER, Online(false)),
                ]),
                &then(&on),
            ),
            (
                "none",
                &after(&[Receive(9, USER, Online(true)), Receive(9, USER, Online(false))]),
                &then(&(on.clone() + &off)),
            ),
            (
                "its node ends",
                &after(&[Receive(9, USER, Online(true)), PeerEnds(9)]),
                &then(&(on.clone() + &off)),
            ),
        ],
    );
}

#[test]
fn subscribers_of_other_nodes_are_counted_by_node() {
    let app = || App { sends_subscription_count: true, ..sample() };
    let count = |events: &[Event]| {
        let mut node = Node::with_app(app(), IDLE_SECONDS);
        events.iter().for_each(|event| node.apply(*event));
        node.cluster.count_elsewhere(&node.key("a"))
    };
    let there = [Subscribe("a"), AnswerRoom(9), Subscribed("a", 0), SnapshotSent("a", 0, 1)];
    let after = |more: &[Event]| [&there[..], more].concat();
    assert_eq!(count(&after(&[Receive(9, "a", Count(4)), Receive(3, "a", Count(3))])), 7);
    assert_eq!(count(&after(&[Receive(9, "a", Count(4)), Receive(9, "a", Count(1))])), 1);
    assert_eq!(count(&after(&[Receive(9, "a", Count(4)), Receive(9, "a", Quit)])), 0);
    assert_eq!(
        count(&after(&[Receive(9, "a", Count(4)), Leave("a")])),
        4,
        "kept while the topic is idle"
    );
}

#[test]
fn only_so_many_dead_nodes_are_remembered() {
    let mut node = Node::new();
    let nodes = 10..10 + u64::try_from(DEAD_MAX).unwrap() + 1;
    nodes.clone().for_each(|id| node.apply(Seen(id)));
    node.apply(Seconds(LEASE_SECONDS + 1));
    assert_eq!(node.cluster.dead.len(), DEAD_MAX);
    let revived = nodes.map(|id| {
        node.apply(Seen(id));
        node.take_effects().matches("revive").count()
    });
    assert_eq!(revived.sum::<usize>(), DEAD_MAX);
}

#[test]
fn leaves_of_a_dead_node_are_sent_to_the_backend_and_those_of_a_quit_are_not() {
    let joined = [Subscribe(ROOM), AnswerRoom(9), Receive(9, ROOM, Joined("u"))];
    let webhooks = |more: &[Event]| {
        let mut node = Node::with_member_webhooks();
        joined.iter().chain(more).for_each(|event| node.apply(*event));
        let effects = node.take_effects();
        effects.split(", ").filter(|effect| *effect == "-u").count()
    };
    assert_eq!(webhooks(&[PeerEnds(9)]), 1);
    assert_eq!(webhooks(&[Seconds(LEASE_SECONDS + 1)]), 1);
    assert_eq!(webhooks(&[Receive(9, ROOM, Quit)]), 0, "it has published its leaves itself");
}
