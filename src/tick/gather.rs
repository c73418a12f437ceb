//! Questions of the HTTP API under way to the other cores, and to the other nodes; and questions that other nodes have
//! asked this one. PURE.
//!
//! Bound: other nodes have `NODES_TIME_MS`. Whoever has not answered by then is dead or nearly so, and what the others
//! said is the answer.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::kernel::SessionKey;
use crate::clock::Moment;
use crate::shard::{Answer, Answered, ApiMessage, SessionId, ToCluster};

/// Time for the answers of other nodes, in milliseconds.
const NODES_TIME_MS: u64 = 1_500;
/// Questions of other nodes under way at a time. One more is left unanswered: its asker goes on without.
const NODE_QUESTIONS_MAX: usize = 1_024;

/// By number. Numbers are not used twice: a late answer must not count for a later question.
#[derive(Default)]
pub struct Gathers {
    gathers: HashMap<u32, Gather, foldhash::fast::RandomState>,
    next: u32,
    /// Sessions whose answers are whole since they were taken last, with the number of the question.
    whole: VecDeque<(SessionKey, u32)>,
    /// Of `gathers`, questions of other nodes.
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

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// A session of this core; it is told by `take_whole`.
    Session(SessionKey),
    /// A session of another node, by its link and its number there.
    Node(SessionId, u32),
    /// A caller that looks for the answers by itself.
    Caller,
}

impl Gather {
    fn is_whole(&self) -> bool {
        self.missing == 0 && self.missing_nodes <= 0
    }
}

impl Gathers {
    pub(super) fn takes_node_questions(&self) -> bool {
        self.of_nodes < NODE_QUESTIONS_MAX
    }

    pub(super) fn begin(
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
        if let Asker::Session(_) = asker {
            // On one core alone it is whole already.
            self.finish(id, &mut Vec::new());
        }
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

    /// Notes for the asker, or writes to it, that the answer is whole, if it is.
    pub(super) fn finish(&mut self, id: u32, out: &mut Vec<ToCluster>) {
        let Some(gather) = self.gathers.get_mut(&id).filter(|gather| gather.is_whole()) else {
            return;
        };
        match &gather.asker {
            Asker::Session(key) => self.whole.push_back((*key, id)),
            Asker::Caller => {}
            Asker::Node(session, number) => {
                let answers = gather.answers.drain(..).map(Into::into).collect();
                let message = ApiMessage::Answer { id: *number, answers };
                out.push(ToCluster::Reply { to: *session, message: message.into() });
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

    /// The next session whose answers are whole, with the number of its question.
    pub(super) fn take_whole(&mut self) -> Option<(SessionKey, u32)> {
        self.whole.pop_front()
    }

    /// Sessions wait whose answers are whole.
    pub(super) fn has_whole(&self) -> bool {
        !self.whole.is_empty()
    }

    /// All answers, if there are none missing. The question ends with them.
    pub fn take(&mut self, id: u32) -> Option<Vec<Answer>> {
        self.gathers.get(&id).filter(|gather| gather.is_whole())?;
        self.end(id)
    }

    /// Nobody waits any more. Returns the answers that there are.
    pub fn end(&mut self, id: u32) -> Option<Vec<Answer>> {
        let gather = self.gathers.remove(&id)?;
        if let Asker::Node(..) = gather.asker {
            self.of_nodes = self.of_nodes.saturating_sub(1);
        }
        Some(gather.answers)
    }
}
