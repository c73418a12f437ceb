//! Clients that connect, join a presence channel, leave it and close: what a whole visit costs.
//!
//! Owns no state: `crate::churn` has the cycles. Does not divide the cost between its steps. At the end the server must
//! have no channel left. Limit: `--in-flight` cycles. Cost: one thread; a visit is some system calls and parsed
//! messages of the client.

use std::io;
use std::time::Duration;

use super::{Bench, WARM_UP};
use crate::churn::{self, Churn, Shape};
use crate::load;
use crate::report::{Report, ratio};
use crate::schedule::parse_rate;
use crate::window::Window;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Cycles in flight; with `--rate` at most so many.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Presence channels, taken in turn. Few channels mean many members who are told of each other.
    #[arg(long, default_value_t = 100)]
    channels: u64,
    /// Cycles a second in an open loop.
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    /// Length of the measured run, after a second of warming up.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let telemetry = &bench.telemetry;
    let mut report = Report::new("churn");
    report.count("in flight", u64::from(args.in_flight));
    report.count("channels", args.channels);
    let mut pool = bench.pool()?;
    let shape = Shape {
        part: 0,
        in_flight: args.in_flight as usize,
        channels: args.channels,
        rate: args.rate,
    };
    let mut churn = Churn::new(&bench.app, &shape);
    telemetry.phase("warm up", 0);
    load::drive(telemetry, &mut pool, &mut churn, WARM_UP)?;
    churn.latency.0.reset();
    telemetry.phase("cycles", 0);
    let memory = bench.servers.memory();
    let (window, before) = (Window::open(&bench.servers), (churn.done, churn.member_events));
    load::drive(telemetry, &mut pool, &mut churn, Duration::from_secs(args.seconds))?;
    let used = window.close(&bench.servers);
    let done = churn.done - before.0;
    used.report(&mut report, "", ("cycle", "cycles"), done);
    let member_events = ratio(churn.member_events - before.1, done);
    report.figure("member events per cycle", member_events, "");
    report.latency("cycle", &churn.latency);
    load::drain(telemetry, &mut pool, &mut churn)?;
    let growth = bench.servers.memory().rss.saturating_sub(memory.rss);
    report.count("RSS growth during the run KiB", growth / 1024);
    let clean = churn.violations.count == 0;
    report.add_violations(churn.violations);
    if clean {
        report.add_violations(churn::check_empty(&bench.app));
    }
    Ok(report)
}
