//! Established connections with TLS: their channels by slot, what is read through them, and their last bytes. PURE.
//!
//! Owns a side table, so that a connection without TLS pays nothing: the table has entries up to the highest slot with
//! TLS only. Received records are opened in place and their content is decoded as that of other connections. Answers of
//! a channel without content (a key update) make the connection dirty. Does not seal: `tick/flush.rs` does.
//!
//! Limit: one entry for each slot, as in `tick/reactor.rs`; `tls/socket.rs` bounds the bytes of each. Cost: an index
//! for a look-up; a record is opened in place, without a copy, and its keys are expanded once for each read.

use super::Reactor;
use crate::cause::{Cause, Detail};
use crate::limits;
use crate::shard::{ConnectionKey, Shard};
use crate::slot::Slot;
use crate::tick::kernel::{Kernel, Send};
use crate::tls::RECORD_BYTES_MAX;
use crate::tls::socket::{ChannelEnd, SecureChannel, SecureInput, SecureSocket, SecureState};

/// Channels by slot; `None` for a connection without TLS.
pub(in crate::tick) struct SecureSockets<C>(Vec<Option<Box<SecureSocket<C>>>>);

impl<C> Default for SecureSockets<C> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<C: SecureChannel> SecureSockets<C> {
    pub(in crate::tick) fn get(&self, slot: Slot) -> Option<&SecureSocket<C>> {
        self.0.get(slot.index())?.as_deref()
    }

    pub(in crate::tick) fn get_mut(&mut self, slot: Slot) -> Option<&mut SecureSocket<C>> {
        self.0.get_mut(slot.index())?.as_deref_mut()
    }

    pub(super) fn is_secure(&self, slot: Slot) -> bool {
        self.get(slot).is_some()
    }

    pub(super) fn has_ended(&self, slot: Slot) -> bool {
        self.get(slot).is_some_and(SecureSocket::has_ended)
    }

    pub(super) fn heap_bytes(&self, slot: Slot) -> usize {
        let found = self.get(slot);
        found.map_or(0, SecureSocket::heap_bytes)
    }

    pub(super) fn insert(&mut self, slot: Slot, socket: Box<SecureSocket<C>>) {
        debug_assert!(self.get(slot).is_none(), "a slot has one channel, with keys of its own");
        let slot = slot.index();
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        if let Some(entry) = self.0.get_mut(slot) {
            *entry = Some(socket);
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<Box<SecureSocket<C>>> {
        self.0.get_mut(slot.index())?.take()
    }
}

impl<K: Kernel> Reactor<K> {
    /// Opens received records and decodes their content. The received bytes are in `scratch` from `RECORD_BYTES_MAX`
    /// on.
    pub(super) fn feed_secure(
        &mut self,
        shard: &mut Shard,
        key: ConnectionKey,
        scratch: &mut [u8],
        count: usize,
    ) {
        let kept_before = self.input_bytes(key.slot);
        let Some(secure) = self.secure.get_mut(key.slot) else { return };
        let end = RECORD_BYTES_MAX + count;
        let SecureInput { plain, end } = secure.receive(scratch, RECORD_BYTES_MAX, end);
        debug_assert!(plain.end <= scratch.len(), "the content lies where the records were");
        self.note_kept(shard, key, kept_before);
        if let Some(content) = scratch.get_mut(plain).filter(|content| !content.is_empty()) {
            self.decode_input(shard, key, content);
        }
        match end {
            None => self.wake_secure(shard, key),
            // The socket is read again in the next tick, which ends the connection: the answers to what came before, or
            // the alert, are sent first.
            Some(ChannelEnd::Closed) => self.queue(key, super::Queued::ToTheEnd),
            Some(ChannelEnd::Failed(why)) => {
                shard.note_refusal(key.slot, Cause::TlsRecord, &[Detail::Own(why)]);
                self.queue(key, super::Queued::ToTheEnd);
                self.wake_secure(shard, key);
            }
            // Only a handshake can end so.
            Some(ChannelEnd::NotTls) => self.drop_socket(shard, key),
        }
    }

    /// Adds the channel of a session that has become a connection.
    pub(in crate::tick) fn add_secure(
        &mut self,
        key: ConnectionKey,
        secure: Box<SecureSocket<K::Channel>>,
    ) {
        self.secure.insert(key.slot, secure);
    }

    /// Restores the channel of a connection of another process, before `adopt`. The versions of the records are the
    /// same, so the state can be read.
    pub(in crate::tick) fn import_secure(
        &mut self,
        key: ConnectionKey,
        state: Option<Box<SecureState>>,
    ) {
        if let Some(secure) = state.and_then(SecureSocket::import) {
            self.secure.insert(key.slot, secure);
        }
    }

    /// Continues what the channel of an imported connection had begun: a pending record, or its end.
    pub(in crate::tick) fn resume_secure(&mut self, shard: &mut Shard, key: ConnectionKey) {
        self.wake_secure(shard, key);
        if self.secure.has_ended(key.slot) {
            self.queue(key, super::Queued::ToTheEnd);
        }
    }

    /// If its channel has a record to send, marks the connection as dirty, so that the next flush sends it.
    pub(in crate::tick) fn wake_secure(&mut self, shard: &mut Shard, key: ConnectionKey) {
        if self.secure.get(key.slot).is_some_and(SecureSocket::has_output) {
            shard.wake(key.slot);
        }
    }

    /// Keeps sealed bytes that the socket did not accept, and reports their memory to the shard.
    pub(in crate::tick) fn keep_sealed(
        &mut self,
        shard: &mut Shard,
        key: ConnectionKey,
        unsent: &[u8],
        kept_before: usize,
    ) {
        if let Some(secure) = self.secure.get_mut(key.slot) {
            secure.keep_unsent(unsent);
        }
        self.note_kept(shard, key, kept_before);
    }

    /// Closes a connection whose keys have sealed as much as they may: TLS 1.2 has no key update. Clients reconnect at
    /// once after 4200.
    pub(in crate::tick) fn close_exhausted_key(&self, shard: &mut Shard, key: ConnectionKey) {
        let is_exhausted = self.secure.get(key.slot).is_some_and(SecureSocket::is_exhausted);
        if is_exhausted && shard.get(key).is_some_and(|connection| !connection.is_closing()) {
            shard.close_frame(key.slot, 4200, "The keys of TLS 1.2 are used up");
        }
        debug_assert!(
            !is_exhausted || shard.get(key).is_none_or(crate::shard::Connection::is_closing),
            "used-up keys seal a close frame and no more"
        );
    }

    /// Closes a socket at the end of the tick; with TLS, after its last bytes.
    pub(in crate::tick) fn close(
        &mut self,
        socket: K::Socket,
        secure: Option<Box<SecureSocket<K::Channel>>>,
    ) {
        match secure.map(|mut secure| secure.final_bytes()) {
            Some(bytes) if !bytes.is_empty() => self.final_bytes.push((socket, bytes)),
            _ => self.closed_sockets.push(socket),
        }
    }

    /// Sends last bytes as far as the sockets accept them. Whether they arrive does not matter: the connections have
    /// ended.
    pub(super) fn send_final_bytes(&mut self) {
        let mut results = Vec::new();
        for batch in self.final_bytes.chunks(limits::SENDS_PER_SUBMIT) {
            let sends = batch.iter().map(|(socket, bytes)| Send { socket, bytes });
            self.kernel.send_all(sends, &mut results);
        }
        self.closed_sockets.extend(self.final_bytes.drain(..).map(|(socket, _)| socket));
    }
}
