//! Several loads at once, at fixed rates: an idle crowd, rooms, a backend that publishes, and visits. With `--faults`
//! other clients misbehave at the same time: the soak test.
//!
//! Owns the parts of the pool, by which each message reaches its load. Does not excuse any delivery: all members that
//! are accounted for stay until the end. Limits: the arguments; 500 visits in flight. Cost: one thread for all loads,
//! one for `faults`; the reported CPU time of a delivery includes all loads.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Bench, WARM_UP};
use crate::api;
use crate::app::App;
use crate::broadcast::{self, Broadcast};
use crate::churn::{self, Churn};
use crate::faults::Faults;
use crate::http::Response;
use crate::load::{self, Load};
use crate::pool::{CloseWhy, Handler, Key, Pool};
use crate::report::{Report, Violations};
use crate::rooms::{self, Rooms};
use crate::schedule::parse_rate;
use crate::subscribers::Subscribers;
use crate::window::Window;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Connections that do nothing but stay, with one private channel each.
    #[arg(long, default_value_t = 5_000)]
    idle: usize,
    #[arg(long, default_value_t = 50)]
    rooms: usize,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    members: u32,
    /// Client events a second, of all rooms together.
    #[arg(long, default_value = "500", value_parser = parse_rate)]
    event_rate: f64,
    /// Subscribers of the channel that the backend publishes to.
    #[arg(long, default_value_t = 500)]
    subscribers: usize,
    /// Publishes a second.
    #[arg(long, default_value = "20", value_parser = parse_rate)]
    publish_rate: f64,
    /// Visits a second: connect, join a presence channel, leave, close.
    #[arg(long, default_value = "200", value_parser = parse_rate)]
    churn_rate: f64,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Ten clients a second misbehave: cut off in the middle, deaf, half a handshake, garbage.
    #[arg(long)]
    faults: bool,
}

/// The phase that is measured.
pub(crate) const PHASE: &str = "mixed";

const CHANNEL: &str = "private-mixed";
const PAYLOAD_BYTES: usize = 128;

// Parts of the pool.
const IDLE: u8 = 0;
const AUDIENCE: u8 = 1;
const PUBLISHERS: u8 = 2;
const ROOMS: u8 = 3;
const CHURN: u8 = 4;

struct Mixed<'a> {
    idle: Subscribers,
    broadcast: Broadcast<'a>,
    rooms: Rooms<'a>,
    churn: Churn<'a>,
}

impl Load for Mixed<'_> {
    fn act(&mut self, pool: &mut Pool, now: Instant) -> Option<Instant> {
        let due =
            [self.broadcast.act(pool, now), self.rooms.act(pool, now), self.churn.act(pool, now)];
        due.into_iter().flatten().min()
    }

    fn rest(&mut self) {
        self.broadcast.rest();
        self.rooms.rest();
        self.churn.rest();
    }

    fn waits(&self) -> bool {
        self.broadcast.waits() || self.rooms.waits() || self.churn.waits()
    }

    fn progress(&self) -> u64 {
        self.broadcast.progress() + self.rooms.progress() + self.churn.progress()
    }

    fn failed(&self) -> bool {
        let idle = self.idle.violations.count > 0;
        idle || self.broadcast.failed() || self.rooms.failed() || self.churn.failed()
    }

    fn stalled(&mut self, waited: Duration) {
        if self.broadcast.waits() {
            self.broadcast.stalled(waited);
        }
        self.rooms.stalled(waited);
        self.churn.stalled(waited);
    }
}

impl Handler for Mixed<'_> {
    fn on_open(&mut self, pool: &mut Pool, key: Key) {
        match key.tag.part {
            PUBLISHERS => self.broadcast.on_open(pool, key),
            CHURN => self.churn.on_open(pool, key),
            _ => {}
        }
    }

    fn on_message(&mut self, pool: &mut Pool, key: Key, message: &[u8]) {
        match key.tag.part {
            IDLE => self.idle.on_message(pool, key, message),
            AUDIENCE => self.broadcast.on_message(pool, key, message),
            ROOMS => self.rooms.on_message(pool, key, message),
            _ => self.churn.on_message(pool, key, message),
        }
    }

    fn on_response(&mut self, pool: &mut Pool, key: Key, response: &Response<'_>) {
        self.broadcast.on_response(pool, key, response);
    }

    fn on_close(&mut self, pool: &mut Pool, key: Key, why: CloseWhy) {
        match key.tag.part {
            IDLE => self.idle.on_close(pool, key, why),
            AUDIENCE | PUBLISHERS => self.broadcast.on_close(pool, key, why),
            ROOMS => self.rooms.on_close(pool, key, why),
            _ => self.churn.on_close(pool, key, why),
        }
    }
}

/// The three crowds that stay, connected and subscribed.
fn crowds(bench: &Bench, pool: &mut Pool, args: &Args) -> io::Result<[Subscribers; 3]> {
    let Bench { app, telemetry, .. } = bench;
    let members = args.members as usize;
    let mut idle = Subscribers::new(IDLE);
    idle.connect(pool, telemetry, args.idle)?;
    idle.subscribe(pool, telemetry, app, 1, |number, _| format!("private-idle-{number}"))?;
    let mut audience = Subscribers::new(AUDIENCE);
    let mut talkers = Subscribers::new(ROOMS);
    audience.connect(pool, telemetry, args.subscribers)?;
    audience.subscribe(pool, telemetry, app, 1, |_, _| CHANNEL.to_owned())?;
    talkers.connect(pool, telemetry, args.rooms * members)?;
    let room = |number, _| rooms::channel_of(number / members);
    talkers.subscribe(pool, telemetry, app, 1, room)?;
    Ok([idle, audience, talkers])
}

/// The loads of one run.
fn all_of_them<'a>(
    app: &'a App,
    pool: &mut Pool,
    idle: Subscribers,
    (audience, talkers): (&'a mut Subscribers, &'a mut Subscribers),
    args: &Args,
) -> io::Result<Mixed<'a>> {
    let to_audience = broadcast::Shape {
        channel: CHANNEL,
        publishers: 8,
        part: PUBLISHERS,
        batch: 1,
        payload_bytes: PAYLOAD_BYTES,
        tracked: args.subscribers,
        rate: Some(args.publish_rate),
    };
    let in_rooms = rooms::Shape {
        members: args.members as usize,
        slots: 4,
        payload_bytes: PAYLOAD_BYTES,
        rate: Some(args.event_rate),
    };
    let visits =
        churn::Shape { part: CHURN, in_flight: 500, channels: 50, rate: Some(args.churn_rate) };
    Ok(Mixed {
        idle,
        broadcast: Broadcast::new(app, pool, audience, &to_audience)?,
        rooms: Rooms::new(talkers, &in_rooms),
        churn: Churn::new(app, &visits),
    })
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let Bench { app, servers, telemetry, .. } = bench;
    let mut report = Report::new("mixed");
    let mut pool = bench.pool()?;
    let [idle, mut audience, mut talkers] = crowds(bench, &mut pool, args)?;
    let mut mixed = all_of_them(app, &mut pool, idle, (&mut audience, &mut talkers), args)?;
    telemetry.phase("warm up", 0);
    load::drive(telemetry, &mut pool, &mut mixed, WARM_UP)?;
    mixed.broadcast.forget_latencies();
    mixed.rooms.forget_latencies();
    mixed.churn.latency.0.reset();
    let faults = args.faults.then(|| Faults::start(app, CHANNEL));
    telemetry.phase(PHASE, 0);
    let memory = servers.memory();
    let (window, before) = (Window::open(servers), counts(&mixed));
    load::drive(telemetry, &mut pool, &mut mixed, Duration::from_secs(args.seconds))?;
    let used = window.close(servers);
    let after = counts(&mixed);
    let deliveries = after[0] + after[1] - before[0] - before[1];
    used.report(&mut report, "", ("delivery", "deliveries"), deliveries);
    report.figure("visits", (after[2] - before[2]) as f64 / used.wall.as_secs_f64(), "1/s");
    if let Some(each) = &mixed.broadcast.sink.each {
        report.latency("publish, schedule to delivery", each);
    }
    report.latency("client event, schedule to delivery", &mixed.rooms.latency);
    report.latency("visit, schedule to close", &mixed.churn.latency);
    report.latency("client's lateness", &mixed.rooms.lateness);
    telemetry.phase("drain", 0);
    load::drain(telemetry, &mut pool, &mut mixed)?;
    if let Some(faults) = faults {
        faults.finish(&mut report)?;
    }
    account(&mut report, &mixed, args);
    report.count("RSS before KiB", memory.rss / 1024);
    report.count("RSS after KiB", servers.memory().rss / 1024);
    let Mixed { mut idle, broadcast, rooms, churn } = mixed;
    let ended = [broadcast.finish(&mut pool), rooms.finish(), churn.violations];
    ended.into_iter().for_each(|violations| report.add_violations(violations));
    if report.is_clean() {
        report.add_violations(churn::check_empty(app));
    }
    [&mut idle, &mut audience, &mut talkers].into_iter().for_each(|crowd| {
        crowd.close_all(&mut pool);
        report.add_violations(std::mem::take(&mut crowd.violations));
    });
    if report.is_clean() {
        report.add_violations(check_nobody(app));
    }
    Ok(report)
}

/// All deliveries since the beginning, warm-up included, must have been received. None is excused, because no member
/// that is accounted for leaves. Clients that visit or misbehave are due nothing here.
fn account(report: &mut Report, mixed: &Mixed<'_>, args: &Args) {
    let mut violations = Violations::default();
    let due = mixed.broadcast.events * args.subscribers as u64
        + mixed.rooms.events * u64::from(args.members - 1);
    let received = mixed.broadcast.sink.deliveries + mixed.rooms.deliveries;
    report.count("deliveries due", due);
    report.count("deliveries received", received);
    if due != received {
        violations.add(|| format!("{due} deliveries were due and {received} came"));
    }
    report.add_violations(violations);
}

/// All clients have left, so the server must count none. It closes connections that never read within seconds.
fn check_nobody(app: &App) -> Violations {
    let mut violations = Violations::default();
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let ask = |path: &str| api::get(app, path, &[]).map_err(|error| error.to_string());
        let (channels, connections) = (ask("/channels"), ask("/connections"));
        // PHP writes an empty object as a list. Not every server has /connections.
        let empty = channels
            .as_ref()
            .is_ok_and(|answer| answer["channels"] == json!({}) || answer["channels"] == json!([]));
        let none = connections.as_ref().map_or(true, |answer| answer["connections"] == 0);
        if empty && none {
            return violations;
        }
        if Instant::now() > end {
            violations.add(|| format!("everybody left, but: {channels:?} {connections:?}"));
            return violations;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Deliveries to the audience, in rooms, and visits done.
fn counts(mixed: &Mixed<'_>) -> [u64; 3] {
    [mixed.broadcast.sink.deliveries, mixed.rooms.deliveries, mixed.churn.done]
}
