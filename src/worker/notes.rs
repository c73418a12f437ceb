//! Log lines of a worker about refusals and closes, at a limited rate: a peer that sends garbage must not keep a worker
//! busy with logging. `cause` has the texts and limits the lines of each cause; `output` limits the bytes that all
//! workers write.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use tracing::field::display;

use super::Worker;
use super::sys::Ring;
use crate::app::AppIndex;
use crate::cause::{Cause, Detail, LineBudget, Noted};
use crate::output::PEER;
use crate::pusher::socket_id::SocketId;
use crate::shard::RefusalNote;
use crate::tick::Core;

/// Other lines a worker may write per beat of its timer, about a second.
const LINES_PER_BEAT: u32 = 10;

#[derive(Default)]
pub(super) struct Notes {
    /// For HTTP sessions and the listener; the shard has a budget of its own.
    pub(super) lines: RefCell<LineBudget>,
    told: Cell<u32>,
}

/// The connection that a line is about, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Who {
    /// The client, if a trusted proxy names it.
    pub(super) client: Option<IpAddr>,
    /// The other end of the socket.
    pub(super) peer: Option<SocketAddr>,
    pub(super) app: Option<AppIndex>,
    pub(super) socket_id: Option<SocketId>,
}

impl Notes {
    /// `debug`: no line about a refusal is left out.
    pub(super) fn new(debug: bool) -> Self {
        let lines = RefCell::new(LineBudget::new(debug));
        Self { lines, ..Self::default() }
    }

    /// Logs a line about another node or a hint for developers; over the limit it is only counted.
    pub(super) fn tell(&self, text: &str) {
        let told = self.told.get();
        if told < LINES_PER_BEAT {
            tracing::warn!(target: PEER, "{text}");
        }
        self.told.set(told.saturating_add(1));
    }

    /// A new second begins.
    pub(super) fn start_beat(&self) {
        self.lines.borrow_mut().refill();
        let silent = self.told.replace(0).saturating_sub(LINES_PER_BEAT);
        if silent > 0 {
            tracing::warn!(target: PEER, "{silent} more lines were left out");
        }
    }
}

/// The other end of a socket.
pub(super) fn peer_of(socket: impl AsFd) -> Option<SocketAddr> {
    let address = rustix::net::getpeername(socket).ok()??;
    let address = SocketAddr::try_from(address).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

impl Worker {
    /// Counts a refusal and logs its line. `who` is called only if the log has room for the line. Returns the line in
    /// development mode, unless the answer says the same already.
    pub(super) fn refuse(
        &self,
        cause: Cause,
        values: &[Detail<'_>],
        who: impl FnOnce() -> Who,
    ) -> Option<String> {
        let noted = self.notes.lines.borrow_mut().note(cause, values, self.shared.config.talkative);
        self.write_noted(noted, who)
    }

    /// `refuse` for a line that is formatted already.
    pub(super) fn write_noted(&self, noted: Noted, who: impl FnOnce() -> Who) -> Option<String> {
        self.count_refused(noted.cause.counted());
        let line = noted.line?;
        if let Some(left_out) = noted.left_out {
            self.write_line_about(noted.cause, &line, left_out, who());
        }
        (self.shared.config.talkative && !noted.cause.is_in_answer()).then_some(line)
    }

    /// Logs the lines that the shard has queued. Called before the sockets that this tick closes are gone.
    pub(super) fn write_refusals(&self, core: &mut Core<Ring>) {
        for refusal in std::mem::take(&mut core.shard.outbox.refusals) {
            let RefusalNote { cause, line, left_out, connection, app, socket_id } = refusal;
            let is_there = core.shard.get(connection).is_some();
            let socket = core.reactor.descriptor(connection.slot).filter(|_| is_there);
            let who = Who {
                client: None,
                peer: socket.and_then(peer_of),
                app,
                socket_id: Some(socket_id),
            };
            self.write_line_about(cause, &line, left_out, who);
        }
    }

    fn write_line_about(&self, cause: Cause, line: &str, left_out: u32, who: Who) {
        let cause_name = display(cause.name());
        let peer = who.peer.map(display);
        let client = who.client.filter(|client| who.peer.is_none_or(|peer| peer.ip() != *client));
        let client = client.map(display);
        let app = who.app.map(|app| display(&self.shared.apps.get(app).id));
        let socket = who.socket_id.map(display);
        let left_out = (left_out > 0).then_some(left_out);
        if cause.is_ordinary() {
            tracing::info!(target: PEER, cause = cause_name, client, peer, app, socket, left_out, "{line}");
        } else {
            tracing::warn!(target: PEER, cause = cause_name, client, peer, app, socket, left_out, "{line}");
        }
    }
}
