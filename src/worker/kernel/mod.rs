//! The two implementations of `tick::kernel::Kernel` over real sockets: `Uring` (io_uring) and `Epoll`.
//!
//! A worker owns exactly one kernel, creates it on its own thread and never shares it. Does not know what is read or
//! sent. Both keep the same contract, which `tests/kernels.rs` checks with one script. This file has what they share:
//! tokens as 64 bits, accepting, receiving, one send, and the preparation of a listener. `probe.rs` decides which one a
//! server uses. All sockets are used with MSG_DONTWAIT, so they need not be non-blocking. Listeners must be: see
//! `prepare_listener`. System calls of this file: accept4 (Linux 2.6.28), recvfrom, sendto, shutdown, setsockopt,
//! ioctl(FIONBIO) and clock_gettime, all older. Limit: `SLOT_MAX` for a slot in a token, above
//! `limits::DESCRIPTORS_MAX`. Cost: one system call for each function; a token is packed and unpacked in a few steps.

mod epoll;
mod probe;
mod uring;

pub use epoll::Epoll;
pub use probe::{Choice, KernelRefusal, choose, ring_that_fits};
pub use uring::Uring;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};

use crate::limits;
use crate::shard::ConnectionKey;
use crate::slot::Slot;
use crate::tick::kernel::{
    Accepted, KernelEvent, Received, Send, Sent, SessionKey, Token, Watched,
};
use crate::tick::socket_bytes;

const _: () = assert!(socket_bytes::<OwnedFd>() <= 16, "part of an idle connection's budget");

/// Prepares a listener for both kernels. `accept` must not block, and accepted sockets have TCP_NODELAY because Linux
/// copies it from the listener: that saves one system call a connection. Connections that a listener of another
/// process had queued before this call do not have it.
///
/// # Errors
/// When the descriptor is no TCP listener.
pub fn prepare_listener(listener: TcpListener) -> io::Result<OwnedFd> {
    listener.set_nonblocking(true)?;
    let listener = OwnedFd::from(listener);
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    Ok(listener)
}

/// What 28 bits of a token can hold.
const SLOT_MAX: u32 = (1 << 28) - 1;
/// `server/probe.rs` sets the limit of descriptors. Each slot in use has one, so no slot is above `SLOT_MAX`.
const _: () = assert!(limits::DESCRIPTORS_MAX <= SLOT_MAX as u64);

const KIND_SHIFT: u32 = 60;
/// Kinds from here on belong to one kernel.
const OWN_KINDS: u64 = 8;

/// What a kernel attaches to a request or a watch: kind in the top 4 bits, then 28 bits, then 32 bits.
fn pack(token: Token) -> u64 {
    let (kind, slot, generation) = match token {
        Token::Readable(Watched::Connection(key)) => (0, key.slot.number(), key.generation),
        Token::Writable(Watched::Connection(key)) => (1, key.slot.number(), key.generation),
        Token::Readable(Watched::Session(key)) => (2, key.slot.number(), key.generation),
        Token::Writable(Watched::Session(key)) => (3, key.slot.number(), key.generation),
        Token::Readable(Watched::Listener(index)) => (4, 0, index),
        // A listener is never written.
        Token::Writable(Watched::Listener(index)) => (4, 1, index),
        Token::Readable(Watched::Cluster(number)) => (5, 0, number),
        Token::Writable(Watched::Cluster(number)) => (5, 1, number),
        Token::Doorbell => (6, 0, 0),
        Token::Lost => (7, 0, 0),
    };
    pack_parts(kind, slot, generation)
}

fn pack_parts(kind: u64, slot: u32, generation: u32) -> u64 {
    debug_assert!(slot <= SLOT_MAX, "DESCRIPTORS_MAX keeps it below");
    kind << KIND_SHIFT | u64::from(slot) << 32 | u64::from(generation)
}

#[expect(clippy::cast_possible_truncation, reason = "unpacks what `pack_parts` has put there")]
fn unpack_parts(data: u64) -> (u64, u32, u32) {
    (data >> KIND_SHIFT, (data >> 32) as u32 & SLOT_MAX, data as u32)
}

/// `None` for the kinds from `OWN_KINDS` on.
fn unpack(data: u64) -> Option<Token> {
    let (kind, slot, generation) = unpack_parts(data);
    let socket_slot = Slot::new(slot);
    let connection = Watched::Connection(ConnectionKey { slot: socket_slot, generation });
    let session = Watched::Session(SessionKey { slot: socket_slot, generation });
    let of = |watched| if slot == 0 { Token::Readable(watched) } else { Token::Writable(watched) };
    Some(match kind {
        0 => Token::Readable(connection),
        1 => Token::Writable(connection),
        2 => Token::Readable(session),
        3 => Token::Writable(session),
        4 => of(Watched::Listener(generation)),
        5 => of(Watched::Cluster(generation)),
        6 => Token::Doorbell,
        7 => Token::Lost,
        _ => return None,
    })
}

/// The report for a watch that could not be made. Without it the socket would never be read again.
fn failed(token: Token) -> KernelEvent {
    KernelEvent { token, is_armed: false, has_end: false, has_failed: true }
}

/// The size of the completion queue of a ring. `server/locked.rs` chooses one for all workers, by the memory that they
/// may lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingSize {
    /// Where the workers may not lock the memory of large ones.
    Small,
    /// A close costs less where a worker has thousands of connections (docs/decisions/0005).
    Large,
}

impl RingSize {
    #[must_use]
    pub const fn completions(self) -> u32 {
        match self {
            Self::Small => limits::RING_COMPLETIONS,
            Self::Large => limits::RING_COMPLETIONS_LARGE,
        }
    }
}

/// Both kernels round a wait down to this: 12 days. A caller that has nothing to do then waits again.
const PARK_MS_MAX: u64 = 1 << 30;

fn accept(listener: &OwnedFd) -> Accepted<OwnedFd> {
    loop {
        return match rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC) {
            Ok((socket, peer)) => match peer.and_then(|peer| SocketAddr::try_from(peer).ok()) {
                Some(peer) => Accepted::Socket(socket, peer),
                None => Accepted::Failed,
            },
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Accepted::Nothing,
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                Accepted::Exhausted(accept_failure_text(error))
            }
            Err(Errno::INVAL) => Accepted::Nothing,
            // ECONNABORTED, and network errors that were pending on the new socket (accept(2)).
            Err(_) => Accepted::Failed,
        };
    }
}

/// Why no connection can be accepted, and what to change.
fn accept_failure_text(error: Errno) -> String {
    let advice = match error {
        Errno::MFILE => "raise LimitNOFILE or ulimit -n",
        Errno::NFILE => {
            "raise the sysctl fs.file-max, or find the process that has many files open"
        }
        _ => {
            "the kernel is short of memory: check sysctl net.ipv4.tcp_mem and the memory of the host"
        }
    };
    format!("{}; {advice}", io::Error::from(error))
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Received {
    loop {
        return match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Received::Nothing,
            Ok((0, _)) | Err(_) => Received::Gone,
            Ok((count, _)) => Received::Bytes(count),
        };
    }
}

fn send(send: &Send<'_, OwnedFd>) -> Sent {
    loop {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        return match rustix::net::send(send.socket, send.bytes, flags) {
            Ok(count) if count == send.bytes.len() => Sent::Whole,
            Ok(count) => Sent::Part(count),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Sent::Part(0),
            Err(_) => Sent::Failed,
        };
    }
}

fn shut_down(socket: &OwnedFd) -> bool {
    rustix::net::shutdown(socket, Shutdown::Write).is_ok()
}

#[cfg(test)]
mod tests;
