//! The floor under `connect`: a bare server that answers every request as a handshake of a WebSocket, and everything
//! after it as a subscription.
//!
//! Owns the sockets and nothing else. It computes the accept key and sends the first frame with the answer; it does not
//! check anything. With a certificate (`secure.rs`) rustls' buffered API is between, and its flights come on top. To be
//! compared with as a server of its own: see `http_floor`. No limits: as many connections as descriptors. Cost: one
//! thread; for each connection three system calls (accept, watch, close), and two for each flight of the client.

mod secure;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::sys::{self, Epoll, READABLE};
use secure::Acceptor;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    port: u16,
    /// The kernel reports a connection when its request has arrived.
    #[arg(long)]
    defer_accept: bool,
    /// A PEM file: connections begin with a handshake of TLS.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_NAME: &[u8] = b"sec-websocket-key:";

/// Indexed by descriptor: the kernel gives the lowest free one.
#[derive(Default)]
struct Sockets(Vec<Option<Socket>>);

struct Socket {
    stream: TcpStream,
    secure: Option<Box<rustls::ServerConnection>>,
    is_watched: bool,
    is_upgraded: bool,
}

struct Floor {
    epoll: Epoll,
    acceptor: Option<Acceptor>,
    sockets: Sockets,
    chunk: Vec<u8>,
    answer: Vec<u8>,
    handshakes: u64,
}

/// Serves until SIGTERM.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    sys::exit_on_sigterm()?;
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, args.port))?;
    listener.set_nonblocking(true)?;
    sys::inherit_nodelay(&listener)?;
    if args.defer_accept {
        sys::defer_accept(&listener)?;
    }
    let epoll = Epoll::new()?;
    let listening = token(&listener)?;
    epoll.add(listener.as_raw_fd(), READABLE, listening)?;
    let acceptor = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(secure::acceptor(certificate, key)?),
        _ => None,
    };
    let mut floor = Floor {
        epoll,
        acceptor,
        sockets: Sockets::default(),
        chunk: vec![0; 64 * 1024],
        answer: Vec::new(),
        handshakes: 0,
    };
    let mut ready = Vec::new();
    loop {
        ready.clear();
        floor.epoll.wait(Duration::from_secs(60), &mut ready)?;
        for &key in &ready {
            if key == listening {
                while let Ok(stream) = sys::accept_nonblocking(&listener) {
                    floor.begin(stream)?;
                }
            } else {
                floor.serve(key)?;
            }
        }
    }
}

fn token(socket: &impl AsRawFd) -> io::Result<u64> {
    u64::try_from(socket.as_raw_fd()).map_err(io::Error::other)
}

impl Floor {
    fn begin(&mut self, stream: TcpStream) -> io::Result<()> {
        let key = token(&stream)?;
        let slot = usize::try_from(key).map_err(io::Error::other)?;
        if self.sockets.0.len() <= slot {
            self.sockets.0.resize_with(slot + 1, || None);
        }
        let secure = match &self.acceptor {
            Some(acceptor) => Some(Box::new(secure::begin(acceptor)?)),
            None => None,
        };
        let socket = Socket { stream, secure, is_watched: false, is_upgraded: false };
        self.sockets.0[slot] = Some(socket);
        self.serve(key)
    }

    /// Reads once and answers. A request comes in one piece; a client that fails is closed.
    fn serve(&mut self, key: u64) -> io::Result<()> {
        let slot = usize::try_from(key).map_err(io::Error::other)?;
        let Some(Some(socket)) = self.sockets.0.get_mut(slot) else { return Ok(()) };
        let is_upgraded = &mut socket.is_upgraded;
        let (answer, handshakes) = (&mut self.answer, &mut self.handshakes);
        let mut answer_to = |request: &[u8]| {
            answer.clear();
            if std::mem::replace(is_upgraded, true) {
                write_frame(SUBSCRIBED, answer);
            } else {
                write_answer(request, *handshakes, answer);
                *handshakes += 1;
            }
            answer.clone()
        };
        let result = match &mut socket.secure {
            Some(secure) => {
                secure::serve(secure, &mut socket.stream, &mut self.chunk, &mut answer_to)
            }
            None => match socket.stream.read(&mut self.chunk) {
                Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    let answer = answer_to(&self.chunk[..count]);
                    socket.stream.write_all(&answer)
                }
                Err(error) => Err(error),
            },
        };
        let goes_on =
            result.as_ref().map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |()| true);
        if !goes_on {
            self.sockets.0[slot] = None;
        } else if !std::mem::replace(&mut socket.is_watched, true) {
            self.epoll.add(socket.stream.as_raw_fd(), READABLE, key)?;
        }
        Ok(())
    }
}

/// The answer to the subscription of `connect`.
const SUBSCRIBED: &str = "{\"event\":\"pusher_internal:subscription_succeeded\",\"data\":\"{}\",\
                          \"channel\":\"private-arrivals\"}";

/// The answer to a handshake and the first frame, as long as ringverb's.
fn write_answer(request: &[u8], number: u64, out: &mut Vec<u8>) {
    let mut digest = Sha1::new();
    digest.update(key_of(request));
    digest.update(GUID);
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    let mut accept = [0; 28];
    if let Ok(length) = STANDARD.encode_slice(digest.finalize(), &mut accept) {
        out.extend_from_slice(&accept[..length]);
    }
    out.extend_from_slice(b"\r\n\r\n");
    let text = format!(
        "{{\"event\":\"pusher:connection_established\",\"data\":\"{{\\\"socket_id\\\":\\\"710976262.{number:09}\\\",\
         \\\"activity_timeout\\\":30}}\"}}"
    );
    write_frame(&text, out);
}

fn write_frame(text: &str, out: &mut Vec<u8>) {
    // A length below 126 is in the second byte of the header.
    out.extend_from_slice(&[0x81, u8::try_from(text.len()).unwrap_or(u8::MAX)]);
    out.extend_from_slice(text.as_bytes());
}

/// The value of Sec-WebSocket-Key; empty if there is none.
fn key_of(request: &[u8]) -> &[u8] {
    let lines = request.split(|byte| *byte == b'\n');
    let mut values = lines.filter_map(|line| {
        let (name, value) = line.split_at_checked(KEY_NAME.len())?;
        name.eq_ignore_ascii_case(KEY_NAME).then(|| value.trim_ascii())
    });
    values.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn the_accept_key_is_that_of_the_request() {
        let request =
            b"GET /app/key HTTP/1.1\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut answer = Vec::new();
        write_answer(request, 1, &mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"), "{answer}");
    }

    #[test]
    fn the_frame_is_as_long_as_its_header_says() {
        let mut answer = Vec::new();
        write_answer(b"", 7, &mut answer);
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let frame = &answer[end + 4..];
        assert!(frame[1] < 126);
        assert_eq!(frame.len(), 2 + usize::from(frame[1]));
    }
}
