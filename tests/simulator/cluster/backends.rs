//! Backends of all nodes: they publish and ask over HTTP, and none of them means harm.

use super::Cluster;
use crate::backend::NUMBERS_PER_STREAM;
use crate::backend::{Backend, Effect, Manner};
use crate::client::NUMBERS_PER_NODE;
use crate::kernel::Wire;

/// Backends at a time.
const BACKENDS_MAX: usize = 6;

/// A backend, and the node it is connected to.
pub(super) struct Caller {
    backend: Backend,
    node: u64,
}

impl Cluster {
    pub(super) fn step_of_backends(&mut self) {
        self.backends.retain(|caller| !caller.backend.over);
        if self.backends.len() < BACKENDS_MAX && self.below(3) == 0 {
            self.connect_backend();
        }
        let Some(index) = self.below(self.backends.len().max(1)).checked_rem(self.backends.len())
        else {
            return;
        };
        let caller = &mut self.backends[index];
        if caller.backend.unsent() == 0 && caller.backend.may_ask() {
            let Some(node) = self.nodes.iter().find(|node| node.label == caller.node) else {
                return;
            };
            let clients = self.guests.iter().filter(|guest| !guest.client.over);
            let ids: Vec<String> =
                clients.filter_map(|guest| guest.client.socket_id.clone()).collect();
            let world = self.world.borrow();
            let socket_id = ids.get(world.random.below(ids.len() + 1)).cloned();
            caller.backend.ask(&world.random, node.process.unix_seconds(), socket_id.as_deref());
        }
        let unsent = self.backends[index].backend.unsent();
        let most = if self.below(2) == 0 { unsent } else { 1 + self.below(unsent.max(1)) };
        let mut effects = Vec::new();
        self.backends[index].backend.send(&self.world, most, true, &mut effects);
        self.apply(effects);
    }

    fn connect_backend(&mut self) {
        let Some((node, core)) = self.somewhere() else { return };
        let mut wire = Wire::with_room(100_000);
        wire.is_http = true;
        let wire = self.world.borrow_mut().add_wire(wire);
        let node = &mut self.nodes[node];
        node.streams += 1;
        let first = node.label * NUMBERS_PER_NODE + node.streams * NUMBERS_PER_STREAM;
        node.process.connect(core, wire);
        let backend = Backend::new(wire, Manner::Orderly, first);
        self.backends.push(Caller { backend, node: node.label });
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Sent { number, channel, except } => {
                    let mut guests = self.guests.iter();
                    let sender = except.and_then(|socket_id| {
                        guests.position(|guest| guest.client.socket_id.as_ref() == Some(&socket_id))
                    });
                    self.announce(number, channel, sender);
                    if let Some(sender) = sender.filter(|_| !channel.starts_with("cache-")) {
                        self.guests[sender].client.not_for_it.insert(number);
                    }
                }
                Effect::GatherAnswer(_) => {}
                Effect::Unknown(number) => self.forgive_event(number),
                Effect::Void(number) => {
                    self.ledger.borrow_mut().note_void(number);
                    self.forgive_event(number);
                }
            }
        }
    }

    fn forgive_event(&mut self, number: u64) {
        for place in self.guests.iter_mut().flat_map(|guest| guest.client.places.values_mut()) {
            place.due.remove(&number);
            place.due_from_elsewhere.remove(&number);
        }
    }

    /// Each backend reads up to so many bytes; whether there was something.
    pub(super) fn read_backends(&mut self, most: usize) -> bool {
        let mut is_new = false;
        let mut effects = Vec::new();
        let mut world = self.world.borrow_mut();
        for Caller { backend, .. } in self.backends.iter_mut().filter(|one| !one.backend.over) {
            let bytes = world.take(backend.wire, most);
            is_new |= !bytes.is_empty();
            backend.receive_bytes(&bytes, false, &mut effects);
            if world.wires[backend.wire].is_at_end() {
                is_new = true;
                backend.note_end(false, &mut effects);
                world.end(backend.wire);
            }
        }
        drop(world);
        self.apply(effects);
        is_new
    }

    /// Whether any backend waits for an answer.
    pub(super) fn backends_wait(&self) -> bool {
        self.backends.iter().any(|caller| caller.backend.waits())
    }

    /// When nothing moves, and no client waits for other nodes.
    pub(super) fn check_backends(&self) {
        let world = self.world.borrow();
        for Caller { backend, .. } in &self.backends {
            backend.check(&world.wires[backend.wire]);
        }
    }

    /// A node is gone, with the connections to it.
    pub(super) fn forget_backends(&mut self, label: u64) {
        self.backends.retain(|caller| caller.node != label);
    }

    /// All backends leave.
    pub(super) fn end_backends(&mut self) {
        for Caller { backend, .. } in std::mem::take(&mut self.backends) {
            self.world.borrow_mut().end(backend.wire);
        }
    }
}
