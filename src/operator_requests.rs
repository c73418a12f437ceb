//! Where the admin thread leaves questions of an operator for one worker, and a few actions (`worker/inspect.rs`).
//!
//! A desk is a flag that a tick reads, and a short queue behind a lock that the worker only tries. The asker keeps a
//! ticket, and finds the answer there later. An asker that gives up drops its ticket, and the worker drops the task.
//! Limit: `OPERATOR_REQUESTS_MAX` tasks for each worker.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use crate::app::AppIndex;
use crate::event_log::EventLogEntry;
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::pusher::socket_id::SocketId;
use crate::shard::{
    AccessEnd, Answer, Findings, Inspection, NodeConnectionDetails, OperatorQuestion, Question,
};

/// Tasks that wait for one worker.
pub(crate) const OPERATOR_REQUESTS_MAX: usize = 16;

/// What is wanted of a worker.
#[derive(Debug)]
pub(crate) enum OperatorRequest {
    /// Something of its own core.
    Own(CoreRequest),
    /// A question of the HTTP API, to all cores and all nodes.
    Ask(Question),
    /// A question or an order to all other nodes.
    AskNodes(OperatorQuestion),
}

/// What is wanted of a worker's own core.
#[derive(Debug)]
pub(crate) enum CoreRequest {
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
pub(crate) enum OperatorReply {
    Found(Box<InspectionReply>),
    Published(Response),
    Ended(AccessEnd),
    /// Of all cores, and of the nodes that answered in time.
    Answers(Vec<Answer>),
    Refused(Vec<EventLogEntry>),
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
    pub(crate) fn copy_to(self, inside: &mut NodeConnectionDetails) {
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
pub(crate) struct ReplySender(Arc<Locked<Option<OperatorReply>>>);

impl ReplySender {
    /// Leaves the answer. If the asker has given up, it is dropped.
    pub(crate) fn send(&self, reply: OperatorReply) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
    }

    /// The asker has given up.
    #[must_use]
    pub(crate) fn has_no_receiver(&self) -> bool {
        Arc::strong_count(&self.0) < 2
    }
}

/// The asker's end of a task.
#[derive(Debug)]
pub(crate) struct ReplyReceiver(ReplySender);

impl ReplyReceiver {
    /// The answer, once it is there.
    #[must_use]
    pub(crate) fn try_receive(&self) -> Option<OperatorReply> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A task and the place of its answer.
#[derive(Debug)]
pub(crate) struct QueuedRequest {
    pub(crate) request: OperatorRequest,
    pub(crate) reply: ReplySender,
}

/// Where a worker is asked.
#[derive(Debug, Default)]
pub(crate) struct OperatorQueue {
    /// Tasks wait.
    has_requests: AtomicBool,
    tasks: Locked<VecDeque<QueuedRequest>>,
}

impl OperatorQueue {
    /// Asks. The caller rings the worker's doorbell afterwards. `None`: too many ask.
    #[must_use]
    pub(crate) fn submit(&self, request: OperatorRequest) -> Option<ReplyReceiver> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.len() >= OPERATOR_REQUESTS_MAX {
            return None;
        }
        let reply = ReplySender::default();
        tasks.push_back(QueuedRequest { request, reply: reply.clone() });
        self.has_requests.store(true, Ordering::Release);
        Some(ReplyReceiver(reply))
    }

    /// Whether a question waits for the worker.
    #[inline]
    pub(crate) fn has_requests(&self) -> bool {
        self.has_requests.load(Ordering::Relaxed)
    }

    /// The next task whose asker still waits. `None` also if an asker has the lock: the next tick tries again.
    pub(crate) fn pop(&self) -> Option<QueuedRequest> {
        let mut tasks = self.tasks.try_lock().ok()?;
        while let Some(task) = tasks.pop_front() {
            if !task.reply.has_no_receiver() {
                return Some(task);
            }
        }
        self.has_requests.store(false, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_desk_has_a_limit_and_forgets_askers_that_gave_up() {
        let desk = OperatorQueue::default();
        assert!(!desk.has_requests());
        let ask = || desk.submit(OperatorRequest::Own(CoreRequest::Look(Inspection::Nodes)));
        let tickets: Vec<_> = std::iter::from_fn(ask).collect();
        assert_eq!(tickets.len(), OPERATOR_REQUESTS_MAX);
        assert!(desk.has_requests());
        let first = desk.pop().expect("a task");
        first.reply.send(OperatorReply::Ended(AccessEnd::Done));
        assert!(matches!(tickets[0].try_receive(), Some(OperatorReply::Ended(AccessEnd::Done))));
        drop(tickets);
        assert!(desk.pop().is_none() && !desk.has_requests(), "nobody waits");
    }
}
