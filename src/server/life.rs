//! The life of the process: bind, start one worker per core, wait for an order, end.
//!
//! The main thread only waits; no data passes through it. The control thread (`control.rs`) reports signals and
//! processes that want to take over. The first SIGINT or SIGTERM closes every connection with a close frame, after the
//! shutdown delay if there is one, and the process exits with 0 within the grace period. A second signal skips the
//! delay, or ends the process at once. SIGUSR2 replaces the program of this process (`exchange.rs`). A panic aborts the
//! process, because one core cannot be lost alone; the supervisor restarts it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::Duration;

use core_affinity::CoreId;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use super::cli::TakeOver;
use super::control::{Control, Readable};
use super::delay::{Delay, open_connections};
use super::doctor::port::Holder;
use super::ending::Life;
use super::exchange::{self, Program, Replacement, Role, SIGNALS, ignored, reap};
use super::handover;
use super::listening::{bind, is_in_use, share_port, wait_for_holder};
use super::locked::LockedMemory;
use super::meeting::Places;
use super::probe::StartError;
use super::supervision::{self, Watchdog};
use super::takeover::{self, Offer, Offering, Predecessor, Running, Successor};
use super::watch::Watch;
use crate::admission::overload::Overload;
use crate::app::Apps;
use crate::config::Config;
use crate::mailbox::{self, Doorbell};
use crate::shard::NodeId;
use crate::text::Counted;
use crate::webhook;
use crate::worker::handover::{FORMAT, Handover, Meeting};
use crate::worker::kernel::Choice;
use crate::worker::line::Lines;
use crate::worker::time::Clock;
use crate::worker::{self, Ends, Phase, Shared, hold_signals};

/// What the world may be told once all listeners stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    pub(super) address: SocketAddr,
}

/// Why the main thread wakes.
#[derive(Debug)]
pub(super) enum Asked {
    /// SIGINT or SIGTERM, by name: drain.
    End(&'static str),
    /// SIGUSR2: start the program again, to take over.
    Replace,
    /// Another process, with this id, accepts on our listeners: drain, and leave them alone.
    TakenOver(i32),
    /// Another process wants the connections, too.
    Give(Successor),
}

/// How the server comes to its end.
pub(super) enum End {
    Drain,
    /// `Drain`, but the listeners are another process's.
    Retire(i32),
    /// Everything is another process's.
    Given(i32),
}

/// How the server came to its end.
#[derive(Debug)]
pub(super) enum Ended {
    Stopped,
    /// Its stand-in serves, and this process is to execute the new program.
    Replaced(Replacement),
}

/// Signals within this time are one: Ctrl+C reaches a whole process group, and its supervisor passes the signal on.
pub(super) const ONE_WISH: Duration = Duration::from_secs(1);
/// Workers a channel's home can keep apart (`shard::home::CoreSet`).
pub(super) const WORKERS_MAX: usize = 128;

/// Runs the server until a signal ends it, with its workers pinned to `pins` in turn, if there are any.
///
/// # Errors
/// When it cannot start, or did not drain within the grace period.
pub(super) fn serve(
    mut config: Config,
    io: Choice,
    take_over: Option<TakeOver>,
    role: Role,
    pins: &[CoreId],
    on_start: impl FnOnce(Started),
) -> Result<Ended, StartError> {
    prepare_memory();
    let mut program = Program::this(role);
    let workers = config.workers;
    let asked_address = SocketAddr::new(config.host, config.port);
    let places = Places::new();
    let (predecessor, listeners) =
        listeners(asked_address, workers, take_over.is_some(), &places, role)?;
    // Not before it has asked: the process that runs has to see in which namespaces this one is.
    forbid_dumps();
    // What other nodes say meanwhile would be lost between the two: in a cluster, clients come back by themselves.
    let moves = take_over != Some(TakeOver::Listeners) && config.scaling.is_none();
    let bringer = predecessor.as_ref().filter(|_| moves);
    let (clock, meeting) = meet(bringer, workers)?;
    let address = listeners[0].local_addr().map_err(StartError::Start)?;
    let to_offer: Vec<OwnedFd> = listeners
        .iter()
        .map(|listener| listener.try_clone().map(OwnedFd::from))
        .collect::<io::Result<_>>()
        .map_err(StartError::Start)?;
    let apps = Arc::new(Apps::new(std::mem::take(&mut config.apps)));
    let grace = Duration::from_secs(config.shutdown_grace_seconds.into());
    let shared = Arc::new(share(config, io, apps, workers, clock, meeting)?);
    // Registered before any worker runs, so that no signal is missed.
    let (asked, asks) = mpsc::channel();
    let control = start_control(asked.clone()).map_err(StartError::Start)?;
    // Measured before anybody can connect: without a measurement, memory has no limit.
    let watch = Watch::new(shared.clone()).map_err(StartError::Start)?;
    let (doorbells, webhooks) = start_workers(&shared, listeners, workers, pins)?;
    shared.started.wait();
    if let Some(error) = shared.unstartable.get() {
        return Err(StartError::Worker(LockedMemory::of(workers), error.kind(), error.to_string()));
    }
    watch.start(&control).map_err(StartError::Start)?;
    if let Some(predecessor) = &predecessor {
        succeed(predecessor, &shared, &doorbells)?;
    }
    if let Role::StandIn(_) = role {
        exchange::outlive_parent();
    }
    let clock_start_nanos = clock.start_nanos();
    let gives = shared.lines.is_none();
    let offer = Offer { address, listeners: to_offer, workers, clock_start_nanos, gives };
    let offering = offer_to_others(&control, offer, &shared.config, role, &places, asked);
    match role {
        // For systemd the main process stays the one that it started.
        Role::StandIn(_) => {}
        Role::TakesBack(_) | Role::Server => supervision::tell_ready(),
    }
    drop(predecessor);
    match role {
        Role::StandIn(parent) => {
            tracing::debug!("serving until process {parent} has replaced its program");
        }
        Role::TakesBack(stand_in) => {
            reap(stand_in, Arc::default());
            tell_complete(&shared);
        }
        Role::Server => {}
    }
    on_start(Started { address });
    let end = wait(&shared, &doorbells, &control, &asks, &mut program);
    let life = Life { shared, doorbells, webhooks, offering, grace };
    life.end(&end, asks, program)
}

/// SIGUSR2 is carried out. In a cluster connections do not move.
fn tell_complete(shared: &Shared) {
    match shared.handover.taking {
        Some(_) => {
            let kept = Counted(open_connections(shared), "connection");
            tracing::info!("SIGUSR2 complete: {kept} kept");
        }
        None => tracing::info!("SIGUSR2 complete: clients are told to connect again"),
    }
}

/// Lets others take over, unless the configuration does not. A stand-in is there to be taken over from.
fn offer_to_others(
    control: &Control,
    offer: Offer,
    config: &Config,
    role: Role,
    places: &Places,
    asked: Sender<Asked>,
) -> Option<Offering> {
    let is_offered = config.takeover || matches!(role, Role::StandIn(_));
    let offering = is_offered.then(|| takeover::offer(control, offer, places, asked))?;
    offering
        .inspect_err(|error| {
            tracing::warn!("no new process can take over from this server: {error}");
        })
        .ok()
}

fn prepare_memory() {
    // Slabs are reserved as address space and touched from the front: a huge page would make resident what no
    // connection uses yet, 2 MiB a table. 98 % of the time is the kernel's, so the TLB misses do not show.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!("huge pages stay on: {error}");
    }
}

fn forbid_dumps() {
    // A core dump would hold the apps' secrets, and limits on its size do not bind a handler that is piped to.
    let not_dumpable = rustix::process::DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(not_dumpable) {
        tracing::warn!("a crash may write a core dump that contains secrets: {error}");
    }
}

/// The listeners of the server that runs, if this one takes over, or new ones.
fn listeners(
    address: SocketAddr,
    workers: usize,
    takes_over: bool,
    places: &Places,
    role: Role,
) -> Result<(Option<takeover::Predecessor>, Vec<TcpListener>), StartError> {
    let found = if takes_over {
        takeover::ask(address, places).map_err(StartError::TakeOver)?
    } else if is_in_use(address) {
        match takeover::ask_orphan(address, places).map_err(StartError::TakeOver)? {
            Running::Unknown => None,
            Running::Orphan(predecessor, listeners) => Some((predecessor, listeners)),
            Running::Server(process) => {
                let holder = Holder::of(u32::try_from(process).unwrap_or_default());
                wait_for_holder(address, || Some(holder.sentence(address, true)))?;
                None
            }
        }
    } else {
        None
    };
    if let Some((predecessor, mut listeners)) = found {
        let more = workers.saturating_sub(listeners.len());
        let bound = share_port(address, more);
        listeners.extend(bound.map_err(|error| StartError::Bind(address, error))?);
        return Ok((Some(predecessor), listeners));
    }
    if let Role::StandIn(parent) = role {
        let text = format!("process {parent} does not serve {address}, or has ended");
        return Err(StartError::TakeOver(io::Error::new(io::ErrorKind::NotFound, text)));
    }
    if takes_over {
        tracing::info!("no running server at {address} to take over from: starting as usual");
    }
    Ok((None, bind(address, workers)?))
}

/// Where the workers are to meet those of the process that brings its connections, and its clock: all that is said of
/// time in what it brings is by that.
fn meet(
    bringer: Option<&Predecessor>,
    workers: usize,
) -> Result<(Clock, Option<Meeting>), StartError> {
    let Some(bringer) = bringer else { return Ok((Clock::start(), None)) };
    let clock = Clock::started_at(bringer.clock_start_nanos);
    match clock.filter(|_| bringer.format == u64::from(FORMAT)) {
        Some(clock) => {
            let nonce = getrandom::u64().map_err(|_| StartError::Random)?;
            let meeting = Meeting { nonce, givers: bringer.workers, takers: workers };
            Ok((clock, Some(meeting)))
        }
        None => {
            tracing::info!(
                "the running server has another version, or is in a cluster: its connections stay with it, and it closes them"
            );
            Ok((Clock::start(), None))
        }
    }
}

/// Takes the place of the server before this one.
fn succeed(
    predecessor: &Predecessor,
    shared: &Shared,
    doorbells: &[Doorbell],
) -> Result<(), StartError> {
    let retires = match shared.handover.taking {
        Some(meeting) => {
            handover::take(shared, doorbells, predecessor, meeting.nonce)
                .map_err(StartError::TakeOver)?;
            predecessor.wait_until_retiring()
        }
        None => predecessor.retire(),
    };
    if let Err(error) = retires {
        tracing::warn!("the old process did not confirm that it closes its connections: {error}");
    }
    Ok(())
}

fn share(
    config: Config,
    io: Choice,
    apps: Arc<Apps>,
    workers: usize,
    clock: Clock,
    taking: Option<Meeting>,
) -> Result<Shared, StartError> {
    let random = || getrandom::u64().map_err(|_| StartError::Random);
    let channel_hash_seed = random()?;
    let node = NodeId(random()?);
    let lines = config.scaling.clone().map(|scaling| Lines::new(node, scaling, workers));
    if lines.is_some() {
        // Other nodes know this one by its number only.
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        let process = std::process::id();
        tracing::info!("this is node {:016x} (host {host}, pid {process})", node.0);
    }
    let zeros = || (0..workers).map(|_| AtomicU64::new(0)).collect();
    Ok(Shared {
        io,
        overload: Arc::new(Overload::new(&config, channel_hash_seed.rotate_left(32))),
        config,
        apps,
        unready: AtomicBool::new(false),
        phase: if taking.is_some() { Phase::paused() } else { Phase::default() },
        handover: Handover::new(workers, taking),
        lines,
        drained: AtomicUsize::new(0),
        drained_ticks: zeros(),
        beats: zeros(),
        unstartable: OnceLock::new(),
        started: Barrier::new(workers + 1),
        listeners_closed: AtomicUsize::new(0),
        clock,
        channel_hash_seed,
        sockets_reserved: descriptors_max(),
    })
}

/// Starts the workers, and the webhooks if some app has any.
fn start_workers(
    shared: &Arc<Shared>,
    listeners: Vec<TcpListener>,
    workers: usize,
    pins: &[CoreId],
) -> Result<(Arc<[Doorbell]>, Option<webhook::Webhooks>), StartError> {
    let mailboxes =
        mailbox::mesh(u16::try_from(workers).unwrap_or(u16::MAX)).map_err(StartError::Start)?;
    let doorbells = mailboxes[0].doorbells();
    let settings = webhook::Settings::new(&shared.config, workers);
    let started = webhook::start(shared.apps.clone(), workers, settings);
    let (webhooks, feeds) = started.map_err(StartError::Start)?.unzip();
    let mut feeds = feeds.unwrap_or_default().into_iter();
    // After a take-over by fewer workers some have several.
    let mut by_worker: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for (index, listener) in listeners.into_iter().enumerate() {
        by_worker[index % workers].push(listener);
    }
    for (index, (mailbox, listeners)) in mailboxes.into_iter().zip(by_worker).enumerate() {
        let ends = Ends { mailbox, listeners, feed: feeds.next() };
        let pin_to = (!pins.is_empty()).then(|| pins[index % pins.len()]);
        start_worker(index, shared.clone(), ends, pin_to).map_err(StartError::Start)?;
    }
    Ok((doorbells, webhooks))
}

/// Starts the control thread, with the task that reports signals.
fn start_control(asked: Sender<Asked>) -> io::Result<Control> {
    let (read, write) = UnixStream::pair()?;
    let mut signals = SignalDelivery::with_pipe(read, write, SignalOnly, SIGNALS)?;
    // The program before this one in the same process may have held them back. Threads inherit that.
    hold_signals(&SIGNALS, false)?;
    let control = Control::start()?;
    control.run(move || {
        let readable = Readable::of(signals.get_read())?;
        Ok(async move {
            loop {
                readable.wait().await;
                // Nobody listens once the main thread has come to its end.
                signals.pending().filter_map(asked_by).for_each(|what| drop(asked.send(what)));
            }
        })
    })?;
    Ok(control)
}

/// What a signal asks of the server; `None` for one that it ignores.
fn asked_by(signal: i32) -> Option<Asked> {
    match signal {
        SIGUSR2 => Some(Asked::Replace),
        SIGINT => Some(Asked::End("SIGINT")),
        SIGTERM => Some(Asked::End("SIGTERM")),
        signal => {
            tracing::info!("{}", ignored(signal));
            None
        }
    }
}

/// Waits until the server is to end.
fn wait(
    shared: &Shared,
    doorbells: &[Doorbell],
    control: &Control,
    asks: &Receiver<Asked>,
    program: &mut Program,
) -> End {
    let mut watchdog = Watchdog::new(shared);
    let mut delay: Option<Delay> = None;
    loop {
        let left = delay.as_ref().map(|delay| delay.left(shared.clock.now()));
        let timeout = [watchdog.interval, left].into_iter().flatten().min();
        let asked = match timeout {
            None => asks.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(timeout) => asks.recv_timeout(timeout),
        };
        match asked {
            Ok(Asked::Replace) if delay.is_some() => {
                tracing::warn!("SIGUSR2 ignored: the server is about to end");
            }
            Ok(Asked::Replace) if !shared.config.takeover => {
                tracing::warn!("SIGUSR2 ignored: RINGVERB_TAKEOVER=false forbids take-overs");
            }
            Ok(Asked::Replace) => program.start_stand_in(control),
            Ok(Asked::TakenOver(taker)) => {
                program
                    .note_taker(taker, "Another process has taken over: closing connections here.");
                return End::Retire(taker);
            }
            Ok(Asked::Give(successor)) => {
                let taker = successor.process;
                if handover::give(shared, doorbells, successor) {
                    program
                        .note_taker(taker, "Another process has taken over, with all connections.");
                    return End::Given(taker);
                }
            }
            Ok(Asked::End(signal)) => match &delay {
                Some(delay) if delay.since(shared.clock.now()) < ONE_WISH => {}
                Some(_) => {
                    tracing::warn!("second signal: the delay is over");
                    return drains(shared, signal);
                }
                None => {
                    supervision::tell_stopping();
                    match Delay::begin(shared, signal) {
                        None => return drains(shared, signal),
                        begun => delay = begun,
                    }
                }
            },
            Err(RecvTimeoutError::Disconnected) => return End::Drain,
            Err(RecvTimeoutError::Timeout) => match &delay {
                Some(delay) if delay.left(shared.clock.now()).is_zero() => {
                    return drains(shared, delay.signal);
                }
                _ => watchdog.look(shared),
            },
        }
    }
}

fn drains(shared: &Shared, signal: &str) -> End {
    let seconds = shared.config.shutdown_grace_seconds;
    let open = open_connections(shared);
    tracing::info!(
        "{signal}: closing {open} connections within {seconds} s. Gracefully terminating connections."
    );
    End::Drain
}

fn start_worker(
    index: usize,
    shared: Arc<Shared>,
    ends: Ends,
    pin_to: Option<CoreId>,
) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(format!("worker-{index}"));
    let run = move || worker::run(shared, ends, pin_to);
    // Nobody waits for it: the process ends when the main thread does.
    thread.spawn(run).map(drop)
}

pub(super) fn wake_all(doorbells: &[Doorbell]) {
    doorbells.iter().for_each(Doorbell::ring);
}

#[expect(clippy::disallowed_methods, reason = "the main thread has nothing else to do")]
pub(super) fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// Descriptors the process may have, capped: room for them is reserved in address space.
fn descriptors_max() -> usize {
    const RESERVED_MAX: u64 = 1 << 20;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(limit.unwrap_or(RESERVED_MAX).min(RESERVED_MAX)).unwrap_or(1 << 16)
}
