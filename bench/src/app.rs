//! The app on the server under test: what its clients and its backend send to it.
//!
//! Owns addresses and credentials; otherwise plain values. Does not send: `pool` and `api` do. A signed target has the
//! time of the call, so it is good for the server's window of some minutes. No limits: one app a run. Cost: a request
//! or subscription is some allocations and one HMAC over its bytes.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::sign;

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) address: SocketAddrV4,
    /// Address of its HTTP API. Differs from `address` if `--api-url` names another node of a cluster.
    pub(crate) api_address: SocketAddrV4,
    pub(crate) tls: bool,
    /// Addresses to connect from. Empty: the pool chooses.
    pub(crate) sources: Vec<Ipv4Addr>,
    /// Path prefix of the server, without a trailing slash.
    pub(crate) prefix: String,
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) secret: String,
}

impl App {
    pub(crate) fn socket_path(&self) -> String {
        let Self { prefix, key, .. } = self;
        format!("{prefix}/app/{key}?protocol=7&client=bench&version=1&flash=false")
    }

    pub(crate) fn subscribe(
        &self,
        socket_id: &str,
        channel: &str,
        channel_data: Option<&str>,
    ) -> String {
        let mut data = json!({ "channel": channel });
        if channel.starts_with("private-") || channel.starts_with("presence-") {
            let auth =
                sign::channel_auth(&self.key, &self.secret, socket_id, channel, channel_data);
            data["auth"] = json!(auth);
        }
        if let Some(channel_data) = channel_data {
            data["channel_data"] = json!(channel_data);
        }
        json!({ "event": "pusher:subscribe", "data": data }).to_string()
    }

    /// A signed target below `/apps/{id}`, valid for the server's window of some minutes.
    pub(crate) fn api(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &[u8],
    ) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let path = format!("{}/apps/{}{path}", self.prefix, self.id);
        sign::api_target((&self.key, &self.secret), method, &path, query, body, now)
    }
}

/// Flags for a child process: where it may connect, and from where.
pub(crate) fn reach_flags(remote: bool, sources: &[Ipv4Addr]) -> Vec<String> {
    let mut flags = Vec::new();
    if remote {
        flags.push("--remote".to_owned());
    }
    if !sources.is_empty() {
        let list: Vec<String> = sources.iter().map(Ipv4Addr::to_string).collect();
        flags.extend(["--sources".to_owned(), list.join(",")]);
    }
    flags
}

pub(crate) const PING: &str = r#"{"event":"pusher:ping","data":{}}"#;
pub(crate) const PONG: &str = r#"{"event":"pusher:pong","data":{}}"#;

pub(crate) fn unsubscribe(channel: &str) -> String {
    json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } }).to_string()
}

/// The socket id in the data of `pusher:connection_established`.
pub(crate) fn socket_id_of(message: &Value) -> Option<String> {
    let data: Value = serde_json::from_str(message["data"].as_str()?).ok()?;
    Some(data["socket_id"].as_str()?.to_owned())
}
