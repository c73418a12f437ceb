//! The HTTP client: one POST, and the classification of its answer.
//!
//! Blocks, so only senders call it. Signs the body with the app's secret. Follows no redirects. Limits: the configured
//! timeout for a request, `HEAD_BYTES_MAX`, `ANSWER_BYTES_READ`, and one kept connection for each endpoint. Owns the
//! kept connection; does not decide what is tried again (`backlog.rs`).

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::Read;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ureq::http::HeaderValue;
use ureq::http::header::{CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, DefaultConnector, NextTimeout};
use ureq::{Agent, Error, Timeout};

use super::header_case::TitleCase;
use super::retry::RetryVerdict;
use crate::app::App;
use crate::pusher::signature;
use crate::text::{SHOWN_BYTES_MAX, shown, visible};

/// Bytes of an answer's body that are read, so that its connection can be reused. The content is ignored.
const ANSWER_BYTES_READ: u64 = 4 * 1024;
/// Head of an answer; Laravel's have 1 or 2 KiB of cookies.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Addresses of one name that are tried (`ResolvedSocketAddrs` has that many places).
const ADDRESSES_MAX: usize = 16;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeliveryFailure {
    /// An answer, but not 2xx; and its `Retry-After`, if that is a number of seconds.
    Status(u16, Option<Duration>),
    /// No whole answer head within the time.
    Timeout,
    /// Not resolved, or not connected.
    Connection(String),
    /// Closed after the connection was established, or answered with something else than HTTP.
    HungUp(String),
    /// The backend's certificate is not trusted, or TLS cannot be spoken with it.
    Tls(String),
}

/// The client of all endpoints. Connections are kept open between requests.
#[derive(Clone, Debug)]
pub(super) struct EndpointClient {
    plain: Agent,
    /// Made for the first request over TLS: it reads the certificates of all authorities of the host, which takes
    /// longer than a request.
    over_tls: Arc<OnceLock<Agent>>,
    is_closed: Arc<AtomicBool>,
    timeout: Duration,
    endpoints: usize,
}

impl EndpointClient {
    /// `timeout` is for one whole request, `endpoints` bounds the connections that are kept.
    pub(super) fn new(timeout: Duration, endpoints: usize) -> Self {
        let plain = agent(timeout, endpoints, RootCerts::from([]));
        let (over_tls, is_closed) = (Arc::new(OnceLock::new()), Arc::new(AtomicBool::new(false)));
        Self { plain, over_tls, is_closed, timeout, endpoints }
    }

    fn agent_for(&self, url: &str) -> &Agent {
        let is_over_tls = url.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("https:"));
        if !is_over_tls {
            return &self.plain;
        }
        let over_tls = self
            .over_tls
            .get_or_init(|| agent(self.timeout, self.endpoints, authorities_of_host()));
        if self.is_closed.load(Ordering::SeqCst) {
            over_tls.clone().shutdown();
        }
        over_tls
    }

    /// Posts the body, signed with the app's secret (docs/PROTOCOL.md rule 52).
    ///
    /// # Errors
    /// Anything but 2xx.
    pub(super) fn post(&self, url: &str, app: &App, body: &[u8]) -> Result<(), DeliveryFailure> {
        let signature = signature::sign(&app.secret, &[body]);
        let mut answer = self
            .agent_for(url)
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("ringverb/", env!("CARGO_PKG_VERSION")))
            .header(
                "X-Pusher-Key",
                HeaderValue::from_bytes(app.key.as_bytes()).map_err(unspecified_failure)?,
            )
            .header(
                "X-Pusher-Signature",
                HeaderValue::from_bytes(&signature).map_err(unspecified_failure)?,
            )
            .send(body)
            .map_err(|error| DeliveryFailure::from(&error))?;
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| {
            let seconds = value.to_str().ok()?.trim().parse().ok()?;
            Some(Duration::from_secs(seconds))
        });
        // The status is the answer, even if reading the body fails.
        let body = answer.body_mut().as_reader();
        std::io::copy(&mut body.take(ANSWER_BYTES_READ), &mut std::io::sink()).ok();
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            status => Err(DeliveryFailure::Status(status, retry_after)),
        }
    }

    /// Asks whether the endpoint can be reached, and returns the `Date` of its answer. Any status will do.
    ///
    /// # Errors
    /// When there is no answer, or its TLS is not trusted.
    pub(super) fn probe_with_head(&self, url: &str) -> Result<Option<String>, DeliveryFailure> {
        let answer =
            self.agent_for(url).head(url).call().map_err(|error| DeliveryFailure::from(&error))?;
        let date = answer.headers().get(DATE).and_then(|value| value.to_str().ok());
        Ok(date.map(str::to_owned))
    }

    /// Ends requests of other threads, and lets no new one begin.
    pub(super) fn close_for_all(&self) {
        self.plain.clone().shutdown();
        // One that is being made is not waited for, because the files of a host can take for ever to read. Who makes it
        // sees `is_closed`.
        self.is_closed.store(true, Ordering::SeqCst);
        if let Some(over_tls) = self.over_tls.get() {
            over_tls.clone().shutdown();
        }
    }
}

fn unspecified_failure(error: impl fmt::Display) -> DeliveryFailure {
    DeliveryFailure::Connection(error.to_string())
}

impl From<&Error> for DeliveryFailure {
    fn from(error: &Error) -> Self {
        match error {
            // Two of its kinds quote the URL, which may carry credentials.
            Error::BadUri(_) | Error::RequireHttpsOnly(_) => {
                Self::Connection("the URL is not one that can be posted to".to_owned())
            }
            Error::Timeout(Timeout::Connect) => {
                Self::Connection("no connection within the time".to_owned())
            }
            Error::Timeout(Timeout::Resolve) => {
                Self::Connection("its name was not resolved within the time".to_owned())
            }
            Error::Timeout(_) => Self::Timeout,
            Error::Rustls(error) => Self::Tls(error.to_string()),
            Error::Io(error) if is_of_tls(error) => Self::Tls(error.to_string()),
            Error::Io(error) if is_of_a_connection(error) => Self::HungUp(error.to_string()),
            Error::Io(_) | Error::HostNotFound | Error::ConnectionFailed => {
                Self::Connection(error.to_string())
            }
            error => Self::HungUp(error.to_string()),
        }
    }
}

fn agent(timeout: Duration, endpoints: usize, authorities: RootCerts) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(authorities)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .timeout_global(Some(timeout))
        // A redirected POST would arrive as a GET, or at a URL that is not configured.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .tls_config(tls)
        .max_response_header_size(HEAD_BYTES_MAX)
        .input_buffer_size(HEAD_BYTES_MAX)
        .output_buffer_size(HEAD_BYTES_MAX)
        .max_idle_connections(endpoints)
        .max_idle_connections_per_host(endpoints)
        .build();
    Agent::with_parts(config, DefaultConnector::default().chain(TitleCase), OnThisThread)
}

/// The authorities that programs of this host trust: its store, or the files of SSL_CERT_FILE and SSL_CERT_DIR. What
/// cannot be read is left out. Without any, no certificate is trusted.
#[expect(
    clippy::disallowed_methods,
    reason = "no option of this server: programs with OpenSSL read it, as rustls-native-certs does"
)]
fn authorities_of_host() -> RootCerts {
    let file = std::env::var_os("SSL_CERT_FILE");
    let is_other = |path: &OsString| fs::metadata(path).is_ok_and(|found| !found.is_file());
    // A pipe may never end.
    if let Some(path) = file.filter(is_other) {
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

fn is_of_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Whether the connection existed when this happened.
fn is_of_a_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

impl DeliveryFailure {
    /// The consequence for the events of the request.
    pub(super) fn verdict(&self) -> RetryVerdict {
        match self {
            Self::Status(408 | 425 | 429, _) => RetryVerdict::Busy,
            // A redirect may be that of a backend in maintenance (`php artisan down --redirect`).
            Self::Status(400..=499, _) => RetryVerdict::Permanent,
            Self::Status(..) | Self::Timeout | Self::HungUp(_) => RetryVerdict::Transient,
            Self::Connection(_) | Self::Tls(_) => RetryVerdict::Unreachable,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(_, retry_after) => *retry_after,
            _ => None,
        }
    }
}

/// What happened and what to do; the text follows the URL.
impl fmt::Display for DeliveryFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status, _) => {
                write!(formatter, "answered with HTTP {status}; {}", advice_for_status(*status))
            }
            Self::Timeout => formatter.write_str(
                "gave no answer in time; let the backend answer first and work in a queue, or raise \
                 RINGVERB_WEBHOOK_TIMEOUT",
            ),
            Self::Connection(why) => write!(
                formatter,
                "could not be reached: {}; check that the backend runs and can be reached from this host",
                error_without_number(why)
            ),
            Self::HungUp(why) => write!(
                formatter,
                "closed the connection without an answer ({}); the backend's own log says why",
                shown(why)
            ),
            Self::Tls(why) => write!(
                formatter,
                "cannot be trusted ({}); check its certificate, and that this host has its authority's \
                 (package ca-certificates, or SSL_CERT_FILE)",
                shown(why)
            ),
        }
    }
}

/// The system's text of an error, without the number and the name that ureq adds.
fn error_without_number(why: &str) -> String {
    let why = why.strip_prefix("io: ").unwrap_or(why);
    let why = why.rsplit_once(" (os error").map_or(why, |(why, _)| why);
    let mut text = String::new();
    visible(why, SHOWN_BYTES_MAX, &mut text);
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}

fn advice_for_status(status: u16) -> &'static str {
    match status {
        300..=399 => "redirects are not followed: configure the URL that it leads to",
        401 | 403 => {
            "does the backend check X-Pusher-Signature with this app's secret? This answer is not retried"
        }
        404 | 405 | 410 => "check that the URL is a POST route of the backend",
        413 => "the backend or its proxy must take bodies of 1 MiB",
        419 => "exclude the URL from Laravel's CSRF protection",
        _ => "the backend's own log says why",
    }
}

/// Resolves names on the calling thread, which is the endpoint's own. ureq's resolver starts a thread for each request
/// and panics where none can be started. The system's resolver has its own timeout.
#[derive(Debug)]
struct OnThisThread;

impl Resolver for OnThisThread {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let place = uri.scheme().zip(uri.authority());
        let place = place.and_then(|(scheme, host)| DefaultResolver::host_and_port(scheme, host));
        let place = place.ok_or(Error::HostNotFound)?;
        let mut addresses = self.empty();
        for address in place.to_socket_addrs()?.take(ADDRESSES_MAX) {
            addresses.push(address);
        }
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}
