//! Objects and lists of JSON for the admin API. Text is escaped; nothing else is known of it. No limits: the callers
//! bound what they write.

use std::fmt::Display;

use crate::pusher::json::write_string;

/// An object under construction.
#[derive(Debug)]
pub(super) struct JsonObject(Vec<u8>);

impl JsonObject {
    pub(super) fn new() -> Self {
        Self(b"{".to_vec())
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        write_string(name, &mut self.0);
        self.0.push(b':');
    }

    pub(super) fn text(mut self, name: &str, text: &str) -> Self {
        self.name(name);
        write_string(text, &mut self.0);
        self
    }

    /// Leaves the member out if there is no text.
    pub(super) fn some_text(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    /// A number, `true` or `false`.
    pub(super) fn value(mut self, name: &str, value: impl Display) -> Self {
        self.name(name);
        self.0.extend_from_slice(value.to_string().as_bytes());
        self
    }

    /// Leaves the member out if there is no value.
    pub(super) fn some_value(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.value(name, value),
            None => self,
        }
    }

    /// JSON that is written already.
    pub(super) fn json(mut self, name: &str, json: &[u8]) -> Self {
        self.name(name);
        self.0.extend_from_slice(json);
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

/// A list of JSON values.
pub(super) fn list(values: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut out = b"[".to_vec();
    for value in values {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(&value);
    }
    out.push(b']');
    out
}

/// A list of texts.
pub(super) fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    list(texts.into_iter().map(|text| {
        let mut out = Vec::new();
        write_string(text, &mut out);
        out
    }))
}

/// A list of numbers.
pub(super) fn numbers(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    list(numbers.into_iter().map(|number| number.to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_lists_are_valid_and_text_is_escaped() {
        let object = JsonObject::new()
            .text("a\"", "b\n</script>")
            .value("n", 7)
            .value("is", true)
            .some_text("none", None)
            .some_value("also none", None::<u8>)
            .json("list", &texts(["x", "y"]))
            .json("numbers", &numbers([1, 2]))
            .json("empty", &list([]))
            .finish();
        let read: serde_json::Value = serde_json::from_slice(&object).unwrap();
        let expected = serde_json::json!({
            "a\"": "b\n</script>", "n": 7, "is": true, "list": ["x", "y"], "numbers": [1, 2], "empty": []
        });
        assert_eq!(read, expected);
        assert_eq!(JsonObject::new().finish(), b"{}");
    }
}
