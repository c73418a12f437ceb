//! The configuration of TLS handshakes, as the control thread passes it to workers: certificates and ticket keys.
//!
//! Each configuration has a link to the next one. A worker follows the links once a second, so nothing is locked, and
//! an old configuration is freed when no worker has it and its handshakes have ended. `server/certificates.rs` makes
//! new ones.

use std::sync::{Arc, OnceLock};

use rustls::ServerConfig;

use crate::tls::ticket::TicketKey;

/// One configuration, and the next one if there is one.
pub struct AcceptorLink {
    pub config: Arc<ServerConfig>,
    /// Those of `config`, for a new process.
    pub ticket_keys: Vec<TicketKey>,
    next: OnceLock<Arc<Self>>,
}

impl std::fmt::Debug for AcceptorLink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AcceptorLink").finish_non_exhaustive()
    }
}

impl AcceptorLink {
    #[must_use]
    pub fn new(config: Arc<ServerConfig>, ticket_keys: Vec<TicketKey>) -> Arc<Self> {
        Arc::new(Self { config, ticket_keys, next: OnceLock::new() })
    }

    /// Appends the next configuration. Only the owner of the last link calls it, once for each.
    pub fn append(&self, next: Arc<Self>) {
        // The owner follows the link it has set, so it is empty here.
        let _ = self.next.set(next);
    }

    /// The last configuration, if it is another one.
    pub(super) fn latest(&self) -> Option<Arc<Self>> {
        let mut last = self.next.get()?;
        while let Some(next) = last.next.get() {
            last = next;
        }
        Some(last.clone())
    }
}
