//! What a core asks of the kernel: the one seam between the tick and the world.
//!
//! The worker implements it over io_uring and over epoll (`worker/kernel`), the simulator over sockets that exist only
//! in it. Only `park` blocks. A report may come after its connection has ended and its slot is another's: keys carry
//! the generation.
//!
//! A watch for reading reports level at first, and edges then: a caller that does not read all must remember that. A
//! report may be one too many; the read that follows finds nothing then.

use core::net::SocketAddr;

use crate::mailbox::Doorbell;
use crate::shard::ConnectionKey;

/// A connection that speaks HTTP, by its slot among those of its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    pub slot: u32,
    pub generation: u32,
}

/// Whose a watched descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// An established WebSocket.
    Connection(ConnectionKey),
    /// A connection that speaks HTTP.
    Session(SessionKey),
    /// A listener, by its index.
    Listener(u32),
    /// The connection to Redis, by a number that grows with each of them.
    Cluster(u32),
}

/// What a report belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Readable(Watched),
    Writable(Watched),
    Doorbell,
    /// The kernel has lost reports, nobody knows which: any watch may have ended and any send may have failed without a
    /// word.
    Lost,
}

/// One report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelEvent {
    pub token: Token,
    /// A watch for reading goes on; without it, it must be armed anew. The kernel ends one when there is no room for
    /// its report, so after a burst any of them may have ended.
    pub more: bool,
    /// The peer's end, or an error, was seen. With `Token::Writable` a kernel may leave out the end of the peer's half,
    /// as epoll does, or report it, as io_uring does.
    pub end: bool,
    /// The kernel could not watch, for want of memory.
    pub failed: bool,
}

/// What came of an accept.
#[derive(Debug)]
pub enum Accepted<S> {
    /// A connection, and the other end's address. TCP_NODELAY is set: a frame leaves when its tick ends.
    Socket(S, SocketAddr),
    /// None waits.
    Nothing,
    /// One waits, and there is no descriptor or no memory for it: the error of the system, and what to change.
    Exhausted(String),
    /// The peer gave up before it was accepted, or the listener was shut down.
    Failed,
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// That many bytes, at least one.
    Bytes(usize),
    /// Nothing waits.
    Nothing,
    /// The peer has ended its half, or the connection has failed.
    Gone,
}

/// One send of a batch.
pub struct Send<'a, S> {
    pub socket: &'a S,
    pub bytes: &'a [u8],
}

/// What came of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Whole,
    /// That many bytes; none when the socket was full.
    Part(usize),
    Failed,
}

pub trait Kernel {
    /// A socket's descriptor; dropping it closes the socket.
    type Socket;
    type Listener;

    /// Reports when connections wait, as `watch_readable` does.
    fn watch_listener(&mut self, listener: &Self::Listener, index: u32);

    /// Ends the watch of a listener.
    fn unwatch_listener(&mut self, listener: &Self::Listener, index: u32);

    /// Takes one connection that waits.
    fn accept(&mut self, listener: &Self::Listener) -> Accepted<Self::Socket>;

    /// Reports each time the socket becomes readable, until `unwatch`. Replaces a watch for reading of the same socket
    /// that has ended, or never was.
    fn watch_readable(&mut self, socket: &Self::Socket, watched: Watched);

    /// Reports once that the socket takes bytes again.
    fn watch_writable(&mut self, socket: &Self::Socket, watched: Watched);

    /// Ends the watches of a socket; needed before it is closed, or watched as another one. `writable_too`: a
    /// `watch_writable` may not have reported yet.
    fn unwatch(&mut self, socket: &Self::Socket, watched: Watched, writable_too: bool);

    /// Reports the rings of this core's doorbell, until a report without `more`. One that rang before is reported.
    fn watch_doorbell(&mut self, doorbell: &Doorbell);

    /// Carries out what was asked for above: sockets whose watches were ended may be closed.
    fn submit(&mut self);

    /// Carries out what was asked for above, and waits until there is something to report, for this many milliseconds
    /// at most; `None` is for ever, 0 not at all. Comes back at once while reports wait to be taken, and may come back
    /// early for no reason. The one call that blocks.
    fn park(&mut self, timeout_ms: Option<u64>);

    /// Moves all reports that `park` and the sends have brought to `events`. No call of the system.
    fn reap(&mut self, events: &mut Vec<KernelEvent>);

    /// Sends a batch of at most `limits::SENDS_PER_SUBMIT`, never waiting. `results` gets one entry per send.
    fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = Send<'a, Self::Socket>>,
        results: &mut Vec<Sent>,
    ) where
        Self::Socket: 'a;

    /// Reads what is there, as far as it fits.
    fn receive(&mut self, socket: &Self::Socket, buffer: &mut [u8]) -> Received;

    /// Ends our half; `false` when the connection has failed.
    fn shut_down(&mut self, socket: &Self::Socket) -> bool;

    /// Nanoseconds of a clock that all cores share, to order mail of different cores by.
    fn stamp(&self) -> u64;
}
