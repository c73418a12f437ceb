//! What is left of an app's quota of events, for the headers of the answer.
//!
//! `quota.rs` takes from the quota and makes a `Quota`; this file only writes it. It has a file of its own because
//! `Plan` has one as well, and `quota.rs` uses the types of `Plan`.

use crate::http1::response::Response;

/// The remaining events of this second, for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub(super) limit: u32,
    pub(super) remaining: u32,
}

impl Quota {
    /// Tells a client how fast it may go on.
    #[must_use]
    pub fn add_to(self, response: Response) -> Response {
        response
            .with_header("X-RateLimit-Limit", self.limit.to_string())
            .with_header("X-RateLimit-Remaining", self.remaining.to_string())
    }
}
