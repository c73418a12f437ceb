//! Which server is measured, and how it is started: the arguments that all scenarios have. Plain values.
//!
//! Owns the parsing of URLs. Does not connect. Limit: another host is loaded only if `--remote` is given, because a
//! typing error must not load another operator's host. Cost: once at the start, some allocations; no system calls.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use clap::Args;

use crate::app;

/// The arguments of all scenarios.
#[derive(Args)]
pub(crate) struct Target {
    /// The server, `ws://` or `wss://` and an IPv4 address; a path is the server's prefix.
    #[arg(long, global = true, default_value = "ws://127.0.0.1:8080")]
    pub(crate) url: String,
    /// Where events are published and questions are asked, if that is another node of a cluster.
    #[arg(long, global = true)]
    pub(crate) api_url: Option<String>,
    /// The server may be on another host: you say that you may load it.
    #[arg(long, global = true)]
    pub(crate) remote: bool,
    /// Addresses of this host to connect from, in turn [many of 127.0.0.0/8, or the system's choice].
    #[arg(long, global = true, value_delimiter = ',')]
    pub(crate) sources: Vec<Ipv4Addr>,
    #[arg(long, global = true, default_value = "1001")]
    pub(crate) app_id: String,
    #[arg(long, global = true, default_value = "app-key")]
    pub(crate) key: String,
    #[arg(long, global = true, default_value = "app-secret")]
    pub(crate) secret: String,
    /// Process whose CPU and memory are reported.
    #[arg(long, global = true, conflicts_with = "server_cmd")]
    pub(crate) server_pid: Option<u32>,
    /// Command that starts the server; it is stopped by SIGTERM at the end.
    #[arg(long, global = true)]
    pub(crate) server_cmd: Option<String>,
    /// CPUs of the server that is started, as taskset lists them.
    #[arg(long, global = true)]
    pub(crate) server_cpus: Option<String>,
    /// Starts the command so often, each with `--port` and the next port behind it (`idle` only).
    #[arg(long, global = true, default_value_t = 1, requires = "server_cmd")]
    pub(crate) servers: u16,
    /// A server that is started may end with any exit code.
    #[arg(long, global = true)]
    pub(crate) any_exit: bool,
    /// CPU of this process.
    #[arg(long, global = true)]
    pub(crate) pin: Option<usize>,
    /// One line of JSON instead of a table.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Writes a page with the figures and their curves.
    #[arg(long, global = true)]
    pub(crate) html: Option<PathBuf>,
}

impl Target {
    /// The flags about hosts and addresses, for a process of our own.
    pub(crate) fn reach(&self) -> Vec<String> {
        app::reach_flags(self.remote, &self.sources)
    }
}

/// A parsed URL of a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: SocketAddrV4,
    pub(crate) prefix: String,
    pub(crate) tls: bool,
}

/// `ws://127.0.0.1:8080/prefix`, or `wss://` for TLS.
pub(crate) fn parse_url(url: &str) -> Result<Place, String> {
    let (tls, rest) = match url.split_once("://") {
        Some(("ws", rest)) => (false, rest),
        Some(("wss", rest)) => (true, rest),
        _ => return Err("the URL must begin with ws:// or wss://".to_owned()),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let usual_port = if tls { "443" } else { "80" };
    let (host, port) = authority.split_once(':').unwrap_or((authority, usual_port));
    let ip: Ipv4Addr = match host {
        "localhost" => Ipv4Addr::LOCALHOST,
        _ => host.parse().map_err(|_| format!("{host} is not an IPv4 address"))?,
    };
    let port = port.parse().map_err(|_| format!("{port} is not a port"))?;
    let path = path.trim_matches('/');
    let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
    Ok(Place { address: SocketAddrV4::new(ip, port), prefix, tls })
}

/// A typing error must not load another operator's host.
pub(crate) fn check_reach(ip: Ipv4Addr, remote: bool) -> Result<(), String> {
    if ip.is_loopback() || remote {
        return Ok(());
    }
    Err(format!("{ip} is another host: --remote says that you may load it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_address_prefix_and_tls() {
        let address = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let place = |port, prefix: &str, tls| {
            Ok(Place { address: address(port), prefix: prefix.to_owned(), tls })
        };
        assert_eq!(parse_url("ws://127.0.0.1:8080"), place(8080, "", false));
        assert_eq!(parse_url("ws://localhost:1/a/"), place(1, "/a", false));
        assert_eq!(parse_url("wss://localhost"), place(443, "", true));
        assert!(check_reach(Ipv4Addr::new(127, 9, 9, 9), false).is_ok());
        assert!(check_reach(Ipv4Addr::new(192, 0, 2, 1), false).is_err());
        assert!(check_reach(Ipv4Addr::new(192, 0, 2, 1), true).is_ok());
        assert!(parse_url("http://127.0.0.1").is_err());
        assert!(parse_url("ws://127.0.0.1:x").is_err());
    }
}
