//! Early data of clients that have a ticket of another server, and what looks like it.

use std::io::Write;
use std::sync::Arc;

use rustls::crypto::SupportedKxGroup;
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::ring::kx_group::{SECP384R1, X25519};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, HandshakeKind, ServerConfig, ServerConnection, SupportedCipherSuite};

use super::super::early_data::EARLY_DATA_BYTES_MAX;
use super::super::record::first_record_bytes;
use super::super::secrets::SecretTap;
use super::{ChannelEnd, Pair, client_config, content, server_config};

/// A configuration of rustls alone with the same certificate. `change` sets what is unusual.
fn rustls_server(
    groups: Vec<&'static dyn SupportedKxGroup>,
    change: impl FnOnce(&mut ServerConfig),
) -> Arc<ServerConfig> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.kx_groups = groups;
    let chain = CertificateDer::pem_slice_iter(certificate!("server")).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(certificate!("server.key")).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.unwrap(), key)
        .unwrap();
    change(&mut config);
    Arc::new(config)
}

/// A client that has a ticket of another server, which accepts early data.
fn client_with_foreign_ticket(
    suite: SupportedCipherSuite,
    fragment: Option<usize>,
) -> Arc<ClientConfig> {
    let mut config = client_config(&[&TLS13], Some(suite));
    config.enable_early_data = true;
    config.max_fragment_size = fragment;
    let config = Arc::new(config);
    let other = rustls_server(vec![X25519], |config| config.max_early_data_size = 16_384);
    let mut client =
        rustls::ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(other).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    config
}

/// Has the client send this as early data, in records of at most `record` bytes.
fn send_early(pair: &mut Pair, early: &[u8], record: usize) {
    for part in early.chunks(record) {
        let mut writer = pair.client.early_data().expect("its ticket allows early data");
        writer.write_all(part).unwrap();
    }
}

#[track_caller]
fn is_served(mut pair: Pair) {
    pair.settle().unwrap();
    assert_eq!(pair.end, None);
    assert!(pair.server.is_established() && !pair.client.is_early_data_accepted());
    assert_eq!(pair.received, b"", "early data is never content");
    pair.exchange(&content(20_000));
    pair.client.refresh_traffic_keys().unwrap();
    pair.settle().unwrap();
    pair.exchange(b"after a key update");
}

#[test]
fn early_data_of_another_servers_ticket_is_skipped_with_every_suite_and_in_pieces_of_any_size() {
    let server = server_config();
    for suite in
        [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256]
    {
        for (bytes, record, piece) in [
            (1, 1, 1),
            (100, 10, 1),
            (16_384, 16_384, 777),
            (16_384, 16_384, usize::MAX),
            (16_384, 64, usize::MAX),
        ] {
            let client = client_with_foreign_ticket(suite, None);
            let mut pair = Pair::new(client, &server, piece);
            send_early(&mut pair, &content(bytes), record);
            is_served(pair);
        }
    }
}

/// A Finished message in parts must not be taken for early data, because rustls needs its parts again.
#[test]
fn a_finished_message_in_two_records_after_early_data_completes_the_handshake() {
    let server = server_config();
    for piece in [1, usize::MAX] {
        for early in [0, 1, 200] {
            let client = client_with_foreign_ticket(TLS13_AES_128_GCM_SHA256, Some(32));
            let mut pair = Pair::new(client, &server, piece);
            send_early(&mut pair, &content(early), 10);
            is_served(pair);
        }
    }
}

#[test]
fn early_data_before_a_second_hello_is_skipped() {
    // The client has no key share for the only group of this server, so that it is asked for another hello.
    let server = rustls_server(vec![SECP384R1], |config| {
        config.max_early_data_size = EARLY_DATA_BYTES_MAX;
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(SecretTap);
    });
    for (bytes, piece) in [(0, 1), (50, 1), (16_384, 999), (16_384, usize::MAX)] {
        let client = client_with_foreign_ticket(TLS13_AES_128_GCM_SHA256, None);
        let mut pair = Pair::new(client, &server, piece);
        send_early(&mut pair, &content(bytes), 16_384);
        let hello = pair.client_sends();
        pair.server_receives(&hello);
        let retry = pair.server_sends(&[]);
        pair.client_receives(&retry).unwrap();
        pair.settle().unwrap();
        let kind = pair.client.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::FullWithHelloRetryRequest));
        pair.exchange(b"content");
    }
}

/// A record that no key opens.
fn record(bytes: usize) -> Vec<u8> {
    let [high, low] = u16::try_from(bytes).unwrap().to_be_bytes();
    [&[23, 3, 3, high, low][..], &content(bytes)].concat()
}

#[test]
fn early_data_beyond_the_limit_ends_the_handshake() {
    let server = server_config();
    let most = EARLY_DATA_BYTES_MAX as usize;
    for (more, is_served) in [(0, true), (1, false)] {
        let client = client_with_foreign_ticket(TLS13_AES_128_GCM_SHA256, None);
        let mut pair = Pair::new(client, &server, 5_000);
        send_early(&mut pair, b"x", 1);
        let flight = pair.client_sends();
        pair.server_receives(&flight);
        // One byte, its type and its tag were skipped.
        let left = most - 18;
        let records = [record(16_384), record(left - 16_384 - 100), record(100 + more)];
        pair.server_receives(&records.concat());
        if is_served {
            assert_eq!(pair.end, None);
            pair.settle().unwrap();
            pair.exchange(b"content");
        } else {
            let end = pair.end.expect("the end");
            assert!(
                matches!(end, ChannelEnd::Failed(why) if why.contains("over 32,768")),
                "{end:?}"
            );
            let expected = rustls::AlertDescription::BadRecordMac;
            let last = pair.server.final_bytes();
            let error = pair.client_receives(&last).unwrap_err();
            assert_eq!(error, rustls::Error::AlertReceived(expected));
        }
    }
}

#[test]
fn undecryptable_records_of_a_client_without_early_data_end_its_handshake() {
    let mut pair = Pair::new(client_config(&[&TLS13], None).into(), &server_config(), usize::MAX);
    let hello = pair.client_sends();
    pair.server_receives(&hello);
    pair.server_receives(&record(40));
    assert!(matches!(pair.end, Some(ChannelEnd::Failed(why)) if why.contains("does not decrypt")));
}

/// rustls would skip them without a limit, because it counts their content only.
#[test]
fn a_sealed_record_without_content_ends_the_handshake() {
    for bytes in [0, 1, 16] {
        let server = server_config();
        let client = client_with_foreign_ticket(TLS13_AES_128_GCM_SHA256, None);
        let mut pair = Pair::new(client, &server, 5_000);
        send_early(&mut pair, b"x", 1);
        let flight = pair.client_sends();
        pair.server_receives(&flight);
        assert_eq!(pair.end, None);
        pair.server_receives(&record(bytes));
        let end = pair.end.expect("the end");
        assert!(
            matches!(end, ChannelEnd::Failed(why) if why.contains("without content")),
            "{bytes}: {end:?}"
        );
    }
}

/// rustls would skip it as early data.
#[test]
fn a_handshake_message_without_its_key_ends_the_handshake() {
    for early in [&b""[..], b"early"] {
        let client = client_with_foreign_ticket(TLS13_AES_128_GCM_SHA256, None);
        let mut pair = Pair::new(client, &server_config(), usize::MAX);
        send_early(&mut pair, early, 100);
        let flight = pair.client_sends();
        pair.server_receives(&flight);
        assert_eq!(pair.end, None);
        let finished = [&[22, 3, 3, 0, 36, 20, 0, 0, 32][..], &[7; 32]].concat();
        pair.server_receives(&finished);
        let end = pair.end.expect("the end");
        assert!(
            matches!(end, ChannelEnd::Failed(why) if why.contains("without its key")),
            "{end:?}"
        );
    }
}

/// The client's key has opened a record, so what it does not open is no early data.
#[test]
fn an_undecryptable_record_between_the_parts_of_a_finished_message_ends_the_handshake() {
    for piece in [1, usize::MAX] {
        let client = client_with_foreign_ticket(TLS13_AES_128_GCM_SHA256, Some(32));
        let mut pair = Pair::new(client, &server_config(), piece);
        send_early(&mut pair, b"early", 100);
        let hello = pair.client_sends();
        pair.server_receives(&hello);
        let answer = pair.server_sends(&[]);
        pair.client_receives(&answer).unwrap();
        let flight = pair.client_sends();
        let at = first_record_bytes(&flight);
        assert!(at < flight.len(), "a part of Finished");
        pair.server_receives(&flight[..at]);
        assert_eq!(pair.end, None);
        pair.server_receives(&record(64));
        let end = pair.end.expect("the end");
        assert!(matches!(end, ChannelEnd::Failed(why) if why.contains("a rule of TLS")), "{end:?}");
    }
}
