//! 422 answers in Laravel's words: `{"field":["The field field is required."]}` (docs/PROTOCOL.md rule 62).
//!
//! Owns the sentences. `events.rs` finds the problems and collects them here, so that one answer names all of them.
//! With verbose errors an answer also shows the value and the limit with its option. Does not decide what a problem is.
//!
//! Limits: `LISTED_PROBLEMS_MAX` problems and `VALUE_BYTES_MAX` bytes of each value in an answer, because both come
//! from the request. Cost: nothing for a valid request; two allocations for each problem in the list, and a few for the
//! first.

use std::borrow::Cow;
use std::fmt;

use super::{Denied, RequestContext};
use crate::app::AppIndex;
use crate::cause::{Cause, Detail};
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::limits::CHANNEL_NAME_BYTES_MAX;
use crate::pusher::json;
use crate::text::shown_up_to;

/// Problems listed in one answer. Without a limit, a body of tiny invalid items would get an answer of a hundred times
/// its size.
const LISTED_PROBLEMS_MAX: usize = 100;

/// Collects what is wrong with a body, in the order in which it is found. Names of fields are formatted only when
/// something is wrong with them, so a valid request pays nothing.
#[derive(Default)]
pub(super) struct Problems {
    list: Vec<(String, String)>,
    /// The first problem as the log shows it, with the wrong value and the option that sets the limit.
    first_problem: String,
}

/// Name of a field, such as `batch.3.name`, not formatted yet.
pub(super) type FieldPath<'a> = fmt::Arguments<'a>;

/// Bytes shown of a wrong value, so that the line has room for the rule.
const VALUE_BYTES_MAX: usize = 64;

impl Problems {
    pub(super) fn required(&mut self, field: FieldPath<'_>) {
        let text = |shown: &str| format!("The {shown} field is required.");
        self.add(field, text, || format!("{field} is missing or empty"));
    }

    pub(super) fn not_a_string(&mut self, field: FieldPath<'_>, span: &str) {
        let text = |shown: &str| format!("The {shown} field must be a string.");
        self.add(field, text, || format!("{field} is {}, not a string", Detail::Span(span)));
    }

    pub(super) fn not_an_array(&mut self, field: FieldPath<'_>, span: &str) {
        let text = |shown: &str| format!("The {shown} field must be an array.");
        self.add(field, text, || format!("{field} is {}, not an array", Detail::Span(span)));
    }

    pub(super) fn required_without(&mut self, field: FieldPath<'_>, other: &str) {
        let text =
            |shown: &str| format!("The {shown} field is required when {other} is not present.");
        self.add(field, text, || format!("{field} is missing or empty: name a channel"));
    }

    pub(super) fn too_many_events(&mut self, count: usize, most: u32) {
        self.too_many(format_args!("batch"), most, || {
            format!("the batch has {count} events: RINGVERB_BATCH_EVENTS_MAX is {most}")
        });
    }

    pub(super) fn too_many_channels(&mut self, count: usize, most: u32) {
        self.too_many(format_args!("channels"), most, || {
            format!("the event has {count} channels: RINGVERB_EVENT_CHANNELS_MAX is {most}")
        });
    }

    fn too_many(&mut self, field: FieldPath<'_>, most: u32, log_text: impl FnOnce() -> String) {
        let text = |shown: &str| format!("The {shown} field must not have more than {most} items.");
        self.add(field, text, log_text);
    }

    pub(super) fn not_a_channel(&mut self, field: FieldPath<'_>, name: &str) {
        let text = |shown: &str| format!("The {shown} field must be a channel name.");
        self.add(field, text, || {
            let bytes = name.len();
            format!(
                "{}has {bytes} bytes: 1 to {CHANNEL_NAME_BYTES_MAX} are possible",
                problem_start(field, "channel name", name)
            )
        });
    }

    pub(super) fn not_a_socket_id(&mut self, field: FieldPath<'_>, span: &str) {
        let text = |shown: &str| format!("The {shown} field format is invalid.");
        self.add(field, text, || {
            format!(
                "{}is not two numbers joined by a dot: send Echo.socketId() only after the connection is established",
                problem_start(field, "socket_id", &decode_field(span))
            )
        });
    }

    pub(super) fn event_name_too_long(&mut self, field: FieldPath<'_>, span: &str, most: u32) {
        self.too_long(field, most, || {
            let name = decode_field(span);
            format!(
                "{}has {} characters: RINGVERB_EVENT_NAME_LENGTH_MAX is {most}",
                problem_start(field, "event name", &name),
                name.chars().count()
            )
        });
    }

    pub(super) fn channel_too_long(&mut self, field: FieldPath<'_>, name: &str, most: u32) {
        self.too_long(field, most, || {
            format!(
                "{}has {} bytes: RINGVERB_CHANNEL_NAME_LENGTH_MAX is {most}",
                problem_start(field, "channel name", name),
                name.len()
            )
        });
    }

    fn too_long(&mut self, field: FieldPath<'_>, most: u32, log_text: impl FnOnce() -> String) {
        let text =
            |shown: &str| format!("The {shown} field must not be greater than {most} characters.");
        self.add(field, text, log_text);
    }

    pub(super) fn not_a_pusher_name(&mut self, field: FieldPath<'_>, name: &str) {
        let text = |shown: &str| {
            format!("The {shown} field must only contain letters, numbers and _-=@,.; characters.")
        };
        self.add(field, text, || {
            format!(
                "{}has other characters than letters, numbers and _-=@,.; (RINGVERB_CHANNEL_NAMES=any accepts them)",
                problem_start(field, "channel name", name)
            )
        });
    }

    pub(super) fn channel_with_colon(&mut self, field: FieldPath<'_>, name: &str) {
        let text = |shown: &str| {
            format!(
                "The {shown} field must not contain a colon: the name of a private or presence channel is signed, and \
                 colons separate the parts of the signed text. Choose a name without one."
            )
        };
        self.add(field, text, || {
            format!(
                "{}has a colon, which makes its signature ambiguous: choose a name without one",
                problem_start(field, "channel name", name)
            )
        });
    }

    fn add(
        &mut self,
        field: FieldPath<'_>,
        text: impl FnOnce(&str) -> String,
        log_text: impl FnOnce() -> String,
    ) {
        if self.list.is_empty() {
            self.first_problem = log_text();
        }
        if self.list.len() < LISTED_PROBLEMS_MAX {
            let field = field.to_string();
            // Laravel shows `socket_id` as `socket id`.
            let text = text(&field.replace('_', " "));
            self.list.push((field, text));
        }
    }

    /// Refuses the request with all problems, if there are any.
    pub(super) fn into_result(
        self,
        app: AppIndex,
        request: &Request,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Denied> {
        if self.list.is_empty() {
            return Ok(());
        }
        let mut body = vec![b'{'];
        for (index, (field, text)) in self.list.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            json::write_string(field, &mut body);
            body.extend_from_slice(b":[");
            json::write_string(text, &mut body);
            body.push(b']');
        }
        body.push(b'}');
        let response = Response::json(422, body);
        let request_line = Detail::Request(request.method(), request.path());
        let values = [request_line, Detail::Own(&self.first_problem)];
        Err(context.deny(response, Some(app), Cause::InvalidFields, &values))
    }
}

/// The start of a problem's text: which event of a batch it is, `what` the value is, and the value.
fn problem_start(field: FieldPath<'_>, what: &str, value: &str) -> String {
    let field = field.to_string();
    let item = field.rsplit_once('.').map_or("", |(item, _)| item);
    let item = if item.starts_with("batch.") { format!("{item}: ") } else { String::new() };
    format!("{item}{what} {} ", shown_up_to(value, VALUE_BYTES_MAX))
}

fn decode_field(span: &str) -> Cow<'_, str> {
    json::string(span).unwrap_or(Cow::Borrowed(span))
}
