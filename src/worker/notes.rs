//! Log lines of a worker about refusals and closes, at a limited rate: a peer that sends garbage must not keep a worker
//! busy with logging.
//!
//! Owns the count of lines of this second. Does not write to a file or choose texts: `cause` has them and limits the
//! lines of each cause, and `output` writes in its own thread and limits the bytes of all workers. Input: notes of the
//! shard and of HTTP sessions; output: events of `tracing` with target `PEER` or `ACCESS`. Limits: `LINES_PER_SECOND`
//! here, and those of `cause` and `output`. Cost: a line is a few allocations; one system call (getpeername) for a
//! refusal whose client no proxy named. A tick without lines is some comparisons.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use tracing::field::display;

use super::{HostKernel, Worker};
use crate::app::Apps;
use crate::cause::Cause;
use crate::metrics::CoreMetrics;
use crate::output::{ACCESS, PEER};
use crate::pusher::socket_id::SocketId;
use crate::shard::RefusalNote;
use crate::tick::http::{AccessLine, LinePeer, RefusalLine};

/// Lines of `write`. Refusals have limits of their own in `cause`.
const LINES_PER_SECOND: u32 = 10;

#[derive(Default)]
pub(super) struct Notes {
    lines_this_second: u32,
}

impl Notes {
    /// Logs a line about another node or a hint for developers; over the limit it is only counted.
    pub(super) fn write(&mut self, text: &str, metrics: &CoreMetrics) {
        if self.lines_this_second < LINES_PER_SECOND {
            tracing::warn!(target: PEER, event = "worker_note", "{text}");
        } else {
            metrics.lines_left_out.add(1);
        }
        self.lines_this_second = self.lines_this_second.saturating_add(1);
    }

    /// Once a second: reports how many lines the last one left out.
    pub(super) fn start_second(&mut self) {
        let suppressed =
            std::mem::take(&mut self.lines_this_second).saturating_sub(LINES_PER_SECOND);
        if suppressed > 0 {
            tracing::warn!(
                target: PEER, event = "lines_suppressed",
                "{suppressed} more lines of the last second are not logged, because a worker logs {LINES_PER_SECOND} a \
                 second"
            );
        }
    }
}

/// The other end of a socket, an IPv4 address in its own form. `None` if the socket is no longer connected.
pub(super) fn peer_of(socket: impl AsFd) -> Option<SocketAddr> {
    let address = rustix::net::getpeername(socket).ok()??;
    let address = SocketAddr::try_from(address).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

impl<K: HostKernel> Worker<K> {
    /// Logs the lines that the shard and the sessions have queued. Call it before the sockets that this tick closes are
    /// removed, because it reads their peer addresses.
    pub(super) fn write_refusals(&mut self) {
        let (core, apps) = (&mut self.core, &self.configuration.configuration.apps);
        for refusal in std::mem::take(&mut core.shard.outbox.refusals) {
            let RefusalNote { cause, line, left_out, channel, connection, app, socket_id } =
                refusal;
            let is_there = core.shard.get(connection).is_some();
            let socket = core.reactor.descriptor(connection.slot).filter(|_| is_there);
            let named = core.reactor.named_client(connection.slot).filter(|_| is_there);
            let peer = named.or_else(|| socket.and_then(peer_of));
            let who = LinePeer { client: None, peer, app };
            let about = ConnectionFields { socket_id: Some(socket_id), channel };
            write_line_about(apps, cause, &line, left_out, who, &about);
            let is_observed = core.http.is_observed;
            self.observer.note_refusal(app, Some(socket_id), cause.name(), &line, is_observed);
        }
        for RefusalLine { cause, line, left_out, who } in core.http.refusals.drain(..) {
            let about = ConnectionFields::default();
            write_line_about(apps, cause, &line, left_out, who, &about);
            self.observer.note_refusal(who.app, None, cause.name(), &line, core.http.is_observed);
        }
    }
}

impl<K: HostKernel> Worker<K> {
    /// Logs the requests that were answered in this tick, if there is an access log. Call it after the flush, so that
    /// the time of the flush is a part of their duration.
    pub(super) fn write_access_log(&mut self) {
        let apps = &self.configuration.configuration.apps;
        let log = &mut self.core.http.access;
        if log.lines.is_empty() {
            return;
        }
        let now_ns = self.core.reactor.kernel.stamp();
        let left_out = std::mem::take(&mut log.left_out);
        for line in log.lines.drain(..) {
            write_access_line(apps, &line, now_ns);
        }
        if left_out > 0 {
            tracing::warn!(
                target: ACCESS, event = "access_suppressed", left_out,
                "more requests were answered in one tick than the access log has room for"
            );
        }
    }
}

fn write_access_line(apps: &Apps, line: &AccessLine, now_ns: u64) {
    let Addresses { client, peer } = Addresses::of(line.who);
    let (peer, client) = (peer.map(display), client.map(display));
    let app = line.app.map(|app| display(&apps.get(app).id));
    let micros = now_ns.saturating_sub(line.began_ns) / 1_000;
    let duration_ms = f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1_000.0;
    let (received_bytes, sent_bytes) = (line.received_bytes as u64, line.sent_bytes as u64);
    tracing::info!(
        target: ACCESS, event = "access", client, peer, app, method = display(&line.method), path = display(&line.path),
        status = line.status, duration_ms, received_bytes, sent_bytes, "request answered"
    );
}

/// The addresses of a line. `client` is `None` if it is the peer, because a line without a proxy would have it twice.
struct Addresses {
    client: Option<IpAddr>,
    peer: Option<SocketAddr>,
}

impl Addresses {
    fn of(who: LinePeer) -> Self {
        let peer = who.peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port()));
        let client = who.client.filter(|client| peer.is_none_or(|peer| peer.ip() != *client));
        Self { client, peer }
    }
}

/// Fields of a line about a WebSocket connection. Default: the line is about an HTTP session.
#[derive(Default)]
struct ConnectionFields {
    socket_id: Option<SocketId>,
    channel: Option<Box<str>>,
}

fn write_line_about(
    apps: &Apps,
    cause: Cause,
    line: &str,
    left_out: u32,
    who: LinePeer,
    about: &ConnectionFields,
) {
    let cause_name = display(cause.name());
    let Addresses { client, peer } = Addresses::of(who);
    let (peer, client) = (peer.map(display), client.map(display));
    let app = who.app.map(|app| display(&apps.get(app).id));
    let socket = about.socket_id.map(display);
    let channel = about.channel.as_deref();
    let left_out = (left_out > 0).then_some(left_out);
    if cause.is_ordinary() {
        tracing::info!(
            target: PEER, event = "refused", cause = cause_name, client, peer, app, socket, channel, left_out, "{line}"
        );
    } else {
        tracing::warn!(
            target: PEER, event = "refused", cause = cause_name, client, peer, app, socket, channel, left_out, "{line}"
        );
    }
}
