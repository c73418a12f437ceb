//! What an app may publish: size of an event, events a second (docs/PROTOCOL.md rule 106, C20).
//!
//! Owns the two refusals. The count itself is `App::published`, which all workers share. An event counts once for each
//! of its channels; a request over the quota is refused whole, with 429 and `Retry-After`. Does not count requests that
//! are refused for another reason before.
//!
//! Limits: `RINGVERB_PUBLISHES_PER_SECOND_MAX`, `RINGVERB_EVENT_PAYLOAD_MAX`; both are off by default. Cost: a few
//! steps on atomics that all workers share, and none where the app has no quota.

use super::remaining::Quota;
use super::{Denied, RequestContext};
use crate::app::AppIndex;
use crate::cause::{Cause, Detail};
use crate::counters::Refused;
use crate::http1::request::Request;
use crate::http1::response::Response;

/// Charges `events` (each counts once for each of its channels) to this second's quota. `None` if the app has no quota.
pub(super) fn charge_publishes(
    app: AppIndex,
    events: usize,
    context: &mut RequestContext<'_>,
) -> Result<Option<Quota>, Denied> {
    let charged_app = context.apps.get(app);
    let Some(limit) = charged_app.publishes_per_second_max else { return Ok(None) };
    let events = u32::try_from(events).unwrap_or(u32::MAX);
    context.metrics.count_check(Refused::PublishRate);
    if let Some(remaining) = charged_app.published.try_reserve(events, limit, context.unix_seconds)
    {
        return Ok(Some(Quota { limit, remaining }));
    }
    let text = format!(
        "Too many events: this app may publish {limit} a second, counting each once for each of its channels. Try \
         again in a second, or raise RINGVERB_PUBLISHES_PER_SECOND_MAX."
    );
    let response = Quota { limit, remaining: 0 }.add_to(Response::text(429, &text));
    let response = response.with_header("Retry-After", "1");
    Err(context.deny(
        response,
        Some(app),
        Cause::PublishRate,
        &[Detail::Counted(limit.into(), "event")],
    ))
}

/// Refuses `data` that is too large. The text is measured, not its JSON.
pub(super) fn check_payload(
    app: AppIndex,
    bytes: usize,
    request: &Request,
    context: &mut RequestContext<'_>,
) -> Result<(), Denied> {
    let most = context.apps.get(app).event_payload_max;
    let Some(most) = most.filter(|most| bytes > *most as usize) else { return Ok(()) };
    let text = format!(
        "The data of the event has {bytes} bytes, {most} are allowed: send less (an id the client can fetch the rest \
         by), or raise RINGVERB_EVENT_PAYLOAD_MAX."
    );
    let request_line = Detail::Request(request.method(), request.path());
    let values = [request_line, Detail::count(bytes), Detail::Number(most.into())];
    Err(context.deny(Response::text(413, &text), Some(app), Cause::EventPayload, &values))
}
