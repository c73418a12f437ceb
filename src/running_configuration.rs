//! The configuration that is in use, as the main thread passes it to workers and to the admin listener. Plain values.
//!
//! Does not read files and does not check values: `server/change` makes new ones. A worker looks for the next one at
//! the beginning of each tick (`src/latest_value.rs`), applies every configuration in its order, and reports that, so
//! the main thread knows when all cores have one. Limit: `UNAPPLIED_MAX` configurations that some worker has not
//! applied, over which a change is refused and counted. A configuration is freed when no worker has it any longer; a
//! worker reports each once. Cost: two atomic loads a tick for each worker; one allocation and one message for each
//! worker and change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use crate::app::{Apps, Secret};
use crate::config::Config;
use crate::counters::{Counter, DepthGauge};
use crate::latest_value::{LatestValue, ValueLink};

/// The options that a reload may change. All others need a restart.
#[derive(Clone, Debug)]
pub(crate) struct RunningConfiguration {
    /// Counts the changes: that of the start is 1.
    pub number: u64,
    pub apps: Arc<Apps>,
    pub verbose_errors: bool,
    pub debug: bool,
    pub request_size_max: usize,
    pub handshake_timeout_seconds: u32,
    pub keepalive_timeout_seconds: u32,
    pub admin_token: Option<Secret>,
}

impl RunningConfiguration {
    /// `apps` are apart, because an app keeps its index when others come and go (`Apps::change_steps`).
    #[must_use]
    pub(crate) fn new(number: u64, apps: Arc<Apps>, config: &Config) -> Self {
        Self {
            number,
            apps,
            verbose_errors: config.verbose_errors,
            debug: config.debug,
            request_size_max: config.request_size_max,
            handshake_timeout_seconds: config.handshake_timeout_seconds,
            keepalive_timeout_seconds: config.keepalive_timeout_seconds,
            admin_token: config.admin.token.clone(),
        }
    }
}

/// A configuration for workers, and the next one if there is one.
pub(crate) type ConfigurationLink = ValueLink<SentConfiguration>;

/// Configurations that a worker which does not run may be behind. A change sends two.
pub(crate) const UNAPPLIED_MAX: u64 = 16;

/// Counts the configurations that some worker has not applied. The main thread adds, and the last worker that applies
/// one takes it off: also one that the main thread no longer waits for.
#[derive(Debug, Default)]
pub(crate) struct UnappliedConfigurations {
    pub waiting: DepthGauge,
    pub refused: Counter,
}

impl UnappliedConfigurations {
    /// One more is to be sent to so many workers. `None`: too many wait, so it must not be.
    #[must_use]
    pub(crate) fn try_add(self: &Arc<Self>, workers: usize) -> Option<MissingReports> {
        if self.waiting.depth() >= UNAPPLIED_MAX {
            self.refused.add(1);
            return None;
        }
        self.waiting.add(1);
        Some(MissingReports { workers: AtomicUsize::new(workers), unapplied: self.clone() })
    }
}

/// The workers that have not applied one configuration.
#[derive(Debug)]
pub(crate) struct MissingReports {
    workers: AtomicUsize,
    unapplied: Arc<UnappliedConfigurations>,
}

impl MissingReports {
    /// For the configuration of the start, which no worker reports.
    pub(crate) fn none(unapplied: &Arc<UnappliedConfigurations>) -> Self {
        Self { workers: AtomicUsize::new(0), unapplied: unapplied.clone() }
    }

    /// Relaxed, because nothing is read by the order of reports.
    fn note_report(&self) {
        let before = self.workers.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "each worker reports a configuration once");
        if before == 1 {
            self.unapplied.waiting.sub(1);
        }
    }
}

/// A configuration, and the receivers of the report that it is in use.
#[derive(Debug)]
pub(crate) struct SentConfiguration {
    pub configuration: Arc<RunningConfiguration>,
    /// Each worker sends its number when it has applied this configuration.
    pub applied: Sender<u16>,
    pub missing: MissingReports,
}

impl SentConfiguration {
    /// Called by each worker when it has applied this configuration.
    pub(crate) fn report(&self, core: u16) {
        // Before the message: when the main thread has all of them, none is missing.
        self.missing.note_report();
        // If this fails, the main thread no longer waits.
        self.applied.send(core).ok();
    }
}

pub(crate) type CurrentConfiguration = LatestValue<Arc<RunningConfiguration>>;

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that stands still keeps every configuration that was sent since.
    #[test]
    fn changes_are_refused_and_counted_while_too_many_configurations_wait_for_a_worker() {
        let unapplied = Arc::new(UnappliedConfigurations::default());
        let sent: Vec<_> = (0..UNAPPLIED_MAX + 3).filter_map(|_| unapplied.try_add(2)).collect();
        assert_eq!(sent.len() as u64, UNAPPLIED_MAX);
        let read =
            || (unapplied.waiting.depth(), unapplied.waiting.peak(), unapplied.refused.get());
        assert_eq!(read(), (UNAPPLIED_MAX, UNAPPLIED_MAX, 3));
        sent.iter().for_each(MissingReports::note_report);
        assert_eq!(read().0, UNAPPLIED_MAX, "the other worker stands still");
        assert!(unapplied.try_add(2).is_none());
        // The main thread has given up on all of them. When the worker runs again, changes are accepted.
        sent.iter().for_each(MissingReports::note_report);
        assert_eq!(read(), (0, UNAPPLIED_MAX, 4));
        assert!(unapplied.try_add(2).is_some());
    }
}
