//! How many subscribe to a channel: sent to its subscribers and to the app's backend, where the app wants it
//! (docs/PROTOCOL.md C24). PURE.
//!
//! Owns the numbers at a channel's home. Each core sends its own number, absolute (`local/count.rs`), and `Cluster`
//! sets the sum of the other nodes; this file does not count connections. It sends a change at once for up to
//! `AT_ONCE_MAX` subscribers, then at most every `PAUSE_SECONDS`.
//!
//! Limits: one number for each channel of this home that an app counts, with a part for each core
//! (`limits::WORKERS_MAX`); a channel is in `due` once, while it is there. Cost: one look-up and a few steps for each
//! number that a core sends; a message to all subscribers at most once in `PAUSE_SECONDS` above `AT_ONCE_MAX`.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::Home;
use super::change::Change;
use crate::app::{AppIndex, WebhookKind};
use crate::pusher::channel_name::Access;
use crate::pusher::outbound;
use crate::pusher::webhook_event::Happening;
use crate::shard::channel_key::ChannelKey;
use crate::shard::context::Context;
use crate::shard::invariants::ensure;
use crate::shard::outbox::Outbox;
use crate::shard::slots::ChannelSlot;
use crate::ws::frame;

/// Subscribers up to which every change is sent. Above that, one connection that comes and goes would cause a message
/// to each of them.
const AT_ONCE_MAX: u64 = 100;
/// Between two messages of a channel that has more than `AT_ONCE_MAX` subscribers.
const PAUSE_SECONDS: u32 = 5;

/// By the slot of a channel in the home table, so `drop_if_unused` must `forget` the channel with its slot.
#[derive(Debug, Default)]
pub(in crate::shard) struct CountTable {
    counts: HashMap<ChannelSlot, ChannelCounts, foldhash::fast::FixedState>,
    /// When to send a number that was held back: the second, and the channel. Sorted, because channels begin their
    /// pauses at different times.
    due: BTreeSet<(u32, ChannelSlot)>,
}

#[derive(Debug, Default)]
struct ChannelCounts {
    /// Few cores have subscribers of one channel, or all have: a list serves both.
    counts_by_core: Vec<(u16, u32)>,
    count_on_other_nodes: u64,
    last_sent_count: u64,
    /// A subscriber may have come since the last message. If another one has left, the number is the same, and the new
    /// one must be sent it all the same.
    has_new_subscriber: bool,
    sent_seconds: u32,
    /// This node's number, as it was published to the other nodes: the node whose number has changed sends the webhook.
    sent_to_nodes: u64,
    /// Finds the channel's entry in `CountTable::due`. `None`: no number is held back.
    due_seconds: Option<u32>,
}

impl ChannelCounts {
    fn set(&mut self, core: u16, count: u32) {
        let before = self.counts_by_core.len();
        self.counts_by_core.retain(|(other, _)| *other != core);
        debug_assert!(before - self.counts_by_core.len() <= 1, "a core is in the list once");
        if count > 0 {
            self.counts_by_core.push((core, count));
        }
        debug_assert!(
            self.counts_by_core.iter().all(|(_, count)| *count > 0),
            "cores with subscribers"
        );
    }

    fn count_on_this_node(&self) -> u64 {
        self.counts_by_core.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    fn count_on_all_nodes(&self) -> u64 {
        self.count_on_this_node() + self.count_on_other_nodes
    }
}

impl CountTable {
    pub(super) fn forget(&mut self, index: ChannelSlot) {
        let forgotten = self.counts.remove(&index);
        if let Some(at) = forgotten.and_then(|counts| counts.due_seconds) {
            self.due.remove(&(at, index));
        }
        debug_assert!(
            self.due.len() > crate::limits::ASSERTED_LEN_MAX
                || self.due.iter().all(|(_, due)| *due != index),
            "the next channel in this slot has its own pause"
        );
    }

    /// A number that waits already keeps its time, so that changes which never end do not delay it for ever.
    fn send_at(&mut self, index: ChannelSlot, at: u32) {
        let counts = self.counts.entry(index).or_default();
        if counts.due_seconds.is_none() {
            counts.due_seconds = Some(at);
            self.due.insert((at, index));
        }
        debug_assert!(self.has_delayed_send(index), "it is sent when its time has come");
    }

    fn pop_due(&mut self, now: u32) -> Option<ChannelSlot> {
        let (_, index) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.due.pop_first();
        if let Some(counts) = self.counts.get_mut(&index) {
            debug_assert!(
                counts.due_seconds.is_some_and(|at| at <= now),
                "its entry and its time agree"
            );
            counts.due_seconds = None;
        }
        Some(index)
    }

    /// Channels whose number waits for the end of its pause.
    pub(in crate::shard) fn due_len(&self) -> usize {
        debug_assert!(self.due.len() <= self.counts.len(), "a channel is in the queue once");
        self.due.len()
    }

    fn forget_if_zero(&mut self, index: ChannelSlot) {
        let nobody = |counts: &ChannelCounts| {
            counts.count_on_all_nodes() == 0
                && counts.last_sent_count == 0
                && counts.due_seconds.is_none()
        };
        if self.counts.get(&index).is_some_and(nobody) {
            self.counts.remove(&index);
        }
    }

    /// The core has no subscribers left. Its number is here although the app does not count, if the core began to count
    /// before this one, or ceased after it.
    pub(super) fn forget_core(&mut self, index: ChannelSlot, core: u16) {
        if let Some(counts) = self.counts.get_mut(&index) {
            counts.set(core, 0);
            self.forget_if_zero(index);
        }
    }

    pub(super) fn has_delayed_send(&self, index: ChannelSlot) -> bool {
        debug_assert!(
            self.counts.len() > crate::limits::ASSERTED_LEN_MAX
                || self.counts.values().filter(|counts| counts.due_seconds.is_some()).count()
                    == self.due.len(),
            "what waits is what is due"
        );
        self.counts.get(&index).is_some_and(|counts| counts.due_seconds.is_some())
    }

    /// With the second in which it was sent: for a take-over, after which the pause goes on.
    pub(super) fn last_sent_count(&self, index: ChannelSlot) -> Option<(u64, u32)> {
        self.counts.get(&index).map(|counts| (counts.last_sent_count, counts.sent_seconds))
    }

    /// What another process has sent. A change that it held back is sent when its time has come.
    pub(super) fn restore_sent(&mut self, index: ChannelSlot, sent: u64, seconds: u32) {
        let counts = self.counts.entry(index).or_default();
        (counts.last_sent_count, counts.sent_seconds) = (sent, seconds);
        counts.sent_to_nodes = sent;
        self.send_at(index, seconds.saturating_add(PAUSE_SECONDS));
        debug_assert!(self.has_delayed_send(index), "it is sent when its time has come");
    }

    pub(super) fn restore(&mut self, index: ChannelSlot, core: u16, count: u32) {
        self.counts.entry(index).or_default().set(core, count);
        debug_assert!(self.count_on_this_node(index) >= count.into(), "a sum over the cores");
    }

    /// Sends nothing. With 0, the entry of a channel without subscribers here is dropped.
    pub(super) fn set_elsewhere(&mut self, index: ChannelSlot, count: u64) {
        if count > 0 {
            self.counts.entry(index).or_default().count_on_other_nodes = count;
        } else if let Some(counts) = self.counts.get_mut(&index) {
            counts.count_on_other_nodes = 0;
            if counts.count_on_this_node() == 0 {
                self.forget(index);
            }
        }
        debug_assert_eq!(
            self.counts.get(&index).map_or(0, |counts| counts.count_on_other_nodes),
            count,
            "what other nodes have"
        );
    }

    /// Checks that each entry is of a channel that is there, and that a number that was held back will be sent.
    pub(super) fn check_invariants(
        &self,
        is_there: impl Fn(ChannelSlot) -> bool,
    ) -> Result<(), String> {
        let due =
            |(index, counts): (&ChannelSlot, &ChannelCounts)| Some((counts.due_seconds?, *index));
        let waits: BTreeSet<(u32, ChannelSlot)> = self.counts.iter().filter_map(due).collect();
        ensure!(waits == self.due, "{waits:?} wait, and {:?} are due", self.due);
        for index in self.counts.keys() {
            ensure!(is_there(*index), "there is a number for channel {index}, which is gone");
        }
        Ok(())
    }

    pub(super) fn count_on_this_node(&self, index: ChannelSlot) -> u64 {
        self.counts.get(&index).map_or(0, ChannelCounts::count_on_this_node)
    }

    pub(in crate::shard) fn len(&self) -> usize {
        self.counts.len()
    }
}

impl Home {
    /// `Mail::Count`: the absolute number of one core.
    pub(in crate::shard) fn on_core_count(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        core: u16,
        count: u32,
    ) {
        debug_assert!(core < context.settings.cores, "a core of this process");
        debug_assert_eq!(context.keys.home(channel), context.core(), "this core is its home");
        debug_assert!(
            count == 0 || channel.kind.access != Access::Presence,
            "members are counted by the roster"
        );
        let Some(index) = self.channels.find_index(channel) else { return };
        let counts = self.channels.counts.counts.entry(index).or_default();
        counts.set(core, count);
        counts.has_new_subscriber |= count > 0;
        // A change of the configuration reaches this core at another time than the one that counts. Either the app
        // ceases to want numbers, or `begin_counts_of` sends this one.
        if !context.app(channel.app()).counts_subscriptions() {
            return self.channels.counts.forget_if_zero(index);
        }
        self.send_or_delay_count(context, out, channel, index);
    }

    /// The app wants numbers from now on: cores that knew before this one have sent theirs. Or it wants them sent to
    /// subscribers, and had them for webhooks.
    pub(in crate::shard) fn begin_counts_of(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        app: AppIndex,
    ) {
        debug_assert!(context.app(app).counts_subscriptions(), "the app wants numbers");
        let counts = &self.channels.counts.counts;
        let is_known = |index: &ChannelSlot| {
            counts.get(index).is_some_and(|counts| counts.count_on_this_node() > 0)
        };
        let of_app = self.channels.entries().filter(|(_, home)| home.key().app() == app);
        let known = of_app.filter(|(index, _)| is_known(index));
        let known: Vec<(ChannelSlot, ChannelKey)> =
            known.map(|(index, home)| (index, home.key().clone())).collect();
        for (index, channel) in known {
            if let Some(counts) = self.channels.counts.counts.get_mut(&index) {
                counts.last_sent_count = 0;
            }
            self.send_or_delay_count(context, out, &channel, index);
        }
    }

    /// The app wants no numbers any longer. Those of other nodes stay, because they are sent when they change only.
    pub(in crate::shard) fn forget_counts_of(&mut self, app: AppIndex) {
        debug_assert!(
            self.channels.of_app(app).all(|home| home.key().app() == app),
            "the index of an app has its channels"
        );
        let of_app = self.channels.entries().filter(|(_, home)| home.key().app() == app);
        let indexes: Vec<ChannelSlot> = of_app.map(|(index, _)| index).collect();
        let counts = &mut self.channels.counts;
        for index in indexes {
            let Some(found) = counts.counts.get_mut(&index) else { continue };
            found.counts_by_core.clear();
            (found.last_sent_count, found.sent_to_nodes) = (0, 0);
            debug_assert_eq!(found.count_on_this_node(), 0, "no number of this node is left");
            counts.forget_if_zero(index);
        }
    }

    /// The sum of all other nodes, after one of them has published its number. Subscribers here are sent the change.
    pub(in crate::shard) fn on_count_elsewhere(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        count: u64,
    ) {
        let Some(index) = self.channels.find_index(channel) else { return };
        self.channels.counts.counts.entry(index).or_default().count_on_other_nodes = count;
        debug_assert!(context.is_clustered(), "there are other nodes");
        self.send_or_delay_count(context, out, channel, index);
    }

    /// As `on_count_elsewhere`, but sends nothing: the channel has no subscribers here yet.
    pub(in crate::shard) fn set_count_elsewhere(&mut self, channel: &ChannelKey, count: u64) {
        if let Some(index) = self.channels.find_index(channel) {
            self.channels.counts.set_elsewhere(index, count);
        }
    }

    /// For an app that counts.
    pub(in crate::shard) fn count_here(&self, channel: &ChannelKey) -> u64 {
        self.channels
            .find_index(channel)
            .map_or(0, |index| self.channels.counts.count_on_this_node(index))
    }

    fn send_or_delay_count(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        index: ChannelSlot,
    ) {
        debug_assert!(self.channels.contains(index), "a channel that is there");
        let Some(counts) = self.channels.counts.counts.get_mut(&index) else { return };
        let at = counts.sent_seconds.saturating_add(PAUSE_SECONDS);
        debug_assert!(
            counts.due_seconds.is_none_or(|due| due <= at),
            "a number that waits is not put off"
        );
        if counts.count_on_all_nodes() <= AT_ONCE_MAX || context.now_seconds >= at {
            return self.send_count(context, out, channel, index);
        }
        self.channels.counts.send_at(index, at);
        debug_assert!(!self.channels.counts.due.is_empty(), "a number that waits will be sent");
    }

    /// Called once a second.
    pub(super) fn send_due_counts(&mut self, context: &Context, out: &mut Outbox) {
        while let Some(index) = self.channels.counts.pop_due(context.now_seconds) {
            debug_assert!(self.channels.contains(index), "a dropped channel has no number");
            debug_assert!(!self.channels.counts.has_delayed_send(index), "its pause is over");
            let Some(home) = self.channels.get_if_used(index) else { continue };
            let channel = home.key().clone();
            self.send_count(context, out, &channel, index);
            // The number came from another process, and none of its subscribers did.
            self.channels.drop_if_unused(index);
        }
    }

    fn send_count(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        index: ChannelSlot,
    ) {
        debug_assert_eq!(context.keys.home(channel), context.core(), "this core is its home");
        let Some(counts) = self.channels.counts.counts.get_mut(&index) else { return };
        let (here, total) = (counts.count_on_this_node(), counts.count_on_all_nodes());
        debug_assert!(here <= total, "this node is one of all");
        // The node whose number has changed publishes it to the others, and makes the webhook for all.
        let is_ours = std::mem::replace(&mut counts.sent_to_nodes, here) != here;
        let has_changed = std::mem::replace(&mut counts.last_sent_count, total) != total;
        let is_due = std::mem::take(&mut counts.has_new_subscriber) || has_changed;
        if is_due {
            counts.sent_seconds = context.now_seconds;
        }
        debug_assert_eq!(counts.last_sent_count, total, "the newest number is the one sent");
        if is_ours {
            out.report_change(context, channel, || Change::Count(here));
        }
        self.channels.counts.forget_if_zero(index);
        if is_due && context.app(channel.app()).sends_subscription_count {
            let bytes = frame::write_text_frame(&mut self.text_buffer, |text| {
                outbound::subscription_count(channel.name(), total, text)
            })
            .into();
            self.deliver(context, out, channel, &bytes, None);
        }
        if is_ours && has_changed {
            out.send_webhook(context, channel, WebhookKind::SubscriptionCount, || {
                Happening::SubscriptionCount { count: total }
            });
        }
    }
}
