//! HOT: the end of a tick: one send per dirty connection, in batched submissions. PURE: the kernel is a parameter.
//!
//! Owns the list of connections to be flushed and the arena. A queue of one frame is sent from its own memory. Several
//! frames are copied into the arena first, because one send of 400 bytes costs a quarter of four sends of 100. The
//! kernel's TCP send is the cost of a delivery; the cost here is a queue entry and an SQE. With TLS, what waits is
//! sealed in the arena as one record. Does not decide what a connection receives.
//!
//! Limit: `FLUSHES_PER_TICK_MAX` connections in a tick. Cost: for a connection a step through its queue and, with
//! several frames, a copy to the arena; no allocation. One or two sends are a system call each, more are one for up to
//! 64 (io_uring).

use super::kernel::{Kernel, Send, Sent, SessionKey};
use super::reactor::Reactor;
use super::site::Site;
use crate::cause::{Cause, Detail};
use crate::limits;
use crate::shard::{AfterSend, Connection, ConnectionKey, Shard};
use crate::slot::Slot;

/// Storage that is reused from tick to tick, so that a flush allocates nothing.
#[derive(Default)]
pub(super) struct Flush {
    /// Slots still to be flushed, oldest first. Those of the last tick come before those that became dirty in this one.
    dirty: Vec<Slot>,
    items: Vec<ConnectionSend>,
    /// What was sealed for each of `items` with TLS.
    sealed: Vec<Sealed>,
    /// Sends of sessions in the current batch. Their results follow those of `items`.
    answers: Vec<SessionSend>,
    /// Storage for the slots that one flush works on.
    batch_slots: Vec<Slot>,
    /// Storage that is exchanged with `Sessions::answers`, because sessions with more to send are added there again.
    keys: Vec<SessionKey>,
    arena: Vec<u8>,
    results: Vec<Sent>,
    /// Connections and sessions that have something to send, and whose channel can seal nothing any longer.
    unsealable: Vec<ConnectionKey>,
    unsealable_sessions: Vec<SessionKey>,
}

/// A connection's send in the current batch.
struct ConnectionSend {
    key: ConnectionKey,
    source: Source,
    /// Bytes given to the kernel. Noted here because the queue may grow before the result is settled.
    bytes: usize,
}

#[derive(Clone, Copy)]
enum Source {
    /// In the queue, which has this frame only.
    Queue,
    /// In the arena, from this index on.
    Arena(usize),
    /// Sealed in the arena, from the first index on. The second is the index in `Flush::sealed`: a list of its own, so
    /// that other items are not larger.
    Sealed(usize, u32),
}

/// A sealed send: bytes of the queue's content in it, and the memory of the channel before it was sealed.
#[derive(Clone, Copy)]
struct Sealed {
    content: usize,
    backlog_bytes_before: usize,
}

/// A session's send in the current batch.
struct SessionSend {
    key: SessionKey,
    /// With TLS: the index of its sealed bytes in the arena.
    arena_start: Option<usize>,
    bytes: usize,
}

impl ConnectionSend {
    /// The bytes to send, from where they are.
    fn bytes<'a>(&self, shard: &'a Shard, arena: &'a [u8]) -> Option<&'a [u8]> {
        match self.source {
            Source::Queue => shard.send_queue(self.key.slot)?.single_frame(),
            Source::Arena(start) | Source::Sealed(start, _) => arena.get(start..start + self.bytes),
        }
    }
}

impl SessionSend {
    /// The bytes to send. `unsent`: what the session has that is not sealed.
    fn bytes<'a>(&self, unsent: &'a [u8], arena: &'a [u8]) -> Option<&'a [u8]> {
        match self.arena_start {
            Some(start) => arena.get(start..start + self.bytes),
            None => unsent.get(..self.bytes),
        }
    }
}

impl Sealed {
    /// Keeps the bytes that the kernel did not accept, and reports to the shard what was sealed.
    fn settle<K: Kernel>(
        self,
        shard: &mut Shard,
        reactor: &mut Reactor<K>,
        key: ConnectionKey,
        unsent: Option<&[u8]>,
        blocked: bool,
    ) -> AfterSend {
        reactor.keep_sealed(shard, key, unsent.unwrap_or_default(), self.backlog_bytes_before);
        let after = shard.on_sent(key.slot, self.content, blocked);
        reactor.close_exhausted_key(shard, key);
        match after {
            // The last bytes wait until the socket accepts them.
            AfterSend::Finish if blocked => AfterSend::Nothing,
            after => after,
        }
    }
}

impl Flush {
    /// Sends queued frames, for `FLUSHES_PER_TICK_MAX` connections at most. The remaining connections are first in the
    /// next tick, after the core has read and accepted. Answers of sessions fill the last batch.
    pub(super) fn flush_tick<K: Kernel>(&mut self, site: &mut Site<'_>, reactor: &mut Reactor<K>) {
        let slots = self.begin_batches(site.shard);
        let answers = self.begin_answers(reactor);
        let mut batches = slots.chunks(limits::SENDS_PER_SUBMIT).peekable();
        let mut left = answers.as_slice();
        while batches.peek().is_some() || !left.is_empty() {
            self.gather(batches.next().unwrap_or_default(), site.shard, reactor);
            if batches.peek().is_none() {
                left = self.gather_answers(left, reactor);
            }
            self.send(site.shard, reactor);
            self.settle(site.shard, reactor);
            self.settle_answers(site, reactor);
            self.drop_unsealable(site, reactor);
        }
        self.keep_storage(slots, answers);
    }

    /// The slots of this tick, oldest first, in storage that `keep_storage` takes back.
    fn begin_batches(&mut self, shard: &mut Shard) -> Vec<Slot> {
        self.dirty.append(&mut shard.outbox.dirty);
        let count = self.dirty.len().min(limits::FLUSHES_PER_TICK_MAX);
        let mut slots = std::mem::take(&mut self.batch_slots);
        slots.extend(self.dirty.drain(..count));
        slots
    }

    /// The sessions with answers. A session that has more to send than one tick takes is added to the list of the next
    /// tick.
    fn begin_answers<K: Kernel>(&mut self, reactor: &mut Reactor<K>) -> Vec<SessionKey> {
        let empty = std::mem::take(&mut self.keys);
        debug_assert!(empty.is_empty(), "`keep_storage` has cleared it");
        std::mem::replace(&mut reactor.sessions.answers, empty)
    }

    /// Takes back the storage of a tick, but no arena that one large tick has grown.
    fn keep_storage(&mut self, mut slots: Vec<Slot>, mut answers: Vec<SessionKey>) {
        slots.clear();
        self.batch_slots = slots;
        answers.clear();
        self.keys = answers;
        if self.arena.capacity() > 4 * limits::SEND_BYTES_PER_TICK_MAX {
            self.arena = Vec::new();
        }
    }

    /// Drops what waits for a TLS channel that seals no longer. After the batch, because an end can enqueue frames for
    /// connections of this batch.
    fn drop_unsealable<K: Kernel>(&mut self, site: &mut Site<'_>, reactor: &mut Reactor<K>) {
        for key in self.unsealable.drain(..) {
            reactor.drop_socket(site.shard, key);
        }
        for key in self.unsealable_sessions.drain(..) {
            reactor.drop_unsealable(site, key);
        }
    }

    /// Slots that are flushed in the next tick, because this one had sent enough.
    pub(super) fn waiting_slots(&self) -> &[Slot] {
        &self.dirty
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn gather<K: Kernel>(&mut self, batch: &[Slot], shard: &mut Shard, reactor: &mut Reactor<K>) {
        self.items.clear();
        self.sealed.clear();
        self.arena.clear();
        for slot in batch.iter().copied() {
            let Some(generation) = shard.unmark_dirty(slot) else { continue };
            let Some(queue) = shard.send_queue(slot) else { continue };
            let key = ConnectionKey { slot, generation };
            if reactor.secure.get(slot).is_some() {
                self.gather_secure(key, shard, reactor);
            } else if let Some(frame) = queue.single_frame() {
                self.items.push(ConnectionSend { key, source: Source::Queue, bytes: frame.len() });
            } else if !queue.is_empty() {
                let start = self.arena.len();
                queue.copy_to(&mut self.arena, limits::SEND_BYTES_PER_TICK_MAX);
                let bytes = self.arena.len() - start;
                self.items.push(ConnectionSend { key, source: Source::Arena(start), bytes });
            }
        }
    }

    /// Seals one record. A sealed record cannot be sealed again, so no more is sealed than is sent at once.
    fn gather_secure<K: Kernel>(
        &mut self,
        key: ConnectionKey,
        shard: &Shard,
        reactor: &mut Reactor<K>,
    ) {
        let backlog_bytes_before = reactor.input_bytes(key.slot);
        let (Some(queue), Some(secure)) =
            (shard.send_queue(key.slot), reactor.secure.get_mut(key.slot))
        else {
            return;
        };
        let start = self.arena.len();
        let content = secure.write(&mut self.arena, |out, most| queue.copy_to(out, most));
        debug_assert!(content <= queue.bytes(), "what is sealed was waiting");
        let is_closing = shard.get(key).is_some_and(Connection::is_closing);
        if is_closing && content == queue.bytes() {
            // The announcement of the end is sent with the last frame.
            secure.close(&mut self.arena);
        }
        let bytes = self.arena.len() - start;
        if bytes > 0 {
            let index = u32::try_from(self.sealed.len()).unwrap_or(u32::MAX);
            self.sealed.push(Sealed { content, backlog_bytes_before });
            self.items.push(ConnectionSend { key, source: Source::Sealed(start, index), bytes });
        } else if !queue.is_empty() {
            self.unsealable.push(key);
        }
    }

    /// Adds answers while the batch has room. Returns those of the next batch.
    fn gather_answers<'a, K: Kernel>(
        &mut self,
        keys: &'a [SessionKey],
        reactor: &mut Reactor<K>,
    ) -> &'a [SessionKey] {
        self.answers.clear();
        let room = limits::SENDS_PER_SUBMIT.saturating_sub(self.items.len());
        let (keys, left) = keys.split_at(keys.len().min(room));
        for key in keys.iter().copied() {
            let start = self.arena.len();
            if reactor.sessions.seal(key, &mut self.arena) {
                let bytes = self.arena.len() - start;
                if bytes > 0 {
                    self.answers.push(SessionSend { key, arena_start: Some(start), bytes });
                } else {
                    self.unsealable_sessions.push(key);
                }
            } else if let Some((_, bytes)) = reactor.sessions.unsent(key) {
                // A session that has ended has nothing to send.
                let bytes = bytes.len().min(limits::SEND_BYTES_PER_TICK_MAX);
                self.answers.push(SessionSend { key, arena_start: None, bytes });
            }
        }
        left
    }

    fn send<K: Kernel>(&mut self, shard: &Shard, reactor: &mut Reactor<K>) {
        let (kernel, sockets, sessions) = reactor.split();
        // A dirty connection has a socket: a slot is filled before it can be dirty, and emptied together with it.
        self.items.retain(|item| sockets.descriptor(item.key.slot).is_some());
        let sends = self.items.iter().filter_map(|item| {
            let socket = sockets.descriptor(item.key.slot)?;
            Some(Send { socket, bytes: item.bytes(shard, &self.arena)? })
        });
        let answers = self.answers.iter().filter_map(|item| {
            let (socket, unsent) = sessions.unsent(item.key)?;
            Some(Send { socket, bytes: item.bytes(unsent, &self.arena)? })
        });
        kernel.send_all(sends.chain(answers), &mut self.results);
    }

    /// Reports to the shard how many bytes the kernel accepted. Failed sockets are dropped last, because a member that
    /// leaves can enqueue frames for connections of this batch.
    fn settle<K: Kernel>(&mut self, shard: &mut Shard, reactor: &mut Reactor<K>) {
        let sends = self.items.len() + self.answers.len();
        debug_assert!(sends <= limits::SENDS_PER_SUBMIT, "the ring has room for a batch");
        debug_assert_eq!(sends, self.results.len(), "one result a send");
        shard.metrics().sends.add(self.items.len() as u64);
        let mut failed = Vec::new();
        let mut sent_bytes = 0;
        for (item, result) in self.items.iter().zip(&self.results) {
            let key = item.key;
            let (taken, blocked) = match *result {
                Sent::Whole => (item.bytes, false),
                Sent::Part(short) if short <= item.bytes => (short, true),
                // The kernel reports more than it was given, so the position in the peer's stream is unknown.
                Sent::Part(_) => {
                    let why = Detail::Own("it has sent more bytes than it was given");
                    shard.note_refusal(key.slot, Cause::Kernel, &[why]);
                    failed.push(key);
                    continue;
                }
                Sent::Failed => {
                    failed.push(key);
                    continue;
                }
            };
            if blocked {
                reactor.wait_writable(key);
            }
            debug_assert!(taken <= item.bytes, "the kernel takes no more than it was given");
            let (content, after) = match item.source {
                Source::Sealed(start, index) => {
                    let Some(sealed) = self.sealed.get(index as usize) else { continue };
                    let unsent = self.arena.get(start + taken..start + item.bytes);
                    (sealed.content, sealed.settle(shard, reactor, key, unsent, blocked))
                }
                _ => (taken, shard.on_sent(key.slot, taken, blocked)),
            };
            sent_bytes += content;
            match after {
                AfterSend::Nothing => {}
                AfterSend::Finish => reactor.finish(shard, key),
                AfterSend::Fail => {
                    // `on_sent` has removed nothing from the queue.
                    sent_bytes -= content;
                    failed.push(key);
                }
            }
        }
        shard.note_sent(sent_bytes);
        for key in failed {
            reactor.drop_socket(shard, key);
        }
    }

    /// Reports to the sessions how many bytes of their answers the kernel accepted.
    fn settle_answers<K: Kernel>(&mut self, site: &mut Site<'_>, reactor: &mut Reactor<K>) {
        let results = self.results.iter().skip(self.items.len());
        debug_assert_eq!(results.len(), self.answers.len(), "one result a send");
        for (item, sent) in self.answers.drain(..).zip(results) {
            let sealed =
                item.arena_start.and_then(|start| self.arena.get(start..start + item.bytes));
            reactor.on_answer_sent(site, item.key, item.bytes, *sent, sealed);
        }
    }
}
