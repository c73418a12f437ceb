//! What is left of an app's quota of events, for the headers of the answer.
//!
//! Plain values. `quota.rs` charges the quota and makes a `Quota`; this file only writes it, and does not know how it
//! is counted. It has a file of its own because `Plan` has one as well, and `quota.rs` uses the types of `Plan`. No
//! limit: two numbers. Cost: two allocations for each answer of an app that has a quota.

use crate::http1::response::Response;

/// The quota of an app in one second, and what is left of it after a request. Both count events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub(super) limit: u32,
    pub(super) remaining: u32,
}

impl Quota {
    /// Adds the two headers by which a client can adapt its rate.
    #[must_use]
    pub fn add_to(self, response: Response) -> Response {
        response
            .with_header("X-RateLimit-Limit", self.limit.to_string())
            .with_header("X-RateLimit-Remaining", self.remaining.to_string())
    }
}
