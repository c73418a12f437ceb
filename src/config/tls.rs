//! The options of what comes before HTTP: TLS with its files in pairs and its port, and the PROXY protocol. PURE:
//! `server/certificates.rs` reads the files.
//!
//! Owns the rules between these options: certificates and keys come in pairs, and the TLS port differs from the plain
//! port. Input: values of options as text. Output: `TlsOptions`, the versions of the PROXY protocol, and the secret of
//! session tickets. Problems are collected for `validate.rs`. Does not know certificates.
//!
//! Limits: `PAIRS_MAX` pairs, `SECRET_BYTES` of a secret. Cost: once at the start and at each reload, one allocation
//! for each file name.

use super::options::OptionId as Id;
use super::validate::OptionReader;
use super::{MaskedText, Sourced, TlsOptions, TlsPair, Values};

/// Pairs of files. Each is parsed for each handshake in which a name is asked for.
const PAIRS_MAX: usize = 32;
/// Least and greatest length of a secret from which keys are derived.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=256;

impl OptionReader {
    /// Which of the versions 1 and 2 of the PROXY protocol are accepted; `None`: it is off.
    pub(super) fn proxy_protocol(&mut self, server: &Values) -> Option<[bool; 2]> {
        let versions = match self.choice(server, Id::ProxyProtocol) {
            0 => return None,
            1 => [true, false],
            2 => [false, true],
            _ => [true, true],
        };
        if self.list(server, Id::TrustedProxies).is_empty() {
            self.problems.push(
                "RINGVERB_PROXY_PROTOCOL is on, but only proxies that are named may send the header, and none is: name \
                 their addresses in RINGVERB_TRUSTED_PROXIES"
                    .to_owned(),
            );
        }
        Some(versions)
    }

    fn ticket_secret(&mut self, server: &Values) -> Option<MaskedText> {
        let given = server.get(Id::TlsTicketSecret).filter(|given| !given.value.is_empty())?;
        if !SECRET_BYTES.contains(&given.value.len()) {
            self.problems.push(format!(
                "{} has {} bytes, but {} to {} are needed: generate it once with `openssl rand -hex 32`, and set the \
                 same on all nodes",
                given.name(),
                given.value.len(),
                SECRET_BYTES.start(),
                SECRET_BYTES.end()
            ));
        }
        Some(MaskedText(given.value.clone()))
    }

    /// Certificates, keys and the TLS port. `port` is the plain port, which cannot be the TLS port too. `None`: no TLS.
    pub(super) fn tls(&mut self, server: &Values, port: u16) -> Option<TlsOptions> {
        let [certificates, keys] = [Id::TlsCert, Id::TlsKey].map(|id| self.list(server, id));
        let tls_port: Option<u16> = self.optional_number(server, Id::TlsPort);
        let name = |id: Id| server.get(id).map_or(id.spec().environment[0], Sourced::name);
        let [cert_name, key_name] = [Id::TlsCert, Id::TlsKey].map(name);
        if certificates.is_empty() && keys.is_empty() {
            if tls_port.is_some() {
                self.problems.push(format!(
                    "{} is set, but there is no certificate: name its files in RINGVERB_TLS_CERT and RINGVERB_TLS_KEY",
                    name(Id::TlsPort)
                ));
            }
            return None;
        }
        if certificates.len() != keys.len() {
            self.problems.push(format!(
                "{cert_name} names {} and {key_name} names {}, but each certificate needs its key: name as many files \
                 in both, in the same order",
                files(certificates.len()),
                files(keys.len())
            ));
        }
        if certificates.len() > PAIRS_MAX {
            self.problems.push(format!(
                "{cert_name} names {} files, and {PAIRS_MAX} are the limit: use certificates for several names",
                certificates.len()
            ));
        }
        if tls_port.is_some_and(|tls_port| tls_port == port) {
            self.problems.push(format!(
                "{} is {port}, which is the plain port (REVERB_SERVER_PORT) too: choose another, or leave it empty for \
                 TLS only",
                name(Id::TlsPort)
            ));
        }
        let pairs = certificates.into_iter().zip(keys);
        let pairs = pairs.map(|(certificate, key)| TlsPair { certificate, key }).collect();
        let ticket_secret = self.ticket_secret(server);
        let passphrase = server.get(Id::TlsKeyPassphrase).filter(|given| !given.value.is_empty());
        let passphrase = passphrase.map(|given| MaskedText(given.value.clone()));
        Some(TlsOptions { pairs, passphrase, port: tls_port, ticket_secret })
    }
}

fn files(count: usize) -> String {
    match count {
        0 => "no file".to_owned(),
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    }
}
