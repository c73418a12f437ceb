//! Backends beside the clients of a process: what they do, what their publishes mean for subscribers, and what must
//! hold of their connections.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::backend::NUMBERS_PER_STREAM;
use crate::backend::{Backend, Effect, Manner};
use crate::client::CHANNELS;
use crate::kernel::Wire;
use crate::simulation::Simulation;

/// Backends at a time.
const BACKENDS_MAX: usize = 8;
/// Below the silence after which the server pings: WebSockets stay.
const SECONDS_MAX: u64 = 50;
/// Memory of one HTTP connection at most: what a read brings, a request, and answers, each in a buffer that grew.
const SESSION_BYTES_MAX: u64 = 256 * 1024;
/// Room of a socket that is never full.
const ROOM: usize = 1 << 20;

impl Simulation {
    pub(crate) fn step_of_backends(&mut self) {
        match self.below(16) {
            0..=3 if self.backends.iter().filter(|one| !one.over).count() < BACKENDS_MAX => {
                self.connect_backend();
            }
            4..=9 => self.poke_a_backend(),
            10..=11 if self.seconds < SECONDS_MAX => {
                let seconds = [1, 2, 5, 10, 15][self.below(5)];
                self.pass(seconds);
            }
            12 if self.below(2) == 0 => self.reset_a_backend(),
            13 if self.below(8) == 0 => self.toggle_draining(),
            14 if self.below(4) == 0 => self.settle_and_check(),
            _ => self.run_a_core(),
        }
        self.check_memory();
    }

    fn connect_backend(&mut self) {
        let manner = match self.below(12) {
            0 => Manner::Deaf,
            1 => Manner::Endless,
            2 => Manner::Silent,
            _ => Manner::Orderly,
        };
        let core = self.core();
        let room = 64 + self.below(2_000);
        // Where some make room for others, no session may be ended within an answer.
        let is_roomy = self.is_crowded && manner != Manner::Deaf;
        let index = self.add_backend(manner, if is_roomy { ROOM } else { room });
        let is_first = self.below(2) == 0;
        let wire = self.backends[index].wire;
        if is_first {
            self.process.connect(core, wire);
        }
        if manner != Manner::Silent {
            self.ask_something(index);
            self.send_some(index);
        }
        if !is_first {
            self.process.connect(core, wire);
        }
    }

    fn add_backend(&mut self, manner: Manner, room: usize) -> usize {
        let peer = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 0, 0, 1)][self.below(2)];
        let mut wire = Wire::with_room(room);
        (wire.is_http, wire.peer) = (true, SocketAddr::from((peer, 40_000)));
        let wire = self.world.borrow_mut().add_wire(wire);
        self.streams += 1;
        self.backends.push(Backend::new(wire, manner, self.streams * NUMBERS_PER_STREAM));
        self.backends.len() - 1
    }

    fn ask_something(&mut self, index: usize) {
        let clients = self.clients.iter().filter(|client| !client.over);
        let ids: Vec<String> = clients.filter_map(|client| client.socket_id.clone()).collect();
        let socket_id = ids.get(self.below(ids.len() + 1)).cloned();
        let unix_seconds = self.process.unix_seconds();
        let random = &self.world.borrow().random;
        self.backends[index].ask(random, unix_seconds, socket_id.as_deref());
    }

    fn some_backend(&self) -> Option<usize> {
        let there: Vec<usize> =
            (0..self.backends.len()).filter(|index| !self.backends[*index].over).collect();
        (!there.is_empty()).then(|| there[self.below(there.len())])
    }

    pub(crate) fn poke_a_backend(&mut self) {
        let Some(index) = self.some_backend() else { return };
        let backend = &self.backends[index];
        if backend.unsent() == 0 && backend.may_ask() {
            self.ask_something(index);
        }
        self.send_some(index);
        if self.below(2) == 0 {
            self.run_a_core();
        }
    }

    /// Some of what it has to say, or all.
    fn send_some(&mut self, index: usize) {
        let unsent = self.backends[index].unsent();
        let most = if self.below(2) == 0 { unsent } else { 1 + self.below(unsent.max(1)) };
        self.send_of(index, most, true);
    }

    fn send_of(&mut self, index: usize, most: usize, is_reported: bool) {
        let mut effects = Vec::new();
        self.backends[index].send(&self.world, most, is_reported, &mut effects);
        self.apply(effects);
    }

    fn reset_a_backend(&mut self) {
        let Some(index) = self.some_backend() else { return };
        let mut effects = Vec::new();
        self.backends[index].abandon(&mut effects);
        self.world.borrow_mut().reset(self.backends[index].wire);
        self.apply(effects);
    }

    fn toggle_draining(&mut self) {
        self.has_drained = true;
        for core in &mut self.process.cores {
            core.http.draining ^= true;
        }
    }

    /// What backends have done means this for subscribers.
    pub(crate) fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Sent { number, channel, except } => {
                    let is_it = |socket_id: &String| Some(socket_id) == except.as_ref();
                    let mut clients = self.clients.iter();
                    match clients.position(|client| client.socket_id.as_ref().is_some_and(is_it)) {
                        Some(sender) => self.announce_to_others(number, channel, sender),
                        None => self.announce(number, channel, None),
                    }
                }
                Effect::GatherAnswer(number) => drop(self.answered.insert(number)),
                Effect::Unknown(number) => self.forgive(number),
                Effect::Void(number) => {
                    self.ledger.borrow_mut().note_void(number);
                    self.forgive(number);
                }
            }
        }
    }

    fn forgive(&mut self, number: u64) {
        for place in self.clients.iter_mut().flat_map(|client| client.places.values_mut()) {
            place.due.remove(&number);
        }
    }

    /// Reads up to so many bytes; whether there was something.
    pub(crate) fn read_backend(&mut self, index: usize, most: usize) -> bool {
        let backend = &mut self.backends[index];
        if backend.over {
            return false;
        }
        let mut effects = Vec::new();
        let mut world = self.world.borrow_mut();
        let mut is_new = false;
        if backend.reads() {
            // A part of a record makes room, too.
            is_new = !world.wires[backend.wire].to_client.is_empty();
            let bytes = world.take(backend.wire, most);
            backend.receive_bytes(&bytes, self.has_drained, &mut effects);
        }
        let wire = &world.wires[backend.wire];
        backend.check_dismissal(wire);
        let is_at_end = if backend.reads() { wire.is_at_end() } else { wire.closed || wire.cut };
        if is_at_end {
            is_new = true;
            backend.note_end(self.is_crowded, &mut effects);
            world.end_for_good(backend.wire);
        }
        drop(world);
        self.apply(effects);
        is_new
    }

    /// Reads all; whether there was something.
    pub(crate) fn read_backends(&mut self) -> bool {
        let indexes = 0..self.backends.len();
        indexes.filter(|index| self.read_backend(*index, usize::MAX)).count() > 0
    }

    /// Time passes at once, as on a host that stalls: what was sent before it has passed came in time. The kernel may
    /// report it later.
    fn pass(&mut self, seconds: u64) {
        self.settle();
        for backend in &mut self.backends {
            backend.note_stage(&self.world.borrow().wires[backend.wire], self.seconds);
        }
        let mut unreported = Vec::new();
        for index in 0..self.backends.len() {
            if self.backends[index].over || self.below(2) == 0 {
                continue;
            }
            let is_reported = self.below(2) == 0;
            self.send_of(index, usize::MAX, is_reported);
            if !is_reported {
                unreported.push(self.backends[index].wire);
            }
        }
        for index in 0..self.clients.len() {
            if self.clients[index].rest.is_empty() || self.below(2) == 0 {
                continue;
            }
            if self.is_too_late(index) {
                self.forget(index);
                continue;
            }
            let client = &mut self.clients[index];
            let rest = std::mem::take(&mut client.rest);
            self.world.borrow_mut().slip_in(client.wire, &rest);
            unreported.push(client.wire);
        }
        self.seconds += seconds;
        self.process.advance(seconds);
        let mut world = self.world.borrow_mut();
        unreported.into_iter().for_each(|wire| world.arrive(wire));
        drop(world);
        self.settle();
        for backend in &mut self.backends {
            backend.check_time(&self.world.borrow().wires[backend.wire], self.seconds);
        }
    }

    /// When nothing moves.
    pub(crate) fn check_backends(&self) {
        let world = self.world.borrow();
        self.backends.iter().for_each(|backend| backend.check(&world.wires[backend.wire]));
    }

    /// At any time.
    fn check_memory(&self) {
        for core in &self.process.cores {
            let (count, bytes) = (core.http_sessions(), core.shard.http_bytes());
            // Those of another process are taken in, however many they are.
            let is_over = count > self.http_connections_max && !self.has_moved;
            assert!(!is_over, "{count} HTTP connections");
            let most = count as u64 * SESSION_BYTES_MAX;
            assert!(bytes <= most, "{count} HTTP connections take {bytes} bytes");
        }
    }

    /// What the API says is true. All is quiet, and all have read what they were sent.
    pub(crate) fn check_answers(&mut self) {
        let index = self.add_backend(Manner::Orderly, ROOM);
        let unix = self.process.unix_seconds();
        let backend = &mut self.backends[index];
        for channel in CHANNELS {
            let resource = format!("channels/{channel}");
            backend.question(&resource, "subscription_count,user_count", unix);
        }
        backend.question("channels/presence-r/users", "", unix);
        backend.question("channels", "subscription_count", unix);
        let core = self.core();
        self.process.connect(core, self.backends[index].wire);
        self.send_of(index, usize::MAX, true);
        self.settle();
        let expected = self.expected_answers();
        let backend = &mut self.backends[index];
        let answers = std::mem::take(&mut backend.answers);
        let is_whole = answers.len() == expected.len();
        assert!(is_whole || self.is_crowded || self.has_drained, "{} answers", answers.len());
        for (answer, expected) in answers.into_iter().zip(expected) {
            let mut found = answer.json();
            if let Some(users) = found.get_mut("users").and_then(Value::as_array_mut) {
                users.sort_by_key(|user| user["id"].to_string());
            }
            assert_eq!(found, expected);
        }
        if !backend.over {
            self.world.borrow_mut().end(backend.wire);
        }
    }

    fn expected_answers(&self) -> Vec<Value> {
        let there = || self.clients.iter().filter(|client| !client.over);
        let count =
            |channel: &str| there().filter(|client| client.places.contains_key(channel)).count();
        let mut answers = Vec::new();
        let mut all = json!({});
        for channel in CHANNELS {
            let count = count(channel);
            let mut answer = json!({"occupied": count > 0});
            if count > 0 {
                all[channel] = json!({});
                if channel.starts_with("presence-") {
                    answer["user_count"] = json!(self.members(channel).len());
                } else {
                    answer["subscription_count"] = json!(count);
                    all[channel]["subscription_count"] = json!(count);
                }
            }
            answers.push(answer);
        }
        let members = self.members("presence-r");
        let users = members.iter().map(|user| json!({"id": user})).collect::<Vec<_>>();
        answers.push(if users.is_empty() { json!({}) } else { json!({"users": users}) });
        answers.push(json!({"channels": all}));
        answers
    }
}
