//! A SIGUSR2 that fails, or is ignored: the one place that reports it, to the log and to the supervisor.
//!
//! `systemctl reload` has returned long before, so its caller sees the failure in `systemctl status` only. The next
//! start that is complete clears the status (`supervision::notify_ready`). Owns no state. Does not decide what serves:
//! each sentence says which process does, and what to change. Limits: one line. Cost: one line of the log and one
//! datagram for a failure.

use crate::server::supervision::notify_status;

/// A stage has failed.
pub(super) fn report(sentence: &str) {
    tracing::error!(event = "replacement_failed", "SIGUSR2 failed: {sentence}");
    notify_status(&format!("SIGUSR2 failed: {sentence}"));
}

/// No stage has begun.
pub(in crate::server) fn report_ignored(why: &str) {
    tracing::warn!(event = "replacement_refused", "SIGUSR2 ignored: {why}");
    notify_status(&format!("SIGUSR2 ignored: {why}"));
}
