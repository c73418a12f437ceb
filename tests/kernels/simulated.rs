//! The simulator's kernel as a world of the contract script: one core, and peers that are the other ends of its wires.

use std::net::{Ipv4Addr, SocketAddr};

use ringverb::mailbox::Doorbell;
use ringverb::tick::kernel::Kernel;

use super::kernel::{self, Shared, SimKernel, Wire};
use super::random::Random;
use super::world::World;

/// The core's number among those of the simulated world.
const CORE: usize = 0;
/// Bytes that a socket takes while its peer reads nothing.
const ROOM: usize = 256 * 1024;
/// The port of the first peer.
const FIRST_PORT: u16 = 40_000;

pub(crate) struct Simulated {
    kernel: SimKernel,
    world: Shared,
    listener: usize,
    is_strict: bool,
}

impl Simulated {
    /// A kernel whose watches last and whose accepts succeed.
    pub(crate) fn strict() -> Self {
        let simulated = Self::new(Random::new(1), true);
        simulated.world.borrow_mut().is_fickle = false;
        simulated
    }

    /// A kernel that ends watches and fails accepts at random, as it does in the simulator.
    pub(crate) fn fickle(seed: u64) -> Self {
        Self::new(Random::new(seed), false)
    }

    fn new(random: Random, is_strict: bool) -> Self {
        let mut world = kernel::World::new(random);
        assert_eq!(world.add_cores(1), CORE);
        let listener = world.add_listener();
        let world = Shared::new(world.into());
        Self { kernel: SimKernel { core: CORE, world: world.clone() }, world, listener, is_strict }
    }
}

impl World for Simulated {
    type Kernel = SimKernel;

    fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Each call of the script is a tick of its own, so that a socket may be read again.
    fn kernel(&mut self) -> &mut SimKernel {
        self.world.borrow_mut().begin_tick(CORE);
        &mut self.kernel
    }

    fn listener(&mut self) -> usize {
        self.listener
    }

    fn connect(&mut self) -> SocketAddr {
        let mut world = self.world.borrow_mut();
        let number = u16::try_from(world.wires.len()).expect("few peers");
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT + number));
        let mut wire = Wire::with_room(ROOM);
        (wire.peer, wire.is_http) = (peer, true);
        let wire = world.add_wire(wire);
        world.connect(self.listener, wire);
        peer
    }

    fn send(&mut self, peer: usize, bytes: &[u8]) {
        self.world.borrow_mut().send(peer, bytes);
    }

    fn take(&mut self, peer: usize, count: usize) -> Vec<u8> {
        let bytes = self.world.borrow_mut().take(peer, count);
        assert_eq!(bytes.len(), count, "what was sent");
        bytes
    }

    fn drain(&mut self, peer: usize) -> usize {
        self.world.borrow_mut().take(peer, usize::MAX).len()
    }

    fn is_ended(&mut self, peer: usize) -> bool {
        self.world.borrow().wires[peer].is_at_end()
    }

    fn end(&mut self, peer: usize) {
        self.world.borrow_mut().end(peer);
    }

    fn reset(&mut self, peer: usize) {
        self.world.borrow_mut().reset(peer);
    }

    fn watch_doorbell(&mut self) {
        let doorbell = Doorbell::new().expect("an eventfd");
        self.kernel().watch_doorbell(&doorbell);
    }

    fn ring(&mut self) {
        self.world.borrow_mut().ring(CORE);
    }

    /// One thread runs the simulated world, so nothing happens within a wait.
    fn ring_later(&mut self) {
        self.ring();
    }
}
