//! Which node sends the webhook of a first join or last leave (docs/PROTOCOL.md rules 75 to 77; the five rules are on
//! `Transitions`). PURE.
//!
//! Owns the transitions of this node that have no place in Redis's order yet, and its pending leaves. Does not change
//! rosters, and does not deliver webhooks: `webhook::gate` gets them from the outbox. Inputs: transitions of the home
//! and of other nodes, confirmations of Redis, time. Outputs: `ToCluster::Send`, webhooks. Limits:
//! `limits::CLUSTER_EFFECTS_MAX` transitions that Redis has not confirmed, and as many pending leaves; both are
//! counted. Clients that cause many have to wait before that (`local/pace.rs`). Cost: one look-up for each transition,
//! and one entry for each leave that is pending; the end of leaves is linear in the entries that are due.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use hashbrown::HashSet;

use super::here::{FastMap, Here};
use super::remote_memory::RemoteMemory;
use super::topic_state::PeerSnapshot;
use super::{Cluster, ToCluster};
use crate::limits;
use crate::shard::channel_key::ChannelKey;
use crate::shard::node_message::{ChannelMessage, NodeId, SessionId};
use crate::shard::webhooks::{Transitioner, wants_transitions};

/// A leave that this node has sent to a backend and that a join on any node may still cancel (rule 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PendingLeave {
    /// Until this second of the shard's clock.
    Until(u32),
    /// Its time is over. That is published and Redis has not ordered it.
    Ending,
    /// They came back here. That is published and Redis has not ordered it.
    Canceling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    Join,
    Leave,
    /// The end of a pending leave (rule 4).
    Final,
}

/// A transition is a user's first connection on a node or their last, or a channel's first subscriber there or its
/// last. A backend wants those of the whole cluster, and each once. The rules:
///
/// 1. **Order.** Each node publishes its transitions on the channel's topic, and every node receives those of all in
///    the one order that Redis gives them. The reply to our own PUBLISH shows when ours has its place in that order
///    (`on_transition_ordered`). Only then do we compare it with what other nodes have.
/// 2. **One sender.** The node whose transition is the first join, or the last leave, in that order sends the webhook.
///    While the session is down there is no order, and a node decides by what it knew last.
/// 3. **Pending leaves.** `webhook::gate` holds a leave back for a while, and drops it together with a join that
///    follows. But a user may come back to another node. So the node that sent a leave keeps a *pending leave* a
///    little longer than that, and the other nodes know of it (`PeerSnapshot::pending_leaves`). If the user rejoins on
///    any node during that time, the node with the pending leave passes a join to its own gate. The gate drops leave
///    and join, so the backend receives nothing.
/// 4. **End of a pending leave.** Its end is published, too, and takes effect when Redis has ordered it: nodes agree on
///    whether a user came back before or after.
/// 5. **Dead nodes.** Of the nodes that have the topic, the one with the lowest id sends the leaves of a dead node.
///
/// Over the limit of unconfirmed transitions all are decided as without a session, and the session begins again. A
/// leave over the limit of pending ones is final at once, so a rejoin does not cancel it.
#[derive(Debug, Default)]
pub(in crate::shard) struct Transitions {
    /// Published and not confirmed, oldest first.
    unconfirmed: VecDeque<(ChannelKey, Transitioner, Transition)>,
    pending_leaves: FastMap<ChannelKey, FastMap<Transitioner, PendingLeave>>,
    /// Deadlines, oldest first: all pending leaves last equally long, so new ones go to the end.
    due: VecDeque<(u32, ChannelKey)>,
    unconfirmed_high_water: usize,
    /// Of `due`.
    pending_high_water: usize,
    /// How many transitions or leaves were over their limit.
    unordered: u64,
}

/// How many wait in `Transitions`, for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransitionCounts {
    pub unconfirmed: usize,
    pub unconfirmed_high_water: usize,
    /// With those that were canceled and whose deadline is to come.
    pub pending_leaves: usize,
    pub pending_leaves_high_water: usize,
    /// Transitions that found no room: their webhooks were decided without the order of Redis, or without a time in
    /// which a rejoin cancels a leave.
    pub unordered: u64,
}

impl Transitions {
    pub(super) fn has_pending_leaves(&self, channel: &ChannelKey) -> bool {
        debug_assert!(
            self.pending_leaves.get(channel).is_none_or(|those| !those.is_empty()),
            "an entry has leaves"
        );
        self.pending_leaves.contains_key(channel)
    }

    /// For the snapshot that other nodes get, in no order.
    pub(super) fn pending_leaves(&self, channel: &ChannelKey) -> Vec<Transitioner> {
        let those = self.pending_leaves.get(channel);
        those.into_iter().flat_map(|those| those.keys().cloned()).collect()
    }

    fn find_pending_leave(
        &mut self,
        channel: &ChannelKey,
        who: &Transitioner,
    ) -> Option<&mut PendingLeave> {
        self.pending_leaves.get_mut(channel)?.get_mut(who)
    }

    /// Entries: 0 when all is confirmed and over.
    pub(super) fn len(&self) -> usize {
        self.unconfirmed.len() + self.pending_leaves.len()
    }

    /// A walk over all of them, for `check_invariants`.
    pub(super) fn unconfirmed_of(&self, channel: &ChannelKey) -> usize {
        self.unconfirmed.iter().filter(|(of, ..)| of == channel).count()
    }

    pub(in crate::shard) fn counts(&self) -> TransitionCounts {
        debug_assert!(self.unconfirmed_high_water >= self.unconfirmed.len(), "a maximum");
        debug_assert!(self.pending_high_water >= self.due.len(), "a maximum");
        TransitionCounts {
            unconfirmed: self.unconfirmed.len(),
            unconfirmed_high_water: self.unconfirmed_high_water,
            pending_leaves: self.due.len(),
            pending_leaves_high_water: self.pending_high_water,
            unordered: self.unordered,
        }
    }

    fn push_unconfirmed(&mut self, channel: ChannelKey, who: Transitioner, transition: Transition) {
        debug_assert!(self.unconfirmed.len() < limits::CLUSTER_EFFECTS_MAX, "there is room");
        self.unconfirmed.push_back((channel, who, transition));
        self.unconfirmed_high_water = self.unconfirmed_high_water.max(self.unconfirmed.len());
    }

    /// Returns whether there was one. Its entry in `due` stays until its time.
    fn end_pending_leave(&mut self, channel: &ChannelKey, who: &Transitioner) -> bool {
        let Some(those) = self.pending_leaves.get_mut(channel) else { return false };
        let was_pending = those.remove(who).is_some();
        if those.is_empty() {
            self.pending_leaves.remove(channel);
        }
        debug_assert!(self.find_pending_leave(channel, who).is_none(), "it is pending no longer");
        was_pending
    }
}

impl Cluster {
    /// Publishes a transition of this node. It takes effect when Redis has ordered it, or at once without a session.
    pub(super) fn publish_transition(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        who: Transitioner,
        transition: Transition,
        message: ChannelMessage,
    ) {
        debug_assert_eq!(
            here.context.keys.home(channel),
            here.context.core(),
            "this core is its home"
        );
        let is_wanted = wants_transitions(here.context, channel, who.as_deref());
        let is_final = transition == Transition::Final;
        // Rosters of other nodes need the members even if no backend wants to know of them. They have noted the leave
        // as pending here, so they need its end even if the app has ceased to want webhooks since.
        if self.is_up && (is_wanted || who.is_some() || is_final) {
            let channel = channel.clone();
            here.out.cluster.push(ToCluster::Send { channel, message, is_transition: is_wanted });
        }
        if !is_wanted {
            if is_final {
                // Otherwise the topic would stay subscribed for a leave that never ends.
                self.transitions.end_pending_leave(channel, &who);
            }
            return;
        }
        let is_full = self.transitions.unconfirmed.len() >= limits::CLUSTER_EFFECTS_MAX;
        // Without a session others may be in flight: those that `on_down` is about to decide. It adds none.
        if is_full {
            self.transitions.unordered += 1;
            here.out.cluster.request_restart();
            self.confirm_all_transitions(here);
        }
        match self.topics.get_mut(channel).filter(|_| self.is_up && !is_full) {
            Some(topic) => {
                topic.details().unconfirmed += 1;
                if let (Transition::Join, Some(found @ PendingLeave::Until(_))) =
                    (transition, self.transitions.find_pending_leave(channel, &who))
                {
                    *found = PendingLeave::Canceling;
                }
                self.transitions.push_unconfirmed(channel.clone(), who, transition);
            }
            None => self.apply_in_order(here, channel, who, transition),
        }
    }

    /// Redis has ordered the oldest transition that was not confirmed.
    pub(super) fn on_transition_ordered(&mut self, here: &mut Here<'_>) {
        let Some((channel, who, transition)) = self.transitions.unconfirmed.pop_front() else {
            return;
        };
        if let Some(details) = self.details(&channel) {
            debug_assert!(details.unconfirmed > 0, "`publish_transition` has counted it");
            details.unconfirmed -= 1;
        }
        self.apply_in_order(here, &channel, who, transition);
        self.release_if_unneeded(here, &channel);
    }

    /// Decides all by what this node knew last (rule 2), because no confirmation will come.
    pub(super) fn confirm_all_transitions(&mut self, here: &mut Here<'_>) {
        while !self.transitions.unconfirmed.is_empty() {
            self.on_transition_ordered(here);
        }
        debug_assert!(
            self.topics.len() > limits::ASSERTED_LEN_MAX
                || self.topics.values().all(|topic| topic.unconfirmed == 0),
            "none is left"
        );
    }

    /// Our own transition has its place in the order: everything received so far comes before it.
    fn apply_in_order(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        who: Transitioner,
        transition: Transition,
    ) {
        debug_assert_eq!(
            here.context.keys.home(channel),
            here.context.core(),
            "this core is its home"
        );
        if transition == Transition::Final {
            // A join that was ordered before has removed it already.
            if self.transitions.find_pending_leave(channel, &who) == Some(&mut PendingLeave::Ending)
            {
                self.transitions.end_pending_leave(channel, &who);
            }
            return;
        }
        let joined = transition == Transition::Join;
        let mut is_clusters_first_or_last = true;
        if let Some(topic) = self.topics.get_mut(channel) {
            is_clusters_first_or_last = !topic.is_on_other_node(&who);
            if joined {
                topic.details().ordered_here.insert(who.clone());
                // If the leave is pending on another node, that node sends the join (rule 3).
                is_clusters_first_or_last &= !topic.end_remote_pending_leaves(&who);
            } else if let Some(details) = topic.details_if_any() {
                details.ordered_here.remove(&who);
            }
        }
        // If the leave was pending here, the webhook below cancels it like any other.
        self.transitions.end_pending_leave(channel, &who);
        debug_assert!(
            self.transitions.find_pending_leave(channel, &who).is_none(),
            "it was ended, or there was none"
        );
        if !is_clusters_first_or_last {
            return;
        }
        here.out.send_transition(here.context, channel, who.as_deref(), joined);
        if !joined {
            self.begin_pending_leave(here, channel, who);
        }
    }

    /// Another node's join is received in order, before its snapshot is changed by it.
    pub(super) fn before_remote_join(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        who: &Transitioner,
    ) {
        if !wants_transitions(here.context, channel, who.as_deref()) {
            return;
        }
        let Some(topic) = self.topics.get_mut(channel) else { return };
        topic.note_ordered(None, who);
        if topic.is_on_this_node(who) || topic.is_on_other_node(who) {
            return;
        }
        topic.end_remote_pending_leaves(who);
        // The leave was sent by this node, so this node sends the join that cancels it (rule 3).
        if self.transitions.end_pending_leave(channel, who) {
            here.out.send_transition(here.context, channel, who.as_deref(), true);
            self.release_if_unneeded(here, channel);
        }
    }

    /// Another node's leave is received in order, after its snapshot was changed by it.
    pub(super) fn after_remote_leave(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        from: SessionId,
        who: Transitioner,
    ) {
        if !wants_transitions(here.context, channel, who.as_deref())
            || here.context.settings.pending_leave_seconds == 0
        {
            return;
        }
        let received_at = self.received_now(from);
        let Some(topic) = self.topics.get_mut(channel) else { return };
        topic.note_ordered(None, &who);
        // They were present until now, so no earlier leave of theirs is pending.
        topic.end_remote_pending_leaves(&who);
        if topic.is_on_this_node(&who) || topic.is_on_other_node(&who) {
            return;
        }
        let has_room = self.try_reserve(here, who.as_ref().map_or(0, |id| id.len()));
        if let Some(topic) = self.topics.get_mut(channel).filter(|_| has_room) {
            topic.peer(received_at).pending_leaves.insert(who);
            debug_assert!(
                topic.find_peer(from.node).is_some_and(|peer| !peer.pending_leaves.is_empty()),
                "a rejoin on any node cancels it"
            );
        }
    }

    /// Rule 4: the end of another node's pending leave is received in order.
    pub(super) fn on_remote_leave_final(
        &mut self,
        channel: &ChannelKey,
        from: SessionId,
        who: &Transitioner,
    ) {
        let received_at = self.received_now(from);
        let Some(topic) = self.topics.get_mut(channel) else { return };
        topic.note_ordered(Some(from.node), who);
        topic.peer(received_at).pending_leaves.remove(who);
        debug_assert!(from.node != self.own, "this node ends its own pending leaves by itself");
    }

    /// A snapshot lists the pending leaves of its node. It overrides nothing that was received in order during the wait
    /// for it. No user who is present has a pending leave.
    pub(super) fn replace_pending_leaves(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        from: SessionId,
        pending_leaves: Vec<Transitioner>,
    ) {
        let bytes = pending_leaves
            .iter()
            .map(|who| RemoteMemory::ENTRY_BYTES + who.as_ref().map_or(0, |id| id.len()));
        if !pending_leaves.is_empty() && !self.try_reserve(here, bytes.sum()) {
            return;
        }
        let received_at = self.received_now(from);
        let Some(topic) = self.topics.get_mut(channel) else { return };
        let known = topic.find_peer(from.node).into_iter().flat_map(|peer| &peer.pending_leaves);
        let kept: Vec<Transitioner> =
            known.filter(|who| topic.was_ordered(from.node, who)).cloned().collect();
        let listed = pending_leaves.into_iter().filter(|who| !topic.was_ordered(from.node, who));
        let pending_leaves = listed.chain(kept).collect();
        topic.peer(received_at).pending_leaves = pending_leaves;
        topic.end_pending_leaves_of_present();
        let listed = || topic.peers.iter().flat_map(|peer| &peer.pending_leaves);
        debug_assert!(
            listed().count() > limits::ASSERTED_LEN_MAX
                || listed().all(|who| !topic.is_on_this_node(who) && !topic.is_on_other_node(who)),
            "no user who is present has a pending leave"
        );
    }

    /// A node is dead. Of the other nodes with the topic, the one with the lowest id sends the leaves (rule 5).
    pub(super) fn announce_leaves_of_dead_node(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        node: NodeId,
    ) {
        debug_assert_eq!(
            here.context.keys.home(channel),
            here.context.core(),
            "this core is its home"
        );
        let Some(topic) = self.topics.get(channel) else { return };
        let (dead, others): (Vec<&PeerSnapshot>, Vec<&PeerSnapshot>) =
            topic.peers.iter().partition(|peer| peer.node == node);
        let lowest = others.iter().map(|peer| peer.node).min();
        debug_assert!(lowest != Some(self.own), "this node is not its own peer");
        if lowest.is_some_and(|lowest| lowest < self.own) {
            return;
        }
        let members = dead.iter().flat_map(|peer| peer.members.iter().cloned().map(Some));
        let channels = dead.iter().filter(|peer| peer.occupied).map(|_| None);
        let is_present = |who: &Transitioner| {
            topic.is_on_this_node(who) || others.iter().any(|peer| peer.has(who))
        };
        let gone: Vec<Transitioner> =
            members.chain(channels).filter(|who| !is_present(who)).collect();
        for who in gone {
            if wants_transitions(here.context, channel, who.as_deref()) {
                here.out.send_transition(here.context, channel, who.as_deref(), false);
                self.begin_pending_leave(here, channel, who);
            }
        }
    }

    fn begin_pending_leave(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        who: Transitioner,
    ) {
        debug_assert_eq!(
            here.context.keys.home(channel),
            here.context.core(),
            "this core is its home"
        );
        let seconds = here.context.settings.pending_leave_seconds;
        if seconds == 0 {
            return;
        }
        if self.transitions.due.len() >= limits::CLUSTER_EFFECTS_MAX {
            self.transitions.unordered += 1;
            // The other nodes have noted the leave as pending here.
            let message = ChannelMessage::LeaveFinal { who: who.clone() };
            return self.publish_transition(here, channel, who, Transition::Final, message);
        }
        let until = here.context.now_seconds + seconds;
        let last = self.transitions.due.back().map(|(until, _)| *until);
        debug_assert!(last.is_none_or(|last| last <= until), "all last equally long");
        let those = self.transitions.pending_leaves.entry(channel.clone()).or_default();
        those.insert(who, PendingLeave::Until(until));
        debug_assert!(!those.is_empty(), "the topic stays until it ends");
        self.transitions.due.push_back((until, channel.clone()));
        let waiting = self.transitions.due.len();
        self.transitions.pending_high_water = self.transitions.pending_high_water.max(waiting);
        debug_assert!(waiting <= limits::CLUSTER_EFFECTS_MAX, "one more was final at once");
    }

    /// A second has passed: publishes the end of the pending leaves whose time is over.
    pub(super) fn end_due_pending_leaves(&mut self, here: &mut Here<'_>) {
        debug_assert!(
            self.transitions.due.len() > limits::ASSERTED_LEN_MAX
                || self.transitions.due.iter().is_sorted_by_key(|(until, _)| *until),
            "all last equally long, so the oldest end first"
        );
        let now = here.context.now_seconds;
        // The first entry of a channel ends all of its leaves whose time is over, so the work is linear.
        let mut looked_at: HashSet<ChannelKey, foldhash::fast::FixedState> = HashSet::default();
        while let Some((_, channel)) = self.transitions.due.pop_front_if(|(until, _)| *until <= now)
        {
            if !looked_at.insert(channel.clone()) {
                continue;
            }
            let Some(those) = self.transitions.pending_leaves.get_mut(&channel) else { continue };
            let is_due =
                |found: &PendingLeave| matches!(found, PendingLeave::Until(at) if *at <= now);
            let mut over = Vec::new();
            for (who, found) in those.iter_mut().filter(|(_, found)| is_due(found)) {
                *found = PendingLeave::Ending;
                over.push(who.clone());
            }
            for who in over {
                let message = ChannelMessage::LeaveFinal { who: who.clone() };
                self.publish_transition(here, &channel, who, Transition::Final, message);
            }
            self.release_if_unneeded(here, &channel);
        }
        debug_assert!(
            self.transitions.due.front().is_none_or(|(until, _)| *until > now),
            "the time of the others is not over"
        );
    }
}
