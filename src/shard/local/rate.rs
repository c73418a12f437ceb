//! How often one client may send: rates of messages and of control frames, and the answers over them. PURE.
//!
//! Owns the windows of these rates in each connection, and the pings that wait for their pong. Does not close, except
//! where the app wants it (`terminate_on_limit`). A client cannot cause more answers than messages: over a rate it is
//! sent one error a window, and pings are answered one by one only while the client reads.
//!
//! Limits: the options of the app, and `limits::CONTROL_FRAMES_PER_SECOND_MAX`. Cost: a few steps for a message or a
//! control frame; an answer is one frame in the send queue.

use super::connection::ConnectionKey;
use super::refuse::Denial;
use super::{Local, NotedInput};
use crate::app::AppIndex;
use crate::cause::{Cause, Detail};
use crate::counters::Refused;
use crate::limits;
use crate::metrics::ConnectionEnd;
use crate::pusher::error_code;
use crate::pusher::inbound::{self, Inbound};
use crate::shard::context::Context;
use crate::shard::outbox::{Outbox, Trace};
use crate::slot::Slot;
use crate::ws::frame;
use crate::ws::frame::Opcode;

impl Local {
    /// A WebSocket ping: answered with a pong that carries the same payload (RFC 6455 section 5.5.3).
    pub(in crate::shard) fn on_ping_frame(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        payload: &[u8],
    ) {
        debug_assert!(payload.len() <= limits::CONTROL_PAYLOAD_MAX, "a control frame");
        let Some(is_within_rate) = self.note_ping_frame(context, out, key) else { return };
        let connection = &mut self.connections[key.slot];
        debug_assert!(!connection.is_closing, "its input counts no longer");
        let unsent = connection.control_frames.unsent_pongs();
        let is_flushed = unsent == 0 || !connection.is_blocked;
        if is_within_rate && is_flushed && unsent < limits::PONGS_PER_FLUSH_MAX {
            return self.enqueue_pong(context, out, key.slot, payload);
        }
        // Of several pings that wait, the latest alone needs a pong (RFC 6455 section 5.5.3).
        let waiting = &mut connection.extras.get_or_insert_default().ping_waiting;
        let is_first = waiting.replace(payload.into()).is_none();
        // Pongs that wait to be sent are followed by this one; without them, the second has to end.
        if is_first && unsent == 0 {
            self.pongs_due.push(key);
        }
        debug_assert!(
            self.pongs_due.len() > crate::limits::ASSERTED_LEN_MAX
                || self.pongs_due.iter().filter(|due| **due == key).count() <= 1,
            "a connection waits for the end of the second once"
        );
    }

    /// Once a second: answers the latest ping of each connection that was over the rate in the second before.
    pub(super) fn answer_due_pings(&mut self, context: &Context, out: &mut Outbox) {
        for key in std::mem::take(&mut self.pongs_due) {
            if self.get_open(key).is_some() {
                self.answer_waiting_ping(context, out, key.slot);
            }
        }
        debug_assert!(self.pongs_due.is_empty(), "all are answered");
    }

    fn enqueue_pong(&mut self, context: &Context, out: &mut Outbox, slot: Slot, payload: &[u8]) {
        debug_assert!(payload.len() <= limits::CONTROL_PAYLOAD_MAX, "a control frame");
        self.connections[slot].control_frames.add_unsent_pong();
        let mut bytes = Vec::with_capacity(payload.len() + 2);
        frame::encode(Opcode::Pong, payload, &mut bytes);
        self.enqueue_frame(context, out, slot, &bytes.into());
        debug_assert!(
            self.connections[slot].control_frames.unsent_pongs() > 0,
            "until the queue is sent"
        );
    }

    /// Call it when no pong waits to be sent any longer.
    pub(super) fn answer_waiting_ping(&mut self, context: &Context, out: &mut Outbox, slot: Slot) {
        let connection = &mut self.connections[slot];
        connection.control_frames.clear_unsent_pongs();
        let extras = connection.extras.as_mut();
        if let Some(payload) = extras.and_then(|extras| extras.ping_waiting.take()) {
            self.enqueue_pong(context, out, slot, &payload);
        }
        debug_assert!(
            self.connections[slot]
                .extras
                .as_ref()
                .is_none_or(|extras| extras.ping_waiting.is_none()),
            "no ping waits"
        );
    }

    /// A WebSocket pong counts as activity (docs/PROTOCOL.md rule 14).
    pub(in crate::shard) fn on_pong_frame(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
    ) {
        let Some(NotedInput { connection, ping_sent_after }) = self.note_inbound(context, key)
        else {
            return;
        };
        connection.speaks_control_frames = true;
        let is_within_rate = connection.control_frames.count();
        self.metrics.count_check(Refused::ControlFrameRate);
        if !is_within_rate || ping_sent_after.is_some() || out.is_traced() {
            self.note_answering_pong(context, out, key, is_within_rate, ping_sent_after);
        }
    }

    /// The rare part of `on_pong_frame`. A function of its own, so that the usual path (a pong that no ping of the
    /// server caused) saves no registers.
    #[inline(never)]
    fn note_answering_pong(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        is_within_rate: bool,
        ping_sent_after: Option<u32>,
    ) {
        debug_assert!(self.get(key).is_some(), "a connection whose input was noted");
        let socket_id = self.connections[key.slot].socket_id;
        out.trace(|| Trace::ControlFrame(socket_id));
        if !is_within_rate {
            self.note_control_frame_rate(context, out, key.slot);
        }
        if let Some(second) = ping_sent_after {
            self.note_pong(context, key.slot, second);
        }
    }

    /// Returns whether the frame is within the rate. `None`: the connection is closing or gone.
    fn note_ping_frame(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
    ) -> Option<bool> {
        let NotedInput { connection, .. } = self.note_inbound(context, key)?;
        connection.speaks_control_frames = true;
        let is_within_rate = connection.control_frames.count();
        let socket_id = connection.socket_id;
        debug_assert_eq!(
            connection.last_inbound_seconds, context.now_seconds,
            "the count is that of this second"
        );
        out.trace(|| Trace::ControlFrame(socket_id));
        self.metrics.count_check(Refused::ControlFrameRate);
        if !is_within_rate {
            self.note_control_frame_rate(context, out, key.slot);
        }
        Some(is_within_rate)
    }

    #[cold]
    fn note_control_frame_rate(&mut self, context: &Context, out: &mut Outbox, slot: Slot) {
        debug_assert!(!self.connections[slot].is_closing, "its input counts no longer");
        let most = Detail::Number(limits::CONTROL_FRAMES_PER_SECOND_MAX.into());
        self.note_refusal(context, out, slot, Cause::ControlFrameRate, &[most]);
    }

    /// Fixed windows that start with their first message (docs/PROTOCOL.md rule 105).
    pub(super) fn is_within_rate(&mut self, context: &Context, slot: Slot, app: AppIndex) -> bool {
        let Some(limit) = context.app(app).rate_limit else { return true };
        self.metrics.count_check(Refused::MessageRate);
        let now = context.now_seconds;
        let connection = &mut self.connections[slot];
        if now.saturating_sub(connection.rate_window_seconds) >= limit.decay_seconds
            || connection.rate_count == 0
        {
            connection.rate_window_seconds = now;
            connection.rate_count = 0;
        }
        debug_assert!(
            now - connection.rate_window_seconds < limit.decay_seconds.max(1),
            "the window that counts is not over"
        );
        connection.rate_count = connection.rate_count.saturating_add(1);
        debug_assert!(connection.rate_window_seconds <= now, "a window that has begun");
        connection.rate_count <= limit.attempts_max
    }

    /// Answers a message over the rate. The log and the client get one line a window, so that the errors are not a
    /// flood of their own; but every subscription is answered, because its client waits for that.
    pub(super) fn refuse_over_rate(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        text: &[u8],
    ) {
        let Some(limit) = self.app_of(context, slot).rate_limit else { return };
        let rate = [
            Detail::Counted(limit.attempts_max.into(), "message"),
            Detail::Number(limit.decay_seconds.into()),
        ];
        if limit.terminate_on_limit {
            let cause = Cause::MessageRateClosed;
            self.deny(context, out, slot, &Denial::new(error_code::RATE_LIMITED, cause, rate));
            let why = ConnectionEnd::Refused(cause.counter());
            return self.close(context, out, slot, error_code::RATE_TERMINATED, why);
        }
        let denial = Denial::new(error_code::RATE_LIMITED, Cause::MessageRate, rate);
        let connection = &mut self.connections[slot];
        debug_assert!(
            connection.rate_count > limit.attempts_max,
            "`is_within_rate` has counted it"
        );
        // Not the count, because a reload may lower the limit below it.
        let window = connection.rate_window_seconds;
        let error_window = &mut connection.extras.get_or_insert_default().message_error_window;
        let is_first = error_window.replace(window) != Some(window);
        let mut validator = self.validator.take().unwrap_or_default();
        match inbound::parse(text, &mut validator) {
            Ok(Inbound::Subscribe(subscribe)) if is_first => {
                self.deny_subscription(context, out, slot, &subscribe.channel, &denial);
            }
            _ if is_first => self.deny(context, out, slot, &denial),
            Ok(Inbound::Subscribe(subscribe)) => {
                self.count_refusal(out, denial.cause);
                let line =
                    context.settings.verbose_errors.then(|| denial.cause.line(&denial.values));
                let (channel, error) = (&subscribe.channel, denial.error);
                self.answer_subscription(context, out, slot, channel, error, line.as_deref());
            }
            _ => self.count_refusal(out, denial.cause),
        }
        self.validator = Some(validator);
        debug_assert!(self.validator.is_some(), "one message is read at a time");
    }
}
