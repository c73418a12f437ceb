//! What the apps' backends are told of comings and goings (docs/PROTOCOL.md rules 75 to 77). PURE.
//!
//! An edge is a user's first connection on a node or its last, or a channel's first subscriber there or its last. Nodes
//! say their edges to each other, and Redis puts them in one order: in that order the node whose edge is the cluster's
//! first or last tells the backend, once its edge is confirmed, and no other node does. Without a line a node goes by
//! what it knew last.
//!
//! A backend hears of a leaving only after a while, and not at all if it is undone meanwhile; and whoever comes back
//! may come to another node. So a leaving lingers: for longer than the backend waits, the node that told of it keeps
//! the subject, and all who hold it know. Whoever comes meanwhile is no news to a backend, but for the node that
//! undoes the leaving it has told of.

use std::collections::VecDeque;

use hashbrown::HashSet;

use super::subject::{Peer, Subject};
use super::{Body, Remote, Table, ToCluster};
use crate::app::WebhookKind;
use crate::pusher::webhook_event::Happening;
use crate::shard::Shard;
use crate::shard::channel_key::ChannelKey;
use crate::shard::envelope::{LinkId, NodeId};

/// Whose edge: a user's, or the channel's own.
pub(in crate::shard) type Who = Option<Box<str>>;

/// Of a set of those who are somewhere.
pub(super) type Whose = HashSet<Who, foldhash::fast::FixedState>;

/// How long a leaving of this node lingers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lingering {
    /// In seconds of the shard's clock.
    Until(u32),
    /// That it is over is said and not confirmed.
    Over,
    /// That whoever left has come back here is said and not confirmed.
    Undone,
}

/// What is put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Edge {
    Came,
    Left,
    /// A leaving lingers no more.
    Over,
}

/// Edges under way to Redis, and leavings that linger. Bounds: what is under way, and what leaves while a backend
/// waits.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// Said and not confirmed, in order.
    unconfirmed: VecDeque<(ChannelKey, Who, Edge)>,
    /// This node's.
    lingering: Table<ChannelKey, Table<Who, Lingering>>,
    /// When to look at each; in order, for the time is one for all.
    due: VecDeque<(u32, ChannelKey)>,
}

impl Edges {
    pub(super) fn lingers(&self, channel: &ChannelKey) -> bool {
        self.lingering.contains_key(channel)
    }

    pub(super) fn lingering(&self, channel: &ChannelKey) -> Vec<Who> {
        let those = self.lingering.get(channel);
        those.into_iter().flat_map(|those| those.keys().cloned()).collect()
    }

    fn find(&mut self, channel: &ChannelKey, who: &Who) -> Option<&mut Lingering> {
        self.lingering.get_mut(channel)?.get_mut(who)
    }

    /// Entries: 0 when all is confirmed and over.
    pub(super) fn len(&self) -> usize {
        self.unconfirmed.len() + self.lingering.len()
    }

    /// Ends a leaving; whether it lingered.
    fn end(&mut self, channel: &ChannelKey, who: &Who) -> bool {
        let Some(those) = self.lingering.get_mut(channel) else { return false };
        let lingered = those.remove(who).is_some();
        if those.is_empty() {
            self.lingering.remove(channel);
        }
        lingered
    }
}

impl Peer {
    fn has(&self, who: &Who) -> bool {
        match who {
            None => self.occupied,
            Some(user_id) => self.members.contains(user_id),
        }
    }
}

impl Subject {
    /// Whether somebody is on this node, in Redis's order.
    fn is_said(&self, who: &Who) -> bool {
        self.said.contains(who)
    }

    fn is_elsewhere(&self, who: &Who) -> bool {
        self.peers.iter().any(|peer| peer.has(who))
    }

    /// Nobody waits for whoever left any more, which holds while they are anywhere; whether somebody did.
    fn end_lingering(&mut self, who: &Who) -> bool {
        let peers = self.known().into_iter().flat_map(|details| &mut details.peers);
        let ended = peers.map(|peer| peer.lingering.remove(who));
        ended.filter(|ended| *ended).count() > 0
    }
}

impl Shard {
    /// Whether some backend wants to hear of such edges.
    pub(super) fn tells_edges(&self, channel: &ChannelKey, who: &Who) -> bool {
        let kind = match who {
            None => WebhookKind::ChannelOccupied,
            Some(_) => WebhookKind::MemberAdded,
        };
        self.settings.apps.get(channel.app()).wants_webhook(kind, channel.name())
    }

    /// An edge of this node. `body` says it to the others.
    pub(in crate::shard) fn edge(
        &mut self,
        channel: &ChannelKey,
        who: Who,
        edge: Edge,
        body: impl FnOnce() -> Body,
    ) {
        let tells = self.tells_edges(channel, &who);
        if self.cluster.is_up && (tells || who.is_some()) {
            let (channel, body) = (channel.clone(), body());
            self.outbox.cluster.push(ToCluster::Tell { channel, body, is_edge: tells });
        }
        if !tells {
            return;
        }
        match self.cluster.subjects.get_mut(channel).filter(|_| self.cluster.is_up) {
            Some(subject) => {
                subject.details().unconfirmed += 1;
                if let (Edge::Came, Some(found @ Lingering::Until(_))) =
                    (edge, self.cluster.edges.find(channel, &who))
                {
                    *found = Lingering::Undone;
                }
                self.cluster.edges.unconfirmed.push_back((channel.clone(), who, edge));
            }
            None => self.confirm_edge(channel, who, edge),
        }
    }

    /// Redis has put the oldest edge that was not confirmed into its order.
    pub fn on_edge_said(&mut self) {
        let Some((channel, who, edge)) = self.cluster.edges.unconfirmed.pop_front() else { return };
        if let Some(details) = self.cluster.details(&channel) {
            details.unconfirmed -= 1;
        }
        self.confirm_edge(&channel, who, edge);
        self.let_go_if_unused(&channel);
    }

    /// The line is down, and with it all order.
    pub(super) fn confirm_all_edges(&mut self) {
        while !self.cluster.edges.unconfirmed.is_empty() {
            self.on_edge_said();
        }
    }

    fn confirm_edge(&mut self, channel: &ChannelKey, who: Who, edge: Edge) {
        if edge == Edge::Over {
            if self.cluster.edges.find(channel, &who) == Some(&mut Lingering::Over) {
                self.cluster.edges.end(channel, &who);
            }
            return;
        }
        let came = edge == Edge::Came;
        let mut is_news = true;
        if let Some(subject) = self.cluster.subjects.get_mut(channel) {
            is_news = !subject.is_elsewhere(&who);
            if came {
                subject.details().said.insert(who.clone());
                // The node where it lingers undoes it.
                is_news &= !subject.end_lingering(&who);
            } else if let Some(details) = subject.known() {
                details.said.remove(&who);
            }
        }
        // If it lingers here, this undoes it in the same way as it tells it.
        self.cluster.edges.end(channel, &who);
        if !is_news {
            return;
        }
        self.tell_edge(channel, &who, came);
        if !came {
            self.linger(channel, who);
        }
    }

    /// An edge of another node comes in Redis's order, before it is taken in.
    pub(super) fn before_remote_edge(&mut self, channel: &ChannelKey, who: &Who) {
        if !self.tells_edges(channel, who) {
            return;
        }
        let Some(subject) = self.cluster.subjects.get_mut(channel) else { return };
        subject.note_heard(None, who);
        if subject.is_said(who) || subject.is_elsewhere(who) {
            return;
        }
        subject.end_lingering(who);
        if self.cluster.edges.end(channel, who) {
            self.tell_edge(channel, who, true);
            self.let_go_if_unused(channel);
        }
    }

    /// The other way round, after it was taken in: somebody has left `from`.
    pub(super) fn after_remote_leaving(&mut self, channel: &ChannelKey, from: LinkId, who: Who) {
        if !self.tells_edges(channel, &who) || self.settings.webhook_linger_seconds == 0 {
            return;
        }
        let told = self.cluster.told_now(from);
        let Some(subject) = self.cluster.subjects.get_mut(channel) else { return };
        subject.note_heard(None, &who);
        // They were there until now.
        subject.end_lingering(&who);
        if subject.is_said(&who) || subject.is_elsewhere(&who) {
            return;
        }
        if self.take_remote_room(who.as_ref().map_or(0, |id| id.len()))
            && let Some(subject) = self.cluster.subjects.get_mut(channel)
        {
            subject.peer(told).lingering.insert(who);
        }
    }

    /// Whoever left `from` lingers there no more.
    pub(super) fn remote_lingering_over(&mut self, channel: &ChannelKey, from: LinkId, who: &Who) {
        let told = self.cluster.told_now(from);
        let Some(subject) = self.cluster.subjects.get_mut(channel) else { return };
        subject.note_heard(Some(from.node), who);
        subject.peer(told).lingering.remove(who);
    }

    /// What lingers on a node by its part. Nobody does who is somewhere.
    pub(super) fn replace_lingering(
        &mut self,
        channel: &ChannelKey,
        from: LinkId,
        lingering: Vec<Who>,
    ) {
        let bytes =
            lingering.iter().map(|who| Remote::ENTRY_BYTES + who.as_ref().map_or(0, |id| id.len()));
        if !lingering.is_empty() && !self.take_remote_room(bytes.sum()) {
            return;
        }
        let told = self.cluster.told_now(from);
        let Some(subject) = self.cluster.subjects.get_mut(channel) else { return };
        let known = subject.find(from.node);
        let known = known.into_iter().flat_map(|peer| &peer.lingering);
        let known: Vec<Who> =
            known.filter(|who| subject.was_heard(from.node, who)).cloned().collect();
        let told_of = lingering.into_iter().filter(|who| !subject.was_heard(from.node, who));
        let lingering = told_of.chain(known).collect();
        subject.peer(told).lingering = lingering;
        let all = subject.peers.iter().flat_map(|peer| &peer.lingering);
        let there = all.filter(|who| subject.is_said(who) || subject.is_elsewhere(who));
        for who in there.cloned().collect::<Vec<Who>>() {
            subject.end_lingering(&who);
        }
    }

    /// A node is gone without a word. Of those who hold the subject, the one with the lowest id tells the backend.
    pub(super) fn tell_edges_of_the_dead(&mut self, channel: &ChannelKey, node: NodeId) {
        let Some(subject) = self.cluster.subjects.get(channel) else { return };
        let (dead, others): (Vec<&Peer>, Vec<&Peer>) =
            subject.peers.iter().partition(|peer| peer.node == node);
        let lowest = others.iter().map(|peer| peer.node).min();
        if lowest.is_some_and(|lowest| Some(lowest) < self.cluster.own) {
            return;
        }
        let members = dead.iter().flat_map(|peer| peer.members.iter().cloned().map(Some));
        let channels = dead.iter().filter(|peer| peer.occupied).map(|_| None);
        let is_here = |who: &Who| subject.is_said(who) || others.iter().any(|peer| peer.has(who));
        let gone: Vec<Who> = members.chain(channels).filter(|who| !is_here(who)).collect();
        for who in gone {
            if self.tells_edges(channel, &who) {
                self.tell_edge(channel, &who, false);
                self.linger(channel, who);
            }
        }
    }

    fn tell_edge(&mut self, channel: &ChannelKey, who: &Who, came: bool) {
        let user_id = who.clone().unwrap_or_default();
        let (kind, what) = match (who, came) {
            (None, true) => (WebhookKind::ChannelOccupied, Happening::Occupied),
            (None, false) => (WebhookKind::ChannelVacated, Happening::Vacated),
            (Some(_), true) => (WebhookKind::MemberAdded, Happening::MemberAdded { user_id }),
            (Some(_), false) => (WebhookKind::MemberRemoved, Happening::MemberRemoved { user_id }),
        };
        self.tell_backend(channel, kind, || what);
    }

    fn linger(&mut self, channel: &ChannelKey, who: Who) {
        let seconds = self.settings.webhook_linger_seconds;
        if !self.cluster.is_on() || seconds == 0 {
            return;
        }
        let until = self.now.seconds() + seconds;
        let edges = &mut self.cluster.edges;
        let those = edges.lingering.entry(channel.clone()).or_default();
        those.insert(who, Lingering::Until(until));
        edges.due.push_back((until, channel.clone()));
    }

    /// A second has passed.
    pub(super) fn end_lingering(&mut self) {
        let now = self.now.seconds();
        while let Some((until, channel)) = self.cluster.edges.due.front()
            && *until <= now
        {
            let channel = channel.clone();
            self.cluster.edges.due.pop_front();
            let Some(those) = self.cluster.edges.lingering.get_mut(&channel) else { continue };
            // It is over once Redis has put that in order: whoever comes before that undoes it.
            let over = those
                .iter_mut()
                .filter(|(_, found)| matches!(found, Lingering::Until(until) if *until <= now));
            let over: Vec<Who> = over
                .map(|(who, found)| {
                    *found = Lingering::Over;
                    who.clone()
                })
                .collect();
            for who in over {
                self.edge(&channel, who.clone(), Edge::Over, || Body::Lingered { who });
            }
            self.let_go_if_unused(&channel);
        }
    }
}
