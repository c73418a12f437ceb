//! An event of the console as JSON: for the event log and for lists of refusals.
//!
//! Plain values. Input: a `EventLogEntry` of a worker, with the apps to name its app. Empty members are left out. Does
//! not cut a payload: it is cut where the event is made, so an object here is as long as that.
//! Limits: `event_log::TEXT_BYTES_MAX` for the text of an event. Cost: one allocation for each member.

use serde_json::{Value as Json, json};

use crate::app::Apps;
use crate::cause::Cause;
use crate::event_log::EventLogEntry;

pub(in crate::server::admin) fn event_json(event: &EventLogEntry, apps: &Apps) -> Json {
    fn none_if_empty(text: &str) -> Option<&str> {
        (!text.is_empty()).then_some(text)
    }
    without_nulls(json!({
        "at": event.unix_ms,
        "kind": event.kind.name(),
        "app": event.app.and_then(|app| apps.find(app)).map(|app| &*app.id),
        "socket_id": event.socket_id.map(|socket_id| socket_id.to_string()),
        "channel": event.channel.as_deref(),
        "cause": none_if_empty(event.cause),
        "text": none_if_empty(&event.text),
    }))
}

/// `reason` is the label by which `/metrics` counts the refusal, so that an operator finds it there.
pub(super) fn refusal_json(event: &EventLogEntry, apps: &Apps) -> Json {
    let mut json = event_json(event, apps);
    if let Some(cause) = Cause::ALL.into_iter().find(|cause| cause.name() == event.cause) {
        json["reason"] = cause.counter().name().into();
    }
    json
}

/// Readers of these objects take an absent member for an unknown value.
pub(super) fn without_nulls(mut json: Json) -> Json {
    if let Json::Object(members) = &mut json {
        members.retain(|_, value| !value.is_null());
    }
    json
}
