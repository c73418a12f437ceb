//! Splits a group of refused events, so that events that are not at fault are delivered.
//!
//! Owns no state: it moves entries between the groups of `groups.rs`. PURE; does not post or decide when. Limit: none
//! of its own, because it adds no entry. Cost: linear in the entries of the group.

use std::collections::HashSet;
use std::sync::Arc;

use super::BacklogEntry;
use super::groups::RetryGroups;
use crate::clock::Moment;

impl RetryGroups {
    /// Moves half of the channels of a group into a new group, which is tried last. Each half is a request of its own,
    /// so good events are found early whether refused events are adjacent or not.
    pub(super) fn split_channels(&mut self, id: u64, now: Moment) {
        let Some(group) = self.get(id) else { return };
        let entries = group.entries();
        let half = (entries.len() / 2).max(1);
        let channels = |count: usize| -> HashSet<Arc<str>> {
            entries.iter().take(count).map(|entry| entry.event_json.channel.clone()).collect()
        };
        let mut kept = channels(half);
        if kept.len() == channels(entries.len()).len() {
            // All channels are in the first half: only the first one stays.
            kept = channels(1);
        }
        self.move_out(id, now, |entry| !kept.contains(&entry.event_json.channel));
    }

    /// If the first event itself is at fault, the events after it get a group and no longer wait for it.
    pub(super) fn release_followers(&mut self, id: u64, now: Moment) {
        let has_to_release = self
            .get(id)
            .is_some_and(|group| group.state.releases_followers() && group.entries().len() > 1);
        if has_to_release {
            let mut number = 0;
            self.move_out(id, now, |_| {
                number += 1;
                number > 1
            });
        }
    }

    fn move_out(&mut self, id: u64, now: Moment, is_moved: impl FnMut(&BacklogEntry) -> bool) {
        let Some(state) = self.get(id).map(|group| group.state) else { return };
        let mut moved = Vec::new();
        self.update(id, |group| {
            moved = group.move_out(is_moved).into();
            group.state = group.state.of_remaining(group.entries().len());
        });
        let new = self.add(&moved, state.of_moved(moved.len()), now);
        self.update(new, |group| group.put_back(moved));
        self.schedule(new, now);
    }
}
