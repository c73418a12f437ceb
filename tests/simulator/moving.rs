//! The process gives its connections to another one, with another number of cores and another seed, while clients go
//! on: or to one that dies before it has taken them, and goes on itself.

use ringverb::mailbox::Carried;
use ringverb::shard::ChannelState;
use ringverb::tick::Moved;

use crate::process::Process;
use crate::simulation::{Simulation, ring_capacity};

/// One connection on its way, and its wire.
type OnItsWay = (Vec<u8>, usize);

impl Simulation {
    /// As the control threads and the workers of two processes do it.
    pub(crate) fn hand_over(&mut self) {
        while self.process.cores.iter().any(|core| !core.is_paused()) {
            let core = self.core();
            self.process.cores[core].pause();
            self.bustle();
        }
        self.rest();
        let cores = 1 + u16::try_from(self.below(5)).expect("few");
        let (ring, seed) = (ring_capacity(&self.world), self.world.borrow().random.next());
        let mut new = Process::new(&self.world, cores, ring, seed, None);
        new.now = self.process.now;
        for core in &mut new.cores {
            core.pause();
            core.shard.advance(new.now);
        }
        let (connections, channels) = given(&self.process);
        let partly = self.below(4) == 0;
        for (place, (bytes, wire)) in connections.into_iter().enumerate() {
            if partly && self.below(4) == 0 {
                continue;
            }
            let core = place % new.cores.len();
            let moved: Moved = postcard::from_bytes(&bytes).expect("a connection");
            let socket = new.socket(core, wire);
            new.cores[core].take_in(moved, socket);
        }
        for state in channels {
            let core = self.below(new.cores.len());
            new.cores[core].take_in_channel(state);
        }
        let mut other = std::mem::replace(&mut self.process, new);
        self.process.cores.iter_mut().for_each(ringverb::tick::Core::settle_in);
        self.bustle();
        self.rest();
        if partly {
            std::mem::swap(&mut other, &mut self.process);
        }
        other.exit();
        if !partly {
            // Who asked is gone with the old process.
            self.asked.clear();
        }
        for core in 0..self.process.cores.len() {
            self.process.resume(core);
        }
    }

    /// What may happen at any time.
    fn bustle(&mut self) {
        for _ in 0..self.below(6) {
            match self.below(8) {
                0 => self.speak(|client, channel| client.subscribe(channel)),
                1 => self.speak(|client, channel| client.unsubscribe(channel)),
                2 => self.client_event(),
                3 => self.end(),
                4 => self.toggle_reading(),
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
            let carried: Vec<Carried> =
                self.process.cores.iter().map(|core| core.mailbox.carried()).collect();
            let sum = |what: fn(&Carried) -> u64| carried.iter().map(what).sum::<u64>();
            let quiet = self.process.cores.iter().all(ringverb::tick::Core::is_quiet);
            let equal = sum(|carried| carried.sent) == sum(|carried| carried.received);
            if quiet && equal && before.as_ref() == Some(&carried) {
                return;
            }
            before = Some(carried);
        }
    }
}

/// All that a process has, as it travels.
fn given(process: &Process) -> (Vec<OnItsWay>, Vec<ChannelState>) {
    let mut connections = Vec::new();
    let mut channels = Vec::new();
    for core in &process.cores {
        for moved in core.moves() {
            let (_, moved, socket) = moved.expect("a core at rest");
            connections.push((postcard::to_allocvec(&moved).expect("bytes"), socket.wire));
        }
        channels.extend(core.shard.export_channels());
    }
    (connections, channels)
}
