//! Leaves in their debounce time, in the order in which they are due, by name, and by the share that they use.
//!
//! Owns the delayed leaves and the three indexes of them. PURE; does not decide which leave is delayed or canceled
//! (`gate.rs`).
//!
//! Limit: `max` leaves, a few hundred bytes each. For one more, the oldest of the app and class with the most is
//! released early, and counted. So a flood of one app, or on public channels, shortens only its own delays. Cost:
//! O(log n) steps for a leave; a search over all apps and classes only for a leave beyond the limit whose app and class
//! have less than their share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::app::AppIndex;
use crate::clock::Moment;
use crate::pusher::webhook_event::{Happening, WebhookEvent};
use crate::webhook::budget::Class;
use crate::webhook::input::ClassedEvent;

/// What a join or a leave is about: a channel, or a user in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TransitionName {
    app: AppIndex,
    channel: Arc<str>,
    user: Option<Box<str>>,
}

impl TransitionName {
    /// `None` if the event is neither a join nor a leave.
    pub(super) fn of(event: &WebhookEvent) -> Option<Self> {
        let user = match &event.happening {
            Happening::Occupied | Happening::Vacated => None,
            Happening::MemberAdded { user_id } | Happening::MemberRemoved { user_id } => {
                Some(user_id.clone())
            }
            Happening::CacheMiss
            | Happening::SubscriptionCount { .. }
            | Happening::ClientEvent(_) => return None,
        };
        Some(Self { app: event.app, channel: event.channel.clone(), user })
    }
}

/// The leaves that share the limit evenly: those of one app that need the same credentials.
type ShareOwner = (AppIndex, Class);

#[derive(Debug)]
struct DelayedLeave {
    due: Moment,
    class: Class,
    event: WebhookEvent,
}

#[derive(Debug)]
pub(super) struct DelayedLeaves {
    max: usize,
    /// By the order in which they came, which is the order in which they are due, because all delays are equal.
    by_order: BTreeMap<u64, DelayedLeave>,
    by_name: HashMap<TransitionName, u64>,
    /// Owners without a leave have no entry.
    by_owner: HashMap<ShareOwner, BTreeSet<u64>>,
    next_order: u64,
    /// Since `take_released_early`.
    released_early: u64,
}

impl DelayedLeaves {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            by_order: BTreeMap::new(),
            by_name: HashMap::new(),
            by_owner: HashMap::new(),
            next_order: 0,
            released_early: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_order.len()
    }

    pub(super) fn contains(&self, name: &TransitionName) -> bool {
        self.by_name.contains_key(name)
    }

    pub(super) fn first_due(&self) -> Option<Moment> {
        self.by_order.first_key_value().map(|(_, leave)| leave.due)
    }

    /// How many leaves were released before they were due since the last call.
    pub(super) fn take_released_early(&mut self) -> u64 {
        std::mem::take(&mut self.released_early)
    }

    /// Adds a leave whose name is not delayed, and returns the one that is released early for it, if any.
    pub(super) fn add(
        &mut self,
        name: TransitionName,
        (class, event): ClassedEvent,
        due: Moment,
    ) -> Option<ClassedEvent> {
        let owner = (event.app, class);
        let released = if self.len() >= self.max { self.release_early(owner) } else { None };
        self.by_owner.entry(owner).or_default().insert(self.next_order);
        self.by_order.insert(self.next_order, DelayedLeave { due, class, event });
        let before = self.by_name.insert(name, self.next_order);
        self.next_order += 1;
        debug_assert!(before.is_none(), "a name has one leave");
        debug_assert!(self.len() <= self.max.max(1), "room was made");
        released
    }

    pub(super) fn cancel(&mut self, name: &TransitionName) {
        if let Some(&order) = self.by_name.get(name) {
            self.remove(order);
        }
    }

    pub(super) fn release_first(&mut self) -> Option<ClassedEvent> {
        let order = self.by_order.first_key_value().map(|(order, _)| *order)?;
        self.remove(order)
    }

    /// Releases the oldest leave of the owner with the most. If `owner` has its share or more, its own oldest one, so
    /// that a flood causes no search.
    fn release_early(&mut self, owner: ShareOwner) -> Option<ClassedEvent> {
        let share = self.len().div_ceil(self.by_owner.len().max(1));
        let own = self.by_owner.get(&owner).filter(|orders| orders.len() >= share);
        let largest = || self.by_owner.values().max_by_key(|orders| orders.len());
        let order = own.or_else(largest).and_then(|orders| orders.first().copied())?;
        self.released_early += 1;
        self.remove(order)
    }

    fn remove(&mut self, order: u64) -> Option<ClassedEvent> {
        let DelayedLeave { class, event, .. } = self.by_order.remove(&order)?;
        if let Some(name) = TransitionName::of(&event) {
            self.by_name.remove(&name);
        }
        let owner = (event.app, class);
        if let Some(orders) = self.by_owner.get_mut(&owner) {
            orders.remove(&order);
            if orders.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
        Some((class, event))
    }

    /// Panics if the indexes do not agree, or if a leave is not due within `delay_ms` after `now`.
    #[cfg(test)]
    pub(super) fn check(&self, now: u64, delay_ms: u64) {
        assert!(self.len() <= self.max && self.by_name.len() == self.len());
        let owned: usize = self.by_owner.values().map(BTreeSet::len).sum();
        assert_eq!((owned, self.by_owner.is_empty()), (self.len(), self.len() == 0));
        for (order, leave) in &self.by_order {
            let name = TransitionName::of(&leave.event).expect("a leave");
            assert_eq!(self.by_name.get(&name), Some(order));
            assert!(now < leave.due.0 && leave.due.0 <= now + delay_ms, "{leave:?}");
        }
    }
}
