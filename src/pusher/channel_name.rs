//! The name of a channel, and its kind, read from the name: access, and whether it caches its last event. PURE.
//!
//! Owns the prefixes; a `ChannelName` is a plain value. It is a name that was checked, so that code which has one needs
//! no answer for a bad one. Text of a peer that is only looked at is classified in place. Does not know which channels
//! exist. Prefixes are matched with their dash (docs/PROTOCOL.md rule 133): `privateer` is a public channel, as in
//! pusher-js. Limits: `limits::CHANNEL_NAME_BYTES_MAX`, and those of the app. Cost: classifying is some comparisons of
//! prefixes and no allocation; `parse` is one allocation; `check` is linear in the bytes.

use std::ops::Deref;
use std::sync::Arc;

use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every client may subscribe.
    Public,
    /// Needs a signature. Covers `private-encrypted-`, whose payload the server cannot read anyway.
    Private,
    /// Needs a signature over `channel_data`, and has a roster.
    Presence,
    /// `#server-to-user-{id}`: only for sockets signed in as that user (docs/PROTOCOL.md rule 42).
    User,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelKind {
    pub access: Access,
    /// The channel keeps its last event, with which new subscribers are greeted (`cache-`, `private-cache-`, …).
    pub cached: bool,
}

/// A checked name, with its kind. A clone shares the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelName {
    text: Arc<str>,
    kind: ChannelKind,
}

impl ChannelName {
    /// # Errors
    /// As `classify`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Ok(Self { kind: classify(text)?, text: text.into() })
    }

    #[must_use]
    pub fn kind(&self) -> ChannelKind {
        self.kind
    }

    /// The text without a copy: channel keys and observations share it.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        self.text.clone()
    }
}

impl Deref for ChannelName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// Why a name is refused (docs/PROTOCOL.md rules 29, 30).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    Empty,
    TooLong,
}

/// Why an app refuses a name (docs/PROTOCOL.md rule 29).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameLimit {
    Length,
    /// A character that Pusher does not have in names.
    Character,
    /// A colon in a name that needs a signature: colons separate the parts of what is signed, so
    /// `private-a:b` with no `channel_data` and `private-a` with `b` have one signature.
    Colon,
}

/// Followed by the user's id.
pub const USER_CHANNEL_PREFIX: &str = "#server-to-user-";
const PRIVATE_PREFIX: &str = "private-";
const PRESENCE_PREFIX: &str = "presence-";

/// Checks a name against the app's own limits (docs/PROTOCOL.md rule 29). `length_max` is in bytes.
/// `only_pusher_characters`: names that Pusher refuses are refused, too (`RINGVERB_CHANNEL_NAMES`).
///
/// # Errors
/// The limit that it exceeds.
pub fn check(name: &str, length_max: u32, only_pusher_characters: bool) -> Result<(), NameLimit> {
    if name.len() > length_max as usize {
        return Err(NameLimit::Length);
    }
    let rest = name.strip_prefix(USER_CHANNEL_PREFIX).unwrap_or(name);
    let is_pusher_character = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte);
    if only_pusher_characters && !rest.bytes().all(is_pusher_character) {
        return Err(NameLimit::Character);
    }
    let is_signed = name.starts_with(PRIVATE_PREFIX) || name.starts_with(PRESENCE_PREFIX);
    if is_signed && memchr::memchr(b':', name.as_bytes()).is_some() {
        return Err(NameLimit::Colon);
    }
    Ok(())
}

/// Reads the kind from a name. Like Reverb, it accepts any text that is not empty and not too long.
///
/// # Errors
/// `Empty`, or `TooLong` above `limits::CHANNEL_NAME_BYTES_MAX` bytes.
pub fn classify(name: &str) -> Result<ChannelKind, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > limits::CHANNEL_NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    let (access, rest) = if let Some(rest) = name.strip_prefix("private-encrypted-") {
        (Access::Private, rest)
    } else if let Some(rest) = name.strip_prefix(PRIVATE_PREFIX) {
        (Access::Private, rest)
    } else if let Some(rest) = name.strip_prefix(PRESENCE_PREFIX) {
        (Access::Presence, rest)
    } else if name.starts_with(USER_CHANNEL_PREFIX) {
        (Access::User, "")
    } else {
        (Access::Public, name)
    };
    Ok(ChannelKind { access, cached: rest.starts_with("cache-") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_channel_follows_from_its_prefix() {
        let cases = [
            ("news", Access::Public, false),
            ("privateer", Access::Public, false),
            ("presence", Access::Public, false),
            ("cachet", Access::Public, false),
            ("cache-x", Access::Public, true),
            ("private-x", Access::Private, false),
            ("private-cache-x", Access::Private, true),
            ("private-encrypted-x", Access::Private, false),
            ("private-encrypted-cache-x", Access::Private, true),
            ("presence-x", Access::Presence, false),
            ("presence-cache-x", Access::Presence, true),
            ("#server-to-user-7", Access::User, false),
            ("has space/é", Access::Public, false),
        ];
        for (name, access, cached) in cases {
            assert_eq!(classify(name), Ok(ChannelKind { access, cached }), "{name}");
        }
    }

    #[test]
    fn a_checked_name_has_the_kind_of_its_text() {
        for text in ["news", "private-cache-x", "#server-to-user-7"] {
            let name = ChannelName::parse(text).unwrap();
            assert_eq!((&*name, Ok(name.kind())), (text, classify(text)));
        }
        assert_eq!(ChannelName::parse(""), Err(NameError::Empty));
        assert_eq!(ChannelName::parse(&"c".repeat(10_001)), Err(NameError::TooLong));
    }

    #[test]
    fn limits_of_an_app() {
        assert_eq!(check(&"é".repeat(82), 164, false), Ok(()));
        assert_eq!(check(&"é".repeat(83), 164, false), Err(NameLimit::Length));
        assert_eq!(check("private-a_b=c@d,e.f;G9", 10_000, true), Ok(()));
        assert_eq!(check("#server-to-user-7", 10_000, true), Ok(()));
        for name in ["a b", "a/b", "#a", "é", "a:b", "#server-to-user-#"] {
            assert_eq!(check(name, 10_000, true), Err(NameLimit::Character), "{name}");
            assert_eq!(check(name, 10_000, false), Ok(()), "{name}");
        }
        for name in ["private-a:b", "private-encrypted-a:b", "presence-cache-:"] {
            assert_eq!(check(name, 200, false), Err(NameLimit::Colon), "{name}");
        }
    }

    #[test]
    fn empty_and_long_names_are_refused() {
        assert_eq!(classify(""), Err(NameError::Empty));
        assert_eq!(classify(&"c".repeat(10_000)).map(|kind| kind.cached), Ok(false));
        assert_eq!(classify(&"c".repeat(10_001)), Err(NameError::TooLong));
    }
}
