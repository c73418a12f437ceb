//! The clients and publishers of the run: what they do, and what they report to the ledger.
//!
//! Owns the connections and what each has asked for. Does not judge: the ledger does. A leave is followed by a ping;
//! its pong means that the server has handled the leave. A connection that is about to close sends a ping first and
//! publishes nothing more, so that no event of its own is in flight when it ends. Limits: `SUBSCRIPTIONS_MAX`,
//! `VIOLATIONS_MAX`, `ANSWER_DEADLINE`. Cost: an action is one message with some allocations; finding a subscriber is
//! linear in the clients.

mod input;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Args;
use super::ledger::{ChannelId, ConnectionId, Event, Ledger, State, User};
use crate::app::{self, App};
use crate::http::After;
use crate::pool::{Goal, Key, Pool};
use crate::random::Random;
use crate::report::Report;

/// Subscriptions of one connection at most.
const SUBSCRIPTIONS_MAX: usize = 12;
/// After so many violations the run ends, because further ones are consequences.
const VIOLATIONS_MAX: u64 = 200;
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

struct Client {
    key: Key,
    id: ConnectionId,
    user: User,
    socket_id: String,
    /// What each pong that is due means, in order.
    fences: VecDeque<Fence>,
    closing: bool,
    events_sent: u32,
    channels: Vec<ChannelId>,
}

enum Fence {
    Left(ChannelId),
    Close { politely: bool },
}

struct Publisher {
    key: Key,
    name: u32,
    events_sent: u32,
    open: bool,
    waits: bool,
    answer: Option<Value>,
}

#[derive(Clone, Copy)]
enum Role {
    Client(usize),
    Publisher(usize),
}

pub(super) struct Driver<'a> {
    app: &'a App,
    pub(super) channels: Vec<String>,
    channel_ids: HashMap<String, ChannelId>,
    pub(super) ledger: Ledger,
    clients: Vec<Client>,
    publishers: Vec<Publisher>,
    roles: HashMap<Key, Role>,
    random: Random,
    connections_opened: ConnectionId,
    publishes: u64,
    client_events: u64,
    reconnects: u64,
    over: bool,
}

pub(super) fn user_id(user: User) -> String {
    format!("u{user}")
}

fn user_of(user_id: &Value) -> Option<User> {
    user_id.as_str()?.strip_prefix('u')?.parse().ok()
}

fn channel_name(channel: ChannelId) -> String {
    match channel % 10 {
        0..=4 => format!("public-{channel}"),
        5..=7 => format!("private-{channel}"),
        _ => format!("presence-{channel}"),
    }
}

impl<'a> Driver<'a> {
    pub(super) fn new(app: &'a App, args: &Args, pool: &mut Pool) -> io::Result<Self> {
        let channels: Vec<String> = (0..args.channels).map(channel_name).collect();
        let presence = channels.iter().map(|name| name.starts_with("presence-")).collect();
        let channel_ids =
            channels.iter().enumerate().map(|(channel, name)| (name.clone(), channel)).collect();
        let mut driver = Self {
            app,
            channels,
            channel_ids,
            ledger: Ledger::new(presence),
            clients: Vec::new(),
            publishers: Vec::new(),
            roles: HashMap::new(),
            random: Random::new(args.seed),
            connections_opened: 0,
            publishes: 0,
            client_events: 0,
            reconnects: 0,
            over: false,
        };
        // Two connections of each user, so that some joins and leaves must cause no notice.
        let users = args.connections.div_ceil(2);
        for number in 0..args.connections {
            let user = User::try_from(number % users).expect("fewer users than descriptors");
            let client = driver.connect(pool, user)?;
            driver.roles.insert(client.key, Role::Client(number));
            driver.clients.push(client);
        }
        for number in 0..args.publishers {
            let key = pool.open(Goal::Http)?;
            driver.roles.insert(key, Role::Publisher(number));
            let name = u32::MAX - u32::try_from(number).expect("a small number");
            let publisher =
                Publisher { key, name, events_sent: 0, open: false, waits: false, answer: None };
            driver.publishers.push(publisher);
        }
        Ok(driver)
    }

    fn connect(&mut self, pool: &mut Pool, user: User) -> io::Result<Client> {
        self.connections_opened += 1;
        Ok(Client {
            key: pool.open(Goal::WebSocket)?,
            id: self.connections_opened,
            user,
            socket_id: String::new(),
            fences: VecDeque::new(),
            closing: false,
            events_sent: 0,
            channels: Vec::new(),
        })
    }

    pub(super) fn is_presence(&self, channel: ChannelId) -> bool {
        self.channels[channel].starts_with("presence-")
    }

    pub(super) fn gave_up(&self) -> bool {
        self.ledger.violations.count > VIOLATIONS_MAX
    }

    /// Whether every client is connected, every subscription is `In`, and every request answered.
    pub(super) fn is_quiet(&self) -> bool {
        let clients = self.clients.iter().all(|client| {
            let is_in = |&channel| self.ledger.state(client.id, channel) == Some(State::In);
            self.over
                || !client.socket_id.is_empty()
                    && client.fences.is_empty()
                    && client.channels.iter().all(is_in)
        });
        clients && self.publishers.iter().all(|publisher| publisher.open && !publisher.waits)
    }

    pub(super) fn unquiet(&self) -> String {
        let waiting = self.clients.iter().filter(|client| client.socket_id.is_empty()).count();
        let fenced = self.clients.iter().filter(|client| !client.fences.is_empty()).count();
        let publishing = self.publishers.iter().filter(|publisher| publisher.waits).count();
        let due = self.ledger.due_count;
        format!(
            "{waiting} clients not connected, {fenced} without their pong, \
             {publishing} publishers without an answer, {due} events due"
        )
    }

    /// Gives every client its first subscriptions.
    pub(super) fn fill(&mut self, pool: &mut Pool, each: usize) {
        for client in 0..self.clients.len() {
            for _ in 0..each {
                let channel = self.random.below(self.channels.len());
                if !self.clients[client].channels.contains(&channel) {
                    self.subscribe(pool, client, channel);
                }
            }
        }
    }

    fn subscribe(&mut self, pool: &mut Pool, client: usize, channel: ChannelId) {
        let presence = self.is_presence(channel);
        let Client { key, id, user, ref socket_id, ref mut channels, .. } = self.clients[client];
        let member = json!({ "user_id": user_id(user), "user_info": { "n": user } }).to_string();
        let channel_data = presence.then_some(member.as_str());
        let message = self.app.subscribe(socket_id, &self.channels[channel], channel_data);
        channels.push(channel);
        self.ledger.joining(id, channel, user);
        pool.send_text(key, message.as_bytes());
    }

    fn unsubscribe(&mut self, pool: &mut Pool, client: usize, channel: ChannelId) {
        let Client { key, id, ref mut fences, .. } = self.clients[client];
        self.ledger.leaving(id, channel);
        fences.push_back(Fence::Left(channel));
        pool.send_text(key, app::unsubscribe(&self.channels[channel]).as_bytes());
        pool.send_text(key, app::PING.as_bytes());
    }

    /// One random change of one random connection.
    pub(super) fn churn(&mut self, pool: &mut Pool) {
        let number = self.random.below(self.clients.len());
        let client = &self.clients[number];
        if client.socket_id.is_empty() || client.closing {
            return;
        }
        if self.random.percent(10) {
            let politely = self.random.percent(50);
            let client = &mut self.clients[number];
            client.closing = true;
            client.fences.push_back(Fence::Close { politely });
            return pool.send_text(client.key, app::PING.as_bytes());
        }
        let leave = self.random.percent(50);
        if !leave && client.channels.len() < SUBSCRIPTIONS_MAX {
            let channel = self.random.below(self.channels.len());
            if !self.clients[number].channels.contains(&channel) {
                self.subscribe(pool, number, channel);
            }
        } else if let Some(channel) = self.some_subscription(number) {
            // Half of those that leave do so only when nothing is due to them, so that no delivery is excused.
            let id = self.clients[number].id;
            if self.ledger.is_even(id, channel) || self.random.percent(50) {
                self.unsubscribe(pool, number, channel);
            }
        }
    }

    /// A random channel that the client is `In`.
    fn some_subscription(&mut self, number: usize) -> Option<ChannelId> {
        let client = &self.clients[number];
        let choice = self.random.below(client.channels.len());
        let channel = *client.channels.get(choice)?;
        (self.ledger.state(client.id, channel) == Some(State::In)).then_some(channel)
    }

    pub(super) fn client_event(&mut self, pool: &mut Pool) {
        let number = self.random.below(self.clients.len());
        let Some(channel) = self.some_subscription(number) else { return };
        let client = &mut self.clients[number];
        let name = &self.channels[channel];
        if client.closing || name.starts_with("public-") {
            return;
        }
        client.events_sent += 1;
        let event = Event {
            publisher: client.id,
            number: client.events_sent,
            excluded: client.id,
            channels: vec![channel],
        };
        self.client_events += 1;
        self.ledger.published(&event, Instant::now());
        let message = json!({
            "event": "client-e",
            "channel": name,
            "data": { "p": client.id, "n": client.events_sent, "x": client.id, "c": [channel] },
        });
        pool.send_text(client.key, message.to_string().as_bytes());
    }

    /// One request of a publisher that is free: to one channel, to several, or a batch.
    pub(super) fn publish(&mut self, pool: &mut Pool) {
        let free = |publisher: &Publisher| publisher.open && !publisher.waits;
        let first = self.random.below(self.publishers.len());
        let count = self.publishers.len();
        let mut order = (first..count).chain(0..first);
        let Some(number) = order.find(|&number| free(&self.publishers[number])) else { return };
        let (path, body) = match self.random.below(10) {
            0 => {
                let batch: Vec<Value> = (0..3).map(|_| self.next_event(number, 1, true)).collect();
                ("/batch_events", json!({ "batch": batch }))
            }
            1 => ("/events", self.next_event(number, 3, false)),
            _ => ("/events", self.next_event(number, 1, false)),
        };
        self.publishes += 1;
        let body = body.to_string();
        let target = self.app.api("POST", path, &[], body.as_bytes());
        let publisher = &mut self.publishers[number];
        publisher.waits = true;
        pool.send_request(publisher.key, "POST", &target, body.as_bytes(), After::Keep);
    }

    /// The publisher's next event as a body for the API. It is in the ledger from now on.
    fn next_event(&mut self, number: usize, channel_count: usize, in_batch: bool) -> Value {
        let mut channels = BTreeSet::new();
        while channels.len() < channel_count.min(self.channels.len()) {
            channels.insert(self.random.below(self.channels.len()));
        }
        let channels: Vec<ChannelId> = channels.into_iter().collect();
        let excluded = self.random.percent(20).then(|| self.subscriber_of(channels[0])).flatten();
        let publisher = &mut self.publishers[number];
        publisher.events_sent += 1;
        let event = Event {
            publisher: publisher.name,
            number: publisher.events_sent,
            excluded: excluded.as_ref().map_or(0, |(id, _)| *id),
            channels,
        };
        self.ledger.published(&event, Instant::now());
        let padding = "x".repeat(self.random.below(300));
        let Event { publisher, number, excluded: x, channels } = event;
        let data = json!({ "p": publisher, "n": number, "x": x, "c": channels, "y": padding });
        let names: Vec<&String> = channels.iter().map(|&channel| &self.channels[channel]).collect();
        let mut body = json!({ "name": "e", "data": data.to_string() });
        if in_batch {
            body["channel"] = json!(names[0]);
        } else {
            body["channels"] = json!(names);
        }
        if let Some((_, socket_id)) = excluded {
            body["socket_id"] = json!(socket_id);
        }
        body
    }

    /// A random subscriber to leave out.
    fn subscriber_of(&mut self, channel: ChannelId) -> Option<(ConnectionId, String)> {
        let subscribers = self.ledger.subscribers(channel);
        let id = *subscribers.get(self.random.below(subscribers.len()))?;
        let client = self.clients.iter().find(|client| client.id == id)?;
        Some((id, client.socket_id.clone()))
    }

    pub(super) fn leave_all(&mut self, pool: &mut Pool) {
        for number in 0..self.clients.len() {
            for channel in self.clients[number].channels.clone() {
                if self.ledger.state(self.clients[number].id, channel) == Some(State::In) {
                    self.unsubscribe(pool, number, channel);
                }
            }
        }
    }

    pub(super) fn close_all(&mut self, pool: &mut Pool) {
        self.over = true;
        for client in &self.clients {
            pool.close(client.key, true);
        }
        for publisher in &self.publishers {
            pool.close(publisher.key, false);
        }
    }

    /// Asks the HTTP API, while no publisher is busy.
    pub(super) fn get(
        &mut self,
        pool: &mut Pool,
        path: &str,
        query: &[(&str, &str)],
    ) -> io::Result<Value> {
        let deadline = Instant::now() + ANSWER_DEADLINE;
        while !self.publishers[0].open {
            pool.poll(Duration::from_millis(10), self)?;
            timely(deadline, path)?;
        }
        let target = self.app.api("GET", path, query, b"");
        self.publishers[0].answer = None;
        self.publishers[0].waits = true;
        pool.send_request(self.publishers[0].key, "GET", &target, b"", After::Keep);
        loop {
            if let Some(answer) = self.publishers[0].answer.take() {
                return Ok(answer);
            }
            pool.poll(Duration::from_millis(10), self)?;
            timely(deadline, path)?;
        }
    }

    pub(super) fn report(self, report: &mut Report) {
        let counts = &self.ledger.counts;
        report.count("HTTP publishes", self.publishes);
        report.count("client events", self.client_events);
        report.count("events", counts.events);
        report.count("joins", counts.joins);
        report.count("leaves", counts.leaves);
        report.count("reconnects", self.reconnects);
        report.count("deliveries due", counts.due);
        report.count("due and received", counts.deliveries_due);
        report.count("excused by a leave", counts.excused);
        report.count("received though not due", counts.deliveries_maybe);
        report.count("member events", counts.member_events);
        report.add_violations(self.ledger.violations);
    }
}

fn timely(deadline: Instant, path: &str) -> io::Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(io::Error::other(format!("GET {path}: no answer within {ANSWER_DEADLINE:?}")))
}
