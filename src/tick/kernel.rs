//! What a core asks of the kernel: the one seam between the tick and the world.
//!
//! The worker implements it over a raw io_uring (`worker/sys.rs`), the simulator over sockets that exist only in it.
//! Calls never block. A completion may come after its connection has ended and its slot is another's: `Token` carries
//! the generation.

use crate::mailbox::Doorbell;
use crate::shard::ConnectionKey;

/// What a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Readable(ConnectionKey),
    Writable(ConnectionKey),
    /// A send, by its place in the batch.
    Sent(u32),
    Doorbell,
    /// Wakes this worker for another tick, after its tasks had their turn.
    Again,
    Cancel,
    /// The kernel has lost completions, nobody knows which: any watch may have ended and any send may have failed
    /// without a word.
    Lost,
}

/// One completion.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub token: Token,
    /// A watch for reading goes on; without it, it must be armed anew. The kernel ends one when there is no room for
    /// its completion, so after a burst any of them may have ended.
    pub more: bool,
    /// The peer's end, or an error, was seen.
    pub end: bool,
    /// The kernel could not watch, for want of memory.
    pub failed: bool,
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

    /// Reports each time the socket becomes readable, until `unwatch`. Level at first, then edges: whoever does not
    /// read all must remember that.
    fn watch_readable(&mut self, socket: &Self::Socket, key: ConnectionKey);

    /// Reports the rings of this core's doorbell, until a report without `more`. One that rang before is reported.
    fn watch_doorbell(&mut self, doorbell: &Doorbell);

    /// Reports once that the socket takes bytes again.
    fn watch_writable(&mut self, socket: &Self::Socket, key: ConnectionKey);

    /// Ends the watches of a socket; needed before it is closed.
    fn unwatch(&mut self, key: ConnectionKey, writable_too: bool);

    /// Another tick is to follow soon, after the core's tasks have had their turn.
    fn request_again(&mut self);

    /// Carries out what was asked for above.
    fn submit(&mut self);

    /// Completions wait that will not wake the core.
    fn has_early(&self) -> bool;

    /// Moves all completions to `events`.
    fn reap(&mut self, events: &mut Vec<Event>);

    /// Sends a batch of at most `limits::SENDS_PER_SUBMIT`, never waiting. `results` gets one entry per send. Other
    /// completions that come meanwhile go to `events`.
    fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = Send<'a, Self::Socket>>,
        results: &mut Vec<Sent>,
        events: &mut Vec<Event>,
    ) where
        Self::Socket: 'a;

    /// Reads what is there, as far as it fits.
    fn receive(&mut self, socket: &Self::Socket, buffer: &mut [u8]) -> Received;

    /// Ends our half; `false` when the connection has failed.
    fn shut_down(&mut self, socket: &Self::Socket) -> bool;

    /// Nanoseconds of a clock that all cores share, to order mail of different cores by.
    fn stamp(&self) -> u64;
}
