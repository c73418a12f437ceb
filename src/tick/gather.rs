//! Questions of the HTTP API and of operators to other cores and nodes, and questions that other nodes ask this one.
//! PURE.
//!
//! Owns the answers until they are complete, and does not read them. Nodes have `NODES_TIME_MS` to answer: after that,
//! the answers of the others are the result.
//!
//! Limits: one question for each session, `NODE_QUESTIONS_MAX` of other nodes, `CALLER_QUESTIONS_MAX` of callers that
//! poll (operators). The answers of other nodes have `SESSION_BYTES_MAX` for all sessions and `CALLER_BYTES_MAX` for
//! all callers, and are charged to the memory budget; those of this node's cores are as large as what the cores have.
//! Cost: one entry of a table and one list for a question, and a step for each row of another node's answer.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::kernel::SessionKey;
use crate::clock::Moment;
use crate::metrics::{CoreMetrics, QuestionMetrics};
use crate::shard::{
    Answer, ApiMessage, ClusterOutbox, GatherAnswer, ORDER_TIME_MS, SessionId, Shard, ToCluster,
};

/// Time for the answers of other nodes, in milliseconds.
const NODES_TIME_MS: u64 = 1_500;
const _: () = assert!(ORDER_TIME_MS < NODES_TIME_MS, "a node that asks has the answer in time");
/// Questions of other nodes in progress at a time. A further one is not answered: the node that asks waits for
/// `NODES_TIME_MS`, counts the question as incomplete, and continues without this node.
const NODE_QUESTIONS_MAX: usize = 1_024;

/// Questions of callers in progress at a time. A caller checks `has_room_for_caller_question` first.
const CALLER_QUESTIONS_MAX: usize = 16;

/// Bytes of the answers of other nodes to all questions of sessions. Over it all answers of a node are discarded, as if
/// it had not answered in time. A message of a node has 16 MiB at most (`cluster/envelope.rs`).
const SESSION_BYTES_MAX: usize = 256 << 20;
/// The same for the answers to questions of callers. Over it all answers of a node are discarded; their rows are cut
/// before, at `CALLER_ROWS_BYTES_MAX`.
const CALLER_BYTES_MAX: usize = 32 << 20;
/// Bytes of these that rows and details of connections may use. Rows beyond it are left out and counted.
const CALLER_ROWS_BYTES_MAX: usize = 28 << 20;

/// Questions by number. Each question has a new number, so that a late answer does not count for a later question.
pub struct Gathers {
    gathers: HashMap<u32, Gather, foldhash::fast::RandomState>,
    next: u32,
    /// Sessions whose answers became complete since `next_complete_session` returned them last, with the number of the
    /// question.
    complete: VecDeque<(SessionKey, u32)>,
    /// How many of `gathers` other nodes have asked.
    node_question_count: usize,
    /// How many of `gathers` callers have asked.
    caller_question_count: usize,
    /// Bytes of other nodes' answers to questions of sessions, and to those of callers.
    session_bytes: usize,
    caller_bytes: usize,
    metrics: Arc<CoreMetrics>,
    now: Moment,
}

struct Gather {
    asker: Asker,
    since: Moment,
    /// Number of this node's cores that have not answered.
    missing: usize,
    /// Other nodes that have not answered; the reply of Redis adds how many there are.
    missing_nodes: i64,
    /// The question was sent to other nodes, and its end is not counted yet.
    is_to_nodes: bool,
    answers: Vec<Answer>,
    /// Bytes of other nodes' answers in `answers`.
    node_bytes: usize,
}

/// Who has asked a question, and so receives its answers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// A session of this core; `next_complete_session` returns it.
    Session(SessionKey),
    /// A session of another node, and the number of the question there.
    Node(SessionId, u32),
    /// A caller that polls for the answers with `take_answers`.
    Caller,
}

impl Gather {
    fn is_complete(&self) -> bool {
        self.missing == 0 && self.missing_nodes <= 0
    }

    /// Counts the end of a question to other nodes, once: each has one of the two results, and a time.
    fn count_end(&mut self, questions: &QuestionMetrics, is_whole: bool, now: Moment) {
        if std::mem::take(&mut self.is_to_nodes) {
            let result = if is_whole { &questions.resolved } else { &questions.incomplete };
            result.add(1);
            questions.time_ms.observe(now.0.saturating_sub(self.since.0));
        }
    }
}

impl Gathers {
    pub(super) fn new(metrics: Arc<CoreMetrics>) -> Self {
        Self {
            gathers: HashMap::default(),
            next: 0,
            complete: VecDeque::new(),
            node_question_count: 0,
            caller_question_count: 0,
            session_bytes: 0,
            caller_bytes: 0,
            metrics,
            now: Moment::default(),
        }
    }

    /// Whether there is room for one more question of another node. If not, that is counted.
    pub(super) fn has_room_for_node_question(&self) -> bool {
        self.has_room(self.node_question_count < NODE_QUESTIONS_MAX)
    }

    /// Whether there is room for one more question of a caller. If not, that is counted.
    #[must_use]
    pub fn has_room_for_caller_question(&self) -> bool {
        self.has_room(self.caller_question_count < CALLER_QUESTIONS_MAX)
    }

    fn has_room(&self, has_room: bool) -> bool {
        self.metrics.gathers_refused.add(u64::from(!has_room));
        has_room
    }

    pub(super) fn begin(
        &mut self,
        asker: Asker,
        since: Moment,
        own: Option<Answer>,
        missing: usize,
        nodes: i64,
    ) -> u32 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let is_of_node = matches!(asker, Asker::Node(..));
        self.node_question_count += usize::from(is_of_node);
        self.caller_question_count += usize::from(matches!(asker, Asker::Caller));
        let questions = &self.metrics.cluster.questions;
        let is_to_nodes = nodes > 0 && !is_of_node;
        questions.received.add(u64::from(is_of_node));
        questions.sent.add(u64::from(is_to_nodes));
        let answers: Vec<_> = own.into_iter().collect();
        // Numbers repeat after 2^32 questions. None waits so long: nodes have `NODES_TIME_MS`, and cores of this node
        // answer in one of their next ticks, or a few of them.
        let missing_nodes = nodes;
        let node_bytes = 0;
        let gather =
            Gather { asker, since, missing, missing_nodes, is_to_nodes, answers, node_bytes };
        debug_assert!(!self.gathers.contains_key(&id), "numbers repeat after 2^32 questions");
        debug_assert!(
            self.node_question_count <= NODE_QUESTIONS_MAX,
            "`has_room_for_node_question` was asked"
        );
        debug_assert!(
            self.caller_question_count <= CALLER_QUESTIONS_MAX,
            "callers ask whether there is room"
        );
        self.gathers.insert(id, gather);
        self.metrics.gathers.set(self.gathers.len() as u64);
        if let Asker::Session(_) = asker {
            // With one core the answers are complete at once.
            self.finish(id, &mut ClusterOutbox::default());
        }
        id
    }

    /// Adds answers that the shard has received. Complete answers to other nodes leave by its outbox.
    pub(super) fn note_answers(&mut self, shard: &mut Shard) {
        self.now = shard.now();
        let mut answered = std::mem::take(&mut shard.outbox.answered);
        for answered in answered.drain(..) {
            // A late answer has no question any longer.
            let id = match answered {
                GatherAnswer::Core { id, answer } => {
                    let Some(gather) = self.gathers.get_mut(&id) else { continue };
                    debug_assert!(gather.missing > 0, "a core answers a question once");
                    gather.answers.push(answer);
                    gather.missing = gather.missing.saturating_sub(1);
                    id
                }
                GatherAnswer::Nodes { id, count } => {
                    let Some(gather) = self.gathers.get_mut(&id) else { continue };
                    gather.missing_nodes += i64::from(count) - 1;
                    id
                }
                GatherAnswer::Node { id, answers } => {
                    self.metrics.cluster.questions.answers_received.add(1);
                    self.add_node_answers(id, answers, shard);
                    id
                }
                GatherAnswer::NodesGone => {
                    self.end_waiting_for_nodes(None, &mut shard.outbox.cluster);
                    continue;
                }
            };
            self.finish(id, &mut shard.outbox.cluster);
        }
        debug_assert!(shard.outbox.answered.is_empty(), "to note an answer causes none");
        shard.outbox.answered = answered;
    }

    /// Adds the answers of all cores of a node, or none: a part would look like the whole.
    fn add_node_answers(&mut self, id: u32, mut answers: Vec<Answer>, shard: &mut Shard) {
        let Some(gather) = self.gathers.get_mut(&id) else { return };
        let (held, others, rows_max, most) = match gather.asker {
            Asker::Session(_) => {
                (&mut self.session_bytes, self.caller_bytes, SESSION_BYTES_MAX, SESSION_BYTES_MAX)
            }
            Asker::Caller => {
                let (rows_max, most) = (CALLER_ROWS_BYTES_MAX, CALLER_BYTES_MAX);
                (&mut self.caller_bytes, self.session_bytes, rows_max, most)
            }
            // A question of another node is not passed on, so no node answers it.
            Asker::Node(..) => return,
        };
        gather.missing_nodes -= 1;
        let (mut after, mut taken, mut shortened, mut is_lost) = (*held, 0, 0, false);
        for answer in &mut answers {
            let bytes = answer.kept_bytes();
            if after + bytes <= rows_max && shard.reserve_for_answers(after + others, bytes) {
                after += bytes;
                taken += bytes;
                continue;
            }
            let Answer::Operator(operator) = answer else {
                is_lost = true;
                break;
            };
            shortened += u64::from(operator.shorten());
            let bytes = answer.kept_bytes();
            if !shard.reserve_for_answers(after + others, bytes) {
                is_lost = true;
                break;
            }
            after += bytes;
            taken += bytes;
        }
        if is_lost || after > most {
            shard.release_answers(taken);
            self.metrics.gathered_discarded.add(1);
            // The result is that of the others, as after the time of a node.
            let is_whole = false;
            return gather.count_end(&self.metrics.cluster.questions, is_whole, self.now);
        }
        self.metrics.gathered_discarded.add(shortened);
        debug_assert!(after >= *held, "answers add bytes");
        debug_assert!(after <= most, "over it the node would have been left out");
        gather.node_bytes += after - *held;
        *held = after;
        gather.answers.append(&mut answers);
        self.note_bytes();
    }

    fn note_bytes(&self) {
        self.metrics.gathered_bytes.set((self.session_bytes + self.caller_bytes) as u64);
    }

    /// If the answers are complete, notes that for the session, or sends them to the node that asked.
    pub(super) fn finish(&mut self, id: u32, out: &mut ClusterOutbox) {
        self.count_answered_by_nodes(id);
        let Some(gather) = self.gathers.get_mut(&id).filter(|gather| gather.is_complete()) else {
            return;
        };
        debug_assert!(!gather.is_to_nodes, "the answer of the nodes was counted");
        match &gather.asker {
            Asker::Session(key) => self.complete.push_back((*key, id)),
            Asker::Caller => {}
            Asker::Node(session, number) => {
                let answers = gather.answers.drain(..).map(Into::into).collect();
                let message = ApiMessage::Answer { id: *number, answers };
                out.push(ToCluster::Reply { to: *session, message: message.into() });
                self.end(id);
            }
        }
    }

    /// Counts a question to other nodes once, when none of them is waited for any longer.
    fn count_answered_by_nodes(&mut self, id: u32) {
        let Some(gather) = self.gathers.get_mut(&id) else { return };
        if gather.missing_nodes <= 0 {
            let is_whole = true;
            gather.count_end(&self.metrics.cluster.questions, is_whole, self.now);
        }
    }

    /// Ends the wait for nodes that have not answered: for all questions, or for those asked before `limit`.
    fn end_waiting_for_nodes(&mut self, limit: Option<Moment>, out: &mut ClusterOutbox) {
        let late = |gather: &Gather| {
            gather.missing_nodes > 0 && limit.is_none_or(|limit| gather.since <= limit)
        };
        let questions = &self.metrics.cluster.questions;
        let now = self.now;
        let gathers = self.gathers.iter_mut().filter(|(_, gather)| late(gather));
        let ended: Vec<u32> = gathers
            .map(|(id, gather)| {
                gather.missing_nodes = 0;
                let is_whole = false;
                gather.count_end(questions, is_whole, now);
                *id
            })
            .collect();
        debug_assert!(limit.is_some() || !self.gathers.values().any(late), "none waits for nodes");
        ended.into_iter().for_each(|id| self.finish(id, out));
    }

    pub(super) fn expire(&mut self, now: Moment, out: &mut ClusterOutbox) {
        debug_assert!(now >= self.now, "the clock of a shard does not run backwards");
        self.now = now;
        if let Some(limit) = now.0.checked_sub(NODES_TIME_MS)
            && !self.gathers.is_empty()
        {
            self.end_waiting_for_nodes(Some(Moment(limit)), out);
        }
    }

    /// The next session whose answers are complete, with the number of its question.
    pub(super) fn next_complete_session(&mut self) -> Option<(SessionKey, u32)> {
        self.complete.pop_front()
    }

    pub(super) fn has_complete_sessions(&self) -> bool {
        !self.complete.is_empty()
    }

    /// Ends a question and returns all answers, if none is missing.
    pub fn take_answers(&mut self, id: u32) -> Option<Vec<Answer>> {
        self.gathers.get(&id).filter(|gather| gather.is_complete())?;
        self.end(id)
    }

    /// Ends a question, complete or not. Returns the answers that have arrived; `None` if there is no such question.
    pub fn end(&mut self, id: u32) -> Option<Vec<Answer>> {
        let mut gather = self.gathers.remove(&id)?;
        debug_assert!(
            self.node_question_count + self.caller_question_count <= self.gathers.len() + 1,
            "the questions of each kind are some of all"
        );
        self.metrics.gathers.set(self.gathers.len() as u64);
        // Ended although a node has not answered: the cores were silent, too.
        let is_whole = false;
        gather.count_end(&self.metrics.cluster.questions, is_whole, self.now);
        match gather.asker {
            Asker::Node(..) => {
                debug_assert!(self.node_question_count > 0, "`begin` has counted it");
                self.node_question_count = self.node_question_count.saturating_sub(1);
            }
            Asker::Caller => {
                debug_assert!(self.caller_question_count > 0, "`begin` has counted it");
                self.caller_question_count = self.caller_question_count.saturating_sub(1);
                debug_assert!(self.caller_bytes >= gather.node_bytes, "they were added");
                self.caller_bytes = self.caller_bytes.saturating_sub(gather.node_bytes);
            }
            Asker::Session(_) => {
                debug_assert!(self.session_bytes >= gather.node_bytes, "they were added");
                self.session_bytes = self.session_bytes.saturating_sub(gather.node_bytes);
            }
        }
        if gather.node_bytes > 0 {
            self.note_bytes();
        }
        debug_assert!(
            !self.gathers.is_empty() || self.session_bytes + self.caller_bytes == 0,
            "no question, no answers"
        );
        Some(gather.answers)
    }
}

#[cfg(test)]
mod tests;
