//! What an operator asks of a worker: questions about its state, and a few actions, from the thread `admin`.
//!
//! Each worker has a desk: a flag that a tick reads, and a short queue behind a lock that the worker only tries. A
//! question is answered in slices, one a tick (`shard/inspect.rs`). An asker that gives up drops its end of the reply,
//! and the worker drops the task. A worker that is paused for a transfer answers nothing, so the asker's time ends.
//! Limits: `TASKS_MAX` tasks for each worker, and as many that other cores and nodes are answering.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use super::notes::peer_of;
use super::{HostKernel, Worker, sys};
use crate::app::AppIndex;
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::live::LiveEvent;
use crate::pusher::socket_id::SocketId;
use crate::shard::{AccessEnd, Answer, Findings, Inspection, Inspector, Question};
use crate::slot::Slot;

/// Tasks that wait for one worker.
const TASKS_MAX: usize = 16;

/// What is wanted of a worker.
#[derive(Debug)]
pub(crate) enum DeskRequest {
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
    /// A question of the HTTP API, to all cores and all nodes.
    Ask(Question),
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
    pub round_trip: Option<sys::RoundTrip>,
    pub is_tls: bool,
}

#[expect(
    clippy::disallowed_types,
    reason = "locked for a push, a pop or a store, and by a worker only if an operator asks"
)]
type Locked<T> = std::sync::Mutex<T>;

/// Where an answer is left.
type ReplyPlace = Arc<Locked<Option<DeskReply>>>;

/// The asker's end of a task.
#[derive(Debug)]
pub(crate) struct DeskTicket(ReplyPlace);

impl DeskTicket {
    /// The answer, once it is there.
    #[must_use]
    pub(crate) fn take(&self) -> Option<DeskReply> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A task and the place of its answer.
#[derive(Debug)]
struct DeskTask {
    request: DeskRequest,
    reply: ReplyPlace,
}

/// Where a worker is asked.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// Tasks wait.
    is_busy: AtomicBool,
    tasks: Locked<VecDeque<DeskTask>>,
}

impl Desk {
    /// Asks. The caller rings the worker's doorbell afterwards. `None`: too many ask.
    #[must_use]
    pub(crate) fn ask(&self, request: DeskRequest) -> Option<DeskTicket> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.len() >= TASKS_MAX {
            return None;
        }
        let reply = Arc::default();
        tasks.push_back(DeskTask { request, reply: Arc::clone(&reply) });
        self.is_busy.store(true, Ordering::Release);
        Some(DeskTicket(reply))
    }

    /// Whether somebody waits for the worker.
    #[inline]
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Relaxed)
    }

    /// The next task whose asker still waits. `None` also if an asker has the lock: the next tick tries again.
    fn next(&self) -> Option<DeskTask> {
        let mut tasks = self.tasks.try_lock().ok()?;
        while let Some(task) = tasks.pop_front() {
            if Arc::strong_count(&task.reply) > 1 {
                return Some(task);
            }
        }
        self.is_busy.store(false, Ordering::Relaxed);
        None
    }
}

/// A question that cores and nodes are answering: its number, and the place of the answer.
pub(super) type DeskAsk = (u32, ReplyPlace);

/// A task that a worker has begun.
pub(super) struct DeskWork {
    task: DeskTask,
    inspector: Inspector,
}

impl DeskWork {
    fn begin(task: DeskTask) -> Self {
        let asked = match &task.request {
            DeskRequest::Look(asked) => asked.clone(),
            DeskRequest::EndAccess { socket_id, .. } => {
                Inspection::Connection { socket_id: *socket_id }
            }
            DeskRequest::Publish { .. } | DeskRequest::Refusals { .. } | DeskRequest::Ask(_) => {
                Inspection::Nodes
            }
        };
        Self { task, inspector: Inspector::new(asked) }
    }

    fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.task.reply) < 2
    }
}

impl<K: HostKernel> Worker<K> {
    /// Passes complete answers on, and forgets questions whose asker has given up.
    pub(super) fn pass_answers_on(&mut self) {
        let gathers = &mut self.core.gathers;
        self.desk_asks.retain(|(id, reply)| {
            if Arc::strong_count(reply) < 2 {
                gathers.end(*id);
                return false;
            }
            let answers = gathers.take(*id).map(DeskReply::Answers);
            let is_whole = answers.is_some();
            if is_whole {
                *reply.lock().unwrap_or_else(PoisonError::into_inner) = answers;
            }
            !is_whole
        });
    }

    /// Begins a task. A question to other cores leaves the desk free for the next one.
    fn begin_task(&mut self, task: DeskTask) -> Option<DeskWork> {
        let DeskTask { request, reply } = task;
        let DeskRequest::Ask(question) = request else {
            return Some(DeskWork::begin(DeskTask { request, reply }));
        };
        // Over the limit the place of the answer is dropped, and the asker's time ends.
        if self.desk_asks.len() < TASKS_MAX {
            let id = self.core.begin_gather(question);
            self.desk_asks.push((id, reply));
        }
        None
    }

    /// Works on one task for one slice.
    pub(super) fn serve_desk(&mut self) {
        let work = self.desk_work.take().filter(|work| !work.is_abandoned());
        let work = work.or_else(|| {
            let desk = &self.shared.desks[usize::from(self.core.mailbox.core())];
            let task = desk.next()?;
            self.begin_task(task)
        });
        let Some(mut work) = work else { return };
        match self.carry_out_task(&mut work) {
            // The asker may have given up in between: then nobody reads it.
            Some(reply) => {
                *work.task.reply.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
            }
            None => self.desk_work = Some(work),
        }
    }

    /// Whether a tick is needed for somebody who asks.
    pub(super) fn is_asked(&self) -> bool {
        let desk = &self.shared.desks[usize::from(self.core.mailbox.core())];
        !self.core.is_paused() && (self.desk_work.is_some() || desk.is_busy())
    }

    fn carry_out_task(&mut self, work: &mut DeskWork) -> Option<DeskReply> {
        match &work.task.request {
            DeskRequest::Look(_) => {
                if !self.core.shard.inspect(&mut work.inspector) {
                    return None;
                }
                let findings = std::mem::take(&mut work.inspector.findings);
                let socket = findings.inside.as_ref().map(|inside| self.facts(inside.row.key.slot));
                Some(DeskReply::Found(Box::new(InspectionReply { findings, socket })))
            }
            DeskRequest::Publish { app, request } => {
                Some(DeskReply::Published(self.core.publish_for_operator(*app, request)))
            }
            // It has left the desk.
            DeskRequest::Ask(_) => Some(DeskReply::Answers(Vec::new())),
            DeskRequest::Refusals { socket_id } => {
                Some(DeskReply::Refused(self.observer.recent(*socket_id)))
            }
            DeskRequest::EndAccess { socket_id, channel } => {
                let found = self.core.shard.find_slice(&mut work.inspector, *socket_id)?;
                let end = |key| self.core.shard.end_for_operator(key, channel.as_deref());
                Some(DeskReply::Ended(found.map_or(AccessEnd::NotOpen, end)))
            }
        }
    }

    fn facts(&self, slot: Slot) -> SocketFacts {
        let socket = self.core.reactor.descriptor(slot);
        SocketFacts {
            peer: self.core.reactor.named_client(slot).or_else(|| socket.and_then(peer_of)),
            round_trip: socket.and_then(|socket| sys::round_trip(socket).ok()),
            is_tls: self.core.reactor.is_secure(slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_desk_has_a_limit_and_forgets_askers_that_gave_up() {
        let desk = Desk::default();
        assert!(!desk.is_busy());
        let ask = || desk.ask(DeskRequest::Look(Inspection::Nodes));
        let tickets: Vec<_> = std::iter::from_fn(ask).collect();
        assert_eq!(tickets.len(), TASKS_MAX);
        assert!(desk.is_busy());
        let first = desk.next().expect("a task");
        *first.reply.lock().unwrap() = Some(DeskReply::Ended(AccessEnd::Done));
        assert!(matches!(tickets[0].take(), Some(DeskReply::Ended(AccessEnd::Done))));
        drop(tickets);
        assert!(desk.next().is_none() && !desk.is_busy(), "nobody waits");
    }
}
