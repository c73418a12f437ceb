//! What the admin listener answers, and to whom.
//!
//! Probes (`/live`, `/ready`) are for everyone who can connect. Everything else needs the token if there is one. On a
//! loopback address without a token, the `Host` of a request must be the loopback, too: otherwise a web page could read
//! the answers through a name of its own that it points to 127.0.0.1 (DNS rebinding).

use std::cell::RefCell;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::api;
use super::metrics::{self, Format, Scrape, ScrapeSources};
use crate::admission::overload::OverloadLevel;
use crate::app::Secret;
use crate::clock::Moment;
use crate::http1::request::Request;
use crate::http1::response::{ContentType, Response};
use crate::server::memory::Resident;
use crate::server::takeover::Order;
use crate::text::shown;
use crate::worker::Shared;
use crate::worker::time::unix_seconds;

/// A worker ticks at least once a second, so one that has not ticked for so long has stalled.
const STALLED_MS: u64 = 10_000;

const INDEX: &str = "ringverb, admin listener:\n\
    /live     200 while every worker runs, otherwise 503\n\
    /ready    200 if new clients are welcome, otherwise 503 with the reason\n\
    /metrics  Prometheus text format, or OpenMetrics if Accept asks for it\n\
    /api      change apps and reload the configuration (docs/OPERATIONS.md)\n";

/// What answers are made of.
pub(super) struct AdminState {
    sources: ScrapeSources,
    /// `None` if the memory cannot be measured.
    resident: Option<Resident>,
    /// It is not a socket file, whose permissions say who may connect.
    is_tcp: bool,
    /// To the main thread.
    orders: Sender<Order>,
    /// By worker: the heartbeat that was seen last, and since when it is the same.
    heartbeats: RefCell<Vec<(u64, Moment)>>,
}

impl AdminState {
    pub(super) fn new(sources: ScrapeSources, is_tcp: bool, orders: Sender<Order>) -> Self {
        let now = sources.shared.clock.now();
        let beats = sources.shared.heartbeats.iter();
        let heartbeats = RefCell::new(beats.map(|_| (0, now)).collect());
        Self { sources, resident: Resident::open().ok(), is_tcp, orders, heartbeats }
    }

    fn shared(&self) -> &Shared {
        &self.sources.shared
    }

    /// Answers a request. Only one of the API waits.
    pub(super) async fn respond(&self, request: &Request) -> Response {
        let response = match (api::is_api(request.path()), self.admit(request)) {
            (false, _) => self.answer(request),
            (true, Err(refusal)) => refusal,
            (true, Ok(())) => api::answer(request, &self.orders).await,
        };
        // A page of another origin may send requests here; it must not read or guess anything from the answers.
        response
            .with_header("Cache-Control", "no-store")
            .with_header("X-Content-Type-Options", "nosniff")
            .with_header("Cross-Origin-Resource-Policy", "same-origin")
    }

    fn answer(&self, request: &Request) -> Response {
        if !matches!(request.method(), "GET" | "HEAD") {
            return Response::text(405, "The admin listener serves GET and HEAD.\n")
                .with_header("Allow", "GET, HEAD");
        }
        match request.path() {
            "/live" => self.live(),
            "/ready" => self.ready(),
            path => match self.admit(request) {
                Err(refusal) => refusal,
                Ok(()) if path == "/" => Response::text(200, INDEX),
                Ok(()) if path == "/metrics" => self.metrics(request),
                Ok(()) => Response::text(
                    404,
                    "No such path. The admin listener serves /live, /ready and /metrics.\n",
                ),
            },
        }
    }

    /// Whether the request may see more than probes.
    fn admit(&self, request: &Request) -> Result<(), Response> {
        if let Some(token) = &self.shared().current.get().admin_token {
            let given = request.header("authorization");
            let given = given.as_deref().and_then(bearer);
            return if given.is_some_and(|given| is_token(token, given)) {
                Ok(())
            } else {
                let text = "This needs the token of RINGVERB_ADMIN_TOKEN: send `Authorization: Bearer TOKEN`.\n";
                let challenge = "Bearer realm=\"ringverb admin\"";
                Err(Response::text(401, text).with_header("WWW-Authenticate", challenge))
            };
        }
        // HTTP/1.0 has no Host, and every browser sends one.
        let host = request.header("host");
        match host.as_deref() {
            Some(host) if self.is_tcp && !is_loopback(host) => {
                let host = shown(host);
                Err(Response::text(
                    403,
                    &format!(
                        "Host is {host}, but the admin listener is for this host only: use 127.0.0.1 or localhost, or set \
                         RINGVERB_ADMIN_TOKEN and send it.\n"
                    ),
                ))
            }
            _ => Ok(()),
        }
    }

    fn metrics(&self, request: &Request) -> Response {
        let accept = request.header_list("accept");
        let format = Format::of_accept(accept.as_deref().unwrap_or_default());
        let apps = self.shared().current.get().apps.clone();
        let scrape = Scrape {
            sources: &self.sources,
            apps: &apps,
            resident_bytes: self.resident.as_ref().and_then(|resident| resident.read().ok()),
            unix_seconds: unix_seconds(),
            is_ready: self.why_not_ready().is_none(),
        };
        let kind = match format {
            Format::Prometheus => ContentType::Prometheus,
            Format::OpenMetrics => ContentType::OpenMetrics,
        };
        Response::new(200, kind, metrics::render(&scrape, format)).with_header("Vary", "Accept")
    }

    fn ready(&self) -> Response {
        match self.why_not_ready() {
            None => Response::text(200, "ready\n"),
            Some(why) => Response::text(503, &format!("not ready: {why}\n")),
        }
    }

    /// Why a load balancer should not send new clients here.
    fn why_not_ready(&self) -> Option<&'static str> {
        let shared = self.shared();
        let beats = || shared.heartbeats.iter().map(|beat| beat.load(Ordering::Relaxed));
        if shared.phase.is_ending() {
            Some("connections are being closed")
        } else if shared.unready.load(Ordering::Relaxed) {
            Some("the server is about to end (RINGVERB_SHUTDOWN_DELAY)")
        } else if shared.overload.pressure.level() > OverloadLevel::None {
            Some("memory is over RINGVERB_MEMORY_MAX")
        } else if beats().any(|beat| beat == 0) {
            Some("not all workers listen yet")
        } else {
            None
        }
    }

    fn live(&self) -> Response {
        let now = self.shared().clock.now();
        let mut seen = self.heartbeats.borrow_mut();
        let beats = self.shared().heartbeats.iter().map(|beat| beat.load(Ordering::Relaxed));
        let mut stalled = None;
        for (core, (beat, seen)) in beats.zip(seen.iter_mut()).enumerate() {
            if seen.0 != beat {
                *seen = (beat, now);
            } else if now.0.saturating_sub(seen.1.0) >= STALLED_MS {
                stalled = Some(core);
            }
        }
        match stalled {
            None => Response::text(200, "live\n"),
            Some(core) => {
                let seconds = STALLED_MS / 1_000;
                Response::text(
                    503,
                    &format!(
                        "worker {core} has not run for {seconds} s or more: restart the server\n"
                    ),
                )
            }
        }
    }
}

/// The token of an `Authorization` field.
fn bearer(field: &str) -> Option<&str> {
    let (scheme, token) = field.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares digests, so that neither the bytes nor the length show in the time.
fn is_token(token: &Secret, given: &str) -> bool {
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    digest(token.reveal()).ct_eq(&digest(given)).into()
}

/// Whether the value of `Host` names this host by an address or a name that no other host can have.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if port.is_empty() || port.starts_with(':') => {
                return address
                    .parse::<Ipv6Addr>()
                    .is_ok_and(|address| address.to_canonical().is_loopback());
            }
            _ => return false,
        },
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_loopback_are_this_host() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9601",
            "127.8.8.8",
            "localhost",
            "LocalHost:80",
            "[::1]",
            "[::1]:9601",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.test",
            "evil.test:9601",
            "127.0.0.1.evil.test",
            "localhost.evil.test",
            "[::1",
            "[::1]x",
            "10.0.0.1",
            "0.0.0.0",
            "[::]:9601",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_token_is_read_from_its_field_and_compared_whole() {
        let token = Secret::new("0123456789abcdef");
        for (field, is_right) in [
            ("Bearer 0123456789abcdef", true),
            ("bearer  0123456789abcdef", true),
            ("Bearer 0123456789abcdeF", false),
            ("Bearer 0123456789abcde", false),
            ("Bearer 0123456789abcdef0", false),
            ("Basic 0123456789abcdef", false),
            ("0123456789abcdef", false),
            ("Bearer ", false),
        ] {
            assert_eq!(
                bearer(field).is_some_and(|given| is_token(&token, given)),
                is_right,
                "{field}"
            );
        }
    }
}
