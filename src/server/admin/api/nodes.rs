//! Questions of the admin API to the other nodes of the cluster, and which of them have not answered.
//!
//! Owns no state between requests. The first worker sends the question over its cluster session, and collects the
//! answers (`tick/gather.rs`). A node that does not answer within the time of the gather is named: of the nodes that
//! this one sees, it is the one whose answer is missing. Does not judge what a node answers.
//! Limits: those of `shard/operator.rs` for the answer of a core, and the nodes of a cluster. Cost: one message through
//! Redis, an answer of each core of each node, and one question to the workers of this node.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::overview;
use crate::http1::response::Response;
use crate::operator_requests::{OperatorReply, OperatorRequest};
use crate::server::admin::routes::AdminState;
use crate::shard::{
    Answer, Inspection, NodeId, NodeRows, OperatorAnswer, OperatorOutcome, OperatorQuestion,
};

/// The answers that came within the time of the gather, and the nodes whose answers did not.
#[derive(Debug, Default)]
pub(super) struct NodeAnswers {
    own_node: u64,
    /// Each core of a node answers for itself, so a node has several.
    answers: Vec<OperatorAnswer>,
    /// Nodes that send heartbeats and have not answered, and the seconds since the last heartbeat of each.
    silent_nodes: BTreeMap<u64, u32>,
    /// The session of the first worker, which asks, is down: no node was asked.
    is_session_down: bool,
}

/// As JSON and the log name it: 16 hexadecimal digits, because JavaScript cannot hold 64 bits in a number.
pub(super) fn node_name(node: u64) -> String {
    format!("{node:016x}")
}

impl AdminState {
    /// `None`: this node is alone.
    ///
    /// # Errors
    /// See `Questions::ask`.
    pub(super) async fn ask_nodes(
        &self,
        question: &OperatorQuestion,
    ) -> Result<Option<NodeAnswers>, Response> {
        let Some(redis) = &self.shared().redis else { return Ok(None) };
        let ask = || OperatorRequest::OtherNodes(question.clone());
        let replies = self.questions.ask(&self.sources, 0..1, ask).await?;
        let answers = replies.into_iter().filter_map(|(_, reply)| match reply {
            OperatorReply::Answers(answers) => Some(answers),
            _ => None,
        });
        let answers = answers.flatten().filter_map(|answer| match answer {
            Answer::Operator(answer) => Some(*answer),
            _ => None,
        });
        let answers: Vec<OperatorAnswer> = answers.collect();
        let sessions = self.inspect(&Inspection::Nodes).await?;
        let is_session_down =
            sessions.iter().any(|(worker, found)| *worker == 0 && !found.findings.is_session_up);
        let mut silent_nodes = BTreeMap::new();
        for (NodeId(node), seconds) in sessions.iter().flat_map(|(_, found)| &found.findings.nodes)
        {
            let last = silent_nodes.entry(*node).or_insert(*seconds);
            *last = (*last).min(*seconds);
        }
        silent_nodes.retain(|node, _| !answers.iter().any(|answer| answer.node == *node));
        Ok(Some(NodeAnswers { own_node: redis.node.0, answers, silent_nodes, is_session_down }))
    }
}

impl NodeAnswers {
    /// A node has several, one of each core.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u64, &NodeRows)> {
        self.answers.iter().filter_map(|answer| match &answer.outcome {
            OperatorOutcome::Rows(rows) => Some((answer.node, rows)),
            _ => None,
        })
    }

    pub(super) fn answers(&self) -> &[OperatorAnswer] {
        &self.answers
    }

    pub(super) fn host(&self, node: u64) -> Option<&str> {
        self.answers.iter().find(|answer| answer.node == node).map(|answer| &*answer.host)
    }

    /// `false`: a connection that no node has shown may be open on a node that is missing.
    pub(super) fn is_complete(&self) -> bool {
        let is_answered = |answer: &OperatorAnswer| !answer.is_busy() && !answer.had_no_memory();
        !self.is_session_down
            && self.silent_nodes.is_empty()
            && self.answers.iter().all(is_answered)
    }

    /// `nodes` has this node first, then those that have answered. `silent_nodes` has the others.
    pub(super) fn add_nodes_to(&self, answer: &mut Value) {
        let mut nodes = BTreeMap::new();
        for answer in &self.answers {
            let (_, is_busy, had_no_memory) =
                nodes.entry(answer.node).or_insert((&answer.host, false, false));
            *is_busy |= answer.is_busy();
            *had_no_memory |= answer.had_no_memory();
        }
        let own =
            json!({ "node": node_name(self.own_node), "host": overview::host(), "own": true });
        let others = nodes.iter().map(|(node, (host, is_busy, had_no_memory))| {
            let mut row = json!({ "node": node_name(*node), "host": host });
            if *is_busy {
                row["busy"] = json!(true);
            }
            if *had_no_memory {
                row["no_memory"] = json!(true);
            }
            row
        });
        let silent_nodes = self.silent_nodes.iter();
        let silent_nodes = silent_nodes.map(
            |(node, seconds)| json!({ "node": node_name(*node), "seen_seconds_ago": seconds }),
        );
        answer["nodes"] = std::iter::once(own).chain(others).collect();
        answer["silent_nodes"] = silent_nodes.collect();
        if self.is_session_down {
            answer["session_down"] = json!(true);
        }
    }

    /// Which nodes have not answered, as a sentence without its stop.
    pub(super) fn missing_nodes_text(&self) -> String {
        if self.is_session_down {
            return "The connection of this node to Redis is down, so no other node was asked"
                .to_owned();
        }
        let silent_nodes = self.silent_nodes.iter().map(|(node, seconds)| {
            format!("{} (last heartbeat {seconds} s ago)", node_name(*node))
        });
        let refused = self.answers.iter().filter_map(|answer| {
            let why = if answer.is_busy() {
                "too many questions wait there, or this one was late there: if that goes on, compare the clocks of the \
                 hosts"
            } else if answer.had_no_memory() {
                "it answered, and this node has no memory for the answer: see RINGVERB_MEMORY_MAX here"
            } else {
                return None;
            };
            Some(format!("{} on {} ({why})", node_name(answer.node), answer.host))
        });
        let names: Vec<String> = silent_nodes.chain(refused).collect();
        format!("No answer is there from node {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(node: u64, outcome: OperatorOutcome) -> OperatorAnswer {
        OperatorAnswer { node, host: format!("web-{node}").into(), core: 0, outcome }
    }

    #[test]
    fn nodes_without_an_answer_are_named() {
        let rows = || OperatorOutcome::Rows(NodeRows::default());
        let whole =
            NodeAnswers { own_node: 1, answers: vec![answer(2, rows())], ..Default::default() };
        assert!(whole.is_complete());
        let mut page = json!({});
        whole.add_nodes_to(&mut page);
        assert_eq!(page["nodes"][1], json!({ "node": "0000000000000002", "host": "web-2" }));
        assert_eq!((&page["nodes"][0]["own"], &page["silent_nodes"]), (&json!(true), &json!([])));
        let answers = vec![answer(2, rows()), answer(2, OperatorOutcome::Busy)];
        let part = NodeAnswers {
            own_node: 1,
            answers,
            silent_nodes: [(3, 7)].into(),
            is_session_down: false,
        };
        assert!(!part.is_complete());
        part.add_nodes_to(&mut page);
        assert_eq!(page["nodes"][1]["busy"], true);
        assert_eq!(
            page["silent_nodes"][0],
            json!({ "node": "0000000000000003", "seen_seconds_ago": 7 })
        );
        let text = part.missing_nodes_text();
        assert!(text.contains("3 (last heartbeat 7 s ago)") && text.contains("on web-2"), "{text}");
        // This node has answered in time. If the text named the clocks, the operator would look in the wrong place.
        let answers = vec![answer(4, OperatorOutcome::NoMemory)];
        let short = NodeAnswers { own_node: 1, answers, ..Default::default() };
        assert!(!short.is_complete());
        short.add_nodes_to(&mut page);
        assert_eq!(
            (&page["nodes"][1]["no_memory"], &page["nodes"][1]["busy"]),
            (&json!(true), &Value::Null)
        );
        let text = short.missing_nodes_text();
        assert!(text.contains("RINGVERB_MEMORY_MAX") && !text.contains("clocks"), "{text}");
        let down = NodeAnswers { is_session_down: true, ..Default::default() };
        assert!(!down.is_complete() && down.missing_nodes_text().contains("Redis is down"));
    }
}
