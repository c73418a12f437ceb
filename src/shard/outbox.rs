//! The closed list of effects a shard has on the world. PURE; the worker carries them out at the end of the tick.

use std::sync::Arc;

use super::cluster::ToCluster;
use super::connection::ConnectionKey;
use super::mail::Mail;
use super::query::Answer;
use crate::app::AppIndex;
use crate::buffer::FrameBytes;
use crate::cause::{Cause, LineBudget};
use crate::counters::RefusalTally;
use crate::pusher::socket_id::SocketId;
use crate::pusher::webhook_event::WebhookEvent;
use crate::text::shown;

/// What came back for a question this core asked.
#[derive(Debug)]
pub enum Answered {
    /// A core's answer.
    Core { id: u32, answer: Answer },
    /// So many nodes will answer, too.
    Nodes { id: u32, count: u32 },
    /// The answers of the cores of one node.
    Node { id: u32, answers: Vec<Answer> },
    /// No other node will.
    NodesGone,
}

/// What `--debug` tells, in Reverb's words (docs/PROTOCOL.md rule 123).
#[derive(Debug)]
pub enum Trace {
    Established(SocketId),
    Received(SocketId, Box<[u8]>),
    Handled(SocketId),
    ControlFrame(SocketId),
    Pinged(SocketId),
    Pruned(SocketId),
    Closed(SocketId),
    Broadcasting(Arc<str>, FrameBytes),
}

/// Effects since the worker looked last. The vectors keep their storage.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Mail in order, for other cores and for this one: a home is written to like any other, so that what other
    /// cores sent before comes before.
    pub mails: Vec<(u16, Mail)>,
    /// Slots with something to send; each at most once (`Connection::dirty`).
    pub dirty: Vec<u32>,
    /// Connections we have begun to close, with the close code.
    pub closed: Vec<(ConnectionKey, u16)>,
    pub answered: Vec<Answered>,
    /// For the line to the other nodes; empty without a cluster.
    pub cluster: Vec<ToCluster>,
    /// For the apps' backends. Made only where an app wants to hear of it.
    pub webhooks: Vec<WebhookEvent>,
    /// For `--debug`; empty without it.
    pub traces: Vec<Trace>,
    /// Lines about other nodes, and hints for developers.
    pub notes: Vec<String>,
    /// Lines about what was refused or closed; `lines` bounds them.
    pub refusals: Vec<RefusalNote>,
    pub refused: RefusalTally,
    pub lines: LineBudget,
}

/// A line about a connection: what was refused, why, and what to change. Never a secret.
#[derive(Debug)]
pub struct RefusalNote {
    pub cause: Cause,
    pub line: String,
    /// Lines of the same cause that were left out before it.
    pub left_out: u32,
    pub connection: ConnectionKey,
    /// `None`: it was never opened.
    pub app: Option<AppIndex>,
    pub socket_id: SocketId,
}

/// Lines of one tick: `lines` bounds those of each cause in a longer time.
const REFUSALS_MAX: usize = 256;
/// Notes kept until the worker takes them; a flood of bad requests is not a flood of memory.
const NOTES_MAX: usize = 16;

impl Outbox {
    /// `debug`: no line about a refusal is left out.
    pub(super) fn new(debug: bool) -> Self {
        let lines = LineBudget::new(debug);
        Self { lines, ..Self::default() }
    }

    /// Whether the worker has nothing to carry out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mails.is_empty()
            && self.dirty.is_empty()
            && self.closed.is_empty()
            && self.answered.is_empty()
            && self.webhooks.is_empty()
    }

    pub(super) fn refuse(&mut self, refusal: RefusalNote) {
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.push(refusal);
        }
    }

    pub(super) fn note(&mut self, channel: &str, text: &str) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(format!("{}: {text}", shown(channel)));
        }
    }

    /// A line about another node.
    pub(super) fn note_line(&mut self, line: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(line);
        }
    }

    pub(super) fn mail(&mut self, core: u16, mail: Mail) {
        self.mails.push((core, mail));
    }
}
