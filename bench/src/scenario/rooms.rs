//! Many small rooms whose members send each other client events: what an event costs.
//!
//! Owns no state: `crate::rooms` checks all deliveries. Does not measure joining. Saturated by default, with a fixed
//! number of events in flight in each room; with `--rate` an open loop, whose latency counts from the schedule. Limits:
//! `--rooms` times `--members` connections. Cost: one thread; a delivery costs the client some array accesses and its
//! share of a read.

use std::io;
use std::time::Duration;

use super::{Bench, WARM_UP};
use crate::load;
use crate::payload::{parse_bytes, parse_slots};
use crate::report::Report;
use crate::rooms::{self, Rooms, Shape};
use crate::schedule::parse_rate;
use crate::subscribers::Subscribers;
use crate::window::Window;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 100)]
    rooms: usize,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    members: u32,
    /// Events in flight in each room; with `--rate` at most so many.
    #[arg(long, default_value_t = 1, value_parser = parse_slots)]
    in_flight: usize,
    /// Events a second in an open loop, of all rooms together.
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 64, value_parser = parse_bytes)]
    payload_bytes: usize,
    /// Length of the measured run, after a second of warming up.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let telemetry = &bench.telemetry;
    let members = args.members as usize;
    let mut report = Report::new("rooms");
    report.count("rooms", args.rooms as u64);
    report.count("members", members as u64);
    report.count("in flight in each room", args.in_flight as u64);
    report.count("payload bytes", args.payload_bytes as u64);
    let mut pool = bench.pool()?;
    let mut crowd = Subscribers::new(0);
    crowd.connect(&mut pool, telemetry, args.rooms * members)?;
    let channel = |number, _| rooms::channel_of(number / members);
    crowd.subscribe(&mut pool, telemetry, &bench.app, 1, channel)?;
    let shape = Shape {
        members,
        slots: args.in_flight,
        payload_bytes: args.payload_bytes,
        rate: args.rate,
    };
    let mut rooms = Rooms::new(&mut crowd, &shape);
    if args.rate.is_none() {
        rooms.fill(&mut pool);
    }
    telemetry.phase("warm up", 0);
    load::drive(telemetry, &mut pool, &mut rooms, WARM_UP)?;
    rooms.forget_latencies();
    telemetry.phase("client events", 0);
    let (window, before) = (Window::open(&bench.servers), (rooms.deliveries, rooms.events));
    load::drive(telemetry, &mut pool, &mut rooms, Duration::from_secs(args.seconds))?;
    let used = window.close(&bench.servers);
    let deliveries = rooms.deliveries - before.0;
    used.report(&mut report, "", ("delivery", "deliveries"), deliveries);
    report.figure("events", (rooms.events - before.1) as f64 / used.wall.as_secs_f64(), "1/s");
    if args.rate.is_some() {
        report.latency("schedule to delivery", &rooms.latency);
        report.latency("schedule to sending (client's lateness)", &rooms.lateness);
    } else {
        report.latency("sending to delivery", &rooms.latency);
    }
    load::drain(telemetry, &mut pool, &mut rooms)?;
    report.add_violations(rooms.finish());
    crowd.close_all(&mut pool);
    report.add_violations(crowd.violations);
    Ok(report)
}
