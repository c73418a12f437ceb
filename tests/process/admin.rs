//! The admin listener: probes, who may see more than probes, limits, where it listens, and that it survives a new
//! program and a take-over.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::support::{PING, PONG, Reply, Server, Setup, Wire, eventually, free_port};

const TOKEN: &str = "0123456789abcdef-token";

/// The admin listener of a server, as its start message names it.
pub(crate) struct AdminClient(SocketAddr);

impl AdminClient {
    pub(crate) fn of(server: &mut Server) -> Self {
        let line = server.line_so_far_with("  admin    http://");
        let address = line.trim_start_matches("  admin    http://").split(',').next();
        Self(address.and_then(|text| text.parse().ok()).expect("an address"))
    }

    pub(crate) fn wire(&self) -> Wire {
        Wire::new(TcpStream::connect(self.0).expect("the admin listener accepts"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0
    }

    pub(crate) fn send(&self, request: &str) -> Reply {
        let mut wire = self.wire();
        wire.send(request.as_bytes());
        let reply = wire.reply(!request.starts_with("HEAD"));
        wire.ended();
        reply
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.get_with(path, "")
    }

    /// With further header fields, each with its CRLF.
    pub(crate) fn get_with(&self, path: &str, fields: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", self.0))
    }

    /// Status and body.
    fn answer(&self, path: &str) -> (u16, String) {
        let reply = self.get(path);
        (reply.status, reply.body)
    }
}

fn on_loopback() -> Setup {
    Setup::new().env("RINGVERB_ADMIN", "127.0.0.1:0")
}

#[test]
fn probes_answer_and_ready_ends_with_the_shutdown_delay() {
    let mut server = on_loopback().env("RINGVERB_SHUTDOWN_DELAY", "60").start();
    let admin = AdminClient::of(&mut server);
    // A worker counts its first heartbeat in its first tick.
    eventually("the workers listen", || (admin.get("/ready").status == 200).then_some(()));
    assert_eq!(admin.answer("/ready"), (200, "ready\n".to_owned()));
    assert_eq!(admin.answer("/live"), (200, "live\n".to_owned()));
    assert_eq!(admin.send("HEAD /live HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    server.signal(Signal::TERM);
    let why = "not ready: the server is about to end (RINGVERB_SHUTDOWN_DELAY)\n".to_owned();
    eventually("the delay has begun", || {
        (admin.answer("/ready") == (503, why.clone())).then_some(())
    });
    assert_eq!(admin.answer("/live").0, 200);
    // Signals within a second are one.
    eventually("the drain has begun", || {
        server.signal(Signal::TERM);
        TcpStream::connect(admin.0).is_err().then_some(())
    });
    assert_eq!(server.finish().code, Some(0));
}

#[test]
fn ready_is_refused_while_connections_are_closed() {
    let mut server = on_loopback().start();
    let admin = AdminClient::of(&mut server);
    // It never answers the close frame, so the drain waits for it.
    let _client = server.connect();
    server.signal(Signal::TERM);
    let why = "not ready: connections are being closed\n".to_owned();
    eventually("the drain has begun", || {
        (admin.answer("/ready") == (503, why.clone())).then_some(())
    });
    assert_eq!(admin.answer("/live").0, 200);
    assert_eq!(server.finish().code, Some(0));
}

#[test]
fn ready_is_refused_over_the_memory_limit() {
    let mut server = on_loopback().env("RINGVERB_MEMORY_MAX", "16M").workers(1).start();
    let admin = AdminClient::of(&mut server);
    let mut clients = Vec::new();
    let why = "not ready: memory is short (RINGVERB_MEMORY_MAX)\n";
    // Requests that are not complete keep memory.
    eventually("the limit is reached", || {
        let mut wire = server.wire();
        wire.send_to_closing(
            b"POST /apps/1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n",
        );
        wire.send_to_closing(&vec![b'x'; 8_999]);
        clients.push(wire);
        (admin.answer("/ready") == (503, why.to_owned())).then_some(())
    });
}

#[test]
fn a_web_page_with_a_name_of_its_own_for_the_loopback_sees_nothing() {
    let mut server = on_loopback().start();
    let admin = AdminClient::of(&mut server);
    let ask = |host: &str, path: &str| {
        admin.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    };
    let refused = ask("evil.test:9601", "/");
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert!(
        refused.body.contains("\"evil.test:9601\"")
            && refused.body.contains("RINGVERB_ADMIN_TOKEN")
    );
    assert_eq!(ask("evil.test", "/live").status, 200, "a probe comes through names of the host");
    assert_eq!(ask("localhost", "/").status, 200);
    assert_eq!(admin.get("/").status, 200);
    assert_eq!(admin.get("/nothing").status, 404);
    assert_eq!(admin.send("GET / HTTP/1.0\r\n\r\n").status, 200, "HTTP/1.0 has no Host");
    let posted = admin.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((posted.status, posted.head.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn beyond_the_loopback_everything_but_probes_needs_the_token() {
    let finished = Setup::new().env("RINGVERB_ADMIN", "0.0.0.0:9601").run();
    assert_eq!(finished.code, Some(2));
    assert!(finished.stderr.contains("RINGVERB_ADMIN_TOKEN"), "{}", finished.stderr);
    let setup = Setup::new().env("RINGVERB_ADMIN", "0.0.0.0:0").env("RINGVERB_ADMIN_TOKEN", TOKEN);
    let mut server = setup.start();
    let line = server.line_so_far_with("  admin    http://0.0.0.0:");
    assert!(line.ends_with(", needs the token of RINGVERB_ADMIN_TOKEN"), "{line}");
    assert!(!server.stdout().contains(TOKEN));
    let admin = AdminClient::of(&mut server);
    assert_eq!(admin.get("/live").status, 200);
    for fields in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic x\r\n"] {
        let refused = admin.get_with("/", fields);
        assert_eq!(refused.status, 401, "{fields}");
        assert_eq!(
            refused.head.header("www-authenticate"),
            Some("Bearer realm=\"ringverb admin\"")
        );
    }
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(admin.get_with("/", &right).status, 200);
}

#[test]
fn a_configured_place_that_is_taken_ends_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = taken.local_addr().expect("its address").to_string();
    let finished = Setup::new().env("RINGVERB_ADMIN", &place).args(&["--port", "0"]).run();
    assert_eq!(finished.code, Some(1));
    for part in ["no admin listener", &place, "RINGVERB_ADMIN=off", "process"] {
        assert!(finished.stderr.contains(part), "{part} in {}", finished.stderr);
    }
    let check = Setup::new().env("RINGVERB_ADMIN", &place).args(&["check", "--port", "0"]).run();
    assert_eq!(check.code, Some(1));
    assert!(check.stdout.contains("problem  admin    no admin listener"), "{}", check.stdout);
}

/// The default place belongs to one server of the host; others start without.
#[test]
fn a_default_place_that_is_taken_is_one_line() {
    let _taken = TcpListener::bind("127.0.0.1:9601");
    let mut server = Setup::new().env("RINGVERB_ADMIN", "").start();
    let line =
        server.line_so_far_with("no admin listener, so no metrics: 127.0.0.1:9601 is in use");
    assert!(line.contains("RINGVERB_ADMIN"), "{line}");
    server.line_so_far_with("  admin    none: 127.0.0.1:9601 is in use");
    server.stop();
}

#[test]
fn a_socket_file_is_served_and_removed_at_the_end() {
    let path = format!("{}/admin-{}.sock", std::env::temp_dir().display(), std::process::id());
    let server = Setup::new().env("RINGVERB_ADMIN", &format!("unix:{path}")).start();
    let mut stream = UnixStream::connect(&path).expect("the admin listener");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: any.name\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    server.stop();
    assert!(!std::path::Path::new(&path).exists());
}

/// An orchestrator restarts a server whose probe gets no answer.
#[test]
fn peers_that_stall_are_bounded_in_number_and_delay_no_probe() {
    let mut server = on_loopback().start();
    let admin = AdminClient::of(&mut server);
    let mut silent: Vec<Wire> = (0..20).map(|_| admin.wire()).collect();
    let mut stalled: Vec<Wire> = (0..20).map(|_| admin.wire()).collect();
    stalled.iter_mut().for_each(|wire| wire.send(b"GET / HT"));
    for _ in 0..5 {
        assert_eq!(admin.get("/live").status, 200);
        assert_eq!(admin.get("/ready").status, 200);
    }
    let mut longest = silent.remove(0);
    let refused = longest.reply(true);
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("waited longest"), "{}", refused.body);
    longest.ended();
    let mut latest = stalled.pop().expect("twenty");
    assert_eq!(latest.reply(true).status, 408);
    latest.ended();
    let mut wire = admin.wire();
    wire.send(b"GET / HTTP/1.1\r\nX: ");
    wire.send_to_closing(&vec![b'x'; 20_000]);
    assert_eq!(wire.reply(true).status, 431);
    let large = "POST /api/apps HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n";
    assert_eq!(admin.send(large).status, 413);
}

/// The answer 503 says that nothing was done. Bytes that have arrived stay readable after a socket was shut down.
#[test]
fn a_request_that_is_answered_503_for_want_of_a_slot_is_not_carried_out() {
    const REQUESTS: usize = 60;
    let mut server = on_loopback().env("RINGVERB_ADMIN_TOKEN", TOKEN).workers(1).start();
    let admin = AdminClient::of(&mut server);
    let mut client = server.connect();
    client.subscribe("news");
    // All of them have arrived when the listener accepts the first.
    server.pause();
    let body = r#"{"name":"e","channel":"news","data":"1"}"#;
    let request = format!(
        "POST /api/publish HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        admin.0,
        body.len()
    );
    let mut wires: Vec<Wire> = (0..REQUESTS).map(|_| admin.wire()).collect();
    wires.iter_mut().for_each(|wire| wire.send(request.as_bytes()));
    server.signal(Signal::CONT);
    let statuses: Vec<u16> = wires.iter_mut().map(|wire| wire.reply(true).status).collect();
    let published = statuses.iter().filter(|status| **status == 200).count();
    assert!(published > 0 && published < REQUESTS, "{statuses:?}");
    for _ in 0..published {
        client.expect(r#"{"event":"e","data":"1","channel":"news"}"#);
    }
    client.ask(PING, PONG);
    server.stop();
}

/// The listener passes to the new process: no connection is refused, and its port is the same.
#[test]
fn the_listener_survives_a_new_program_and_a_take_over() {
    let port = free_port().to_string();
    let setup = || on_loopback().args(&["--host", "127.0.0.1", "--port", &port]);
    let mut old = setup().start_as_configured();
    let admin = AdminClient::of(&mut old);
    for _ in 0..2 {
        old.signal(Signal::USR2);
        eventually("SIGUSR2 is complete", || {
            assert_eq!(admin.get("/live").status, 200, "no request fails in between");
            old.try_line_with("SIGUSR2 complete: ").then_some(())
        });
        assert_eq!(admin.get("/ready").status, 200);
    }
    let mut new = setup().arg("--takeover").start_as_configured();
    assert_eq!(AdminClient::of(&mut new).0, admin.0);
    assert_eq!(old.finish().code, Some(0));
    assert_eq!(admin.get("/ready").status, 200);
    new.stop();
}
