//! The text of an error of a TLS handshake, for the log line of a refused connection. PURE.
//!
//! Owns the texts. rustls has texts for programmers; these say what the client lacks or did. An error without a text of
//! its own is "it broke a rule of TLS". Does not contain a value of a peer. No limits: texts are constants. Cost: one
//! look-up in a match, no allocation.

use rustls::{Error, PeerIncompatible};

use crate::tls::alert::Alert;

pub(in crate::tls) fn text_of(error: &Error) -> &'static str {
    match error {
        Error::AlertReceived(alert) => Alert(u8::from(*alert)).text_of_peer(),
        Error::NoApplicationProtocol => "it wants another protocol than http/1.1 (ALPN)",
        Error::PeerIncompatible(why) => match why {
            PeerIncompatible::NoCipherSuitesInCommon => "it offers no cipher suite of this server",
            PeerIncompatible::NoKxGroupsInCommon => "it offers no key exchange of this server",
            PeerIncompatible::NoSignatureSchemesInCommon => {
                "it cannot check signatures by the key of the certificate"
            }
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired => {
                "it offers neither TLS 1.2 nor TLS 1.3"
            }
            _ => "it lacks a feature of TLS 1.2 and 1.3 that this server needs",
        },
        Error::InvalidMessage(_) => "it sent a message that is not TLS",
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "it sent a message that has no place there"
        }
        Error::DecryptError => "it sent a record that does not decrypt",
        Error::General(_) => "no certificate is configured for the name that it asks for",
        _ => "it broke a rule of TLS",
    }
}
