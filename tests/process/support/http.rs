//! An HTTP client: signed API requests, and raw bytes for everything that must not be right.
//!
//! Owns its connections. Does not use the server's encoder, signatures or parser: a fault on one side must not cancel
//! itself out on the other. Limit: `time::DEADLINE` for each wait. Cost: one connection, kept alive or new; the thread
//! of the test waits.

use ringverb::pusher::signature::body_md5;
use serde_json::json;

use super::protocol::{APP_ID, APP_KEY, APP_SECRET, sign_with};
use super::server::Server;
use super::time::unix_seconds;
use super::wire::{Reply, Wire};

/// One HTTP connection, kept alive.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) wire: Wire,
}

impl Http {
    pub(crate) fn new(server: &Server) -> Self {
        Self { wire: server.wire() }
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Reply {
        self.wire.send(&request.bytes());
        self.wire.reply(request.method != "HEAD")
    }

    pub(crate) fn ask_raw(&mut self, bytes: &[u8]) -> Reply {
        self.wire.send(bytes);
        self.wire.reply(true)
    }
}

/// An API request of the app of the tests.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    path: String,
    signed_path: Option<String>,
    query: Vec<(String, String)>,
    /// What is signed over the query, when that is not the query itself.
    signed_query: Option<String>,
    body: Vec<u8>,
    body_md5: Option<String>,
    headers: String,
    signature: Option<String>,
    secret: Option<String>,
}

impl Request {
    /// A request below `/apps/{id}`.
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self::to(method, &format!("/apps/{APP_ID}{path}"))
    }

    pub(crate) fn to(method: &str, path: &str) -> Self {
        let query = [("auth_key", APP_KEY), ("auth_version", "1.0")];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let request = Self {
            method: method.to_owned(),
            path: path.to_owned(),
            signed_path: None,
            query,
            signed_query: None,
            body: Vec::new(),
            body_md5: None,
            headers: String::new(),
            signature: None,
            secret: None,
        };
        request.query("auth_timestamp", &unix_seconds().to_string())
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn post(path: &str, body: &str) -> Self {
        Self::new("POST", path).body(body.as_bytes())
    }

    pub(crate) fn events(body: &str) -> Self {
        Self::post("/events", body)
    }

    /// Sets a parameter; the value goes out as it is.
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.query.retain(|(given, _)| given != name);
        self
    }

    /// Adds a parameter that may be there already.
    pub(crate) fn and(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self.body_md5 = (!body.is_empty()).then(|| body_md5(body));
        self
    }

    pub(crate) fn body_md5(mut self, md5: Option<&str>) -> Self {
        self.body_md5 = md5.map(str::to_owned);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Signs another path than it sends.
    pub(crate) fn signed_path(mut self, path: &str) -> Self {
        self.signed_path = Some(path.to_owned());
        self
    }

    /// Signs another text for the query than it sends.
    pub(crate) fn signed_query(mut self, text: &str) -> Self {
        self.signed_query = Some(text.to_owned());
        self
    }

    pub(crate) fn signature(mut self, signature: &str) -> Self {
        self.signature = Some(signature.to_owned());
        self
    }

    /// Signs with another secret than that of the recorded traffic.
    pub(crate) fn secret(mut self, secret: &str) -> Self {
        self.secret = Some(secret.to_owned());
        self
    }

    pub(crate) fn timestamp(&self) -> &str {
        let found = self.query.iter().find(|(name, _)| name == "auth_timestamp");
        found.map_or("", |(_, value)| value)
    }

    /// The path with its signed query.
    pub(crate) fn target(&self) -> String {
        let mut query = self.query.clone();
        query.extend(self.body_md5.iter().map(|md5| ("body_md5".to_owned(), md5.clone())));
        query.sort();
        let pairs: Vec<String> =
            query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let sent = pairs.join("&");
        let path = self.signed_path.as_ref().unwrap_or(&self.path);
        let signed = self.signed_query.as_ref().unwrap_or(&sent);
        let signature = match &self.signature {
            Some(signature) => signature.clone(),
            None => {
                let secret = self.secret.as_deref().unwrap_or(APP_SECRET);
                sign_with(secret, &[&self.method, "\n", path, "\n", signed])
            }
        };
        format!("{}?{sent}&auth_signature={signature}", self.path)
    }

    fn head(&self) -> String {
        format!("{} {} HTTP/1.1\r\nHost: 127.0.0.1\r\n{}", self.method, self.target(), self.headers)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head().into_bytes();
        if !self.body.is_empty() || self.method == "POST" {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The same with the body in chunks of that size.
    pub(crate) fn chunked_bytes(&self, chunk_size: usize) -> Vec<u8> {
        let mut bytes = self.head().into_bytes();
        bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in self.body.chunks(chunk_size) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    }
}

/// Requests on a connection of their own.
impl Server {
    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &Request) -> Reply {
        Http::new(self).ask(request)
    }

    /// Status and body of an answer.
    pub(crate) fn answer(&self, request: &Request) -> (u16, String) {
        let reply = self.ask(request);
        (reply.status, reply.body)
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let reply = self.ask(&Request::get(path));
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.body
    }

    /// Open connections, as the API counts them.
    pub(crate) fn open_connections(&self) -> u64 {
        connections_in(&self.get("/connections"))
    }

    /// Publishes one event.
    pub(crate) fn publish(&self, channel: &str, name: &str, data: &str) {
        let body = json!({ "name": name, "channel": channel, "data": data }).to_string();
        assert_eq!(self.answer(&Request::events(&body)), (200, "{}".to_owned()), "{body}");
    }
}

/// The number in an answer to `GET /connections`.
pub(crate) fn connections_in(body: &str) -> u64 {
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    body["connections"].as_u64().expect("a number of connections")
}
