//! The session's reports, and time.

use super::Event::{
    AnswerRoom, Asked, CaughtUp, Down, Fetched, Leave, PeerUp, Publish, Receive, Seconds, Seen,
    Snapshot, SnapshotSent, Subscribe, Subscribed, Up,
};
use super::*;

const PRESENCE: &str = "presence-r";
const CACHE: &str = "cache-c";
const PRESENCE_ASKED: &str = "subscribe#0 presence-r, synchronize#0 presence-r";
const CACHE_ASKED: &str = "subscribe#0 cache-c, fetch#0 cache-c";

#[test]
fn the_first_subscriber_waits_for_redis_and_for_the_snapshots_of_all_nodes() {
    let sent = [Subscribe(PRESENCE), AnswerRoom(9), Subscribed(PRESENCE, 0)];
    let after = |more: &[Event]| [&sent[..], more].concat();
    let released = format!("{PRESENCE_ASKED}, release presence-r");
    let one_node = after(&[SnapshotSent(PRESENCE, 0, 1)]);
    let none = after(&[SnapshotSent(PRESENCE, 0, 0)]);
    let three = [SnapshotSent(PRESENCE, 0, 3), Snapshot(3, PRESENCE, 0, Some(&[]))];
    check(
        Node::new,
        &[
            ("a plain channel waits for Redis", &[Subscribe("a"), AnswerRoom(9)], "subscribe#0 a"),
            (
                "and no longer",
                &[Subscribe("a"), AnswerRoom(9), Subscribed("a", 0)],
                "subscribe#0 a, release a",
            ),
            ("a presence channel waits for nodes, too", &sent, PRESENCE_ASKED),
            ("there are no others", &one_node, &released),
            ("not even this one", &none, &released),
            ("one of two has answered", &after(&three), PRESENCE_ASKED),
            (
                "both have",
                &after(&[&three[..], &[Snapshot(9, PRESENCE, 0, None)]].concat()),
                &released,
            ),
            (
                "an answer to another request does not count",
                &after(&[SnapshotSent(PRESENCE, 0, 2), Snapshot(3, PRESENCE, 7, None)]),
                PRESENCE_ASKED,
            ),
            (
                "a confirmation of another request does not, either",
                &[Subscribe("a"), AnswerRoom(9), Subscribed("a", 7)],
                "subscribe#0 a",
            ),
            (
                "a cache channel waits for the stored event",
                &[Subscribe(CACHE), AnswerRoom(9), Subscribed(CACHE, 0)],
                CACHE_ASKED,
            ),
            (
                "which there may not be",
                &[Subscribe(CACHE), AnswerRoom(9), Subscribed(CACHE, 0), Fetched(CACHE, 0, None)],
                &format!("{CACHE_ASKED}, release cache-c"),
            ),
        ],
    );
}

#[test]
fn a_subscriber_waits_for_other_nodes_at_most_two_beats() {
    let sent = [Subscribe("a"), AnswerRoom(9)];
    let after = |more: &[Event]| [&sent[..], more].concat();
    check(
        Node::new,
        &[
            ("one lease second", &after(&[Seconds(1)]), "subscribe#0 a"),
            ("two", &after(&[Seconds(2)]), "subscribe#0 a, release a"),
            ("the session is down", &after(&[Down]), "subscribe#0 a, no node answers, release a"),
            (
                "a late confirmation",
                &after(&[Seconds(2), Subscribed("a", 0)]),
                "subscribe#0 a, release a",
            ),
        ],
    );
}

#[test]
fn all_topics_are_announced_when_the_session_is_up_again() {
    let there = [
        Subscribe("a"),
        AnswerRoom(9),
        Subscribed("a", 0),
        Subscribe(PRESENCE),
        AnswerRoom(9),
        Subscribed(PRESENCE, 1),
        SnapshotSent(PRESENCE, 1, 1),
        Down,
        Up,
    ];
    let mut node = Node::new();
    there.iter().for_each(|event| node.apply(*event));
    node.take_effects();
    assert!(node.cluster.has_unannounced());
    node.apply(AnswerRoom(1));
    let first = node.take_effects();
    node.apply(AnswerRoom(1));
    let both = [first, node.take_effects()].join(", ");
    for topic in ["subscribe#", " a", "synchronize#", " presence-r"] {
        assert!(both.contains(topic), "{topic} in {both}");
    }
    assert_eq!(both.matches("subscribe#").count(), 2, "{both}");
    assert!(!node.cluster.has_unannounced());
    node.apply(AnswerRoom(9));
    assert_eq!(node.take_effects(), "", "once");
}

#[test]
fn a_topic_released_since_the_session_came_up_is_not_announced() {
    let events = [Subscribe("a"), AnswerRoom(9), Subscribed("a", 0), Down, Up];
    let new = || Node::with_app(sample(), 0);
    check(
        new,
        &[
            (
                "needed",
                &[&events[..], &[AnswerRoom(9)]].concat(),
                "subscribe#0 a, release a, no node answers, subscribe#1 a",
            ),
            (
                "released",
                &[&events[..], &[Leave("a"), AnswerRoom(9)]].concat(),
                "subscribe#0 a, release a, no node answers, unsubscribe a",
            ),
        ],
    );
}

#[test]
fn topics_to_subscribe_to_to_announce_and_to_leave_each_have_a_third_of_the_room() {
    let mut node = Node::new();
    for number in 0..30 {
        node.subscribe(&format!("old{number}"));
    }
    node.apply(AnswerRoom(90));
    node.apply(Down);
    node.apply(Up);
    for number in 0..30 {
        node.subscribe(&format!("new{number}"));
    }
    node.take_effects();
    node.apply(AnswerRoom(9));
    let effects = node.take_effects();
    assert_eq!(effects.matches(" new").count(), 3, "{effects}");
    assert_eq!(effects.matches(" old").count(), 6, "nothing is left: {effects}");
}

/// What a new subscriber of a cache channel is sent in the end.
#[test]
fn the_stored_event_replaces_the_cached_event_of_a_channel() {
    let asked = [Subscribe(CACHE), AnswerRoom(9), Subscribed(CACHE, 0)];
    let there = [&asked[..], &[Fetched(CACHE, 0, Some("old"))]].concat();
    let again = [&there[..], &[CaughtUp, AnswerRoom(9)]].concat();
    let other = Receive(9, CACHE, Received::Event("other"));
    let after = |before: &[Event], more: &[Event]| [before, more].concat();
    let rows = [
        ("as it is stored", there.clone(), Some("old")),
        ("nothing is stored", after(&asked, &[Fetched(CACHE, 0, None)]), None),
        (
            "the session has caught up before Redis answers the first subscriber",
            after(&asked, &[CaughtUp, AnswerRoom(9), Fetched(CACHE, 0, Some("old"))]),
            Some("old"),
        ),
        ("another node's event", after(&there, &[other]), Some("other")),
        (
            "our own event is newer than what was asked for",
            { after(&asked, &[Publish(CACHE, "own"), Fetched(CACHE, 0, Some("old"))]) },
            Some("own"),
        ),
        (
            "our own is not stored yet: another node's is older",
            { after(&there, &[Publish(CACHE, "own"), other]) },
            Some("own"),
        ),
        (
            "it is stored: another node's is newer",
            { after(&there, &[Publish(CACHE, "own"), Event::Stored(CACHE), other]) },
            Some("other"),
        ),
        (
            "one of two is stored",
            {
                let two =
                    [Publish(CACHE, "one"), Publish(CACHE, "own"), Event::Stored(CACHE), other];
                after(&there, &two)
            },
            Some("own"),
        ),
        (
            "what is stored after the session was down",
            { after(&again, &[Fetched(CACHE, 1, Some("new"))]) },
            Some("new"),
        ),
        ("by another ticket", after(&again, &[Fetched(CACHE, 7, Some("new"))]), Some("old")),
        (
            "Redis has lost it, this node has not",
            after(&again, &[Fetched(CACHE, 1, None)]),
            Some("old"),
        ),
    ];
    for (what, events, remembered) in rows {
        let mut node = Node::new();
        events.iter().for_each(|event| node.apply(*event));
        assert_eq!(node.cached(CACHE).as_deref(), remembered, "{what}: {events:?}");
    }
}

#[test]
fn an_event_that_redis_has_lost_is_stored_again_and_read_by_all() {
    let asked = [Subscribe(CACHE), AnswerRoom(9), Subscribed(CACHE, 0)];
    let there = [&asked[..], &[Fetched(CACHE, 0, Some("old"))]].concat();
    let lost = [&there[..], &[CaughtUp, AnswerRoom(9), Fetched(CACHE, 1, None)]].concat();
    check(
        Node::new,
        &[
            (
                "this node stores it",
                &lost,
                &format!(
                    "{CACHE_ASKED}, release cache-c, fetch#1 cache-c, store cache-c, restored cache-c, fetch#2 cache-c"
                ),
            ),
            (
                "another node has stored it",
                &[&there[..], &[Receive(9, CACHE, Received::Restored)]].concat(),
                &format!("{CACHE_ASKED}, release cache-c, fetch#1 cache-c"),
            ),
            (
                "another node has stored it before Redis answers the first subscriber",
                &[&asked[..], &[Receive(9, CACHE, Received::Restored)]].concat(),
                CACHE_ASKED,
            ),
            (
                "of a channel that is not needed",
                &[Receive(9, CACHE, Received::Restored), Event::FetchAgain(CACHE)],
                "",
            ),
        ],
    );
}

#[test]
fn an_event_of_the_greeting_is_not_delivered_again() {
    let mut node = Node::new();
    for event in
        [Subscribe(CACHE), AnswerRoom(9), Subscribed(CACHE, 0), Fetched(CACHE, 0, Some("e"))]
    {
        node.apply(event);
    }
    let channel = node.key(CACHE);
    // The stored event was number 4 of session 9.
    for (node_id, number, expected) in [(9, 4, true), (9, 3, true), (9, 5, false), (3, 4, false)] {
        let was_greeted = node.cluster.is_in_greeting(&channel, session(node_id), number);
        assert_eq!(was_greeted, expected, "{number} of {node_id}");
    }
    // The home remembers it when the topic is new again.
    node.with(|cluster, here| cluster.unsubscribe(here, &channel));
    assert!(!node.cluster.is_in_greeting(&channel, session(9), 4));
    node.apply(Subscribe(CACHE));
    assert!(node.cluster.is_in_greeting(&channel, session(9), 4));
}

#[test]
fn a_request_is_a_refetch_when_subscribers_may_have_missed_events() {
    let mut node = Node::new();
    let channel = node.key(CACHE);
    let is_refetch = |node: &Node, ticket| node.cluster.is_refetch(&channel, ticket);
    [Subscribe(CACHE), AnswerRoom(9)].iter().for_each(|event| node.apply(*event));
    assert!(!is_refetch(&node, 0), "the topic is new");
    [Subscribed(CACHE, 0), Fetched(CACHE, 0, None), CaughtUp, AnswerRoom(9)]
        .iter()
        .for_each(|event| node.apply(*event));
    assert!(is_refetch(&node, 1) && !is_refetch(&node, 0));
}

#[test]
fn a_node_that_sends_nothing_for_a_lease_is_dead_and_its_members_leave() {
    let joined = [
        Subscribe(PRESENCE),
        AnswerRoom(9),
        Subscribed(PRESENCE, 0),
        SnapshotSent(PRESENCE, 0, 1),
        Receive(9, PRESENCE, Received::Joined("u")),
    ];
    let after = |more: &[Event]| [&joined[..], more].concat();
    let rows: [(&str, Vec<Event>, &[&str]); 10] = [
        ("for a lease", after(&[Seconds(LEASE_SECONDS)]), &["u"]),
        ("for more", after(&[Seconds(LEASE_SECONDS + 1)]), &[]),
        ("it has sent something", after(&[Seconds(9), Seen(9), Seconds(9)]), &["u"]),
        (
            "a new session begins the lease again",
            after(&[Seconds(9), Down, Up, Seconds(2)]),
            &["u"],
        ),
        (
            "what was received on the last but one is in doubt for a whole lease",
            after(&[Seconds(9), Down, Up, Seen(9), Seconds(9)]),
            &["u"],
        ),
        (
            "also if its sender has come up again twice",
            after(&[PeerUp(9), Seconds(9), PeerUp(9), Seen(9), Seconds(9)]),
            &["u"],
        ),
        ("another has", after(&[Seconds(9), Seen(3), Seconds(9)]), &[]),
        (
            "the session was down, and it is not seen since",
            { after(&[Down, Seconds(99), Up, Seconds(LEASE_SECONDS - 1)]) },
            &["u"],
        ),
        (
            "nor sends what it has within a lease",
            { after(&[Down, Up, Seconds(9), Seen(9), Seconds(1)]) },
            &[],
        ),
        (
            "nor does a peer that came up again",
            { after(&[PeerUp(9), Seconds(9), Seen(9), Seconds(1)]) },
            &[],
        ),
    ];
    for (what, events, members) in rows {
        let mut node = Node::new();
        events.iter().for_each(|event| node.apply(*event));
        assert_eq!(node.members(PRESENCE), members, "{what}: {events:?}");
    }
}

#[test]
fn a_snapshot_that_is_announced_again_within_the_lease_is_kept() {
    for came_up in [vec![Down, Up], vec![PeerUp(9)]] {
        let mut node = Node::new();
        let joined = Receive(9, PRESENCE, Received::Joined("u"));
        [Subscribe(PRESENCE), AnswerRoom(9), joined].iter().for_each(|event| node.apply(*event));
        came_up.iter().for_each(|event| node.apply(*event));
        node.apply(Receive(9, PRESENCE, Received::Synchronize(1, &["u"])));
        node.apply(Seconds(9));
        node.apply(Seen(9));
        node.apply(Seconds(2));
        assert_eq!(node.members(PRESENCE), ["u"], "{came_up:?}");
    }
}

#[test]
fn a_question_is_answered_by_all_nodes_that_received_it_until_the_session_is_down() {
    check(
        Node::new,
        &[
            ("so many", &[Asked(4, 3)], "3 nodes answer 4"),
            ("no longer", &[Asked(4, 3), Down], "3 nodes answer 4, no node answers"),
        ],
    );
}
