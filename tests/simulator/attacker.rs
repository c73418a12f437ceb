//! Simulated clients that mean harm. Each has one way to attack, and some of them never read what they are sent.
//!
//! An attacker makes bytes and reads what comes. What it may make the server keep and do is checked in `attack.rs`. It
//! counts the acknowledgements it gets, because repeated requests must have one answer together.

use serde_json::{Value, json};

use ringverb::app::Secret;
use ringverb::pusher::signature;

use crate::client::{USERS, frame, take_frame, text};
use crate::random::Random;

/// The longest message of the default configuration.
pub(crate) const MESSAGE_BYTES_MAX: usize = 10_000;
/// The longest channel name of the default configuration.
const NAME_BYTES_MAX: usize = 200;
/// Payload of the ping frames of attackers. No text of this world has it, so its pongs can be counted in a send queue.
pub(crate) const PING_PAYLOAD: &[u8] = b"#PING#";
/// Members of these are attackers alone, but for `presence-r`.
const PRESENCE: &str = "presence-r";
const CACHE: &str = "cache-c";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    PingFrames,
    PongFrames,
    PingEvents,
    /// Subscribes to random long names and leaves each at once.
    Names,
    /// Subscribes to random long names and stays.
    Hoard,
    /// Asks again and again for a presence channel that it is in.
    Presence,
    /// The same for a cache channel.
    Cache,
    /// Texts that are no messages, and messages that mean nothing.
    Garbage,
    /// Bytes that break the protocol of frames.
    Violations,
    /// Fragments of one byte and of none.
    Fragments,
    /// Subscribes to long names as `Hoard` does; then begins a message of the largest size, and does not end it.
    HalfMessage,
}

/// Those that keep most come more often, because only they are ever shed.
const ATTACKS: [Attack; 13] = [
    Attack::PingFrames,
    Attack::PongFrames,
    Attack::PingEvents,
    Attack::Names,
    Attack::Hoard,
    Attack::Presence,
    Attack::Cache,
    Attack::Garbage,
    Attack::Violations,
    Attack::Fragments,
    Attack::HalfMessage,
    Attack::HalfMessage,
    Attack::HalfMessage,
];

#[derive(Debug)]
pub(crate) struct Attacker {
    pub(crate) wire: usize,
    pub(crate) core: usize,
    pub(crate) attack: Attack,
    /// It never reads once it knows its socket id.
    stops_reading: bool,
    user: &'static str,
    socket_id: Option<String>,
    /// Acknowledgements that have come.
    pub(crate) acknowledged: u64,
    /// Ticks of its core before it connected.
    pub(crate) ticks_before: u64,
    /// It has begun a message that it does not end.
    has_begun: bool,
    /// The server has closed it.
    pub(crate) over: bool,
    input: Vec<u8>,
}

impl Attacker {
    pub(crate) fn new(wire: usize, core: usize, ticks_before: u64, random: &Random) -> Self {
        Self {
            wire,
            core,
            attack: ATTACKS[random.below(ATTACKS.len())],
            stops_reading: random.one_in(2),
            user: USERS[random.below(USERS.len())],
            socket_id: None,
            acknowledged: 0,
            ticks_before,
            has_begun: false,
            over: false,
            input: Vec::new(),
        }
    }

    pub(crate) fn reads(&self) -> bool {
        !self.stops_reading || self.socket_id.is_none()
    }

    /// Takes in bytes of the server, cut anywhere.
    pub(crate) fn receive_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Some((opcode, payload)) = take_frame(&mut self.input) {
            match opcode {
                1 => {
                    let value: Value = serde_json::from_slice(&payload).expect("JSON");
                    match value["event"].as_str().expect("an event") {
                        "pusher:connection_established" => {
                            let data = value["data"].as_str().expect("data");
                            let data: Value = serde_json::from_str(data).expect("JSON");
                            self.socket_id = data["socket_id"].as_str().map(str::to_owned);
                        }
                        "pusher_internal:subscription_succeeded" => self.acknowledged += 1,
                        _ => {}
                    }
                }
                8 => self.over = true,
                9 | 10 => {}
                other => panic!("opcode {other}"),
            }
        }
    }

    /// Whole frames that may be sent over and over without an end; none for attacks that need new ones.
    pub(crate) fn cycle(&mut self, random: &Random) -> Option<Vec<u8>> {
        match self.attack {
            Attack::Hoard | Attack::Violations | Attack::HalfMessage => None,
            _ => Some(self.next_bytes(random)),
        }
    }

    /// Some bytes of its attack.
    pub(crate) fn next_bytes(&mut self, random: &Random) -> Vec<u8> {
        let count = 1 + random.below(40);
        if self.has_begun {
            return Vec::new();
        }
        self.has_begun = self.attack == Attack::HalfMessage && random.one_in(3);
        let mut out = Vec::new();
        match self.attack {
            Attack::PingFrames => out = frame(9, PING_PAYLOAD).repeat(count),
            Attack::PongFrames => out = frame(10, b"").repeat(count),
            Attack::PingEvents => {
                out = text(&json!({"event": "pusher:ping", "data": {}})).repeat(count);
            }
            Attack::Names => {
                for _ in 0..count.min(12) {
                    let name = long_name(random, "");
                    out.extend(self.subscribe(&name, ""));
                    let data = json!({"channel": name});
                    out.extend(text(&json!({"event": "pusher:unsubscribe", "data": data})));
                }
            }
            Attack::HalfMessage if self.has_begun => {
                let whole = frame(1, "m".repeat(MESSAGE_BYTES_MAX).as_bytes());
                let cut = whole.len() - 1 - random.below(200);
                out.extend_from_slice(&whole[..cut]);
            }
            Attack::Hoard | Attack::HalfMessage => {
                for _ in 0..count.min(12) {
                    let prefix = ["", "cache-", "presence-", "private-"][random.below(4)];
                    let info = "i".repeat(random.below(700));
                    out.extend(self.subscribe(&long_name(random, prefix), &info));
                }
            }
            Attack::Presence => out = self.subscribe(PRESENCE, "").repeat(count.min(10)),
            Attack::Cache => out = self.subscribe(CACHE, "").repeat(count.min(10)),
            Attack::Garbage => {
                const TEXTS: [&str; 7] = [
                    "",
                    "{",
                    "[[[[[[",
                    r#"{"event":7}"#,
                    r#"{"\n":1,"event":"pusher:subscribe","data":"{"}"#,
                    r#"{"event":"client-e","channel":"private-p","data":"x"}"#,
                    r#"{"event":"pusher:subscribe","data":{"channel":"private-x","auth":"app-key:0"}}"#,
                ];
                for _ in 0..count.min(12) {
                    out.extend(frame(1, TEXTS[random.below(TEXTS.len())].as_bytes()));
                }
            }
            Attack::Violations => out = violation(random),
            Attack::Fragments => {
                out.extend(part(1, b"{"));
                for _ in 0..count {
                    out.extend(part(0, if random.one_in(2) { b" " } else { b"" }));
                    if random.one_in(4) {
                        out.extend(frame(9, PING_PAYLOAD));
                    }
                }
                out.extend(frame(0, b"}"));
            }
        }
        out
    }

    /// A request with a good signature where one is needed.
    fn subscribe(&self, channel: &str, info: &str) -> Vec<u8> {
        let socket_id = self.socket_id.as_deref().unwrap_or_default();
        let mut data = json!({"channel": channel});
        let mut signed = format!("{socket_id}:{channel}");
        if channel.starts_with("presence-") {
            let text = json!({"user_id": self.user, "user_info": {"n": info}}).to_string();
            signed.push_str(&format!(":{text}"));
            data["channel_data"] = json!(text);
        }
        if channel.starts_with("presence-") || channel.starts_with("private-") {
            let hex = signature::sign(&Secret::new("app-secret"), &[signed.as_bytes()]);
            data["auth"] = json!(format!("app-key:{}", String::from_utf8_lossy(&hex)));
        }
        text(&json!({"event": "pusher:subscribe", "data": data}))
    }
}

/// A frame that others follow.
fn part(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(opcode, payload);
    bytes[0] &= 0x7f;
    bytes
}

fn long_name(random: &Random, prefix: &str) -> String {
    let number = format!("{prefix}{:x}-", random.next());
    let rest = NAME_BYTES_MAX - number.len() - random.below(40);
    number + &"n".repeat(rest)
}

fn violation(random: &Random) -> Vec<u8> {
    match random.below(8) {
        // A frame of a terabyte.
        0 => vec![0x81, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4],
        // Reserved bits; no mask; an opcode that does not exist.
        1 => vec![0xf1, 0x80, 0, 0, 0, 0],
        2 => vec![0x81, 0x02, b'{', b'}'],
        3 => vec![0x83, 0x80, 0, 0, 0, 0],
        // A control frame in parts; a continuation of nothing.
        4 => part(9, b"x"),
        5 => frame(0, b"x"),
        // No UTF-8; a close frame with half a code.
        6 => frame(1, b"\xff\xfe"),
        _ => frame(8, b"\x03"),
    }
}
