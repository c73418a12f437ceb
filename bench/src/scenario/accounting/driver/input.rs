//! What the driver does with events, pongs, answers and closes.
//!
//! Owns no state: it is `impl Driver`. Does not decide whether an event was due: the ledger does. Limits: those of the
//! pool. Cost: each message is parsed once, with allocations, and causes some look-ups.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::ledger::{ConnectionId, Event, State, User};
use super::{Client, Driver, Fence, Role, user_of};
use crate::app;
use crate::http::Response;
use crate::pool::{CloseWhy, Goal, Handler, Key, Pool};

fn event_of(data: &Value) -> Option<Event> {
    // A publish carries a string, a client event an object.
    let parsed = data.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let object = parsed.as_ref().unwrap_or(data);
    let number = |name: &str| object[name].as_u64().and_then(|value| u32::try_from(value).ok());
    let channels = object["c"].as_array()?.iter();
    Some(Event {
        publisher: number("p")?,
        number: number("n")?,
        excluded: number("x")?,
        channels: channels.filter_map(|value| usize::try_from(value.as_u64()?).ok()).collect(),
    })
}

impl<'a> Driver<'a> {
    fn on_event(&mut self, pool: &mut Pool, number: usize, message: &Value) {
        let Client { id, .. } = self.clients[number];
        let channel = message["channel"].as_str().and_then(|name| self.channel_ids.get(name));
        let channel = channel.copied();
        match (message["event"].as_str().unwrap_or_default(), channel) {
            ("pusher:connection_established", _) => {
                self.clients[number].socket_id = app::socket_id_of(message).unwrap_or_default();
            }
            ("pusher:ping", _) => pool.send_text(self.clients[number].key, app::PONG.as_bytes()),
            ("pusher:pong", _) => self.on_pong(pool, number),
            ("pusher_internal:subscription_succeeded", Some(channel)) => {
                let roster = roster_of(&message["data"]);
                self.ledger.acknowledged(id, channel, roster);
            }
            (
                event @ ("pusher_internal:member_added" | "pusher_internal:member_removed"),
                Some(channel),
            ) => {
                let data = message["data"].as_str().unwrap_or_default();
                let data: Value = serde_json::from_str(data).unwrap_or_default();
                match user_of(&data["user_id"]) {
                    Some(user) => self.ledger.member(id, channel, user, event.ends_with("added")),
                    None => self.unexpected(id, message),
                }
            }
            ("e" | "client-e", Some(channel)) => match event_of(&message["data"]) {
                Some(event) => self.ledger.delivered(id, channel, &event),
                None => self.unexpected(id, message),
            },
            _ => self.unexpected(id, message),
        }
    }

    fn unexpected(&mut self, id: ConnectionId, message: &Value) {
        self.ledger.violations.add(|| format!("connection {id}: unexpected {message}"));
    }

    fn on_pong(&mut self, pool: &mut Pool, number: usize) {
        let client = &mut self.clients[number];
        let id = client.id;
        match client.fences.pop_front() {
            Some(Fence::Left(channel)) => {
                client.channels.retain(|&other| other != channel);
                self.ledger.left(id, channel);
            }
            Some(Fence::Close { politely }) => {
                let (key, user, channels) =
                    (client.key, client.user, std::mem::take(&mut client.channels));
                for channel in channels {
                    if self.ledger.state(id, channel) == Some(State::In) {
                        self.ledger.leaving(id, channel);
                    }
                    self.ledger.left(id, channel);
                }
                pool.close(key, politely);
                self.roles.remove(&key);
                self.reconnects += 1;
                match self.connect(pool, user) {
                    Ok(client) => {
                        self.roles.insert(client.key, Role::Client(number));
                        self.clients[number] = client;
                    }
                    Err(error) => self.ledger.violations.add(|| format!("reconnect: {error}")),
                }
            }
            None => self.ledger.violations.add(|| format!("connection {id}: a pong too many")),
        }
    }

    fn reopen(&mut self, pool: &mut Pool, number: usize) {
        self.roles.remove(&self.publishers[number].key);
        self.publishers[number].open = false;
        match pool.open(Goal::Http) {
            Ok(key) => {
                self.publishers[number].key = key;
                self.roles.insert(key, Role::Publisher(number));
            }
            Err(error) => self.ledger.violations.add(|| format!("publisher {number}: {error}")),
        }
    }
}

fn roster_of(data: &Value) -> BTreeSet<User> {
    let data: Value =
        data.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let ids = data["presence"]["ids"].as_array().map(Vec::as_slice).unwrap_or_default();
    ids.iter().filter_map(user_of).collect()
}

impl Handler for Driver<'_> {
    fn on_open(&mut self, _: &mut Pool, key: Key) {
        if let Some(&Role::Publisher(number)) = self.roles.get(&key) {
            self.publishers[number].open = true;
        }
    }

    fn on_message(&mut self, pool: &mut Pool, key: Key, message: &[u8]) {
        let Some(&Role::Client(number)) = self.roles.get(&key) else { return };
        match serde_json::from_slice(message) {
            Ok(parsed) => self.on_event(pool, number, &parsed),
            Err(error) => {
                let text = || format!("{error}: {}", String::from_utf8_lossy(message));
                self.ledger.violations.add(text);
            }
        }
    }

    fn on_response(&mut self, pool: &mut Pool, key: Key, response: &Response<'_>) {
        let Some(&Role::Publisher(number)) = self.roles.get(&key) else { return };
        let Response { status, last, body } = response;
        let publisher = &mut self.publishers[number];
        publisher.waits = false;
        publisher.answer = Some(serde_json::from_slice(body).unwrap_or_default());
        if *status != 200 {
            let body = String::from_utf8_lossy(body);
            self.ledger.violations.add(|| format!("the API answered {status}: {body}"));
        }
        if *last {
            pool.close(key, false);
            self.reopen(pool, number);
        }
    }

    fn on_close(&mut self, pool: &mut Pool, key: Key, why: CloseWhy) {
        match self.roles.get(&key) {
            _ if self.over => {}
            Some(&Role::Publisher(number)) => {
                if self.publishers[number].waits {
                    let text = || format!("publisher {number} closed before its answer: {why}");
                    self.ledger.violations.add(text);
                    self.publishers[number].waits = false;
                }
                self.reopen(pool, number);
            }
            Some(&Role::Client(number)) => {
                let id = self.clients[number].id;
                self.ledger.violations.add(|| format!("connection {id} closed: {why}"));
            }
            None => {}
        }
    }
}
