//! TLS: clients that do not speak it, handshakes that fail, and records that break a rule.

use ringverb::cause::Cause;

use super::case::{Answer, Case, Seen, http, silence};
use crate::support::{Client, Handshake, tls};

const TLS: [(&str, &str); 2] = [
    ("RINGVERB_TLS_CERT", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/server.pem")),
    ("RINGVERB_TLS_KEY", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/server.key.pem")),
];

#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    Case {
        cause: Cause::PlainOnTlsPort, env: &TLS,
        act: |server| http(server, b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n"),
        answer: "400 This port is TLS: use https:// or wss://.",
        line: "a client speaks plain HTTP to this port, which is TLS: use https:// and wss:// (REVERB_SCHEME=https, \
               forceTLS in Echo), or give TLS a port of its own by RINGVERB_TLS_PORT",
    },
    Case {
        cause: Cause::TlsHandshake, env: &TLS,
        act: |server| {
            let mut wire = server.wire();
            wire.send(&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0]);
            // A fatal alert: decode_error.
            assert_eq!(wire.take(7), [21, 3, 3, 0, 2, 2, 50]);
            wire.ended();
            Seen::http(&wire, Answer::Silence)
        },
        answer: "",
        line: "a TLS handshake failed, because of the client: it sent a message that is not TLS",
    },
    Case {
        cause: Cause::TlsRecord, env: &TLS,
        act: |server| {
            let wire = server.wire().secured(&tls::client());
            let mut client = Client::open_on(wire, &Handshake::new()).established();
            client.wire.send_changed_record();
            Seen::socket(&client, Answer::Silence)
        },
        answer: "",
        line: "a TLS connection was closed because of its client: it sent a record that does not decrypt",
    },
    Case {
        cause: Cause::TlsTimeout, env: &[TLS[0], TLS[1], ("RINGVERB_HANDSHAKE_TIMEOUT", "1")],
        act: |server| silence(server, &[22, 3, 1, 1, 0, 1]),
        answer: "",
        line: "a connection was closed because its TLS handshake was not complete after 1 s \
               (RINGVERB_HANDSHAKE_TIMEOUT)",
    },
];
