//! Sessions that begin with a header of the PROXY protocol: the client that it names takes the place of the peer. PURE.
//!
//! Owns no state: `AwaitedHeader` is part of the table's entry. Until the header is complete the session is one of the
//! proxy, which has no limit of sockets. Then it counts for the client: its sockets, its handshakes, its failures, its
//! log lines, and whether its X-Forwarded-For is trusted. TLS begins after the header. Does not decide which peers must
//! send a header: `admission` does.
//!
//! Limit: `Timer::ProxyHeader` for the time until the header is complete. Cost: one allocation for the state of a
//! header, freed when it is complete.

use crate::cause::Cause;
use crate::proxy_header::HeaderFault;
use crate::tick::kernel::{Kernel, SessionKey};
use crate::tick::reactor::Reactor;
use crate::tick::site::Site;
use crate::tls::RECORD_BYTES_MAX;
use crate::tls::socket::SecureSocket;

impl<K: Kernel> Reactor<K> {
    /// Reads the header of a session that must begin with one. Received bytes are in the scratch buffer up to `end`.
    /// Returns the index of the first byte after the header; `None` if there is none, or the session has ended.
    pub(super) fn read_header(
        &mut self,
        site: &mut Site<'_>,
        key: SessionKey,
        end: usize,
    ) -> Option<usize> {
        let begin = RECORD_BYTES_MAX;
        debug_assert!(begin <= end && end <= self.scratch.len(), "received bytes lie there");
        let Some(awaited) = &mut self.sessions.get(key)?.awaited_header else { return Some(begin) };
        let is_secure = awaited.is_secure;
        let received = self.scratch.get(begin..end).unwrap_or_default();
        match awaited.reader.read(received) {
            Ok(None) => {
                self.settle_session(site, key);
                None
            }
            Ok(Some(header)) => {
                if let Some(client) = header.client {
                    let Some(address_slot) = self.count_address(site, client) else {
                        self.drop_session(site, key);
                        return None;
                    };
                    self.sessions.get(key)?.session.become_client(client, address_slot);
                }
                self.end_header(site, key, is_secure)?;
                let begin = begin + header.used;
                debug_assert!(begin <= end, "a header is no longer than what was received");
                if begin == end {
                    self.settle_session(site, key);
                }
                (begin < end).then_some(begin)
            }
            Err(fault) => {
                self.refuse_header(site, key, fault, end);
                None
            }
        }
    }

    /// Continues after the header: all further bytes are the client's. `None` if the session has ended.
    fn end_header(&mut self, site: &mut Site<'_>, key: SessionKey, is_secure: bool) -> Option<()> {
        let entry = self.sessions.get(key)?;
        entry.awaited_header = None;
        if !is_secure {
            return Some(());
        }
        let secure = self.acceptor.as_ref().and_then(SecureSocket::accept);
        let entry = self.sessions.get(key)?;
        if secure.is_none() {
            let why = "no certificate can be used";
            entry.session.refuse_secure(site.http, Cause::TlsHandshake, why);
            self.drop_session(site, key);
            return None;
        }
        entry.secure = secure;
        Some(())
    }

    fn refuse_header(
        &mut self,
        site: &mut Site<'_>,
        key: SessionKey,
        fault: HeaderFault,
        end: usize,
    ) {
        let super::table::Sessions { entries, spare, .. } = &mut self.sessions;
        let Some(entry) = entries.get_mut(key.slot.index()) else { return };
        entry.awaited_header = None;
        let bytes = self.scratch.get(RECORD_BYTES_MAX..end).unwrap_or_default();
        entry.session.append_input(bytes, spare, &site.http.rules);
        entry.session.refuse_header(site.http, fault);
        self.settle_session(site, key);
    }
}
