//! What a refusal is about: its request and app, as far as they are known.
//!
//! A value for `refuse.rs`, in a file of its own because `answer.rs`, `upgrade.rs` and `session.rs` make it and
//! `refuse.rs` uses types of theirs.

use crate::app::AppIndex;
use crate::http1::request::Request;

/// What a refusal knows of its request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About<'a> {
    /// The request, which may name the client behind a proxy.
    pub(super) request: Option<&'a Request>,
    pub(super) app: Option<AppIndex>,
}

impl<'a> About<'a> {
    pub(super) fn request(request: &'a Request) -> Self {
        Self { request: Some(request), app: None }
    }
}
