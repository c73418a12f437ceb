//! One TCP connection to the server, and the heads of HTTP answers on it.
//!
//! Owns the socket, its timeouts and the bytes that were received and not used. Does not read bodies (`http.rs`) or
//! frames (`socket.rs`). Any program may answer on that port, so an unexpected answer becomes an error text and never a
//! panic.
//! Limits: `HEAD_MAX` bytes and `FIELDS_MAX` fields of a head. Cost: one system call for at most 16 KiB; a head is
//! parsed again after each read.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::outcome::{CommandFailure, TIMEOUT};
use super::peer::ServerPeer;
use super::secure::ServerStream;

/// The server's own heads have some hundred bytes; a proxy before it adds a few.
const HEAD_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 100;

pub(super) struct ServerConnection {
    stream: ServerStream,
    /// Bytes that were received and not used: the beginning of a body, or of the first frames.
    pub(super) input: Vec<u8>,
    authority: String,
}

/// Names are in lower case, because HTTP does not distinguish.
pub(super) struct Head {
    pub(super) status: u16,
    fields: Vec<(String, String)>,
}

impl Head {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

impl ServerConnection {
    pub(super) fn open(peer: &ServerPeer) -> Result<Self, CommandFailure> {
        let authority = peer.authority();
        let addresses = (peer.host.as_str(), peer.port).to_socket_addrs().map_err(|error| {
            CommandFailure::Server(format!("cannot resolve {authority}: {error}"))
        })?;
        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for address in addresses {
            match TcpStream::connect_timeout(&address, TIMEOUT).and_then(prepare) {
                Ok(mut stream) => {
                    let own = stream.local_addr().map(|own| own.ip());
                    let header = own.map_or(&[][..], |own| peer.proxied.proxy_header(own));
                    if let Err(error) = stream.write_all(header) {
                        last = error;
                        continue;
                    }
                    let stream = ServerStream::new(stream, peer.tls.as_ref())?;
                    return Ok(Self { stream, input: Vec::new(), authority });
                }
                Err(error) => last = error,
            }
        }
        Err(CommandFailure::Server(unreachable_text(&authority, &last)))
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Applies to all later calls of `receive_more`.
    pub(super) fn set_read_timeout(&self, wait: Duration) -> io::Result<()> {
        self.stream.socket().set_read_timeout(Some(wait))
    }

    /// Waits for bytes; `false` at the end of the connection.
    pub(super) fn receive_more(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(count) => {
                    self.input.extend_from_slice(&chunk[..count]);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// # Errors
    /// Other bytes than those of HTTP, a head without an end, or none within `TIMEOUT`.
    pub(super) fn receive_head(&mut self) -> Result<Head, CommandFailure> {
        loop {
            if let Some((head, length)) =
                parse_head(&self.input).map_err(|why| self.unexpected_answer(why))?
            {
                self.input.drain(..length);
                return Ok(head);
            }
            if self.input.len() > HEAD_MAX {
                return Err(self.unexpected_answer("its answer has no end"));
            }
            if !self.receive_more().map_err(|error| self.connection_lost(&error))? {
                return Err(self.unexpected_answer("it closed the connection without an answer"));
            }
        }
    }

    pub(super) fn unexpected_answer(&self, what: &str) -> CommandFailure {
        CommandFailure::Server(format!(
            "{} was reached, but {what}: does ringverb listen there?",
            self.authority
        ))
    }

    pub(super) fn connection_lost(&self, error: &io::Error) -> CommandFailure {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                let seconds = TIMEOUT.as_secs();
                self.unexpected_answer(&format!("it does not answer within {seconds} s"))
            }
            _ => CommandFailure::Server(format!(
                "the connection to {} broke: {error}",
                self.authority
            )),
        }
    }
}

fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn unreachable_text(authority: &str, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => format!(
            "connection refused at {authority}: is ringverb running? start it with `ringverb`, or give another \
             address with --port, --host or --url"
        ),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => format!(
            "no connection to {authority} within {} s: is the address right, or does a firewall drop packets?",
            TIMEOUT.as_secs()
        ),
        _ => format!("cannot reach {authority}: {error}"),
    }
}

/// The head at the start of `input` and its length; `None` while it is incomplete.
fn parse_head(input: &[u8]) -> Result<Option<(Head, usize)>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    let length = match answer.parse(input) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("its answer is not HTTP"),
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let fields = answer.headers.iter();
    let fields = fields.map(|field| (field.name.to_lowercase(), text(field.value))).collect();
    Ok(Some((Head { status: answer.code.unwrap_or_default(), fields }, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_an_answer_is_parsed_or_refused() {
        let (head, length) =
            parse_head(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nrest").ok().flatten().unwrap();
        assert_eq!(
            (head.status, head.field("x-a"), head.field("x"), length),
            (200, Some("1"), None, 27)
        );
        assert!(matches!(parse_head(b"HTTP/1.1 200 OK\r\nX-A"), Ok(None)));
        assert!(parse_head(b"SSH-2.0-OpenSSH_9\r\n").is_err());
        assert!(parse_head(b"\x15\x03\x01").is_err());
    }
}
