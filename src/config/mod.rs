//! The effective configuration: what the rest of the server reads.
//!
//! Owns the type `Config`. `options` is the one table of names and defaults; `dotenv.rs`, `toml_file.rs` and
//! `laravel.rs` read the files' text; `load.rs` and `merge.rs` merge the sources; `validate.rs` checks the values with
//! `admin.rs`, `network.rs`, `origins.rs`, `redis_url.rs`, `sizes.rs`, `tls.rs` and `webhook_url.rs`. `names.rs`,
//! `public_side.rs`, `reverb_php.rs` and `warnings.rs` only cause warnings. PURE but for `load.rs` (its files and the
//! environment) and `directories.rs` (the environment).
//!
//! Limits: those of the options (`options/mod.rs`); `load.rs` bounds the files, `validate.rs` the endpoints, `tls.rs`
//! the certificates. Cost: once at the start and at each reload, a few files of some KiB.

pub mod admin;
pub mod directories;
pub mod dotenv;
mod laravel;
mod load;
mod merge;
mod names;
pub mod network;
pub mod options;
pub mod origins;
mod php;
mod public_side;
pub mod redis_url;
mod reverb_php;
mod sizes;
mod sources;
#[cfg(test)]
mod tests;
mod tls;
pub mod toml_file;
pub mod validate;
mod values;
mod warnings;
pub mod webhook_url;

use std::net::IpAddr;

pub use laravel::LaravelConfig;
pub use load::{FileMistake, SERVICE_FILE, is_read_once, read_apps_file};
pub use merge::{Merged, merge};
pub use sources::{ConfigurationFiles, FileReader, Files, Sources, Unreadable};
pub use values::{Sourced, Values};

use crate::app::{App, Secret};

/// All options, merged and checked. A value has the unit that its name ends with.
#[derive(Clone, Debug)]
pub struct Config {
    pub host: IpAddr,
    /// The port of plain HTTP, or of TLS if `tls` names no other; 0 lets the kernel choose.
    pub port: u16,
    /// Certificates of TLS listeners; `None`: all ports are plain HTTP.
    pub tls: Option<TlsOptions>,
    /// Prefix of every path, without a trailing slash: empty, or `/something`.
    pub path: String,
    /// Number of workers. 0 means one for each CPU that the process can use, until `server/resources.rs` has put a
    /// number there.
    pub workers: usize,
    /// The interface of the kernel by which workers wait for their sockets.
    pub io: Io,
    /// Print each frame as `reverb:start --debug` does.
    pub debug: bool,
    pub log: LogOptions,
    /// Send reasons of failures to clients and the log, for developers of an app.
    pub verbose_errors: bool,
    /// Colors where standard output is a terminal: not with `NO_COLOR`.
    pub color: bool,
    /// Write each event the HTTP API accepted to standard output, as a line of JSON.
    pub print_events: bool,
    /// Head and body of one HTTP request together, in bytes.
    pub request_size_max: usize,
    /// Time from the first byte of a handshake or an HTTP request to its last, in seconds.
    pub handshake_timeout_seconds: u32,
    /// Time a connection may wait between two HTTP requests, in seconds.
    pub keepalive_timeout_seconds: u32,
    /// Time between the first signal and the exit, at most, in seconds.
    pub shutdown_grace_seconds: u32,
    /// Time for load balancers to notice that `/up` answers 503, before connections are closed.
    pub shutdown_delay_seconds: u32,
    /// Offer listeners and connections to a new process of the same user.
    pub takeover: bool,
    pub admin: admin::Admin,
    /// Bytes a connection may have waiting to be sent before it counts as a slow consumer and is closed with 4100.
    pub send_queue_bytes_max: usize,
    /// Bytes that one connection may cause the server to keep, its send queue included. Half of them at most are its
    /// subscriptions, presence and sign-in data.
    pub connection_bytes_max: usize,
    /// Bytes of all remembered events of cache channels, over all cores; the oldest goes first.
    pub cache_bytes_max: usize,
    /// Open WebSockets of one client address, over all workers; `None` is unlimited.
    pub connections_per_ip_max: Option<u16>,
    /// Handshakes one client address may begin in a second; `None` is unlimited.
    pub handshakes_per_ip_per_second_max: Option<u32>,
    /// API requests of one client address that may fail to authenticate in a second; `None` is unlimited.
    pub auth_failures_per_ip_per_second_max: Option<u32>,
    /// Proxies whose `X-Forwarded-For`, or header of the PROXY protocol, is trusted.
    pub trusted_proxies: Vec<network::Network>,
    /// Versions of the PROXY protocol, one of which trusted proxies must speak; `None`: it is off.
    pub proxy_protocol: Option<[bool; 2]>,
    /// Resident memory over which load is shed, in bytes. `None` never sheds: without a limit of the cgroup only the
    /// operator knows what else needs memory on the host.
    pub memory_max: Option<u64>,
    /// `memory_max` is not configured, so it follows from the limit of the cgroup, if there is one
    /// (`server/resources.rs`).
    pub memory_max_by_cgroup: bool,
    /// Time one request of a webhook may take, in seconds.
    pub webhook_timeout_seconds: u32,
    /// Time after the first attempt at which a batch of webhooks is given up, in seconds; 0 tries once.
    pub webhook_retry_seconds: u32,
    /// How long `channel_vacated` and `member_removed` wait for their opposite, in milliseconds; 0 sends at once.
    pub webhook_debounce_ms: u32,
    /// Events that may wait for one endpoint; more are dropped and counted.
    pub webhook_queue_events_max: usize,
    /// The Redis that connects this node to the others; `None` for a single node.
    pub scaling: Option<Scaling>,
    /// At least one: without a configured app there is one with generated credentials.
    pub apps: Vec<App>,
    /// No app was configured: the one app has a random key and secret.
    pub development: bool,
    /// Where the apps came from, for the banner: `environment`, `.env`, `ringverb.toml`, or `development mode`;
    /// two of them joined by "and".
    pub source: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// At least one. The name that a client asks for chooses one, otherwise it is the first.
    pub pairs: Vec<TlsPair>,
    /// Passphrase of all keys that are encrypted; `None`: an encrypted key is refused.
    pub passphrase: Option<MaskedText>,
    /// The port for TLS beside the plain one; `None`: `Config::port` itself is TLS.
    pub port: Option<u16>,
    /// Keys of session tickets are derived from it, so that nodes accept each other's tickets; `None`: each node
    /// generates its own.
    pub ticket_secret: Option<MaskedText>,
}

/// A text that is never printed: `Debug` shows a mask.
#[derive(Clone, PartialEq, Eq)]
pub struct MaskedText(pub String);

impl std::fmt::Debug for MaskedText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("********")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPair {
    pub certificate: String,
    pub key: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// io_uring where it works, else epoll.
    Auto,
    /// io_uring, or the server does not start.
    IoUring,
    Epoll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    pub format: LogFormat,
    /// `None`: the level that `RUST_LOG` names, or INFO.
    pub level: Option<LogLevel>,
    /// Times of a text log are local. A JSON log is always UTC.
    pub is_local_time: bool,
    /// A line for each answered request of the HTTP API, whatever the level is.
    pub access: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, otherwise JSON.
    Auto,
    Text,
    Json,
}

/// The least level that is logged: each contains those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The Redis (or Valkey) server over which nodes send each other messages.
#[derive(Clone, Debug)]
pub struct Scaling {
    /// A name or an address. A name is resolved for each connection, so that a fail-over by DNS works.
    pub host: String,
    pub port: u16,
    /// Used only with a password, because `AUTH` has no form with a user alone.
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// Start of all names in Redis (`REVERB_SCALING_CHANNEL`). Nodes with different ones do not see each other.
    pub prefix: String,
    /// Time for a connection to be made, in seconds.
    pub timeout_seconds: u32,
}

impl Scaling {
    /// Host and port for people: an IPv6 address is in brackets.
    #[must_use]
    pub fn address(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}
