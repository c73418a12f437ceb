//! A worker answers what an operator asks (`src/desk.rs`), of this node or of another one: questions about its state,
//! and a few actions.
//!
//! A question is answered in slices, one a tick (`shard/inspect.rs`). Questions of other nodes wait in the outbox of
//! the core (`shard/inspect/answer.rs`). A worker that is paused for a transfer answers nothing, so the asker's time
//! ends. A task whose asker no longer waits is not carried out. Limits: one task at a time, `OPERATOR_ORDERS_MAX` of
//! other nodes, and questions that other cores and nodes are answering, whose bound is in `tick/gather.rs`.

use super::notes::peer_of;
use super::{HostKernel, Worker, sys};
use crate::desk::{
    DeskReply, DeskRequest, DeskTask, InspectionReply, OwnRequest, ReplyPlace, SocketFacts,
};
use crate::pusher::socket_id::SocketId;
use crate::shard::{
    AccessEnd, Inspection, Inspector, NodeRows, OperatorOrder, OperatorOutcome, OperatorQuestion,
};
use crate::slot::Slot;

/// A question that cores and nodes are answering: its number, and the place of the answer.
pub(super) type DeskAsk = (u32, ReplyPlace);

/// A task that a worker has begun and answers in slices.
pub(super) struct DeskWork {
    inspector: Inspector,
    goal: DeskGoal,
    asker: DeskAsker,
}

/// What is done with what an inspection finds.
enum DeskGoal {
    Show,
    /// End the connection, or its subscription to a channel.
    End {
        socket_id: SocketId,
        channel: Option<Box<str>>,
    },
}

/// What came of it.
enum SlicedReply {
    Found(Box<InspectionReply>),
    Ended(AccessEnd),
}

impl From<SlicedReply> for DeskReply {
    fn from(reply: SlicedReply) -> Self {
        match reply {
            SlicedReply::Found(found) => Self::Found(found),
            SlicedReply::Ended(end) => Self::Ended(end),
        }
    }
}

/// The receiver of the answer.
enum DeskAsker {
    /// The thread `admin`.
    Desk(ReplyPlace),
    /// A core that gathers the answers for another node.
    Core(OperatorOrder),
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

    /// Begins a task. What needs no slices is answered at once, and leaves the desk free for the next one.
    fn begin_task(&mut self, task: DeskTask) -> Option<DeskWork> {
        let DeskTask { request, reply } = task;
        let (asked, goal) = match request {
            DeskRequest::Ask(_) | DeskRequest::AskNodes(_)
                if !self.core.gathers.takes_caller_questions() =>
            {
                reply.leave(DeskReply::Busy);
                return None;
            }
            DeskRequest::Ask(question) => {
                self.desk_asks.push((self.core.begin_gather(question), reply));
                return None;
            }
            DeskRequest::AskNodes(question) => {
                self.desk_asks.push((self.core.begin_operator_gather(question), reply));
                return None;
            }
            DeskRequest::Own(OwnRequest::Publish { app, request }) => {
                let response = self.core.publish_for_operator(app, &request);
                reply.leave(DeskReply::Published(response));
                return None;
            }
            DeskRequest::Own(OwnRequest::Refusals { socket_id }) => {
                reply.leave(DeskReply::Refused(self.observer.recent(socket_id)));
                return None;
            }
            DeskRequest::Own(OwnRequest::Look(asked)) => (asked, DeskGoal::Show),
            DeskRequest::Own(OwnRequest::EndAccess { socket_id, channel }) => {
                (Inspection::Connection { socket_id }, DeskGoal::End { socket_id, channel })
            }
        };
        Some(DeskWork { inspector: Inspector::new(asked), goal, asker: DeskAsker::Desk(reply) })
    }

    /// Begins to answer another node. A node that does not have the app has no rows.
    fn begin_order(&mut self, order: OperatorOrder) -> Option<DeskWork> {
        let Some(asked) = order.question.inspection(&self.configuration.configuration.apps) else {
            self.answer_order(&order, OperatorOutcome::Rows(NodeRows::default()));
            return None;
        };
        let goal = match &*order.question {
            OperatorQuestion::EndAccess { socket_id, channel } => {
                DeskGoal::End { socket_id: *socket_id, channel: channel.clone() }
            }
            _ => DeskGoal::Show,
        };
        let inspector = Inspector::for_node(asked);
        Some(DeskWork { inspector, goal, asker: DeskAsker::Core(order) })
    }

    fn answer_order(&mut self, order: &OperatorOrder, outcome: OperatorOutcome) {
        let host = rustix::system::uname();
        self.core.shard.answer_order(order, &host.nodename().to_string_lossy(), outcome);
    }

    fn next_work(&mut self) -> Option<DeskWork> {
        let desk = &self.shared.desks[usize::from(self.core.mailbox.core())];
        if let Some(task) = desk.next() {
            return self.begin_task(task);
        }
        let order = self.core.shard.next_order()?;
        self.begin_order(order)
    }

    /// The task in progress, if its asker still waits.
    fn unfinished_work(&mut self) -> Option<DeskWork> {
        let work = self.desk_work.take()?;
        match &work.asker {
            DeskAsker::Desk(reply) if reply.is_abandoned() => None,
            DeskAsker::Core(order) if order.is_late(self.core.shard.now()) => {
                self.core.shard.refuse_late_order(order);
                None
            }
            _ => Some(work),
        }
    }

    /// Works on one task for one slice.
    pub(super) fn serve_desk(&mut self) {
        let work = self.unfinished_work();
        let Some(mut work) = work.or_else(|| self.next_work()) else { return };
        let Some(reply) = self.carry_out_task(&mut work) else {
            self.desk_work = Some(work);
            return;
        };
        match &work.asker {
            DeskAsker::Desk(place) => place.leave(reply.into()),
            DeskAsker::Core(order) => {
                let outcome = self.outcome(order, reply);
                self.answer_order(order, outcome);
            }
        }
    }

    /// Whether a tick is needed for a question.
    pub(super) fn is_asked(&self) -> bool {
        let desk = &self.shared.desks[usize::from(self.core.mailbox.core())];
        let has_orders = !self.core.shard.outbox.orders.is_empty();
        !self.core.is_paused() && (self.desk_work.is_some() || has_orders || desk.is_busy())
    }

    fn carry_out_task(&mut self, work: &mut DeskWork) -> Option<SlicedReply> {
        match &work.goal {
            DeskGoal::Show => {
                if !self.core.shard.inspect(&mut work.inspector) {
                    return None;
                }
                let findings = std::mem::take(&mut work.inspector.findings);
                let socket = findings.inside.as_ref().map(|inside| self.facts(inside.row.key.slot));
                Some(SlicedReply::Found(Box::new(InspectionReply { findings, socket })))
            }
            DeskGoal::End { socket_id, channel } => {
                let found = self.core.shard.find_slice(&mut work.inspector, *socket_id)?;
                let end = |key| self.core.shard.end_for_operator(key, channel.as_deref());
                Some(SlicedReply::Ended(found.map_or(AccessEnd::NotOpen, end)))
            }
        }
    }

    /// A reply as another node reads it.
    fn outcome(&self, order: &OperatorOrder, reply: SlicedReply) -> OperatorOutcome {
        let apps = &self.configuration.configuration.apps;
        match reply {
            SlicedReply::Ended(AccessEnd::Done) => OperatorOutcome::Ended,
            SlicedReply::Ended(AccessEnd::NotSubscribed) => OperatorOutcome::NotSubscribed,
            SlicedReply::Ended(AccessEnd::NotOpen) => OperatorOutcome::NotOpen,
            SlicedReply::Found(found) => {
                let InspectionReply { findings, socket } = *found;
                if let OperatorQuestion::Connection { .. } = *order.question {
                    let inside = findings.inside.map(|inside| {
                        let mut inside = inside.of_node(apps);
                        socket.into_iter().for_each(|facts| facts.add_to(&mut inside));
                        Box::new(inside)
                    });
                    return OperatorOutcome::Inside(inside);
                }
                OperatorOutcome::Rows(findings.of_node(apps))
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
