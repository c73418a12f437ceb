//! Connections that speak HTTP: a pure state machine over bytes for each (`session`), and the state that all sessions
//! of a core share.
//!
//! Owns what the sessions of one core share: rules, budgets, queues of sessions that wait. A session consumes bytes,
//! carries out one request at a time, in order, and produces its answers as bytes. It waits for room in the mailboxes,
//! for its mail to be in the rings, and for answers of other cores. It ends with an answer that closes the connection,
//! with a WebSocket handshake, or with its socket. Knows no sockets.
//!
//! Limits: those of `Rules`, and one entry for each session in a queue. Cost: a step for each entry; `session.rs` and
//! `answer.rs` have that of a request.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod about;
mod access_log;
mod answer;
mod peer;
mod refuse;
mod session;
mod upgrade;

use std::collections::VecDeque;
use std::sync::Arc;

use super::kernel::SessionKey;
use crate::admission::overload::Overload;
use crate::api;
use crate::app::{AppIndex, Apps};
use crate::buffer::FrameBytes;
use crate::cause::{Cause, Detail, LineBudget, NotedRefusal};
use crate::mailbox::OverflowMark;
use crate::metrics::CoreMetrics;
use crate::pusher::channel_name::ChannelName;
use crate::pusher::json::Validator;
use crate::pusher::socket_id::SocketId;
pub use access_log::{AccessLine, AccessLog};
pub(super) use answer::publish_for_operator;
pub use peer::LinePeer;
pub(super) use session::{AfterAnswers, Session, Spare, Step, Timer, Upgrade};

/// The options that concern HTTP, as one core applies them.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Bytes of head and body of a request together.
    pub request_size_max: usize,
    /// Time for a whole request, and for a client to read an answer.
    pub request_seconds: u32,
    /// Time between two requests of a connection.
    pub keepalive_seconds: u32,
    /// `Config::path`: the prefix of all paths, or empty.
    pub prefix: String,
    /// `Config::verbose_errors`: answers contain the reason of a refusal.
    pub verbose_errors: bool,
    pub debug: bool,
    /// `--print-events`: accepted events are kept for the worker to print.
    pub print_events: bool,
    /// Most connections of one core that may speak HTTP. Others need their descriptors.
    pub connections_max: usize,
}

/// An event that was accepted, for `--print-events` and for the event log of the console.
#[derive(Debug)]
pub struct Printed {
    pub app: AppIndex,
    pub channel: ChannelName,
    pub frame: FrameBytes,
    pub excluded_socket_id: Option<SocketId>,
}

/// A log line about a refusal. The worker writes it with the addresses.
#[derive(Debug)]
pub struct RefusalLine {
    pub cause: Cause,
    pub line: String,
    /// Lines of the same cause that were left out before it.
    pub left_out: u32,
    pub who: LinePeer,
}

pub struct Http {
    pub(super) rules: Rules,
    apps: Arc<Apps>,
    pub(super) overload: Arc<Overload>,
    /// The source of unpredictable numbers for socket ids. A parameter, so that the simulator can repeat a run.
    entropy: Box<dyn FnMut() -> u64>,
    /// Seconds since 1970, as the worker set them at the beginning of the tick.
    pub unix_seconds: u64,
    /// The server is ending: `/up` answers 503, and connections are closed after their answers.
    pub draining: bool,
    /// The server is about to end (`RINGVERB_SHUTDOWN_DELAY`): `/up` answers 503, and all else is served.
    pub unready: bool,
    pub accepts: bool,
    /// Connections are being transferred to another process: sessions stop between two requests.
    pub(super) is_transferring: bool,
    validator: Validator,
    lines: LineBudget,
    /// Lines for the log since the worker took them last.
    pub refusals: Vec<RefusalLine>,
    pub access: AccessLog,
    /// The event log of the console has a viewer, as the worker set it at the beginning of the tick.
    pub is_observed: bool,
    /// Accepted events since the worker took them last, if they are to be printed or the event log has a viewer.
    pub published_to_show: Vec<Printed>,
    /// Sessions whose publish waits for room in the mailboxes, in order.
    pub(super) congested: VecDeque<SessionKey>,
    /// Sessions whose answer waits until their mail is in the rings, in order, each with the mark after its mail.
    pub(super) awaiting_mail_in_rings: VecDeque<(SessionKey, OverflowMark)>,
    pub(super) metrics: Arc<CoreMetrics>,
}

impl Http {
    /// Sessions whose publish, or its answer, waits for room in the mailboxes.
    pub(super) fn publishers_waiting(&self) -> usize {
        self.congested.len() + self.awaiting_mail_in_rings.len()
    }

    #[must_use]
    pub fn new(
        rules: Rules,
        apps: Arc<Apps>,
        overload: Arc<Overload>,
        entropy: Box<dyn FnMut() -> u64>,
    ) -> Self {
        let lines = LineBudget::new(rules.debug);
        Self {
            rules,
            apps,
            overload,
            entropy,
            unix_seconds: 0,
            draining: false,
            unready: false,
            is_observed: false,
            accepts: true,
            is_transferring: false,
            validator: Validator::default(),
            lines,
            refusals: Vec::new(),
            access: AccessLog::default(),
            published_to_show: Vec::new(),
            congested: VecDeque::new(),
            awaiting_mail_in_rings: VecDeque::new(),
            // `Core::new` replaces them by the metrics of its core.
            metrics: Arc::new(CoreMetrics::new(0)),
        }
    }

    /// Uses these apps and rules from now on. A request that has begun keeps its limits.
    pub(super) fn apply(&mut self, apps: Arc<Apps>, rules: Rules) {
        if rules.debug != self.rules.debug {
            self.lines = LineBudget::new(rules.debug);
        }
        debug_assert!(apps.iter().len() >= self.apps.iter().len(), "an app keeps its index");
        (self.apps, self.rules) = (apps, rules);
    }

    /// Lets the log have further lines about refusals. Called once a second.
    pub fn refill_lines(&mut self) {
        self.lines.refill();
    }

    /// Counts a refusal and queues its line for the log. `who` is called only if the log has room for the line. Returns
    /// the line with verbose errors, unless the answer has the same text.
    pub(super) fn refuse(
        &mut self,
        cause: Cause,
        values: &[Detail<'_>],
        who: impl FnOnce(&Self) -> LinePeer,
    ) -> Option<String> {
        let noted = self.lines.note(cause, values, self.rules.verbose_errors);
        self.refuse_noted(noted, who)
    }

    /// `refuse` for a line that is formatted already.
    fn refuse_noted(
        &mut self,
        noted: NotedRefusal,
        who: impl FnOnce(&Self) -> LinePeer,
    ) -> Option<String> {
        let cause = noted.cause;
        self.overload.refusals.count(cause.counter());
        self.metrics.lines_left_out.add(u64::from(noted.left_out.is_none()));
        let line = noted.line?;
        if let Some(left_out) = noted.left_out {
            // Bounded by the budget of each cause.
            let who = who(self);
            self.refusals.push(RefusalLine { cause, line: line.clone(), left_out, who });
        }
        (self.rules.verbose_errors && !cause.is_in_answer()).then_some(line)
    }

    fn context(&mut self) -> api::RequestContext<'_> {
        api::RequestContext {
            apps: &self.apps,
            prefix: &self.rules.prefix,
            unix_seconds: self.unix_seconds,
            draining: self.draining || self.unready,
            validator: &mut self.validator,
            lines: &mut self.lines,
            verbose_errors: self.rules.verbose_errors,
            debug: self.rules.debug,
            metrics: &self.metrics,
        }
    }

    pub fn random(&mut self) -> u64 {
        (self.entropy)()
    }
}
