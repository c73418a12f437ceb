//! Questions of the HTTP API under way to the other cores, and to the other nodes; and questions that other nodes have
//! asked this one. PURE.
//!
//! Bound: other nodes have `NODES_TIME_MS`. Whoever has not answered by then is dead or nearly so, and what the others
//! said is the answer.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hashbrown::HashMap;

use super::Core;
use super::kernel::Kernel;
use crate::clock::Moment;
use crate::shard::{Answer, Answered, Body, LinkId, Mail, Question, ToCluster};

/// Time for the answers of other nodes, in milliseconds.
const NODES_TIME_MS: u64 = 1_500;
/// Questions of other nodes under way at a time. One more is left unanswered: its asker goes on without.
const NODE_QUESTIONS_MAX: usize = 1_024;

/// By number. Numbers are not used twice: a late answer must not count for a later question.
#[derive(Default)]
pub struct Gathers {
    gathers: HashMap<u32, Gather, foldhash::fast::RandomState>,
    next: u32,
    /// Of these, questions of other nodes.
    of_nodes: usize,
}

struct Gather {
    asker: Asker,
    since: Moment,
    /// Cores that have not answered.
    missing: usize,
    /// Other nodes, and the reply that says how many there are.
    missing_nodes: i64,
    answers: Vec<Answer>,
}

enum Asker {
    /// A session of this core.
    Session(Option<Waker>),
    /// A session of another node, by its link and its number there.
    Node(LinkId, u32),
}

impl Gather {
    fn is_whole(&self) -> bool {
        self.missing == 0 && self.missing_nodes <= 0
    }
}

impl Gathers {
    fn begin(
        &mut self,
        asker: Asker,
        since: Moment,
        own: Answer,
        missing: usize,
        nodes: i64,
    ) -> u32 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.of_nodes += usize::from(matches!(asker, Asker::Node(..)));
        let answers = vec![own];
        // Numbers come again after 2^32 questions, none of which waits longer than `GATHER_TIMEOUT_MS`.
        self.gathers.insert(id, Gather { asker, since, missing, missing_nodes: nodes, answers });
        id
    }

    /// Takes answers in; what other nodes asked and is answered now leaves by `out`.
    pub(super) fn tell(&mut self, answered: &mut Vec<Answered>, out: &mut Vec<ToCluster>) {
        for answered in answered.drain(..) {
            // A late answer finds nobody.
            let id = match answered {
                Answered::Core { id, answer } => {
                    let Some(gather) = self.gathers.get_mut(&id) else { continue };
                    gather.answers.push(answer);
                    gather.missing = gather.missing.saturating_sub(1);
                    id
                }
                Answered::Nodes { id, count } => {
                    let Some(gather) = self.gathers.get_mut(&id) else { continue };
                    gather.missing_nodes += i64::from(count) - 1;
                    id
                }
                Answered::Node { id, answers } => {
                    let Some(gather) = self.gathers.get_mut(&id) else { continue };
                    gather.answers.extend(answers);
                    gather.missing_nodes -= 1;
                    id
                }
                Answered::NodesGone => {
                    self.end_waiting_for_nodes(None, out);
                    continue;
                }
            };
            self.finish(id, out);
        }
    }

    /// Wakes the asker, or writes to it, if the answer is whole.
    fn finish(&mut self, id: u32, out: &mut Vec<ToCluster>) {
        let Some(gather) = self.gathers.get_mut(&id).filter(|gather| gather.is_whole()) else {
            return;
        };
        match &mut gather.asker {
            Asker::Session(waker) => {
                if let Some(waker) = waker.take() {
                    waker.wake();
                }
            }
            Asker::Node(link, number) => {
                let answers = gather.answers.drain(..).map(Into::into).collect();
                let body = Body::Answer { id: *number, answers };
                out.push(ToCluster::Reply { to: *link, body });
                self.end(id);
            }
        }
    }

    /// Goes on without those nodes that have not answered: all, or those asked before `limit`.
    fn end_waiting_for_nodes(&mut self, limit: Option<Moment>, out: &mut Vec<ToCluster>) {
        let late = |gather: &Gather| {
            gather.missing_nodes > 0 && limit.is_none_or(|limit| gather.since <= limit)
        };
        let gathers = self.gathers.iter_mut().filter(|(_, gather)| late(gather));
        let ended: Vec<u32> = gathers
            .map(|(id, gather)| {
                gather.missing_nodes = 0;
                *id
            })
            .collect();
        ended.into_iter().for_each(|id| self.finish(id, out));
    }

    pub(super) fn expire(&mut self, now: Moment, out: &mut Vec<ToCluster>) {
        if let Some(limit) = now.0.checked_sub(NODES_TIME_MS)
            && !self.gathers.is_empty()
        {
            self.end_waiting_for_nodes(Some(Moment(limit)), out);
        }
    }

    /// All answers, once there are none missing.
    pub fn poll(&mut self, id: u32, context: &Context<'_>) -> Poll<Vec<Answer>> {
        let Some(gather) = self.gathers.get_mut(&id) else { return Poll::Ready(Vec::new()) };
        if gather.is_whole() {
            return Poll::Ready(std::mem::take(&mut gather.answers));
        }
        gather.asker = Asker::Session(Some(context.waker().clone()));
        Poll::Pending
    }

    /// Nobody waits any more.
    pub fn end(&mut self, id: u32) {
        if let Some(Gather { asker: Asker::Node(..), .. }) = self.gathers.remove(&id) {
            self.of_nodes = self.of_nodes.saturating_sub(1);
        }
    }
}

impl<K: Kernel> Core<K> {
    /// Asks all cores, this one included, and all nodes; the number to `poll` and to `end` it by.
    pub fn begin_gather(&mut self, question: Question) -> u32 {
        let nodes = self.shard.is_cluster_up();
        let (id, question) = self.ask_cores(Asker::Session(None), question, i64::from(nodes));
        if nodes {
            self.shard.outbox.cluster.push(ToCluster::Ask { id, question });
        }
        id
    }

    /// A question of another node, for all cores of this one.
    pub fn begin_node_question(&mut self, from: LinkId, number: u32, question: Option<Question>) {
        match question.filter(|_| self.gathers.of_nodes < NODE_QUESTIONS_MAX) {
            Some(question) => {
                let (id, _) = self.ask_cores(Asker::Node(from, number), question, 0);
                self.gathers.finish(id, &mut self.shard.outbox.cluster);
            }
            // It does not know the app: it has nothing of it.
            None => {
                let body = Body::Answer { id: number, answers: Vec::new() };
                self.shard.outbox.cluster.push(ToCluster::Reply { to: from, body });
            }
        }
    }

    fn ask_cores(&mut self, asker: Asker, question: Question, nodes: i64) -> (u32, Arc<Question>) {
        self.catch_up();
        let cores = self.mailbox.cores();
        let own = self.shard.answer(&question);
        let now = self.shard.now();
        let id = self.gathers.begin(asker, now, own, usize::from(cores) - 1, nodes);
        let question = Arc::new(question);
        let from = self.mailbox.core();
        for to in (0..cores).filter(|to| *to != from) {
            // Behind what the shard has to say: a question must not overtake the publish it asks about.
            let mail = Mail::Ask { id, from, question: question.clone() };
            self.shard.outbox.mails.push((to, mail));
        }
        (id, question)
    }
}
