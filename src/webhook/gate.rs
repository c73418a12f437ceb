//! Which events pass to the endpoints, and when (docs/PROTOCOL.md rule 76). `accept` follows the table.
//!
//! Events of one channel come from its home core, so they arrive in order, and only leaves are delayed. A join never
//! overtakes its leave: during the delay both are discarded, and later the leave was sent first. A leave is delayed for
//! less than the debounce time only if too many are delayed, or if the server ends.
//!
//! Owns the leaves that are delayed (`gate/delayed.rs`) and the cache misses of the last seconds
//! (`gate/cache_misses.rs`). PURE: time comes in with each call; does not know endpoints. Limits: `DELAYED_MAX` leaves,
//! and those of `gate/cache_misses.rs`. Cost: one look-up for each join or leave, and O(log n) steps for a delayed one.
//!
//! | event | no leave of its channel or user is delayed | one is delayed |
//! |---|---|---|
//! | join | passes | both are discarded |
//! | leave | is delayed; passes if the debounce time is 0 | is discarded: the join between them was lost |
//! | first cache miss of a channel in 10 s | passes | passes |
//! | repeated cache miss | is discarded | is discarded |
//! | any other | passes | passes |
//! | (the delay is over) | | the leave passes |
//! | (too many are delayed) | | the oldest leave of the app and class with the most passes |

mod cache_misses;
mod delayed;

use std::time::Duration;

use self::cache_misses::RecentCacheMisses;
use self::delayed::{DelayedLeaves, TransitionName};
use super::budget::Class;
use super::input::ClassedEvent;
use super::time::add_time;
use crate::clock::Moment;
use crate::pusher::webhook_event::{Happening, WebhookEvent};

const DELAYED_MAX: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GateDecision {
    Pass,
    Delay,
    /// The event and the delayed leave are discarded.
    CancelLeave,
    Discard,
}

#[derive(Debug)]
pub(super) struct Gate {
    debounce: Duration,
    delayed: DelayedLeaves,
    cache_misses: RecentCacheMisses,
}

impl Gate {
    pub(super) fn new(debounce: Duration) -> Self {
        Self::with_limit(debounce, DELAYED_MAX)
    }

    fn with_limit(debounce: Duration, delayed_max: usize) -> Self {
        let delayed = DelayedLeaves::new(delayed_max);
        Self { debounce, delayed, cache_misses: RecentCacheMisses::default() }
    }

    /// Processes an event. Events that pass now are appended to `passed`, in order.
    pub(super) fn accept(
        &mut self,
        class: Class,
        event: WebhookEvent,
        now: Moment,
        passed: &mut Vec<ClassedEvent>,
    ) {
        self.release_due(now, passed);
        let Some(name) = TransitionName::of(&event) else {
            let is_repeated =
                event.happening == Happening::CacheMiss && !self.cache_misses.is_new(&event, now);
            if !is_repeated {
                passed.push((class, event));
            }
            return;
        };
        match decision(&event.happening, self.delayed.contains(&name), self.debounce) {
            GateDecision::Pass => passed.push((class, event)),
            GateDecision::Delay => {
                let due = add_time(now, self.debounce);
                passed.extend(self.delayed.add(name, (class, event), due));
            }
            GateDecision::CancelLeave => self.delayed.cancel(&name),
            GateDecision::Discard => {}
        }
    }

    /// Appends the leaves whose delay is over to `passed`.
    pub(super) fn release_due(&mut self, now: Moment, passed: &mut Vec<ClassedEvent>) {
        while self.next_due().is_some_and(|due| due <= now) {
            passed.extend(self.delayed.release_first());
        }
    }

    /// Appends all delayed leaves to `passed`, at the end of the server.
    pub(super) fn release_all(&mut self, passed: &mut Vec<ClassedEvent>) {
        passed.extend(std::iter::from_fn(|| self.delayed.release_first()));
    }

    pub(super) fn leaves_delayed(&self) -> usize {
        self.delayed.len()
    }

    /// How many leaves passed before they were due since the last call.
    pub(super) fn take_released_early(&mut self) -> u64 {
        self.delayed.take_released_early()
    }

    /// When `release_due` has something to do next.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.delayed.first_due()
    }
}

/// The rows of the table for joins and leaves.
fn decision(happening: &Happening, is_leave_delayed: bool, debounce: Duration) -> GateDecision {
    match happening {
        Happening::Occupied | Happening::MemberAdded { .. } if is_leave_delayed => {
            GateDecision::CancelLeave
        }
        Happening::Vacated | Happening::MemberRemoved { .. } if is_leave_delayed => {
            GateDecision::Discard
        }
        Happening::Vacated | Happening::MemberRemoved { .. } if !debounce.is_zero() => {
            GateDecision::Delay
        }
        _ => GateDecision::Pass,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::app::AppIndex;

    const DEBOUNCE_MS: u64 = 3_000;

    fn gate() -> Gate {
        Gate::new(Duration::from_millis(DEBOUNCE_MS))
    }

    fn gate_with_limit(delayed_max: usize) -> Gate {
        Gate::with_limit(Duration::from_millis(DEBOUNCE_MS), delayed_max)
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
            gate.accept(Class::Public, event(channel, what), Moment(at), &mut out);
            sent.extend(
                out.into_iter().map(|(_, event)| (at, event.channel.to_string(), event.happening)),
            );
        }
        sent
    }

    #[test]
    fn joins_and_leaves_are_decided_by_the_delayed_leave_of_their_name() {
        use GateDecision::{CancelLeave, Delay, Discard, Pass};
        let debounce = Duration::from_millis(DEBOUNCE_MS);
        for (what, is_leave_delayed, debounce, expected) in [
            (came(None), false, debounce, Pass),
            (came(Some(1)), false, debounce, Pass),
            (came(None), true, debounce, CancelLeave),
            (came(Some(1)), true, debounce, CancelLeave),
            (left(None), false, debounce, Delay),
            (left(Some(1)), false, debounce, Delay),
            (left(None), true, debounce, Discard),
            (left(Some(1)), true, debounce, Discard),
            (left(None), false, Duration::ZERO, Pass),
            (left(Some(1)), false, Duration::ZERO, Pass),
        ] {
            let decided = decision(&what, is_leave_delayed, debounce);
            assert_eq!(decided, expected, "{what:?}, {is_leave_delayed}, {debounce:?}");
        }
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
            assert_eq!((gate.next_due(), gate.leaves_delayed()), (None, 0));
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
        gate.accept(Class::Public, other, Moment(2), &mut out);
        assert_eq!((out.len(), gate.leaves_delayed()), (1, 1));
    }

    #[test]
    fn without_debounce_all_passes() {
        let mut gate = Gate::new(Duration::ZERO);
        let sent = run(&mut gate, vec![(0, "a", left(None)), (0, "a", came(None))]);
        assert_eq!((sent.len(), gate.next_due()), (2, None));
    }

    #[test]
    fn delayed_leaves_are_sent_in_order_at_the_end_and_over_the_limit() {
        let mut gate = gate_with_limit(2);
        let list = vec![(0, "a", left(None)), (1, "b", left(None)), (2, "c", left(None))];
        assert_eq!(run(&mut gate, list), [(2, "a".to_owned(), left(None))]);
        assert_eq!([gate.take_released_early(), gate.take_released_early()], [1, 0]);
        // A leave that was sent early is not canceled.
        assert_eq!(run(&mut gate, vec![(3, "a", came(None))]).len(), 1);
        let mut out = Vec::new();
        gate.release_all(&mut out);
        let channels: Vec<&str> = out.iter().map(|(_, event)| &*event.channel).collect();
        assert_eq!((channels, gate.leaves_delayed()), (vec!["b", "c"], 0));
    }

    /// A flood on public channels once ended the delay of all other leaves.
    #[test]
    fn a_flood_shortens_the_delay_of_its_own_leaves_only() {
        let mut gate = gate_with_limit(100);
        let mut out = Vec::new();
        let of = |app, number: usize, what| WebhookEvent {
            app: AppIndex(app),
            channel: number.to_string().into(),
            happening: what,
        };
        for number in 0..10 {
            for (app, class) in [(0, Class::Member), (1, Class::Public), (1, Class::Member)] {
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
            gate.accept(Class::Public, of(0, 10_000 + number, left(None)), Moment(1), &mut out);
        }
        assert_eq!((out.len(), gate.leaves_delayed()), (10_000 - 70, 100));
        assert!(
            out.iter().all(|(class, event)| (event.app, *class) == (AppIndex(0), Class::Public))
        );
        // An app with less than its share takes room from the flood.
        out.clear();
        gate.accept(Class::Member, of(2, 7, left(None)), Moment(2), &mut out);
        assert_eq!((out[0].0, out[0].1.app), (Class::Public, AppIndex(0)));
    }

    #[test]
    fn a_repeated_cache_miss_and_no_other_event_is_discarded() {
        let mut gate = gate();
        let (miss, count) = (Happening::CacheMiss, Happening::SubscriptionCount { count: 1 });
        let twice = |what: Happening| vec![(0, "a", what.clone()), (1, "a", what)];
        assert_eq!(run(&mut gate, twice(miss)).len(), 1);
        assert_eq!(run(&mut gate, twice(count)).len(), 2);
    }

    proptest! {
        /// Joins and leaves alternate in the sent events, no canceled leave is sent, each leave is sent in time, and
        /// at the end the backend has the true state.
        #[test]
        fn the_backend_ends_with_the_right_state(
            delayed_max in 1_usize..6,
            steps in proptest::collection::vec((0_u64..4_000, 0_u8..4, proptest::option::of(0_u8..2)), 0..80),
        ) {
            let mut gate = gate_with_limit(delayed_max);
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
                let class = [Class::Member, Class::Client, Class::Public][usize::from(channel % 3)];
                gate.accept(class, event(&channel.to_string(), what), Moment(now), &mut out);
                sent.extend(out);
                gate.delayed.check(now, DEBOUNCE_MS);
            }
            gate.release_all(&mut sent);
            let mut believed: HashMap<(u8, Option<u8>), bool> = HashMap::new();
            for (_, event) in sent {
                let (user, came) = match &event.happening {
                    Happening::Occupied => (None, true),
                    Happening::Vacated => (None, false),
                    Happening::MemberAdded { user_id } => (Some(user_id), true),
                    Happening::MemberRemoved { user_id } => (Some(user_id), false),
                    _ => unreachable!(),
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
