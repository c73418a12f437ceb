//! When a refused request is tried again.
//!
//! Two pauses exist. An event that was refused waits before its own next attempt. An endpoint that refuses everything,
//! or cannot be reached, pauses as a whole, so that an outage costs the backend one request in some seconds. Owns no
//! state. PURE: time and random numbers are arguments. Limits: `EVENT_PAUSE_MAX`, `ENDPOINT_PAUSE_MAX`,
//! `RETRY_AFTER_MAX`. Cost: a few multiplications, no allocation.

use std::time::Duration;

/// Longest pause between two attempts of one event, before up to 10 % are added or subtracted.
pub(super) const EVENT_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Longest pause of an endpoint, unless its `Retry-After` is longer.
const ENDPOINT_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A longer `Retry-After` counts as this, so that one wrong answer does not fill the queue.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Consecutive refusals after which the whole endpoint pauses. Finding one refused event among 500 takes about 20
/// requests, of which 10 are refused and at most 3 follow each other. After as many 4xx answers in a row, a further one
/// is final for all events of its request.
pub(super) const REFUSALS_IN_A_ROW_MAX: u32 = 32;

/// What a failed attempt says about its events; `DeliveryFailure::verdict` decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryVerdict {
    /// The backend will not accept this request at any time: a 4xx.
    Permanent,
    /// It may accept it later, or without some of the events: a 5xx, a redirect, no answer, a cut connection.
    Transient,
    /// It asks for time: 408, 425, 429.
    Busy,
    /// The request did not reach it.
    Unreachable,
}

/// `RINGVERB_WEBHOOK_RETRY` is `limit`; only tests change `first`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    /// Pause after the first refusal.
    pub(super) first: Duration,
    /// Time from an event's first attempt after which it is given up.
    pub(super) limit: Duration,
}

impl RetryPolicy {
    /// The pause before the next attempt of an event, or `None` to give it up: 1, 2, 4, ... times `first`, up to 10 %
    /// more or less so that endpoints that failed together do not come back together. The last attempt is at the end
    /// of `limit`.
    ///
    /// `refusals` came before this one, `elapsed` has passed since the first attempt; `random` is any number.
    pub(super) fn event_pause(
        &self,
        refusals: u32,
        elapsed: Duration,
        random: u64,
    ) -> Option<Duration> {
        let left = self.limit.checked_sub(elapsed).filter(|left| !left.is_zero())?;
        let doubled = doubled(self.first, refusals).min(EVENT_PAUSE_MAX);
        // 0 to 200 thousandths, to be added to 900.
        let thousandths = u32::try_from(random % 201).unwrap_or_default();
        Some((doubled.saturating_mul(900 + thousandths) / 1000).min(left))
    }

    /// How long the endpoint pauses after its `in_a_row`th consecutive refusal.
    pub(super) fn endpoint_pause(
        &self,
        verdict: RetryVerdict,
        in_a_row: u32,
        retry_after: Option<Duration>,
    ) -> Duration {
        let pause = match verdict {
            RetryVerdict::Unreachable => doubled(self.first, in_a_row.saturating_sub(1)),
            _ if in_a_row > REFUSALS_IN_A_ROW_MAX => {
                doubled(self.first, in_a_row - REFUSALS_IN_A_ROW_MAX - 1)
            }
            _ => Duration::ZERO,
        };
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        pause.min(ENDPOINT_PAUSE_MAX).max(asked)
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { first: Duration::from_secs(1), limit: Duration::from_secs(300) };

    #[test]
    fn pauses_double_up_to_a_minute_until_five_minutes_are_over() {
        let mut elapsed = Duration::ZERO;
        let mut pauses = Vec::new();
        for refusals in 0.. {
            // 100 of 201: neither more nor less.
            let Some(pause) = POLICY.event_pause(refusals, elapsed, 100) else { break };
            pauses.push(pause.as_secs());
            elapsed += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 57]);
        let once = RetryPolicy { limit: Duration::ZERO, ..POLICY };
        assert_eq!(once.event_pause(0, Duration::ZERO, 0), None);
    }

    #[test]
    fn an_endpoint_pauses_when_it_refuses_everything_and_never_for_long() {
        let pause = |verdict, in_a_row| POLICY.endpoint_pause(verdict, in_a_row, None).as_secs();
        assert_eq!([1, 32].map(|row| pause(RetryVerdict::Transient, row)), [0, 0]);
        assert_eq!(
            [33, 34, 35, 36, u32::MAX].map(|row| pause(RetryVerdict::Busy, row)),
            [1, 2, 4, 5, 5]
        );
        assert_eq!(
            [1, 2, 3, 4, 99].map(|row| pause(RetryVerdict::Unreachable, row)),
            [1, 2, 4, 5, 5]
        );
    }

    #[test]
    fn retry_after_counts_up_to_a_minute() {
        let pause = |seconds| {
            let asked = Some(Duration::from_secs(seconds));
            POLICY.endpoint_pause(RetryVerdict::Busy, 1, asked).as_secs()
        };
        assert_eq!([0, 7, 60, 86_400].map(pause), [0, 7, 60, 60]);
    }

    proptest! {
        #[test]
        fn pauses_stay_within_a_tenth_and_the_limit(
            refusals in 0_u32..80,
            elapsed_ms in 0_u64..400_000,
            random in any::<u64>(),
        ) {
            let elapsed = Duration::from_millis(elapsed_ms);
            match POLICY.event_pause(refusals, elapsed, random) {
                None => prop_assert!(elapsed >= POLICY.limit),
                Some(pause) => {
                    prop_assert!(!pause.is_zero() && elapsed + pause <= POLICY.limit);
                    let plain = Duration::from_secs(1 << refusals.min(9)).min(EVENT_PAUSE_MAX);
                    prop_assert!(pause <= plain * 11 / 10);
                    prop_assert!(pause == POLICY.limit - elapsed || pause >= plain * 9 / 10);
                }
            }
        }
    }
}
