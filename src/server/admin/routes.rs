//! The paths of the admin listener, and which of them need the token.
//!
//! Owns what answers are made of (`AdminState`): the sources of metrics, the viewers, the heartbeats that `/live`
//! compares. Probes (`/live`, `/ready`) are for everyone who can connect. Everything else needs the token if there is
//! one. On a loopback address without a token, the `Host` of a request must be the loopback, too: otherwise a web page
//! could read the answers through a name of its own that it points to 127.0.0.1 (DNS rebinding). Does not read from the
//! socket (`connection.rs`) and does not change apps (`changes.rs`).
//! Limits: one heartbeat for each worker. Orders to the main thread: one for each open connection (`slots.rs`), because
//! a connection waits for its answer. Cost: a probe reads one atomic for each worker; a scrape is linear in apps and
//! cores.

mod token;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use super::api::{Parameters, Questions};
use super::metrics::{self, Format, Scrape, ScrapeSources};
use super::owed::OwedAnswers;
use super::viewers::{ViewFilter, Viewer, Viewers};
use super::{changes, console};
use crate::admission::overload::OverloadLevel;
use crate::clock::Moment;
use crate::http1::request::Request;
use crate::http1::response::{ContentType, Response};
use crate::operator_requests::Submitter;
use crate::server::change::PendingReload;
use crate::server::memory::Resident;
use crate::server::takeover::Order;
use crate::text::shown;
use crate::worker::Shared;
use crate::worker::time::{unix_ms, unix_seconds};
use token::{check_token, is_loopback};

/// A worker ticks at least once a second, so one that has not ticked for so long has stalled.
const STALLED_MS: u64 = 10_000;

const INDEX: &str = "ringverb, admin listener:\n\
    /         the console, in a browser\n\
    /live     200 while every worker runs, otherwise 503\n\
    /ready    200 if new clients are welcome, otherwise 503 with the reason\n\
    /metrics  Prometheus text format, or OpenMetrics if Accept asks for it\n\
    /api/     what the console reads, changes of apps, reload: JSON (docs/OPERATIONS.md)\n";

/// How a request is answered: at once, or for as long as the peer reads.
pub(super) enum AdminAnswer {
    Whole(Response),
    /// Server-sent events (the HTML standard, 9.2), until the peer closes.
    Stream(Viewer),
}

/// Belongs to the thread `admin` alone, whose tasks share it by reference.
pub(super) struct AdminState {
    pub(super) sources: ScrapeSources,
    /// `None` if /proc/self/statm cannot be opened: the metric is left out then.
    resident: Option<Resident>,
    /// `false`: the place is a socket file, whose permissions say who may connect.
    is_tcp: bool,
    orders: Sender<Order>,
    pending_reload: PendingReload,
    owed: Arc<OwedAnswers>,
    /// By worker: the heartbeat that was seen last, and since when it is the same.
    heartbeats: RefCell<Vec<(u64, Moment)>>,
    pub(super) questions: Questions,
    pub(super) viewers: Rc<Viewers>,
}

impl AdminState {
    pub(super) fn new(
        sources: ScrapeSources,
        is_tcp: bool,
        orders: Sender<Order>,
        owed: Arc<OwedAnswers>,
        submitter: Submitter,
    ) -> Self {
        let now = sources.shared.clock.now();
        let beats = sources.shared.heartbeats.iter();
        let heartbeats = RefCell::new(beats.map(|_| (0, now)).collect());
        let log = sources.shared.event_log.clone();
        let shared = sources.shared.clone();
        let viewers =
            Rc::new(Viewers::new(log, move || shared.current_configuration.get().apps.clone()));
        let questions = Questions::new(submitter);
        let resident = Resident::open_statm().ok();
        Self {
            sources,
            resident,
            is_tcp,
            orders,
            pending_reload: PendingReload::default(),
            owed,
            heartbeats,
            questions,
            viewers,
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.sources.shared
    }

    pub(super) async fn answer(&self, request: &Request) -> AdminAnswer {
        let path = request.path();
        let is_read = matches!(request.method(), "GET" | "HEAD");
        let response = if !is_read && !path.starts_with("/api/") {
            Response::text(
                405,
                "The admin listener serves GET and HEAD, and changes below /api/.\n",
            )
            .with_header("Allow", "GET, HEAD")
        } else if path == "/live" {
            self.liveness_response()
        } else if path == "/ready" {
            self.readiness_response()
        } else if let Some(response) = self.console(request) {
            response
        } else if let Err(refusal) = self.admit(request) {
            refusal
        } else if path == "/" {
            Response::text(200, INDEX)
        } else if path == "/metrics" {
            self.metrics(request)
        } else if let Err(refusal) = check_page(request) {
            refusal
        } else if let Err(refusal) = self.check_contents(path) {
            refusal
        } else if let Some(refusal) = Self::refuse_method(request) {
            refusal
        } else if path == "/api/events" {
            match self.open_viewer(request) {
                Ok(viewer) => return AdminAnswer::Stream(viewer),
                Err(refusal) => refusal,
            }
        } else if path.starts_with("/api/") {
            match is_read.then_some(()).map_or_else(|| may_change(request), Ok) {
                Ok(()) if changes::is_change(path) => {
                    let main = (&self.orders, &self.pending_reload, &*self.owed);
                    changes::answer(request, main).await
                }
                Ok(()) => self.answer_api(request).await,
                Err(refusal) => refusal,
            }
        } else {
            let text =
                "No such path. The admin listener serves /, /live, /ready, /metrics and /api/.\n";
            Response::text(404, text)
        };
        AdminAnswer::Whole(with_safe_fields(response))
    }

    /// The console's files, if the request is for one. They have nothing of this server, so that a browser can show the
    /// page on which the token is entered.
    fn console(&self, request: &Request) -> Option<Response> {
        let accept = request.header_list("accept");
        let is_page = accept.is_some_and(|accept| accept.contains("text/html"));
        let (kind, body) = console::file(request.path(), is_page)?;
        if let Err(refusal) = self.check_host(request) {
            return Some(refusal);
        }
        let response = Response::new(200, kind, body);
        Some(
            response
                .with_header("Content-Security-Policy", console::POLICY)
                .with_header("Vary", "Accept"),
        )
    }

    fn open_viewer(&self, request: &Request) -> Result<Viewer, Response> {
        let filter = ViewFilter::read(&Parameters::of(request.query()));
        let filter = filter.map_err(|sentence| Response::text(400, &format!("{sentence}.\n")))?;
        let viewer = self.viewers.add_viewer(filter);
        viewer.map_err(|sentence| Response::text(503, &format!("{sentence}\n")))
    }

    pub(super) fn resident_bytes(&self) -> Option<u64> {
        self.resident.as_ref().and_then(|resident| resident.read().ok())
    }

    /// Checks token and `Host`, which all requests but those for probes and for the console's files must pass.
    fn admit(&self, request: &Request) -> Result<(), Response> {
        let is_public = self.shared().config.admin.place.is_public();
        check_token(
            self.shared().current_configuration.get().admin_token.as_ref(),
            is_public,
            request,
        )?;
        self.check_host(request)
    }

    /// Contents of channels and users, and actions, are for the operator. Without a token, every user of the host can
    /// reach an address of the loopback, so they get numbers only, unless it is a developer's server.
    fn check_contents(&self, path: &str) -> Result<(), Response> {
        let config = &self.shared().config;
        let running = self.shared().current_configuration.get();
        let is_open = running.admin_token.is_some()
            || !self.is_tcp
            || config.development
            || running.verbose_errors;
        if is_open || !path.starts_with("/api/") || matches!(path, "/api/overview" | "/api/reload")
        {
            return Ok(());
        }
        let text = "Channels, users, events and actions are not for every user of this host: set RINGVERB_ADMIN_TOKEN \
            and enter it here, or use a socket file (RINGVERB_ADMIN=unix:/path). On a developer's machine, \
            RINGVERB_DEVELOPMENT=true opens them.\n";
        Err(Response::text(403, text))
    }

    /// Without a token, a request must name this host. A request with a token cannot be sent by a page that does not
    /// have it.
    fn check_host(&self, request: &Request) -> Result<(), Response> {
        if self.shared().current_configuration.get().admin_token.is_some() {
            return Ok(());
        }
        // HTTP/1.0 has no Host, and every browser sends one.
        let host = request.header("host");
        match host.as_deref() {
            Some(host) if self.is_tcp && !is_loopback(host) => {
                let host = shown(host);
                Err(Response::text(
                    403,
                    &format!(
                        "Host is {host}, but the admin listener is for this host only: use 127.0.0.1 or localhost, or \
                         set RINGVERB_ADMIN_TOKEN and send it.\n"
                    ),
                ))
            }
            _ => Ok(()),
        }
    }

    fn metrics(&self, request: &Request) -> Response {
        let accept = request.header_list("accept");
        let format = Format::of_accept(accept.as_deref().unwrap_or_default());
        let apps = self.shared().current_configuration.get().apps.clone();
        let scrape = Scrape {
            sources: &self.sources,
            apps: &apps,
            resident_bytes: self.resident_bytes(),
            unix_seconds: unix_seconds(),
            unix_ms: unix_ms(),
            is_ready: self.why_not_ready().is_none(),
        };
        let kind = match format {
            Format::Prometheus => ContentType::Prometheus,
            Format::OpenMetrics => ContentType::OpenMetrics,
        };
        Response::new(200, kind, metrics::render(&scrape, format)).with_header("Vary", "Accept")
    }

    fn readiness_response(&self) -> Response {
        match self.why_not_ready() {
            None => Response::text(200, "ready\n"),
            Some(why) => Response::text(503, &format!("not ready: {why}\n")),
        }
    }

    /// Why a load balancer should not send new clients here.
    pub(super) fn why_not_ready(&self) -> Option<&'static str> {
        let shared = self.shared();
        let beats = || shared.heartbeats.iter().map(|beat| beat.load(Ordering::Relaxed));
        if shared.phase.is_ending() {
            Some("connections are being closed")
        } else if shared.unready.load(Ordering::Relaxed) {
            Some("the server is about to end (RINGVERB_SHUTDOWN_DELAY)")
        } else if shared.overload.pressure.level() > OverloadLevel::None {
            Some("memory is short (RINGVERB_MEMORY_MAX)")
        } else if beats().any(|beat| beat == 0) {
            Some("not all workers listen yet")
        } else {
            None
        }
    }

    fn liveness_response(&self) -> Response {
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

/// A page of another origin may send requests here. These fields keep it from reading or guessing anything from the
/// answers.
fn with_safe_fields(response: Response) -> Response {
    response
        .with_header("Cache-Control", "no-store")
        .with_header("X-Content-Type-Options", "nosniff")
        .with_header("Referrer-Policy", "no-referrer")
        .with_header("Cross-Origin-Resource-Policy", "same-origin")
}

/// Whether a request may change something. A page of another site can send a POST with a form or with plain text
/// without being asked by the browser, but not JSON.
fn may_change(request: &Request) -> Result<(), Response> {
    let kind = request.header("content-type");
    let kind = kind.as_deref().unwrap_or_default().split(';').next().unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("application/json") {
        let text = "A request that changes something needs `Content-Type: application/json`.\n";
        return Err(Response::text(415, text));
    }
    Ok(())
}

/// Whether no other page has caused this request below `/api/`. Browsers send `Sec-Fetch-Site` with every request to
/// this host, and `Origin` with those whose answers a page may want to read.
fn check_page(request: &Request) -> Result<(), Response> {
    if !request.path().starts_with("/api/") {
        return Ok(());
    }
    let (origin, host) = (request.header("origin"), request.header("host"));
    let site = request.header("sec-fetch-site");
    let is_own = match &origin {
        None => !matches!(site.as_deref(), Some("cross-site" | "same-site")),
        Some(origin) => {
            let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            own.is_some() && own == host.as_deref()
        }
    };
    if is_own {
        return Ok(());
    }
    let from = origin.map_or("another site".to_owned(), |origin| shown(&*origin).to_string());
    let text = format!(
        "The request comes from a page of {from}, and only pages of this listener may use /api/.\n"
    );
    Err(Response::text(403, &text))
}

#[cfg(test)]
mod tests {
    use super::token::{bearer, is_token};
    use super::*;
    use crate::app::Secret;
    use crate::http1::request::{Progress, RequestLimits, RequestReader};

    #[test]
    fn a_page_of_another_origin_changes_nothing_and_reads_nothing() {
        let ask = |head: &str, check: fn(&Request) -> Result<(), Response>| {
            let mut reader = RequestReader::new(RequestLimits { request_size_max: 100_000 });
            match reader.read(&mut format!("{head}\r\nContent-Length: 0\r\n\r\n").into_bytes()) {
                Ok(Progress::Complete(request)) => {
                    check(&request).err().map_or(200, |refusal| refusal.status)
                }
                _ => panic!("a request"),
            }
        };
        let status = |head: &str| match ask(head, check_page) {
            200 => ask(head, may_change),
            refused => refused,
        };
        for (field, expected) in [
            ("Accept: */*", 200),
            ("Sec-Fetch-Site: same-origin", 200),
            ("Sec-Fetch-Site: none", 200),
            ("Sec-Fetch-Site: cross-site", 403),
            ("Sec-Fetch-Site: same-site", 403),
            ("Origin: http://127.0.0.1:9601", 200),
            ("Origin: http://127.0.0.1:8000", 403),
            ("Origin: null", 403),
        ] {
            let line = |path| format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9601\r\n{field}");
            assert_eq!(ask(&line("/api/overview"), check_page), expected, "{field}");
            assert_eq!(ask(&line("/metrics"), check_page), 200, "{field}");
        }
        let json = "Content-Type: application/json";
        for (fields, expected) in [
            (String::new(), 415),
            ("Content-Type: text/plain".to_owned(), 415),
            ("Content-Type: application/x-www-form-urlencoded".to_owned(), 415),
            (json.to_owned(), 200),
            (format!("{json}; charset=utf-8"), 200),
            (format!("{json}\r\nOrigin: http://127.0.0.1:9601"), 200),
            (format!("{json}\r\nOrigin: http://evil.test"), 403),
            (format!("{json}\r\nOrigin: null"), 403),
            (format!("{json}\r\nOrigin: http://127.0.0.1:9602"), 403),
            (format!("{json}\r\nOrigin: http://127.0.0.1:9601.evil.test"), 403),
        ] {
            for line in ["POST /api/reload", "DELETE /api/apps/1", "POST /api/disconnect"] {
                let head = format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:9601\r\n{fields}");
                assert_eq!(status(head.trim_end()), expected, "{head}");
            }
        }
    }

    #[test]
    fn a_public_listener_without_a_token_refuses_all_requests() {
        let status = |token: Option<&Secret>, is_public: bool, fields: &str| {
            let mut reader = RequestReader::new(RequestLimits { request_size_max: 100_000 });
            let head = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
            match reader.read(&mut head.into_bytes()) {
                Ok(Progress::Complete(request)) => check_token(token, is_public, &request)
                    .err()
                    .map_or(200, |refusal| refusal.status),
                _ => panic!("a request"),
            }
        };
        let token = Secret::new("0123456789abcdef");
        let right = "Authorization: Bearer 0123456789abcdef\r\n";
        for (token, is_public, fields, expected) in [
            (None, true, "", 403),
            (None, true, right, 403),
            (None, false, "", 200),
            (Some(&token), true, "", 401),
            (Some(&token), true, right, 200),
            (Some(&token), false, "", 401),
        ] {
            assert_eq!(status(token, is_public, fields), expected, "{is_public} {fields}");
        }
    }

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
