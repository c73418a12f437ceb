//! What holds of the cluster side between two calls: see `shard/invariants.rs`. PURE.
//!
//! Owns nothing and changes nothing. Walks over all topics, nodes and leaves, so its cost is that of the whole state.
//! Only tests, the simulator and debug builds call it. Checks that each queue names topics that are there, once, and
//! that sums of bytes are the sums of their parts. Limits: the state that it walks over. Cost: a step for each topic,
//! node and leave.

use hashbrown::HashSet;

use super::{Cluster, NODES_MAX, SWEEPS_MAX};
use crate::shard::channel_key::ChannelKey;
use crate::shard::context::Context;
use crate::shard::home::Home;
use crate::shard::invariants::ensure;
use crate::shard::webhooks::wants_transitions;

impl Cluster {
    pub(in crate::shard) fn check_invariants(
        &self,
        context: &Context,
        home: &Home,
    ) -> Result<(), String> {
        ensure!(self.nodes.len() <= NODES_MAX, "{} nodes", self.nodes.len());
        ensure!(self.sweeps.len() <= SWEEPS_MAX + 1, "{} sweeps", self.sweeps.len());
        let unsent: HashSet<(&ChannelKey, u32)> =
            self.unsent.iter().map(|(channel, ticket)| (channel, *ticket)).collect();
        let idle: HashSet<&ChannelKey> = self.idle.iter().map(|(_, channel)| channel).collect();
        ensure!(idle.len() == self.idle.len(), "a topic is idle twice");
        let waiting: HashSet<(&ChannelKey, u32)> =
            self.waiting.iter().map(|(_, channel, ticket)| (channel, *ticket)).collect();
        let mut unsent_count = 0;
        let mails = self.topics.values().filter_map(|topic| topic.waiting.as_ref());
        let mails: usize = mails.map(|wait| wait.mails.len()).sum();
        ensure!(mails == self.mail_held, "{mails} mails are held, not {}", self.mail_held);
        for (channel, topic) in &self.topics {
            let name = channel.name();
            if let Some(ticket) = topic.unsent {
                unsent_count += 1;
                ensure!(unsent.contains(&(channel, ticket)), "{name}: nobody subscribes to it");
            }
            ensure!(
                topic.idle_since.is_none() || idle.contains(channel),
                "{name}: nobody unsubscribes from it"
            );
            if let Some(wait) = &topic.waiting {
                ensure!(self.is_up, "{name} waits without a session");
                ensure!(wait.replies_missing != 0, "{name} waits for nothing");
                ensure!(waiting.contains(&(channel, wait.ticket)), "{name} waits for ever");
            }
            let unconfirmed = self.transitions.unconfirmed_of(channel);
            ensure!(
                topic.unconfirmed as usize == unconfirmed,
                "{name}: {} transitions, {unconfirmed} unconfirmed",
                topic.unconfirmed
            );
            let nodes: HashSet<_> = topic.peers.iter().map(|peer| peer.node).collect();
            ensure!(nodes.len() == topic.peers.len(), "{name}: a node has two entries");
            ensure!(!nodes.contains(&self.own), "{name}: this node is its own peer");
            let pending = topic.peers.iter().flat_map(|peer| &peer.pending_leaves);
            for who in pending.filter(|who| wants_transitions(context, channel, who.as_deref())) {
                let is_present = topic.is_on_this_node(who) || topic.is_on_other_node(who);
                ensure!(!is_present, "{name}: {who:?} is present and has a pending leave");
            }
        }
        ensure!(
            unsent_count == self.unsent_count,
            "{unsent_count} unsent, not {}",
            self.unsent_count
        );
        self.check_rosters(home)
    }

    /// A member of other nodes is in the roster as often as in their snapshots.
    fn check_rosters(&self, home: &Home) -> Result<(), String> {
        for found in home.channels.iter() {
            let peers = self.topics.get(found.key()).into_iter().flat_map(|topic| &topic.peers);
            for (user_id, member) in found.roster.iter().flat_map(|roster| roster.iter()) {
                let nodes = peers.clone().filter(|peer| peer.members.contains(user_id)).count();
                let name = found.key().name();
                ensure!(
                    member.nodes as usize == nodes,
                    "{name}: {user_id} is on {nodes} other nodes, not {}",
                    member.nodes
                );
            }
        }
        Ok(())
    }

    /// While it does, the home may not agree yet with the connections of its core.
    pub(in crate::shard) fn holds_mail_back(&self, channel: &ChannelKey) -> bool {
        self.topics.get(channel).is_some_and(|topic| topic.waiting.is_some())
    }
}
