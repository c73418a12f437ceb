//! The HTTP API: a parsed request in, a `Plan` out; answers of the cores in, a `Response` out (docs/PROTOCOL.md C9,
//! C20).
//!
//! Owns the order of the checks: path, method, signature, then the request itself. Does not wait or touch a shard: the
//! worker carries a plan out. Texts and statuses are Reverb's, because Laravel shows them to developers.
//!
//! Limits: `limits::API_PARAMETERS_MAX`, the request sizes of `http1`, and those of each file for its own requests.
//! Cost: that of the authentication (`auth.rs`) and linear in the body.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod access;
mod attributes;
mod auth;
mod channels;
mod events;
mod outcome;
mod quota;
mod remaining;
mod routes;
#[cfg(test)]
mod tests;
mod validation;

use crate::app::AppIndex;
use crate::cause::{Cause, Detail};
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::pusher::error_code;
use crate::shard::{Answer, Described, MessageCounts, Question, Traffic};
use outcome::not_found;
pub use outcome::{Denied, Plan, Publication, Reply, RequestContext};
pub use remaining::Quota;
pub use routes::{AccessEnding, AccessSubject, Call, Target, target};

/// The request for an icon that a browser sends by itself. Another method, or a handshake, is a client's mistake.
fn is_icon(request: &Request) -> bool {
    request.method() == "GET" && request.path() == "/favicon.ico" && !request.wants_upgrade()
}

/// Decides what a request wants. A request to `/apps/{id}/...` is authenticated first.
#[must_use]
pub fn plan(request: &Request, target: &Target, context: &mut RequestContext<'_>) -> Plan {
    let request_line = || Detail::Request(request.method(), request.path());
    let plan = match target {
        // A browser that shows `/up` asks for it by itself: nothing is wrong, so nothing is logged.
        Target::NotFound | Target::OutsidePrefix if is_icon(request) => {
            return Plan::Respond(not_found());
        }
        Target::NotFound | Target::OutsidePrefix if request.path().contains("//") => {
            let values = [request_line(), Detail::Own(context.prefix)];
            Err(context.deny(not_found(), None, Cause::DoubledSlash, &values))
        }
        Target::NotFound => {
            Err(context.deny(not_found(), None, Cause::UnknownPath, &[request_line()]))
        }
        Target::OutsidePrefix => {
            let prefix = Detail::Own(context.prefix);
            Err(context.deny(
                not_found(),
                None,
                Cause::OutsidePrefix,
                &[request_line(), prefix, prefix],
            ))
        }
        Target::WrongMethod { allow } => {
            let response = Response::text(405, "Method not allowed.").with_header("Allow", *allow);
            Err(context.deny(
                response,
                None,
                Cause::WrongMethod,
                &[request_line(), Detail::Own(allow)],
            ))
        }
        // A WebSocket handshake to an API path: the client has the wrong URL (docs/PROTOCOL.md rule 74).
        _ if request.wants_upgrade() => {
            let response = Response::text(400, "Bad request.");
            let path = Detail::text(request.path());
            Err(context.deny(response, None, Cause::UpgradeOfApi, &[path]))
        }
        Target::Up => return Plan::Respond(up(context.draining)),
        // The worker deals with handshakes.
        Target::Socket { .. } => {
            Err(context.deny(not_found(), None, Cause::UnknownPath, &[request_line()]))
        }
        Target::Api { app_id, call } => match auth::authenticate(request, app_id, context) {
            // Only the app's backend learns it: the request was signed (docs/PROTOCOL.md C20).
            Ok(app) if !context.apps.get(app).is_enabled => {
                let text = format!("{}.", error_code::APP_DISABLED.message);
                let values = [Detail::text(&*context.apps.get(app).id)];
                Err(context.deny(
                    Response::text(403, &text),
                    Some(app),
                    Cause::AppDisabled,
                    &values,
                ))
            }
            Ok(app) => plan_call(app, call, request, context),
            Err(denied) => return Plan::Unauthenticated(denied),
        },
    };
    plan.unwrap_or_else(Plan::Refuse)
}

fn plan_call(
    app: AppIndex,
    call: &Call,
    request: &Request,
    context: &mut RequestContext<'_>,
) -> Result<Plan, Denied> {
    match call {
        Call::Events => events::plan_event(app, request, context),
        Call::BatchEvents => events::plan_batch(app, request, context),
        Call::Channels => Ok(channels::plan_channel_list(app, request.query())),
        Call::Channel { name } => Ok(channels::plan_channel(app, name, request.query())),
        Call::Users { name } => channels::plan_users(app, name, context),
        Call::EndAccess { subject, ending } => {
            access::plan(app, subject, *ending, request, context)
        }
        Call::Connections => {
            Ok(Plan::Ask { question: Question::Traffic { app }, reply: Reply::Connections })
        }
    }
}

/// Decides what an operator's event wants: a request of the admin API with the body of `POST /events`. Its sender needs
/// no signature.
#[must_use]
pub fn plan_operators_event(
    app: AppIndex,
    request: &Request,
    context: &mut RequestContext<'_>,
) -> Plan {
    if !context.apps.get(app).is_enabled {
        let text = format!("{}.", error_code::APP_DISABLED.message);
        return Plan::Respond(Response::text(403, &text));
    }
    events::plan_event(app, request, context).unwrap_or_else(Plan::Refuse)
}

/// The answer of `/up`. Load balancers stop sending clients to a server that answers 503.
#[must_use]
pub fn up(draining: bool) -> Response {
    if draining {
        Response::json(503, b"{\"health\":\"DRAINING\"}".to_vec())
    } else {
        Response::json(200, b"{\"health\":\"OK\"}".to_vec())
    }
}

/// The response for a reply whose question all cores, and the nodes in time, have answered. One without a question has
/// no answers.
#[must_use]
pub fn render(reply: &Reply, answers: Vec<Answer>) -> Response {
    match reply {
        Reply::Empty => Response::json(200, b"{}".to_vec()),
        Reply::EmptyBatch => Response::json(200, b"{\"batch\":{}}".to_vec()),
        Reply::Event { names, attributes } => {
            channels::render_event(names, *attributes, &merge_descriptions(answers))
        }
        Reply::Batch { items } => channels::render_batch(items, &merge_descriptions(answers)),
        Reply::Channels { attributes } => channels::render_list(*attributes, answers),
        Reply::Channel { name, attributes } => {
            channels::render_channel(name, *attributes, &merge_descriptions(answers))
        }
        Reply::Users => channels::render_users(answers),
        Reply::Connections => render_connections(answers),
    }
}

fn render_connections(answers: Vec<Answer>) -> Response {
    let traffics = answers.into_iter().filter_map(|answer| match answer {
        Answer::Traffic(traffic) => Some(traffic),
        _ => None,
    });
    let Traffic { connections, messages } = traffics.reduce(Traffic::merge).unwrap_or_default();
    let messages = messages.map_or_else(String::new, |MessageCounts { sent, received }| {
        format!(",\"messages_sent\":{sent},\"messages_received\":{received}")
    });
    let body = format!("{{\"connections\":{connections}{messages}}}");
    Response::json(200, body.into_bytes())
}

/// Adds up the descriptions of each channel. All cores describe the same list of names, in its order.
fn merge_descriptions(answers: Vec<Answer>) -> Vec<Described> {
    let mut total: Vec<Described> = Vec::new();
    for answer in answers {
        let Answer::Described(descriptions) = answer else { continue };
        total.resize(total.len().max(descriptions.len()), Described::default());
        for (sum, description) in total.iter_mut().zip(descriptions) {
            sum.merge(description);
        }
    }
    total
}
