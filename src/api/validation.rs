//! 422 answers in Laravel's words: `{"field":["The field field is required."]}` (PROTOCOL.md rule 62).

use crate::http1::response::Response;
use crate::pusher::json;

/// Collects what is wrong with a body, in the order in which it is found.
#[derive(Default)]
pub(super) struct Problems {
    list: Vec<(String, String)>,
}

impl Problems {
    pub(super) fn required(&mut self, field: &str) {
        self.add(field, &format!("The {} field is required.", shown(field)));
    }

    pub(super) fn not_a_string(&mut self, field: &str) {
        self.add(field, &format!("The {} field must be a string.", shown(field)));
    }

    pub(super) fn not_an_array(&mut self, field: &str) {
        self.add(field, &format!("The {} field must be an array.", shown(field)));
    }

    pub(super) fn required_without(&mut self, field: &str, other: &str) {
        let text = format!("The {} field is required when {other} is not present.", shown(field));
        self.add(field, &text);
    }

    pub(super) fn too_many(&mut self, field: &str, most: u32) {
        self.add(
            field,
            &format!("The {} field must not have more than {most} items.", shown(field)),
        );
    }

    pub(super) fn not_a_channel(&mut self, field: &str) {
        self.add(field, &format!("The {} field must be a channel name.", shown(field)));
    }

    pub(super) fn too_long(&mut self, field: &str, most: u32) {
        let text =
            format!("The {} field must not be greater than {most} characters.", shown(field));
        self.add(field, &text);
    }

    pub(super) fn not_pushers(&mut self, field: &str) {
        let text = format!(
            "The {} field must only contain letters, numbers and _-=@,.; characters.",
            shown(field)
        );
        self.add(field, &text);
    }

    fn add(&mut self, field: &str, text: &str) {
        self.list.push((field.to_owned(), text.to_owned()));
    }

    /// The answer, if anything is wrong.
    pub(super) fn into_result(self) -> Result<(), Response> {
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
        Err(Response::json(422, body))
    }
}

/// Laravel shows `socket_id` as `socket id`.
fn shown(field: &str) -> String {
    field.replace('_', " ")
}
