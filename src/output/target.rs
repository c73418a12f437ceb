//! Targets of log lines that have a budget of their own.

/// The `tracing` target of lines that peers can cause: shorter, and with a smaller budget.
pub(crate) const PEER: &str = "ringverb::peer";

/// The target of the access log, with a budget of its own.
pub(crate) const ACCESS: &str = "ringverb::access";
