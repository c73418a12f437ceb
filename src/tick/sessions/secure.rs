//! Sessions with TLS: their handshakes, and received bytes on their way through the channel. PURE.
//!
//! Owns no state: the channel is part of the table's entry. A handshake costs 150 µs and more, so it is never made at
//! the accept: the socket is queued, and the time budget that all HTTP sessions of a tick share bounds the handshakes
//! too. A client that does not speak TLS is answered in plain HTTP. Does not seal answers: `table.rs` does.
//!
//! Limits: the deadlines of `Session::handshake_timer`, `READ_TIME_PER_TICK_NS`. Cost: a handshake is 150 µs and more;
//! afterwards a record is opened in place, without a copy of its content.

use super::table::Sessions;
use crate::cause::Cause;
use crate::tick::http::Session;
use crate::tick::kernel::{Kernel, SessionKey};
use crate::tick::reactor::{Queued, Reactor};
use crate::tick::site::Site;
use crate::tls::RECORD_BYTES_MAX;
use crate::tls::socket::{ChannelEnd, SecureInput, SecureSocket};

impl<K: Kernel> Reactor<K> {
    /// Adds an accepted socket of a TLS listener. It is queued: its handshake begins when sessions are read.
    pub(super) fn begin_secure_session(
        &mut self,
        site: &mut Site<'_>,
        socket: K::Socket,
        session: Session,
    ) {
        let Some(secure) = self.acceptor.as_ref().and_then(SecureSocket::accept) else {
            session.refuse_secure(site.http, Cause::TlsHandshake, "no certificate can be used");
            session.end(site, &mut self.sessions.spare);
            self.closed_sockets.push(socket);
            return;
        };
        if let Some(key) = self.add_session(site, socket, Some(secure), session) {
            self.queue_session(key, Queued::Once);
            self.settle_session(site, key);
        }
    }

    /// The flush had nothing to seal for a session. Ends the session if it has something to send, because its channel
    /// seals nothing any longer.
    pub(in crate::tick) fn drop_unsealable(&mut self, site: &mut Site<'_>, key: SessionKey) {
        let Some(entry) = self.sessions.get(key) else { return };
        entry.has_answer = false;
        if entry.has_unsent() {
            self.drop_session(site, key);
        } else {
            self.settle_session(site, key);
        }
    }

    /// Passes received bytes to a session: `count` of them, in the scratch buffer. `false` if nothing is to be served,
    /// or the session has ended.
    pub(super) fn receive_input(
        &mut self,
        site: &mut Site<'_>,
        key: SessionKey,
        count: usize,
    ) -> bool {
        let end = RECORD_BYTES_MAX + count;
        let Some(begin) = self.read_header(site, key, end) else { return false };
        // The spare buffers are borrowed together with the entry.
        let Sessions { entries, spare, .. } = &mut self.sessions;
        let Some(entry) = entries.get_mut(key.slot.index()) else { return false };
        let rules = &site.http.rules;
        let Some(secure) = &mut entry.secure else {
            let bytes = self.scratch.get(begin..end).unwrap_or_default();
            entry.session.append_input(bytes, spare, rules);
            return true;
        };
        entry.has_received = true;
        debug_assert!(begin < end, "there are bytes for the channel");
        let was_established = secure.is_established();
        let SecureInput { plain, end: channel_end } = secure.receive(&mut self.scratch, begin, end);
        let content = self.scratch.get(plain).unwrap_or_default();
        if !content.is_empty() {
            entry.session.append_input(content, spare, rules);
        }
        match channel_end {
            None => true,
            // The session is read again after its answers were sent, and then ended.
            Some(ChannelEnd::Closed) => {
                self.queue_session(key, Queued::ToTheEnd);
                true
            }
            Some(ChannelEnd::NotTls) => {
                entry.secure = None;
                let bytes = self.scratch.get(begin..end).unwrap_or_default();
                entry.session.append_input(bytes, spare, rules);
                entry.session.refuse_plain(site.http);
                self.settle_session(site, key);
                false
            }
            Some(ChannelEnd::Failed(why)) => {
                let cause = if was_established { Cause::TlsRecord } else { Cause::TlsHandshake };
                entry.session.refuse_secure(site.http, cause, why);
                self.drop_session(site, key);
                false
            }
        }
    }
}
