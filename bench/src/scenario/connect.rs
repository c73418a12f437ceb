//! Handshakes: how many a second, and what one costs.
//!
//! Closed loop by default: a number of handshakes on their way at once. With `--rate` an open loop.

use std::io;
use std::time::Duration;

use super::Bench;
use crate::arrivals::{Arrivals, Shape};
use crate::load::{self, Load};
use crate::pool::Pool;
use crate::report::{Report, ratio};
use crate::schedule::parse_rate;
use crate::stream;
use crate::telemetry::Telemetry;
use crate::window::Window;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Handshakes on their way at once.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Handshakes a second in an open loop.
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    /// Everybody subscribes to one private channel, too, before it counts as connected.
    #[arg(long)]
    subscribe: bool,
}

const CHANNEL: &str = "private-arrivals";

/// Until everybody is here, or something is wrong, or the time is up.
pub(super) fn wait_for_all(
    telemetry: &Telemetry,
    pool: &mut Pool,
    arrivals: &mut Arrivals<'_>,
    limit: Duration,
) -> io::Result<()> {
    load::drive_until(telemetry, pool, arrivals, limit, Arrivals::all_here)?;
    if !arrivals.all_here() && !arrivals.failed() {
        arrivals.stalled(limit);
    }
    Ok(())
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let mut report = Report::new("connect");
    report.count("connections", args.connections as u64);
    let mut pool = bench.pool()?;
    let shape = Shape {
        count: args.connections,
        window: args.in_flight,
        rate: args.rate,
        channel: args.subscribe.then_some(CHANNEL),
        retries: false,
    };
    bench.telemetry.phase("handshakes", args.connections);
    let before = bench.servers.memory();
    let mut arrivals = Arrivals::new(&bench.app, &shape);
    let window = Window::open(&bench.servers);
    let scheduled = args.rate.map_or(0.0, |rate| args.connections as f64 / rate);
    let limit = Duration::from_secs_f64(60.0 + scheduled);
    wait_for_all(&bench.telemetry, &mut pool, &mut arrivals, limit)?;
    let used = window.close(&bench.servers);
    let here = arrivals.here as u64;
    used.report(&mut report, "", ("handshake", "handshakes"), here);
    report.latency("handshake", &arrivals.latency);
    if bench.app.tls {
        report.figure("resumed TLS sessions", 100.0 * ratio(stream::resumed(), here), "percent");
    }
    let growth = bench.servers.memory().rss.saturating_sub(before.rss);
    report.figure("RSS growth per connection", ratio(growth, here), "B");
    arrivals.close_all(&mut pool);
    report.add_violations(arrivals.violations);
    Ok(report)
}
