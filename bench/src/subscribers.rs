//! A crowd of WebSocket connections that connect, subscribe and then stay.
//!
//! Owns the members and their violations. Does not check events: `sink` and `rooms` do. Answers pings; any error or
//! close is a violation, unless the member is given up. Limits: `WINDOW` handshakes or subscriptions in flight,
//! `PHASE_DEADLINE` for all. Cost: an entry for each member, with its socket id; messages of the protocol are parsed
//! with allocations, events are not parsed here.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::app::{self, App};
use crate::pool::{CloseWhy, Goal, Handler, Key, Pool, Tag};
use crate::report::Violations;
use crate::telemetry::Telemetry;

/// Handshakes or subscriptions in flight: enough that the server is never idle, and few enough that its accept queue is
/// never full.
const WINDOW: usize = 64;

const PHASE_DEADLINE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(crate) struct Subscribers {
    part: u8,
    members: Vec<Member>,
    pub(crate) connected: usize,
    pub(crate) subscribed: usize,
    pub(crate) pings: u64,
    /// Members that were given up and that the server has closed.
    pub(crate) shed: usize,
    pub(crate) violations: Violations,
}

struct Member {
    key: Key,
    socket_id: String,
    /// Its close is no violation.
    given_up: bool,
}

impl Subscribers {
    pub(crate) fn new(part: u8) -> Self {
        Self { part, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn key_of(&self, number: usize) -> Key {
        self.members[number].key
    }

    pub(crate) fn socket_id(&self, number: usize) -> &str {
        &self.members[number].socket_id
    }

    /// Opens `count` connections and waits until each has its socket id.
    pub(crate) fn connect(
        &mut self,
        pool: &mut Pool,
        telemetry: &Telemetry,
        count: usize,
    ) -> io::Result<()> {
        telemetry.phase("connect", count);
        let deadline = Instant::now() + PHASE_DEADLINE;
        while self.connected < count {
            while self.members.len() < count && self.members.len() - self.connected < WINDOW {
                let tag = Tag::new(self.part, self.members.len());
                let key = pool.open_as(Goal::WebSocket, tag)?;
                self.members.push(Member { key, socket_id: String::new(), given_up: false });
            }
            pool.poll(POLL, self)?;
            telemetry.progress(self.connected as u64);
            self.check(deadline, "connections", self.connected, count)?;
        }
        Ok(())
    }

    /// Makes `each` subscriptions of every member and waits for all acknowledgements. `channel_of`
    /// gets the member and the number of its subscription.
    pub(crate) fn subscribe(
        &mut self,
        pool: &mut Pool,
        telemetry: &Telemetry,
        app: &App,
        each: usize,
        channel_of: impl Fn(usize, usize) -> String,
    ) -> io::Result<()> {
        let count = self.members.len() * each;
        telemetry.phase("subscribe", count);
        let deadline = Instant::now() + PHASE_DEADLINE;
        let before = self.subscribed;
        let mut asked = 0;
        while self.subscribed - before < count {
            while asked < count && asked + before - self.subscribed < WINDOW {
                let number = asked / each;
                let Member { key, socket_id, .. } = &self.members[number];
                let message = app.subscribe(socket_id, &channel_of(number, asked % each), None);
                pool.send_text(*key, message.as_bytes());
                asked += 1;
            }
            pool.poll(POLL, self)?;
            telemetry.progress((self.subscribed - before) as u64);
            self.check(deadline, "subscriptions", self.subscribed - before, count)?;
        }
        Ok(())
    }

    /// Without the whole crowd there is nothing to measure.
    fn check(&self, deadline: Instant, what: &str, done: usize, count: usize) -> io::Result<()> {
        if let Some(text) = self.violations.first() {
            return Err(io::Error::other(format!("after {done} of {count} {what}: {text}")));
        }
        if Instant::now() < deadline {
            return Ok(());
        }
        Err(io::Error::other(format!("{done} of {count} {what} within {PHASE_DEADLINE:?}")))
    }

    /// Serves the crowd alone: it does nothing but answer pings.
    pub(crate) fn serve_for(&mut self, pool: &mut Pool, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            pool.poll(left.min(POLL), self)?;
        }
        Ok(())
    }

    /// From now on the server may close this member.
    pub(crate) fn give_up(&mut self, number: usize) {
        self.members[number].given_up = true;
    }

    pub(crate) fn reset_all(&mut self, pool: &mut Pool) {
        for member in self.members.drain(..) {
            pool.reset(member.key);
        }
    }

    pub(crate) fn close_all(&mut self, pool: &mut Pool) {
        for member in self.members.drain(..) {
            pool.close(member.key, false);
        }
    }
}

impl Handler for Subscribers {
    fn on_open(&mut self, _: &mut Pool, _: Key) {}

    fn on_message(&mut self, pool: &mut Pool, key: Key, message: &[u8]) {
        let text = || String::from_utf8_lossy(message).into_owned();
        let Ok(parsed) = serde_json::from_slice::<Value>(message) else {
            return self.violations.add(|| format!("not JSON: {}", text()));
        };
        match parsed["event"].as_str().unwrap_or_default() {
            "pusher:connection_established" => {
                let Some(member) = self.members.get_mut(key.number()) else { return };
                match app::socket_id_of(&parsed) {
                    Some(socket_id) => member.socket_id = socket_id,
                    None => self.violations.add(|| format!("no socket id: {}", text())),
                }
                self.connected += 1;
            }
            "pusher_internal:subscription_succeeded" => self.subscribed += 1,
            "pusher:ping" => {
                self.pings += 1;
                pool.send_text(key, app::PONG.as_bytes());
            }
            "pusher:pong" => {}
            _ if self.members.get(key.number()).is_some_and(|member| member.given_up) => {}
            _ => self.violations.add(|| format!("unexpected: {}", text())),
        }
    }

    fn on_close(&mut self, _: &mut Pool, key: Key, why: CloseWhy) {
        let number = key.number();
        if self.members.get(number).is_some_and(|member| member.given_up) {
            self.shed += 1;
        } else {
            self.violations.add(|| format!("connection {number} closed: {why}"));
        }
    }
}
