//! Parameters of a query, and what is wrong with them.
//!
//! Plain values. Input: the query of a request. Output: values, or a sentence about a wrong one. Does not know which
//! path takes which parameter.
//! Limit: `FILTER_BYTES_MAX` for the text of a filter; the head of a request bounds the others. Cost: a few allocations
//! for each parameter; a look-up is linear in their number.

use std::borrow::Cow;

use crate::http1::query::parse_query;
use crate::pusher::socket_id::SocketId;
use crate::text::shown;

pub(super) const FILTER_BYTES_MAX: usize = 200;

/// # Errors
/// A sentence about a text that is no socket id.
pub(in crate::server::admin) fn parse_socket_id(text: &str) -> Result<SocketId, String> {
    let shown_text =
        || format!("socket_id is {}, but takes two numbers such as 1234.5678", shown(text));
    SocketId::parse(text).ok_or_else(shown_text)
}

/// Names and values are decoded; a name that is given twice counts once, the first time.
pub(in crate::server::admin) struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    pub(in crate::server::admin) fn of(query: &'a str) -> Self {
        Self(parse_query(query))
    }

    /// `None` also if the value is empty, because a form sends every field.
    pub(in crate::server::admin) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    pub(super) fn number(&self, name: &str, otherwise: usize) -> Result<usize, String> {
        match self.get(name) {
            None => Ok(otherwise),
            Some(text) => text.parse().map_err(|_| {
                format!("{name} is {}, but takes a number such as {otherwise}", shown(text))
            }),
        }
    }

    /// Rows are shown whose names contain this text; an empty text shows all. Workers compare it with each name, so its
    /// length is bounded.
    pub(super) fn filter(&self) -> Result<Box<str>, String> {
        let text = self.get("filter").unwrap_or_default();
        if text.len() > FILTER_BYTES_MAX {
            let length = text.len();
            return Err(format!("filter has {length} bytes, and may have {FILTER_BYTES_MAX}"));
        }
        Ok(text.into())
    }
}
