//! A line against a Redis that says what the test wants. What nodes make of each other is the simulator's.

use std::sync::Arc;

use super::*;
use crate::app::{AppIndex, sample};
use crate::clock::Moment;
use crate::shard::{MemoryLimits, NodeId, Settings};
use crate::ws::frame;

const NODE: NodeId = NodeId(7);

struct Line {
    link: Link,
    shard: Shard,
}

impl Line {
    fn new(login: Login) -> Self {
        let apps = Arc::new(Apps::new(vec![sample()]));
        let shard = Shard::new(Settings {
            core: 0,
            cores: 1,
            apps: apps.clone(),
            channel_hash_seed: 7,
            memory: MemoryLimits { send_queue_bytes_max: 1 << 20, connection_bytes_max: 2 << 20 },
            connections_reserved: 0,
            cache_bytes_max: 1 << 20,
            talkative: false,
            debug: false,
            node: Some(NODE),
            webhook_linger_seconds: 0,
        });
        let link = Link::new(LinkId { node: NODE, core: 0 }, "reverb", apps, login, 1_000);
        Self { link, shard }
    }

    fn up() -> Self {
        let mut line = Self::new(Login::default());
        line.open();
        line
    }

    /// A connection on which Redis answers all that is asked at first.
    fn open(&mut self) {
        self.link.open();
        self.answer("%0\r\n");
        self.said();
        while !self.link.due.is_empty() {
            self.answer(":1\r\n");
        }
        self.said();
        assert!(self.link.is_up());
    }

    fn answer(&mut self, reply: &str) {
        self.link.receive(reply.as_bytes(), &mut self.shard).unwrap();
        self.link.carry_out(&mut self.shard).unwrap();
    }

    /// What was written since the last look.
    fn said(&mut self) -> String {
        let said = String::from_utf8_lossy(self.link.output()).into_owned();
        self.link.note_sent(self.link.output().len());
        said
    }

    fn publish(&mut self, channel: &str, text: &str) {
        let key = self.shard.channel_key(AppIndex(0), channel).unwrap();
        self.shard.publish(key, frame::encode_text(text.as_bytes()).into(), None, true);
        self.link.carry_out(&mut self.shard).unwrap();
    }

    fn beat(&mut self) -> Result<(), Lost> {
        self.shard.advance(Moment(self.shard.now().0 + 1_000));
        self.link.beat(1_001, true, &mut self.shard)
    }
}

fn order(said: &str, texts: &[&str]) {
    let places: Vec<_> = texts.iter().map(|text| said.find(text).expect(text)).collect();
    assert!(places.is_sorted(), "{texts:?} in {said}");
    assert!(texts.iter().all(|text| said.matches(text).count() == 1), "once each: {said}");
}

#[test]
fn a_password_is_given_to_redis_and_to_nobody_else() {
    let login = Login { username: Some("ring".to_owned()), password: Some(Secret::new("pa55")) };
    let mut line = Line::new(login);
    line.link.open();
    assert!(line.said().ends_with("AUTH\r\n$4\r\nring\r\n$4\r\npa55\r\n"));
    let refused = line.link.receive(b"-WRONGPASS invalid\r\n", &mut line.shard).unwrap_err();
    assert_eq!(refused, Lost::Refused("WRONGPASS invalid".to_owned()));
    let text = refused.to_string();
    assert!(text.contains("REDIS_PASSWORD") && !text.contains("pa55"), "{text}");
}

#[test]
fn what_redis_has_not_confirmed_is_said_again_and_in_order() {
    let mut line = Line::up();
    ["one", "two"].iter().for_each(|text| line.publish("news", text));
    order(&line.said(), &["one", "two"]);
    line.answer(":0\r\n");
    line.link.close(&mut line.shard);
    line.publish("news", "three");
    assert_eq!(line.said(), "", "there is no line");
    line.link.open();
    line.said();
    line.answer("%0\r\n");
    let said = line.said();
    order(&said, &["two", "three"]);
    assert!(!said.contains("one"), "{said}");
}

#[test]
fn what_waits_too_long_goes_from_the_front_and_is_counted() {
    let mut line = Line::up();
    line.link.close(&mut line.shard);
    let text = "x".repeat(1 << 20);
    (0..20).for_each(|number| line.publish("news", &format!("{number}-{text}")));
    assert_eq!(line.link.dropped, 5, "16 MiB, and a little for the commands");
    line.link.open();
    line.said();
    line.answer("%0\r\n");
    let said = line.said();
    let is_there = |number: usize| said.matches(&format!("{number}-x")).count();
    assert_eq!((is_there(19), is_there(5)), (1, 2), "5 and 15");
    assert_eq!(is_there(4), 1, "14, but not 4");
}

#[test]
fn a_silent_redis_is_left_and_a_busy_one_is_not() {
    let mut line = Line::up();
    // Nothing is asked but the signs of life and pings, which are answered.
    for _ in 0..20 {
        line.beat().unwrap();
        while !line.link.due.is_empty() {
            line.answer("+PONG\r\n");
        }
    }
    line.publish("news", "e");
    let silent = (0..=SILENT_BEATS).find_map(|_| line.beat().err());
    assert_eq!(silent, Some(Lost::Silent));
}

#[test]
fn what_is_no_redis_is_left() {
    for bytes in ["HTTP/1.1 400 Bad Request\r\n\r\n", ":1\r\n:1\r\n", ">0\r\n"] {
        let mut line = Line::new(Login::default());
        line.link.open();
        let lost = line.link.receive(bytes.as_bytes(), &mut line.shard);
        assert_eq!(lost, Err(Lost::Malformed), "{bytes:?}");
    }
}

#[test]
fn an_event_is_published_without_being_stored_where_redis_has_no_room() {
    let mut line = Line::up();
    line.publish("cache-a", "event");
    assert!(line.said().contains("EVAL"));
    line.answer("-OOM command not allowed\r\n");
    let said = line.said();
    assert!(said.contains("PUBLISH") && said.contains("event"), "{said}");
    assert!(line.link.notes.iter().any(|note| note.contains("OOM")), "{:?}", line.link.notes);
}

#[test]
fn what_no_node_says_is_noted_and_dropped() {
    let mut line = Line::up();
    for payload in ["", "garbage", "\0\0\0\0"] {
        let length = payload.len();
        let push =
            format!(">3\r\n$7\r\nmessage\r\n$14\r\nreverb:rv1:all\r\n${length}\r\n{payload}\r\n");
        line.answer(&push);
    }
    assert_eq!(line.link.notes.len(), 3);
    assert_eq!(line.said(), "");
}
