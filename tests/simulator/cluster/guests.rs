//! The clients of all nodes: what they send, what they receive, and what is due to them.

use ringverb::pusher::socket_id::SocketId;

use super::{Cluster, Guest};
use crate::client::{self, CHANNELS, Client, NUMBERS_PER_NODE, USERS};
use crate::kernel::Wire;

impl Cluster {
    pub(super) fn connect(&mut self) {
        let Some((node, core)) = self.somewhere() else { return };
        let wire = self.world.borrow_mut().add_wire(Wire::with_room(100_000));
        let user = USERS[self.below(USERS.len())].to_owned();
        let mut client = Client::new(wire, user, &self.ledger);
        let node = &mut self.nodes[node];
        let mut world = self.world.borrow_mut();
        let bytes = client.begin(&world.random);
        world.send(wire, &bytes);
        drop(world);
        node.process.connect(core, wire);
        self.guests.push(Guest { client, node: node.label });
    }

    pub(super) fn somebody(&self) -> Option<usize> {
        let there: Vec<usize> =
            (0..self.guests.len()).filter(|index| !self.guests[*index].client.over).collect();
        there.get(self.below(there.len().max(1))).copied()
    }

    pub(super) fn act(
        &mut self,
        action: impl FnOnce(&mut Client, &'static str) -> Option<Vec<u8>>,
    ) {
        let channel = CHANNELS[self.below(CHANNELS.len())];
        let Some(index) = self.somebody() else { return };
        if let Some(bytes) = action(&mut self.guests[index].client, channel) {
            self.send(index, &bytes);
        }
    }

    pub(super) fn send(&mut self, index: usize, bytes: &[u8]) {
        let wire = self.guests[index].client.wire;
        self.world.borrow_mut().send(wire, bytes);
    }

    /// A number for an event of this node, due to all who listen but one.
    pub(super) fn number(
        &mut self,
        node: usize,
        channel: &'static str,
        sender: Option<usize>,
    ) -> u64 {
        let publisher = &mut self.nodes[node];
        publisher.number += 1;
        let number = publisher.number;
        self.announce(number, channel, sender);
        number
    }

    /// An event is due to all who listen but one.
    pub(super) fn announce(&mut self, number: u64, channel: &'static str, sender: Option<usize>) {
        let label = number / NUMBERS_PER_NODE;
        for (index, guest) in self.guests.iter_mut().enumerate() {
            let Some(place) = guest.client.listening(channel).filter(|_| sender != Some(index))
            else {
                continue;
            };
            if guest.node == label {
                place.due.insert(number);
            } else if self.nodes.iter().any(|node| node.label == guest.node && node.receives_all) {
                place.due_from_elsewhere.insert(number);
            }
        }
    }

    pub(super) fn publish(&mut self, to_others: bool) {
        let Some((node, core)) = self.somewhere() else { return };
        if !self.nodes[node].changes.is_served(&self.nodes[node].process) {
            return;
        }
        let channel = CHANNELS[self.below(CHANNELS.len())];
        let sender = self.somebody().filter(|_| to_others);
        let except = sender.and_then(|index| self.guests[index].client.socket_id.clone());
        let number = self.number(node, channel, sender.filter(|_| except.is_some()));
        if let (Some(sender), Some(_)) = (sender, &except)
            && !channel.starts_with("cache-")
        {
            self.guests[sender].client.not_for_it.insert(number);
        }
        let except = except.as_deref().and_then(SocketId::parse);
        self.nodes[node].process.publish(core, channel, number, except);
    }

    pub(super) fn client_event(&mut self) {
        let channel = ["private-p", "presence-r"][self.below(2)];
        let Some(index) = self.somebody() else { return };
        if self.guests[index].client.listening(channel).is_none() {
            return;
        }
        let label = self.guests[index].node;
        let Some(node) = self.nodes.iter().position(|node| node.label == label) else { return };
        let number = self.number(node, channel, Some(index));
        self.guests[index].client.unsettled.push(number);
        let bytes = self.guests[index].client.client_event(channel, number);
        self.send(index, &bytes);
    }

    pub(super) fn end_client(&mut self) {
        let Some(index) = self.somebody() else { return };
        if self.below(2) == 0 {
            self.send(index, &client::frame(8, &1000_u16.to_be_bytes()));
        } else {
            let wire = self.guests[index].client.wire;
            self.world.borrow_mut().reset(wire);
        }
        self.forget(index);
    }

    /// Nothing is due to a client that has gone, and its last messages may not have arrived.
    pub(super) fn forget(&mut self, index: usize) {
        self.guests[index].client.over = true;
        for number in std::mem::take(&mut self.guests[index].client.unsettled) {
            for guest in &mut self.guests {
                for place in guest.client.places.values_mut() {
                    place.due.remove(&number);
                    place.due_from_elsewhere.remove(&number);
                }
            }
        }
    }

    pub(super) fn read_all(&mut self) {
        for index in 0..self.guests.len() {
            let most = 1 + self.below(400);
            self.read(index, most);
        }
        let most = 1 + self.below(400);
        self.read_backends(most);
    }

    pub(super) fn read(&mut self, index: usize, most: usize) -> bool {
        let client = &mut self.guests[index].client;
        if self.world.borrow().wires[client.wire].reset {
            return false;
        }
        let was_over = client.over;
        let bytes = self.world.borrow_mut().take(client.wire, most);
        client.receive_bytes(&bytes);
        let is_over = client.over && !was_over;
        if is_over {
            // Its app is disabled or removed on this node.
            let is_change = self.changes_apps && matches!(client.close_code, Some(4001 | 4003));
            assert!(is_change, "nobody is closed here: {:?}", client.close_code);
            self.forget(index);
        }
        !bytes.is_empty()
    }

    pub(super) fn read_everything(&mut self) -> bool {
        let clients = 0..self.guests.len();
        let has_read = clients.filter(|index| self.read(*index, usize::MAX)).count() > 0;
        self.read_backends(usize::MAX) || has_read
    }
}
