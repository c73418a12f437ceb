//! Which events pass to the endpoints, and when (docs/PROTOCOL.md rule 76). No clock and no I/O: time comes in with
//! each call.
//!
//! A leave is delayed by the debounce time, and a join in that time cancels both. A cache miss of one channel passes
//! once in `MISS_QUIET_MS`. Events of one channel come from its home core, so they arrive in order, and only leaves are
//! delayed. A join never overtakes its leave: while the leave is delayed both are discarded, and later the leave was
//! sent first. A leave is delayed for less than the debounce time only if its app and class have too many
//! (`DELAYED_MAX`), or the server ends.
//!
//! Limits: `DELAYED_MAX` leaves that are delayed, `MISSES_MAX` channels whose cache miss is remembered. When the first
//! is full, the oldest leave of the largest app and class is sent early, and counted. Owns the leaves that are delayed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::budget::Class;
use super::input::ClassedEvent;
use crate::app::AppIndex;
use crate::clock::Moment;
use crate::pusher::webhook_event::{Happening, WebhookEvent};

/// Leaves delayed at a time, a few hundred bytes each. Beyond it, the oldest leave of the app and class with the most
/// is sent early. So a flood of one app, or on public channels, shortens only its own delays.
const DELAYED_MAX: usize = 100_000;
/// Channels whose cache miss was sent recently. Beyond it the oldest is forgotten, so its cache miss may be sent again.
const MISSES_MAX: usize = 10_000;
/// How long a cache miss is not repeated, in milliseconds.
const MISS_QUIET_MS: u64 = 10_000;

/// The unit that shares the bound: an app, and the credentials that such events need.
type GateClass = (AppIndex, Class);

/// A channel, or a user in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct DelayedName {
    app: AppIndex,
    channel: Arc<str>,
    user: Option<Box<str>>,
}

/// A join or a leave, of a channel or of a user.
enum Move {
    Came(Option<Box<str>>),
    Left(Option<Box<str>>),
}

#[derive(Debug)]
pub(super) struct Gate {
    debounce_ms: u64,
    delayed_max: usize,
    /// By the order in which they were delayed, which is the order in which they are due.
    delayed: BTreeMap<u64, (Moment, Class, WebhookEvent)>,
    /// The keys of `delayed` of each app and class that has any.
    groups: HashMap<GateClass, BTreeSet<u64>>,
    /// The key of `delayed` for each channel or user in it.
    delayed_by_name: HashMap<DelayedName, u64>,
    next_key: u64,
    /// Leaves that were sent before they were due, because `delayed` was full.
    released_early: u64,
    misses_sent: HashSet<(AppIndex, Arc<str>)>,
    /// The same channels, each with the end of its quiet time, oldest first.
    misses_by_age: VecDeque<(Moment, AppIndex, Arc<str>)>,
}

impl Gate {
    pub(super) fn new(debounce: Duration) -> Self {
        Self {
            debounce_ms: u64::try_from(debounce.as_millis()).unwrap_or(u64::MAX),
            delayed_max: DELAYED_MAX,
            delayed: BTreeMap::new(),
            groups: HashMap::new(),
            delayed_by_name: HashMap::new(),
            next_key: 0,
            released_early: 0,
            misses_sent: HashSet::new(),
            misses_by_age: VecDeque::new(),
        }
    }

    /// Processes an event; events that may be sent now are appended to `out`, in order.
    pub(super) fn accept(
        &mut self,
        class: Class,
        event: WebhookEvent,
        now: Moment,
        out: &mut Vec<ClassedEvent>,
    ) {
        self.release(now, out);
        match move_of(&event.happening) {
            Some(Move::Came(user)) => {
                if !self.remove_delayed(&delayed_name_of(&event, user)) {
                    out.push((class, event));
                }
            }
            Some(Move::Left(user)) if self.debounce_ms > 0 => {
                self.delay(class, event, user, now, out);
            }
            _ if event.happening == Happening::CacheMiss && !self.note_cache_miss(&event, now) => {}
            _ => out.push((class, event)),
        }
    }

    /// Appends leaves whose delay is over to `out`.
    pub(super) fn release(&mut self, now: Moment, out: &mut Vec<ClassedEvent>) {
        while self.next_due().is_some_and(|due| due <= now) {
            self.release_oldest(out);
        }
    }

    /// Appends all delayed leaves to `out`, at the end of the server.
    pub(super) fn release_all(&mut self, out: &mut Vec<ClassedEvent>) {
        while !self.delayed.is_empty() {
            self.release_oldest(out);
        }
        debug_assert!(
            self.groups.is_empty() && self.delayed_by_name.is_empty(),
            "nothing is delayed"
        );
    }

    /// Leaves that are delayed.
    pub(super) fn len(&self) -> usize {
        self.delayed.len()
    }

    /// When `release` has something to do next.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.delayed.first_key_value().map(|(_, (due, ..))| *due)
    }

    fn delay(
        &mut self,
        class: Class,
        event: WebhookEvent,
        user: Option<Box<str>>,
        now: Moment,
        out: &mut Vec<ClassedEvent>,
    ) {
        let name = delayed_name_of(&event, user);
        if self.delayed_by_name.contains_key(&name) {
            // The join between two leaves was lost, because a worker's ring was full.
            return;
        }
        let group = (event.app, class);
        if self.delayed.len() >= self.delayed_max {
            self.release_oldest_of_the_largest(group, out);
        }
        let due = Moment(now.0.saturating_add(self.debounce_ms));
        self.groups.entry(group).or_default().insert(self.next_key);
        self.delayed.insert(self.next_key, (due, class, event));
        self.delayed_by_name.insert(name, self.next_key);
        self.next_key += 1;
        debug_assert!(self.delayed.len() <= self.delayed_max.max(1), "room was made");
        debug_assert_eq!(self.delayed.len(), self.delayed_by_name.len(), "one delay for each name");
    }

    /// Cancels a delayed leave; returns whether there was one.
    fn remove_delayed(&mut self, name: &DelayedName) -> bool {
        let Some(key) = self.delayed_by_name.remove(name) else { return false };
        self.remove(key).is_some()
    }

    fn remove(&mut self, key: u64) -> Option<ClassedEvent> {
        let (_, class, event) = self.delayed.remove(&key)?;
        let group = (event.app, class);
        if let Some(keys) = self.groups.get_mut(&group) {
            keys.remove(&key);
            if keys.is_empty() {
                self.groups.remove(&group);
            }
        }
        debug_assert_eq!(self.delayed.is_empty(), self.groups.is_empty(), "groups name delays");
        Some((class, event))
    }

    fn release_oldest(&mut self, out: &mut Vec<ClassedEvent>) {
        if let Some((key, _)) = self.delayed.first_key_value() {
            self.release_one(*key, out);
        }
    }

    /// Makes room for one of `group`: removes one of its own if it has its share or more, so that a flood causes no
    /// search.
    fn release_oldest_of_the_largest(&mut self, group: GateClass, out: &mut Vec<ClassedEvent>) {
        let share = self.delayed.len().div_ceil(self.groups.len().max(1));
        let own = self.groups.get(&group).filter(|keys| keys.len() >= share);
        let largest = || self.groups.values().max_by_key(|keys| keys.len());
        if let Some(key) = own.or_else(largest).and_then(|keys| keys.first().copied()) {
            self.release_one(key, out);
            self.released_early += 1;
        }
    }

    /// Leaves that were sent before they were due since the last call.
    pub(super) fn take_released_early(&mut self) -> u64 {
        std::mem::take(&mut self.released_early)
    }

    fn release_one(&mut self, key: u64, out: &mut Vec<ClassedEvent>) {
        let Some((class, event)) = self.remove(key) else { return };
        if let Some(Move::Left(user)) = move_of(&event.happening) {
            self.delayed_by_name.remove(&delayed_name_of(&event, user));
        }
        out.push((class, event));
    }

    /// Whether the channel's cache miss was not sent recently. Records it as sent now.
    fn note_cache_miss(&mut self, event: &WebhookEvent, now: Moment) -> bool {
        while let Some((until, ..)) = self.misses_by_age.front() {
            if *until > now && self.misses_by_age.len() < MISSES_MAX {
                break;
            }
            if let Some((_, app, channel)) = self.misses_by_age.pop_front() {
                self.misses_sent.remove(&(app, channel));
            }
        }
        let is_news = self.misses_sent.insert((event.app, event.channel.clone()));
        if is_news {
            let until = Moment(now.0.saturating_add(MISS_QUIET_MS));
            self.misses_by_age.push_back((until, event.app, event.channel.clone()));
        }
        is_news
    }
}

fn move_of(what: &Happening) -> Option<Move> {
    match what {
        Happening::Occupied => Some(Move::Came(None)),
        Happening::Vacated => Some(Move::Left(None)),
        Happening::MemberAdded { user_id } => Some(Move::Came(Some(user_id.clone()))),
        Happening::MemberRemoved { user_id } => Some(Move::Left(Some(user_id.clone()))),
        Happening::CacheMiss | Happening::SubscriptionCount { .. } | Happening::ClientEvent(_) => {
            None
        }
    }
}

fn delayed_name_of(event: &WebhookEvent, user: Option<Box<str>>) -> DelayedName {
    DelayedName { app: event.app, channel: event.channel.clone(), user }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEBOUNCE_MS: u64 = 3_000;

    fn gate() -> Gate {
        Gate::new(Duration::from_millis(DEBOUNCE_MS))
    }

    fn event(channel: &str, what: Happening) -> WebhookEvent {
        WebhookEvent { app: AppIndex(0), channel: channel.into(), happening: what }
    }

    fn came(user: Option<u8>) -> Happening {
        match user {
            None => Happening::Occupied,
            Some(user) => Happening::MemberAdded { user_id: user.to_string().into() },
        }
    }

    fn left(user: Option<u8>) -> Happening {
        match user {
            None => Happening::Vacated,
            Some(user) => Happening::MemberRemoved { user_id: user.to_string().into() },
        }
    }

    /// Runs a list of (time, channel, what) and gives what came out with the time at which it did.
    fn run(gate: &mut Gate, list: Vec<(u64, &str, Happening)>) -> Vec<(u64, String, Happening)> {
        let mut sent = Vec::new();
        for (at, channel, what) in list {
            let mut out = Vec::new();
            gate.accept(Class::Open, event(channel, what), Moment(at), &mut out);
            sent.extend(
                out.into_iter().map(|(_, event)| (at, event.channel.to_string(), event.happening)),
            );
        }
        sent
    }

    #[test]
    fn a_reload_within_the_debounce_time_sends_no_webhook() {
        for user in [None, Some(7)] {
            let mut gate = gate();
            let sent = run(
                &mut gate,
                vec![(0, "a", came(user)), (5, "a", left(user)), (3_004, "a", came(user))],
            );
            assert_eq!(sent, [(0, "a".to_owned(), came(user))]);
            assert_eq!((gate.next_due(), gate.delayed_by_name.len()), (None, 0));
        }
    }

    #[test]
    fn a_join_after_the_debounce_time_is_sent_after_the_leave() {
        let mut gate = gate();
        let sent = run(
            &mut gate,
            vec![(0, "a", left(None)), (0, "b", left(Some(1))), (3_000, "a", came(None))],
        );
        let expected = [("a", left(None)), ("b", left(Some(1))), ("a", came(None))];
        assert_eq!(sent, expected.map(|(channel, what)| (3_000, channel.to_owned(), what)));
    }

    #[test]
    fn only_the_same_app_channel_and_user_undoes() {
        let mut gate = gate();
        let sent = run(
            &mut gate,
            vec![
                (0, "a", left(Some(1))),
                (1, "b", came(Some(1))),
                (1, "a", came(Some(2))),
                (1, "a", came(None)),
            ],
        );
        assert_eq!(sent.len(), 3);
        let other =
            WebhookEvent { app: AppIndex(1), channel: "a".into(), happening: came(Some(1)) };
        let mut out = Vec::new();
        gate.accept(Class::Open, other, Moment(2), &mut out);
        assert_eq!((out.len(), gate.delayed.len()), (1, 1));
    }

    #[test]
    fn without_debounce_all_passes() {
        let mut gate = Gate::new(Duration::ZERO);
        let sent = run(&mut gate, vec![(0, "a", left(None)), (0, "a", came(None))]);
        assert_eq!((sent.len(), gate.next_due()), (2, None));
    }

    #[test]
    fn delayed_leaves_are_sent_in_order_at_the_end_and_over_the_limit() {
        let mut gate = gate();
        gate.delayed_max = 2;
        let list = vec![(0, "a", left(None)), (1, "b", left(None)), (2, "c", left(None))];
        assert_eq!(run(&mut gate, list), [(2, "a".to_owned(), left(None))]);
        assert_eq!([gate.take_released_early(), gate.take_released_early()], [1, 0]);
        // A leave that was sent early is not canceled.
        assert_eq!(run(&mut gate, vec![(3, "a", came(None))]).len(), 1);
        let mut out = Vec::new();
        gate.release_all(&mut out);
        let channels: Vec<&str> = out.iter().map(|(_, event)| &*event.channel).collect();
        assert_eq!((channels, gate.delayed_by_name.len()), (vec!["b", "c"], 0));
    }

    /// A flood on public channels once ended the delay of all other leaves.
    #[test]
    fn a_flood_ends_the_time_of_its_own_leavings_only() {
        let mut gate = gate();
        gate.delayed_max = 100;
        let mut out = Vec::new();
        let of = |app, number: usize, what| WebhookEvent {
            app: AppIndex(app),
            channel: number.to_string().into(),
            happening: what,
        };
        for number in 0..10 {
            for (app, class) in [(0, Class::Member), (1, Class::Open), (1, Class::Member)] {
                let event = of(
                    app,
                    100_000 * usize::from(app) + 1_000 * class as usize + number,
                    left(None),
                );
                gate.accept(class, event, Moment(0), &mut out);
            }
        }
        assert!(out.is_empty());
        for number in 0..10_000 {
            gate.accept(Class::Open, of(0, 10_000 + number, left(None)), Moment(1), &mut out);
        }
        assert_eq!((out.len(), gate.delayed.len()), (10_000 - 70, 100));
        assert!(out.iter().all(|(class, event)| (event.app, *class) == (AppIndex(0), Class::Open)));
        // An app with less than its share takes room from the flood.
        out.clear();
        gate.accept(Class::Member, of(2, 7, left(None)), Moment(2), &mut out);
        assert_eq!((out[0].0, out[0].1.app), (Class::Open, AppIndex(0)));
    }

    #[test]
    fn a_cache_miss_is_sent_once_in_ten_seconds() {
        let mut gate = gate();
        let miss = Happening::CacheMiss;
        let times = [0, 1, 9_999, 10_000, 19_999, 20_000];
        let sent = run(&mut gate, times.map(|at| (at, "a", miss.clone())).to_vec());
        let at: Vec<u64> = sent.iter().map(|(at, ..)| *at).collect();
        assert_eq!(at, [0, 10_000, 20_000]);
        assert_eq!(run(&mut gate, vec![(20_001, "b", miss.clone())]).len(), 1);
        // Memory is bounded; nothing is lost by that.
        for number in 0..2 * MISSES_MAX {
            let mut out = Vec::new();
            let event = event(&number.to_string(), miss.clone());
            gate.accept(Class::Open, event, Moment(20_002), &mut out);
            assert_eq!(out.len(), 1);
        }
        assert!(gate.misses_sent.len() <= MISSES_MAX && gate.misses_by_age.len() <= MISSES_MAX);
        assert_eq!(gate.misses_sent.len(), gate.misses_by_age.len());
    }

    proptest! {
        /// Joins and leaves alternate in the sent events, no canceled leave is sent, each leave is sent in time, and
        /// at the end the backend has the true state.
        #[test]
        fn the_backend_ends_with_the_right_state(
            delayed_max in 1_usize..6,
            steps in proptest::collection::vec((0_u64..4_000, 0_u8..4, proptest::option::of(0_u8..2)), 0..80),
        ) {
            let mut gate = gate();
            gate.delayed_max = delayed_max;
            let mut now = 0;
            let mut truth: HashMap<(u8, Option<u8>), bool> = HashMap::new();
            let mut left_at = HashMap::new();
            let mut sent = Vec::new();
            for (pause, channel, user) in steps {
                now += pause;
                let here = truth.entry((channel, user)).or_default();
                *here = !*here;
                if !*here {
                    left_at.insert((channel, user), now);
                }
                let what = if *here { came(user) } else { left(user) };
                let mut out = Vec::new();
                let class = [Class::Member, Class::Client, Class::Open][usize::from(channel % 3)];
                gate.accept(class, event(&channel.to_string(), what), Moment(now), &mut out);
                sent.extend(out);
                prop_assert!(gate.delayed.len() <= delayed_max && gate.delayed_by_name.len() == gate.delayed.len());
                let grouped: usize = gate.groups.values().map(BTreeSet::len).sum();
                prop_assert_eq!(grouped, gate.delayed.len());
                for (due, _, delayed) in gate.delayed.values() {
                    prop_assert!(now < due.0 && due.0 <= now + DEBOUNCE_MS, "{delayed:?}");
                }
            }
            gate.release_all(&mut sent);
            let mut believed: HashMap<(u8, Option<u8>), bool> = HashMap::new();
            for (_, event) in sent {
                let (user, came) = match move_of(&event.happening) {
                    Some(Move::Came(user)) => (user, true),
                    Some(Move::Left(user)) => (user, false),
                    None => unreachable!(),
                };
                let key = (event.channel.parse().unwrap(), user.map(|user| user.parse().unwrap()));
                prop_assert_ne!(believed.insert(key, came).unwrap_or(false), came, "{:?}", event);
            }
            truth.retain(|_, here| *here);
            believed.retain(|_, here| *here);
            prop_assert_eq!(truth, believed);
        }
    }
}
