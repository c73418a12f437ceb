//! A worker answers what an operator asks (`src/operator_requests.rs`), of this node or of another one: questions about
//! its state, and a few actions.
//!
//! Owns the request in progress. Does not read the state of the core itself: `shard/inspect.rs` does, in slices, one a
//! tick. Questions of other nodes wait in the outbox of the core (`shard/inspect/answer.rs`). A worker that is paused
//! for a transfer answers nothing, so the asker's time ends. A task whose asker no longer waits is not carried out.
//! Limits: one task at a time, `OPERATOR_ORDERS_MAX` of other nodes, and questions that other cores and nodes are
//! answering, whose bound is in `tick/gather.rs`. Cost: two atomic loads a tick without a request; with one, a slice a
//! tick, of at most 1,024 entries.

use super::notes::peer_of;
use super::time::unix_ms;
use super::{HostKernel, Worker, sys};
use crate::operator_requests::{
    CoreRequest, InspectionReply, OperatorReply, OperatorRequest, QueuedRequest, ReplySender,
    SocketFacts,
};
use crate::pusher::socket_id::SocketId;
use crate::shard::{
    AccessEnd, Inspection, Inspector, NodeRows, OperatorOrder, OperatorOutcome, OperatorQuestion,
};
use crate::slot::Slot;

/// A question that cores and nodes are answering: its number in `Core::gathers`, and where the answer is sent.
pub(super) type PendingGather = (u32, ReplySender);

/// A task that a worker has begun and answers in slices.
pub(super) struct OperatorWork {
    inspector: Inspector,
    purpose: InspectionPurpose,
    reply_to: ReplyTarget,
}

enum InspectionPurpose {
    Show,
    /// End the connection, or its subscription to a channel.
    End {
        socket_id: SocketId,
        channel: Option<Box<str>>,
    },
}

enum FinishedWork {
    Found(Box<InspectionReply>),
    Ended(AccessEnd),
}

impl From<FinishedWork> for OperatorReply {
    fn from(reply: FinishedWork) -> Self {
        match reply {
            FinishedWork::Found(found) => Self::Found(found),
            FinishedWork::Ended(end) => Self::Ended(end),
        }
    }
}

enum ReplyTarget {
    AdminThread(ReplySender),
    /// A core that gathers the answers for another node.
    GatheringCore(OperatorOrder),
}

impl<K: HostKernel> Worker<K> {
    /// Passes complete answers on, and forgets questions whose asker has given up. The same for replies to publishes.
    pub(super) fn send_due_replies(&mut self) {
        self.publish_replies.send_due(&self.core.mailbox);
        let gathers = &mut self.core.gathers;
        self.pending_gathers.retain(|(id, reply)| {
            if reply.has_no_receiver() {
                gathers.end(*id);
                return false;
            }
            let Some(answers) = gathers.take_answers(*id) else { return true };
            reply.send(OperatorReply::Answers(answers));
            false
        });
    }

    /// Begins a request. Returns work that needs slices. A request that needs none is answered at once, so that it does
    /// not block the queue.
    fn begin_request(&mut self, queued: QueuedRequest) -> Option<OperatorWork> {
        let QueuedRequest { request, reply } = queued;
        let (question, purpose) = match request {
            OperatorRequest::AllCores(_) | OperatorRequest::OtherNodes(_)
                if !self.core.gathers.has_room_for_caller_question() =>
            {
                reply.send(OperatorReply::Busy);
                return None;
            }
            OperatorRequest::AllCores(question) => {
                self.pending_gathers.push((self.core.begin_gather(question), reply));
                return None;
            }
            OperatorRequest::OtherNodes(question) => {
                self.pending_gathers.push((self.core.begin_operator_gather(question), reply));
                return None;
            }
            OperatorRequest::ThisCore(CoreRequest::Publish { app, request }) => {
                let response = self.core.publish_for_operator(app, &request);
                self.publish_replies.send(&self.core.mailbox, reply, response);
                return None;
            }
            OperatorRequest::ThisCore(CoreRequest::Refusals { socket_id }) => {
                reply.send(OperatorReply::Refused(self.observer.recent_refusals(socket_id)));
                return None;
            }
            OperatorRequest::ThisCore(CoreRequest::Inspect(question)) => {
                (question, InspectionPurpose::Show)
            }
            OperatorRequest::ThisCore(CoreRequest::EndAccess { socket_id, channel }) => (
                Inspection::Connection { socket_id },
                InspectionPurpose::End { socket_id, channel },
            ),
        };
        Some(OperatorWork {
            inspector: Inspector::new(question),
            purpose,
            reply_to: ReplyTarget::AdminThread(reply),
        })
    }

    /// Begins to answer another node. Without the app that the question names, this node answers that it has no rows.
    fn begin_order(&mut self, order: OperatorOrder) -> Option<OperatorWork> {
        let Some(question) = order.question.inspection(&self.configuration.configuration.apps)
        else {
            self.answer_operator_order(&order, OperatorOutcome::Rows(NodeRows::default()));
            return None;
        };
        let purpose = match order.question.access_to_end() {
            Some((socket_id, channel)) => {
                InspectionPurpose::End { socket_id, channel: channel.map(Into::into) }
            }
            None => InspectionPurpose::Show,
        };
        Some(OperatorWork {
            inspector: Inspector::for_node(question),
            purpose,
            reply_to: ReplyTarget::GatheringCore(order),
        })
    }

    fn answer_operator_order(&mut self, order: &OperatorOrder, outcome: OperatorOutcome) {
        let host = rustix::system::uname();
        self.core.shard.answer_operator_order(order, &host.nodename().to_string_lossy(), outcome);
    }

    fn next_operator_work(&mut self) -> Option<OperatorWork> {
        let queue = &self.shared.operator_queues[usize::from(self.core.mailbox.core())];
        if let Some(queued) = queue.pop() {
            return self.begin_request(queued);
        }
        let order = self.core.shard.next_operator_order(unix_ms())?;
        self.begin_order(order)
    }

    /// The request in progress, unless its asker no longer waits: an action must not be carried out after the operator
    /// read that it failed.
    fn unfinished_work(&mut self) -> Option<OperatorWork> {
        let work = self.operator_work.take()?;
        match &work.reply_to {
            ReplyTarget::AdminThread(reply) if reply.has_no_receiver() => None,
            ReplyTarget::GatheringCore(order) => {
                // One look at the clock: a second one might say that it is late when the first did not.
                let unix_ms = unix_ms();
                if !order.is_late(self.core.shard.now(), unix_ms) {
                    return Some(work);
                }
                self.core.shard.refuse_late_operator_order(order, unix_ms);
                None
            }
            ReplyTarget::AdminThread(_) => Some(work),
        }
    }

    /// One slice of the request in progress, or of the next one.
    pub(super) fn serve_operator(&mut self) {
        let work = self.unfinished_work();
        let Some(mut work) = work.or_else(|| self.next_operator_work()) else { return };
        let Some(reply) = self.work_on_slice(&mut work) else {
            self.operator_work = Some(work);
            return;
        };
        match &work.reply_to {
            ReplyTarget::AdminThread(sender) => sender.send(reply.into()),
            ReplyTarget::GatheringCore(order) => {
                let outcome = self.node_outcome(order, reply);
                self.answer_operator_order(order, outcome);
            }
        }
    }

    /// Whether the next tick must follow at once.
    pub(super) fn has_operator_work(&self) -> bool {
        let queue = &self.shared.operator_queues[usize::from(self.core.mailbox.core())];
        let has_orders = !self.core.shard.outbox.orders.is_empty();
        !self.core.is_paused()
            && (self.operator_work.is_some() || has_orders || queue.has_requests())
    }

    fn work_on_slice(&mut self, work: &mut OperatorWork) -> Option<FinishedWork> {
        match &work.purpose {
            InspectionPurpose::Show => {
                if !self.core.shard.inspect(&mut work.inspector) {
                    return None;
                }
                let findings = std::mem::take(&mut work.inspector.findings);
                let socket =
                    findings.details.as_ref().map(|inside| self.socket_facts(inside.row.key.slot));
                Some(FinishedWork::Found(Box::new(InspectionReply { findings, socket })))
            }
            InspectionPurpose::End { socket_id, channel } => {
                let found = self.core.shard.find_in_slice(&mut work.inspector, *socket_id)?;
                let end = |key| self.core.shard.end_for_operator(key, channel.as_deref());
                Some(FinishedWork::Ended(found.map_or(AccessEnd::NotOpen, end)))
            }
        }
    }

    /// Apps have different indexes on other nodes, so a reply names them by id.
    fn node_outcome(&self, order: &OperatorOrder, reply: FinishedWork) -> OperatorOutcome {
        let apps = &self.configuration.configuration.apps;
        match reply {
            FinishedWork::Ended(AccessEnd::Done) => OperatorOutcome::Ended,
            FinishedWork::Ended(AccessEnd::NotSubscribed) => OperatorOutcome::NotSubscribed,
            FinishedWork::Ended(AccessEnd::NotOpen) => OperatorOutcome::NotOpen,
            FinishedWork::Found(found) => {
                let InspectionReply { findings, socket } = *found;
                if let OperatorQuestion::Connection { .. } = *order.question {
                    let inside = findings.details.map(|inside| {
                        let mut inside = inside.to_node_answer(apps);
                        socket
                            .into_iter()
                            .for_each(|socket_facts| socket_facts.copy_to(&mut inside));
                        Box::new(inside)
                    });
                    return OperatorOutcome::Inside(inside);
                }
                OperatorOutcome::Rows(findings.to_node_answer(apps))
            }
        }
    }

    fn socket_facts(&self, slot: Slot) -> SocketFacts {
        let socket = self.core.reactor.descriptor(slot);
        SocketFacts {
            peer: self.core.reactor.named_client(slot).or_else(|| socket.and_then(peer_of)),
            round_trip: socket.and_then(|socket| sys::round_trip(socket).ok()),
            is_tls: self.core.reactor.is_secure(slot),
        }
    }
}
