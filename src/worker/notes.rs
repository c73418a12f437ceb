//! Lines for the log about refused requests, at a bounded rate: a peer that sends rubbish must not keep a worker busy
//! with writing about it. `output` bounds the bytes that all workers write.

use std::cell::Cell;

use crate::output::PEER;

/// Lines a worker may write per beat of its timer, about a second.
const LINES_PER_BEAT: u32 = 10;

#[derive(Default)]
pub(super) struct Notes {
    told: Cell<u32>,
}

impl Notes {
    /// Logs a line, or counts it when there were enough.
    pub(super) fn tell(&self, text: &str) {
        let told = self.told.get();
        if told < LINES_PER_BEAT {
            tracing::warn!(target: PEER, "{text}");
        }
        self.told.set(told.saturating_add(1));
    }

    /// Whether the next line is written, and not only counted.
    pub(super) fn has_room(&self) -> bool {
        self.told.get() < LINES_PER_BEAT
    }

    /// A new second begins.
    pub(super) fn start_beat(&self) {
        let silent = self.told.replace(0).saturating_sub(LINES_PER_BEAT);
        if silent > 0 {
            tracing::warn!(target: PEER, "{silent} more lines about refused requests were left out");
        }
    }
}
