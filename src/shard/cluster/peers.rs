//! What other nodes say they have, and what becomes of it when they are not heard any more. PURE.

use hashbrown::{HashMap, HashSet};

use super::subject::Peer;
use super::{DEAD_MAX, LEASE_BEATS, NODES_MAX, SWEEPS_MAX, ToCluster};
use crate::app::AppIndex;
use crate::buffer::FrameBytes;
use crate::shard::channel_key::ChannelKey;
use crate::shard::envelope::{Body, LinkId, NodeId, Part};
use crate::shard::query::Answer;
use crate::shard::{Answered, Shard};

impl Shard {
    /// A sign of life. `false`: there are so many nodes that this one is ignored, and so is what it has sent.
    #[must_use]
    pub fn on_node_heard(&mut self, node: NodeId) -> bool {
        let beat = self.cluster.beat;
        if self.cluster.nodes.len() >= NODES_MAX && !self.cluster.nodes.contains_key(&node) {
            self.note_refused(&format!("a message of one more node than {NODES_MAX} was ignored"));
            return false;
        }
        self.cluster.nodes.insert(node, beat);
        if let Some(at) = self.cluster.dead.iter().position(|dead| *dead == node) {
            self.cluster.dead.remove(at);
            self.outbox.cluster.push(ToCluster::TellAll { body: Body::Revive { node } });
        }
        true
    }

    /// Something of other nodes was over a bound.
    pub(super) fn note_refused(&mut self, why: &str) {
        self.cluster.refused += 1;
        self.outbox.note("cluster", why);
    }

    /// How often something of other nodes was over a bound and was dropped.
    #[must_use]
    pub fn cluster_refused(&self) -> u64 {
        self.cluster.refused
    }

    /// Something about a channel. `frame` is that of an event.
    pub fn on_envelope(&mut self, from: LinkId, channel: &ChannelKey, body: Body, frame: &[u8]) {
        match body {
            Body::Event { except, cache } => {
                let frame: FrameBytes = frame.into();
                if cache && channel.kind.cached && self.cluster.is_newest_elsewhere(channel) {
                    let seconds = self.settings.apps.get(channel.app()).cache_ttl_seconds;
                    self.home_remember(channel, &frame, seconds);
                }
                self.home_deliver(channel, &frame, except);
            }
            Body::Joined { member, channel_data } => {
                self.before_remote_edge(channel, &Some(member.user.text.clone()));
                self.remote_joined(channel, from, member, Some(&channel_data));
            }
            Body::Left { user_id } => {
                self.remote_left(channel, from, &user_id);
                self.after_remote_leaving(channel, from, Some(user_id));
            }
            Body::Lingered { who } => self.remote_lingering_over(channel, from, &who),
            Body::Online(online) => self.remote_online(channel, from, online),
            Body::Occupied(true) => {
                self.before_remote_edge(channel, &None);
                self.change_peer(channel, from, |peer| peer.occupied = true);
            }
            Body::Occupied(false) => {
                self.change_peer(channel, from, |peer| peer.occupied = false);
                self.after_remote_leaving(channel, from, None);
            }
            Body::Count(count) => self.remote_count(channel, from, count),
            Body::Restored => self.fetch_again(channel),
            Body::Quit => self.drop_peer(channel, from.node, false),
            Body::Sync { ticket, part } => self.on_sync(from, channel, ticket, part),
            Body::Part { ticket, part, .. } => {
                if let Some(part) = part {
                    self.replace_part(channel, from, part);
                }
                self.note_answers(channel, ticket, 0);
            }
            Body::Terminate { .. }
            | Body::Alive
            | Body::LineUp
            | Body::CatchUp { .. }
            | Body::Repeat { .. }
            | Body::Repeated
            | Body::Bye
            | Body::Revive { .. }
            | Body::Ask { .. }
            | Body::Answer { .. } => {}
        }
    }

    /// A peer's line is new. What it had let go meanwhile it could not tell: whatever it does not tell again within a
    /// lease is gone.
    pub fn on_peer_line_up(&mut self, link: LinkId) {
        let is_known = self.cluster.renewals.contains_key(&link);
        if self.cluster.sweeps.len() >= SWEEPS_MAX
            || !is_known && self.cluster.renewals.len() >= SWEEPS_MAX
        {
            let why = "more sessions of other nodes than a cluster has came up: one was ignored";
            return self.note_refused(why);
        }
        let renewals = self.cluster.renewals.entry(link).or_default();
        *renewals = renewals.wrapping_add(1);
        self.cluster.sweeps.push_back((self.cluster.beat + LEASE_BEATS, Some(link)));
    }

    /// Drops what was told before our own line came up, or one of these links', and not since. One walk for all.
    pub(super) fn drop_doubtful(&mut self, links: &[Option<LinkId>]) {
        let line = self.cluster.line;
        let own = links.contains(&None);
        let told: HashMap<LinkId, u32, foldhash::fast::FixedState> = links
            .iter()
            .flatten()
            .map(|link| (*link, self.cluster.told_now(*link).renewals))
            .collect();
        self.drop_peers(|peer| {
            own && peer.told.line != line
                || told.get(&peer.told.by).is_some_and(|renewals| *renewals != peer.told.renewals)
        });
    }

    /// A node ends in order.
    pub fn on_bye(&mut self, node: NodeId) {
        self.forget_nodes(&[node]);
    }

    fn on_sync(&mut self, from: LinkId, channel: &ChannelKey, ticket: u32, part: Part) {
        let own = self.is_held(channel).then(|| self.part(channel));
        self.replace_part(channel, from, part);
        let app = self.settings.apps.get(channel.app()).id.as_str().into();
        let body = Body::Part { app, channel: channel.name().into(), ticket, part: own };
        self.outbox.cluster.push(ToCluster::Reply { to: from, body });
    }

    /// A node is thought dead by another: it tells all it has once more.
    pub fn on_revive(&mut self, node: NodeId) {
        if self.cluster.own == Some(node) && self.cluster.unannounced.is_empty() {
            self.cluster.unannounced = self.cluster.subjects.keys().cloned().collect();
        }
    }

    /// Another node's backend ends all connections of a user.
    pub fn on_terminate(&mut self, app: AppIndex, user_id: &str) {
        self.terminate_local(app, user_id);
    }

    /// So many nodes heard a question, this one among them.
    pub fn on_asked(&mut self, id: u32, heard: u32) {
        self.outbox.answered.push(Answered::Nodes { id, count: heard });
    }

    /// A node's answer to a question.
    pub fn on_node_answer(&mut self, id: u32, answers: Vec<Answer>) {
        self.outbox.answered.push(Answered::Node { id, answers });
    }

    pub(super) fn change_peer(
        &mut self,
        channel: &ChannelKey,
        from: LinkId,
        change: impl FnOnce(&mut Peer),
    ) {
        if !self.has_room_for_peer(channel, from) {
            return;
        }
        let told = self.cluster.told_now(from);
        if let Some(subject) = self.cluster.subjects.get_mut(channel) {
            change(subject.peer(told));
        }
    }

    /// Whether one more part of another node may be kept, if this is one more.
    fn has_room_for_peer(&mut self, channel: &ChannelKey, from: LinkId) -> bool {
        if !self.is_held(channel) || self.cluster.find(channel, from.node).is_some() {
            return true;
        }
        self.take_remote_room(0)
    }

    fn remote_online(&mut self, user: &ChannelKey, from: LinkId, online: bool) {
        let before = self.is_user_online(user);
        self.change_peer(user, from, |peer| peer.online = online);
        self.tell_watchers(user, before);
    }

    fn remote_count(&mut self, channel: &ChannelKey, from: LinkId, count: u32) {
        self.change_peer(channel, from, |peer| peer.count = count);
        if !self.settings.apps.get(channel.app()).counts_subscriptions() {
            return;
        }
        self.home_count_elsewhere(channel, self.cluster.count_elsewhere(channel));
    }

    /// A node's whole part takes the place of what was known of it.
    fn replace_part(&mut self, channel: &ChannelKey, from: LinkId, part: Part) {
        if !self.is_held(channel) || !self.has_room_for_peer(channel, from) {
            return;
        }
        let told = self.cluster.told_now(from);
        self.change_peer(channel, from, |peer| peer.told = told);
        let left: Vec<Box<str>> = {
            let there: HashSet<&str, foldhash::fast::FixedState> =
                part.members.iter().map(|member| &*member.user.text).collect();
            let peer = self.cluster.find(channel, from.node);
            let known = peer.into_iter().flat_map(|peer| &peer.members);
            known.filter(|known| !there.contains(&***known)).cloned().collect()
        };
        let Part { members, lingering, online, occupied, count } = part;
        for user_id in left {
            self.remote_left(channel, from, &user_id);
        }
        for member in members {
            self.remote_joined(channel, from, member, None);
        }
        self.change_peer(channel, from, |peer| peer.occupied = occupied);
        self.replace_lingering(channel, from, lingering);
        self.remote_online(channel, from, online);
        self.remote_count(channel, from, count);
    }

    /// Nodes have not been heard of for a lease.
    pub(super) fn bury(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            self.cluster.dead.push_back(*node);
            if self.cluster.dead.len() > DEAD_MAX {
                self.cluster.dead.pop_front();
            }
            // Each core sees it; the log says it once.
            if self.settings.core == 0 {
                let node = node.0;
                self.outbox.note_line(format!(
                    "node {node:016x} has not been heard for {LEASE_BEATS} s: its clients and presence members were \
                     removed here. The log of that node names its host and process at its start"
                ));
            }
        }
        self.forget_nodes(nodes);
    }

    fn forget_nodes(&mut self, nodes: &[NodeId]) {
        if nodes.is_empty() {
            return;
        }
        let nodes: HashSet<NodeId, foldhash::fast::FixedState> = nodes.iter().copied().collect();
        for node in &nodes {
            self.cluster.nodes.remove(node);
        }
        self.cluster.renewals.retain(|link, _| !nodes.contains(&link.node));
        self.drop_peers(|peer| nodes.contains(&peer.node));
    }

    pub(super) fn drop_peers(&mut self, which: impl Fn(&Peer) -> bool) {
        let subjects = self.cluster.subjects.iter();
        let gone = subjects.flat_map(|(channel, subject)| {
            let gone = subject.peers.iter().filter(|peer| which(peer));
            gone.map(|peer| (channel.clone(), peer.node))
        });
        for (channel, node) in gone.collect::<Vec<_>>() {
            self.drop_peer(&channel, node, true);
        }
    }

    /// What a node had of a channel is gone; `dead`: it could not say so itself.
    fn drop_peer(&mut self, channel: &ChannelKey, node: NodeId, dead: bool) {
        let Some(from) = self.cluster.find(channel, node).map(|peer| peer.told.by) else { return };
        if dead {
            self.tell_edges_of_the_dead(channel, node);
        }
        self.replace_part(channel, from, Part::default());
        if let Some(subject) = self.cluster.subjects.get_mut(channel) {
            if let Some(details) = subject.known() {
                details.peers.retain(|peer| peer.node != node);
            }
            subject.shrink();
        }
    }
}
