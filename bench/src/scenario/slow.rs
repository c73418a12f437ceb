//! Some subscribers stop reading during a fan-out: what the others notice, and what the server keeps.
//!
//! Owns the choice of the slow ones. Does not require that the server closes them: it may, and what a slow one receives
//! when it reads again must be in order and without gaps up to there. The others must receive everything. Open loop.
//! Limits: `PUBLISHERS` requests in flight, `CATCH_UP` for reading what was kept. Cost: one thread, as `fanout`.

use std::io;
use std::time::Duration;

use super::{Bench, WARM_UP};
use crate::broadcast::{Broadcast, Shape};
use crate::load;
use crate::payload::parse_bytes;
use crate::report::Report;
use crate::schedule::parse_rate;
use crate::subscribers::Subscribers;
use crate::window::Window;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 500)]
    subscribers: usize,
    /// How many of them stop reading, in percent.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=90))]
    slow_percent: u8,
    /// Events a second.
    #[arg(long, default_value = "200", value_parser = parse_rate)]
    rate: f64,
    /// Must fit into what the server takes (10,000 bytes by default in Reverb and ringverb).
    #[arg(long, default_value_t = 8_192, value_parser = parse_bytes)]
    payload_bytes: usize,
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

const CHANNEL: &str = "private-slow";
/// Requests in flight at most.
const PUBLISHERS: usize = 16;
/// For the slow to read what was kept for them.
const CATCH_UP: Duration = Duration::from_secs(5);

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let Bench { app, servers, telemetry, .. } = bench;
    let slow = (args.subscribers * usize::from(args.slow_percent)).div_ceil(100);
    let quick = args.subscribers - slow;
    let mut report = Report::new("slow");
    report.count("subscribers", args.subscribers as u64);
    report.count("of them slow", slow as u64);
    report.count("payload bytes", args.payload_bytes as u64);
    let mut pool = bench.pool()?;
    let mut crowd = Subscribers::new(0);
    crowd.connect(&mut pool, telemetry, args.subscribers)?;
    crowd.subscribe(&mut pool, telemetry, app, 1, |_, _| CHANNEL.to_owned())?;
    let shape = Shape {
        channel: CHANNEL,
        publishers: PUBLISHERS,
        part: 1,
        batch: 1,
        payload_bytes: args.payload_bytes,
        tracked: quick,
        rate: Some(args.rate),
    };
    let mut broadcast = Broadcast::new(app, &mut pool, &mut crowd, &shape)?;
    telemetry.phase("everybody reads", 0);
    load::drive(telemetry, &mut pool, &mut broadcast, WARM_UP)?;
    broadcast.forget_latencies();
    let slow_keys: Vec<_> = (quick..args.subscribers).map(|n| broadcast.crowd.key_of(n)).collect();
    for (number, key) in (quick..).zip(&slow_keys) {
        broadcast.crowd.give_up(number);
        pool.pause(*key);
    }
    telemetry.phase("some do not read", 0);
    let memory = servers.memory();
    let (window, before) = (Window::open(servers), broadcast.sink.deliveries);
    load::drive(telemetry, &mut pool, &mut broadcast, Duration::from_secs(args.seconds))?;
    let used = window.close(servers);
    let end = servers.memory();
    let deliveries = broadcast.sink.deliveries - before;
    used.report(
        &mut report,
        "",
        ("delivery to the others", "deliveries to the others"),
        deliveries,
    );
    if let Some(each) = &broadcast.sink.each {
        report.latency("schedule to delivery", each);
    }
    report.latency("schedule to request (client's lateness)", &broadcast.lateness);
    load::drain(telemetry, &mut pool, &mut broadcast)?;
    for key in slow_keys {
        pool.resume(key);
    }
    telemetry.phase("everybody reads again", 0);
    load::drive(telemetry, &mut pool, &mut broadcast, CATCH_UP)?;
    report.count("RSS before KiB", memory.rss / 1024);
    report.count("RSS at the end of the run KiB", end.rss / 1024);
    report.count("RSS after the slow have read KiB", servers.memory().rss / 1024);
    report.count("slow closed by the server", broadcast.crowd.shed as u64);
    report.add_violations(broadcast.finish(&mut pool));
    crowd.close_all(&mut pool);
    report.add_violations(crowd.violations);
    Ok(report)
}
