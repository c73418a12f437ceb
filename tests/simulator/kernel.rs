//! A kernel that exists only in the simulator: sockets as queues of bytes, completions as the real one posts them.
//!
//! It keeps to the contract of `tick::kernel` and is nasty within it: a watch for reading is level at first and then
//! reports each arrival once, reports fall together while nobody takes them, a watch ends now and then without `more`,
//! the end comes with the last bytes, sends are short, full sockets report once that there is room, and completions
//! come after their connection has gone. A socket that is closed while it is watched is a leak and ends the run.
//! Cores are numbered over all processes; a wire may have descriptors in two of them, and both are told of it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use ringverb::limits::{READ_BYTES_PER_CLOCK, READ_BYTES_PER_TICK_MAX, READ_TIME_PER_TICK_NS};
use ringverb::mailbox::Doorbell;
use ringverb::tick::kernel::{Accepted, Event, Kernel, Received, Send, Sent, Token, Watched};

/// A sequence of numbers from one seed; or choices from a script, and from a seed when it is over.
#[derive(Debug)]
pub(crate) struct Random {
    state: Cell<u64>,
    script: RefCell<VecDeque<u8>>,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let state = Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self { state, script: RefCell::default() }
    }

    pub(crate) fn scripted(script: &[u8]) -> Self {
        Self { script: RefCell::new(script.iter().copied().collect()), ..Self::new(1) }
    }

    pub(crate) fn script_is_over(&self) -> bool {
        self.script.borrow().is_empty()
    }

    pub(crate) fn next(&self) -> u64 {
        let mut state = self.state.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.state.set(state);
        state
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        if let Some(byte) = self.script.borrow_mut().pop_front() {
            return usize::from(byte) * bound.div_ceil(256).max(1) % bound;
        }
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    pub(crate) fn one_in(&self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// One connection between a client and the server.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) to_server: VecDeque<u8>,
    pub(crate) to_client: Vec<u8>,
    /// Bytes the server's side still takes.
    pub(crate) room: usize,
    /// The client has ended its half.
    pub(crate) ended: bool,
    /// The client has reset the connection.
    pub(crate) reset: bool,
    /// The server has ended its half.
    pub(crate) shut: bool,
    /// The server has closed its descriptor.
    pub(crate) closed: bool,
    /// Descriptors of the server's side, over all processes.
    descriptors: usize,
    /// By whom it is watched: core, and connection or session.
    watches: Vec<(usize, Watched)>,
    want_room: Vec<(usize, Watched)>,
    /// The client sends without end: what each read finds.
    pub(crate) source: Option<Source>,
}

/// Bytes that never run out.
#[derive(Debug)]
pub(crate) struct Source {
    /// Whole frames, sent over and over.
    pub(crate) cycle: Vec<u8>,
    pub(crate) at: usize,
    /// Bytes that have arrived by the time of a read.
    pub(crate) burst: usize,
}

impl Source {
    fn refill(&mut self, to_server: &mut VecDeque<u8>) {
        while to_server.len() < self.burst {
            to_server.push_back(self.cycle[self.at]);
            self.at = (self.at + 1) % self.cycle.len();
        }
    }

    /// What is left of the frame or the cycle that has begun, so that other bytes may follow.
    pub(crate) fn rest(&self) -> &[u8] {
        if self.at == 0 { &[] } else { &self.cycle[self.at..] }
    }
}

impl Wire {
    pub(crate) fn with_room(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    fn is_readable(&self) -> bool {
        !self.to_server.is_empty() || self.source.is_some() || self.ended || self.reset
    }
}

/// How a core's ring stands to its doorbell.
#[derive(Clone, Debug, Default)]
struct Bell {
    is_watched: bool,
    /// It rang while nobody watched: whoever watches next is told.
    has_rung: bool,
}

/// What a core has read in its present tick.
#[derive(Clone, Debug, Default)]
struct Reads {
    wires: Vec<usize>,
    since: u64,
    /// Bytes, once the time for all reads was up.
    bytes_over_time: usize,
}

/// All wires, and the completions of each core.
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) wires: Vec<Wire>,
    completions: Vec<VecDeque<Event>>,
    bells: Vec<Bell>,
    stamp: Cell<u64>,
    /// By core.
    reads: Vec<Reads>,
}

pub(crate) type Shared = Rc<RefCell<World>>;

impl World {
    pub(crate) fn new(random: Random) -> Self {
        Self {
            random,
            wires: Vec::new(),
            completions: Vec::new(),
            bells: Vec::new(),
            stamp: Cell::new(0),
            reads: Vec::new(),
        }
    }

    /// Room for the cores of one more process; the number of the first.
    pub(crate) fn add_cores(&mut self, count: usize) -> usize {
        let first = self.completions.len();
        self.completions.resize_with(first + count, VecDeque::new);
        self.reads.resize(first + count, Reads::default());
        self.bells.resize(first + count, Bell::default());
        first
    }

    /// A process ends, and with it all that it watched.
    pub(crate) fn exit(&mut self, cores: std::ops::Range<usize>) {
        for wire in &mut self.wires {
            wire.watches.retain(|(core, _)| !cores.contains(core));
            wire.want_room.retain(|(core, _)| !cores.contains(core));
        }
    }

    /// A core begins a tick.
    pub(crate) fn begin_tick(&mut self, core: usize) {
        self.reads[core] = Reads { since: self.stamp.get(), ..Reads::default() };
    }

    /// Whether a core's ring would wake it.
    pub(crate) fn wakes(&self, core: usize) -> bool {
        !self.completions[core].is_empty()
    }

    /// A core's doorbell rings. The watch may end with the report.
    pub(crate) fn ring(&mut self, core: usize) {
        let more = !self.random.one_in(8);
        let bell = &mut self.bells[core];
        bell.has_rung = !bell.is_watched;
        if bell.is_watched {
            bell.is_watched = more;
            let token = Token::Doorbell;
            self.completions[core].push_back(Event { token, more, end: false, failed: false });
        }
    }

    /// Something has come for the server, or the client's end.
    pub(crate) fn arrive(&mut self, wire: usize) {
        for (core, key) in self.wires[wire].watches.clone() {
            self.tell(wire, core, key);
        }
    }

    fn tell(&mut self, wire: usize, core: usize, watched: Watched) {
        let end = self.wires[wire].ended || self.wires[wire].reset;
        let token = Token::Readable(watched);
        // One that nobody has taken yet tells of this, too.
        if let Some(waiting) = self.completions[core].iter_mut().find(|event| event.token == token)
        {
            waiting.end |= end;
            return;
        }
        let more = !self.random.one_in(8);
        if !more {
            self.wires[wire].watches.retain(|(other, _)| *other != core);
        }
        self.completions[core].push_back(Event { token, more, end, failed: false });
    }

    /// The client takes up to so many bytes.
    pub(crate) fn take(&mut self, wire: usize, most: usize) -> Vec<u8> {
        let found = &mut self.wires[wire];
        let count = found.to_client.len().min(most);
        let taken = found.to_client.drain(..count).collect();
        found.room += count;
        if count > 0 {
            self.make_room(wire);
        }
        taken
    }

    pub(crate) fn reset(&mut self, wire: usize) {
        self.wires[wire].reset = true;
        self.make_room(wire);
        self.arrive(wire);
    }

    fn make_room(&mut self, wire: usize) {
        for (core, key) in std::mem::take(&mut self.wires[wire].want_room) {
            self.post(core, Token::Writable(key));
        }
    }

    fn post(&mut self, core: usize, token: Token) {
        self.completions[core].push_back(Event { token, more: false, end: false, failed: false });
    }
}

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
        let wire = &mut world.wires[self.wire];
        let watched =
            wire.watches.iter().chain(&wire.want_room).any(|(core, _)| *core == self.core);
        assert!(!watched, "closed while it is watched");
        assert!(!wire.closed, "closed twice");
        wire.descriptors -= 1;
        wire.closed = wire.descriptors == 0;
    }
}

/// One core's kernel.
pub(crate) struct SimKernel {
    pub(crate) core: usize,
    pub(crate) world: Shared,
}

impl Kernel for SimKernel {
    type Socket = Socket;
    type Listener = ();

    fn watch_listener(&mut self, (): &(), _index: u32) {}

    fn unwatch_listener(&mut self, (): &(), _index: u32) {}

    fn accept(&mut self, (): &()) -> Accepted<Socket> {
        Accepted::Nothing
    }

    fn watch_readable(&mut self, socket: &Socket, watched: Watched) {
        let mut world = self.world.borrow_mut();
        let wire = &mut world.wires[socket.wire];
        assert!(wire.watches.iter().all(|(core, _)| *core != self.core), "watched twice");
        wire.watches.push((self.core, watched));
        if wire.is_readable() {
            world.tell(socket.wire, self.core, watched);
        }
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
            world.post(self.core, Token::Writable(watched));
        } else {
            wire.want_room.push((self.core, watched));
        }
    }

    fn unwatch(&mut self, socket: &Socket, watched: Watched, writable_too: bool) {
        let mut world = self.world.borrow_mut();
        let ours = (self.core, watched);
        let wire = &mut world.wires[socket.wire];
        wire.watches.retain(|watch| *watch != ours);
        wire.want_room.retain(|watch| !writable_too || *watch != ours);
    }

    fn submit(&mut self) {}

    /// Cores wait in `Process::wakes`.
    fn park(&mut self, _timeout_ms: Option<u64>) {}

    fn reap(&mut self, events: &mut Vec<Event>) {
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
        if wire.reset {
            return Received::Gone;
        }
        if let Some(source) = &mut wire.source {
            source.refill(&mut wire.to_server);
        }
        let count = wire.to_server.len().min(buffer.len());
        if is_over_time {
            // Each of these bytes counts for the next look at the clock, which ends the reading.
            let before = reads.bytes_over_time;
            assert!(before < READ_BYTES_PER_CLOCK, "reading goes on when its time is up");
            reads.bytes_over_time += count;
        }
        for (slot, byte) in buffer.iter_mut().zip(wire.to_server.drain(..count)) {
            *slot = byte;
        }
        let is_endless = wire.source.is_some();
        let received = match count {
            0 if wire.ended => Received::Gone,
            0 => Received::Nothing,
            count => Received::Bytes(count),
        };
        if is_endless {
            // More has arrived meanwhile.
            world.arrive(socket.wire);
        }
        received
    }

    fn shut_down(&mut self, socket: &Socket) -> bool {
        let mut world = self.world.borrow_mut();
        let wire = &mut world.wires[socket.wire];
        wire.shut = true;
        !wire.reset
    }

    fn stamp(&self) -> u64 {
        let world = self.world.borrow();
        world.stamp.set(world.stamp.get() + 1);
        world.stamp.get()
    }
}
