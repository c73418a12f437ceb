//! The configuration that is in use, as the main thread passes it to workers and to the admin listener.
//!
//! Each configuration has a link to the next one. A worker looks for it at the beginning of each tick, applies every
//! configuration in its order, and reports that. So nothing is locked on a core, and the main thread knows when all
//! cores have one. `server/change` makes new ones. Threads that are no workers read `CurrentConfiguration`.

use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock, PoisonError};

use crate::app::{Apps, Secret};

/// What may change while the server runs.
#[derive(Clone, Debug)]
pub struct RunningConfiguration {
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

/// One configuration, and the next one if there is one.
#[derive(Debug)]
pub struct ConfigurationLink {
    pub configuration: Arc<RunningConfiguration>,
    /// Each worker sends its number when it has applied this configuration.
    applied: Sender<u16>,
    next: OnceLock<Arc<Self>>,
}

impl ConfigurationLink {
    #[must_use]
    pub fn new(configuration: Arc<RunningConfiguration>, applied: Sender<u16>) -> Arc<Self> {
        Arc::new(Self { configuration, applied, next: OnceLock::new() })
    }

    /// Appends the next configuration. Only the owner of the last link calls it, once for each.
    pub fn append(&self, next: Arc<Self>) {
        // The owner follows the link it has set, so it is empty here.
        let _ = self.next.set(next);
    }

    pub(super) fn next(&self) -> Option<&Arc<Self>> {
        self.next.get()
    }

    /// A worker has applied it.
    pub(super) fn report(&self, core: u16) {
        // Nobody waits any longer if this fails.
        let _ = self.applied.send(core);
    }
}

/// The configuration in use, for threads that are no workers.
#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "no worker locks it")]
pub struct CurrentConfiguration(std::sync::Mutex<Arc<RunningConfiguration>>);

#[expect(clippy::disallowed_types, reason = "no worker locks it")]
impl CurrentConfiguration {
    #[must_use]
    pub fn new(configuration: RunningConfiguration) -> Self {
        Self(std::sync::Mutex::new(Arc::new(configuration)))
    }

    #[must_use]
    pub fn get(&self) -> Arc<RunningConfiguration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, configuration: Arc<RunningConfiguration>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = configuration;
    }
}
