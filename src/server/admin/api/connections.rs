//! Connections as the admin API shows them: rows of lists, and the inside of one.

use std::fmt::Write as _;

use super::json::{JsonObject, list, texts};
use crate::app::Apps;
use crate::shard::{ConnectionRow, Findings};
use crate::worker::inspect::{Found, SocketFacts};

/// Connections of an answer.
const ROWS_MAX: usize = 500;

pub(super) fn row(row: &ConnectionRow, apps: &Apps) -> JsonObject {
    JsonObject::new()
        .text("socket_id", &row.socket_id.to_string())
        .some_text("app", apps.find(row.app).map(|app| &*app.id))
        .some_text("user", row.user.as_deref())
        .value("channels", row.channels)
        .value("queue_bytes", row.queue_bytes)
        .some_value("age_seconds", row.age_seconds)
        .value("silent_seconds", row.silent_seconds)
}

/// Connections with the longest queues first, then the oldest.
pub(super) fn table(found: Vec<Findings>, apps: &Apps) -> Vec<u8> {
    let left_out: u64 = found.iter().map(|found| found.left_out).sum();
    let mut rows: Vec<_> = found.into_iter().flat_map(|found| found.connections).collect();
    rows.sort_by_key(|row| {
        let age = row.age_seconds.unwrap_or(0);
        (std::cmp::Reverse(row.queue_bytes), std::cmp::Reverse(age), row.socket_id.to_string())
    });
    let total = rows.len() as u64 + left_out;
    rows.truncate(ROWS_MAX);
    JsonObject::new()
        .value("total", total)
        .value("left_out", total - rows.len() as u64)
        .json("connections", &list(rows.iter().map(|found| row(found, apps).finish())))
        .finish()
}

/// The inside of a connection, if a worker has it.
pub(super) fn inside(found: Vec<(usize, Box<Found>)>, apps: &Apps) -> Option<Vec<u8>> {
    let (worker, inside, socket) = found.into_iter().find_map(|(worker, found)| {
        let Found { findings, socket } = *found;
        Some((worker, findings.inside?, socket?))
    })?;
    let SocketFacts { peer, round_trip, is_tls } = socket;
    let address = peer.map(|peer| peer.to_string());
    let round_trip_ms = round_trip.map(|found| {
        let mut text = String::new();
        let _ = write!(text, "{}.{:03}", found.microseconds / 1_000, found.microseconds % 1_000);
        text
    });
    let json = row(&inside.row, apps)
        .value("worker", worker)
        .some_text("address", address.as_deref())
        .some_value("round_trip_ms", round_trip_ms)
        .some_value("retransmissions", round_trip.map(|found| found.retransmissions))
        .value("is_tls", is_tls)
        .value("kept_bytes", inside.kept_bytes)
        .value("is_closing", inside.is_closing)
        .value("is_blocked", inside.is_blocked)
        .value("is_pinged", inside.is_pinged)
        .value("has_signed_in", inside.has_signed_in)
        .json("channel_names", &texts(inside.channels.iter().map(|name| &**name)));
    Some(json.finish())
}
