//! What a link has said of late, to be said again to a line that was away meanwhile. PURE.
//!
//! Redis keeps nothing for whoever is not there: a node whose line breaks for a moment would miss what is published in
//! it. Bounds: `BYTES_MAX` of frames, which are shared with the send queues, and `BEATS_MAX` seconds; the oldest goes
//! first.

use std::collections::VecDeque;

use crate::app::AppIndex;
use crate::buffer::FrameBytes;
use crate::pusher::socket_id::SocketId;
use crate::shard::ChannelKey;

const BYTES_MAX: usize = 16 << 20;
/// How long a line may be away and miss nothing.
pub(super) const BEATS_MAX: u32 = 60;
/// What an entry costs beside its frame.
const ENTRY_BYTES: usize = 96;

/// Something that is said once, and not told again as state is.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Event { channel: ChannelKey, frame: FrameBytes, except: Option<SocketId> },
    Terminate { app: AppIndex, user_id: Box<str> },
}

impl Said {
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Event { frame, .. } => frame.len(),
                Self::Terminate { user_id, .. } => user_id.len(),
            }
    }
}

#[derive(Debug, Default)]
pub(super) struct Recent {
    /// By number, with the beat in which it was said.
    said: VecDeque<(u64, u32, Said)>,
    bytes: usize,
}

impl Recent {
    pub(super) fn note(&mut self, number: u64, beat: u32, said: Said) {
        self.bytes += said.bytes();
        self.said.push_back((number, beat, said));
        while self.bytes > BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// Drops what is too old to be asked for.
    pub(super) fn expire(&mut self, now: u32) {
        while self.said.front().is_some_and(|(_, beat, _)| beat + BEATS_MAX < now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, _, said)) = self.said.pop_front() {
            self.bytes -= said.bytes();
        }
    }

    /// What has a higher number, and was said in that beat or later.
    pub(super) fn since(&self, number: u64, beat: u32) -> Vec<(u64, Said)> {
        let each = self.said.iter().filter(|(of, at, _)| *of > number && *at >= beat);
        each.map(|(number, _, said)| (*number, said.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: usize) -> Said {
        Said::Terminate { app: AppIndex(0), user_id: "x".repeat(bytes).into() }
    }

    fn numbers(recent: &Recent, number: u64, beat: u32) -> Vec<u64> {
        recent.since(number, beat).into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn the_newest_is_kept_and_the_oldest_goes() {
        let mut recent = Recent::default();
        for number in 1..=9 {
            recent.note(number, u32::try_from(number).unwrap(), said(10));
        }
        assert_eq!(numbers(&recent, 6, 0), [7, 8, 9]);
        assert_eq!(numbers(&recent, 0, 8), [8, 9]);
        recent.expire(BEATS_MAX + 5);
        assert_eq!(numbers(&recent, 0, 0), [5, 6, 7, 8, 9]);
        recent.note(10, 10, said(BYTES_MAX - 2 * ENTRY_BYTES - 10));
        assert_eq!(numbers(&recent, 0, 0), [9, 10]);
        recent.note(11, 11, said(BYTES_MAX));
        assert_eq!((numbers(&recent, 0, 0), recent.bytes), (vec![], 0));
    }
}
