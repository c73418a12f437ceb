//! A TCP port: whether a server could listen on it now. It keeps no socket.
//!
//! Owns no state. The start and `ringverb check` ask before they do anything else, so that an occupied port has an
//! error text with its owner. The answer may be old by the time the port is bound; `listeners.rs` reports the error
//! then. Does not listen.
//! No limits: one socket for a moment. Cost: four system calls for a question.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Other errors, such as a missing permission, are `false`: the start that follows reports them.
pub(super) fn is_in_use(address: SocketAddr) -> bool {
    try_bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// # Errors
/// As `bind` gives them: `AddrInUse` if another socket has the port.
pub(super) fn try_bind(address: SocketAddr) -> io::Result<()> {
    socket(address)?.bind(&address.into())
}

/// A socket that may be bound beside connections of an earlier server.
///
/// # Errors
/// When there is no descriptor.
pub(super) fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a server that just ended may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    Ok(socket)
}
/// A port that is in use, for tests.
#[cfg(test)]
pub(in crate::server) fn listening() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
