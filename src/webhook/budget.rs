//! Classes of events, and how much of a worker's ring each app and class may fill.
//!
//! Anybody can open and leave public channels, so events of public channels must not displace others. Events of one
//! channel are all of one class, or of two classes that share a queue, so their order stays that of the channel.
//!
//! Limits: all events of public channels may fill half of a ring, and the client events of one app a quarter. If
//! several apps have webhooks, the public channels of one app may fill 1/8 of a ring, and its other events half. Owns
//! the counts only; does not drop an event. Cost: at most five atomic operations to reserve room, two to release it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::app::{AppIndex, Apps};
use crate::pusher::channel_name::{self, Access};
use crate::pusher::webhook_event::{Happening, WebhookEvent};

/// The credentials that a client needs to cause the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// A signature: all but client events of private and presence channels and of users.
    Member,
    /// A signature: client events, which one member may send as fast as they like.
    Client,
    /// None: events of public channels, which any client can cause.
    Public,
}

pub(super) const CLASSES: usize = 3;

impl Class {
    pub(super) fn of(event: &WebhookEvent) -> Self {
        let access = channel_name::classify(&event.channel).map(|kind| kind.access);
        match (access, &event.happening) {
            (Ok(Access::Public) | Err(_), _) => Self::Public,
            (Ok(_), Happening::ClientEvent(_)) => Self::Client,
            (Ok(_), _) => Self::Member,
        }
    }

    /// Clients without credentials can cause such events, so they have queues and limits of their own.
    pub(super) fn is_public(self) -> bool {
        self == Self::Public
    }

    /// The share of a bound on events or bytes that this class may use; at least 1.
    pub(super) fn share(self, max: usize) -> usize {
        match self {
            Self::Member | Self::Public => max,
            Self::Client => (max / 2).max(1),
        }
    }
}

/// The contents of one worker's ring. The worker adds, the dispatcher subtracts.
#[derive(Debug)]
pub(super) struct RingBudget {
    /// By app and class. The apps of a later configuration share the rows of others if there are not enough.
    events: Box<[[AtomicUsize; CLASSES]]>,
    public: AtomicUsize,
    ring_events: usize,
    /// Several apps have webhooks, so each of them has a smaller share.
    is_shared: AtomicBool,
}

/// Rows of `RingBudget`, unless more apps have webhooks at the start.
const ROWS_MIN: usize = 256;

impl RingBudget {
    pub(super) fn new(apps: &Apps, ring_events: usize) -> Self {
        let rows = apps.iter().len().max(ROWS_MIN);
        let budget = Self {
            events: (0..rows).map(|_| Default::default()).collect(),
            public: AtomicUsize::new(0),
            ring_events,
            is_shared: AtomicBool::new(false),
        };
        budget.apply(apps);
        budget
    }

    /// The shares of an app depend on whether another one has webhooks.
    pub(super) fn apply(&self, apps: &Apps) {
        let with_webhooks = apps.iter().filter(|app| !app.webhooks.is_empty()).count();
        self.is_shared.store(with_webhooks > 1, Ordering::Relaxed);
    }

    fn share_of_ring(&self, parts: usize) -> usize {
        (self.ring_events / parts).max(1)
    }

    fn counts_of_app(&self, app: AppIndex) -> Option<&[AtomicUsize; CLASSES]> {
        self.events.get(usize::from(app.0) % self.events.len())
    }

    /// Reserves room for one event; returns whether there was any. Only the worker calls it, so that no other thread
    /// adds between the check and the addition.
    pub(super) fn reserve(&self, app: AppIndex, class: Class) -> bool {
        let Some(events) = self.counts_of_app(app) else { return false };
        let is_shared = self.is_shared.load(Ordering::Relaxed);
        let max = self.share_of_ring(match (class, is_shared) {
            (Class::Member, false) => 1,
            (Class::Member, true) | (Class::Public, false) => 2,
            (Class::Client, _) => 4,
            (Class::Public, true) => 8,
        });
        let count = &events[class as usize];
        let is_public = class == Class::Public;
        if count.load(Ordering::Relaxed) >= max
            || is_public && self.public.load(Ordering::Relaxed) >= self.share_of_ring(2)
        {
            return false;
        }
        count.fetch_add(1, Ordering::Relaxed);
        self.public.fetch_add(usize::from(is_public), Ordering::Relaxed);
        true
    }

    /// Returns the room of an event that has left the ring.
    pub(super) fn release(&self, app: AppIndex, class: Class) {
        if let Some(events) = self.counts_of_app(app) {
            let before = events[class as usize].fetch_sub(1, Ordering::Relaxed);
            debug_assert!(before > 0, "`reserve` has counted it");
            let is_public = usize::from(class == Class::Public);
            let before = self.public.fetch_sub(is_public, Ordering::Relaxed);
            debug_assert!(before >= is_public, "`reserve` has counted it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{App, Webhook, WebhookKind, sample};

    fn apps(count: usize) -> Apps {
        let webhook = || Webhook {
            url: String::new(),
            kinds: WebhookKind::ALL.to_vec(),
            channel_prefixes: Vec::new(),
        };
        Apps::new((0..count).map(|_| App { webhooks: vec![webhook()], ..sample() }).collect())
    }

    fn fill(budget: &RingBudget, app: u16, class: Class) -> usize {
        (0..).take_while(|_| budget.reserve(AppIndex(app), class)).count()
    }

    #[test]
    fn a_class_that_is_full_leaves_room_for_the_others() {
        let budget = RingBudget::new(&apps(9), 800);
        assert_eq!(fill(&budget, 0, Class::Public), 100);
        assert_eq!((1..9).map(|app| fill(&budget, app, Class::Public)).sum::<usize>(), 300);
        assert_eq!(fill(&budget, 0, Class::Client), 200);
        assert_eq!(fill(&budget, 0, Class::Member), 400);
        budget.release(AppIndex(0), Class::Public);
        assert_eq!(fill(&budget, 0, Class::Public), 1);
        let alone = RingBudget::new(&apps(1), 800);
        assert_eq!(fill(&alone, 0, Class::Public), 400);
        assert_eq!(fill(&alone, 0, Class::Member), 800);
        assert_eq!(fill(&RingBudget::new(&apps(2), 1), 1, Class::Client), 1, "never nothing");
    }
}
