//! Questions of the HTTP API and of operators to other cores and nodes, and questions that other nodes ask this one.
//! PURE.
//!
//! Owns the answers until they are complete. Nodes have `NODES_TIME_MS` to answer: after that, the answers of the
//! others are the result. Limits: one question for each session, `NODE_QUESTIONS_MAX` of other nodes,
//! `CALLER_QUESTIONS_MAX` of callers that poll (operators). The answers of other nodes have `SESSION_BYTES_MAX` for all
//! sessions and `CALLER_BYTES_MAX` for all callers; those of this node's cores are as large as what the cores have.
//! Cost: one entry of a table and one list for a question, and a step for each row of another node's answer.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::kernel::SessionKey;
use crate::clock::Moment;
use crate::metrics::CoreMetrics;
use crate::shard::{
    Answer, ApiMessage, ClusterOutbox, GatherAnswer, ORDER_TIME_MS, SessionId, ToCluster,
};

/// Time for the answers of other nodes, in milliseconds.
const NODES_TIME_MS: u64 = 1_500;
const _: () = assert!(ORDER_TIME_MS < NODES_TIME_MS, "a node that asks has the answer in time");
/// Questions of other nodes in progress at a time. A further one is not answered: the node that asks goes on without
/// this one.
const NODE_QUESTIONS_MAX: usize = 1_024;

/// Questions of callers in progress at a time. A caller checks `has_room_for_caller_question` first.
const CALLER_QUESTIONS_MAX: usize = 16;

/// Bytes of the answers of other nodes to all questions of sessions. Over it an answer is discarded, as if its node had
/// not answered in time. One node answers with 16 MiB at most (`cluster/envelope.rs`).
const SESSION_BYTES_MAX: usize = 256 << 20;
/// The same to all questions of callers. Over it the rows of an answer are left out and counted.
const CALLER_BYTES_MAX: usize = 32 << 20;

/// Questions by number. Each question has a new number, so that a late answer does not count for a later question.
pub struct Gathers {
    gathers: HashMap<u32, Gather, foldhash::fast::RandomState>,
    next: u32,
    /// Sessions whose answers became complete since `next_complete_session` returned them last, with the number of the
    /// question.
    complete: VecDeque<(SessionKey, u32)>,
    /// Of `gathers`, questions of other nodes.
    node_question_count: usize,
    /// Of `gathers`, questions of callers.
    caller_question_count: usize,
    /// Bytes of the answers of other nodes.
    session_bytes: usize,
    caller_bytes: usize,
    metrics: Arc<CoreMetrics>,
    now: Moment,
}

struct Gather {
    asker: Asker,
    since: Moment,
    /// Cores that have not answered.
    missing: usize,
    /// Other nodes that have not answered; the reply of Redis adds how many there are.
    missing_nodes: i64,
    /// It was sent to other nodes, and its end was not counted yet.
    is_to_nodes: bool,
    answers: Vec<Answer>,
    /// Of `answers`, bytes of those of other nodes.
    node_bytes: usize,
}

/// The asker of a question.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// A session of this core; `next_complete_session` returns it.
    Session(SessionKey),
    /// A session of another node, and the number of the question there.
    Node(SessionId, u32),
    /// A caller that polls for the answers.
    Caller,
}

impl Gather {
    fn is_complete(&self) -> bool {
        self.missing == 0 && self.missing_nodes <= 0
    }
}

impl Gathers {
    /// `metrics` counts the questions between nodes.
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

    /// Adds answers. Complete answers to other nodes leave by `out`.
    pub(super) fn note_answers(
        &mut self,
        answered: &mut Vec<GatherAnswer>,
        now: Moment,
        out: &mut ClusterOutbox,
    ) {
        self.now = now;
        for answered in answered.drain(..) {
            // A late answer has no question.
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
                    self.add_node_answers(id, answers);
                    id
                }
                GatherAnswer::NodesGone => {
                    self.end_waiting_for_nodes(None, out);
                    continue;
                }
            };
            self.finish(id, out);
        }
    }

    fn add_node_answers(&mut self, id: u32, answers: Vec<Answer>) {
        let Some(gather) = self.gathers.get_mut(&id) else { return };
        if let Asker::Node(..) = gather.asker {
            // No other node was asked for it.
            return;
        }
        gather.missing_nodes -= 1;
        let is_caller = matches!(gather.asker, Asker::Caller);
        let (held, held_max) = match is_caller {
            true => (&mut self.caller_bytes, CALLER_BYTES_MAX),
            false => (&mut self.session_bytes, SESSION_BYTES_MAX),
        };
        for mut answer in answers {
            let mut bytes = answer.kept_bytes();
            if *held + bytes > held_max {
                self.metrics.gathered_discarded.add(1);
                let Answer::Operator(operator) = &mut answer else {
                    // The result is that of the others, as after the time of a node.
                    let is_counted = std::mem::take(&mut gather.is_to_nodes);
                    self.metrics.cluster.questions.incomplete.add(u64::from(is_counted));
                    continue;
                };
                operator.leave_rows_out();
                bytes = answer.kept_bytes();
            }
            *held += bytes;
            gather.node_bytes += bytes;
            gather.answers.push(answer);
        }
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
        if gather.missing_nodes <= 0 && std::mem::take(&mut gather.is_to_nodes) {
            let questions = &self.metrics.cluster.questions;
            questions.resolved.add(1);
            questions.time_ms.observe(self.now.0.saturating_sub(gather.since.0));
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
                if std::mem::take(&mut gather.is_to_nodes) {
                    questions.incomplete.add(1);
                    questions.time_ms.observe(now.0.saturating_sub(gather.since.0));
                }
                *id
            })
            .collect();
        debug_assert!(limit.is_some() || !self.gathers.values().any(late), "none waits for nodes");
        ended.into_iter().for_each(|id| self.finish(id, out));
    }

    pub(super) fn expire(&mut self, now: Moment, out: &mut ClusterOutbox) {
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

    /// Sessions with complete answers are waiting.
    pub(super) fn has_complete_sessions(&self) -> bool {
        !self.complete.is_empty()
    }

    /// All answers if none is missing. That ends the question.
    pub fn take_answers(&mut self, id: u32) -> Option<Vec<Answer>> {
        self.gathers.get(&id).filter(|gather| gather.is_complete())?;
        self.end(id)
    }

    /// Ends a question. Returns the answers that have arrived.
    pub fn end(&mut self, id: u32) -> Option<Vec<Answer>> {
        let gather = self.gathers.remove(&id)?;
        self.metrics.gathers.set(self.gathers.len() as u64);
        // Ended although a node has not answered: the cores were silent, too.
        self.metrics.cluster.questions.incomplete.add(u64::from(gather.is_to_nodes));
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
mod tests {
    use super::*;
    use crate::shard::{NodeChannelRow, NodeRows, OperatorAnswer, OperatorOutcome};
    use crate::slot::Slot;

    #[test]
    fn questions_of_callers_have_a_bound_and_an_ended_one_makes_room() {
        let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
        let begin = |gathers: &mut Gathers| {
            assert!(gathers.has_room_for_caller_question());
            gathers.begin(Asker::Caller, Moment::default(), None, 1, 0)
        };
        let ids: Vec<u32> = (0..CALLER_QUESTIONS_MAX).map(|_| begin(&mut gathers)).collect();
        assert!(!gathers.has_room_for_caller_question());
        assert!(gathers.has_room_for_node_question(), "callers do not use the room of nodes");
        for id in ids {
            gathers.end(id);
            assert!(gathers.end(id).is_none(), "it counts once");
        }
        assert_eq!(gathers.caller_question_count, 0);
        begin(&mut gathers);
        let metrics = &gathers.metrics;
        assert_eq!((metrics.gathers.get(), metrics.gathers.peak()), (1, 16), "now, and the most");
        assert_eq!(metrics.gathers_refused.get(), 1);
    }

    fn rows(channels: usize) -> Answer {
        let name: Box<str> = "c".repeat(100).into();
        let row = NodeChannelRow { name, subscribers: 2, users: 0 };
        let rows = NodeRows { channels: vec![row; channels], ..NodeRows::default() };
        let outcome = OperatorOutcome::Rows(rows);
        Answer::Operator(Box::new(OperatorAnswer {
            node: 2,
            host: "web-2".into(),
            core: 0,
            outcome,
        }))
    }

    #[test]
    fn answers_of_nodes_over_their_memory_are_counted_and_an_operator_still_has_the_sums() {
        const ROWS: usize = 100_000;
        let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
        let now = Moment::default();
        let id = gathers.begin(Asker::Caller, now, None, 0, 1);
        let answers = (0..4).map(|_| GatherAnswer::Node { id, answers: vec![rows(ROWS)] });
        let mut answered: Vec<_> = answers.collect();
        answered.push(GatherAnswer::Nodes { id, count: 4 });
        let out = &mut ClusterOutbox::default();
        gathers.note_answers(&mut answered, now, out);
        let metrics = gathers.metrics.clone();
        let held = metrics.gathered_bytes.get();
        assert!(held <= CALLER_BYTES_MAX as u64 && held > CALLER_BYTES_MAX as u64 / 2, "{held}");
        let sums =
            gathers.take_answers(id).expect("complete").into_iter().map(|answer| match answer {
                Answer::Operator(answer) => match answer.outcome {
                    OperatorOutcome::Rows(rows) => {
                        (rows.channels.len() as u64 + rows.left_out, rows.left_out_subscribers)
                    }
                    _ => panic!("rows"),
                },
                _ => panic!("of an operator"),
            });
        let sums: Vec<(u64, u64)> = sums.collect();
        let cut = (ROWS as u64, 2 * ROWS as u64);
        assert_eq!(sums, [(ROWS as u64, 0), (ROWS as u64, 0), cut, cut]);
        assert_eq!((metrics.gathered_discarded.get(), metrics.gathered_bytes.get()), (2, 0));
    }

    #[test]
    fn an_answer_to_a_session_without_room_counts_as_one_that_did_not_come_in_time() {
        let mut gathers = Gathers::new(Arc::new(CoreMetrics::new(1)));
        let now = Moment::default();
        let key = SessionKey { slot: Slot::FIRST, generation: 1 };
        let id = gathers.begin(Asker::Session(key), now, None, 0, 1);
        // As if other sessions had the rest.
        gathers.session_bytes = SESSION_BYTES_MAX - 100;
        let users = |bytes| Answer::Users(vec!["u".repeat(bytes).into()]);
        let mut answered = vec![
            GatherAnswer::Nodes { id, count: 2 },
            GatherAnswer::Node { id, answers: vec![users(100)] },
            GatherAnswer::Node { id, answers: vec![users(10)] },
        ];
        gathers.note_answers(&mut answered, now, &mut ClusterOutbox::default());
        assert_eq!(gathers.next_complete_session(), Some((key, id)));
        let metrics = gathers.metrics.clone();
        assert_eq!(
            (metrics.gathered_discarded.get(), metrics.cluster.questions.incomplete.get()),
            (1, 1)
        );
        gathers.session_bytes -= SESSION_BYTES_MAX - 100;
        assert_eq!(gathers.take_answers(id).map(|answers| answers.len()), Some(1));
    }
}
