//! The body of a request, and how long to wait before it is sent again. No clock and no I/O.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::budget::{CLASSES, Class};

/// Events in one request.
pub(super) const EVENTS_MAX: usize = 500;
/// Bytes of events in one request, unless a single one is longer. PHP takes 8 MiB by default, nginx 1 MiB.
pub(super) const BYTES_MAX: usize = 256 * 1024;

/// One event as JSON: written once, shared by the endpoints that hear of it.
pub(super) type Line = Arc<[u8]>;

/// What waits for an endpoint. Events that needed a signature go first; each queue keeps its order.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    signed: VecDeque<(Class, Line)>,
    open: VecDeque<(Class, Line)>,
}

impl Waiting {
    pub(super) fn push(&mut self, class: Class, line: Line) {
        match class {
            Class::Member | Class::Client => self.signed.push_back((class, line)),
            Class::Open => self.open.push_back((class, line)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.signed.is_empty() && self.open.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &Line> {
        self.signed.iter().chain(&self.open).map(|(_, line)| line)
    }

    fn pop_if(&mut self, fits: impl Fn(&Line) -> bool) -> Option<(Class, Line)> {
        let queue = if self.signed.is_empty() { &mut self.open } else { &mut self.signed };
        queue.pop_front_if(|(_, line)| fits(line))
    }
}

/// Events and bytes of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

/// Events that are sent, signed and sent again as one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// `{"time_ms":…,"events":[…]}`; the same bytes at every attempt.
    pub(super) body: Vec<u8>,
    pub(super) events: usize,
    /// By class; bytes of the events alone.
    pub(super) amounts: [Amount; CLASSES],
}

/// Whether what waits fills a request, so that waiting for more has no use.
pub(super) fn is_full(waiting: &Waiting) -> bool {
    waiting.signed.len() + waiting.open.len() >= EVENTS_MAX || {
        let mut bytes = waiting.iter().map(|line| line.len());
        bytes.try_fold(0, |sum, more| (sum + more < BYTES_MAX).then_some(sum + more)).is_none()
    }
}

/// Takes from the front what fits one request; `None` if nothing waits.
pub(super) fn take(waiting: &mut Waiting, unix_ms: u64) -> Option<Batch> {
    if waiting.is_empty() {
        return None;
    }
    let mut amounts = [Amount::default(); CLASSES];
    let mut body = format!("{{\"time_ms\":{unix_ms},\"events\":[").into_bytes();
    let (mut events, mut bytes) = (0, 0);
    while events < EVENTS_MAX {
        let fits = |line: &Line| events == 0 || bytes + line.len() <= BYTES_MAX;
        let Some((class, line)) = waiting.pop_if(fits) else { break };
        if events > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&line);
        events += 1;
        bytes += line.len();
        let amount = &mut amounts[class as usize];
        amount.events += 1;
        amount.bytes += line.len();
    }
    body.extend_from_slice(b"]}");
    Some(Batch { body, events, amounts })
}

/// How long to wait after a failed attempt, or `None` to give up: 1, 2, 4, ... times `first`, up to 10 % more or less
/// so that endpoints that failed together do not come back together. The last attempt is at the end of `limit`.
///
/// `failed` attempts were made before this one, `elapsed` has passed since the first; `random` is any number.
pub(super) fn pause(
    failed: u32,
    elapsed: Duration,
    first: Duration,
    limit: Duration,
    random: u64,
) -> Option<Duration> {
    let left = limit.checked_sub(elapsed).filter(|left| !left.is_zero())?;
    let doubled = first.saturating_mul(1_u32.checked_shl(failed).unwrap_or(u32::MAX));
    // 0 to 200 thousandths, to be added to 900.
    let thousandths = u32::try_from(random % 201).unwrap_or_default();
    let pause = doubled.min(limit).saturating_mul(900 + thousandths) / 1000;
    Some(pause.min(left))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(texts: &[&str]) -> Waiting {
        let mut waiting = Waiting::default();
        texts.iter().for_each(|text| waiting.push(Class::Open, text.as_bytes().into()));
        waiting
    }

    #[test]
    fn events_that_need_a_signature_go_first_and_in_their_order() {
        let mut waiting = Waiting::default();
        for (class, text) in
            [(Class::Open, "1"), (Class::Client, "2"), (Class::Open, "3"), (Class::Member, "4")]
        {
            waiting.push(class, text.as_bytes().into());
        }
        let batch = take(&mut waiting, 0).unwrap();
        assert_eq!(batch.body, br#"{"time_ms":0,"events":[2,4,1,3]}"#);
        assert_eq!(
            batch.amounts.map(|amount| (amount.events, amount.bytes)),
            [(1, 1), (1, 1), (2, 2)]
        );
    }

    #[test]
    fn a_batch_is_one_object() {
        let mut waiting = lines(&["{\"a\":1}", "{}"]);
        let batch = take(&mut waiting, 1_700_000_000_123).unwrap();
        assert_eq!(batch.body, br#"{"time_ms":1700000000123,"events":[{"a":1},{}]}"#);
        assert_eq!((batch.events, batch.amounts[Class::Open as usize].bytes), (2, 9));
        assert!(waiting.is_empty());
        assert_eq!(take(&mut waiting, 0), None);
    }

    #[test]
    fn it_ends_at_its_limits_and_keeps_the_order() {
        let texts: Vec<String> = (0..1_201).map(|number: u32| number.to_string()).collect();
        let mut waiting = lines(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(is_full(&waiting));
        let mut all = Vec::new();
        for expected in [500, 500, 201] {
            let batch = take(&mut waiting, 0).unwrap();
            assert_eq!(batch.events, expected);
            let body: serde_json::Value = serde_json::from_slice(&batch.body).unwrap();
            all.extend(body["events"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()));
        }
        assert_eq!(all, (0..1_201).collect::<Vec<u64>>());

        let long = "x".repeat(BYTES_MAX / 2);
        let longer = "x".repeat(BYTES_MAX + 1);
        let mut waiting = lines(&[&long, &long, "y", &longer, "z"]);
        assert!(
            is_full(&waiting) && !is_full(&lines(&[&long, "y"])) && is_full(&lines(&[&longer]))
        );
        let sizes: Vec<usize> =
            std::iter::from_fn(|| take(&mut waiting, 0).map(|batch| batch.events)).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
    }

    #[test]
    fn pauses_double_until_five_minutes_are_over() {
        let second = Duration::from_secs(1);
        let limit = Duration::from_secs(300);
        let mut elapsed = Duration::ZERO;
        let mut pauses = Vec::new();
        for failed in 0.. {
            // 100 of 201: neither more nor less.
            let Some(pause) = pause(failed, elapsed, second, limit, 100) else { break };
            pauses.push(pause.as_secs());
            elapsed += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 45]);
        assert_eq!(pause(0, Duration::ZERO, second, Duration::ZERO, 0), None);
    }

    proptest! {
        #[test]
        fn pauses_stay_within_a_tenth_and_the_limit(
            failed in 0_u32..80,
            elapsed_ms in 0_u64..400_000,
            random in any::<u64>(),
        ) {
            let (first, limit) = (Duration::from_secs(1), Duration::from_secs(300));
            let elapsed = Duration::from_millis(elapsed_ms);
            match pause(failed, elapsed, first, limit, random) {
                None => prop_assert!(elapsed >= limit),
                Some(pause) => {
                    prop_assert!(!pause.is_zero() && elapsed + pause <= limit);
                    let plain = Duration::from_secs(1 << failed.min(9));
                    prop_assert!(pause <= plain * 11 / 10);
                    prop_assert!(pause == limit - elapsed || pause >= plain.min(limit) * 9 / 10);
                }
            }
        }
    }
}
