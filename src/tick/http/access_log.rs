//! The access log of the HTTP API: which requests were answered, for the log of the process.
//!
//! Owns the lines of one tick, which the worker takes at its end. Off unless `wants_entry` is set. The query is not
//! kept, because it contains a signature. Has no clock and does not write: the worker passes the time at which a tick
//! began, and formats the lines.
//!
//! Limit: `LINES_MAX` lines of a tick; further ones are counted in `left_out`. Cost: nothing while it is off; otherwise
//! two allocations for each request, for method and path.

use super::{Http, LinePeer};
use crate::app::AppIndex;
use crate::http1::request::Request;

const LINES_MAX: usize = 256;
/// Longest part of a path that is kept, in bytes.
const PATH_BYTES_MAX: usize = 200;

#[derive(Debug)]
pub struct AccessLine {
    pub app: Option<AppIndex>,
    pub method: String,
    pub path: String,
    pub status: u16,
    pub received_bytes: usize,
    pub sent_bytes: usize,
    /// The beginning of the tick that had the whole request, by `Kernel::stamp`: the duration is measured from it.
    pub began_ns: u64,
    pub who: LinePeer,
}

/// The answered requests of a core since the worker took them last.
#[derive(Debug, Default)]
pub struct AccessLog {
    pub wants_entry: bool,
    /// When the current tick began, in nanoseconds. The worker sets it.
    pub tick_began_ns: u64,
    pub lines: Vec<AccessLine>,
    /// Requests for which `lines` had no room, since the worker looked last.
    pub left_out: u64,
}

/// What the line has of an answer, beside its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct AccessEntry {
    pub(super) app: Option<AppIndex>,
    pub(super) status: u16,
    pub(super) sent_bytes: usize,
    pub(super) began_ns: u64,
}

impl Http {
    /// Notes an answered request of the API. `who` is called only if there is room.
    pub(super) fn note_access(
        &mut self,
        request: &Request,
        answered: AccessEntry,
        who: impl FnOnce(&Self) -> LinePeer,
    ) {
        if !self.access.wants_entry {
            return;
        }
        if self.access.lines.len() == LINES_MAX {
            self.access.left_out += 1;
            self.metrics.lines_left_out.add(1);
            return;
        }
        let AccessEntry { app, status, sent_bytes, began_ns } = answered;
        let path = request.path();
        let kept_bytes = path.floor_char_boundary(PATH_BYTES_MAX);
        let line = AccessLine {
            app,
            method: request.method().to_owned(),
            path: path.get(..kept_bytes).unwrap_or_default().to_owned(),
            status,
            received_bytes: request.received_bytes(),
            sent_bytes,
            began_ns,
            who: who(self),
        };
        self.access.lines.push(line);
        debug_assert!(self.access.lines.len() <= LINES_MAX, "the others are counted");
    }
}
