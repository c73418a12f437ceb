//! Splits a group of refused events, so that events that are not at fault are delivered.
//!
//! A part of `Backlog`: it moves entries between groups, and does not post or decide when. PURE. Cost: linear in the
//! entries of the group. Limits: those of `backlog.rs`.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::group::RetryGroup;
use super::{Backlog, BacklogEntry, PROOFS};
use crate::clock::Moment;
use crate::webhook::batch::{Amount, EVENTS_MAX};

impl Backlog {
    /// Halves the channels of a group; for a single channel, halves the events that are tried together. The first half
    /// is next and the second half last, so that good events are found early whether refused events are adjacent or
    /// not.
    pub(super) fn split(&mut self, id: u64, tried: usize, now: Moment) {
        self.change(id, |group| {
            group.refusals = 0;
            group.tried_together = (tried / 2).max(1);
            group.tries_events_alone = !group.has_several_channels();
        });
        self.schedule(id);
        let Some(group) = self.groups.get(&id) else { return };
        let mut first: HashSet<Arc<str>> = HashSet::new();
        if !group.has_several_channels() {
            return;
        }
        let mut all: HashSet<&Arc<str>> = HashSet::new();
        let half = group.entries.len() / 2;
        for (number, entry) in group.entries.iter().enumerate() {
            let channel = &entry.event_json.channel;
            if number < half.max(1) {
                first.insert(channel.clone());
            }
            all.insert(channel);
        }
        if first.len() == all.len() {
            // All channels are in the first half: the first one goes by itself.
            let alone = group.entries.front().map(|entry| entry.event_json.channel.clone());
            first = alone.into_iter().collect();
        }
        self.move_out(id, now, |entry| !first.contains(&entry.event_json.channel));
    }

    /// If the first event itself is at fault, the events after it get a group and no longer wait for it.
    pub(super) fn release_followers(&mut self, id: u64, now: Moment) {
        let is_proven = |group: &RetryGroup| group.proofs >= PROOFS && group.entries.len() > 1;
        if !self.groups.get(&id).is_some_and(is_proven) {
            return;
        }
        let mut number = 0;
        self.move_out(id, now, |_| {
            number += 1;
            number > 1
        });
    }

    /// Moves entries into a new group, with their channels.
    fn move_out(&mut self, id: u64, now: Moment, mut is_moved: impl FnMut(&BacklogEntry) -> bool) {
        let mut moved = VecDeque::new();
        self.change(id, |group| {
            let entries = std::mem::take(&mut group.entries).into_iter();
            let (out, rest): (VecDeque<_>, VecDeque<_>) = entries.partition(&mut is_moved);
            moved = out;
            group.amount = Amount::default();
            rest.into_iter().for_each(|entry| group.push_back(entry));
            group.tried_together = group.entries.len().clamp(1, EVENTS_MAX);
            for entry in &moved {
                group.channels.remove(&entry.event_json.channel);
            }
        });
        let is_isolated = self.groups.get(&id).is_some_and(|group| group.is_isolated);
        let new = self.new_group(&moved, now);
        self.change(new, |group| {
            group.is_isolated = is_isolated;
            group.tried_together = moved.len().clamp(1, EVENTS_MAX);
            moved.into_iter().for_each(|entry| group.push_back(entry));
        });
        self.schedule(new);
    }
}
