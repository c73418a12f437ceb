//! One channel, many subscribers: what a delivery costs.
//!
//! Owns the runs with several numbers of events in flight. Does not measure subscribing. Closed loop by default: the
//! figures are of a busy server, and the latency is that of a server kept busy. With `--rate` an open loop: events are
//! due at fixed times, and latency counts from there. Limits: `--subscribers`, `SLOTS_MAX` events in flight. Cost: one
//! thread; a delivery costs the client `Sink::take` and its share of a read, without allocation.

use std::io;
use std::time::Duration;

use super::{Bench, ShapeArgs, WARM_UP, floor};
use crate::broadcast::{Broadcast, Shape};
use crate::load;
use crate::pool::Pool;
use crate::report::Report;
use crate::schedule::parse_rate;
use crate::subscribers::Subscribers;
use crate::window::Window;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) shape: ShapeArgs,
    /// Events a second in an open loop; the largest `--in-flight` limits the requests in flight.
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    /// Measures the floor, too, on the CPUs of the server, and gives the ratio to it.
    #[arg(long, conflicts_with = "rate")]
    with_floor: bool,
}

const CHANNEL: &str = "private-fanout";

fn one_run(
    bench: &Bench,
    pool: &mut Pool,
    crowd: &mut Subscribers,
    args: &Args,
    (publishers, name): (usize, &str),
    report: &mut Report,
) -> io::Result<()> {
    let shape = Shape {
        channel: CHANNEL,
        publishers,
        part: 1,
        batch: 1,
        payload_bytes: args.shape.payload_bytes,
        tracked: args.shape.subscribers,
        rate: args.rate,
    };
    let mut broadcast = Broadcast::new(&bench.app, pool, crowd, &shape)?;
    bench.telemetry.phase(format!("warm up, {name}"), 0);
    load::drive(&bench.telemetry, pool, &mut broadcast, WARM_UP)?;
    broadcast.forget_latencies();
    bench.telemetry.phase(name, 0);
    let (window, before) = (Window::open(&bench.servers), broadcast.sink.deliveries);
    let time = Duration::from_secs(args.shape.seconds);
    load::drive(&bench.telemetry, pool, &mut broadcast, time)?;
    let used = window.close(&bench.servers);
    let deliveries = broadcast.sink.deliveries - before;
    let prefix = format!("{name}: ");
    used.report(report, &prefix, ("delivery", "deliveries"), deliveries);
    let sink = &broadcast.sink;
    report.count(format!("{prefix}events"), sink.last.0.len());
    match &sink.each {
        Some(each) => {
            report.latency(format!("{prefix}schedule to each delivery"), each);
            report.latency(format!("{prefix}schedule to last delivery"), &sink.last);
            let late = "schedule to request (client's lateness)";
            report.latency(format!("{prefix}{late}"), &broadcast.lateness);
        }
        None => report.latency(format!("{prefix}publish to last delivery"), &sink.last),
    }
    load::drain(&bench.telemetry, pool, &mut broadcast)?;
    report.add_violations(broadcast.finish(pool));
    Ok(())
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let mut report = Report::new("fanout");
    report.count("subscribers", args.shape.subscribers as u64);
    report.count("payload bytes", args.shape.payload_bytes as u64);
    let mut pool = bench.pool()?;
    let mut crowd = Subscribers::new(0);
    crowd.connect(&mut pool, &bench.telemetry, args.shape.subscribers)?;
    let channel = |_, _| CHANNEL.to_owned();
    crowd.subscribe(&mut pool, &bench.telemetry, &bench.app, 1, channel)?;
    let runs: Vec<(usize, String)> = match args.rate {
        Some(rate) => {
            let limit = args.shape.in_flight.iter().max().copied().unwrap_or(1);
            vec![(limit, format!("{rate} per s"))]
        }
        None => args
            .shape
            .in_flight
            .iter()
            .map(|slots| (*slots, format!("{slots} in flight")))
            .collect(),
    };
    for (publishers, name) in &runs {
        one_run(bench, &mut pool, &mut crowd, args, (*publishers, name), &mut report)?;
    }
    crowd.close_all(&mut pool);
    report.add_violations(crowd.violations);
    drop(pool);
    if args.with_floor && report.is_clean() {
        add_floor(bench, args, &mut report)?;
    }
    Ok(report)
}

/// The floor under each run, and how far above it the server is.
fn add_floor(bench: &Bench, args: &Args, report: &mut Report) -> io::Result<()> {
    for &slots in &args.shape.in_flight {
        let name = format!("{slots} in flight: server CPU per delivery");
        let floor = floor::measure(bench, &args.shape, slots, false, report, "floor, ")?;
        if let Some(server) = report.value_of(&name) {
            report.figure(format!("{slots} in flight: ratio to floor"), server / floor, "");
        }
    }
    Ok(())
}
