//! The events of channels with a refused event, in order: they are retried apart from all others.
//!
//! Owns the entries and the state of their retries. `backlog.rs` decides when a group is tried, halved or given up, and
//! limits the entries of all groups.
//!
//! Limit: `WebhookSettings::queue_events_max` and `settings::ENDPOINT_BYTES_MAX` for the entries of all groups of an
//! endpoint, checked by the dispatcher before an event comes here.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::super::batch::{Amount, EventJson};
use super::BacklogEntry;
use crate::clock::Moment;

#[derive(Debug)]
pub(super) struct RetryGroup {
    pub(super) entries: VecDeque<BacklogEntry>,
    /// Channels whose later events join this group.
    pub(super) channels: HashSet<Arc<str>>,
    /// Entries that are tried together.
    pub(super) tried_together: usize,
    /// Events of one channel are tried apart: together they were refused `TOGETHER` times.
    pub(super) tries_events_alone: bool,
    /// Refusals of the front entries since they were cut to their number.
    pub(super) refusals: u32,
    pub(super) due: Moment,
    /// `Backlog::acceptances` at the last refusal of the first entry alone.
    pub(super) refused_alone_at: Option<u64>,
    pub(super) proofs: u32,
    /// The fault of an event in front was proven, and the endpoint has accepted none of the group since.
    pub(super) is_isolated: bool,
    /// Of public channels (`Class::is_open`).
    pub(super) is_open: bool,
    pub(super) amount: Amount,
}

impl RetryGroup {
    pub(super) fn push_back(&mut self, entry: BacklogEntry) {
        self.amount.add(&entry.event_json);
        self.entries.push_back(entry);
        debug_assert_eq!(self.amount.events, self.entries.len(), "the sum of the entries");
    }

    pub(super) fn push_front(&mut self, entry: BacklogEntry) {
        self.amount.add(&entry.event_json);
        self.entries.push_front(entry);
        debug_assert_eq!(self.amount.events, self.entries.len(), "the sum of the entries");
    }

    pub(super) fn pop_front(&mut self, fits: impl Fn(&EventJson) -> bool) -> Option<BacklogEntry> {
        let entry = self.entries.pop_front_if(|entry| fits(&entry.event_json))?;
        self.amount.remove(&entry.event_json);
        debug_assert_eq!(self.amount.events, self.entries.len(), "the sum of the entries");
        Some(entry)
    }

    pub(super) fn has_several_channels(&self) -> bool {
        let mut channels = self.entries.iter().map(|entry| &entry.event_json.channel);
        let first = channels.next();
        channels.any(|channel| Some(channel) != first)
    }

    /// Another entry is in front: it has not been refused by itself.
    pub(super) fn reset_front(&mut self) {
        self.refusals = 0;
        self.proofs = 0;
        self.refused_alone_at = None;
    }
}
