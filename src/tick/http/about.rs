//! What a refusal is about: its request and app, as far as they are known.
//!
//! Plain values for `refuse.rs`, in a file of its own because `answer.rs`, `upgrade.rs` and `session.rs` make it and
//! `refuse.rs` uses types of theirs. Does not own the request.

use crate::app::AppIndex;
use crate::http1::request::Request;

/// The request and the app of a refusal. Both are `None` for bytes that are no request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RefusalContext<'a> {
    /// The request, whose fields may name the client behind a proxy.
    pub(super) request: Option<&'a Request>,
    pub(super) app: Option<AppIndex>,
}

impl<'a> RefusalContext<'a> {
    pub(super) fn request(request: &'a Request) -> Self {
        Self { request: Some(request), app: None }
    }
}
