//! What other nodes have, by their messages, and failure detection. PURE.
//!
//! Owns the rules that change `PeerSnapshot`s and the list of nodes. A node's snapshot of a channel is received whole
//! after a `Synchronize`, and changed by the node's messages from there on. If the node sends no heartbeat for
//! `LEASE_SECONDS`, it is dead: its snapshots are dropped, and members leave. Does not read bytes:
//! `cluster/envelope.rs` does.
//!
//! Limits: `NODES_MAX`, `SWEEPS_MAX`, `DEAD_MAX`, and the bytes of `remote_memory.rs`. Cost: one look-up for each
//! message; a snapshot is one step for each member of it. All nodes that are dead in a second cost one walk over the
//! topics.

use hashbrown::HashSet;

use super::configuration::shares_snapshots;
use super::here::{FastMap, Here};
use super::topic_state::{PeerSnapshot, ReceivedAt};
use super::{Cluster, DEAD_MAX, LEASE_SECONDS, NODES_MAX, SWEEPS_MAX, ToCluster};
use crate::buffer::FrameBytes;
use crate::shard::channel_key::ChannelKey;
use crate::shard::node_message::{
    ChannelMessage, MemberSnapshot, NodeId, NodeSnapshot, SessionId, SessionMessage,
};

impl Cluster {
    /// False for a node that is new while `NODES_MAX` are known: a program that can write to Redis can invent nodes.
    pub(in crate::shard) fn accepts_node(&self, node: NodeId) -> bool {
        self.nodes.len() < NODES_MAX || self.nodes.contains_key(&node)
    }

    /// Other nodes, and the lease seconds since each was seen.
    pub(in crate::shard) fn seen_nodes(&self) -> Vec<(NodeId, u32)> {
        let nodes = self.nodes.iter();
        debug_assert!(
            self.nodes.values().all(|seen| *seen <= self.lease_second),
            "a node was seen before now"
        );
        nodes.map(|(node, seen)| (*node, self.lease_second.saturating_sub(*seen))).collect()
    }

    /// Renews the node's lease. A node that was taken for dead is asked to announce all it has: its snapshots were
    /// dropped.
    pub(super) fn on_node_seen(&mut self, here: &mut Here<'_>, node: NodeId) {
        if !self.accepts_node(node) {
            let why = format!("a message of one more node than {NODES_MAX} was ignored");
            return self.note_refused(here, &why);
        }
        self.nodes.insert(node, self.lease_second);
        debug_assert!(self.nodes.len() <= NODES_MAX, "`accepts_node` was asked");
        if let Some(at) = self.dead.iter().position(|dead| *dead == node) {
            self.dead.remove(at);
            debug_assert!(!self.dead.contains(&node), "a node is dead once");
            here.out
                .cluster
                .push(ToCluster::SendToAll { message: SessionMessage::Revive { node } });
        }
    }

    pub(in crate::shard) fn note_refused(&mut self, here: &mut Here<'_>, why: &str) {
        self.refused += 1;
        here.out.log_for_channel("cluster", why);
    }

    /// How often something of other nodes was over a bound and was dropped.
    pub(in crate::shard) fn refused_count(&self) -> u64 {
        self.refused
    }

    /// A message on a channel's topic. `frame` is that of an event.
    pub(super) fn on_message(
        &mut self,
        here: &mut Here<'_>,
        from: SessionId,
        channel: &ChannelKey,
        message: ChannelMessage,
        frame: &[u8],
    ) {
        match message {
            ChannelMessage::Event { except, cache } => {
                let frame: FrameBytes = frame.into();
                debug_assert!(from.node != self.own, "own events are delivered without a detour");
                if cache && channel.kind.cached && self.is_newest_elsewhere(channel) {
                    let seconds = here.context.app(channel.app()).cache_ttl_seconds;
                    here.home.cache_event(here.context, channel, &frame, seconds);
                }
                here.home.deliver(here.context, here.out, channel, &frame, except);
            }
            ChannelMessage::Joined { member, channel_data } => {
                self.before_remote_join(here, channel, &Some(member.user.text.clone()));
                self.add_remote_member(here, channel, from, member, Some(&channel_data));
            }
            ChannelMessage::Left { user_id } => {
                self.remove_remote_member(here, channel, from, &user_id);
                self.after_remote_leave(here, channel, from, Some(user_id));
            }
            ChannelMessage::LeaveFinal { who } => self.on_remote_leave_final(channel, from, &who),
            ChannelMessage::Online(online) => self.set_online(here, channel, from, online),
            ChannelMessage::Occupied(true) => {
                self.before_remote_join(here, channel, &None);
                self.change_peer(here, channel, from, |peer| peer.occupied = true);
            }
            ChannelMessage::Occupied(false) => {
                self.change_peer(here, channel, from, |peer| peer.occupied = false);
                self.after_remote_leave(here, channel, from, None);
            }
            ChannelMessage::Count(count) => self.set_count(here, channel, from, count),
            ChannelMessage::Restored => self.fetch_again(here, channel),
            ChannelMessage::Quit => self.drop_peer(here, channel, from.node, false),
            ChannelMessage::Synchronize { ticket, snapshot } => {
                self.on_synchronize(here, from, channel, ticket, snapshot);
            }
        }
    }

    /// A node's answer to a `Synchronize` of ours. `None`: it has just released the topic.
    pub(super) fn on_snapshot(
        &mut self,
        here: &mut Here<'_>,
        from: SessionId,
        channel: &ChannelKey,
        ticket: u32,
        snapshot: Option<NodeSnapshot>,
    ) {
        if let Some(snapshot) = snapshot {
            self.replace_snapshot(here, channel, from, snapshot);
        }
        self.note_answers(here, channel, ticket, 0);
    }

    /// A peer's session is new. What it released while it was down it could not publish: what it does not send again
    /// within a lease is dropped.
    pub(super) fn on_session_up(&mut self, here: &mut Here<'_>, session: SessionId) {
        let is_known = self.renewals.contains_key(&session);
        if self.sweeps.len() >= SWEEPS_MAX || !is_known && self.renewals.len() >= SWEEPS_MAX {
            let why = "more sessions of other nodes than a cluster has came up: one was ignored";
            return self.note_refused(here, why);
        }
        let renewals = self.renewals.entry(session).or_default();
        *renewals = renewals.wrapping_add(1);
        let came_up = (session, *renewals);
        debug_assert!(session.node != self.own, "sessions of other nodes");
        self.sweeps.push_back((self.lease_second + LEASE_SECONDS, Some(came_up)));
        debug_assert!(self.sweeps.len() <= SWEEPS_MAX, "there was room");
        debug_assert!(self.renewals.len() <= SWEEPS_MAX, "sessions of nodes that live");
    }

    /// Drops what was received before our own session (`None`) or one of these came up, and not since. One walk for
    /// all.
    pub(super) fn drop_stale_snapshots(
        &mut self,
        here: &mut Here<'_>,
        came_up: &[Option<SessionId>],
    ) {
        let own_generation = self.own_generation;
        let own = came_up.contains(&None);
        debug_assert!(!came_up.is_empty(), "a session came up");
        let renewed: FastMap<SessionId, u32> = came_up
            .iter()
            .flatten()
            .map(|session| (*session, self.received_now(*session).sender_generation))
            .collect();
        self.drop_peers(here, |peer| {
            let ReceivedAt { own_generation: then, sender, sender_generation } = peer.received_at;
            own && then != own_generation
                || renewed.get(&sender).is_some_and(|renewals| *renewals != sender_generation)
        });
    }

    /// A node has subscribed to the topic. It sends its snapshot and wants ours.
    fn on_synchronize(
        &mut self,
        here: &mut Here<'_>,
        from: SessionId,
        channel: &ChannelKey,
        ticket: u32,
        snapshot: NodeSnapshot,
    ) {
        let own = self.topics.contains_key(channel).then(|| self.snapshot(here, channel));
        debug_assert!(from.node != self.own, "a node has no snapshot for itself");
        self.replace_snapshot(here, channel, from, snapshot);
        // Where there is no room for the other's snapshot, nothing would show later that the other has ours.
        let is_peer = self.find_peer(channel, from.node).is_some();
        let own = own.filter(|_| is_peer || shares_snapshots(here, channel));
        let app = here.context.app(channel.app()).id.as_str().into();
        let channel = channel.name().into();
        let message = SessionMessage::Snapshot { app, channel, ticket, snapshot: own };
        here.out.cluster.push(ToCluster::Reply { to: from, message: message.into() });
    }

    /// Another node has thought one dead that sends again: if it is this one, it announces all it has once more.
    pub(super) fn on_revive(&mut self, node: NodeId) {
        if self.own == node && self.unannounced.is_empty() {
            self.unannounced = self.topics.keys().cloned().collect();
            debug_assert!(self.is_up, "the request came over a session");
            debug_assert_eq!(self.unannounced.len(), self.topics.len(), "each topic once");
        }
    }

    /// `channel_data`: `None` for a member of a snapshot, whose event is made from the member's parts.
    fn add_remote_member(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        from: SessionId,
        member: MemberSnapshot,
        channel_data: Option<&str>,
    ) {
        let MemberSnapshot { user, user_info } = &member;
        debug_assert!(from.node != self.own, "the members of this node are in its roster");
        let bytes = user.text.len() + user.json.len() + user_info.len();
        if self.try_reserve(here, bytes) && self.note_member(channel, from, &user.text, true) {
            here.home.add_elsewhere(here.context, here.out, channel, member, channel_data);
        }
    }

    fn remove_remote_member(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        from: SessionId,
        user_id: &str,
    ) {
        if self.note_member(channel, from, user_id, false) {
            here.home.remove_elsewhere(here.context, here.out, channel, user_id);
        }
    }

    /// Nothing changes if this node does not need the topic, or has no room for one more node there.
    fn change_peer(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        from: SessionId,
        change: impl FnOnce(&mut PeerSnapshot),
    ) {
        if !self.has_room_for_peer(here, channel, from) {
            return;
        }
        let received_at = self.received_now(from);
        if let Some(topic) = self.topics.get_mut(channel) {
            change(topic.peer(received_at));
            debug_assert!(topic.find_peer(from.node).is_some(), "the node has its entry");
        }
    }

    /// True for a topic that this node does not need, where nothing is added.
    fn has_room_for_peer(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        from: SessionId,
    ) -> bool {
        if !self.topics.contains_key(channel) || self.find_peer(channel, from.node).is_some() {
            return true;
        }
        self.try_reserve(here, 0)
    }

    fn set_online(
        &mut self,
        here: &mut Here<'_>,
        user: &ChannelKey,
        from: SessionId,
        online: bool,
    ) {
        let is_here = here.home.users.is_online(user);
        let before = is_here || self.is_online_elsewhere(user);
        self.change_peer(here, user, from, |peer| peer.online = online);
        let now = is_here || self.is_online_elsewhere(user);
        debug_assert!(
            before == now || before != online,
            "one node's news changes it to what they say, or not"
        );
        here.home.send_status(here.out, user, before, now);
    }

    fn set_count(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        from: SessionId,
        count: u32,
    ) {
        self.change_peer(here, channel, from, |peer| peer.count = count);
        debug_assert!(
            self.find_peer(channel, from.node).is_none_or(|peer| peer.count == count),
            "the newest number of the node"
        );
        if here.context.app(channel.app()).counts_subscriptions() {
            let count = self.count_elsewhere(channel);
            here.home.on_count_elsewhere(here.context, here.out, channel, count);
        }
    }

    /// Members that are in both are neither removed nor announced again. An empty snapshot removes the node's members.
    fn replace_snapshot(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        from: SessionId,
        snapshot: NodeSnapshot,
    ) {
        if !self.topics.contains_key(channel) || !self.has_room_for_peer(here, channel, from) {
            return;
        }
        let received_at = self.received_now(from);
        self.change_peer(here, channel, from, |peer| peer.received_at = received_at);
        let left: Vec<Box<str>> = {
            let there: HashSet<&str, foldhash::fast::FixedState> =
                snapshot.members.iter().map(|member| &*member.user.text).collect();
            let peer = self.find_peer(channel, from.node);
            let known = peer.into_iter().flat_map(|peer| &peer.members);
            known.filter(|known| !there.contains(&***known)).cloned().collect()
        };
        let NodeSnapshot { members, pending_leaves, online, occupied, count } = snapshot;
        for user_id in left {
            self.remove_remote_member(here, channel, from, &user_id);
        }
        debug_assert!(
            self.find_peer(channel, from.node).is_none_or(|peer| {
                let listed = |id: &str| members.iter().any(|member| &*member.user.text == id);
                peer.members.len() > crate::limits::ASSERTED_LEN_MAX
                    || peer.members.iter().all(|id| listed(id))
            }),
            "those who are not in the snapshot have left"
        );
        for member in members {
            self.add_remote_member(here, channel, from, member, None);
        }
        self.change_peer(here, channel, from, |peer| peer.occupied = occupied);
        self.replace_pending_leaves(here, channel, from, pending_leaves);
        self.set_online(here, channel, from, online);
        self.set_count(here, channel, from, count);
    }

    /// Remembers them, so that one that was only slow is asked to announce itself again (`on_node_seen`).
    pub(super) fn on_nodes_dead(&mut self, here: &mut Here<'_>, nodes: &[NodeId]) {
        for node in nodes {
            self.dead.push_back(*node);
            if self.dead.len() > DEAD_MAX {
                self.dead.pop_front();
            }
            // Each core notices it; the log has it once.
            if here.context.core() == 0 {
                let node = node.0;
                here.out.log_line(format!(
                    "node {node:016x} has sent nothing for {LEASE_SECONDS} s: its clients and presence members were \
                     removed here. The log of that node names its host and process at its start"
                ));
            }
        }
        self.forget_nodes(here, nodes);
        debug_assert!(self.dead.len() <= DEAD_MAX, "the oldest are forgotten");
    }

    pub(super) fn forget_nodes(&mut self, here: &mut Here<'_>, nodes: &[NodeId]) {
        if nodes.is_empty() {
            return;
        }
        let nodes: HashSet<NodeId, foldhash::fast::FixedState> = nodes.iter().copied().collect();
        debug_assert!(!nodes.contains(&self.own), "this node lives");
        for node in &nodes {
            self.nodes.remove(node);
        }
        self.renewals.retain(|session, _| !nodes.contains(&session.node));
        self.drop_peers(here, |peer| nodes.contains(&peer.node));
        debug_assert!(
            !nodes.iter().any(|node| self.nodes.contains_key(node)),
            "they are forgotten"
        );
    }

    fn drop_peers(&mut self, here: &mut Here<'_>, which: impl Fn(&PeerSnapshot) -> bool) {
        let topics = self.topics.iter();
        let gone = topics.flat_map(|(channel, topic)| {
            let gone = topic.peers.iter().filter(|peer| which(peer));
            gone.map(|peer| (channel.clone(), peer.node))
        });
        for (channel, node) in gone.collect::<Vec<_>>() {
            debug_assert!(node != self.own, "this node is not its own peer");
            self.drop_peer(here, &channel, node, true);
        }
        debug_assert!(
            !self.topics.values().any(|topic| topic.peers.iter().any(&which)),
            "no snapshot of them is left"
        );
    }

    /// Drops what a node had of a channel; `dead`: it could not publish its leaves itself.
    fn drop_peer(&mut self, here: &mut Here<'_>, channel: &ChannelKey, node: NodeId, dead: bool) {
        let Some(from) = self.find_peer(channel, node).map(|peer| peer.received_at.sender) else {
            return;
        };
        if dead {
            self.announce_leaves_of_dead_node(here, channel, node);
        }
        self.replace_snapshot(here, channel, from, NodeSnapshot::default());
        if let Some(topic) = self.topics.get_mut(channel) {
            if let Some(details) = topic.details_if_any() {
                details.peers.retain(|peer| peer.node != node);
            }
            topic.shrink();
        }
        debug_assert!(self.find_peer(channel, node).is_none(), "no snapshot of the node is left");
    }
}
