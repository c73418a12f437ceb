//! Path and method to target: the one table (PROTOCOL.md rules 59, 60).

use std::borrow::Cow;

use crate::http1::query::percent_decode;

/// Where a request goes. Ids and names are percent-decoded.
#[derive(Clone, Debug)]
pub enum Target {
    /// `/app/{key}`: a WebSocket.
    Socket {
        key: String,
    },
    Up,
    /// `/apps/{id}/...`: a request that must be signed.
    Api {
        app_id: String,
        call: Call,
    },
    /// No such path.
    NotFound,
    /// The path lacks the prefix that this server has.
    OutsidePrefix,
    WrongMethod {
        allow: &'static str,
    },
}

impl Target {
    /// No such path, or not with this method.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::NotFound | Self::OutsidePrefix | Self::WrongMethod { .. })
    }
}

/// What a signed request asks for.
#[derive(Clone, Debug)]
pub enum Call {
    Events,
    BatchEvents,
    Channels,
    Channel { name: String },
    Users { name: String },
    Terminate { user_id: String },
    Connections,
}

/// Finds the target of a request. `path` is as sent; `prefix` is `Config::path`.
#[must_use]
pub fn target(method: &str, path: &str, prefix: &str) -> Target {
    let Some(rest) = path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')) else {
        return if prefix.is_empty() { Target::NotFound } else { Target::OutsidePrefix };
    };
    let segments: Vec<&str> = rest.split('/').collect();
    if segments.iter().any(|segment| segment.is_empty()) {
        return Target::NotFound;
    }
    let (allowed, target) = match segments.as_slice() {
        ["up"] => ("GET", Target::Up),
        ["app", key] => ("GET", Target::Socket { key: decoded(key) }),
        ["apps", id, rest @ ..] => {
            let (method, call) = match rest {
                ["events"] => ("POST", Call::Events),
                ["batch_events"] => ("POST", Call::BatchEvents),
                ["connections"] => ("GET", Call::Connections),
                ["channels"] => ("GET", Call::Channels),
                ["channels", name] => ("GET", Call::Channel { name: decoded(name) }),
                ["channels", name, "users"] => ("GET", Call::Users { name: decoded(name) }),
                ["users", user_id, "terminate_connections"] => {
                    ("POST", Call::Terminate { user_id: decoded(user_id) })
                }
                _ => return Target::NotFound,
            };
            (method, Target::Api { app_id: decoded(id), call })
        }
        _ => return Target::NotFound,
    };
    // HEAD is GET without the body (PROTOCOL.md rule 117).
    if method == allowed || (method == "HEAD" && allowed == "GET") {
        return target;
    }
    Target::WrongMethod { allow: if allowed == "GET" { "GET, HEAD" } else { allowed } }
}

fn decoded(segment: &str) -> String {
    match String::from_utf8_lossy(&percent_decode(segment)) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}
