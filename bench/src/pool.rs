//! All client connections of a run on one epoll: WebSocket subscribers, HTTP publishers and bare sockets (the `floor`
//! scenario's).
//!
//! Owns the sockets and the bytes in flight. Does not know channels or events: what arrives is passed to a `Handler`
//! together with the pool, so that it can answer at once. Limit: the descriptors of the process. Cost: an idle
//! connection has its slot only, because buffers exist only while something is incomplete; a read is one system call of
//! up to `READ_BYTES`, a send one that the kernel usually accepts at once.

mod input;

use std::fmt;
use std::io;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::app::App;
use crate::frame::{self, opcode};
use crate::http;
use crate::stream::Stream;
use crate::sys::{self, Epoll, READABLE, WRITABLE};

/// Sources to a loopback address are spread over this many addresses of 127.0.0.0/8: 28,000 ports each.
const SOURCE_ADDRESSES: u32 = 240;

/// Enough for thousands of small frames a read, and for the largest frame of a scenario.
const READ_BYTES: usize = 256 * 1024;

/// Names one connection. The key of a connection that has ended names none, because its slot has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) index: u32,
    generation: u32,
    pub(crate) tag: Tag,
}

/// Whose connection it is: a part of the scenario, and a number that the part gave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tag {
    pub(crate) part: u8,
    pub(crate) number: u32,
}

impl Tag {
    pub(crate) fn new(part: u8, number: usize) -> Self {
        Self { part, number: u32::try_from(number).expect("fewer connections than descriptors") }
    }
}

impl Key {
    fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn slot(self) -> usize {
        self.index as usize
    }

    /// `Tag::number` as an index into the owner's list.
    pub(crate) fn number(self) -> usize {
        self.tag.number as usize
    }
}

pub(crate) enum CloseWhy {
    /// The server's close frame, or its absence as 1006.
    Code(u16),
    Failed(String),
}

impl fmt::Display for CloseWhy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "code {code}"),
            Self::Failed(why) => formatter.write_str(why),
        }
    }
}

pub(crate) trait Handler {
    /// An HTTP or bare connection is established, or a WebSocket handshake is done.
    fn on_open(&mut self, pool: &mut Pool, key: Key);
    /// A whole text message.
    fn on_message(&mut self, pool: &mut Pool, key: Key, message: &[u8]);
    fn on_response(&mut self, _pool: &mut Pool, _key: Key, _response: &http::Response<'_>) {}
    /// The server closed or refused; not called for a close from this side.
    fn on_close(&mut self, pool: &mut Pool, key: Key, why: CloseWhy);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Handshaking,
    WebSocket,
    Http,
}

struct Connection {
    stream: Stream,
    state: State,
    /// What the connection becomes once it is open.
    goal: Goal,
    /// The beginning of a frame or response of which the rest has not come.
    unread: Vec<u8>,
    /// The first fragments of a message.
    fragments: Vec<u8>,
    unsent: Vec<u8>,
    close_code: Option<u16>,
    close_sent: bool,
    waits_for_write: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    WebSocket,
    Http,
    /// WebSocket frames from the first byte on, without a handshake.
    BareFrames,
}

struct Slot {
    generation: u32,
    tag: Tag,
    connection: Option<Connection>,
}

pub(crate) struct Pool {
    epoll: Epoll,
    target: SocketAddrV4,
    /// The target of connections for HTTP.
    api: SocketAddrV4,
    tls: bool,
    /// Used in turn. Never empty.
    sources: Vec<Ipv4Addr>,
    /// The handshake's request, the same for all.
    handshake: Vec<u8>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    opened: u32,
    scratch: Vec<u8>,
    tokens: Vec<u64>,
}

impl Pool {
    /// Connections of an app's clients.
    pub(crate) fn of(app: &App) -> io::Result<Self> {
        let mut pool = Self::new(app.address, app.tls, &app.sources, &app.socket_path())?;
        pool.api = app.api_address;
        Ok(pool)
    }

    /// `path` is the WebSocket path with its query. Without `sources` there are many for a loopback address, and the
    /// system's choice for others.
    pub(crate) fn new(
        target: SocketAddrV4,
        tls: bool,
        sources: &[Ipv4Addr],
        path: &str,
    ) -> io::Result<Self> {
        let many = || {
            let first = u32::from(Ipv4Addr::new(127, 0, 1, 1));
            (0..SOURCE_ADDRESSES).map(|offset| Ipv4Addr::from(first + offset)).collect()
        };
        let sources = match sources {
            [] if target.ip().is_loopback() => many(),
            [] => vec![Ipv4Addr::UNSPECIFIED],
            given => given.to_vec(),
        };
        let handshake = format!(
            "GET {path} HTTP/1.1\r\nHost: {target}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: cmluZ3ZlcmItYmVuY2gtMA==\r\n\
             Sec-WebSocket-Version: 13\r\nOrigin: http://{target}\r\n\r\n"
        );
        Ok(Self {
            epoll: Epoll::new()?,
            target,
            api: target,
            tls,
            sources,
            handshake: handshake.into_bytes(),
            slots: Vec::new(),
            free: Vec::new(),
            opened: 0,
            scratch: vec![0; READ_BYTES],
            tokens: Vec::new(),
        })
    }

    /// For a scenario with one part, which needs no number for its connections.
    pub(crate) fn open(&mut self, goal: Goal) -> io::Result<Key> {
        self.open_as(goal, Tag::default())
    }

    /// Starts a connection. `Handler::on_open` or `on_close` reports the outcome.
    pub(crate) fn open_as(&mut self, goal: Goal, tag: Tag) -> io::Result<Key> {
        let source = self.sources[self.opened as usize % self.sources.len()];
        self.opened = self.opened.wrapping_add(1);
        let target = if goal == Goal::Http { self.api } else { self.target };
        let stream = Stream::new(sys::connect_from(source, target)?, self.tls)?;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot { generation: 0, tag, connection: None });
                u32::try_from(self.slots.len() - 1).expect("fewer connections than descriptors")
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.tag = tag;
        let key = Key { index, generation: slot.generation, tag };
        self.epoll.add(stream.as_raw_fd(), READABLE | WRITABLE, key.token())?;
        slot.connection = Some(Connection {
            stream,
            state: State::Connecting,
            goal,
            unread: Vec::new(),
            fragments: Vec::new(),
            unsent: Vec::new(),
            close_code: None,
            close_sent: false,
            waits_for_write: true,
        });
        Ok(key)
    }

    fn get(&mut self, key: Key) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(key.slot())?;
        if slot.generation == key.generation { slot.connection.as_mut() } else { None }
    }

    /// Does nothing on a connection that has ended: its close is, or will be, reported.
    pub(crate) fn send_text(&mut self, key: Key, message: &[u8]) {
        self.send_frame(key, opcode::TEXT, message);
    }

    fn send_frame(&mut self, key: Key, opcode: u8, payload: &[u8]) {
        let mut bytes = Vec::with_capacity(payload.len() + 14);
        frame::encode(opcode, payload, &mut bytes);
        self.send_bytes(key, &bytes);
    }

    pub(crate) fn send_request(
        &mut self,
        key: Key,
        method: &str,
        target: &str,
        body: &[u8],
        after: http::After,
    ) {
        let mut bytes = Vec::with_capacity(body.len() + 400);
        http::encode(method, target, &self.target.to_string(), body, after, &mut bytes);
        self.send_bytes(key, &bytes);
    }

    fn send_bytes(&mut self, key: Key, bytes: &[u8]) {
        let Some(connection) = self.get(key) else { return };
        let mut sent = 0;
        if connection.unsent.is_empty() && connection.state != State::Connecting {
            match connection.stream.write(bytes) {
                Ok(count) => sent = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A dead socket is readable, too: the read reports it.
                Err(_) => return,
            }
        }
        if sent < bytes.len() || connection.stream.has_unsent() {
            connection.unsent.extend_from_slice(&bytes[sent..]);
            self.watch(key);
        }
    }

    /// Asks for writability exactly while there is something to write.
    fn watch(&mut self, key: Key) {
        let Some(connection) = self.get(key) else { return };
        let wanted = !connection.unsent.is_empty()
            || connection.state == State::Connecting
            || connection.stream.has_unsent();
        if wanted == connection.waits_for_write {
            return;
        }
        connection.waits_for_write = wanted;
        let fd = connection.stream.as_raw_fd();
        let events = if wanted { READABLE | WRITABLE } else { READABLE };
        self.epoll.modify(fd, events, key.token()).expect("an open descriptor is in the set");
    }

    /// Asks the server to close: `Handler::on_close` says when it has.
    pub(crate) fn send_close(&mut self, key: Key) {
        let Some(connection) = self.get(key) else { return };
        if !std::mem::replace(&mut connection.close_sent, true) {
            self.send_frame(key, opcode::CLOSE, &1000u16.to_be_bytes());
        }
    }

    /// Stops reading, so that the kernel's buffers fill and the server sees a slow consumer.
    pub(crate) fn pause(&mut self, key: Key) {
        let Some(connection) = self.get(key) else { return };
        let fd = connection.stream.as_raw_fd();
        self.epoll.remove(fd).expect("an open descriptor is in the set");
    }

    pub(crate) fn resume(&mut self, key: Key) {
        let Some(connection) = self.get(key) else { return };
        connection.waits_for_write = false;
        let fd = connection.stream.as_raw_fd();
        self.epoll.add(fd, READABLE, key.token()).expect("a paused descriptor is not in the set");
    }

    /// Closes from this side, with a close frame or without one.
    pub(crate) fn close(&mut self, key: Key, politely: bool) {
        if politely {
            self.send_close(key);
        }
        if let Some(connection) = self.take(key) {
            // The socket may be reset already; it is dropped either way.
            connection.stream.shutdown().ok();
        }
    }

    pub(crate) fn reset(&mut self, key: Key) {
        if let Some(connection) = self.take(key) {
            // The socket is dropped either way.
            sys::reset_at_close(connection.stream.as_raw_fd()).ok();
        }
    }

    fn take(&mut self, key: Key) -> Option<Connection> {
        let slot = self.slots.get_mut(key.slot())?;
        if slot.generation != key.generation {
            return None;
        }
        let connection = slot.connection.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(connection)
    }

    fn lost(&mut self, handler: &mut impl Handler, key: Key, why: CloseWhy) {
        if self.take(key).is_some() {
            handler.on_close(self, key, why);
        }
    }

    /// Waits for at most `timeout`, then serves everything that is ready.
    pub(crate) fn poll(&mut self, timeout: Duration, handler: &mut impl Handler) -> io::Result<()> {
        let mut tokens = std::mem::take(&mut self.tokens);
        tokens.clear();
        self.epoll.wait(timeout, &mut tokens)?;
        for &token in &tokens {
            let low = u32::try_from(token & 0xFFFF_FFFF).expect("masked to 32 bits");
            let high = u32::try_from(token >> 32).expect("shifted to 32 bits");
            // The connection may have been closed in this round, and its slot have a new one.
            let Some(slot) = self.slots.get(low as usize) else { continue };
            self.serve(Key { index: low, generation: high, tag: slot.tag }, handler);
        }
        self.tokens = tokens;
        Ok(())
    }

    fn serve(&mut self, key: Key, handler: &mut impl Handler) {
        let Some(connection) = self.get(key) else { return };
        if connection.state == State::Connecting {
            match connection.stream.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => {
                    return self.lost(handler, key, CloseWhy::Failed(error.to_string()));
                }
            }
            self.connected(key, handler);
        }
        self.flush(key);
        self.read(key, handler);
    }

    fn connected(&mut self, key: Key, handler: &mut impl Handler) {
        let Some(connection) = self.get(key) else { return };
        connection.state = match connection.goal {
            Goal::WebSocket => State::Handshaking,
            Goal::Http => State::Http,
            Goal::BareFrames => State::WebSocket,
        };
        if connection.goal == Goal::WebSocket {
            let handshake = std::mem::take(&mut self.handshake);
            self.send_bytes(key, &handshake);
            self.handshake = handshake;
        } else {
            handler.on_open(self, key);
        }
        self.watch(key);
    }

    fn flush(&mut self, key: Key) {
        let Some(connection) = self.get(key) else { return };
        if connection.unsent.is_empty() && !connection.stream.has_unsent() {
            return;
        }
        // An error shows at the read that follows.
        connection.stream.push().ok();
        if !connection.unsent.is_empty()
            && let Ok(count) = connection.stream.write(&connection.unsent)
        {
            connection.unsent.drain(..count);
            if connection.unsent.is_empty() {
                connection.unsent = Vec::new();
            }
        }
        self.watch(key);
    }
}
