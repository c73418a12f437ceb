//! The values that a backlog exchanges with its sender: entries, attempts, and what the sender does next.
//!
//! Plain values; does not decide anything: the rules are in `backlog.rs` and `state.rs`. Limits: `batch` bounds the
//! events of one attempt (`EVENTS_MAX`, `BYTES_MAX`). Cost: an entry is moved, never copied; its JSON is shared.

use super::super::batch::EventJson;
use crate::clock::Moment;

/// An event that was tried, is being tried, or waits for one of its channel that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::webhook) struct BacklogEntry {
    pub(in crate::webhook) event_json: EventJson,
    /// Its first attempt, or the moment when it was put behind a refused event. `RetryPolicy::limit` counts from here.
    pub(super) first_attempt: Moment,
    /// The same by the host's clock, in milliseconds since 1970: `time_ms` of a request.
    pub(super) first_attempt_unix_ms: u64,
}

/// One request. It goes back to the backlog by `accepted` or `refused`.
#[derive(Debug)]
pub(in crate::webhook) struct Attempt {
    pub(in crate::webhook) entries: Vec<BacklogEntry>,
    /// The group of its events; `None` if they are tried for the first time.
    pub(super) group: Option<u64>,
}

impl Attempt {
    pub(in crate::webhook) fn events(&self) -> impl Iterator<Item = &EventJson> {
        self.entries.iter().map(|entry| &entry.event_json)
    }

    /// The same value for the same events, so that a repeated request has the same bytes.
    pub(in crate::webhook) fn unix_ms(&self) -> u64 {
        self.entries.first().map_or(0, |entry| entry.first_attempt_unix_ms)
    }
}

#[derive(Debug)]
pub(in crate::webhook) enum Next {
    Post(Attempt),
    /// Nothing before this moment, unless new events arrive.
    Wait(Moment),
    /// Nothing before this moment, even if new events arrive.
    Pause(Moment),
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::webhook) enum GiveUpReason {
    /// The endpoint's answer is final: a 4xx.
    Permanent,
    /// It was refused until the time for retries was over.
    Expired,
    /// Newer refused events need its room.
    TooMany,
}
