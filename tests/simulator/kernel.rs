//! A kernel that exists only in the simulator: sockets as queues of bytes, completions as the real one posts them.
//!
//! It keeps to the contract of `tick::kernel` and is nasty within it: a watch for reading is level at first and then
//! reports each arrival once, reports fall together while nobody takes them, a watch ends now and then without `more`,
//! the end comes with the last bytes, sends are short, full sockets report once that there is room, and completions
//! come after their connection has gone. A socket that is closed while it is watched is a leak and ends the run.
//! Accepting fails now and then, for one connection or for want of descriptors. A socket with unread input that is
//! closed is reset, as TCP does it, and what its client has not read is lost.
//! With `World::is_secure` the bytes of a wire are records of `cipher.rs`; clients and backends of the model do not
//! notice. Cores are numbered over all processes; a wire may have descriptors in two of them, and both get its reports.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use ringverb::limits::{READ_BYTES_PER_CLOCK, READ_BYTES_PER_TICK_MAX, READ_TIME_PER_TICK_NS};
use ringverb::mailbox::Doorbell;
use ringverb::tick::kernel::{Accepted, Kernel, KernelEvent, Received, Send, Sent, Token, Watched};

use crate::cipher::{SimChannel, SimClient, proxy_header};
use crate::random::Random;

/// One connection between a client and the server.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The client's address.
    pub(crate) peer: SocketAddr,
    /// Its client speaks HTTP to the end: a close with unread input resets it.
    pub(crate) is_http: bool,
    /// The server has reset it: what the client had not read is lost.
    pub(crate) cut: bool,
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
    /// With a cipher: the client's end.
    secure: Option<SimClient>,
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
        Self {
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)),
            is_http: false,
            cut: false,
            to_server: VecDeque::new(),
            to_client: Vec::new(),
            room,
            ended: false,
            reset: false,
            shut: false,
            closed: false,
            descriptors: 0,
            watches: Vec::new(),
            want_room: Vec::new(),
            source: None,
            secure: None,
        }
    }

    /// A process has it: it was accepted, and is not closed.
    pub(crate) fn is_served(&self) -> bool {
        self.descriptors > 0
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure.is_some()
    }

    /// The client has read all that it will ever get.
    pub(crate) fn is_at_end(&self) -> bool {
        self.cut || (self.shut || self.closed) && self.to_client.is_empty()
    }

    /// Whether one core's reports of it are those of an established WebSocket.
    fn is_connection(&self, core: usize) -> bool {
        let is_one = |watched: &Watched| matches!(watched, Watched::Connection(_));
        self.watches.iter().any(|(by, watched)| *by == core && is_one(watched))
    }

    fn cut_off(&mut self) {
        self.cut = true;
        self.to_client.clear();
    }

    fn is_readable(&self) -> bool {
        !self.to_server.is_empty() || self.source.is_some() || self.ended || self.reset
    }
}

/// Connections that wait to be accepted at one listener.
#[derive(Debug, Default)]
struct Backlog {
    wires: VecDeque<usize>,
    /// By whom it is watched: core, and the listener's index there.
    watches: Vec<(usize, u32)>,
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
    completions: Vec<VecDeque<KernelEvent>>,
    bells: Vec<Bell>,
    stamp: Cell<u64>,
    /// By core.
    reads: Vec<Reads>,
    listeners: Vec<Backlog>,
    /// Accepting fails now and then for want of descriptors; it goes on when time has passed.
    pub(crate) is_short_of_descriptors: bool,
    /// Watches end and accepts fail at random.
    pub(crate) is_fickle: bool,
    /// All connections have a cipher.
    pub(crate) is_secure: bool,
    pub(crate) proxies: Vec<IpAddr>,
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
            listeners: Vec::new(),
            is_short_of_descriptors: false,
            is_fickle: true,
            is_secure: false,
            proxies: Vec::new(),
        }
    }

    pub(crate) fn add_wire(&mut self, mut wire: Wire) -> usize {
        wire.secure = self.is_secure.then(SimClient::default);
        if self.proxies.contains(&wire.peer.ip()) {
            wire.to_server.extend(proxy_header(&self.random, wire.peer));
        }
        self.wires.push(wire);
        self.wires.len() - 1
    }

    pub(crate) fn add_listener(&mut self) -> usize {
        self.listeners.push(Backlog::default());
        self.listeners.len() - 1
    }

    /// A client connects.
    pub(crate) fn connect(&mut self, listener: usize, wire: usize) {
        self.listeners[listener].wires.push_back(wire);
        for (core, index) in self.listeners[listener].watches.clone() {
            self.report_listener(listener, core, index);
        }
    }

    /// Whether a watch goes on behind a report.
    fn goes_on(&self) -> bool {
        !self.is_fickle || !self.random.one_in(8)
    }

    fn report_listener(&mut self, listener: usize, core: usize, index: u32) {
        let token = Token::Readable(Watched::Listener(index));
        if self.completions[core].iter().any(|event| event.token == token) {
            return;
        }
        let more = self.goes_on();
        if !more {
            self.listeners[listener].watches.retain(|watch| *watch != (core, index));
        }
        self.completions[core].push_back(KernelEvent { token, more, end: false, failed: false });
    }

    /// Whether connections wait at a listener.
    pub(crate) fn has_waiting(&self, listener: usize) -> bool {
        !self.listeners[listener].wires.is_empty()
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
        for listener in &mut self.listeners {
            listener.watches.retain(|(core, _)| !cores.contains(core));
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
        let more = self.goes_on();
        let bell = &mut self.bells[core];
        bell.has_rung = !bell.is_watched;
        if bell.is_watched {
            bell.is_watched = more;
            let token = Token::Doorbell;
            self.completions[core].push_back(KernelEvent {
                token,
                more,
                end: false,
                failed: false,
            });
        }
    }

    /// The client sends.
    pub(crate) fn send(&mut self, wire: usize, bytes: &[u8]) {
        self.slip_in(wire, bytes);
        self.arrive(wire);
    }

    /// The client sends, and no report says so yet. Who sends to a closed socket is reset.
    pub(crate) fn slip_in(&mut self, wire: usize, bytes: &[u8]) {
        let updates = self.is_secure && self.random.one_in(8);
        let wire = &mut self.wires[wire];
        if wire.closed && wire.is_http {
            wire.cut_off();
        }
        match &mut wire.secure {
            None => wire.to_server.extend(bytes),
            Some(secure) => wire.to_server.extend(secure.seal(bytes, updates)),
        }
    }

    /// The client ends its half.
    pub(crate) fn end(&mut self, wire: usize) {
        self.wires[wire].ended = true;
        self.arrive(wire);
    }

    /// The same for a client that sends nothing afterwards: with a cipher it may announce that.
    pub(crate) fn end_for_good(&mut self, wire: usize) {
        let announces = self.is_secure && self.random.one_in(2);
        let found = &mut self.wires[wire];
        if let Some(secure) = found.secure.as_mut().filter(|_| announces) {
            found.to_server.extend(secure.close());
        }
        self.end(wire);
    }

    /// Something has come for the server, or the client's end.
    pub(crate) fn arrive(&mut self, wire: usize) {
        // Read before it was reported: the real kernels look again before they report, and may find nothing.
        if !self.wires[wire].is_readable() && self.random.one_in(2) {
            return;
        }
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
        let more = self.goes_on();
        if !more {
            self.wires[wire].watches.retain(|(other, _)| *other != core);
        }
        self.completions[core].push_back(KernelEvent { token, more, end, failed: false });
    }

    /// The client takes up to so many bytes.
    pub(crate) fn take(&mut self, wire: usize, most: usize) -> Vec<u8> {
        let found = &mut self.wires[wire];
        let count = found.to_client.len().min(most);
        let taken: Vec<u8> = found.to_client.drain(..count).collect();
        found.room += count;
        let taken = match &mut found.secure {
            None => taken,
            Some(secure) => secure.open(&taken),
        };
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
        for (core, watched) in std::mem::take(&mut self.wires[wire].want_room) {
            self.report_room(wire, core, watched);
        }
    }

    fn report_room(&mut self, wire: usize, core: usize, watched: Watched) {
        let found = &self.wires[wire];
        // io_uring reports the end of the peer's half with the room, epoll reports the end of both halves only.
        let end = found.reset || found.ended && (found.shut || self.random.one_in(2));
        let token = Token::Writable(watched);
        self.completions[core].push_back(KernelEvent { token, more: false, end, failed: false });
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
            // Each of these bytes counts for the next look at the clock, which ends the reading.
            let before = reads.bytes_over_time;
            assert!(before < READ_BYTES_PER_CLOCK, "reading goes on when its time is up");
            reads.bytes_over_time += count;
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
            // More has arrived meanwhile.
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
            // The kernel wakes whoever watches the socket, and reports what it finds.
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
