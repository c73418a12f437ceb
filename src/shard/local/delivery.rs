//! HOT: from a publish to the send queues of this core's subscribers. PURE.
//!
//! Owns the rule when a frame may be enqueued and which connections are dirty or slow. Does not send: the worker
//! flushes dirty connections at the end of the tick (docs/decisions/0001). Limits: `MemoryLimits::send_queue_bytes_max`
//! for each connection, checked before each push.
//!
//! Cost: `deliver` is linear in the local subscribers, one reference count and one list entry each, no allocation for a
//! connection's first frame of a tick, and no atomic operation. For the event: one allocation, one atomic increment
//! (the bytes are shared between cores), and three counters of this core, which are plain loads and stores.

use super::Local;
use super::connection::Connection;
use super::send_queue::FRAME_BYTES;
use crate::buffer::{Frame, FrameBytes};
use crate::cause::{Cause, Detail};
use crate::pusher::error_code;
use crate::pusher::socket_id::SocketId;
use crate::shard::channel_key::ChannelKey;
use crate::shard::context::{Context, MemoryLimits};
use crate::shard::outbox::Outbox;
use crate::slot::Slot;

/// What the reactor is to do with the socket after a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterSend {
    Nothing,
    /// The last frame of a closing connection is out.
    Finish,
    /// More bytes were sent than the connection had: its stream cannot be continued.
    Fail,
}

impl Connection {
    /// Whether a frame of `len` bytes may be enqueued. One frame always may: a roster larger than the bound must not
    /// lock its channel. After a refusal `Local::settle` closes the connection and drops what is enqueued then. If the
    /// refusal is in the flush, that is in the next tick, and the flush may have sent what was enqueued before.
    #[inline]
    fn has_queue_room(&self, len: usize, limits: MemoryLimits) -> bool {
        self.send_queue.is_empty() || (!self.has_overflowed && self.is_within_limits(len, limits))
    }

    fn is_within_limits(&self, len: usize, limits: MemoryLimits) -> bool {
        let waiting = self.send_queue.memory_bytes() + len + FRAME_BYTES;
        waiting <= limits.send_queue_bytes_max
            && waiting + self.charged_bytes as usize <= limits.connection_bytes_max
    }

    /// A frame was refused. The first refusal makes the connection a slow consumer; further ones must not list it
    /// again.
    #[cold]
    fn overflow(&mut self, slot: Slot, slow_consumers: &mut Vec<Slot>) {
        if !std::mem::replace(&mut self.has_overflowed, true) {
            slow_consumers.push(slot);
        }
    }
}

impl Local {
    /// Enqueues a frame for every subscriber on this core. A stale event, for a channel just left by all,
    /// finds no subscriber. Counts once for all.
    ///
    /// Arguments and limits are few and near, because each pointer more costs an instruction a delivery.
    pub(in crate::shard) fn deliver(
        &mut self,
        dirty: &mut Vec<Slot>,
        channel: &ChannelKey,
        frame: &FrameBytes,
        except: Option<SocketId>,
    ) {
        let Some(index) = self.channels.find_key(channel) else { return };
        let frame = Frame::new(frame.clone());
        let (limits, len) = (self.memory_limits, frame.len());
        let bytes = u32::try_from(len).unwrap_or(u32::MAX);
        let subscribers = &self.channels[index].subscribers;
        let mut left_out = 0;
        for subscriber in subscribers {
            let connection = &mut self.connections[subscriber.slot];
            if except == Some(connection.socket_id) {
                left_out += 1;
                continue;
            }
            debug_assert!(!connection.is_closing, "a close ends the subscriptions");
            debug_assert_eq!(connection.app, channel.app(), "a channel of its own app");
            if !connection.has_queue_room(len, limits) {
                connection.overflow(subscriber.slot, &mut self.slow_consumers);
                left_out += 1;
                continue;
            }
            connection.send_queue.push_sized(&frame, bytes);
            if !connection.is_dirty && !connection.is_blocked {
                connection.is_dirty = true;
                dirty.push(subscriber.slot);
            }
        }
        debug_assert!(left_out <= subscribers.len(), "each subscriber is left out once at most");
        let count = subscribers.len() - left_out;
        self.count_deliveries(channel, count as u64, len as u64);
    }

    /// Once for all subscribers of an event, not in the loop over them.
    #[inline]
    fn count_deliveries(&self, channel: &ChannelKey, count: u64, frame_bytes: u64) {
        let metrics = self.metrics.app(channel.app());
        metrics.messages_sent.add(count);
        metrics.queued_bytes.add(count * frame_bytes);
        self.metrics.send_queue_bytes.add(count * frame_bytes);
    }

    /// For one connection. A message that finds no room is dropped: `settle` closes the connection.
    pub(super) fn enqueue(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        frame: &Frame,
    ) {
        if self.enqueue_frame(context, out, slot, frame) {
            let app = self.connections[slot].metrics_app();
            self.metrics.app_or_none(app).messages_sent.add(1);
        }
    }

    /// `enqueue` for a frame that is no message. `false`: it finds no room, or the connection is closing.
    pub(super) fn enqueue_frame(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        frame: &Frame,
    ) -> bool {
        let limits = context.settings.memory;
        let connection = &mut self.connections[slot];
        if connection.is_closing {
            return false;
        }
        // A blocked connection may queue answers only while the core has headroom, because its client causes them and
        // does not read them.
        let has_headroom = !connection.is_blocked || self.account.reserve_for_answer(frame.len());
        if !has_headroom || !connection.has_queue_room(frame.len(), limits) {
            connection.overflow(slot, &mut self.slow_consumers);
            return false;
        }
        connection.send_queue.push(frame);
        let metrics = self.metrics.app_or_none(connection.metrics_app());
        metrics.queued_bytes.add(frame.len() as u64);
        self.metrics.send_queue_bytes.add(frame.len() as u64);
        self.mark_dirty(out, slot);
        true
    }

    /// Closes the slow consumers found since the last call with 4100, and sends homes the numbers that changed. Call
    /// it once input is dealt with: a close takes the connection out of its channels, which must not happen while a
    /// channel is being worked on.
    pub(in crate::shard) fn settle(&mut self, context: &Context, out: &mut Outbox) {
        // A slot is in the list twice if its connection has ended and the next one has overflowed, too.
        while let Some(slot) = self.slow_consumers.pop() {
            let error = error_code::SLOW_CONSUMER;
            let found = self.connections.get(slot);
            if let Some(found) = found.filter(|found| found.has_overflowed && !found.is_closing) {
                let waiting = found.send_queue.memory_bytes();
                self.close_without_queue(context, out, slot, error, Cause::SlowConsumer, waiting);
                debug_assert!(
                    self.connections[slot].subscriptions.is_empty(),
                    "no further event is enqueued for it"
                );
            }
        }
        debug_assert!(self.slow_consumers.is_empty(), "all slow consumers are closed");
        self.settle_counts(context, out);
    }

    pub(in crate::shard) fn has_unsettled(&self) -> bool {
        !self.slow_consumers.is_empty() || !self.counts_changed.is_empty()
    }

    pub(super) fn mark_dirty(&mut self, out: &mut Outbox, slot: Slot) {
        debug_assert!(self.connections.get(slot).is_some(), "a connection that is there");
        let connection = &mut self.connections[slot];
        if !connection.is_dirty && !connection.is_blocked {
            connection.is_dirty = true;
            out.dirty.push(slot);
        }
        debug_assert!(self.connections[slot].is_dirty || self.connections[slot].is_blocked);
    }

    /// The kernel took `count` bytes of what was flushed. `blocked`: it would not take more for now.
    #[inline]
    pub(in crate::shard) fn on_sent(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        count: usize,
        blocked: bool,
    ) -> AfterSend {
        let Some(connection) = self.connections.get_mut(slot) else {
            return AfterSend::Nothing;
        };
        if !connection.send_queue.remove_sent_single(count) {
            return self.on_sent_in_part(context, out, slot, count, blocked);
        }
        connection.is_blocked = blocked;
        if connection.is_closing || connection.control_frames.unsent_pongs() > 0 {
            return self.on_all_sent(context, out, slot);
        }
        AfterSend::Nothing
    }

    /// `on_sent` where several frames waited, or the kernel took less than waits.
    fn on_sent_in_part(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        count: usize,
        blocked: bool,
    ) -> AfterSend {
        let Some(connection) = self.connections.get_mut(slot) else {
            return AfterSend::Nothing;
        };
        if !connection.send_queue.remove_sent(count) {
            let why = "it has sent more bytes than it was given";
            self.note_refusal(context, out, slot, Cause::Kernel, &[Detail::Own(why)]);
            return AfterSend::Fail;
        }
        connection.is_blocked = blocked;
        if !connection.send_queue.is_empty() {
            self.mark_dirty(out, slot);
            return AfterSend::Nothing;
        }
        self.on_all_sent(context, out, slot)
    }

    /// A queue that is empty again ends a closing connection, and lets the ping that waited be answered.
    fn on_all_sent(&mut self, context: &Context, out: &mut Outbox, slot: Slot) -> AfterSend {
        let connection = &self.connections[slot];
        debug_assert!(connection.send_queue.is_empty(), "nothing waits");
        if connection.is_closing {
            return AfterSend::Finish;
        }
        if connection.control_frames.unsent_pongs() > 0 {
            self.answer_waiting_ping(context, out, slot);
        }
        AfterSend::Nothing
    }

    /// For bytes that the reactor keeps, such as those of TLS: the flush must look at the connection although its queue
    /// may be empty.
    pub(in crate::shard) fn wake(&mut self, out: &mut Outbox, slot: Slot) {
        if self.connections.get(slot).is_some() {
            self.mark_dirty(out, slot);
        }
    }

    /// The kernel has reported that the socket is writable again.
    pub(in crate::shard) fn unblock(&mut self, out: &mut Outbox, slot: Slot) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.is_blocked = false;
            if !connection.send_queue.is_empty() {
                self.mark_dirty(out, slot);
            }
        }
        debug_assert!(
            self.connections.get(slot).is_none_or(|found| !found.is_blocked),
            "it may send"
        );
    }
}
