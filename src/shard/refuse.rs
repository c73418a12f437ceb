//! Refusals to open connections, and closes by the server: the answer, the count, the log line. PURE.
//!
//! The client gets Reverb's answer. In development mode the line follows Reverb's text, and `--debug` shows it, too.
//! `Outbox::lines` limits the lines of the log. A line is formatted only for the log, in development mode, or with
//! `--debug`.

use std::borrow::Cow;

use super::connection::ConnectionKey;
use super::outbox::{RefusalNote, Trace};
use super::{Settings, Shard, frame};
use crate::cause::{Cause, DETAILS_MAX, Detail};
use crate::pusher::error_code::{self, ErrorCode};
use crate::pusher::inbound::{Malformed, MessageFault};
use crate::pusher::outbound;
use crate::pusher::signature::AuthError;
use crate::ws::violation::Violation;

/// Why a request of a client fails: the error for the client, and the line for the log.
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
        let mut values = [Detail::Nothing; DETAILS_MAX];
        for (value, given) in values.iter_mut().zip(given) {
            *value = given;
        }
        Self { error, cause, values }
    }

    /// An authorization that is not valid. `what` was to be authorized.
    pub(super) fn of_auth(what: Detail<'a>, auth: Option<&'a str>, error: AuthError) -> Self {
        let auth = auth.unwrap_or_default();
        let (cause, value) = match error {
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

/// The reason of a close frame, which has room for its first bytes only.
pub(super) fn with_line<'a>(reason: &'a str, line: Option<&str>) -> Cow<'a, str> {
    line.map_or(Cow::Borrowed(reason), |line| Cow::Owned(format!("{reason}: {line}")))
}

impl Shard {
    /// Counts a refusal or a close, and queues its line for the log. Returns the line in development mode.
    pub fn note_refusal(
        &mut self,
        slot: u32,
        cause: Cause,
        values: &[Detail<'_>],
    ) -> Option<String> {
        self.refusals = self.refusals.wrapping_add(1);
        self.outbox.refused.count(cause.counted());
        let Settings { talkative, debug, .. } = self.settings;
        let noted = self.outbox.lines.note(cause, values, talkative || debug);
        let line = noted.line?;
        let connection = self.connections.get(slot as usize)?;
        let (socket_id, generation) = (connection.socket_id, connection.generation);
        let app = connection.counted.then_some(connection.app);
        if let Some(left_out) = noted.left_out {
            let (line, connection) = (line.clone(), ConnectionKey { slot, generation });
            let refusal = RefusalNote { cause, line, left_out, connection, app, socket_id };
            self.outbox.refuse(refusal);
        }
        self.trace(|| Trace::Refused(socket_id, line.clone()));
        talkative.then_some(line)
    }

    /// Closes a connection whose peer broke the WebSocket protocol or sent a message that is too large.
    pub fn close_violating(&mut self, slot: u32, violation: Violation) {
        let (code, reason) = (violation.close_code(), violation.reason());
        let line = match violation {
            Violation::MessageTooBig => {
                let most = Detail::count(self.message_size_max(slot));
                self.note_refusal(slot, Cause::MessageTooLarge, &[most])
            }
            _ => {
                let values = [Detail::Number(code.into()), Detail::Own(reason)];
                self.note_refusal(slot, Cause::Violation, &values)
            }
        };
        self.close_frame(slot, code, &with_line(reason, line.as_deref()));
    }

    /// Answers with `pusher:error`; the connection stays.
    pub(super) fn deny(&mut self, slot: u32, denial: &Denial<'_>) {
        let line = self.note_refusal(slot, denial.cause, &denial.values);
        self.send_error(slot, denial.error, line.as_deref());
    }

    /// Answers with `pusher:error` and closes the connection.
    pub(super) fn deny_and_close(&mut self, slot: u32, denial: &Denial<'_>) {
        self.deny(slot, denial);
        self.close(slot, denial.error);
    }

    /// Answers a failed subscription, with `pusher:subscription_error` too if the app is configured so.
    pub(super) fn deny_subscription(&mut self, slot: u32, channel: &str, denial: &Denial<'_>) {
        let line = self.note_refusal(slot, denial.cause, &denial.values);
        self.send_error(slot, denial.error, line.as_deref());
        if self.app_of(slot).subscription_errors {
            self.text.clear();
            outbound::subscription_error(channel, denial.error, line.as_deref(), &mut self.text);
            let frame = frame::encode_text(&self.text).into();
            self.enqueue(slot, &frame);
        }
    }

    /// Drops a message without an answer, as Reverb does. In development mode the client gets an error.
    pub(super) fn drop_silently(&mut self, slot: u32, denial: &Denial<'_>) {
        if let Some(line) = self.note_refusal(slot, denial.cause, &denial.values) {
            self.send_error(slot, denial.error, Some(&line));
        }
    }

    pub(super) fn deny_malformed(&mut self, slot: u32, malformed: &Malformed) {
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
            _ => Detail::text(&*malformed.value),
        };
        self.deny(slot, &Denial::new(error_code::INVALID_MESSAGE, cause, [value]));
    }

    /// Enqueues `pusher:error`. `why`: the line, in development mode.
    pub(super) fn send_error(&mut self, slot: u32, error: ErrorCode, why: Option<&str>) {
        self.text.clear();
        let data_is_object = self.app_of(slot).error_data_is_object;
        outbound::error(error, why, data_is_object, &mut self.text);
        let frame = frame::encode_text(&self.text).into();
        self.enqueue(slot, &frame);
    }
}
