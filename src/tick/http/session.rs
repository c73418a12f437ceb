//! One connection that speaks HTTP, without its socket. PURE.
//!
//! Owns the state of one connection. Input: received bytes and the events that end a wait. Output: bytes of answers, a
//! `Step`, a timer. Between two requests it has only its entry: buffers and request state are allocated at the first
//! byte and returned after the last byte of the answer. Does not read, send or measure time: `tick/sessions` owns the
//! socket and the deadlines.
//!
//! Limits: `Rules`, `limits::ANSWERS_BYTES_MAX`, and the memory budget. Cost: buffers are allocated at the first byte
//! of a request, or reused from an earlier one; each byte of a request is copied once.

mod bounds;
mod work;

use core::net::SocketAddr;

use super::super::SessionPeer;
use super::super::site::Site;
use super::about::RefusalContext;
use super::access_log::AccessEntry;
use super::{Http, SessionKey};
use crate::admission::AddressSlot;
use crate::api::{self, Target};
use crate::app::AppIndex;
use crate::http1::request::{Progress, Request};
use crate::http1::response::{self, Response};
use crate::limits;
use crate::pusher::error_code::ErrorCode;
use crate::ws::handshake::AcceptKey;
pub(in crate::tick) use work::Spare;
use work::Work;
pub(super) use work::{Pending, Publish};

pub(in crate::tick) enum Step {
    /// At once: another request may have been received.
    Again,
    /// Later: nothing to do until bytes arrive, answers are sent or cores answer.
    Rest,
    /// As a WebSocket.
    Upgrade(Upgrade),
}

pub(in crate::tick) struct Upgrade {
    pub(in crate::tick) accept: AcceptKey,
    /// An error is sent on the WebSocket, because browsers cannot read the body of a failed upgrade (docs/PROTOCOL.md
    /// rule 9).
    pub(in crate::tick) admitted: Result<Admitted, Unwanted>,
}

/// A connection that is opened only to receive the reason of its refusal.
pub(in crate::tick) struct Unwanted {
    pub(in crate::tick) error: ErrorCode,
    /// The line about the refusal, with verbose errors and with `--debug`.
    pub(in crate::tick) why: Option<String>,
}

/// An accepted handshake. It is counted for its app, and for the address whose slot this is.
pub(in crate::tick) struct Admitted {
    pub(in crate::tick) app: AppIndex,
    pub(in crate::tick) address_slot: AddressSlot,
}

/// The event that must come before the session's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tick) enum Timer {
    /// No time is measured.
    None,
    /// The first byte: a silent connection costs a descriptor.
    FirstByte,
    /// The header of the PROXY protocol, from the accept on.
    ProxyHeader,
    /// The TLS handshake, from its first byte on.
    TlsHandshake,
    /// A whole request, from its first byte on (docs/PROTOCOL.md rule 17).
    Request,
    /// The first byte of a further request.
    KeepAlive,
    /// The client must read its answer.
    Answer,
    /// The cores must answer the question of the request.
    Cores,
    /// The client must close after the last answer.
    Discard,
}

/// Time for the client to close after the last answer, in seconds.
const DISCARD_SECONDS: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpState {
    Reading,
    /// The request waits, in `Work::pending`: no further one is read.
    Waiting,
    /// The last answer is being sent. `in_order`: it follows a complete request, so no further input is expected.
    Closing {
        in_order: bool,
    },
    /// The last answer is sent, and input is discarded until the client closes.
    Discarding,
}

pub(in crate::tick) struct Session {
    /// The other end of the socket: the client, or a proxy.
    pub(in crate::tick) peer: SocketAddr,
    /// A header of the PROXY protocol has named `peer`.
    pub(in crate::tick) is_named: bool,
    /// The address slot for which the socket is counted while it speaks HTTP.
    pub(super) address_slot: AddressSlot,
    /// A request was answered, so waiting for the next one is no fault.
    pub(in crate::tick) has_answered: bool,
    state: HttpState,
    pub(in crate::tick) timer: Timer,
    /// Memory that is charged to the budget for this session, in bytes.
    charged_bytes: u32,
    work: Option<Box<Work>>,
}

impl Session {
    pub(in crate::tick) fn new(peer: SocketAddr, address_slot: AddressSlot) -> Self {
        Self {
            peer,
            is_named: false,
            address_slot,
            has_answered: false,
            state: HttpState::Reading,
            timer: Timer::None,
            charged_bytes: 0,
            work: None,
        }
    }

    /// Makes the client that a header of the PROXY protocol has named the peer. The proxy itself is not counted.
    pub(in crate::tick) fn become_client(&mut self, client: SocketAddr, address_slot: AddressSlot) {
        debug_assert!(!self.is_named, "a header names the client once, before any request");
        (self.peer, self.address_slot, self.is_named) = (client, address_slot, true);
    }

    /// `None` if no header of the PROXY protocol has named the client.
    pub(in crate::tick) fn named_client(&self) -> Option<SocketAddr> {
        self.is_named.then_some(self.peer)
    }

    /// A session of another process, with the bytes it had received.
    pub(in crate::tick) fn of_another_process(
        peer: SessionPeer,
        address_slot: AddressSlot,
        has_answered: bool,
        input: &[u8],
        rules: &super::Rules,
    ) -> Self {
        let SessionPeer { address, is_named } = peer;
        let mut session = Self { has_answered, is_named, ..Self::new(address, address_slot) };
        if !input.is_empty() {
            let mut work = Spare::default().pop_or_new(rules);
            work.input.extend_from_slice(input);
            session.work = Some(work);
        }
        session
    }

    /// Whether the session can process more bytes now.
    pub(in crate::tick) fn wants_bytes(&self) -> bool {
        match self.state {
            HttpState::Reading => self.unsent().is_empty(),
            HttpState::Discarding => true,
            HttpState::Waiting | HttpState::Closing { .. } => false,
        }
    }

    /// Whether a byte of the next request has arrived, so that the time for a whole request runs.
    pub(in crate::tick) fn has_begun(&self) -> bool {
        self.work.as_ref().is_some_and(|work| !work.reader.is_idle() || !work.unused().is_empty())
    }

    /// Whether another process could continue it: it is between two requests, or it has only unread input.
    pub(in crate::tick) fn is_transferable(&self) -> bool {
        let is_busy = |work: &Work| !work.reader.is_empty() || !work.unsent().is_empty();
        self.state == HttpState::Reading && !self.work.as_ref().is_some_and(|work| is_busy(work))
    }

    /// Whether it waits for its client, so that it may be ended for another session.
    pub(in crate::tick) fn waits_for_client(&self) -> bool {
        self.state != HttpState::Waiting
    }

    pub(in crate::tick) fn is_closing(&self) -> bool {
        matches!(self.state, HttpState::Closing { .. })
    }

    pub(in crate::tick) fn input(&self) -> &[u8] {
        self.work.as_ref().map_or(&[], |work| work.unused())
    }

    pub(in crate::tick) fn unsent(&self) -> &[u8] {
        self.work.as_ref().map_or(&[], |work| work.unsent())
    }

    /// Adds received bytes. Those that arrive after the last answer was sent are discarded.
    pub(in crate::tick) fn append_input(
        &mut self,
        bytes: &[u8],
        spare: &mut Spare,
        rules: &super::Rules,
    ) {
        if self.state == HttpState::Discarding {
            return;
        }
        let work = self.work.get_or_insert_with(|| spare.pop_or_new(rules));
        work.discard_used();
        work.input.extend_from_slice(bytes);
    }

    /// Reads and carries out the next request if all of it has been received.
    pub(in crate::tick) fn step(&mut self, key: SessionKey, site: &mut Site<'_>) -> Step {
        if self.state != HttpState::Reading || self.unsent().len() > limits::ANSWERS_BYTES_MAX {
            return Step::Rest;
        }
        let Some(work) = &mut self.work else { return Step::Rest };
        let is_in_body = !work.reader.is_empty();
        let mut used = 0;
        let unused = work.input.get(work.used..).unwrap_or_default();
        let progress = work.reader.read_front(unused, &mut used);
        work.used += used;
        debug_assert!(work.used <= work.input.len(), "no more is used than was received");
        debug_assert!(work.pending.is_none(), "a session that reads has no request that waits");
        if work.unused().is_empty() {
            work.discard_used();
        }
        match progress {
            Ok(Progress::Complete(request)) => {
                self.timer = Timer::None;
                self.serve(key, request, site)
            }
            Ok(Progress::Incomplete { continue_expected }) => {
                if continue_expected {
                    work.output.extend_from_slice(response::CONTINUE);
                }
                Step::Rest
            }
            Err(refusal) => {
                let response = self.refuse_bytes(site.http, refusal, is_in_body);
                // Where the next request starts is unknown.
                self.close_with(&response, false);
                Step::Rest
            }
        }
    }

    fn serve(&mut self, key: SessionKey, request: Request, site: &mut Site<'_>) -> Step {
        debug_assert_eq!(self.state, HttpState::Reading, "one request at a time");
        if let Err(response) = self.count_client(site.http, &request) {
            self.close_with(&response, true);
            return Step::Rest;
        }
        let target = api::target(request.method(), request.path(), &site.http.rules.prefix);
        if let Some(work) = &mut self.work {
            let is_api = matches!(target, Target::Api { .. });
            work.api_since_ns = is_api.then_some(site.http.access.tick_began_ns);
            work.app = match &target {
                Target::Api { app_id, .. } => site.http.apps.by_id(app_id),
                Target::Socket { key } => site.http.apps.by_key(key),
                _ => None,
            };
        }
        let Target::Socket { key: app_key } = &target else {
            self.answer(key, request, &target, site);
            return Step::Again;
        };
        let client = self.client(site.http, &request);
        if let Err(response) = self.check_rate(site.http, &request, client) {
            self.close_with(&response, true);
            return Step::Rest;
        }
        match self.check_upgrade(site.http, &request, app_key, client) {
            Ok((accept, admitted)) => Step::Upgrade(Upgrade { accept, admitted }),
            Err(response) => {
                self.respond(site.http, &response, &request);
                Step::Again
            }
        }
    }

    /// Answers a request. The connection closes after the answer unless client and server want to keep it.
    pub(super) fn respond(&mut self, http: &mut Http, response: &Response, request: &Request) {
        debug_assert_eq!(self.state, HttpState::Reading, "a request is answered once");
        debug_assert!(self.work.is_some(), "its bytes and its answer have their buffers");
        let keep_alive = request.keep_alive() && !http.draining;
        self.has_answered = true;
        // A client that did not ask to close may have sent its next request already.
        let in_order = !request.keep_alive();
        self.state = if keep_alive { HttpState::Reading } else { HttpState::Closing { in_order } };
        if let Some(work) = &mut self.work {
            let before = work.output.len();
            response.write(&mut work.output, keep_alive, request.method() == "HEAD");
            let metrics = http.metrics.app_or_none(work.app);
            metrics.http_calls.add(1);
            metrics.http_received_bytes.add(request.received_bytes() as u64);
            let sent_bytes = work.output.len() - before;
            metrics.http_transmitted_bytes.add(sent_bytes as u64);
            if let (true, Some(began_ns)) = (http.access.wants_entry, work.api_since_ns) {
                let status = response.status;
                let answered = AccessEntry { app: work.app, status, sent_bytes, began_ns };
                http.note_access(request, answered, |http| {
                    self.line_peer(http, RefusalContext::request(request))
                });
            }
        }
    }

    /// Refuses the input and closes. `in_order`: the input was a complete request.
    pub(super) fn close_with(&mut self, response: &Response, in_order: bool) {
        debug_assert!(response.status >= 400, "only refusals close a session");
        debug_assert_eq!(self.state, HttpState::Reading, "no answer follows the last one");
        self.state = HttpState::Closing { in_order };
        if let Some(work) = &mut self.work {
            response.write(&mut work.output, false, false);
        }
    }

    pub(super) fn wait(&mut self, pending: Pending) {
        debug_assert_eq!(self.state, HttpState::Reading, "one request at a time");
        debug_assert!(
            self.work.as_ref().is_some_and(|work| work.pending.is_none()),
            "it has a place, and no other request is there"
        );
        self.state = HttpState::Waiting;
        if let Some(work) = &mut self.work {
            work.pending = Some(pending);
        }
    }

    /// Moves the waiting request out, to continue it. `None` if none waits.
    pub(super) fn take_pending(&mut self) -> Option<Pending> {
        let pending = self.work.as_mut()?.pending.take();
        debug_assert_eq!(
            pending.is_some(),
            self.state == HttpState::Waiting,
            "a session waits while its request does"
        );
        if pending.is_some() {
            self.state = HttpState::Reading;
        }
        pending
    }

    /// The number of the question whose answers it waits for; `None` if it waits for none.
    pub(in crate::tick) fn question(&self) -> Option<u32> {
        match self.work.as_ref()?.pending {
            Some(Pending::Asking { id, .. }) => Some(id),
            _ => None,
        }
    }

    /// Counts sent bytes of its answers. The buffer is emptied once all are sent.
    pub(in crate::tick) fn note_sent(&mut self, count: usize) {
        if let Some(work) = &mut self.work {
            work.sent += count;
            debug_assert!(work.sent <= work.output.len(), "no more is sent than there was");
            if work.unsent().is_empty() {
                work.output.clear();
                work.sent = 0;
            }
        }
    }

    /// All answers are sent: returns how the session continues. `more_may_come`: unread bytes have arrived.
    pub(in crate::tick) fn next_after_answers(&mut self, more_may_come: bool) -> AfterAnswers {
        debug_assert!(self.unsent().is_empty(), "all answers are sent");
        match self.state {
            HttpState::Closing { in_order: true } if !more_may_come && self.input().is_empty() => {
                AfterAnswers::Close
            }
            HttpState::Closing { .. } => {
                self.state = HttpState::Discarding;
                self.work = None;
                AfterAnswers::ShutDown
            }
            _ => AfterAnswers::Continue,
        }
    }

    /// Returns the buffers that it does not need now to the store.
    pub(in crate::tick) fn release_buffers(&mut self, spare: &mut Spare) {
        let Some(work) = &mut self.work else { return };
        let is_needed = work.pending.is_some()
            || !work.reader.is_empty()
            || !work.reader.is_idle()
            || !work.unused().is_empty()
            || !work.output.is_empty();
        if !is_needed && let Some(work) = self.work.take() {
            spare.put_back(work);
        } else if let Some(work) = &mut self.work
            && work.unused().is_empty()
            && work.output.is_empty()
        {
            // A waiting session keeps only its request. A session with an unsent answer does not wait.
            work.input = Vec::new();
        }
    }

    /// Ends the session: releases its counts, and ends its question to other cores.
    pub(in crate::tick) fn end(mut self, site: &mut Site<'_>, spare: &mut Spare) {
        let admission = &site.http.overload.admission;
        admission.release_socket(std::mem::replace(&mut self.address_slot, AddressSlot::NONE));
        site.shard.note_http(self.charged_bytes as usize, 0);
        if let Some(id) = self.question() {
            site.gathers.end(id);
        }
        if let Some(mut work) = self.work.take() {
            work.pending = None;
            work.input.clear();
            work.used = 0;
            work.output.clear();
            work.sent = 0;
            spare.put_back(work);
        }
    }

    /// Moves the buffers out of a session that becomes a WebSocket: the unsent bytes, and the bytes after the
    /// handshake.
    pub(in crate::tick) fn take_buffers(&mut self) -> (Vec<u8>, Vec<u8>) {
        debug_assert!(self.question().is_none(), "a handshake follows all earlier requests");
        match &mut self.work {
            None => (Vec::new(), Vec::new()),
            Some(work) => {
                let mut output = std::mem::take(&mut work.output);
                output.drain(..work.sent);
                work.sent = 0;
                work.discard_used();
                (output, std::mem::take(&mut work.input))
            }
        }
    }
}

/// How a session continues after all its answers were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tick) enum AfterAnswers {
    /// It reads the next request.
    Continue,
    /// All input was read: the socket can be closed.
    Close,
    /// More input may arrive. Our half is shut down and input is discarded, because closing a socket with unread input
    /// resets it, and a reset destroys the answer.
    ShutDown,
}
