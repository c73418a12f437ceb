//! Whether the endpoint may be tried at all: in an outage it gets one request in some seconds, not one for each event.
//!
//! Owns the count of consecutive refusals and the end of the pause. PURE; the durations are those of `retry.rs`. Does
//! not know events: `backlog.rs` chooses them. Limit: `REFUSALS_IN_A_ROW_MAX` refusals without a pause. Cost: a few
//! comparisons, no allocation.
//!
//! | state | event | next state |
//! |---|---|---|
//! | any | accepted | `Accepting`; all waiting events are due if the endpoint was out |
//! | any | refused, without a pause | `Refusing`, or `Paused` with the same end |
//! | any | refused, with a pause | `Paused`; the later end counts if there are two |
//! | any | the server ends | `Paused` until now, so that the next acceptance makes all events due |

use std::time::Duration;

use crate::clock::Moment;
use crate::webhook::retry::REFUSALS_IN_A_ROW_MAX;
use crate::webhook::time::add_time;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndpointState {
    /// It accepted the last request, or has had none.
    Accepting,
    Refusing {
        in_a_row: u32,
    },
    /// No request before `until`, which may be past.
    Paused {
        in_a_row: u32,
        until: Moment,
    },
}

impl EndpointState {
    pub(super) fn refusals_in_a_row(self) -> u32 {
        match self {
            Self::Accepting => 0,
            Self::Refusing { in_a_row } | Self::Paused { in_a_row, .. } => in_a_row,
        }
    }

    fn is_refusing_everything(self) -> bool {
        self.refusals_in_a_row() > REFUSALS_IN_A_ROW_MAX
    }

    /// Whether the endpoint was as good as absent, so that its next acceptance is news for all events.
    pub(super) fn is_out(self) -> bool {
        self.is_refusing_everything() || matches!(self, Self::Paused { .. })
    }

    /// The end of the pause, if it is not past.
    pub(super) fn paused_until(self, now: Moment) -> Option<Moment> {
        match self {
            Self::Paused { until, .. } => Some(until).filter(|until| now < *until),
            Self::Accepting | Self::Refusing { .. } => None,
        }
    }

    /// After a refusal, to which `RetryPolicy::endpoint_pause` gives a pause or none (zero).
    pub(super) fn refused(self, pause: Duration, now: Moment) -> Self {
        let in_a_row = self.refusals_in_a_row().saturating_add(1);
        let end = (!pause.is_zero()).then(|| add_time(now, pause));
        let before = match self {
            Self::Paused { until, .. } => Some(until),
            Self::Accepting | Self::Refusing { .. } => None,
        };
        match before.max(end) {
            Some(until) => Self::Paused { in_a_row, until },
            None => Self::Refusing { in_a_row },
        }
    }

    pub(super) fn without_pause(self, now: Moment) -> Self {
        Self::Paused { in_a_row: self.refusals_in_a_row(), until: now }
    }
}

#[cfg(test)]
mod tests {
    use super::EndpointState::{Accepting, Paused, Refusing};
    use super::*;

    fn paused(in_a_row: u32, until: u64) -> EndpointState {
        Paused { in_a_row, until: Moment(until) }
    }

    #[test]
    fn refusals_are_counted_and_the_later_pause_holds() {
        for (state, pause_ms, next) in [
            (Accepting, 0, Refusing { in_a_row: 1 }),
            (Refusing { in_a_row: 31 }, 0, Refusing { in_a_row: 32 }),
            (Refusing { in_a_row: 32 }, 50, paused(33, 150)),
            (Accepting, 50, paused(1, 150)),
            (paused(1, 120), 50, paused(2, 150)),
            (paused(1, 900), 50, paused(2, 900)),
            (paused(1, 90), 0, paused(2, 90)),
        ] {
            let now = Moment(100);
            let after = state.refused(Duration::from_millis(pause_ms), now);
            assert_eq!(after, next, "{state:?}, {pause_ms} ms");
        }
    }

    #[test]
    fn an_endpoint_is_out_after_a_pause_or_many_refusals() {
        for (state, is_out, paused_until) in [
            (Accepting, false, None),
            (Refusing { in_a_row: REFUSALS_IN_A_ROW_MAX }, false, None),
            (Refusing { in_a_row: REFUSALS_IN_A_ROW_MAX + 1 }, true, None),
            (paused(1, 100), true, None),
            (paused(1, 101), true, Some(Moment(101))),
            (paused(1, 900).without_pause(Moment(100)), true, None),
        ] {
            let seen = (state.is_out(), state.paused_until(Moment(100)));
            assert_eq!(seen, (is_out, paused_until), "{state:?}");
        }
    }
}
