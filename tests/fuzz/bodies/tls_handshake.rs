//! The driver of TLS handshakes: arbitrary bytes in place of a client, in pieces of any size. Nothing comes through
//! before the handshake is complete, the driver keeps one record at most, and after an end it stays ended. Or a client
//! of rustls with a ticket of another server and early data, whose records are changed on their way.

use std::sync::{Arc, OnceLock};

use ringverb::tls::identity::{Identity, acceptor};
use ringverb::tls::socket::{ChannelEnd, SecureSocket};
use ringverb::tls::ticket::{TICKET_KEY_BYTES, TicketKey};
use ringverb::tls::{RECORD_BYTES_MAX, TlsChannel};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

/// rustls' own memory, and one record.
const KEPT_BYTES_MAX: usize = 8_000 + 2 * RECORD_BYTES_MAX;
/// The longest answer has the chain of certificates.
const OUTPUT_BYTES_MAX: usize = 8_000;

fn config() -> &'static Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let identity = Identity::read(
            include_bytes!("../../certificates/server.pem"),
            include_bytes!("../../certificates/server.key.pem"),
            None,
        );
        let keys = [TicketKey::of_bytes([7; TICKET_KEY_BYTES])];
        acceptor(vec![identity.expect("a pair")], &keys, |bytes| {
            bytes.fill(1);
            true
        })
        .expect("a configuration")
    })
}

/// The first byte is the length of a piece. If it is `CLIENT`, a client follows.
pub(crate) fn check(data: &[u8]) {
    let Some((&piece, stream)) = data.split_first() else { return };
    if piece == CLIENT {
        return check_client(stream);
    }
    let mut socket = SecureSocket::<TlsChannel>::accept(config()).expect("a channel");
    let mut end = None;
    for bytes in stream.chunks(usize::from(piece).max(1)) {
        let mut buffer = vec![0; RECORD_BYTES_MAX];
        buffer.extend_from_slice(bytes);
        let received = buffer.len();
        let input = socket.receive(&mut buffer, RECORD_BYTES_MAX, received);
        assert!(input.plain.is_empty(), "content of a client that has no keys");
        assert!(socket.heap_bytes() < KEPT_BYTES_MAX, "{} bytes", socket.heap_bytes());
        if end.is_some() {
            assert!(socket.has_ended() || input.end.is_some(), "it goes on after its end");
        }
        end = end.or(input.end);
        if input.end == Some(ChannelEnd::NotTls) {
            assert_eq!(&buffer[RECORD_BYTES_MAX..], bytes, "the bytes are for the HTTP session");
        }
    }
    // These bytes contain no secret of a client, so no handshake can have been completed.
    assert!(!socket.is_established());
    assert!(socket.final_bytes().len() < OUTPUT_BYTES_MAX);
}

/// No seed has pieces of this length.
const CLIENT: u8 = 0xec;
/// Changes of one input.
const CHANGES_MAX: usize = 8;
const CONTENT: &[u8] = b"content of the client";

fn certificate(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).expect("a certificate")
}

/// Another server with the same certificate, which accepts early data.
fn foreign() -> Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    let make = || {
        let key = include_bytes!("../../certificates/server.key.pem");
        let key = PrivateKeyDer::from_pem_slice(key).expect("a key");
        let leaf = certificate(include_bytes!("../../certificates/server.pem"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a version")
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)
            .expect("a pair");
        config.max_early_data_size = 16_384;
        Arc::new(config)
    };
    CONFIG.get_or_init(make).clone()
}

fn client(fragment: Option<usize>) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots
        .add(certificate(include_bytes!("../../certificates/authority.pem")))
        .expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_early_data = true;
    config.max_fragment_size = fragment;
    let config = Arc::new(config);
    let connect = || {
        let name = "localhost".try_into().expect("a name");
        ClientConnection::new(config.clone(), name).expect("a client")
    };
    let (mut first, mut server) = (connect(), ServerConnection::new(foreign()).expect("a server"));
    while first.wants_write() || server.wants_write() {
        server.read_tls(&mut sent(&mut first).as_slice()).expect("room");
        server.process_new_packets().expect("a good client");
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer).expect("memory");
        }
        first.read_tls(&mut answer.as_slice()).expect("room");
        first.process_new_packets().expect("a good server");
    }
    connect()
}

fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("memory");
    }
    bytes
}

/// Four bytes each: which flight and what is changed, where, and how.
fn change(flight: &mut Vec<u8>, number: u8, script: &[u8]) {
    for step in script.chunks_exact(4).take(CHANGES_MAX) {
        let [kind, high, low, value] = [step[0], step[1], step[2], step[3]];
        if kind / 128 != number || flight.is_empty() {
            continue;
        }
        let at = usize::from(u16::from_be_bytes([high, low])) % flight.len();
        match kind % 4 {
            0 => flight[at] ^= value | 1,
            1 => drop(flight.remove(at)),
            // A record that no key opens, wherever a record may begin.
            2 => {
                let at = boundary(flight, at);
                let record = [&[23, 3, 3, 0, value][..], &vec![value; usize::from(value)]].concat();
                flight.splice(at..at, record);
            }
            _ => flight.truncate(at),
        }
    }
}

/// The end of the record in which a byte is.
fn boundary(flight: &[u8], at: usize) -> usize {
    let mut end = 0;
    while end <= at {
        let Some([high, low]) = flight.get(end + 3..end + 5) else { return flight.len() };
        end += 5 + usize::from(u16::from_be_bytes([*high, *low]));
    }
    end.min(flight.len())
}

/// Length of a piece, of early data in units of 64 bytes and of its records, whether its messages come in fragments,
/// and changes.
fn check_client(data: &[u8]) {
    use std::io::Write;
    let [piece, early, record, fragment, script @ ..] = data else { return };
    let fragment = (fragment % 2 == 1).then_some(32 + usize::from(*fragment));
    let mut client = client(fragment);
    let early = vec![b'e'; 64 * usize::from(*early)];
    for part in early.chunks(usize::from(*record).max(17)) {
        client
            .early_data()
            .expect("a ticket of a server that accepts it")
            .write_all(part)
            .expect("room");
    }
    let mut socket = SecureSocket::<TlsChannel>::accept(config()).expect("a channel");
    let (mut content, mut has_ended) = (Vec::new(), false);
    for number in 0.. {
        if number == 1 && !client.is_handshaking() {
            client.writer().write_all(CONTENT).expect("room");
        }
        let mut flight = sent(&mut client);
        if flight.is_empty() {
            break;
        }
        change(&mut flight, number, script);
        for bytes in flight.chunks(usize::from(*piece).max(1)) {
            let mut buffer = vec![0; RECORD_BYTES_MAX];
            buffer.extend_from_slice(bytes);
            let received = buffer.len();
            let input = socket.receive(&mut buffer, RECORD_BYTES_MAX, received);
            content.extend_from_slice(&buffer[input.plain]);
            assert!(socket.heap_bytes() < KEPT_BYTES_MAX, "{} bytes", socket.heap_bytes());
            has_ended |= input.end.is_some();
        }
        let mut answer = Vec::new();
        socket.write(&mut answer, |_, _| {});
        let mut answer = answer.as_slice();
        while !answer.is_empty() {
            client.read_tls(&mut answer).expect("room");
            if client.process_new_packets().is_err() {
                has_ended = true;
                break;
            }
        }
        if has_ended {
            break;
        }
    }
    assert!(CONTENT.starts_with(&content), "early data, or what the client has not sent");
    assert!(script.len() >= 4 || content == CONTENT, "nothing was changed");
    let _ = socket.final_bytes();
}
