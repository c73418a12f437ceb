//! The state of a session from the first byte of a request to the last byte of its answer, and a store of such states
//! that no session needs now. PURE.
//!
//! An idle session owns none, so that it costs its entry only. Limits: `KEPT_MAX` states in the store, each with
//! buffers of at most `KEPT_BUFFER_BYTES`; larger ones are freed. Cost: no allocation while a spare state is there.

use super::super::Rules;
use crate::api::{self, Reply};
use crate::app::AppIndex;
use crate::http1::request::{Request, RequestLimits, RequestReader};
use crate::http1::response::Response;

pub(in crate::tick::http) enum Pending {
    /// To be published when the mailboxes have room.
    Congested(Box<Publish>),
    /// The answer leaves when all mail is in the rings.
    Posting {
        request: Request,
        response: Response,
    },
    Asking {
        request: Request,
        id: u32,
        reply: Reply,
        quota: Option<api::Quota>,
    },
}

/// A publish and its request.
pub(in crate::tick::http) struct Publish {
    pub(in crate::tick::http) request: Request,
    pub(in crate::tick::http) app: AppIndex,
    pub(in crate::tick::http) publications: Vec<api::Publication>,
    pub(in crate::tick::http) info: Option<crate::shard::Question>,
    pub(in crate::tick::http) reply: Reply,
    pub(in crate::tick::http) quota: Option<api::Quota>,
}

/// The state of a session from the first byte of a request to the last byte of its answer.
pub(in crate::tick) struct Work {
    pub(super) reader: RequestReader,
    /// Received. The first `used` bytes were used.
    pub(super) input: Vec<u8>,
    pub(super) used: usize,
    /// Answers, of which the first `sent` bytes are sent.
    pub(super) output: Vec<u8>,
    pub(super) sent: usize,
    pub(super) pending: Option<Pending>,
    /// The app that the present request names.
    pub(super) app: Option<AppIndex>,
    /// For a request of the API: when the tick began in which it was complete.
    pub(super) api_since_ns: Option<u64>,
}

impl Work {
    pub(super) fn unsent(&self) -> &[u8] {
        debug_assert!(self.sent <= self.output.len(), "no more is sent than there was");
        self.output.get(self.sent..).unwrap_or_default()
    }

    pub(super) fn unused(&self) -> &[u8] {
        debug_assert!(self.used <= self.input.len(), "no more is used than was received");
        self.input.get(self.used..).unwrap_or_default()
    }

    /// Discards used bytes, if they are all, or before more are added.
    pub(super) fn discard_used(&mut self) {
        self.input.drain(..self.used);
        self.used = 0;
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.input.capacity() + self.output.capacity() + self.reader.buffered_bytes()
    }
}

/// Capacity of a buffer that is kept for the next session.
const KEPT_BUFFER_BYTES: usize = 8 * 1024;
/// Sets of buffers that are kept.
const KEPT_MAX: usize = 64;

/// Unused buffers of idle sessions.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "they move between here and the sessions, which own a pointer")]
pub(in crate::tick) struct Spare(Vec<Box<Work>>);

impl Spare {
    pub(super) fn take(&mut self, rules: &Rules) -> Box<Work> {
        let reader = RequestReader::new(RequestLimits { request_size_max: rules.request_size_max });
        match self.0.pop() {
            // The reader counts empty lines before a request: those of one client must not count for another.
            Some(mut work) => {
                debug_assert!(
                    work.pending.is_none() && work.unused().is_empty() && work.unsent().is_empty(),
                    "nothing of one client reaches another"
                );
                work.reader = reader;
                work
            }
            None => Box::new(Work {
                reader,
                input: Vec::new(),
                used: 0,
                output: Vec::new(),
                sent: 0,
                pending: None,
                app: None,
                api_since_ns: None,
            }),
        }
    }

    /// The buffers of a session that has become a WebSocket, whose work was put here without them.
    pub(in crate::tick) fn put_buffers(&mut self, input: Vec<u8>, output: Vec<u8>) {
        let Some(work) = self.0.last_mut() else { return };
        for (place, mut buffer) in [(&mut work.input, input), (&mut work.output, output)] {
            if place.capacity() == 0 && buffer.capacity() <= KEPT_BUFFER_BYTES {
                buffer.clear();
                *place = buffer;
            }
        }
    }

    pub(super) fn put_back(&mut self, work: Box<Work>) {
        let fits = |buffer: &Vec<u8>| buffer.capacity() <= KEPT_BUFFER_BYTES;
        if self.0.len() < KEPT_MAX && fits(&work.input) && fits(&work.output) {
            self.0.push(work);
        }
        debug_assert!(self.0.len() <= KEPT_MAX, "the others are freed");
    }
}
