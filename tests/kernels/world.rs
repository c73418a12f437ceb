//! What the contract script needs of the other side of a kernel: peers that connect, send, read, end and reset.

use std::net::SocketAddr;

use ringverb::tick::kernel::Kernel;

pub(crate) type Socket<W> = <<W as World>::Kernel as Kernel>::Socket;
pub(crate) type Listener<W> = <<W as World>::Kernel as Kernel>::Listener;

/// The world around one kernel. Peers are numbered in the order in which they connect.
pub(crate) trait World {
    type Kernel: Kernel;

    /// Every report has a cause, and no accept fails.
    fn is_strict(&self) -> bool;
    fn kernel(&mut self) -> &mut Self::Kernel;
    fn listener(&mut self) -> Listener<Self>;
    /// A peer connects. Its address.
    fn connect(&mut self) -> SocketAddr;
    fn send(&mut self, peer: usize, bytes: &[u8]);
    /// Reads until so many bytes have come.
    fn take(&mut self, peer: usize, count: usize) -> Vec<u8>;
    /// Reads what has come; how much.
    fn drain(&mut self, peer: usize) -> usize;
    /// The peer has read everything, and the end behind it.
    fn is_ended(&mut self, peer: usize) -> bool;
    /// Ends the peer's half.
    fn end(&mut self, peer: usize);
    fn reset(&mut self, peer: usize);
    fn watch_doorbell(&mut self);
    /// Rings the doorbell of a core that sleeps.
    fn ring(&mut self);
    /// The same, when the core has most likely begun to wait.
    fn ring_later(&mut self);
}
