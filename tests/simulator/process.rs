//! The cores of one process, as the worker drives them: a core ticks when its ring wakes it, and only then.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ringverb::admission::AddressSlots;
use ringverb::admission::overload::Overload;
use ringverb::api::Publication;
use ringverb::app::{App, AppIndex, Apps};
use ringverb::clock::Moment;
use ringverb::config::validate::{DevelopmentApp, build_config};
use ringverb::config::{Config, Sources, merge};
use ringverb::mailbox::{Mailbox, mesh_of};
use ringverb::metrics::CoreMetrics;
use ringverb::pusher::webhook_event::WebhookEvent;
use ringverb::pusher::{channel_name::ChannelName, outbound, socket_id::SocketId};
use ringverb::shard::{
    Answer, Inspection, Inspector, Mail, MemoryLimits, NodeId, Pace, Question, SessionId, Settings,
    Shard, ShardConfiguration,
};
use ringverb::tick::http::{Http, Rules};
use ringverb::tick::{AddressChange, Core, CoreConfiguration, NextTick};
use ringverb::ws::frame;

use crate::kernel::{Shared, SimKernel, Socket, World};
use crate::random::Random;
use crate::redis_connection::SimRedisConnection;

pub(crate) const APP: AppIndex = AppIndex(0);
pub(crate) const SEND_QUEUE_BYTES_MAX: usize = 4_000;
/// In a cluster no client is slow: what a burst of events brings at once must find room.
const SEND_QUEUE_BYTES_MAX_IN_CLUSTER: usize = 16_000;
pub(crate) const CONNECTION_BYTES_MAX: usize = SEND_QUEUE_BYTES_MAX + 16_000;
/// The time of day when a process without a cluster begins.
const UNIX_SECONDS: u64 = 1_750_000_000;
/// Time between two requests of a connection, in seconds: less than the silence of a WebSocket.
pub(crate) const KEEPALIVE_SECONDS: u32 = 15;
/// A client that proxies name.
pub(crate) const CLIENT_OF_A_PROXY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// Connections of one address: more than a world has.
const CONNECTIONS_PER_IP_MAX: u32 = 90;
/// HTTP connections that a core may have, where a world says nothing else.
pub(crate) const HTTP_CONNECTIONS_MAX: usize = 64;

/// Ticks of all cores in which whatever waits for other cores must come to its end.
const ROUNDS_MAX: u32 = 10_000;

pub(crate) struct Process {
    pub(crate) cores: Vec<Core<SimKernel>>,
    pub(crate) world: Shared,
    pub(crate) apps: Arc<Apps>,
    pub(crate) now: Moment,
    pub(crate) redis_connections: Vec<SimRedisConnection>,
    /// By core, when it is to tick again.
    rests: Vec<NextTick>,
    /// By core, the number of its ticks.
    pub(crate) ticks: Vec<u64>,
    pub(crate) webhook_events: Vec<WebhookEvent>,
    /// The number of the first core among those of all processes.
    first: usize,
    /// By core, the listeners whose connections are its.
    pub(crate) listeners: Vec<Vec<usize>>,
    pub(crate) overload: Arc<Overload>,
    /// By core and slot, what connections are counted in, as the worker keeps it.
    pub(crate) places: Vec<AddressSlots>,
    unix_seconds: u64,
}

/// What distinguishes one process from another.
pub(crate) struct Shape {
    pub(crate) cores: u16,
    pub(crate) ring_capacity: usize,
    pub(crate) seed: u64,
    /// HTTP connections of one core.
    pub(crate) http_connections_max: usize,
    /// Connections are counted by address.
    pub(crate) counts_addresses: bool,
    /// Listeners of a process before it; further ones are made.
    pub(crate) listeners: Vec<usize>,
    /// It takes connections of that process in before it serves.
    pub(crate) is_new_process: bool,
}

impl Shape {
    /// A process that starts by itself and limits little.
    pub(crate) fn plain(cores: u16, ring_capacity: usize, seed: u64) -> Self {
        Self {
            cores,
            ring_capacity,
            seed,
            http_connections_max: HTTP_CONNECTIONS_MAX,
            counts_addresses: false,
            listeners: Vec::new(),
            is_new_process: false,
        }
    }
}

/// What a process of a cluster is besides.
pub(crate) struct InCluster {
    pub(crate) id: NodeId,
    /// The time of day.
    pub(crate) unix_seconds: u64,
    /// For how long a client that left its backend may come back.
    pub(crate) pending_leave_seconds: u32,
    pub(crate) pace: Pace,
    pub(crate) topic_idle_seconds: u32,
}

/// The app of the default configuration; in a cluster its backend wants all events.
fn app(has_webhooks: bool) -> App {
    config(has_webhooks, false, &[]).apps.remove(0)
}

fn config(has_webhooks: bool, counts_addresses: bool, proxies: &[IpAddr]) -> Config {
    let names = [("ID", "1001"), ("KEY", "app-key"), ("SECRET", "app-secret")];
    let variable = |(name, value): (&str, &str)| (format!("REVERB_APP_{name}"), value.to_owned());
    let mut environment: HashMap<String, String> = names.into_iter().map(variable).collect();
    if counts_addresses {
        let most = CONNECTIONS_PER_IP_MAX.to_string();
        environment.insert("RINGVERB_CONNECTIONS_PER_IP_MAX".to_owned(), most);
        environment.insert("RINGVERB_TRUSTED_PROXIES".to_owned(), "10.0.0.0/8".to_owned());
    }
    if !proxies.is_empty() {
        let named: Vec<String> = proxies.iter().map(ToString::to_string).collect();
        environment.insert("RINGVERB_TRUSTED_PROXIES".to_owned(), named.join(","));
        environment.insert("RINGVERB_PROXY_PROTOCOL".to_owned(), "on".to_owned());
    }
    if has_webhooks {
        environment.insert("RINGVERB_WEBHOOK_URL".to_owned(), "http://127.0.0.1/".to_owned());
    }
    let merged = merge(&Sources { environment, ..Sources::default() });
    let unused = || String::from("unused");
    let development = DevelopmentApp { id: unused(), key: unused(), secret: unused() };
    build_config(&merged, &development).expect("a good configuration")
}

/// The defaults, but for what the world says.
fn rules(connections_max: usize) -> Rules {
    let config = config(false, false, &[]);
    Rules {
        request_size_max: config.request_size_max,
        request_seconds: config.handshake_timeout_seconds,
        keepalive_seconds: KEEPALIVE_SECONDS,
        prefix: config.path,
        verbose_errors: false,
        debug: false,
        print_events: false,
        connections_max,
    }
}

/// One core's shard.
fn shard(
    mailbox: &Mailbox<Mail>,
    cores: u16,
    apps: Arc<Apps>,
    seed: u64,
    node: Option<&InCluster>,
) -> Shard {
    let metrics = Arc::new(CoreMetrics::new(apps.iter().len()));
    Shard::new(Settings {
        core: mailbox.core(),
        cores,
        apps,
        channel_hash_seed: seed,
        memory: MemoryLimits {
            send_queue_bytes_max: if node.is_some() {
                SEND_QUEUE_BYTES_MAX_IN_CLUSTER
            } else {
                SEND_QUEUE_BYTES_MAX
            },
            connection_bytes_max: CONNECTION_BYTES_MAX,
        },
        connections_reserved: 0,
        cache_bytes_max: 1 << 20,
        verbose_errors: false,
        debug: false,
        node: node.map(|node| node.id),
        pending_leave_seconds: node.map_or(0, |node| node.pending_leave_seconds),
        pace: node.map_or_else(Pace::default, |node| node.pace),
        topic_idle_seconds: node.map_or(0, |node| node.topic_idle_seconds),
        metrics,
    })
}

impl Process {
    pub(crate) fn new(world: &Shared, shape: Shape, node: Option<InCluster>) -> Self {
        let Shape { cores, ring_capacity, seed, http_connections_max, .. } = shape;
        let apps = Arc::new(Apps::new(vec![app(node.is_some())]));
        let proxies = world.borrow().proxies.clone();
        let overload =
            Arc::new(Overload::new(&config(false, shape.counts_addresses, &proxies), seed));
        let mailboxes = mesh_of(cores, ring_capacity).expect("doorbells");
        let first = world.borrow_mut().add_cores(usize::from(cores));
        let cores = mailboxes.into_iter().map(|mailbox| {
            let shard = shard(&mailbox, cores, apps.clone(), seed, node.as_ref());
            let kernel =
                SimKernel { core: first + usize::from(mailbox.core()), world: world.clone() };
            let randomness = world.clone();
            let entropy = Box::new(move || randomness.borrow().random.next());
            let rules = rules(http_connections_max);
            let http = Http::new(rules, apps.clone(), overload.clone(), entropy);
            Core::new(shard, mailbox, http, kernel, 0)
        });
        let mut cores: Vec<_> = cores.collect();
        let unix_seconds = node.as_ref().map_or(UNIX_SECONDS, |node| node.unix_seconds);
        let listeners = listen(world, &mut cores, shape.listeners);
        let redis_connections =
            node.into_iter().flat_map(|InCluster { id: node, unix_seconds, .. }| {
                let apps = &apps;
                let indexes = 0..u16::try_from(cores.len()).expect("few");
                indexes.map(move |core| {
                    SimRedisConnection::new(SessionId { node, core }, apps.clone(), unix_seconds)
                })
            });
        let redis_connections = redis_connections.collect();
        let (world, now) = (world.clone(), Moment(0));
        let (ticks, webhook_events) = (vec![0; cores.len()], Vec::new());
        let rests = vec![NextTick::Now; cores.len()];
        let places = cores.iter().map(|_| AddressSlots::default()).collect();
        let mut process = Self {
            cores,
            world,
            apps,
            now,
            redis_connections,
            rests,
            ticks,
            webhook_events,
            first,
            listeners,
            overload,
            places,
            unix_seconds,
        };
        if shape.is_new_process {
            for core in &mut process.cores {
                core.http.accepts = false;
                core.set_transferring(true);
                core.pause();
            }
        }
        (0..process.cores.len()).for_each(|core| process.tick(core));
        process
    }

    /// As `Worker::tick`.
    pub(crate) fn tick(&mut self, index: usize) {
        self.world.borrow_mut().begin_tick(self.first + index);
        self.ticks[index] += 1;
        let core = &mut self.cores[index];
        core.mailbox.doorbell().set_awake();
        core.http.unix_seconds = self.unix_seconds + u64::from(self.now.seconds());
        core.http.refill_lines();
        if !core.is_paused() {
            core.shard.advance(self.now);
        }
        core.tick();
        if let Some(redis) = self.redis_connections.get_mut(index) {
            redis.carry_out(&mut core.shard);
        }
        let each = self.redis_connections.iter().zip(&self.cores);
        let is_congested =
            each.into_iter().any(|(redis, core)| redis.session.is_congested(&core.shard));
        let core = &mut self.cores[index];
        core.shard.set_cluster_congested(is_congested);
        self.webhook_events.append(&mut core.shard.outbox.webhooks);
        self.rests[index] = core.finish();
        // Every tick would make the simulation 1.35 times as long.
        if self.ticks[index].is_multiple_of(2)
            && let Err(broken) = core.check_invariants()
        {
            panic!("core {index}: {broken}");
        }
        for account in core.reactor.accounts.drain(..) {
            match account {
                AddressChange::Begun(slot, place) => self.places[index].insert(slot, place),
                AddressChange::Ended(slot) => {
                    self.overload.admission.release_connection(self.places[index].remove(slot));
                }
            }
        }
        core.http.refusals.clear();
        core.shard.outbox.notes.clear();
        core.shard.outbox.refusals.clear();
    }

    /// As `Worker::follow_configuration`.
    pub(crate) fn apply(&mut self, core: usize, apps: Arc<Apps>, http_connections_max: usize) {
        let list = apps.clone();
        let shard = ShardConfiguration { apps, verbose_errors: false, debug: false };
        let rules = rules(http_connections_max);
        self.cores[core].apply(CoreConfiguration { shard, rules });
        if let Some(redis) = self.redis_connections.get_mut(core) {
            redis.session.set_apps(list);
        }
        self.tick(core);
    }

    /// The time of day, for signatures.
    pub(crate) fn unix_seconds(&self) -> u64 {
        self.unix_seconds + u64::from(self.now.seconds())
    }

    /// When a core that has paused accepting goes on, if connections wait there.
    fn accepts_again_at(&self) -> Option<Moment> {
        let world = self.world.borrow();
        let waits = |core: &usize| {
            let found = &self.cores[*core];
            let accepts = found.http.accepts && !found.is_paused();
            accepts && self.listeners[*core].iter().any(|listener| world.has_waiting(*listener))
        };
        let until = |core: usize| match self.rests[core] {
            NextTick::At(at) => Some(at),
            NextTick::Now | NextTick::OnReport => None,
        };
        (0..self.cores.len()).filter(waits).filter_map(until).min()
    }

    /// Whether this core's ring wakes it, where its doorbell is watched, too.
    pub(crate) fn wakes(&self, core: usize) -> bool {
        let mut world = self.world.borrow_mut();
        if self.cores[core].mailbox.doorbell().was_rung() {
            world.ring(self.first + core);
        }
        let is_due = match self.rests[core] {
            NextTick::Now => true,
            NextTick::At(at) => at <= self.now,
            NextTick::OnReport => false,
        };
        is_due || world.wakes(self.first + core)
    }

    /// A core goes on that was paused. The worker does this in a tick.
    pub(crate) fn resume(&mut self, core: usize) {
        self.cores[core].resume();
        self.tick(core);
    }

    /// Every core that is woken ticks until none is.
    pub(crate) fn settle(&mut self) {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "the cores never come to rest");
            let woken: Vec<usize> =
                (0..self.cores.len()).filter(|core| self.wakes(*core)).collect();
            if woken.is_empty() {
                let Some(at) = self.accepts_again_at() else { return };
                self.now = at;
                continue;
            }
            woken.into_iter().for_each(|core| self.tick(core));
        }
    }

    /// A client connects to a core.
    pub(crate) fn connect(&self, core: usize, wire: usize) {
        let listeners = &self.listeners[core];
        let mut world = self.world.borrow_mut();
        let listener = listeners[world.random.below(listeners.len())];
        world.connect(listener, wire);
    }

    /// A WebSocket without its handshake.
    pub(crate) fn open(&mut self, core: usize, wire: usize, leftover: &mut [u8]) {
        let entropy = self.world.borrow().random.next();
        assert!(self.apps.get(APP).try_count_connection());
        let socket = self.socket(core, wire);
        let core = &mut self.cores[core];
        let key = core.shard.open(APP, entropy, b"");
        core.reactor.adopt(&mut core.shard, key, socket, leftover);
    }

    pub(crate) fn socket(&self, core: usize, wire: usize) -> Socket {
        Socket::new(wire, self.first + core, self.world.clone())
    }

    /// The process ends: its watches with it, its descriptors are closed.
    pub(crate) fn exit(self) {
        self.world.borrow_mut().exit(self.first..self.first + self.cores.len());
    }

    /// As a session that publishes: not while the mailboxes are full, and answered once its mail is posted.
    pub(crate) fn publish(
        &mut self,
        core: usize,
        channel: &str,
        number: u64,
        excluded_socket_id: Option<SocketId>,
    ) {
        self.tick_while(core, Mailbox::is_congested);
        let mut text = Vec::new();
        outbound::event("\"e\"", &format!("\"{number}\""), channel, &mut text);
        let frame = frame::encode_text(&text).into();
        let channel = ChannelName::parse(channel).expect("a channel name");
        self.cores[core].publish(APP, &[Publication { channel, frame, excluded_socket_id }]);
        let mark = self.cores[core].mailbox.overflow_mark();
        self.tick(core);
        self.tick_while(core, |mailbox| mark.is_some_and(|mark| !mailbox.is_in_rings(mark)));
    }

    /// All cores tick while a mailbox is full.
    fn tick_while(&mut self, core: usize, is_full: impl Fn(&Mailbox<Mail>) -> bool) {
        for round in 0.. {
            if !is_full(&self.cores[core].mailbox) {
                return;
            }
            assert!(round < ROUNDS_MAX, "mail waits for ever: cores wait for each other");
            self.tick_all();
        }
    }

    pub(crate) fn tick_all(&mut self) {
        (0..self.cores.len()).for_each(|core| self.tick(core));
    }

    /// Time passes; every worker has its slow beat.
    pub(crate) fn advance(&mut self, seconds: u64) {
        self.now = Moment(self.now.0 + seconds * 1_000);
        self.tick_all();
    }

    /// Clients wait to be read until time has passed.
    pub(crate) fn has_paced(&self) -> bool {
        self.cores.iter().any(|core| core.reactor.has_paused_reads())
    }

    pub(crate) fn connections(&self) -> usize {
        self.cores.iter().map(|core| core.shard.connection_count()).sum()
    }

    /// Of connections that speak HTTP nothing is left.
    fn check_http(&self) {
        for core in &self.cores {
            assert_eq!(core.http_sessions(), 0, "HTTP connections are left");
            assert_eq!(core.shard.http_bytes(), 0, "memory of HTTP connections is left");
            assert_eq!(core.reactor.queued_reads(), 0, "queued sockets are left");
        }
        let admission = &self.overload.admission;
        if !admission.limits_clients() {
            return;
        }
        for address in [Ipv4Addr::LOCALHOST, CLIENT_OF_A_PROXY] {
            let free = |_: &u32| admission.try_count_socket(address.into()).is_ok();
            let count = (0..=CONNECTIONS_PER_IP_MAX).take_while(free).count();
            assert_eq!(count, CONNECTIONS_PER_IP_MAX as usize, "HTTP places of {address}");
            let free = |_: &u32| admission.try_count_connection(address.into()).is_ok();
            let count = (0..=CONNECTIONS_PER_IP_MAX).take_while(free).count();
            assert_eq!(count, CONNECTIONS_PER_IP_MAX as usize, "places of {address}");
        }
    }

    /// Nothing is left of those who have gone, but what cache channels remember.
    pub(crate) fn check_empty(&self) {
        assert_eq!(self.connections(), 0, "connections are left");
        for core in &self.cores {
            let (local, _) = core.shard.channel_counts();
            assert_eq!(local, 0, "channels without subscribers are left");
            assert_eq!(core.shard.user_and_count_entries(), 0, "users are left");
            let question = Question::Users { app: APP, name: "presence-r".to_owned() };
            let Answer::Users(users) = core.shard.answer(&question) else { panic!("users") };
            assert!(users.is_empty(), "members are left: {users:?}");
            for asked in [
                Inspection::Channels { app: APP, contains: "".into() },
                Inspection::Connections { app: None, contains: "".into() },
            ] {
                let mut inspector = Inspector::new(asked);
                while !core.shard.inspect(&mut inspector) {}
                let found = &inspector.findings;
                assert!(found.channels.is_empty() && found.connections.is_empty(), "{found:?}");
            }
            assert!(!core.mailbox.has_held_mail() && !core.mailbox.has_overflow(), "mail is left");
        }
        self.check_http();
        let app = self.apps.get(APP);
        assert_eq!(app.connections_open.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}

/// Each core has a listener: those of the process before, and others if it has more cores.
fn listen(world: &Shared, cores: &mut [Core<SimKernel>], mut given: Vec<usize>) -> Vec<Vec<usize>> {
    given.resize_with(given.len().max(cores.len()), || world.borrow_mut().add_listener());
    let mut listeners = vec![Vec::new(); cores.len()];
    for (number, listener) in given.into_iter().enumerate() {
        let core = number % cores.len();
        if world.borrow().is_secure {
            cores[core].reactor.acceptor = Some(());
            cores[core].reactor.listen_secure(listener);
        } else {
            cores[core].reactor.listen(listener);
        }
        listeners[core].push(listener);
    }
    listeners
}

pub(crate) fn new_world(random: Random) -> Shared {
    std::rc::Rc::new(std::cell::RefCell::new(World::new(random)))
}
