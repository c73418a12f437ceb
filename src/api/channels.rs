//! GET channels, a channel, its users; and the `info` attributes everywhere (docs/PROTOCOL.md rules 66 to 69, C19).
//!
//! Owns: which question a request becomes, and the JSON of the answer. Does not touch the shard: the tick asks all
//! cores, and all nodes in a cluster, and passes the answers back to `render_*`. Answers of other nodes may have any
//! length: lists are joined by name, and numbers are added without overflow.
//!
//! Limits: those of the request; an answer is as long as the app has channels. Cost: linear in the answers, with one
//! look-up for each channel or user of a list, and a sort of the list of channels.

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

/// Looks parameters up by name. A missing one is empty; the values of an array (`info[]`) are joined by commas.
fn parameters(query: &str) -> impl Fn(&str) -> String + '_ {
    let pairs = parse_query(query);
    move |name| {
        let is_named = |given: &str| given.split('[').next() == Some(name);
        let values: Vec<&str> =
            pairs.iter().filter(|(given, _)| is_named(given)).map(|(_, value)| &**value).collect();
        values.join(",")
    }
}

pub(super) fn render_event(
    names: &[String],
    attributes: Attributes,
    descriptions: &[Described],
) -> Response {
    let mut body = b"{\"channels\":{".to_vec();
    for (index, (name, description)) in names.iter().zip(descriptions).enumerate() {
        if index > 0 {
            body.push(b',');
        }
        json::write_string(name, &mut body);
        body.push(b':');
        write_object(name, attributes, description, None, &mut body);
    }
    body.extend_from_slice(b"}}");
    Response::json(200, body)
}

pub(super) fn render_batch(
    items: &[Option<(String, Attributes)>],
    descriptions: &[Described],
) -> Response {
    let mut body = b"{\"batch\":[".to_vec();
    for (index, (item, description)) in items.iter().zip(descriptions).enumerate() {
        if index > 0 {
            body.push(b',');
        }
        match item {
            None => body.extend_from_slice(b"{}"),
            Some((name, attributes)) => {
                write_object(name, *attributes, description, None, &mut body)
            }
        }
    }
    body.extend_from_slice(b"]}");
    Response::json(200, body)
}

pub(super) fn render_list(attributes: Attributes, answers: Vec<Answer>) -> Response {
    let mut channels: IndexMap<Arc<str>, Described, RandomState> = IndexMap::default();
    for answer in answers {
        let Answer::Channels(descriptions) = answer else { continue };
        for (name, description) in descriptions {
            channels.entry(name).or_default().merge(description);
        }
    }
    // A roster can outlive its last subscriber by one mail: the answer has only channels with a subscriber (rule 66).
    channels.retain(|_, description| description.subscription_count > 0);
    channels.sort_unstable_keys();
    let mut body = b"{\"channels\":{".to_vec();
    for (index, (name, description)) in channels.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        json::write_string(name, &mut body);
        body.push(b':');
        let attributes = Attributes { cache: false, ..attributes };
        write_object(name, attributes, description, None, &mut body);
    }
    body.extend_from_slice(b"}}");
    Response::json(200, body)
}

pub(super) fn render_channel(
    name: &str,
    attributes: Attributes,
    descriptions: &[Described],
) -> Response {
    let description = descriptions.first().cloned().unwrap_or_default();
    let is_occupied = description.subscription_count > 0;
    let mut body = Vec::new();
    write_object(name, attributes, &description, Some(is_occupied), &mut body);
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

/// The attributes of one channel as an object: those that were asked for and that its kind has (C19). `occupied` is
/// `None` where the answer lists occupied channels only.
fn write_object(
    name: &str,
    attributes: Attributes,
    description: &Described,
    occupied: Option<bool>,
    out: &mut Vec<u8>,
) {
    let Ok(kind) = classify(name) else { return out.extend_from_slice(b"{\"occupied\":false}") };
    let is_presence = kind.access == Access::Presence;
    let mut separator = "{";
    let mut write_member = |name: &str, value: &[u8]| {
        out.extend_from_slice(separator.as_bytes());
        json::write_string(name, out);
        out.push(b':');
        out.extend_from_slice(value);
        separator = ",";
    };
    if let Some(occupied) = occupied {
        write_member("occupied", if occupied { b"true" } else { b"false" });
    }
    let is_occupied = description.subscription_count > 0;
    if is_occupied && is_presence && attributes.user_count {
        write_member("user_count", description.user_count.to_string().as_bytes());
    }
    if is_occupied && !is_presence && attributes.subscription_count {
        write_member("subscription_count", description.subscription_count.to_string().as_bytes());
    }
    if kind.cached && attributes.cache {
        match &description.cached {
            Some((cached, seconds)) => write_member("cache", &with_ttl(cached, *seconds)),
            None => write_member("cache", b"null"),
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
