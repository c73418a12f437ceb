//! Publishes over HTTP to one channel, and checks what its subscribers receive.
//!
//! Owns the schedule and the backlog; `Sink` owns the check, `Publishers` the connections. Does not know the server's
//! answer beyond its status. Closed loop: a publisher sends its next event when all subscribers have received the last
//! one and the server has answered the request. Open loop: events are due at a fixed rate; one that finds no free
//! publisher waits, and its latency includes the wait. Limit: `SLOTS_MAX` events in flight; the backlog of an open loop
//! grows with a server that is too slow. Cost: an event is one request of some allocations; a delivery is `Sink::take`,
//! without allocation.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::http::Response;
use crate::load::Load;
use crate::pool::{CloseWhy, Handler, Key, Pool};
use crate::publishers::Publishers;
use crate::report::{Latency, Violations};
use crate::schedule::Schedule;
use crate::sink::Sink;
use crate::subscribers::Subscribers;

pub(crate) struct Broadcast<'a> {
    channel: &'a str,
    pub(crate) crowd: &'a mut Subscribers,
    pub(crate) sink: Sink,
    pub(crate) publishers: Publishers,
    /// Events of one request: more than one go to `batch_events`.
    batch: usize,
    delivered: Vec<bool>,
    schedule: Option<Schedule>,
    /// Scheduled times of events that no publisher was free for.
    backlog: VecDeque<Instant>,
    /// From the schedule to the request: what the client, and the limit of requests in flight, add.
    pub(crate) lateness: Latency,
    pub(crate) events: u64,
    running: bool,
}

pub(crate) struct Shape<'a> {
    pub(crate) channel: &'a str,
    pub(crate) publishers: usize,
    /// `Tag::part` of the publishers' connections.
    pub(crate) part: u8,
    pub(crate) batch: usize,
    pub(crate) payload_bytes: usize,
    /// The first so many of the crowd must receive everything.
    pub(crate) tracked: usize,
    /// Events a second in an open loop. `None`: closed loop.
    pub(crate) rate: Option<f64>,
}

impl<'a> Broadcast<'a> {
    pub(crate) fn new(
        app: &App,
        pool: &mut Pool,
        crowd: &'a mut Subscribers,
        shape: &Shape<'a>,
    ) -> io::Result<Self> {
        let slots = shape.publishers;
        let mut sink = Sink::new(crowd.len(), shape.tracked, slots, shape.payload_bytes);
        sink.each = shape.rate.map(|_| Latency::default());
        Ok(Self {
            channel: shape.channel,
            crowd,
            sink,
            publishers: Publishers::open(app, pool, shape.part, slots)?,
            batch: shape.batch,
            delivered: vec![true; slots],
            schedule: shape.rate.map(|rate| Schedule::new(Instant::now(), rate)),
            backlog: VecDeque::new(),
            lateness: Latency::default(),
            events: 0,
            running: true,
        })
    }

    fn is_free(&self, slot: usize) -> bool {
        self.delivered[slot] && self.publishers.is_free(slot)
    }

    fn publish(&mut self, pool: &mut Pool, slot: usize, scheduled: Instant) {
        self.lateness.record(scheduled.elapsed());
        self.delivered[slot] = self.sink.tracked() == 0;
        self.events += self.batch as u64;
        let channel = self.channel;
        let mut event = || {
            let payload = self.sink.publish(slot, scheduled);
            format!(r#"{{"name":"e","channel":"{channel}","data":"{payload}"}}"#)
        };
        if self.batch == 1 {
            let body = event();
            return self.publishers.post(pool, slot, "/events", &body);
        }
        let events: Vec<String> = (0..self.batch).map(|_| event()).collect();
        let body = format!(r#"{{"batch":[{}]}}"#, events.join(","));
        self.publishers.post(pool, slot, "/batch_events", &body);
    }

    /// Called when a publisher may have become free: publishes what is due.
    fn next(&mut self, pool: &mut Pool, slot: usize) {
        if !self.is_free(slot) {
            return;
        }
        if let Some(scheduled) = self.backlog.pop_front() {
            self.publish(pool, slot, scheduled);
        } else if self.running && self.schedule.is_none() {
            self.publish(pool, slot, Instant::now());
        }
    }

    pub(crate) fn forget_latencies(&mut self) {
        self.sink.forget_latencies();
        self.lateness.0.reset();
        self.publishers.latency.0.reset();
    }

    /// Closes the publishers. Returns their violations and the sink's; the crowd has its own.
    pub(crate) fn finish(mut self, pool: &mut Pool) -> Violations {
        if !self.failed() && !self.sink.one_order() {
            self.sink.violations.add(|| "subscribers saw different orders".to_owned());
        }
        self.publishers.close_all(pool);
        let mut violations = self.sink.violations;
        violations.append(self.publishers.violations);
        violations
    }
}

impl Load for Broadcast<'_> {
    fn act(&mut self, pool: &mut Pool, now: Instant) -> Option<Instant> {
        if !self.running {
            return None;
        }
        let schedule = self.schedule.as_mut()?;
        while let Some(scheduled) = schedule.take(now) {
            self.backlog.push_back(scheduled);
        }
        let next = schedule.next();
        let mut slots = 0..self.publishers.count();
        while !self.backlog.is_empty()
            && let Some(slot) = slots.find(|slot| self.is_free(*slot))
        {
            self.next(pool, slot);
        }
        Some(next)
    }

    fn rest(&mut self) {
        self.running = false;
    }

    fn waits(&self) -> bool {
        !self.backlog.is_empty() || self.sink.in_flight() > 0 || self.publishers.waits()
    }

    fn progress(&self) -> u64 {
        self.sink.deliveries + self.publishers.answers
    }

    fn failed(&self) -> bool {
        let all = [&self.sink.violations, &self.publishers.violations, &self.crowd.violations];
        all.iter().any(|violations| violations.count > 0)
    }

    fn stalled(&mut self, waited: Duration) {
        self.sink.report_missing(waited);
        if self.publishers.waits() {
            let text = || format!("a publish has no answer after {waited:?}");
            self.publishers.violations.add(text);
        }
        if !self.failed() {
            self.sink.violations.add(|| format!("nothing is published after {waited:?}"));
        }
    }
}

impl Handler for Broadcast<'_> {
    fn on_open(&mut self, pool: &mut Pool, key: Key) {
        if self.publishers.owns(key) {
            self.publishers.on_open(key);
            self.next(pool, key.number());
        }
    }

    fn on_message(&mut self, pool: &mut Pool, key: Key, message: &[u8]) {
        if !self.sink.take(key.number(), message) {
            return self.crowd.on_message(pool, key, message);
        }
        while let Some(slot) = self.sink.completed.pop() {
            self.delivered[slot] = true;
            self.next(pool, slot);
        }
    }

    fn on_response(&mut self, pool: &mut Pool, key: Key, response: &Response<'_>) {
        self.publishers.on_response(pool, key, response);
        self.next(pool, key.number());
    }

    fn on_close(&mut self, pool: &mut Pool, key: Key, why: CloseWhy) {
        if self.publishers.owns(key) {
            self.publishers.on_close(pool, key, &why);
        } else {
            self.crowd.on_close(pool, key, why);
        }
    }
}
