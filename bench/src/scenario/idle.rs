//! Many connections that do nothing: what each costs the server in memory and CPU.
//!
//! Owns the order of the phases: fresh, connected, subscribed, after idle. Does not touch the connections: `crew` has
//! them. Memory is read after each phase and a pause of `SETTLE`. Limit: `--connections`, with 20,000 for each process
//! on most machines. Cost: files of `/proc` between phases, none during the idle period except `telemetry`.

use std::io;
use std::time::{Duration, Instant};

use super::Bench;
use crate::crew::{Crew, Task};
use crate::proc::{self, Memory};
use crate::report::{Report, ratio, us_each};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
    /// Private channels of each connection; 0 for none.
    #[arg(long, default_value_t = 1)]
    channels_per_connection: usize,
    /// All on the same channels; the default is channels of their own.
    #[arg(long)]
    shared: bool,
    /// Length of the idle period over which CPU is counted.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Processes of the client: more than 20,000 connections need more than one on most machines.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    processes: u16,
}

/// Pause after a phase before memory is read, because the server may finish work later.
const SETTLE: Duration = Duration::from_secs(1);

/// Memory at the end of a phase.
struct Stage {
    name: &'static str,
    memory: Memory,
    kernel: proc::Kernel,
}

impl Stage {
    fn look(bench: &Bench, name: &'static str) -> Self {
        Self { name, memory: bench.servers.memory(), kernel: proc::kernel() }
    }
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let Bench { app, servers, telemetry, .. } = bench;
    let mut report = Report::new("idle");
    let count = args.connections as u64;
    let subscriptions = count * args.channels_per_connection as u64;
    let task = Task {
        connections: args.connections,
        first: 0,
        channels: args.channels_per_connection,
        shared: args.shared,
    };
    let processes = usize::from(args.processes);
    let mut stages = vec![Stage::look(bench, "fresh")];
    let mut crew = Crew::new(app, &servers.addresses(), &task, processes, bench.pin)?;
    report.count("connections", count);
    report.count("channels per connection", args.channels_per_connection as u64);
    report.flag("channels of their own", !args.shared);

    let (cpu, begin) = (servers.cpu_time(), Instant::now());
    crew.connect(telemetry)?;
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    crew.serve(SETTLE)?;
    let used = servers.cpu_time().saturating_sub(cpu);
    report.figure("connect rate", rate, "1/s");
    report.figure("server CPU per handshake", us_each(used, count), "us");
    stages.push(Stage::look(bench, "connected"));

    if subscriptions > 0 {
        let (cpu, begin) = (servers.cpu_time(), Instant::now());
        crew.subscribe(telemetry)?;
        let rate = subscriptions as f64 / begin.elapsed().as_secs_f64();
        crew.serve(SETTLE)?;
        let used = servers.cpu_time().saturating_sub(cpu);
        report.figure("subscribe rate", rate, "1/s");
        report.figure("server CPU per subscription", us_each(used, subscriptions), "us");
        stages.push(Stage::look(bench, "subscribed"));
    }

    telemetry.phase("idle", 0);
    let cpu = servers.cpu_time();
    crew.serve(Duration::from_secs(args.seconds))?;
    let idle = servers.cpu_time().saturating_sub(cpu);
    report.figure("server CPU while idle", idle.as_secs_f64() * 1000.0, "ms");
    report.count("idle period s", args.seconds);
    stages.push(Stage::look(bench, "after idle"));

    add_memory(&mut report, &stages, count);
    let (pings, violations) = crew.finish()?;
    report.count("pings answered", pings);
    report.add_violations(violations);
    Ok(report)
}

fn add_memory(report: &mut Report, stages: &[Stage], count: u64) {
    for Stage { name, memory, .. } in stages {
        report.count(format!("RSS {name} KiB"), memory.rss / 1024);
        report.count(format!("anonymous {name} KiB"), memory.anonymous / 1024);
        report.count(format!("PSS {name} KiB"), memory.pss / 1024);
    }
    let fresh = &stages[0];
    for Stage { name, memory, kernel } in &stages[1..] {
        let each = |now: u64, before: u64| ratio(now.saturating_sub(before), count);
        let user = each(memory.rss, fresh.memory.rss);
        report.figure(format!("RSS growth per connection, {name}"), user, "B");
        let slab = each(kernel.slab, fresh.kernel.slab);
        report.figure(format!("kernel slab growth per connection, both ends, {name}"), slab, "B");
    }
    if let Some(last) = stages.last() {
        report.count("TCP buffers of the machine KiB", last.kernel.tcp / 1024);
        report.count("TCP sockets of the machine", last.kernel.tcp_sockets);
    }
}
