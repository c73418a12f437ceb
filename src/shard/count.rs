//! How many subscribe to a channel, told to its subscribers and to the app's backend (docs/PROTOCOL.md C24). PURE.
//!
//! Each core tells the home its own number when it has changed, at most once a tick; numbers are absolute, so none can
//! drift. The home adds up and tells: at once for up to `AT_ONCE_MAX` subscribers, then at most every `PAUSE_SECONDS`.
//! Only for apps that want it.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::channel_key::ChannelKey;
use super::mail::Mail;
use super::{Shard, frame};
use crate::app::WebhookKind;
use crate::pusher::channel_name::Access;
use crate::pusher::outbound;
use crate::pusher::webhook_event::Happening;

/// Subscribers up to which every change is told.
const AT_ONCE_MAX: u64 = 100;
/// Above that, seconds between two messages.
const PAUSE_SECONDS: u32 = 5;

/// The numbers of the channels whose home this core is, by their slot in the home table.
#[derive(Debug, Default)]
pub(super) struct CountTable {
    counts: HashMap<u32, Counts, foldhash::fast::FixedState>,
    /// When to tell a number that was held back; in order, for the pause is one for all.
    due: VecDeque<(u32, ChannelKey)>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Few cores have subscribers of one channel, or all have: a list serves both.
    by_core: Vec<(u16, u32)>,
    /// Subscribers on other nodes.
    elsewhere: u64,
    told: u64,
    told_seconds: u32,
    /// This node's number, as the other nodes were told.
    told_nodes: u64,
    /// It is in `CountTable::due`.
    waits: bool,
}

impl Counts {
    fn set(&mut self, core: u16, count: u32) {
        self.by_core.retain(|(other, _)| *other != core);
        if count > 0 {
            self.by_core.push((core, count));
        }
    }

    fn here(&self) -> u64 {
        self.by_core.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    fn total(&self) -> u64 {
        self.here() + self.elsewhere
    }
}

impl CountTable {
    pub(super) fn forget(&mut self, index: u32) {
        self.counts.remove(&index);
    }

    fn forget_if_nobody(&mut self, index: u32) {
        let nobody = |counts: &Counts| counts.total() == 0 && counts.told == 0 && !counts.waits;
        if self.counts.get(&index).is_some_and(nobody) {
            self.counts.remove(&index);
        }
    }

    /// The number that was told last, and when.
    pub(super) fn told(&self, index: u32) -> Option<(u64, u32)> {
        self.counts.get(&index).map(|counts| (counts.told, counts.told_seconds))
    }

    /// What another process has told. A change it held back is told when its time has come.
    pub(super) fn restore_told(
        &mut self,
        index: u32,
        channel: &ChannelKey,
        told: u64,
        seconds: u32,
    ) {
        let counts = self.counts.entry(index).or_default();
        (counts.told, counts.told_seconds, counts.waits) = (told, seconds, true);
        counts.told_nodes = told;
        // In whatever order they come in: the first look at each is soon enough within one pause.
        self.due.push_back((seconds.saturating_add(PAUSE_SECONDS), channel.clone()));
    }

    pub(super) fn restore(&mut self, index: u32, core: u16, count: u32) {
        self.counts.entry(index).or_default().set(core, count);
    }

    /// What other nodes have. Nobody hears of it by this.
    pub(super) fn set_elsewhere(&mut self, index: u32, count: u64) {
        if count > 0 {
            self.counts.entry(index).or_default().elsewhere = count;
        } else if let Some(counts) = self.counts.get_mut(&index) {
            counts.elsewhere = 0;
            if counts.here() == 0 {
                self.counts.remove(&index);
            }
        }
    }

    /// Subscribers on this node.
    pub(super) fn here(&self, index: u32) -> u64 {
        self.counts.get(&index).map_or(0, Counts::here)
    }

    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }
}

impl Shard {
    /// The channel has one local subscriber more or less.
    pub(super) fn note_count(&mut self, index: u32) {
        let local = self.channels.get(index);
        let counts = self.settings.apps.get(local.key.app()).counts_subscriptions();
        if counts && local.key.kind.access != Access::Presence && !local.count_changed {
            self.channels.get_mut(index).count_changed = true;
            self.counts_changed.push(index);
        }
    }

    /// Tells the homes what changed since the last call.
    pub(super) fn settle_counts(&mut self) {
        let core = self.settings.core;
        while let Some(index) = self.counts_changed.pop() {
            // A channel that is gone was told to its home by `Disinterest`; its place may be another's by now.
            let Some(local) = self.channels.find_mut(index).filter(|local| local.count_changed)
            else {
                continue;
            };
            local.count_changed = false;
            let count = u32::try_from(local.subscribers.len()).unwrap_or(u32::MAX);
            let channel = local.key.clone();
            self.mail_home(self.keys.home(&channel), Mail::Count { channel, core, count });
        }
    }

    /// The number of one core.
    pub(super) fn home_count(&mut self, channel: &ChannelKey, core: u16, count: u32) {
        let Some(index) = self.homes.find_index(channel) else { return };
        self.homes.counts.counts.entry(index).or_default().set(core, count);
        self.tell_count_in_time(channel, index);
    }

    /// The number of all other nodes.
    pub(super) fn home_count_elsewhere(&mut self, channel: &ChannelKey, count: u64) {
        let Some(index) = self.homes.find_index(channel) else { return };
        self.homes.counts.counts.entry(index).or_default().elsewhere = count;
        self.tell_count_in_time(channel, index);
    }

    fn tell_count_in_time(&mut self, channel: &ChannelKey, index: u32) {
        let now = self.now.seconds();
        let Some(counts) = self.homes.counts.counts.get_mut(&index) else { return };
        let total = counts.total();
        if total <= AT_ONCE_MAX || now >= counts.told_seconds.saturating_add(PAUSE_SECONDS) {
            return self.tell_count(channel, index);
        }
        if !std::mem::replace(&mut counts.waits, true) {
            let at = counts.told_seconds.saturating_add(PAUSE_SECONDS);
            self.homes.counts.due.push_back((at, channel.clone()));
        }
    }

    /// Tells the numbers whose pause is over.
    pub(super) fn tell_due_counts(&mut self) {
        let now = self.now.seconds();
        while self.homes.counts.due.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, channel)) = self.homes.counts.due.pop_front() else { break };
            let Some(index) = self.homes.find_index(&channel) else { continue };
            if let Some(counts) = self.homes.counts.counts.get_mut(&index) {
                counts.waits = false;
                self.tell_count(&channel, index);
            }
        }
    }

    fn tell_count(&mut self, channel: &ChannelKey, index: u32) {
        let now = self.now.seconds();
        let Some(counts) = self.homes.counts.counts.get_mut(&index) else { return };
        let (here, total) = (counts.here(), counts.total());
        // The node whose number has changed tells the others, and the app's backend for all.
        let is_ours = std::mem::replace(&mut counts.told_nodes, here) != here;
        let has_changed = std::mem::replace(&mut counts.told, total) != total;
        if has_changed {
            counts.told_seconds = now;
        }
        if is_ours {
            self.tell_nodes_count(channel, here);
        }
        self.homes.counts.forget_if_nobody(index);
        if !has_changed {
            return;
        }
        let app = self.settings.apps.get(channel.app());
        if app.subscription_count {
            self.text.clear();
            outbound::subscription_count(channel.name(), total, &mut self.text);
            let bytes = frame::encode_text(&self.text).into();
            self.home_deliver(channel, &bytes, None);
        }
        if is_ours {
            self.tell_backend(channel, WebhookKind::SubscriptionCount, || {
                Happening::SubscriptionCount { count: total }
            });
        }
    }
}
