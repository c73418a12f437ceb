//! The channels with subscribers on this core: name to dense subscriber list. PURE: plain data, no locks, no atomics.
//!
//! Owns the lists of subscribers. Invariants: an index is good from `insert` to `remove`. `Local::drop_if_unused` alone
//! removes a channel, when it has neither subscribers nor unanswered requests, so the index in any `Subscription` is
//! good. An index that may be stale goes to `get_mut`. `SubscriptionState::Active::position` and
//! `Subscriber::subscription_index` name each other's entry: `acknowledge`, `import_subscription`,
//! `end_subscription_at` and `remove_subscriber` change both.
//!
//! Limits: 64 bytes for a channel (asserted), 8 for a subscriber; subscriptions are limited for each connection. Cost:
//! one hash look-up for a channel by key, an index afterwards. A subscriber is added at the end of a list and removed
//! by the last one taking its place: constant steps.

use smallvec::SmallVec;

use crate::shard::channel_key::ChannelKey;
use crate::shard::slots::{Keyed, KeyedSlots};
use crate::slot::Slot;

/// Names both sides, so that either can move its entry in constant time: the connection's slot, and the place of the
/// subscription in the connection's list.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Subscriber {
    pub(in crate::shard) slot: Slot,
    pub(in crate::shard) subscription_index: u32,
}

/// A channel as this core sees it. Lives while it has subscribers or unanswered requests to its home.
#[derive(Debug)]
pub(in crate::shard) struct LocalChannel {
    pub(in crate::shard) key: ChannelKey,
    /// Two find room in here: many channels belong to one user.
    pub(in crate::shard) subscribers: SmallVec<[Subscriber; 2]>,
    /// `Subscribe` mails that the home has not answered. They keep the channel, so that the answer finds it.
    pub(in crate::shard) pending_requests: u32,
    /// The home knows of this core's interest, so it is owed a `Disinterest` at the end.
    pub(in crate::shard) is_active: bool,
    /// The channel is in `Local::counts_changed`.
    pub(in crate::shard) count_changed: bool,
}

const _: () = assert!(size_of::<LocalChannel>() <= 64);

impl LocalChannel {
    pub(in crate::shard) fn new(key: ChannelKey) -> Self {
        Self {
            key,
            subscribers: SmallVec::new(),
            pending_requests: 0,
            is_active: false,
            count_changed: false,
        }
    }

    /// Returns the position that the subscription must name (`SubscriptionState::Active`).
    pub(in crate::shard) fn add(&mut self, slot: Slot, subscription_index: u32) -> u32 {
        debug_assert!(
            self.subscribers.last().is_none_or(|last| last.slot != slot),
            "a connection is in a channel once"
        );
        let position = u32::try_from(self.subscribers.len()).unwrap_or(u32::MAX);
        self.subscribers.push(Subscriber { slot, subscription_index });
        position
    }
}

impl Keyed for LocalChannel {
    fn key(&self) -> &ChannelKey {
        &self.key
    }
}

pub(in crate::shard) type ChannelTable = KeyedSlots<LocalChannel>;
