//! The HTTP client: one POST, and the classification of its answer.
//!
//! Blocks, so only senders and `ringverb check` call it. Signs the body with the app's secret. Follows no redirects.
//! Owns the kept connections. Does not decide what is tried again (`backlog.rs`), and does not read certificates
//! (`client/tls_agent.rs`) or resolve names (`client/name_lookup.rs`). Limits: the configured timeout for a request,
//! `HEAD_BYTES_MAX`, `ANSWER_BYTES_READ`, and one kept connection for each endpoint. Cost: a request on a kept
//! connection, otherwise a look-up of the name and a handshake; its thread waits for all of them.

mod authorities;
mod name_lookup;
mod tls_agent;

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::HeaderValue;
use ureq::http::header::{CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, Error, Timeout};

use self::name_lookup::TimedResolver;
use self::tls_agent::{NoAgent, TlsAgent};
use super::header_case::TitleCase;
use super::retry::RetryVerdict;
use super::time::WebhookClock;
use crate::app::App;
use crate::pusher::signature;
use crate::text::{SHOWN_BYTES_MAX, shown, visible};

/// Bytes of an answer's body that are read, so that its connection can be reused. The content is ignored.
const ANSWER_BYTES_READ: u64 = 4 * 1024;
/// Head of an answer; Laravel's have 1 or 2 KiB of cookies.
const HEAD_BYTES_MAX: usize = 16 * 1024;

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
    /// Not tried: the certificate authorities of this host are not known. Why, and what to do.
    NoAuthorities(String),
}

/// The client of all endpoints. Connections are kept open between requests.
#[derive(Clone, Debug)]
pub(super) struct EndpointClient {
    plain: Agent,
    /// Loads for the first request over TLS, because it reads the certificates of all authorities of the host, which
    /// takes longer than a request.
    over_tls: TlsAgent,
    timeout: Duration,
}

/// What a request has at least after a wait for the agent, so that it fails by its own timeout and not by a zero.
const TIME_LEFT_MIN: Duration = Duration::from_millis(1);

impl EndpointClient {
    /// `timeout` is for one whole request, `endpoints` bounds the connections that are kept.
    pub(super) fn new(timeout: Duration, endpoints: usize) -> Self {
        let resolver = TimedResolver::new();
        let of_tls = resolver.clone();
        let plain = new_agent(timeout, endpoints, RootCerts::from([]), resolver);
        let over_tls = TlsAgent::new(move || {
            new_agent(timeout, endpoints, authorities::read(), of_tls.clone())
        });
        Self { plain, over_tls, timeout }
    }

    /// The agent for a URL, and the time that is left for the request.
    fn agent_for(&self, url: &str) -> Result<(Agent, Duration), DeliveryFailure> {
        if !is_over_tls(url) {
            return Ok((self.plain.clone(), self.timeout));
        }
        let clock = WebhookClock::start();
        let agent = self.over_tls.get(self.timeout, authorities::places)?;
        Ok((agent, self.timeout.saturating_sub(clock.elapsed()).max(TIME_LEFT_MIN)))
    }

    /// Whether a request to this URL now waits for the certificate authorities of the host.
    pub(super) fn waits_for_authorities(&self, url: &str) -> bool {
        is_over_tls(url) && self.over_tls.is_loading()
    }

    /// Posts the body, signed with the app's secret (docs/PROTOCOL.md rule 52).
    ///
    /// # Errors
    /// Anything but 2xx.
    pub(super) fn post(&self, url: &str, app: &App, body: &[u8]) -> Result<(), DeliveryFailure> {
        let signature = signature::sign(&app.secret, &[body]);
        let (agent, time_left) = self.agent_for(url)?;
        let mut answer = agent
            .post(url)
            .config()
            .timeout_global(Some(time_left))
            .build()
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("ringverb/", env!("CARGO_PKG_VERSION")))
            .header(
                "X-Pusher-Key",
                HeaderValue::from_bytes(app.key.as_bytes()).map_err(failure_without_request)?,
            )
            .header(
                "X-Pusher-Signature",
                HeaderValue::from_bytes(&signature).map_err(failure_without_request)?,
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
        let (agent, time_left) = self.agent_for(url)?;
        let request = agent.head(url).config().timeout_global(Some(time_left)).build();
        let answer = request.call().map_err(|error| DeliveryFailure::from(&error))?;
        let date = answer.headers().get(DATE).and_then(|value| value.to_str().ok());
        Ok(date.map(str::to_owned))
    }

    /// Ends requests of other threads, and lets no new one begin.
    pub(super) fn close_for_all(&self) {
        self.plain.clone().shutdown();
        self.over_tls.close();
    }
}

fn is_over_tls(url: &str) -> bool {
    url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
}

impl From<NoAgent> for DeliveryFailure {
    fn from(why: NoAgent) -> Self {
        match why {
            NoAgent::NotLoaded => Self::NoAuthorities(format!(
                "the certificate authorities of this host ({}) were not read in time; check that their file system \
                 answers",
                authorities::places()
            )),
            NoAgent::NoThread(error) => Self::NoAuthorities(format!(
                "the system starts no thread to read the certificate authorities of this host ({error}); raise the \
                 limit of processes (ulimit -u, pids.max, TasksMax)"
            )),
            NoAgent::Closed => Self::Connection("the server ends".to_owned()),
        }
    }
}

fn failure_without_request(error: impl fmt::Display) -> DeliveryFailure {
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

fn new_agent(
    timeout: Duration,
    endpoints: usize,
    authorities: RootCerts,
    resolver: TimedResolver,
) -> Agent {
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
    Agent::with_parts(config, DefaultConnector::default().chain(TitleCase), resolver)
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
            Self::Connection(_) | Self::Tls(_) | Self::NoAuthorities(_) => {
                RetryVerdict::Unreachable
            }
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
            Self::NoAuthorities(why) => write!(formatter, "was not tried, because {why}"),
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
        401 | 403 => "does the backend check X-Pusher-Signature with this app's secret?",
        404 | 405 | 410 => "check that the URL is a POST route of the backend",
        413 => "the backend or its proxy must take bodies of 1 MiB",
        419 => "exclude the URL from Laravel's CSRF protection",
        _ => "the backend's own log says why",
    }
}
