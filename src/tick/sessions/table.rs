//! The table of sockets that speak HTTP: entries by slot, deadlines, and the order in which idle sessions may be ended.
//! PURE.
//!
//! Owns the entries and the queues of their keys, and does no socket operation. A queue may have stale entries, of
//! sessions that have ended or no longer wait: they are skipped, and dropped in bulk, so each operation is constant on
//! average.
//!
//! Limits: one entry for each descriptor, and `limits::stale_entries_max` of these in a queue. Cost: an index for a
//! look-up and a few steps for each change of a queue; a new session is one entry, reused after its end.

use std::collections::VecDeque;

use core::net::IpAddr;
use slab::Slab;

use super::super::http::{Session, Spare, Timer};
use super::super::kernel::SessionKey;
use super::super::reactor::Queued;
use super::super::{SessionPeer, TransferredSession};
use crate::clock::Moment;
use crate::limits::stale_entries_max;
use crate::proxy_header::ProxyHeaderReader;
use crate::slot::Slot;
use crate::tls::socket::{SecureChannel, SecureSocket};
use crate::wheel::Wheel;

/// A deadline that never comes.
pub(super) const NEVER: u32 = u32::MAX;
/// How many of the longest waiting sessions are searched for one of an address: it bounds the work that an accepted
/// socket can cause.
const SEARCHED_MAX: usize = 64;
/// The same with stale entries, which cost less.
const LOOKED_AT_MAX: usize = 8 * SEARCHED_MAX;

pub(super) struct SessionEntry<S, C> {
    pub(super) socket: S,
    /// The TLS channel; `None` without TLS.
    pub(super) secure: Option<Box<SecureSocket<C>>>,
    /// Set until the header of the PROXY protocol, with which the session must begin, is complete.
    pub(super) awaited_header: Option<Box<AwaitedHeader>>,
    /// A byte of its TLS handshake has arrived, so another timer counts.
    pub(super) has_received: bool,
    pub(super) generation: u32,
    /// The tick in which it was read last, modulo 2^16.
    pub(super) read_in_tick: u16,
    pub(super) queued: Queued,
    /// It is queued, but not in the queue, because it can process no bytes now.
    pub(super) is_deferred: bool,
    pub(super) is_watched: bool,
    /// Its send buffer is full, so it is watched for writing.
    pub(super) is_blocked: bool,
    /// It is in `Sessions::answers`.
    pub(super) has_answer: bool,
    /// Its number in the order of waiting sessions; 0 if it does not wait for its client.
    pub(super) wait_number: u32,
    pub(super) deadline_seconds: u32,
    /// The earliest second for which the wheel has an entry of it; `NEVER` if it has none.
    pub(super) wheel_entry_seconds: u32,
    pub(super) session: Session,
}

/// The state of a header of the PROXY protocol that a trusted proxy must send.
pub(super) struct AwaitedHeader {
    pub(super) reader: ProxyHeaderReader,
    /// A TLS handshake follows the header.
    pub(super) is_secure: bool,
}

pub(in crate::tick) struct Sessions<S, C> {
    pub(super) entries: Slab<SessionEntry<S, C>>,
    pub(super) sequence: u32,
    /// Readable sessions in the order in which they became so, each once.
    pub(super) ready: VecDeque<SessionKey>,
    /// Accepted sessions that are not read yet. Empty except while connections are accepted.
    pub(super) accepted: Vec<SessionKey>,
    /// Sessions whose answers this tick's flush sends, each once.
    pub(in crate::tick) answers: Vec<SessionKey>,
    pub(super) wheel: Wheel<SessionKey>,
    pub(super) looked_at_seconds: u32,
    pub(super) wait_order: WaitOrder,
    pub(super) spare: Spare,
}

/// Sessions that wait for their clients, longest first. An entry is stale if its number differs from the session's.
#[derive(Default)]
pub(super) struct WaitOrder {
    by_age: VecDeque<(SessionKey, u32)>,
    /// Those that have sent nothing yet. They are ended first.
    silent_by_age: VecDeque<(SessionKey, u32)>,
    last_wait_number: u32,
    pub(super) waiting: usize,
}

impl<S, C> Default for Sessions<S, C> {
    fn default() -> Self {
        Self {
            entries: Slab::new(),
            sequence: 0,
            ready: VecDeque::new(),
            accepted: Vec::new(),
            answers: Vec::new(),
            wheel: Wheel::default(),
            looked_at_seconds: 0,
            wait_order: WaitOrder::default(),
            spare: Spare::default(),
        }
    }
}

impl<S, C: SecureChannel> SessionEntry<S, C> {
    /// Whether answers or sealed bytes are to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        let is_owed = self.secure.as_ref().is_some_and(|secure| secure.has_output());
        is_owed || !self.session.unsent().is_empty()
    }

    /// As `Session::wants_bytes`, but not while sealed bytes wait, so that a client that does not read cannot cause
    /// more of them.
    pub(super) fn wants_bytes(&self) -> bool {
        self.session.wants_bytes()
            && !self.secure.as_ref().is_some_and(|secure| secure.has_output())
    }

    /// See `Session::is_transferable`. No other process can continue a TLS handshake, or a PROXY header.
    pub(super) fn is_transferable(&self) -> bool {
        let is_secure_transferable = |secure: &SecureSocket<C>| {
            secure.is_established() && !secure.has_output() && !secure.has_ended()
        };
        self.awaited_header.is_none()
            && self.session.is_transferable()
            && self.secure.as_deref().is_none_or(is_secure_transferable)
    }

    /// Whether one report of its socket is enough. With TLS the socket is watched before its first request, which
    /// usually makes it a connection.
    pub(super) fn is_watched_once(&self) -> bool {
        self.secure.is_some() && !self.session.has_answered
    }

    /// Whether its TLS handshake, or the PROXY header before it, is not complete.
    pub(super) fn is_in_handshake(&self) -> bool {
        self.awaited_header.is_some()
            || self.secure.as_ref().is_some_and(|secure| !secure.is_established())
    }

    /// Memory of its TLS channel and of the header before it, in bytes.
    pub(super) fn secure_bytes(&self) -> usize {
        let awaited = if self.awaited_header.is_some() { size_of::<AwaitedHeader>() } else { 0 };
        awaited
            + self
                .secure
                .as_ref()
                .map_or(0, |secure| size_of::<SecureSocket<C>>() + secure.heap_bytes())
    }
}

impl<S, C: SecureChannel> Sessions<S, C> {
    pub(super) fn get(&mut self, key: SessionKey) -> Option<&mut SessionEntry<S, C>> {
        let entry = self.entries.get_mut(key.slot.index())?;
        (entry.generation == key.generation).then_some(entry)
    }

    /// The answers that a session has to send, with its socket. `None` if it has ended.
    pub(in crate::tick) fn unsent(&self, key: SessionKey) -> Option<(&S, &[u8])> {
        let entry = self.entries.get(key.slot.index())?;
        let is_current = entry.generation == key.generation;
        is_current.then(|| (&entry.socket, entry.session.unsent()))
    }

    pub(in crate::tick) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(in crate::tick) fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.answers.is_empty()
    }

    pub(in crate::tick) fn queued(&self) -> usize {
        self.ready.len()
    }

    /// Entries of the wheel, those of ended sessions included.
    pub(in crate::tick) fn deadlines(&self) -> usize {
        self.wheel.len()
    }

    /// Sessions that another process could not continue, except those that only wait for their client to close.
    pub(in crate::tick) fn untransferable_count(&self) -> usize {
        let is_busy = |entry: &SessionEntry<S, C>| {
            !entry.is_transferable() && entry.session.timer != Timer::Discard
        };
        self.entries.iter().filter(|(_, entry)| is_busy(entry)).count()
    }

    /// The sessions that another process can continue, with what it needs for that.
    pub(in crate::tick) fn export(&self) -> impl Iterator<Item = TransferredSession<'_, S>> {
        let entries = self.entries.iter().filter(|(_, entry)| entry.is_transferable());
        entries.map(|(_, entry)| {
            let session = &entry.session;
            TransferredSession {
                socket: &entry.socket,
                peer: SessionPeer { address: session.peer, is_named: session.is_named },
                served: session.has_answered,
                input: session.input(),
                secure: entry.secure.as_ref().and_then(|secure| secure.export()),
            }
        })
    }

    /// Appends the sealed bytes that a session with TLS is to send: one record at most. `false` if it has no TLS.
    pub(in crate::tick) fn seal(&mut self, key: SessionKey, out: &mut Vec<u8>) -> bool {
        let Some(SessionEntry { secure: Some(secure), session, .. }) = self.get(key) else {
            return false;
        };
        let content = secure.write(out, |out, most| {
            let unsent = session.unsent();
            out.extend_from_slice(unsent.get(..most).unwrap_or(unsent));
        });
        debug_assert!(content <= session.unsent().len(), "what is sealed was waiting");
        session.note_sent(content);
        if session.is_closing() && session.unsent().is_empty() {
            // The announcement of the end is sent with the last answer.
            secure.close(out);
        }
        true
    }

    pub(super) fn insert(
        &mut self,
        socket: S,
        secure: Option<Box<SecureSocket<C>>>,
        session: Session,
    ) -> SessionKey {
        self.sequence = self.sequence.wrapping_add(1);
        let generation = self.sequence;
        let slot = self.entries.insert(SessionEntry {
            socket,
            secure,
            awaited_header: None,
            has_received: false,
            generation,
            read_in_tick: 0,
            queued: Queued::No,
            is_deferred: false,
            is_watched: false,
            is_blocked: false,
            has_answer: false,
            wait_number: 0,
            deadline_seconds: NEVER,
            wheel_entry_seconds: NEVER,
            session,
        });
        SessionKey { slot: Slot::of(slot), generation }
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<SessionEntry<S, C>> {
        self.get(key)?;
        let entry = self.entries.try_remove(key.slot.index())?;
        self.wait_order.waiting -= usize::from(entry.wait_number != 0);
        debug_assert!(
            self.wait_order.waiting <= self.entries.len(),
            "one that ended does not wait"
        );
        Some(entry)
    }

    /// Sets a deadline, in whole seconds from now, rounded up. `None`: no deadline.
    pub(super) fn set_deadline(&mut self, key: SessionKey, now: Moment, seconds: Option<u32>) {
        let Some(entry) = self.get(key) else { return };
        let Some(seconds) = seconds else {
            entry.deadline_seconds = NEVER;
            return;
        };
        debug_assert!(seconds > 0, "the wheel does not look at a second that is over");
        let at = Moment(now.0 + 999).seconds().saturating_add(seconds);
        entry.deadline_seconds = at;
        if at < entry.wheel_entry_seconds {
            entry.wheel_entry_seconds = at;
            let entries = &self.entries;
            self.wheel.sweep_if_stale(entries.len(), |due| {
                let found = entries.get(due.key.slot.index());
                found.is_some_and(|entry| {
                    entry.generation == due.key.generation
                        && entry.wheel_entry_seconds == due.at_seconds
                })
            });
            self.wheel.add(key, at);
            debug_assert!(
                self.wheel.len() <= stale_entries_max(self.entries.len()) + 1,
                "deadlines of ended sessions do not pile up"
            );
        }
    }

    /// Updates the place of a session in the order of waiting sessions, if it has begun or ended to wait for its
    /// client.
    pub(super) fn note_waiting(&mut self, key: SessionKey) {
        let looked_at_seconds = self.looked_at_seconds;
        let Some(entry) = self.get(key) else { return };
        // The client cannot have read an answer that leaves with this tick's flush, so the session does not wait for it
        // yet.
        let waits = entry.session.waits_for_client() && !entry.has_answer;
        debug_assert!(
            entry.deadline_seconds == NEVER
                || entry.wheel_entry_seconds <= entry.deadline_seconds
                || entry.deadline_seconds <= looked_at_seconds,
            "the wheel comes to it, or is at it, when its deadline is over"
        );
        let (previous_number, is_silent) = (
            entry.wait_number,
            matches!(entry.session.timer, Timer::FirstByte | Timer::ProxyHeader),
        );
        if waits == (previous_number != 0) {
            return;
        }
        if !waits {
            entry.wait_number = 0;
            self.wait_order.waiting -= 1;
            return;
        }
        self.wait_order.last_wait_number = self.wait_order.last_wait_number.wrapping_add(1).max(1);
        let number = self.wait_order.last_wait_number;
        if let Some(entry) = self.get(key) {
            entry.wait_number = number;
        }
        self.wait_order.waiting += 1;
        debug_assert!(self.wait_order.waiting <= self.entries.len(), "each session waits once");
        let Self { entries, wait_order, .. } = self;
        let queue = if is_silent { &mut wait_order.silent_by_age } else { &mut wait_order.by_age };
        // Sessions begin to wait often and end seldom, so stale entries are dropped here.
        if queue.len() > stale_entries_max(entries.len()) {
            queue.retain(|(key, number)| {
                let found = entries.get(key.slot.index());
                found.is_some_and(|entry| entry.wait_number == *number)
            });
        }
        queue.push_back((key, number));
    }

    /// Bytes have arrived, so the session is no longer the one that has waited longest.
    pub(super) fn restart_wait(&mut self, key: SessionKey) {
        if let Some(entry) = self.get(key)
            && std::mem::take(&mut entry.wait_number) != 0
        {
            debug_assert!(self.wait_order.waiting > 0, "it was counted");
            self.wait_order.waiting -= 1;
        }
    }

    pub(super) fn waiting_entry(
        &self,
        (key, number): (SessionKey, u32),
    ) -> Option<&SessionEntry<S, C>> {
        debug_assert!(number != 0, "a session that does not wait has no number in a queue");
        let entry = self.entries.get(key.slot.index())?;
        (entry.generation == key.generation && entry.wait_number == number).then_some(entry)
    }

    /// The session that has waited longest, preferably one that has sent nothing.
    pub(super) fn longest_waiting(&mut self) -> Option<SessionKey> {
        while let Some(found) = self.wait_order.silent_by_age.front().copied() {
            if self.waiting_entry(found).is_some() {
                return Some(found.0);
            }
            self.wait_order.silent_by_age.pop_front();
        }
        while let Some(found) = self.wait_order.by_age.front().copied() {
            if self.waiting_entry(found).is_some() {
                return Some(found.0);
            }
            self.wait_order.by_age.pop_front();
        }
        None
    }

    /// The session of an address that has waited longest, if it is among the first `SEARCHED_MAX`.
    pub(super) fn longest_waiting_of(&mut self, address: IpAddr) -> Option<SessionKey> {
        // Drops stale entries at the front. They are there if sessions end in the order in which they began.
        self.longest_waiting();
        let live =
            |found: &(SessionKey, u32)| self.waiting_entry(*found).map(|entry| (found.0, entry));
        [&self.wait_order.silent_by_age, &self.wait_order.by_age].into_iter().find_map(|queue| {
            let first = queue.iter().take(LOOKED_AT_MAX).filter_map(live).take(SEARCHED_MAX);
            let mut of_address = first.filter(|(_, entry)| entry.session.peer.ip() == address);
            of_address.next().map(|(key, _)| key)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::AddressSlot;
    use crate::tls::TlsChannel;
    use core::net::SocketAddr;

    fn waiting(sessions: &mut Sessions<(), TlsChannel>, peer: [u8; 4]) -> SessionKey {
        let peer = SocketAddr::from((peer, 4_711));
        let key = sessions.insert((), None, Session::new(peer, AddressSlot::NONE));
        sessions.get(key).unwrap().session.timer = Timer::FirstByte;
        sessions.note_waiting(key);
        key
    }

    #[test]
    fn the_longest_waiting_session_of_an_address_is_found_among_many_stale_entries() {
        let (ours, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        let mut sessions = Sessions::default();
        let first = waiting(&mut sessions, other);
        let mut expected = VecDeque::new();
        for number in 0..500 {
            expected.push_back(waiting(&mut sessions, ours));
            if number >= 40 {
                let found = sessions.longest_waiting_of(IpAddr::from(ours));
                assert_eq!(found, expected.pop_front(), "{number}");
                sessions.remove(found.unwrap());
            }
        }
        assert_eq!(sessions.longest_waiting(), Some(first));
        assert_eq!(sessions.longest_waiting_of(IpAddr::from([192, 0, 2, 3])), None);
    }

    #[test]
    fn sessions_that_have_sent_nothing_make_room_before_others() {
        let mut sessions = Sessions::default();
        let served = waiting(&mut sessions, [192, 0, 2, 1]);
        sessions.restart_wait(served);
        sessions.get(served).unwrap().session.timer = Timer::KeepAlive;
        sessions.note_waiting(served);
        let silent = waiting(&mut sessions, [192, 0, 2, 1]);
        assert_eq!(sessions.longest_waiting(), Some(silent));
        sessions.remove(silent);
        assert_eq!(sessions.longest_waiting(), Some(served));
        sessions.remove(served);
        assert_eq!(sessions.longest_waiting(), None);
        assert_eq!(sessions.wait_order.waiting, 0);
    }

    #[test]
    fn stale_entries_do_not_pile_up() {
        let mut sessions = Sessions::default();
        let there = waiting(&mut sessions, [192, 0, 2, 1]);
        for _ in 0..10_000 {
            let key = waiting(&mut sessions, [192, 0, 2, 1]);
            sessions.remove(key);
        }
        assert!(sessions.wait_order.silent_by_age.len() < 100);
        assert_eq!(sessions.longest_waiting(), Some(there));
        for second in 0..10_000 {
            sessions.set_deadline(there, Moment(second * 10), Some(60));
            let key = waiting(&mut sessions, [192, 0, 2, 1]);
            sessions.set_deadline(key, Moment(second * 10), Some(60));
            sessions.remove(key);
        }
        assert!(sessions.wheel.len() < 100, "{} deadlines", sessions.wheel.len());
        let of_living = sessions.wheel.iter().filter(|due| due.key == there).count();
        assert_eq!(of_living, 1, "the deadline of the one that is there stays");
    }
}
