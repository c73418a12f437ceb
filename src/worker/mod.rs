//! A worker: one pinned thread with its own listener, sockets and shard. Only workers touch client sockets.
//!
//! Owns the core, its kernel and its end of each mailbox. Knows no rule of the protocol. The loop is a tick, then
//! `Kernel::park`, which is the only call that waits. A tick processes everything that is ready, then flushes each
//! dirty connection once (docs/decisions/0001). `park` returns when the kernel has a report, when another core rings
//! the doorbell, or at the next deadline. `kernel` has io_uring and epoll.
//!
//! Limits: questions and actions of operators as in `inspect`; listeners as configured. Cost: at most one waiting
//! system call a tick; an idle worker has one tick a second, of some clock readings and atomic loads.

mod drain;
mod inspect;
pub mod kernel;
mod notes;
mod observe;
mod overload;
mod quiet;
pub(crate) mod redis;
mod shared;
mod sys;
pub mod time;
pub(crate) mod transfer;

pub(crate) use sys::{
    block_signals, is_clock_synchronized, replace_program, return_freed_memory, unblock_signals,
};

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::Moment;
use crate::debug_log::DebugLog;
use crate::limits;
use crate::mailbox::Mailbox;
use crate::operator_requests::PublishReplies;
use crate::output;
use crate::pusher::printed;
use crate::running_configuration::{ConfigurationLink, RunningConfiguration};
use crate::shard::{Mail, MemoryLimits, Pace, Settings, Shard, ShardConfiguration};
use crate::tick::http::{Http, Rules};
use crate::tick::kernel::Kernel;
use crate::tick::{Core, CoreConfiguration, NextTick};
use crate::tls::TlsChannel;
use crate::tls::acceptor::AcceptorLink;
use crate::webhook::Feed;
use crate::ws::frame;
use drain::{DRAIN_TICK_MS, Drain};
use inspect::{OperatorWork, PendingGather};
use kernel::{Choice, Epoll, ring_that_fits};
use notes::Notes;
use observe::Observer;
use overload::MemoryGuard;
use quiet::QuietWatch;
use redis::RedisConnection;
pub(crate) use shared::Shared;
use time::{Clock, Entropy};
use transfer::Rendezvous;

/// Longest time between two ticks. The tick falls on the second, in which `heartbeat` has work.
const HEARTBEAT_MS: u64 = 1_000;

/// A kernel for the sockets of this host. The simulator has another one.
pub(crate) trait HostKernel:
    Kernel<Socket = OwnedFd, Listener = OwnedFd, Channel = TlsChannel>
{
}
impl<K: Kernel<Socket = OwnedFd, Listener = OwnedFd, Channel = TlsChannel>> HostKernel for K {}

pub(crate) struct Worker<K: HostKernel> {
    core: Core<K>,
    shared: Arc<Shared>,
    clock: Clock,
    /// To the apps' backends, if any app has webhooks.
    feed: Option<Feed>,
    debug_log: DebugLog,
    memory_guard: MemoryGuard,
    drain: Drain,
    redis: Option<RedisConnection>,
    notes: Notes,
    observer: Observer,
    /// The request in progress. At most one, so that operators cannot slow the clients down.
    operator_work: Option<OperatorWork>,
    pending_gathers: Vec<PendingGather>,
    publish_replies: PublishReplies,
    /// `None` without a TLS listener.
    acceptor: Option<Arc<AcceptorLink>>,
    /// The configuration that this worker has applied, and the way to later ones.
    configuration: Arc<ConfigurationLink>,
    /// `Moment::seconds` of the last heartbeat.
    last_second: u32,
    quiet: QuietWatch,
}

/// What the main thread makes for a worker before its thread starts.
pub(crate) struct WorkerResources {
    pub mailbox: Mailbox<Mail>,
    /// One for each port, or several after a take-over from a server with more workers.
    pub listeners: Vec<PortListener>,
    /// To the apps' backends, if any app has webhooks.
    pub feed: Option<Feed>,
    /// `None` without a TLS listener.
    pub acceptor: Option<Arc<AcceptorLink>>,
    pub configuration: Arc<ConfigurationLink>,
}

#[derive(Debug)]
pub(crate) struct PortListener {
    pub listener: TcpListener,
    /// Its connections begin with a TLS handshake. Set from the configuration, not from what clients send.
    pub is_secure: bool,
}

/// Runs a worker on the calling thread until the phase is stopped, or not at all if a worker could not be set up
/// (`Shared::unstartable`).
pub(crate) fn run(
    shared: Arc<Shared>,
    resources: WorkerResources,
    pin_to: Option<core_affinity::CoreId>,
) {
    if let Some(core) = pin_to
        && !core_affinity::set_for_current(core)
    {
        tracing::warn!(
            event = "worker_not_pinned",
            core = core.id,
            "a worker is not pinned to its CPU, because the system refused it; check the CPU affinity of the process"
        );
    }
    if let Err(error) = sys::own_descriptor_table() {
        tracing::warn!(
            event = "descriptors_shared",
            "all workers share one descriptor table, so LimitNOFILE counts for all of them together: {error}"
        );
    }
    match shared.kernel_interface {
        Choice::Uring(size) => {
            let smaller = shared.clone();
            run_on_kernel(
                |clock| ring_that_fits(clock, size, &smaller.smaller_rings),
                shared,
                resources,
            );
        }
        Choice::Epoll(_) => run_on_kernel(Epoll::new, shared, resources),
    }
}

fn run_on_kernel<K: HostKernel>(
    make: impl Fn(Clock) -> io::Result<K>,
    shared: Arc<Shared>,
    resources: WorkerResources,
) {
    let parts = WorkerParts::make(make, &shared, resources).inspect_err(|error| {
        // Only the first error is reported. The others usually have the same cause.
        shared.unstartable.set(copy_of(error)).ok();
    });
    // All workers have their resources before any of them serves: a server starts completely or not at all.
    shared.start_barrier.wait();
    let Ok(parts) = parts else { return };
    if shared.unstartable.get().is_some() {
        return;
    }
    let WorkerParts { kernel, mailbox, listeners, feed, acceptor, configuration, incoming } = parts;
    let mut worker = Worker::new(shared, kernel, mailbox, feed, configuration);
    worker.use_acceptor(acceptor);
    for (listener, is_secure) in listeners {
        if is_secure {
            worker.core.reactor.listen_secure(listener);
        } else {
            worker.core.reactor.listen(listener);
        }
    }
    if let Some((rendezvous, listener)) = incoming {
        worker.receive_transfer(&rendezvous, &listener);
    }
    worker.serve();
}

/// What a worker has before all workers are ready. A worker that could not make it reports the error and does not
/// serve.
struct WorkerParts<K> {
    kernel: K,
    mailbox: Mailbox<Mail>,
    /// Each with `PortListener::is_secure`.
    listeners: Vec<(OwnedFd, bool)>,
    feed: Option<Feed>,
    acceptor: Option<Arc<AcceptorLink>>,
    configuration: Arc<ConfigurationLink>,
    incoming: Option<(Rendezvous, UnixListener)>,
}

impl<K: HostKernel> WorkerParts<K> {
    fn make(
        make: impl Fn(Clock) -> io::Result<K>,
        shared: &Shared,
        resources: WorkerResources,
    ) -> io::Result<Self> {
        let WorkerResources { mailbox, listeners, feed, acceptor, configuration } = resources;
        let incoming = match shared.transfer.incoming {
            None => None,
            Some(rendezvous) => {
                let listener = transfer::listen(&rendezvous, usize::from(mailbox.core()))?;
                Some((rendezvous, listener))
            }
        };
        let prepare = |PortListener { listener, is_secure }| {
            // A connection that comes with its request is served without being watched (docs/decisions/0013). A kernel
            // without the option reports connections earlier, which is right as well.
            sys::defer_accept(&listener).ok();
            kernel::prepare_listener(listener).map(|listener| (listener, is_secure))
        };
        let listeners = listeners.into_iter().map(prepare).collect::<io::Result<_>>()?;
        let kernel = make(shared.clock)?;
        Ok(Self { kernel, mailbox, listeners, feed, acceptor, configuration, incoming })
    }
}

/// A copy of an error, because every worker reports it.
fn copy_of(error: &io::Error) -> io::Error {
    let code = error.raw_os_error().map(io::Error::from_raw_os_error);
    code.unwrap_or_else(|| io::Error::new(error.kind(), error.to_string()))
}

impl<K: HostKernel> Worker<K> {
    fn new(
        shared: Arc<Shared>,
        kernel: K,
        mailbox: Mailbox<Mail>,
        feed: Option<Feed>,
        configuration: Arc<ConfigurationLink>,
    ) -> Self {
        let running = configuration.configuration.clone();
        let shard = Shard::new(shard_settings(&shared, &running, &mailbox));
        let mut entropy = Entropy::default();
        let mut http = Http::new(
            http_rules(&shared, &running),
            running.apps.clone(),
            shared.overload.clone(),
            Box::new(move || entropy.next()),
        );
        http.access.wants_entry = shared.config.log.access;
        let redis = RedisConnection::new(&shared, running.apps.clone(), &mailbox);
        let core = Core::new(shard, mailbox, http, kernel, shared.sockets_reserved);
        Self {
            core,
            clock: shared.clock,
            feed,
            debug_log: DebugLog::new(),
            memory_guard: MemoryGuard::default(),
            drain: Drain::default(),
            redis,
            notes: Notes::default(),
            observer: Observer::default(),
            operator_work: None,
            pending_gathers: Vec::new(),
            publish_replies: PublishReplies::default(),
            acceptor: None,
            configuration,
            // The first tick counts as a heartbeat, also in the first second of the clock.
            last_second: u32::MAX,
            quiet: QuietWatch::default(),
            shared,
        }
    }

    /// For new handshakes. Connections keep the configuration with which they began.
    fn use_acceptor(&mut self, acceptor: Option<Arc<AcceptorLink>>) {
        self.core.reactor.acceptor = acceptor.as_ref().map(|acceptor| acceptor.config.clone());
        self.acceptor = acceptor;
    }

    /// Receives the connections of the old process. The worker has been paused since its start.
    fn receive_transfer(&mut self, rendezvous: &Rendezvous, listener: &UnixListener) {
        self.core.set_transferring(true);
        self.core.pause();
        self.core.shard.advance(self.clock.now());
        self.receive_all(rendezvous, listener);
    }

    fn serve(&mut self) {
        while !self.shared.phase.is_stopped() {
            let timeout = self.tick();
            self.core.reactor.kernel.park(Some(timeout));
        }
        self.end_redis();
    }

    /// Processes everything that is ready, then flushes. Returns the time until the next tick in milliseconds, if
    /// nothing is reported before.
    fn tick(&mut self) -> u64 {
        self.core.mailbox.doorbell().set_awake();
        let began_ns = self.core.reactor.kernel.stamp();
        let phase_before = self.shared.phase.as_u8();
        let now = self.clock.now();
        self.apply_phase();
        self.follow_configuration();
        self.heartbeat(now);
        self.core.http.unix_seconds = time::unix_seconds();
        self.begin_observing();
        self.core.http.access.tick_began_ns = began_ns;
        if !self.core.is_paused() {
            self.core.shard.advance(now);
            if self.shared.phase.is_ending() {
                self.drain();
            }
            self.shed();
        }
        self.core.tick();
        if self.has_operator_work() {
            self.serve_operator();
            self.core.settle();
        }
        self.read_redis();
        self.carry_out();
        self.write_refusals();
        self.pass_observations_on();
        self.serve_cluster();
        // Redis before the clients: messages that an acknowledgement causes are sent before its client can act on it.
        self.write_redis();
        let next_tick = self.core.finish();
        // At the end, because answers of other nodes come with `read_redis`, and the next tick may be a second away.
        self.send_due_replies();
        self.write_access_log();
        self.settle_accounts();
        self.core.note_gauges();
        if self.shared.phase.is_transferring() {
            self.publish_gauges();
        }
        if self.drain.is_done {
            self.shared.drained_ticks[usize::from(self.core.mailbox.core())]
                .fetch_add(1, Ordering::AcqRel);
        }
        let ns = self.core.reactor.kernel.stamp().saturating_sub(began_ns);
        self.core.shard.metrics().observe_tick(ns);
        // A thread that changed the phase during this tick found the core awake and did not ring. The core sets
        // `asleep` before this check, and the thread sets the phase before it rings, so one of the two sees the other.
        // The same holds for a question of an operator and for a configuration.
        let has_configuration = self.configuration.next().is_some();
        if self.shared.phase.as_u8() != phase_before
            || self.has_operator_work()
            || has_configuration
        {
            return 0;
        }
        self.park_ms(next_tick)
    }

    /// How long the worker may wait for reports, in milliseconds.
    fn park_ms(&self, next_tick: NextTick) -> u64 {
        let now = self.clock.now();
        let until = match next_tick {
            NextTick::Now => return 0,
            NextTick::At(at) => at.0.saturating_sub(now.0),
            NextTick::OnReport => HEARTBEAT_MS,
        };
        let heartbeat =
            if self.drain.has_begun { DRAIN_TICK_MS } else { HEARTBEAT_MS - now.0 % HEARTBEAT_MS };
        let redis = self.redis.as_ref().and_then(|redis| redis.wait_ms(now));
        // A tick that comes 1 ms early would find nothing to do and be repeated.
        until.min(heartbeat).min(redis.unwrap_or(heartbeat)).max(1)
    }

    /// Once a second: counts a heartbeat, renews the budgets of the log, looks for new certificates, and returns freed
    /// memory if the second was a quiet one.
    fn heartbeat(&mut self, now: Moment) {
        self.quiet.note_tick();
        if now.seconds() == self.last_second {
            return;
        }
        self.last_second = now.seconds();
        if self.quiet.end_second() {
            return_freed_memory();
        }
        self.shared.heartbeats[usize::from(self.core.mailbox.core())]
            .fetch_add(1, Ordering::Relaxed);
        self.notes.start_second();
        // In debug builds only, because it costs a pass over the whole state of the core.
        debug_assert_eq!(self.core.check_invariants(), Ok(()));
        self.core.shard.metrics().begin_second(self.last_second);
        self.core.http.refill_lines();
        if let Some(latest) = self.acceptor.as_ref().and_then(|acceptor| acceptor.latest()) {
            self.use_acceptor(Some(latest));
        }
    }

    /// Applies the configurations that came since the last tick, in their order.
    fn follow_configuration(&mut self) {
        while let Some(next) = self.configuration.next().cloned() {
            let running = next.configuration.clone();
            let shard = ShardConfiguration {
                apps: running.apps.clone(),
                verbose_errors: running.verbose_errors,
                debug: running.debug,
            };
            self.core.apply(CoreConfiguration { shard, rules: http_rules(&self.shared, &running) });
            if let Some(redis) = &mut self.redis {
                redis.set_apps(running.apps.clone());
            }
            next.report(self.core.mailbox.core());
            self.configuration = next;
        }
    }

    /// Follows a change of the phase, including a transfer that is canceled.
    fn apply_phase(&mut self) {
        if self.shared.phase.is_leaving() && self.core.is_paused() {
            self.send_all();
        }
        let phase = &self.shared.phase;
        self.core.http.accepts = phase.is_running();
        self.core.http.unready = self.shared.unready.load(Ordering::Relaxed);
        self.core.set_transferring(phase.is_transferring());
        let pauses = phase.is_paused();
        if pauses && !self.core.is_paused() {
            self.core.pause();
        } else if !pauses && self.core.is_paused() {
            self.core.resume();
        }
    }

    /// Carries out the effects of a tick that concern neither clients nor cores: webhooks, log lines, printed events.
    fn carry_out(&mut self) {
        if let Some(feed) = &mut self.feed {
            for event in self.core.shard.outbox.webhooks.drain(..) {
                feed.push(event);
            }
            feed.wake_dispatcher();
        }
        self.debug_log.write(&mut self.core.shard.outbox.traces);
        let apps = &self.configuration.configuration.apps;
        for event in self.core.http.published_to_show.drain(..) {
            if self.shared.config.print_events {
                let payload = frame::server_payload(&event.frame);
                output::print_events(printed::line(
                    &apps.get(event.app).id,
                    event.excluded_socket_id,
                    payload,
                ));
            }
            if self.core.http.is_observed {
                self.observer.note_published(&event);
            }
        }
        for note in std::mem::take(&mut self.core.shard.outbox.notes) {
            self.notes.write(&note, self.core.shard.metrics());
        }
    }
}

fn shard_settings(
    shared: &Shared,
    running: &RunningConfiguration,
    mailbox: &Mailbox<Mail>,
) -> Settings {
    Settings {
        core: mailbox.core(),
        cores: mailbox.cores(),
        apps: running.apps.clone(),
        channel_hash_seed: shared.channel_hash_seed,
        memory: MemoryLimits {
            send_queue_bytes_max: shared.config.send_queue_bytes_max,
            connection_bytes_max: shared.config.connection_bytes_max,
        },
        connections_reserved: shared.sockets_reserved,
        cache_bytes_max: shared.config.cache_bytes_max / usize::from(mailbox.cores()),
        verbose_errors: running.verbose_errors,
        debug: running.debug,
        node: shared.redis.as_ref().map(|redis| redis.node),
        pending_leave_seconds: match shared.config.webhook_debounce_ms {
            0 => 0,
            // Longer than the debounce time, because the clocks of nodes differ.
            debounce => debounce.div_ceil(1_000) + 1,
        },
        pace: Pace::default(),
        topic_idle_seconds: Settings::TOPIC_IDLE_SECONDS,
        metrics: shared.metrics[usize::from(mailbox.core())].clone(),
    }
}

fn http_rules(shared: &Shared, running: &RunningConfiguration) -> Rules {
    let config = &shared.config;
    let connections = shared.sockets_reserved / limits::SOCKETS_PER_HTTP_CONNECTION;
    Rules {
        request_size_max: running.request_size_max,
        request_seconds: running.handshake_timeout_seconds,
        keepalive_seconds: running.keepalive_timeout_seconds,
        prefix: config.path.clone(),
        verbose_errors: running.verbose_errors,
        debug: running.debug,
        print_events: config.print_events,
        connections_max: connections.max(limits::HTTP_CONNECTIONS_MIN),
    }
}
