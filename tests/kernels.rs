//! Both kernels of a worker over real sockets, and the simulator's kernel: they keep one contract. The probe finds
//! where io_uring is refused.

#[path = "simulator/cipher.rs"]
mod cipher;
#[expect(dead_code, reason = "the simulator uses all of it")]
#[path = "simulator/kernel/mod.rs"]
mod kernel;
#[expect(dead_code, reason = "the simulator uses all of it")]
#[path = "simulator/random.rs"]
mod random;
#[path = "kernels/refused.rs"]
mod refused;
#[path = "kernels/script.rs"]
mod script;
#[path = "kernels/simulated.rs"]
mod simulated;
#[path = "kernels/world.rs"]
mod world;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use ringverb::kernel::{Epoll, RingSize, Uring, prepare_listener};
use ringverb::mailbox::Doorbell;
use ringverb::tick::kernel::Kernel;
use ringverb::time::Clock;
use simulated::Simulated;
use socket2::{Domain, Socket, Type};
use world::World;

/// Peers over the loopback interface.
struct Loopback<K> {
    kernel: K,
    doorbell: Arc<Doorbell>,
    address: Option<SocketAddr>,
    peers: Vec<TcpStream>,
}

const BUFFER: usize = 128 * 1024;
/// Time for a peer to get what was sent to it.
const PEER_TIME: Duration = Duration::from_secs(60);

impl<K> Loopback<K> {
    fn around(kernel: K) -> Self {
        let doorbell = Arc::new(Doorbell::new().expect("an eventfd"));
        Self { kernel, doorbell, address: None, peers: Vec::new() }
    }
}

impl<K: Kernel<Socket = OwnedFd, Listener = OwnedFd>> World for Loopback<K> {
    type Kernel = K;

    fn is_strict(&self) -> bool {
        true
    }

    fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    fn listener(&mut self) -> OwnedFd {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        self.address = listener.local_addr().ok();
        // Inherited by what is accepted. Sockets of a fixed size are soon full, and stay so.
        socket2::SockRef::from(&listener).set_send_buffer_size(BUFFER).expect("a TCP socket");
        prepare_listener(listener).expect("a TCP listener")
    }

    fn connect(&mut self) -> SocketAddr {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(BUFFER).expect("a TCP socket");
        socket.connect(&self.address.expect("a listener").into()).expect("a connection");
        let peer = TcpStream::from(socket);
        peer.set_nodelay(true).expect("a TCP socket");
        peer.set_read_timeout(Some(PEER_TIME)).expect("a TCP socket");
        let address = peer.local_addr().expect("an address");
        self.peers.push(peer);
        address
    }

    fn send(&mut self, peer: usize, bytes: &[u8]) {
        self.peers[peer].write_all(bytes).expect("the kernel's end is open");
    }

    fn take(&mut self, peer: usize, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.peers[peer].read_exact(&mut bytes).expect("what was sent");
        bytes
    }

    fn drain(&mut self, peer: usize) -> usize {
        let peer = &mut self.peers[peer];
        peer.set_nonblocking(true).expect("a TCP socket");
        let mut buffer = vec![0; 1 << 20];
        let mut taken = 0;
        loop {
            match peer.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        peer.set_nonblocking(false).expect("a TCP socket");
        taken
    }

    fn is_ended(&mut self, peer: usize) -> bool {
        match self.peers[peer].read(&mut [0]) {
            Ok(count) => count == 0,
            // The kernel's end was closed with unread data.
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    fn end(&mut self, peer: usize) {
        self.peers[peer].shutdown(Shutdown::Write).expect("an open connection");
    }

    fn reset(&mut self, peer: usize) {
        let placeholder = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let placeholder = placeholder.local_addr().and_then(TcpStream::connect);
        let peer = std::mem::replace(&mut self.peers[peer], placeholder.expect("a connection"));
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    }

    fn watch_doorbell(&mut self) {
        self.kernel.watch_doorbell(&self.doorbell);
    }

    fn ring(&mut self) {
        self.doorbell.set_asleep();
        self.doorbell.ring();
    }

    fn ring_later(&mut self) {
        let doorbell = self.doorbell.clone();
        std::thread::spawn(move || {
            let (_nobody_sends, pause) = mpsc::channel::<()>();
            let _: Result<(), RecvTimeoutError> = pause.recv_timeout(Duration::from_millis(50));
            doorbell.set_asleep();
            doorbell.ring();
        });
    }
}

#[test]
fn both_kernels_keep_the_same_contract() {
    let clock = Clock::start();
    let epoll = script::run(Loopback::around(Epoll::new(clock).expect("epoll")));
    for size in [RingSize::Small, RingSize::Large] {
        let uring = script::run(Loopback::around(Uring::new(clock, size).expect("io_uring")));
        assert_eq!(uring, epoll, "io_uring (left) and epoll (right) report different things");
    }
}

/// As on Linux 5.19 and 6.0.
#[test]
fn io_uring_without_deferred_work_keeps_the_contract() {
    let clock = Clock::start();
    let epoll = script::run(Loopback::around(Epoll::new(clock).expect("epoll")));
    for size in [RingSize::Small, RingSize::Large] {
        let uring =
            script::run(Loopback::around(Uring::cooperative(clock, size).expect("io_uring")));
        assert_eq!(uring, epoll, "io_uring (left) and epoll (right) report different things");
    }
}

#[test]
fn the_simulated_kernel_reports_the_same_events_as_the_real_ones() {
    let clock = Clock::start();
    let epoll = script::run(Loopback::around(Epoll::new(clock).expect("epoll")));
    let simulated = script::run(Simulated::strict());
    assert_eq!(
        simulated, epoll,
        "the simulated kernel (left) and epoll (right) report different things"
    );
    // Watches that end and accepts that fail change none of the reports that must come.
    for seed in 0..200 {
        let simulated = script::run(Simulated::fickle(seed));
        assert_eq!(simulated, epoll, "seed {seed}: the simulated kernel (left) and epoll (right)");
    }
}
