//! When things are due in an open loop. PURE: it does not read the clock.
//!
//! Owns a start, a rate and a count. Nothing is ever left out: what could not be done on time is still due, with the
//! time for which it was scheduled, and latency counts from there. So a server (or a client) that stalls is charged for
//! everything that was due during the stall, and not only for the one thing that it was busy with. No limits: one
//! value. Cost: a few steps a call, no allocation.

use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    begin: Instant,
    /// Per second.
    rate: f64,
    taken: u64,
}

impl Schedule {
    /// The first thing is due one interval after `begin`.
    pub(crate) fn new(begin: Instant, rate: f64) -> Self {
        assert!(rate > 0.0);
        Self { begin, rate, taken: 0 }
    }

    /// When the next thing is due; counted from the beginning, so that no error adds up.
    pub(crate) fn next(&self) -> Instant {
        self.begin + Duration::from_secs_f64((self.taken + 1) as f64 / self.rate)
    }

    /// Takes the next thing if it is due, with the time for which it was scheduled.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Instant> {
        let next = self.next();
        if next > now {
            return None;
        }
        self.taken += 1;
        Some(next)
    }
}

/// For clap: things a second.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.001 to 10000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_leaves_nothing_out_and_counts_from_the_schedule() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, 10.0);
        assert_eq!(schedule.take(begin + Duration::from_millis(99)), None);
        // Nobody looked for 1.05 s: ten things are due, the first of them 950 ms late.
        let now = begin + Duration::from_millis(1_050);
        let due: Vec<Instant> = std::iter::from_fn(|| schedule.take(now)).collect();
        assert_eq!(due.len(), 10);
        let late: Vec<u128> =
            due.iter().map(|scheduled| now.duration_since(*scheduled).as_millis()).collect();
        assert_eq!(late, [950, 850, 750, 650, 550, 450, 350, 250, 150, 50]);
        assert_eq!(schedule.next(), begin + Duration::from_millis(1_100));
    }

    #[test]
    fn odd_rates_do_not_drift() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, 3.0);
        let end = begin + Duration::from_secs(1_000);
        let count = std::iter::from_fn(|| schedule.take(end)).count();
        assert!((2_999..=3_000).contains(&count), "{count}");
    }

    #[test]
    fn a_rate_is_a_positive_finite_number() {
        assert_eq!(parse_rate("2000"), Ok(2000.0));
        assert!(parse_rate("0").is_err() && parse_rate("-1").is_err() && parse_rate("x").is_err());
        assert!(parse_rate("nan").is_err() && parse_rate("inf").is_err());
    }
}
