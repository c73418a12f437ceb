//! How connections are read: each readable socket once in a tick, all of them within a budget of time and bytes. A read
//! that receives nothing, such as the end of a connection, counts as `READ_COST_BYTES_MIN` bytes.
//!
//! Owns no state of its own: it reads and changes the queues of `Reactor`. A socket that was read in this tick waits
//! for the next one. One whose client is over its rate waits apart (`paused_reads`) and is looked at again every 10 ms.
//! Bytes become messages in `ws::reader`, and go to the shard at once. Does not know what a message means.
//!
//! Limit: each connection is in one of the three queues at most once, so their sum is bounded by the number of
//! connections. Cost: one system call for each readable socket in a tick, no allocation; a look at the clock after 8
//! KiB.

use super::sink::ShardSink;
use super::{PACED_LOOK_MS, Queued, Reactor};
use crate::clock::Moment;
use crate::limits;
use crate::shard::{ConnectionKey, Shard};
use crate::tick::kernel::{Kernel, Received};
use crate::tls::RECORD_BYTES_MAX;
use crate::ws::reader::{self, FrameLimits};

impl<K: Kernel> Reactor<K> {
    /// Reads the queued sockets. `waiting`: how many at the front of `unread` have waited since an earlier tick.
    pub(super) fn read_connections(&mut self, shard: &mut Shard, mut waiting: usize) {
        debug_assert!(waiting <= self.unread.len(), "the first of the queue");
        let deadline = self.kernel.stamp() + limits::READ_TIME_PER_TICK_NS;
        // Bytes that were read since the last look at the clock.
        let mut bytes = 0;
        if std::mem::take(&mut self.had_no_read_time) && waiting > 0 {
            waiting -= 1;
            if let Some(key) = self.unread.pop_front() {
                bytes += self.read(shard, key).max(limits::READ_COST_BYTES_MIN);
            }
        }
        self.read_ready(shard, deadline, &mut bytes);
        self.read_waiting(shard, waiting, deadline);
    }

    /// Reads the first `count` sockets of `unread`, which had more to read in an earlier tick, while there is time. If
    /// there was no time for the first one, it is read before the others in the next tick.
    fn read_waiting(&mut self, shard: &mut Shard, count: usize, deadline: u64) {
        for number in 0..count {
            if self.kernel.stamp() >= deadline {
                self.had_no_read_time = number == 0;
                return;
            }
            let Some(key) = self.unread.pop_front() else { return };
            self.read(shard, key);
        }
    }

    /// Queues a live connection's socket to be read: in this tick, unless it was read in it already.
    pub(in crate::tick) fn queue(&mut self, key: ConnectionKey, until: Queued) {
        let socket = &mut self.sockets.0[key.slot.index()];
        let before = socket.queued;
        debug_assert!(socket.descriptor.is_some(), "a connection that is there has a socket");
        if until == Queued::ToTheEnd || before == Queued::No {
            socket.queued = until;
        }
        if before != Queued::No {
            return;
        }
        debug_assert!(socket.queued != Queued::No, "it is queued once, until it is read");
        let was_read = socket.read_in_tick == self.tick;
        let queue = if was_read { &mut self.unread } else { &mut self.ready };
        queue.push_back(key);
    }

    /// Reads the queued sockets, each once, until the time is over. The remaining sockets stay at the front of the
    /// queue.
    fn read_ready(&mut self, shard: &mut Shard, deadline: u64, bytes: &mut usize) {
        while let Some(key) = self.ready.pop_front() {
            *bytes += self.read(shard, key).max(limits::READ_COST_BYTES_MIN);
            if *bytes >= limits::READ_BYTES_PER_CLOCK {
                *bytes = 0;
                if self.kernel.stamp() >= deadline {
                    return;
                }
            }
        }
    }

    /// Queues paused sockets again whose wait is over.
    pub(super) fn check_paused_reads(&mut self, shard: &Shard) {
        let now = shard.now();
        if self.paused_reads.is_empty() || now < self.next_paused_check {
            return;
        }
        self.next_paused_check = Moment(now.0 + PACED_LOOK_MS);
        let ready = &mut self.ready;
        self.paused_reads.retain(|key| {
            let is_there = shard.get(*key).is_some();
            let must_wait = shard.must_wait(*key);
            if is_there && !must_wait {
                ready.push_back(*key);
            }
            is_there && must_wait
        });
    }

    /// Reads a socket once. Returns the number of bytes.
    fn read(&mut self, shard: &mut Shard, key: ConnectionKey) -> usize {
        if shard.get(key).is_none() {
            return 0;
        }
        if shard.must_wait(key) {
            debug_assert!(
                self.paused_reads.len() > crate::limits::ASSERTED_LEN_MAX
                    || !self.paused_reads.contains(&key),
                "a connection is in one queue, once"
            );
            self.paused_reads.push(key);
            return 0;
        }
        let socket = &mut self.sockets.0[key.slot.index()];
        let until = std::mem::replace(&mut socket.queued, Queued::No);
        socket.read_in_tick = self.tick;
        debug_assert!(socket.descriptor.is_some(), "a connection that is there has a socket");
        let Some(descriptor) = &socket.descriptor else { return 0 };
        if self.secure.has_ended(key.slot) {
            self.drop_socket(shard, key);
            return 0;
        }
        let room = &mut self.scratch[RECORD_BYTES_MAX..];
        debug_assert_eq!(room.len(), limits::READ_BYTES_PER_TICK_MAX, "as much as a tick reads");
        match self.kernel.receive(descriptor, room) {
            Received::Gone => {
                self.drop_socket(shard, key);
                0
            }
            Received::Nothing => 0,
            Received::Bytes(count) => {
                if count == room.len() || until == Queued::ToTheEnd {
                    self.queue(key, until);
                }
                let mut scratch = std::mem::take(&mut self.scratch);
                if self.secure.is_secure(key.slot) {
                    self.feed_secure(shard, key, &mut scratch, count);
                } else {
                    self.decode_input(shard, key, &mut scratch[RECORD_BYTES_MAX..][..count]);
                }
                self.scratch = scratch;
                count
            }
        }
    }

    /// Reports to the shard how much the memory of incomplete input has changed, for its limits.
    pub(in crate::tick) fn note_kept(
        &self,
        shard: &mut Shard,
        key: ConnectionKey,
        kept_before: usize,
    ) {
        let kept = self.input_bytes(key.slot);
        if kept != kept_before {
            shard.note_input(key, kept_before, kept);
        }
    }

    /// Decodes received bytes. Each complete message goes to the shard at once.
    pub(super) fn decode_input(&mut self, shard: &mut Shard, key: ConnectionKey, bytes: &mut [u8]) {
        let Some(connection) = shard.get(key) else { return };
        if connection.is_closing() && self.sockets.0[key.slot.index()].partial.is_none() {
            return;
        }
        shard.metrics().app(connection.app).received_bytes.add(bytes.len() as u64);
        let limits = FrameLimits { message_size_max: shard.message_size_max(key.slot) };
        let kept_before = self.input_bytes(key.slot);
        let socket = &mut self.sockets.0[key.slot.index()];
        let mut sink = ShardSink { shard, key, peer_closed: false };
        let result = reader::read(&mut socket.partial, bytes, limits, &mut sink);
        socket.peer_closed |= sink.peer_closed;
        debug_assert!(
            !sink.peer_closed
                || sink.shard.get(key).is_none_or(crate::shard::Connection::is_closing),
            "a peer that closes is answered with a close frame"
        );
        if let Err(violation) = result {
            shard.close_violating(key.slot, violation);
        }
        self.note_kept(shard, key, kept_before);
        if shard.get(key).is_none_or(crate::shard::Connection::is_closing) {
            // Further input of a closing connection is discarded.
            self.sockets.0[key.slot.index()].partial = None;
        }
    }

    /// Whether reads of some sockets are paused, so that a tick is needed when they may continue.
    #[must_use]
    pub fn has_paused_reads(&self) -> bool {
        !self.paused_reads.is_empty()
    }

    /// Entries of the queues of readable sockets: at most one for each connection.
    #[must_use]
    pub fn queued_reads(&self) -> usize {
        self.ready.len() + self.unread.len() + self.paused_reads.len() + self.sessions.queued()
    }

    /// Whether another tick is needed that no report of the kernel will cause.
    pub(in crate::tick) fn has_unread(&self) -> bool {
        !self.ready.is_empty() || !self.unread.is_empty() || self.sessions.has_work()
    }
}
