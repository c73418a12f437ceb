//! Several nodes and a Redis in one thread, from one seed: clients on all of them, lines that are cut at any byte, a
//! Redis that goes away or forgets, nodes that die, stop for a while, end in order, and begin.
//!
//! Every byte between a node and Redis is the real link's; it moves when a step says so. What must hold is in `check`:
//! an event that was taken in on any node while a subscriber's node heard Redis comes to it once, in its publisher's
//! order, whatever becomes of other lines; on its own node it comes whatever becomes of Redis. Rosters, users and
//! numbers agree with the truth once the lines have stood for as long as a node may be silent.

mod backends;
mod checks;
mod guests;

use std::collections::{BTreeMap, BTreeSet};

use ringverb::buffer::FrameBytes;
use ringverb::shard::{Answer, Described, LEASE_BEATS, NodeId, Pace, Question};

use crate::backend::Ledger;
use crate::client::{Client, NUMBERS_PER_NODE};
use crate::kernel::Shared;
use crate::process::{APP, InCluster, Process, Shape, new_world};
use crate::random::Random;
use crate::redis::FakeRedis;
use crate::simulation::ring_capacity;
use backends::Caller;

const NODES_MAX: usize = 3;
/// Beats within which a node notices a Redis that is no master, or does not pass on what it publishes.
const NOTICED_BEATS: u32 = 5;
const CLIENTS_MAX: usize = 12;
/// Steps of a script at most.
const SCRIPT_STEPS_MAX: usize = 400;

struct Node {
    /// Counts nodes from 1; an event's number begins with it.
    label: u64,
    process: Process,
    /// The number of the last event.
    number: u64,
    /// Backends so far: their events have numbers of their own.
    streams: u64,
    /// Its lines have stood, and it has caught up with what was published whenever they did not.
    hears_all: bool,
    /// It does not run for the time being.
    stopped: bool,
}

/// A client, and the node it is connected to.
struct Guest {
    client: Client,
    node: u64,
}

pub(crate) struct Cluster {
    world: Shared,
    redis: FakeRedis,
    redis_is_away: bool,
    nodes: Vec<Node>,
    labels: u64,
    /// The same on all hosts.
    unix_seconds: u64,
    linger_seconds: u32,
    topic_linger_beats: u32,
    guests: Vec<Guest>,
    ledger: Ledger,
    backends: Vec<Caller>,
    /// Something has broken since all was calm.
    stirred: bool,
    /// Nothing ever breaks.
    is_gentle: bool,
    /// By channel and user, or channel alone: how often the app's backend was told of a coming, less of a leaving.
    backend: BTreeMap<(String, Option<String>), i32>,
    /// Questions of the HTTP API: node, core, number.
    asked: Vec<(u64, usize, u32)>,
}

impl Cluster {
    pub(crate) fn new(random: Random) -> Self {
        let is_secure = random.is_one_seed_in(3);
        let world = new_world(random);
        world.borrow_mut().is_secure = is_secure;
        let mut redis = FakeRedis::new();
        let is_gentle = world.borrow().random.one_in(4);
        redis.set_own_messages_last(world.borrow().random.one_in(2));
        let linger_seconds = [0, 1, 4][world.borrow().random.below(3)];
        let topic_linger_beats = [0, 1, 5][world.borrow().random.below(3)];
        let mut cluster = Self {
            world,
            redis,
            redis_is_away: false,
            nodes: Vec::new(),
            labels: 0,
            unix_seconds: 1_000_000,
            linger_seconds,
            topic_linger_beats,
            guests: Vec::new(),
            ledger: Ledger::default(),
            backends: Vec::new(),
            stirred: false,
            is_gentle,
            backend: BTreeMap::new(),
            asked: Vec::new(),
        };
        for _ in 0..2 + cluster.below(NODES_MAX - 1) {
            cluster.begin_node();
        }
        cluster.settle();
        cluster
    }

    fn below(&self, bound: usize) -> usize {
        self.world.borrow().random.below(bound)
    }

    pub(crate) fn step(&mut self) {
        match self.below(64) {
            0..=3 if self.guests.len() < CLIENTS_MAX => self.connect(),
            4..=10 => self.speak(|client, channel| client.subscribe(channel)),
            11..=12 => self.speak(|client, channel| client.unsubscribe(channel)),
            13..=18 => self.publish(false),
            19 => self.publish(true),
            20 => self.client_event(),
            21 => self.speak(|client, _| Some(client.ping())),
            22 => self.end_client(),
            23..=24 => self.speak(|client, _| client.sign_in()),
            25 => self.ask(),
            26..=27 => self.settle_and_check(),
            28 if !self.is_gentle => self.fault(),
            29 => {
                // Whoever waits for others for a beat or two goes on without them.
                if self.is_gentle {
                    self.settle();
                }
                self.pass(1);
            }
            30..=40 => self.run_a_core(),
            41..=44 => self.step_of_backends(),
            _ => self.move_a_line(),
        }
        self.read_all();
    }

    fn begin_node(&mut self) {
        if self.nodes.len() >= NODES_MAX {
            return;
        }
        self.labels += 1;
        let cores = 1 + u16::try_from(self.below(3)).expect("few");
        let seed = self.world.borrow().random.next();
        // Ids in no order: the lowest speaks for a dead one.
        let id = NodeId(seed.rotate_left(7));
        let ring = ring_capacity(&self.world.borrow().random);
        let (unix_seconds, linger_seconds) = (self.unix_seconds, self.linger_seconds);
        let pace = Pace { burst: 6, per_second: 4 };
        let topic_linger_beats = self.topic_linger_beats;
        let node = InCluster { id, unix_seconds, linger_seconds, pace, topic_linger_beats };
        let shape = Shape::plain(cores, ring, seed);
        let process = Process::new(&self.world, shape, Some(node));
        let label = self.labels;
        self.nodes.push(Node {
            label,
            process,
            number: label * NUMBERS_PER_NODE,
            streams: 0,
            hears_all: false,
            stopped: false,
        });
    }

    fn fault(&mut self) {
        let node = self.below(self.nodes.len());
        match self.below(11) {
            0..=1 => {
                let core = self.below(self.nodes[node].process.lines.len());
                self.cut(node, core);
            }
            2 => self.redis_is_away ^= true,
            3 => self.redis.restart(),
            4 if self.nodes.len() > 1 => self.kill(node),
            5 => self.nodes[node].stopped ^= true,
            6 if self.nodes.len() > 1 => self.end_node(node),
            7 => return self.begin_node(),
            // The others think it dead.
            8 if self.nodes.len() > 1 => {
                self.nodes[node].stopped = true;
                self.live_on(LEASE_BEATS + 2);
                self.nodes[node].stopped = false;
            }
            9 => self.demote(),
            10 if self.nodes.len() > 1 => self.mute(node),
            _ => return,
        }
        self.stirred = true;
        if self.below(4) == 0 {
            self.calm();
        }
    }

    fn cut(&mut self, node: usize, core: usize) {
        let executed = self.below(2) == 0;
        let node = &mut self.nodes[node];
        let process = &mut node.process;
        if process.lines[core].connection.is_some() {
            process.lines[core].lose(&mut process.cores[core], &mut self.redis, executed);
            process.tick(core);
        }
    }

    /// A failover that no connection notices by itself: Redis is a replica from here on.
    fn demote(&mut self) {
        if self.redis_is_away || self.nodes.iter().any(|node| node.stopped) {
            return;
        }
        self.redis.set_replica(true);
        self.live_on(NOTICED_BEATS);
        for node in &self.nodes {
            let is_up = node.process.lines.iter().any(|line| line.link.is_up());
            assert!(!is_up, "node {} publishes on a replica", node.label);
        }
        self.redis.set_replica(false);
    }

    /// One node hears the others and is heard by none of them.
    fn mute(&mut self, node: usize) {
        if self.redis_is_away || self.nodes.iter().any(|node| node.stopped) {
            return;
        }
        // Each is heard a few times before.
        self.live_on(NOTICED_BEATS);
        let lines = &self.nodes[node].process.lines;
        let Some(speaker) = lines[0].connection.filter(|_| lines[0].link.is_up()) else { return };
        let connections = lines.iter().filter_map(|line| line.connection).collect();
        let label = self.nodes[node].label;
        let others = |node: &Node| node.label != label && node.is_up(&self.redis);
        if !self.nodes.iter().any(others) {
            return;
        }
        self.redis.set_partition(connections);
        self.live_on(NOTICED_BEATS);
        assert!(
            !self.redis.is_connected(speaker),
            "node {label} does not notice that it is not heard"
        );
        self.redis.set_partition(BTreeSet::new());
        // What it has published meanwhile is lost for the others.
        for guest in self.guests.iter_mut().filter(|guest| guest.node != label) {
            for place in guest.client.places.values_mut() {
                place.due_from_elsewhere.retain(|number| number / NUMBERS_PER_NODE != label);
            }
        }
    }

    /// As by kill -9.
    fn kill(&mut self, node: usize) {
        let mut node = self.nodes.remove(node);
        for line in &mut node.process.lines {
            if let Some(connection) = line.connection.take() {
                self.redis.drop_connection(connection, self.world.borrow().random.one_in(2));
            }
        }
        for index in 0..self.guests.len() {
            if self.guests[index].node == node.label {
                self.forget(index);
            }
        }
        // What it published and did not hand to Redis is gone with it.
        for guest in &mut self.guests {
            for place in guest.client.places.values_mut() {
                let from = |number: &u64| number / NUMBERS_PER_NODE;
                place.due_from_elsewhere.retain(|number| from(number) != node.label);
            }
        }
        self.asked.retain(|(asker, ..)| *asker != node.label);
        self.forget_backends(node.label);
        node.process.exit();
    }

    /// As by SIGTERM: connections first, then the last word.
    fn end_node(&mut self, node: usize) {
        if self.nodes[node].stopped {
            return;
        }
        for index in 0..self.guests.len() {
            if self.guests[index].node == self.nodes[node].label && !self.guests[index].client.over
            {
                let wire = self.guests[index].client.wire;
                self.world.borrow_mut().reset(wire);
                self.forget(index);
            }
        }
        self.nodes[node].process.settle();
        let process = &mut self.nodes[node].process;
        if let Some(line) = process.lines.iter_mut().find(|line| line.link.is_up()) {
            line.link.send_bye();
        }
        for line in &mut process.lines {
            line.write(&mut self.redis, usize::MAX);
        }
        self.kill(node);
    }

    fn somewhere(&self) -> Option<(usize, usize)> {
        let running: Vec<usize> =
            (0..self.nodes.len()).filter(|node| !self.nodes[*node].stopped).collect();
        let node = *running.get(self.below(running.len().max(1)))?;
        Some((node, self.below(self.nodes[node].process.cores.len())))
    }

    fn run_a_core(&mut self) {
        let Some((node, core)) = self.somewhere() else { return };
        let process = &mut self.nodes[node].process;
        if process.wakes(core) {
            process.tick(core);
        }
    }

    /// A line is called, writes or reads, or Redis executes a command of it.
    fn move_a_line(&mut self) {
        let Some((node, core)) = self.somewhere() else { return };
        let (what, most) = (self.below(3), 1 + self.below(300));
        let process = &mut self.nodes[node].process;
        let line = &mut process.lines[core];
        let Some(connection) = line.connection else {
            if self.redis_is_away {
                line.link.note_unreachable();
            } else {
                line.call(&mut self.redis);
            }
            return;
        };
        match what {
            0 if !self.redis_is_away => drop(line.write(&mut self.redis, most)),
            1 if !self.redis_is_away => drop(self.redis.execute(connection)),
            2 if line.read(&mut process.cores[core], &mut self.redis, most) => {
                process.tick(core);
            }
            _ => {}
        }
    }

    /// A node that may have missed something for good owes nothing of what others have published so far.
    fn forgive(&mut self) {
        for node in self.nodes.iter().filter(|node| !node.hears_all) {
            let here = self.guests.iter_mut().filter(|guest| guest.node == node.label);
            for guest in here {
                let places = guest.client.places.values_mut();
                places.for_each(|place| place.due_from_elsewhere.clear());
            }
        }
    }

    /// Seconds pass everywhere but on stopped nodes.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.redis.advance(1);
            self.unix_seconds += 1;
            // Whoever waits for Redis waits no longer than a beat or two, and may miss something then.
            for node in &mut self.nodes {
                node.hears_all &= node.process.lines.iter().all(|line| line.link.is_quiet());
            }
            self.forgive();
            for node in self.nodes.iter_mut().filter(|node| !node.stopped) {
                let process = &mut node.process;
                let speaks = process.lines.iter().position(|line| line.link.is_up());
                let now = u32::try_from(process.now.0 / 1_000 + 1).expect("a short time");
                for (core, line) in process.lines.iter_mut().enumerate() {
                    let shard = &mut process.cores[core].shard;
                    line.beat(now, self.unix_seconds, speaks == Some(core), shard);
                    // Lines that nobody has moved for long are given up.
                    self.stirred |= line.is_over;
                }
                process.advance(1);
            }
        }
    }

    /// Until nothing moves, and nobody waits to be read. Redis answers if it is there; lines that are down stay down.
    fn settle(&mut self) {
        self.settle_now();
        for round in 0.. {
            let paced = |node: &Node| !node.stopped && node.process.has_paced();
            if !self.nodes.iter().any(paced) {
                break;
            }
            assert!(round < 100, "a client waits for ever");
            self.pass(1);
            self.settle_now();
        }
    }

    fn settle_now(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the nodes never come to rest");
            let mut moved = false;
            for node in self.nodes.iter_mut().filter(|node| !node.stopped) {
                let process = &mut node.process;
                process.settle();
                for core in 0..process.lines.len() {
                    let line = &mut process.lines[core];
                    if line.connection.is_none() && !self.redis_is_away && !self.redis.is_replica()
                    {
                        line.call(&mut self.redis);
                        moved = true;
                    }
                    if !self.redis_is_away {
                        moved |= line.write(&mut self.redis, usize::MAX);
                        while line.connection.is_some_and(|found| self.redis.execute(found)) {
                            moved = true;
                        }
                    }
                    if line.read(&mut process.cores[core], &mut self.redis, usize::MAX) {
                        moved = true;
                        process.tick(core);
                    }
                }
            }
            moved |= self.read_everything();
            if !moved {
                break;
            }
        }
        if !self.redis_is_away {
            for node in self.nodes.iter_mut().filter(|node| !node.stopped) {
                let is_quiet = node.process.lines.iter().all(|line| line.link.is_quiet());
                node.hears_all |= node.is_up(&self.redis) && is_quiet;
            }
        }
    }

    /// So many seconds in which all that can move does.
    fn live_on(&mut self, seconds: u32) {
        for _ in 0..seconds {
            // Nobody is to be thought silent.
            for index in 0..self.guests.len() {
                if !self.guests[index].client.over && self.guests[index].client.socket_id.is_some()
                {
                    let bytes = self.guests[index].client.ping();
                    self.send(index, &bytes);
                }
            }
            self.pass(1);
            self.settle();
        }
    }

    /// Everything is mended, and stands for as long as a node may be silent.
    fn calm(&mut self) {
        self.redis_is_away = false;
        self.nodes.iter_mut().for_each(|node| node.stopped = false);
        self.live_on(2 * LEASE_BEATS);
        self.stirred = false;
        self.settle_and_check();
    }
}

impl Node {
    /// All its lines are up and Redis knows them.
    fn is_up(&self, redis: &FakeRedis) -> bool {
        self.process.lines.iter().all(|line| {
            line.link.is_up() && line.connection.is_some_and(|found| redis.is_connected(found))
        })
    }

    fn described(&self, channel: &str) -> Described {
        let question = Question::Describe { app: APP, names: vec![channel.to_owned()] };
        let mut sum = Described::default();
        for core in &self.process.cores {
            let Answer::Described(parts) = core.shard.answer(&question) else { panic!("answer") };
            parts.into_iter().for_each(|part| sum.merge(part));
        }
        sum
    }

    fn has(&self, channel: &str) -> bool {
        self.described(channel).subscription_count > 0
    }

    fn cached(&self) -> Option<FrameBytes> {
        self.described("cache-c").cached.map(|(frame, _)| frame)
    }
}

/// A run whose choices are these bytes, as long as there are any.
pub(crate) fn run_script(bytes: &[u8]) {
    let mut cluster = Cluster::new(Random::scripted(bytes));
    for _ in 0..SCRIPT_STEPS_MAX {
        if cluster.world.borrow().random.script_is_over() {
            break;
        }
        cluster.step();
    }
    cluster.finish();
}
