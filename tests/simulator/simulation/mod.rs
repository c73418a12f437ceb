//! One run: clients come and go, speak, read and do not read; what must hold is in `check`, and in what a client
//! asserts as it receives.

mod change;
mod check;

use std::collections::BTreeSet;

use ringverb::pusher::socket_id::SocketId;
use ringverb::shard::{Answer, Described, Question};

use crate::backend::{Backend, Ledger};
use crate::change::Changes;
use crate::client::{self, CHANNELS, Client, USERS};
use crate::kernel::{Shared, Wire};
use crate::process::{APP, HTTP_CONNECTIONS_MAX, Process, Shape, new_world};
use crate::random::Random;

/// Silence after which the server pings, and then closes, in seconds: the defaults of the configuration.
const SILENCE_SECONDS: u64 = 60;
/// Steps of a script at most.
const SCRIPT_STEPS_MAX: usize = 400;

pub(crate) struct Simulation {
    pub(crate) process: Process,
    pub(crate) world: Shared,
    pub(crate) clients: Vec<Client>,
    number: u64,
    /// Questions of the HTTP API: by whom they were asked, and their numbers.
    pub(crate) asked: Vec<(usize, u32)>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) ledger: Ledger,
    /// Events whose publishers were answered.
    pub(crate) answered: BTreeSet<u64>,
    /// Backends so far.
    pub(crate) streams: u64,
    /// Seconds that have passed.
    pub(crate) seconds: u64,
    /// HTTP connections of a core at most.
    pub(crate) http_connections_max: usize,
    /// Another process had connections of this one.
    pub(crate) has_moved: bool,
    /// Some make room for others.
    pub(crate) is_crowded: bool,
    /// The server has drained, or does.
    pub(crate) has_drained: bool,
    /// Most steps are those of backends.
    is_mostly_http: bool,
    pub(crate) changes: Changes,
}

impl Simulation {
    pub(crate) fn new(random: Random, is_mostly_http: bool) -> Self {
        let is_secure = random.is_one_seed_in(3);
        let changes = Changes::new(&random, !is_mostly_http);
        let is_proxied = random.is_one_seed_in(4);
        let cores = 1 + u16::try_from(random.below(5)).expect("small");
        let is_crowded = random.one_in(4);
        let http_connections_max =
            if is_crowded { 2 + random.below(4) } else { HTTP_CONNECTIONS_MAX };
        let shape = Shape {
            cores,
            ring_capacity: ring_capacity(&random),
            seed: random.next(),
            http_connections_max,
            counts_addresses: random.one_in(4),
            listeners: Vec::new(),
            is_new_process: false,
        };
        // Where addresses are counted, clients on other addresses are not to be taken for proxies.
        let proxies: &[[u8; 4]] = match shape.counts_addresses {
            _ if !is_proxied => &[],
            true => &[[10, 0, 0, 1]],
            false => &[[127, 0, 0, 1], [10, 0, 0, 1]],
        };
        let proxies = proxies.iter().map(|proxy| (*proxy).into()).collect();
        let world = new_world(random);
        world.borrow_mut().is_short_of_descriptors = true;
        world.borrow_mut().is_secure = is_secure;
        world.borrow_mut().proxies = proxies;
        let process = Process::new(&world, shape, None);
        Self {
            process,
            world,
            clients: Vec::new(),
            number: 0,
            asked: Vec::new(),
            backends: Vec::new(),
            ledger: Ledger::default(),
            answered: BTreeSet::new(),
            streams: 0,
            seconds: 0,
            http_connections_max,
            has_moved: false,
            is_crowded,
            has_drained: false,
            is_mostly_http,
            changes,
        }
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        self.world.borrow().random.below(bound)
    }

    fn channel(&self) -> &'static str {
        CHANNELS[self.below(CHANNELS.len())]
    }

    pub(crate) fn core(&self) -> usize {
        self.below(self.process.cores.len())
    }

    pub(crate) fn step(&mut self) {
        if self.is_mostly_http && self.below(4) > 0 {
            self.step_of_backends();
            return self.read_all();
        }
        match self.below(36) {
            19 | 24..=26 | 30..=31 if self.changes.are_made => self.change(),
            32..=33 if self.changes.are_made => self.take_access_back(),
            0..=2 if self.clients.len() < 12 => self.connect(),
            3 if self.below(4) == 0 => {
                self.act(|client, channel| client.subscribe_twice(channel));
            }
            3..=7 => self.act(|client, channel| client.subscribe(channel)),
            8..=9 => self.act(|client, channel| client.unsubscribe(channel)),
            10..=13 => self.publish(),
            14 => self.client_event(),
            15 => self.act(|client, _| Some(client.ping())),
            16 => self.end(),
            17 => self.toggle_reading(),
            18 => self.settle_and_check(),
            20..=21 => self.act(|client, _| client.sign_in()),
            22 => self.publish_to_others(),
            23 => self.ask(),
            19 if self.below(4) == 0 => self.take_over(),
            24..=26 => self.step_of_backends(),
            _ => self.run_a_core(),
        }
        self.read_all();
    }

    fn connect(&mut self) {
        let core = self.core();
        let room = 64 + self.below(2_000);
        let wire = self.world.borrow_mut().add_wire(Wire::with_room(room));
        let user = USERS[self.below(USERS.len())].to_owned();
        let mut client = Client::new(wire, user, &self.ledger);
        let mut bytes = client.begin(&self.world.borrow().random);
        let index = self.clients.len();
        self.clients.push(client);
        let is_first = self.below(2) == 0;
        if is_first {
            self.process.connect(core, wire);
        }
        if self.below(4) == 0 {
            // Its handshake takes long.
            let cut = self.below(bytes.len());
            self.clients[index].rest = bytes.split_off(cut);
            self.world.borrow_mut().send(wire, &bytes);
        } else {
            self.send(index, &bytes);
        }
        if !is_first {
            self.process.connect(core, wire);
        }
    }

    /// A client that is there says something, in pieces.
    pub(crate) fn act(
        &mut self,
        action: impl FnOnce(&mut Client, &'static str) -> Option<Vec<u8>>,
    ) {
        let channel = self.channel();
        let Some(index) = self.somebody() else { return };
        let Some(bytes) = action(&mut self.clients[index], channel) else { return };
        self.send(index, &bytes);
    }

    pub(crate) fn somebody(&self) -> Option<usize> {
        let there: Vec<usize> =
            (0..self.clients.len()).filter(|index| !self.clients[*index].over).collect();
        (!there.is_empty()).then(|| there[self.below(there.len())])
    }

    fn send(&mut self, index: usize, bytes: &[u8]) {
        if self.is_too_late(index) {
            return self.forget(index);
        }
        let mut whole = std::mem::take(&mut self.clients[index].rest);
        whole.extend_from_slice(bytes);
        let bytes = &whole[..];
        let cut = self.below(bytes.len() + 1);
        for piece in [&bytes[..cut], &bytes[cut..]] {
            if piece.is_empty() {
                continue;
            }
            let wire = self.clients[index].wire;
            self.world.borrow_mut().send(wire, piece);
            if self.below(2) == 0 {
                self.run_a_core();
            }
        }
    }

    /// Whether the server has ended a connection whose handshake has not come in time.
    pub(crate) fn is_too_late(&self, index: usize) -> bool {
        let client = &self.clients[index];
        !client.is_open() && self.world.borrow().wires[client.wire].closed
    }

    fn publish(&mut self) {
        let (core, channel) = (self.core(), self.channel());
        self.number += 1;
        let number = self.number;
        self.announce(number, channel, None);
        self.process.publish(core, channel, number, None);
        self.answered.insert(number);
    }

    /// An accepted event is delivered to each client that has its acknowledgement by now and stays, after all that was
    /// answered.
    pub(crate) fn announce(&mut self, number: u64, channel: &str, sender: Option<usize>) {
        let answered = &self.answered;
        for (index, client) in self.clients.iter_mut().enumerate() {
            if let (Some(place), true) = (client.listening(channel), sender != Some(index)) {
                let earlier = place.due.intersection(answered).copied().collect();
                place.earlier.insert(number, earlier);
                place.due.insert(number);
            }
        }
    }

    /// As toOthers() does: to all but one, who may be anywhere.
    fn publish_to_others(&mut self) {
        let (core, channel) = (self.core(), self.channel());
        let Some(sender) = self.somebody() else { return };
        let Some(socket_id) = self.clients[sender].socket_id.clone() else { return };
        self.number += 1;
        let number = self.number;
        self.announce_to_others(number, channel, sender);
        self.process.publish(core, channel, number, SocketId::parse(&socket_id));
        self.answered.insert(number);
    }

    pub(crate) fn announce_to_others(&mut self, number: u64, channel: &str, sender: usize) {
        self.announce(number, channel, Some(sender));
        // A cache channel sends it to later subscribers, and be it the sender.
        if !channel.starts_with("cache-") {
            self.clients[sender].not_for_it.insert(number);
        }
    }

    /// Asks all cores how many subscribe to each channel.
    fn ask(&mut self) {
        let core = self.core();
        let names = CHANNELS.map(str::to_owned).to_vec();
        let id = self.process.cores[core].begin_gather(Question::Describe { app: APP, names });
        // A session asks for a tick.
        self.process.tick(core);
        self.asked.push((core, id));
    }

    /// The sum of the answers, of which none is missing.
    fn answer(&mut self, (core, id): (usize, u32)) -> Vec<Described> {
        let gathers = &mut self.process.cores[core].gathers;
        let Some(answers) = gathers.take_answers(id) else {
            panic!("a question of core {core} was not answered");
        };
        let mut sums = vec![Described::default(); CHANNELS.len()];
        for answer in answers {
            let Answer::Described(parts) = answer else { panic!("{answer:?}") };
            sums.iter_mut().zip(parts).for_each(|(sum, part)| sum.merge(part));
        }
        sums
    }

    pub(crate) fn client_event(&mut self) {
        let channel = ["private-p", "presence-r"][self.below(2)];
        let Some(sender) = self.somebody() else { return };
        if self.clients[sender].listening(channel).is_none() {
            return;
        }
        self.number += 1;
        let number = self.number;
        for (index, client) in self.clients.iter_mut().enumerate() {
            if let (Some(place), true) = (client.listening(channel), index != sender) {
                place.due.insert(number);
            }
        }
        self.clients[sender].unsettled.push(number);
        let bytes = self.clients[sender].client_event(channel, number);
        self.send(sender, &bytes);
    }

    /// A client ends: with a close frame, with the end of its half behind its last words, or with a reset.
    pub(crate) fn end(&mut self) {
        let Some(index) = self.somebody() else { return };
        let wire = self.clients[index].wire;
        match self.below(3) {
            0 => self.send(index, &client::frame(8, &1000_u16.to_be_bytes())),
            1 => {
                let mut last = std::mem::take(&mut self.clients[index].rest);
                last.extend(self.clients[index].ping());
                let mut world = self.world.borrow_mut();
                world.slip_in(wire, &last);
                world.end_for_good(wire);
            }
            _ => self.world.borrow_mut().reset(wire),
        }
        self.forget(index);
    }

    /// Nothing is due to a client that has gone, and its last messages may not have arrived.
    pub(crate) fn forget(&mut self, index: usize) {
        self.clients[index].over = true;
        self.doubt_events_of(index);
    }

    /// The last messages of a client may not have arrived, or are refused.
    pub(crate) fn doubt_events_of(&mut self, index: usize) {
        for number in std::mem::take(&mut self.clients[index].unsettled) {
            for place in self.clients.iter_mut().flat_map(|client| client.places.values_mut()) {
                place.due.remove(&number);
            }
        }
    }

    pub(crate) fn toggle_reading(&mut self) {
        let Some(index) = self.somebody() else { return };
        self.clients[index].reads ^= true;
        self.clients[index].has_been_deaf = true;
    }

    pub(crate) fn run_a_core(&mut self) {
        let core = self.core();
        if self.process.wakes(core) {
            self.process.tick(core);
        }
    }

    pub(crate) fn read_all(&mut self) {
        for index in 0..self.clients.len() {
            let most = 1 + self.below(400);
            self.read(index, most);
        }
        for index in 0..self.backends.len() {
            let most = 1 + self.below(400);
            self.read_backend(index, most);
        }
    }

    fn read(&mut self, index: usize, most: usize) {
        let client = &mut self.clients[index];
        if !client.reads || self.world.borrow().wires[client.wire].reset {
            return;
        }
        let was_over = client.over;
        let bytes = self.world.borrow_mut().take(client.wire, most);
        client.receive_bytes(&bytes);
        let mut world = self.world.borrow_mut();
        if !client.over && world.wires[client.wire].is_at_end() {
            // A client that reads nothing may not even have received the close frame.
            let may_be = client.has_been_deaf
                || !client.is_open() && (self.is_crowded || !client.rest.is_empty());
            assert!(may_be, "client {}: its connection ends without a word", client.wire);
            client.over = true;
            world.end(client.wire);
        }
        drop(world);
        if client.over && !was_over {
            self.forget(index);
        }
    }

    /// Silence: a client that does not answer is pinged, and then closed. Then all clients leave, and no state is left.
    pub(crate) fn finish(&mut self) {
        self.clients.iter_mut().for_each(|client| client.reads = true);
        self.settle_and_check();
        for _ in 0..3 {
            self.process.advance(SILENCE_SECONDS);
            self.settle();
        }
        for client in &self.clients {
            assert!(client.over, "client {} was silent and is still there", client.wire);
        }
        self.process.advance(10);
        self.settle();
        for backend in &self.backends {
            assert!(backend.over, "backend {} is still there", backend.wire);
        }
        self.process.check_empty();
        assert!(self.world.borrow().wires.iter().all(|wire| wire.closed), "a socket leaked");
    }
}

/// Rings of one mail are full all the time; the real ones hold 64 or more.
pub(crate) fn ring_capacity(random: &Random) -> usize {
    [1, 2, 4, 64][random.below(4)]
}

/// A run whose choices are these bytes, as long as there are any.
pub(crate) fn run_script(bytes: &[u8]) {
    run_steps(Simulation::new(Random::scripted(bytes), false));
}

/// The same, mostly with backends.
pub(crate) fn run_http_script(bytes: &[u8]) {
    run_steps(Simulation::new(Random::scripted(bytes), true));
}

fn run_steps(mut simulation: Simulation) {
    for _ in 0..SCRIPT_STEPS_MAX {
        if simulation.world.borrow().random.script_is_over() {
            break;
        }
        simulation.step();
    }
    simulation.finish();
}
