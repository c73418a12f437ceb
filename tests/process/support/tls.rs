//! TLS for the clients of the tests: the authority of tests/certificates is trusted, and nothing else.
//!
//! Owns no connection: `wire.rs` does. Does not share tickets between configurations, so that a test decides what is
//! resumed. No limits: files of one folder. Cost: a file or two for each configuration.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

/// The name in the certificate.
pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// A file of tests/certificates.
pub(crate) fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name);
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// The files of a certificate and its key.
pub(crate) fn pair(name: &str) -> [String; 2] {
    [file(&format!("{name}.pem")), file(&format!("{name}.key.pem"))]
}

pub(crate) fn client() -> Arc<ClientConfig> {
    client_of(rustls::ALL_VERSIONS)
}

/// Each configuration has its own store of tickets.
pub(crate) fn client_of(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(file("authority.pem")).expect("an authority");
    roots.add(authority).expect("an authority");
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A server with the certificate of localhost.
pub(crate) fn server() -> Arc<ServerConfig> {
    let [certificate, key] = pair("server");
    let chain = CertificateDer::pem_file_iter(certificate).expect("a file");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let provider = rustls::crypto::ring::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key);
    Arc::new(config.expect("a pair"))
}
