//! Many connections that do nothing: what each costs the server in memory and CPU.

use std::io;
use std::time::{Duration, Instant};

use super::Bench;
use crate::pool::Pool;
use crate::proc::Memory;
use crate::report::{Report, ratio, us_each};
use crate::subscribers::Subscribers;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
    /// All on the same private channel; the default is one private channel each.
    #[arg(long)]
    shared: bool,
    /// Length of the idle period over which CPU is counted.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// After a phase, before memory is read: what the server does late still counts.
const SETTLE: Duration = Duration::from_secs(1);

fn serve_for(pool: &mut Pool, crowd: &mut Subscribers, time: Duration) -> io::Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        pool.poll(left.min(Duration::from_millis(100)), crowd)?;
    }
    Ok(())
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let Bench { app, server, .. } = bench;
    let count = args.connections as u64;
    let mut report = Report::new("idle");
    let mut pool = Pool::new(app.address, &app.socket_path())?;
    let mut crowd = Subscribers::default();

    let fresh = server.memory();
    let (cpu, begin) = (server.cpu_time(), Instant::now());
    crowd.connect(&mut pool, args.connections)?;
    let connect_time = begin.elapsed();
    serve_for(&mut pool, &mut crowd, SETTLE)?;
    let connect_cpu = server.cpu_time().saturating_sub(cpu);
    let connected = server.memory();

    let (cpu, begin) = (server.cpu_time(), Instant::now());
    let shared = args.shared;
    crowd.subscribe(&mut pool, app, |number| {
        if shared { "private-idle".to_owned() } else { format!("private-idle-{number}") }
    })?;
    let subscribe_time = begin.elapsed();
    serve_for(&mut pool, &mut crowd, SETTLE)?;
    let subscribe_cpu = server.cpu_time().saturating_sub(cpu);
    let subscribed = server.memory();

    let cpu = server.cpu_time();
    serve_for(&mut pool, &mut crowd, Duration::from_secs(args.seconds))?;
    let idle_cpu = server.cpu_time().saturating_sub(cpu);
    let after = server.memory();

    report.count("connections", count);
    report.flag("one channel each", !shared);
    report.figure("connect rate", count as f64 / connect_time.as_secs_f64(), "1/s");
    report.figure("server CPU per handshake", us_each(connect_cpu, count), "us");
    report.figure("subscribe rate", count as f64 / subscribe_time.as_secs_f64(), "1/s");
    report.figure("server CPU per subscription", us_each(subscribe_cpu, count), "us");
    report.figure("server CPU while idle", idle_cpu.as_secs_f64() * 1000.0, "ms");
    report.count("idle period s", args.seconds);
    report.count("pings in the idle period", crowd.pings);
    for (name, memory) in
        [("fresh", fresh), ("connected", connected), ("subscribed", subscribed), ("idle", after)]
    {
        report.count(format!("RSS {name} KiB"), memory.rss / 1024);
        report.count(format!("anonymous {name} KiB"), memory.anonymous / 1024);
        report.count(format!("PSS {name} KiB"), memory.pss / 1024);
    }
    let growth = |now: Memory| ratio(now.rss.saturating_sub(fresh.rss), count);
    report.figure("RSS growth per connection, connected", growth(connected), "B");
    report.figure("RSS growth per connection, subscribed", growth(subscribed), "B");
    report.figure("RSS growth per connection, after idle", growth(after), "B");

    crowd.close_all(&mut pool);
    report.add_violations(crowd.violations);
    Ok(report)
}
