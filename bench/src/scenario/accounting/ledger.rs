//! The rules by which deliveries are accounted for. PURE: no socket, no clock; time is an argument.
//!
//! Owns what each subscription has received and what is due to it. Does not know messages: what happened is passed in,
//! in the order in which this process saw it, and what must not happen becomes a violation. The rules are sound for any
//! server that handles the messages of one connection in order: see `Ledger`. Limits: `OVERDUE` for a delivery,
//! `REMEMBERED` for an event. Cost: an event is linear in the subscribers of its channels, an entry each; a delivery is
//! linear in what is due to that subscription.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::report::Violations;

/// A connection, never used twice: a client that reconnects gets a new one. Also its name as a publisher of client
/// events; the names of HTTP publishers count down from `u32::MAX`.
pub(crate) type ConnectionId = u32;
pub(crate) type ChannelId = usize;
pub(crate) type User = u32;

/// An event that has not arrived after this time is lost.
pub(super) const OVERDUE: Duration = Duration::from_secs(10);

/// Events older than this are forgotten; one that still arrives is a violation.
const REMEMBERED: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Joining,
    In,
    Leaving,
}

/// What every event carries in its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) publisher: u32,
    /// Counts the publisher's events, from 1.
    pub(super) number: u32,
    /// Must not get it: the sender of a client event, or the `socket_id` of a publish. 0 is nobody.
    pub(super) excluded: ConnectionId,
    pub(super) channels: Vec<ChannelId>,
}

struct Subscription {
    state: State,
    user: User,
    due: Vec<(u32, u32, Instant)>,
    /// Last number seen, by publisher.
    seen: HashMap<u32, u32>,
    roster: BTreeSet<User>,
}

/// A subscription is `Joining` from the request to the acknowledgement, `In` until the client requests to leave,
/// `Leaving` until the server has surely handled that (it answered a later ping on the same connection).
///
/// - An event sent while the subscription was `In` is *due*. It must arrive, once, unless the client leaves first. It
///   is lost when a later event of the same publisher arrives before it, or when it is overdue.
/// - An event sent before the acknowledgement, or in flight when the client leaves, may arrive or not, but not before
///   the acknowledgement, not twice, and not after the server handled the leave.
/// - The events of one publisher arrive in the order in which it sent them.
/// - A presence roster changes only by joins of users who are not in it and leaves of users who are, and never by the
///   subscriber's own user.
pub(super) struct Ledger {
    presence: Vec<bool>,
    subscriptions: HashMap<(ConnectionId, ChannelId), Subscription>,
    /// Connections that are `In`, by channel.
    subscribers: Vec<Vec<ConnectionId>>,
    /// When each recent event was sent, by publisher and number.
    sent: HashMap<(u32, u32), Instant>,
    pub(super) due_count: u64,
    pub(super) counts: Counts,
    pub(super) violations: Violations,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) events: u64,
    pub(super) due: u64,
    pub(super) deliveries_due: u64,
    pub(super) deliveries_maybe: u64,
    pub(super) excused: u64,
    pub(super) joins: u64,
    pub(super) leaves: u64,
    pub(super) member_events: u64,
}

impl Ledger {
    /// `presence` says of each channel whether it has a roster.
    pub(super) fn new(presence: Vec<bool>) -> Self {
        Self {
            subscribers: vec![Vec::new(); presence.len()],
            presence,
            subscriptions: HashMap::new(),
            sent: HashMap::new(),
            due_count: 0,
            counts: Counts::default(),
            violations: Violations::default(),
        }
    }

    pub(super) fn state(&self, connection: ConnectionId, channel: ChannelId) -> Option<State> {
        self.subscriptions.get(&(connection, channel)).map(|subscription| subscription.state)
    }

    /// Whether the subscription has received everything that is due to it.
    pub(super) fn is_even(&self, connection: ConnectionId, channel: ChannelId) -> bool {
        let subscription = self.subscriptions.get(&(connection, channel));
        subscription.is_none_or(|subscription| subscription.due.is_empty())
    }

    pub(super) fn subscribers(&self, channel: ChannelId) -> &[ConnectionId] {
        &self.subscribers[channel]
    }

    /// The users whose subscription is acknowledged.
    pub(super) fn users(&self, channel: ChannelId) -> BTreeSet<User> {
        let key = |&connection: &ConnectionId| (connection, channel);
        let users = self.subscribers[channel].iter().map(key);
        users.filter_map(|key| self.subscriptions.get(&key)).map(|found| found.user).collect()
    }

    pub(super) fn joining(&mut self, connection: ConnectionId, channel: ChannelId, user: User) {
        let subscription = Subscription {
            state: State::Joining,
            user,
            due: Vec::new(),
            seen: HashMap::new(),
            roster: BTreeSet::new(),
        };
        let before = self.subscriptions.insert((connection, channel), subscription);
        assert!(before.is_none(), "a client subscribes only where it is not");
    }

    pub(super) fn acknowledged(
        &mut self,
        connection: ConnectionId,
        channel: ChannelId,
        roster: BTreeSet<User>,
    ) {
        let place = || format!("connection {connection}, channel {channel}");
        let Some(subscription) = self.subscriptions.get_mut(&(connection, channel)) else {
            return self.violations.add(|| format!("{}: acknowledged, never asked", place()));
        };
        if subscription.state != State::Joining {
            return self.violations.add(|| format!("{}: acknowledged again", place()));
        }
        if self.presence[channel] && !roster.contains(&subscription.user) {
            self.violations.add(|| format!("{}: not in its own roster", place()));
        }
        subscription.state = State::In;
        subscription.roster = roster;
        self.subscribers[channel].push(connection);
        self.counts.joins += 1;
    }

    /// The client is about to ask to leave, or to close.
    pub(super) fn leaving(&mut self, connection: ConnectionId, channel: ChannelId) {
        let Some(subscription) = self.subscriptions.get_mut(&(connection, channel)) else { return };
        subscription.state = State::Leaving;
        let excused = subscription.due.len() as u64;
        subscription.due = Vec::new();
        self.due_count -= excused;
        self.counts.excused += excused;
        self.counts.leaves += 1;
        self.subscribers[channel].retain(|&other| other != connection);
    }

    /// The server has handled the leave, or the connection is gone.
    pub(super) fn left(&mut self, connection: ConnectionId, channel: ChannelId) {
        self.subscriptions.remove(&(connection, channel));
    }

    pub(super) fn published(&mut self, event: &Event, now: Instant) {
        let Event { publisher, number, excluded, ref channels } = *event;
        self.counts.events += 1;
        self.sent.insert((publisher, number), now);
        for &channel in channels {
            for &connection in &self.subscribers[channel] {
                if connection == excluded {
                    continue;
                }
                let subscription = self.subscriptions.get_mut(&(connection, channel));
                let subscription = subscription.expect("a subscriber has a subscription");
                subscription.due.push((publisher, number, now));
                self.due_count += 1;
                self.counts.due += 1;
            }
        }
    }

    pub(super) fn delivered(
        &mut self,
        connection: ConnectionId,
        channel: ChannelId,
        event: &Event,
    ) {
        let Event { publisher, number, excluded, ref channels } = *event;
        let what =
            || format!("event {publisher}.{number} to connection {connection}, channel {channel}");
        if !channels.contains(&channel) || !self.sent.contains_key(&(publisher, number)) {
            return self.violations.add(|| format!("{}: not of this channel, or old", what()));
        }
        if excluded == connection {
            return self.violations.add(|| format!("{}: was to be left out", what()));
        }
        let Some(subscription) = self.subscriptions.get_mut(&(connection, channel)) else {
            return self.violations.add(|| format!("{}: after it had left", what()));
        };
        if subscription.state == State::Joining {
            self.violations.add(|| format!("{}: before its acknowledgement", what()));
        }
        let last = subscription.seen.entry(publisher).or_default();
        if number <= *last {
            self.violations.add(|| format!("{}: twice, or after event {last}", what()));
        }
        *last = number.max(*last);
        let mut was_due = false;
        subscription.due.retain(|&(other, earlier, _)| {
            let gone = other == publisher && earlier <= number;
            if gone {
                self.due_count -= 1;
                was_due |= earlier == number;
            }
            if gone && earlier < number {
                self.violations.add(|| format!("{}: event {earlier} before it is lost", what()));
            }
            !gone
        });
        let counts = &mut self.counts;
        let kind = if was_due { &mut counts.deliveries_due } else { &mut counts.deliveries_maybe };
        *kind += 1;
    }

    pub(super) fn member(
        &mut self,
        connection: ConnectionId,
        channel: ChannelId,
        user: User,
        added: bool,
    ) {
        self.counts.member_events += 1;
        let verb = if added { "added" } else { "removed" };
        let what = || format!("user {user} {verb}: connection {connection}, channel {channel}");
        let Some(subscription) = self.subscriptions.get_mut(&(connection, channel)) else {
            return self.violations.add(|| format!("{}, which had left", what()));
        };
        match subscription.state {
            State::Joining => {
                return self.violations.add(|| format!("{} before its roster", what()));
            }
            // Its own user may be seen to leave, by its own leave.
            State::Leaving => return,
            State::In => {}
        }
        if user == subscription.user {
            self.violations.add(|| format!("{}: its own user", what()));
        }
        let changed = if added {
            subscription.roster.insert(user)
        } else {
            subscription.roster.remove(&user)
        };
        if !changed {
            let state = if added { "already" } else { "not" };
            self.violations.add(|| format!("{}: was {state} in its roster", what()));
        }
    }

    /// Whether every roster is what the acknowledged subscriptions say; otherwise one that is not.
    pub(super) fn rosters(&self) -> Result<(), String> {
        for (channel, subscribers) in self.subscribers.iter().enumerate() {
            if !self.presence[channel] {
                continue;
            }
            let users = self.users(channel);
            for &connection in subscribers {
                let roster = &self.subscriptions[&(connection, channel)].roster;
                if *roster != users {
                    let extra: Vec<_> = roster.difference(&users).collect();
                    let missing: Vec<_> = users.difference(roster).collect();
                    return Err(format!(
                        "roster of connection {connection} on channel {channel}: \
                         {extra:?} too many, {missing:?} missing"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Reports what is overdue and forgets what is old.
    pub(super) fn sweep(&mut self, now: Instant) {
        for (&(connection, channel), subscription) in &mut self.subscriptions {
            subscription.due.retain(|&(publisher, number, sent)| {
                let overdue = now.duration_since(sent) > OVERDUE;
                if overdue {
                    self.due_count -= 1;
                    self.violations.add(|| {
                        format!(
                            "event {publisher}.{number} to connection {connection}, \
                             channel {channel}: lost (not within {OVERDUE:?})"
                        )
                    });
                }
                !overdue
            });
        }
        self.sent.retain(|_, sent| now.duration_since(*sent) < REMEMBERED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: ChannelId = 0;

    fn event(number: u32, excluded: ConnectionId) -> Event {
        Event { publisher: 900, number, excluded, channels: vec![CHANNEL] }
    }

    /// A ledger with connections 1 and 2 in a presence channel, as users 1 and 2.
    fn two_subscribers() -> Ledger {
        let mut ledger = Ledger::new(vec![true]);
        for (connection, roster) in [(1, vec![1]), (2, vec![1, 2])] {
            ledger.joining(connection, CHANNEL, connection);
            ledger.acknowledged(connection, CHANNEL, roster.into_iter().collect());
        }
        ledger.member(1, CHANNEL, 2, true);
        ledger
    }

    fn violations(ledger: &Ledger) -> (u64, &str) {
        (ledger.violations.count, ledger.violations.first().unwrap_or_default())
    }

    #[test]
    fn a_complete_delivery_has_no_violation() {
        let mut ledger = two_subscribers();
        ledger.published(&event(1, 0), Instant::now());
        assert_eq!(ledger.due_count, 2);
        assert!(!ledger.is_even(1, CHANNEL));
        ledger.delivered(1, CHANNEL, &event(1, 0));
        ledger.delivered(2, CHANNEL, &event(1, 0));
        assert_eq!(ledger.due_count, 0);
        assert!(ledger.is_even(1, CHANNEL));
        assert_eq!(ledger.rosters(), Ok(()));
        assert_eq!(ledger.violations.count, 0);
    }

    #[test]
    fn a_gap_is_a_loss_and_a_repeat_is_a_duplicate() {
        let mut ledger = two_subscribers();
        for number in 1..=2 {
            ledger.published(&event(number, 0), Instant::now());
        }
        ledger.delivered(1, CHANNEL, &event(2, 0));
        assert!(violations(&ledger).1.contains("is lost"));
        ledger.delivered(1, CHANNEL, &event(2, 0));
        assert_eq!(ledger.violations.count, 2);
        ledger.delivered(1, CHANNEL, &event(1, 0));
        assert_eq!(ledger.violations.count, 3, "out of order");
    }

    #[test]
    fn an_event_that_never_comes_is_overdue() {
        let mut ledger = two_subscribers();
        let now = Instant::now();
        ledger.published(&event(1, 2), now);
        ledger.sweep(now + OVERDUE / 2);
        assert_eq!(ledger.violations.count, 0);
        ledger.sweep(now + OVERDUE * 2);
        assert_eq!(ledger.violations.count, 1, "due to one, the other is excluded");
        assert_eq!(ledger.due_count, 0);
    }

    #[test]
    fn the_excluded_connection_must_not_get_it() {
        let mut ledger = two_subscribers();
        ledger.published(&event(1, 2), Instant::now());
        ledger.delivered(2, CHANNEL, &event(1, 2));
        assert!(violations(&ledger).1.contains("left out"));
    }

    #[test]
    fn on_its_way_in_or_out_an_event_may_arrive_but_only_in_between() {
        let mut ledger = two_subscribers();
        ledger.joining(3, CHANNEL, 3);
        ledger.published(&event(1, 0), Instant::now());
        ledger.acknowledged(3, CHANNEL, [1, 2, 3].into());
        ledger.delivered(3, CHANNEL, &event(1, 0));
        assert_eq!(ledger.violations.count, 0);
        ledger.published(&event(2, 0), Instant::now());
        ledger.leaving(3, CHANNEL);
        ledger.delivered(3, CHANNEL, &event(2, 0));
        assert_eq!(ledger.violations.count, 0);
        ledger.left(3, CHANNEL);
        ledger.delivered(3, CHANNEL, &event(2, 0));
        assert!(violations(&ledger).1.contains("had left"));
        ledger.joining(4, CHANNEL, 4);
        ledger.delivered(4, CHANNEL, &event(2, 0));
        assert_eq!(ledger.violations.count, 2, "before the acknowledgement");
    }

    #[test]
    fn an_event_that_was_not_sent_is_a_violation() {
        let mut ledger = two_subscribers();
        ledger.delivered(1, CHANNEL, &event(1, 0));
        assert_eq!(ledger.violations.count, 1);
    }

    #[test]
    fn rosters_change_by_possible_joins_and_leaves() {
        let mut ledger = two_subscribers();
        ledger.member(1, CHANNEL, 3, true);
        assert!(ledger.rosters().is_err(), "user 3 has no acknowledged subscription");
        ledger.member(1, CHANNEL, 3, false);
        assert_eq!(ledger.rosters(), Ok(()));
        assert_eq!(ledger.violations.count, 0);
        ledger.member(1, CHANNEL, 3, false);
        ledger.member(1, CHANNEL, 2, true);
        ledger.member(1, CHANNEL, 1, true);
        assert_eq!(ledger.violations.count, 4, "removed twice; added twice; itself, twice wrong");
    }
}
