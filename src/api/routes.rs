//! Path and method to target: the one table (docs/PROTOCOL.md rules 59, 60).
//!
//! Owns which paths exist. A path is also found beside the prefix and without it, because clients resolve it and
//! proxies cut it in different ways (`candidate_resources`). Segments are percent-decoded one by one, so that an
//! encoded slash is part of a name. Knows no signature: `auth.rs` checks a request after its target is known.
//!
//! Limits: `SEGMENTS_MAX`; a longer path is not found. Cost: up to three passes over the path, and one allocation for
//! each id or name in it.

use std::borrow::Cow;

use crate::http1::query::{percent_decode, split_at_byte};

/// What a path and a method name. Ids and names are percent-decoded.
#[derive(Clone, Debug)]
pub enum Target {
    /// `/app/{key}`: a WebSocket handshake.
    Socket {
        key: String,
    },
    Up,
    /// `/apps/{id}/...`: a request that the app's backend must sign.
    Api {
        app_id: String,
        call: Call,
    },
    NotFound,
    /// The path exists without the prefix that this server has, or is unknown. A refusal then names the prefix.
    OutsidePrefix,
    WrongMethod {
        allow: &'static str,
    },
}

impl Target {
    /// The answer is 404 or 405.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::NotFound | Self::OutsidePrefix | Self::WrongMethod { .. })
    }
}

#[derive(Clone, Debug)]
pub enum Call {
    Events,
    BatchEvents,
    Channels,
    Channel {
        name: String,
    },
    Users {
        name: String,
    },
    /// Ends access. The body of `Unsubscribe` names the channel.
    EndAccess {
        subject: AccessSubject,
        ending: AccessEnding,
    },
    Connections,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessSubject {
    User(String),
    /// Text that should be a socket id: `access.rs` parses it, and refuses a wrong one with 422.
    Socket(String),
}

/// What happens to the connections of the subject: they end for good, they end so that clients reconnect, or they leave
/// one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessEnding {
    Terminate,
    Reconnect,
    Unsubscribe,
}

/// Finds the target of a request. `path` is as sent; `prefix` is `Config::path`.
#[must_use]
pub fn target(method: &str, path: &str, prefix: &str) -> Target {
    let mut found =
        candidate_resources(path, prefix).filter_map(|resource| target_of(method, resource));
    let is_below = || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    match found.next() {
        Some(target) => target,
        None if prefix.is_empty() || is_below() => Target::NotFound,
        None => Target::OutsidePrefix,
    }
}

/// What a path may name below the prefix, the likeliest first.
///
/// A base URL without a slash at its end loses its last segment when a relative path is resolved against it (RFC 3986
/// section 5.2.3): Laravel resolves `apps/...` against `http://host/ws`, and asks for `/apps/...`. Proxies remove a
/// prefix, too. So sockets and the API are also served beside the prefix, and without any.
pub(super) fn candidate_resources<'a>(
    path: &'a str,
    prefix: &'a str,
) -> impl Iterator<Item = &'a str> {
    let beside = match prefix {
        "" => "",
        _ => prefix.rsplit_once('/').map_or("", |(parent, _)| parent),
    };
    [prefix, beside, ""].into_iter().filter_map(move |base| {
        let resource = path.strip_prefix(base)?;
        let is_app = || resource.starts_with("/app/") || resource.starts_with("/apps/");
        (resource.starts_with('/') && (base == prefix || is_app())).then_some(resource)
    })
}

/// Segments of the longest path: `/apps/{id}/channels/{name}/users`.
const SEGMENTS_MAX: usize = 5;

/// `None` if no target has this path.
fn target_of(method: &str, resource: &str) -> Option<Target> {
    let mut segments = [""; SEGMENTS_MAX];
    let mut count = 0;
    let mut rest = Some(resource.strip_prefix('/')?);
    while let Some(text) = rest {
        let (segment, after) = match split_at_byte(text, b'/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (text, None),
        };
        if segment.is_empty() {
            return None;
        }
        *segments.get_mut(count)? = segment;
        count += 1;
        rest = after;
    }
    let (allowed, target) = match segments.get(..count)? {
        ["up"] => ("GET", Target::Up),
        ["app", key] => ("GET", Target::Socket { key: decode_segment(key) }),
        ["apps", id, rest @ ..] => {
            let (method, call) = match rest {
                ["events"] => ("POST", Call::Events),
                ["batch_events"] => ("POST", Call::BatchEvents),
                ["connections"] => ("GET", Call::Connections),
                ["channels"] => ("GET", Call::Channels),
                ["channels", name] => ("GET", Call::Channel { name: decode_segment(name) }),
                ["channels", name, "users"] => ("GET", Call::Users { name: decode_segment(name) }),
                [kind @ ("users" | "connections"), id, action] => {
                    let ending = match (*kind, *action) {
                        ("users", "terminate_connections") | ("connections", "terminate") => {
                            AccessEnding::Terminate
                        }
                        (_, "force_reconnect") => AccessEnding::Reconnect,
                        (_, "unsubscribe") => AccessEnding::Unsubscribe,
                        _ => return None,
                    };
                    let id = decode_segment(id);
                    let subject = if *kind == "users" {
                        AccessSubject::User(id)
                    } else {
                        AccessSubject::Socket(id)
                    };
                    ("POST", Call::EndAccess { subject, ending })
                }
                _ => return None,
            };
            (method, Target::Api { app_id: decode_segment(id), call })
        }
        _ => return None,
    };
    // HEAD is GET without the body (docs/PROTOCOL.md rule 117).
    if method == allowed || (method == "HEAD" && allowed == "GET") {
        return Some(target);
    }
    Some(Target::WrongMethod { allow: if allowed == "GET" { "GET, HEAD" } else { allowed } })
}

fn decode_segment(segment: &str) -> String {
    match percent_decode(segment) {
        Cow::Borrowed(_) => segment.to_owned(),
        Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
    }
}
