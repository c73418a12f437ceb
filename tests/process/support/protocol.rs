//! The protocol as a client and a backend write it: the app of the tests, signatures, and messages of the server. PURE.
//!
//! Owns the texts of the recorded traffic. Does not use code of the server. No limits: texts. Cost: one HMAC over the
//! bytes of a signature.

use ringverb::app::Secret;
use ringverb::pusher::signature;
use serde_json::Value;

/// The app of the recorded traffic.
pub(crate) const APP_ID: &str = "1001";
pub(crate) const APP_KEY: &str = "app-key";
pub(crate) const APP_SECRET: &str = "app-secret";

/// The answer to anything malformed.
pub(crate) const INVALID: &str =
    r#"{"event":"pusher:error","data":"{\"code\":4200,\"message\":\"Invalid message format\"}"}"#;
pub(crate) const PING: &str = r#"{"event":"pusher:ping","data":{}}"#;
pub(crate) const PONG: &str = r#"{"event":"pusher:pong"}"#;

/// Signs with the secret of the app of the tests.
pub(crate) fn sign(parts: &[&str]) -> String {
    sign_with(APP_SECRET, parts)
}

pub(crate) fn sign_with(secret: &str, parts: &[&str]) -> String {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    let hex = signature::sign(&Secret::new(secret), &parts);
    String::from_utf8(hex.to_vec()).expect("hex")
}

/// The `auth` of a subscription.
pub(crate) fn channel_auth(socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    let signature = match channel_data {
        None => sign(&[socket_id, ":", channel]),
        Some(data) => sign(&[socket_id, ":", channel, ":", data]),
    };
    format!("{APP_KEY}:{signature}")
}

/// A JSON text as a value.
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// The value in the `data` string of an event.
pub(crate) fn data(event: &Value) -> Value {
    json(event["data"].as_str().unwrap_or_else(|| panic!("data of {event} is no string")))
}

/// `pusher:error` as Reverb writes it.
pub(crate) fn error_event(code: u16, message: &str) -> String {
    format!(r#"{{"event":"pusher:error","data":"{{\"code\":{code},\"message\":\"{message}\"}}"}}"#)
}

/// `pusher_internal:subscription_succeeded` of a channel without a roster.
pub(crate) fn succeeded(channel: &str) -> String {
    let channel = Value::from(channel);
    format!(
        r#"{{"event":"pusher_internal:subscription_succeeded","data":"{{}}","channel":{channel}}}"#
    )
}
