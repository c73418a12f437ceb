//! Both ends of TLS with the certificates of the tests.

use std::io::Read;
use std::sync::Arc;

use ringverb::tls::identity::{Identity, acceptor};
use ringverb::tls::ticket::{TICKET_KEY_BYTES, TicketKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

fn random(bytes: &mut [u8]) -> bool {
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes)).is_ok()
}

pub(crate) fn server_config() -> Arc<ServerConfig> {
    let identity = Identity::read(
        include_bytes!("../../../tests/certificates/server.pem"),
        include_bytes!("../../../tests/certificates/server.key.pem"),
        None,
    );
    let keys = [TicketKey::of_bytes([7; TICKET_KEY_BYTES])];
    acceptor(vec![identity.expect("a pair")], &keys, random).expect("a configuration")
}

/// A client that speaks this version and trusts the authority of the tests.
pub(crate) fn client_config(version: &'static SupportedProtocolVersion) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let authority = include_bytes!("../../../tests/certificates/authority.pem");
    let authority = CertificateDer::from_pem_slice(authority).expect("a certificate");
    roots.add(authority).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
