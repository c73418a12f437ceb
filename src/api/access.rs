//! Requests that end access: that of a user or of one connection (docs/PROTOCOL.md C25).
//!
//! Turns a request into an `AccessCommand`; the tick carries it out. Owns no state. Does not know the user, the
//! connection or the subscription: each may be on another node, so such a request is answered like one that ended
//! something.
//!
//! Limits: those of an API request; a channel name is one that a client could subscribe to. Cost: one allocation for
//! the user id or the channel name, and for `unsubscribe` one pass over the body.

use super::events::{channel_text, read_object};
use super::routes::{AccessEnding, AccessSubject};
use super::validation::Problems;
use super::{Denied, Plan, RequestContext};
use crate::app::AppIndex;
use crate::http1::request::Request;
use crate::pusher::json;
use crate::pusher::socket_id::SocketId;
use crate::shard::{AccessAction, AccessCommand, AccessTarget};

pub(super) fn plan(
    app: AppIndex,
    subject: &AccessSubject,
    ending: AccessEnding,
    request: &Request,
    context: &mut RequestContext<'_>,
) -> Result<Plan, Denied> {
    let mut problems = Problems::default();
    let target = match subject {
        AccessSubject::User(id) => Some(AccessTarget::User(id.as_str().into())),
        AccessSubject::Socket(text) => {
            let parsed = SocketId::parse(text);
            if parsed.is_none() {
                problems.not_a_socket_id(format_args!("socket_id"), text);
            }
            parsed.map(AccessTarget::Socket)
        }
    };
    let action = match ending {
        AccessEnding::Terminate => Some(AccessAction::Terminate),
        AccessEnding::Reconnect => Some(AccessAction::Reconnect),
        AccessEnding::Unsubscribe => {
            let channel = read_channel(read_object(app, request, context)?, &mut problems);
            channel.map(|channel| AccessAction::Unsubscribe { channel })
        }
    };
    problems.into_result(app, request, context)?;
    let (Some(target), Some(action)) = (target, action) else {
        // Each of them that is missing has caused a problem above.
        return Ok(Plan::Respond(super::not_found()));
    };
    Ok(Plan::EndAccess(AccessCommand { app, target, action }))
}

fn read_channel(body: &str, problems: &mut Problems) -> Option<Box<str>> {
    let members = json::members(body).into_iter().flatten();
    let given = members.filter(|(name, _)| json::is_name(name, "channel")).map(|(_, span)| span);
    let field = format_args!("channel");
    let Some(span) = given.last().filter(|span| *span != "null") else {
        problems.required(field);
        return None;
    };
    channel_text(problems, field, span).map(|name| (&*name).into())
}
