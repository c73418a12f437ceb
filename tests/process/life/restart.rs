//! Stop and start: how soon a server ends after its signal, what its clients receive, and when the next one starts
//! (docs/PROTOCOL.md rule 83).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::support::{
    Client, Finished, Http, PING, PONG, Server, Setup, eventually, now, raise_descriptor_limit,
    small_window, within,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;

const STOPPING: &str = "Server is shutting down";
const GET_UP: &[u8] = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n";
/// Clients come back 1 s after the close: 0.4 s on a quiet host leaves the rest to the next process. It was 3 s. A busy
/// host may stand still for a second.
const END_MAX: Duration = Duration::from_millis(2_500);

fn closes(mut client: Client) {
    assert_eq!(client.closed(), (4100, STOPPING.to_owned()));
}

/// pusher-js connects again 1 s after it was closed. A client that finds no server then is offline for 15 s more.
#[test]
fn the_exit_waits_neither_for_a_client_that_does_not_answer_nor_for_one_that_does_not_read() {
    let server = Setup::new().workers(2).start();
    let mut silent = server.connect();
    let mut deaf = small_window(&server);
    deaf.subscribe("large");
    // More than its kernel and the server's take.
    for _ in 0..60 {
        server.publish("large", "e", &"x".repeat(9_000));
    }
    let others: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    let finished = within(END_MAX, "the end", || {
        server.signal(Signal::TERM);
        others.into_iter().for_each(closes);
        server.finish()
    });
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(silent.closed(), (4100, STOPPING.to_owned()));
}

/// All are closed before the first of them comes back.
#[test]
fn thousands_of_clients_are_closed_before_the_first_one_comes_back() {
    const COUNT: usize = 3_000;
    raise_descriptor_limit();
    let server = Setup::new().workers(1).start();
    let clients: Vec<Client> = (0..COUNT).map(|_| server.connect()).collect();
    let finished = within(2 * END_MAX, "the end of a debug build", || {
        server.signal(Signal::TERM);
        server.finish()
    });
    assert_eq!(finished.code, Some(0), "{finished:?}");
    clients.into_iter().for_each(closes);
}

#[test]
fn a_second_signal_ends_the_delay_and_no_connection_is_accepted() {
    let mut server = Setup::new().workers(1).env("RINGVERB_SHUTDOWN_DELAY", "60").start();
    let mut client = server.connect();
    let first = now();
    server.signal(Signal::TERM);
    server.line_with("/up answers 503 for 60 s (RINGVERB_SHUTDOWN_DELAY), then 1 connections");
    second_signal(&mut server, first, "second signal: the delay is over");
    assert_eq!(client.closed(), (4100, STOPPING.to_owned()));
    eventually("nobody listens", || TcpStream::connect(server.address).err());
    assert_eq!(server.finish().code, Some(0));
}

/// Sends SIGTERM until the server takes one for a second signal. All signals within a second after the first, which the
/// caller sent at `first`, are one wish.
fn second_signal(server: &mut Server, first: Instant, line: &str) {
    eventually(line, || {
        server.signal(Signal::TERM);
        server.try_line_with(line).then_some(())
    });
    assert!(first.elapsed() >= Duration::from_secs(1), "a signal within a second counted");
}

#[test]
fn during_the_delay_up_answers_503_and_everything_else_is_served() {
    let mut server = Setup::new().workers(2).env("RINGVERB_SHUTDOWN_DELAY", "3").start();
    let mut client = server.connect();
    client.subscribe("news");
    let mut http = Http::new(&server);
    assert_eq!(http.ask_raw(GET_UP).status, 200);
    let start = now();
    server.signal(Signal::TERM);
    server.line_with("SIGTERM: /up answers 503 for 3 s");
    // The same wish: Ctrl+C reaches the process and its supervisor, which passes it on.
    server.signal(Signal::INT);
    let reply = http.ask_raw(GET_UP);
    assert_eq!((reply.status, reply.body.as_str()), (503, r#"{"health":"DRAINING"}"#));
    // The connection of a balancer stays open; a new client and a backend find everything as ever.
    assert_eq!(http.ask_raw(GET_UP).status, 503);
    let mut late = server.connect();
    late.subscribe("news");
    server.publish("news", "e", "1");
    let event = r#"{"event":"e","data":"1","channel":"news"}"#;
    client.expect(event);
    late.expect(event);
    // SIGUSR2 would start a process that takes over from one that is about to end.
    server.signal(Signal::USR2);
    server.line_with("SIGUSR2 ignored: the server is about to end");
    assert!(start.elapsed() < Duration::from_secs(3), "the host is too slow for this test");
    server.line_with("SIGTERM: closing 2 connections within 10 s");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(2_900), "the drain began after {waited:?}");
    closes(client);
    closes(late);
    assert_eq!(server.finish().code, Some(0));
}

/// The connections are closed within a moment. What takes longer is a backend that does not take its webhooks.
#[test]
fn a_second_signal_does_not_wait_for_a_backend_that_hangs() {
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = deaf.local_addr().expect("an address");
    let mut server = Setup::new()
        .workers(1)
        .env("RINGVERB_WEBHOOK_URL", &format!("http://{address}/"))
        .env("RINGVERB_WEBHOOK_DEBOUNCE", "0")
        .start();
    let mut client = server.connect();
    client.subscribe("news");
    let first = now();
    server.signal(Signal::TERM);
    assert_eq!(client.closed(), (4100, STOPPING.to_owned()));
    second_signal(&mut server, first, "second signal: ending at once");
    let Finished { code, stdout, .. } = within(END_MAX, "the end", || server.finish());
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("second signal: ending at once"), "{stdout}");
}

#[test]
fn a_port_can_be_taken_again_at_once() {
    let server = Server::start();
    let port = server.address.port().to_string();
    let mut client = server.connect();
    server.signal(Signal::TERM);
    assert_eq!(client.closed().0, 4100);
    drop(client);
    assert_eq!(server.finish().code, Some(0));
    let again = on_port(&port).start_as_configured();
    assert_eq!(again.address.port().to_string(), port);
    again.connect().ask(PING, PONG);
}

fn on_port(port: &str) -> Setup {
    Setup::new().arg("--host").arg("127.0.0.1").arg("--port").arg(port)
}

/// The kernel closes the connections of a process that was killed before it frees the port.
#[test]
fn a_start_waits_for_a_port_that_is_freed_soon() {
    // Bound, but no process listens: as the kernel holds it.
    let holder = bound();
    let address = rustix::net::getsockname(&holder).expect("an address");
    let address = SocketAddr::try_from(address).expect("an address of TCP");
    let mut server = on_port(&address.port().to_string())
        .spawned(&format!("{address} is in use; waiting up to 10 s for it"));
    drop(holder);
    server.listens();
    server.connect().ask(PING, PONG);
    server.stop();
}

#[test]
fn a_server_starts_at_once_after_one_that_was_killed_with_many_connections() {
    raise_descriptor_limit();
    let server = Setup::new().workers(2).start();
    let port = server.address.port().to_string();
    let clients: Vec<Client> = (0..1_000).map(|_| server.connect()).collect();
    server.kill();
    let server = on_port(&port).start_as_configured();
    server.connect().ask(PING, PONG);
    drop(clients);
    server.stop();
}

fn bound() -> OwnedFd {
    let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    // A server that the test starts must not inherit it.
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
    let socket = socket.expect("a socket");
    rustix::net::bind(&socket, &any).expect("bound");
    socket
}

/// The server that runs is not disturbed: no process asked it for a take-over.
#[test]
fn a_start_names_the_process_that_listens_on_its_port_and_does_not_wait_for_it() {
    let running = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addresses = [running.address, listener.local_addr().expect("an address")];
    let own = std::process::id();
    let remedy = [
        format!("ringverb, process {}: stop it, start with --takeover, or choose", running.id()),
        format!(", process {own}: stop it, or choose another port with --port"),
    ];
    for (address, remedy) in addresses.iter().zip(remedy) {
        let finished = on_port(&address.port().to_string()).run();
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains(&format!("{address} is in use by ")), "{finished:?}");
        assert!(finished.stderr.contains(&remedy), "{finished:?}");
        assert!(!finished.stdout.contains("waiting up to"), "{finished:?}");
    }
    running.connect().ask(PING, PONG);
    running.signal(Signal::TERM);
    let Finished { stdout, .. } = running.finish();
    assert!(!stdout.contains("take-over failed"), "{stdout}");
}
