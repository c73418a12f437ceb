//! The events that wait for one endpoint, and the choice of what is posted next.
//!
//! A sender asks for the next attempt and reports its end. Refused events form a group, which is retried apart from new
//! events, so that they delay no event of another channel. Groups and new events alternate. A group is split until each
//! refused channel is alone. Later events of a channel with a group join it, which keeps the order of each channel,
//! until one event is proven at fault: the later events of its channel no longer wait for it (`backlog/state.rs`).
//!
//! Owns the events of one endpoint until they are accepted or given up. PURE; knows no request and no log. Limits: the
//! sender limits all waiting events, `backlog/groups.rs` those of groups. Cost: O(log n) steps in the groups for an
//! attempt, and one step for each of its events; `oldest_ms` is linear in the groups.

mod attempt;
mod endpoint;
mod group;
mod groups;
mod split;
mod state;

use std::time::Duration;

pub(super) use attempt::{Attempt, BacklogEntry, GiveUpReason, Next};
use endpoint::EndpointState;
use groups::RetryGroups;
use state::{Effect, Refusal, RetryEvent, RetryState};

use super::batch::{Amount, BYTES_MAX, EVENTS_MAX, EventJson, WaitingEvents};
use super::retry::{REFUSALS_IN_A_ROW_MAX, RetryPolicy, RetryVerdict};
use super::time::add_time;
use crate::clock::Moment;

#[derive(Debug)]
pub(super) struct Backlog {
    policy: RetryPolicy,
    endpoint: EndpointState,
    /// Events that were never tried.
    waiting: WaitingEvents,
    groups: RetryGroups,
    /// The last attempt was a group's, so events that were never tried are next.
    is_turn_of_waiting: bool,
    /// Requests that the endpoint has accepted. A rise between two refusals of an event proves that the endpoint works.
    acceptances: u64,
    /// Requests in a row that the endpoint answered with a final status, a 4xx. An outage ends the row, so that the
    /// first such answer after it counts as one.
    final_in_a_row: u32,
    /// The server ends, so pauses are short.
    is_hurried: bool,
}

impl Backlog {
    /// `max` is what the sender's limits allow in all.
    pub(super) fn new(policy: RetryPolicy, max: Amount) -> Self {
        Self {
            policy,
            endpoint: EndpointState::Accepting,
            waiting: WaitingEvents::default(),
            groups: RetryGroups::new(max),
            is_turn_of_waiting: false,
            acceptances: 0,
            final_in_a_row: 0,
            is_hurried: false,
        }
    }

    pub(super) fn push(&mut self, event_json: EventJson) {
        self.waiting.push(event_json);
    }

    /// Whether events wait that were never tried and that do not fill a request.
    pub(super) fn has_partial_batch(&self, now: Moment) -> bool {
        !self.waiting.is_empty() && !self.waiting.is_full() && !self.is_paused(now)
    }

    /// Whether the whole endpoint pauses, so that events which it did not refuse wait, too.
    pub(super) fn is_paused(&self, now: Moment) -> bool {
        self.endpoint.paused_until(now).is_some()
    }

    pub(super) fn has_no_refused(&self) -> bool {
        self.groups.is_empty()
    }

    /// The waiting event that is due first; for the log.
    pub(super) fn first(&self) -> Option<&EventJson> {
        let first_due = self.groups.first_due().and_then(|(_, id)| self.groups.get(id));
        let entry = first_due.and_then(|group| group.entries().front());
        entry.map(|entry| &entry.event_json).or_else(|| self.waiting.first())
    }

    /// When the oldest waiting event was queued, in milliseconds since 1970.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.groups.oldest_ms().into_iter().chain(self.waiting.oldest_ms()).min()
    }

    /// The server ends: everything is due, and pauses are short from here on. Only the first call has an effect.
    pub(super) fn make_all_due(&mut self, now: Moment) {
        if !std::mem::replace(&mut self.is_hurried, true) {
            self.endpoint = self.endpoint.without_pause(now);
            self.groups.make_all_due(now);
        }
    }

    /// What the sender does, and the events that were given up for lack of room. After `Next::Post`, `accepted` or
    /// `refused` is called before the next call of this.
    pub(super) fn next(&mut self, now: Moment, unix_ms: u64) -> (Next, Vec<BacklogEntry>) {
        let mut given_up = Vec::new();
        let next = self.next_attempt(now, unix_ms, &mut given_up);
        debug_assert!(
            !matches!(&next, Next::Post(attempt) if attempt.entries.len() > EVENTS_MAX),
            "a request has at most as many events"
        );
        debug_assert!(
            !matches!(next, Next::Wait(at) if at <= now),
            "what is due is not waited for"
        );
        (next, given_up)
    }

    fn next_attempt(
        &mut self,
        now: Moment,
        unix_ms: u64,
        given_up: &mut Vec<BacklogEntry>,
    ) -> Next {
        if self.waiting.is_empty() && self.groups.is_empty() {
            self.is_turn_of_waiting = false;
            return Next::Empty;
        }
        if let Some(until) = self.endpoint.paused_until(now) {
            return Next::Pause(until);
        }
        if !self.is_turn_of_waiting
            && let Some(attempt) = self.pop_due_group(now)
        {
            self.is_turn_of_waiting = true;
            return Next::Post(attempt);
        }
        self.is_turn_of_waiting = false;
        let entries = self.pop_waiting(now, unix_ms, given_up);
        if !entries.is_empty() {
            return Next::Post(Attempt { entries, group: None });
        }
        if let Some(attempt) = self.pop_due_group(now) {
            return Next::Post(attempt);
        }
        self.groups.first_due().map_or(Next::Empty, |(due, _)| Next::Wait(due))
    }

    fn pop_due_group(&mut self, now: Moment) -> Option<Attempt> {
        let (_, id) = self.groups.first_due().filter(|(due, _)| *due <= now)?;
        Some(Attempt { entries: self.groups.pop_request(id), group: Some(id) })
    }

    /// The events that were never tried, up to one request. Events of a channel with a group join the group.
    fn pop_waiting(
        &mut self,
        now: Moment,
        unix_ms: u64,
        given_up: &mut Vec<BacklogEntry>,
    ) -> Vec<BacklogEntry> {
        let mut entries: Vec<BacklogEntry> = Vec::new();
        let mut bytes = 0;
        while entries.len() < EVENTS_MAX {
            let groups = &self.groups;
            let fits = |event_json: &EventJson| {
                entries.is_empty()
                    || bytes + event_json.json.len() <= BYTES_MAX
                    || groups.of_channel(&event_json.channel).is_some()
            };
            let Some(event_json) = self.waiting.pop_if_fits(fits) else { break };
            let group = groups.of_channel(&event_json.channel);
            let length = event_json.json.len();
            let entry =
                BacklogEntry { event_json, first_attempt: now, first_attempt_unix_ms: unix_ms };
            if let Some(group) = group {
                self.groups.join(group, entry, now, given_up);
                continue;
            }
            bytes += length;
            entries.push(entry);
        }
        entries
    }

    /// The backend accepted all of the attempt. If it was out before, all refused events are due at once.
    pub(super) fn accepted(&mut self, attempt: &Attempt, now: Moment) {
        self.acceptances += 1;
        self.final_in_a_row = 0;
        let was_out = self.endpoint.is_out();
        self.endpoint = EndpointState::Accepting;
        if let Some(id) = attempt.group {
            debug_assert!(self.groups.get(id).is_some(), "the group of an attempt stays");
            self.change_group(id, RetryEvent::Accepted, now, 0);
        }
        if was_out {
            self.groups.make_all_due(now);
        }
    }

    /// The backend refused it. Returns the events that are given up, with the reason. `random` is any number.
    pub(super) fn refused(
        &mut self,
        attempt: Attempt,
        verdict: RetryVerdict,
        retry_after: Option<Duration>,
        now: Moment,
        random: u64,
    ) -> Vec<(BacklogEntry, GiveUpReason)> {
        debug_assert!(!attempt.entries.is_empty(), "a request has events");
        self.pause_endpoint(verdict, retry_after, now);
        self.final_in_a_row = match verdict {
            RetryVerdict::Permanent => self.final_in_a_row.saturating_add(1),
            RetryVerdict::Transient | RetryVerdict::Busy | RetryVerdict::Unreachable => 0,
        };
        let tried = attempt.entries.len();
        let group = attempt.group;
        let id = group.unwrap_or_else(|| self.groups.add(&attempt.entries, RetryState::new(), now));
        let is_final = verdict == RetryVerdict::Permanent
            && (tried == 1 || self.final_in_a_row > REFUSALS_IN_A_ROW_MAX);
        let (given_up, left): (Vec<BacklogEntry>, Vec<BacklogEntry>) =
            attempt.entries.into_iter().partition(|entry| is_final || self.is_expired(entry, now));
        debug_assert!(self.groups.get(id).is_some(), "the group of an attempt stays");
        self.groups.update(id, |group| group.put_back(left));
        let event = match given_up.is_empty() {
            true => RetryEvent::Refused(Refusal {
                tried,
                verdict,
                has_several_channels: self
                    .groups
                    .get(id)
                    .is_some_and(|group| group.has_several_channels()),
                acceptances: self.acceptances,
            }),
            false => RetryEvent::GivenUp,
        };
        self.change_group(id, event, now, random);
        let mut displaced = Vec::new();
        self.groups.make_room(&mut displaced);
        let why = if is_final { GiveUpReason::Permanent } else { GiveUpReason::Expired };
        let given_up = given_up.into_iter().map(|entry| (entry, why));
        given_up.chain(displaced.into_iter().map(|entry| (entry, GiveUpReason::TooMany))).collect()
    }

    fn is_expired(&self, entry: &BacklogEntry, now: Moment) -> bool {
        entry.time_since_first_attempt(now) >= self.policy.limit
    }

    fn pause_endpoint(
        &mut self,
        verdict: RetryVerdict,
        retry_after: Option<Duration>,
        now: Moment,
    ) {
        let in_a_row = self.endpoint.refusals_in_a_row().saturating_add(1);
        let pause = self.policy.endpoint_pause(verdict, in_a_row, retry_after);
        self.endpoint = self.endpoint.refused(self.short_at_end(pause), now);
    }

    /// Ends the attempt of a group: changes its state, and does what the state says.
    fn change_group(&mut self, id: u64, event: RetryEvent, now: Moment, random: u64) {
        let effect = self.groups.change_state(id, event);
        let Some(group) = self.groups.get(id) else { return };
        let due = match effect {
            Effect::TryNow => now,
            Effect::KeepDue | Effect::SplitChannels => group.due,
            Effect::Pause { refusals } => {
                let first = group.entries().front();
                let elapsed = first.map(|entry| entry.time_since_first_attempt(now));
                let elapsed = elapsed.unwrap_or_default();
                let pause = self.policy.event_pause(refusals, elapsed, random).unwrap_or_default();
                add_time(now, self.short_at_end(pause))
            }
        };
        self.groups.schedule(id, due);
        if effect == Effect::SplitChannels {
            self.groups.split_channels(id, now);
        }
        self.groups.release_followers(id, now);
    }

    fn short_at_end(&self, pause: Duration) -> Duration {
        if self.is_hurried { pause.min(self.policy.first) } else { pause }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.groups.check();
    }
}
