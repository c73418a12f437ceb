//! The HTTP API kept busy: what a publish request costs.
//!
//! Owns no state: `broadcast` publishes and checks. Does not send one request before the answer to the last one on the
//! same connection: a closed loop. Events go to one channel; with subscribers each delivery is checked, and a publisher
//! waits for it. Without (`--subscribers 0`) only the answers are checked. Limits: `SLOTS_MAX` connections, 1,000
//! events of a batch. Cost: one thread; one HMAC and some allocations a request.

use std::io;
use std::time::Duration;

use super::{Bench, WARM_UP};
use crate::broadcast::{Broadcast, Shape};
use crate::http::After;
use crate::load;
use crate::payload::{parse_bytes, parse_slots};
use crate::report::Report;
use crate::subscribers::Subscribers;
use crate::window::Window;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 16, value_parser = parse_slots)]
    connections: usize,
    /// Events of one request; more than one go to `batch_events`. The request must fit into what
    /// the server takes (10,000 bytes by default in Reverb and ringverb).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    batch: u32,
    #[arg(long, default_value_t = 1)]
    subscribers: usize,
    #[arg(long, default_value_t = 64, value_parser = parse_bytes)]
    payload_bytes: usize,
    /// A new connection for each request (`Connection: close`), as PHP publishes.
    #[arg(long)]
    close: bool,
    /// Length of the measured run, after a second of warming up.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

const CHANNEL: &str = "private-publish";

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let telemetry = &bench.telemetry;
    let mut report = Report::new("publish");
    report.count("connections", args.connections as u64);
    report.count("events per request", u64::from(args.batch));
    report.count("subscribers", args.subscribers as u64);
    report.count("payload bytes", args.payload_bytes as u64);
    let mut pool = bench.pool()?;
    let mut crowd = Subscribers::new(0);
    crowd.connect(&mut pool, telemetry, args.subscribers)?;
    crowd.subscribe(&mut pool, telemetry, &bench.app, 1, |_, _| CHANNEL.to_owned())?;
    let shape = Shape {
        channel: CHANNEL,
        publishers: args.connections,
        part: 1,
        batch: args.batch as usize,
        payload_bytes: args.payload_bytes,
        tracked: args.subscribers,
        rate: None,
    };
    let mut broadcast = Broadcast::new(&bench.app, &mut pool, &mut crowd, &shape)?;
    if args.close {
        broadcast.publishers.after = After::Close;
    }
    telemetry.phase("warm up", 0);
    load::drive(telemetry, &mut pool, &mut broadcast, WARM_UP)?;
    broadcast.forget_latencies();
    telemetry.phase("requests and deliveries", 0);
    let counts = |broadcast: &Broadcast<'_>| {
        let publishers = &broadcast.publishers;
        (publishers.answers, publishers.reconnects, broadcast.sink.deliveries)
    };
    let (window, before) = (Window::open(&bench.servers), counts(&broadcast));
    load::drive(telemetry, &mut pool, &mut broadcast, Duration::from_secs(args.seconds))?;
    let used = window.close(&bench.servers);
    let after = counts(&broadcast);
    let requests = after.0 - before.0;
    used.report(&mut report, "", ("request", "requests"), requests);
    let events = requests * u64::from(args.batch);
    report.figure("events", events as f64 / used.wall.as_secs_f64(), "1/s");
    report.figure("server CPU per event", crate::report::us_each(used.server, events), "us");
    report.count("deliveries checked", after.2 - before.2);
    report.count("new connections", after.1 - before.1);
    report.latency("request to answer", &broadcast.publishers.latency);
    load::drain(telemetry, &mut pool, &mut broadcast)?;
    report.add_violations(broadcast.finish(&mut pool));
    crowd.close_all(&mut pool);
    report.add_violations(crowd.violations);
    Ok(report)
}
