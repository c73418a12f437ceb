//! Everything in a core that a request acts on, borrowed together: the shard, the mail, the questions and the rules of
//! HTTP. PURE except for the doorbells of the mailbox.
//!
//! Owns no state. It moves mail between shard and rings, in the order that the order of events needs: `FromHome` mail
//! first, then `ToHome` mail of all cores by its stamps, then mail of this core to itself. Does not touch sockets, so
//! that requests of clients, of the API and of operators use the same code.
//!
//! Limits: `limits::MAIL_PER_TICK_MAX` for each ring; its buffers are reused. Cost: one load for each ring, one store
//! for each that had mail, and the work of each mail; no allocation unless a list grows.

use std::sync::Arc;

use super::gather::{Asker, Gathers};
use super::http::Http;
use crate::api::Publication;
use crate::app::AppIndex;
use crate::limits;
use crate::mailbox::{Mailbox, StampedMail};
use crate::shard::{
    ApiMessage, Lane, Mail, NodeQuestion, OperatorOrder, OperatorQuestion, Question, SessionId,
    Shard, ToCluster,
};

/// Buffers for mail within a core. They are empty between two calls, and keep their storage.
#[derive(Default)]
pub(super) struct MailBuffers {
    /// Mail on its way to the shard, with its stamps.
    inbox: Vec<StampedMail<Mail>>,
    /// Mail of the shard to itself, which needs no ring.
    own_mail: Vec<Mail>,
    /// The stamp of the oldest event that other cores have sent in this tick; see `Core::observe_events`.
    pub(super) oldest_event: Option<u64>,
}

impl MailBuffers {
    fn note_event(&mut self, stamp: u64) {
        self.oldest_event = Some(self.oldest_event.map_or(stamp, |oldest| oldest.min(stamp)));
    }

    /// The stamp of a mail that is sent at `now`. An event keeps the time of its publish, because its age is measured
    /// by it. Its lane is not ordered by stamps.
    fn stamp_of(&self, mail: &Mail, now: u64) -> u64 {
        match mail {
            Mail::Deliver { .. } => self.oldest_event.map_or(now, |oldest| oldest.min(now)),
            _ => now,
        }
    }
}

/// A core without its sockets. It is borrowed for one step of a tick.
pub(super) struct Site<'a> {
    pub(super) shard: &'a mut Shard,
    pub(super) mailbox: &'a mut Mailbox<Mail>,
    pub(super) mail_buffers: &'a mut MailBuffers,
    pub(super) gathers: &'a mut Gathers,
    pub(super) http: &'a mut Http,
    /// The time of the current request, by `Kernel::stamp`. It orders mail of different cores, so it is read after the
    /// request was received and before anything is done for it.
    pub(super) stamp: u64,
}

impl Site<'_> {
    /// Moves the shard's mail to the rings, and processes its mail to itself, until there is none.
    /// `receive_mail_sent_before_now` calls it last: mail that other cores sent before is received before mail of this
    /// core to itself.
    pub(super) fn settle_mail(&mut self) {
        let own_core = self.mailbox.core();
        debug_assert!(self.mail_buffers.own_mail.is_empty(), "no call is half done");
        loop {
            self.shard.settle();
            if self.shard.outbox.mails.is_empty() {
                break;
            }
            for (to, mail) in self.shard.outbox.mails.drain(..) {
                if to == own_core {
                    self.mail_buffers.own_mail.push(mail);
                } else {
                    let stamp = self.mail_buffers.stamp_of(&mail, self.stamp);
                    self.mailbox.send(to, lane_index(mail.lane()), stamp, mail);
                }
            }
            for mail in self.mail_buffers.own_mail.drain(..) {
                self.shard.on_mail(mail);
            }
        }
    }

    /// Receives all mail that any core sent before now, this one included. A request must be ordered after everything
    /// that was answered before the request was made.
    pub(super) fn receive_mail_sent_before_now(&mut self) {
        self.drain_to_home();
        self.settle_mail();
    }

    /// Receives all `FromHome` mail. Always allowed, because this mail causes none that needs room at once.
    pub(super) fn drain_from_home(&mut self) {
        let lane = lane_index(Lane::FromHome);
        for from in 0..self.mailbox.cores() {
            for _ in 0..limits::MAIL_PER_TICK_MAX {
                let Some((stamp, mail)) = self.mailbox.receive_stamped(from, lane) else { break };
                debug_assert_eq!(mail.lane(), Lane::FromHome, "mail travels in its own lane");
                if let Mail::Deliver { .. } = mail {
                    self.mail_buffers.note_event(stamp);
                }
                self.shard.on_mail(mail);
            }
        }
    }

    /// Receives all `ToHome` mail that was sent before now, but only while there is room for the mail that it can
    /// cause.
    fn drain_to_home(&mut self) {
        if self.mailbox.is_from_home_congested() {
            return;
        }
        let lane = lane_index(Lane::ToHome);
        self.mailbox.receive_ordered(lane, self.stamp, &mut self.mail_buffers.inbox);
        debug_assert!(
            self.mail_buffers.inbox.iter().all(|(_, mail)| mail.lane() == Lane::ToHome),
            "mail travels in its own lane"
        );
        debug_assert!(
            self.mail_buffers.inbox.is_sorted_by_key(|(stamp, _)| *stamp),
            "a later publish does not overtake an earlier one"
        );
        let mut inbox = std::mem::take(&mut self.mail_buffers.inbox);
        for (stamp, mail) in inbox.drain(..) {
            if let Mail::Publish { .. } = mail {
                self.mail_buffers.note_event(stamp);
            }
            self.shard.on_mail(mail);
        }
        self.mail_buffers.inbox = inbox;
    }

    /// Publishes the events of one request. After it returns, no later request on any core can overtake it: the event
    /// was ordered here, or its mail is stamped and in a ring (once the mailbox's `overflow_mark` is, if there is one).
    pub(super) fn publish(&mut self, app: AppIndex, publications: &[Publication]) {
        self.receive_mail_sent_before_now();
        for one in publications {
            let channel = self.shard.key_of(app, &one.channel);
            self.shard.publish(channel, one.frame.clone(), one.excluded_socket_id, true);
        }
        self.shard.metrics().app(app).published_events.add(publications.len() as u64);
        self.settle_mail();
        debug_assert!(self.shard.outbox.mails.is_empty(), "all mail is on its way");
    }

    /// Asks all cores, including this one, and all nodes. Returns the number of the question.
    pub(super) fn begin_gather(&mut self, asker: Asker, question: Question) -> u32 {
        let nodes = self.shard.is_cluster_up();
        let (id, question) = self.ask_cores(asker, question, i64::from(nodes));
        if nodes {
            self.shard.outbox.cluster.push(ToCluster::Ask { id, question });
        }
        id
    }

    /// Asks all other nodes for their operator. Returns the number of the question.
    pub(super) fn begin_operator_gather(&mut self, question: OperatorQuestion) -> u32 {
        let nodes = self.shard.is_cluster_up();
        let now = self.shard.now();
        let id = self.gathers.begin(Asker::Caller, now, None, 0, i64::from(nodes));
        debug_assert!(self.shard.has_cluster() || !nodes, "a node of no cluster has nobody to ask");
        if nodes {
            let question = Box::new(question);
            self.shard.outbox.cluster.push(ToCluster::AskOperator { id, question });
        }
        id
    }

    /// Passes a question of another node to all cores of this one. `None`: this node does not know the app. Over the
    /// limit it sends no answer: the asker reads an empty one as complete, and its sums would be too low without a
    /// sign.
    pub(super) fn begin_node_question(
        &mut self,
        from: SessionId,
        number: u32,
        question: Option<NodeQuestion>,
    ) {
        let asker = Asker::Node(from, number);
        if question.is_some() && !self.gathers.has_room_for_node_question() {
            return;
        }
        match question {
            Some(NodeQuestion::Api(question)) => {
                let (id, _) = self.ask_cores(asker, question, 0);
                self.gathers.finish(id, &mut self.shard.outbox.cluster);
            }
            Some(NodeQuestion::Operator(question)) => self.order_cores(asker, question),
            // This node does not know the app, so it has nothing to add.
            None => {
                let message = ApiMessage::Answer { id: number, answers: Vec::new() }.into();
                self.shard.outbox.cluster.push(ToCluster::Reply { to: from, message });
            }
        }
    }

    fn ask_cores(&mut self, asker: Asker, question: Question, nodes: i64) -> (u32, Arc<Question>) {
        self.receive_mail_sent_before_now();
        let cores = self.mailbox.cores();
        let own = self.shard.answer(&question);
        let now = self.shard.now();
        let id = self.gathers.begin(asker, now, Some(own), usize::from(cores) - 1, nodes);
        let question = Arc::new(question);
        let from = self.mailbox.core();
        for to in (0..cores).filter(|to| *to != from) {
            // After the shard's mail: a question must not overtake the publish that it asks about.
            let mail = Mail::Ask { id, from, question: question.clone() };
            self.shard.outbox.mails.push((to, mail));
        }
        debug_assert_eq!(
            self.shard.outbox.mails.len(),
            usize::from(cores) - 1,
            "each other core is asked once, after all mail that was sent before"
        );
        (id, question)
    }

    /// Passes an operator's question to all cores. All of them, this one included, answer in slices, so that no tick is
    /// long.
    fn order_cores(&mut self, asker: Asker, question: OperatorQuestion) {
        let cores = self.mailbox.cores();
        let received_at = self.shard.now();
        let id = self.gathers.begin(asker, received_at, None, usize::from(cores), 0);
        debug_assert!(
            matches!(asker, Asker::Node(..)),
            "this node's own operator asks each worker"
        );
        let question = Arc::new(question);
        let from = self.mailbox.core();
        for to in 0..cores {
            let question = question.clone();
            if to == from {
                self.shard.queue_operator_order(OperatorOrder {
                    gathering_core: from,
                    question_number: id,
                    received_at,
                    question,
                });
            } else {
                self.shard
                    .outbox
                    .mails
                    .push((to, Mail::Inspect { id, from, received_at, question }));
            }
        }
    }
}

const _: () = assert!(crate::mailbox::LANES == 2, "the mailbox has one for each `Lane`");

fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::ToHome => 0,
        Lane::FromHome => 1,
    }
}
