//! GET channels, a channel, its users; and the `info` attributes everywhere (docs/PROTOCOL.md rules 66 to 69, C19).
//!
//! Owns: which question a request becomes, and the JSON of the answer. Does not touch the shard: the tick asks all
//! cores, and all nodes in a cluster, and passes the answers back to `render_*`. Answers of other nodes may have any
//! length: lists are joined by name, and numbers are added without overflow. Limits: those of the request; an answer is
//! as long as the app has channels.

use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::{IndexMap, IndexSet};

use super::attributes::Attributes;
use super::{Denied, Plan, Reply, RequestContext};
use crate::app::AppIndex;
use crate::buffer::FrameBytes;
use crate::cause::{Cause, Detail};
use crate::http1::query::parse_query;
use crate::http1::response::Response;
use crate::pusher::channel_name::{Access, classify};
use crate::pusher::json;
use crate::shard::{Answer, Described, Question};
use crate::ws::frame;

pub(super) fn plan_channel_list(app: AppIndex, query: &str) -> Plan {
    let parameter = parameters(query);
    let prefix = parameter("filter_by_prefix");
    let attributes = Attributes::read(&parameter("info"));
    Plan::Ask {
        question: Question::Channels { app, prefix },
        reply: Reply::Channels { attributes },
    }
}

pub(super) fn plan_channel(app: AppIndex, name: &str, query: &str) -> Plan {
    let attributes = Attributes::read(&parameters(query)("info"));
    let names = vec![name.to_owned()];
    let reply = Reply::Channel { name: name.to_owned(), attributes };
    Plan::Ask { question: Question::Describe { app, names }, reply }
}

pub(super) fn plan_users(
    app: AppIndex,
    name: &str,
    context: &mut RequestContext<'_>,
) -> Result<Plan, Denied> {
    if classify(name).map(|kind| kind.access) != Ok(Access::Presence) {
        let response = Response::json(400, b"{}".to_vec());
        let name = Detail::text(name);
        return Err(context.deny(response, Some(app), Cause::NotPresence, &[name]));
    }
    let question = Question::Users { app, name: name.to_owned() };
    Ok(Plan::Ask { question, reply: Reply::Users })
}

/// Looks parameters up by name; a missing one is empty, an array is joined by commas.
fn parameters(query: &str) -> impl Fn(&str) -> String + '_ {
    let pairs = parse_query(query);
    move |name| {
        let is = |given: &str| given.split('[').next() == Some(name);
        let values: Vec<&str> =
            pairs.iter().filter(|(given, _)| is(given)).map(|(_, value)| &**value).collect();
        values.join(",")
    }
}

pub(super) fn render_event(
    names: &[String],
    attributes: Attributes,
    parts: &[Described],
) -> Response {
    let mut body = b"{\"channels\":{".to_vec();
    for (index, (name, part)) in names.iter().zip(parts).enumerate() {
        if index > 0 {
            body.push(b',');
        }
        json::write_string(name, &mut body);
        body.push(b':');
        write_object(name, attributes, part, None, &mut body);
    }
    body.extend_from_slice(b"}}");
    Response::json(200, body)
}

pub(super) fn render_batch(
    items: &[Option<(String, Attributes)>],
    parts: &[Described],
) -> Response {
    let mut body = b"{\"batch\":[".to_vec();
    for (index, (item, part)) in items.iter().zip(parts).enumerate() {
        if index > 0 {
            body.push(b',');
        }
        match item {
            None => body.extend_from_slice(b"{}"),
            Some((name, attributes)) => write_object(name, *attributes, part, None, &mut body),
        }
    }
    body.extend_from_slice(b"]}");
    Response::json(200, body)
}

pub(super) fn render_list(attributes: Attributes, answers: Vec<Answer>) -> Response {
    let mut channels: IndexMap<Arc<str>, Described, RandomState> = IndexMap::default();
    for answer in answers {
        let Answer::Channels(parts) = answer else { continue };
        for (name, part) in parts {
            channels.entry(name).or_default().merge(part);
        }
    }
    // A roster can outlive its last subscriber by one mail: the answer has only channels with a subscriber (rule 66).
    channels.retain(|_, part| part.subscription_count > 0);
    channels.sort_unstable_keys();
    let mut body = b"{\"channels\":{".to_vec();
    for (index, (name, part)) in channels.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        json::write_string(name, &mut body);
        body.push(b':');
        let attributes = Attributes { cache: false, ..attributes };
        write_object(name, attributes, part, None, &mut body);
    }
    body.extend_from_slice(b"}}");
    Response::json(200, body)
}

pub(super) fn render_channel(name: &str, attributes: Attributes, parts: &[Described]) -> Response {
    let part = parts.first().cloned().unwrap_or_default();
    let mut body = Vec::new();
    write_object(name, attributes, &part, Some(part.subscription_count > 0), &mut body);
    Response::json(200, body)
}

pub(super) fn render_users(answers: Vec<Answer>) -> Response {
    let users = answers.into_iter().flat_map(|answer| match answer {
        Answer::Users(users) => users,
        _ => Vec::new(),
    });
    // Each node with a member of the channel knows all members (rule 112).
    let users: IndexSet<Box<str>, foldhash::fast::FixedState> = users.collect();
    if users.is_empty() {
        return Response::json(404, b"{}".to_vec());
    }
    let mut body = b"{\"users\":[".to_vec();
    for (index, user) in users.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(b"{\"id\":");
        json::write_string(user, &mut body);
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    Response::json(200, body)
}

/// The attributes of one channel as an object: what its kind has of what was asked (C19).
fn write_object(
    name: &str,
    attributes: Attributes,
    part: &Described,
    occupied: Option<bool>,
    out: &mut Vec<u8>,
) {
    let Ok(kind) = classify(name) else { return out.extend_from_slice(b"{\"occupied\":false}") };
    let presence = kind.access == Access::Presence;
    let mut separator = "{";
    let mut member = |name: &str, value: &[u8]| {
        out.extend_from_slice(separator.as_bytes());
        json::write_string(name, out);
        out.push(b':');
        out.extend_from_slice(value);
        separator = ",";
    };
    if let Some(occupied) = occupied {
        member("occupied", if occupied { b"true" } else { b"false" });
    }
    let here = part.subscription_count > 0;
    if here && presence && attributes.user_count {
        member("user_count", part.user_count.to_string().as_bytes());
    }
    if here && !presence && attributes.subscription_count {
        member("subscription_count", part.subscription_count.to_string().as_bytes());
    }
    if kind.cached && attributes.cache {
        match &part.cached {
            Some((cached, seconds)) => member("cache", &with_ttl(cached, *seconds)),
            None => member("cache", b"null"),
        }
    }
    if separator == "{" {
        out.push(b'{');
    }
    out.push(b'}');
}

/// The cached event as Reverb shows it, and the seconds that are left, as Pusher does (rule 68).
fn with_ttl(frame: &FrameBytes, seconds: u32) -> Vec<u8> {
    let event = frame::server_payload(frame);
    let mut object = event.strip_suffix(b"}").unwrap_or(event).to_vec();
    object.extend_from_slice(format!(",\"ttl\":{seconds}}}").as_bytes());
    object
}
