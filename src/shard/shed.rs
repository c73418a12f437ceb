//! Giving memory back: the longest send queues go first. PURE.

use std::ops::Range;

use super::Shard;
use crate::counters::Refused;
use crate::pusher::error_code;

/// Send queues below this many bytes are nobody's fault: closing their owners would free next to nothing.
const QUEUE_BYTES_MIN: usize = 16 * 1024;
/// Connections closed at one call at most: each has its channels to leave.
const CLOSES_MAX: usize = 1_024;

impl Shard {
    /// Closes with 4100 those connections in these slots whose send queues are at least half as long as the longest
    /// among them. Call it again while memory is short: each time the rest is half as long at most.
    ///
    /// What a queue frees is not known beforehand, because frames are shared: it goes with its last queue.
    pub fn shed(&mut self, slots: Range<usize>) {
        let queued = |shard: &Self, slot: usize| {
            let found = shard.connections.get(slot).filter(|found| !found.closing);
            found.map_or(0, |found| found.send_queue.bytes())
        };
        let longest = slots.clone().map(|slot| queued(self, slot)).max().unwrap_or_default();
        let least = (longest / 2).max(QUEUE_BYTES_MIN);
        let long: Vec<usize> =
            slots.filter(|slot| queued(self, *slot) >= least).take(CLOSES_MAX).collect();
        let error = error_code::SHORT_OF_MEMORY;
        for slot in long.into_iter().filter_map(|slot| u32::try_from(slot).ok()) {
            self.cut_off(slot, error, Refused::Shed);
        }
    }
}
