//! Each invariant of the cluster side is violated once, and the check must name it.

use super::Event::{AnswerRoom, Receive, Subscribe, Subscribed};
use super::*;

type Corrupt = fn(&mut Node, &ChannelKey);

/// `presence-r` waits for its first snapshots, node 9 has the member `u`, and this node is subscribed to `old`, which
/// no client needs.
fn node() -> Node {
    let mut node = Node::with_member_webhooks();
    node.context.settings.topic_idle_seconds = IDLE_SECONDS;
    let joined = Receive(9, "presence-r", Received::Joined("u"));
    let old = [Subscribe("old"), AnswerRoom(9), Subscribed("old", 0), Event::Leave("old")];
    old.iter().for_each(|event| node.apply(*event));
    [Subscribe("presence-r"), joined].iter().for_each(|event| node.apply(*event));
    node
}

fn topic<'a>(node: &'a mut Node, channel: &ChannelKey) -> &'a mut TopicDetails {
    node.cluster.details(channel).unwrap()
}

#[test]
fn violations_of_the_cluster_side_are_named() {
    let rows: [(&str, Corrupt); 15] = [
        ("1025 nodes", |node, _| {
            node.cluster.nodes = (0..1_025).map(|id| (NodeId(id), 0)).collect();
        }),
        ("16386 sweeps", |node, _| node.cluster.sweeps = vec![(9, None); SWEEPS_MAX + 2].into()),
        ("presence-r: nobody subscribes to it", |node, _| node.cluster.unsent.clear()),
        ("2 unsent, not", |node, _| {
            let old = node.key("old");
            topic(node, &old).unsent = Some(7);
            node.cluster.unsent.push_back((old, 7));
        }),
        ("a topic is idle twice", |node, _| {
            let again = node.cluster.idle[0].clone();
            node.cluster.idle.push_back(again);
        }),
        ("old: nobody unsubscribes from it", |node, _| node.cluster.idle.clear()),
        ("presence-r waits without a session", |node, _| node.cluster.is_up = false),
        ("presence-r waits for nothing", |node, channel| {
            topic(node, channel).waiting.as_mut().unwrap().replies_missing = 0;
        }),
        ("presence-r waits for ever", |node, _| node.cluster.waiting.clear()),
        ("presence-r: 1 transitions, 0 unconfirmed", |node, channel| {
            topic(node, channel).unconfirmed = 1;
        }),
        ("presence-r: a node has two entries", |node, channel| {
            let mut other = TopicState::default();
            other.peer(node.cluster.received_now(session(9)));
            topic(node, channel).peers.append(&mut other.details().peers);
        }),
        ("presence-r: this node is its own peer", |node, channel| {
            let at = node.cluster.received_now(SessionId { node: OWN, core: 0 });
            node.cluster.topics.get_mut(channel).unwrap().peer(at);
        }),
        ("is present and has a pending leave", |node, channel| {
            topic(node, channel).peers[0].pending_leaves.insert(Some("u".into()));
        }),
        ("presence-r: u is on 0 other nodes, not 1", |node, channel| {
            topic(node, channel).peers[0].members.clear();
        }),
        ("presence-r: u is on 2 other nodes, not 1", |node, channel| {
            let at = node.cluster.received_now(session(3));
            node.cluster.topics.get_mut(channel).unwrap().peer(at).members.insert("u".into());
        }),
    ];
    for (violation, corrupt) in rows {
        let mut node = node();
        let channel = node.key("presence-r");
        corrupt(&mut node, &channel);
        let found = node.cluster.check_invariants(&node.context, &node.home).expect_err(violation);
        assert!(found.contains(violation), "{found}, not {violation}");
    }
}
