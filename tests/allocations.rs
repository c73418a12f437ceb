//! The hot path allocates nothing for a delivery: the mark HOT of `shard/local/delivery.rs` and `tick/flush.rs` says
//! so. A whole `tick::Core` runs, on a kernel that takes what it is given: publish, mail, tick and flush.
//!
//! A program of its own, because it replaces the allocator. Only allocations of the thread of the test count.

#[path = "../bench/benches/setup/mod.rs"]
mod setup;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use ringverb::admission::overload::Overload;
use ringverb::api::Publication;
use ringverb::app::Apps;
use ringverb::mailbox::{Doorbell, mesh};
use ringverb::pusher::channel_name::ChannelName;
use ringverb::tick::Core;
use ringverb::tick::http::{Http, Rules};
use ringverb::tick::kernel::{Accepted, Kernel, KernelEvent, Received, Send, Sent, Watched};
use ringverb::tls::TlsChannel;
use ringverb::ws::frame;

/// The system's allocator, and how often each thread has asked it for memory.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has no cell any longer.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: all is done by `System`; the counter is a cell without a destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the same contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A kernel that takes all of each send and has nothing to read.
#[derive(Default)]
struct Taking {
    sends: usize,
}

impl Kernel for Taking {
    type Socket = ();
    type Listener = ();
    type Channel = TlsChannel;

    fn watch_listener(&mut self, (): &(), _index: u32) {}

    fn unwatch_listener(&mut self, (): &(), _index: u32) {}

    fn accept(&mut self, (): &()) -> Accepted<()> {
        Accepted::Nothing
    }

    fn watch_readable(&mut self, (): &(), _watched: Watched) {}

    fn watch_writable(&mut self, (): &(), _watched: Watched) {}

    fn unwatch(&mut self, (): &(), _watched: Watched, _writable_too: bool) {}

    fn watch_doorbell(&mut self, _doorbell: &Doorbell) {}

    fn submit(&mut self) {}

    fn park(&mut self, _timeout_ms: Option<u64>) {}

    fn reap(&mut self, _events: &mut Vec<KernelEvent>) {}

    fn send_all<'a>(&mut self, sends: impl Iterator<Item = Send<'a, ()>>, results: &mut Vec<Sent>) {
        results.clear();
        results.extend(sends.map(|_| Sent::Whole));
        self.sends += results.len();
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

/// A lone core without connections.
fn core() -> Core<Taking> {
    let config = setup::config();
    let overload = Arc::new(Overload::new(&config, 1));
    let rules = Rules {
        request_size_max: config.request_size_max,
        request_seconds: 10,
        keepalive_seconds: 75,
        prefix: String::new(),
        verbose_errors: false,
        debug: false,
        print_events: false,
        connections_max: 64,
    };
    let apps = Arc::new(Apps::new(config.apps));
    let http = Http::new(rules, apps, overload, Box::new(|| 0));
    let mailbox = mesh(1).expect("a doorbell").remove(0);
    Core::new(setup::shard(), mailbox, http, Taking::default(), 0)
}

/// A core whose channel `news` has so many subscribers, after some publishes: its lists have their room.
fn core_with(subscribers: u64) -> Core<Taking> {
    let mut core = core();
    for number in 1..=subscribers {
        let key = core.shard.open(setup::APP, number.wrapping_mul(0x9e37_79b9_7f4a_7c15), b"");
        core.reactor.adopt(&mut core.shard, key, (), &mut []);
        core.shard.on_message(key, br#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#);
        tick(&mut core);
    }
    for _ in 0..3 {
        core.publish(setup::APP, &[publication()]);
        tick(&mut core);
    }
    core
}

fn tick(core: &mut Core<Taking>) {
    core.tick();
    core.finish();
}

/// What the HTTP API makes of a request.
fn publication() -> Publication {
    let channel = ChannelName::parse("news").expect("a name");
    let frame = frame::encode_text(br#"{"event":"e","data":"1","channel":"news"}"#).into();
    Publication { channel, frame, except: None }
}

/// The allocations of one publish with all its deliveries and sends, and how many sends there were.
fn allocations(core: &mut Core<Taking>) -> (u64, usize) {
    let publications = [publication()];
    let (before, sends_before) = (ALLOCATIONS.get(), core.reactor.kernel.sends);
    core.publish(setup::APP, &publications);
    tick(core);
    (ALLOCATIONS.get() - before, core.reactor.kernel.sends - sends_before)
}

#[test]
fn a_publish_allocates_as_much_for_a_thousand_subscribers_as_for_one() {
    let [one, thousand] = [1, 1_000].map(|subscribers| allocations(&mut core_with(subscribers)));
    assert_eq!((one.1, thousand.1), (1, 1_000), "each subscriber is sent one frame in one send");
    assert_eq!(one.0, thousand.0, "a delivery allocates");
    // The counter counts: making the publication itself allocates.
    let before = ALLOCATIONS.get();
    drop(publication());
    assert!(ALLOCATIONS.get() > before);
    assert!(one.0 <= 8, "{} allocations for one publish", one.0);
}
