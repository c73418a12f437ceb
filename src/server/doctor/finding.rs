//! What `check` and `doctor` find: facts, warnings, problems, and clocks of other machines.
//!
//! Plain values; the probes of `doctor/` make them, `check.rs` and `diagnosis.rs` show them. A finding says what is so,
//! and a `Diagnosis` also names the command that shows or changes it. Does not know what was examined: `what` is a word
//! of the report, by which `diagnosis.rs` finds the command.
//! Limit: `STEP_TIME` for each step of a probe. Cost: a few short texts for each finding, and one read of the clock for
//! a `RemoteClock`.

use std::time::Duration;

use crate::worker::time::unix_seconds;

/// The time for one step of a probe (connect, read). A lost SYN is sent again after 1 s, so there is time for two
/// attempts, and for two steps within `PROBE_TIME`.
pub(super) const STEP_TIME: Duration = Duration::from_secs(3);

/// Ordered from good to bad, so that the verdict of a report is the maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::server) enum Verdict {
    Good,
    /// It could not be examined, which is no fault.
    Note,
    Warning,
    Problem,
}

#[derive(Debug)]
pub(in crate::server) struct Finding {
    pub(in crate::server) verdict: Verdict,
    pub(in crate::server) what: &'static str,
    pub(in crate::server) text: String,
}

impl Finding {
    pub(in crate::server) fn new(
        verdict: Verdict,
        what: &'static str,
        text: impl Into<String>,
    ) -> Self {
        Self { verdict, what, text: text.into() }
    }
}

#[derive(Debug)]
pub(in crate::server) struct Diagnosis {
    pub(in crate::server) verdict: Verdict,
    pub(in crate::server) what: &'static str,
    pub(in crate::server) reason: String,
    pub(in crate::server) command: String,
    /// Connections that this allows, if it limits them.
    pub(in crate::server) connections: Option<u64>,
}

impl Diagnosis {
    pub(super) fn new(
        verdict: Verdict,
        what: &'static str,
        reason: impl Into<String>,
        command: impl Into<String>,
    ) -> Self {
        let (reason, command) = (reason.into(), command.into());
        Self { verdict, what, reason, command, connections: None }
    }

    pub(super) fn with_connections(self, connections: u64) -> Self {
        Self { connections: Some(connections), ..self }
    }
}

/// Another machine's clock in seconds since 1970, with ours at the moment at which the answer was read.
pub(super) struct RemoteClock {
    pub(super) place: String,
    pub(super) seconds: u64,
    pub(super) own_seconds: u64,
}

impl RemoteClock {
    pub(super) fn new(place: &str, seconds: u64) -> Self {
        Self { place: place.to_owned(), seconds, own_seconds: unix_seconds() }
    }

    pub(super) fn difference_seconds(&self) -> u64 {
        self.seconds.abs_diff(self.own_seconds)
    }
}
