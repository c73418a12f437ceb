//! Handshakes: how many a second, and what one costs.
//!
//! Owns no state: `arrivals` has the clients. Does not include closing in the cost of a handshake. Closed loop by
//! default: a number of handshakes in flight. With `--rate` an open loop. With `--close` also the server's cost of the
//! end of all connections. Limits: `--connections`; `GONE` for the server to notice their end. Cost: one thread; each
//! handshake is some system calls of the client, which the report gives as its CPU time.

use std::io;
use std::time::{Duration, Instant};

use super::Bench;
use crate::api;
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
    /// Measures also the end of all connections: each client closes its socket.
    #[arg(long)]
    close: bool,
}

const CHANNEL: &str = "private-arrivals";
/// Time for the server to notice the end of all connections.
const GONE: Duration = Duration::from_secs(30);
/// Between two questions to the server, each of which costs it some microseconds.
const LOOK: Duration = Duration::from_millis(20);

/// Closes all connections, and waits until the server counts none.
fn measure_closes(
    bench: &Bench,
    pool: &mut Pool,
    arrivals: &mut Arrivals<'_>,
    report: &mut Report,
) {
    bench.telemetry.phase("closes", 0);
    let window = Window::open(&bench.servers);
    let count = arrivals.here as u64;
    arrivals.close_all(pool);
    let end = Instant::now() + GONE;
    loop {
        let answer = api::get(&bench.app, "/connections", &[]);
        if answer.as_ref().is_ok_and(|answer| answer["connections"] == 0) {
            break;
        }
        if Instant::now() > end {
            arrivals.violations.add(|| format!("/connections: {answer:?} after all have left"));
            return;
        }
        std::thread::sleep(LOOK);
    }
    window.close(&bench.servers).report(report, "closing: ", ("close", "closes"), count);
}

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
    if args.close {
        measure_closes(bench, &mut pool, &mut arrivals, &mut report);
    } else {
        arrivals.close_all(&mut pool);
    }
    report.add_violations(arrivals.violations);
    Ok(report)
}
