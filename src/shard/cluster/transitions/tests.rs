//! Events in, effects out: what this node publishes and which webhooks it sends, row by row.

use std::sync::Arc;

use super::super::FromCluster;
use super::*;
use crate::app::{App, AppIndex, Apps, Webhook, WebhookKind, sample};
use crate::clock::Moment;
use crate::limits::CLUSTER_EFFECTS_MAX;
use crate::pusher::inbound::UserId;
use crate::pusher::webhook_event::Happening;
use crate::shard::context::{Context, Settings};
use crate::shard::home::Home;
use crate::shard::home::change::Change;
use crate::shard::node_message::{MemberSnapshot, NodeSnapshot};
use crate::shard::outbox::Outbox;

/// This node's id. Of the others, 3 is lower and 9 is higher.
const OWN: NodeId = NodeId(5);
const PENDING_SECONDS: u32 = 3;

/// What happens, always to the user `u` of one presence channel.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The first connection on this node joins, or the last one leaves.
    Join,
    Leave,
    /// Redis has ordered our oldest transition.
    Ordered,
    /// A message of another node is received.
    RemoteJoin(u64),
    RemoteLeave(u64),
    RemoteFinal(u64),
    /// A snapshot of another node: it does not have the user, and the user's leave is pending there.
    RemotePending(u64),
    /// The other node is dead.
    Dead(u64),
    Seconds(u32),
    Down,
}
use Event::*;

struct Fixture {
    context: Context,
    home: Home,
    out: Outbox,
    cluster: Cluster,
    channel: ChannelKey,
}

impl Fixture {
    /// A node whose session is up, with the topic. `waits`: for the first snapshots.
    fn new(waits: bool) -> Self {
        let kinds = vec![WebhookKind::MemberAdded, WebhookKind::MemberRemoved];
        let (url, channel_prefixes) = ("http://backend".to_owned(), Vec::new());
        let webhooks = vec![Webhook { url, kinds, channel_prefixes }];
        let apps = Arc::new(Apps::new(vec![App { webhooks, ..sample() }]));
        let context = Context::new(Settings {
            node: Some(OWN),
            pending_leave_seconds: PENDING_SECONDS,
            ..Settings::single_core(apps)
        });
        let channel = context.keys.make(AppIndex(0), "presence-r").unwrap();
        let mut home = Home::new(&context);
        // Another connection is subscribed throughout, so that the topic stays.
        home.channels.restore_interest(&channel, 0, None);
        let (out, cluster) = (Outbox::new(&context), Cluster::new(OWN));
        let mut fixture = Self { context, home, out, cluster, channel };
        fixture.report(FromCluster::Up);
        fixture.with(|cluster, here, channel| cluster.need_topic(here, channel));
        if !waits {
            let channel = fixture.channel.clone();
            fixture.report(FromCluster::TopicRoom(9));
            fixture.report(FromCluster::Subscribed { channel: &channel, ticket: 0 });
            fixture.report(FromCluster::SnapshotSent {
                channel: &channel,
                ticket: 0,
                receivers: 1,
            });
        }
        fixture.out.cluster.take_effects();
        fixture
    }

    fn with(&mut self, act: impl FnOnce(&mut Cluster, &mut Here<'_>, &ChannelKey)) {
        let Self { context, home, out, cluster, channel } = self;
        act(cluster, &mut Here { home, context, out }, channel);
        assert_eq!(cluster.check_invariants(context, home), Ok(()));
    }

    fn report(&mut self, event: FromCluster<'_>) {
        self.with(|cluster, here, _| cluster.on_event(here, event));
    }

    fn receive(&mut self, node: u64, message: ChannelMessage) {
        let (from, channel) = (SessionId { node: NodeId(node), core: 0 }, self.channel.clone());
        self.report(FromCluster::NodeSeen(from.node));
        self.report(FromCluster::Message { from, channel: &channel, message, frame: b"" });
    }

    fn change(&mut self, change: Change) {
        self.with(|cluster, here, channel| cluster.on_change(here, channel, change));
    }

    fn apply(&mut self, event: Event) {
        let channel_data = "{}".into();
        match event {
            Join => self.change(Change::Joined { member: user(), channel_data }),
            Leave => self.change(Change::Left { user_id: "u".into() }),
            Ordered => self.report(FromCluster::TransitionOrdered),
            RemoteJoin(node) => {
                self.receive(node, ChannelMessage::Joined { member: user(), channel_data });
            }
            RemoteLeave(node) => self.receive(node, ChannelMessage::Left { user_id: "u".into() }),
            RemoteFinal(node) => {
                self.receive(node, ChannelMessage::LeaveFinal { who: Some("u".into()) });
            }
            RemotePending(node) => {
                let pending_leaves = vec![Some("u".into())];
                let snapshot = NodeSnapshot { pending_leaves, ..NodeSnapshot::default() };
                self.receive(node, ChannelMessage::Synchronize { ticket: 9, snapshot });
            }
            Dead(node) => self.with(|cluster, here, channel| {
                cluster.announce_leaves_of_dead_node(here, channel, NodeId(node));
                let from = SessionId { node: NodeId(node), core: 0 };
                let message = ChannelMessage::Quit;
                cluster.on_event(here, FromCluster::Message { from, channel, message, frame: b"" });
            }),
            Seconds(count) => {
                for _ in 0..count {
                    self.context.now = Moment(self.context.now.0 + 1_000);
                    self.context.now_seconds = self.context.now.seconds();
                    self.with(|cluster, here, _| cluster.advance(here));
                }
            }
            Down => self.report(FromCluster::Down),
        }
    }

    /// Webhooks as `+` and `-`, published transitions as `J`, `L` and `F`, in the order of each.
    fn effects(&mut self) -> (String, String) {
        let webhooks = self.out.webhooks.drain(..).map(|event| match event.happening {
            Happening::MemberAdded { .. } => '+',
            Happening::MemberRemoved { .. } => '-',
            other => panic!("{other:?}"),
        });
        let sent = self.out.cluster.take_effects().into_iter().filter_map(|effect| match effect {
            ToCluster::Send { message: ChannelMessage::Joined { .. }, .. } => Some('J'),
            ToCluster::Send { message: ChannelMessage::Left { .. }, .. } => Some('L'),
            ToCluster::Send { message: ChannelMessage::LeaveFinal { .. }, .. } => Some('F'),
            _ => None,
        });
        (webhooks.collect(), sent.collect())
    }
}

fn user() -> MemberSnapshot {
    MemberSnapshot {
        user: UserId { json: "\"u\"".into(), text: "u".into() },
        user_info: "{}".into(),
    }
}

fn check(waits: bool, rows: &[(&str, &[Event], &str, &str)]) {
    for (what, events, webhooks, published) in rows {
        let mut fixture = Fixture::new(waits);
        events.iter().for_each(|event| fixture.apply(*event));
        let expected = ((*webhooks).to_owned(), (*published).to_owned());
        assert_eq!(fixture.effects(), expected, "{what}: {events:?}");
    }
}

#[test]
fn the_node_with_the_clusters_first_join_and_last_leave_sends_the_webhook() {
    check(
        false,
        &[
            ("not before Redis has ordered it", &[Join], "", "J"),
            ("the first join", &[Join, Ordered], "+", "J"),
            ("another node was first", &[Join, RemoteJoin(9), Ordered], "", "J"),
            ("another node was second", &[Join, Ordered, RemoteJoin(9)], "+", "J"),
            ("not the last", &[Join, Ordered, RemoteJoin(9), Leave, Ordered], "+", "JL"),
            ("the last", &[Join, Ordered, Leave, Ordered], "+-", "JL"),
            (
                "the other node was the last",
                &[Join, Ordered, RemoteJoin(9), Leave, Ordered, RemoteLeave(9)],
                "+",
                "JL",
            ),
            (
                "the last, since the other left before ours was ordered",
                &[Join, Ordered, RemoteJoin(9), Leave, RemoteLeave(9), Ordered],
                "+-",
                "JL",
            ),
        ],
    );
}

#[test]
fn without_a_session_a_node_decides_by_its_own_state() {
    check(
        false,
        &[
            ("at once", &[Down, Join, Leave], "+-", ""),
            ("what was not ordered is decided", &[Join, Down], "+", "J"),
            ("another node has the user", &[RemoteJoin(9), Down, Join], "", ""),
        ],
    );
}

#[test]
fn a_pending_leave_is_canceled_by_the_node_that_sent_the_leave() {
    let left: [Event; 4] = [Join, Ordered, Leave, Ordered];
    let after = |more: &[Event]| [&left[..], more].concat();
    let back = after(&[RemoteJoin(9)]);
    let late = after(&[Seconds(PENDING_SECONDS), Ordered, RemoteJoin(9)]);
    let between = after(&[Seconds(PENDING_SECONDS), RemoteJoin(9), Ordered]);
    let here = after(&[Join, Ordered]);
    let here_in_time = after(&[Join, Seconds(PENDING_SECONDS), Ordered]);
    check(
        false,
        &[
            ("they come back to another node", &back, "+-+", "JL"),
            ("after its end was ordered", &late, "+-", "JLF"),
            ("before its end was ordered", &between, "+-+", "JLF"),
            ("they come back here", &here, "+-+", "JLJ"),
            ("its end is not published while a join is", &here_in_time, "+-+", "JLJ"),
            (
                "the other node sent the leave, and sends the join",
                &[RemoteJoin(9), RemoteLeave(9), Join, Ordered],
                "",
                "J",
            ),
            (
                "that one is final",
                &[RemoteJoin(9), RemoteLeave(9), RemoteFinal(9), Join, Ordered],
                "+",
                "J",
            ),
        ],
    );
}

#[test]
fn the_live_node_with_the_lowest_id_sends_the_leaves_of_a_dead_node() {
    check(
        false,
        &[
            ("no other node has the topic", &[RemoteJoin(9), Dead(9)], "-", ""),
            ("a lower node has it", &[RemoteJoin(9), RemotePending(3), Dead(9)], "", ""),
            (
                "the dead node was the lower one",
                &[RemoteJoin(3), RemotePending(9), Dead(3)],
                "-",
                "",
            ),
            ("the user is here, too", &[RemoteJoin(9), Join, Ordered, Dead(9)], "", "J"),
            ("and may come back", &[RemoteJoin(9), Dead(9), Join, Ordered], "-+", "J"),
        ],
    );
}

#[test]
fn a_snapshot_overrides_nothing_that_was_received_during_the_wait_for_it() {
    check(
        true,
        &[
            ("the leave is pending there", &[RemotePending(9), Join, Ordered], "", "J"),
            (
                "its end was received before the snapshot",
                &[RemoteFinal(9), RemotePending(9), Join, Ordered],
                "+",
                "J",
            ),
        ],
    );
}

#[test]
fn a_leave_over_the_limit_of_pending_ones_is_final_at_once() {
    let mut fixture = Fixture::new(false);
    let filler = (u32::MAX, fixture.channel.clone());
    fixture.cluster.transitions.due = std::iter::repeat_n(filler, CLUSTER_EFFECTS_MAX).collect();
    for event in [Join, Ordered, Leave, Ordered, Ordered, RemoteJoin(9)] {
        fixture.apply(event);
    }
    assert_eq!(fixture.effects(), ("+-".to_owned(), "JLF".to_owned()), "no join cancels it");
    assert_eq!(fixture.cluster.transitions.unordered, 1);
    assert!(!fixture.cluster.transitions.has_pending_leaves(&fixture.channel));
}

/// The leave is decided while the join after it is not.
#[test]
fn a_session_may_end_while_there_is_no_room_for_pending_leaves() {
    let mut fixture = Fixture::new(false);
    let filler = (u32::MAX, fixture.channel.clone());
    fixture.cluster.transitions.due = std::iter::repeat_n(filler, CLUSTER_EFFECTS_MAX).collect();
    fixture.cluster.transitions.pending_high_water = CLUSTER_EFFECTS_MAX;
    for event in [Join, Ordered, Leave, Join, Down] {
        fixture.apply(event);
    }
    assert_eq!(fixture.effects(), ("+-+".to_owned(), "JLJ".to_owned()));
    let transitions = &fixture.cluster.transitions;
    assert_eq!((transitions.unordered, transitions.unconfirmed.len()), (1, 0));
    assert!(!transitions.has_pending_leaves(&fixture.channel));
}

#[test]
fn transitions_over_the_limit_are_decided_at_once_and_the_session_begins_again() {
    let mut fixture = Fixture::new(false);
    fixture.apply(Join);
    let (channel, count) = (fixture.channel.clone(), CLUSTER_EFFECTS_MAX);
    let unconfirmed = &mut fixture.cluster.transitions.unconfirmed;
    while unconfirmed.len() < count {
        unconfirmed.push_back((channel.clone(), None, Transition::Final));
    }
    let unconfirmed = u32::try_from(count).unwrap();
    fixture.cluster.details(&channel).unwrap().unconfirmed = unconfirmed;
    assert!(!fixture.out.cluster.take_restart_request());
    fixture.apply(Leave);
    assert_eq!(fixture.effects().0, "+-", "the join before it, too");
    assert!(fixture.out.cluster.take_restart_request());
    let transitions = &fixture.cluster.transitions;
    assert_eq!((transitions.unordered, transitions.unconfirmed.len()), (1, 0));
}

#[test]
fn the_most_unconfirmed_and_pending_ones_are_noted() {
    let mut fixture = Fixture::new(false);
    for event in [Join, Leave, Ordered, Ordered, Join, Ordered] {
        fixture.apply(event);
    }
    let counts = fixture.cluster.transitions.counts();
    assert_eq!((counts.unconfirmed, counts.unconfirmed_high_water), (0, 2));
    assert_eq!((counts.pending_leaves, counts.pending_leaves_high_water), (1, 1));
}

/// A pending leave keeps its topic subscribed. Other nodes have noted the leave as pending here.
#[test]
fn a_pending_leave_ends_on_all_nodes_if_the_app_wants_no_webhooks_any_longer() {
    let mut fixture = Fixture::new(false);
    for event in [Join, Ordered, Leave, Ordered] {
        fixture.apply(event);
    }
    assert_eq!(fixture.effects(), ("+-".to_owned(), "JL".to_owned()));
    assert!(fixture.cluster.transitions.has_pending_leaves(&fixture.channel));
    fixture.context.settings.apps = Arc::new(Apps::new(vec![sample()]));
    fixture.apply(Seconds(PENDING_SECONDS + 1));
    assert_eq!(fixture.effects(), (String::new(), "F".to_owned()));
    assert!(!fixture.cluster.transitions.has_pending_leaves(&fixture.channel));
}
