//! Clients that connect, join a presence channel, leave it and close, over and over.
//!
//! Owns the cycles in flight. Does not check the other members' rosters: `scenario/presence.rs` does. Each step is seen
//! to be done before the next: the greeting, the roster with the own user in it, and at the end the server's own close
//! after the leave was requested. Limit: `Shape::in_flight` cycles; the backlog of an open loop grows with a server
//! that is too slow. Cost: an entry for each cycle in flight; each message is parsed with allocations, so a roster
//! costs the client in proportion to its bytes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::app::{self, App};
use crate::load::Load;
use crate::pool::{CloseWhy, Goal, Handler, Key, Pool, Tag};
use crate::presence;
use crate::report::{Latency, Violations};
use crate::schedule::Schedule;

pub(crate) const PREFIX: &str = "presence-churn-";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connecting,
    Joining,
    Closing,
}

struct Cycle {
    key: Option<Key>,
    step: Step,
    scheduled: Instant,
    user: u64,
    channel: String,
}

pub(crate) struct Churn<'a> {
    app: &'a App,
    part: u8,
    channels: u64,
    cycles: Vec<Cycle>,
    schedule: Option<Schedule>,
    /// Scheduled times of cycles that found none of `cycles` free.
    backlog: VecDeque<Instant>,
    begun: u64,
    pub(crate) done: u64,
    /// `member_added` and `member_removed` of other members, received while inside.
    pub(crate) member_events: u64,
    /// From the schedule (closed loop: from the start) to the server's close.
    pub(crate) latency: Latency,
    pub(crate) violations: Violations,
    running: bool,
}

pub(crate) struct Shape {
    pub(crate) part: u8,
    pub(crate) in_flight: usize,
    pub(crate) channels: u64,
    /// Open loop: cycles a second.
    pub(crate) rate: Option<f64>,
}

impl<'a> Churn<'a> {
    pub(crate) fn new(app: &'a App, shape: &Shape) -> Self {
        let cycle = || Cycle {
            key: None,
            step: Step::Connecting,
            scheduled: Instant::now(),
            user: 0,
            channel: String::new(),
        };
        Self {
            app,
            part: shape.part,
            channels: shape.channels.max(1),
            cycles: (0..shape.in_flight).map(|_| cycle()).collect(),
            schedule: shape.rate.map(|rate| Schedule::new(Instant::now(), rate)),
            backlog: VecDeque::new(),
            begun: 0,
            done: 0,
            member_events: 0,
            latency: Latency::default(),
            violations: Violations::default(),
            running: true,
        }
    }

    fn begin(&mut self, pool: &mut Pool, number: usize, scheduled: Instant) {
        let user = self.begun;
        self.begun += 1;
        let key = match pool.open_as(Goal::WebSocket, Tag::new(self.part, number)) {
            Ok(key) => key,
            Err(error) => return self.violations.add(|| format!("cycle {number}: {error}")),
        };
        let channel = format!("{PREFIX}{}", user % self.channels);
        let step = Step::Connecting;
        self.cycles[number] = Cycle { key: Some(key), step, scheduled, user, channel };
    }

    fn next(&mut self, pool: &mut Pool, number: usize) {
        if let Some(scheduled) = self.backlog.pop_front() {
            self.begin(pool, number, scheduled);
        } else if self.running && self.schedule.is_none() {
            self.begin(pool, number, Instant::now());
        }
    }

    fn established(&mut self, pool: &mut Pool, key: Key, message: &Value) {
        let cycle = &mut self.cycles[key.number()];
        let Some(socket_id) = app::socket_id_of(message) else {
            return self.violations.add(|| format!("no socket id: {message}"));
        };
        cycle.step = Step::Joining;
        let member = presence::channel_data(cycle.user);
        let request = self.app.subscribe(&socket_id, &cycle.channel, Some(&member));
        pool.send_text(key, request.as_bytes());
    }

    fn joined(&mut self, pool: &mut Pool, key: Key, message: &Value) {
        let cycle = &mut self.cycles[key.number()];
        if cycle.step != Step::Joining || !presence::roster(message).contains(&cycle.user) {
            return self.violations.add(|| format!("user {}: {message}", cycle.user));
        }
        cycle.step = Step::Closing;
        pool.send_text(key, app::unsubscribe(&cycle.channel).as_bytes());
        pool.send_close(key);
    }

    pub(crate) fn on_way(&self) -> usize {
        self.cycles.iter().filter(|cycle| cycle.key.is_some()).count()
    }
}

/// Waits until the server has no channel of the churn left: every leave has been carried out.
pub(crate) fn check_empty(app: &App) -> Violations {
    let mut violations = Violations::default();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let query = [("filter_by_prefix", PREFIX)];
        let answer = match crate::api::get(app, "/channels", &query) {
            Ok(answer) => answer,
            Err(error) => {
                violations.add(|| format!("GET /channels: {error}"));
                return violations;
            }
        };
        // PHP writes an empty object as a list.
        let listed = &answer["channels"];
        let empty =
            listed.as_object().is_some_and(serde_json::Map::is_empty) || *listed == json!([]);
        if empty {
            return violations;
        }
        if Instant::now() > deadline {
            violations.add(|| format!("channels are left although everybody went: {answer}"));
            return violations;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Load for Churn<'_> {
    fn act(&mut self, pool: &mut Pool, now: Instant) -> Option<Instant> {
        if !self.running {
            return None;
        }
        if let Some(schedule) = &mut self.schedule {
            while let Some(scheduled) = schedule.take(now) {
                self.backlog.push_back(scheduled);
            }
        }
        if self.schedule.is_none() && self.begun > 0
            || self.schedule.is_some() && self.backlog.is_empty()
        {
            return self.schedule.as_ref().map(Schedule::next);
        }
        for number in 0..self.cycles.len() {
            if self.cycles[number].key.is_none() {
                self.next(pool, number);
            }
        }
        self.schedule.as_ref().map(Schedule::next)
    }

    fn rest(&mut self) {
        self.running = false;
    }

    fn waits(&self) -> bool {
        !self.backlog.is_empty() || self.on_way() > 0
    }

    fn progress(&self) -> u64 {
        self.done
    }

    fn failed(&self) -> bool {
        self.violations.count > 0
    }

    fn stalled(&mut self, waited: Duration) {
        for (number, cycle) in self.cycles.iter().enumerate() {
            if cycle.key.is_some() {
                let step = cycle.step;
                self.violations.add(|| format!("cycle {number}: {step:?} after {waited:?}"));
            }
        }
    }
}

impl Handler for Churn<'_> {
    fn on_open(&mut self, _: &mut Pool, _: Key) {}

    fn on_message(&mut self, pool: &mut Pool, key: Key, message: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Value>(message) else {
            let text = || format!("not JSON: {}", String::from_utf8_lossy(message));
            return self.violations.add(text);
        };
        match message["event"].as_str().unwrap_or_default() {
            "pusher:connection_established" => self.established(pool, key, &message),
            "pusher_internal:subscription_succeeded" => self.joined(pool, key, &message),
            "pusher_internal:member_added" | "pusher_internal:member_removed" => {
                self.member_events += 1;
            }
            "pusher:ping" => pool.send_text(key, app::PONG.as_bytes()),
            _ => self.violations.add(|| format!("unexpected: {message}")),
        }
    }

    fn on_close(&mut self, pool: &mut Pool, key: Key, why: CloseWhy) {
        let number = key.number();
        let cycle = &mut self.cycles[number];
        cycle.key = None;
        if cycle.step != Step::Closing || !matches!(why, CloseWhy::Code(1000 | 1005)) {
            let step = cycle.step;
            return self.violations.add(|| format!("cycle {number}: {step:?}, closed: {why}"));
        }
        self.done += 1;
        self.latency.record(cycle.scheduled.elapsed());
        self.next(pool, number);
    }
}
