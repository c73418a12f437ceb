//! TLS of the floor: rustls' buffered API, configured as ringverb configures its handshakes.
//!
//! Owns no state: a connection belongs to `handshake_floor`. Does not use code of ringverb. The first suite is AES-128,
//! one ticket is sent, and no session is stored. No limits: those of rustls. Cost: that of rustls; each flight is
//! copied twice more, and has one system call in each direction.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ServerConfig, ServerConnection};

pub(super) type Acceptor = Arc<ServerConfig>;

pub(super) fn acceptor(certificate: &Path, key: &Path) -> io::Result<Acceptor> {
    let chain = CertificateDer::pem_file_iter(certificate).map_err(io::Error::other)?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let mut provider = rustls::crypto::ring::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(io::Error::other)?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

pub(super) fn begin(acceptor: &Acceptor) -> io::Result<ServerConnection> {
    ServerConnection::new(acceptor.clone()).map_err(io::Error::other)
}

/// Reads once, and sends what TLS answers together with the answer to a request, if one was read.
pub(super) fn serve(
    secure: &mut ServerConnection,
    stream: &mut TcpStream,
    chunk: &mut [u8],
    answer_to: &mut impl FnMut(&[u8]) -> Vec<u8>,
) -> io::Result<()> {
    let count = stream.read(chunk)?;
    if count == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let mut received = &chunk[..count];
    while !received.is_empty() {
        secure.read_tls(&mut received)?;
        secure.process_new_packets().map_err(io::Error::other)?;
    }
    match secure.reader().read(chunk) {
        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            let answer = answer_to(&chunk[..count]);
            secure.writer().write_all(&answer)?;
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    while secure.wants_write() {
        secure.write_tls(stream)?;
    }
    Ok(())
}
