//! What the Redis connections of all workers share: the node's number, the options of Redis, and what was logged last.
//!
//! An outage is one log line for the process, not one for each worker: a worker logs only if the state differs from
//! `last_logged`. All fields are atomic, so that no worker waits for another. Limit: one flag for each worker. Does not
//! connect (`redis.rs`).

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use crate::config::Scaling;
use crate::shard::NodeId;

const LOGGED_NOTHING: u8 = 0;
const LOGGED_UP: u8 = 1;
const LOGGED_LOST: u8 = 2;

/// What the workers of a node share.
#[derive(Debug)]
pub(crate) struct RedisConnections {
    pub node: NodeId,
    pub scaling: Scaling,
    pub(super) is_up_by_worker: Box<[AtomicBool]>,
    /// What was logged last about the connections, so that it is logged once and not once a worker.
    last_logged: AtomicU8,
    /// Workers whose connection has more to send than Redis takes.
    pub(super) congested_workers: AtomicUsize,
    /// Workers whose connection has ended for good.
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

    /// A worker's connection is up. Returns whether that is to be logged: it is the last of all.
    pub(super) fn begins_up(&self, worker: usize) -> bool {
        self.is_up_by_worker[worker].store(true, Ordering::SeqCst);
        let all_are_up = self
            .is_up_by_worker
            .iter()
            .all(|is_up_by_worker| is_up_by_worker.load(Ordering::SeqCst));
        all_are_up && self.last_logged.swap(LOGGED_UP, Ordering::SeqCst) != LOGGED_UP
    }

    /// A worker has lost its connection. Returns whether that is to be logged: it is the first.
    pub(super) fn begins_lost(&self, worker: usize) -> bool {
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
