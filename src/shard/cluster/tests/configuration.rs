//! What a change of the configuration means for topics that are there already.

use super::Event::{
    AnswerRoom, Configure, Down, Join, Leave, Ordered, Part, PeerEnds, Receive, Seconds, Snapshot,
    SnapshotSent, Subscribe, Subscribed, Up,
};
use super::Received::{Count, Joined, LeaveFinal, Left, Occupied};
use super::*;
use crate::shard::cluster::remote_memory::REMOTE_BYTES_MAX;

const ROOM: &str = "presence-r";

/// A connection of this node is in the presence channel, and Redis and the other nodes have answered.
const THERE: [Event; 4] =
    [Subscribe(ROOM), AnswerRoom(9), Subscribed(ROOM, 0), SnapshotSent(ROOM, 0, 1)];
/// The user `u` is on this node, too.
const BOTH: [Event; 2] = [Receive(9, ROOM, Joined("u")), Join(ROOM, "u")];

type NewApp = fn() -> App;

fn plain() -> App {
    sample()
}

fn with_webhooks() -> App {
    app_with_webhooks(vec![WebhookKind::MemberAdded, WebhookKind::MemberRemoved])
}

fn app_with_webhooks(kinds: Vec<WebhookKind>) -> App {
    let (url, channel_prefixes) = ("http://backend".to_owned(), Vec::new());
    App { webhooks: vec![Webhook { url, kinds, channel_prefixes }], ..sample() }
}

fn counting() -> App {
    App { sends_subscription_count: true, ..sample() }
}

/// The webhooks of these events, in order.
fn webhooks(app: App, events: &[&[Event]]) -> String {
    let mut node = Node::with_app(app, IDLE_SECONDS);
    THERE.iter().for_each(|event| node.apply(*event));
    events.iter().copied().flatten().for_each(|event| node.apply(*event));
    let effects = node.take_effects();
    let sent = effects.split(", ").filter(|effect| effect.starts_with(['+', '-']));
    sent.collect::<Vec<_>>().join(" ")
}

/// `Cluster` notes who is on this node only while the app wants webhooks.
#[test]
fn webhooks_that_begin_take_the_users_on_this_node_as_they_are() {
    let (on, off) = (Configure(with_webhooks), Configure(plain));
    let dead = [PeerEnds(9)];
    assert_eq!(webhooks(plain(), &[&BOTH, &[on], &dead]), "", "the user is still here");
    let after_last = [Part(ROOM, "u"), Ordered];
    assert_eq!(webhooks(plain(), &[&BOTH, &[on], &dead, &after_last]), "-u");
    let left = [off, Part(ROOM, "u"), on];
    let here = [Join(ROOM, "u"), Ordered];
    let there = [Receive(9, ROOM, Joined("u")), PeerEnds(9)];
    assert_eq!(webhooks(with_webhooks(), &[&here, &left, &there]), "+u -u", "the last leave");
    let ended = [Receive(9, ROOM, Left("u"))];
    let back = [Seconds(PENDING_SECONDS + 1), Ordered, Join(ROOM, "u"), Ordered];
    assert_eq!(
        webhooks(plain(), &[&BOTH, &[on], &ended, &after_last, &back]),
        "-u +u",
        "the leave from node 9 was not the last, so node 9 sends no join"
    );
}

/// The app wanted no webhooks when the user came back.
#[test]
fn a_pending_leave_of_a_user_who_is_here_is_dropped_when_webhooks_begin_again() {
    let pending = [Receive(9, ROOM, Joined("u")), Receive(9, ROOM, Left("u"))];
    let back = [Configure(plain), Join(ROOM, "u"), Configure(with_webhooks)];
    let again = [Part(ROOM, "u"), Ordered, Receive(9, ROOM, LeaveFinal("u"))];
    assert_eq!(webhooks(with_webhooks(), &[&pending, &back, &again]), "-u");
}

/// Snapshots that this node received before do not have it: other nodes sent no such changes.
#[test]
fn a_topic_is_announced_again_when_its_app_begins_to_want_what_other_nodes_know() {
    const OCCUPIED: NewApp = || app_with_webhooks(vec![WebhookKind::ChannelVacated]);
    const OTHER_URL: NewApp = || {
        let mut app = OCCUPIED();
        app.webhooks[0].url = "http://other".to_owned();
        app
    };
    const OTHER_CHANNELS: NewApp = || {
        let mut app = OCCUPIED();
        app.webhooks[0].channel_prefixes = vec!["b".to_owned()];
        app
    };
    let there = [Subscribe("a"), AnswerRoom(9), Subscribed("a", 0), SnapshotSent("a", 0, 1)];
    let again = "subscribe#1 a, synchronize#1 a";
    let room = AnswerRoom(9);
    let rows: [(&str, NewApp, &[Event], &str); 11] = [
        ("webhooks begin", plain, &[Configure(OCCUPIED), room], again),
        ("numbers begin", plain, &[Configure(counting), room], again),
        ("once", plain, &[Configure(OCCUPIED), room, room], again),
        (
            "both before there is room",
            plain,
            &[Configure(OCCUPIED), Configure(counting), room],
            again,
        ),
        ("they end", OCCUPIED, &[Configure(plain), room], ""),
        ("the endpoint moves", OCCUPIED, &[Configure(OTHER_URL), room], ""),
        ("of another channel", plain, &[Configure(OTHER_CHANNELS), room], ""),
        ("of members", plain, &[Configure(with_webhooks), room], ""),
        ("the same app", counting, &[Configure(counting), room], ""),
        ("without a session", plain, &[Down, Configure(OCCUPIED)], "no node answers"),
        (
            "with the next session, once",
            plain,
            &[Down, Configure(OCCUPIED), Up, room, room],
            &format!("no node answers, {again}"),
        ),
    ];
    for (what, app, events, effects) in rows {
        let mut node = Node::with_app(app(), IDLE_SECONDS);
        there.into_iter().for_each(|event| node.apply(event));
        node.take_effects();
        events.iter().for_each(|event| node.apply(*event));
        assert_eq!(node.take_effects(), effects, "{what}");
    }
}

/// Numbers that other nodes sent while this one did not count.
#[test]
fn numbers_that_begin_have_what_other_nodes_sent_before() {
    let mut node = Node::with_app(sample(), IDLE_SECONDS);
    let there = [Subscribe("a"), AnswerRoom(9), Subscribed("a", 0)];
    let numbers = [Receive(9, "a", Count(4)), Receive(3, "a", Count(2)), Configure(counting)];
    there.into_iter().chain(numbers).for_each(|event| node.apply(event));
    let channel = node.key("a");
    node.home.on_core_count(&node.context, &mut node.out, &channel, 0, 1);
    let sent = std::mem::take(&mut node.out.own_mail.from_home);
    let Some(Mail::Deliver { frame, .. }) = sent.into_iter().next() else { panic!("no number") };
    let text = String::from_utf8(frame::server_payload(&frame).to_vec()).unwrap();
    assert!(text.contains('7'), "{text}");
}

/// Otherwise the other node would count the subscribers of this one for ever. Node 9's snapshot found no room here, so
/// nothing else shows that node 9 has ours.
#[test]
fn quit_is_sent_also_if_there_was_no_room_for_the_snapshot_of_the_other_node() {
    for after in [plain, || App { is_removed: true, ..sample() }] {
        let mut node = Node::with_app(counting(), IDLE_SECONDS);
        node.cluster.remote_memory.fill();
        let sent = [Subscribe("a"), AnswerRoom(9), Subscribed("a", 0), SnapshotSent("a", 0, 2)];
        let answer = Snapshot(9, "a", 0, Some(&["u"]));
        sent.into_iter().chain([answer]).for_each(|event| node.apply(event));
        assert_eq!(
            node.cluster.topics[&node.key("a")].peers.len(),
            0,
            "{REMOTE_BYTES_MAX} are full"
        );
        node.take_effects();
        node.apply(Configure(after));
        let end = [Leave("a"), Seconds(IDLE_SECONDS), AnswerRoom(9)];
        end.into_iter().for_each(|event| node.apply(event));
        assert_eq!(node.take_effects(), "quit a, unsubscribe a");
    }
}

/// Its SUBSCRIBE still waits for room, and its subscriber was answered because a node waits for a while only.
#[test]
fn quit_is_sent_for_a_topic_that_was_never_subscribed_to_but_whose_number_was_published() {
    let mut node = Node::with_app(counting(), IDLE_SECONDS);
    node.apply(Subscribe("a"));
    node.apply(Seconds(ANSWER_SECONDS));
    node.take_effects();
    let channel = node.key("a");
    node.home.on_core_count(&node.context, &mut node.out, &channel, 0, 1);
    node.apply(Configure(plain));
    node.apply(Leave("a"));
    assert_eq!(node.take_effects(), "deliver a, count=1 a, quit a");
}

/// The number of this node is the same as that which it would keep of the other: none.
#[test]
fn a_node_without_room_for_a_snapshot_sends_its_own_only_where_it_will_send_quit() {
    for (app, answer) in
        [(counting as NewApp, "answer#7 to 9: a"), (plain, "answer#7 nothing to 9: a")]
    {
        let mut node = Node::with_app(app(), IDLE_SECONDS);
        node.cluster.remote_memory.fill();
        [Subscribe("a"), AnswerRoom(9)].into_iter().for_each(|event| node.apply(event));
        node.take_effects();
        node.apply(Receive(9, "a", Received::Synchronize(7, &["u"])));
        assert_eq!(node.take_effects(), answer);
        node.apply(Receive(9, "a", Occupied(true)));
        assert_eq!(node.cluster.topics[&node.key("a")].peers.len(), 0);
    }
}
