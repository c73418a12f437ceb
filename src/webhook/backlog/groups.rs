//! All retry groups of one endpoint, by number, by channel and by the moment of their next attempt.
//!
//! Owns the groups and the three indexes of them, and keeps these consistent: each change of a group goes through
//! `update` or `schedule`. Does not choose what is tried (`backlog.rs`), and knows no endpoint. PURE.
//!
//! Limits: isolated groups together have one of `PARTS` parts of what the sender allows for the endpoint, for signed
//! channels and for public ones each; one group has all parts but one. Over the first limit, the first events of the
//! isolated group with the lowest number are given up; over the second, the first events of that group. Cost: O(log n)
//! steps in the groups for a change of one, and one step for each event that moves.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::BacklogEntry;
use super::group::RetryGroup;
use super::state::{Effect, RetryEvent, RetryState};
use crate::clock::Moment;
use crate::webhook::batch::Amount;

/// The limit of waiting events is divided into so many parts.
const PARTS: usize = 4;

#[derive(Debug)]
pub(super) struct RetryGroups {
    by_id: BTreeMap<u64, RetryGroup>,
    /// Groups without an attempt under way.
    by_due: BTreeSet<(Moment, u64)>,
    by_channel: HashMap<Arc<str>, u64>,
    next_id: u64,
    /// Those of signed channels, and those of public ones.
    isolated: [IsolatedGroups; 2],
    isolated_max: Amount,
    group_max: Amount,
}

/// The isolated groups of one kind of channels, and the sum of their events.
#[derive(Debug, Default)]
struct IsolatedGroups {
    ids: BTreeSet<u64>,
    amount: Amount,
}

impl IsolatedGroups {
    fn add(&mut self, id: u64, group: &RetryGroup) {
        if group.state.is_isolated() {
            self.ids.insert(id);
            self.amount.events += group.amount().events;
            self.amount.bytes += group.amount().bytes;
        }
    }

    fn remove(&mut self, id: u64, group: &RetryGroup) {
        if group.state.is_isolated() && self.ids.remove(&id) {
            self.amount.events = self.amount.events.saturating_sub(group.amount().events);
            self.amount.bytes = self.amount.bytes.saturating_sub(group.amount().bytes);
        }
    }
}

impl RetryGroups {
    /// `max` is what the sender's limits allow in all.
    pub(super) fn new(max: Amount) -> Self {
        let part = Amount { events: max.events / PARTS, bytes: max.bytes / PARTS };
        let group_max = Amount {
            events: part.events.saturating_mul(PARTS - 1).max(1),
            bytes: part.bytes.saturating_mul(PARTS - 1),
        };
        Self {
            by_id: BTreeMap::new(),
            by_due: BTreeSet::new(),
            by_channel: HashMap::new(),
            next_id: 0,
            isolated: Default::default(),
            isolated_max: part,
            group_max,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn get(&self, id: u64) -> Option<&RetryGroup> {
        self.by_id.get(&id)
    }

    pub(super) fn of_channel(&self, channel: &str) -> Option<u64> {
        self.by_channel.get(channel).copied()
    }

    /// The moment of the next attempt of a group, and the group.
    pub(super) fn first_due(&self) -> Option<(Moment, u64)> {
        self.by_due.first().copied()
    }

    /// When the oldest of the groups' first events was queued. Linear in the groups. An event behind a first one is
    /// older only if it is of another channel, which the two queues of `WaitingEvents` can cause.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        let first = self.by_id.values().filter_map(|group| group.entries().front());
        first.map(|entry| entry.event_json.queued_ms).min()
    }

    /// Adds an empty group, which later events of the channels of these entries join.
    pub(super) fn add<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a BacklogEntry>,
        state: RetryState,
        now: Moment,
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut is_public = true;
        let mut channels: HashSet<Arc<str>> = HashSet::new();
        for BacklogEntry { event_json, .. } in entries {
            is_public &= event_json.class.is_public();
            channels.insert(event_json.channel.clone());
        }
        for channel in &channels {
            self.by_channel.insert(channel.clone(), id);
        }
        let before = self.by_id.insert(id, RetryGroup::new(channels, is_public, state, now));
        debug_assert!(before.is_none(), "groups have numbers of their own");
        id
    }

    /// Begins an attempt: the group stays, also without entries, until `schedule` is called.
    pub(super) fn pop_request(&mut self, id: u64) -> Vec<BacklogEntry> {
        let mut entries = Vec::new();
        self.update(id, |group| entries = group.pop_request());
        if let Some(group) = self.by_id.get(&id) {
            self.by_due.remove(&(group.due, id));
        }
        entries
    }

    /// Changes a group, and the sums of isolated groups with it.
    pub(super) fn update(&mut self, id: u64, change: impl FnOnce(&mut RetryGroup)) {
        let Some(group) = self.by_id.get_mut(&id) else { return };
        let isolated = &mut self.isolated[usize::from(group.is_public)];
        isolated.remove(id, group);
        change(group);
        isolated.add(id, group);
    }

    pub(super) fn change_state(&mut self, id: u64, event: RetryEvent) -> Effect {
        let mut effect = Effect::KeepDue;
        self.update(id, |group| (group.state, effect) = group.state.after(event));
        effect
    }

    /// Sets the moment of the next attempt, after which the group may be tried. Removes a group without entries.
    pub(super) fn schedule(&mut self, id: u64, due: Moment) {
        let Some(group) = self.by_id.get_mut(&id) else { return };
        self.by_due.remove(&(group.due, id));
        group.due = due;
        if group.entries().is_empty() {
            self.remove(id);
        } else {
            self.by_due.insert((due, id));
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(group) = self.by_id.remove(&id) else { return };
        self.isolated[usize::from(group.is_public)].remove(id, &group);
        for channel in &group.channels {
            // A channel may have moved to another group.
            if self.by_channel.get(channel) == Some(&id) {
                self.by_channel.remove(channel);
            }
        }
    }

    pub(super) fn make_all_due(&mut self, now: Moment) {
        let after = Moment(now.0.saturating_add(1));
        for (_, id) in self.by_due.split_off(&(after, 0)) {
            if let Some(group) = self.by_id.get_mut(&id) {
                group.due = now;
                self.by_due.insert((now, id));
            }
        }
    }

    /// Adds an event after those of its channel. What is over the limits goes to `given_up`.
    pub(super) fn join(
        &mut self,
        id: u64,
        entry: BacklogEntry,
        now: Moment,
        given_up: &mut Vec<BacklogEntry>,
    ) {
        self.update(id, |group| group.push_back(entry));
        while self.get(id).is_some_and(|group| {
            group.entries().len() > 1 && group.amount().exceeds(self.group_max)
        }) {
            self.displace_first(id, given_up);
        }
        self.release_followers(id, now);
        self.make_room(given_up);
    }

    /// Gives up the first events of the isolated group with the lowest number while there are too many.
    pub(super) fn make_room(&mut self, given_up: &mut Vec<BacklogEntry>) {
        for kind in 0..self.isolated.len() {
            while self.isolated[kind].amount.exceeds(self.isolated_max) {
                let Some(&id) = self.isolated[kind].ids.first() else { break };
                self.displace_first(id, given_up);
                let emptied = self.get(id).filter(|group| group.entries().is_empty());
                if let Some(due) = emptied.map(|group| group.due) {
                    self.schedule(id, due);
                }
            }
        }
    }

    fn displace_first(&mut self, id: u64, given_up: &mut Vec<BacklogEntry>) {
        self.update(id, |group| given_up.extend(group.pop_front()));
        self.change_state(id, RetryEvent::Displaced);
    }

    /// Panics if the indexes or sums do not agree with the groups. Between two calls of a backlog no attempt is under
    /// way in a test.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let due: BTreeSet<_> = self.by_id.iter().map(|(id, group)| (group.due, *id)).collect();
        assert_eq!(due, self.by_due, "each group is due at some time");
        for (channel, id) in &self.by_channel {
            assert!(self.by_id[id].channels.contains(channel), "{channel} is in its group");
        }
        let mut isolated: [IsolatedGroups; 2] = Default::default();
        for (id, group) in &self.by_id {
            assert!(!group.entries().is_empty(), "a group has entries");
            let is_alone = group.entries().len() == 1;
            assert!(is_alone || !group.state.releases_followers(), "followers have left");
            for BacklogEntry { event_json, .. } in group.entries() {
                let is_overtaken = group.state.releases_followers();
                let is_joined = self.by_channel.contains_key(&event_json.channel);
                assert!(is_joined || is_overtaken, "later events of its channel join");
            }
            isolated[usize::from(group.is_public)].add(*id, group);
        }
        for (kept, counted) in self.isolated.iter().zip(&isolated) {
            assert_eq!((&kept.ids, kept.amount), (&counted.ids, counted.amount));
        }
    }
}
