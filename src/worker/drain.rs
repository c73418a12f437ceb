//! How a worker ends its connections: it closes them, spread over a time, waits for the answers, and drops the
//! remaining sockets.
//!
//! Owns when it closes how many, and when its drain is over. Does not decide that the server ends: `phase` does. If a
//! new process accepts on the port, or the shutdown has a delay, clients reconnect at once, so the closes are spread
//! over half of the grace period. Otherwise every client reconnects after 1 s, and is offline for 15 s if no process
//! listens then. So the worker closes all of them within `RESTART_CLOSES_MS`, and does not wait for those that do not
//! answer. Limits: `Config::shutdown_grace_seconds` for the whole drain. Cost: a tick every `DRAIN_TICK_MS`; a round is
//! linear in its closes, at least `CLOSES_PER_TICK_MIN`.

use std::sync::atomic::Ordering;

use super::{HostKernel, Worker};
use crate::clock::Moment;
use crate::pusher::error_code::{self, ErrorCode};

/// Time between two rounds of closes, and between two ticks of a draining worker.
pub(super) const DRAIN_TICK_MS: u64 = 50;
/// Fewest closes of one round, so that a few hundred connections do not take the whole time.
const CLOSES_PER_TICK_MIN: usize = 250;
/// Time in which all connections are closed if the next process starts only after this one has ended. Together with
/// `ANSWER_MS` and the start it must stay below the second after which clients reconnect.
const RESTART_CLOSES_MS: u64 = 200;
/// Time for the answers to the last close frames if the next process waits for the end of this one.
const ANSWER_MS: u64 = 300;
/// Shortest time in which a server that is replaced continues to complete handshakes.
const RETIRING_MS_MIN: u64 = 500;

#[derive(Default)]
pub(super) struct Drain {
    pub(super) has_begun: bool,
    /// No connection is left. It stays true: the worker is counted as drained once.
    pub(super) is_done: bool,
    closes_per_tick: usize,
    /// When the next round is due. Reports cause ticks between two rounds.
    next_close: Moment,
    /// Even without connections the drain does not end before: see `RETIRING_MS_MIN`.
    ends_not_before: Moment,
    /// When connections that have not answered are cut off. Set when the last close frame was sent.
    cut_off_at: Option<Moment>,
}

impl<K: HostKernel> Worker<K> {
    pub(super) fn drain(&mut self) {
        if !std::mem::replace(&mut self.drain.has_begun, true) {
            self.begin_drain();
        }
        // A client that reconnects must not reach a worker that still accepts and is about to end.
        let all_closed = self.shared.listeners_closed.load(Ordering::Acquire);
        if self.drain.is_done || all_closed < usize::from(self.core.mailbox.cores()) {
            return;
        }
        self.close_and_cut_off();
        let is_over = self.core.shard.now() >= self.drain.ends_not_before;
        if self.core.shard.connection_count() == 0 && is_over {
            self.drain.is_done = true;
            self.shared.drained_workers.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn begin_drain(&mut self) {
        self.core.http.draining = true;
        let ticks = usize::try_from(self.close_duration_ms() / DRAIN_TICK_MS).unwrap_or(usize::MAX);
        let each = self.core.shard.connection_count().div_ceil(ticks.max(1));
        self.drain.closes_per_tick = each.max(CLOSES_PER_TICK_MIN);
        let listeners = self.core.reactor.stop_listening();
        if self.shared.phase.is_retiring() {
            // A client that was just accepted may not have finished its handshake.
            self.drain.ends_not_before = Moment(self.core.shard.now().0 + RETIRING_MS_MIN);
        } else {
            // No client connects to a server that is about to end.
            for listener in &listeners {
                // An error means that it is shut down already, which is what is wanted.
                rustix::net::shutdown(listener, rustix::net::Shutdown::Both).ok();
            }
        }
        self.shared.listeners_closed.fetch_add(1, Ordering::AcqRel);
    }

    /// Clients that all reconnect to another server at once overload it. With a delay a load balancer sends them to
    /// other servers, too.
    fn close_duration_ms(&self) -> u64 {
        let config = &self.shared.config;
        if self.shared.phase.is_retiring() || config.shutdown_delay_seconds > 0 {
            u64::from(config.shutdown_grace_seconds) * 1_000 / 2
        } else {
            RESTART_CLOSES_MS
        }
    }

    /// One round of closes, and the end of connections that have not answered in time.
    fn close_and_cut_off(&mut self) {
        let code = self.close_code();
        let Self { core, drain, .. } = self;
        let now = core.shard.now();
        if now >= drain.next_close {
            drain.next_close = Moment(now.0 + DRAIN_TICK_MS);
            let are_left = core.shard.close_some(drain.closes_per_tick, code);
            // Close frames of this call leave at the end of this tick; the next round sees those that do not.
            if are_left || core.has_unflushed() || self.shared.phase.is_retiring() {
                drain.cut_off_at = None;
            } else {
                drain.cut_off_at.get_or_insert(Moment(now.0 + ANSWER_MS));
            }
        }
        if drain.cut_off_at.is_some_and(|at| at <= now) {
            core.reactor.cut_off_all(&mut core.shard);
        }
    }

    fn close_code(&self) -> ErrorCode {
        if self.shared.phase.is_retiring() {
            error_code::REPLACED
        } else {
            error_code::SHUTTING_DOWN
        }
    }
}
