//! The events of channels with a refused event, in order: they are retried apart from all others.
//!
//! Owns the entries, their sum, and the state of their retries (`state.rs`). Does not decide when a group is tried or
//! split (`backlog.rs`, `split.rs`), and does not limit itself. Limits: `groups.rs` limits the entries of a group and
//! of all isolated groups; `sender/load.rs` limits all events of the endpoint. Cost: one step for each entry that is
//! added or removed; `has_several_channels` is linear in the entries.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::BacklogEntry;
use super::state::RetryState;
use crate::clock::Moment;
use crate::webhook::batch::{Amount, BYTES_MAX, EventJson};

#[derive(Debug)]
pub(super) struct RetryGroup {
    entries: VecDeque<BacklogEntry>,
    /// The sum of `entries`.
    amount: Amount,
    /// Channels whose later events join this group.
    pub(super) channels: HashSet<Arc<str>>,
    pub(super) state: RetryState,
    pub(super) due: Moment,
    /// All its channels are public (`Class::is_public`).
    pub(super) is_public: bool,
}

impl RetryGroup {
    /// Without entries: the caller adds them before the group is scheduled.
    pub(super) fn new(
        channels: HashSet<Arc<str>>,
        is_public: bool,
        state: RetryState,
        due: Moment,
    ) -> Self {
        let (entries, amount) = (VecDeque::new(), Amount::default());
        Self { entries, amount, channels, state, due, is_public }
    }

    pub(super) fn entries(&self) -> &VecDeque<BacklogEntry> {
        &self.entries
    }

    pub(super) fn amount(&self) -> Amount {
        self.amount
    }

    pub(super) fn push_back(&mut self, entry: BacklogEntry) {
        self.amount.add(&entry.event_json);
        self.entries.push_back(entry);
        debug_assert_eq!(self.amount.events, self.entries.len(), "the sum of the entries");
    }

    /// Puts entries of an attempt back in front of the others, in their order.
    pub(super) fn put_back(&mut self, entries: Vec<BacklogEntry>) {
        for entry in entries.into_iter().rev() {
            self.amount.add(&entry.event_json);
            self.entries.push_front(entry);
        }
        debug_assert_eq!(self.amount.events, self.entries.len(), "the sum of the entries");
    }

    pub(super) fn pop_front(&mut self) -> Option<BacklogEntry> {
        self.pop_front_if(|_| true)
    }

    fn pop_front_if(&mut self, fits: impl Fn(&EventJson) -> bool) -> Option<BacklogEntry> {
        let entry = self.entries.pop_front_if(|entry| fits(&entry.event_json))?;
        self.amount.remove(&entry.event_json);
        debug_assert_eq!(self.amount.events, self.entries.len(), "the sum of the entries");
        Some(entry)
    }

    /// Removes the events of the next request: at most `Trial::events_max` and `BYTES_MAX`, but at least one.
    pub(super) fn pop_request(&mut self) -> Vec<BacklogEntry> {
        let mut entries: Vec<BacklogEntry> = Vec::new();
        let mut bytes = 0;
        while entries.len() < self.state.trial().events_max {
            let is_first = entries.is_empty();
            let fits =
                |event_json: &EventJson| is_first || bytes + event_json.json.len() <= BYTES_MAX;
            let Some(entry) = self.pop_front_if(fits) else { break };
            bytes += entry.event_json.json.len();
            entries.push(entry);
        }
        entries
    }

    /// Removes the entries for which `is_moved` is true, with their channels. Both parts keep their order.
    pub(super) fn move_out(
        &mut self,
        is_moved: impl FnMut(&BacklogEntry) -> bool,
    ) -> VecDeque<BacklogEntry> {
        let entries = std::mem::take(&mut self.entries).into_iter();
        let (moved, rest): (VecDeque<_>, VecDeque<_>) = entries.partition(is_moved);
        self.amount = Amount::default();
        rest.into_iter().for_each(|entry| self.push_back(entry));
        for entry in &moved {
            self.channels.remove(&entry.event_json.channel);
        }
        moved
    }

    pub(super) fn has_several_channels(&self) -> bool {
        let mut channels = self.entries.iter().map(|entry| &entry.event_json.channel);
        let first = channels.next();
        channels.any(|channel| Some(channel) != first)
    }
}

impl BacklogEntry {
    pub(super) fn time_since_first_attempt(&self, now: Moment) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.first_attempt.0))
    }
}
