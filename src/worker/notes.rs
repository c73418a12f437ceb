//! Log lines of a worker about refusals and closes, at a limited rate: a peer that sends garbage must not keep a worker
//! busy with logging.
//!
//! Input: notes of the shard and of HTTP sessions; output: events of `tracing` with target `PEER`. `cause` has the
//! texts and limits the lines of each cause. `output` limits the bytes of all workers.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use tracing::field::display;

use super::{HostKernel, Worker};
use crate::app::Apps;
use crate::cause::Cause;
use crate::output::PEER;
use crate::pusher::socket_id::SocketId;
use crate::shard::RefusalNote;
use crate::tick::http::{LinePeer, RefusalLine};

/// Lines of this kind that a worker may write in a second.
const LINES_PER_SECOND: u32 = 10;

#[derive(Default)]
pub(super) struct Notes {
    written: u32,
}

impl Notes {
    /// Logs a line about another node or a hint for developers; over the limit it is only counted.
    pub(super) fn write(&mut self, text: &str) {
        if self.written < LINES_PER_SECOND {
            tracing::warn!(target: PEER, "{text}");
        }
        self.written = self.written.saturating_add(1);
    }

    /// A new second begins.
    pub(super) fn start_second(&mut self) {
        let silent = std::mem::take(&mut self.written).saturating_sub(LINES_PER_SECOND);
        if silent > 0 {
            tracing::warn!(
                target: PEER,
                "{silent} more lines of the last second are not logged, because a worker logs {LINES_PER_SECOND} a second"
            );
        }
    }
}

/// The other end of a socket.
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
            let RefusalNote { cause, line, left_out, connection, app, socket_id } = refusal;
            let is_there = core.shard.get(connection).is_some();
            let socket = core.reactor.descriptor(connection.slot).filter(|_| is_there);
            let who = LinePeer { client: None, peer: socket.and_then(peer_of), app };
            write_line_about(apps, cause, &line, left_out, who, Some(socket_id));
            let is_observed = core.http.is_observed;
            self.observer.refused(app, Some(socket_id), cause.name(), &line, is_observed);
        }
        for RefusalLine { cause, line, left_out, who } in core.http.refusals.drain(..) {
            write_line_about(apps, cause, &line, left_out, who, None);
            self.observer.refused(who.app, None, cause.name(), &line, core.http.is_observed);
        }
    }
}

fn write_line_about(
    apps: &Apps,
    cause: Cause,
    line: &str,
    left_out: u32,
    who: LinePeer,
    socket_id: Option<SocketId>,
) {
    let cause_name = display(cause.name());
    let peer = who.peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port()));
    let client = who.client.filter(|client| peer.is_none_or(|peer| peer.ip() != *client));
    let (peer, client) = (peer.map(display), client.map(display));
    let app = who.app.map(|app| display(&apps.get(app).id));
    let socket = socket_id.map(display);
    let left_out = (left_out > 0).then_some(left_out);
    if cause.is_ordinary() {
        tracing::info!(target: PEER, cause = cause_name, client, peer, app, socket, left_out, "{line}");
    } else {
        tracing::warn!(target: PEER, cause = cause_name, client, peer, app, socket, left_out, "{line}");
    }
}
