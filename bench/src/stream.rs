//! A connection's bytes, plain or over TLS.
//!
//! Owns the socket and its TLS session. Knows no protocol above. TLS is rustls over the same non-blocking socket.
//! Certificates are not checked: the cost of the bytes is measured, not the truth of a name, and nothing secret goes
//! over them except what signs test traffic. Limits: those of rustls' buffers. Cost: plain, one system call a read or
//! write and no copy; TLS, what rustls needs, and a copy in each direction.

mod tickets;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
};

pub(crate) use tickets::resumed;
use tickets::{Tickets, note_resumed};

pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

pub(crate) struct Tls {
    session: ClientConnection,
    socket: TcpStream,
}

impl Stream {
    /// Over a socket that is connecting or connected.
    pub(crate) fn new(socket: TcpStream, tls: bool) -> io::Result<Self> {
        if !tls {
            return Ok(Self::Plain(socket));
        }
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
        let session = ClientConnection::new(config(), name).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(Tls { session, socket })))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }

    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket().take_error()
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        self.socket().shutdown(Shutdown::Both)
    }

    /// Whether bytes that were taken wait for room in the socket. `push` moves them on.
    pub(crate) fn has_unsent(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.session.wants_write())
    }

    /// Sends what `write` took and the socket had no room for.
    pub(crate) fn push(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.push(),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket().as_raw_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => {
                let taken = tls.session.writer().write(bytes)?;
                tls.push()?;
                // Nothing taken is a full buffer, not the end.
                if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

impl Tls {
    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            let count = self.session.read_tls(&mut self.socket)?;
            let was_handshaking = self.session.is_handshaking();
            self.session.process_new_packets().map_err(io::Error::other)?;
            if was_handshaking
                && !self.session.is_handshaking()
                && self.session.handshake_kind() == Some(HandshakeKind::Resumed)
            {
                note_resumed();
            }
            // The handshake answers, and so does TLS 1.3 later on.
            self.push()?;
            if count == 0 {
                return Ok(0);
            }
        }
    }
}

fn config() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        // `full-1.3`, `resumed-1.2`; for bench/tls.sh, whose client processes inherit it.
        let kind = std::env::var("RINGVERB_BENCH_TLS").unwrap_or_default();
        let versions = match () {
            () if kind.ends_with("1.2") => &[&rustls::version::TLS12][..],
            () if kind.ends_with("1.3") => &[&rustls::version::TLS13],
            () => rustls::ALL_VERSIONS,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the provider has suites of both versions");
        let verifier = Arc::new(AnyCertificate { schemes });
        let mut config =
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.resumption = match kind.starts_with("full") {
            true => Resumption::disabled(),
            false => Resumption::store(Arc::new(Tickets::default())),
        };
        Arc::new(config)
    };
    CONFIG.get_or_init(make).clone()
}

#[derive(Debug)]
struct AnyCertificate {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use std::net::TcpListener;

    /// An echo over TLS, and a client that meets it with a non-blocking socket and more bytes than any buffer holds.
    #[test]
    fn bytes_come_back_over_tls() {
        let certificate = include_bytes!("../../tests/certificates/server.pem");
        let certificates = CertificateDer::pem_slice_iter(certificate);
        let certificates = certificates.collect::<Result<Vec<_>, _>>().unwrap();
        let key = include_bytes!("../../tests/certificates/server.key.pem");
        let key = PrivateKeyDer::from_pem_slice(key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let session = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, listener.accept().unwrap().0);
            let mut chunk = vec![0; 100_000];
            while let Ok(count) = stream.read(&mut chunk) {
                if count == 0 || stream.write_all(&chunk[..count]).is_err() {
                    break;
                }
            }
        });
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut stream = Stream::new(socket, true).unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let (mut sent, mut got) = (0, Vec::new());
        let mut chunk = vec![0; 64 * 1024];
        while got.len() < bytes.len() {
            if sent < bytes.len()
                && let Ok(count) = stream.write(&bytes[sent..])
            {
                sent += count;
            }
            stream.push().unwrap();
            match stream.read(&mut chunk) {
                Ok(count) => got.extend_from_slice(&chunk[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        assert!(got == bytes);
        stream.shutdown().unwrap();
        server.join().unwrap();
    }
}
