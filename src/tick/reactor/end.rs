//! The ends of established connections: the wait for the peer's close frame, its deadline, and the end of a socket.
//!
//! Owns nothing: it changes the reactor's list of sockets and the shard's connections together, so that neither has an
//! entry without the other. Limits: `CLOSE_ANSWER_MS` for the peer's answer; `limits::stale_entries_max` of the
//! connections for the deadlines. Cost: a look-up and one system call for the
//! end of a socket, and one entry in a queue while the peer's answer is awaited.

use super::{AddressChange, Reactor};
use crate::cause::{Cause, Detail};
use crate::clock::Moment;
use crate::limits;
use crate::shard::{ConnectionKey, Shard};
use crate::tick::kernel::{Kernel, Watched};
use crate::tick::site::Site;

/// How long the peer has to answer our close frame before its socket is closed, in milliseconds.
const CLOSE_ANSWER_MS: u64 = 3_000;

impl<K: Kernel> Reactor<K> {
    /// A connection is closing: its socket is closed once its close frame is sent and answered, or at its deadline.
    pub(in crate::tick) fn await_close(&mut self, shard: &Shard, key: ConnectionKey, now: Moment) {
        let deadline = Moment(now.0 + CLOSE_ANSWER_MS);
        debug_assert!(
            self.closing_deadlines.back().is_none_or(|(last, _)| *last <= deadline),
            "in the order of their deadlines, because all wait as long"
        );
        // The entry of a connection whose peer has answered stays until its deadline. A flood of connections that are
        // refused would leave many.
        let connections = shard.connection_count();
        if self.closing_deadlines.len() > limits::stale_entries_max(connections) {
            self.closing_deadlines.retain(|(_, key)| shard.get(*key).is_some());
            debug_assert!(self.closing_deadlines.len() <= connections, "each is closed once");
        }
        self.closing_deadlines.push_back((deadline, key));
    }

    /// Connections that are closing, and those that ended within the time that a close has.
    pub(in crate::tick) fn closing_connections(&self) -> usize {
        self.closing_deadlines.len()
    }

    /// The kernel has the last frame of a closing connection.
    pub(in crate::tick) fn finish(&mut self, shard: &mut Shard, key: ConnectionKey) {
        debug_assert!(
            shard.get(key).is_none_or(crate::shard::Connection::is_closing),
            "only a closing connection has a last frame"
        );
        let socket = &self.sockets.0[key.slot.index()];
        if socket.peer_closed {
            return self.drop_socket(shard, key);
        }
        // Our half is closed. The connection is read until the peer closes too, because a reset would destroy our close
        // frame.
        if let Some(descriptor) = &socket.descriptor
            && !self.kernel.shut_down(descriptor)
        {
            self.drop_socket(shard, key);
        }
    }

    /// Ends connections whose peers have not answered our close frame in time.
    pub(in crate::tick) fn expire(&mut self, shard: &mut Shard, now: Moment) {
        while let Some((deadline, key)) = self.closing_deadlines.front().copied() {
            if deadline > now {
                break;
            }
            self.closing_deadlines.pop_front();
            self.drop_socket(shard, key);
            debug_assert!(shard.get(key).is_none(), "its time to answer is over");
        }
    }

    /// Ends a connection and its socket. Idempotent.
    pub(in crate::tick) fn drop_socket(&mut self, shard: &mut Shard, key: ConnectionKey) {
        let Some(connection) = shard.get(key) else { return };
        let is_blocked = connection.is_blocked();
        shard.remove(key);
        self.accounts.push(AddressChange::Ended(key.slot));
        let socket = std::mem::take(&mut self.sockets.0[key.slot.index()]);
        let secure = self.secure.remove(key.slot);
        self.named.set(key.slot, None);
        debug_assert!(shard.get(key).is_none(), "the key names no connection");
        debug_assert!(
            self.sockets.descriptor(key.slot).is_none() && !self.secure.is_secure(key.slot),
            "nothing is left for the next connection in this slot"
        );
        if let Some(descriptor) = socket.descriptor {
            self.kernel.unwatch(&descriptor, Watched::Connection(key), is_blocked);
            self.close(descriptor, secure);
        }
    }

    /// Ends all connections, whether or not their peers have answered.
    pub fn cut_off_all(&mut self, shard: &mut Shard) {
        for key in shard.keys().collect::<Vec<_>>() {
            self.drop_socket(shard, key);
        }
        debug_assert_eq!(shard.connection_count(), 0, "none is left");
    }

    /// Ends all connections after lost completions: a send that was cut short would continue in the middle of a frame,
    /// and a watch that ended would never report again. Clients reconnect.
    pub(in crate::tick) fn drop_all(&mut self, site: &mut Site<'_>) {
        for key in site.shard.keys().collect::<Vec<_>>() {
            let why = Detail::Own("it has lost what it was to report");
            site.shard.note_refusal(key.slot, Cause::Kernel, &[why]);
            self.drop_socket(site.shard, key);
        }
        self.drop_all_sessions(site);
        debug_assert_eq!(site.shard.connection_count(), 0, "none can be trusted any longer");
        for index in 0..u32::try_from(self.listeners.len()).unwrap_or(u32::MAX) {
            self.note_listener(index, false);
        }
        self.note_unwatchable(site, Watched::Cluster(self.cluster.number));
        self.doorbell_watch_ended = true;
    }
}
