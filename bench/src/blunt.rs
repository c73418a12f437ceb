//! A blocking client for what the pool does not do: handshakes measured one by one, and misbehavior.
//!
//! Owns one plain socket and what it has received. Does not use TLS: a proxy or TLS in between is not what these
//! scenarios measure. Limits: `TIMEOUT` for each step, `HEAD_BYTES_MAX` of an answer's head. Cost: a system call for
//! each step, on the thread of the caller, which waits.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::app::{self, App};
use crate::frame::{self, opcode};
use crate::sys;

const TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 * 1024;

pub(crate) struct Blunt {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
}

/// The bytes of a handshake, of which a test may send only a part.
pub(crate) fn handshake(app: &App) -> Vec<u8> {
    let App { address, .. } = app;
    let text = format!(
        "GET {} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: cmluZ3ZlcmItYmVuY2gtMA==\r\nSec-WebSocket-Version: 13\r\n\
         Origin: http://{address}\r\n\r\n",
        app.socket_path()
    );
    text.into_bytes()
}

impl Blunt {
    /// Connects and sends nothing yet. Only without TLS.
    pub(crate) fn connect(app: &App) -> io::Result<Self> {
        if app.tls {
            return Err(io::Error::other("this scenario speaks ws:// only"));
        }
        let stream = TcpStream::connect_timeout(&app.address.into(), TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, input: Vec::new() })
    }

    /// Sends the handshake and waits for `pusher:connection_established`. Returns the socket id.
    pub(crate) fn establish(&mut self, app: &App) -> io::Result<String> {
        self.stream.write_all(&handshake(app))?;
        let head = loop {
            if let Some(at) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.input.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("a head without end"));
            }
            self.fill()?;
        };
        if !self.input.starts_with(b"HTTP/1.1 101") {
            let line = self.input.split(|byte| *byte == b'\r').next().unwrap_or_default();
            return Err(io::Error::other(String::from_utf8_lossy(line).into_owned()));
        }
        self.input.drain(..head);
        loop {
            let decoded = frame::decode(&self.input);
            let decoded = decoded.map_err(|_| io::Error::other("a frame that is none"))?;
            if let Some((first, _)) = decoded {
                let message = serde_json::from_slice(first.payload).map_err(io::Error::other)?;
                let id = app::socket_id_of(&message);
                return id.ok_or_else(|| io::Error::other(message.to_string()));
            }
            self.fill()?;
        }
    }

    pub(crate) fn send_text(&mut self, text: &str) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame::encode(opcode::TEXT, text.as_bytes(), &mut bytes);
        self.stream.write_all(&bytes)
    }

    /// The socket, and received bytes that were not decoded yet.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.input)
    }

    pub(crate) fn reset(self) {
        // It is dropped either way.
        sys::reset_at_close(self.stream.as_raw_fd()).ok();
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.input.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }
}

/// One handshake from the connect to `connection_established`, and when it began.
pub(crate) fn probe(app: &App) -> io::Result<(Instant, Duration)> {
    let begin = Instant::now();
    let mut client = Blunt::connect(app)?;
    client.establish(app)?;
    let took = begin.elapsed();
    client.reset();
    Ok((begin, took))
}
