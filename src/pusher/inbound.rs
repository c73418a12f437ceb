//! Messages of clients: text in, one `Inbound` out (docs/PROTOCOL.md C4, C5, C6). PURE. Owns no state; the `Validator`
//! is the caller's.
//!
//! Checks the form of a message only; does not decide about membership, signatures and rates: the shard does. Spans of
//! `data` are passed on byte for byte. Limits: `WATCHLIST_MAX`, `WATCHLIST_READ_MAX`; the caller limits the message.
//! Cost: linear in the message: one validation and one walk over its members, again for JSON in a string. A client
//! event allocates only for a channel with escapes; a subscription for each of its texts.

use std::borrow::Cow;

use foldhash::fast::FixedState;
use indexmap::IndexSet;

use super::channel_name::{Access, classify};
use super::json::{self, ObjectMembers, Validator};
use crate::text::shown_up_to;

#[derive(Debug, PartialEq, Eq)]
pub enum Inbound<'a> {
    Ping,
    Pong,
    Subscribe(Subscribe),
    Unsubscribe {
        channel: String,
    },
    ClientEvent(ClientEvent<'a>),
    SignIn(SignIn),
    /// An event that is not the client's to send, with a channel: dropped without an answer as Reverb does
    /// (docs/PROTOCOL.md rule 36). Its name as it was written.
    Ignored {
        event: &'a str,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub struct Subscribe {
    pub channel: String,
    pub auth: Option<Auth>,
    pub channel_data: Option<ChannelData>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Auth {
    Text(String),
    /// Not a string: the name of its type. Its content is not kept, because it may contain a signature.
    Other(&'static str),
}

impl Auth {
    /// `null` counts as no `auth`.
    fn read(span: &str) -> Option<Self> {
        if let Some(text) = json::string(span) {
            return Some(Self::Text(text.into_owned()));
        }
        match span.as_bytes() {
            b"null" => None,
            b"{}" => Some(Self::Other("{}")),
            b"[]" => Some(Self::Other("[]")),
            [b'{', ..] => Some(Self::Other("a JSON object")),
            [b'[', ..] => Some(Self::Other("a JSON array")),
            [b't' | b'f', ..] => Some(Self::Other("true or false")),
            _ => Some(Self::Other("a number")),
        }
    }

    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Other(_) => None,
        }
    }
}

/// `channel_data`: the exact signed text, and its parsed members.
#[derive(Debug, PartialEq, Eq)]
pub struct ChannelData {
    /// As signed (docs/PROTOCOL.md rule 46).
    pub text: String,
    /// The `user_id` as it was written, `7` or `"7"`; `None` when there is none or it is neither number nor
    /// string.
    pub user_id: Option<UserId>,
    /// The `user_info` as it was written; `null` when there is none.
    pub user_info: String,
}

/// A user id as the app wrote it. Ids are compared by their text form: `7` and `"7"` are one user (docs/PROTOCOL.md
/// rule 28).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UserId {
    /// As JSON, with quotes if the app wrote quotes.
    pub json: Box<str>,
    pub text: Box<str>,
}

/// `pusher:signin`.
#[derive(Debug, PartialEq, Eq)]
pub struct SignIn {
    pub auth: Option<Auth>,
    /// As signed (docs/PROTOCOL.md rule 47).
    pub user_data: String,
    /// The user in `user_data`; `None` if it names none.
    pub user: Option<User>,
}

/// The members of a sign-in's `user_data` that the server uses.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    /// A text that is not empty (docs/PROTOCOL.md rule 40).
    pub id: UserId,
    /// The `user_info` as it was written; `null` when there is none.
    pub user_info: String,
    /// Ids of other users, each once, and at most one more than may be watched.
    pub watchlist: Vec<String>,
}

/// Users one connection may watch (docs/PROTOCOL.md rule 43).
pub const WATCHLIST_MAX: usize = 100;
/// Elements of a watchlist that are read, so that thousands of equal ones cost little.
const WATCHLIST_READ_MAX: usize = 10 * WATCHLIST_MAX;

/// `client-…`. Event and data are the raw spans, to be passed on byte for byte.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientEvent<'a> {
    pub event: &'a str,
    pub channel: Cow<'a, str>,
    /// `null` when there was none, as Reverb sends it on.
    pub data: &'a str,
}

/// The text is not a message of the protocol: answered with 4200 (docs/PROTOCOL.md rule 58).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedMessage {
    pub fault: MessageFault,
    /// What is wrong, as it was written, `VALUE_BYTES_MAX` bytes at most; never a signature.
    pub value: Box<str>,
}

/// Each has its own line in the log (`cause`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageFault {
    NotJson,
    NoEvent,
    /// Begins with `pusher:`, and is none that clients send.
    UnknownEvent,
    /// An event that needs `channel` beside it.
    EventWithoutChannel,
    /// `data` of a subscription is missing, or no JSON object.
    SubscribeData,
    /// `data` of a subscription or its end names no channel.
    SubscribeChannel,
    /// `channel_data` is no JSON object in a text.
    ChannelData,
    /// No `user_data`, or it is no JSON object in a text.
    SignInData,
}

/// Bytes kept of a wrong value. Of text that is not JSON less is kept, because it may contain a signature.
const VALUE_BYTES_MAX: usize = 120;
const NOT_JSON_BYTES_MAX: usize = 40;
/// Bytes shown of a channel and of its wrong data.
const SHOWN_BYTES_MAX: usize = 64;

impl MalformedMessage {
    fn new(fault: MessageFault, value: &str) -> Self {
        Self { fault, value: value[..value.floor_char_boundary(VALUE_BYTES_MAX)].into() }
    }

    /// For a value that is a span of JSON: a string is shown without its quotes.
    fn span(fault: MessageFault, span: &str) -> Self {
        let inside = span.strip_prefix('"').and_then(|inside| inside.strip_suffix('"'));
        Self::new(fault, inside.unwrap_or(span))
    }
}

impl MalformedMessage {
    fn channel(event: &str, span: Option<&str>) -> Self {
        let value = match span {
            None => format!("{event} has no channel"),
            Some(span) => {
                let end = span.floor_char_boundary(VALUE_BYTES_MAX);
                format!("{event} has channel {}", &span[..end])
            }
        };
        Self::new(MessageFault::SubscribeChannel, &value)
    }

    /// The value is the whole beginning of the log line, so both texts are escaped here.
    fn channel_data(channel: &str, text: &str) -> Self {
        let [channel, text] = [channel, text].map(|text| shown_up_to(text, SHOWN_BYTES_MAX));
        let value = format!("subscription to {channel} refused: channel_data {text}");
        Self { fault: MessageFault::ChannelData, value: value.into() }
    }
}

/// Reads one message.
///
/// # Errors
/// `MalformedMessage` for text that is no JSON object, has no event name, names an unknown `pusher:` event or lacks a
/// channel where one is due.
pub fn parse<'a>(
    text: &'a [u8],
    validator: &mut Validator,
) -> Result<Inbound<'a>, MalformedMessage> {
    let mut event = None;
    let mut channel = None;
    let mut data = None;
    let members = validator.check_object(text).ok_or_else(|| {
        let start = text.get(..NOT_JSON_BYTES_MAX).unwrap_or(text);
        MalformedMessage::new(MessageFault::NotJson, &String::from_utf8_lossy(start))
    })?;
    for (name, value) in members {
        // The last of equal names counts, as in PHP.
        if json::is_name(name, "event") {
            event = Some(value);
        } else if json::is_name(name, "channel") {
            channel = Some(value);
        } else if json::is_name(name, "data") {
            data = Some(value);
        }
    }
    let event_span = event.unwrap_or("missing");
    let event = json::string(event_span)
        .ok_or_else(|| MalformedMessage::new(MessageFault::NoEvent, event_span))?;
    match event.as_ref() {
        "pusher:ping" => Ok(Inbound::Ping),
        "pusher:pong" => Ok(Inbound::Pong),
        "pusher:subscribe" => subscribe(data, validator).map(Inbound::Subscribe),
        "pusher:unsubscribe" => unsubscribe(data, validator),
        "pusher:signin" => sign_in(data, validator).map(Inbound::SignIn),
        other if other.starts_with("pusher:") => {
            Err(MalformedMessage::span(MessageFault::UnknownEvent, event_span))
        }
        other => {
            let channel = channel.and_then(json::string).ok_or_else(|| {
                MalformedMessage::span(MessageFault::EventWithoutChannel, event_span)
            })?;
            if other.starts_with("client-") {
                let data = data.unwrap_or("null");
                Ok(Inbound::ClientEvent(ClientEvent { event: event_span, channel, data }))
            } else {
                Ok(Inbound::Ignored { event: event_span })
            }
        }
    }
}

fn subscribe(data: Option<&str>, validator: &mut Validator) -> Result<Subscribe, MalformedMessage> {
    const EVENT: &str = "pusher:subscribe";
    let mut nested = String::new();
    let mut subscribe = Subscribe { channel: String::new(), auth: None, channel_data: None };
    let (mut channel_data, mut channel_span) = (None, None);
    let no_object = || MalformedMessage::new(MessageFault::SubscribeData, EVENT);
    for (name, value) in data_members(data, &mut nested, validator).ok_or_else(no_object)? {
        if json::is_name(name, "channel") {
            let channel =
                json::string(value).ok_or_else(|| MalformedMessage::channel(EVENT, Some(value)))?;
            subscribe.channel = channel.into_owned();
            channel_span = Some(value);
        } else if json::is_name(name, "auth") {
            subscribe.auth = Auth::read(value);
        } else if json::is_name(name, "channel_data") && value != "null" {
            channel_data = Some((json::string(value), value));
        }
    }
    if subscribe.channel.is_empty() {
        return Err(MalformedMessage::channel(EVENT, channel_span));
    }
    // Only a presence channel has a member; in other channels the text is only part of the signed text.
    let has_members =
        classify(&subscribe.channel).is_ok_and(|kind| kind.access == Access::Presence);
    subscribe.channel_data = match channel_data {
        None => None,
        Some((None, span)) if has_members => {
            return Err(MalformedMessage::channel_data(&subscribe.channel, span));
        }
        Some((None, _)) => None,
        Some((Some(text), _)) if text.is_empty() => None,
        Some((Some(text), _)) if has_members => {
            Some(read_channel_data(&subscribe.channel, text.into_owned(), validator)?)
        }
        Some((Some(text), _)) => Some(ChannelData {
            text: text.into_owned(),
            user_id: None,
            user_info: "null".to_owned(),
        }),
    };
    Ok(subscribe)
}

fn unsubscribe(
    data: Option<&str>,
    validator: &mut Validator,
) -> Result<Inbound<'static>, MalformedMessage> {
    const EVENT: &str = "pusher:unsubscribe";
    let mut nested = String::new();
    let (mut channel, mut channel_span) = (None, None);
    let no_object = || MalformedMessage::new(MessageFault::SubscribeData, EVENT);
    for (name, value) in data_members(data, &mut nested, validator).ok_or_else(no_object)? {
        if json::is_name(name, "channel") {
            channel = json::string(value).map(Cow::into_owned);
            channel_span = Some(value);
        }
    }
    channel
        .map(|channel| Inbound::Unsubscribe { channel })
        .ok_or_else(|| MalformedMessage::channel(EVENT, channel_span))
}

fn sign_in(data: Option<&str>, validator: &mut Validator) -> Result<SignIn, MalformedMessage> {
    let malformed = || MalformedMessage::new(MessageFault::SignInData, "");
    let mut nested = String::new();
    let (mut auth, mut user_data) = (None, None);
    for (name, value) in data_members(data, &mut nested, validator).ok_or_else(malformed)? {
        if json::is_name(name, "auth") {
            auth = Auth::read(value);
        } else if json::is_name(name, "user_data") {
            user_data = json::string(value).map(Cow::into_owned);
        }
    }
    let user_data = user_data.ok_or_else(malformed)?;
    let user = read_user(&user_data, validator).ok_or_else(malformed)?;
    Ok(SignIn { auth, user_data, user })
}

/// `None`: no JSON object. `Some(None)`: it names no user.
fn read_user(text: &str, validator: &mut Validator) -> Option<Option<User>> {
    let mut id = None;
    let mut user_info = "null";
    let mut watchlist = Vec::new();
    for (name, value) in validator.check_object(text.as_bytes())? {
        if json::is_name(name, "id") {
            // pusher-js accepts no number here, so no client could have signed in with one (rule 40).
            id = read_user_id(value).filter(|id| id.json.starts_with('"'));
        } else if json::is_name(name, "user_info") {
            user_info = value;
        } else if json::is_name(name, "watchlist") {
            watchlist = read_watchlist(value);
        }
    }
    Some(id.map(|id| User { id, user_info: user_info.to_owned(), watchlist }))
}

/// The first ids of the list; elements that are neither text nor number are ignored.
///
/// Only the first `WATCHLIST_READ_MAX` elements are read. The ids are kept in a set, because any client can send a long
/// list before its signature is checked. The hash is not keyed: at most `WATCHLIST_MAX` ids can collide.
fn read_watchlist(span: &str) -> Vec<String> {
    let mut list: IndexSet<Cow<'_, str>, FixedState> = IndexSet::default();
    let elements = json::elements(span).into_iter().flatten().take(WATCHLIST_READ_MAX);
    for id in elements.filter_map(user_id_text) {
        list.insert(id);
        if list.len() > WATCHLIST_MAX {
            break;
        }
    }
    list.into_iter().map(Cow::into_owned).collect()
}

/// `data` is an object, or a string that contains one: some SDKs encode twice (docs/PROTOCOL.md rule 3).
fn data_members<'a>(
    data: Option<&'a str>,
    nested: &'a mut String,
    validator: &mut Validator,
) -> Option<ObjectMembers<'a>> {
    let data = data?;
    if !data.starts_with('"') {
        return json::members(data);
    }
    *nested = json::string(data)?.into_owned();
    validator.check_object(nested.as_bytes())
}

fn read_channel_data(
    channel: &str,
    text: String,
    validator: &mut Validator,
) -> Result<ChannelData, MalformedMessage> {
    let mut user_id = None;
    let mut user_info = "null";
    let members = validator
        .check_object(text.as_bytes())
        .ok_or_else(|| MalformedMessage::channel_data(channel, &text))?;
    for (name, value) in members {
        if json::is_name(name, "user_id") {
            user_id = read_user_id(value);
        } else if json::is_name(name, "user_info") {
            user_info = value;
        }
    }
    let user_info = user_info.to_owned();
    Ok(ChannelData { text, user_id, user_info })
}

/// A number keeps its digits: above 2^53 they would not survive a float (docs/PROTOCOL.md rule 28).
fn read_user_id(span: &str) -> Option<UserId> {
    let text = user_id_text(span)?;
    Some(UserId { json: span.into(), text: text.into() })
}

fn user_id_text(span: &str) -> Option<Cow<'_, str>> {
    let text = match span.as_bytes().first()? {
        b'"' => json::string(span)?,
        b'-' | b'0'..=b'9' => Cow::Borrowed(span),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
