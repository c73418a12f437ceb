//! Certificates and keys of the server: PEM to a configuration of rustls, and the reasons why a pair cannot be used.
//!
//! Owns the checks. Input: the bytes of the files. Output: an `Identity` for each pair, or an error that says what to
//! change. `acceptor` makes the configuration of new handshakes from identities and ticket keys. With several
//! identities, the name that the client asks for (SNI) chooses the certificate. The operator's own files are trusted,
//! but are read within bounds. Does not read files (`server/certificates.rs`).
//!
//! Limits: `config/tls.rs` bounds the number of pairs, `server/certificates.rs` the bytes of each file. Cost: once at
//! the start and at each reload, linear in the files; for a handshake with a name, and several pairs, one parse of each
//! certificate until one fits.

mod error;

use std::fmt;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ServerConfig};

use super::early_data::EARLY_DATA_BYTES_MAX;
use super::private_key;
use super::secrets::SecretTap;
use super::ticket::{TicketKey, Tickets};
pub use error::{IdentityError, date};

/// Seconds for which a session can be resumed.
pub const TICKET_LIFETIME_SECONDS: u32 = 12 * 3_600;

/// A certificate with its chain and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    certified_key: Arc<CertifiedKey>,
    /// Both in seconds since 1970, from the first certificate.
    pub valid_from: i64,
    pub valid_until: i64,
    /// What is unusual, but may be intended.
    pub warning: Option<IdentityWarning>,
}

/// A chain that some or all clients refuse. The server starts with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityWarning {
    /// One certificate, whose issuer is another one that is not in the file.
    NoChain,
    SelfSigned,
    /// A certificate was not issued by the one that follows it.
    Disordered,
}

impl fmt::Display for IdentityWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoChain => {
                "has one certificate and not that of its issuer: clients that do not know the issuer will refuse it; \
                 name the file with the whole chain (fullchain.pem) in RINGVERB_TLS_CERT"
            }
            Self::SelfSigned => {
                "has a self-signed certificate: clients refuse it unless they are configured to trust it"
            }
            Self::Disordered => {
                "has certificates that are not in order: each must be followed by the one of its issuer, or some \
                 clients refuse them"
            }
        })
    }
}

impl Identity {
    /// Reads a pair from PEM text.
    ///
    /// # Errors
    /// Why the pair cannot be used, now or later.
    pub fn read(
        certificates: &[u8],
        key: &[u8],
        passphrase: Option<&str>,
    ) -> Result<Self, IdentityError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<_, _>>()
            .map_err(|_| IdentityError::UnreadableCertificate)?;
        let first = chain.first().ok_or(IdentityError::NoCertificate)?;
        let parts = CertificateParts::read(first).ok_or(IdentityError::UnreadableCertificate)?;
        let warning = warning_about(&chain);
        let (valid_from, valid_until) = (parts.valid_from, parts.valid_until);
        let key = private_key::read(key, passphrase)?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|error| IdentityError::UnusableKey(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(IdentityError::KeyDoesNotFit),
            Err(_) => return Err(IdentityError::UnreadableCertificate),
        }
        Ok(Self { certified_key: Arc::new(certified), valid_from, valid_until, warning })
    }

    /// Checks the dates of the first certificate.
    ///
    /// # Errors
    /// The certificate is not valid at `now`, in seconds since 1970.
    pub fn check_dates(&self, now: i64) -> Result<(), IdentityError> {
        if now < self.valid_from {
            return Err(IdentityError::NotYetValid { from: self.valid_from, now });
        }
        if now > self.valid_until {
            return Err(IdentityError::Expired { until: self.valid_until, now });
        }
        Ok(())
    }

    fn is_valid_for(&self, name: &ServerName<'_>) -> bool {
        let Some(first) = self.certified_key.cert.first() else { return false };
        ParsedCertificate::try_from(first)
            .is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }
}

/// Chooses the first certificate that is valid for the name that the client asks for, otherwise the first one.
#[derive(Debug)]
struct CertificatesByName(Vec<Identity>);

impl ResolvesServerCert for CertificatesByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let [first, others @ ..] = self.0.as_slice() else { return None };
        let name = hello.server_name().filter(|_| !others.is_empty());
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let found =
            name.and_then(|name| self.0.iter().find(|identity| identity.is_valid_for(&name)));
        Some(found.unwrap_or(first).certified_key.clone())
    }
}

/// The configuration of new handshakes.
///
/// # Errors
/// When rustls refuses it, which a wrong build of it would cause.
pub fn acceptor(
    identities: Vec<Identity>,
    tickets: &[TicketKey],
    random: fn(&mut [u8]) -> bool,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut provider = rustls::crypto::ring::default_provider();
    // AES-128 is as secure for this use, and its key is cheaper to expand. With `ignore_client_order` this order
    // counts.
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(CertificatesByName(identities)));
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(Tickets::new(tickets, TICKET_LIFETIME_SECONDS, random));
    config.send_tls13_tickets = 1;
    // Most early data that is skipped. None is accepted, because the server keeps no sessions.
    config.max_early_data_size = EARLY_DATA_BYTES_MAX;
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(SecretTap);
    Ok(Arc::new(config))
}

fn warning_about(chain: &[CertificateDer<'_>]) -> Option<IdentityWarning> {
    let parts: Vec<_> =
        chain.iter().map(|one| CertificateParts::read(one)).collect::<Option<_>>()?;
    let is_next = |pair: &[CertificateParts<'_>]| match pair {
        [one, next] => one.issuer == next.subject,
        _ => true,
    };
    match parts.as_slice() {
        [only] if only.issuer == only.subject => Some(IdentityWarning::SelfSigned),
        [_] => Some(IdentityWarning::NoChain),
        several if !several.windows(2).all(is_next) => Some(IdentityWarning::Disordered),
        _ => None,
    }
}

struct CertificateParts<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    valid_from: i64,
    valid_until: i64,
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The tag of a certificate's version, which is absent in version 1.
const VERSION: u8 = 0xa0;

impl<'a> CertificateParts<'a> {
    /// Reads the fields in the order of RFC 5280 section 4.1. `None` if one is missing or has another type.
    fn read(certificate: &'a [u8]) -> Option<Self> {
        let (SEQUENCE, whole, _) = der_value(certificate)? else { return None };
        let (SEQUENCE, mut rest, _) = der_value(whole)? else { return None };
        if let (VERSION, _, after) = der_value(rest)? {
            rest = after;
        }
        let (_serial, _, rest) = der_value(rest)?;
        let (_algorithm, _, rest) = der_value(rest)?;
        let (SEQUENCE, issuer, rest) = der_value(rest)? else { return None };
        let (SEQUENCE, validity, rest) = der_value(rest)? else { return None };
        let (SEQUENCE, subject, _) = der_value(rest)? else { return None };
        let (kind, from, validity) = der_value(validity)?;
        let valid_from = der_time(kind, from)?;
        let (kind, until, _) = der_value(validity)?;
        Some(Self { issuer, subject, valid_from, valid_until: der_time(kind, until)? })
    }
}

/// The first value of DER bytes: its tag, its content, and the bytes after it.
fn der_value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest
            .split_first_chunk()
            .map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((*tag, value, rest))
}

/// A time of a certificate, in seconds since 1970.
fn der_time(kind: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |at: usize, count: usize| -> Option<i64> {
        let digits = digits.get(at..at + count)?;
        digits.iter().try_fold(0, |number, digit| {
            digit.is_ascii_digit().then(|| 10 * number + i64::from(digit - b'0'))
        })
    };
    let (year, at) = match kind {
        // Two digits of a year: RFC 5280 section 4.1.2.5.1.
        UTC_TIME => {
            let year = number(0, 2)?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, 2)
        }
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let days = days_since_1970(year, number(at, 2)?, number(at + 2, 2)?);
    let time = (number(at + 4, 2)? * 60 + number(at + 6, 2)?) * 60 + number(at + 8, 2)?;
    (digits.len() == at + 10).then_some(days * 86_400 + time)
}

/// Days of the Gregorian calendar. Years begin in March here, so that the leap day is the last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_both_ways() {
        for (text, kind, shown) in [
            (&b"700101000000Z"[..], UTC_TIME, "1970-01-01 00:00 UTC"),
            (b"240229235900Z", UTC_TIME, "2024-02-29 23:59 UTC"),
            (b"20991231120000Z", GENERALIZED_TIME, "2099-12-31 12:00 UTC"),
            (b"21000301000000Z", GENERALIZED_TIME, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(der_time(kind, text).unwrap()), shown);
        }
        assert_eq!(der_time(UTC_TIME, b"260101000000Z"), Some(1_767_225_600));
        for wrong in [&b"26010100000Z"[..], b"2601010000000Z", b"26x101000000Z", b"", b"Z"] {
            assert_eq!(der_time(UTC_TIME, wrong), None, "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn a_value_that_is_cut_is_no_value() {
        assert_eq!(der_value(&[SEQUENCE, 1, 7, 9]), Some((SEQUENCE, &[7][..], &[9][..])));
        let long = [&[SEQUENCE, 0x82, 1, 0][..], &[0; 256]].concat();
        assert_eq!(der_value(&long), Some((SEQUENCE, &[0; 256][..], &[][..])));
        for cut in 0..long.len() {
            assert_eq!(der_value(&long[..cut]), None);
        }
    }
}
