//! Refusals to open connections, and closes by the server: the answer, the count, the log line. PURE.
//!
//! Owns nothing but the count of refusals that `on_message` compares. Does not decide what is refused: its callers do.
//! The client gets Reverb's answer. In development mode the line follows Reverb's text. `Outbox::lines` limits the
//! lines of the log, except with `--debug`. A line is formatted only for the log or in development mode.
//!
//! Limits: `NOTES_MAX` and `REFUSALS_MAX` of the outbox, and the lines of `LineBudget`. Cost: one count and one frame;
//! a line, if it is wanted, is one allocation.

use crate::shard::context::Context;
use crate::slot::Slot;
use std::borrow::Cow;

use super::Local;
use super::connection::ConnectionKey;
use crate::cause::{Cause, DETAILS_MAX, Detail};
use crate::metrics::ConnectionEnd;
use crate::pusher::error_code::{self, ErrorCode};
use crate::pusher::inbound::{Auth, MalformedMessage, MessageFault};
use crate::pusher::outbound;
use crate::pusher::signature::AuthError;
use crate::shard::outbox::{Outbox, RefusalNote};
use crate::text::two_sentences;
use crate::ws::frame;
use crate::ws::violation::Violation;

/// A request that fails: the error for the client, and the cause and values of the line for the log.
#[derive(Debug)]
pub(super) struct Denial<'a> {
    pub(super) error: ErrorCode,
    pub(super) cause: Cause,
    pub(super) values: [Detail<'a>; DETAILS_MAX],
}

impl<'a> Denial<'a> {
    pub(super) fn new<const N: usize>(
        error: ErrorCode,
        cause: Cause,
        given: [Detail<'a>; N],
    ) -> Self {
        debug_assert!(N <= DETAILS_MAX, "each value has a gap in the line");
        let mut values = [Detail::Nothing; DETAILS_MAX];
        for (value, given) in values.iter_mut().zip(given) {
            *value = given;
        }
        Self { error, cause, values }
    }

    /// `what` was to be authorized: a subscription, or the sign-in.
    pub(super) fn bad_auth(what: Detail<'a>, given: &'a Option<Auth>, error: AuthError) -> Self {
        let auth = given.as_ref().and_then(Auth::text).unwrap_or_default();
        let (cause, value) = match error {
            AuthError::Malformed if let Some(Auth::Other(kind)) = given => {
                (Cause::AuthType, Detail::Own(kind))
            }
            AuthError::Malformed if auth.is_empty() => (Cause::AuthMissing, Detail::Nothing),
            // Not shown: it may be a signature.
            AuthError::Malformed => (Cause::AuthForm, Detail::count(auth.len())),
            AuthError::WrongKey => {
                (Cause::AuthKey, Detail::text(auth.split(':').next().unwrap_or_default()))
            }
            AuthError::Mismatch => (Cause::AuthMismatch, Detail::Nothing),
            AuthError::DataNotSigned => (Cause::AuthDataNotSigned, Detail::Nothing),
        };
        Self::new(error_code::UNAUTHORIZED, cause, [what, value])
    }
}

/// The reason of a close frame. The line of the log is too long for its 123 bytes, so a short explanation follows.
pub(super) fn close_reason<'a>(reason: &'a str, explanation: Option<&str>) -> Cow<'a, str> {
    let joined = |explanation| Cow::Owned(two_sentences(reason, explanation));
    explanation.map_or(Cow::Borrowed(reason), joined)
}

impl Local {
    /// Counts a refusal or a close, and queues its line for the log. Returns the line in development mode, unless the
    /// answer says the same already.
    pub(in crate::shard) fn note_refusal(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        cause: Cause,
        values: &[Detail<'_>],
    ) -> Option<String> {
        self.count_refusal(out, cause);
        let verbose_errors = context.settings.verbose_errors;
        let noted = out.lines.note(cause, values, verbose_errors);
        self.metrics.lines_left_out.add(u64::from(noted.left_out.is_none()));
        let line = noted.line?;
        let connection = self.connections.get(slot)?;
        let (socket_id, generation) = (connection.socket_id, connection.generation);
        let app = connection.is_counted().then_some(connection.app);
        if let Some(left_out) = noted.left_out {
            let (line, connection) = (line.clone(), ConnectionKey { slot, generation });
            let channel = noted.channel;
            let refusal =
                RefusalNote { cause, line, left_out, channel, connection, app, socket_id };
            out.push_refusal_note(refusal);
        }
        (verbose_errors && !cause.is_in_answer()).then_some(line)
    }

    /// Without a line: for further refusals of a window whose first one has a line.
    pub(super) fn count_refusal(&mut self, out: &mut Outbox, cause: Cause) {
        self.refusals = self.refusals.wrapping_add(1);
        out.refused.count(cause.counter());
    }

    /// For a peer that broke the WebSocket protocol or sent a message that is too large.
    pub(in crate::shard) fn close_violating(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        violation: Violation,
    ) {
        let (code, reason) = (violation.close_code(), violation.reason());
        debug_assert!((1_002..=1_009).contains(&code), "a code of RFC 6455 for what a peer did");
        let explanation = match violation {
            Violation::MessageTooBig => {
                let most = self.message_size_max(context, slot);
                self.note_refusal(
                    context,
                    out,
                    slot,
                    Cause::MessageTooLarge,
                    &[Detail::count(most)],
                )
                .map(|_| format!("message larger than {most} bytes (REVERB_APP_MAX_MESSAGE_SIZE)"))
            }
            _ => {
                let values = [Detail::Number(code.into()), Detail::Own(reason)];
                self.note_refusal(context, out, slot, Cause::Violation, &values)
                    .map(|_| "is a proxy or a hand-made client in between?".to_owned())
            }
        };
        let counted = match violation {
            Violation::MessageTooBig => Cause::MessageTooLarge.counter(),
            _ => Cause::Violation.counter(),
        };
        let reason = close_reason(reason, explanation.as_deref());
        self.close_frame(context, out, slot, (code, &reason), ConnectionEnd::Refused(counted));
        debug_assert!(
            self.connections.get(slot).is_none_or(|found| found.is_closing),
            "its close frame waits"
        );
    }

    /// Sends `pusher:error`; the connection stays.
    pub(super) fn deny(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        denial: &Denial<'_>,
    ) {
        let line = self.note_refusal(context, out, slot, denial.cause, &denial.values);
        self.send_error(context, out, slot, denial.error, line.as_deref());
        debug_assert!(
            !self.connections[slot].send_queue.is_empty() || self.connections[slot].has_overflowed,
            "the client is answered, or is too slow to be"
        );
    }

    /// Sends `pusher:error` first, because it has room for the whole text and the reason of a close frame has not.
    pub(super) fn deny_and_close(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        denial: &Denial<'_>,
    ) {
        self.deny(context, out, slot, denial);
        self.close(
            context,
            out,
            slot,
            denial.error,
            ConnectionEnd::Refused(denial.cause.counter()),
        );
        debug_assert!(self.connections[slot].is_closing, "its close frame waits");
    }

    /// Also notes the refusal. See `answer_subscription` for what is sent.
    pub(super) fn deny_subscription(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        channel: &str,
        denial: &Denial<'_>,
    ) {
        debug_assert!(!self.connections[slot].is_closing, "its subscriptions have ended");
        let line = self.note_refusal(context, out, slot, denial.cause, &denial.values);
        self.answer_subscription(context, out, slot, channel, denial.error, line.as_deref());
    }

    /// Sends `pusher:error`, as Reverb does, and `pusher:subscription_error` on the channel if the app is configured so
    /// (docs/PROTOCOL.md rule 24). `line`: in development mode.
    pub(super) fn answer_subscription(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        channel: &str,
        error: ErrorCode,
        line: Option<&str>,
    ) {
        debug_assert!(!self.connections[slot].is_closing, "a close frame is the last frame");
        self.send_error(context, out, slot, error, line);
        if self.app_of(context, slot).subscription_errors {
            let frame = frame::write_text_frame(&mut self.text_buffer, |text| {
                outbound::subscription_error(channel, error, line, text)
            })
            .into();
            self.enqueue(context, out, slot, &frame);
        }
    }

    /// Drops a message without an answer, as Reverb does. In development mode the client gets an error.
    pub(super) fn drop_silently(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        denial: &Denial<'_>,
    ) {
        debug_assert!(!self.connections[slot].is_closing, "its input counts no longer");
        if let Some(line) = self.note_refusal(context, out, slot, denial.cause, &denial.values) {
            self.send_error(context, out, slot, denial.error, Some(&line));
        }
    }

    pub(super) fn deny_malformed(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        malformed: &MalformedMessage,
    ) {
        debug_assert!(!self.connections[slot].is_closing, "its input counts no longer");
        let cause = match malformed.fault {
            MessageFault::NotJson => Cause::NotJson,
            MessageFault::NoEvent => Cause::NoEvent,
            MessageFault::UnknownEvent => Cause::UnknownEvent,
            MessageFault::EventWithoutChannel => Cause::EventWithoutChannel,
            MessageFault::SubscribeData => Cause::SubscribeData,
            MessageFault::SubscribeChannel => Cause::SubscribeChannel,
            MessageFault::ChannelData => Cause::ChannelDataText,
            MessageFault::SignInData => Cause::SignInData,
        };
        let value = match malformed.fault {
            // Names of this crate, and a piece of JSON.
            MessageFault::NoEvent
            | MessageFault::SubscribeData
            | MessageFault::SubscribeChannel => Detail::Span(&malformed.value),
            MessageFault::ChannelData => Detail::Own(&malformed.value),
            _ => Detail::text(&*malformed.value),
        };
        self.deny(context, out, slot, &Denial::new(error_code::INVALID_MESSAGE, cause, [value]));
    }

    /// `why`: the line, in development mode.
    pub(super) fn send_error(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        error: ErrorCode,
        why: Option<&str>,
    ) {
        debug_assert!(!self.connections[slot].is_closing, "a close frame is the last frame");
        let data_is_object = self.app_of(context, slot).error_data_is_object;
        let frame = frame::write_text_frame(&mut self.text_buffer, |text| {
            outbound::error(error, why, data_is_object, text)
        })
        .into();
        self.enqueue(context, out, slot, &frame);
    }
}
