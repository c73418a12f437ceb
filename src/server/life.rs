//! The life of the process: bind, start one worker per core, wait for a signal, drain, end.
//!
//! The control thread only waits; no data passes through it. A first SIGINT or SIGTERM closes every connection
//! with a close frame and ends with 0 within the grace period; a second one ends at once. A panic anywhere
//! aborts the process: the mesh cannot lose one core, and the supervisor starts it anew.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{Domain, Protocol, Socket, Type};

use super::probe::StartError;
use super::watch;
use crate::app::Apps;
use crate::config::Config;
use crate::mailbox::{self, Doorbell};
use crate::webhook;
use crate::worker::overload::Overload;
use crate::worker::time::Clock;
use crate::worker::{self, Ends, Phase, Shared};

/// What the world may be told once all listeners stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    pub(super) address: SocketAddr,
    pub(super) workers: usize,
}

/// Length of the kernel's accept queue for each worker; net.core.somaxconn caps it.
const BACKLOG: i32 = 4096;
/// What webhooks get at the end, even if the connections have used all of the grace period.
const WEBHOOKS_TIME_MIN: Duration = Duration::from_secs(1);
/// Workers a channel's home can keep apart (`shard::home::CoreSet`).
const WORKERS_MAX: usize = 128;

/// Runs the server until a signal ends it.
///
/// # Errors
/// When it cannot start, or did not drain within the grace period.
pub(super) fn serve(mut config: Config, on_start: impl FnOnce(Started)) -> Result<(), StartError> {
    // Slabs are reserved as address space and touched from the front: a huge page would make resident what no
    // connection uses yet, 2 MiB a table. 98 % of the time is the kernel's, so the TLB misses do not show.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!("huge pages stay on: {error}");
    }
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let workers = match config.workers {
        0 => cores.len().clamp(1, WORKERS_MAX),
        asked => asked.min(WORKERS_MAX),
    };
    let listeners = bind(SocketAddr::new(config.host, config.port), workers)?;
    let address = listeners[0].local_addr().map_err(StartError::Start)?;
    let apps = Arc::new(Apps::new(std::mem::take(&mut config.apps)));
    let grace = Duration::from_secs(config.shutdown_grace_seconds.into());
    let channel_hash_seed = getrandom::u64().map_err(|_| StartError::Random)?;
    let shared = Arc::new(Shared {
        overload: Overload::new(&config, channel_hash_seed.rotate_left(32)),
        config,
        apps,
        phase: Phase::default(),
        drained: AtomicUsize::new(0),
        drained_ticks: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        listeners_closed: AtomicUsize::new(0),
        clock: Clock::start(),
        channel_hash_seed,
        sockets_reserved: descriptors_max(),
    });
    // Registered before any worker runs, so that no signal is missed.
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(StartError::Start)?;
    let mailboxes =
        mailbox::mesh(u16::try_from(workers).unwrap_or(u16::MAX)).map_err(StartError::Start)?;
    let doorbells = mailboxes[0].doorbells();
    let settings = webhook::Settings::new(&shared.config, workers);
    let started = webhook::start(shared.apps.clone(), workers, settings);
    let (webhooks, feeds) = started.map_err(StartError::Start)?.unzip();
    let mut feeds = feeds.unwrap_or_default().into_iter();
    let ends = mailboxes.into_iter().zip(listeners);
    for (index, (mailbox, listener)) in ends.enumerate() {
        let ends = Ends { mailbox, listener, feed: feeds.next() };
        let pin_to = (!cores.is_empty()).then(|| cores[index % cores.len()]);
        start_worker(index, shared.clone(), ends, pin_to).map_err(StartError::Start)?;
    }
    watch::start(shared.clone()).map_err(StartError::Start)?;
    on_start(Started { address, workers });
    let _ = signals.forever().next();
    tracing::info!("Gracefully terminating connections.");
    let asked = shared.clock.now();
    let drained = drain(&shared, &doorbells, &mut signals, workers, grace);
    if let Some(webhooks) = webhooks {
        wait_for_mail(&shared, &doorbells);
        let used = Duration::from_millis(shared.clock.now().0 - asked.0);
        webhooks.finish(grace.saturating_sub(used).max(WEBHOOKS_TIME_MIN));
    }
    shared.phase.stop();
    wake_all(&doorbells);
    watch::tell_all(&shared.overload.refusals);
    if !drained {
        return Err(StartError::Grace);
    }
    Ok(())
}

fn start_worker(
    index: usize,
    shared: Arc<Shared>,
    ends: Ends,
    pin_to: Option<core_affinity::CoreId>,
) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(format!("worker-{index}"));
    let run = move || {
        if let Err(error) = worker::run(shared, ends, pin_to) {
            // Without this worker its listener would swallow connections: better no server than half of one.
            tracing::error!("worker {index} cannot run: {error}");
            std::process::exit(1);
        }
    };
    // Nobody waits for it: the process ends when the control thread does.
    thread.spawn(run).map(drop)
}

/// Waits until every worker is without connections, or the grace period is over.
fn drain(
    shared: &Shared,
    doorbells: &[Doorbell],
    signals: &mut Signals,
    workers: usize,
    grace: Duration,
) -> bool {
    const STEP: Duration = Duration::from_millis(10);
    shared.phase.drain();
    let mut waited = Duration::ZERO;
    while waited < grace {
        if shared.drained.load(Ordering::Acquire) == workers {
            return true;
        }
        if signals.pending().next().is_some() {
            tracing::warn!("second signal: ending at once");
            std::process::exit(1);
        }
        wake_all(doorbells);
        sleep(STEP);
        waited += STEP;
    }
    shared.drained.load(Ordering::Acquire) == workers
}

/// Waits until the workers have told each other what their last connections left behind: a leave goes to a home, and
/// what an unanswered join owes takes two mails more. Gives up after a second.
fn wait_for_mail(shared: &Shared, doorbells: &[Doorbell]) {
    const TICKS: u64 = 4;
    let ticks = || shared.drained_ticks.iter().map(|ticks| ticks.load(Ordering::Acquire));
    let before: Vec<u64> = ticks().collect();
    for _ in 0..1_000 {
        if ticks().zip(&before).all(|(now, before)| now >= before + TICKS) {
            return;
        }
        wake_all(doorbells);
        sleep(Duration::from_millis(1));
    }
}

fn wake_all(doorbells: &[Doorbell]) {
    doorbells.iter().for_each(Doorbell::ring);
}

#[expect(clippy::disallowed_methods, reason = "the control thread has nothing else to do")]
pub(super) fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// One listener per worker on one port; the kernel spreads connections over them.
fn bind(address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, StartError> {
    let failed = |error| StartError::Bind(address, error);
    // With SO_REUSEPORT a second server would share the port in silence. A bind without it finds the first one.
    let probe = socket(address).map_err(failed)?;
    probe.bind(&address.into()).map_err(failed)?;
    let address_bound = probe.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
    drop(probe);
    (0..workers)
        .map(|_| {
            let socket = socket(address)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address_bound.into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        })
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a server that just ended may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Descriptors the process may have, capped: room for them is reserved in address space.
fn descriptors_max() -> usize {
    const RESERVED_MAX: u64 = 1 << 20;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(limit.unwrap_or(RESERVED_MAX).min(RESERVED_MAX)).unwrap_or(1 << 16)
}
