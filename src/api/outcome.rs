//! What the API needs to know of a request (`RequestContext`), and what becomes of it (`Plan`).
//!
//! A plan is a value: an answer, a refusal with its log line, events to publish, or a question to all cores with the
//! form of the answer (`Reply`). `tick/http` carries it out. Plain values, which own no socket and touch no shard. Does
//! not decide anything: the other files of this folder do.
//!
//! Limits: those of `events.rs`. Cost: a refusal has one allocation for its text, and one for its log line if the line
//! budget has room.

use super::attributes::Attributes;
use super::remaining::Quota;
use crate::app::{AppIndex, Apps};
use crate::buffer::FrameBytes;
use crate::cause::{Cause, Detail, LineBudget, NotedRefusal};
use crate::http1::response::Response;
use crate::metrics::CoreMetrics;
use crate::pusher::channel_name::ChannelName;
use crate::pusher::json::Validator;
use crate::pusher::socket_id::SocketId;
use crate::shard::{AccessCommand, Question};

/// What the API needs to know of the server. A new one is made for each request.
pub struct RequestContext<'a> {
    pub apps: &'a Apps,
    /// `Config::path`: a request may arrive with it or without.
    pub prefix: &'a str,
    /// Seconds since 1970, for the window of timestamps and the quota of a second.
    pub unix_seconds: u64,
    /// The server is stopping: `/up` answers 503, and all else is served.
    pub draining: bool,
    pub validator: &'a mut Validator,
    /// How many lines about refusals the log still has room for, by cause.
    pub lines: &'a mut LineBudget,
    /// `Config::verbose_errors`: texts of answers are short, because the reason follows them.
    pub verbose_errors: bool,
    /// Lines may be long: they have the text that should have been signed.
    pub debug: bool,
    pub metrics: &'a CoreMetrics,
}

impl RequestContext<'_> {
    /// Refuses a request with `response`. `values` are for the log line, which is formatted if the budget has room for
    /// it or with verbose errors.
    pub(super) fn deny(
        &mut self,
        response: Response,
        app: Option<AppIndex>,
        cause: Cause,
        values: &[Detail<'_>],
    ) -> Denied {
        let log_line = self.lines.note(cause, values, self.verbose_errors);
        Denied { response, app, log_line }
    }
}

/// A request that is refused: the answer without the reason, and the reason.
#[derive(Debug)]
pub struct Denied {
    pub response: Response,
    /// `None` if the request names no app that exists.
    pub app: Option<AppIndex>,
    pub log_line: NotedRefusal,
}

/// One event for one channel, as the frame that its subscribers receive.
#[derive(Debug)]
pub struct Publication {
    pub channel: ChannelName,
    pub frame: FrameBytes,
    pub excluded_socket_id: Option<SocketId>,
}

#[derive(Debug)]
pub enum Plan {
    Respond(Response),
    Refuse(Denied),
    /// The request is not authenticated as one of an app's backend. The address that sent it is charged for it.
    Unauthenticated(Denied),
    Publish {
        app: AppIndex,
        publications: Vec<Publication>,
        /// What to ask once all is published; `None` if the request wants no `info`.
        info: Option<Question>,
        reply: Reply,
        /// What is left of the app's quota; `None` if the app has no quota.
        quota: Option<Quota>,
    },
    Ask {
        question: Question,
        reply: Reply,
    },
    EndAccess(AccessCommand),
}

/// The form of the answer, once all cores have answered the question.
#[derive(Debug)]
pub enum Reply {
    Empty,
    EmptyBatch,
    /// `info` of POST events: channel names in order.
    Event {
        names: Vec<String>,
        attributes: Attributes,
    },
    /// `info` of POST batch_events: one entry per item; `None` where the item asked nothing.
    Batch {
        items: Vec<Option<(String, Attributes)>>,
    },
    Channels {
        attributes: Attributes,
    },
    Channel {
        name: String,
        attributes: Attributes,
    },
    Users,
    Connections,
}

pub(super) fn not_found() -> Response {
    Response::text(404, "Not found.")
}
