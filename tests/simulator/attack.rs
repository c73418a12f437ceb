//! One run of attackers beside honest clients, with memory squeezed at random times.
//!
//! After every step: the account agrees with what connections keep, each connection is within its limits, and charges
//! stay within the headroom. Pongs of honest clients and answers to questions come within a bounded number of ticks.
//! `kernel` asserts that no socket is read twice in a tick and that reading ends with its time. At the end honest
//! clients have every event once and in order (asserted in `client.rs`), and nothing is left of the attackers.

use ringverb::limits::{PONGS_PER_FLUSH_MAX, READ_BYTES_PER_CLOCK, READ_BYTES_PER_TICK_MAX};
use ringverb::shard::{ConnectionKey, Question, SendQueue};

use crate::attacker::{Attack, Attacker, MESSAGE_BYTES_MAX, PING_PAYLOAD};
use crate::backend::Ledger;
use crate::client::{CHANNELS, Client, USERS};
use crate::kernel::world::Source;
use crate::kernel::{Shared, Wire};
use crate::process::{APP, CONNECTION_BYTES_MAX, Process, Shape, new_world};
use crate::random::Random;

const ATTACKERS_MAX: usize = 12;
const HONEST_MAX: usize = 6;
/// What a message may cost beyond its bytes, while it is incomplete.
const PARTIAL_BYTES_MAX: usize = 256;
/// Ticks of its core within which an honest client's ping is answered. Each tick reads one socket at least, so these
/// are about as many as a core has sockets here.
const PONG_TICKS_MAX: u64 = 20;
/// Rounds within which a question to all cores is answered, behind the mail that the attackers cause: a ring takes
/// `RING_CAPACITY` mails a tick.
const ANSWER_ROUNDS_MAX: u64 = 60;
/// Below the silence after which the server pings: attackers that do nothing stay until the end.
const SECONDS_MAX: u64 = 40;
/// As `shed` has it: connections that keep less are not closed.
const SHED_BYTES_MIN: usize = 16 * 1024;
const RING_CAPACITY: usize = 64;

/// A client that reads, and stays within its limits.
struct Honest {
    client: Client,
    core: usize,
    /// Ticks of its core when it connected or sent the ping that is not answered.
    waits_since: Option<u64>,
}

pub(crate) struct AttackSimulation {
    process: Process,
    world: Shared,
    honest: Vec<Honest>,
    attackers: Vec<Attacker>,
    number: u64,
    rounds: u64,
    seconds: u64,
    /// By core: bytes that may be kept until the next measurement; none before the first.
    kept_max: Vec<Option<u64>>,
    /// A question to all cores, and the round in which it was asked.
    asked: Option<(usize, u32, u64)>,
}

impl AttackSimulation {
    pub(crate) fn new(random: Random) -> Self {
        let cores = 1 + u16::try_from(random.below(3)).expect("small");
        let world = new_world(random);
        let seed = world.borrow().random.next();
        let shape = Shape::plain(cores, RING_CAPACITY, seed);
        let process = Process::new(&world, shape, None);
        let mut simulation = Self {
            process,
            world,
            honest: Vec::new(),
            attackers: Vec::new(),
            number: 0,
            rounds: 0,
            seconds: 0,
            kept_max: vec![None; usize::from(cores)],
            asked: None,
        };
        for _ in 0..3 {
            simulation.connect_honest();
        }
        simulation.settle();
        for index in 0..simulation.honest.len() {
            for channel in CHANNELS {
                let bytes = simulation.honest[index].client.subscribe(channel);
                simulation.send_honest(index, &bytes.expect("a new subscription"));
            }
        }
        simulation.settle();
        for _ in 0..ATTACKERS_MAX / 2 {
            simulation.connect_attacker();
        }
        simulation
    }

    fn below(&self, bound: usize) -> usize {
        self.world.borrow().random.below(bound)
    }

    fn core(&self) -> usize {
        self.below(self.process.cores.len())
    }

    pub(crate) fn step(&mut self) {
        match self.below(32) {
            0..=4 if self.attackers.len() < ATTACKERS_MAX => self.connect_attacker(),
            5..=11 => self.attack(),
            12..=13 => self.toggle_source(),
            14..=17 => self.publish(),
            18..=19 => self.ping(),
            20..=21 => self.squeeze(),
            22 => self.shed(),
            23 => self.relieve(),
            24 => self.end_attacker(),
            25 if self.seconds < SECONDS_MAX => self.advance(1),
            26 if self.honest.len() < HONEST_MAX => self.connect_honest(),
            27 => self.ask(),
            _ => {}
        }
        self.round();
        self.read_all();
        self.check();
    }

    fn wire(&self, room: usize) -> usize {
        let mut world = self.world.borrow_mut();
        world.wires.push(Wire::with_room(room));
        world.wires.len() - 1
    }

    fn connect_honest(&mut self) {
        let (core, wire) = (self.core(), self.wire(1 << 20));
        let user = USERS[self.below(USERS.len())].to_owned();
        let waits_since = Some(self.process.ticks[core]);
        self.process.open(core, wire, &mut []);
        self.process.tick(core);
        self.honest.push(Honest {
            client: Client::new(wire, user, &Ledger::default()),
            core,
            waits_since,
        });
    }

    fn send_honest(&mut self, index: usize, bytes: &[u8]) {
        self.arrive(self.honest[index].client.wire, bytes);
    }

    fn arrive(&self, wire: usize, bytes: &[u8]) {
        let mut world = self.world.borrow_mut();
        world.wires[wire].to_server.extend(bytes);
        world.arrive(wire);
    }

    fn connect_attacker(&mut self) {
        let (core, room) = (self.core(), 64 + self.below(2_000));
        let wire = self.wire(room);
        let attacker = {
            let world = self.world.borrow();
            Attacker::new(wire, core, self.process.ticks[core], &world.random)
        };
        self.process.open(core, wire, &mut []);
        self.process.tick(core);
        self.attackers.push(attacker);
    }

    fn some_attacker(&self) -> Option<usize> {
        (!self.attackers.is_empty()).then(|| self.below(self.attackers.len()))
    }

    fn attack(&mut self) {
        let Some(index) = self.some_attacker() else { return };
        let attacker = &mut self.attackers[index];
        let wire = attacker.wire;
        // What follows an endless stream would be cut into it.
        if self.world.borrow().wires[wire].source.is_none() {
            let bytes = attacker.next_bytes(&self.world.borrow().random);
            self.arrive(wire, &bytes);
        }
    }

    /// An attacker begins to send without end, or goes back to single bursts.
    fn toggle_source(&mut self) {
        let Some(index) = self.some_attacker() else { return };
        let attacker = &mut self.attackers[index];
        let wire = attacker.wire;
        if self.world.borrow().wires[wire].source.is_some() {
            return self.end_source(wire);
        }
        let Some(cycle) = attacker.cycle(&self.world.borrow().random) else { return };
        let burst = match self.below(64) {
            // As much as a read takes.
            0 => READ_BYTES_PER_TICK_MAX,
            1..=12 => READ_BYTES_PER_CLOCK,
            _ => 1 + self.below(1_500),
        };
        let mut world = self.world.borrow_mut();
        world.wires[wire].source = Some(Source { cycle, at: 0, burst });
        world.arrive(wire);
    }

    fn end_source(&self, wire: usize) {
        let mut world = self.world.borrow_mut();
        if let Some(source) = world.wires[wire].source.take() {
            let rest = source.rest().to_vec();
            world.wires[wire].to_server.extend(rest);
            world.arrive(wire);
        }
    }

    fn end_attacker(&mut self) {
        let Some(index) = self.some_attacker() else { return };
        let attacker = self.attackers.swap_remove(index);
        self.hang_up(attacker.wire);
    }

    /// With the end of its half, or with a reset.
    fn hang_up(&self, wire: usize) {
        let resets = self.below(2) == 0;
        let mut world = self.world.borrow_mut();
        world.wires[wire].source = None;
        if resets {
            return world.reset(wire);
        }
        world.wires[wire].ended = true;
        world.arrive(wire);
    }

    fn publish(&mut self) {
        let (core, channel) = (self.core(), CHANNELS[self.below(CHANNELS.len())]);
        self.number += 1;
        for honest in &mut self.honest {
            if let Some(place) = honest.client.listening(channel) {
                place.due.insert(self.number);
            }
        }
        self.process.publish(core, channel, self.number, None);
    }

    fn ping(&mut self) {
        let index = self.below(self.honest.len());
        let honest = &mut self.honest[index];
        if honest.waits_since.is_none() {
            honest.waits_since = Some(self.process.ticks[honest.core]);
            let bytes = honest.client.ping();
            self.send_honest(index, &bytes);
        }
    }

    /// Bytes that a core keeps and that the headroom bounds.
    fn kept(&self, core: usize) -> u64 {
        let core = &self.process.cores[core];
        let input = core.shard.keys().map(|key| core.kept_bytes(key) - core.shard.kept_bytes(key));
        core.shard.charged_bytes() + input.sum::<usize>() as u64
    }

    /// Memory was measured: little is left.
    fn squeeze(&mut self) {
        let (core, headroom) = (self.core(), self.below(3_000) as u64);
        self.kept_max[core] = Some(self.kept(core) + headroom);
        self.process.cores[core].shard.set_headroom(headroom);
    }

    /// Memory was measured: there is enough.
    fn relieve(&mut self) {
        let (core, headroom) = (self.core(), 1 << 20);
        self.kept_max[core] = Some(self.kept(core) + headroom);
        self.process.cores[core].shard.set_headroom(headroom);
    }

    /// As `Worker::shed` does it, before a tick.
    fn shed(&mut self) {
        let index = self.core();
        let core = &mut self.process.cores[index];
        let most = core.shard.keys().map(|key| core.kept_bytes(key)).max().unwrap_or_default();
        let slots = core.reactor.slots();
        core.shed(0..slots);
        let least = SHED_BYTES_MIN.max(most / 2);
        for key in core.shard.keys() {
            let is_open = core.shard.get(key).is_some_and(|found| !found.is_closing());
            assert!(!is_open || core.kept_bytes(key) < least, "a heavy connection was not shed");
        }
        self.process.tick(index);
    }

    fn advance(&mut self, seconds: u64) {
        self.seconds += seconds;
        self.process.advance(seconds);
    }

    fn ask(&mut self) {
        if self.asked.is_some() {
            return;
        }
        let core = self.core();
        let names = CHANNELS.map(str::to_owned).to_vec();
        let id = self.process.cores[core].begin_gather(Question::Describe { app: APP, names });
        self.process.tick(core);
        self.asked = Some((core, id, self.rounds));
    }

    fn poll_question(&mut self) {
        let Some((core, id, since)) = self.asked else { return };
        let gathers = &mut self.process.cores[core].gathers;
        if let Some(answers) = gathers.take_answers(id) {
            assert_eq!(answers.len(), self.process.cores.len(), "each core answers once");
            self.asked = None;
            return;
        }
        let waited = self.rounds - since;
        assert!(waited <= ANSWER_ROUNDS_MAX, "a question waits for {waited} rounds");
    }

    /// Each core that is woken has a tick, but for one that the kernel lets wait.
    fn round(&mut self) {
        self.rounds += 1;
        for core in 0..self.process.cores.len() {
            if self.process.wakes(core) && self.below(16) > 0 {
                self.process.tick(core);
            }
        }
    }

    fn read_all(&mut self) {
        for honest in &mut self.honest {
            let bytes = self.world.borrow_mut().take(honest.client.wire, usize::MAX);
            honest.client.receive_bytes(&bytes);
            let client = &honest.client;
            if client.socket_id.is_some() && client.pongs == client.pings {
                honest.waits_since = None;
            }
        }
        for index in 0..self.attackers.len() {
            let most = 1 + self.below(1_000);
            self.read_attacker(index, most);
        }
        let over: Vec<usize> =
            self.attackers.iter().filter(|one| one.over).map(|one| one.wire).collect();
        self.attackers.retain(|attacker| !attacker.over);
        over.into_iter().for_each(|wire| self.hang_up(wire));
    }

    fn read_attacker(&mut self, index: usize, most: usize) {
        let attacker = &mut self.attackers[index];
        if attacker.reads() && !attacker.over {
            attacker.receive_bytes(&self.world.borrow_mut().take(attacker.wire, most));
        }
    }

    /// What must hold after every step.
    fn check(&mut self) {
        for (index, core) in self.process.cores.iter().enumerate() {
            assert_eq!(core.shard.account_fault(), None, "core {index}");
            for key in core.shard.keys() {
                let kept = core.kept_bytes(key);
                let most = CONNECTION_BYTES_MAX + MESSAGE_BYTES_MAX + PARTIAL_BYTES_MAX;
                assert!(kept <= most, "{key:?} of core {index} keeps {kept} bytes");
                let queue = core.shard.send_queue(key.slot).map_or(0, SendQueue::memory_bytes);
                let charged = core.shard.kept_bytes(key) - queue;
                // The rest is the send queue's, so that what a client keeps never closes it when an event comes.
                assert!(charged <= CONNECTION_BYTES_MAX / 2, "{key:?} is charged {charged} bytes");
                let pongs = self.unsent_pongs(index, key);
                let most = usize::from(PONGS_PER_FLUSH_MAX) + 1;
                assert!(pongs <= most, "{pongs} pongs wait for {key:?} of core {index}");
            }
            // A connection that has ended may have an entry still, and its slot's next one another.
            let most = 2 * core.reactor.slots();
            assert!(
                core.reactor.queued_reads() <= most,
                "{} sockets are queued",
                core.reactor.queued_reads()
            );
            if let Some(most) = self.kept_max[index] {
                let kept = self.kept(index);
                assert!(kept <= most, "core {index} keeps {kept} bytes, {most} were left");
            }
        }
        for honest in &self.honest {
            let client = &honest.client;
            assert!(!client.over, "honest client {} was closed", client.wire);
            let Some(since) = honest.waits_since else { continue };
            let waited = self.process.ticks[honest.core] - since;
            assert!(waited <= PONG_TICKS_MAX, "client {} waits for {waited} ticks", client.wire);
        }
        if self.process.cores.len() > 1 {
            self.check_repeats();
        }
        self.poll_question();
    }

    fn unsent_pongs(&self, core: usize, key: ConnectionKey) -> usize {
        let Some(queue) = self.process.cores[core].shard.send_queue(key.slot) else { return 0 };
        let mut bytes = Vec::with_capacity(queue.bytes());
        queue.copy_to(&mut bytes, usize::MAX);
        memchr::memmem::find_iter(&bytes, PING_PAYLOAD).count()
    }

    /// A request is answered by mail. Requests that repeat it before the answer share that answer: one a tick at most.
    fn check_repeats(&self) {
        let repeats = |attack| matches!(attack, Attack::Presence | Attack::Cache);
        for attacker in self.attackers.iter().filter(|one| repeats(one.attack)) {
            let ticks = self.process.ticks[attacker.core] - attacker.ticks_before;
            let acknowledged = attacker.acknowledged;
            assert!(
                acknowledged <= ticks,
                "{acknowledged} answers to one channel in {ticks} ticks"
            );
        }
    }

    /// Until nothing moves. Without endless streams.
    fn settle(&mut self) {
        loop {
            self.process.settle();
            self.read_all();
            let waits = |wire: usize| !self.world.borrow().wires[wire].to_client.is_empty();
            let reader = self.attackers.iter().any(|one| one.reads() && waits(one.wire));
            let woken = (0..self.process.cores.len()).any(|core| self.process.wakes(core));
            if !reader && !woken && !self.honest.iter().any(|one| waits(one.client.wire)) {
                return;
            }
        }
    }

    /// The attacks end; then everybody leaves.
    pub(crate) fn finish(&mut self) {
        self.attackers.iter().for_each(|attacker| self.end_source(attacker.wire));
        self.settle();
        self.check();
        for attacker in std::mem::take(&mut self.attackers) {
            self.hang_up(attacker.wire);
        }
        self.settle();
        // Those that were closed and have not answered.
        self.advance(10);
        self.settle();
        self.check();
        assert!(self.asked.is_none(), "a question was not answered");
        let members: std::collections::BTreeSet<String> = self
            .honest
            .iter()
            .filter(|one| one.client.places.contains_key("presence-r"))
            .map(|one| one.client.user.clone())
            .collect();
        for Honest { client, .. } in &self.honest {
            assert_eq!(client.pings, client.pongs, "pings of client {}", client.wire);
            assert!(client.socket_id.is_some(), "client {} was not greeted", client.wire);
            for (channel, place) in &client.places {
                assert!(place.acknowledged, "client {}: {channel} unanswered", client.wire);
                assert!(
                    place.due.is_empty(),
                    "client {}: {channel} lacks {:?}",
                    client.wire,
                    place.due
                );
                if channel.starts_with("presence-") {
                    assert_eq!(place.roster, members, "client {}", client.wire);
                }
            }
        }
        for honest in std::mem::take(&mut self.honest) {
            self.hang_up(honest.client.wire);
        }
        self.settle();
        self.advance(10);
        self.settle();
        self.process.check_empty();
        for core in &self.process.cores {
            assert_eq!(core.shard.charged_bytes(), 0, "charges are left");
            assert_eq!(core.reactor.queued_reads(), 0, "queued sockets are left");
        }
        assert!(self.world.borrow().wires.iter().all(|wire| wire.closed), "a socket leaked");
    }
}
