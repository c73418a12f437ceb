//! Connections as the admin API shows them: rows of lists, and the inside of one.
//!
//! Owns no state: only the form, which rows of this node and of other nodes share. A row of another node names the
//! node. Does not ask workers or nodes (`questions.rs`, `nodes.rs`).
//! Limit: `ROWS_MAX` rows in an answer. Cost: a sort of all rows found, of which each worker and node sends a bounded
//! number; a few allocations for each row.

use serde_json::{Value, json};

use super::event::without_nulls;
use super::nodes::{NodeAnswers, node_name};
use crate::app::Apps;
use crate::operator_requests::InspectionReply;
use crate::shard::{Findings, NodeConnectionDetails, NodeConnectionRow, OperatorOutcome};

/// An answer has at most so many rows; the others are counted in `left_out`.
const ROWS_MAX: usize = 500;

/// A value that the answering node does not report is `null`, and `without_nulls` removes it.
fn connection_row_json(row: &NodeConnectionRow) -> Value {
    json!({
        "socket_id": row.socket_id.to_string(),
        "app": row.app,
        "user": row.user.as_deref(),
        "channels": row.channels,
        "queue_bytes": row.queue_bytes,
        "age_seconds": row.age_seconds,
        "silent_seconds": row.silent_seconds,
    })
}

/// `None` stands for this node, whose rows come first.
pub(super) fn rows(
    found: Vec<Findings>,
    apps: &Apps,
    node_answers: Option<&NodeAnswers>,
) -> Vec<(Option<u64>, NodeConnectionRow)> {
    let own = found.into_iter().flat_map(|found| found.connections);
    let own = own.map(|row| (None, row.to_node_answer(apps)));
    let node_answers = node_answers.into_iter().flat_map(NodeAnswers::rows);
    let node_answers = node_answers
        .flat_map(|(node, rows)| rows.connections.iter().map(move |row| (Some(node), row.clone())));
    own.chain(node_answers).collect()
}

/// Names the node and its host only if it is another one.
pub(super) fn node_row(
    (node, found): &(Option<u64>, NodeConnectionRow),
    node_answers: Option<&NodeAnswers>,
) -> Value {
    let mut row = connection_row_json(found);
    if let (Some(node), Some(node_answers)) = (node, node_answers) {
        row["node"] = json!(node_name(*node));
        row["host"] = json!(node_answers.host(*node));
    }
    without_nulls(row)
}

/// Connections with the longest queues first, then the oldest.
pub(super) fn connection_table(
    found: Vec<Findings>,
    apps: &Apps,
    node_answers: Option<&NodeAnswers>,
) -> Value {
    let mut left_out: u64 = found.iter().map(|found| found.left_out).sum();
    left_out += node_answers
        .map_or(0, |node_answers| node_answers.rows().map(|(_, rows)| rows.left_out).sum());
    let mut rows = rows(found, apps, node_answers);
    rows.sort_by_key(|(_, row)| {
        let age = row.age_seconds.unwrap_or(0);
        (std::cmp::Reverse(row.queue_bytes), std::cmp::Reverse(age), row.socket_id.to_string())
    });
    let total = rows.len() as u64 + left_out;
    rows.truncate(ROWS_MAX);
    let left_out = total - rows.len() as u64;
    let rows: Vec<_> = rows.iter().map(|row| node_row(row, node_answers)).collect();
    json!({ "total": total, "left_out": left_out, "connections": rows })
}

/// `None`: no worker has the connection.
pub(super) fn connection_details(
    found: Vec<(usize, Box<InspectionReply>)>,
    apps: &Apps,
) -> Option<Value> {
    let (worker, inside, socket) = found.into_iter().find_map(|(worker, found)| {
        let InspectionReply { findings, socket } = *found;
        Some((worker, findings.details?, socket?))
    })?;
    let mut inside = inside.to_node_answer(apps);
    socket.copy_to(&mut inside);
    Some(without_nulls(inside_json(worker, &inside)))
}

/// `None`: no other node has the connection, or has answered.
pub(super) fn connection_details_of_nodes(node_answers: &NodeAnswers) -> Option<Value> {
    node_answers.answers().iter().find_map(|answer| {
        let OperatorOutcome::Inside(Some(inside)) = &answer.outcome else { return None };
        let mut json = inside_json(answer.core.into(), inside);
        json["node"] = json!(node_name(answer.node));
        json["host"] = json!(answer.host);
        Some(without_nulls(json))
    })
}

fn inside_json(worker: usize, inside: &NodeConnectionDetails) -> Value {
    let more = json!({
        "worker": worker,
        "address": inside.address,
        "round_trip_ms": inside.round_trip.map(|(microseconds, _)| f64::from(microseconds) / 1_000.0),
        "retransmissions": inside.round_trip.map(|(_, retransmissions)| retransmissions),
        "is_tls": inside.is_tls,
        "kept_bytes": inside.kept_bytes,
        "is_closing": inside.is_closing,
        "is_blocked": inside.is_blocked,
        "is_pinged": inside.is_pinged,
        "has_signed_in": inside.has_signed_in,
        "channel_names": inside.channel_names,
    });
    let mut all = connection_row_json(&inside.row);
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}
