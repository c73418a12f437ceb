//! The process gives its connections to another one, with another number of cores and another seed, while clients go
//! on: or to one that dies before it has taken them, and goes on itself.

use ringverb::mailbox::MailTotals;
use ringverb::shard::ChannelState;
use ringverb::tick::{SessionPeer, TransferredConnection, TransferredSession};
use ringverb::tls::socket::SecureState;

use crate::process::{Process, Shape};
use crate::simulation::{Simulation, ring_capacity};

/// One connection on its way, its wire, and whom it is counted for.
type OnItsWay = (Vec<u8>, usize, Option<ringverb::admission::ClientAddress>);
type SimCore = ringverb::tick::Core<crate::kernel::SimKernel>;

struct OneSession {
    wire: usize,
    peer: SessionPeer,
    served: bool,
    input: Vec<u8>,
    secure: Option<Box<SecureState>>,
}

#[derive(Default)]
struct Given {
    connections: Vec<OnItsWay>,
    channels: Vec<ChannelState>,
    sessions: Vec<OneSession>,
}

impl Simulation {
    /// As the main threads and the workers of two processes do it.
    pub(crate) fn take_over(&mut self) {
        if !self.stand_aside() {
            return self.go_on();
        }
        while self.process.cores.iter().any(|core| !core.is_paused()) {
            let core = self.core();
            self.process.cores[core].pause();
            self.bustle();
        }
        self.rest();
        let mut new = self.new_process();
        if self.below(2) == 0 {
            // The last answers of this process arrive before it ends.
            self.read_backends();
        }
        // Some may have come to the end of their requests.
        self.note_left(&exported_wires(&self.process));
        let Given { connections, channels, sessions } = given(&self.process);
        let partly = self.below(4) == 0;
        for (place, (bytes, wire, client)) in connections.into_iter().enumerate() {
            if partly && self.below(4) == 0 {
                continue;
            }
            let core = place % new.cores.len();
            let moved: TransferredConnection = postcard::from_bytes(&bytes).expect("a connection");
            let socket = new.socket(core, wire);
            let key = new.cores[core].import_connection(moved, socket);
            if let Some(client) = client {
                new.places[core]
                    .insert(key.slot, new.overload.admission.count_transferred_connection(client));
            }
        }
        for (place, session) in sessions.into_iter().enumerate() {
            let core = place % new.cores.len();
            let socket = new.socket(core, session.wire);
            let OneSession { peer, served, input, secure, .. } = session;
            new.cores[core].import_session(socket, peer, served, &input, secure);
        }
        for state in channels {
            let core = self.below(new.cores.len());
            new.cores[core].import_channel(state);
        }
        let mut other = std::mem::replace(&mut self.process, new);
        self.process.cores.iter_mut().for_each(ringverb::tick::Core::finish_import);
        self.bustle();
        self.rest();
        if partly {
            std::mem::swap(&mut other, &mut self.process);
        }
        other.exit();
        if !partly {
            // Who asked is gone with the old process.
            self.asked.clear();
            self.has_moved = true;
            self.backends.iter_mut().for_each(crate::backend::Backend::forget_stage);
        }
        self.go_on();
    }

    /// Nothing is accepted, and HTTP sessions stand aside. Some never do, because their clients do not read, or have
    /// sent a part of a request only. Then either the process goes on, or their time is up.
    fn stand_aside(&mut self) -> bool {
        for core in &mut self.process.cores {
            core.http.accepts = false;
            core.set_transferring(true);
        }
        self.bustle();
        self.settle();
        let busy = |core: &SimCore| core.busy_sessions() > 0;
        let is_late = self.process.cores.iter().any(busy);
        if is_late && self.below(2) == 0 {
            return false;
        }
        self.note_left(&exported_wires(&self.process));
        // What comes now is left to the new process.
        self.poke_a_backend();
        self.settle();
        let is_busy = self.process.cores.iter().any(busy);
        assert!(is_late || !is_busy, "a session does not stand aside");
        true
    }

    /// The other connections of backends stay with this process.
    fn note_left(&mut self, exported: &[usize]) {
        for backend in self.backends.iter_mut().filter(|backend| !backend.over) {
            let is_served = self.world.borrow().wires[backend.wire].is_served();
            backend.set_left(is_served && !exported.contains(&backend.wire));
        }
    }

    /// The process serves, be it the old one or the new one.
    fn go_on(&mut self) {
        for core in 0..self.process.cores.len() {
            let found = &mut self.process.cores[core];
            found.http.accepts = true;
            found.set_transferring(false);
            self.process.resume(core);
        }
    }

    /// The new process, before it has taken anything in.
    fn new_process(&self) -> Process {
        let world = self.world.borrow();
        let random = &world.random;
        let shape = Shape {
            cores: 1 + u16::try_from(random.below(5)).expect("few"),
            ring_capacity: ring_capacity(random),
            seed: random.next(),
            http_connections_max: self.http_connections_max,
            counts_addresses: self.process.overload.admission.limits_clients(),
            listeners: self.process.listeners.iter().flatten().copied().collect(),
            is_new_process: true,
        };
        drop(world);
        let mut new = Process::new(&self.world, shape, None);
        new.now = self.process.now;
        new.cores.iter_mut().for_each(|core| core.shard.advance(new.now));
        new
    }

    /// What may happen at any time.
    fn bustle(&mut self) {
        for _ in 0..self.below(6) {
            match self.below(8) {
                0 => self.act(|client, channel| client.subscribe(channel)),
                1 => self.act(|client, channel| client.unsubscribe(channel)),
                2 => self.client_event(),
                3 => self.end(),
                4 => self.toggle_reading(),
                5 => self.poke_a_backend(),
                _ => self.run_a_core(),
            }
            self.read_all();
        }
    }

    /// Until no mail is under way, seen twice.
    fn rest(&mut self) {
        let mut before = None;
        for round in 0.. {
            assert!(round < 10_000, "mail never runs dry");
            self.process.tick_all();
            let carried: Vec<MailTotals> =
                self.process.cores.iter().map(|core| core.mailbox.mail_totals()).collect();
            let sum = |what: fn(&MailTotals) -> u64| carried.iter().map(what).sum::<u64>();
            let quiet = self.process.cores.iter().all(ringverb::tick::Core::is_quiet);
            let equal = sum(|carried| carried.sent) == sum(|carried| carried.received);
            if quiet && equal && before.as_ref() == Some(&carried) {
                return;
            }
            before = Some(carried);
        }
    }
}

/// Connections of HTTP sessions that another process can go on with.
fn exported_wires(process: &Process) -> Vec<usize> {
    let sessions = process.cores.iter().flat_map(SimCore::export_sessions);
    sessions.map(|session| session.socket.wire).collect()
}

/// All that a process has, as it travels.
fn given(process: &Process) -> Given {
    let mut given = Given::default();
    for (index, core) in process.cores.iter().enumerate() {
        for moved in core.export_connections() {
            let (key, moved, socket) = moved.expect("a core at rest");
            let client = process.overload.admission.client_of(&process.places[index].get(key.slot));
            let bytes = postcard::to_allocvec(&moved).expect("bytes");
            given.connections.push((bytes, socket.wire, client));
        }
        given.channels.extend(core.shard.export_channels());
        for TransferredSession { socket, peer, served, input, secure } in core.export_sessions() {
            let (wire, input) = (socket.wire, input.to_vec());
            given.sessions.push(OneSession { wire, peer, served, input, secure });
        }
    }
    given
}
