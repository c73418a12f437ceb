//! How many connections of this core subscribe to a channel, for apps that want to know (docs/PROTOCOL.md C24). PURE.
//!
//! Owns the list of channels whose number has changed. A core sends its own number to the channel's home when it has
//! changed, at most once a tick. Numbers are absolute, so that none can drift. Does not add up: `home/count.rs` does.
//!
//! Limits: a channel is noted once in a tick. Cost: one step for each change, and one mail for each changed channel in
//! a tick.

use super::Local;
use crate::app::AppIndex;
use crate::pusher::channel_name::Access;
use crate::shard::context::Context;
use crate::shard::mail::Mail;
use crate::shard::outbox::Outbox;
use crate::shard::slots::ChannelSlot;

impl Local {
    /// Call it after each change of a channel's subscribers. Presence channels have no number: they have members.
    pub(super) fn note_count(&mut self, context: &Context, index: ChannelSlot) {
        debug_assert!(self.channels.get(index).is_some(), "a channel that is there");
        let local = &self.channels[index];
        let counts = context.app(local.key.app()).counts_subscriptions();
        if counts && local.key.kind.access != Access::Presence && !local.count_changed {
            self.channels[index].count_changed = true;
            self.counts_changed.push(index);
        }
        debug_assert!(
            !self.channels[index].count_changed
                || self.counts_changed.len() > crate::limits::ASSERTED_LEN_MAX
                || self.counts_changed.contains(&index),
            "`settle_counts` finds what has changed"
        );
    }

    /// For an app that wants numbers from now on: the homes have none yet.
    pub(in crate::shard) fn recount(&mut self, context: &Context, app: AppIndex) {
        debug_assert!(context.app(app).counts_subscriptions(), "the app wants numbers");
        let indexes: Vec<ChannelSlot> = self
            .channels
            .entries()
            .filter(|(_, local)| local.key.app() == app && !local.subscribers.is_empty())
            .map(|(index, _)| index)
            .collect();
        indexes.into_iter().for_each(|index| self.note_count(context, index));
    }

    /// One mail for each channel whose number has changed since the last call.
    pub(super) fn settle_counts(&mut self, context: &Context, out: &mut Outbox) {
        let core = context.core();
        while let Some(index) = self.counts_changed.pop() {
            // Of a channel that is gone the home was sent `Disinterest`; its index may be another's by now.
            let Some(local) = self.channels.get_mut(index).filter(|local| local.count_changed)
            else {
                continue;
            };
            local.count_changed = false;
            debug_assert!(
                local.key.kind.access != Access::Presence,
                "members are counted by the roster"
            );
            let count = u32::try_from(local.subscribers.len()).unwrap_or(u32::MAX);
            let channel = local.key.clone();
            out.send_to_home(context.keys.home(&channel), Mail::Count { channel, core, count });
        }
        debug_assert!(self.counts_changed.is_empty(), "all homes have the numbers");
    }
}
