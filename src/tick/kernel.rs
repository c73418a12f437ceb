//! The kernel interface: everything that a core asks of the system.
//!
//! Owns no state: it is a trait with its values. The worker implements it on io_uring and on epoll (`worker/kernel`),
//! the simulator on simulated sockets. Only `park` blocks. A report can arrive after its connection has ended and its
//! slot has a new owner, so keys carry a generation. A watch for reading reports once if bytes wait already, and then
//! each time that more arrive. It does not report bytes again that were left unread, so a caller that does not read
//! everything must remember that. A report can be spurious: the read after it then finds nothing.
//!
//! Limits: `limits::SENDS_PER_SUBMIT` sends in a batch. Cost: a method is a static call without an allocation;
//! `worker/kernel` states its system calls.

use core::net::SocketAddr;

use crate::mailbox::Doorbell;
use crate::shard::ConnectionKey;
use crate::slot::Slot;
use crate::tls::socket::SecureChannel;

/// A connection that speaks HTTP, by its slot among those of its core. The generation distinguishes its owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    pub slot: Slot,
    pub generation: u32,
}

/// The owner of a watched descriptor. A report names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    Connection(ConnectionKey),
    /// A connection that still speaks HTTP, or TLS before it.
    Session(SessionKey),
    /// A listener, by its index in the reactor.
    Listener(u32),
    /// The Redis connection, by a number that grows with each new one.
    Cluster(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Readable(Watched),
    Writable(Watched),
    Doorbell,
    /// The kernel has lost reports. Any watch may have ended, and any send may have failed unnoticed.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelEvent {
    pub token: Token,
    /// The watch for reading is still armed; otherwise it must be armed again. The kernel ends a watch if there is no
    /// room for its report, so any watch may have ended after a burst.
    pub is_armed: bool,
    /// The peer's end, or an error, was seen. With `Token::Writable` a kernel may leave out the end of the peer's half,
    /// as epoll does, or report it, as io_uring does.
    pub has_end: bool,
    /// The kernel had no memory for the watch.
    pub has_failed: bool,
}

#[derive(Debug)]
pub enum Accepted<S> {
    /// A connection, and the other end's address. TCP_NODELAY is set: a frame leaves when its tick ends.
    Socket(S, SocketAddr),
    /// No connection is in the backlog of the listener.
    Nothing,
    /// A connection waits, but there is no descriptor or no memory for it: the error of the system, and what to change.
    Exhausted(String),
    /// The peer closed before it was accepted, or the listener was shut down.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes were read, at least one.
    Bytes(usize),
    Nothing,
    /// The peer has ended its half, or the connection has failed.
    Gone,
}

pub struct Send<'a, S> {
    pub socket: &'a S,
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Whole,
    /// So many bytes; 0 if the socket's buffer was full.
    Part(usize),
    Failed,
}

pub trait Kernel {
    /// A socket's descriptor; dropping it closes the socket.
    type Socket;
    type Listener;
    /// The secure channel of sockets that a TLS listener has accepted. It belongs to the kernel because its handshake
    /// needs random numbers; the simulator has a cipher without them.
    type Channel: SecureChannel;

    /// Reports when connections wait to be accepted, as `watch_readable` does for bytes.
    fn watch_listener(&mut self, listener: &Self::Listener, index: u32);

    fn unwatch_listener(&mut self, listener: &Self::Listener, index: u32);

    /// Accepts one connection. Never waits.
    fn accept(&mut self, listener: &Self::Listener) -> Accepted<Self::Socket>;

    /// Reports each time the socket becomes readable, until `unwatch`. Replaces a watch for reading of the same socket
    /// that has ended, or never was.
    fn watch_readable(&mut self, socket: &Self::Socket, watched: Watched);

    /// The same for a socket that soon has another owner. The watch may end with its first report; then the socket can
    /// be watched as another one without `unwatch`.
    fn watch_readable_once(&mut self, socket: &Self::Socket, watched: Watched) {
        self.watch_readable(socket, watched);
    }

    /// Reports once, when the socket accepts bytes again.
    fn watch_writable(&mut self, socket: &Self::Socket, watched: Watched);

    /// Ends the armed watches of a socket; needed before it is closed, or watched as another one. `writable_too`:
    /// a `watch_writable` may not have reported yet.
    fn unwatch(&mut self, socket: &Self::Socket, watched: Watched, writable_too: bool);

    /// Reports each ring of this core's doorbell, until a report without `is_armed`. An earlier ring is reported too.
    fn watch_doorbell(&mut self, doorbell: &Doorbell);

    /// Carries out the requests above: sockets whose watches were ended may then be closed.
    fn submit(&mut self);

    /// Carries out the requests above, and waits until there is something to report, for at most this many
    /// milliseconds; `None` waits without limit, 0 not at all. Returns at once while there are reports to take, and may
    /// return early. The only call that blocks.
    fn park(&mut self, timeout_ms: Option<u64>);

    /// Moves all reports that `park` and the sends have received to `events`. No system call.
    fn reap(&mut self, events: &mut Vec<KernelEvent>);

    /// Sends a batch of at most `limits::SENDS_PER_SUBMIT`, never waiting. `results` gets one entry per send.
    fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = Send<'a, Self::Socket>>,
        results: &mut Vec<Sent>,
    ) where
        Self::Socket: 'a;

    /// Reads the bytes that wait, as far as `buffer` has room. Never waits.
    fn receive(&mut self, socket: &Self::Socket, buffer: &mut [u8]) -> Received;

    /// Ends our half of the connection, so that the peer sees its end. `false` if the connection has failed.
    fn shut_down(&mut self, socket: &Self::Socket) -> bool;

    /// Nanoseconds of a clock that all cores share. Mail of different cores is ordered by it.
    fn stamp(&self) -> u64;
}
