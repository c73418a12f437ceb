//! A core's part in handing its connections to another process, or in taking some in. PURE: sockets travel beside.
//!
//! A core that is paused reads nothing, sends nothing and lets no time pass, but carries mail on. Once none is under
//! way between the cores of a process, all of them are at rest: what `moves` says then is all there is, and saying it
//! changes nothing, so a hand-over that fails is undone by `resume`.

use serde::{Deserialize, Serialize};

use core::net::SocketAddr;

use super::Core;
use super::kernel::Kernel;
use crate::shard::{ChannelState, ConnectionKey, ConnectionState, NotAtRest};

/// A connection on its way, without its socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    pub connection: ConnectionState,
    /// The peer has sent its close frame.
    pub peer_closed: bool,
    /// An incomplete frame or message, as bytes to read again.
    pub partial: Vec<u8>,
}

/// An HTTP session on its way, with its socket.
#[derive(Debug)]
pub struct MovedSession<'a, S> {
    pub socket: &'a S,
    pub peer: SocketAddr,
    /// A request was answered.
    pub served: bool,
    /// What has come of the next one.
    pub input: &'a [u8],
}

impl<K: Kernel> Core<K> {
    /// Requests that are not whole are refused first, because a pause on the way to another process is the last moment
    /// for it: a client that gets no answer does not know whether its request was carried out.
    pub fn pause(&mut self) {
        if std::mem::replace(&mut self.paused, true) {
            return;
        }
        let (mut site, reactor) = self.split();
        reactor.refuse_unfinished(&mut site);
        self.flush();
    }

    /// Goes on as if nothing had been. What became readable meanwhile is read in the next tick.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// The process is giving its connections to another one, or goes on after all: HTTP sessions stand aside as soon as
    /// they can, or go on.
    pub fn stand_aside(&mut self, stands_aside: bool) {
        if std::mem::replace(&mut self.http.stands_aside, stands_aside) && !stands_aside {
            let (mut site, reactor) = self.split();
            reactor.wake_sessions(&mut site);
        }
    }

    /// HTTP sessions that cannot stand aside yet.
    #[must_use]
    pub fn busy_sessions(&self) -> usize {
        self.reactor.sessions.busy()
    }

    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether no mail waits here. Mail may be under way to here: see `mailbox::Carried`.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let waits = self.mailbox.has_held() || self.mailbox.has_overflow();
        !waits && self.shard.outbox.mails.is_empty()
    }

    /// All connections with their sockets.
    ///
    /// # Errors
    /// Each may say that the core is not at rest; then none may move.
    pub fn moves(
        &self,
    ) -> impl Iterator<Item = Result<(ConnectionKey, Moved, &K::Socket), NotAtRest>> {
        debug_assert!(self.paused, "what moves is not to change meanwhile");
        self.shard.export_connections().filter_map(|exported| {
            let (key, connection) = match exported {
                Ok(exported) => exported,
                Err(error) => return Some(Err(error)),
            };
            let (socket, peer_closed, partial) = self.reactor.moves(key.slot)?;
            Some(Ok((key, Moved { connection, peer_closed, partial }, socket)))
        })
    }

    /// All HTTP sessions that can go on in another process.
    pub fn movable_sessions(&self) -> impl Iterator<Item = MovedSession<'_, K::Socket>> {
        self.reactor.sessions.movable().map(|(socket, peer, served, input)| MovedSession {
            socket,
            peer,
            served,
            input,
        })
    }

    /// Takes in an HTTP session of another process, with what it had received.
    pub fn take_in_session(
        &mut self,
        socket: K::Socket,
        peer: SocketAddr,
        served: bool,
        input: &[u8],
    ) {
        let (mut site, reactor) = self.split();
        reactor.take_in_session(&mut site, socket, peer, served, input);
    }

    /// Takes in a connection of another process; to be followed by `settle_in`.
    pub fn take_in(&mut self, moved: Moved, socket: K::Socket) -> ConnectionKey {
        let Moved { connection, peer_closed, mut partial } = moved;
        let lingers = connection.closing;
        let key = self.shard.import_connection(connection);
        self.reactor.adopt(&mut self.shard, key, socket, &mut partial);
        self.reactor.note_peer_closed(key, peer_closed);
        if lingers {
            self.reactor.linger(key, self.shard.now());
        }
        key
    }

    /// Takes in what another process knew of a channel.
    pub fn take_in_channel(&mut self, state: ChannelState) {
        self.shard.import_channel(state);
    }

    /// All is taken in: the homes hear of it, by mail.
    pub fn settle_in(&mut self) {
        self.shard.finish_import();
        self.settle_mail();
        self.mailbox.ring_doorbells();
    }
}
