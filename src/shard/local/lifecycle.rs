//! How connections begin and end on this core. PURE.
//!
//! The socket itself is the reactor's. Owns the two steps of a close: the connection leaves its channels and gets its
//! last frame (`close`), and its slot is freed when the socket was closed (`remove`). Does not touch sockets or the
//! kernel.
//!
//! Limits: the slots of the core (`Settings::connections_reserved` of them without growth). Cost: an opening is one
//! entry of 96 bytes and one of the wheel; an end has a step for each subscription of the connection.

use super::Local;
use super::connection::{AppPlace, Connection, ConnectionKey};
use super::refuse;
use crate::app::AppIndex;
use crate::buffer::Frame;
use crate::cause::{Cause, Detail};
use crate::metrics::ConnectionEnd;
use crate::pusher::error_code::ErrorCode;
use crate::pusher::outbound;
use crate::pusher::socket_id::SocketId;
use crate::shard::context::Context;
use crate::shard::outbox::{Observation, Outbox, Trace};
use crate::slot::Slot;
use crate::ws::frame::{self, Opcode};

impl Local {
    /// `prelude` (the answers to requests before, and the 101 answer) leaves in the same send as
    /// `connection_established`, which saves a system call for each connection.
    pub(in crate::shard) fn open(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        app: AppIndex,
        entropy: u64,
        prelude: &[u8],
    ) -> ConnectionKey {
        let socket_id = SocketId::make(context.core(), context.settings.cores, entropy);
        let key = self.insert(context, app, socket_id);
        let text = &mut self.text_buffer;
        text.clear();
        if cfg!(not(feature = "echo")) {
            let timeout = context.app(app).activity_timeout_seconds;
            outbound::connection_established(socket_id, timeout, text);
        }
        let payload_bytes = text.len();
        text.push(0);
        text.extend_from_slice(prelude);
        if payload_bytes > 0 {
            frame::encode_header(Opcode::Text, payload_bytes, text);
            text.extend_from_within(..payload_bytes);
        }
        let bytes = Frame::from(text.get(payload_bytes..).unwrap_or_default());
        debug_assert!(bytes.len() > payload_bytes, "the header and what is sent before it");
        // What the client sends after its handshake may fill the queue before anything leaves. A close for that must
        // not drop the 101 answer, nor the answers to requests before it, which were carried out.
        debug_assert!(self.connections[key.slot].send_queue.is_empty(), "it is new");
        self.connections[key.slot].send_queue.push_begun(&bytes);
        let metrics = self.metrics.app(app);
        metrics.new_connections.add(1);
        metrics.messages_sent.add(u64::from(cfg!(not(feature = "echo"))));
        let waiting = bytes.len().saturating_sub(1) as u64;
        metrics.queued_bytes.add(waiting);
        self.metrics.send_queue_bytes.add(waiting);
        self.mark_dirty(out, key.slot);
        self.begin_liveness(context, key);
        debug_assert!(self.connections[key.slot].is_dirty, "its greeting leaves in this tick");
        out.trace(|| Trace::Established(socket_id));
        out.observe(|| Observation::Connected { app, socket_id });
        key
    }

    /// Completes the handshake of a connection that is refused, because a browser hides the reason of a failed
    /// handshake from the page. The reason is in an event and in a close frame (docs/PROTOCOL.md rule 9, C13 "fatal
    /// errors"). `why`: the line, in development mode.
    pub(in crate::shard) fn open_refused(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        prelude: &[u8],
        error: ErrorCode,
        why: Option<&str>,
    ) -> ConnectionKey {
        let socket_id = SocketId::make(context.core(), context.settings.cores, 0);
        // It never opens, so of an app's rules only the form of its errors is looked up: the first app's. There is one,
        // because `config` makes one where none is given.
        let key = self.insert(context, AppIndex(0), socket_id);
        let connection = &mut self.connections[key.slot];
        connection.app_place = AppPlace::Refused;
        debug_assert!(!connection.is_counted(), "no app has to give its place back");
        // The answer to the handshake is no message.
        self.enqueue_frame(context, out, key.slot, &prelude.to_vec().into());
        self.send_error(context, out, key.slot, error, why);
        // It was never open, so its end is not counted.
        self.close(context, out, key.slot, error, ConnectionEnd::Shutdown);
        key
    }

    pub(super) fn insert(
        &mut self,
        context: &Context,
        app: AppIndex,
        socket_id: SocketId,
    ) -> ConnectionKey {
        self.last_number = self.last_number.wrapping_add(1);
        let connection = Connection::new(app, socket_id, self.last_number, context.now.seconds());
        let slot = self.connections.insert(connection);
        debug_assert!(
            self.connections[slot].subscriptions.is_empty(),
            "a new one is in no channel"
        );
        ConnectionKey { slot, generation: self.last_number }
    }

    /// Begins to close a connection from our side. Its subscriptions end at once; its socket ends when the close frame
    /// was sent and the peer answered or its time is up.
    pub(in crate::shard) fn close(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        error: ErrorCode,
        why: ConnectionEnd,
    ) {
        self.close_frame(context, out, slot, (error.code, error.message), why);
    }

    /// `close` with any code: protocol violations, and the echo of the peer's own close.
    pub(in crate::shard) fn close_frame(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        (code, reason): (u16, &str),
        why: ConnectionEnd,
    ) {
        if self.connections.get(slot).is_none_or(|found| found.is_closing) {
            return;
        }
        self.leave_all(context, out, slot, why);
        self.begin_close(out, slot, code, reason, false);
        debug_assert!(self.connections[slot].is_closing, "its close frame waits");
    }

    /// Closes an open connection that has too much waiting: what has not begun to be sent is dropped.
    pub(super) fn close_without_queue(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        error: ErrorCode,
        cause: Cause,
        bytes: usize,
    ) {
        debug_assert!(!self.connections[slot].is_closing, "it is closed once");
        let line = self.note_refusal(context, out, slot, cause, &[Detail::count(bytes)]);
        self.leave_all(context, out, slot, ConnectionEnd::Refused(cause.counter()));
        let explanation = line.map(|_| match cause {
            Cause::SlowConsumer => format!("{bytes} bytes waited (RINGVERB_SEND_QUEUE_BYTES_MAX)"),
            _ => format!("the connection kept {bytes} bytes (RINGVERB_MEMORY_MAX)"),
        });
        let reason = refuse::close_reason(error.message, explanation.as_deref());
        self.begin_close(out, slot, error.code, &reason, true);
        debug_assert!(self.connections[slot].is_closing, "its close frame waits");
    }

    /// `at_once`: drops what has not begun to be sent, so that the close frame of a slow consumer does not wait behind
    /// it.
    fn begin_close(
        &mut self,
        out: &mut Outbox,
        slot: Slot,
        code: u16,
        reason: &str,
        at_once: bool,
    ) {
        debug_assert!((1_000..5_000).contains(&code), "a close code of RFC 6455 or of Pusher");
        let mut bytes = Vec::new();
        frame::encode(Opcode::Close, &crate::ws::close::encode_payload(code, reason), &mut bytes);
        let frame = bytes.into();
        let connection = &mut self.connections[slot];
        debug_assert!(connection.subscriptions.is_empty(), "a closing connection is in no channel");
        debug_assert!(!connection.is_closing, "one close frame a connection");
        connection.is_closing = true;
        let waiting = connection.send_queue.bytes();
        if at_once {
            connection.send_queue.replace_unsent(&frame);
        } else {
            connection.send_queue.push(&frame);
        }
        let (before, after) = (waiting + frame.len(), connection.send_queue.bytes());
        let metrics = self.metrics.app_or_none(connection.metrics_app());
        metrics.queued_bytes.add(frame.len() as u64);
        metrics.discarded_bytes.add(before.saturating_sub(after) as u64);
        self.metrics.send_queue_bytes.add(after as u64);
        self.metrics.send_queue_bytes.sub(waiting as u64);
        let generation = connection.generation;
        self.mark_dirty(out, slot);
        debug_assert!(!self.connections[slot].send_queue.is_empty(), "the close frame waits");
        out.closed.push((ConnectionKey { slot, generation }, code));
    }

    /// For a socket that was closed. The one way to free a slot. Idempotent, because the kernel and the shard may both
    /// find the end (docs/PROTOCOL.md rules 101, 102).
    pub(in crate::shard) fn remove(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
    ) {
        if self.get(key).is_none() {
            return;
        }
        if !self.connections[key.slot].is_closing {
            self.leave_all(context, out, key.slot, ConnectionEnd::Lost);
        }
        let removed = self.connections.remove(key.slot);
        debug_assert_eq!(removed.generation, key.generation, "the connection that was meant");
        debug_assert!(removed.subscriptions.is_empty(), "no channel names a free slot");
        debug_assert_eq!(removed.charged_bytes, 0, "it has given back what it was charged");
        debug_assert!(!removed.is_counted(), "its app has its place back");
        let discarded = removed.send_queue.bytes() as u64;
        debug_assert!(
            self.metrics.send_queue_bytes.get() >= discarded,
            "the gauge has what waits in each queue"
        );
        self.metrics.app_or_none(removed.metrics_app()).discarded_bytes.add(discarded);
        self.metrics.send_queue_bytes.sub(discarded);
        debug_assert!(self.get(key).is_none(), "the key names no connection");
    }

    /// Afterwards no list of channels or users names the slot, nothing is charged, and the app does not count it.
    fn leave_all(&mut self, context: &Context, out: &mut Outbox, slot: Slot, why: ConnectionEnd) {
        while let Some(index) = self.connections[slot].subscriptions.len().checked_sub(1) {
            self.end_subscription_at(context, out, slot, index);
        }
        self.sign_out(context, out, slot);
        let connection = &mut self.connections[slot];
        debug_assert_eq!(connection.charged_bytes, 0, "it is in nothing any longer");
        debug_assert!(connection.extras.is_none(), "it is signed in and watches nobody");
        let (app, socket_id) = (connection.app, connection.socket_id);
        if connection.is_counted() {
            connection.app_place = AppPlace::Ended;
            context.app(app).release_connection();
            self.metrics.app(app).disconnections.add(1);
            self.metrics.count_end(why);
            out.trace(|| Trace::Closed(socket_id));
            out.observe(|| Observation::Disconnected { app, socket_id, ended: why });
        }
        debug_assert!(!self.connections[slot].is_counted(), "its app has its place back");
    }

    /// For a shutdown, in steps, so that no tick is long. Returns whether open connections are left.
    pub(in crate::shard) fn close_some(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        count: usize,
        error: ErrorCode,
    ) -> bool {
        let open = |found: &Connection| !found.is_closing;
        let slots: Vec<Slot> = self
            .connections
            .iter()
            .filter(|(_, found)| open(found))
            .take(count)
            .map(|(slot, _)| slot)
            .collect();
        for slot in &slots {
            self.close(context, out, *slot, error, ConnectionEnd::Shutdown);
        }
        debug_assert!(slots.len() <= count, "as many as were asked for");
        debug_assert!(
            slots.iter().all(|slot| self.connections[*slot].is_closing),
            "their close frames wait"
        );
        slots.len() == count && self.connections.iter().any(|(_, found)| open(found))
    }
}
