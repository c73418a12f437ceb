//! A crowd of WebSocket connections that connect, subscribe to one channel each and then stay.
//! Answers pings; any error or close is a violation.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::app::{self, App};
use crate::pool::{CloseWhy, Goal, Handler, Key, Pool};
use crate::report::Violations;

/// Handshakes or subscriptions on their way at once: the server is never idle, its accept queue
/// never full.
const WINDOW: usize = 64;

const PHASE_DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(crate) struct Subscribers {
    members: Vec<Member>,
    /// Which member a pool index is.
    member_of: Vec<u32>,
    pub(crate) connected: usize,
    pub(crate) subscribed: usize,
    pub(crate) pings: u64,
    pub(crate) violations: Violations,
}

struct Member {
    key: Key,
    socket_id: String,
}

impl Subscribers {
    /// Opens `count` connections and waits until each has its socket id.
    pub(crate) fn connect(&mut self, pool: &mut Pool, count: usize) -> io::Result<()> {
        let deadline = Instant::now() + PHASE_DEADLINE;
        while self.connected < count {
            while self.members.len() < count && self.members.len() - self.connected < WINDOW {
                let key = pool.open(Goal::WebSocket)?;
                let index = key.index as usize;
                if self.member_of.len() <= index {
                    self.member_of.resize(index + 1, u32::MAX);
                }
                self.member_of[index] =
                    u32::try_from(self.members.len()).expect("fewer than 4 billion");
                self.members.push(Member { key, socket_id: String::new() });
            }
            pool.poll(POLL, self)?;
            self.check(deadline, "connections", self.connected, count)?;
        }
        Ok(())
    }

    /// Subscribes member `n` to `channel_of(n)` and waits for all acknowledgements.
    pub(crate) fn subscribe(
        &mut self,
        pool: &mut Pool,
        app: &App,
        channel_of: impl Fn(usize) -> String,
    ) -> io::Result<()> {
        let deadline = Instant::now() + PHASE_DEADLINE;
        let count = self.members.len();
        let mut asked = 0;
        while self.subscribed < count {
            while asked < count && asked - self.subscribed < WINDOW {
                let Member { key, socket_id } = &self.members[asked];
                let message = app.subscribe(socket_id, &channel_of(asked), None);
                pool.send_text(*key, message.as_bytes());
                asked += 1;
            }
            pool.poll(POLL, self)?;
            self.check(deadline, "subscriptions", self.subscribed, count)?;
        }
        Ok(())
    }

    /// Which member the connection is.
    pub(crate) fn number(&self, key: Key) -> Option<usize> {
        let number = *self.member_of.get(key.index as usize)? as usize;
        (self.members.get(number)?.key == key).then_some(number)
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
                let Some(number) = self.number(key) else { return };
                match app::socket_id_of(&parsed) {
                    Some(socket_id) => self.members[number].socket_id = socket_id,
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
            _ => self.violations.add(|| format!("unexpected: {}", text())),
        }
    }

    fn on_close(&mut self, _: &mut Pool, key: Key, why: CloseWhy) {
        let number = self.number(key);
        self.violations.add(|| format!("connection {number:?} closed: {why}"));
    }
}
