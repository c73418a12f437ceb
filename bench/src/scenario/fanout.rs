//! One channel, many subscribers, a fixed number of events in flight: what a delivery costs.
//!
//! Closed loop: a publisher sends its next event when everybody has the last one and the server
//! has answered the request. So the figures are of a busy server, and the latency is that of a
//! server kept busy, not of an open system.

use std::io;
use std::time::{Duration, Instant};

use super::Bench;
use crate::app::App;
use crate::http::Response;
use crate::pool::{CloseWhy, Goal, Handler, Key, Pool};
use crate::proc;
use crate::report::{Report, busy_percent, us_each};
use crate::server::Server;
use crate::sink::{PAYLOAD_BYTES_MIN, SLOTS_MAX, Sink};
use crate::subscribers::Subscribers;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 5_000)]
    pub(super) subscribers: usize,
    #[arg(long, default_value_t = 64, value_parser = payload_bytes)]
    pub(super) payload_bytes: usize,
    /// Events in flight, one run each.
    #[arg(long, value_delimiter = ',', default_value = "1,16", value_parser = in_flight)]
    pub(super) in_flight: Vec<usize>,
    /// Length of each measured run, after a second of warming up.
    #[arg(long, default_value_t = 10)]
    pub(super) seconds: u64,
}

fn payload_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (PAYLOAD_BYTES_MIN..=1 << 20).contains(&bytes) => Ok(bytes),
        _ => Err(format!("a number from {PAYLOAD_BYTES_MIN} to {}", 1 << 20)),
    }
}

fn in_flight(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(slots) if (1..=SLOTS_MAX).contains(&slots) => Ok(slots),
        _ => Err(format!("a number from 1 to {SLOTS_MAX}")),
    }
}

pub(super) const WARM_UP: Duration = Duration::from_secs(1);
/// An event that has not reached everybody by then is lost.
pub(super) const STALL: Duration = Duration::from_secs(10);
pub(super) const POLL: Duration = Duration::from_millis(50);

const CHANNEL: &str = "private-fanout";

struct Publisher {
    key: Key,
    open: bool,
    answered: bool,
    delivered: bool,
}

struct Fanout<'a> {
    app: &'a App,
    crowd: &'a mut Subscribers,
    sink: Sink,
    publishers: Vec<Publisher>,
    running: bool,
}

impl Fanout<'_> {
    fn publish_where_free(&mut self, pool: &mut Pool, slot: usize) {
        let publisher = &mut self.publishers[slot];
        let free = publisher.open && publisher.answered && publisher.delivered;
        if !free || !self.running {
            return;
        }
        publisher.answered = false;
        publisher.delivered = false;
        let payload = self.sink.publish(slot);
        let payload = std::str::from_utf8(&payload).expect("the payload is ASCII");
        let body = format!(r#"{{"name":"e","channel":"{CHANNEL}","data":"{payload}"}}"#);
        let target = self.app.api("POST", "/events", &[], body.as_bytes());
        pool.send_request(publisher.key, "POST", &target, body.as_bytes());
    }

    fn slot_of(&self, key: Key) -> Option<usize> {
        self.publishers.iter().position(|publisher| publisher.key == key)
    }

    fn reopen(&mut self, pool: &mut Pool, slot: usize) {
        match pool.open(Goal::Http) {
            Ok(key) => self.publishers[slot].key = key,
            Err(error) => self.sink.violations.add(|| format!("publisher {slot}: {error}")),
        }
    }

    fn settle(&mut self, pool: &mut Pool) {
        while let Some(slot) = self.sink.completed.pop() {
            self.publishers[slot].delivered = true;
            self.publish_where_free(pool, slot);
        }
    }

    fn failed(&self) -> bool {
        self.sink.violations.count + self.crowd.violations.count > 0
    }

    fn serve_for(&mut self, pool: &mut Pool, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        let mut progress = (Instant::now(), self.sink.deliveries);
        while Instant::now() < end && !self.failed() {
            pool.poll(POLL, self)?;
            if self.sink.deliveries > progress.1 {
                progress = (Instant::now(), self.sink.deliveries);
            } else if progress.0.elapsed() > STALL {
                self.sink.report_missing(STALL);
            }
        }
        Ok(())
    }

    /// Lets what is in flight arrive.
    fn drain(&mut self, pool: &mut Pool) -> io::Result<()> {
        self.running = false;
        let end = Instant::now() + STALL;
        while self.sink.in_flight() > 0 && !self.failed() {
            pool.poll(POLL, self)?;
            if Instant::now() > end {
                self.sink.report_missing(STALL);
            }
        }
        Ok(())
    }
}

impl Handler for Fanout<'_> {
    fn on_open(&mut self, pool: &mut Pool, key: Key) {
        if let Some(slot) = self.slot_of(key) {
            self.publishers[slot].open = true;
            self.publish_where_free(pool, slot);
        }
    }

    fn on_message(&mut self, pool: &mut Pool, key: Key, message: &[u8]) {
        let Some(number) = self.crowd.number(key) else { return };
        if self.sink.take(number, message) {
            self.settle(pool);
        } else {
            self.crowd.on_message(pool, key, message);
        }
    }

    fn on_response(&mut self, pool: &mut Pool, key: Key, response: &Response<'_>) {
        let Some(slot) = self.slot_of(key) else { return };
        if response.status != 200 {
            let Response { status, body, .. } = response;
            let body = String::from_utf8_lossy(body);
            self.sink.violations.add(|| format!("publish answered {status}: {body}"));
        }
        self.publishers[slot].answered = true;
        if response.last {
            self.publishers[slot].open = false;
            pool.close(key, false);
            self.reopen(pool, slot);
        } else {
            self.publish_where_free(pool, slot);
        }
    }

    fn on_close(&mut self, pool: &mut Pool, key: Key, why: CloseWhy) {
        match self.slot_of(key) {
            // A kept connection may be closed by the server whenever it is idle.
            Some(slot) if self.publishers[slot].answered => {
                self.publishers[slot].open = false;
                self.reopen(pool, slot);
            }
            Some(slot) => {
                self.sink.violations.add(|| format!("publisher {slot} closed: {why}"));
            }
            None => self.crowd.on_close(pool, key, why),
        }
    }
}

/// Adds the figures of one measured window.
pub(super) struct Window {
    begin: Instant,
    server_cpu: Duration,
    client_cpu: Duration,
    deliveries: u64,
}

fn own_cpu() -> Duration {
    proc::cpu_time(std::process::id()).unwrap_or_default()
}

impl Window {
    pub(super) fn open(server: &Server, sink: &mut Sink) -> Self {
        sink.latency.reset();
        Self {
            begin: Instant::now(),
            server_cpu: server.cpu_time(),
            client_cpu: own_cpu(),
            deliveries: sink.deliveries,
        }
    }

    pub(super) fn close(self, server: &Server, sink: &Sink, report: &mut Report, name: &str) {
        let wall = self.begin.elapsed();
        let cpu = server.cpu_time().saturating_sub(self.server_cpu);
        let client = own_cpu().saturating_sub(self.client_cpu);
        let deliveries = sink.deliveries - self.deliveries;
        let rate = deliveries as f64 / wall.as_secs_f64();
        let label = |what: &str| format!("{name}: {what}");
        report.figure(label("deliveries"), rate, "1/s");
        report.figure(label("server CPU per delivery"), us_each(cpu, deliveries), "us");
        report.figure(label("client CPU per delivery"), us_each(client, deliveries), "us");
        report.figure(label("server busy"), busy_percent(cpu, wall), "%");
        report.figure(label("client busy"), busy_percent(client, wall), "%");
        report.count(label("events"), sink.latency.len());
        for (what, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let micros = sink.latency.value_at_quantile(quantile);
            let what = format!("publish to last delivery {what}");
            report.figure(label(&what), micros as f64 / 1000.0, "ms");
        }
    }
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let Bench { app, server, .. } = bench;
    let mut report = Report::new("fanout");
    report.count("subscribers", args.subscribers as u64);
    report.count("payload bytes", args.payload_bytes as u64);
    let mut pool = Pool::new(app.address, &app.socket_path())?;
    let mut crowd = Subscribers::default();
    crowd.connect(&mut pool, args.subscribers)?;
    crowd.subscribe(&mut pool, app, |_| CHANNEL.to_owned())?;
    for &slots in &args.in_flight {
        let mut fanout = Fanout {
            app,
            crowd: &mut crowd,
            sink: Sink::new(args.subscribers, slots, args.payload_bytes),
            publishers: Vec::new(),
            running: true,
        };
        for _ in 0..slots {
            let key = pool.open(Goal::Http)?;
            let publisher = Publisher { key, open: false, answered: true, delivered: true };
            fanout.publishers.push(publisher);
        }
        fanout.serve_for(&mut pool, WARM_UP)?;
        let window = Window::open(server, &mut fanout.sink);
        fanout.serve_for(&mut pool, Duration::from_secs(args.seconds))?;
        let name = format!("{slots} in flight");
        window.close(server, &fanout.sink, &mut report, &name);
        fanout.drain(&mut pool)?;
        if fanout.sink.violations.count == 0 && !fanout.sink.one_order() {
            fanout.sink.violations.add(|| "subscribers saw different orders".to_owned());
        }
        for publisher in &fanout.publishers {
            pool.close(publisher.key, false);
        }
        report.add_violations(fanout.sink.violations);
    }
    crowd.close_all(&mut pool);
    report.add_violations(crowd.violations);
    Ok(report)
}
