//! The HTTP API: a parsed request in, a `Plan` out; answers of the cores in, a `Response` out (PROTOCOL.md C9,
//! C20).
//!
//! Nothing here waits or touches a shard: the worker carries a plan out. Texts and statuses are Reverb's,
//! because Laravel shows them to developers.

mod auth;
mod channels;
mod events;
mod quota;
mod routes;
#[cfg(test)]
mod tests;
mod validation;

use crate::app::{AppIndex, Apps};
use crate::buffer::FrameBytes;
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::pusher::json::Validator;
use crate::pusher::socket_id::SocketId;
use crate::shard::{Answer, Described, Question};
use channels::Attributes;
pub use quota::Quota;
pub use routes::{Target, target};

/// What the API needs to know of the server.
pub struct Context<'a> {
    pub apps: &'a Apps,
    /// `Config::path`.
    pub prefix: &'a str,
    /// Seconds since 1970, for the timestamp window.
    pub unix_seconds: u64,
    /// The server is stopping: `/up` says so.
    pub draining: bool,
    pub validator: &'a mut Validator,
    /// For the log: why a request was refused, where the answer must not say so.
    pub note: Option<String>,
}

/// One event for one channel, encoded.
#[derive(Debug)]
pub struct Publication {
    pub channel: String,
    pub frame: FrameBytes,
    pub except: Option<SocketId>,
}

/// What is to be done for a request.
#[derive(Debug)]
pub enum Plan {
    Respond(Response),
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
    Terminate {
        app: AppIndex,
        user_id: String,
    },
}

/// How the answer is told.
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

/// Decides what a request wants. Authenticates it first.
#[must_use]
pub fn plan(request: &Request, target: &Target, context: &mut Context<'_>) -> Plan {
    match plan_checked(request, target, context) {
        Ok(plan) => plan,
        Err(response) => Plan::Respond(response),
    }
}

fn plan_checked(
    request: &Request,
    target: &Target,
    context: &mut Context<'_>,
) -> Result<Plan, Response> {
    if let Target::Refused(response) = target {
        return Err(response.clone());
    }
    if request.wants_upgrade() {
        // A WebSocket handshake to an API path: the client has the wrong URL (PROTOCOL.md rule 74).
        return Err(Response::text(400, "Bad request."));
    }
    let app = |context: &mut Context<'_>, id: &str| auth::authenticate(request, id, context);
    match target {
        Target::Up => Ok(Plan::Respond(up(context.draining))),
        Target::Events { app_id } => {
            let app = app(context, app_id)?;
            events::event(app, &request.body, context)
        }
        Target::BatchEvents { app_id } => {
            let app = app(context, app_id)?;
            events::batch(app, &request.body, context)
        }
        Target::Channels { app_id } => {
            let app = app(context, app_id)?;
            Ok(channels::list(app, request.query()))
        }
        Target::Channel { app_id, name } => {
            let app = app(context, app_id)?;
            Ok(channels::describe(app, name, request.query()))
        }
        Target::Users { app_id, name } => {
            let app = app(context, app_id)?;
            channels::users(app, name)
        }
        Target::Terminate { app_id, user_id } => {
            let app = app(context, app_id)?;
            Ok(Plan::Terminate { app, user_id: user_id.clone() })
        }
        Target::Connections { app_id } => {
            let app = app(context, app_id)?;
            Ok(Plan::Ask { question: Question::Connections { app }, reply: Reply::Connections })
        }
        Target::Socket { .. } | Target::Refused(_) => Err(Response::text(404, "Not found.")),
    }
}

fn up(draining: bool) -> Response {
    if draining {
        Response::json(503, b"{\"health\":\"DRAINING\"}".to_vec())
    } else {
        Response::json(200, b"{\"health\":\"OK\"}".to_vec())
    }
}

/// Puts the answers of the cores, and of other nodes, together.
#[must_use]
pub fn render(reply: &Reply, answers: Vec<Answer>) -> Response {
    match reply {
        Reply::Empty => Response::json(200, b"{}".to_vec()),
        Reply::EmptyBatch => Response::json(200, b"{\"batch\":{}}".to_vec()),
        Reply::Event { names, attributes } => {
            channels::render_event(names, *attributes, &merged(answers))
        }
        Reply::Batch { items } => channels::render_batch(items, &merged(answers)),
        Reply::Channels { attributes } => channels::render_list(*attributes, answers),
        Reply::Channel { name, attributes } => {
            channels::render_channel(name, *attributes, &merged(answers))
        }
        Reply::Users => channels::render_users(answers),
        Reply::Connections => render_connections(answers),
    }
}

/// Adds up the connections of all nodes.
fn render_connections(answers: Vec<Answer>) -> Response {
    let open = answers.into_iter().map(|answer| match answer {
        Answer::Connections(open) => open,
        _ => 0,
    });
    let body = format!("{{\"connections\":{}}}", open.sum::<usize>());
    Response::json(200, body.into_bytes())
}

/// Adds up what the cores know of the same list of channels.
fn merged(answers: Vec<Answer>) -> Vec<Described> {
    let mut total: Vec<Described> = Vec::new();
    for answer in answers {
        let Answer::Described(parts) = answer else { continue };
        total.resize(total.len().max(parts.len()), Described::default());
        for (sum, part) in total.iter_mut().zip(parts) {
            sum.merge(part);
        }
    }
    total
}
