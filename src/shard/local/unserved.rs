//! Closes the connections of apps that are no longer served: 4003 for a disabled app, 4001 for a removed one. PURE.
//!
//! Owns the place of one walk over all slots, which a change of the configuration begins. Does not decide which apps
//! are served. No connection of such an app can open on this core after the change, so one walk finds all.
//!
//! Limit: `SLOTS_PER_TICK` slots in a tick, because each connection has its channels to leave. Cost: one step for each
//! slot, `SLOTS_PER_TICK` in a tick, only after a change of the apps.

use super::Local;
use super::refuse::Denial;
use crate::cause::{Cause, Detail};
use crate::pusher::error_code;
use crate::shard::context::Context;
use crate::shard::outbox::Outbox;
use crate::slot::Slot;

/// A tick of other clients is delayed by the closes of so many connections at most.
const SLOTS_PER_TICK: u32 = 1_024;

impl Local {
    /// Begins the walk, again if one is under way: it may have passed connections of this app.
    pub(in crate::shard) fn note_unserved(&mut self) {
        self.unserved_next_slot = Some(Slot::FIRST);
    }

    #[inline]
    pub(in crate::shard) fn has_unserved(&self) -> bool {
        self.unserved_next_slot.is_some()
    }

    pub(in crate::shard) fn close_unserved(&mut self, context: &Context, out: &mut Outbox) {
        let Some(first) = self.unserved_next_slot else { return };
        let end = self.connections.slots_end();
        let last = Slot::new(first.number().saturating_add(SLOTS_PER_TICK)).min(end);
        debug_assert!(
            last.number().saturating_sub(first.number()) <= SLOTS_PER_TICK,
            "other clients wait for so many closes at most"
        );
        for slot in (first.number()..last.number()).map(Slot::new) {
            let Some(found) = self.connections.get(slot).filter(|found| !found.is_closing) else {
                continue;
            };
            let app = context.app(found.app);
            if app.is_served() {
                continue;
            }
            let (error, cause) = if app.is_removed {
                (error_code::NO_SUCH_APP, Cause::AppRemoved)
            } else {
                (error_code::APP_DISABLED, Cause::AppSwitchedOff)
            };
            let denial = Denial::new(error, cause, [Detail::text(&*app.id)]);
            self.deny_and_close(context, out, slot, &denial);
        }
        self.unserved_next_slot = (last < end).then_some(last);
        debug_assert!(self.unserved_next_slot.is_none_or(|next| next > first), "the walk goes on");
    }
}
