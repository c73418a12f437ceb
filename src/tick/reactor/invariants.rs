//! Invariants of sockets and their queues between two ticks. PURE.
//!
//! Owns no state. Checks that each connection has its socket, and that a socket is queued to be read exactly once, or
//! not at all. Walks over all sockets of a core, so only tests, the simulator and debug builds call it. Does not change
//! anything.
//!
//! Limits: the state that it walks over. Cost: a step and one hash for each socket.

use std::collections::HashSet;

use super::Reactor;
use super::queued::Queued;
use crate::shard::Shard;
use crate::slot::Slot;
use crate::tick::kernel::Kernel;

impl<K: Kernel> Reactor<K> {
    /// Checks the invariants.
    ///
    /// # Errors
    /// The first one that is violated, with the slot.
    pub(in crate::tick) fn check_invariants(&self, shard: &Shard) -> Result<(), String> {
        let sockets = &self.sockets.0;
        let open = sockets.iter().filter(|socket| socket.descriptor.is_some()).count();
        if open != shard.connection_count() {
            let connections = shard.connection_count();
            return Err(format!("{open} sockets are open for {connections} connections"));
        }
        if let Some(key) = shard.keys().find(|key| self.sockets.descriptor(key.slot).is_none()) {
            return Err(format!("{key:?} has no socket"));
        }
        // Entries of connections that have ended stay in the queues until it is their turn.
        let mut queued = HashSet::new();
        let queues = self.ready.iter().chain(&self.unread).chain(&self.paused_reads);
        for key in queues.filter(|key| shard.get(**key).is_some()) {
            if !queued.insert(key.slot) {
                return Err(format!("{key:?} is queued twice"));
            }
        }
        for (slot, socket) in (0..).map(Slot::new).zip(sockets) {
            let is_queued = socket.queued != Queued::No;
            if socket.descriptor.is_some() && is_queued != queued.contains(&slot) {
                return Err(format!(
                    "slot {slot} is {:?}, and queued: {}",
                    socket.queued, !is_queued
                ));
            }
        }
        Ok(())
    }
}
