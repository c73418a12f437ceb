//! Accepting: new sockets become HTTP sessions, if limits, descriptors and memory allow it.
//!
//! Owns no state: it changes the table of sessions. If there is no room, an idle session is ended for the new one.
//! Sessions of another process are imported here too. Input: listeners that are ready. Each tick begins with another
//! listener, so that none waits without end. Does not read a request.
//!
//! Limits: `ACCEPTS_PER_TICK_MAX` and `READ_TIME_PER_TICK_NS` in a tick, `Rules::connections_max`, the sockets of each
//! address, and the memory budget. Cost: one system call for each connection, and one entry of the table; buffers come
//! with the first byte.

use core::net::SocketAddr;

use super::table::AwaitedHeader;
use crate::admission::AddressSlot;
use crate::cause::{Cause, Detail};
use crate::clock::Moment;
use crate::limits;
use crate::tick::SessionPeer;
use crate::tick::http::{Http, LinePeer, Session};
use crate::tick::kernel::{Accepted, Kernel, SessionKey};
use crate::tick::reactor::{ListenerState, Queued, Reactor};
use crate::tick::site::Site;
use crate::tls::socket::{SecureSocket, SecureState};

/// Pause after the system had no descriptor or no memory for a connection, in milliseconds: the listener stays
/// readable, so without it the core would spin.
const EXHAUSTED_PAUSE_MS: u64 = 100;
/// Connections that are accepted before their first bytes are read: their buffers fit the processor's cache.
const ACCEPTED_UNREAD_MAX: usize = 16;
/// Pause when none of the sessions can be ended for a new one, in milliseconds: those that are being served finish
/// soon.
const FULL_PAUSE_MS: u64 = 1;

impl<K: Kernel> Reactor<K> {
    /// Adds a listener of plain HTTP.
    pub fn listen(&mut self, listener: K::Listener) {
        self.add_listener(listener, false);
    }

    /// Adds a listener whose connections begin with a TLS handshake.
    pub fn listen_secure(&mut self, listener: K::Listener) {
        self.add_listener(listener, true);
    }

    fn add_listener(&mut self, listener: K::Listener, is_secure: bool) {
        let index = u32::try_from(self.listeners.len()).unwrap_or(u32::MAX);
        self.kernel.watch_listener(&listener, index);
        // Another process may have owned it, so connections may be waiting that are not reported.
        self.listeners.push(ListenerState { listener, is_ready: true, is_secure });
        debug_assert_eq!(self.listeners.len(), index as usize + 1, "reports name it by this index");
    }

    /// Accepts connections that wait, and carries out their first requests in the same tick.
    pub(in crate::tick) fn accept(&mut self, site: &mut Site<'_>) {
        let now = site.shard.now();
        if !site.http.accepts || now < self.accept_resumes_at {
            return;
        }
        let deadline = self.kernel.stamp() + limits::READ_TIME_PER_TICK_NS;
        self.accept_waiting(site, deadline);
        self.serve_accepted(site, deadline);
        debug_assert!(self.sessions.accepted.is_empty(), "each was served or queued");
    }

    fn accept_waiting(&mut self, site: &mut Site<'_>, deadline: u64) {
        let now = site.shard.now();
        let listeners = self.listeners.len();
        let first = self.first_listener;
        self.first_listener = (first + 1) % listeners.max(1);
        debug_assert!(listeners == 0 || first < listeners, "one of the listeners");
        let mut left = limits::ACCEPTS_PER_TICK_MAX;
        for turn in 0..listeners {
            let index = (first + turn) % listeners;
            while left > 0 && self.listeners[index].is_ready {
                left -= 1;
                if self.sessions.accepted.len() >= ACCEPTED_UNREAD_MAX
                    || self.sessions.len() >= site.http.rules.connections_max
                {
                    self.serve_accepted(site, deadline);
                    if site.stamp >= deadline {
                        // The listener stays ready, so the next tick follows at once.
                        return;
                    }
                }
                // WebSockets need descriptors, too. So an idle session is ended for a new one. If none is idle, those
                // that are being served finish soon.
                let is_full = self.sessions.len() >= site.http.rules.connections_max;
                if is_full && self.sessions.wait_order.waiting == 0 {
                    let why = Detail::Own(
                        "all HTTP connections that this worker may have are being served; raise LimitNOFILE or \
                         ulimit -n",
                    );
                    site.http.refuse(Cause::AcceptPaused, &[why], |_| LinePeer::default());
                    self.accept_resumes_at = Moment(now.0 + FULL_PAUSE_MS);
                    return;
                }
                match self.kernel.accept(&self.listeners[index].listener) {
                    Accepted::Socket(socket, peer) => {
                        let is_secure = self.listeners[index].is_secure;
                        self.begin_session(site, socket, peer, is_secure);
                    }
                    Accepted::Nothing => self.listeners[index].is_ready = false,
                    Accepted::Exhausted(why) => {
                        site.http.refuse(Cause::AcceptPaused, &[Detail::Own(&why)], |_| {
                            LinePeer::default()
                        });
                        self.accept_resumes_at = Moment(now.0 + EXHAUSTED_PAUSE_MS);
                        return;
                    }
                    // The next connection is not affected.
                    Accepted::Failed => {}
                }
            }
        }
    }

    /// The moment from which connections may be accepted; `None` if no listener has one, or the core accepts none.
    pub(in crate::tick) fn accept_due(&self, http: &Http) -> Option<Moment> {
        let waits = http.accepts && self.listeners.iter().any(|state| state.is_ready);
        waits.then_some(self.accept_resumes_at)
    }

    pub(in crate::tick) fn note_listener(&mut self, index: u32, is_armed: bool) {
        if let Some(state) = self.listeners.get_mut(index as usize) {
            state.is_ready = true;
            if !is_armed {
                self.kernel.watch_listener(&state.listener, index);
            }
        }
    }

    fn begin_session(
        &mut self,
        site: &mut Site<'_>,
        socket: K::Socket,
        peer: SocketAddr,
        is_secure: bool,
    ) {
        let address = peer.ip();
        let Some(address_slot) = self.count_address(site, peer) else {
            self.closed_sockets.push(socket);
            return;
        };
        // Only a connection within the limit of its address may replace another one.
        if self.sessions.len() >= site.http.rules.connections_max
            && let Some(key) = self.sessions.longest_waiting()
        {
            self.make_room(site, key, Session::refuse_idle);
        }
        let session = Session::new(peer, address_slot);
        let reader = site.http.overload.admission.expects_header(address);
        let awaited = reader.map(|reader| Box::new(AwaitedHeader { reader, is_secure }));
        if is_secure && awaited.is_none() {
            return self.begin_secure_session(site, socket, session);
        }
        if let Some(key) = self.add_session(site, socket, None, session) {
            if let Some(entry) = self.sessions.get(key) {
                entry.awaited_header = awaited;
            }
            self.sessions.accepted.push(key);
            debug_assert!(
                self.sessions.accepted.len() <= ACCEPTED_UNREAD_MAX,
                "then their first bytes are read"
            );
        }
    }

    /// Counts a socket for its address. `None` if the address has too many, and none of them could be ended for this
    /// one.
    pub(super) fn count_address(
        &mut self,
        site: &mut Site<'_>,
        peer: SocketAddr,
    ) -> Option<AddressSlot> {
        let address = peer.ip();
        match site.http.overload.admission.try_count_socket(address) {
            Ok(address_slot) => Some(address_slot),
            Err(most) => {
                let values =
                    [Detail::Address(address), Detail::Counted(most.into(), "HTTP connection")];
                let who = |_: &Http| LinePeer { peer: Some(peer), ..LinePeer::default() };
                site.http.refuse(Cause::SocketsPerIp, &values, who);
                // One idle session of the same address is ended, if this worker has one.
                let replaced = self.sessions.longest_waiting_of(address);
                if let Some(key) = replaced {
                    self.make_room(site, key, Session::refuse_idle);
                }
                let admission = &site.http.overload.admission;
                admission.count_replacing_socket(address, replaced.is_some())
            }
        }
    }

    /// Adds a session if there is memory for it. `None` if it was closed instead.
    pub(super) fn add_session(
        &mut self,
        site: &mut Site<'_>,
        socket: K::Socket,
        secure: Option<Box<SecureSocket<K::Channel>>>,
        mut session: Session,
    ) -> Option<SessionKey> {
        if !self.note_new_session(site, &mut session) {
            session.refuse_heavy(site.http);
            session.end(site, &mut self.sessions.spare);
            self.closed_sockets.push(socket);
            return None;
        }
        let key = self.sessions.insert(socket, secure, session);
        if let Some(entry) = self.sessions.get(key) {
            // Its first read may be in this tick.
            entry.read_in_tick = self.tick.wrapping_sub(1);
        }
        Some(key)
    }

    /// Imports a session of another process, with the bytes it had received.
    pub(in crate::tick) fn import_session(
        &mut self,
        site: &mut Site<'_>,
        socket: K::Socket,
        peer: SessionPeer,
        served: bool,
        input: &[u8],
        secure: Option<Box<SecureState>>,
    ) {
        let secure = secure.map(SecureSocket::import);
        if matches!(secure, Some(None)) {
            // Without its keys it must not continue in plain text.
            self.closed_sockets.push(socket);
            return;
        }
        // The other process accepted it, so the limit does not apply here.
        let address_slot = site
            .http
            .overload
            .admission
            .try_count_socket(peer.address.ip())
            .unwrap_or(AddressSlot::NONE);
        let rules = &site.http.rules;
        let session = Session::of_another_process(peer, address_slot, served, input, rules);
        if let Some(key) = self.add_session(site, socket, secure.flatten(), session) {
            self.queue_session(key, Queued::Once);
            self.settle_session(site, key);
        }
    }

    /// Charges the memory of a new session. If there is none, the session that has waited longest is ended for it.
    fn note_new_session(&mut self, site: &mut Site<'_>, session: &mut Session) -> bool {
        if session.try_charge_memory(site, 0) {
            return true;
        }
        let Some(key) = self.sessions.longest_waiting() else { return false };
        self.make_room(site, key, Session::refuse_heavy);
        session.try_charge_memory(site, 0)
    }

    /// Ends a session for a new one. `refuse` logs what the new one needs.
    fn make_room(&mut self, site: &mut Site<'_>, key: SessionKey, refuse: fn(&Session, &mut Http)) {
        if let Some(entry) = self.sessions.get(key) {
            refuse(&entry.session, site.http);
            self.drop_session(site, key);
            debug_assert!(self.sessions.get(key).is_none(), "its place is free");
        }
    }
}
