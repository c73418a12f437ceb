//! POST events and batch_events: body in, encoded events out (docs/PROTOCOL.md rules 62 to 65).
//!
//! Owns the checks of a request's form and of the limits of its app; `tick` publishes the result. `name` and `data` are
//! copied into the frame as raw spans, so the publisher's bytes reach the subscriber. Does not look at subscribers or
//! channels of a shard.
//!
//! Limits: `limits::EVENT_EXPANSION_BYTES_MAX` and those of the app. Cost: one pass over the body; for each channel one
//! copy of the event and one allocation for its frame; none for the list of channels if there is one.

use foldhash::fast::RandomState;
use indexmap::IndexSet;

use super::attributes::Attributes;
use super::quota;
use super::remaining::Quota;
use super::validation::{FieldPath, Problems};
use super::{Denied, Plan, Publication, Reply, RequestContext};
use crate::app::{App, AppIndex};
use crate::cause::{Cause, Detail};
use crate::http1::request::Request;
use crate::http1::response::Response;
use crate::limits::EVENT_EXPANSION_BYTES_MAX;
use crate::pusher::channel_name::{self, ChannelName, NameLimit};
use crate::pusher::json;
use crate::pusher::outbound;
use crate::pusher::socket_id::SocketId;
use crate::shard::Question;
use crate::ws::frame;

/// The members of an event as raw spans; `null` counts as absent.
#[derive(Clone, Copy, Default)]
struct Fields<'a> {
    name: Option<&'a str>,
    data: Option<&'a str>,
    channel: Option<&'a str>,
    channels: Option<&'a str>,
    socket_id: Option<&'a str>,
    info: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn read(object: &'a str) -> Self {
        let mut fields = Self::default();
        for (name, value) in json::members(object).into_iter().flatten() {
            if let Some(field) = fields.field_of_member(name) {
                *field = (value != "null").then_some(value);
            }
        }
        fields
    }

    /// Where the value of the member `name` (with its quotes) belongs. The usual spelling is compared as it stands;
    /// only another one, such as `"\u006eame"`, is decoded.
    fn field_of_member(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        Some(match name {
            "\"name\"" => &mut self.name,
            "\"data\"" => &mut self.data,
            "\"channel\"" => &mut self.channel,
            "\"channels\"" => &mut self.channels,
            "\"socket_id\"" => &mut self.socket_id,
            "\"info\"" => &mut self.info,
            _ if json::is_name(name, "name") => &mut self.name,
            _ if json::is_name(name, "data") => &mut self.data,
            _ if json::is_name(name, "channel") => &mut self.channel,
            _ if json::is_name(name, "channels") => &mut self.channels,
            _ if json::is_name(name, "socket_id") => &mut self.socket_id,
            _ if json::is_name(name, "info") => &mut self.info,
            _ => return None,
        })
    }

    fn socket_id(&self) -> Option<SocketId> {
        SocketId::parse(&json::string(self.socket_id?)?)
    }

    fn attributes(&self) -> Option<Attributes> {
        Some(Attributes::read(&json::string(self.info?)?))
    }

    /// Bytes of this event's text in a frame, about: enough for one allocation.
    fn text_bytes(&self, channel_bytes: usize) -> usize {
        let (name, data) = (self.name.unwrap_or_default(), self.data.unwrap_or_default());
        name.len() + data.len() + channel_bytes + EVENT_OVERHEAD_BYTES
    }

    /// One event for one channel. The fields must have passed all checks. `space` is reused for the next one.
    fn publication(
        &self,
        channel: &ChannelName,
        excluded_socket_id: Option<SocketId>,
        space: &mut Vec<u8>,
    ) -> Publication {
        let (name, data) = (self.name.unwrap_or_default(), self.data.unwrap_or_default());
        space.clear();
        space.reserve(self.text_bytes(channel.len()) + frame::HEADER_BYTES_MAX);
        let frame =
            frame::write_text_frame(space, |text| outbound::event(name, data, channel, text));
        Publication { channel: channel.clone(), frame: frame.into(), excluded_socket_id }
    }
}

/// About what the text of an event has beside name, data and channel: names of members, quotes, commas.
const EVENT_OVERHEAD_BYTES: usize = 40;

/// `POST /apps/{id}/events`. An event with a channel that is not valid is sent to none of its channels.
pub(super) fn plan_event(
    app: AppIndex,
    request: &Request,
    context: &mut RequestContext<'_>,
) -> Result<Plan, Denied> {
    let fields = Fields::read(read_object(app, request, context)?);
    let mut problems = Problems::default();
    let most = context.apps.get(app).event_name_length_max;
    check_name(&mut problems, format_args!("name"), fields.name, most);
    check_string(&mut problems, format_args!("data"), fields.data);
    let names = channel_names(&mut problems, context.apps.get(app), &fields);
    let names = names.as_slice();
    check_socket_id(&mut problems, format_args!("socket_id"), fields.socket_id);
    check_optional_string(&mut problems, format_args!("info"), fields.info);
    problems.into_result(app, request, context)?;
    check_reserved(&fields, app, context)?;
    check_payload(&fields, app, request, context)?;
    check_expansion(&fields, names, request.body(), app, context)?;
    let quota = quota::charge_publishes(app, names.len(), context)?;
    let excluded_socket_id = fields.socket_id();
    let mut space = context.validator.take_space();
    let publications =
        names.iter().map(|name| fields.publication(name, excluded_socket_id, &mut space)).collect();
    context.validator.put_space(space);
    let (info, reply) = match fields.attributes() {
        None => (None, Reply::Empty),
        Some(attributes) => {
            // A channel that is named twice is described once: names of a JSON object are unique.
            let names: IndexSet<&str, RandomState> = names.iter().map(|name| &**name).collect();
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let question = Question::Describe { app, names: names.clone() };
            (Some(question), Reply::Event { names, attributes })
        }
    };
    Ok(Plan::Publish { app, publications, info, reply, quota })
}

/// Each channel gets a frame of its own, because the frame names the channel. So a body of `data` and many short names
/// costs the product of both. A batch needs no such check: each of its items brings its own data.
fn check_expansion(
    fields: &Fields<'_>,
    names: &[ChannelName],
    body: &[u8],
    app: AppIndex,
    context: &mut RequestContext<'_>,
) -> Result<(), Denied> {
    let bytes: usize = names.iter().map(|name| fields.text_bytes(name.len())).sum();
    let most = EVENT_EXPANSION_BYTES_MAX.max(4 * body.len());
    if bytes <= most {
        return Ok(());
    }
    let channels = names.len();
    let response = Response::text(
        413,
        &format!(
            "The event for {channels} channels becomes {bytes} bytes of messages, and one request may become {most}: \
             name fewer channels in one request, or send less data (an id that the client can use to fetch the rest)."
        ),
    );
    let values = [channels, bytes, most].map(Detail::count);
    Err(context.deny(response, Some(app), Cause::EventExpansion, &values))
}

/// `POST /apps/{id}/batch_events`. One invalid item, and none is published.
pub(super) fn plan_batch(
    app: AppIndex,
    request: &Request,
    context: &mut RequestContext<'_>,
) -> Result<Plan, Denied> {
    let mut list = None;
    for (name, value) in json::members(read_object(app, request, context)?).into_iter().flatten() {
        if json::is_name(name, "batch") {
            list = (value != "null").then_some(value);
        }
    }
    let items = batch_items(list, app, request, context)?;
    let mut problems = Problems::default();
    for (index, fields) in items.iter().enumerate() {
        let field = format_args!("batch.{index}.name");
        check_name(&mut problems, field, fields.name, context.apps.get(app).event_name_length_max);
    }
    for (index, fields) in items.iter().enumerate() {
        check_string(&mut problems, format_args!("batch.{index}.data"), fields.data);
    }
    let mut channels = Vec::with_capacity(items.len());
    for (index, fields) in items.iter().enumerate() {
        let app = context.apps.get(app);
        let field = format_args!("batch.{index}.channel");
        channels.extend(item_channel(&mut problems, app, field, fields.channel));
        let field = format_args!("batch.{index}.socket_id");
        check_socket_id(&mut problems, field, fields.socket_id);
        let field = format_args!("batch.{index}.info");
        check_optional_string(&mut problems, field, fields.info);
    }
    problems.into_result(app, request, context)?;
    items.iter().try_for_each(|fields| check_reserved(fields, app, context))?;
    items.iter().try_for_each(|fields| check_payload(fields, app, request, context))?;
    let quota = quota::charge_publishes(app, items.len(), context)?;
    let mut space = context.validator.take_space();
    debug_assert_eq!(channels.len(), items.len(), "an item without a channel is a problem");
    let plan = batch_plan(app, &items, &channels, quota, &mut space);
    context.validator.put_space(space);
    Ok(plan)
}

fn check_payload(
    fields: &Fields<'_>,
    app: AppIndex,
    request: &Request,
    context: &mut RequestContext<'_>,
) -> Result<(), Denied> {
    if context.apps.get(app).event_payload_max.is_none() {
        return Ok(());
    }
    let data = fields.data.and_then(json::string).unwrap_or_default();
    quota::check_payload(app, data.len(), request, context)
}

fn batch_plan(
    app: AppIndex,
    items: &[Fields<'_>],
    channels: &[ChannelName],
    quota: Option<Quota>,
    space: &mut Vec<u8>,
) -> Plan {
    let each = || items.iter().zip(channels);
    let publications = each()
        .map(|(fields, channel)| fields.publication(channel, fields.socket_id(), space))
        .collect();
    if items.iter().all(|fields| fields.info.is_none()) {
        let reply = Reply::EmptyBatch;
        return Plan::Publish { app, publications, info: None, reply, quota };
    }
    let names = channels.iter().map(|channel| channel.to_string()).collect();
    let items = each().map(|(fields, channel)| Some((channel.to_string(), fields.attributes()?)));
    let items = items.collect();
    let info = Some(Question::Describe { app, names });
    Plan::Publish { app, publications, info, reply: Reply::Batch { items }, quota }
}

fn batch_items<'a>(
    list: Option<&'a str>,
    app: AppIndex,
    request: &Request,
    context: &mut RequestContext<'_>,
) -> Result<Vec<Fields<'a>>, Denied> {
    let most = context.apps.get(app).batch_events_max;
    let mut problems = Problems::default();
    let mut items = Vec::new();
    match list.map(json::elements) {
        None => problems.required(format_args!("batch")),
        Some(None) => problems.not_an_array(format_args!("batch"), list.unwrap_or_default()),
        Some(Some(elements)) => items.extend(elements.map(Fields::read)),
    }
    if list.is_some_and(|list| list.starts_with('[')) && items.is_empty() {
        problems.required(format_args!("batch"));
    }
    if let Some(most) = most.filter(|most| items.len() > *most as usize) {
        problems.too_many_events(items.len(), most);
    }
    problems.into_result(app, request, context)?;
    Ok(items)
}

/// The body as an object. An empty array is PHP's empty object; everything else is refused.
pub(super) fn read_object<'a>(
    app: AppIndex,
    request: &'a Request,
    context: &mut RequestContext<'_>,
) -> Result<&'a str, Denied> {
    let text = context.validator.check(request.body()).map(str::trim_ascii);
    match text {
        Some(text) if text.starts_with('{') => Ok(text),
        Some(text) if text.starts_with('[') => Ok("{}"),
        // Reverb answers 500 here; the fault is the sender's (docs/PROTOCOL.md rule 62).
        _ => {
            // With verbose errors the log line follows, which has the same values.
            let text = match context.verbose_errors {
                true => "Bad request.",
                false => "Bad request: the body is not a JSON object.",
            };
            let values =
                [Detail::Request(request.method(), request.path()), Detail::text(request.body())];
            Err(context.deny(Response::text(400, text), Some(app), Cause::BodyNotJson, &values))
        }
    }
}

/// Names of channels. Most events have one channel, for which no list is allocated.
enum ChannelNames {
    One(ChannelName),
    Many(Vec<ChannelName>),
}

impl ChannelNames {
    fn as_slice(&self) -> &[ChannelName] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }

    fn add_channel(&mut self, name: ChannelName) {
        *self = match std::mem::replace(self, Self::Many(Vec::new())) {
            Self::Many(names) if names.is_empty() => Self::One(name),
            Self::One(first) => Self::Many(vec![first, name]),
            Self::Many(mut names) => {
                names.push(name);
                Self::Many(names)
            }
        };
    }
}

/// Channel names of an event: `channels`, or else `channel`.
fn channel_names(problems: &mut Problems, app: &App, fields: &Fields<'_>) -> ChannelNames {
    let mut names = ChannelNames::Many(Vec::new());
    let mut has_list = false;
    if let Some(channels) = fields.channels {
        match json::elements(channels) {
            None => {
                problems.not_an_array(format_args!("channels"), channels);
                has_list = true;
            }
            Some(elements) => {
                for (index, element) in elements.enumerate() {
                    has_list = true;
                    let field = format_args!("channels.{index}");
                    if let Some(name) = channel_name(problems, app, field, element) {
                        names.add_channel(name);
                    }
                }
            }
        }
    }
    if has_list {
        let count = names.as_slice().len();
        if let Some(most) = app.event_channels_max.filter(|most| count > *most as usize) {
            problems.too_many_channels(count, most);
        }
        return names;
    }
    match fields.channel {
        Some("\"\"") | None => {
            problems.required_without(format_args!("channels"), "channel");
            problems.required_without(format_args!("channel"), "channels");
        }
        Some(channel) => {
            if let Some(name) = channel_name(problems, app, format_args!("channel"), channel) {
                names.add_channel(name);
            }
        }
    }
    names
}

/// A text that names a channel: only the limit of the protocol is checked, not that of the app.
pub(super) fn channel_text(
    problems: &mut Problems,
    field: FieldPath<'_>,
    span: &str,
) -> Option<ChannelName> {
    let Some(text) = json::string(span) else {
        problems.not_a_string(field, span);
        return None;
    };
    let name = ChannelName::parse(&text);
    if name.is_err() {
        problems.not_a_channel(field, &text);
    }
    name.ok()
}

fn channel_name(
    problems: &mut Problems,
    app: &App,
    field: FieldPath<'_>,
    span: &str,
) -> Option<ChannelName> {
    let name = channel_text(problems, field, span)?;
    match channel_name::check(&name, app.channel_name_length_max, app.channel_names_are_pushers) {
        Ok(()) => return Some(name),
        Err(NameLimit::Length) => {
            problems.channel_too_long(field, &name, app.channel_name_length_max);
        }
        Err(NameLimit::Character) => problems.not_a_pusher_name(field, &name),
        Err(NameLimit::Colon) => problems.channel_with_colon(field, &name),
    }
    None
}

fn item_channel(
    problems: &mut Problems,
    app: &App,
    field: FieldPath<'_>,
    span: Option<&str>,
) -> Option<ChannelName> {
    match span {
        Some("\"\"") | None => {
            problems.required_without(field, "channels");
            None
        }
        Some(span) => channel_name(problems, app, field, span),
    }
}

/// Required, and a string that is not empty: Laravel's `required|string`.
fn check_string(problems: &mut Problems, field: FieldPath<'_>, span: Option<&str>) {
    match span {
        Some("\"\"") | None => problems.required(field),
        Some(span) => check_optional_string(problems, field, Some(span)),
    }
}

fn check_optional_string(problems: &mut Problems, field: FieldPath<'_>, span: Option<&str>) {
    if let Some(span) = span.filter(|span| !span.starts_with('"')) {
        problems.not_a_string(field, span);
    }
}

fn check_name(
    problems: &mut Problems,
    field: FieldPath<'_>,
    span: Option<&str>,
    most: Option<u32>,
) {
    check_string(problems, field, span);
    if let Some((span, most)) = span.zip(most)
        && json::has_more_characters(span, most as usize)
    {
        problems.event_name_too_long(field, span, most);
    }
}

/// Two numbers and a dot, as official libraries check it. An id of that form may be unknown here. Without the check, a
/// page that sends `undefined` would receive its own events. An empty text counts as none, as in Laravel.
fn check_socket_id(problems: &mut Problems, field: FieldPath<'_>, span: Option<&str>) {
    check_optional_string(problems, field, span);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_socket_id = |text: &str| {
        text.split_once('.').is_some_and(|(first, second)| is_number(first) && is_number(second))
    };
    let Some(span) = span.filter(|span| span.starts_with('"')) else { return };
    if !json::string(span).is_some_and(|text| text.is_empty() || is_socket_id(&text)) {
        problems.not_a_socket_id(field, span);
    }
}

/// Refuses names of the protocol, because a publisher could forge `member_added` (docs/PROTOCOL.md rule 129).
fn check_reserved(
    fields: &Fields<'_>,
    app: AppIndex,
    context: &mut RequestContext<'_>,
) -> Result<(), Denied> {
    let span = fields.name.unwrap_or_default();
    let is_reserved =
        ["pusher:", "pusher_internal:"].iter().any(|start| json::starts_with(span, start));
    if !is_reserved || context.apps.get(app).allow_reserved_events {
        return Ok(());
    }
    let name = json::string(span).unwrap_or_default();
    let response = Response::text(
        400,
        &format!(
            "The event name [{name}] is reserved for the protocol: choose another, or set \
             RINGVERB_ALLOW_RESERVED_EVENTS=true."
        ),
    );
    let name = Detail::text(&*name);
    Err(context.deny(response, Some(app), Cause::ReservedEvent, &[name]))
}
