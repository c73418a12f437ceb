//! The client that a log line names: by a trusted proxy, else by its socket.
//!
//! A value without behavior. `worker/notes.rs` writes it, and looks up the socket of an established connection by its
//! slot. PURE. No limits: one value for each line.

use core::net::{IpAddr, SocketAddr};

use crate::app::AppIndex;

/// The connection that a log line is about, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinePeer {
    /// The client, if a trusted proxy names it.
    pub client: Option<IpAddr>,
    /// The other end of the socket: the client, or a proxy. `None` if the connection is not known.
    pub peer: Option<SocketAddr>,
    pub app: Option<AppIndex>,
}
