//! The state of a session from the first byte of a request to the last byte of its answer, and a store of such states
//! that no session needs now. PURE.
//!
//! Owns the buffers. An idle session has none, so that it costs its entry only. Does not read them.
//!
//! Limits: `KEPT_STATES_MAX` states in the store, each with buffers of at most `KEPT_BUFFER_BYTES`; larger ones are
//! freed. Cost: no allocation while the store has a state.

use super::super::Rules;
use crate::api::{self, Reply};
use crate::app::AppIndex;
use crate::http1::request::{Request, RequestLimits, RequestReader};
use crate::http1::response::Response;

pub(in crate::tick::http) enum Pending {
    /// Not published yet, because the mailboxes have no room.
    Congested(Box<Publish>),
    /// Published: the answer is sent once its mail is in the rings.
    Posting { request: Request, response: Response },
    /// Asked: the answer is sent once all cores and nodes have answered the question `id`.
    Asking { request: Request, id: u32, reply: Reply, quota: Option<api::Quota> },
}

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
    /// Received bytes. The first `used` of them were read.
    pub(super) input: Vec<u8>,
    pub(super) used: usize,
    /// Answers, of which the first `sent` bytes are sent.
    pub(super) output: Vec<u8>,
    pub(super) sent: usize,
    pub(super) pending: Option<Pending>,
    /// The app that the current request names; `None` if it names none that exists.
    pub(super) app: Option<AppIndex>,
    /// When the tick began that had the whole request; `None` if it is no request of the API. For the access log.
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

    /// Removes used bytes: when all are used, or before more are added, so that they are not moved for each request.
    pub(super) fn discard_used(&mut self) {
        self.input.drain(..self.used);
        self.used = 0;
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.input.capacity() + self.output.capacity() + self.reader.buffered_bytes()
    }
}

/// Largest capacity of a buffer that is kept for another session.
const KEPT_BUFFER_BYTES: usize = 8 * 1024;
/// Most states that are kept.
const KEPT_STATES_MAX: usize = 64;

/// The store of states that no session needs now. Their buffers are empty.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "they move between here and the sessions, which own a pointer")]
pub(in crate::tick) struct Spare(Vec<Box<Work>>);

impl Spare {
    pub(super) fn pop_or_new(&mut self, rules: &Rules) -> Box<Work> {
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

    /// Adds the buffers of a session that has become a WebSocket to its state, which came here without them.
    pub(in crate::tick) fn put_buffers(&mut self, input: Vec<u8>, output: Vec<u8>) {
        let Some(work) = self.0.last_mut() else { return };
        for (slot, mut buffer) in [(&mut work.input, input), (&mut work.output, output)] {
            if slot.capacity() == 0 && buffer.capacity() <= KEPT_BUFFER_BYTES {
                buffer.clear();
                *slot = buffer;
            }
        }
    }

    pub(super) fn put_back(&mut self, work: Box<Work>) {
        let fits = |buffer: &Vec<u8>| buffer.capacity() <= KEPT_BUFFER_BYTES;
        if self.0.len() < KEPT_STATES_MAX && fits(&work.input) && fits(&work.output) {
            self.0.push(work);
        }
        debug_assert!(self.0.len() <= KEPT_STATES_MAX, "the others are freed");
    }
}
