//! The bounds of one HTTP session: the memory it is charged for, its timers, and its refusal at either.
//!
//! Owns no state of its own: it reads and changes the fields of `Session`. Does not keep deadlines: `tick/sessions`
//! does.
//!
//! Limits: the memory budget, the timeouts of `Rules`, and `limits::FIRST_BYTE_TIMEOUT_SECONDS`. Cost: a few additions
//! for each step of a session, no allocation.

use super::{DISCARD_SECONDS, Http, HttpState, RefusalContext, Session, Timer, Work};
use crate::cause::{Cause, Detail};
use crate::http1::request::{RequestLimits, RequestReader};
use crate::http1::response::Response;
use crate::limits;
use crate::tick::site::Site;

impl Session {
    /// Charges the memory that it uses now. `secure`: bytes of its TLS. `false` if the budget has no room; then the
    /// charge is as before.
    pub(in crate::tick) fn try_charge_memory(
        &mut self,
        site: &mut Site<'_>,
        secure: usize,
    ) -> bool {
        let charged_before = self.charged_bytes as usize;
        let work_bytes = self.work.as_ref().map_or(0, |work| size_of::<Work>() + work.heap_bytes());
        let charge = limits::HTTP_CONNECTION_BYTES + work_bytes + secure;
        let fits = charge == charged_before || site.shard.note_http(charged_before, charge);
        if fits {
            self.charged_bytes = u32::try_from(charge).unwrap_or(u32::MAX);
        }
        debug_assert!(
            fits || charge > charged_before,
            "only more memory can be refused: {charge} bytes, and {charged_before} before"
        );
        fits
    }

    /// Reduces the charge to that of its entry, because its buffers are returned in this tick.
    pub(in crate::tick) fn release_memory_charge(&mut self, site: &mut Site<'_>) {
        let charged_before = self.charged_bytes as usize;
        if charged_before > limits::HTTP_CONNECTION_BYTES {
            site.shard.note_http(charged_before, limits::HTTP_CONNECTION_BYTES);
            self.charged_bytes = u32::try_from(limits::HTTP_CONNECTION_BYTES).unwrap_or(u32::MAX);
        }
        debug_assert!(
            self.charged_bytes as usize <= limits::HTTP_CONNECTION_BYTES,
            "its entry at most"
        );
    }

    /// Logs that the session ends because others need its memory.
    pub(in crate::tick) fn refuse_heavy(&self, http: &mut Http) {
        self.refuse(http, RefusalContext::default(), Cause::HttpMemory, &[]);
    }

    /// Refuses the request, because there is no memory for its input. `false` if the client does not read an earlier
    /// answer, so that the session must be closed without one.
    pub(in crate::tick) fn refuse_for_memory(&mut self, http: &mut Http) -> bool {
        let response = super::super::answer::short_of_memory("request was not carried out");
        let response = self.refusal_response(
            http,
            RefusalContext::default(),
            response,
            Cause::HttpMemory,
            &[],
        );
        if self.state != HttpState::Reading || !self.unsent().is_empty() {
            return false;
        }
        self.forget_request(http);
        self.close_with(&response, false);
        true
    }

    /// Refuses a request that is incomplete when a new process takes over, because that process could not continue it.
    /// `false` if there is none, or earlier answers are unsent because the client does not read.
    pub(in crate::tick) fn refuse_unfinished(&mut self, http: &mut Http) -> bool {
        let is_unfinished = |work: &Work| !work.reader.is_empty() && work.unsent().is_empty();
        if self.state != HttpState::Reading
            || !self.work.as_ref().is_some_and(|work| is_unfinished(work))
        {
            return false;
        }
        let text = "The server is being replaced, and only a part of the request had arrived: it was not carried out; \
                    try again.";
        let response = Response::text(503, text).with_header("Retry-After", "1");
        let response =
            self.refusal_response(http, RefusalContext::default(), response, Cause::TakeOver, &[]);
        self.forget_request(http);
        self.close_with(&response, false);
        true
    }

    fn forget_request(&mut self, http: &Http) {
        let limits = RequestLimits { request_size_max: http.rules.request_size_max };
        if let Some(work) = &mut self.work {
            work.reader = RequestReader::new(limits);
            (work.input, work.used) = (Vec::new(), 0);
        }
        debug_assert!(!self.has_begun(), "nothing of the request is left");
    }

    /// Sets the timer for the current state, and returns its length in seconds. `None` if no time is measured, or the
    /// timer is already running.
    pub(in crate::tick) fn next_timer(&mut self, is_blocked: bool, http: &Http) -> Option<u32> {
        let timer = match self.state {
            HttpState::Discarding => Timer::Discard,
            HttpState::Waiting if self.question().is_some() => Timer::Cores,
            _ if is_blocked => Timer::Answer,
            // An incomplete empty line starts the timer. It does not restart it, or a client could extend its time with
            // each of them.
            HttpState::Reading if self.has_begun() || self.timer == Timer::Request => {
                Timer::Request
            }
            HttpState::Reading if self.has_answered => Timer::KeepAlive,
            HttpState::Reading => Timer::FirstByte,
            // Until mail is in the rings, or until this tick's flush.
            HttpState::Waiting | HttpState::Closing { .. } => Timer::None,
        };
        if self.timer == timer {
            return None;
        }
        self.timer = timer;
        self.seconds(http)
    }

    /// `next_timer` during a TLS handshake: the time for the first byte, then for all others.
    pub(in crate::tick) fn handshake_timer(&mut self, has_begun: bool, http: &Http) -> Option<u32> {
        debug_assert!(!self.has_answered, "a handshake comes before all requests");
        let timer = if has_begun { Timer::TlsHandshake } else { Timer::FirstByte };
        if self.timer == timer {
            return None;
        }
        self.timer = timer;
        self.seconds(http)
    }

    /// `next_timer` before a header of the PROXY protocol, which has one time for all its bytes.
    pub(in crate::tick) fn header_timer(&mut self, http: &Http) -> Option<u32> {
        debug_assert!(
            !self.has_answered && !self.is_named,
            "the header comes before all requests, and once"
        );
        let is_new = std::mem::replace(&mut self.timer, Timer::ProxyHeader) != Timer::ProxyHeader;
        is_new.then(|| self.seconds(http)).flatten()
    }

    /// The length of its timer in seconds; `None` for `Timer::None`.
    pub(in crate::tick) fn seconds(&self, http: &Http) -> Option<u32> {
        let rules = &http.rules;
        match self.timer {
            Timer::None => None,
            Timer::FirstByte | Timer::ProxyHeader => {
                Some(rules.request_seconds.min(limits::FIRST_BYTE_TIMEOUT_SECONDS))
            }
            Timer::TlsHandshake | Timer::Request | Timer::Answer => Some(rules.request_seconds),
            Timer::KeepAlive => Some(rules.keepalive_seconds),
            Timer::Cores => Some(u32::try_from(limits::GATHER_TIMEOUT_MS / 1_000).unwrap_or(1)),
            Timer::Discard => Some(DISCARD_SECONDS),
        }
    }

    /// Logs why a session ended at its deadline. An idle one ends without a line.
    pub(in crate::tick) fn refuse_late(&self, http: &mut Http) {
        let cause = match self.timer {
            Timer::FirstByte => Cause::NothingSent,
            Timer::ProxyHeader => Cause::ProxyHeaderTimeout,
            Timer::TlsHandshake => Cause::TlsTimeout,
            Timer::Request => Cause::RequestTimeout,
            Timer::Answer => Cause::AnswerUnread,
            Timer::None | Timer::KeepAlive | Timer::Cores | Timer::Discard => return,
        };
        let seconds = self.seconds(http).unwrap_or_default();
        self.refuse(http, RefusalContext::default(), cause, &[Detail::Number(seconds.into())]);
    }

    /// Logs that the session ends because a new one needs its descriptor.
    pub(in crate::tick) fn refuse_idle(&self, http: &mut Http) {
        let most = Detail::count(http.rules.connections_max);
        self.refuse(http, RefusalContext::default(), Cause::HttpConnections, &[most]);
    }
}
