//! The clients of all nodes: what they send, what they receive, and what is due to them.

use ringverb::pusher::socket_id::SocketId;

use super::{CACHE, Cluster, Guest, STORED_EVENT_KEY};
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
            self.expect_greeting(index, channel);
            self.send(index, &bytes);
        }
    }

    /// A request to subscribe to a cache channel is sent now. The first subscriber of a node waits for what Redis has
    /// stored. Later ones are greeted with what the node has received.
    pub(super) fn expect_greeting(&mut self, index: usize, channel: &'static str) {
        let Guest { client, node } = &mut self.guests[index];
        let Some(place) = client.places.get_mut(channel).filter(|place| !place.acknowledged) else {
            return;
        };
        if channel != CACHE || self.changes_apps || self.redis_is_away || place.back_at_once {
            return;
        }
        let node = self.nodes.iter().find(|found| found.label == *node).expect("it is there");
        let is_up = node.is_up(&self.redis) && !self.redis.is_faulty();
        let is_over = node.process.redis_connections.iter().any(|redis| redis.is_over);
        let is_first = node.core_with_topic(channel).is_none();
        let knows = is_first || node.receives_all && self.is_stored_at_rest;
        place.must_be_greeted =
            is_up && !is_over && knows && self.redis.has_stored(STORED_EVENT_KEY);
        if is_first {
            let mut stored: Vec<u64> =
                self.redis.values_of(STORED_EVENT_KEY).map(event_number).collect();
            let newest = stored.pop();
            place.too_old = stored.into_iter().filter(|number| Some(*number) != newest).collect();
        }
    }

    /// Something breaks, or takes so long that a node does not wait for Redis.
    pub(super) fn excuse_cache_misses(&mut self) {
        let clients = self.guests.iter_mut().map(|guest| &mut guest.client);
        let places = clients.flat_map(|client| client.places.values_mut());
        places.for_each(|place| place.must_be_greeted = false);
        self.is_stored_at_rest &= self.redis.has_stored(STORED_EVENT_KEY);
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

    pub(super) fn publish_on(&mut self, node: usize, core: usize, channel: &'static str) {
        if !self.nodes[node].stopped
            && self.nodes[node].changes.is_served(&self.nodes[node].process)
        {
            let number = self.number(node, channel, None);
            self.nodes[node].process.publish(core, channel, number, None);
        }
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

/// Of an event as Redis stores it.
fn event_number(value: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(value);
    let (_, data) = text.split_once("\"data\":\"").expect("an event has data");
    let (number, _) = data.split_once('"').expect("data ends");
    number.parse().expect("the data of an event is its number")
}
