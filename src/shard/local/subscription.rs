//! The subscriptions of one connection: each with its channel and state, in a list without memory of its own for one.
//! PURE.
//!
//! Most connections have one channel besides the user's own. Its subscription is inside of the connection, which has
//! that room anyway for a pointer, a length and a capacity: an allocation for it cost 32 bytes more.
//!
//! Limit: `Connection::try_reserve_queue` charges each subscription to its connection (`memory.rs`). Cost: no
//! allocation for the first subscription of a connection; one list from the second on. An entry is 24 bytes.

use core::ops::{Deref, DerefMut};

use crate::pusher::inbound::UserId;
use crate::shard::slots::ChannelSlot;

/// Where a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum SubscriptionState {
    /// Asked of the home; the answer carries this ticket.
    Pending { ticket: u32 },
    /// Acknowledged. `position`: in the channel's subscriber list. `asks_again`: another subscribe request is with the
    /// home.
    Active { position: u32, asks_again: bool },
}

/// A connection's place in one channel.
#[derive(Debug)]
pub(in crate::shard) struct Subscription {
    pub(in crate::shard) channel: ChannelSlot,
    pub(in crate::shard) state: SubscriptionState,
    /// Bytes that this subscription is charged to its connection.
    pub(in crate::shard) charge: u32,
    /// The member as whom this connection joined a presence channel.
    pub(in crate::shard) member: Option<Box<UserId>>,
}

const _: () = assert!(size_of::<SubscriptionState>() == 8);
const _: () = assert!(size_of::<Subscription>() <= 24);

/// All subscriptions of one connection, as a slice.
#[derive(Debug, Default)]
pub(in crate::shard) enum SubscriptionList {
    #[default]
    Empty,
    One(Subscription),
    #[expect(clippy::box_collection, reason = "a list in here would make each connection larger")]
    Several(Box<Vec<Subscription>>),
}

const _: () = assert!(size_of::<SubscriptionList>() == size_of::<Subscription>());

impl Deref for SubscriptionList {
    type Target = [Subscription];

    #[inline]
    fn deref(&self) -> &[Subscription] {
        debug_assert!(!matches!(self, Self::Several(list) if list.len() < 2), "one needs no list");
        match self {
            Self::Empty => &[],
            Self::One(only) => core::slice::from_ref(only),
            Self::Several(list) => list,
        }
    }
}

impl DerefMut for SubscriptionList {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Subscription] {
        match self {
            Self::Empty => &mut [],
            Self::One(only) => core::slice::from_mut(only),
            Self::Several(list) => list,
        }
    }
}

impl SubscriptionList {
    /// Adds it at the end.
    pub(super) fn push(&mut self, subscription: Subscription) {
        let count = self.len() + 1;
        *self = match core::mem::take(self) {
            Self::Empty => Self::One(subscription),
            Self::One(first) => Self::Several(Box::new(vec![first, subscription])),
            Self::Several(mut list) => {
                list.push(subscription);
                Self::Several(list)
            }
        };
        debug_assert!(!self.is_empty(), "it is in the list");
        debug_assert_eq!(self.len(), count, "one more");
    }

    /// Removes the subscription at this place. The last one takes the place.
    pub(super) fn swap_remove(&mut self, at: usize) -> Option<Subscription> {
        if at >= self.len() {
            return None;
        }
        let left = self.len() - 1;
        match core::mem::take(self) {
            Self::Empty => None,
            Self::One(only) => Some(only),
            Self::Several(mut list) => {
                let removed = list.swap_remove(at);
                *self = match (list.len(), list.pop()) {
                    (1, Some(only)) => Self::One(only),
                    (_, last) => {
                        list.extend(last);
                        Self::Several(list)
                    }
                };
                debug_assert!(self.len() != 1 || matches!(self, Self::One(_)), "one needs no list");
                debug_assert_eq!(self.len(), left, "one less");
                Some(removed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(channel: u32) -> Subscription {
        let state = SubscriptionState::Pending { ticket: channel };
        Subscription { channel: ChannelSlot::new(channel), state, charge: 0, member: None }
    }

    fn channels(list: &SubscriptionList) -> Vec<ChannelSlot> {
        list.iter().map(|found| found.channel).collect()
    }

    #[test]
    fn a_list_keeps_its_order_and_fills_a_freed_place_with_its_last_entry() {
        let mut list = SubscriptionList::default();
        let mut expected: Vec<ChannelSlot> = Vec::new();
        for round in 0..6_u32 {
            for channel in 0..=round {
                list.push(of(channel));
                expected.push(ChannelSlot::new(channel));
                assert_eq!(channels(&list), expected);
            }
            while !expected.is_empty() {
                let at = (round as usize * 7 + 3) % expected.len();
                let removed = list.swap_remove(at).map(|found| found.channel);
                assert_eq!(removed, Some(expected.swap_remove(at)));
                assert_eq!(channels(&list), expected);
            }
        }
    }

    #[test]
    fn a_place_beyond_the_end_removes_nothing() {
        let mut list = SubscriptionList::default();
        assert!(list.swap_remove(0).is_none());
        for channel in 0..3 {
            list.push(of(channel));
            let end = list.len();
            assert!(list.swap_remove(end).is_none());
            assert_eq!(list.len(), end);
        }
    }

    #[test]
    fn one_subscription_is_inside_of_the_list() {
        let mut list = SubscriptionList::default();
        list.push(of(1));
        assert!(matches!(list, SubscriptionList::One(_)));
        list.push(of(2));
        list.push(of(3));
        list.swap_remove(0);
        list.swap_remove(0);
        assert!(matches!(list, SubscriptionList::One(_)));
        list[0].charge = 7;
        assert_eq!(list.iter().map(|found| found.charge).sum::<u32>(), 7);
    }
}
