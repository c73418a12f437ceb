//! What the API needs to know of a request (`RequestContext`), and what becomes of it (`Plan`).
//!
//! A plan is a value: an answer, a refusal with its log line, events to publish, or a question to all cores with the
//! form of the answer (`Reply`). `tick/http` carries it out. Plain values: they own no socket and touch no shard.
//! Limits: those of `events.rs`.

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

/// What the API needs to know of the server.
pub struct RequestContext<'a> {
    pub apps: &'a Apps,
    /// `Config::path`.
    pub prefix: &'a str,
    /// Seconds since 1970, for the timestamp window.
    pub unix_seconds: u64,
    /// The server is stopping: `/up` answers 503.
    pub draining: bool,
    pub validator: &'a mut Validator,
    /// What the log has room for.
    pub lines: &'a mut LineBudget,
    /// See `Config::verbose_errors`.
    pub verbose_errors: bool,
    /// Lines may be long: they have the text that should have been signed.
    pub debug: bool,
    pub metrics: &'a CoreMetrics,
}

impl RequestContext<'_> {
    /// A refusal with this answer.
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
    /// The app it is for, if there is one.
    pub app: Option<AppIndex>,
    pub log_line: NotedRefusal,
}

/// One event for one channel, encoded.
#[derive(Debug)]
pub struct Publication {
    pub channel: ChannelName,
    pub frame: FrameBytes,
    pub excluded_socket_id: Option<SocketId>,
}

/// What is to be done for a request.
#[derive(Debug)]
pub enum Plan {
    Respond(Response),
    Refuse(Denied),
    /// The request failed to authenticate as an app's backend.
    Unauthenticated(Denied),
    Publish {
        app: AppIndex,
        publications: Vec<Publication>,
        /// What to ask once all is published, if the request wants `info`.
        info: Option<Question>,
        reply: Reply,
        /// What is left of the app's quota, if it has one.
        quota: Option<Quota>,
    },
    Ask {
        question: Question,
        reply: Reply,
    },
    EndAccess(AccessCommand),
}

/// The form of the answer.
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
