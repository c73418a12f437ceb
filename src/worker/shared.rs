//! The state that all workers share.
//!
//! What changes in it is atomic, or behind a lock that a worker only tries, so that no worker waits for another one.
//! The main thread makes it before it starts workers (`server/life/threads.rs`), and reads it to end the server. A
//! worker's own state is in `worker/mod.rs`. Limit: one entry for each worker in each list. Owns what outlives a
//! worker; does not start or stop one.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};

use super::kernel::Choice;
use super::redis::RedisConnections;
use super::time::Clock;
use super::transfer::Transfer;
use crate::admission::overload::Overload;
use crate::config::Config;
use crate::event_log::EventLog;
use crate::metrics::CoreMetrics;
use crate::operator_requests::OperatorQueues;
use crate::phase::Phase;
use crate::running_configuration::{CurrentConfiguration, UnappliedConfigurations};

/// The state that all workers share. What changes in it is atomic, or behind a lock that a worker only tries.
#[derive(Debug)]
pub(crate) struct Shared {
    pub config: Config,
    /// What may change. A worker has its own link to it.
    pub current_configuration: CurrentConfiguration,
    pub unapplied_configurations: UnappliedConfigurations,
    pub phase: Phase,
    /// `/up` answers 503, so that load balancers stop sending clients before the server drains
    /// (`Config::shutdown_delay_seconds`).
    pub unready: AtomicBool,
    /// Workers without connections, once draining.
    pub drained_workers: AtomicUsize,
    /// By worker: ticks since it has had no connections, once draining.
    pub drained_ticks: Box<[AtomicU64]>,
    /// By worker: a counter that grows at least once a second. A worker whose counter stands still has stalled.
    pub heartbeats: Box<[AtomicU64]>,
    /// A barrier for all workers and the main thread. Each worker then has its own descriptor table and its rings.
    /// Descriptors that are opened before it are copied into all tables.
    pub start_barrier: Barrier,
    /// Why a worker could not be set up. Final after `start_barrier`; then no worker runs.
    pub unstartable: OnceLock<io::Error>,
    /// Workers that accept no more, once draining.
    pub listeners_closed: AtomicUsize,
    /// The same on all workers.
    pub clock: Clock,
    pub channel_hash_seed: u64,
    /// Sockets one worker may have: room reserved in address space.
    pub sockets_reserved: usize,
    pub overload: Arc<Overload>,
    /// By worker. Each is written by its worker only.
    pub metrics: Box<[Arc<CoreMetrics>]>,
    /// By worker: where the admin listener asks it.
    pub operator_queues: OperatorQueues,
    /// The event log of the console.
    pub event_log: Arc<EventLog>,
    /// Which kernel interface all workers use.
    pub kernel_interface: Choice,
    /// Workers with a smaller ring than `kernel_interface` has. Final after `start_barrier`.
    pub smaller_rings: AtomicUsize,
    pub transfer: Transfer,
    /// The connections to the other nodes by Redis; `None`: this node is alone.
    pub redis: Option<RedisConnections>,
}

impl Shared {
    /// Workers with a smaller ring than was chosen. Call it after `start_barrier`.
    pub(crate) fn smaller_rings(&self) -> usize {
        self.smaller_rings.load(Ordering::Relaxed)
    }
}
