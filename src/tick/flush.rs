//! HOT: the end of a tick: one send per dirty connection, in batched submissions. PURE: the kernel is a parameter.
//!
//! A queue of one frame is sent from its own memory. Several frames are copied into an arena first, because one send of
//! 400 bytes costs a quarter of four sends of 100. The kernel's TCP send is the cost of a delivery; the cost here is a
//! queue entry and an SQE. With TLS, what waits is sealed in the arena as one record. Limit: `FLUSHES_PER_TICK_MAX`
//! connections in a tick. Cost: for a connection a step through its queue and, with several frames, a copy to the
//! arena; no allocation. One or two sends are a system call each, more are one for up to 64 (io_uring).

use super::kernel::{Kernel, Send, Sent, SessionKey};
use super::reactor::Reactor;
use super::site::Site;
use crate::cause::{Cause, Detail};
use crate::limits;
use crate::shard::{AfterSend, Connection, ConnectionKey, Shard};
use crate::slot::Slot;

/// Storage that is reused from tick to tick.
#[derive(Default)]
pub(super) struct Flush {
    /// Slots still to be flushed, oldest first.
    dirty: Vec<Slot>,
    items: Vec<Item>,
    /// Those of `items` that were sealed.
    sealed: Vec<Sealed>,
    /// Sessions of the current batch. Their results follow those of `items`.
    answers: Vec<AnswerItem>,
    /// Storage of the connections of one run.
    batch_slots: Vec<Slot>,
    /// Storage of `Sessions::answers`.
    keys: Vec<SessionKey>,
    arena: Vec<u8>,
    results: Vec<Sent>,
    /// Those that have something to send, and whose channel seals nothing any longer.
    unsealable: Vec<ConnectionKey>,
    unsealable_sessions: Vec<SessionKey>,
}

/// One connection's send in the current batch.
struct Item {
    key: ConnectionKey,
    source: Source,
    /// Bytes given to the kernel. Noted here because the queue may grow before the result is settled.
    bytes: usize,
}

/// Where the bytes of a send are.
#[derive(Clone, Copy)]
enum Source {
    /// The only frame of its queue.
    Queue,
    /// In the arena, from here on.
    Arena(usize),
    /// The same with TLS, and its place in `Flush::sealed`: a list of its own, so that other items are not larger.
    Sealed(usize, u32),
}

/// A sealed send: the bytes of the queue that were sealed, and the memory of its channel before that.
#[derive(Clone, Copy)]
struct Sealed {
    content: usize,
    backlog_bytes_before: usize,
}

/// One session's send in the current batch.
struct AnswerItem {
    key: SessionKey,
    /// With TLS: where its sealed bytes begin in the arena.
    arena_start: Option<usize>,
    bytes: usize,
}

impl Sealed {
    /// Keeps what the kernel did not take, and reports to the shard what was sealed.
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
            // The last bytes wait until the socket takes them.
            AfterSend::Finish if blocked => AfterSend::Nothing,
            after => after,
        }
    }
}

impl Flush {
    /// Sends queued frames, for `FLUSHES_PER_TICK_MAX` connections at most. The remaining connections are first in the
    /// next tick, after the core has read and accepted. Answers of sessions fill the last batch.
    pub(super) fn flush_tick<K: Kernel>(&mut self, site: &mut Site<'_>, reactor: &mut Reactor<K>) {
        self.dirty.append(&mut site.shard.outbox.dirty);
        let count = self.dirty.len().min(limits::FLUSHES_PER_TICK_MAX);
        let mut slice = std::mem::take(&mut self.batch_slots);
        slice.extend(self.dirty.drain(..count));
        // Sessions with more to send are added there again.
        let keys = std::mem::take(&mut self.keys);
        let mut answers = std::mem::replace(&mut reactor.sessions.answers, keys);
        let mut batches = slice.chunks(limits::SENDS_PER_SUBMIT).peekable();
        let mut left = answers.as_slice();
        while batches.peek().is_some() || !left.is_empty() {
            self.gather(batches.next().unwrap_or_default(), site.shard, reactor);
            if batches.peek().is_none() {
                let room = limits::SENDS_PER_SUBMIT.saturating_sub(self.items.len());
                let (now, later) = left.split_at(left.len().min(room));
                self.gather_answers(now, reactor);
                left = later;
            }
            self.send(site.shard, reactor);
            self.settle(site.shard, reactor);
            self.settle_answers(site, reactor);
            for key in self.unsealable.drain(..) {
                reactor.drop_socket(site.shard, key);
            }
            for key in self.unsealable_sessions.drain(..) {
                reactor.drop_unsealable(site, key);
            }
        }
        debug_assert!(
            self.unsealable.is_empty() && self.unsealable_sessions.is_empty(),
            "all were dropped"
        );
        slice.clear();
        self.batch_slots = slice;
        answers.clear();
        self.keys = answers;
        if self.arena.capacity() > 4 * limits::SEND_BYTES_PER_TICK_MAX {
            self.arena = Vec::new();
        }
    }

    /// Slots that wait for the next tick.
    pub(super) fn waiting_slots(&self) -> &[Slot] {
        &self.dirty
    }

    /// Connections wait for the next tick.
    pub(super) fn has_waiting(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn gather<K: Kernel>(&mut self, batch: &[Slot], shard: &mut Shard, reactor: &mut Reactor<K>) {
        self.items.clear();
        self.sealed.clear();
        self.arena.clear();
        for slot in batch.iter().copied() {
            let Some(generation) = shard.take_dirty(slot) else { continue };
            let Some(queue) = shard.send_queue(slot) else { continue };
            let key = ConnectionKey { slot, generation };
            if reactor.secure.get(slot).is_some() {
                self.gather_secure(key, shard, reactor);
                continue;
            }
            if queue.is_empty() {
                continue;
            }
            let (source, bytes) = match queue.single_frame() {
                Some(frame) => (Source::Queue, frame.len()),
                None => {
                    let start = self.arena.len();
                    queue.copy_to(&mut self.arena, limits::SEND_BYTES_PER_TICK_MAX);
                    (Source::Arena(start), self.arena.len() - start)
                }
            };
            self.items.push(Item { key, source, bytes });
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
            // It leaves with the last frame.
            secure.close(&mut self.arena);
        }
        let bytes = self.arena.len() - start;
        if bytes > 0 {
            let place = u32::try_from(self.sealed.len()).unwrap_or(u32::MAX);
            self.sealed.push(Sealed { content, backlog_bytes_before });
            self.items.push(Item { key, source: Source::Sealed(start, place), bytes });
        } else if !queue.is_empty() {
            self.unsealable.push(key);
        }
    }

    fn gather_answers<K: Kernel>(&mut self, keys: &[SessionKey], reactor: &mut Reactor<K>) {
        self.answers.clear();
        for key in keys.iter().copied() {
            let start = self.arena.len();
            if reactor.sessions.seal(key, &mut self.arena) {
                let bytes = self.arena.len() - start;
                if bytes > 0 {
                    self.answers.push(AnswerItem { key, arena_start: Some(start), bytes });
                } else {
                    self.unsealable_sessions.push(key);
                }
            } else if let Some((_, bytes)) = reactor.sessions.unsent(key) {
                // A session that has ended has nothing to send.
                let bytes = bytes.len().min(limits::SEND_BYTES_PER_TICK_MAX);
                self.answers.push(AnswerItem { key, arena_start: None, bytes });
            }
        }
    }

    fn send<K: Kernel>(&mut self, shard: &Shard, reactor: &mut Reactor<K>) {
        let (kernel, sockets, sessions) = reactor.split();
        // A dirty connection has a socket: a slot is filled before it can be dirty, and emptied together with it.
        self.items.retain(|item| sockets.descriptor(item.key.slot).is_some());
        let sends = self.items.iter().filter_map(|item| {
            let socket = sockets.descriptor(item.key.slot)?;
            let bytes = match item.source {
                Source::Queue => shard.send_queue(item.key.slot)?.single_frame()?,
                Source::Arena(start) | Source::Sealed(start, _) => {
                    &self.arena[start..start + item.bytes]
                }
            };
            Some(Send { socket, bytes })
        });
        let answers = self.answers.iter().filter_map(|item| {
            let (socket, bytes) = sessions.unsent(item.key)?;
            let bytes = match item.arena_start {
                Some(start) => &self.arena[start..start + item.bytes],
                None => bytes.get(..item.bytes)?,
            };
            Some(Send { socket, bytes })
        });
        kernel.send_all(sends.chain(answers), &mut self.results);
    }

    /// Reports to the shard how many bytes the kernel took. Failed sockets are dropped last, because their leaving can
    /// enqueue frames for connections of this batch.
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
                Source::Sealed(start, place) => {
                    let Some(sealed) = self.sealed.get(place as usize) else { continue };
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
                    // The queue is as it was.
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

    /// The same for sessions.
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
