//! A core's part in the transfer of its connections to another process, or from one. PURE: sockets travel separately.
//!
//! Owns the format of a connection and a session in transfer. A paused core reads nothing, sends nothing and ignores
//! time, but still processes mail. Once no mail is under way between the cores of a process, all of them are at rest.
//! `export_connections` then exports the complete state and changes nothing, so `resume` undoes a failed transfer. Does
//! not send or receive the states: `worker/transfer` does.
//!
//! Limit: none of its own; `worker/transfer/stream.rs` bounds a batch of connections. Cost: nothing while no process
//! takes over; an export copies the state of every connection.

use serde::{Deserialize, Serialize};

use core::net::SocketAddr;

use super::Core;
use super::kernel::Kernel;
use crate::shard::{ChannelState, ConnectionKey, ConnectionState, TransferFault};
use crate::tls::socket::{SecureSocket, SecureState};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransferredConnection {
    pub connection: ConnectionState,
    /// The peer has sent its close frame, so ours is the last frame.
    pub peer_closed: bool,
    /// An incomplete frame or message, as bytes to read again.
    pub partial: Vec<u8>,
    /// Its TLS channel, with the keys; `None` without TLS.
    pub secure: Option<Box<SecureState>>,
    /// The client that a header of the PROXY protocol has named.
    pub named_client: Option<SocketAddr>,
}

/// The other end of an HTTP session in transfer. The socket alone does not show it behind a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPeer {
    pub address: SocketAddr,
    /// `address` is that of a client that a header of the PROXY protocol has named, and not the socket's.
    pub is_named: bool,
}

#[derive(Debug)]
pub struct TransferredSession<'a, S> {
    pub socket: &'a S,
    pub peer: SessionPeer,
    /// A request was answered, so the session may wait for the next one (keep-alive).
    pub served: bool,
    /// Received bytes of an incomplete request.
    pub input: &'a [u8],
    pub secure: Option<Box<SecureState>>,
}

impl<K: Kernel> Core<K> {
    /// Stops reading, sending and the timers of this core. Refuses incomplete requests first, because this is the last
    /// moment for it: a client without an answer does not know whether its request was carried out. What a socket does
    /// not accept of such an answer at once is sent only if this process resumes.
    pub fn pause(&mut self) {
        if std::mem::replace(&mut self.paused, true) {
            return;
        }
        let (mut site, reactor) = self.split();
        reactor.refuse_unfinished(&mut site);
        self.flush();
    }

    /// Ends the pause. Input that arrived during the pause is read in the next tick.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// A transfer to another process begins or is canceled. During a transfer, HTTP sessions stop between two
    /// requests.
    pub fn set_transferring(&mut self, is_transferring: bool) {
        if std::mem::replace(&mut self.http.is_transferring, is_transferring) && !is_transferring {
            let (mut site, reactor) = self.split();
            reactor.wake_sessions(&mut site);
        }
    }

    /// HTTP sessions whose request must be answered before they can be transferred.
    #[must_use]
    pub fn busy_sessions(&self) -> usize {
        self.reactor.sessions.untransferable_count()
    }

    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether no mail waits here. Mail may still be on its way to this core: see `mailbox::MailTotals`.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let waits = self.mailbox.has_held_mail() || self.mailbox.has_overflow();
        !waits && self.shard.outbox.mails.is_empty()
    }

    /// All connections with their sockets.
    ///
    /// # Errors
    /// If the core is not at rest. Then no connection may move.
    pub fn export_connections(
        &self,
    ) -> impl Iterator<Item = Result<(ConnectionKey, TransferredConnection, &K::Socket), TransferFault>>
    {
        debug_assert!(self.paused, "a core does not change during its export");
        self.shard.export_connections().filter_map(|exported| {
            let (key, connection) = match exported {
                Ok(exported) => exported,
                Err(error) => return Some(Err(error)),
            };
            let (socket, peer_closed, partial) = self.reactor.export_socket(key.slot)?;
            let secure = self.reactor.secure.get(key.slot).and_then(SecureSocket::export);
            let named_client = self.reactor.named.get(key.slot);
            let moved =
                TransferredConnection { connection, peer_closed, partial, secure, named_client };
            Some(Ok((key, moved, socket)))
        })
    }

    pub fn export_sessions(&self) -> impl Iterator<Item = TransferredSession<'_, K::Socket>> {
        self.reactor.sessions.export()
    }

    /// Imports an HTTP session of another process, with the bytes it had received.
    pub fn import_session(
        &mut self,
        socket: K::Socket,
        peer: SessionPeer,
        served: bool,
        input: &[u8],
        secure: Option<Box<SecureState>>,
    ) {
        let (mut site, reactor) = self.split();
        reactor.import_session(&mut site, socket, peer, served, input, secure);
    }

    /// Imports a connection of another process. The caller calls `finish_import` after the last one.
    pub fn import_connection(
        &mut self,
        moved: TransferredConnection,
        socket: K::Socket,
    ) -> ConnectionKey {
        let TransferredConnection { connection, peer_closed, mut partial, secure, named_client } =
            moved;
        let is_closing = connection.is_closing;
        let key = self.shard.import_connection(connection);
        self.reactor.import_secure(key, secure);
        self.reactor.named.set(key.slot, named_client);
        self.reactor.adopt(&mut self.shard, key, socket, &mut partial);
        self.reactor.note_peer_closed(key, peer_closed);
        self.reactor.resume_secure(&mut self.shard, key);
        if is_closing {
            self.reactor.await_close(&self.shard, key, self.shard.now());
        }
        debug_assert!(
            self.shard.get(key).is_none() || self.reactor.descriptor(key.slot).is_some(),
            "a connection that is there has a socket"
        );
        key
    }

    pub fn import_channel(&mut self, state: ChannelState) {
        self.shard.import_channel(state);
    }

    /// Ends an import: sends the homes the subscriptions, by mail.
    pub fn finish_import(&mut self) {
        self.shard.finish_import();
        self.settle_mail();
        debug_assert!(self.shard.outbox.mails.is_empty(), "the homes' mail is in the rings");
        self.mailbox.ring_doorbells();
    }
}
