//! The state that all workers of a process share.
//!
//! Owns what outlives a worker; does not start or stop one. What changes in it is atomic, or behind a lock that a
//! worker only tries, so that no worker waits for another one after the start. The main thread makes it before it
//! starts workers (`server/life/threads.rs`), and reads it to end the server. A worker's own state is in
//! `worker/mod.rs`. Limit: one entry for each worker in each list. Cost: made once at the start; reading a field is at
//! most one atomic load.

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

#[derive(Debug)]
pub(crate) struct Shared {
    pub config: Config,
    /// The part of the configuration that a reload may change. A worker follows it by its own `ConfigurationLink`.
    pub current_configuration: CurrentConfiguration,
    pub unapplied_configurations: Arc<UnappliedConfigurations>,
    pub phase: Phase,
    /// `/up` answers 503, so that load balancers stop sending clients before the server drains
    /// (`Config::shutdown_delay_seconds`).
    pub unready: AtomicBool,
    /// Workers whose drain is over. The server ends when all are.
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
    /// Workers that have stopped to accept. None closes a connection before all have: the client would reconnect to one
    /// that is about to end.
    pub listeners_closed: AtomicUsize,
    /// One for all workers, so that stamps of mail can be compared.
    pub clock: Clock,
    pub channel_hash_seed: u64,
    /// Sockets one worker may have: room reserved in address space.
    pub sockets_reserved: usize,
    pub overload: Arc<Overload>,
    /// By worker, which alone writes it.
    pub metrics: Box<[Arc<CoreMetrics>]>,
    /// By worker: requests of the admin listener.
    pub operator_queues: OperatorQueues,
    pub event_log: Arc<EventLog>,
    pub kernel_interface: Choice,
    /// Workers with a smaller ring than `kernel_interface` has. Final after `start_barrier`.
    pub smaller_rings: AtomicUsize,
    pub transfer: Transfer,
    /// `None`: `REVERB_SCALING_ENABLED` is off, and this node is alone.
    pub redis: Option<RedisConnections>,
}

impl Shared {
    /// Workers with a smaller ring than was chosen. Call it after `start_barrier`.
    pub(crate) fn smaller_rings(&self) -> usize {
        self.smaller_rings.load(Ordering::Relaxed)
    }
}
