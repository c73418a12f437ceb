//! Requests of the admin thread to one worker: questions of an operator, and a few actions (`worker/inspect.rs`).
//!
//! Owns one queue for each worker: a flag that a tick reads, and a short queue behind a lock that the worker only
//! tries. The one `Submitter` fills it, so a request goes to all workers or to none. A reply has a lock of its own,
//! which the worker takes to store one value. The admin thread keeps a `ReplyReceiver` and polls it. If it gives up, it
//! drops the receiver, and the worker drops the request. Does not know how a request is carried out; ARCHITECTURE.md
//! ("Questions of an operator") lists all files on the way.
//!
//! Limit: `OPERATOR_REQUESTS_MAX` requests for each worker; one more is refused and counted. Replies to publishes that
//! wait for mail (`PublishReplies`) are fewer, because each has a caller that waits. Cost: two loads of the flag for a
//! tick without requests; a few uncontended locks and one allocation for a request.

use std::cell::Cell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use crate::app::AppIndex;
use crate::event_log::EventLogEntry;
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::mailbox::{Mailbox, OverflowMark};
use crate::metrics::Tally;
use crate::pusher::socket_id::SocketId;
use crate::shard::{
    AccessEnd, Answer, Findings, Inspection, NodeConnectionDetails, OperatorQuestion, Question,
};

/// Requests that wait for one worker.
pub(crate) const OPERATOR_REQUESTS_MAX: usize = 16;

#[derive(Debug)]
pub(crate) enum OperatorRequest {
    /// About this core alone: its connections and channels.
    ThisCore(CoreRequest),
    /// A question of the HTTP API. The worker asks all cores and all nodes, and adds up the answers.
    AllCores(Question),
    /// A question or an action for all other nodes of a cluster.
    OtherNodes(OperatorQuestion),
}

impl OperatorRequest {
    /// Whether it changes something: a caller without an answer then cannot know whether it was carried out.
    #[must_use]
    pub(crate) fn is_action(&self) -> bool {
        match self {
            Self::ThisCore(CoreRequest::Publish { .. } | CoreRequest::EndAccess { .. }) => true,
            Self::OtherNodes(question) => question.access_to_end().is_some(),
            Self::ThisCore(CoreRequest::Inspect(_) | CoreRequest::Refusals { .. })
            | Self::AllCores(_) => false,
        }
    }
}

#[derive(Debug)]
pub(crate) enum CoreRequest {
    Inspect(Inspection),
    /// Publishes an event. The body is that of `POST /apps/{id}/events`.
    Publish {
        app: AppIndex,
        request: Box<Request>,
    },
    /// Ends a connection, or with `channel` its subscription to that channel.
    EndAccess {
        socket_id: SocketId,
        channel: Option<Box<str>>,
    },
    /// The last refusals of one connection; `None`: of all peers.
    Refusals {
        socket_id: Option<SocketId>,
    },
}

#[derive(Debug)]
pub(crate) enum OperatorReply {
    Found(Box<InspectionReply>),
    Published(Response),
    Ended(AccessEnd),
    /// Answers of all cores, and of the nodes that answered in time.
    Answers(Vec<Answer>),
    /// The worker gathers answers to as many questions as it may, so this one was not asked.
    Busy,
    Refused(Vec<EventLogEntry>),
}

impl OperatorReply {
    /// Whether the caller need not wait for other workers: a connection is on one core.
    #[must_use]
    pub(crate) fn is_conclusive(&self) -> bool {
        matches!(self, Self::Ended(AccessEnd::Done | AccessEnd::NotSubscribed))
    }
}

#[derive(Debug)]
pub(crate) struct InspectionReply {
    pub findings: Findings,
    /// Set for a question about one connection, if its socket is still open.
    pub socket: Option<SocketFacts>,
}

/// What only the kernel knows of a connection, for its details.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketFacts {
    /// The address of the socket's other end, which is a proxy's where there is one.
    pub peer: Option<SocketAddr>,
    pub round_trip: Option<RoundTrip>,
    pub is_tls: bool,
}

impl SocketFacts {
    pub(crate) fn copy_to(self, inside: &mut NodeConnectionDetails) {
        inside.address = self.peer.map(|peer| peer.to_string().into());
        inside.round_trip =
            self.round_trip.map(|found| (found.microseconds, found.retransmissions));
        inside.is_tls = self.is_tls;
    }
}

/// From the kernel's estimate of the round trip of a TCP connection (`TCP_INFO`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrip {
    pub microseconds: u32,
    /// Segments that were sent again since the connection was established: a sign of a bad network.
    pub retransmissions: u32,
}

#[expect(
    clippy::disallowed_types,
    reason = "locked for a push, a pop or a store, and by a worker only if an operator asks"
)]
type Locked<T> = std::sync::Mutex<T>;

/// The worker's end of one reply. `ReplyReceiver` is the other end, and both share the place of the reply.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReplySender(Arc<Locked<Option<OperatorReply>>>);

impl ReplySender {
    /// Sends the reply. If the caller has given up, it is dropped.
    pub(crate) fn send(&self, reply: OperatorReply) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
    }

    /// Whether the caller has given up, which it shows by dropping its `ReplyReceiver`.
    #[must_use]
    pub(crate) fn has_no_receiver(&self) -> bool {
        Arc::strong_count(&self.0) < 2
    }
}

/// Replies to publishes whose mail waits for room in a ring. They are sent when it is in the ring: a publish that
/// begins after the reply, on any core, must not overtake the event. A backend's answer waits in the same way.
#[derive(Debug, Default)]
pub(crate) struct PublishReplies(Vec<(OverflowMark, ReplySender, Response)>);

impl PublishReplies {
    /// Call it when the mail of the publish is in the mailbox. A refusal has none, so it waits for nothing.
    pub(crate) fn send<M>(&mut self, mailbox: &Mailbox<M>, reply: ReplySender, response: Response) {
        match mailbox.overflow_mark() {
            Some(mark) if response.status == 200 => self.0.push((mark, reply, response)),
            _ => reply.send(OperatorReply::Published(response)),
        }
    }

    /// Sends the replies whose mail is in the rings, and drops those that have no receiver. Call it in each tick: while
    /// mail waits, the next tick follows at once.
    pub(crate) fn send_due<M>(&mut self, mailbox: &Mailbox<M>) {
        self.0.retain(|(mark, reply, response)| {
            let is_due = mailbox.is_in_rings(*mark);
            if is_due {
                reply.send(OperatorReply::Published(response.clone()));
            }
            !is_due && !reply.has_no_receiver()
        });
    }
}

#[derive(Debug)]
pub(crate) struct ReplyReceiver(ReplySender);

impl ReplyReceiver {
    /// Moves the reply out, once the worker has sent it. Never waits.
    #[must_use]
    pub(crate) fn try_receive(&self) -> Option<OperatorReply> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Debug)]
pub(crate) struct QueuedRequest {
    pub(crate) request: OperatorRequest,
    pub(crate) reply: ReplySender,
}

#[derive(Debug, Default)]
pub(crate) struct OperatorQueue {
    /// Read at each tick in place of the lock.
    has_requests: AtomicBool,
    requests: Locked<VecDeque<QueuedRequest>>,
    /// The thread that has locked `requests` writes this and the next two.
    pub(crate) waiting: Tally,
    /// The most requests that have waited at a time.
    pub(crate) waiting_peak: Tally,
    /// Requests that found the queue full, since the start.
    pub(crate) refused: Tally,
}

impl OperatorQueue {
    /// `None`: the queue is full.
    #[must_use]
    fn submit(&self, request: OperatorRequest) -> Option<ReplyReceiver> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() >= OPERATOR_REQUESTS_MAX {
            self.refused.add(1);
            return None;
        }
        let reply = ReplySender::default();
        requests.push_back(QueuedRequest { request, reply: reply.clone() });
        let waiting = requests.len() as u64;
        self.waiting.set(waiting);
        self.waiting_peak.set(self.waiting_peak.get().max(waiting));
        debug_assert!(requests.len() <= OPERATOR_REQUESTS_MAX, "there was room");
        self.has_requests.store(true, Ordering::Release);
        Some(ReplyReceiver(reply))
    }

    /// Whether there is room for one more request. If not, that is counted.
    fn has_room(&self) -> bool {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = requests.len() < OPERATOR_REQUESTS_MAX;
        self.refused.add(u64::from(!has_room));
        has_room
    }

    /// Whether a request waits for the worker. Read in each tick.
    #[inline]
    pub(crate) fn has_requests(&self) -> bool {
        self.has_requests.load(Ordering::Relaxed)
    }

    /// The next request whose caller still waits. `None` also if a caller has the lock: the next tick tries again.
    pub(crate) fn pop(&self) -> Option<QueuedRequest> {
        let mut requests = self.requests.try_lock().ok()?;
        while let Some(queued) = requests.pop_front() {
            self.waiting.set(requests.len() as u64);
            if !queued.reply.has_no_receiver() {
                return Some(queued);
            }
        }
        self.has_requests.store(false, Ordering::Relaxed);
        None
    }
}

/// The queues of all workers, in their order.
#[derive(Debug)]
pub(crate) struct OperatorQueues {
    queues: Box<[OperatorQueue]>,
    has_submitter: AtomicBool,
}

impl OperatorQueues {
    #[must_use]
    pub(crate) fn new(workers: usize) -> Self {
        let queues = (0..workers).map(|_| OperatorQueue::default()).collect();
        Self { queues, has_submitter: AtomicBool::new(false) }
    }

    /// The right to submit requests. `None`: it was given.
    #[must_use]
    pub(crate) fn take_submitter(&self) -> Option<Submitter> {
        let was_taken = self.has_submitter.swap(true, Ordering::Relaxed);
        (!was_taken).then_some(Submitter { not_sync: PhantomData })
    }
}

impl Deref for OperatorQueues {
    type Target = [OperatorQueue];

    fn deref(&self) -> &[OperatorQueue] {
        &self.queues
    }
}

/// The right to submit requests to the queues of this process. There is one, it cannot be copied, and two threads
/// cannot use it at a time (it is not `Sync`). Workers only take requests out. So room that the submitter has found in
/// a queue stays until it uses it.
#[derive(Debug)]
pub(crate) struct Submitter {
    not_sync: PhantomData<Cell<()>>,
}

impl Submitter {
    /// Queues a request for each of these workers, or for none: workers that got it would carry out an action that the
    /// operator is refused. The caller rings the doorbells afterwards.
    ///
    /// # Errors
    /// The first worker whose queue is full.
    pub(crate) fn submit_to_all(
        &self,
        queues: &[OperatorQueue],
        workers: Range<usize>,
        request: impl Fn() -> OperatorRequest,
    ) -> Result<Vec<(usize, ReplyReceiver)>, usize> {
        let Self { not_sync: PhantomData } = self;
        let has_room = |worker: &usize| queues.get(*worker).is_some_and(OperatorQueue::has_room);
        if let Some(full) = workers.clone().find(|worker| !has_room(worker)) {
            return Err(full);
        }
        let submit = |worker: usize| {
            let receiver = queues.get(worker).and_then(|queue| queue.submit(request()));
            debug_assert!(receiver.is_some(), "room that was found stays");
            receiver.map(|receiver| (worker, receiver)).ok_or(worker)
        };
        workers.map(submit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_to_all_workers_is_queued_for_none_if_one_has_no_room() {
        let queues = OperatorQueues::new(3);
        let submitter = queues.take_submitter().expect("the first");
        let waiting: Vec<_> = std::iter::from_fn(|| queues[2].submit(question())).collect();
        assert_eq!(submitter.submit_to_all(&queues, 0..3, question).err(), Some(2));
        assert!(!queues[0].has_requests() && !queues[1].has_requests(), "nothing is carried out");
        drop(waiting);
        assert!(queues[2].pop().is_none());
        let receivers = submitter.submit_to_all(&queues, 0..3, question).expect("room");
        assert_eq!(receivers.len(), 3);
        assert!(queues.iter().all(OperatorQueue::has_requests));
    }

    /// Two submitters could find the same room, and an action would be queued for some workers only.
    #[test]
    fn the_right_to_submit_is_given_once() {
        let queues = OperatorQueues::new(1);
        assert!(queues.take_submitter().is_some());
        assert!(queues.take_submitter().is_none(), "one that was dropped does not come back");
    }

    #[test]
    fn an_ended_access_is_the_answer_whatever_other_workers_say() {
        let is_conclusive = |end| OperatorReply::Ended(end).is_conclusive();
        assert!(is_conclusive(AccessEnd::Done) && is_conclusive(AccessEnd::NotSubscribed));
        assert!(!is_conclusive(AccessEnd::NotOpen) && !OperatorReply::Busy.is_conclusive());
    }

    /// The core of the channel's home reads its rings late.
    #[test]
    fn a_publish_of_an_operator_is_answered_when_its_mail_is_in_a_ring() {
        let mut mailboxes = crate::mailbox::mesh::<u32>(2).expect("eventfds");
        let (mut home, mut core) = (mailboxes.pop().expect("core 1"), mailboxes.remove(0));
        let mut replies = PublishReplies::default();
        let answer = |core: &Mailbox<u32>, replies: &mut PublishReplies, status| {
            let reply = ReplySender::default();
            let receiver = ReplyReceiver(reply.clone());
            replies.send(core, reply, Response::text(status, "{}"));
            receiver
        };
        let publish = |core: &mut Mailbox<u32>, replies: &mut PublishReplies| {
            core.send(1, 0, 0, 7);
            answer(core, replies, 200)
        };
        assert!(publish(&mut core, &mut replies).try_receive().is_some(), "there is room");
        while !core.has_overflow() {
            core.send(1, 0, 0, 0);
        }
        let (waits, given_up) =
            (publish(&mut core, &mut replies), publish(&mut core, &mut replies));
        drop(given_up);
        let refused = answer(&core, &mut replies, 422);
        assert!(refused.try_receive().is_some(), "what published nothing waits for no mail");
        replies.send_due(&core);
        assert!(waits.try_receive().is_none(), "another core could overtake it now");
        assert_eq!(replies.0.len(), 1, "a caller that gave up needs none");
        while home.receive(0, 0).is_some() {}
        core.flush_overflow();
        core.send(1, 0, 0, 8);
        replies.send_due(&core);
        assert!(matches!(waits.try_receive(), Some(OperatorReply::Published(_))));
        assert!(replies.0.is_empty());
    }

    fn question() -> OperatorRequest {
        OperatorRequest::ThisCore(CoreRequest::Inspect(Inspection::Nodes))
    }

    #[test]
    fn a_queue_has_a_limit_and_drops_requests_whose_caller_gave_up() {
        let queue = OperatorQueue::default();
        assert!(!queue.has_requests());
        let submit = || queue.submit(question());
        let tickets: Vec<_> = std::iter::from_fn(submit).collect();
        assert_eq!(tickets.len(), OPERATOR_REQUESTS_MAX);
        assert!(queue.has_requests());
        assert_eq!((queue.waiting.get(), queue.refused.get()), (OPERATOR_REQUESTS_MAX as u64, 1));
        let first = queue.pop().expect("a request");
        first.reply.send(OperatorReply::Ended(AccessEnd::Done));
        assert!(matches!(tickets[0].try_receive(), Some(OperatorReply::Ended(AccessEnd::Done))));
        drop(tickets);
        assert!(queue.pop().is_none() && !queue.has_requests(), "nobody waits");
        let waited = (queue.waiting.get(), queue.waiting_peak.get());
        assert_eq!(waited, (0, OPERATOR_REQUESTS_MAX as u64));
    }
}
