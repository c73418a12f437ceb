//! 422 answers in Laravel's words: `{"field":["The field field is required."]}` (PROTOCOL.md rule 62).

use std::fmt;

use super::{Context, Denied};
use crate::app::AppIndex;
use crate::cause::{Cause, Detail};
use crate::http1::response::Response;
use crate::pusher::json;

/// Problems listed in one answer. Without a limit, a body of tiny invalid items would get an answer of a hundred times
/// its size.
const LISTED_MAX: usize = 100;

/// Collects what is wrong with a body, in the order in which it is found. Names of fields are formatted only when
/// something is wrong with them.
#[derive(Default)]
pub(super) struct Problems {
    list: Vec<(String, String)>,
}

/// Name of a field, such as `batch.3.name`.
pub(super) type Field<'a> = fmt::Arguments<'a>;

impl Problems {
    pub(super) fn required(&mut self, field: Field<'_>) {
        self.add(field, |shown| format!("The {shown} field is required."));
    }

    pub(super) fn not_a_string(&mut self, field: Field<'_>) {
        self.add(field, |shown| format!("The {shown} field must be a string."));
    }

    pub(super) fn not_an_array(&mut self, field: Field<'_>) {
        self.add(field, |shown| format!("The {shown} field must be an array."));
    }

    pub(super) fn required_without(&mut self, field: Field<'_>, other: &str) {
        self.add(field, |shown| {
            format!("The {shown} field is required when {other} is not present.")
        });
    }

    pub(super) fn too_many(&mut self, field: Field<'_>, most: u32) {
        self.add(field, |shown| format!("The {shown} field must not have more than {most} items."));
    }

    pub(super) fn not_a_channel(&mut self, field: Field<'_>) {
        self.add(field, |shown| format!("The {shown} field must be a channel name."));
    }

    pub(super) fn bad_format(&mut self, field: Field<'_>) {
        self.add(field, |shown| format!("The {shown} field format is invalid."));
    }

    pub(super) fn too_long(&mut self, field: Field<'_>, most: u32) {
        self.add(field, |shown| {
            format!("The {shown} field must not be greater than {most} characters.")
        });
    }

    pub(super) fn not_pushers(&mut self, field: Field<'_>) {
        self.add(field, |shown| {
            format!("The {shown} field must only contain letters, numbers and _-=@,.; characters.")
        });
    }

    pub(super) fn colon(&mut self, field: Field<'_>) {
        self.add(field, |shown| {
            format!(
                "The {shown} field must not contain a colon: the name of a private or presence channel is signed, and \
                 colons separate the parts of the signed text. Choose a name without one."
            )
        });
    }

    fn add(&mut self, field: Field<'_>, text: impl FnOnce(&str) -> String) {
        if self.list.len() < LISTED_MAX {
            let field = field.to_string();
            // Laravel shows `socket_id` as `socket id`.
            let text = text(&field.replace('_', " "));
            self.list.push((field, text));
        }
    }

    /// The answer, if anything is wrong.
    pub(super) fn into_result(
        self,
        app: AppIndex,
        context: &mut Context<'_>,
    ) -> Result<(), Denied> {
        let Some((_, first)) = self.list.first() else { return Ok(()) };
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
        Err(context.deny(response, Some(app), Cause::InvalidFields, &[Detail::Span(first)]))
    }
}
