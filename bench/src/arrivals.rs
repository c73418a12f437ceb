//! Clients that arrive: connect, subscribe to a private channel if asked to, and stay.
//!
//! Owns the clients and the latency of their arrival. Does not choose their number or rate: the scenario does. Closed
//! loop with a window, or open loop at a rate. In a storm a client that is refused retries after `RETRY`, and its
//! latency includes the wait; otherwise a refusal is a violation. Limit: the clients of `Shape::count`. Cost: an entry
//! for each client; each message is parsed once, with allocations, which counts as time of the client.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::app::{self, App};
use crate::load::Load;
use crate::pool::{CloseWhy, Goal, Handler, Key, Pool, Tag};
use crate::report::{Latency, Violations};
use crate::schedule::Schedule;

/// Pause before a refused client retries.
const RETRY: Duration = Duration::from_millis(100);

struct Client {
    key: Option<Key>,
    scheduled: Instant,
    here: bool,
}

pub(crate) struct Arrivals<'a> {
    app: &'a App,
    clients: Vec<Client>,
    channel: Option<&'a str>,
    window: usize,
    retries: bool,
    schedule: Option<Schedule>,
    /// Clients whose first connection was begun.
    begun: usize,
    pub(crate) here: usize,
    /// Refused clients, in the order in which their retries are due.
    turned_away: VecDeque<(Instant, usize)>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// From the schedule (closed loop: from the connect) until the client is here.
    pub(crate) latency: Latency,
    pub(crate) violations: Violations,
    running: bool,
}

pub(crate) struct Shape<'a> {
    pub(crate) count: usize,
    /// Handshakes in flight at once. Ignored in an open loop.
    pub(crate) window: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) channel: Option<&'a str>,
    pub(crate) retries: bool,
}

impl<'a> Arrivals<'a> {
    pub(crate) fn new(app: &'a App, shape: &Shape<'a>) -> Self {
        let now = Instant::now();
        let client = || Client { key: None, scheduled: now, here: false };
        Self {
            app,
            clients: (0..shape.count).map(|_| client()).collect(),
            channel: shape.channel,
            window: if shape.rate.is_some() { usize::MAX } else { shape.window },
            retries: shape.retries,
            schedule: shape.rate.map(|rate| Schedule::new(now, rate)),
            begun: 0,
            here: 0,
            turned_away: VecDeque::new(),
            errors: 0,
            first_error: None,
            latency: Latency::default(),
            violations: Violations::default(),
            running: true,
        }
    }

    pub(crate) fn all_here(&self) -> bool {
        self.here == self.clients.len()
    }

    fn open(&mut self, pool: &mut Pool, number: usize) {
        match pool.open_as(Goal::WebSocket, Tag::new(0, number)) {
            Ok(key) => self.clients[number].key = Some(key),
            Err(error) => self.violations.add(|| format!("client {number}: {error}")),
        }
    }

    fn arrived(&mut self, key: Key) {
        let client = &mut self.clients[key.number()];
        if std::mem::replace(&mut client.here, true) {
            return self.violations.add(|| format!("client {} is here twice", key.number()));
        }
        self.here += 1;
        self.latency.record(client.scheduled.elapsed());
    }

    pub(crate) fn close_all(&mut self, pool: &mut Pool) {
        for client in &mut self.clients {
            if let Some(key) = client.key.take() {
                pool.close(key, false);
            }
        }
    }
}

impl Load for Arrivals<'_> {
    fn act(&mut self, pool: &mut Pool, now: Instant) -> Option<Instant> {
        while self.turned_away.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, number)) = self.turned_away.pop_front()
        {
            self.open(pool, number);
        }
        while self.running && self.begun < self.clients.len() {
            let scheduled = match &mut self.schedule {
                Some(schedule) => schedule.take(now),
                None => (self.begun - self.here < self.window).then(Instant::now),
            };
            let Some(scheduled) = scheduled else { break };
            self.clients[self.begun].scheduled = scheduled;
            self.open(pool, self.begun);
            self.begun += 1;
        }
        let scheduled = self.schedule.as_ref().map(Schedule::next);
        let scheduled = scheduled.filter(|_| self.begun < self.clients.len());
        let again = self.turned_away.front().map(|(at, _)| *at);
        scheduled.into_iter().chain(again).min()
    }

    fn rest(&mut self) {
        self.running = false;
    }

    fn waits(&self) -> bool {
        self.here < self.begun
    }

    fn progress(&self) -> u64 {
        self.here as u64
    }

    fn failed(&self) -> bool {
        self.violations.count > 0
    }

    fn stalled(&mut self, waited: Duration) {
        let missing = self.begun - self.here;
        self.violations.add(|| format!("{missing} clients are not here after {waited:?}"));
    }
}

impl Handler for Arrivals<'_> {
    fn on_open(&mut self, _: &mut Pool, _: Key) {}

    fn on_message(&mut self, pool: &mut Pool, key: Key, message: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Value>(message) else {
            let text = || format!("not JSON: {}", String::from_utf8_lossy(message));
            return self.violations.add(text);
        };
        match message["event"].as_str().unwrap_or_default() {
            "pusher:connection_established" => match (self.channel, app::socket_id_of(&message)) {
                (_, None) => self.violations.add(|| format!("no socket id: {message}")),
                (None, _) => self.arrived(key),
                (Some(channel), Some(socket_id)) => {
                    let request = self.app.subscribe(&socket_id, channel, None);
                    pool.send_text(key, request.as_bytes());
                }
            },
            "pusher_internal:subscription_succeeded" => self.arrived(key),
            "pusher:ping" => pool.send_text(key, app::PONG.as_bytes()),
            // Says why a client is turned away; its close follows.
            "pusher:error" if self.retries => {}
            _ => self.violations.add(|| format!("unexpected: {message}")),
        }
    }

    fn on_close(&mut self, _: &mut Pool, key: Key, why: CloseWhy) {
        let number = key.number();
        let client = &mut self.clients[number];
        client.key = None;
        if client.here || !self.retries {
            return self.violations.add(|| format!("client {number} closed: {why}"));
        }
        self.errors += 1;
        self.first_error.get_or_insert_with(|| why.to_string());
        self.turned_away.push_back((Instant::now() + RETRY, number));
    }
}
