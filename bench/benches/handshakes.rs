//! TLS in memory: CPU of a handshake on the server's side, this server beside rustls alone; CPU of a received record;
//! and the heap that an established connection keeps, counted. No socket.
//!
//! `cargo bench -p ringverb-bench --bench handshakes [ROUNDS]`. Both servers have the same configuration: certificate,
//! suites, key exchange, tickets. rustls alone is its buffered API. Only the server's calls are timed, by the clock of
//! the thread's CPU time, with the end of the connection. Rounds of all kinds alternate, and ratios are those of one
//! round, so that other work on the machine changes both sides alike.

mod setup;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringverb::tls::socket::SecureSocket;
use ringverb::tls::{RECORD_BYTES_MAX, TlsChannel};
use rustix::time::{ClockId, clock_gettime};
use rustls::client::Resumption;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

const HANDSHAKES_PER_ROUND: u32 = 40;
const CONNECTIONS_COUNTED: usize = 2_000;

/// The system's allocator, and the bytes that are allocated.
struct Counting(AtomicUsize);

#[global_allocator]
static ALLOCATOR: Counting = Counting(AtomicUsize::new(0));

// SAFETY: all is done by `System`; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.0.fetch_add(size, Ordering::Relaxed);
        self.0.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.0.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn client_config(version: &'static SupportedProtocolVersion, resumes: bool) -> Arc<ClientConfig> {
    let mut config = setup::tls::client_config(version);
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

/// Nanoseconds of CPU of this thread.
fn cpu() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The server's end of one connection.
trait ServerEnd {
    fn begin(config: &Arc<ServerConfig>) -> Self;
    /// Receives these bytes, and returns the answer.
    fn receive(&mut self, bytes: &[u8]) -> Vec<u8>;
}

struct RustlsAlone(ServerConnection);

impl ServerEnd for RustlsAlone {
    fn begin(config: &Arc<ServerConfig>) -> Self {
        Self(ServerConnection::new(config.clone()).expect("a connection"))
    }

    fn receive(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes).expect("room");
            self.0.process_new_packets().expect("a good client");
        }
        let mut answer = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut answer).expect("memory");
        }
        answer
    }
}

struct ThisServer {
    socket: Box<SecureSocket<TlsChannel>>,
    /// A core has one for all of its sockets.
    scratch: Vec<u8>,
}

impl ServerEnd for ThisServer {
    fn begin(config: &Arc<ServerConfig>) -> Self {
        let socket = SecureSocket::accept(config).expect("a channel");
        Self { socket, scratch: Vec::with_capacity(RECORD_BYTES_MAX + 8_192) }
    }

    fn receive(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.scratch.resize(RECORD_BYTES_MAX, 0);
        self.scratch.extend_from_slice(bytes);
        let end = self.scratch.len();
        let input = self.socket.receive(&mut self.scratch, RECORD_BYTES_MAX, end);
        assert_eq!(input.end, None, "a good client");
        let mut answer = Vec::new();
        self.socket.write(&mut answer, |_, _| {});
        answer
    }
}

/// One handshake: the server's CPU in nanoseconds, its end, and whether a session was resumed. `between`: what is not
/// the server's.
fn handshake<S: ServerEnd>(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> (u64, S, bool) {
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(client.clone(), name).expect("a client");
    let begin = cpu();
    let mut server = S::begin(server);
    let mut taken = cpu() - begin;
    loop {
        let mut to_server = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut to_server).expect("memory");
        }
        if to_server.is_empty() {
            break;
        }
        let begin = cpu();
        let answer = server.receive(&to_server);
        taken += cpu() - begin;
        let mut answer = answer.as_slice();
        while !answer.is_empty() {
            client.read_tls(&mut answer).expect("room");
            client.process_new_packets().expect("a good server");
        }
    }
    assert!(!client.is_handshaking(), "the handshake is complete");
    let is_resumed = client.handshake_kind() == Some(HandshakeKind::Resumed);
    (taken, server, is_resumed)
}

/// CPU of one handshake of this kind in microseconds, the mean of a round.
fn round<S: ServerEnd>(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    resumes: bool,
) -> f64 {
    let mut sum = 0;
    for _ in 0..HANDSHAKES_PER_ROUND {
        let (taken, end, is_resumed) = handshake::<S>(client, server);
        assert_eq!(is_resumed, resumes);
        let begin = cpu();
        drop(black_box(end));
        sum += taken + (cpu() - begin);
    }
    sum as f64 / f64::from(HANDSHAKES_PER_ROUND) / 1_000.0
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn least_and_greatest(values: &[f64]) -> (f64, f64) {
    let fold = |choose: fn(f64, f64) -> f64| values.iter().copied().reduce(choose).unwrap_or(0.0);
    (fold(f64::min), fold(f64::max))
}

/// Bytes of heap that an established connection keeps, with its entry in a table.
fn heap(version: &'static SupportedProtocolVersion, server: &Arc<ServerConfig>) -> f64 {
    let client = client_config(version, false);
    // What the first handshake of a thread allocates for all.
    drop(handshake::<ThisServer>(&client, server));
    let before = ALLOCATOR.0.load(Ordering::Relaxed);
    let mut table: Vec<Option<Box<SecureSocket<TlsChannel>>>> = Vec::new();
    table.reserve_exact(CONNECTIONS_COUNTED);
    for _ in 0..CONNECTIONS_COUNTED {
        let (_, end, _) = handshake::<ThisServer>(&client, server);
        table.push(Some(end.socket));
    }
    let grown = ALLOCATOR.0.load(Ordering::Relaxed) - before;
    black_box(&table);
    grown as f64 / CONNECTIONS_COUNTED as f64
}

/// Records that arrive in one read.
const BURSTS: [usize; 4] = [1, 2, 4, 16];
const READS_PER_ROUND: usize = 400;

/// A client that sends, and the server's end.
struct Sender {
    client: ClientConnection,
    server: ThisServer,
}

impl Sender {
    fn new(server: &Arc<ServerConfig>) -> Self {
        let config = client_config(&rustls::version::TLS13, false);
        let name = "localhost".try_into().expect("a name");
        let mut client = ClientConnection::new(config, name).expect("a client");
        let mut server = ThisServer::begin(server);
        while client.is_handshaking() || client.wants_write() {
            let mut flight = Vec::new();
            client.write_tls(&mut flight).expect("memory");
            let answer = server.receive(&flight);
            client.read_tls(&mut answer.as_slice()).expect("room");
            client.process_new_packets().expect("a good server");
        }
        Self { client, server }
    }

    /// CPU of one record of 100 bytes in nanoseconds, of reads with so many.
    fn open(&mut self, burst: usize) -> f64 {
        let mut taken = 0;
        for _ in 0..READS_PER_ROUND {
            let mut sealed = Vec::new();
            for _ in 0..burst {
                self.client.writer().write_all(&[b'x'; 100]).expect("room");
                while self.client.wants_write() {
                    self.client.write_tls(&mut sealed).expect("memory");
                }
            }
            let ThisServer { socket, scratch } = &mut self.server;
            scratch.resize(RECORD_BYTES_MAX, 0);
            scratch.extend_from_slice(&sealed);
            let end = scratch.len();
            let begin = cpu();
            let input = socket.receive(scratch, RECORD_BYTES_MAX, end);
            taken += cpu() - begin;
            assert_eq!((input.plain.len(), input.end), (100 * burst, None));
        }
        taken as f64 / (READS_PER_ROUND * burst) as f64
    }
}

fn records(rounds: usize, server: &Arc<ServerConfig>) {
    let mut sender = Sender::new(server);
    let mut taken = [const { Vec::new() }; BURSTS.len()];
    for _ in 0..rounds {
        for (burst, taken) in BURSTS.iter().zip(&mut taken) {
            taken.push(sender.open(*burst));
        }
    }
    for (burst, taken) in BURSTS.iter().zip(&taken) {
        let (least, _) = least_and_greatest(taken);
        println!(
            "a received record of 100 bytes, {burst} in a read: {:.0} ns (least {least:.0})",
            median(taken)
        );
    }
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(30);
    let server = setup::tls::server_config();
    let kinds = [
        ("1.3 full", &rustls::version::TLS13, false),
        ("1.3 resumed", &rustls::version::TLS13, true),
        ("1.2 full", &rustls::version::TLS12, false),
        ("1.2 resumed", &rustls::version::TLS12, true),
    ];
    let clients = kinds.map(|(_, version, resumes)| client_config(version, resumes));
    for (client, (_, _, resumes)) in clients.iter().zip(kinds) {
        // The first one brings the ticket.
        if resumes {
            drop(handshake::<ThisServer>(client, &server));
        }
    }
    let mut alone = [const { Vec::new() }; 4];
    let mut ours = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        for (kind, client) in clients.iter().enumerate() {
            alone[kind].push(round::<RustlsAlone>(client, &server, kinds[kind].2));
            ours[kind].push(round::<ThisServer>(client, &server, kinds[kind].2));
        }
    }
    println!(
        "{rounds} rounds of {HANDSHAKES_PER_ROUND} handshakes of each kind, CPU of the server's side in µs"
    );
    println!(
        "| kind | rustls alone | this server | ratio, median (least to greatest) | least CPU: ratio |"
    );
    println!("|---|---:|---:|---:|---:|");
    for (kind, (name, _, _)) in kinds.iter().enumerate() {
        let (alone, ours) = (&alone[kind], &ours[kind]);
        let ratios: Vec<f64> = ours.iter().zip(alone).map(|(ours, alone)| ours / alone).collect();
        let (least, greatest) = least_and_greatest(&ratios);
        println!(
            "| {name} | {:.1} | {:.1} | {:.2} ({least:.2} to {greatest:.2}) | {:.2} |",
            median(alone),
            median(ours),
            median(&ratios),
            least_and_greatest(ours).0 / least_and_greatest(alone).0
        );
    }
    for (full, resumed, name) in [(0, 1, "1.3"), (2, 3, "1.2")] {
        let ratios: Vec<f64> =
            ours[resumed].iter().zip(&ours[full]).map(|(resumed, full)| resumed / full).collect();
        let (least, greatest) = least_and_greatest(&ratios);
        let ratio = median(&ratios);
        println!(
            "TLS {name} resumed / full, this server: {ratio:.3} ({least:.2} to {greatest:.2})"
        );
    }
    records(rounds, &server);
    for (name, version) in [("1.3", &rustls::version::TLS13), ("1.2", &rustls::version::TLS12)] {
        println!(
            "heap of an established connection, TLS {name}, counted: {:.0} bytes",
            heap(version, &server)
        );
    }
}
