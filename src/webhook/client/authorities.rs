//! The certificate authorities that programs of this host trust: its store, or SSL_CERT_FILE and SSL_CERT_DIR.
//!
//! Reads files, and may wait for their file system for any time: only the thread of `tls_agent.rs` calls it. Owns no
//! state, and does not check a certificate (rustls does). What cannot be read is left out, with one warning. Without
//! any authority, no certificate is trusted. No limit: the files are the host's own. Cost: once for the first request
//! over TLS; it reads and parses about 200 KiB of files.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use ureq::tls::{Certificate, RootCerts};

const FILE: &str = "SSL_CERT_FILE";
const FOLDERS: &str = "SSL_CERT_DIR";

#[expect(
    clippy::disallowed_methods,
    reason = "no option of this server: programs with OpenSSL read it, as rustls-native-certs does"
)]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Where the authorities are, for a person who looks for the file system that does not answer.
pub(super) fn places() -> String {
    let place =
        |name| variable(name).map(|path| format!("{name} names {}", Path::new(&path).display()));
    let places: Vec<String> = [FILE, FOLDERS].into_iter().filter_map(place).collect();
    if places.is_empty() { "its own store".to_owned() } else { places.join(", ") }
}

pub(super) fn read() -> RootCerts {
    let is_no_file = |path: &OsString| fs::metadata(path).is_ok_and(|found| !found.is_file());
    // A pipe may never end.
    if let Some(path) = variable(FILE).filter(is_no_file) {
        tracing::warn!(
            event = "webhook_authorities",
            "SSL_CERT_FILE names {}, which is no regular file: webhooks over TLS trust no certificate. Name a file of \
             certificates and start the server again",
            Path::new(&path).display()
        );
        return RootCerts::from([]);
    }
    let found = rustls_native_certs::load_native_certs();
    if let Some(error) = found.errors.first() {
        tracing::warn!(
            event = "webhook_authorities",
            "not all certificate authorities of this host can be read (its store, SSL_CERT_FILE, SSL_CERT_DIR), so \
             webhooks do not trust certificates of the others. {} errors, the first: {error}",
            found.errors.len()
        );
    } else if found.certs.is_empty() {
        tracing::warn!(
            event = "webhook_authorities",
            "this host has no certificate authorities (its store, SSL_CERT_FILE, SSL_CERT_DIR), so webhooks over TLS \
             trust no certificate: install the package ca-certificates, and start the server again"
        );
    }
    RootCerts::from(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()))
}
