//! TLS of a command to the server of the same configuration.
//!
//! Owns the stream, plain or not. The command connects by an address, and certificates are for names. So it accepts the
//! configured certificates and no other ones: it reads RINGVERB_TLS_CERT, and compares. Signatures are checked as
//! usual. Does not look at names or dates of certificates.
//! Limit: none of its own, bounded by the certificates of the configuration. Cost: one file read for each certificate,
//! and one handshake.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
    SignatureScheme, StreamOwned,
};

use super::outcome::CommandFailure;
use crate::config::TlsOptions;
use crate::server::certificates;

/// One type for both, so that `connection.rs` has one code path.
pub(super) enum ServerStream {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl ServerStream {
    /// With `tls`, the first read or write makes the handshake, so its errors come from there.
    pub(super) fn new(stream: TcpStream, tls: Option<&TlsOptions>) -> Result<Self, CommandFailure> {
        let Some(tls) = tls else { return Ok(Self::Plain(stream)) };
        let unusable =
            |error: Error| CommandFailure::Server(format!("TLS cannot be used: {error}"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = PinnedCertificates {
            accepted: configured_certificates(tls)?,
            provider: provider.clone(),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // No name is sent for an address, so the server sends its first certificate.
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        let client = ClientConnection::new(Arc::new(config), name).map_err(unusable)?;
        Ok(Self::Secure(Box::new(StreamOwned::new(client, stream))))
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Secure(stream) => &stream.sock,
        }
    }
}

impl Read for ServerStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Secure(stream) => stream.read(buffer),
        }
    }
}

impl Write for ServerStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Secure(stream) => stream.flush(),
        }
    }
}

/// The first certificate of each file is the server's own; the others are its issuers.
fn configured_certificates(
    tls: &TlsOptions,
) -> Result<Vec<CertificateDer<'static>>, CommandFailure> {
    let read = |path: &String| {
        let bytes = certificates::read_file(path).map_err(|error| error.to_string())?;
        CertificateDer::from_pem_slice(&bytes).map_err(|error| error.to_string())
    };
    let each = tls.pairs.iter().map(|pair| {
        read(&pair.certificate).map_err(|why| {
            CommandFailure::Server(format!(
                "{} cannot be read: {why}. This command accepts the server by its certificate, which \
                 RINGVERB_TLS_CERT names: run it as a user who may read the file",
                pair.certificate
            ))
        })
    });
    each.collect()
}

/// Pins the certificates of the configuration, in place of a check of names and issuers.
#[derive(Debug)]
struct PinnedCertificates {
    accepted: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificates {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.accepted.contains(certificate) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
