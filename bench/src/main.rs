//! Load generator for Pusher-protocol servers on the same machine. See README.md for the method.
//!
//! Knows the wire and nothing else of the server it measures, so that others can be measured by
//! the same means.

#![expect(
    clippy::disallowed_methods,
    reason = "a load generator reads the clock and sleeps; the server does not"
)]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::App;
use crate::report::Report;
use crate::scenario::{Bench, accounting, fanout, floor, idle};
use crate::server::Server;

mod app;
mod frame;
mod http;
mod pool;
mod proc;
mod random;
mod report;
mod scenario;
mod server;
mod sign;
mod sink;
mod subscribers;
mod sys;

#[derive(Parser)]
#[command(about = "Measures a Pusher-protocol server, and accounts for every delivery")]
struct Cli {
    /// The server, on a loopback address; a path is the server's prefix.
    #[arg(long, global = true, default_value = "ws://127.0.0.1:8080")]
    url: String,
    #[arg(long, global = true, default_value = "1001")]
    app_id: String,
    #[arg(long, global = true, default_value = "app-key")]
    key: String,
    #[arg(long, global = true, default_value = "app-secret")]
    secret: String,
    /// Process whose CPU and memory are reported.
    #[arg(long, global = true, conflicts_with = "server_cmd")]
    server_pid: Option<u32>,
    /// Command that starts the server; it is stopped by SIGTERM at the end.
    #[arg(long, global = true)]
    server_cmd: Option<String>,
    /// CPUs of the server that is started, as taskset lists them.
    #[arg(long, global = true)]
    server_cpus: Option<String>,
    /// CPU of this process.
    #[arg(long, global = true)]
    pin: Option<usize>,
    /// One line of JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Memory and CPU of connections that do nothing.
    Idle(idle::Args),
    /// One channel, many subscribers: the cost of a delivery.
    Fanout(fanout::Args),
    /// What a bare loop of sends would cost instead.
    Floor(floor::Args),
    /// Churn, publishes and client events; every delivery accounted for.
    Accounting(accounting::Args),
    #[command(hide = true)]
    FloorChild(floor::ChildArgs),
}

/// `ws://127.0.0.1:8080/prefix` to the address and the prefix.
fn parse_url(url: &str) -> Result<(SocketAddrV4, String), String> {
    let rest = url.strip_prefix("ws://").ok_or("the URL must begin with ws://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let ip: Ipv4Addr = match host {
        "localhost" => Ipv4Addr::LOCALHOST,
        _ => host.parse().map_err(|_| format!("{host} is not an IPv4 address"))?,
    };
    if !ip.is_loopback() {
        return Err(format!("{ip} is not a loopback address"));
    }
    let port = port.parse().map_err(|_| format!("{port} is not a port"))?;
    let path = path.trim_matches('/');
    let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
    Ok((SocketAddrV4::new(ip, port), prefix))
}

fn run(cli: &Cli) -> io::Result<bool> {
    if let Scenario::FloorChild(args) = &cli.scenario {
        sys::raise_descriptor_limit()?;
        return floor::run_child(args).map(|()| true);
    }
    let (address, prefix) = parse_url(&cli.url).map_err(io::Error::other)?;
    sys::raise_descriptor_limit()?;
    // The server first: what is started later inherits the pinning.
    let server = match &cli.server_cmd {
        Some(command) => Server::start(command, cli.server_cpus.as_deref(), address)?,
        None => Server::attach(cli.server_pid),
    };
    if let Some(cpu) = cli.pin {
        sys::pin_to_cpu(cpu)?;
    }
    let app = App {
        address,
        prefix,
        id: cli.app_id.clone(),
        key: cli.key.clone(),
        secret: cli.secret.clone(),
    };
    let mut bench = Bench { app, server, server_cpus: cli.server_cpus.clone() };
    let mut report = run_scenario(&bench, &cli.scenario)?;
    if let Some(stopped) = bench.server.stop()? {
        report.figure("stop after SIGTERM", stopped.took.as_secs_f64() * 1000.0, "ms");
        if !stopped.clean {
            let mut violations = report::Violations::default();
            violations.add(|| "the server did not end with exit code 0".to_owned());
            report.add_violations(violations);
        }
    }
    report.print(cli.json);
    Ok(report.is_clean())
}

fn run_scenario(bench: &Bench, scenario: &Scenario) -> io::Result<Report> {
    match scenario {
        Scenario::Idle(args) => idle::run(bench, args),
        Scenario::Fanout(args) => fanout::run(bench, args),
        Scenario::Floor(args) => floor::run(bench, args),
        Scenario::Accounting(args) => accounting::run(bench, args),
        Scenario::FloorChild(_) => unreachable!("handled before a server is looked for"),
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ringverb-bench: {error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let address = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        assert_eq!(parse_url("ws://127.0.0.1:8080"), Ok((address(8080), String::new())));
        assert_eq!(parse_url("ws://localhost:1/a/"), Ok((address(1), "/a".to_owned())));
        assert!(parse_url("ws://192.0.2.1:80").is_err(), "only loopback");
        assert!(parse_url("http://127.0.0.1").is_err());
        assert!(parse_url("ws://127.0.0.1:x").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
