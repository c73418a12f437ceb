//! Handshake, record layer and socket against rustls as the client.

use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig,
    SupportedCipherSuite, SupportedProtocolVersion,
};

use super::handshake::RUSTLS_BYTES;
use super::identity::{Identity, acceptor};
use super::record::KEY_RECORDS_MAX;
use super::socket::{ChannelEnd, SecureSocket};
use super::ticket::{TICKET_KEY_BYTES, TicketKey};
use super::{RECORD_BYTES_MAX, TlsChannel};

macro_rules! certificate {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/", $name, ".pem"))
    };
}

mod certificates;
mod early_data;
mod hostile;

fn random(bytes: &mut [u8]) -> bool {
    use ring::rand::SecureRandom;
    ring::rand::SystemRandom::new().fill(bytes).is_ok()
}

fn server_identity() -> Identity {
    Identity::read(certificate!("server"), certificate!("server.key"), None).unwrap()
}

fn server_config() -> Arc<ServerConfig> {
    let key = TicketKey::of_bytes([7; TICKET_KEY_BYTES]);
    acceptor(vec![server_identity()], &[key], random).unwrap()
}

fn client_config(
    versions: &[&'static SupportedProtocolVersion],
    suites: Option<SupportedCipherSuite>,
) -> ClientConfig {
    let mut provider = rustls::crypto::ring::default_provider();
    if let Some(suite) = suites {
        provider.cipher_suites = vec![suite];
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate!("authority")).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn any_client() -> Arc<ClientConfig> {
    client_config(rustls::ALL_VERSIONS, None).into()
}

/// A client and a server, and the way in which bytes travel between them.
struct Pair {
    client: ClientConnection,
    server: Box<SecureSocket<TlsChannel>>,
    /// Bytes that arrive in one read.
    piece: usize,
    /// What the server has received.
    received: Vec<u8>,
    end: Option<ChannelEnd>,
}

impl Pair {
    fn new(client: Arc<ClientConfig>, server: &Arc<ServerConfig>, piece: usize) -> Self {
        Self::named(client, server, piece, "localhost")
    }

    fn named(
        client: Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
        piece: usize,
        name: &'static str,
    ) -> Self {
        let client = ClientConnection::new(client, ServerName::try_from(name).unwrap()).unwrap();
        let server = SecureSocket::accept(server).unwrap();
        Self { client, server, piece, received: Vec::new(), end: None }
    }

    fn client_sends(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn server_receives(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            let mut buffer = vec![0; RECORD_BYTES_MAX];
            buffer.extend_from_slice(piece);
            let end = buffer.len();
            let input = self.server.receive(&mut buffer, RECORD_BYTES_MAX, end);
            self.received.extend_from_slice(&buffer[input.plain]);
            self.end = self.end.or(input.end);
        }
    }

    /// Everything that the server has to send, with this content.
    fn server_sends(&mut self, content: &[u8]) -> Vec<u8> {
        let (mut out, mut left) = (Vec::new(), content);
        loop {
            let count = self.server.write(&mut out, |out, most| {
                out.extend_from_slice(&left[..left.len().min(most)]);
            });
            left = &left[count..];
            if left.is_empty() {
                return out;
            }
            assert!(count > 0, "content can be sent");
        }
    }

    fn client_receives(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            self.client.process_new_packets()?;
        }
        Ok(())
    }

    /// Both sides send until neither has anything to send.
    fn settle(&mut self) -> Result<(), rustls::Error> {
        loop {
            let to_server = self.client_sends();
            self.server_receives(&to_server);
            let to_client = if self.server.has_output() { self.server_sends(&[]) } else { vec![] };
            self.client_receives(&to_client)?;
            if to_server.is_empty() && to_client.is_empty() {
                return Ok(());
            }
        }
    }

    fn established(client: Arc<ClientConfig>, server: &Arc<ServerConfig>, piece: usize) -> Self {
        let mut pair = Self::new(client, server, piece);
        pair.settle().unwrap();
        assert_eq!(pair.end, None);
        assert!(pair.server.is_established() && !pair.client.is_handshaking());
        pair
    }

    /// Content in both directions arrives.
    fn exchange(&mut self, content: &[u8]) {
        self.received.clear();
        // rustls takes 64 KiB before it wants to write.
        for piece in content.chunks(32 * 1024) {
            self.client.writer().write_all(piece).unwrap();
            let bytes = self.client_sends();
            self.server_receives(&bytes);
        }
        assert_eq!(self.received, content);
        for piece in content.chunks(32 * 1024) {
            let bytes = self.server_sends(piece);
            self.client_receives(&bytes).unwrap();
            let mut read = vec![0; piece.len()];
            self.client.reader().read_exact(&mut read).unwrap();
            assert_eq!(read, piece);
        }
        assert_eq!((self.end, self.server.heap_bytes()), (None, 0));
    }

    /// The server's record layer, to set it into an unusual state.
    fn records(&mut self, change: impl FnOnce(&mut super::record::RecordLayer)) {
        self.server.change_channel(|channel| match channel {
            TlsChannel::Established(records) => change(records),
            TlsChannel::Handshake(_) => panic!("established"),
        });
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn every_suite_carries_content_both_ways_in_pieces_of_any_size() {
    let server = server_config();
    for suite in rustls::crypto::ring::ALL_CIPHER_SUITES {
        if format!("{:?}", suite.suite()).contains("RSA") {
            continue;
        }
        for piece in [1, 7, 4_096, usize::MAX] {
            let client = client_config(rustls::ALL_VERSIONS, Some(*suite));
            let mut pair = Pair::established(client.into(), &server, piece);
            assert_eq!(pair.client.negotiated_cipher_suite(), Some(*suite));
            for length in [1, 100, 16_384, 16_385, 50_000] {
                pair.exchange(&content(length));
            }
        }
    }
}

#[test]
fn a_handshake_keeps_input_only_while_a_part_of_it_is_missing() {
    let server = server_config();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut pair = Pair::new(client_config(&[version], None).into(), &server, usize::MAX);
        let hello = pair.client_sends();
        let (part, rest) = hello.split_at(hello.len() / 2);
        pair.server_receives(part);
        assert!(pair.server.heap_bytes() >= RUSTLS_BYTES + part.len());
        pair.server_receives(rest);
        let answer = pair.server_sends(&[]);
        assert_eq!(pair.server.heap_bytes(), RUSTLS_BYTES, "the hello is not kept");
        pair.client_receives(&answer).unwrap();
        pair.settle().unwrap();
        assert_eq!(pair.server.heap_bytes(), 0, "nothing is kept after the handshake");
        pair.exchange(b"content");
    }
}

#[test]
fn the_cheaper_suite_is_preferred() {
    let pair = Pair::established(any_client(), &server_config(), usize::MAX);
    let suite = pair.client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[test]
fn key_updates_of_both_sides_are_followed_and_requests_get_one_answer() {
    let server = server_config();
    for suite in rustls::crypto::ring::ALL_CIPHER_SUITES {
        if suite.tls13().is_none() {
            continue;
        }
        let client = client_config(&[&rustls::version::TLS13], Some(*suite));
        let mut pair = Pair::established(client.into(), &server, 3);
        for _ in 0..3 {
            pair.client.refresh_traffic_keys().unwrap();
            let request = pair.client_sends();
            pair.server_receives(&request);
            pair.client.refresh_traffic_keys().unwrap();
            let request = pair.client_sends();
            pair.server_receives(&request);
            assert!(pair.server.has_output());
            let answer = pair.server_sends(&[]);
            // One record: type and version, length, message, type of the content, tag.
            assert_eq!(answer.len(), 5 + 5 + 1 + 16);
            pair.client_receives(&answer).unwrap();
            pair.exchange(&content(1_000));
        }
    }
}

/// The key that was expanded for the first records of a read does not open those after the update.
#[test]
fn a_key_update_between_records_of_one_read_changes_the_key_of_the_records_after_it() {
    let server = server_config();
    for suite in rustls::crypto::ring::ALL_CIPHER_SUITES {
        if suite.tls13().is_none() {
            continue;
        }
        let client = client_config(&[&rustls::version::TLS13], Some(*suite));
        let mut pair = Pair::established(client.into(), &server, usize::MAX);
        let mut read = Vec::new();
        for content in [&b"one,"[..], b"two,", b"three"] {
            pair.client.writer().write_all(content).unwrap();
            read.extend(pair.client_sends());
            pair.client.refresh_traffic_keys().unwrap();
            read.extend(pair.client_sends());
        }
        pair.server_receives(&read);
        assert_eq!((&pair.received[..], pair.end), (&b"one,two,three"[..], None));
        let answer = pair.server_sends(&[]);
        pair.client_receives(&answer).unwrap();
        pair.exchange(&content(100));
    }
}

#[test]
fn a_key_that_has_sealed_enough_is_replaced_in_tls_1_3_and_ends_the_connection_in_tls_1_2() {
    let server = server_config();
    for (version, is_tls13) in [(&rustls::version::TLS13, true), (&rustls::version::TLS12, false)] {
        let client = client_config(&[version], None);
        let mut pair = Pair::established(client.into(), &server, usize::MAX);
        pair.exchange(b"before");
        assert!(!pair.server.is_exhausted());
        pair.records(|records| records.set_sealed_count(KEY_RECORDS_MAX));
        assert_eq!(pair.server.is_exhausted(), !is_tls13);
        if is_tls13 {
            // The client cannot read it, because the sequence number was changed; the next one begins at zero again.
            let skipped = pair.server_sends(b"x");
            assert_eq!(skipped.len(), (5 + 5 + 1 + 16) + (5 + 1 + 1 + 16));
            let one = pair.server_sends(b"y");
            assert_eq!(one.len(), 5 + 1 + 1 + 16);
        }
    }
}

#[test]
fn a_session_is_resumed_by_every_server_that_has_the_ticket_key() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = Arc::new(client_config(&[version], None));
        let mut first = Pair::established(client.clone(), &server_config(), usize::MAX);
        first.exchange(b"a");
        assert_eq!(first.client.handshake_kind(), Some(HandshakeKind::Full));
        let mut second = Pair::established(client.clone(), &server_config(), 5);
        assert_eq!(second.client.handshake_kind(), Some(HandshakeKind::Resumed));
        second.exchange(b"b");
        let newer = TicketKey::of_bytes([8; TICKET_KEY_BYTES]);
        let older = TicketKey::of_bytes([7; TICKET_KEY_BYTES]);
        let rotated = acceptor(vec![server_identity()], &[newer.clone(), older], random).unwrap();
        let third = Pair::established(client.clone(), &rotated, usize::MAX);
        assert_eq!(third.client.handshake_kind(), Some(HandshakeKind::Resumed));
        let foreign = TicketKey::of_bytes([9; TICKET_KEY_BYTES]);
        let other = acceptor(vec![server_identity()], &[foreign], random).unwrap();
        let fourth = Pair::established(client, &other, usize::MAX);
        assert_eq!(fourth.client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn a_connection_continues_in_another_process_with_incomplete_input_and_unsent_output() {
    let server = server_config();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = client_config(&[version], None);
        let mut pair = Pair::established(client.into(), &server, usize::MAX);
        pair.exchange(&content(100));
        pair.client.writer().write_all(b"cut in two").unwrap();
        let to_server = pair.client_sends();
        pair.server_receives(&to_server[..9]);
        let to_client = pair.server_sends(b"unsent");
        pair.server.keep_unsent(&to_client[4..]);
        pair.client_receives(&to_client[..4]).unwrap();
        let state = pair.server.export().unwrap();
        let bytes = postcard::to_allocvec(&state).unwrap();
        let state = postcard::from_bytes(&bytes).unwrap();
        pair.server = SecureSocket::import(state).unwrap();
        pair.received.clear();
        pair.server_receives(&to_server[9..]);
        assert_eq!(pair.received, b"cut in two");
        let rest = pair.server_sends(&[]);
        pair.client_receives(&rest).unwrap();
        let mut read = [0; 6];
        pair.client.reader().read_exact(&mut read).unwrap();
        assert_eq!(&read, b"unsent");
        if pair.client.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3) {
            pair.client.refresh_traffic_keys().unwrap();
        }
        pair.settle().unwrap();
        pair.exchange(&content(20_000));
    }
    assert!(SecureSocket::<TlsChannel>::accept(&server).unwrap().export().is_none());
}

#[test]
fn sealed_bytes_that_the_socket_did_not_take_come_first() {
    let mut pair = Pair::established(any_client(), &server_config(), usize::MAX);
    let first = pair.server_sends(b"one ");
    pair.server.keep_unsent(&first[1..]);
    assert!(pair.server.has_output() && pair.server.heap_bytes() > 0);
    let second = pair.server_sends(b"two");
    assert!(second.starts_with(&first[1..]));
    pair.client_receives(&first[..1]).unwrap();
    pair.client_receives(&second).unwrap();
    let mut read = [0; 7];
    pair.client.reader().read_exact(&mut read).unwrap();
    assert_eq!(&read, b"one two");
    // While too much waits, nothing is sealed.
    let much = pair.server_sends(&content(40_000));
    pair.server.keep_unsent(&much);
    let mut out = Vec::new();
    let sealed = pair.server.write(&mut out, |_, _| panic!("no room"));
    assert_eq!((sealed, out.len()), (0, much.len()));
}

#[test]
fn the_end_is_announced_once_and_seen() {
    let mut pair = Pair::established(any_client(), &server_config(), usize::MAX);
    let mut last = pair.server_sends(b"bye");
    pair.server.close(&mut last);
    let length = last.len();
    pair.server.close(&mut last);
    assert_eq!(last.len(), length);
    let (mut bytes, mut read) = (last.as_slice(), Vec::new());
    pair.client.read_tls(&mut bytes).unwrap();
    assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
    pair.client.reader().read_to_end(&mut read).unwrap();
    assert_eq!(read, b"bye");
    pair.client.writer().write_all(b"ciao").unwrap();
    pair.client.send_close_notify();
    pair.settle().unwrap();
    assert_eq!((&pair.received[..], pair.end), (&b"ciao"[..], Some(ChannelEnd::Closed)));
    assert!(pair.server.has_ended());
}

#[test]
fn another_protocol_than_http_1_1_is_refused_with_an_alert() {
    let mut client = client_config(rustls::ALL_VERSIONS, None);
    client.alpn_protocols = vec![b"h2".to_vec()];
    let mut pair = Pair::new(client.into(), &server_config(), usize::MAX);
    let error = pair.settle().unwrap_err();
    let expected = rustls::AlertDescription::NoApplicationProtocol;
    assert_eq!(error, rustls::Error::AlertReceived(expected));
    assert!(matches!(pair.end, Some(ChannelEnd::Failed(why)) if why.contains("ALPN")));
}

/// rustls panics when it is called once more after an error and a handshake message was incomplete.
#[test]
fn an_error_after_an_incomplete_message_is_no_panic() {
    let mut pair = Pair::new(any_client(), &server_config(), usize::MAX);
    let hello = pair.client_sends();
    let (first, rest) = hello[5..].split_at(20);
    let record = |kind: u8, content: &[u8]| {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[kind, 3, 1, high, low], content].concat()
    };
    for between in
        [record(22, &[]), record(23, &[]), record(21, &[2]), record(20, &[1]), record(99, b"x")]
    {
        let mut fresh = Pair::new(any_client(), &server_config(), usize::MAX);
        fresh.server_receives(&[record(22, first), between, record(22, rest)].concat());
        assert!(matches!(fresh.end, Some(ChannelEnd::Failed(_))));
        fresh.server_receives(b"more");
    }
    // Two records alone are fine.
    pair.server_receives(&[record(22, first), record(22, rest)].concat());
    assert_eq!(pair.end, None);
    assert!(pair.server.has_output());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A byte of the client's handshake or of its content is changed, lost or doubled. The server answers or fails; it
    /// never passes on what the client has not sent, and it does not panic.
    #[test]
    fn a_changed_byte_ends_the_connection_at_the_latest_when_it_is_opened(
        at in any::<prop::sample::Index>(), change in 0_u8..3, to in any::<u8>(), piece in 1_usize..600,
        is_tls13 in any::<bool>(), in_handshake in any::<bool>(),
    ) {
        let version: &[&_] = if is_tls13 { &[&rustls::version::TLS13] } else { &[&rustls::version::TLS12] };
        let mut pair = Pair::new(client_config(version, None).into(), &server_config(), piece);
        let mangle = |bytes: &mut Vec<u8>| {
            let at = at.index(bytes.len());
            match change {
                0 => bytes[at] ^= to | 1,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, to),
            }
        };
        if in_handshake {
            let mut bytes = pair.client_sends();
            mangle(&mut bytes);
            pair.server_receives(&bytes);
            let answer = if pair.server.has_output() { pair.server_sends(&[]) } else { vec![] };
            // The client's view of the handshake differs, so it notices at its end.
            if pair.client_receives(&answer).is_ok() {
                let _ = pair.settle();
            }
            prop_assert_eq!(&pair.received[..], b"");
        } else {
            pair.settle().unwrap();
            pair.client.writer().write_all(b"content that nobody may change").unwrap();
            let mut bytes = pair.client_sends();
            mangle(&mut bytes);
            pair.server_receives(&bytes);
            let more = pair.server.final_bytes();
            // A version byte of a record of TLS 1.3 is not checked, but authenticated.
            prop_assert!(pair.received.is_empty() || pair.received == b"content that nobody may change");
            let _ = pair.client_receives(&more);
        }
    }

    /// Arbitrary bytes in place of a handshake, or after it.
    #[test]
    fn arbitrary_bytes_are_no_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1_usize..50, first in any::<bool>(),
        established in any::<bool>(),
    ) {
        if first && !bytes.is_empty() {
            bytes[0] = if established { 23 } else { 22 };
        }
        let mut pair = if established {
            Pair::established(any_client(), &server_config(), piece)
        } else {
            Pair::new(any_client(), &server_config(), piece)
        };
        pair.server_receives(&bytes);
        prop_assert_eq!(&pair.received[..], b"");
        let _ = pair.server.final_bytes();
    }
}
