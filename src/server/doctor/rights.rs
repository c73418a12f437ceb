//! Whether the user of Redis may do what a node does, for `ringverb doctor`.
//!
//! Owns no state. Each command of a node is sent once, in a form that never changes anything: an event to a topic
//! without readers, a subscription that ends at once, a key that is read and not written (`SET ... XX` of a key that
//! does not exist). Redis checks the rights before it carries a command out, and answers NOPERM. docs/OPERATIONS.md
//! lists the rights.
//! Limits: one connection, and the time of a probe (`doctor/redis.rs`). Cost: once in a command, one connection with
//! seven requests.

use std::time::Duration;

use super::finding::{Finding, Verdict};
use super::redis::exchange;
use crate::cluster::probe_name;
use crate::config::Scaling;
use crate::resp::Value;

/// As rules of `ACL SETUSER`, with which the operator can grant them.
const RULES: &str = "+@connection +subscribe +unsubscribe +publish +get +set +eval";

/// The finding of `redis` is the one to read if Redis cannot be reached: then there is none here.
pub(super) fn examine(scaling: &Scaling, step: Duration) -> Option<Finding> {
    let name = probe_name(&scaling.prefix);
    let name = name.as_bytes();
    let commands: [(&str, &[&[u8]]); 6] = [
        ("get", &[b"GET", name]),
        ("set", &[b"SET", name, b"", b"XX"]),
        ("eval", &[b"EVAL", b"return redis.call('get', KEYS[1])", b"1", name]),
        ("publish", &[b"PUBLISH", name, b""]),
        ("subscribe", &[b"SUBSCRIBE", name]),
        ("unsubscribe", &[b"UNSUBSCRIBE", name]),
    ];
    let sent: Vec<&[&[u8]]> = commands.iter().map(|(_, words)| *words).collect();
    let replies = exchange(scaling, step, &sent).ok()?;
    // The first reply is that of HELLO.
    let (hello, replies) = replies.split_first()?;
    if matches!(hello, Value::Error(_)) || replies.len() < commands.len() {
        return None;
    }
    let refused: Vec<String> = commands
        .iter()
        .zip(replies)
        .filter_map(|((name, _), reply)| match reply {
            Value::Error(error) => Some(format!("{name} ({})", code(error))),
            _ => None,
        })
        .collect();
    let place = scaling.address();
    let prefix = String::from_utf8_lossy(name);
    let prefix = prefix.strip_suffix("doctor").unwrap_or_default();
    Some(if refused.is_empty() {
        let text = format!("the user of {place} may do what a node does, below {prefix}");
        Finding::new(Verdict::Good, "rights", text)
    } else {
        let text = format!(
            "Redis at {place} refuses commands of a node: {}. The user needs {RULES} ~{prefix}* &{prefix}*",
            refused.join(", ")
        );
        Finding::new(Verdict::Problem, "rights", text)
    })
}

/// Redis quotes arguments in some errors, so only the code is shown.
fn code(error: &str) -> &str {
    let code = error.split(' ').next().unwrap_or_default();
    if code.bytes().all(|byte| byte.is_ascii_uppercase()) { code } else { "error" }
}
