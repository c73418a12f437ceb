//! The threads of a server, and what they share.
//!
//! Owns the order of their start: the control thread before any worker, so that no signal is missed; then the
//! measurement of memory, because without it memory has no limit; then the webhooks and one pinned worker per core.
//! Returns once each worker can serve. No thread joins a worker: the process ends when the main thread does. Input: a
//! checked configuration and bound listeners. Output: the handles that the main thread needs. Does not bind a listener
//! or serve a connection.
//! Limits: a listener for each worker and port, `limits::WORKERS_MAX` workers. Cost: once at the start; one thread for
//! each worker, and a ring for each pair of workers.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Barrier, OnceLock};

use core_affinity::CoreId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::admission::overload::Overload;
use crate::app::Apps;
use crate::config::Config;
use crate::event_log::EventLog;
use crate::mailbox::{self, Doorbell};
use crate::metrics::CoreMetrics;
use crate::operator_requests::OperatorQueues;
use crate::phase::Phase;
use crate::running_configuration::{
    ConfigurationLink, CurrentConfiguration, RunningConfiguration, UnappliedConfigurations,
};
use crate::server::certificates::Certificates;
use crate::server::change::PendingReload;
use crate::server::control::{Control, Readable};
use crate::server::locked::LockedMemory;
use crate::server::probe::StartError;
use crate::server::takeover::Order;
use crate::server::takeover::replacement::{SIGNALS, ignored_signal_text};
use crate::server::watch::Watch;
use crate::shard::NodeId;
use crate::webhook;
use crate::worker::kernel::Choice;
use crate::worker::redis::RedisConnections;
use crate::worker::time::Clock;
use crate::worker::transfer::{Rendezvous, Transfer};
use crate::worker::{self, PortListener, Shared, WorkerResources};

/// Rows of metrics for apps that are added at run time. Further ones share a row until the next start.
const METRIC_ROWS_TO_COME: usize = 64;

/// The handles with which the main thread wakes, changes and ends what was started.
pub(super) struct Threads {
    pub(super) doorbells: Arc<[Doorbell]>,
    pub(super) webhooks: webhook::Webhooks,
    pub(super) control: Control,
}

/// Listeners, certificates and the first configuration: what is divided among the workers, or read by each.
type WorkerEnds<'a> = (Vec<TcpListener>, Option<&'a Certificates>, &'a Arc<ConfigurationLink>);

/// # Errors
/// When a thread, a ring or the measurement cannot be had: the process cannot serve then.
pub(super) fn start_threads(
    shared: &Arc<Shared>,
    ends: WorkerEnds<'_>,
    pins: &[CoreId],
    orders: Sender<Order>,
) -> Result<Threads, StartError> {
    let workers = shared.config.workers;
    let control = start_control(orders).map_err(StartError::Start)?;
    let watch = Watch::new(shared.clone()).map_err(StartError::Start)?;
    let (doorbells, webhooks) = start_workers(shared, ends, pins)?;
    shared.start_barrier.wait();
    if let Some(error) = shared.unstartable.get() {
        return Err(StartError::Worker(
            LockedMemory::for_workers(workers),
            error.kind(),
            error.to_string(),
        ));
    }
    let memory = LockedMemory::for_workers(workers);
    if let Some(warning) =
        memory.warning_of_smaller_rings(&shared.kernel_interface, shared.smaller_rings())
    {
        tracing::warn!(event = "rings_small", "{warning}");
    }
    watch.start(&control).map_err(StartError::Start)?;
    Ok(Threads { doorbells, webhooks, control })
}

pub(super) fn share(
    mut config: Config,
    io: Choice,
    clock: Clock,
    incoming: Option<Rendezvous>,
) -> Result<Shared, StartError> {
    let workers = config.workers;
    let apps = Arc::new(Apps::new(std::mem::take(&mut config.apps)));
    let random = || getrandom::u64().map_err(|_| StartError::Random);
    let channel_hash_seed = random()?;
    let node = NodeId(random()?);
    let redis = config.scaling.clone().map(|scaling| RedisConnections::new(node, scaling, workers));
    if redis.is_some() {
        // Other nodes know this one by its number only.
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        let process = std::process::id();
        tracing::info!(
            event = "node_started",
            "this is node {:016x} (host {host}, pid {process})",
            node.0
        );
    }
    let rows = apps.iter().len() + METRIC_ROWS_TO_COME;
    let running = RunningConfiguration::new(1, apps, &config);
    let zeros = || (0..workers).map(|_| AtomicU64::new(0)).collect();
    Ok(Shared {
        kernel_interface: io,
        smaller_rings: AtomicUsize::new(0),
        overload: Arc::new(Overload::new(&config, channel_hash_seed.rotate_left(32))),
        operator_queues: OperatorQueues::new(workers),
        event_log: Arc::new(EventLog::new(workers)),
        metrics: (0..workers).map(|_| Arc::new(CoreMetrics::new(rows))).collect(),
        config,
        current_configuration: CurrentConfiguration::new(Arc::new(running)),
        unapplied_configurations: Arc::new(UnappliedConfigurations::default()),
        unready: AtomicBool::new(false),
        phase: if incoming.is_some() { Phase::paused() } else { Phase::default() },
        transfer: Transfer::new(workers, incoming),
        redis,
        drained_workers: AtomicUsize::new(0),
        drained_ticks: zeros(),
        heartbeats: zeros(),
        unstartable: OnceLock::new(),
        start_barrier: Barrier::new(workers + 1),
        listeners_closed: AtomicUsize::new(0),
        clock,
        channel_hash_seed,
        sockets_reserved: descriptors_max(),
    })
}

/// Also starts the webhooks, before the workers are pinned. Without an endpoint their thread sleeps.
fn start_workers(
    shared: &Arc<Shared>,
    (listeners, certificates, configuration): WorkerEnds<'_>,
    pins: &[CoreId],
) -> Result<(Arc<[Doorbell]>, webhook::Webhooks), StartError> {
    let workers = shared.config.workers;
    let mailboxes =
        mailbox::mesh(u16::try_from(workers).unwrap_or(u16::MAX)).map_err(StartError::Start)?;
    let doorbells = mailboxes[0].doorbells();
    let settings = webhook::WebhookSettings::new(&shared.config, workers);
    let apps = configuration.configuration.apps.clone();
    let (webhooks, feeds) = webhook::start(apps, workers, settings, shared.event_log.clone())
        .map_err(StartError::Start)?;
    let mut feeds = feeds.into_iter();
    // After a take-over by fewer workers some have several.
    let mut by_worker: Vec<Vec<PortListener>> = (0..workers).map(|_| Vec::new()).collect();
    let (plain, secure) = split_by_tls(listeners, &shared.config).map_err(StartError::Start)?;
    for listeners in [plain, secure] {
        for (index, listener) in listeners.into_iter().enumerate() {
            by_worker[index % workers].push(listener);
        }
    }
    for (index, (mailbox, listeners)) in mailboxes.into_iter().zip(by_worker).enumerate() {
        let acceptor = certificates.map(Certificates::acceptor_link);
        let configuration = configuration.clone();
        let resources =
            WorkerResources { mailbox, listeners, feed: feeds.next(), acceptor, configuration };
        let pin_to = (!pins.is_empty()).then(|| pins[index % pins.len()]);
        start_worker(index, shared.clone(), resources, pin_to).map_err(StartError::Start)?;
    }
    Ok((doorbells, webhooks))
}

/// The first list serves HTTP, the second TLS. The port of a listener decides.
fn split_by_tls(
    listeners: Vec<TcpListener>,
    config: &Config,
) -> io::Result<(Vec<PortListener>, Vec<PortListener>)> {
    let (mut plain, mut secure) = (Vec::new(), Vec::new());
    for listener in listeners {
        let port = listener.local_addr()?.port();
        let is_secure =
            config.tls.as_ref().is_some_and(|tls| tls.port.is_none_or(|tls| tls == port));
        let listeners = if is_secure { &mut secure } else { &mut plain };
        listeners.push(PortListener { listener, is_secure });
    }
    Ok((plain, secure))
}

fn start_control(orders: Sender<Order>) -> io::Result<Control> {
    let (read, write) = UnixStream::pair()?;
    // They may be blocked until `serve` has taken over.
    let mut signals = SignalDelivery::with_pipe(read, write, SignalOnly, SIGNALS)?;
    let control = Control::start()?;
    let pending = PendingReload::default();
    control.run(move || {
        let readable = Readable::of(signals.get_read())?;
        Ok(async move {
            loop {
                readable.wait().await;
                let wanted = signals.pending().filter_map(|signal| order_of(signal, &pending));
                // There is no receiver once the main thread has come to its end.
                wanted.for_each(|what| drop(orders.send(what)));
            }
        })
    })?;
    Ok(control)
}

/// `None` for a signal that the server ignores, or for a SIGHUP while a reload waits already.
fn order_of(signal: i32, pending: &PendingReload) -> Option<Order> {
    match signal {
        SIGUSR2 => Some(Order::Replace),
        SIGHUP => pending.request(None).map(|request| Order::Change(Box::new(request))),
        SIGINT => Some(Order::End("SIGINT")),
        SIGTERM => Some(Order::End("SIGTERM")),
        signal => {
            tracing::info!(event = "signal_ignored", "{}", ignored_signal_text(signal));
            None
        }
    }
}

fn start_worker(
    index: usize,
    shared: Arc<Shared>,
    resources: WorkerResources,
    pin_to: Option<CoreId>,
) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(format!("worker-{index}"));
    let run = move || worker::run(shared, resources, pin_to);
    // No thread joins it: the process ends when the main thread does.
    thread.spawn(run).map(drop)
}

/// The limit of descriptors, at most 2^20: each worker reserves address space for as many sockets.
fn descriptors_max() -> usize {
    const RESERVED_MAX: u64 = 1 << 20;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(limit.unwrap_or(RESERVED_MAX).min(RESERVED_MAX)).unwrap_or(1 << 16)
}
