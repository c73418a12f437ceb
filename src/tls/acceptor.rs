//! The configuration of TLS handshakes, as the control thread passes it to workers: certificates and ticket keys.
//!
//! A worker looks for the newest configuration once a second (`src/latest_value.rs`). An old configuration is freed
//! when no worker has it and its handshakes have ended. `server/certificates.rs` makes new ones.
//!
//! Limit: `tls/ticket.rs` bounds the number of ticket keys; each worker has one configuration, and one more until it
//! has looked.

use std::sync::Arc;

use rustls::ServerConfig;

use crate::latest_value::ValueLink;
use crate::tls::ticket::TicketKey;

/// A configuration of handshakes, and the next one if there is one.
pub(crate) type AcceptorLink = ValueLink<Acceptor>;

pub(crate) struct Acceptor {
    pub config: Arc<ServerConfig>,
    /// Those of `config`, for a new process.
    pub ticket_keys: Vec<TicketKey>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Acceptor").finish_non_exhaustive()
    }
}
