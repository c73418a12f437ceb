//! The handshake of a WebSocket: who is counted for it, whether it is let in, and its way to the reactor.
//!
//! Limits are checked from the cheapest to the dearest. What a connection is counted in is given back on every way out.

use std::net::IpAddr;
use std::num::IntErrorKind;

use super::super::addresses::Place;
use super::super::overload::Strain;
use super::super::{Shared, sys, time};
use super::{Admitted, Session};
use crate::counters::Refused;
use crate::http1::query::{decode_form, raw_pairs};
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::pusher::error_code::{self, ErrorCode};
use crate::pusher::origin;
use crate::text::shown;
use crate::ws::handshake::{self, AcceptKey, UpgradeRequest};

impl Session {
    /// Whom a handshake is counted for, if anybody counts.
    pub(super) fn client(&self, request: &Request) -> Option<IpAddr> {
        let admission = &self.worker.shared.overload.admission;
        admission
            .is_on()
            .then(|| admission.address(self.peer, request.header_values("x-forwarded-for")))
    }

    /// Counts the socket for the client that a trusted proxy names with this request; the proxy itself has no limit.
    pub(super) fn count_client(&mut self, request: &Request) -> Result<(), Response> {
        let worker = self.worker.clone();
        let admission = &worker.shared.overload.admission;
        if !admission.counts_sockets_of_proxy(self.peer) {
            return Ok(());
        }
        admission.leave_socket(std::mem::replace(&mut self.place, Place::NONE));
        let Some(client) = self.client(request) else { return Ok(()) };
        self.place = admission.enter_socket(client).map_err(|most| {
            worker.count_refused(Refused::SocketsPerIp);
            worker.note_many_sockets(client, most);
            let text = format!("Too many connections: {most} HTTP connections from one address.");
            Response::text(429, &text).with_header("Retry-After", "1")
        })?;
        Ok(())
    }

    /// A flood of handshakes must cost less than what it asks for: no upgrade, no connection, no frame, just this
    /// answer and the end. Browsers cannot read it, but a client that comes so often has no person behind it; to
    /// pusher-js it is a failed attempt, after which it waits.
    pub(super) fn check_rate(&self, client: Option<IpAddr>) -> Result<(), Response> {
        let Some(client) = client else { return Ok(()) };
        let overload = &self.worker.shared.overload;
        overload.admission.begin(client, time::unix_seconds()).map_err(|most| {
            self.worker.count_refused(Refused::HandshakesPerIp);
            self.worker.notes.tell(&format!(
                "{client} began more than {most} handshakes in a second; RINGVERB_HANDSHAKES_PER_IP_PER_SECOND_MAX \
                 sets the limit, and if this is your proxy, RINGVERB_TRUSTED_PROXIES must name it"
            ));
            let text = format!("Too many handshakes: {most} a second from one address; try again.");
            Response::text(429, &text).with_header("Retry-After", "1")
        })
    }

    /// Whether this is a handshake, and for which app. Protocol errors are told on the socket: browsers cannot
    /// read the body of a failed upgrade (PROTOCOL.md rule 9).
    pub(super) fn check_upgrade(
        &self,
        request: &Request,
        key: &str,
        client: Option<IpAddr>,
    ) -> Result<(AcceptKey, Result<Admitted, ErrorCode>), Response> {
        let accept = handshake::check(&UpgradeRequest {
            method: request.method(),
            http_11: request.http_11(),
            upgrade: request.header_list("upgrade").as_deref(),
            connection: request.header_list("connection").as_deref(),
            version: request.header("sec-websocket-version").as_deref(),
            key: request.header("sec-websocket-key").as_deref(),
        })
        .map_err(|refusal| {
            self.worker.count_refused(Refused::BadRequest);
            refuse_upgrade(refusal)
        })?;
        let admitted = self.admit(request, key, client).map_err(|(why, error)| {
            self.worker.count_refused(why);
            error
        });
        Ok((accept, admitted))
    }

    /// The order of PROTOCOL.md rule 10, with the protocol version before it. Limits of this server say 4100: a
    /// person may be behind the client, who comes back when there is room, and pusher-js does so by itself.
    fn admit(
        &self,
        request: &Request,
        key: &str,
        client: Option<IpAddr>,
    ) -> Result<Admitted, (Refused, ErrorCode)> {
        let Shared { apps, overload, .. } = &*self.worker.shared;
        if overload.pressure.strain() > Strain::None {
            return Err((Refused::Memory, error_code::SHORT_OF_MEMORY));
        }
        let no_app = (Refused::NoSuchApp, error_code::NO_SUCH_APP);
        let index = apps.by_key(key).ok_or(no_app)?;
        check_version(request.query()).map_err(|error| (Refused::Version, error))?;
        let app = apps.get(index);
        let from = request.header("origin");
        if !origin::is_allowed(&app.allowed_origins, from.as_deref(), app.allow_missing_origin) {
            let allowed = &app.allowed_origins;
            self.worker.notes.tell(&format!(
                "app {}: origin {} refused; RINGVERB_ALLOWED_ORIGINS allows {allowed:?}",
                app.id,
                from.as_deref().map_or_else(|| "none".to_owned(), |from| shown(from).to_string())
            ));
            return Err((Refused::Origin, error_code::ORIGIN_NOT_ALLOWED));
        }
        let place = client.map_or(Ok(Place::NONE), |client| self.enter(client))?;
        if app.admit() {
            return Ok(Admitted { app: index, place });
        }
        overload.admission.leave(place);
        let retries = app.over_quota_retries;
        let error = if retries { error_code::OVER_QUOTA_RETRY } else { error_code::OVER_QUOTA };
        Err((Refused::Quota, error))
    }

    /// Counts a connection for its client.
    fn enter(&self, client: IpAddr) -> Result<Place, (Refused, ErrorCode)> {
        self.worker.shared.overload.admission.enter(client).map_err(|most| {
            self.worker.notes.tell(&format!(
                "{client} has {most} connections already; RINGVERB_CONNECTIONS_PER_IP_MAX sets the limit, and if this \
                 is your proxy, RINGVERB_TRUSTED_PROXIES must name it"
            ));
            (Refused::ConnectionsPerIp, error_code::TOO_MANY_CONNECTIONS)
        })
    }

    /// Gives the socket to the reactor. The 101 answer leaves with the first frame, in one send.
    pub(super) fn hand_over(mut self, accept: &AcceptKey, admitted: Result<Admitted, ErrorCode>) {
        handshake::write_response(accept, &mut self.output);
        if !self.may_be_in_flight {
            let socket = sys::take_fd(self.stream);
            return self.worker.adopt(admitted, &self.output, socket, &mut self.input);
        }
        // monoio closes its own descriptor when the operation on it has completed.
        match sys::borrow(&self.stream).try_clone_to_owned() {
            Ok(socket) => self.worker.adopt(admitted, &self.output, socket, &mut self.input),
            Err(error) => self.give_up(admitted, &error),
        }
    }

    /// No descriptor is left for the duplicate: the socket closes, and what the connection was counted in is undone.
    fn give_up(&self, admitted: Result<Admitted, ErrorCode>, error: &std::io::Error) {
        let Shared { apps, overload, .. } = &*self.worker.shared;
        if let Ok(Admitted { app, place }) = admitted {
            apps.get(app).release();
            overload.admission.leave(place);
        }
        self.worker.count_refused(Refused::Kernel);
        self.worker.notes.tell(&format!(
            "a WebSocket was closed in its handshake: {error}; raise LimitNOFILE or ulimit -n"
        ));
    }
}

/// Protocol 5 to 7 are served; no version at all is fine too, as in Reverb.
fn check_version(query: &str) -> Result<(), ErrorCode> {
    let given = raw_pairs(query).find(|(name, _)| decode_form(name) == "protocol");
    let Some((_, version)) = given else { return Ok(()) };
    match decode_form(version).parse::<u32>() {
        Ok(5..=7) => Ok(()),
        Ok(_) => Err(error_code::UNSUPPORTED_VERSION),
        // A number all the same, if one that fits no integer here.
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err(error_code::UNSUPPORTED_VERSION)
        }
        Err(_) => Err(error_code::BAD_VERSION),
    }
}

fn refuse_upgrade(refusal: handshake::Refusal) -> Response {
    let response = Response::text(refusal.status(), refusal.body());
    match refusal.header() {
        Some((name, value)) => response.with_header(name, value),
        None => response,
    }
}
