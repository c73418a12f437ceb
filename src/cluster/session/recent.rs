//! The messages that a session has published recently, to be replayed for another session that was down. PURE.
//!
//! Owns their list. Redis keeps nothing for a subscriber that is not connected: a node whose connection breaks for a
//! moment would miss what is published during it. Does not know who has received a message: the request for a replay
//! names the newest number. Limits: `BYTES_MAX` of frames, which are shared with the send queues, and `SECONDS_MAX`;
//! the oldest is dropped first. Cost: `note` is an entry of a queue, and copies no frame; `numbers_above` is linear in
//! the list.

use std::collections::VecDeque;

use crate::buffer::FrameBytes;
use crate::pusher::socket_id::SocketId;
use crate::shard::{AccessCommand, ChannelKey};

const BYTES_MAX: usize = 16 << 20;
/// How long a session may be down and miss nothing.
pub(super) const SECONDS_MAX: u32 = 60;
/// Charged for an entry beside its frame, so that many small messages are bounded, too.
const ENTRY_BYTES: usize = 96;

/// A message that is published once, and not sent again with a snapshot.
#[derive(Clone, Debug)]
pub(super) enum RecentMessage {
    Event { channel: ChannelKey, frame: FrameBytes, except: Option<SocketId> },
    EndAccess(Box<AccessCommand>),
}

impl RecentMessage {
    fn charged_bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Event { frame, .. } => frame.len(),
                Self::EndAccess(command) => command.text_bytes(),
            }
    }
}

#[derive(Debug, Default)]
pub(super) struct RecentMessages {
    /// In ascending order: number, and the second in which it was published.
    published: VecDeque<(u64, u32, RecentMessage)>,
    charged_bytes: usize,
    /// Messages that were discarded before `SECONDS_MAX` was over, because newer ones needed their room.
    discarded: u64,
}

impl RecentMessages {
    pub(super) fn note(&mut self, number: u64, second: u32, published: RecentMessage) {
        debug_assert!(
            self.published.back().is_none_or(|(of, at, _)| *of < number && *at <= second),
            "in the order of their numbers"
        );
        self.charged_bytes += published.charged_bytes();
        self.published.push_back((number, second, published));
        while self.charged_bytes > BYTES_MAX {
            self.drop_oldest();
            self.discarded += 1;
        }
        debug_assert!(self.charged_bytes <= BYTES_MAX, "the oldest were discarded");
    }

    pub(super) fn charged_bytes(&self) -> usize {
        debug_assert!(
            !self.published.is_empty() || self.charged_bytes == 0,
            "no message, no bytes"
        );
        self.charged_bytes
    }

    pub(super) fn discarded_count(&self) -> u64 {
        self.discarded
    }

    /// Drops what is older than `SECONDS_MAX`.
    pub(super) fn expire(&mut self, now: u32) {
        while self.published.front().is_some_and(|(_, second, _)| second + SECONDS_MAX < now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        debug_assert!(!self.published.is_empty(), "only messages have bytes");
        if let Some((_, _, published)) = self.published.pop_front() {
            debug_assert!(
                self.charged_bytes >= published.charged_bytes(),
                "`note` has counted them"
            );
            self.charged_bytes -= published.charged_bytes();
        }
    }

    /// Messages with a higher number that were published in `second` or later.
    pub(super) fn numbers_above(&self, number: u64, second: u32) -> Vec<(u64, RecentMessage)> {
        let each = self.published.iter().filter(|(of, at, _)| *of > number && *at >= second);
        each.map(|(number, _, published)| (*number, published.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{AccessAction, AccessTarget};

    fn published(bytes: usize) -> RecentMessage {
        RecentMessage::EndAccess(Box::new(AccessCommand {
            app: crate::app::AppIndex(0),
            target: AccessTarget::User("x".repeat(bytes).into()),
            action: AccessAction::Terminate,
        }))
    }

    fn numbers(recent: &RecentMessages, number: u64, second: u32) -> Vec<u64> {
        recent.numbers_above(number, second).into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn the_newest_is_kept_and_the_oldest_goes() {
        let mut recent = RecentMessages::default();
        for number in 1..=9 {
            recent.note(number, u32::try_from(number).unwrap(), published(10));
        }
        assert_eq!(numbers(&recent, 6, 0), [7, 8, 9]);
        assert_eq!(numbers(&recent, 0, 8), [8, 9]);
        recent.expire(SECONDS_MAX + 5);
        assert_eq!(numbers(&recent, 0, 0), [5, 6, 7, 8, 9]);
        assert_eq!((recent.charged_bytes(), recent.discarded_count()), (5 * (ENTRY_BYTES + 10), 0));
        recent.note(10, 10, published(BYTES_MAX - 2 * ENTRY_BYTES - 10));
        assert_eq!(numbers(&recent, 0, 0), [9, 10]);
        recent.note(11, 11, published(BYTES_MAX));
        assert_eq!((numbers(&recent, 0, 0), recent.charged_bytes()), (vec![], 0));
        assert_eq!(recent.discarded_count(), 7, "5 to 8, then 9, 10 and 11");
    }
}
