//! Messages of WebSocket clients: read, decided and answered by a core.

use std::hint::black_box;

use ringverb::app::Secret;
use ringverb::pusher::inbound;
use ringverb::pusher::json::Validator;
use ringverb::pusher::signature;
use serde_json::{Value, json};

use super::setup::{config_with, connect, flush, shard_with};
use super::{Entry, Peer, Run, entry};

/// Below the longest name of a channel.
const NAME_BYTES_MAX: usize = 9_900;
/// The default limits refuse most of these inputs at little cost; operators can raise them as far as this.
const WIDEST: &[(&str, &str)] = &[
    ("RINGVERB_CHANNEL_NAME_LENGTH_MAX", "10000"),
    ("RINGVERB_MEMBER_SIZE_MAX", "1000000"),
    ("RINGVERB_USER_DATA_SIZE_MAX", "1000000"),
    ("RINGVERB_SEND_QUEUE_BYTES_MAX", "16777216"),
];

pub(super) const ENTRIES: &[Entry] = &[
    entry("message: many members", Peer::Anybody, many_members),
    entry("message: escaped members", Peer::Anybody, escaped_members),
    entry("message: names spelled with escapes", Peer::Anybody, spelled_members),
    entry("message: arrays in arrays", Peer::Anybody, nested),
    entry("message: numbers", Peer::Anybody, numbers),
    entry("message: a string that does not end", Peer::Anybody, endless),
    entry("message: data encoded twice", Peer::Anybody, encoded_twice),
    Entry {
        bytes_max: NAME_BYTES_MAX,
        ..entry("subscribe and unsubscribe: a long name", Peer::Anybody, long_name)
    },
    Entry {
        bytes_max: NAME_BYTES_MAX,
        ..entry("subscribe: a cache channel again", Peer::Anybody, cache_again)
    },
    Entry {
        bytes_max: NAME_BYTES_MAX,
        ..entry("subscribe: wrong signature, a long name", Peer::Anybody, wrong_name)
    },
    entry("subscribe: wrong signature over channel_data", Peer::Anybody, wrong_channel_data),
    entry("subscribe: channel_data of many members", Peer::Member, channel_data),
    entry("sign-in: wrong signature, a long watchlist", Peer::Anybody, wrong_watchlist),
    entry("sign-in: wrong signature, escaped members", Peer::Anybody, wrong_user_data),
    entry("sign-in: a long watchlist", Peer::Member, watchlist),
];

/// Reads a message, and does nothing about it.
fn parsing(text: String) -> (usize, Run) {
    let mut validator = Validator::default();
    let length = text.len();
    let run = move || {
        let _ = black_box(inbound::parse(black_box(text.as_bytes()), &mut validator).is_ok());
    };
    (length, Box::new(run))
}

fn many_members(size: usize) -> (usize, Run) {
    parsing(format!(r#"{{{}"event":"pusher:ping"}}"#, r#""":1,"#.repeat(size / 5)))
}

fn escaped_members(size: usize) -> (usize, Run) {
    parsing(format!(r#"{{{}"event":"pusher:ping"}}"#, r#""\n":1,"#.repeat(size / 7)))
}

/// Each is decoded to its end before it is found to be another name.
fn spelled_members(size: usize) -> (usize, Run) {
    let member = r#""\u0065\u0076\u0065\u006e\u0078":1,"#;
    parsing(format!(r#"{{{}"event":"pusher:ping"}}"#, member.repeat(size / member.len())))
}

fn nested(size: usize) -> (usize, Run) {
    const LEVELS: usize = 400;
    let value = format!("{}{},", "[".repeat(LEVELS), "]".repeat(LEVELS));
    let values = value.repeat((size / value.len()).max(1));
    parsing(format!(r#"{{"event":"pusher:ping","data":[{values}1]}}"#))
}

fn numbers(size: usize) -> (usize, Run) {
    let list = "1e-99,".repeat(size / 6);
    parsing(format!(r#"{{"event":"pusher:ping","data":[{list}1]}}"#))
}

fn endless(size: usize) -> (usize, Run) {
    parsing(format!(r#"{{"event":"pusher:ping","data":"{}"#, r#"\""#.repeat(size / 2)))
}

fn encoded_twice(size: usize) -> (usize, Run) {
    let inner = format!(r#"{{{}"channel":"c"}}"#, r#""":1,"#.repeat(size / 8));
    parsing(json!({"event": "pusher:subscribe", "data": inner}).to_string())
}

/// A core with one connection, which sends these messages again and again.
fn saying(texts: impl Fn(&str) -> Vec<String>) -> (usize, Run) {
    let mut shard = shard_with(config_with(WIDEST));
    let key = connect(&mut shard, 1);
    let socket_id = shard.get(key).expect("a connection").socket_id.to_string();
    let texts = texts(&socket_id);
    let length = texts.iter().map(String::len).sum();
    let run = move || {
        for text in &texts {
            shard.on_message(key, black_box(text.as_bytes()));
        }
        flush(&mut shard);
        assert!(shard.get(key).is_some(), "the connection stays");
    };
    (length, Box::new(run))
}

fn message(event: &str, data: &Value) -> String {
    json!({"event": event, "data": data}).to_string()
}

fn signed(text: &str) -> String {
    let hex = signature::sign(&Secret::new("app-secret"), &[text.as_bytes()]);
    format!("app-key:{}", String::from_utf8_lossy(&hex))
}

fn wrong() -> String {
    format!("app-key:{}", "a".repeat(64))
}

fn long_name(size: usize) -> (usize, Run) {
    let name = "c".repeat(size);
    let texts = |_: &str| {
        let data = json!({"channel": name});
        vec![message("pusher:subscribe", &data), message("pusher:unsubscribe", &data)]
    };
    saying(texts)
}

fn cache_again(size: usize) -> (usize, Run) {
    let data = json!({"channel": format!("cache-{}", "c".repeat(size))});
    saying(|_| vec![message("pusher:subscribe", &data)])
}

fn wrong_name(size: usize) -> (usize, Run) {
    let data = json!({"channel": format!("private-{}", "c".repeat(size)), "auth": wrong()});
    saying(|_| vec![message("pusher:subscribe", &data)])
}

fn escaped(size: usize) -> String {
    format!(r#"{{{}"user_id":"7","id":"7"}}"#, r#""\n":1,"#.repeat(size / 10))
}

fn wrong_channel_data(size: usize) -> (usize, Run) {
    let text = escaped(size);
    let data = json!({"channel": "presence-c", "auth": wrong(), "channel_data": text});
    saying(|_| vec![message("pusher:subscribe", &data)])
}

/// The first is let in, the others are acknowledged again.
fn channel_data(size: usize) -> (usize, Run) {
    let text = escaped(size);
    let texts = |socket_id: &str| {
        let auth = signed(&format!("{socket_id}:presence-c:{text}"));
        let data = json!({"channel": "presence-c", "auth": auth, "channel_data": text});
        vec![message("pusher:subscribe", &data)]
    };
    saying(texts)
}

/// As many ids as are kept but one, and the last one again and again.
fn user_data(size: usize) -> String {
    let ids: Vec<String> = (0..inbound::WATCHLIST_MAX).map(|id| id.to_string()).collect();
    let again = "99,".repeat((size / 3).saturating_sub(100));
    format!(r#"{{"id":"7","watchlist":[{again}{}]}}"#, ids.join(","))
}

fn signing_in(text: &str, auth: impl Fn(&str) -> String) -> (usize, Run) {
    let texts = |socket_id: &str| {
        let data = json!({"auth": auth(socket_id), "user_data": text});
        vec![message("pusher:signin", &data)]
    };
    saying(texts)
}

fn wrong_watchlist(size: usize) -> (usize, Run) {
    signing_in(&user_data(size), |_| wrong())
}

fn wrong_user_data(size: usize) -> (usize, Run) {
    signing_in(&escaped(size), |_| wrong())
}

fn watchlist(size: usize) -> (usize, Run) {
    let text = user_data(size);
    signing_in(&text, |socket_id| signed(&format!("{socket_id}::user::{text}")))
}
