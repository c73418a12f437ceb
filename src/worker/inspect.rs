//! A worker answers what an operator asks (`src/desk.rs`): questions about its state, and a few actions.
//!
//! A question is answered in slices, one a tick (`shard/inspect.rs`). A worker that is paused for a transfer answers
//! nothing, so the asker's time ends. Limits: one task at a time, and `TASKS_MAX` that other cores and nodes are
//! answering.

use super::notes::peer_of;
use super::{HostKernel, Worker, sys};
use crate::desk::TASKS_MAX;
use crate::desk::{DeskReply, DeskRequest, DeskTask, InspectionReply, ReplyPlace, SocketFacts};
use crate::shard::{AccessEnd, Inspection, Inspector};
use crate::slot::Slot;

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
}

impl<K: HostKernel> Worker<K> {
    /// Passes complete answers on, and forgets questions whose asker has given up.
    pub(super) fn pass_answers_on(&mut self) {
        let gathers = &mut self.core.gathers;
        self.desk_asks.retain(|(id, reply)| {
            if reply.is_abandoned() {
                gathers.end(*id);
                return false;
            }
            let Some(answers) = gathers.take(*id) else { return true };
            reply.leave(DeskReply::Answers(answers));
            false
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
        let work = self.desk_work.take().filter(|work| !work.task.reply.is_abandoned());
        let work = work.or_else(|| {
            let desk = &self.shared.desks[usize::from(self.core.mailbox.core())];
            let task = desk.next()?;
            self.begin_task(task)
        });
        let Some(mut work) = work else { return };
        match self.carry_out_task(&mut work) {
            Some(reply) => work.task.reply.leave(reply),
            None => self.desk_work = Some(work),
        }
    }

    /// Whether a tick is needed for a question.
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
