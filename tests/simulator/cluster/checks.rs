//! Questions of the HTTP API, and what must hold of all nodes together.

use std::collections::{BTreeMap, BTreeSet};

use ringverb::buffer::FrameBytes;
use ringverb::pusher::webhook_event::Happening;
use ringverb::shard::{Answer, Described, Question};

use super::{Cluster, Guest, Node};
use crate::client::{self, CHANNELS, USERS};
use crate::process::APP;

/// Questions that one backend may have sent in a row.
const BACKEND_QUESTIONS_MAX: usize = 8;

impl Cluster {
    pub(super) fn ask(&mut self) {
        let Some((node, core)) = self.somewhere() else { return };
        let process = &mut self.nodes[node].process;
        let names = CHANNELS.map(str::to_owned).to_vec();
        let id = process.cores[core].begin_gather(Question::Describe { app: APP, names });
        process.tick(core);
        self.asked.push((self.nodes[node].label, core, id));
    }

    pub(super) fn answer(&mut self, (label, core, id): (u64, usize, u32)) -> Vec<Described> {
        let node = self.nodes.iter_mut().find(|node| node.label == label).expect("it is there");
        let gathers = &mut node.process.cores[core].gathers;
        let Some(answers) = gathers.take_answers(id) else {
            panic!("a question of node {label}, core {core} was not answered");
        };
        let mut sums = vec![Described::default(); CHANNELS.len()];
        for answer in answers {
            let Answer::Described(parts) = answer else { panic!("{answer:?}") };
            sums.iter_mut().zip(parts).for_each(|(sum, part)| sum.merge(part));
        }
        sums
    }

    pub(super) fn settle_and_check(&mut self) {
        if self.nodes.iter().all(|node| !node.stopped) {
            self.finish_changes();
        }
        self.settle();
        if self.nodes.iter().any(|node| node.stopped) {
            return;
        }
        // A client that waits for a node that does not answer waits no longer than this.
        if self.redis_is_away || self.stirred {
            self.pass(3);
            self.settle();
            // One question behind the other.
            for _ in 0..BACKEND_QUESTIONS_MAX {
                if self.backends_wait() {
                    self.pass(2);
                    self.settle();
                }
            }
        }
        for question in std::mem::take(&mut self.asked) {
            self.answer(question);
        }
        self.check();
        self.check_backends();
        if !self.stirred {
            self.check_agreement();
        }
        for guest in &mut self.guests {
            guest.client.unsettled.clear();
            for place in guest.client.places.values_mut() {
                place.due_from_elsewhere.clear();
            }
            guest.client.rest();
        }
    }

    /// Whatever has happened.
    pub(super) fn check(&self) {
        for Guest { client, node } in self.guests.iter().filter(|guest| !guest.client.over) {
            let wire = client.wire;
            assert!(client.socket_id.is_some(), "client {wire} was not greeted");
            assert_eq!(client.pings, client.pongs, "pings of client {wire}");
            let node = self.nodes.iter().find(|found| found.label == *node).expect("it is there");
            for (channel, place) in &client.places {
                let nothing = BTreeSet::new();
                assert!(place.acknowledged, "client {wire}: {channel} unanswered");
                assert_eq!(place.due, nothing, "client {wire}: {channel}, of its own node");
                if node.receives_all && !self.redis_is_away {
                    assert_eq!(place.due_from_elsewhere, nothing, "client {wire}: {channel}");
                }
            }
        }
    }

    /// All nodes know the same, and it is true.
    pub(super) fn check_agreement(&mut self) {
        for Guest { client, .. } in self.guests.iter().filter(|guest| !guest.client.over) {
            for (channel, place) in &client.places {
                if channel.starts_with("presence-") {
                    assert_eq!(place.roster, self.members(channel), "client {}", client.wire);
                }
            }
            if client.signed_in {
                assert_eq!(client.online, Some(self.online()), "client {}", client.wire);
            }
        }
        self.ask();
        self.settle();
        let Some(question) = self.asked.pop() else { return };
        for (channel, found) in CHANNELS.into_iter().zip(self.answer(question)) {
            let there = self.guests.iter().filter(|guest| !guest.client.over);
            let count = there.filter(|guest| guest.client.places.contains_key(channel)).count();
            assert_eq!(found.subscription_count, count, "{channel}");
            if channel.starts_with("presence-") {
                assert_eq!(found.user_count, self.members(channel).len(), "{channel}");
            }
        }
        self.check_numbers();
        // No webhook reports an app that is not served.
        if self.is_gentle && !self.changes_apps {
            self.check_backend();
        }
        let cached: BTreeSet<Option<FrameBytes>> =
            self.nodes.iter().filter(|node| node.has("cache-c")).map(Node::cached).collect();
        assert!(cached.len() <= 1, "nodes remember different events: {cached:?}");
    }

    /// Clients were sent how many subscribe to a channel on all nodes, while all nodes send that.
    fn check_numbers(&self) {
        let sends = |node: &Node| {
            let app = node.process.apps.get(APP);
            app.is_served() && app.sends_subscription_count
        };
        if !self.nodes.iter().all(sends) {
            return;
        }
        for channel in CHANNELS.into_iter().filter(|channel| !channel.starts_with("presence-")) {
            let clients = self.guests.iter().map(|guest| &guest.client).filter(|it| !it.over);
            let places: Vec<_> = clients.filter_map(|client| client.places.get(channel)).collect();
            for place in &places {
                assert_eq!(place.count, Some(places.len() as u64), "{channel}: the number");
            }
        }
    }

    /// While nothing has ever broken the app's backend knows exactly who is there.
    fn check_backend(&mut self) {
        for event in self.nodes.iter_mut().flat_map(|node| node.process.webhook_events.drain(..)) {
            let (user, change) = match &event.happening {
                Happening::Occupied => (None, 1),
                Happening::Vacated => (None, -1),
                Happening::MemberAdded { user_id } => (Some(user_id.to_string()), 1),
                Happening::MemberRemoved { user_id } => (Some(user_id.to_string()), -1),
                _ => continue,
            };
            *self.backend.entry((event.channel.to_string(), user)).or_default() += change;
        }
        let mut there = BTreeMap::new();
        for client in self.guests.iter().map(|guest| &guest.client).filter(|client| !client.over) {
            for channel in client.places.keys() {
                there.insert(((*channel).to_owned(), None), 1);
                if channel.starts_with("presence-") {
                    there.insert(((*channel).to_owned(), Some(client.user.clone())), 1);
                }
            }
        }
        self.backend.retain(|_, count| *count != 0);
        assert_eq!(self.backend, there, "what the backend was sent");
    }

    pub(super) fn members(&self, channel: &str) -> BTreeSet<String> {
        let there = self.guests.iter().filter(|guest| !guest.client.over);
        let there = there.filter(|guest| guest.client.places.contains_key(channel));
        there.map(|guest| guest.client.user.clone()).collect()
    }

    pub(super) fn online(&self) -> BTreeMap<String, bool> {
        let is_online = |user: &str| {
            let clients = self.guests.iter().map(|guest| &guest.client);
            clients
                .into_iter()
                .any(|client| !client.over && client.signed_in && client.user == user)
        };
        USERS.into_iter().map(|user| (user.to_owned(), is_online(user))).collect()
    }

    /// All is mended and everybody leaves: nothing is left, here or in Redis.
    pub(crate) fn finish(&mut self) {
        self.calm();
        self.end_backends();
        for index in 0..self.guests.len() {
            if !self.guests[index].client.over {
                self.send(index, &client::frame(8, &1000_u16.to_be_bytes()));
                self.forget(index);
            }
        }
        self.settle();
        self.pass(10);
        self.settle();
        for node in &self.nodes {
            node.process.check_empty();
            for core in &node.process.cores {
                assert_eq!(core.shard.cluster_entries().0, 0, "subjects are held for nobody");
            }
        }
        for channel in CHANNELS {
            let subject = format!("sim:rv1:c:1001:{channel}");
            assert_eq!(self.redis.subscribers(subject.as_bytes()), 0, "{subject}");
        }
    }
}
