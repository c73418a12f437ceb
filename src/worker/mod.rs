//! A worker: one pinned thread with its own accept loop, sockets and shard. The only place that touches client
//! sockets.
//!
//! monoio runs the core: accept, HTTP, handshakes and timers are its tasks. Established WebSockets are the
//! reactor's. A tick drains everything that is ready, then flushes each dirty connection once (law 1). Ticks
//! are plain function calls: no borrow of `Core` lives across an await.

mod addresses;
mod admission;
mod debug_log;
mod flush;
mod listener;
mod notes;
pub mod overload;
mod printed;
mod reactor;
mod session;
mod sys;
pub mod time;

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use hashbrown::HashMap;

use crate::api::Publication;
use crate::app::{AppIndex, Apps};
use crate::clock::Moment;
use crate::config::Config;
use crate::limits;
use crate::mailbox::Mailbox;
use crate::pusher::error_code::ErrorCode;
use crate::pusher::json::Validator;
use crate::shard::{Answer, Answered, Lane, Mail, Question, Settings, Shard};
use crate::webhook::Feed;
use debug_log::DebugLog;
use flush::Flush;
use notes::Notes;
use overload::{Guard, Overload};
use reactor::Reactor;
use session::Admitted;
use sys::{Ring, Token};
use time::{Clock, Entropy};

/// Where the server is in its life; set by the control thread, read by workers once per tick.
#[derive(Debug, Default)]
pub struct Phase(AtomicU8);

impl Phase {
    const RUNNING: u8 = 0;
    const DRAINING: u8 = 1;
    const STOPPED: u8 = 2;

    /// Stop accepting, close every connection.
    pub fn drain(&self) {
        self.0.store(Self::DRAINING, Ordering::Release);
    }

    /// Leave the thread.
    pub fn stop(&self) {
        self.0.store(Self::STOPPED, Ordering::Release);
    }

    fn is_running(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::RUNNING
    }

    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::STOPPED
    }
}

/// What all workers share: read-only, but for the phase and a count.
#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub apps: Arc<Apps>,
    pub phase: Phase,
    /// Workers without connections, once draining.
    pub drained: AtomicUsize,
    /// By worker: ticks since it has had no connections, once draining.
    pub drained_ticks: Box<[AtomicU64]>,
    /// Listeners that accept no more, once draining.
    pub listeners_closed: AtomicUsize,
    /// The same on all workers.
    pub clock: Clock,
    pub channel_hash_seed: u64,
    /// Sockets one worker may have: room reserved in address space.
    pub sockets_reserved: usize,
    pub overload: Overload,
}

/// Fewest closes per tick while draining. Clients reconnect at once, so their storm is spread over half of the
/// grace period; the other half is theirs to answer.
const CLOSES_PER_DRAIN_TICK_MIN: usize = 250;
const DRAIN_TICK_MS: u64 = 50;
const IDLE_TICK: Duration = Duration::from_secs(1);

/// One worker, as its tasks see it.
pub(crate) struct Worker {
    core: RefCell<Core>,
    shared: Arc<Shared>,
    tick_asked: Cell<bool>,
    tick_waker: RefCell<Option<Waker>>,
    listener: TcpListener,
    draining: Cell<bool>,
    notes: Notes,
    /// For the bodies of API requests.
    validator: RefCell<Validator>,
}

/// The part that a tick changes.
struct Core {
    shard: Shard,
    reactor: Reactor,
    flush: Flush,
    mailbox: Mailbox<Mail>,
    gathers: HashMap<u32, Gather, foldhash::fast::RandomState>,
    /// Numbers of gathers are not used twice: a late answer must not count for a later question.
    next_gather: u32,
    entropy: Entropy,
    clock: Clock,
    /// To the apps' backends, if any app has webhooks.
    feed: Option<Feed>,
    debug_log: DebugLog,
    guard: Guard,
    /// Mail on its way to the shard.
    inbox: Vec<Mail>,
    /// Mail of the shard to itself.
    own_mail: Vec<Mail>,
    drained: bool,
    closes_per_drain_tick: usize,
    /// Ticks come as events do; closes come at their own pace.
    next_close: Moment,
}

/// A question under way to the other cores.
struct Gather {
    missing: usize,
    answers: Vec<Answer>,
    waker: Option<Waker>,
}

/// What one worker alone has of the world.
pub struct Ends {
    pub mailbox: Mailbox<Mail>,
    pub listener: TcpListener,
    /// To the apps' backends, if any app has webhooks.
    pub feed: Option<Feed>,
}

/// Runs a worker on the calling thread until the phase says stop.
///
/// # Errors
/// When the rings cannot be made.
pub fn run(
    shared: Arc<Shared>,
    ends: Ends,
    pin_to: Option<core_affinity::CoreId>,
) -> std::io::Result<()> {
    if let Some(core) = pin_to
        && !core_affinity::set_for_current(core)
    {
        tracing::warn!(core = core.id, "the worker could not be pinned to its core");
    }
    if let Err(error) = sys::own_descriptor_table() {
        tracing::warn!("workers share one descriptor table, so one limit: {error}");
    }
    // Completions wait for the worker's next system call: an interrupt for each costs a sixth of an API request.
    let mut ring = monoio_io_uring::IoUring::builder();
    ring.setup_coop_taskrun();
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .with_entries(1024)
        .uring_builder(ring)
        .enable_timer()
        .build()?;
    runtime.block_on(async move {
        let worker = Rc::new(Worker::new(shared, ends)?);
        let ring = worker.core.borrow().reactor.ring.duplicate_fd()?;
        monoio::spawn(listener::accept_loop(worker.clone()));
        monoio::spawn(watch_ring(worker.clone(), ring));
        monoio::spawn(tick_when_asked(worker.clone()));
        worker.run_timer().await;
        Ok(())
    })
}

/// Ticks when the raw ring has completions: readable sockets, the doorbell.
async fn watch_ring(worker: Rc<Worker>, ring: OwnedFd) {
    let Ok(ring) = sys::watchable(ring) else { return };
    loop {
        worker.tick();
        if ring.readable(true).await.is_err() {
            tracing::error!("the ring of worker {} cannot be watched", worker.index());
            return;
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

impl Worker {
    fn new(shared: Arc<Shared>, ends: Ends) -> std::io::Result<Self> {
        let Ends { mailbox, listener, feed } = ends;
        let mut ring = Ring::new()?;
        ring.watch_readable(mailbox.doorbell().as_event_fd(), Token::Doorbell);
        ring.submit();
        let shard = Shard::new(Settings {
            core: mailbox.core(),
            cores: mailbox.cores(),
            apps: shared.apps.clone(),
            channel_hash_seed: shared.channel_hash_seed,
            send_queue_bytes_max: shared.config.send_queue_bytes_max,
            connections_reserved: shared.sockets_reserved,
            cache_bytes_max: shared.config.cache_bytes_max / usize::from(mailbox.cores()),
            talkative: shared.config.talkative,
            debug: shared.config.debug,
        });
        let reactor = Reactor::new(ring, shared.sockets_reserved);
        let core = Core {
            shard,
            reactor,
            flush: Flush::default(),
            mailbox,
            gathers: HashMap::default(),
            next_gather: 0,
            entropy: Entropy::default(),
            clock: shared.clock,
            feed,
            debug_log: DebugLog::new(shared.config.colour),
            guard: Guard::default(),
            inbox: Vec::new(),
            own_mail: Vec::new(),
            drained: false,
            closes_per_drain_tick: CLOSES_PER_DRAIN_TICK_MIN,
            next_close: Moment::default(),
        };
        Ok(Self {
            core: RefCell::new(core),
            shared,
            tick_asked: Cell::new(false),
            tick_waker: RefCell::new(None),
            listener,
            draining: Cell::new(false),
            notes: Notes::default(),
            validator: RefCell::default(),
        })
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
            self.notes.start_beat();
            if self.shared.phase.is_stopped() {
                return;
            }
        }
    }

    /// Deals with all that is ready, then flushes. Must not be called while `core` is borrowed.
    fn tick(&self) {
        let mut core = self.core.borrow_mut();
        core.mailbox.doorbell().set_awake();
        let now = core.clock.now();
        core.shard.advance(now);
        if !self.shared.phase.is_running() {
            self.drain(&mut core);
        }
        self.shed(&mut core);
        core.tick();
        self.settle_accounts(&mut core);
        if core.drained {
            self.shared.drained_ticks[usize::from(core.mailbox.core())]
                .fetch_add(1, Ordering::AcqRel);
        }
        for note in core.shard.outbox.notes.drain(..) {
            self.notes.tell(&note);
        }
    }

    /// Asks for a tick after the tasks that are runnable now.
    fn ask_tick(&self) {
        self.tick_asked.set(true);
        if let Some(waker) = self.tick_waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn drain(&self, core: &mut Core) {
        if !self.draining.replace(true) {
            let ticks =
                u64::from(self.shared.config.shutdown_grace_seconds) * 1_000 / (2 * DRAIN_TICK_MS);
            let ticks = usize::try_from(ticks).unwrap_or(usize::MAX).max(1);
            core.closes_per_drain_tick =
                core.shard.connection_count().div_ceil(ticks).max(CLOSES_PER_DRAIN_TICK_MIN);
            // Wakes the accept loop, which sees the phase; nothing more is accepted.
            let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
            self.shared.listeners_closed.fetch_add(1, Ordering::AcqRel);
        }
        // A client that is told to come back must not find a worker that still accepts and dies too.
        let all_closed = self.shared.listeners_closed.load(Ordering::Acquire);
        if core.drained || all_closed < usize::from(core.mailbox.cores()) {
            return;
        }
        let now = core.shard.now();
        if now >= core.next_close {
            core.next_close = Moment(now.0 + DRAIN_TICK_MS);
            core.shard.close_some(core.closes_per_drain_tick);
        }
        if core.shard.connection_count() == 0 {
            core.drained = true;
            self.shared.drained.fetch_add(1, Ordering::AcqRel);
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
        let answers = std::future::poll_fn(|context| {
            let mut core = self.core.borrow_mut();
            let Some(gather) = core.gathers.get_mut(&id) else { return Poll::Ready(Vec::new()) };
            if gather.missing == 0 {
                return Poll::Ready(std::mem::take(&mut gather.answers));
            }
            gather.waker = Some(context.waker().clone());
            Poll::Pending
        });
        let timeout = Duration::from_millis(limits::GATHER_TIMEOUT_MS);
        let answers = monoio::time::timeout(timeout, answers).await.ok();
        self.core.borrow_mut().gathers.remove(&id);
        answers
    }

    /// Takes over a socket whose handshake is done.
    fn adopt(
        &self,
        admitted: Result<Admitted, ErrorCode>,
        prelude: &[u8],
        socket: OwnedFd,
        leftover: &mut [u8],
    ) {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let key = match admitted {
            Ok(Admitted { app, place }) => {
                let key = core.shard.open(app, core.entropy.next(), prelude);
                core.guard.put(key.slot, place);
                key
            }
            Err(error) => core.shard.open_refused(prelude, error),
        };
        core.reactor.adopt(&mut core.shard, key, socket, leftover);
        self.ask_tick();
    }
}

impl Core {
    fn tick(&mut self) {
        let now = self.shard.now();
        self.reactor.expire(&mut self.shard, now);
        self.reactor.turn(&mut self.shard, self.mailbox.is_congested());
        if std::mem::take(&mut self.reactor.doorbell_is_deaf) {
            let doorbell = self.mailbox.doorbell().as_event_fd();
            self.reactor.ring.watch_readable(doorbell, Token::Doorbell);
        }
        self.drain_from_home();
        self.catch_up();
        self.mailbox.flush_overflow();
        self.settle_mail();
        self.mailbox.ring_doorbells();
        self.tell_answers();
        self.tell_backends();
        self.debug_log.tell(&mut self.shard.outbox.traces);
        for (key, code) in std::mem::take(&mut self.shard.outbox.closed) {
            tracing::debug!(slot = key.slot, code, "connection closing");
            self.reactor.linger(key, now);
        }
        self.flush.run(&mut self.shard, &mut self.reactor);
        if self.wants_another_tick() || !self.mailbox.prepare_sleep() {
            self.reactor.ring.request_again();
        }
        self.reactor.finish_turn();
    }

    fn wants_another_tick(&self) -> bool {
        self.mailbox.has_held()
            || !self.shard.outbox.is_empty()
            || self.flush.is_unfinished()
            || self.reactor.has_unread()
            || self.mailbox.has_overflow()
    }

    /// Hands the shard's mail to the rings, and to itself what is its own, until there is none. `catch_up` calls
    /// it last: what other cores sent before goes ahead of what this core asks of itself.
    fn settle_mail(&mut self) {
        let own_core = self.mailbox.core();
        loop {
            self.shard.settle();
            if self.shard.outbox.mails.is_empty() {
                break;
            }
            let stamp = self.clock.stamp();
            for (to, mail) in self.shard.outbox.mails.drain(..) {
                if to == own_core {
                    self.own_mail.push(mail);
                } else {
                    self.mailbox.send(to, lane_index(mail.lane()), stamp, mail);
                }
            }
            for mail in self.own_mail.drain(..) {
                self.shard.on_mail(mail);
            }
        }
    }

    /// Publishes what one request holds. When this returns, no later request, on whichever core, can overtake
    /// it: it was ordered here, or its mail is stamped and on its way (unless `has_overflow`).
    fn publish(&mut self, app: AppIndex, publications: Vec<Publication>) {
        self.catch_up();
        for Publication { channel, frame, except, .. } in publications {
            // The API has checked the name already.
            if let Ok(channel) = self.shard.channel_key(app, &channel) {
                self.shard.publish(channel, frame, except, true);
            }
        }
        self.settle_mail();
    }

    /// Takes in what was sent before now, by whichever core. A request must see, and come behind, all that was
    /// answered before it was made.
    fn catch_up(&mut self) {
        self.drain_to_home();
        self.settle_mail();
    }

    /// Always: this mail causes none that must find room at once.
    fn drain_from_home(&mut self) {
        for from in 0..self.mailbox.cores() {
            for _ in 0..limits::MAIL_PER_TICK_MAX {
                let lane = lane_index(Lane::FromHome);
                let Some(mail) = self.mailbox.receive(from, lane) else { break };
                self.shard.on_mail(mail);
            }
        }
    }

    /// Only while there is room for the mail it may cause.
    fn drain_to_home(&mut self) {
        if self.mailbox.owes_too_much() {
            return;
        }
        let horizon = self.clock.stamp();
        self.mailbox.receive_ordered(lane_index(Lane::ToHome), horizon, &mut self.inbox);
        for mail in self.inbox.drain(..) {
            self.shard.on_mail(mail);
        }
    }

    fn begin_gather(&mut self, question: Question) -> u32 {
        self.catch_up();
        let cores = self.mailbox.cores();
        let own = self.shard.answer(&question);
        let missing = usize::from(cores) - 1;
        let id = self.next_gather;
        self.next_gather = self.next_gather.wrapping_add(1);
        self.gathers.insert(id, Gather { missing, answers: vec![own], waker: None });
        let question = Arc::new(question);
        let from = self.mailbox.core();
        for to in (0..cores).filter(|to| *to != from) {
            // Behind what the shard has to say: a question must not overtake the publish it asks about.
            let mail = Mail::Ask { id, from, question: question.clone() };
            self.shard.outbox.mails.push((to, mail));
        }
        id
    }

    fn tell_backends(&mut self) {
        let Some(feed) = &mut self.feed else { return };
        for event in self.shard.outbox.webhooks.drain(..) {
            feed.push(event);
        }
        feed.ring();
    }

    fn tell_answers(&mut self) {
        for Answered { id, answer } in self.shard.outbox.answered.drain(..) {
            // A late answer finds nobody.
            let Some(gather) = self.gathers.get_mut(&id) else { continue };
            gather.answers.push(answer);
            gather.missing = gather.missing.saturating_sub(1);
            if gather.missing == 0
                && let Some(waker) = gather.waker.take()
            {
                waker.wake();
            }
        }
    }
}

fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::ToHome => 0,
        Lane::FromHome => 1,
    }
}
