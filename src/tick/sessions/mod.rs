//! Sockets that speak HTTP: accepts, reads, sends, times and closes them. `http` decides the answers. PURE: the kernel
//! is a parameter.
//!
//! Owns the table of sessions and their queues. A new socket is read at once, because its request has usually arrived
//! (docs/decisions/0013), and is watched only if it has to wait. An idle session has its entry in `table` and nothing
//! else: no task, no timer, no buffer (docs/decisions/0002). Does not read bytes as HTTP.
//!
//! Limits: a session is queued once and read at most once a tick. The reads of queued sessions in a tick end after
//! `READ_TIME_PER_TICK_NS`, which the reads of WebSockets do not use up, and the accepts with the reads of new sessions
//! after as long again, or after `ACCEPTS_PER_TICK_MAX` connections. The remaining sessions are first in the next tick.
//! Cost: one system call for a read, and a few steps of queues for each session; `tick/http` has the cost of a request.

mod accept;
mod proxied;
mod secure;
mod table;

use super::http::{AfterAnswers, LinePeer, Step, Timer, Upgrade};
use super::kernel::{Kernel, Received, Sent, SessionKey, Watched};
use super::reactor::{AddressChange, Queued, Reactor};
use super::site::Site;
use crate::cause::{Cause, Detail};
use crate::limits;
use crate::slot::Slot;
use crate::tls::RECORD_BYTES_MAX;
use crate::wheel::Wheel;
use crate::ws::handshake;
pub(super) use table::Sessions;
use table::{NEVER, SessionEntry};

impl<K: Kernel> Reactor<K> {
    /// Queues a session to be read: it is readable, or what it has received may contain another request.
    pub(super) fn queue_session(&mut self, key: SessionKey, until: Queued) {
        let Some(entry) = self.sessions.get(key) else { return };
        let before = entry.queued;
        if until == Queued::ToTheEnd || before == Queued::No {
            entry.queued = until;
        }
        if before == Queued::No {
            self.sessions.ready.push_back(key);
        }
    }

    /// The kernel reports that a session is readable. `is_armed`: its watch for reading continues.
    pub(super) fn note_readable_session(&mut self, key: SessionKey, is_armed: bool, until: Queued) {
        let Some(entry) = self.sessions.get(key) else { return };
        if !is_armed && entry.is_watched_once() {
            // It is watched again after it was read, if it still is a session.
            entry.is_watched = false;
        } else if !is_armed {
            self.kernel.watch_readable(&entry.socket, Watched::Session(key));
        }
        self.queue_session(key, until);
    }

    /// The kernel accepts bytes again, so the session's answers are sent in this tick.
    pub(super) fn note_writable_session(&mut self, key: SessionKey) {
        if let Some(entry) = self.sessions.get(key)
            && std::mem::take(&mut entry.is_blocked)
            && !std::mem::replace(&mut entry.has_answer, true)
        {
            self.sessions.answers.push(key);
        }
    }

    /// The kernel has no memory to watch the session. It is ended, because nothing would report its next bytes.
    pub(super) fn note_unwatchable_session(&mut self, site: &mut Site<'_>, key: SessionKey) {
        if let Some(entry) = self.sessions.get(key) {
            let peer = Some(entry.session.peer);
            let why = Detail::Own("it has no memory to watch the socket");
            site.http.refuse(Cause::Kernel, &[why], |_| LinePeer { peer, ..LinePeer::default() });
            self.drop_session(site, key);
        }
    }

    /// Reads the queued sessions, each once, as long as there is time; at least one.
    pub(super) fn read_sessions(&mut self, site: &mut Site<'_>) {
        let deadline = self.kernel.stamp() + limits::READ_TIME_PER_TICK_NS;
        for _ in 0..self.sessions.ready.len() {
            let Some(key) = self.sessions.ready.pop_front() else { return };
            self.read_queued(site, key);
            if self.kernel.stamp() >= deadline {
                return;
            }
        }
    }

    /// Reads a queued session. If it can process no bytes now, it is deferred: `settle_session` queues it again.
    fn read_queued(&mut self, site: &mut Site<'_>, key: SessionKey) {
        let Some(entry) = self.sessions.get(key) else { return };
        if entry.queued == Queued::No {
            return;
        }
        if entry.read_in_tick == self.tick {
            self.sessions.ready.push_back(key);
        } else if !entry.wants_bytes() || (site.http.is_transferring && entry.is_transferable()) {
            entry.is_deferred = true;
        } else if self.serve_input(site, key) {
            self.read_session(site, key);
        } else if let Some(entry) = self.sessions.get(key) {
            entry.is_deferred = true;
        }
    }

    /// Carries out received requests before it reads more. Otherwise a client that sends many requests at once would
    /// make the server keep all of them, and the end of its half would discard them. Returns whether more bytes are
    /// wanted.
    fn serve_input(&mut self, site: &mut Site<'_>, key: SessionKey) -> bool {
        let Some(entry) = self.sessions.get(key) else { return false };
        if !entry.session.input().is_empty() {
            self.serve(site, key);
        }
        self.sessions.get(key).is_some_and(|entry| entry.wants_bytes())
    }

    /// Reads a session once. The requests that it has received are carried out.
    fn read_session(&mut self, site: &mut Site<'_>, key: SessionKey) {
        if self.receive_session(site, key) {
            self.serve(site, key);
        }
    }

    /// Receives once. Returns whether the session is to be served.
    fn receive_session(&mut self, site: &mut Site<'_>, key: SessionKey) -> bool {
        let Some(entry) = self.sessions.get(key) else { return false };
        let until = std::mem::replace(&mut entry.queued, Queued::No);
        entry.read_in_tick = self.tick;
        if entry.secure.as_ref().is_some_and(|secure| secure.has_ended()) {
            self.drop_session(site, key);
            return false;
        }
        let room = &mut self.scratch[RECORD_BYTES_MAX..];
        debug_assert_eq!(room.len(), limits::READ_BYTES_PER_TICK_MAX, "as much as a tick reads");
        match self.kernel.receive(&entry.socket, room) {
            // The client has ended its half, or the connection has failed.
            Received::Gone => {
                self.drop_session(site, key);
                false
            }
            Received::Nothing => true,
            Received::Bytes(count) => {
                if count == room.len() || until == Queued::ToTheEnd {
                    self.queue_session(key, until);
                }
                self.sessions.restart_wait(key);
                self.receive_input(site, key, count)
            }
        }
    }

    /// Reads the accepted sessions, then serves them, as long as there is time. Step by step for all of them, because
    /// each step then finds its code in the processor's cache.
    fn serve_accepted(&mut self, site: &mut Site<'_>, deadline: u64) {
        let mut accepted = std::mem::take(&mut self.sessions.accepted);
        accepted.retain(|key| self.receive_session(site, *key));
        // The reads took time, also those of connections that have ended.
        site.stamp = self.kernel.stamp();
        for key in accepted.drain(..) {
            if site.stamp < deadline {
                // Each step of a session notes the time.
                self.serve(site, key);
            } else {
                self.queue_session(key, Queued::Once);
                self.settle_session(site, key);
            }
        }
        self.sessions.accepted = accepted;
    }

    /// Carries out the complete requests that were received, in order.
    fn serve(&mut self, site: &mut Site<'_>, key: SessionKey) {
        loop {
            site.stamp = self.kernel.stamp();
            let Some(entry) = self.sessions.get(key) else { return };
            match entry.session.step(key, site) {
                Step::Again => {}
                Step::Rest => return self.settle_session(site, key),
                Step::Upgrade(upgrade) => return self.upgrade(site, key, upgrade),
            }
        }
    }

    /// Gives a session what it needs while it waits: a flush, a watch, a deadline.
    pub(super) fn settle_session(&mut self, site: &mut Site<'_>, key: SessionKey) {
        let Sessions { entries, answers, spare, ready, .. } = &mut self.sessions;
        let entry = entries.get_mut(key.slot.index());
        let Some(entry) = entry.filter(|entry| entry.generation == key.generation) else { return };
        entry.session.release_buffers(spare);
        let secure_bytes = entry.secure_bytes();
        if !entry.is_blocked && !entry.session.has_begun() && secure_bytes == 0 {
            entry.session.release_memory_charge(site);
        } else if !entry.session.try_charge_memory(site, secure_bytes)
            && (entry.is_in_handshake() || !entry.session.refuse_for_memory(site.http))
        {
            return self.drop_session(site, key);
        }
        let has_answer = entry.has_unsent();
        if has_answer && !entry.is_blocked && !std::mem::replace(&mut entry.has_answer, true) {
            answers.push(key);
        }
        // A session that ends with this tick's answer needs no watch.
        if !entry.is_watched && !entry.session.is_closing() {
            entry.is_watched = true;
            match entry.is_watched_once() {
                true => self.kernel.watch_readable_once(&entry.socket, Watched::Session(key)),
                false => self.kernel.watch_readable(&entry.socket, Watched::Session(key)),
            }
        }
        let is_transferring = site.http.is_transferring && entry.is_transferable();
        if entry.is_deferred && entry.wants_bytes() && !is_transferring {
            entry.is_deferred = false;
            ready.push_back(key);
        }
        let seconds = if entry.awaited_header.is_some() {
            entry.session.header_timer(site.http)
        } else if entry.is_in_handshake() {
            entry.session.handshake_timer(entry.has_received, site.http)
        } else {
            entry.session.next_timer(entry.is_blocked, site.http)
        };
        // A session that waits for nothing has no deadline: the earlier one may be over in this tick.
        if entry.session.timer == Timer::None || seconds.is_some() {
            self.sessions.set_deadline(key, site.shard.now(), seconds);
        }
        self.sessions.note_waiting(key);
    }

    /// The kernel has accepted `sent` of the `given` bytes of a session's answers. `sealed`: these bytes, with TLS.
    pub(super) fn on_answer_sent(
        &mut self,
        site: &mut Site<'_>,
        key: SessionKey,
        given: usize,
        sent: Sent,
        sealed: Option<&[u8]>,
    ) {
        let Some(entry) = self.sessions.get(key) else { return };
        let count = match sent {
            Sent::Whole => given,
            Sent::Part(count) if count <= given => count,
            Sent::Part(_) | Sent::Failed => return self.drop_session(site, key),
        };
        debug_assert!(entry.has_answer, "a session with an answer is in the list once");
        entry.has_answer = false;
        match (&mut entry.secure, sealed.and_then(|sealed| sealed.get(count..))) {
            (Some(secure), Some(unsent)) => secure.keep_unsent(unsent),
            _ => entry.session.note_sent(count),
        }
        if entry.has_unsent() {
            // It is blocked, or one send had its maximum.
            if count < given {
                entry.is_blocked = true;
                self.kernel.watch_writable(&entry.socket, Watched::Session(key));
            }
            return self.settle_session(site, key);
        }
        match entry.session.next_after_answers(entry.queued != Queued::No) {
            AfterAnswers::Close => return self.drop_session(site, key),
            AfterAnswers::ShutDown if !self.kernel.shut_down(&entry.socket) => {
                return self.drop_session(site, key);
            }
            // The next request may have arrived with the previous one.
            AfterAnswers::Continue if entry.session.has_begun() => {
                self.queue_session(key, Queued::Once)
            }
            AfterAnswers::ShutDown | AfterAnswers::Continue => {}
        }
        self.settle_session(site, key);
    }

    /// Continues sessions whose wait is over: their answers are complete, their mail is in the rings, or the mailboxes
    /// have room.
    pub(super) fn resume_sessions(&mut self, site: &mut Site<'_>) {
        // The next pipelined request may ask a question as well; with one core its answers are complete at once.
        while let Some((key, id)) = site.gathers.next_complete_session() {
            let found = self.sessions.get(key);
            if found.is_some_and(|entry| entry.session.question() == Some(id)) {
                self.resume_session(site, key, false);
            } else {
                site.gathers.end(id);
            }
        }
        while let Some((key, mark)) = site.http.awaiting_mail_in_rings.front().copied()
            && site.mailbox.is_in_rings(mark)
        {
            site.http.awaiting_mail_in_rings.pop_front();
            self.resume_session(site, key, false);
        }
        while !site.mailbox.is_congested()
            && let Some(key) = site.http.congested.pop_front()
        {
            self.resume_session(site, key, false);
        }
        debug_assert!(
            site.mailbox.is_congested() || site.http.congested.is_empty(),
            "no publisher waits while there is room"
        );
    }

    fn resume_session(&mut self, site: &mut Site<'_>, key: SessionKey, late: bool) {
        site.stamp = self.kernel.stamp();
        if let Some(entry) = self.sessions.get(key) {
            entry.session.resume(key, late, site);
            self.serve(site, key);
        }
    }

    /// Ends sessions at their deadlines. Call it after the reads of the tick: if the host stalled, a request and its
    /// deadline are seen together, and the request was in time.
    pub(super) fn expire_sessions(&mut self, site: &mut Site<'_>) {
        let now = site.shard.now().seconds();
        let before = std::mem::replace(&mut self.sessions.looked_at_seconds, now);
        if before == now {
            return;
        }
        debug_assert!(before < now, "the clock of a shard does not run backwards");
        for second in Wheel::<SessionKey>::seconds_since(before, now) {
            for due in self.sessions.wheel.take_bucket(second) {
                if due.at_seconds > now {
                    self.sessions.wheel.add(due.key, due.at_seconds);
                    continue;
                }
                let Some(entry) = self.sessions.get(due.key) else { continue };
                if entry.wheel_entry_seconds != due.at_seconds {
                    continue;
                }
                entry.wheel_entry_seconds = NEVER;
                let deadline = entry.deadline_seconds;
                if deadline <= now {
                    self.on_deadline(site, due.key, now);
                } else if deadline != NEVER {
                    entry.wheel_entry_seconds = deadline;
                    self.sessions.wheel.add(due.key, deadline);
                }
            }
        }
    }

    fn on_deadline(&mut self, site: &mut Site<'_>, key: SessionKey, now: u32) {
        let Some(entry) = self.sessions.get(key) else { return };
        match entry.session.timer {
            Timer::None => return,
            Timer::Cores => {
                entry.session.timer = Timer::None;
                return self.resume_session(site, key, true);
            }
            // Input that has arrived by now was in time.
            Timer::FirstByte
            | Timer::ProxyHeader
            | Timer::TlsHandshake
            | Timer::Request
            | Timer::KeepAlive
                if entry.read_in_tick != self.tick && entry.wants_bytes() =>
            {
                let wants_bytes = self.serve_input(site, key);
                if wants_bytes {
                    self.read_session(site, key);
                }
            }
            _ => {}
        }
        if let Some(entry) = self.sessions.get(key)
            && entry.deadline_seconds <= now
        {
            entry.session.refuse_late(site.http);
            self.drop_session(site, key);
        }
    }

    /// Ends a session and its socket, whatever its state.
    pub(super) fn drop_session(&mut self, site: &mut Site<'_>, key: SessionKey) {
        let Some(entry) = self.sessions.remove(key) else { return };
        if entry.is_watched || entry.is_blocked {
            self.kernel.unwatch(&entry.socket, Watched::Session(key), entry.is_blocked);
        }
        self.close(entry.socket, entry.secure);
        entry.session.end(site, &mut self.sessions.spare);
    }

    /// Ends all sessions: after lost reports the state of none is known.
    pub(super) fn drop_all_sessions(&mut self, site: &mut Site<'_>) {
        for key in self.session_keys() {
            self.drop_session(site, key);
        }
        debug_assert_eq!(self.sessions.len(), 0, "none is left");
    }

    fn session_keys(&self) -> Vec<SessionKey> {
        let key = |(slot, entry): (usize, &SessionEntry<K::Socket, K::Channel>)| SessionKey {
            slot: Slot::of(slot),
            generation: entry.generation,
        };
        self.sessions.entries.iter().map(key).collect()
    }

    /// Refuses incomplete requests that a new process could not continue.
    pub(super) fn refuse_unfinished(&mut self, site: &mut Site<'_>) {
        for key in self.session_keys() {
            if let Some(entry) = self.sessions.get(key)
                && entry.session.refuse_unfinished(site.http)
            {
                self.settle_session(site, key);
            }
        }
    }

    /// Settles all sessions, because those that had stopped for a transfer may continue.
    pub(super) fn wake_sessions(&mut self, site: &mut Site<'_>) {
        for key in self.session_keys() {
            self.settle_session(site, key);
        }
    }

    /// Ends the session, and makes its socket a connection. The 101 answer and the first frame leave in one send.
    fn upgrade(&mut self, site: &mut Site<'_>, key: SessionKey, upgrade: Upgrade) {
        let Some(mut entry) = self.sessions.remove(key) else { return };
        if entry.is_watched || entry.is_blocked {
            self.kernel.unwatch(&entry.socket, Watched::Session(key), entry.is_blocked);
        }
        let (mut prelude, mut leftover) = entry.session.take_buffers();
        handshake::write_response(&upgrade.accept, &mut prelude);
        let named_client = entry.session.named_client();
        entry.session.end(site, &mut self.sessions.spare);
        let connection = match upgrade.admitted {
            Ok(admitted) => {
                let entropy = site.http.random();
                let connection = site.shard.open(admitted.app, entropy, &prelude);
                self.accounts.push(AddressChange::Begun(connection.slot, admitted.address_slot));
                connection
            }
            Err(unwanted) => {
                site.shard.open_refused(&prelude, unwanted.error, unwanted.why.as_deref())
            }
        };
        self.named.set(connection.slot, named_client);
        debug_assert!(self.sessions.get(key).is_none(), "a socket is a session or a connection");
        let has_ended = entry.secure.as_ref().is_some_and(|secure| secure.has_ended());
        if let Some(secure) = entry.secure {
            self.add_secure(connection, secure);
        }
        self.adopt(site.shard, connection, entry.socket, &mut leftover);
        self.sessions.spare.put_buffers(leftover, prelude);
        if has_ended {
            self.queue(connection, Queued::ToTheEnd);
        }
    }
}
