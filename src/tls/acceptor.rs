//! The configuration of TLS handshakes, as the control thread passes it to workers: certificates and ticket keys.
//!
//! Plain values. A worker looks for the newest configuration once a second (`src/latest_value.rs`). An old one is freed
//! when no worker has it and its handshakes have ended. Does not make configurations: `server/certificates.rs` does.
//!
//! Limit: `server/certificates.rs` bounds the number of ticket keys (`TICKET_KEYS`); each worker has one configuration,
//! and one more until it has looked. Cost: one atomic for each handshake, which shares the configuration.

use std::sync::Arc;

use rustls::ServerConfig;

use crate::latest_value::ValueLink;
use crate::tls::ticket::TicketKey;

/// A configuration, and the next one once there is one.
pub(crate) type AcceptorLink = ValueLink<Acceptor>;

pub(crate) struct Acceptor {
    pub config: Arc<ServerConfig>,
    /// The keys that `config` has: rustls does not return them, and a new process needs them to continue sessions.
    pub ticket_keys: Vec<TicketKey>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Acceptor").finish_non_exhaustive()
    }
}
