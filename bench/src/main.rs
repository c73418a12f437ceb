//! Load generator for Pusher-protocol servers on the same machine. bench/README.md has the method.
//!
//! Owns the command line, and the order of a run: start or find the server, pin, run the scenario, report. Does not
//! know more of the server than the wire, so that other servers can be measured by the same means. Limits: other hosts
//! only with `--remote`; the descriptors of the hard limit. Cost: one thread for the load, one for `telemetry`; each
//! scenario states its own.

#![expect(
    clippy::disallowed_methods,
    reason = "a load generator reads the clock and sleeps; the server does not"
)]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::fs;
use std::io;
use std::net::TcpStream;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::App;
use crate::machine::Machine;
use crate::report::{Report, Violations};
use crate::scenario::{
    Bench, accounting, churn as churning, connect, fairness, fanout, floor, idle, mixed, overload,
    presence as presence_storm, publish, rooms as talking, slow, storm,
};
use crate::server::{Servers, Start};
use crate::target::{Place, Target, check_reach, parse_url};
use crate::telemetry::Telemetry;

mod api;
mod app;
mod arrivals;
mod blunt;
mod broadcast;
mod churn;
mod compare;
mod crew;
mod faults;
mod flood;
mod frame;
mod handshake_floor;
mod html;
mod http;
mod http_floor;
mod load;
mod machine;
mod payload;
mod pool;
mod presence;
mod proc;
mod publishers;
mod random;
mod report;
mod rooms;
mod scenario;
mod schedule;
mod server;
mod shown;
mod sign;
mod sink;
mod stream;
mod subscribers;
mod svg;
mod sys;
mod target;
mod telemetry;
mod window;

#[derive(Parser)]
#[command(about = "Measures a Pusher-protocol server, and accounts for every delivery")]
struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Memory and CPU of connections that do nothing.
    Idle(idle::Args),
    /// Handshakes a second, and the cost of one.
    Connect(connect::Args),
    /// One channel, many subscribers: the cost of a delivery.
    Fanout(fanout::Args),
    /// What a bare loop of sends would cost instead.
    Floor(floor::Args),
    /// Many small rooms whose members talk by client events.
    Rooms(talking::Args),
    /// The HTTP API kept busy.
    Publish(publish::Args),
    /// Members of presence channels leave and come back all at once.
    Presence(presence_storm::Args),
    /// Connect, join a presence channel, leave, close; over and over.
    Churn(churning::Args),
    /// Everybody is cut off and comes back at once.
    Storm(storm::Args),
    /// Some subscribers stop reading while a fan-out goes on.
    Slow(slow::Args),
    /// Handshakes while everybody leaves at once, and in a flood of them.
    Overload(overload::Args),
    /// Pings and `GET /up` of others while one connection floods the worker.
    Fairness(fairness::Args),
    /// An idle crowd, rooms, publishes and churn at fixed rates, all at once.
    Mixed(mixed::Args),
    /// Churn, publishes and client events; every delivery accounted for.
    Accounting(accounting::Args),
    /// A bare server that answers 200: the floor under `publish`, to be compared with.
    HttpFloor(http_floor::Args),
    /// A bare server that answers handshakes: the floor under `connect`, to be compared with.
    HandshakeFloor(handshake_floor::Args),
    /// A scenario against several servers in turn: medians and ratios.
    Compare(compare::Args),
    #[command(hide = true)]
    FloorChild(floor::ChildArgs),
    #[command(hide = true)]
    CrewChild(crew::Task),
}

fn run(cli: &Cli) -> io::Result<bool> {
    let target = &cli.target;
    sys::raise_descriptor_limit()?;
    let Place { address, prefix, tls } = parse_url(&target.url).map_err(io::Error::other)?;
    if let Scenario::Compare(args) = &cli.scenario {
        return compare::run(target, args);
    }
    check_reach(*address.ip(), target.remote).map_err(io::Error::other)?;
    let api =
        parse_url(target.api_url.as_ref().unwrap_or(&target.url)).map_err(io::Error::other)?;
    check_reach(*api.address.ip(), target.remote).map_err(io::Error::other)?;
    if (api.tls, &api.prefix) != (tls, &prefix) {
        return Err(io::Error::other("--api-url differs from --url in more than its address"));
    }
    let app = App {
        address,
        api_address: api.address,
        tls,
        sources: target.sources.clone(),
        prefix,
        id: target.app_id.clone(),
        key: target.key.clone(),
        secret: target.secret.clone(),
    };
    match &cli.scenario {
        Scenario::FloorChild(args) => floor::run_child(args).map(|()| true),
        Scenario::HttpFloor(args) => http_floor::run(args).map(|()| true),
        Scenario::HandshakeFloor(args) => handshake_floor::run(args).map(|()| true),
        Scenario::CrewChild(task) => {
            target.pin.map_or(Ok(()), sys::pin_to_cpu)?;
            crew::run_child(&app, task).map(|()| true)
        }
        scenario => measure(target, app, scenario),
    }
}

fn measure(target: &Target, app: App, scenario: &Scenario) -> io::Result<bool> {
    if target.servers > 1 && !matches!(scenario, Scenario::Idle(_)) {
        return Err(io::Error::other("only idle can use several servers"));
    }
    let mut machine = Machine::look();
    // The server first: what is started later inherits the pinning.
    let servers = match &target.server_cmd {
        Some(command) => {
            let cpus = target.server_cpus.as_deref();
            let start = Start { command, cpus, says_port: target.servers > 1 };
            Servers::start(&start, app.address, target.servers)?
        }
        None => {
            if !matches!(scenario, Scenario::Floor(_)) {
                TcpStream::connect(app.address)
                    .map_err(|error| io::Error::other(format!("{}: {error}", app.address)))?;
            }
            Servers::attach(target.server_pid, app.address)
        }
    };
    if !matches!(scenario, Scenario::Floor(_)) {
        machine.server = servers.name();
    }
    if let Some(cpu) = target.pin {
        sys::pin_to_cpu(cpu)?;
    }
    sys::exact_timers()?;
    let telemetry = Telemetry::start(servers.pids());
    let server_cpus = target.server_cpus.clone();
    let mut bench = Bench { app, servers, server_cpus, pin: target.pin, telemetry };
    let result = run_scenario(&bench, scenario);
    let timeline = bench.telemetry.stop();
    let mut report = result?;
    if matches!(scenario, Scenario::Mixed(_))
        && let Some(slope) = timeline.memory_slope(mixed::PHASE)
    {
        report.figure("RSS slope, second half", slope, "KiB/min");
    }
    let most = timeline.samples.iter().map(|sample| sample.server_rss).max().unwrap_or(0);
    if most > 0 {
        report.figure(Report::MEMORY, most as f64 / f64::from(1 << 20), "MiB");
    }
    if let Some(stopped) = bench.servers.stop()? {
        report.figure("stop after SIGTERM", stopped.took.as_secs_f64() * 1000.0, "ms");
        if !stopped.clean && !target.any_exit {
            let mut violations = Violations::default();
            violations.add(|| "the server did not end with exit code 0".to_owned());
            report.add_violations(violations);
        }
    }
    report.print(target.json, &machine);
    if let Some(path) = &target.html {
        fs::write(path, html::page(&report, &timeline, &machine))?;
    }
    Ok(report.is_clean())
}

fn run_scenario(bench: &Bench, scenario: &Scenario) -> io::Result<Report> {
    match scenario {
        Scenario::Idle(args) => idle::run(bench, args),
        Scenario::Connect(args) => connect::run(bench, args),
        Scenario::Fanout(args) => fanout::run(bench, args),
        Scenario::Floor(args) => floor::run(bench, args),
        Scenario::Rooms(args) => talking::run(bench, args),
        Scenario::Publish(args) => publish::run(bench, args),
        Scenario::Presence(args) => presence_storm::run(bench, args),
        Scenario::Churn(args) => churning::run(bench, args),
        Scenario::Storm(args) => storm::run(bench, args),
        Scenario::Slow(args) => slow::run(bench, args),
        Scenario::Overload(args) => overload::run(bench, args),
        Scenario::Fairness(args) => fairness::run(bench, args),
        Scenario::Mixed(args) => mixed::run(bench, args),
        Scenario::Accounting(args) => accounting::run(bench, args),
        Scenario::Compare(_)
        | Scenario::HttpFloor(_)
        | Scenario::HandshakeFloor(_)
        | Scenario::FloorChild(_)
        | Scenario::CrewChild(_) => {
            unreachable!("handled before a server is looked for")
        }
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
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_scenario_runs_without_arguments_of_its_own() {
        for name in [
            "idle",
            "connect",
            "fanout",
            "floor",
            "rooms",
            "publish",
            "presence",
            "churn",
            "storm",
            "slow",
            "mixed",
            "overload",
            "fairness",
            "accounting",
        ] {
            assert!(Cli::try_parse_from(["ringverb-bench", name]).is_ok(), "{name}");
        }
    }

    #[test]
    fn contradicting_arguments_are_refused() {
        for line in [
            "fanout --in-flight 0",
            "fanout --in-flight 300",
            "fanout --payload-bytes 3",
            "fanout --rate 0",
            "fanout --rate 20 --with-floor",
            "rooms --members 1",
            "slow --slow-percent 100",
            "publish --batch 0",
            "idle --servers 2",
            "overload --runs 0",
            "fairness --rounds 0",
            "fairness --only nothing",
            "compare --server a=ws://127.0.0.1:1",
        ] {
            let words = std::iter::once("ringverb-bench").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
