//! A simulated client: what it has sent, what it has received, and what it may expect.
//!
//! It speaks bytes, with an encoder and a decoder of its own: a fault of the server's must not cancel itself out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use ringverb::app::Secret;
use ringverb::pusher::signature;

use crate::backend::{Ledger, NUMBERS_PER_STREAM};
use crate::http;
use crate::random::Random;

pub(crate) const USERS: [&str; 3] = ["0", "1", "2"];
pub(crate) const CHANNELS: [&str; 4] = ["news", "private-p", "cache-c", "presence-r"];

/// An event's number names the node that published it.
pub(crate) const NUMBERS_PER_NODE: u64 = 1 << 32;

/// Where it stands with a channel.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) acknowledged: bool,
    /// Until all is quiet nothing is due to it, and it may receive things twice.
    pub(crate) back_at_once: bool,
    /// Events it must get: accepted since the acknowledgement.
    pub(crate) due: BTreeSet<u64>,
    /// Those that other nodes accepted.
    pub(crate) due_from_elsewhere: BTreeSet<u64>,
    /// By publisher: each has an order of its own.
    newest: BTreeMap<u64, u64>,
    /// By event, those that were answered before it was sent: they come first.
    pub(crate) earlier: BTreeMap<u64, Vec<u64>>,
    /// Client events: their order is only known when they are taken in.
    received: BTreeSet<u64>,
    pub(crate) roster: BTreeSet<String>,
    /// The number of subscribers that it was sent last.
    pub(crate) count: Option<u64>,
    /// Its request was sent while there was a cached event, and nothing has excused the server since: it must be
    /// greeted with an event, not with `cache_miss`.
    pub(crate) must_be_greeted: bool,
    /// Cached events before the one of that time.
    pub(crate) too_old: BTreeSet<u64>,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) wire: usize,
    pub(crate) user: String,
    pub(crate) socket_id: Option<String>,
    pub(crate) places: BTreeMap<&'static str, Place>,
    /// Channels that it has lost while it asked for them, until all is quiet: the request may be answered yet.
    doubtful: BTreeSet<&'static str>,
    /// Channels it has left, until all is quiet: events may be on their way.
    pub(crate) left: BTreeSet<&'static str>,
    pub(crate) reads: bool,
    /// It has not read for some time.
    pub(crate) has_been_deaf: bool,
    /// Its client events that may not have been taken in.
    pub(crate) unsettled: Vec<u64>,
    /// It has ended, or was ended; nothing is due any more.
    pub(crate) over: bool,
    pub(crate) close_code: Option<u16>,
    pub(crate) pings: u32,
    pub(crate) pongs: u32,
    /// It has asked to be signed in.
    pub(crate) signed_in: bool,
    /// Which users are online, as it was sent, once it was sent all.
    pub(crate) online: Option<BTreeMap<String, bool>>,
    /// Its client events, and what was published to all but it: it must not receive them.
    pub(crate) not_for_it: BTreeSet<u64>,
    input: Vec<u8>,
    /// Answers that it expects ahead of the one to its handshake, until that has come.
    handshake: Option<usize>,
    /// What it has not sent of it yet.
    pub(crate) rest: Vec<u8>,
    ledger: Ledger,
}

impl Client {
    /// One whose connection is established already.
    pub(crate) fn new(wire: usize, user: String, ledger: &Ledger) -> Self {
        Self {
            wire,
            user,
            socket_id: None,
            places: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            left: BTreeSet::new(),
            reads: true,
            has_been_deaf: false,
            unsettled: Vec::new(),
            over: false,
            close_code: None,
            pings: 0,
            pongs: 0,
            signed_in: false,
            online: None,
            not_for_it: BTreeSet::new(),
            input: Vec::new(),
            handshake: None,
            rest: Vec::new(),
            ledger: ledger.clone(),
        }
    }

    /// What it sends to be connected: a handshake, behind other requests on the same socket or with a message behind.
    pub(crate) fn begin(&mut self, random: &Random) -> Vec<u8> {
        let before = if random.one_in(4) { 1 + random.below(3) } else { 0 };
        self.handshake = Some(before);
        let mut bytes = b"GET /up HTTP/1.1\r\nHost: sim\r\n\r\n".repeat(before);
        bytes.extend(http::handshake());
        if random.one_in(4) {
            bytes.extend(self.ping());
        }
        bytes
    }

    /// Whether its handshake is answered.
    pub(crate) fn is_open(&self) -> bool {
        self.handshake.is_none()
    }

    pub(crate) fn subscribe(&mut self, channel: &'static str) -> Option<Vec<u8>> {
        let socket_id = self.socket_id.as_ref()?;
        if self.places.contains_key(channel) {
            return None;
        }
        // A client that returns at once may receive what was on its way: it cannot distinguish old from new.
        let place = Place { back_at_once: self.left.contains(channel), ..Place::default() };
        let mut data = json!({"channel": channel});
        let mut signed = format!("{socket_id}:{channel}");
        if channel.starts_with("presence-") {
            let text = json!({"user_id": self.user, "user_info": {"n": 1}}).to_string();
            signed.push_str(&format!(":{text}"));
            data["channel_data"] = json!(text);
        }
        let hex = signature::sign(&Secret::new("app-secret"), &[signed.as_bytes()]);
        data["auth"] = json!(format!("app-key:{}", String::from_utf8_lossy(&hex)));
        self.places.insert(channel, place);
        Some(text(&json!({"event": "pusher:subscribe", "data": data})))
    }

    pub(crate) fn unsubscribe(&mut self, channel: &'static str) -> Option<Vec<u8>> {
        self.places.remove(channel)?;
        self.left.insert(channel);
        Some(text(&json!({"event": "pusher:unsubscribe", "data": {"channel": channel}})))
    }

    /// Subscribes, unsubscribes and subscribes again before the first answer can come.
    pub(crate) fn subscribe_twice(&mut self, channel: &'static str) -> Option<Vec<u8>> {
        let mut bytes = self.subscribe(channel)?;
        bytes.extend(self.unsubscribe(channel)?);
        bytes.extend(self.subscribe(channel)?);
        Some(bytes)
    }

    pub(crate) fn client_event(&mut self, channel: &str, number: u64) -> Vec<u8> {
        self.not_for_it.insert(number);
        text(&json!({"event": "client-e", "channel": channel, "data": number.to_string()}))
    }

    /// Signs in as its user, once, and wants to know of everybody.
    pub(crate) fn sign_in(&mut self) -> Option<Vec<u8>> {
        let socket_id = self.socket_id.as_ref()?;
        if std::mem::replace(&mut self.signed_in, true) {
            return None;
        }
        let user_data = json!({"id": self.user, "watchlist": USERS}).to_string();
        let signed = format!("{socket_id}::user::{user_data}");
        let hex = signature::sign(&Secret::new("app-secret"), &[signed.as_bytes()]);
        let auth = format!("app-key:{}", String::from_utf8_lossy(&hex));
        let data = json!({"auth": auth, "user_data": user_data});
        Some(text(&json!({"event": "pusher:signin", "data": data})))
    }

    pub(crate) fn ping(&mut self) -> Vec<u8> {
        self.pings += 1;
        text(&json!({"event": "pusher:ping", "data": {}}))
    }

    /// Where it stands with a channel, if what is accepted from now on is due to it.
    pub(crate) fn listening(&mut self, channel: &str) -> Option<&mut Place> {
        let place = self.places.get_mut(channel)?;
        (place.acknowledged && !place.back_at_once).then_some(place)
    }

    /// The backend may take the channel from it: nothing more is due.
    pub(crate) fn may_lose(&mut self, channel: &'static str) {
        if let Some(place) = self.places.get_mut(channel) {
            place.due.clear();
            place.due_from_elsewhere.clear();
            place.back_at_once = true;
        }
    }

    /// The backend has taken the channel from it.
    fn lose(&mut self, channel: &'static str) {
        let place = self.places.remove(channel);
        if place.is_some_and(|place| !place.acknowledged) {
            self.doubtful.insert(channel);
        }
        self.left.insert(channel);
    }

    /// All is quiet: what it left behind has come.
    pub(crate) fn rest(&mut self) {
        self.left.clear();
        self.doubtful.clear();
        self.places.values_mut().for_each(|place| place.back_at_once = false);
    }

    /// Takes in bytes of the server, cut anywhere.
    pub(crate) fn receive_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        if !self.receive_handshake() {
            return;
        }
        while let Some((opcode, payload)) = take_frame(&mut self.input) {
            match opcode {
                1 => self.receive_text(&serde_json::from_slice(&payload).expect("JSON")),
                8 => {
                    self.close_code = Some(u16::from_be_bytes([payload[0], payload[1]]));
                    self.over = true;
                }
                9 => {}
                other => panic!("opcode {other}"),
            }
        }
    }

    /// Whether its handshake is answered.
    fn receive_handshake(&mut self) -> bool {
        while let Some(before) = self.handshake
            && let Some(answer) = http::take_answer(&mut self.input, false)
        {
            assert_eq!(answer.status == 101, before == 0, "{answer:?}");
            self.handshake = before.checked_sub(1);
            if answer.closes {
                // The server drains.
                assert!(self.input.is_empty(), "bytes behind the last answer");
                self.over = true;
                return false;
            }
        }
        self.handshake.is_none()
    }

    fn receive_text(&mut self, value: &Value) {
        assert!(self.close_code.is_none(), "{value} behind the close frame");
        let data = || -> Value {
            serde_json::from_str(value["data"].as_str().unwrap_or("null")).unwrap_or(Value::Null)
        };
        let name = value["channel"].as_str().unwrap_or_default();
        let channel = CHANNELS.into_iter().find(|channel| *channel == name);
        match value["event"].as_str().expect("an event") {
            "pusher:connection_established" => {
                self.socket_id = data()["socket_id"].as_str().map(str::to_owned);
            }
            "pusher:pong" => self.pongs += 1,
            "pusher:ping" | "pusher:error" => {}
            "pusher:cache_miss" => {
                let place = channel.and_then(|channel| self.places.get(channel));
                let is_right = place.is_none_or(|place| !place.must_be_greeted);
                assert!(is_right, "client {}: {value}, and there is an event", self.wire);
            }
            "pusher_internal:subscription_count" => {
                if let Some(place) = channel.and_then(|channel| self.places.get_mut(channel)) {
                    place.count = data()["subscription_count"].as_u64();
                }
            }
            "pusher:subscription_error" => self.lose(channel.expect("a channel")),
            "pusher:signin_success" => assert!(self.signed_in, "{value}"),
            "pusher_internal:watchlist_events" => self.receive_watchlist(&data()),
            "pusher_internal:subscription_succeeded" => {
                if let Some(channel) = channel.filter(|channel| self.doubtful.remove(channel)) {
                    let place = Place { back_at_once: true, ..Place::default() };
                    self.places.entry(channel).or_insert(place);
                }
                let Some(place) = channel.and_then(|channel| self.places.get_mut(channel)) else {
                    assert!(channel.is_some_and(|channel| self.left.contains(channel)), "{value}");
                    return;
                };
                place.acknowledged = true;
                if let Some(ids) = data()["presence"]["ids"].as_array() {
                    let ids = ids.iter().filter_map(|id| id.as_str().map(str::to_owned));
                    place.roster = ids.collect();
                }
            }
            "pusher_internal:member_added" => {
                self.change_roster(channel, value, |roster| {
                    roster.insert(data()["user_id"].as_str().expect("an id").to_owned())
                });
            }
            "pusher_internal:member_removed" => {
                self.change_roster(channel, value, |roster| {
                    roster.remove(data()["user_id"].as_str().expect("an id"))
                });
            }
            "e" | "client-e" => self.receive_event(channel.expect("a channel"), value),
            other => panic!("{other}"),
        }
    }

    /// The whole list first, and then what changes.
    fn receive_watchlist(&mut self, data: &Value) {
        let mut found = BTreeMap::new();
        for event in data["events"].as_array().expect("a list") {
            for id in event["user_ids"].as_array().expect("a list") {
                found.insert(id.as_str().expect("an id").to_owned(), event["name"] == "online");
            }
        }
        let Some(online) = &mut self.online else {
            assert!(found.keys().eq(USERS), "the first list is whole: {data}");
            self.online = Some(found);
            return;
        };
        for (user, is_online) in found {
            let before = online.insert(user, is_online);
            assert_eq!(before, Some(!is_online), "{data} changes nothing");
        }
    }

    /// Additions and removals pair up: each changes the roster.
    fn change_roster(
        &mut self,
        channel: Option<&'static str>,
        value: &Value,
        change: impl FnOnce(&mut BTreeSet<String>) -> bool,
    ) {
        let channel = channel.expect("a channel");
        match self.places.get_mut(channel).filter(|place| place.acknowledged) {
            Some(place) => {
                let has_changed = change(&mut place.roster);
                assert!(has_changed || place.back_at_once, "{value} changes nothing");
            }
            None => assert!(self.left.contains(channel), "{value} without acknowledgement"),
        }
    }

    fn receive_event(&mut self, channel: &'static str, value: &Value) {
        let number: u64 =
            value["data"].as_str().and_then(|data| data.parse().ok()).expect("a number");
        let mut ledger = self.ledger.borrow_mut();
        assert!(
            !ledger.void.contains(&number),
            "{channel}: {number} was refused, or never answered"
        );
        ledger.received.insert(number);
        let Some(place) = self.places.get_mut(channel).filter(|place| place.acknowledged) else {
            // Left, or left and asked again: what was on its way may still come.
            assert!(self.left.contains(channel), "{value} without acknowledgement");
            return;
        };
        // What came before the acknowledgement was read is not due, and may come all the same.
        if std::mem::take(&mut place.must_be_greeted) {
            assert!(!place.too_old.contains(&number), "{channel}: {number} is no longer cached");
        }
        place.due.remove(&number);
        for earlier_number in place.earlier.remove(&number).unwrap_or_default() {
            assert!(
                !place.due.contains(&earlier_number),
                "{channel}: {number} comes before {earlier_number}"
            );
        }
        place.due_from_elsewhere.remove(&number);
        assert!(!self.not_for_it.contains(&number), "{channel}: {number} came to its sender");
        if value["event"] == "client-e" {
            let is_new = place.received.insert(number);
            assert!(is_new || place.back_at_once, "{channel}: {number} came twice");
            return;
        }
        let newest = place.newest.entry(number / NUMBERS_PER_STREAM).or_default();
        assert!(
            *newest < number || place.back_at_once,
            "{channel}: {number} came behind {newest}, or twice"
        );
        *newest = number;
    }
}

/// Takes the server's next whole frame from what has come: opcode and payload.
pub(crate) fn take_frame(input: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (header, length) = match *input.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?]))),
        127 => panic!("no frame of this world is that long"),
        short => (2, usize::from(short)),
    };
    if input.len() < header + length {
        return None;
    }
    assert_eq!(input[0] & 0xf0, 0x80, "FIN and nothing reserved");
    let opcode = input[0] & 15;
    let payload = input[header..header + length].to_vec();
    input.drain(..header + length);
    Some((opcode, payload))
}

pub(crate) fn text(value: &Value) -> Vec<u8> {
    frame(1, value.to_string().as_bytes())
}

/// A masked frame in one piece.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0xa5, 0x0f, 0xf0];
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | u8::try_from(short).expect("short")),
        long => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(long).expect("below 64 KiB").to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}
