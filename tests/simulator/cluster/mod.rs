//! Several nodes and a Redis in one thread, from one seed: clients on all of them, Redis connections that are cut at
//! any byte, a Redis that goes away or forgets, nodes that die, stop for a while, end in order, and begin.
//!
//! What must hold is in `check`: an event that any node accepted while a subscriber's node was connected to Redis is
//! delivered once, in its publisher's order; on its own node it is delivered without Redis, too. Rosters, users and
//! numbers are right once the connections have been up for as long as a node may be silent.

mod backends;
mod checks;
mod faults;
mod guests;

use std::collections::{BTreeMap, BTreeSet};

use ringverb::buffer::FrameBytes;
use ringverb::shard::{Answer, Described, LEASE_SECONDS, NodeId, Pace, Question};

use crate::backend::Ledger;
use crate::change::Changes;
use crate::client::{Client, NUMBERS_PER_NODE};
use crate::kernel::Shared;
use crate::process::{APP, HTTP_CONNECTIONS_MAX, InCluster, Process, Shape, new_world};
use crate::random::Random;
use crate::redis::FakeRedis;
use crate::simulation::ring_capacity;
use backends::Caller;

const NODES_MAX: usize = 3;
/// Seconds within which a node notices a Redis that is no master, or does not pass on what it publishes.
const NOTICED_SECONDS: u32 = 5;
const CLIENTS_MAX: usize = 12;
/// One of so many seeds changes the configurations of its nodes.
const SEEDS_WITH_CHANGES: u64 = 5;
const CACHE: &str = "cache-c";
/// Where Redis has its event.
const STORED_EVENT_KEY: &[u8] = b"sim:rv1:cache:1001:cache-c";
/// In one of so many seeds, clients subscribe to the cache channel while a node catches up.
const SEEDS_WITH_RETURNS: u64 = 4;
/// Steps of a script at most.
const SCRIPT_STEPS_MAX: usize = 400;

struct Node {
    /// Counts nodes from 1; an event's number begins with it.
    label: u64,
    process: Process,
    number: u64,
    /// Backends so far: their events have numbers of their own.
    streams: u64,
    /// Its connections are up, and it has caught up with what was published whenever they did not.
    receives_all: bool,
    stopped: bool,
    changes: Changes,
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
    pending_leave_seconds: u32,
    topic_idle_seconds: u32,
    guests: Vec<Guest>,
    ledger: Ledger,
    backends: Vec<Caller>,
    /// Something has broken since all was calm.
    stirred: bool,
    is_gentle: bool,
    /// Configurations of nodes change, each for itself.
    changes_apps: bool,
    /// When a node reconnects, its clients return to the cache channel.
    are_clients_returning: bool,
    /// By channel and user, or channel alone: joins that the app's backend was sent, less leaves.
    backend: BTreeMap<(String, Option<String>), i32>,
    asked: Vec<(u64, usize, u32)>,
    /// Redis has had an event of the cache channel since all was quiet: each node that has the topic has received it.
    is_stored_at_rest: bool,
}

impl Cluster {
    pub(crate) fn new(random: Random) -> Self {
        let is_secure = random.is_one_seed_in(3);
        let changes_apps = random.is_one_seed_in(SEEDS_WITH_CHANGES);
        let are_clients_returning = random.is_one_seed_in(SEEDS_WITH_RETURNS);
        let world = new_world(random);
        world.borrow_mut().is_secure = is_secure;
        let mut redis = FakeRedis::new();
        let is_gentle = world.borrow().random.one_in(4);
        redis.set_own_messages_last(world.borrow().random.one_in(2));
        let pending_leave_seconds = [0, 1, 4][world.borrow().random.below(3)];
        let topic_idle_seconds = [0, 1, 5][world.borrow().random.below(3)];
        let mut cluster = Self {
            world,
            redis,
            redis_is_away: false,
            nodes: Vec::new(),
            labels: 0,
            unix_seconds: 1_000_000,
            pending_leave_seconds,
            topic_idle_seconds,
            guests: Vec::new(),
            ledger: Ledger::default(),
            backends: Vec::new(),
            stirred: false,
            is_gentle,
            changes_apps,
            are_clients_returning,
            backend: BTreeMap::new(),
            asked: Vec::new(),
            is_stored_at_rest: false,
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
            4..=10 => self.act(|client, channel| client.subscribe(channel)),
            11..=12 => self.act(|client, channel| client.unsubscribe(channel)),
            13..=18 => self.publish(false),
            19 => self.publish(true),
            20 => self.client_event(),
            21 => self.act(|client, _| Some(client.ping())),
            22 => self.end_client(),
            23..=24 => self.act(|client, _| client.sign_in()),
            25 => self.ask(),
            26..=27 => self.settle_and_check(),
            28 if !self.is_gentle => self.fault(),
            29 => {
                // A node that waits for other nodes for a second or two continues without them.
                if self.is_gentle {
                    self.settle();
                }
                self.pass(1);
            }
            30..=40 => self.run_a_core(),
            41..=44 if self.changes_apps => self.change(),
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
        let (unix_seconds, pending_leave_seconds) = (self.unix_seconds, self.pending_leave_seconds);
        let pace = Pace { burst: 6, per_second: 4 };
        let topic_idle_seconds = self.topic_idle_seconds;
        let node = InCluster { id, unix_seconds, pending_leave_seconds, pace, topic_idle_seconds };
        let shape = Shape::plain(cores, ring, seed);
        let process = Process::new(&self.world, shape, Some(node));
        let label = self.labels;
        self.nodes.push(Node {
            label,
            process,
            number: label * NUMBERS_PER_NODE,
            streams: 0,
            receives_all: false,
            stopped: false,
            changes: Changes::default(),
        });
    }

    /// On one node, the next core applies a change, or another one begins.
    fn change(&mut self) {
        let Some((node, _)) = self.somewhere() else { return };
        let Node { process, changes, .. } = &mut self.nodes[node];
        if !changes.go_on(process, HTTP_CONNECTIONS_MAX) {
            changes.begin(process, &self.world.borrow().random);
        }
    }

    /// All cores of all nodes apply what is under way.
    fn finish_changes(&mut self) {
        for Node { process, changes, .. } in &mut self.nodes {
            while changes.go_on(process, HTTP_CONNECTIONS_MAX) {}
        }
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

    /// A core connects, writes or reads, or Redis executes a command of it.
    fn move_a_line(&mut self) {
        let Some((node, core)) = self.somewhere() else { return };
        let (what, most) = (self.below(3), 1 + self.below(300));
        let process = &mut self.nodes[node].process;
        let redis = &mut process.redis_connections[core];
        let Some(connection) = redis.connection else {
            if self.redis_is_away {
                redis.session.note_unreachable();
            } else {
                redis.call(&mut self.redis);
            }
            return;
        };
        match what {
            0 if !self.redis_is_away => drop(redis.write(&mut self.redis, most)),
            1 if !self.redis_is_away => drop(self.redis.execute(connection)),
            2 if redis.read(&mut process.cores[core], &mut self.redis, most) => {
                process.tick(core);
            }
            _ => {}
        }
    }

    /// A node that may have missed something for good owes nothing of what others have published so far.
    fn forgive(&mut self) {
        for node in self.nodes.iter().filter(|node| !node.receives_all) {
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
            self.excuse_cache_misses();
            self.unix_seconds += 1;
            // A subscriber waits for Redis for a second or two at most, and may then miss an event.
            for node in &mut self.nodes {
                node.receives_all &=
                    node.process.redis_connections.iter().all(|redis| redis.session.is_quiet());
            }
            self.forgive();
            for node in self.nodes.iter_mut().filter(|node| !node.stopped) {
                let process = &mut node.process;
                let speaks =
                    process.redis_connections.iter().position(|redis| redis.session.is_up());
                let now = u32::try_from(process.now.0 / 1_000 + 1).expect("a short time");
                for (core, redis) in process.redis_connections.iter_mut().enumerate() {
                    let shard = &mut process.cores[core].shard;
                    redis.each_second(now, self.unix_seconds, speaks == Some(core), shard);
                    // Redis connections on which nothing moved for long are closed.
                    self.stirred |= redis.is_over;
                }
                process.advance(1);
            }
        }
    }

    /// Until nothing moves and no client waits to be read. Redis answers if it is there.
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
                for core in 0..process.redis_connections.len() {
                    let redis = &mut process.redis_connections[core];
                    if redis.connection.is_none() && !self.redis_is_away && !self.redis.is_replica()
                    {
                        redis.call(&mut self.redis);
                        moved = true;
                    }
                    if !self.redis_is_away {
                        moved |= redis.write(&mut self.redis, usize::MAX);
                        while redis.connection.is_some_and(|found| self.redis.execute(found)) {
                            moved = true;
                        }
                    }
                    if redis.read(&mut process.cores[core], &mut self.redis, usize::MAX) {
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
            self.is_stored_at_rest = self.redis.has_stored(STORED_EVENT_KEY);
            for node in self.nodes.iter_mut().filter(|node| !node.stopped) {
                let is_quiet =
                    node.process.redis_connections.iter().all(|redis| redis.session.is_quiet());
                node.receives_all |= node.is_up(&self.redis) && is_quiet;
            }
        }
    }

    fn live_on(&mut self, seconds: u32) {
        for _ in 0..seconds {
            // No node may be considered silent.
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
        self.live_on(2 * LEASE_SECONDS);
        self.stirred = false;
        self.settle_and_check();
    }
}

impl Node {
    /// All its connections are up and Redis knows them.
    fn is_up(&self, redis: &FakeRedis) -> bool {
        self.process.redis_connections.iter().all(|connection| {
            let is_known = connection.connection.is_some_and(|found| redis.is_connected(found));
            connection.session.is_up() && is_known
        })
    }

    /// The home of the channel, if the node is subscribed to its topic or is about to be.
    fn core_with_topic(&self, channel: &str) -> Option<usize> {
        self.process.cores.iter().position(|core| {
            core.shard.channel_key(APP, channel).is_ok_and(|key| core.shard.has_topic(&key))
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
