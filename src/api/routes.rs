//! Path and method to target: the one table (PROTOCOL.md rules 59, 60).

use std::borrow::Cow;

use crate::http1::query::percent_decode;
use crate::http1::response::Response;

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
    /// No such path, or not with this method.
    Refused(Response),
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
        return not_found();
    };
    let segments: Vec<&str> = rest.split('/').collect();
    if segments.iter().any(|segment| segment.is_empty()) {
        return not_found();
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
                _ => return not_found(),
            };
            (method, Target::Api { app_id: decoded(id), call })
        }
        _ => return not_found(),
    };
    // HEAD is GET without the body (PROTOCOL.md rule 117).
    if method == allowed || (method == "HEAD" && allowed == "GET") {
        return target;
    }
    let allow = if allowed == "GET" { "GET, HEAD" } else { allowed };
    Target::Refused(
        Response::text(405, "Method not allowed.").with_header("Allow", allow.to_owned()),
    )
}

fn not_found() -> Target {
    Target::Refused(Response::text(404, "Not found."))
}

fn decoded(segment: &str) -> String {
    match String::from_utf8_lossy(&percent_decode(segment)) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}
