//! What all simulated cores share: wires, listeners, doorbells, and the reports that wait for each core.
//!
//! A wire is one TCP connection with a limited room in each direction. Watches end, sends are short and reports come
//! twice at random, as the random numbers of the seed decide.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use ringverb::tick::kernel::{KernelEvent, Token, Watched};

use crate::cipher::{SimClient, proxy_header};
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
    /// The descriptor was closed because its process has ended.
    pub(crate) closed_by_exit: bool,
    /// Descriptors of the server's side, over all processes.
    pub(super) descriptors: usize,
    /// By whom it is watched: core, and connection or session.
    pub(super) watches: Vec<(usize, Watched)>,
    /// Those that end with their first report.
    pub(super) once: Vec<(usize, Watched)>,
    pub(super) want_room: Vec<(usize, Watched)>,
    /// The client sends without end: what each read finds.
    pub(crate) source: Option<Source>,
    /// With a cipher: the client's end.
    pub(super) secure: Option<SimClient>,
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
    pub(super) fn refill(&mut self, to_server: &mut VecDeque<u8>) {
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
            closed_by_exit: false,
            descriptors: 0,
            watches: Vec::new(),
            once: Vec::new(),
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
    pub(super) fn is_connection(&self, core: usize) -> bool {
        let is_one = |watched: &Watched| matches!(watched, Watched::Connection(_));
        self.watches.iter().any(|(by, watched)| *by == core && is_one(watched))
    }

    pub(super) fn cut_off(&mut self) {
        self.cut = true;
        self.to_client.clear();
    }

    pub(super) fn is_readable(&self) -> bool {
        !self.to_server.is_empty() || self.source.is_some() || self.ended || self.reset
    }
}

/// Connections that wait to be accepted at one listener.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) wires: VecDeque<usize>,
    /// By whom it is watched: core, and the listener's index there.
    pub(super) watches: Vec<(usize, u32)>,
}

/// How a core's ring stands to its doorbell.
#[derive(Clone, Debug, Default)]
pub(super) struct Bell {
    pub(super) is_watched: bool,
    /// It rang while no watch was armed: the next watch reports it.
    pub(super) has_rung: bool,
}

/// What a core has read in its present tick.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    pub(super) wires: Vec<usize>,
    pub(super) since: u64,
    /// Bytes, once the time for all reads was up.
    pub(super) bytes_over_time: usize,
}

/// All wires, and the completions of each core.
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) wires: Vec<Wire>,
    pub(super) completions: Vec<VecDeque<KernelEvent>>,
    pub(super) bells: Vec<Bell>,
    pub(super) stamp: Cell<u64>,
    /// By core.
    pub(super) reads: Vec<Reads>,
    pub(super) listeners: Vec<Backlog>,
    /// Cores of processes that have ended.
    pub(super) exited: BTreeSet<usize>,
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
            exited: BTreeSet::new(),
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

    pub(super) fn report_listener(&mut self, listener: usize, core: usize, index: u32) {
        let token = Token::Readable(Watched::Listener(index));
        if self.completions[core].iter().any(|event| event.token == token) {
            return;
        }
        let more = self.goes_on();
        if !more {
            self.listeners[listener].watches.retain(|watch| *watch != (core, index));
        }
        self.completions[core].push_back(KernelEvent {
            token,
            is_armed: more,
            has_end: false,
            has_failed: false,
        });
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
            wire.once.retain(|(core, _)| !cores.contains(core));
            wire.want_room.retain(|(core, _)| !cores.contains(core));
        }
        for listener in &mut self.listeners {
            listener.watches.retain(|(core, _)| !cores.contains(core));
        }
        self.exited.extend(cores);
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
                is_armed: more,
                has_end: false,
                has_failed: false,
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
            self.report(wire, core, key);
        }
    }

    pub(super) fn report(&mut self, wire: usize, core: usize, watched: Watched) {
        let end = self.wires[wire].ended || self.wires[wire].reset;
        let token = Token::Readable(watched);
        // One that is not accepted yet reports this, too.
        if let Some(waiting) = self.completions[core].iter_mut().find(|event| event.token == token)
        {
            waiting.has_end |= end;
            return;
        }
        let is_once = self.wires[wire].once.contains(&(core, watched));
        let more = self.goes_on() && !is_once;
        if !more {
            self.wires[wire].once.retain(|(other, _)| *other != core);
            self.wires[wire].watches.retain(|(other, _)| *other != core);
        }
        self.completions[core].push_back(KernelEvent {
            token,
            is_armed: more,
            has_end: end,
            has_failed: false,
        });
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

    pub(super) fn report_room(&mut self, wire: usize, core: usize, watched: Watched) {
        let found = &self.wires[wire];
        // io_uring reports the end of the peer's half with the room, epoll reports the end of both halves only.
        let end = found.reset || found.ended && (found.shut || self.random.one_in(2));
        let token = Token::Writable(watched);
        self.completions[core].push_back(KernelEvent {
            token,
            is_armed: false,
            has_end: end,
            has_failed: false,
        });
    }
}
