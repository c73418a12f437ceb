//! A kernel that exists only in the simulator: sockets as queues of bytes, completions as the real one posts them.
//!
//! It keeps to the contract of `tick::kernel` and is nasty within it: a watch for reading is level at first and then
//! reports each arrival once, reports fall together while the core does not take them, a watch ends now and then
//! without `is_armed`, the end comes with the last bytes, sends are short, full sockets report once that there is room,
//! and completions come after their connection has gone. A socket that is closed while it is watched is a leak and ends
//! the run. Accepting fails now and then, for one connection or for want of descriptors. A socket with unread input
//! that is closed is reset, as TCP does it, and what its client has not read is lost. With `World::is_secure` the bytes
//! of a wire are records of `cipher.rs`; clients and backends of the model do not notice. Cores are numbered over all
//! processes; a wire may have descriptors in two of them, and both get its reports.

pub(crate) mod world;

use ringverb::limits::{
    READ_BYTES_PER_CLOCK, READ_BYTES_PER_TICK_MAX, READ_COST_BYTES_MIN, READ_TIME_PER_TICK_NS,
};
use ringverb::mailbox::Doorbell;
use ringverb::tick::kernel::{Accepted, Kernel, KernelEvent, Received, Send, Sent, Watched};

use crate::cipher::SimChannel;
pub(crate) use world::{Shared, Wire, World};

/// The server's end of a wire.
pub(crate) struct Socket {
    pub(crate) wire: usize,
    core: usize,
    world: Shared,
}

impl Socket {
    pub(crate) fn new(wire: usize, core: usize, world: Shared) -> Self {
        world.borrow_mut().wires[wire].descriptors += 1;
        Self { wire, core, world }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Ok(mut world) = self.world.try_borrow_mut() else { return };
        if std::thread::panicking() {
            return;
        }
        let has_exited = world.exited.contains(&self.core);
        let wire = &mut world.wires[self.wire];
        let watched =
            wire.watches.iter().chain(&wire.want_room).any(|(core, _)| *core == self.core);
        assert!(!watched, "closed while it is watched");
        assert!(!wire.closed, "closed twice");
        wire.descriptors -= 1;
        wire.closed = wire.descriptors == 0;
        wire.closed_by_exit = wire.closed && has_exited;
        if wire.closed && wire.is_http && !wire.to_server.is_empty() {
            wire.cut_off();
        }
    }
}

/// One core's kernel.
pub(crate) struct SimKernel {
    pub(crate) core: usize,
    pub(crate) world: Shared,
}

impl Kernel for SimKernel {
    type Socket = Socket;
    /// By its number in the world.
    type Listener = usize;
    type Channel = SimChannel;

    fn watch_listener(&mut self, listener: &usize, index: u32) {
        let mut world = self.world.borrow_mut();
        let found = &mut world.listeners[*listener];
        assert!(found.watches.iter().all(|(core, _)| *core != self.core), "watched twice");
        found.watches.push((self.core, index));
        if !found.wires.is_empty() {
            world.report_listener(*listener, self.core, index);
        }
    }

    fn unwatch_listener(&mut self, listener: &usize, index: u32) {
        let mut world = self.world.borrow_mut();
        let ours = (self.core, index);
        world.listeners[*listener].watches.retain(|watch| *watch != ours);
    }

    fn accept(&mut self, listener: &usize) -> Accepted<Socket> {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let backlog = &mut world.listeners[*listener];
        let Some(wire) = backlog.wires.front().copied() else { return Accepted::Nothing };
        if world.is_short_of_descriptors && world.random.one_in(16) {
            return Accepted::Exhausted("no descriptors".to_owned());
        }
        if world.is_fickle && world.random.one_in(16) {
            return Accepted::Failed;
        }
        backlog.wires.pop_front();
        let found = &mut world.wires[wire];
        if found.reset && world.is_fickle && world.random.one_in(2) {
            found.closed = true;
            return Accepted::Failed;
        }
        found.descriptors += 1;
        let peer = found.peer;
        Accepted::Socket(Socket { wire, core: self.core, world: self.world.clone() }, peer)
    }

    fn watch_readable(&mut self, socket: &Socket, watched: Watched) {
        let mut world = self.world.borrow_mut();
        let wire = &mut world.wires[socket.wire];
        assert!(wire.watches.iter().all(|(core, _)| *core != self.core), "watched twice");
        wire.watches.push((self.core, watched));
        if wire.is_readable() {
            world.report(socket.wire, self.core, watched);
        }
    }

    fn watch_readable_once(&mut self, socket: &Socket, watched: Watched) {
        self.world.borrow_mut().wires[socket.wire].once.push((self.core, watched));
        self.watch_readable(socket, watched);
    }

    fn watch_doorbell(&mut self, _doorbell: &Doorbell) {
        let mut world = self.world.borrow_mut();
        let bell = &mut world.bells[self.core];
        assert!(!bell.is_watched, "watched twice");
        bell.is_watched = true;
        if bell.has_rung {
            world.ring(self.core);
        }
    }

    fn watch_writable(&mut self, socket: &Socket, watched: Watched) {
        let mut world = self.world.borrow_mut();
        let wire = &mut world.wires[socket.wire];
        if wire.room > 0 || wire.reset {
            world.report_room(socket.wire, self.core, watched);
        } else {
            wire.want_room.push((self.core, watched));
        }
    }

    fn unwatch(&mut self, socket: &Socket, watched: Watched, writable_too: bool) {
        let mut world = self.world.borrow_mut();
        let ours = (self.core, watched);
        let wire = &mut world.wires[socket.wire];
        wire.watches.retain(|watch| *watch != ours);
        wire.once.retain(|watch| *watch != ours);
        wire.want_room.retain(|watch| !writable_too || *watch != ours);
    }

    fn submit(&mut self) {}

    /// For the contract script. The cores of a simulated process wait in `Process::wakes`.
    fn park(&mut self, timeout_ms: Option<u64>) {
        let world = self.world.borrow();
        if !world.wakes(self.core) {
            let waited_ms = timeout_ms.expect("a wait without an end, and nothing to report");
            world.stamp.set(world.stamp.get() + waited_ms * 1_000_000);
        }
    }

    fn reap(&mut self, events: &mut Vec<KernelEvent>) {
        events.extend(self.world.borrow_mut().completions[self.core].drain(..));
    }

    fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = Send<'a, Socket>>,
        results: &mut Vec<Sent>,
    ) {
        let mut world = self.world.borrow_mut();
        results.clear();
        for send in sends {
            let wire = &mut world.wires[send.socket.wire];
            assert!(!wire.closed && !wire.shut, "sent on a socket whose half has ended");
            assert!(!send.bytes.is_empty(), "a send of nothing");
            if wire.reset {
                results.push(Sent::Failed);
                continue;
            }
            let count = send.bytes.len().min(wire.room);
            wire.room -= count;
            wire.to_client.extend_from_slice(&send.bytes[..count]);
            let whole = count == send.bytes.len();
            results.push(if whole { Sent::Whole } else { Sent::Part(count) });
        }
    }

    /// A read takes time, now and then more than all reads of a tick may take.
    fn receive(&mut self, socket: &Socket, buffer: &mut [u8]) -> Received {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let reads = &mut world.reads[self.core];
        assert!(!reads.wires.contains(&socket.wire), "a socket was read twice in one tick");
        assert!(buffer.len() <= READ_BYTES_PER_TICK_MAX, "a read of {} bytes", buffer.len());
        reads.wires.push(socket.wire);
        // The look at the clock that begins the tick takes time too.
        let is_over_time = world.stamp.get() > reads.since + READ_TIME_PER_TICK_NS + 1_000;
        let took = if world.random.one_in(16) { 3_000_000 } else { 1_000 };
        world.stamp.set(world.stamp.get() + took);
        let wire = &mut world.wires[socket.wire];
        // As on Linux: what came before a reset can still be read.
        if let Some(source) = wire.source.as_mut().filter(|_| !wire.reset) {
            source.refill(&mut wire.to_server);
        }
        let count = wire.to_server.len().min(buffer.len());
        if is_over_time && wire.is_connection(self.core) {
            // Each read counts toward the next look at the clock, which ends the reading.
            let before = reads.bytes_over_time;
            assert!(before < READ_BYTES_PER_CLOCK, "reading goes on when its time is up");
            reads.bytes_over_time += count.max(READ_COST_BYTES_MIN);
        }
        for (slot, byte) in buffer.iter_mut().zip(wire.to_server.drain(..count)) {
            *slot = byte;
        }
        let is_endless = wire.source.is_some() && !wire.reset;
        let received = match count {
            0 if wire.ended || wire.reset => Received::Gone,
            0 => Received::Nothing,
            count => Received::Bytes(count),
        };
        if is_endless {
            // More has arrived during the read.
            world.arrive(socket.wire);
        }
        received
    }

    fn shut_down(&mut self, socket: &Socket) -> bool {
        let mut world = self.world.borrow_mut();
        let wire = &mut world.wires[socket.wire];
        wire.shut = true;
        let is_connected = !wire.reset;
        if is_connected && wire.is_readable() {
            // The kernel wakes the core that watches the socket, and reports the state that it finds.
            world.arrive(socket.wire);
        }
        is_connected
    }

    fn stamp(&self) -> u64 {
        let world = self.world.borrow();
        world.stamp.set(world.stamp.get() + 1);
        world.stamp.get()
    }
}
