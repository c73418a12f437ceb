//! What a worker does when memory is short: it limits its charges to its share of the headroom, and closes the
//! connections that use most.
//!
//! Owns the address slot of each connection, and where the next search begins. Does not measure memory or decide the
//! overload level: `server/memory.rs` and `admission` do. Input: the overload level, once for each measurement, and the
//! changes that the reactor recorded. Limit: `SLOTS_PER_SHED` slots are searched at a time. Cost: one atomic load a
//! tick; after a measurement of short memory a search of 1 to 2 ms; a few steps for each connection that begins or
//! ends.

use super::{HostKernel, Worker};
use crate::admission::overload::OverloadLevel;
use crate::admission::{AddressSlot, AddressSlots};
use crate::slot::Slot;
use crate::tick::AddressChange;

/// The share of the memory budget that HTTP may still use when it is used up: 1/16 (6 %).
const HTTP_RESERVE_DIVISOR: u64 = 16;
/// Slots searched for heavy connections at one measurement: 1 to 2 ms.
const SLOTS_PER_SHED: usize = 1 << 16;

#[derive(Default)]
pub(super) struct MemoryGuard {
    address_slots: AddressSlots,
    /// `Pressure::measurement_word` of the last measurement that was processed.
    last_measurement: u32,
    /// The first slot of the next search: searches take turns over all slots, so that no connection is left out.
    next_slot: usize,
}

impl MemoryGuard {
    pub(super) fn set_address_slot(&mut self, slot: Slot, address_slot: AddressSlot) {
        self.address_slots.insert(slot, address_slot);
    }

    pub(super) fn address_slot(&self, slot: Slot) -> AddressSlot {
        self.address_slots.get(slot)
    }
}

impl<K: HostKernel> Worker<K> {
    /// Called before a tick, whose flush sends the last frames. After a measurement the core gets its share of the
    /// headroom. While memory is short, the connections that use most are closed, once for each measurement.
    pub(super) fn shed(&mut self) {
        let pressure = &self.shared.overload.pressure;
        let measured = pressure.measurement_word();
        if measured == self.memory_guard.last_measurement {
            return;
        }
        self.memory_guard.last_measurement = measured;
        let core = &mut self.core;
        let cores = u64::from(core.mailbox.cores());
        core.shard.set_headroom(pressure.headroom() / cores);
        let reserve = self.shared.config.memory_max.unwrap_or_default() / HTTP_RESERVE_DIVISOR;
        core.shard.set_http_reserve(reserve / cores);
        if pressure.level() > OverloadLevel::None {
            let slots = core.reactor.slots();
            let first =
                if self.memory_guard.next_slot < slots { self.memory_guard.next_slot } else { 0 };
            self.memory_guard.next_slot = first + SLOTS_PER_SHED;
            core.shed(first..slots.min(first + SLOTS_PER_SHED));
        }
    }

    /// Called after a tick: stores the address slots of new connections, releases those of ended ones, and adds the
    /// refusals to the shared counters.
    pub(super) fn settle_accounts(&mut self) {
        let overload = &self.shared.overload;
        for account in self.core.reactor.accounts.drain(..) {
            match account {
                AddressChange::Begun(slot, address_slot) => {
                    self.memory_guard.set_address_slot(slot, address_slot)
                }
                AddressChange::Ended(slot) => overload
                    .admission
                    .release_connection(self.memory_guard.address_slots.remove(slot)),
            }
        }
        overload.refusals.drain_from(&mut self.core.shard.outbox.refused);
    }
}
