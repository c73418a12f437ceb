//! What a worker does when memory is short: it takes its share of what is left, and closes the heaviest connections.

/// Of the memory budget, what HTTP may take when it is used up: 6 %.
const HTTP_RESERVE_DIVISOR: u64 = 16;
/// Slots looked through for heavy connections at one measurement: a millisecond or two.
const SLOTS_PER_SHED: usize = 1 << 16;

/// One worker's part.
#[derive(Default)]
pub(super) struct Guard {
    places: Places,
    /// The measurement that was dealt with last.
    measured: u32,
    /// Where to look for heavy connections next.
    next_slot: usize,
}

impl Guard {
    pub(super) fn put(&mut self, slot: u32, place: Place) {
        self.places.put(slot, place);
    }

    pub(super) fn place(&self, slot: u32) -> Place {
        self.places.get(slot)
    }
}

impl Worker {
    /// After a measurement, the core gets its share of the memory that is left.
    fn share_headroom(&self, core: &mut Core<Ring>) {
        let pressure = &self.shared.overload.pressure;
        let measured = pressure.number();
        if self.headroom_measured.replace(measured) == measured {
            return;
        }
        let cores = u64::from(core.mailbox.cores());
        core.shard.set_headroom(pressure.headroom.load(Ordering::Relaxed) / cores);
        let reserve = self.shared.config.memory_max.unwrap_or_default() / HTTP_RESERVE_DIVISOR;
        core.shard.set_http_reserve(reserve / cores);
    }

    /// Before a tick, whose flush then has the last frames: while memory is short, the connections that keep most are
    /// closed, once for each measurement.
    pub(super) fn shed(&self, core: &mut Core<Ring>, guard: &mut Guard) {
        self.share_headroom(core);
        let pressure = &self.shared.overload.pressure;
        let measured = pressure.number();
        if measured == guard.measured {
            return;
        }
        guard.measured = measured;
        if pressure.strain() > Strain::None {
            let slots = core.reactor.slots();
            let first = if guard.next_slot < slots { guard.next_slot } else { 0 };
            guard.next_slot = first + SLOTS_PER_SHED;
            core.shed(first..slots.min(first + SLOTS_PER_SHED));
        }
    }

    /// Behind a tick: gives back what connections that have ended were counted for, and tells what was refused.
    pub(super) fn settle_accounts(&self, core: &mut Core<Ring>, guard: &mut Guard) {
        let overload = &self.shared.overload;
        for slot in core.reactor.ended.drain(..) {
            overload.admission.leave(guard.places.take(slot));
        }
        overload.refusals.take(&mut core.shard.outbox.refused);
    }

    /// A connection that speaks HTTP takes another number of bytes now; whether there is memory for that.
    pub(super) fn note_memory(&self, before: usize, now: usize) -> bool {
        let mut core = self.core.borrow_mut();
        // Connections that speak HTTP may come faster than ticks do.
        self.share_headroom(&mut core);
        core.shard.note_http(before, now)
    }

    pub(super) fn count_refused(&self, why: Refused) {
        self.shared.overload.refusals.count(why);
    }
}

