//! The events that wait for one endpoint, and the choice of what is posted next. No clock and no I/O: a sender asks for
//! the next attempt and reports how it ended.
//!
//! A refused request is halved until each refused channel is alone, and after further refusals the events of one
//! channel are tried separately. So a refused event delays no event of another channel. A group has the events of
//! channels with a refused event. Later events of such a channel join its group, which keeps the order of each channel.
//! Groups and new events alternate.
//!
//! Order within a channel ends in one case: an event was refused alone `PROOFS` times, and each time the endpoint had
//! accepted others since. Then the event itself is at fault, and the later events of its channel no longer wait for it.
//!
//! Limits: the sender limits all waiting events. Isolated events and those after them may use a quarter of that limit,
//! and one group three quarters. Over either, the oldest of these events are given up. Owns the events of one endpoint
//! until they are accepted or given up.

mod attempt;
mod group;
mod split;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(super) use attempt::{Attempt, BacklogEntry, GiveUpReason, Next};
use group::RetryGroup;

use super::batch::{Amount, BYTES_MAX, EVENTS_MAX, EventJson, WaitingEvents};
use super::retry::{Policy, REFUSALS_IN_A_ROW_MAX, RetryVerdict};
use super::time::add_time;
use crate::clock::Moment;

/// Refusals between which the endpoint accepted others, after which an event no longer delays its channel.
const PROOFS: u32 = 3;
/// Refusals of events of one channel together, after which they are tried separately. Events of one channel wait for
/// each other anyway, and often come in pairs (`channel_occupied`, `member_added`).
const TOGETHER: u32 = 3;
/// The bound on waiting events is divided into parts: isolated events may use one, one group all but one.
const PARTS: usize = 4;

#[derive(Debug)]
pub(super) struct Backlog {
    policy: Policy,
    /// One of `PARTS`.
    chunk_amount: Amount,
    waiting: WaitingEvents,
    groups: BTreeMap<u64, RetryGroup>,
    due: BTreeSet<(Moment, u64)>,
    group_of: HashMap<Arc<str>, u64>,
    next_group: u64,
    /// The last attempt was a group's.
    was_group: bool,
    refusals_in_a_row: u32,
    acceptances: u64,
    paused_until: Moment,
    /// Isolated groups by class: those of signed channels, those of public ones.
    isolated: [BTreeSet<u64>; 2],
    /// The events in them, by class.
    isolated_amount: [Amount; 2],
    is_hurried: bool,
}

impl Backlog {
    /// `max` is what the sender's bounds allow in all.
    pub(super) fn new(policy: Policy, max: Amount) -> Self {
        Self {
            policy,
            chunk_amount: Amount { events: max.events / PARTS, bytes: max.bytes / PARTS },
            waiting: WaitingEvents::default(),
            groups: BTreeMap::new(),
            due: BTreeSet::new(),
            group_of: HashMap::new(),
            next_group: 0,
            was_group: false,
            refusals_in_a_row: 0,
            acceptances: 0,
            paused_until: Moment::default(),
            isolated: Default::default(),
            isolated_amount: Default::default(),
            is_hurried: false,
        }
    }

    pub(super) fn push(&mut self, event_json: EventJson) {
        self.waiting.push(event_json);
    }

    /// Whether events wait that were never tried and that do not fill a request.
    pub(super) fn has_partial_batch(&self, now: Moment) -> bool {
        !self.waiting.is_empty() && !self.waiting.is_full() && now >= self.paused_until
    }

    /// Whether no refused event is left.
    pub(super) fn has_no_refused(&self) -> bool {
        self.groups.is_empty()
    }

    /// The waiting event that is due first; for the log.
    pub(super) fn first(&self) -> Option<&EventJson> {
        let first = self.due.first().and_then(|(_, id)| self.groups.get(id)?.entries.front());
        first.map(|entry| &entry.event_json).or_else(|| self.waiting.first())
    }

    /// When the oldest waiting event was queued. Linear in the groups; in a group, events of a channel are in order.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        let groups = self.groups.values().filter_map(|group| group.entries.front());
        let groups = groups.map(|entry| entry.event_json.queued_ms);
        groups.chain(self.waiting.oldest_ms()).min()
    }

    /// The server ends: everything is due, and pauses are short from here on.
    pub(super) fn make_all_due(&mut self, now: Moment) {
        if !std::mem::replace(&mut self.is_hurried, true) {
            self.paused_until = now;
            self.all_are_due(now);
        }
    }

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
        let is_empty = self.waiting.is_empty() && self.groups.is_empty();
        if !is_empty && now < self.paused_until {
            return Next::Pause(self.paused_until);
        }
        if !self.was_group
            && let Some(group) = self.due_group(now)
        {
            self.was_group = true;
            return Next::Post(self.take_from(group));
        }
        self.was_group = false;
        let entries = self.take_new(now, unix_ms, given_up);
        if !entries.is_empty() {
            return Next::Post(Attempt { entries, group: None });
        }
        if let Some(group) = self.due_group(now) {
            return Next::Post(self.take_from(group));
        }
        self.due.first().map_or(Next::Empty, |(at, _)| Next::Wait(*at))
    }

    fn due_group(&self, now: Moment) -> Option<u64> {
        self.due.first().filter(|(at, _)| *at <= now).map(|(_, group)| *group)
    }

    /// The front of a group.
    fn take_from(&mut self, id: u64) -> Attempt {
        let mut entries = Vec::new();
        let mut bytes = 0;
        self.change(id, |group| {
            let width = group.tried_together.clamp(1, EVENTS_MAX);
            while entries.len() < width {
                let is_first = entries.is_empty();
                let fits =
                    |event_json: &EventJson| is_first || bytes + event_json.json.len() <= BYTES_MAX;
                let Some(entry) = group.pop_front(fits) else { break };
                bytes += entry.event_json.json.len();
                entries.push(entry);
            }
        });
        if let Some(group) = self.groups.get(&id) {
            self.due.remove(&(group.due, id));
        }
        Attempt { entries, group: Some(id) }
    }

    /// The events that were never tried, up to one request. Events of a channel with a group join the group.
    fn take_new(
        &mut self,
        now: Moment,
        unix_ms: u64,
        given_up: &mut Vec<BacklogEntry>,
    ) -> Vec<BacklogEntry> {
        let mut entries: Vec<BacklogEntry> = Vec::new();
        let mut bytes = 0;
        while entries.len() < EVENTS_MAX {
            let group_of = &self.group_of;
            let fits = |event_json: &EventJson| {
                entries.is_empty()
                    || bytes + event_json.json.len() <= BYTES_MAX
                    || group_of.contains_key(&event_json.channel)
            };
            let Some(event_json) = self.waiting.pop_if_fits(fits) else { break };
            if let Some(&group) = self.group_of.get(&event_json.channel) {
                self.add_to_group(
                    group,
                    BacklogEntry { event_json, first_attempt: (now, unix_ms) },
                    given_up,
                );
                continue;
            }
            bytes += event_json.json.len();
            entries.push(BacklogEntry { event_json, first_attempt: (now, unix_ms) });
        }
        entries
    }

    /// Adds an event after those of its channel.
    fn add_to_group(&mut self, id: u64, entry: BacklogEntry, given_up: &mut Vec<BacklogEntry>) {
        let (part, now) = (self.chunk_amount, entry.first_attempt.0);
        self.change(id, |group| {
            group.push_back(entry);
            let rest = PARTS - 1;
            let is_over = |group: &RetryGroup| {
                group.amount.events > part.events.saturating_mul(rest).max(1)
                    || group.amount.bytes > part.bytes.saturating_mul(rest)
            };
            while group.entries.len() > 1 && is_over(group) {
                given_up.extend(group.pop_front(|_| true));
                group.reset_front();
            }
        });
        self.release_followers(id, now);
        self.make_room(given_up);
    }

    /// The backend accepted all of it.
    pub(super) fn accepted(&mut self, attempt: &Attempt, now: Moment) {
        debug_assert!(
            attempt.group.is_none_or(|id| self.groups.contains_key(&id)),
            "its group stays"
        );
        self.acceptances += 1;
        let was_out = std::mem::take(&mut self.refusals_in_a_row) > REFUSALS_IN_A_ROW_MAX
            || self.paused_until > Moment::default();
        self.paused_until = Moment::default();
        if let Some(id) = attempt.group {
            self.change(id, |group| {
                group.is_isolated = false;
                group.tried_together = group.tried_together.saturating_mul(2).min(EVENTS_MAX);
            });
            self.end_front_retry(id, now);
        }
        if was_out {
            self.all_are_due(now);
        }
    }

    /// The backend refused it. Returns the events that are given up, with the reason.
    pub(super) fn refused(
        &mut self,
        attempt: Attempt,
        verdict: RetryVerdict,
        retry_after: Option<Duration>,
        now: Moment,
        random: u64,
    ) -> Vec<(BacklogEntry, GiveUpReason)> {
        self.refusals_in_a_row = self.refusals_in_a_row.saturating_add(1);
        let mut pause = self.policy.endpoint_pause(verdict, self.refusals_in_a_row, retry_after);
        if self.is_hurried {
            pause = pause.min(self.policy.first);
        }
        if !pause.is_zero() {
            self.paused_until = add_time(now, pause).max(self.paused_until);
        }
        debug_assert!(!attempt.entries.is_empty(), "a request has events");
        debug_assert!(
            attempt.group.is_none_or(|id| self.groups.contains_key(&id)),
            "its group stays"
        );
        let tried = attempt.entries.len();
        let id = attempt.group.unwrap_or_else(|| self.new_group(&attempt.entries, now));
        let is_final = verdict == RetryVerdict::Permanent
            && (tried == 1 || self.refusals_in_a_row > REFUSALS_IN_A_ROW_MAX);
        let limit = self.policy.limit;
        let (given_up, left): (Vec<BacklogEntry>, Vec<BacklogEntry>) = attempt
            .entries
            .into_iter()
            .partition(|entry| is_final || time_since_first_attempt(entry, now) >= limit);
        let why = if is_final { GiveUpReason::Permanent } else { GiveUpReason::Expired };
        let mut given_up: Vec<(BacklogEntry, GiveUpReason)> =
            given_up.into_iter().map(|entry| (entry, why)).collect();
        self.change(id, |group| {
            left.into_iter().rev().for_each(|entry| group.push_front(entry));
        });
        if given_up.is_empty() {
            self.reschedule_front(id, tried, verdict, now, random);
        } else {
            self.end_front_retry(id, now);
        }
        let mut too_many = Vec::new();
        self.make_room(&mut too_many);
        given_up.extend(too_many.into_iter().map(|entry| (entry, GiveUpReason::TooMany)));
        given_up
    }

    /// Schedules the front of a group again: in parts if it was more than one event, otherwise after a pause.
    fn reschedule_front(
        &mut self,
        id: u64,
        tried: usize,
        verdict: RetryVerdict,
        now: Moment,
        random: u64,
    ) {
        let Some(group) = self.groups.get(&id) else { return };
        let may_be_its_events = match verdict {
            RetryVerdict::Permanent => true,
            RetryVerdict::Transient => {
                group.tries_events_alone
                    || group.refusals >= TOGETHER
                    || group.has_several_channels()
            }
            RetryVerdict::Busy => group.tries_events_alone || group.refusals >= TOGETHER,
            RetryVerdict::Unreachable => false,
        };
        if tried > 1 && may_be_its_events {
            return self.split(id, tried, now);
        }
        let elapsed = group
            .entries
            .front()
            .map_or(Duration::ZERO, |entry| time_since_first_attempt(entry, now));
        let pause = match verdict {
            // The events are not at fault: they are due when the endpoint is tried again.
            RetryVerdict::Unreachable => Duration::ZERO,
            _ => self.policy.event_pause(group.refusals, elapsed, random).unwrap_or_default(),
        };
        let longest = if self.is_hurried { self.policy.first } else { pause };
        let pause = pause.min(longest);
        let acceptances = self.acceptances;
        let is_alone = tried == 1 && verdict == RetryVerdict::Transient;
        self.change(id, |group| {
            group.refusals = group.refusals.saturating_add(1);
            group.due = add_time(now, pause);
            if is_alone {
                let before = group.refused_alone_at.replace(acceptances);
                group.proofs += u32::from(before.is_some_and(|before| before < acceptances));
                group.is_isolated |= group.proofs > 0;
            }
        });
        self.schedule(id);
        self.release_followers(id, now);
    }

    /// The tried entries of a group are accepted or given up. The remaining entries are due.
    fn end_front_retry(&mut self, id: u64, now: Moment) {
        self.change(id, |group| {
            group.due = now;
            group.reset_front();
        });
        self.schedule(id);
    }

    /// An empty group that later events of the channels of these entries join.
    fn new_group<'a>(
        &mut self,
        of: impl IntoIterator<Item = &'a BacklogEntry>,
        now: Moment,
    ) -> u64 {
        let id = self.next_group;
        self.next_group += 1;
        let mut is_open = true;
        let channels = of.into_iter().map(|entry| {
            is_open &= entry.event_json.class.is_open();
            entry.event_json.channel.clone()
        });
        let channels: HashSet<Arc<str>> = channels.collect();
        for channel in &channels {
            self.group_of.insert(channel.clone(), id);
        }
        let group = RetryGroup {
            entries: VecDeque::new(),
            channels,
            tried_together: EVENTS_MAX,
            tries_events_alone: false,
            refusals: 0,
            due: now,
            refused_alone_at: None,
            proofs: 0,
            is_isolated: false,
            is_open,
            amount: Amount::default(),
        };
        let before = self.groups.insert(id, group);
        debug_assert!(before.is_none(), "groups have numbers of their own");
        id
    }

    /// Schedules a group, or removes it if it is empty.
    fn schedule(&mut self, id: u64) {
        let Some(group) = self.groups.get(&id) else { return };
        if !group.entries.is_empty() {
            self.due.insert((group.due, id));
            return;
        }
        self.change(id, |group| group.is_isolated = false);
        if let Some(group) = self.groups.remove(&id) {
            self.due.remove(&(group.due, id));
            for channel in &group.channels {
                // A channel may have moved to another group.
                if self.group_of.get(channel) == Some(&id) {
                    self.group_of.remove(channel);
                }
            }
        }
    }

    fn all_are_due(&mut self, now: Moment) {
        let after = Moment(now.0.saturating_add(1));
        for (_, id) in self.due.split_off(&(after, 0)) {
            if let Some(group) = self.groups.get_mut(&id) {
                group.due = now;
                self.due.insert((now, id));
            }
        }
    }

    /// Changes a group and keeps the account of isolated ones.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut RetryGroup)) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let queue = usize::from(group.is_open);
        let (groups, account) = (&mut self.isolated[queue], &mut self.isolated_amount[queue]);
        if group.is_isolated {
            account.events = account.events.saturating_sub(group.amount.events);
            account.bytes = account.bytes.saturating_sub(group.amount.bytes);
        }
        change(group);
        if group.is_isolated {
            groups.insert(id);
            account.events += group.amount.events;
            account.bytes += group.amount.bytes;
        } else {
            groups.remove(&id);
        }
    }

    /// Gives up the oldest isolated events while they are too many.
    fn make_room(&mut self, given_up: &mut Vec<BacklogEntry>) {
        for queue in 0..self.isolated.len() {
            let is_over = |account: Amount, part: Amount| {
                account.events > part.events || account.bytes > part.bytes
            };
            while is_over(self.isolated_amount[queue], self.chunk_amount) {
                let Some(&id) = self.isolated[queue].first() else { break };
                self.change(id, |group| {
                    given_up.extend(group.pop_front(|_| true));
                    group.reset_front();
                });
                if self.groups.get(&id).is_some_and(|group| group.entries.is_empty()) {
                    self.schedule(id);
                }
            }
        }
    }
}

fn time_since_first_attempt(entry: &BacklogEntry, now: Moment) -> Duration {
    Duration::from_millis(now.0.saturating_sub(entry.first_attempt.0.0))
}
