//! The PROXY protocol: HAProxy before plain and TLS ports, headers in pieces, and who must and may send one.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};

use crate::support::{
    Client, Finished, Handshake, Server, Setup, Wire, eventually, free_port, tls,
};

const TOO_MANY: &str = "Too many connections from this address";

/// HAProxy, which passes TCP and puts a header before it.
struct HaProxy {
    child: Child,
    address: SocketAddr,
    file: PathBuf,
}

impl HaProxy {
    fn start(server: &Server, option: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let name = format!("haproxy-{}.cfg", address.port());
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let text = format!(
            "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  timeout \
             server 60s\nlisten all\n  bind {address}\n  server one {} {option}\n",
            server.address
        );
        std::fs::write(&file, text).expect("a configuration");
        let child = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&file)
            // Debian has it where only the PATH of root looks.
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy");
        eventually("HAProxy accepts", || TcpStream::connect(address).ok());
        Self { child, address, file }
    }

    /// A connection through it from this address.
    fn wire_from(&self, source: [u8; 4]) -> Wire {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of the loopback");
        socket.connect(&self.address.into()).expect("HAProxy accepts");
        Wire::new(TcpStream::from(socket))
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

fn proxied(versions: &str) -> Setup {
    let setup = Setup::new().env("RINGVERB_PROXY_PROTOCOL", versions);
    setup.env("RINGVERB_TRUSTED_PROXIES", "127.0.0.1").env("RINGVERB_CONNECTIONS_PER_IP_MAX", "1")
}

fn open(wire: Wire) -> Client {
    Client::open_on(wire, &Handshake::new())
}

#[test]
fn connections_through_haproxy_count_for_the_client_of_the_header() {
    for (versions, option) in
        [("v1", "send-proxy"), ("v2", "send-proxy-v2"), ("on", "send-proxy-v2")]
    {
        let server = proxied(versions).start();
        let haproxy = HaProxy::start(&server, option);
        let first = open(haproxy.wire_from([127, 0, 0, 7])).established();
        open(haproxy.wire_from([127, 0, 0, 7])).refused(4100, TOO_MANY);
        let _other = open(haproxy.wire_from([127, 0, 0, 8])).established();
        // A peer that is no proxy sends none, and counts as itself.
        let _direct = open(server.wire_from([127, 0, 0, 9])).established();
        first.close();
        eventually("a place", || {
            let mut client = open(haproxy.wire_from([127, 0, 0, 7]));
            client.text().contains("connection_established").then_some(())
        });
    }
}

#[test]
fn tls_follows_the_header_on_a_tls_port() {
    let server = proxied("on").secure().start();
    let haproxy = HaProxy::start(&server, "send-proxy-v2");
    let secured = |wire: Wire| open(wire.secured(&tls::client()));
    let mut first = secured(haproxy.wire_from([127, 0, 0, 7])).established();
    first.subscribe("a");
    secured(haproxy.wire_from([127, 0, 0, 7])).refused(4100, TOO_MANY);
    // Plain HTTP behind a header has the answer that explains itself.
    let mut plain = haproxy.wire_from([127, 0, 0, 8]);
    plain.send(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
    let reply = plain.reply(true);
    assert!(reply.body.starts_with("This port is TLS"), "{reply:?}");
}

#[test]
fn a_header_may_arrive_in_pieces_and_its_client_is_in_the_log() {
    let mut server = proxied("on").start();
    let version_2 = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f"[..],
        &[198, 51, 100, 2, 10, 0, 0, 1, 20, 3, 0, 80, 4, 0, 0],
    ];
    for (header, peer) in [
        (b"PROXY TCP4 198.51.100.1 10.0.0.1 5123 80\r\n".to_vec(), "peer=198.51.100.1:5123"),
        (version_2.concat(), "peer=198.51.100.2:5123"),
    ] {
        let mut wire = server.wire();
        let bytes = [&header[..], &Handshake::to("/app/nobody?protocol=7").bytes()].concat();
        for byte in bytes {
            wire.send(&[byte]);
        }
        assert_eq!(wire.head().status, 101);
        let line = server.line_with(peer);
        assert!(line.contains("no app has the key"), "{line}");
    }
}

#[test]
fn a_forwarded_address_counts_only_if_the_header_names_a_trusted_proxy() {
    let server = proxied("v1").env("RINGVERB_TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/8").start();
    let open = |client: &str, forwarded: &str| {
        let mut wire = server.wire();
        wire.send(format!("PROXY TCP4 {client} 10.0.0.1 5123 80\r\n").as_bytes());
        Client::open_on(wire, &Handshake::new().header("X-Forwarded-For", forwarded))
    };
    // A client cannot name itself.
    let _a = open("198.51.100.1", "198.51.100.2").established();
    open("198.51.100.1", "198.51.100.3").refused(4100, TOO_MANY);
    let _b = open("198.51.100.2", "198.51.100.1").established();
    // A proxy of HTTP behind a load balancer of TCP can.
    let _c = open("10.1.1.1", "198.51.100.4").established();
    let _d = open("10.1.1.1", "198.51.100.5").established();
    open("10.1.1.1", "198.51.100.4").refused(4100, TOO_MANY);
}

#[test]
fn a_header_of_a_peer_that_is_not_named_is_refused() {
    let server = proxied("on").start();
    let mut wire = server.wire_from([127, 0, 0, 9]);
    wire.send(b"PROXY TCP4 198.51.100.1 10.0.0.1 5123 80\r\nGET /up HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.reply(true).status, 400);
    wire.ended();
}

/// A log line about an established WebSocket names this client of HAProxy.
fn is_named(client: &mut Client, server: &mut Server) {
    client.send(r#"{"event":"pusher:subscribe","data":{"channel":"private-x"}}"#);
    client.text();
    let line = server.line_with("no signature came with it");
    assert!(line.contains("peer=127.0.0.7:"), "{line}");
}

#[test]
fn commands_on_the_host_of_the_proxy_and_a_take_over_work() {
    for versions in ["v1", "v2"] {
        let port = free_port().to_string();
        let arguments = |setup: Setup| setup.args(&["--host", "127.0.0.1", "--port", &port]);
        let mut server = arguments(proxied(versions)).start_as_configured();
        let health = |what: &str| {
            let finished = proxied(versions).args(&["health", "--port", &port]).run();
            let Finished { code, stdout, stderr } = finished;
            assert_eq!(code, Some(0), "{what}: {stdout}{stderr}");
        };
        health("before");
        let haproxy =
            HaProxy::start(&server, if versions == "v1" { "send-proxy" } else { "send-proxy-v2" });
        let mut client = open(haproxy.wire_from([127, 0, 0, 7])).established();
        is_named(&mut client, &mut server);
        let mut new = proxied(versions).reaching(&server).arg("--takeover").start_as_configured();
        assert_eq!(server.finish().code, Some(0));
        client.sync();
        // The new process names the client, too.
        is_named(&mut client, &mut new);
        health("after");
        // The place of the address has moved, too.
        open(haproxy.wire_from([127, 0, 0, 7])).refused(4100, TOO_MANY);
        drop(new);
    }
}

#[test]
fn the_option_needs_trusted_proxies() {
    let Finished { code, stderr, .. } = Setup::new().env("RINGVERB_PROXY_PROTOCOL", "v2").run();
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("name their addresses in RINGVERB_TRUSTED_PROXIES"), "{stderr}");
}
