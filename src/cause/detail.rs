//! Values for the gaps of a log line, and how each is shown. PURE.
//!
//! Owns no text: each value borrows one. Text of a peer is quoted, escaped and cut, so that no peer makes a line long
//! or steers a terminal. Text of this server is shown as it is. Never shows the query of a request, which has a
//! signature. Limits: the four constants below, in bytes. Cost: nothing until a line is formatted, and then linear in
//! the bytes shown.

use core::net::IpAddr;
use std::fmt::{self, Write};

use crate::text::{Counted, LogLine, shown_up_to};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail<'a> {
    #[default]
    Nothing,
    Number(u64),
    /// A number of things, by their name in the singular: the plural is made where needed.
    Counted(u64, &'static str),
    /// Text of a peer.
    Text(&'a [u8]),
    /// Text of this server, shown as it is.
    Own(&'a str),
    /// A piece of JSON of a peer, or a name of this server: escaped and cut, without quotes.
    Span(&'a str),
    /// A subscription to this channel, whose name a client chose.
    Subscription(&'a str),
    /// Method and path of a request. Its query is not shown: it holds a signature.
    Request(&'a str, &'a str),
    Address(IpAddr),
    /// Texts of the configuration, separated by commas.
    List(&'a [String]),
}

/// Bytes shown of one text of a peer. A line with two such texts still has room for the remedy.
const TEXT_BYTES_MAX: usize = 64;

/// Bytes of a channel's name that are kept beside the line.
const CHANNEL_BYTES_MAX: usize = 200;

/// Known methods have at most 7 bytes.
const METHOD_BYTES_MAX: usize = 10;

/// Bytes shown of a list of the configuration.
const LIST_BYTES_MAX: usize = 160;

impl<'a> Detail<'a> {
    #[must_use]
    pub fn text<T: AsRef<[u8]> + ?Sized>(text: &'a T) -> Self {
        Self::Text(text.as_ref())
    }

    /// The channel of a subscription, for the field `channel` of the log.
    pub(super) fn channel(&self) -> Option<Box<str>> {
        let Self::Subscription(channel) = self else { return None };
        channel.get(..channel.floor_char_boundary(CHANNEL_BYTES_MAX)).map(Box::from)
    }

    #[must_use]
    pub fn count(count: usize) -> Self {
        Self::Number(count as u64)
    }
}

impl fmt::Display for Detail<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Number(number) => number.fmt(formatter),
            Self::Counted(number, thing) => Counted(*number, thing).fmt(formatter),
            Self::Text(text) => shown_up_to(text, TEXT_BYTES_MAX).fmt(formatter),
            Self::Own(text) => formatter.write_str(text),
            Self::Span(text) => {
                let mut shown = LogLine::new(TEXT_BYTES_MAX);
                // Writing to a `LogLine` cannot fail.
                shown.write_str(text).ok();
                write_cut(&shown, formatter)
            }
            Self::Subscription(channel) => {
                write!(formatter, "subscription to {}", shown_up_to(channel, TEXT_BYTES_MAX))
            }
            Self::Request(method, path) => {
                let method = shown_up_to(method, METHOD_BYTES_MAX).to_string();
                write!(
                    formatter,
                    "{} {}",
                    method.trim_matches('"'),
                    shown_up_to(path, TEXT_BYTES_MAX)
                )
            }
            Self::Address(address) => address.fmt(formatter),
            Self::List(texts) => {
                let mut shown = LogLine::new(LIST_BYTES_MAX);
                for (number, text) in texts.iter().enumerate() {
                    // Writing to a `LogLine` cannot fail.
                    write!(shown, "{}{text}", if number > 0 { ", " } else { "" }).ok();
                    if shown.is_cut() {
                        break;
                    }
                }
                write_cut(&shown, formatter)
            }
        }
    }
}

fn write_cut(shown: &LogLine, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    formatter.write_str(shown.as_str())?;
    formatter.write_str(if shown.is_cut() { "…" } else { "" })
}
