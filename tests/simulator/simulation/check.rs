//! What must be true in every state of the simulation, and at rest.

use std::collections::{BTreeMap, BTreeSet};

use super::Simulation;
use crate::client::{CHANNELS, USERS};
use crate::process::APP;

impl Simulation {
    /// Until nothing moves: the cores rest, and each client that reads has read all.
    pub(crate) fn settle(&mut self) {
        loop {
            self.process.settle();
            let backends = self.read_backends();
            let waiting: Vec<usize> = (0..self.clients.len())
                .filter(|index| {
                    let client = &self.clients[*index];
                    let wire = &self.world.borrow().wires[client.wire];
                    let is_at_end = !client.over && wire.is_at_end();
                    client.reads && !wire.reset && (!wire.to_client.is_empty() || is_at_end)
                })
                .collect();
            if waiting.is_empty() && !backends {
                return;
            }
            waiting.into_iter().for_each(|index| self.read(index, usize::MAX));
        }
    }

    pub(crate) fn settle_and_check(&mut self) {
        self.finish_change();
        self.settle();
        self.doubt_events_of_deaf_clients();
        self.check();
        for question in std::mem::take(&mut self.asked) {
            self.answer(question);
        }
        if self.all_read() {
            self.check_counts();
            // The backend of an app that is not served is refused.
            if self.process.apps.get(APP).is_served() {
                self.check_answers();
            }
        }
        for client in &mut self.clients {
            // A client that does not read may have been closed: only its close frame tells it, and what it said behind
            // that was not taken in.
            if client.reads {
                client.unsettled.clear();
                client.rest();
            }
        }
    }

    /// What a client has not read may be its close frame, because the server closes clients that are too slow. It does
    /// not process what they send after that.
    fn doubt_events_of_deaf_clients(&mut self) {
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            let has_unread = !self.world.borrow().wires[client.wire].to_client.is_empty();
            if !client.reads && has_unread {
                self.doubt_events_of(index);
            }
        }
    }

    /// What must hold when nothing moves.
    fn check(&self) {
        self.check_backends();
        for client in self.clients.iter().filter(|client| !client.over) {
            let world = self.world.borrow();
            let wire = &world.wires[client.wire];
            // One that does not read may not know yet that the server drains.
            let is_refused = wire.closed || !client.rest.is_empty() || !client.reads;
            if !client.is_open() && is_refused {
                continue;
            }
            // One that does not read may have been closed as too slow, and only reading would tell it.
            if !client.reads && wire.closed {
                continue;
            }
            assert!(wire.to_server.is_empty(), "client {} was not read", client.wire);
            assert!(client.socket_id.is_some() || !client.reads, "no greeting");
            if !client.reads {
                continue;
            }
            if client.rest.is_empty() {
                assert_eq!(client.pings, client.pongs, "pings of client {}", client.wire);
            }
            if client.signed_in && self.all_read() {
                assert_eq!(client.online, Some(self.online()), "client {}", client.wire);
            }
            for (channel, place) in &client.places {
                assert!(place.acknowledged, "client {}: {channel} unanswered", client.wire);
                assert_eq!(place.due, BTreeSet::new(), "client {}: {channel}", client.wire);
                if channel.starts_with("presence-") && self.all_read() {
                    assert_eq!(place.roster, self.members(channel), "client {}", client.wire);
                }
            }
        }
    }

    /// What the HTTP API would say is true.
    fn check_counts(&mut self) {
        self.ask();
        self.process.settle();
        let question = self.asked.pop().expect("just asked");
        for (channel, found) in CHANNELS.into_iter().zip(self.answer(question)) {
            let there = self.clients.iter().filter(|client| !client.over);
            let count = there.filter(|client| client.places.contains_key(channel)).count();
            assert_eq!(found.subscription_count, count, "{channel}");
            if channel.starts_with("presence-") {
                assert_eq!(found.user_count, self.members(channel).len(), "{channel}");
            }
        }
    }

    pub(crate) fn all_read(&self) -> bool {
        self.clients.iter().all(|client| client.reads || client.over)
    }

    /// Which users are signed in.
    fn online(&self) -> BTreeMap<String, bool> {
        let is_online = |user: &str| {
            let there = self.clients.iter().filter(|client| !client.over && client.signed_in);
            there.into_iter().any(|client| client.user == user)
        };
        USERS.into_iter().map(|user| (user.to_owned(), is_online(user))).collect()
    }

    /// The users in a presence channel.
    pub(crate) fn members(&self, channel: &str) -> BTreeSet<String> {
        let there = self.clients.iter().filter(|client| !client.over);
        let there = there.filter(|client| client.places.contains_key(channel));
        there.map(|client| client.user.clone()).collect()
    }
}
