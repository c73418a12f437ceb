//! A line against a Redis that says what the test wants. What nodes make of each other is the simulator's.

use std::sync::Arc;

use super::partition::HEARTBEAT_BEATS;
use super::*;
use crate::app::{AppIndex, sample};
use crate::clock::Moment;
use crate::shard::{NodeId, Settings};
use crate::ws::frame;

const NODE: NodeId = NodeId(7);
const MASTER: &str = "%1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
const REPLICA: &str = "%1\r\n$4\r\nrole\r\n$7\r\nreplica\r\n";

struct Line {
    link: Link,
    shard: Shard,
}

impl Line {
    fn new(login: Login) -> Self {
        let apps = Arc::new(Apps::new(vec![sample()]));
        let settings = Settings { node: Some(NODE), ..Settings::alone(apps.clone()) };
        let shard = Shard::new(settings);
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
        self.answer(MASTER);
        self.said();
        self.answer_all();
        self.said();
        assert!(self.link.is_up());
    }

    fn answer(&mut self, reply: &str) {
        self.link.receive(reply.as_bytes(), &mut self.shard).unwrap();
        self.link.carry_out(&mut self.shard).unwrap();
    }

    /// Redis answers all that is asked: it is a master, and one session of another node hears what is published.
    fn answer_all(&mut self) {
        while let Some(due) = self.link.due.front() {
            let reply = if matches!(due, Due::Role) { MASTER } else { ":2\r\n" };
            self.answer(reply);
        }
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

    /// The last heartbeat to this session comes back.
    fn echo(&mut self) {
        let echoes = self.link.due.iter().filter_map(|due| match due {
            Due::Echo { number } => Some(*number),
            _ => None,
        });
        if let Some(number) = echoes.max() {
            self.hear(self.link.own, number, Body::Alive).unwrap();
        }
    }

    /// A message of a session, on the topic of all.
    fn hear(&mut self, from: LinkId, number: u64, body: Body) -> Result<(), Lost> {
        let payload = envelope::encode(&envelope::Envelope { from, number, body }, b"");
        let mut push =
            format!(">3\r\n$7\r\nmessage\r\n$14\r\nreverb:rv1:all\r\n${}\r\n", payload.len())
                .into_bytes();
        push.extend_from_slice(&payload);
        push.extend_from_slice(b"\r\n");
        self.link.receive(&push, &mut self.shard)?;
        self.link.carry_out(&mut self.shard)
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
    line.answer(MASTER);
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
    line.answer(MASTER);
    let said = line.said();
    let is_there = |number: usize| said.matches(&format!("{number}-x")).count();
    assert_eq!((is_there(19), is_there(5)), (1, 2), "5 and 15");
    assert_eq!(is_there(4), 1, "14, but not 4");
}

#[test]
fn a_silent_redis_is_left_and_a_busy_one_is_not() {
    let mut line = Line::up();
    // Nothing is asked but the role and the heartbeats, which are answered and come back.
    for _ in 0..20 {
        line.beat().unwrap();
        line.echo();
        line.answer_all();
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

const PEER: LinkId = LinkId { node: NodeId(9), core: 0 };

#[test]
fn a_server_that_is_no_master_is_refused_at_the_first_word() {
    for (reply, shown) in [(REPLICA, "replica"), ("%0\r\n", "unknown")] {
        let mut line = Line::new(Login::default());
        line.link.open();
        let lost = line.link.receive(reply.as_bytes(), &mut line.shard).unwrap_err();
        assert_eq!(lost, Lost::NotMaster(shown.to_owned()));
        assert!(!line.link.is_up() && lost.to_string().contains("REDIS_HOST"), "{lost}");
    }
}

#[test]
fn a_master_that_becomes_a_replica_is_left_within_two_beats() {
    let mut line = Line::up();
    for _ in 0..HEARTBEAT_BEATS {
        line.beat().unwrap();
    }
    assert!(line.said().contains("HELLO"));
    assert!(matches!(line.link.due.front(), Some(Due::Role)));
    let lost = line.link.receive(REPLICA.as_bytes(), &mut line.shard);
    assert_eq!(lost, Err(Lost::NotMaster("replica".to_owned())));
}

/// The script's own answer, and those of servers that refuse the script.
#[test]
fn what_a_replica_does_not_store_is_sent_again_to_the_master() {
    for error in [
        "$52\r\nREADONLY You can't write against a read only replica\r\n",
        "-READONLY You can't write against a read only replica. script: f, on @user_script:1.\r\n",
        "-ERR Error running script (call to f): -READONLY You can't write against a read only replica.\r\n",
    ] {
        let mut line = Line::up();
        line.publish("cache-a", "event");
        line.said();
        let lost = line.link.receive(error.as_bytes(), &mut line.shard).unwrap_err();
        assert!(matches!(lost, Lost::NotMaster(_)), "{lost:?}");
        line.link.close(&mut line.shard);
        line.link.open();
        line.said();
        line.answer(MASTER);
        assert!(line.said().contains("event"));
    }
}

#[test]
fn heartbeats_that_do_not_come_back_end_the_session() {
    let mut line = Line::up();
    let mut lost = None;
    for beat in 0..6 {
        line.beat().unwrap();
        if beat < 2 {
            line.echo();
        }
        while let (Some(due), None) = (line.link.due.front(), &lost) {
            let reply = if matches!(due, Due::Role) { MASTER } else { ":2\r\n" };
            lost = line.link.receive(reply.as_bytes(), &mut line.shard).err();
        }
    }
    assert_eq!(lost, Some(Lost::NoEcho));
}

/// How the session ends when its heartbeats are heard by itself alone, and these are heard of another node, in the
/// beats from the first on.
fn unheard(heard: &[Option<Body>]) -> Option<Lost> {
    let mut line = Line::up();
    for (body, number) in heard.iter().zip(1..) {
        line.beat().unwrap();
        line.echo();
        while let Some(due) = line.link.due.front() {
            let reply = if matches!(due, Due::Role) { MASTER } else { ":1\r\n" };
            line.answer(reply);
        }
        if let Some(body) = body
            && let Err(lost) = line.hear(PEER, number, body.clone())
        {
            return Some(lost);
        }
    }
    None
}

#[test]
fn a_node_that_hears_others_and_is_heard_by_none_notices() {
    let alive = || Some(Body::Alive);
    assert_eq!(unheard(&[alive(), alive(), alive()]), Some(Lost::Unheard));
    assert_eq!(unheard(&[alive(), None, None, None, None]), None, "the other one has died");
    let back = [alive(), None, None, None, Some(Body::LineUp), alive()];
    assert_eq!(unheard(&back), None, "and has come back behind the last heartbeat");
}

#[test]
fn topics_that_are_left_before_they_were_sent_are_never_sent() {
    let mut line = Line::up();
    line.link.limit(LinkLimits { topics_in_flight: 2, topics_waiting: 3 });
    let app = AppIndex(0);
    assert!(line.link.apps.get(app).admit());
    let key = line.shard.open(app, 7, b"");
    let send = |line: &mut Line, event: &str, channel: &str| {
        let text = format!(r#"{{"event":"pusher:{event}","data":{{"channel":"{channel}"}}}}"#);
        line.shard.on_message(key, text.as_bytes());
        line.link.carry_out(&mut line.shard).unwrap();
    };
    for number in 0..6 {
        send(&mut line, "subscribe", &format!("n{number}"));
    }
    let said = line.said();
    assert_eq!(said.matches("SUBSCRIBE").count(), 2, "two are under way: {said}");
    assert!(line.link.is_congested(&line.shard), "four wait");
    for number in 2..6 {
        send(&mut line, "unsubscribe", &format!("n{number}"));
    }
    assert!(!line.link.is_congested(&line.shard));
    line.answer(">3\r\n$9\r\nsubscribe\r\n$2\r\nn0\r\n:3\r\n");
    assert_eq!(line.said(), "", "none of them is needed");
    assert_eq!(line.shard.cluster_entries().0, 2);
    send(&mut line, "subscribe", "n9");
    assert!(line.said().contains("n9"));
}
