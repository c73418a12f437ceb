//! What a worker does when memory is short: it limits its charges to its share of what is left, and closes the
//! connections that keep most.

use super::{HostKernel, Worker};
use crate::admission::overload::OverloadLevel;
use crate::admission::{AddressSlot, AddressSlots};
use crate::tick::AddressChange;

/// Of the memory budget, what HTTP may take when it is used up: 6 %.
const HTTP_RESERVE_DIVISOR: u64 = 16;
/// Slots looked through for heavy connections at one measurement: a millisecond or two.
const SLOTS_PER_SHED: usize = 1 << 16;

/// One worker's part.
#[derive(Default)]
pub(super) struct Guard {
    places: AddressSlots,
    /// The measurement that was dealt with last.
    measured: u32,
    /// Where to look for heavy connections next.
    next_slot: usize,
}

impl Guard {
    pub(super) fn put(&mut self, slot: u32, place: AddressSlot) {
        self.places.put(slot, place);
    }

    pub(super) fn place(&self, slot: u32) -> AddressSlot {
        self.places.get(slot)
    }
}

impl<K: HostKernel> Worker<K> {
    /// Before a tick, whose flush then has the last frames. After a measurement, the core gets its share of the memory
    /// that is left; while memory is short, the connections that keep most are closed, once for each measurement.
    pub(super) fn shed(&mut self) {
        let pressure = &self.shared.overload.pressure;
        let measured = pressure.number();
        if measured == self.guard.measured {
            return;
        }
        self.guard.measured = measured;
        let core = &mut self.core;
        let cores = u64::from(core.mailbox.cores());
        core.shard.set_headroom(pressure.headroom() / cores);
        let reserve = self.shared.config.memory_max.unwrap_or_default() / HTTP_RESERVE_DIVISOR;
        core.shard.set_http_reserve(reserve / cores);
        if pressure.strain() > OverloadLevel::None {
            let slots = core.reactor.slots();
            let first = if self.guard.next_slot < slots { self.guard.next_slot } else { 0 };
            self.guard.next_slot = first + SLOTS_PER_SHED;
            core.shed(first..slots.min(first + SLOTS_PER_SHED));
        }
    }

    /// Behind a tick: notes what connections that have begun are counted for, gives back what those that have ended
    /// were, and tells what was refused.
    pub(super) fn settle_accounts(&mut self) {
        let overload = &self.shared.overload;
        for account in self.core.reactor.accounts.drain(..) {
            match account {
                AddressChange::Begun(slot, place) => self.guard.put(slot, place),
                AddressChange::Ended(slot) => {
                    overload.admission.leave(self.guard.places.take(slot))
                }
            }
        }
        overload.refusals.take(&mut self.core.shard.outbox.refused);
    }
}
