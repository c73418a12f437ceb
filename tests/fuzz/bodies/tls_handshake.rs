//! The driver of TLS handshakes: arbitrary bytes in place of a client, in pieces of any size. Nothing comes through
//! before the handshake is complete, the driver keeps one record at most, and after an end it stays ended.

use std::sync::{Arc, OnceLock};

use ringverb::tls::identity::{Identity, acceptor};
use ringverb::tls::socket::{ChannelEnd, SecureSocket};
use ringverb::tls::ticket::{TICKET_KEY_BYTES, TicketKey};
use ringverb::tls::{RECORD_BYTES_MAX, TlsChannel};
use rustls::ServerConfig;

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
        );
        let keys = [TicketKey::of_bytes([7; TICKET_KEY_BYTES])];
        acceptor(vec![identity.expect("a pair")], &keys, |bytes| {
            bytes.fill(1);
            true
        })
        .expect("a configuration")
    })
}

/// The first byte is the length of a piece.
pub(crate) fn check(data: &[u8]) {
    let Some((&piece, stream)) = data.split_first() else { return };
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
    assert!(socket.last_words().len() < OUTPUT_BYTES_MAX);
}
