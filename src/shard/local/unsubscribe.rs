//! How a connection leaves a channel: what it withdraws here, and what the home is sent. PURE.
//!
//! Owns the one way out of a channel, `end_subscription_at`: a connection leaves by a request of its client, by a
//! command of the backend (`access.rs`), or because it ends. Never answers the client. When the last subscriber of this
//! core has left, the home is sent a `Disinterest`. A subscription that the home has not answered leaves at once here,
//! and a late answer finds no subscription with its ticket. In a cluster the home is asked to withdraw it, because its
//! answer may wait for Redis.
//!
//! Limit: none of its own; a connection has so many subscriptions as it has room for (`memory.rs`). Cost: a few steps
//! for each channel, no allocation, and a mail where the home must know.

use super::Local;
use super::connection::{ConnectionKey, SubscriptionState};
use crate::pusher::channel_name::Access;
use crate::pusher::inbound::UserId;
use crate::shard::context::Context;
use crate::shard::mail::Mail;
use crate::shard::outbox::{Observation, Outbox};
use crate::shard::slots::ChannelSlot;
use crate::slot::Slot;

impl Local {
    /// No answer, no error when there was no subscription (docs/PROTOCOL.md rule 30).
    pub(super) fn on_unsubscribe(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        name: &str,
    ) {
        debug_assert!(self.get(key).is_some(), "the slot is that of the key");
        let app = self.connections[key.slot].app;
        debug_assert!(!self.connections[key.slot].is_closing, "its subscriptions have ended");
        let hash = context.keys.hash(app, name);
        let Some(index) = self.channels.find(hash, app, name) else { return };
        if let Some(at) = self.subscription_index(key.slot, index) {
            let local = &self.channels[index];
            if local.subscribers.len() <= 1 {
                let channel = local.key.clone();
                self.note_channel_change(context, key, &channel);
            }
            self.end_subscription_at(context, out, key.slot, at);
        }
    }

    /// Both ends of a subscription name each other's place (`channel_table.rs`), so the last entry of a list that fills
    /// the gap is given its new position.
    pub(super) fn end_subscription_at(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        at: usize,
    ) {
        let connection = &mut self.connections[slot];
        let Some(left) = connection.remove_subscription(at) else { return };
        if let Some(moved) = connection.subscriptions.get(at)
            && let SubscriptionState::Active { position, .. } = moved.state
        {
            let subscribers = &mut self.channels[moved.channel].subscribers;
            debug_assert_eq!(
                subscribers[position as usize].slot, slot,
                "its own place in the channel"
            );
            subscribers[position as usize].subscription_index =
                u32::try_from(at).unwrap_or(u32::MAX);
        }
        debug_assert!(
            self.connections[slot].position_of(left.channel).is_none(),
            "a channel is in the list once"
        );
        self.discharge(slot, left.charge);
        debug_assert!(
            self.channels.get(left.channel).is_some(),
            "a channel stays while it has subscribers or requests"
        );
        if let SubscriptionState::Active { position, .. } = left.state {
            self.observe_leave(out, slot, left.channel);
            self.remove_subscriber(context, left.channel, position as usize);
        }
        // A pending member leaves when the answer comes: only then is it known whether the home has counted them. The
        // answer may depend on Redis, which need not be asked any longer.
        let is_asked = context.is_clustered() && self.channels[left.channel].pending_requests > 0;
        if let (SubscriptionState::Pending { ticket }, true) = (left.state, is_asked) {
            return self.withdraw_pending(context, out, slot, left.channel, ticket);
        }
        if let (Some(member), SubscriptionState::Active { .. }) = (left.member, left.state) {
            self.send_leave(context, out, left.channel, *member);
        }
        self.drop_if_unused(context, out, left.channel);
    }

    fn observe_leave(&self, out: &mut Outbox, slot: Slot, index: ChannelSlot) {
        out.observe(|| {
            let connection = &self.connections[slot];
            let (app, socket_id) = (connection.app, connection.socket_id);
            let channel = self.channels[index].key.shared_name();
            Observation::Unsubscribed { app, socket_id, channel }
        });
    }

    /// `pending_requests` keeps the channel until the home has answered.
    fn withdraw_pending(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        index: ChannelSlot,
        ticket: u32,
    ) {
        debug_assert!(context.is_clustered(), "a home of a single node answers at once");
        debug_assert!(self.channels[index].pending_requests > 0, "its request is unanswered");
        let channel = self.channels[index].key.clone();
        let generation = self.connections[slot].generation;
        let (connection, core) = (ConnectionKey { slot, generation }, context.core());
        let home = context.keys.home(&channel);
        out.send_to_home(home, Mail::Withdraw { channel, connection, ticket, core });
    }

    fn remove_subscriber(&mut self, context: &Context, index: ChannelSlot, position: usize) {
        let (metrics, kind) = self.subscription_metrics(index);
        metrics.unsubscriptions[kind].add(1);
        metrics.subscribers[kind].sub(1);
        let subscribers = &mut self.channels[index].subscribers;
        debug_assert!(position < subscribers.len(), "an acknowledged subscriber has a position");
        subscribers.swap_remove(position);
        if let Some(moved) = subscribers.get(position).copied() {
            let owner = &mut self.connections[moved.slot];
            let moved = &mut owner.subscriptions[moved.subscription_index as usize];
            debug_assert_eq!(moved.channel, index, "a subscriber names its own subscription");
            let state = &mut moved.state;
            if let SubscriptionState::Active { position: at, .. } = state {
                *at = u32::try_from(position).unwrap_or(u32::MAX);
            }
        }
        self.note_count(context, index);
    }

    pub(super) fn send_leave(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        index: ChannelSlot,
        member: UserId,
    ) {
        let channel = self.channels[index].key.clone();
        debug_assert_eq!(channel.kind.access, Access::Presence, "only these have members");
        debug_assert!(
            self.channels[index].is_active || self.channels[index].pending_requests > 0,
            "the home knows of this core"
        );
        let home = context.keys.home(&channel);
        out.send_to_home(home, Mail::Leave { channel, user_id: member.text });
    }

    /// Call it after each removal of a subscriber or of a pending request. The home is sent a `Disinterest` if it knows
    /// of this core's interest.
    pub(super) fn drop_if_unused(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        index: ChannelSlot,
    ) {
        let local = &self.channels[index];
        if !local.subscribers.is_empty() || local.pending_requests > 0 {
            return;
        }
        let was_active = local.is_active;
        let channel = self.channels.remove(index).key;
        debug_assert!(self.channels.find_key(&channel).is_none(), "a channel is in the table once");
        let home = context.keys.home(&channel);
        // The home knows of an interest only by a request that it granted.
        if was_active {
            let core = context.core();
            out.send_to_home(home, Mail::Disinterest { channel, core });
        }
    }
}
