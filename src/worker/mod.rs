//! A worker: one pinned thread with its own accept loop, sockets and shard. The only place that touches client
//! sockets.
//!
//! monoio runs the core: accept, HTTP, handshakes and timers are its tasks. Established WebSockets are the
//! reactor's. A tick drains everything that is ready, then flushes each dirty connection once (law 1). Ticks
//! are plain function calls: no borrow of `Core` lives across an await. A tick never begins inside another one, nor
//! inside a method that borrows `core`, `effects` or `line`: only tasks and the slow beat call `tick`, and waking a
//! task only queues it.

mod addresses;
mod admission;
mod debug_log;
mod drain;
pub mod handover;
pub mod line;
mod listener;
mod lobby;
mod notes;
pub mod overload;
mod phase;
mod printed;
mod session;
mod sys;
pub mod time;

pub(crate) use sys::{hold_signals, replace_program};

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::api::Publication;
use crate::app::{AppIndex, Apps};
use crate::config::Config;
use crate::limits;
use crate::mailbox::Mailbox;
use crate::pusher::json::Validator;
use crate::shard::{Answer, Mail, MemoryLimits, Pace, Question, Settings, Shard};
use crate::tick::{Core, PACED_LOOK_MS};
use crate::webhook::Feed;
use debug_log::DebugLog;
use drain::{DRAIN_TICK_MS, Drain};
use handover::{Handover, Meeting};
use line::{Line, Lines};
use lobby::Lobby;
use notes::Notes;
use overload::{Guard, Overload};
pub use phase::Phase;
use session::{Admitted, Unwanted};
use sys::Ring;
use time::{Clock, Entropy};

/// What all workers share: read-only, but for the phase and a count.
#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub apps: Arc<Apps>,
    pub phase: Phase,
    /// `/up` answers 503, for load balancers: the server is about to drain (`Config::shutdown_delay_seconds`).
    pub unready: AtomicBool,
    /// Workers without connections, once draining.
    pub drained: AtomicUsize,
    /// By worker: ticks since it has had no connections, once draining.
    pub drained_ticks: Box<[AtomicU64]>,
    /// By worker: its slow beats, at least one a second while it lives.
    pub beats: Box<[AtomicU64]>,
    /// All workers, and the control thread, meet here once each worker has its own descriptor table and its rings: what
    /// is opened before is copied to all of them, and lives as long as any.
    pub started: Barrier,
    /// Why a worker could not be set up. Final when all have met at `started`; then no worker runs.
    pub unstartable: OnceLock<io::Error>,
    /// Workers that accept no more, once draining.
    pub listeners_closed: AtomicUsize,
    /// The same on all workers.
    pub clock: Clock,
    pub channel_hash_seed: u64,
    /// Sockets one worker may have: room reserved in address space.
    pub sockets_reserved: usize,
    pub overload: Overload,
    pub handover: Handover,
    /// To the other nodes; `None`: this node is alone.
    pub lines: Option<Lines>,
}

const IDLE_TICK: Duration = Duration::from_secs(1);

/// One worker, as its tasks see it.
pub(crate) struct Worker {
    core: RefCell<Core<Ring>>,
    effects: RefCell<Effects>,
    shared: Arc<Shared>,
    tick_asked: Cell<bool>,
    tick_waker: RefCell<Option<Waker>>,
    /// Wakes `tick_for_paced`.
    paced_waker: RefCell<Option<Waker>>,
    listeners: Vec<TcpListener>,
    draining: Cell<bool>,
    lobby: Lobby,
    /// See `limits::SOCKETS_PER_HTTP_CONNECTION`.
    http_connections_max: usize,
    /// The measurement of memory whose headroom the core has; 0: none yet.
    headroom_measured: Cell<u32>,
    line: RefCell<Option<Line>>,
    notes: Notes,
    /// For the bodies of API requests.
    validator: RefCell<Validator>,
}

/// What a tick needs beside the core itself.
struct Effects {
    clock: Clock,
    entropy: Entropy,
    /// To the apps' backends, if any app has webhooks.
    feed: Option<Feed>,
    debug_log: DebugLog,
    guard: Guard,
    drain: Drain,
}

/// What one worker alone has of the world.
pub struct Ends {
    pub mailbox: Mailbox<Mail>,
    /// One, or several after a take-over from a server with more workers.
    pub listeners: Vec<TcpListener>,
    /// To the apps' backends, if any app has webhooks.
    pub feed: Option<Feed>,
}

/// Runs a worker on the calling thread until the phase says stop, or not at all if a worker could not be set up
/// (`Shared::unstartable`).
///
/// # Errors
/// When it cannot run any more.
pub fn run(
    shared: Arc<Shared>,
    ends: Ends,
    pin_to: Option<core_affinity::CoreId>,
) -> io::Result<()> {
    if let Some(core) = pin_to
        && !core_affinity::set_for_current(core)
    {
        tracing::warn!(core = core.id, "the worker could not be pinned to its core");
    }
    if let Err(error) = sys::own_descriptor_table() {
        tracing::warn!("workers share one descriptor table, so one limit: {error}");
    }
    let parts = Parts::make(&shared, &ends).inspect_err(|error| {
        // The first error is as good as any.
        let _ = shared.unstartable.set(copy_of(error));
    });
    shared.started.wait();
    let Ok(Parts { mut runtime, ring, taking }) = parts else { return Ok(()) };
    if shared.unstartable.get().is_some() {
        return Ok(());
    }
    runtime.block_on(async move {
        let worker = Rc::new(Worker::new(shared, ends, ring));
        let ring = worker.core.borrow().reactor.kernel.duplicate_fd()?;
        if let Some((meeting, listener)) = taking {
            worker.arrive(&meeting, &listener);
        }
        for index in 0..worker.listeners.len() {
            monoio::spawn(listener::accept_loop(worker.clone(), index));
        }
        monoio::spawn(watch_ring(worker.clone(), ring));
        monoio::spawn(tick_when_asked(worker.clone()));
        monoio::spawn(tick_for_paced(worker.clone()));
        monoio::spawn(line::keep(worker.clone()));
        worker.run_timer().await;
        worker.end_line().await;
        Ok(())
    })
}

/// What a worker asks of the kernel. All workers have theirs before any of them serves, so that a server starts whole
/// or not at all.
struct Parts {
    runtime: monoio::Runtime<monoio::time::TimeDriver<monoio::IoUringDriver>>,
    ring: Ring,
    taking: Option<(Meeting, UnixListener)>,
}

impl Parts {
    fn make(shared: &Shared, ends: &Ends) -> io::Result<Self> {
        let taking = match shared.handover.taking {
            None => None,
            Some(meeting) => {
                let listener = handover::listen(&meeting, usize::from(ends.mailbox.core()))?;
                Some((meeting, listener))
            }
        };
        // Completions wait for the worker's next system call: an interrupt for each costs a sixth of an API request.
        let mut builder = monoio_io_uring::IoUring::builder();
        builder.setup_coop_taskrun().setup_cqsize(limits::TASK_RING_COMPLETIONS);
        let runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
            .with_entries(limits::TASK_RING_ENTRIES)
            .uring_builder(builder)
            .enable_timer()
            .build()?;
        Ok(Self { runtime, ring: Ring::new(shared.clock)?, taking })
    }
}

/// The same error, for somebody else.
fn copy_of(error: &io::Error) -> io::Error {
    let code = error.raw_os_error().map(io::Error::from_raw_os_error);
    code.unwrap_or_else(|| io::Error::new(error.kind(), error.to_string()))
}

/// Ticks when the raw ring has completions: readable sockets, the doorbell.
async fn watch_ring(worker: Rc<Worker>, ring: OwnedFd) {
    let Ok(ring) = sys::watchable(ring) else { return };
    loop {
        worker.tick();
        if let Err(error) = ring.readable(true).await {
            // The slow beat ticks once a second meanwhile.
            tracing::error!("the ring of worker {} cannot be watched: {error}", worker.index());
            monoio::time::sleep(IDLE_TICK).await;
        }
    }
}

/// Ticks on behalf of HTTP sessions: once for all that asked in the same turn of the runtime.
async fn tick_when_asked(worker: Rc<Worker>) {
    loop {
        std::future::poll_fn(|context| {
            if worker.tick_asked.take() {
                return Poll::Ready(());
            }
            *worker.tick_waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        worker.tick();
    }
}

/// Ticks for connections that are not read until they need not wait any more: nothing else tells when that is.
async fn tick_for_paced(worker: Rc<Worker>) {
    loop {
        std::future::poll_fn(|context| {
            if worker.core.borrow().reactor.has_paced() {
                return Poll::Ready(());
            }
            *worker.paced_waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        monoio::time::sleep(Duration::from_millis(PACED_LOOK_MS)).await;
        worker.tick();
    }
}

impl Worker {
    fn new(shared: Arc<Shared>, ends: Ends, ring: Ring) -> Self {
        let notes = Notes::new(shared.config.debug);
        let Ends { mailbox, listeners, feed } = ends;
        let shard = Shard::new(Settings {
            core: mailbox.core(),
            cores: mailbox.cores(),
            apps: shared.apps.clone(),
            channel_hash_seed: shared.channel_hash_seed,
            memory: MemoryLimits {
                send_queue_bytes_max: shared.config.send_queue_bytes_max,
                connection_bytes_max: shared.config.connection_bytes_max,
            },
            connections_reserved: shared.sockets_reserved,
            cache_bytes_max: shared.config.cache_bytes_max / usize::from(mailbox.cores()),
            talkative: shared.config.talkative,
            debug: shared.config.debug,
            node: shared.lines.as_ref().map(|lines| lines.node),
            webhook_linger_seconds: match shared.config.webhook_debounce_ms {
                0 => 0,
                // Longer than the backends wait: the clocks differ.
                debounce => debounce.div_ceil(1_000) + 1,
            },
            pace: Pace::default(),
            topic_linger_beats: Settings::TOPIC_LINGER_BEATS,
        });
        let line = Line::new(&shared, mailbox.core());
        let http_connections_max = (shared.sockets_reserved / limits::SOCKETS_PER_HTTP_CONNECTION)
            .max(limits::HTTP_CONNECTIONS_MIN);
        let effects = Effects {
            clock: shared.clock,
            entropy: Entropy::default(),
            feed,
            debug_log: DebugLog::new(),
            guard: Guard::default(),
            drain: Drain::default(),
        };
        Self {
            core: RefCell::new(Core::new(shard, mailbox, ring, shared.sockets_reserved)),
            effects: RefCell::new(effects),
            shared,
            tick_asked: Cell::new(false),
            tick_waker: RefCell::new(None),
            paced_waker: RefCell::new(None),
            listeners,
            draining: Cell::new(false),
            lobby: Lobby::default(),
            http_connections_max,
            headroom_measured: Cell::new(0),
            line: RefCell::new(line),
            notes,
            validator: RefCell::default(),
        }
    }

    fn index(&self) -> u16 {
        self.core.borrow().mailbox.core()
    }

    /// The slow beat: liveness, deadlines, the drain. Returns when the server stops.
    async fn run_timer(&self) {
        loop {
            monoio::time::sleep(if self.draining.get() {
                Duration::from_millis(DRAIN_TICK_MS)
            } else {
                IDLE_TICK
            })
            .await;
            self.tick();
            self.shared.beats[usize::from(self.index())].fetch_add(1, Ordering::Relaxed);
            self.notes.start_beat();
            if self.shared.phase.is_stopped() {
                return;
            }
        }
    }

    /// Deals with all that is ready, then flushes. Must not be called while `core` is borrowed.
    fn tick(&self) {
        let core = &mut *self.core.borrow_mut();
        let effects = &mut *self.effects.borrow_mut();
        core.mailbox.doorbell().set_awake();
        let stage = self.shared.phase.stage();
        self.follow(core, effects);
        if !core.is_paused() {
            core.shard.advance(effects.clock.now());
            if self.shared.phase.is_ending() {
                self.drain(core, effects);
            }
            self.shed(core, &mut effects.guard);
        }
        core.turn();
        effects.carry_out(core);
        self.write_refusals(core);
        self.carry_out_line(core);
        // Ahead of the clients: what an acknowledgement has caused to be said is on its way before anybody
        // can act on it.
        self.write_line();
        core.finish();
        // Whoever changed the phase during this tick found the core awake and did not ring. The core says that it
        // sleeps before this look, and the phase is set before that ring: one of the two sees the other.
        if self.shared.phase.stage() != stage {
            self.ask_tick();
        }
        self.settle_accounts(core, &mut effects.guard);
        if core.reactor.has_paced()
            && let Some(waker) = self.paced_waker.borrow_mut().take()
        {
            waker.wake();
        }
        if self.lobby.is_asked() {
            self.show(core);
        }
        if effects.drain.is_done {
            self.shared.drained_ticks[usize::from(core.mailbox.core())]
                .fetch_add(1, Ordering::AcqRel);
        }
        for note in core.shard.outbox.notes.drain(..) {
            self.notes.tell(&note);
        }
    }

    /// Does what the phase asks for on the way to another process and back.
    fn follow(&self, core: &mut Core<Ring>, effects: &Effects) {
        let phase = &self.shared.phase;
        if phase.is_leaving() && core.is_paused() {
            handover::hand_out(self, core, &effects.guard);
        }
        self.lobby.ask(phase.is_moving());
        let pauses = phase.is_paused();
        if pauses && !core.is_paused() {
            core.pause();
        } else if !pauses && core.is_paused() {
            core.resume();
        }
    }

    /// The other end of it: takes in what another process gives, paused from the start.
    fn arrive(self: &Rc<Self>, meeting: &Meeting, listener: &UnixListener) {
        self.lobby.ask(true);
        {
            let mut core = self.core.borrow_mut();
            core.pause();
            core.shard.advance(self.effects.borrow().clock.now());
        }
        handover::take_in(self, meeting, listener);
    }

    /// Nothing may change any more, or not yet.
    fn is_paused(&self) -> bool {
        self.core.borrow().is_paused()
    }

    /// Asks for a tick after the tasks that are runnable now.
    fn ask_tick(&self) {
        self.tick_asked.set(true);
        if let Some(waker) = self.tick_waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Publishers wait while the mailboxes are full: nothing is dropped, the source is slowed.
    async fn uncongested(&self) {
        while self.core.borrow().mailbox.is_congested() {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until mail that found its ring full is in the ring.
    async fn posted(&self) {
        while self.core.borrow().mailbox.has_overflow() {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Asks all cores, this one included. `None` when one did not answer in time.
    async fn ask(&self, question: Question) -> Option<Vec<Answer>> {
        let id = self.core.borrow_mut().begin_gather(question);
        self.ask_tick();
        let answers =
            std::future::poll_fn(|context| self.core.borrow_mut().gathers.poll(id, context));
        let timeout = Duration::from_millis(limits::GATHER_TIMEOUT_MS);
        let answers = monoio::time::timeout(timeout, answers).await.ok();
        self.core.borrow_mut().gathers.end(id);
        answers
    }

    fn publish(&self, app: AppIndex, publications: &[Publication]) {
        let mut core = self.core.borrow_mut();
        let each = publications.iter().map(|one| (&*one.channel, one.frame.clone(), one.except));
        core.publish(app, each);
    }

    /// Takes over a socket whose handshake is done.
    fn adopt(
        &self,
        admitted: Result<Admitted, Unwanted>,
        prelude: &[u8],
        socket: OwnedFd,
        leftover: &mut [u8],
    ) {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let effects = &mut *self.effects.borrow_mut();
        let key = match admitted {
            Ok(Admitted { app, place }) => {
                let key = core.shard.open(app, effects.entropy.next(), prelude);
                effects.guard.put(key.slot, place);
                key
            }
            Err(Unwanted { error, why }) => core.shard.open_refused(prelude, error, why.as_deref()),
        };
        core.reactor.adopt(&mut core.shard, key, socket, leftover);
        self.ask_tick();
    }
}

impl Effects {
    /// What a turn left for others than clients and cores.
    fn carry_out(&mut self, core: &mut Core<Ring>) {
        if let Some(feed) = &mut self.feed {
            for event in core.shard.outbox.webhooks.drain(..) {
                feed.push(event);
            }
            feed.ring();
        }
        self.debug_log.tell(&mut core.shard.outbox.traces);
    }
}
