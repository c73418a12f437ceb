//! How long a new client waits while all other clients leave at once, and during a flood of handshakes.
//!
//! Owns a thread that makes one handshake after the other, blocking. The figure is the time of those that began while
//! the others were leaving: from the first close until the server counts none. Does not measure throughput. Limits:
//! `FLOOD_OPEN` sockets for each flooding thread, `GONE` for the end. Cost: one thread for the crowd, one for the
//! probes, one for each flood; a probe is a connection of some system calls, then a pause of 1 ms.

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Bench;
use crate::api;
use crate::app::App;
use crate::blunt::{self, Blunt};
use crate::pool::Pool;
use crate::report::{Latency, Report, Violations};
use crate::subscribers::Subscribers;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Times that everybody leaves, by FIN and by RST each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Seconds of the flood; 0 leaves it out.
    #[arg(long, default_value_t = 3)]
    flood_seconds: u64,
    /// Median of a handshake that is a violation when it is over.
    #[arg(long, default_value_t = 100.0)]
    bar_ms: f64,
}

const CHANNEL: &str = "private-overload";
/// Before everybody leaves.
const CALM: Duration = Duration::from_millis(300);
const GONE: Duration = Duration::from_secs(30);
/// Sockets of a flood that are open at once, by thread.
const FLOOD_OPEN: usize = 256;

/// Makes handshakes, one after the other, until `finish`.
struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Vec<(Instant, Duration)>>>,
}

impl Prober {
    fn start(app: &App) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (app, stopped) = (app.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut probes = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                probes.push(blunt::probe(&app)?);
                // Not a flood of its own.
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(probes)
        });
        Self { stop, thread }
    }

    fn finish(self) -> io::Result<Vec<(Instant, Duration)>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the prober panicked"))?
    }
}

/// Sends handshakes without waiting for their answers, until the time is up. Returns how many.
fn flood(app: &App, time: Duration) -> io::Result<u64> {
    let end = Instant::now() + time;
    let bytes = blunt::handshake(app);
    let mut open = std::collections::VecDeque::new();
    let mut count = 0;
    while Instant::now() < end {
        let mut client = Blunt::connect(app)?;
        client.stream.write_all(&bytes)?;
        open.push_back(client);
        count += 1;
        if open.len() > FLOOD_OPEN
            && let Some(oldest) = open.pop_front()
        {
            oldest.reset();
        }
    }
    open.into_iter().for_each(Blunt::reset);
    Ok(count)
}

/// Waits until the server counts nobody in the channel.
fn wait_until_gone(app: &App, violations: &mut Violations) {
    let end = Instant::now() + GONE;
    let path = format!("/channels/{CHANNEL}");
    loop {
        let answer = api::get(app, &path, &[("info", "subscription_count")]);
        let gone = answer.as_ref().is_ok_and(|answer| answer["occupied"] == false);
        if gone {
            return;
        }
        if Instant::now() > end {
            return violations.add(|| format!("{path}: {answer:?} long after everybody left"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Departure {
    closing: Duration,
    until_gone: Duration,
}

fn depart(
    bench: &Bench,
    pool: &mut Pool,
    args: &Args,
    resets: bool,
    (calm, during): (&mut Latency, &mut Latency),
) -> io::Result<(Departure, Violations)> {
    let Bench { app, telemetry, .. } = bench;
    let mut crowd = Subscribers::new(0);
    crowd.connect(pool, telemetry, args.connections)?;
    crowd.subscribe(pool, telemetry, app, 1, |_, _| CHANNEL.to_owned())?;
    telemetry.phase(if resets { "resets" } else { "closes" }, 0);
    let prober = Prober::start(app);
    crowd.serve_for(pool, CALM)?;
    let mut violations = std::mem::take(&mut crowd.violations);
    let begin = Instant::now();
    if resets {
        crowd.reset_all(pool)
    } else {
        crowd.close_all(pool)
    }
    let closing = begin.elapsed();
    wait_until_gone(app, &mut violations);
    let until_gone = begin.elapsed();
    for (began, took) in prober.finish()? {
        if began + took < begin {
            calm.record(took);
        } else if began < begin + until_gone {
            during.record(took);
        }
    }
    Ok((Departure { closing, until_gone }, violations))
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let mut report = Report::new("overload");
    report.count("connections", args.connections as u64);
    let mut pool = bench.pool()?;
    let mut calm = Latency::default();
    let mut slow = Violations::default();
    let mut judge = |report: &mut Report, name: &str, latency: &Latency| {
        report.latency(name, latency);
        let median = latency.ms_at(0.5);
        if median > args.bar_ms {
            slow.add(|| format!("{name}: the median is {median:.1} ms, the bar {}", args.bar_ms));
        }
    };
    for (resets, how) in [(false, "FIN"), (true, "RST")] {
        let mut during = Latency::default();
        let (mut closing, mut until_gone) = (Latency::default(), Latency::default());
        for _ in 0..args.runs {
            let latencies = (&mut calm, &mut during);
            let (departure, violations) = depart(bench, &mut pool, args, resets, latencies)?;
            closing.record(departure.closing);
            until_gone.record(departure.until_gone);
            report.add_violations(violations);
        }
        judge(&mut report, &format!("handshake while all leave by {how}"), &during);
        report.latency(format!("client's time to leave by {how}"), &closing);
        report.latency(format!("until the server counts nobody, {how}"), &until_gone);
    }
    report.latency("handshake before", &calm);
    if args.flood_seconds > 0 {
        bench.telemetry.phase("flood", 0);
        let time = Duration::from_secs(args.flood_seconds);
        let (app, begin) = (bench.app.clone(), Instant::now());
        let flooder = std::thread::spawn(move || flood(&app, time));
        let prober = Prober::start(&bench.app);
        let count = flooder.join().map_err(|_| io::Error::other("the flood panicked"))??;
        let wall = begin.elapsed();
        let mut during = Latency::default();
        prober.finish()?.into_iter().for_each(|(_, took)| during.record(took));
        report.figure("flood of handshakes", count as f64 / wall.as_secs_f64(), "1/s");
        judge(&mut report, "handshake in the flood", &during);
    }
    report.add_violations(slow);
    Ok(report)
}
