//! What is allocated, counted: the hot path allocates nothing for a delivery, as the mark HOT of
//! `shard/local/delivery.rs` and `tick/flush.rs` says: a whole `tick::Core` publishes, ticks and flushes, on a kernel
//! that takes what it is given. An established TLS connection keeps one box.
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
use ringverb::tick::http::Http;
use ringverb::tick::kernel::{Accepted, Kernel, KernelEvent, Received, Send, Sent, Watched};
use ringverb::tls::socket::SecureSocket;
use ringverb::tls::{RECORD_BYTES_MAX, TlsChannel};
use ringverb::ws::frame;
use rustls::{ClientConfig, ClientConnection, ServerConfig};

/// The system's allocator, how often each thread has asked it for memory, and how much of it the thread has.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

/// `freed` may be memory of another thread, so the number of bytes wraps.
fn count(allocated: usize, freed: usize) {
    // A thread that ends has no cells any longer.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + u64::from(allocated > 0)));
    let change = allocated.wrapping_sub(freed);
    let _ = BYTES.try_with(|bytes| bytes.set(bytes.get().wrapping_add(change)));
}

// SAFETY: all is done by `System`; the counters are cells without a destructor and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller keeps the same contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
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
    let apps = Arc::new(Apps::new(config.apps));
    let http = Http::new(setup::rules(64), apps, overload, Box::new(|| 0));
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
    Publication { channel, frame, excluded_socket_id: None }
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

/// Connections that are counted together.
const COUNTED: usize = 50;
/// Over that of a plain connection (docs/decisions/0011).
const SECURE_BYTES_MAX: usize = 250;

/// The server's end of a connection, after the handshake and some content. Reads have at most `piece` bytes.
fn connect(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    piece: usize,
) -> Box<SecureSocket<TlsChannel>> {
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(client.clone(), name).expect("a client");
    std::io::Write::write_all(&mut client.writer(), b"a request").expect("room");
    let mut server = SecureSocket::<TlsChannel>::accept(server).expect("a channel");
    let mut content = Vec::new();
    loop {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).expect("memory");
        }
        if flight.is_empty() {
            break;
        }
        for piece in flight.chunks(piece) {
            let mut buffer = vec![0; RECORD_BYTES_MAX];
            buffer.extend_from_slice(piece);
            let end = buffer.len();
            let input = server.receive(&mut buffer, RECORD_BYTES_MAX, end);
            assert_eq!(input.end, None, "a good client");
            content.extend_from_slice(&buffer[input.plain]);
        }
        let mut answer = Vec::new();
        server.write(&mut answer, |out, _| {
            if !content.is_empty() {
                out.extend_from_slice(b"an answer");
            }
        });
        let mut answer = answer.as_slice();
        while !answer.is_empty() {
            client.read_tls(&mut answer).expect("room");
            client.process_new_packets().expect("a good server");
        }
    }
    assert_eq!(content, b"a request");
    server
}

#[test]
fn an_idle_tls_connection_keeps_one_box_in_every_version_and_however_its_handshake_arrived() {
    let server = setup::tls::server_config();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = Arc::new(setup::tls::client_config(version));
        for piece in [usize::MAX, 100] {
            // What the first handshake of a thread allocates for all, and the sessions that the client keeps.
            for _ in 0..10 {
                drop(connect(&client, &server, piece));
            }
            // A core's table of them is a list of pointers by slot, as this is.
            let before = BYTES.get();
            let mut table = Vec::with_capacity(COUNTED);
            table.extend((0..COUNTED).map(|_| Some(connect(&client, &server, piece))));
            let bytes = BYTES.get().wrapping_sub(before);
            let of_one = size_of::<SecureSocket<TlsChannel>>() + size_of::<usize>();
            assert_eq!(bytes, COUNTED * of_one, "{version:?} in pieces of {piece}");
            assert!(of_one <= SECURE_BYTES_MAX, "{of_one} bytes");
            drop(table);
            assert_eq!(BYTES.get(), before, "all is freed");
        }
    }
}
