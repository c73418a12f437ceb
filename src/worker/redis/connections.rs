//! What the Redis connections of all workers share: the node's number, the options of Redis, and what was logged last.
//!
//! Owns these counts and flags. Does not connect (`redis.rs`). An outage is one log line for the process, not one for
//! each worker: a worker logs only if the state differs from `last_logged`. All fields that change are atomic, so that
//! no worker waits for another. Limit: one flag for each worker. Cost: an atomic operation a worker, when a connection
//! is made or lost and once a second.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use crate::config::Scaling;
use crate::shard::NodeId;

const LOGGED_NOTHING: u8 = 0;
const LOGGED_UP: u8 = 1;
const LOGGED_LOST: u8 = 2;

#[derive(Debug)]
pub(crate) struct RedisConnections {
    pub node: NodeId,
    pub scaling: Scaling,
    pub(super) is_up_by_worker: Box<[AtomicBool]>,
    /// One of `LOGGED_NOTHING`, `LOGGED_UP`, `LOGGED_LOST`.
    last_logged: AtomicU8,
    /// Workers for which `ClusterSession::is_congested` is true. While there is one, clients of all workers wait.
    pub(super) congested_workers: AtomicUsize,
    /// Workers that have called `end_redis`. The process ends after all have.
    pub ended_workers: AtomicUsize,
}

impl RedisConnections {
    #[must_use]
    pub(crate) fn new(node: NodeId, scaling: Scaling, workers: usize) -> Self {
        let is_up_by_worker = (0..workers).map(|_| AtomicBool::new(false)).collect();
        let (congested_workers, ended_workers) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self {
            node,
            scaling,
            is_up_by_worker,
            last_logged: AtomicU8::new(LOGGED_NOTHING),
            congested_workers,
            ended_workers,
        }
    }

    /// A worker's connection is up. Returns whether to log that: if now all are up, and this was not logged last.
    pub(super) fn note_up(&self, worker: usize) -> bool {
        self.is_up_by_worker[worker].store(true, Ordering::SeqCst);
        let all_are_up = self
            .is_up_by_worker
            .iter()
            .all(|is_up_by_worker| is_up_by_worker.load(Ordering::SeqCst));
        all_are_up && self.last_logged.swap(LOGGED_UP, Ordering::SeqCst) != LOGGED_UP
    }

    /// A worker has lost its connection. Returns whether to log that: if it is the first one since the last log line.
    pub(super) fn note_lost(&self, worker: usize) -> bool {
        self.is_up_by_worker[worker].store(false, Ordering::SeqCst);
        self.last_logged.swap(LOGGED_LOST, Ordering::SeqCst) != LOGGED_LOST
    }

    /// Whether this worker sends the node's heartbeat to all: the first whose connection is up does.
    pub(super) fn sends_heartbeat(&self, worker: usize) -> bool {
        self.is_up_by_worker
            .iter()
            .position(|is_up_by_worker| is_up_by_worker.load(Ordering::Relaxed))
            == Some(worker)
    }
}
