//! Connections as the admin API shows them: rows of lists, and the inside of one.
//!
//! Limit: `ROWS_MAX` rows in an answer.

use serde_json::{Value, json};

use super::event::compact;
use crate::app::Apps;
use crate::desk::{InspectionReply, SocketFacts};
use crate::shard::{ConnectionRow, Findings};

/// Connections of an answer.
const ROWS_MAX: usize = 500;

/// What is not known is `null`.
pub(super) fn row(row: &ConnectionRow, apps: &Apps) -> Value {
    json!({
        "socket_id": row.socket_id.to_string(),
        "app": apps.find(row.app).map(|app| &*app.id),
        "user": row.user.as_deref(),
        "channels": row.channels,
        "queue_bytes": row.queue_bytes,
        "age_seconds": row.age_seconds,
        "silent_seconds": row.silent_seconds,
    })
}

/// Connections with the longest queues first, then the oldest.
pub(super) fn table(found: Vec<Findings>, apps: &Apps) -> Value {
    let left_out: u64 = found.iter().map(|found| found.left_out).sum();
    let mut rows: Vec<_> = found.into_iter().flat_map(|found| found.connections).collect();
    rows.sort_by_key(|row| {
        let age = row.age_seconds.unwrap_or(0);
        (std::cmp::Reverse(row.queue_bytes), std::cmp::Reverse(age), row.socket_id.to_string())
    });
    let total = rows.len() as u64 + left_out;
    rows.truncate(ROWS_MAX);
    let left_out = total - rows.len() as u64;
    let rows: Vec<_> = rows.iter().map(|found| compact(row(found, apps))).collect();
    json!({ "total": total, "left_out": left_out, "connections": rows })
}

/// The inside of a connection, if a worker has it.
pub(super) fn inside(found: Vec<(usize, Box<InspectionReply>)>, apps: &Apps) -> Option<Value> {
    let (worker, inside, socket) = found.into_iter().find_map(|(worker, found)| {
        let InspectionReply { findings, socket } = *found;
        Some((worker, findings.inside?, socket?))
    })?;
    let SocketFacts { peer, round_trip, is_tls } = socket;
    let names: Vec<&str> = inside.channels.iter().map(|name| &**name).collect();
    let more = json!({
        "worker": worker,
        "address": peer.map(|peer| peer.to_string()),
        "round_trip_ms": round_trip.map(|found| f64::from(found.microseconds) / 1_000.0),
        "retransmissions": round_trip.map(|found| found.retransmissions),
        "is_tls": is_tls,
        "kept_bytes": inside.kept_bytes,
        "is_closing": inside.is_closing,
        "is_blocked": inside.is_blocked,
        "is_pinged": inside.is_pinged,
        "has_signed_in": inside.has_signed_in,
        "channel_names": names,
    });
    let mut all = row(&inside.row, apps);
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    Some(compact(all))
}
