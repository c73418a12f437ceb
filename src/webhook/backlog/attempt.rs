//! The values that a backlog exchanges with its sender: entries, attempts, and what the sender does next.
//!
//! Plain values without I/O or clock; the rules are in `backlog.rs`. Limit: `batch` bounds the events of one attempt.

use super::super::batch::EventJson;
use crate::clock::Moment;

/// An event that was tried or is to be tried at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::webhook) struct BacklogEntry {
    pub(in crate::webhook) event_json: EventJson,
    /// Its first attempt or that of an event that it waits for, by the sender's clock and by the host's.
    pub(super) first_attempt: (Moment, u64),
}

/// One request. It goes back to the backlog by `accepted` or `refused`.
#[derive(Debug)]
pub(in crate::webhook) struct Attempt {
    pub(in crate::webhook) entries: Vec<BacklogEntry>,
    pub(super) group: Option<u64>,
}

impl Attempt {
    pub(in crate::webhook) fn events(&self) -> impl Iterator<Item = &EventJson> {
        self.entries.iter().map(|entry| &entry.event_json)
    }

    /// The same value for the same events, so that a repeated request has the same bytes.
    pub(in crate::webhook) fn unix_ms(&self) -> u64 {
        self.entries.first().map_or(0, |entry| entry.first_attempt.1)
    }
}

/// What a sender does next.
#[derive(Debug)]
pub(in crate::webhook) enum Next {
    Post(Attempt),
    /// Nothing before this moment, unless new events arrive.
    Wait(Moment),
    /// Nothing before this moment, even if new events arrive.
    Pause(Moment),
    Empty,
}

/// Why an event is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::webhook) enum GiveUpReason {
    Permanent,
    Expired,
    TooMany,
}
