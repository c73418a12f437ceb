//! Input that is no TLS, or breaks its rules.

use super::{Pair, any_client, server_config};
use crate::tls::record::IDLE_RECORDS_MAX;
use crate::tls::socket::{ChannelEnd, SecureSocket};
use crate::tls::{RECORD_BYTES_MAX, TlsChannel};

#[test]
fn what_is_no_tls_is_seen_at_the_first_byte() {
    let mut server = SecureSocket::<TlsChannel>::accept(&server_config()).unwrap();
    let mut buffer = vec![0; RECORD_BYTES_MAX];
    buffer.extend_from_slice(b"GET / HTTP/1.1\r\n");
    let end = buffer.len();
    let input = server.receive(&mut buffer, RECORD_BYTES_MAX, end);
    assert_eq!(input.end, Some(ChannelEnd::NotTls));
    assert_eq!(&buffer[RECORD_BYTES_MAX..], b"GET / HTTP/1.1\r\n");
}

#[test]
fn records_that_contain_nothing_are_limited_in_a_row() {
    let mut pair = Pair::established(any_client(), &server_config(), usize::MAX);
    for round in 0..2 {
        for _ in 0..IDLE_RECORDS_MAX {
            pair.client.refresh_traffic_keys().unwrap();
            let update = pair.client_sends();
            pair.server_receives(&update);
        }
        assert_eq!(pair.end, None, "round {round}");
        pair.settle().unwrap();
        pair.exchange(b"x");
    }
    for _ in 0..=IDLE_RECORDS_MAX {
        pair.client.refresh_traffic_keys().unwrap();
        let update = pair.client_sends();
        pair.server_receives(&update);
    }
    assert!(matches!(pair.end, Some(ChannelEnd::Failed(_))));
    let last = pair.server.final_bytes();
    let answers = pair.client_receives(&last).unwrap_err();
    let expected = rustls::AlertDescription::UnexpectedMessage;
    assert_eq!(answers, rustls::Error::AlertReceived(expected));
}

#[test]
fn a_record_of_impossible_length_is_refused_by_its_header() {
    let mut pair = Pair::established(any_client(), &server_config(), usize::MAX);
    pair.server_receives(&[23, 3, 3, 0x41, 1]);
    assert!(matches!(pair.end, Some(ChannelEnd::Failed(why)) if why.contains("16,384")));
    for (length, text) in [
        ([0x40, 1], "it sent a handshake record over 16,384 bytes"),
        ([0x41, 0], "it sent a handshake record over 16,384 bytes"),
        ([0x41, 1], "its handshake is over 16,645 bytes"),
    ] {
        let mut fresh = Pair::new(any_client(), &server_config(), 1);
        fresh.server_receives(&[&[22, 3, 1][..], &length].concat());
        assert_eq!(fresh.end, Some(ChannelEnd::Failed(text)));
        assert_eq!(fresh.server.final_bytes(), [21, 3, 3, 0, 2, 2, 22]);
    }
}
