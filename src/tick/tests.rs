//! A core on a kernel that says what a test wants it to say.

use std::sync::Arc;

use super::kernel::{Event, Kernel, Received, Send, Sent};
use super::*;
use crate::app::{App, AppIndex, Apps, sample};
use crate::counters::{RefusalCounters, Refused};
use crate::mailbox::{Doorbell, mesh};
use crate::shard::{ConnectionKey, Settings};

/// A kernel with nothing to read, that reports `sent` of each send.
struct Scripted {
    sent: fn(usize) -> Sent,
}

impl Kernel for Scripted {
    type Socket = ();

    fn watch_readable(&mut self, (): &(), _key: ConnectionKey) {}

    fn watch_doorbell(&mut self, _doorbell: &Doorbell) {}

    fn watch_writable(&mut self, (): &(), _key: ConnectionKey) {}

    fn unwatch(&mut self, _key: ConnectionKey, _writable_too: bool) {}

    fn request_again(&mut self) {}

    fn submit(&mut self) {}

    fn has_early(&self) -> bool {
        false
    }

    fn reap(&mut self, _events: &mut Vec<Event>) {}

    fn send_all<'a>(
        &mut self,
        sends: impl Iterator<Item = Send<'a, ()>>,
        results: &mut Vec<Sent>,
        _events: &mut Vec<Event>,
    ) {
        results.clear();
        results.extend(sends.map(|send| (self.sent)(send.bytes.len())));
    }

    fn receive(&mut self, (): &(), _buffer: &mut [u8]) -> Received {
        Received::Nothing
    }

    fn shut_down(&mut self, (): &()) -> bool {
        true
    }

    fn stamp(&self) -> u64 {
        0
    }
}

fn core_of(app: App, sent: fn(usize) -> Sent) -> Core<Scripted> {
    let apps = Arc::new(Apps::new(vec![app]));
    assert!(apps.get(AppIndex(0)).admit(), "each test opens one connection");
    let mailbox = mesh(1).unwrap().remove(0);
    Core::new(Shard::new(Settings::alone(apps)), mailbox, Scripted { sent }, 0)
}

fn open(core: &mut Core<Scripted>) -> ConnectionKey {
    let key = core.shard.open(AppIndex(0), 99, b"HTTP/1.1 101 \r\n\r\n");
    core.reactor.adopt(&mut core.shard, key, (), &mut []);
    key
}

fn tick(core: &mut Core<Scripted>) {
    core.turn();
    core.finish();
}

#[test]
fn a_connection_is_closed_and_counted_when_the_kernel_reports_more_than_it_was_given() {
    let mut core = core_of(sample(), |given| Sent::Part(given + 1));
    let key = open(&mut core);
    tick(&mut core);
    assert!(core.shard.get(key).is_none());
    let counters = RefusalCounters::default();
    counters.take(&mut core.shard.outbox.refused);
    assert_eq!(counters.get()[Refused::Kernel as usize], 1);
}

#[test]
fn a_connection_stays_when_the_kernel_reports_exactly_what_it_was_given() {
    let mut core = core_of(sample(), Sent::Part);
    let key = open(&mut core);
    tick(&mut core);
    assert!(core.shard.get(key).is_some());
    assert!(core.shard.send_queue(key.slot).unwrap().is_empty());
}
