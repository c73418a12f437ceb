//! The handshake of a WebSocket: checks its limits and origin, counts it for its client, and prepares the upgrade.
//! PURE.
//!
//! Owns the order of the checks: by their cost, cheapest first. Every path that refuses a connection releases its
//! counts. `ws::handshake` has the rules of RFC 6455, docs/PROTOCOL.md those of Pusher. Input: a request of a session.
//! Output: an `Admitted` with what it was counted for, or the response. Does not touch the socket (`tick/sessions`).
//!
//! Limits: those of `admission`, of the app and of the overload level. Cost: one SHA-1, one look-up of the app, an
//! atomic operation for each limit that is set.

use core::net::IpAddr;
use core::num::IntErrorKind;
use std::borrow::Cow;

use super::Http;
use super::about::RefusalContext;
use super::session::{Admitted, Session, Unwanted};
use crate::admission::AddressSlot;
use crate::admission::overload::OverloadLevel;
use crate::cause::{Cause, Detail};
use crate::counters::Refused;
use crate::http1::query::{decode_form, raw_pairs};
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::pusher::error_code::{self, ErrorCode};
use crate::pusher::origin;
use crate::ws::handshake::{self, AcceptKey, UpgradeRequest};

impl Session {
    /// The client to which a handshake is charged; `None` if no limit by address is on.
    pub(super) fn client(&self, http: &Http, request: &Request) -> Option<IpAddr> {
        let admission = &http.overload.admission;
        admission.limits_clients().then(|| {
            admission.client_address(self.peer.ip(), request.header_values("x-forwarded-for"))
        })
    }

    /// Counts the socket for the client that a trusted proxy names with this request; the proxy itself has no limit.
    pub(super) fn count_client(
        &mut self,
        http: &mut Http,
        request: &Request,
    ) -> Result<(), Response> {
        let admission = &http.overload.admission;
        if !admission.counts_sockets_of_proxy(self.peer.ip()) {
            return Ok(());
        }
        admission.release_socket(std::mem::replace(&mut self.address_slot, AddressSlot::NONE));
        let Some(client) = self.client(http, request) else { return Ok(()) };
        match admission.try_count_socket(client) {
            Ok(address_slot) => self.address_slot = address_slot,
            Err(most) => {
                let text =
                    format!("Too many connections: {most} HTTP connections from one address.");
                let response = Response::text(429, &text).with_header("Retry-After", "1");
                let values =
                    [Detail::Address(client), Detail::Counted(most.into(), "HTTP connection")];
                let about = RefusalContext::request(request);
                return Err(self.refusal_response(
                    http,
                    about,
                    response,
                    Cause::SocketsPerIp,
                    &values,
                ));
            }
        }
        Ok(())
    }

    /// A flood of handshakes must cost less than an upgrade: it gets this answer and no connection. Browsers cannot
    /// read the answer, but a client with that many attempts has no user. For pusher-js it is a failed attempt, after
    /// which it waits.
    pub(super) fn check_rate(
        &self,
        http: &mut Http,
        request: &Request,
        client: Option<IpAddr>,
    ) -> Result<(), Response> {
        let Some(client) = client else { return Ok(()) };
        if http.overload.admission.limits_handshakes() {
            http.metrics.count_check(Refused::HandshakesPerIp);
        }
        http.overload.admission.try_count_handshake(client, http.unix_seconds).map_err(|most| {
            let text = format!("Too many handshakes: {most} a second from one address; try again.");
            let response = Response::text(429, &text).with_header("Retry-After", "1");
            let values = [Detail::Address(client), Detail::Counted(most.into(), "handshake")];
            self.refusal_response(
                http,
                RefusalContext::request(request),
                response,
                Cause::HandshakesPerIp,
                &values,
            )
        })
    }

    /// Whether the request is a handshake, and for which app. Protocol errors are sent on the WebSocket, because
    /// browsers cannot read the body of a failed upgrade (docs/PROTOCOL.md rule 9).
    pub(super) fn check_upgrade(
        &self,
        http: &mut Http,
        request: &Request,
        key: &str,
        client: Option<IpAddr>,
    ) -> Result<(AcceptKey, Result<Admitted, Unwanted>), Response> {
        let lists = ["upgrade", "connection"].map(|name| request.header_list(name));
        let fields =
            ["sec-websocket-version", "sec-websocket-key"].map(|name| request.header(name));
        let upgrade = UpgradeRequest {
            method: request.method(),
            http_11: request.http_11(),
            upgrade: lists[0].as_deref(),
            connection: lists[1].as_deref(),
            version: fields[0].as_deref(),
            key: fields[1].as_deref(),
        };
        let accept = handshake::check(&upgrade)
            .map_err(|refusal| self.refuse_upgrade(http, request, &upgrade, refusal))?;
        Ok((accept, self.admit(http, request, key, client)))
    }

    fn refuse_upgrade(
        &self,
        http: &mut Http,
        request: &Request,
        upgrade: &UpgradeRequest<'_>,
        refusal: handshake::HandshakeRefusal,
    ) -> Response {
        let mut response = Response::text(refusal.status(), refusal.body());
        debug_assert!((400..500).contains(&refusal.status()), "a fault of the client");
        if let Some((name, value)) = refusal.header() {
            response = response.with_header(name, value);
        }
        fn shown(value: Option<&str>) -> Detail<'_> {
            value.map_or(Detail::Own("missing"), Detail::text)
        }
        let (cause, given) = match refusal {
            handshake::HandshakeRefusal::WrongMethod => (Cause::WrongMethod, Detail::Own("GET")),
            handshake::HandshakeRefusal::HttpVersion => (Cause::UpgradeHttp10, Detail::Nothing),
            handshake::HandshakeRefusal::NotAnUpgrade => (Cause::NoUpgrade, shown(upgrade.upgrade)),
            handshake::HandshakeRefusal::WrongVersion => {
                let version = upgrade.version.map_or(Detail::Own("none"), Detail::text);
                (Cause::WebSocketVersion, version)
            }
            handshake::HandshakeRefusal::BadKey if upgrade.key.is_none() => {
                (Cause::WebSocketKeyMissing, Detail::Nothing)
            }
            handshake::HandshakeRefusal::BadKey => (Cause::WebSocketKey, shown(upgrade.key)),
        };
        let request_line = Detail::Request(request.method(), request.path());
        self.refusal_response(
            http,
            RefusalContext::request(request),
            response,
            cause,
            &[request_line, given],
        )
    }

    /// Checks in the order of docs/PROTOCOL.md rule 10, after the protocol version. Limits of the server answer 4100,
    /// after which pusher-js reconnects by itself when there is room.
    fn admit(
        &self,
        http: &mut Http,
        request: &Request,
        key: &str,
        client: Option<IpAddr>,
    ) -> Result<Admitted, Unwanted> {
        let (apps, overload) = (http.apps.clone(), http.overload.clone());
        let metrics = http.metrics.clone();
        let mut about = RefusalContext::request(request);
        let mut unwanted =
            |about: RefusalContext<'_>, error: ErrorCode, cause: Cause, values: &[Detail<'_>]| {
                Unwanted { error, why: self.refuse(http, about, cause, values) }
            };
        if overload.pressure.level() > OverloadLevel::None {
            return Err(unwanted(about, error_code::SHORT_OF_MEMORY, Cause::Memory, &[]));
        }
        let Some(index) = apps.by_key(key) else {
            let values = [Detail::text(key)];
            return Err(unwanted(about, error_code::NO_SUCH_APP, Cause::UnknownKey, &values));
        };
        about.app = Some(index);
        let version = version_of(request.query());
        if let Some(version) = &version
            && let Err(error) = check_version(version)
        {
            let is_number = error == error_code::UNSUPPORTED_VERSION;
            let cause = if is_number { Cause::UnsupportedVersion } else { Cause::BadVersion };
            return Err(unwanted(about, error, cause, &[Detail::text(&**version)]));
        }
        let app = apps.get(index);
        if !app.is_enabled {
            let values = [Detail::text(&*app.id)];
            return Err(unwanted(about, error_code::APP_DISABLED, Cause::AppDisabled, &values));
        }
        let given_origin = request.header("origin");
        if !origin::is_allowed(
            &app.allowed_origins,
            given_origin.as_deref(),
            app.allow_missing_origin,
        ) {
            let allowed = Detail::List(&app.allowed_origins);
            let error = error_code::ORIGIN_NOT_ALLOWED;
            return Err(match given_origin.as_deref() {
                Some(from) => unwanted(about, error, Cause::Origin, &[Detail::text(from), allowed]),
                None => unwanted(about, error, Cause::OriginMissing, &[allowed]),
            });
        }
        if client.is_some() && overload.admission.limits_connections() {
            metrics.count_check(Refused::ConnectionsPerIp);
        }
        let address_slot = match client
            .map(|client| (client, overload.admission.try_count_connection(client)))
        {
            None => AddressSlot::NONE,
            Some((_, Ok(address_slot))) => address_slot,
            Some((client, Err(most))) => {
                let values = [Detail::Address(client), Detail::Counted(most.into(), "connection")];
                let (error, cause) = (error_code::TOO_MANY_CONNECTIONS, Cause::ConnectionsPerIp);
                return Err(unwanted(about, error, cause, &values));
            }
        };
        if app.try_count_connection() {
            debug_assert!(app.is_served(), "a removed app is not found by its key");
            return Ok(Admitted { app: index, address_slot });
        }
        overload.admission.release_connection(address_slot);
        let retries = app.over_quota_retries;
        let error = if retries { error_code::OVER_QUOTA_RETRY } else { error_code::OVER_QUOTA };
        let most = app.connections_max.unwrap_or(u32::MAX).into();
        let values = [Detail::Counted(most, "connection"), Detail::Number(most)];
        Err(unwanted(about, error, Cause::Quota, &values))
    }
}

/// The protocol version that a handshake asks for: the parameter `protocol` of its URL.
fn version_of(query: &str) -> Option<Cow<'_, str>> {
    let given = raw_pairs(query).find(|(name, _)| decode_form(name) == "protocol");
    given.map(|(_, version)| decode_form(version))
}

/// Protocols 5 to 7 are served; a missing version is accepted too, as in Reverb.
fn check_version(version: &str) -> Result<(), ErrorCode> {
    match version.parse::<u32>() {
        Ok(5..=7) => Ok(()),
        Ok(_) => Err(error_code::UNSUPPORTED_VERSION),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err(error_code::UNSUPPORTED_VERSION)
        }
        Err(_) => Err(error_code::BAD_VERSION),
    }
}
