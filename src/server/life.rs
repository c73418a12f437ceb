//! The life of the process: bind, start one worker per core, wait for an order, end.
//!
//! The main thread owns all parts of the server and only waits; no data passes through it. The three parts of a life
//! have a file each: this one starts, `orders.rs` waits for what is to end it, `ending.rs` ends it. The first SIGINT or
//! SIGTERM closes every connection with a close frame, after the shutdown delay if there is one. A second signal skips
//! the delay, or ends the process at once. SIGUSR2 replaces the program (`takeover/replacement.rs`). A panic aborts the
//! process, because one core cannot be lost alone; the supervisor restarts it. Does not read a configuration again
//! (`change/mod.rs`) and does not serve a client.
//! Limit: one listener for each worker and port. Cost: once at the start, a few system calls for each worker.

mod threads;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use core_affinity::CoreId;

use super::admin::{self, Claimed, ScrapeSources};
use super::certificates::Certificates;
use super::change::{Changer, Origin, first_link};
use super::cli::TakeOver;
use super::control::Control;
use super::delay::open_connections;
use super::ending::{Life, ServerEnd};
use super::orders::OrderLoop;
use super::probe::StartError;
use super::succession;
use super::supervision;
use super::takeover::rendezvous::Places;
use super::takeover::replacement::{self, Program, Role, SIGNALS, StandIn};
use super::takeover::{self, Offer, Offering, OldProcess, Order, OrderQueue};
use crate::config::{Config, TlsOptions};
use crate::mailbox::Doorbell;
use crate::text::Counted;
use crate::worker::kernel::Choice;
use crate::worker::time::{Clock, unix_seconds};
use crate::worker::transfer::Rendezvous;
use crate::worker::{Shared, unblock_signals};
use threads::{Threads, share, start_threads};

/// The start message has these, once all listeners exist.
#[derive(Clone, Debug)]
pub(super) struct Started {
    pub(super) address: SocketAddr,
    /// The admin listener: where it is, or why there is none. Empty if none is wanted.
    pub(super) admin: String,
    /// Workers that found no room for a ring of the size that was chosen.
    pub(super) smaller_rings: usize,
}

/// Listeners and agreements, found before any thread is started, so that a refusal ends the process at once.
struct StartInputs {
    /// `None`: an ordinary start.
    old_process: Option<OldProcess>,
    listeners: Vec<TcpListener>,
    /// The address of the listeners, with the port that the kernel chose if none was asked for.
    address: SocketAddr,
    places: Places,
    clock: Clock,
    /// Where the workers receive connections of the old process, if they are to move.
    rendezvous: Option<Rendezvous>,
    admin: Claimed,
}

/// Runs the server until a signal ends it, with its workers pinned to `pins` in turn, if there are any.
///
/// # Errors
/// When it cannot start, or did not drain within the grace period.
pub(super) fn serve(
    (mut config, mut origin): (Config, Origin),
    certificates: Option<Certificates>,
    io: Choice,
    take_over: Option<TakeOver>,
    role: Role,
    pins: &[CoreId],
    on_start: impl FnOnce(Started),
) -> Result<ServerEnd, StartError> {
    let started_unix_seconds = unix_seconds();
    prepare_memory();
    let mut program = Program::of_this_process(role);
    let found = find_listeners(&config, take_over, role)?;
    let StartInputs { old_process, listeners, address, places, clock, rendezvous, admin } = found;
    if old_process.is_some() {
        origin.read_apps_again(&mut config);
    }
    // After the old process has checked in which namespaces this one is, which a process that is not dumpable hides.
    forbid_dumps();
    let copies = listeners.iter().map(|listener| listener.try_clone().map(OwnedFd::from));
    let copies = copies.collect::<io::Result<Vec<OwnedFd>>>().map_err(StartError::Start)?;
    let workers = config.workers;
    let shutdown_grace = Duration::from_secs(config.shutdown_grace_seconds.into());
    let shared = Arc::new(share(config, io, clock, rendezvous)?);
    let (order_sender, orders) = mpsc::channel();
    let first = first_link(&shared);
    let ends = (listeners, certificates.as_ref(), &first);
    let Threads { doorbells, webhooks, control } =
        start_threads(&shared, ends, pins, order_sender.clone())?;
    let takeover = take_over_from(old_process.as_ref(), &shared, &doorbells)?;
    // The program before this one in the same process may have held them back. If the take-over fails, they still wait,
    // and `replacement::mind_after_failure` forwards them to the process that serves.
    unblock_signals(&SIGNALS).map_err(StartError::Start)?;
    let certificates_valid_until = certificates.as_ref().map(Certificates::valid_until);
    let certificate_changes =
        watch_certificates(certificates, &shared, &control).map_err(StartError::Start)?;
    let mut changer = Changer::new(
        origin,
        shared.clone(),
        doorbells.clone(),
        webhooks.changes(),
        certificate_changes,
        first,
    );
    if old_process.is_some() {
        changer.reload_if_changed();
    }
    if let Role::StandIn(_) = role {
        replacement::outlive_parent();
    }
    let offer = Offer {
        address,
        listeners: copies,
        workers,
        clock_start_nanos: clock.start_nanos(),
        can_transfer: shared.redis.is_none(),
        admin: admin.copy().map_err(StartError::Start)?,
    };
    let take_over_offer =
        offer_to_others(&control, offer, &shared.config, role, &places, order_sender.clone());
    let described = admin.describe(&shared.config.admin);
    let sources = ScrapeSources {
        shared: shared.clone(),
        doorbells: doorbells.clone(),
        webhooks: webhooks.counters(),
        takeover,
        certificates_valid_until,
        started_unix_seconds,
    };
    let admin = admin.serve(sources, order_sender).map_err(StartError::Start)?;
    report_started(role, &shared, old_process);
    let smaller_rings = shared.smaller_rings();
    on_start(Started { address, admin: described, smaller_rings });
    let (all, bells) = (shared.clone(), doorbells.clone());
    let queue = OrderQueue::new(&orders);
    let end = OrderLoop::new(all, bells, &mut changer, &control, queue, &mut program).run();
    let life = Life { shared, doorbells, webhooks, take_over_offer, admin, shutdown_grace };
    life.end(&end, orders, program)
}

/// Takes over from the old process, if there is one. Returns how long that took.
fn take_over_from(
    old_process: Option<&OldProcess>,
    shared: &Shared,
    doorbells: &Arc<[Doorbell]>,
) -> Result<Option<Duration>, StartError> {
    let Some(old_process) = old_process else { return Ok(None) };
    let began = shared.clock.now();
    succession::take_over(old_process, shared, doorbells)?;
    Ok(Some(Duration::from_millis(shared.clock.now().0.saturating_sub(began.0))))
}

/// Looks at the files from now on. Returns the channel on which a reload names others; `None` without TLS.
fn watch_certificates(
    certificates: Option<Certificates>,
    shared: &Shared,
    control: &Control,
) -> io::Result<Option<Sender<TlsOptions>>> {
    let Some(mut certificates) = certificates else { return Ok(None) };
    let (changes, changed) = mpsc::channel();
    certificates.adopt_ticket_keys(shared.transfer.ticket_keys());
    certificates.watch(control, changed)?;
    Ok(Some(changes))
}

/// Agrees with the old process, if there is one, how its connections move.
fn find_listeners(
    config: &Config,
    take_over: Option<TakeOver>,
    role: Role,
) -> Result<StartInputs, StartError> {
    let wanted = SocketAddr::new(config.host, config.port);
    let tls_port = config.tls.as_ref().and_then(|tls| tls.port);
    let tls_address = tls_port.map(|port| SocketAddr::new(config.host, port));
    let workers = config.workers;
    let places = Places::new();
    let (mut old_process, listeners) = succession::obtain_listeners(
        wanted,
        tls_address,
        workers,
        take_over.is_some(),
        &places,
        (role, !config.development),
    )?;
    let inherited = old_process.as_mut().and_then(|old_process| old_process.admin.take());
    let admin = admin::bind_or_inherit(&config.admin, inherited)?;
    // In a cluster, events of other nodes would be lost during the transfer: there clients reconnect.
    let moves = take_over != Some(TakeOver::Listeners) && config.scaling.is_none();
    let (clock, rendezvous) =
        succession::agree_on_transfer(old_process.as_ref().filter(|_| moves), workers)?;
    let address = listeners[0].local_addr().map_err(StartError::Start)?;
    Ok(StartInputs { old_process, listeners, address, places, clock, rendezvous, admin })
}

/// The supervisor is notified first, because the old process may exit once its stream is closed.
fn report_started(role: Role, shared: &Shared, old_process: Option<OldProcess>) {
    match role {
        // For systemd the main process stays the one that it started.
        Role::StandIn(_) => {}
        Role::TakesBack(_) | Role::Server => supervision::notify_ready(),
    }
    // It may exit now: the supervisor knows this process.
    drop(old_process);
    match role {
        Role::StandIn(parent) => {
            tracing::debug!(
                event = "replacement_serving",
                "serving until process {parent} has replaced its program"
            );
        }
        Role::TakesBack(stand_in) => {
            StandIn::reap_after_service(stand_in);
            log_complete(shared);
        }
        Role::Server => {}
    }
}

/// In a cluster connections do not move, so there is nothing to count.
fn log_complete(shared: &Shared) {
    match shared.transfer.incoming {
        Some(_) => {
            let kept = Counted(open_connections(shared), "connection");
            tracing::info!(event = "replacement_complete", "SIGUSR2 complete: {kept} kept");
        }
        None => tracing::info!(
            event = "replacement_complete",
            "SIGUSR2 complete: clients are asked to connect again"
        ),
    }
}

/// Lets others take over, unless the configuration does not. A stand-in is there to be taken over from.
fn offer_to_others(
    control: &Control,
    offer: Offer,
    config: &Config,
    role: Role,
    places: &Places,
    orders: Sender<Order>,
) -> Option<Offering> {
    let is_offered = config.takeover || matches!(role, Role::StandIn(_));
    let offering = is_offered.then(|| takeover::offer(control, offer, places, orders))?;
    offering
        .inspect_err(|error| {
            tracing::warn!(
                event = "takeover_unavailable",
                "no new process can take over from this server: {error}"
            );
        })
        .ok()
}

fn prepare_memory() {
    // Slabs are reserved as address space and touched from the front: a huge page would make resident what no
    // connection uses yet, 2 MiB a table. 98 % of the time is the kernel's, so the TLB misses do not show.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(event = "system_setting_refused", "huge pages stay on: {error}");
    }
}

fn forbid_dumps() {
    // A core dump would hold the apps' secrets, and limits on its size do not bind a handler that is piped to.
    let not_dumpable = rustix::process::DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(not_dumpable) {
        tracing::warn!(
            event = "system_setting_refused",
            "a crash may write a core dump that contains secrets: {error}"
        );
    }
}
