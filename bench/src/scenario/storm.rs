//! All connections are cut off at once and reconnect at once: how long until all are back.
//!
//! Owns both crowds. Does not spread the reconnects: that is the server's part (close codes). A client that is refused
//! retries after 100 ms, and its latency includes that. At the end the server must count exactly so many subscribers,
//! without any of the first crowd. Limits: `--connections`, `--deadline`, `AGREEMENT` for the count. Cost: one thread;
//! some system calls of the client for each connection.

use std::io;
use std::time::{Duration, Instant};

use super::{Bench, connect};
use crate::api;
use crate::arrivals::{Arrivals, Shape};
use crate::report::{Report, Violations};
use crate::window::Window;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// How many come at once; by default all of them.
    #[arg(long)]
    in_flight: Option<usize>,
    /// Everybody must be back by then.
    #[arg(long, default_value_t = 60)]
    deadline: u64,
}

const CHANNEL: &str = "private-storm";
const AGREEMENT: Duration = Duration::from_secs(30);

/// The server's count of subscribers must become `expected`.
fn check_count(bench: &Bench, expected: usize) -> Violations {
    let mut violations = Violations::default();
    let end = Instant::now() + AGREEMENT;
    let path = format!("/channels/{CHANNEL}");
    loop {
        let answer = api::get(&bench.app, &path, &[("info", "subscription_count")]);
        let text = match answer {
            Ok(answer) if answer["subscription_count"] == expected => return violations,
            Ok(answer) => answer.to_string(),
            Err(error) => error.to_string(),
        };
        if Instant::now() > end {
            violations.add(|| format!("{path}: {text}, expected {expected} subscribers"));
            return violations;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let Bench { app, servers, telemetry, .. } = bench;
    let mut report = Report::new("storm");
    report.count("connections", args.connections as u64);
    let mut pool = bench.pool()?;
    let channel = Some(CHANNEL);
    let calm = Shape { count: args.connections, window: 64, rate: None, channel, retries: false };
    telemetry.phase("connect", args.connections);
    let mut first = Arrivals::new(app, &calm);
    connect::wait_for_all(telemetry, &mut pool, &mut first, Duration::from_secs(120))?;
    if let Some(text) = first.violations.first() {
        return Err(io::Error::other(text.to_owned()));
    }
    let before = servers.memory();
    let window = args.in_flight.unwrap_or(usize::MAX);
    let shape = Shape { count: args.connections, window, rate: None, channel, retries: true };
    telemetry.phase("storm", args.connections);
    let measured = Window::open(servers);
    first.close_all(&mut pool);
    let mut back = Arrivals::new(app, &shape);
    let deadline = Duration::from_secs(args.deadline);
    connect::wait_for_all(telemetry, &mut pool, &mut back, deadline)?;
    let used = measured.close(servers);
    report.figure("until all are back", used.wall.as_secs_f64() * 1000.0, "ms");
    used.report(&mut report, "", ("comeback", "comebacks"), back.here as u64);
    report.latency("comeback", &back.latency);
    report.count("turned away and came again", back.errors);
    if let Some(why) = &back.first_error {
        report.text("first reason", why);
    }
    report.count("RSS before KiB", before.rss / 1024);
    report.count("RSS after KiB", servers.memory().rss / 1024);
    if back.violations.count == 0 {
        report.add_violations(check_count(bench, args.connections));
    }
    back.close_all(&mut pool);
    report.add_violations(back.violations);
    Ok(report)
}
