//! The configuration that is in use, as the main thread passes it to workers and to the admin listener. Plain values.
//!
//! Does not read files and does not check values: `server/change` makes new ones. A worker looks for the next one at
//! the beginning of each tick (`src/latest_value.rs`), applies every configuration in its order, and reports that, so
//! the main thread knows when all cores have one. Limit: none of its own. A configuration is freed when no worker has
//! it any longer; a worker reports each once. Cost: two atomic loads a tick for each worker; one allocation and one
//! message for each worker and change.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::app::{Apps, Secret};
use crate::config::Config;
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

/// A configuration, and the receivers of the report that it is in use.
#[derive(Debug)]
pub(crate) struct SentConfiguration {
    pub configuration: Arc<RunningConfiguration>,
    /// Each worker sends its number when it has applied this configuration.
    pub applied: Sender<u16>,
}

impl SentConfiguration {
    /// Called by each worker when it has applied this configuration.
    pub(crate) fn report(&self, core: u16) {
        // If this fails, the main thread no longer waits.
        self.applied.send(core).ok();
    }
}

pub(crate) type CurrentConfiguration = LatestValue<Arc<RunningConfiguration>>;
