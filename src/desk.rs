//! Where the admin thread leaves questions of an operator for one worker, and a few actions (`worker/inspect.rs`).
//!
//! A desk is a flag that a tick reads, and a short queue behind a lock that the worker only tries. The asker keeps a
//! ticket, and finds the answer there later. An asker that gives up drops its ticket, and the worker drops the task.
//! Does not carry out a task. Limit: `TASKS_MAX` tasks for each worker; one more is refused and counted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use crate::app::AppIndex;
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::live::LiveEvent;
use crate::metrics::Tally;
use crate::pusher::socket_id::SocketId;
use crate::shard::{
    AccessEnd, Answer, Findings, Inspection, NodeConnectionInside, OperatorQuestion, Question,
};

/// Tasks that wait for one worker.
pub(crate) const TASKS_MAX: usize = 16;

/// What is wanted of a worker.
#[derive(Debug)]
pub(crate) enum DeskRequest {
    /// Something of its own core.
    Own(OwnRequest),
    /// A question of the HTTP API, to all cores and all nodes.
    Ask(Question),
    /// A question or an order to all other nodes.
    AskNodes(OperatorQuestion),
}

/// What is wanted of a worker's own core.
#[derive(Debug)]
pub(crate) enum OwnRequest {
    Look(Inspection),
    /// The body is that of `POST /apps/{id}/events`.
    Publish {
        app: AppIndex,
        request: Box<Request>,
    },
    /// End a connection, or its subscription to a channel.
    EndAccess {
        socket_id: SocketId,
        channel: Option<Box<str>>,
    },
    /// The last refusals of a connection, or of all peers.
    Refusals {
        socket_id: Option<SocketId>,
    },
}

/// What a worker has answered.
#[derive(Debug)]
pub(crate) enum DeskReply {
    Found(Box<InspectionReply>),
    Published(Response),
    Ended(AccessEnd),
    /// Of all cores, and of the nodes that answered in time.
    Answers(Vec<Answer>),
    /// The worker is gathering the answers to as many questions as it may.
    Busy,
    Refused(Vec<LiveEvent>),
}

/// The answer to a question.
#[derive(Debug)]
pub(crate) struct InspectionReply {
    pub findings: Findings,
    /// For the inside of a connection.
    pub socket: Option<SocketFacts>,
}

/// What the kernel knows of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketFacts {
    /// A proxy's address, if there is one.
    pub peer: Option<SocketAddr>,
    pub round_trip: Option<RoundTrip>,
    pub is_tls: bool,
}

impl SocketFacts {
    /// Adds them to the inside of the connection.
    pub(crate) fn add_to(self, inside: &mut NodeConnectionInside) {
        inside.address = self.peer.map(|peer| peer.to_string().into());
        inside.round_trip =
            self.round_trip.map(|found| (found.microseconds, found.retransmissions));
        inside.is_tls = self.is_tls;
    }
}

/// The kernel's estimate of the round trip of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrip {
    pub microseconds: u32,
    /// Segments that were sent again since the connection was established.
    pub retransmissions: u32,
}

#[expect(
    clippy::disallowed_types,
    reason = "locked for a push, a pop or a store, and by a worker only if an operator asks"
)]
type Locked<T> = std::sync::Mutex<T>;

/// Where an answer is left.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReplyPlace(Arc<Locked<Option<DeskReply>>>);

impl ReplyPlace {
    /// Leaves the answer. If the asker has given up, it is dropped.
    pub(crate) fn leave(&self, reply: DeskReply) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
    }

    /// The asker has given up.
    #[must_use]
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) < 2
    }
}

/// The asker's end of a task.
#[derive(Debug)]
pub(crate) struct DeskTicket(ReplyPlace);

impl DeskTicket {
    /// The answer, once it is there.
    #[must_use]
    pub(crate) fn take(&self) -> Option<DeskReply> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A task and the place of its answer.
#[derive(Debug)]
pub(crate) struct DeskTask {
    pub(crate) request: DeskRequest,
    pub(crate) reply: ReplyPlace,
}

/// Where a worker is asked.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// Tasks wait.
    is_busy: AtomicBool,
    tasks: Locked<VecDeque<DeskTask>>,
    /// The thread that has locked `tasks` writes this and the next two.
    pub(crate) waiting: Tally,
    /// The most that have waited.
    pub(crate) waiting_peak: Tally,
    /// Tasks that found no room.
    pub(crate) refused: Tally,
}

impl Desk {
    /// Asks. The caller rings the worker's doorbell afterwards. `None`: too many ask.
    #[must_use]
    pub(crate) fn ask(&self, request: DeskRequest) -> Option<DeskTicket> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.len() >= TASKS_MAX {
            self.refused.add(1);
            return None;
        }
        let reply = ReplyPlace::default();
        tasks.push_back(DeskTask { request, reply: reply.clone() });
        let waiting = tasks.len() as u64;
        self.waiting.set(waiting);
        self.waiting_peak.set(self.waiting_peak.get().max(waiting));
        self.is_busy.store(true, Ordering::Release);
        Some(DeskTicket(reply))
    }

    /// Whether a question waits for the worker.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Relaxed)
    }

    /// The next task whose asker still waits. `None` also if an asker has the lock: the next tick tries again.
    pub(crate) fn next(&self) -> Option<DeskTask> {
        let mut tasks = self.tasks.try_lock().ok()?;
        while let Some(task) = tasks.pop_front() {
            self.waiting.set(tasks.len() as u64);
            if !task.reply.is_abandoned() {
                return Some(task);
            }
        }
        self.is_busy.store(false, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_desk_has_a_limit_and_forgets_askers_that_gave_up() {
        let desk = Desk::default();
        assert!(!desk.is_busy());
        let ask = || desk.ask(DeskRequest::Own(OwnRequest::Look(Inspection::Nodes)));
        let tickets: Vec<_> = std::iter::from_fn(ask).collect();
        assert_eq!(tickets.len(), TASKS_MAX);
        assert!(desk.is_busy());
        assert_eq!((desk.waiting.get(), desk.refused.get()), (TASKS_MAX as u64, 1));
        let first = desk.next().expect("a task");
        first.reply.leave(DeskReply::Ended(AccessEnd::Done));
        assert!(matches!(tickets[0].take(), Some(DeskReply::Ended(AccessEnd::Done))));
        drop(tickets);
        assert!(desk.next().is_none() && !desk.is_busy(), "nobody waits");
        assert_eq!((desk.waiting.get(), desk.waiting_peak.get()), (0, TASKS_MAX as u64));
    }
}
