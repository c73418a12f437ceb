//! Giving memory back: the connections that keep most are closed first. PURE.
//!
//! Owns no state, and does not measure memory: the worker calls it with slices of its slots while the process is short
//! of memory. Input: a connection's charges, its send queue, and the incomplete input that the reactor knows of. Each
//! closed client gets 4100 and may reconnect. After each call the heaviest of these slots keeps at most half as much as
//! the heaviest did before.
//!
//! Limits: `CLOSES_MAX` in a call; a connection that keeps less than `KEPT_BYTES_MIN` is not closed. Cost: one step for
//! each slot of a slice, and an end of a connection for each that is closed.

use crate::shard::context::Context;
use crate::shard::outbox::Outbox;
use crate::slot::Slot;
use std::ops::Range;

use super::Local;
use crate::cause::Cause;
use crate::pusher::error_code;

/// Connections that keep fewer bytes stay: closing them would free next to nothing.
const KEPT_BYTES_MIN: usize = 16 * 1024;
/// In one call, because each connection has its channels to leave.
const CLOSES_MAX: usize = 1_024;

impl Local {
    /// Closes with 4100 those connections in these slots that keep at least half as much as the heaviest among them.
    /// Call it again while memory is short: each time the rest keep half as much at most. `input_bytes` returns the
    /// memory of a slot's incomplete input.
    ///
    /// What a send queue frees is not known beforehand, because frames are shared: memory is freed with the last queue.
    pub(in crate::shard) fn shed(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slots: Range<usize>,
        input_bytes: impl Fn(Slot) -> usize,
    ) {
        let kept = |local: &Self, slot: Slot| {
            let found = local.connections.get(slot);
            found.filter(|found| !found.is_closing).map_or(0, |found| {
                found.charged_bytes as usize + found.send_queue.memory_bytes() + input_bytes(slot)
            })
        };
        let slots = slots.map(Slot::of);
        let most = slots.clone().map(|slot| kept(self, slot)).max().unwrap_or_default();
        let least = (most / 2).max(KEPT_BYTES_MIN);
        let heavy: Vec<Slot> =
            slots.filter(|slot| kept(self, *slot) >= least).take(CLOSES_MAX).collect();
        debug_assert!(heavy.len() <= CLOSES_MAX, "each has its channels to leave");
        let error = error_code::SHORT_OF_MEMORY;
        for slot in heavy {
            let bytes = kept(self, slot);
            debug_assert!(
                bytes >= KEPT_BYTES_MIN,
                "closing the light ones would free next to nothing"
            );
            self.close_without_queue(context, out, slot, error, Cause::Shed, bytes);
        }
    }
}
