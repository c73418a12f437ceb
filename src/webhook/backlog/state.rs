//! The state of one retry group: how many of its events go into the next request, and whether the first is at fault.
//!
//! A refusal names no event, and does not say whether the events or the endpoint caused it. So refused events are
//! tried in ever smaller requests until the first is refused alone. If the endpoint accepts other requests between two
//! such refusals, the event is at fault, not the endpoint: that is one proof. From `PROOFS_MIN` proofs on, the events
//! after it no longer wait for it.
//!
//! Owns one value for each group. PURE: `after` returns the next state and what `backlog.rs` does, and does not know
//! events, channels or moments. Limit: `EVENTS_MAX` events in a request. Cost: a few comparisons, no allocation.
//!
//! In all states:
//!
//! | event | next state | effect |
//! |---|---|---|
//! | accepted | `Unsuspected`, twice as many events, not isolated | `TryNow` |
//! | the first event was given up | `Unsuspected`, isolated if it was | `TryNow`; for lack of room: `KeepDue` |
//! | refused; the endpoint cannot be reached | the same | `TryNow` |
//! | several refused, `Trial::is_halved_by` | the same, half as many events | `SplitChannels`; one channel: `KeepDue` |
//! | several refused otherwise, or one by a busy endpoint | the same | `Pause` |
//!
//! If the first event was refused alone (the effect is `Pause`):
//!
//! | state | no other request accepted since the last time | others accepted |
//! |---|---|---|
//! | `Unsuspected` | `Suspected` | `Suspected` |
//! | `Suspected` | `Suspected` | `AtFault`, 1 proof, isolated |
//! | `AtFault` | `AtFault`, as many proofs | `AtFault`, 1 proof more; followers leave from `PROOFS_MIN` on |

use crate::webhook::batch::EVENTS_MAX;
use crate::webhook::retry::RetryVerdict;

/// With so many proofs an event no longer delays its channel.
const PROOFS_MIN: u32 = 3;
/// After each of so many refusals, events of one channel are tried together again; the next refusal halves their
/// request. They wait for each other anyway, and often come in pairs (`channel_occupied`, `member_added`). Attempts
/// that did not reach the endpoint are no refusals.
const REFUSALS_TOGETHER_MAX: u32 = 3;

/// What the refusals so far have shown about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryState {
    /// The first event has not been refused alone.
    Unsuspected { trial: Trial, is_isolated: bool },
    /// The first event was refused alone, last when the endpoint had accepted `acceptances` requests in all.
    Suspected { trial: Trial, is_isolated: bool, acceptances: u64 },
    /// The first event itself is refused. Such a group is isolated.
    AtFault { trial: Trial, acceptances: u64, proofs: u32 },
}

/// How many of the first events the next request tries, and what refusals of them lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trial {
    pub(super) events_max: usize,
    /// Refusals of the first event since it is first, or since `events_max` was halved. The next pause depends on it.
    refusals: u32,
    /// The request was halved although all events are of one channel, so each further refusal halves it, too.
    is_halving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryEvent {
    Accepted,
    Refused(Refusal),
    /// The first event expired, or was refused for good.
    GivenUp,
    /// The first event was given up because too many events wait.
    Displaced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Events in the refused request.
    pub(super) tried: usize,
    pub(super) verdict: RetryVerdict,
    /// Whether the whole group has, not only the request.
    pub(super) has_several_channels: bool,
    /// Requests that the endpoint has accepted in all.
    pub(super) acceptances: u64,
}

/// What `Backlog::change_group` does with the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    TryNow,
    /// The group is tried again after the pause for an event with `refusals` earlier ones.
    Pause {
        refusals: u32,
    },
    /// Half of the channels move to a group of their own.
    SplitChannels,
    /// The moment of the next attempt stays. After a refusal it is past, so a halved request precedes other groups.
    KeepDue,
}

impl RetryState {
    /// The state of events that were refused for the first time.
    pub(super) fn new() -> Self {
        Self::Unsuspected { trial: Trial::of(EVENTS_MAX), is_isolated: false }
    }

    pub(super) fn after(self, event: RetryEvent) -> (Self, Effect) {
        match event {
            RetryEvent::Accepted => (self.accepted(), Effect::TryNow),
            RetryEvent::GivenUp => (self.with_another_first_event(), Effect::TryNow),
            RetryEvent::Displaced => (self.with_another_first_event(), Effect::KeepDue),
            RetryEvent::Refused(refusal) => self.refused(refusal),
        }
    }

    fn accepted(self) -> Self {
        Self::Unsuspected { trial: self.trial().doubled(), is_isolated: false }
    }

    fn with_another_first_event(self) -> Self {
        let trial = Trial { refusals: 0, ..self.trial() };
        Self::Unsuspected { trial, is_isolated: self.is_isolated() }
    }

    fn refused(self, refusal: Refusal) -> (Self, Effect) {
        let trial = self.trial();
        if trial.is_halved_by(refusal) {
            let effect = match refusal.has_several_channels {
                true => Effect::SplitChannels,
                false => Effect::KeepDue,
            };
            return (self.with_trial(Trial::half_of(refusal)), effect);
        }
        let next = self.with_trial(trial.refused());
        match refusal.verdict {
            // The events are not at fault: they are due when the endpoint is tried again. It has refused none of them,
            // so that does not count.
            RetryVerdict::Unreachable => (self, Effect::TryNow),
            RetryVerdict::Transient if refusal.tried == 1 => {
                (next.refused_alone(refusal.acceptances), trial.pause())
            }
            RetryVerdict::Transient | RetryVerdict::Busy | RetryVerdict::Permanent => {
                (next, trial.pause())
            }
        }
    }

    /// The endpoint may be at fault, unless it has accepted another request since the last time.
    fn refused_alone(self, acceptances: u64) -> Self {
        match self {
            Self::Unsuspected { trial, is_isolated } => {
                Self::Suspected { trial, is_isolated, acceptances }
            }
            Self::Suspected { trial, acceptances: before, .. } if before < acceptances => {
                Self::AtFault { trial, acceptances, proofs: 1 }
            }
            Self::AtFault { trial, acceptances: before, proofs } if before < acceptances => {
                Self::AtFault { trial, acceptances, proofs: proofs.saturating_add(1) }
            }
            Self::Suspected { .. } | Self::AtFault { .. } => self,
        }
    }

    /// The state of a group that keeps `events` of its events, after the others were moved to another group.
    pub(super) fn of_remaining(self, events: usize) -> Self {
        let events_max = Trial::of(events).events_max;
        self.with_trial(Trial { events_max, ..self.trial() })
    }

    /// The state of `events` that were moved out of a group with this state. They are isolated as before, so that a
    /// flood of refused events on one channel stays within the limit of isolated ones.
    pub(super) fn of_moved(self, events: usize) -> Self {
        Self::Unsuspected { trial: Trial::of(events), is_isolated: self.is_isolated() }
    }

    pub(super) fn trial(self) -> Trial {
        match self {
            Self::Unsuspected { trial, .. }
            | Self::Suspected { trial, .. }
            | Self::AtFault { trial, .. } => trial,
        }
    }

    fn with_trial(mut self, new: Trial) -> Self {
        match &mut self {
            Self::Unsuspected { trial, .. }
            | Self::Suspected { trial, .. }
            | Self::AtFault { trial, .. } => *trial = new,
        }
        self
    }

    /// A fault was proven in this group, and the endpoint has accepted none of its events since.
    pub(super) fn is_isolated(self) -> bool {
        match self {
            Self::Unsuspected { is_isolated, .. } | Self::Suspected { is_isolated, .. } => {
                is_isolated
            }
            Self::AtFault { .. } => true,
        }
    }

    /// Whether the events after the first one leave the group.
    pub(super) fn releases_followers(self) -> bool {
        matches!(self, Self::AtFault { proofs: PROOFS_MIN.., .. })
    }
}

impl Trial {
    fn of(events: usize) -> Self {
        Self { events_max: events.clamp(1, EVENTS_MAX), refusals: 0, is_halving: false }
    }

    fn half_of(refusal: Refusal) -> Self {
        let is_halving = !refusal.has_several_channels;
        Self { is_halving, ..Self::of(refusal.tried / 2) }
    }

    fn doubled(self) -> Self {
        let events_max = self.events_max.saturating_mul(2).min(EVENTS_MAX);
        Self { events_max, refusals: 0, ..self }
    }

    fn refused(self) -> Self {
        Self { refusals: self.refusals.saturating_add(1), ..self }
    }

    fn pause(self) -> Effect {
        Effect::Pause { refusals: self.refusals }
    }

    /// Whether the refused request is worth halving: it had several events, and one of them may be at fault.
    fn is_halved_by(self, refusal: Refusal) -> bool {
        let is_patience_over = self.is_halving || self.refusals >= REFUSALS_TOGETHER_MAX;
        let may_be_an_event = match refusal.verdict {
            RetryVerdict::Permanent => true,
            RetryVerdict::Transient => refusal.has_several_channels || is_patience_over,
            RetryVerdict::Busy => is_patience_over,
            RetryVerdict::Unreachable => false,
        };
        refusal.tried > 1 && may_be_an_event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RetryVerdict::{Busy, Permanent, Transient, Unreachable};

    fn trial(events_max: usize, refusals: u32) -> Trial {
        Trial { events_max, refusals, is_halving: false }
    }

    fn halving(events_max: usize, refusals: u32) -> Trial {
        Trial { events_max, refusals, is_halving: true }
    }

    fn unsuspected(trial: Trial) -> RetryState {
        RetryState::Unsuspected { trial, is_isolated: false }
    }

    fn isolated(trial: Trial) -> RetryState {
        RetryState::Unsuspected { trial, is_isolated: true }
    }

    fn suspected(trial: Trial, acceptances: u64) -> RetryState {
        RetryState::Suspected { trial, is_isolated: false, acceptances }
    }

    fn at_fault(trial: Trial, acceptances: u64, proofs: u32) -> RetryState {
        RetryState::AtFault { trial, acceptances, proofs }
    }

    /// A refusal of events of one channel.
    fn refused(tried: usize, verdict: RetryVerdict, acceptances: u64) -> RetryEvent {
        RetryEvent::Refused(Refusal { tried, verdict, has_several_channels: false, acceptances })
    }

    fn refused_channels(tried: usize, verdict: RetryVerdict) -> RetryEvent {
        let has_several_channels = true;
        RetryEvent::Refused(Refusal { tried, verdict, has_several_channels, acceptances: 0 })
    }

    fn pause(refusals: u32) -> Effect {
        Effect::Pause { refusals }
    }

    fn check(rows: &[(RetryState, RetryEvent, RetryState, Effect)]) {
        for (number, (state, event, next, effect)) in rows.iter().enumerate() {
            let case = format!("row {number}: {state:?}, {event:?}");
            assert_eq!(state.after(*event), (*next, *effect), "{case}");
        }
    }

    #[test]
    fn an_acceptance_doubles_the_request_and_ends_suspicion_and_isolation() {
        use RetryEvent::Accepted;
        let now = Effect::TryNow;
        check(&[
            (unsuspected(trial(1, 2)), Accepted, unsuspected(trial(2, 0)), now),
            (isolated(trial(3, 0)), Accepted, unsuspected(trial(6, 0)), now),
            (unsuspected(trial(400, 0)), Accepted, unsuspected(trial(EVENTS_MAX, 0)), now),
            (suspected(halving(1, 4), 7), Accepted, unsuspected(halving(2, 0)), now),
            (at_fault(halving(1, 4), 7, 2), Accepted, unsuspected(halving(2, 0)), now),
        ]);
    }

    #[test]
    fn the_next_event_is_not_suspected_and_stays_isolated() {
        use RetryEvent::{Displaced, GivenUp};
        let (now, keep) = (Effect::TryNow, Effect::KeepDue);
        check(&[
            (unsuspected(trial(5, 2)), GivenUp, unsuspected(trial(5, 0)), now),
            (suspected(halving(1, 2), 7), GivenUp, unsuspected(halving(1, 0)), now),
            (at_fault(trial(1, 2), 7, 3), GivenUp, isolated(trial(1, 0)), now),
            (isolated(trial(5, 2)), GivenUp, isolated(trial(5, 0)), now),
            (at_fault(trial(1, 2), 7, 1), Displaced, isolated(trial(1, 0)), keep),
            (suspected(trial(1, 2), 7), Displaced, unsuspected(trial(1, 0)), keep),
        ]);
    }

    #[test]
    fn events_of_several_channels_are_split_unless_the_endpoint_is_busy_or_away() {
        let all = unsuspected(trial(500, 0));
        let split = Effect::SplitChannels;
        let (again, half) = (unsuspected(trial(500, 1)), unsuspected(trial(3, 0)));
        check(&[
            (all, refused_channels(7, Transient), half, split),
            (all, refused_channels(7, Permanent), half, split),
            (all, refused_channels(7, Busy), again, pause(0)),
            (all, refused_channels(7, Unreachable), all, Effect::TryNow),
            (unsuspected(trial(500, 3)), refused_channels(7, Busy), half, split),
            (
                unsuspected(trial(500, 3)),
                refused_channels(7, Unreachable),
                unsuspected(trial(500, 3)),
                Effect::TryNow,
            ),
        ]);
    }

    #[test]
    fn events_of_one_channel_are_halved_at_the_fourth_refusal_and_then_at_each() {
        let first = |refusals| unsuspected(trial(500, refusals));
        let keep = Effect::KeepDue;
        for verdict in [Transient, Busy] {
            let refusal = |tried| refused(tried, verdict, 0);
            check(&[
                (first(0), refusal(4), first(1), pause(0)),
                (first(1), refusal(4), first(2), pause(1)),
                (first(2), refusal(4), first(3), pause(2)),
                (first(3), refusal(4), unsuspected(halving(2, 0)), keep),
                (unsuspected(halving(2, 0)), refusal(2), unsuspected(halving(1, 0)), keep),
            ]);
        }
        check(&[
            (first(0), refused(4, Permanent, 0), unsuspected(halving(2, 0)), keep),
            (first(9), refused(4, Unreachable, 0), first(9), Effect::TryNow),
            // What is known of the first event stays when it is tried with others.
            (at_fault(trial(2, 3), 7, 1), refused(2, Busy, 8), at_fault(halving(1, 0), 7, 1), keep),
            (
                suspected(trial(2, 0), 7),
                refused(2, Transient, 8),
                suspected(trial(2, 1), 7),
                pause(0),
            ),
        ]);
    }

    /// Otherwise a busy endpoint that comes back would at once get more requests, not fewer.
    #[test]
    fn an_outage_does_not_use_up_the_attempts_of_events_of_one_channel() {
        let mut state = unsuspected(trial(500, 0));
        for _ in 0..9 {
            let (next, effect) = state.after(refused(8, Unreachable, 0));
            assert_eq!(effect, Effect::TryNow);
            state = next;
        }
        for verdict in [Busy, Transient] {
            check(&[(state, refused(8, verdict, 0), unsuspected(trial(500, 1)), pause(0))]);
        }
    }

    #[test]
    fn an_event_is_at_fault_if_the_endpoint_accepts_others_between_its_refusals() {
        let one = |refusals| trial(1, refusals);
        let alone = |acceptances| refused(1, Transient, acceptances);
        check(&[
            (unsuspected(one(0)), alone(7), suspected(one(1), 7), pause(0)),
            (suspected(one(1), 7), alone(7), suspected(one(2), 7), pause(1)),
            (suspected(one(2), 7), alone(9), at_fault(one(3), 9, 1), pause(2)),
            (at_fault(one(3), 9, 1), alone(9), at_fault(one(4), 9, 1), pause(3)),
            (at_fault(one(4), 9, 1), alone(10), at_fault(one(5), 10, 2), pause(4)),
            (at_fault(one(5), 10, 2), alone(11), at_fault(one(6), 11, 3), pause(5)),
            // Neither a busy endpoint nor one that is away proves anything.
            (suspected(one(1), 7), refused(1, Busy, 9), suspected(one(2), 7), pause(1)),
            (
                suspected(one(1), 7),
                refused(1, Unreachable, 9),
                suspected(one(1), 7),
                Effect::TryNow,
            ),
        ]);
        // An isolated event stays isolated when it is suspected.
        let (state, _) = isolated(one(0)).after(alone(7));
        assert_eq!(
            state,
            RetryState::Suspected { trial: one(1), is_isolated: true, acceptances: 7 }
        );
    }

    #[test]
    fn followers_leave_an_event_with_three_proofs_and_stay_isolated() {
        let released = |proofs| at_fault(trial(1, 5), 9, proofs).releases_followers();
        assert_eq!([1, 2, 3, 4].map(released), [false, false, true, true]);
        assert!(!suspected(trial(1, 9), 9).releases_followers());
        let proven = at_fault(trial(1, 5), 9, 3);
        assert_eq!(proven.of_remaining(1), proven);
        assert_eq!(proven.of_moved(40), isolated(trial(40, 0)));
        assert_eq!(unsuspected(halving(9, 1)).of_moved(4), unsuspected(trial(4, 0)));
        assert_eq!(unsuspected(trial(9, 0)).of_remaining(4), unsuspected(trial(4, 0)));
    }

    #[test]
    fn isolated_groups_are_those_with_a_proof_until_an_acceptance() {
        for (state, is_isolated) in [
            (RetryState::new(), false),
            (suspected(trial(1, 1), 1), false),
            (at_fault(trial(1, 1), 1, 1), true),
            (isolated(trial(1, 1)), true),
        ] {
            assert_eq!(state.is_isolated(), is_isolated, "{state:?}");
        }
    }
}
