//! Channels whose cache miss was sent a short time ago, so that it is not repeated (docs/PROTOCOL.md rule 76).
//!
//! Owns the names of these channels. PURE; does not send: `gate.rs` asks for each cache miss. Limit: `MISSES_MAX`
//! channels. Beyond it the oldest is forgotten, so its cache miss may be sent again, and no event is lost. Cost: two
//! look-ups for each cache miss.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::app::AppIndex;
use crate::clock::Moment;
use crate::pusher::webhook_event::WebhookEvent;

const MISSES_MAX: usize = 10_000;
/// How long a cache miss is not repeated, in milliseconds.
const MISS_QUIET_MS: u64 = 10_000;

#[derive(Debug, Default)]
pub(super) struct RecentCacheMisses {
    channels: HashSet<(AppIndex, Arc<str>)>,
    /// The same channels, each with the end of its quiet time, oldest first.
    by_age: VecDeque<(Moment, AppIndex, Arc<str>)>,
}

impl RecentCacheMisses {
    /// Whether this cache miss is to be sent. Records it as sent now.
    pub(super) fn is_new(&mut self, event: &WebhookEvent, now: Moment) -> bool {
        while let Some((until, ..)) = self.by_age.front() {
            if *until > now && self.by_age.len() < MISSES_MAX {
                break;
            }
            if let Some((_, app, channel)) = self.by_age.pop_front() {
                self.channels.remove(&(app, channel));
            }
        }
        let is_new = self.channels.insert((event.app, event.channel.clone()));
        if is_new {
            let until = Moment(now.0.saturating_add(MISS_QUIET_MS));
            self.by_age.push_back((until, event.app, event.channel.clone()));
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pusher::webhook_event::Happening;

    fn miss(app: u16, channel: &str) -> WebhookEvent {
        let happening = Happening::CacheMiss;
        WebhookEvent { app: AppIndex(app), channel: channel.into(), happening }
    }

    #[test]
    fn a_cache_miss_is_sent_once_in_ten_seconds() {
        let mut misses = RecentCacheMisses::default();
        let times = [0, 1, 9_999, 10_000, 19_999, 20_000];
        let sent = times.map(|at| misses.is_new(&miss(0, "a"), Moment(at)));
        assert_eq!(sent, [true, false, false, true, false, true]);
        assert!(misses.is_new(&miss(0, "b"), Moment(20_001)));
        assert!(misses.is_new(&miss(1, "a"), Moment(20_001)), "of another app");
    }

    #[test]
    fn the_memory_of_cache_misses_is_bounded_and_no_event_is_lost_by_that() {
        let mut misses = RecentCacheMisses::default();
        for number in 0..2 * MISSES_MAX {
            assert!(misses.is_new(&miss(0, &number.to_string()), Moment(0)));
            assert!(misses.channels.len() <= MISSES_MAX);
            assert_eq!(misses.channels.len(), misses.by_age.len());
        }
        assert!(misses.is_new(&miss(0, "0"), Moment(1)), "it was forgotten");
    }
}
