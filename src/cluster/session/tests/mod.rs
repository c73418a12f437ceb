//! A session against a Redis that sends what the test wants. What nodes make of each other is the simulator's to test.
//!
//! `commands` shows what the session sends, one text for each command: `PUBLISH n/news Event(one)#3` is an event with
//! its number on the topic of the channel `news`. `delivered` is what a subscriber of this node receives.

mod inbound;
mod outbound;
mod replay;

use std::sync::Arc;

use super::partition::HEARTBEAT_SECONDS;
use super::*;
use crate::app::{AppIndex, sample};
use crate::clock::Moment;
use crate::cluster::envelope::{self, Envelope, decode};
use crate::resp::Value;
use crate::shard::{
    ApiMessage, ChannelMessage, ConnectionKey, NodeId, NodeMessage, Replayed, Settings,
};
use crate::ws::frame;
use std::fmt;

const NODE: NodeId = NodeId(7);
const MASTER: &str = "%1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
const REPLICA: &str = "%1\r\n$4\r\nrole\r\n$7\r\nreplica\r\n";

/// Other sessions: of two other nodes, and of another core of this one.
const PEER: SessionId = SessionId { node: NodeId(9), core: 0 };
const THIRD: SessionId = SessionId { node: NodeId(3), core: 0 };
const SIBLING: SessionId = SessionId { node: NODE, core: 1 };

struct TestSession {
    session: ClusterSession,
    shard: Shard,
    client: Option<ConnectionKey>,
}

impl TestSession {
    fn new(login: Login) -> Self {
        let apps = Arc::new(Apps::new(vec![sample()]));
        let settings = Settings { node: Some(NODE), ..Settings::single_core(apps.clone()) };
        let shard = Shard::new(settings);
        let session =
            ClusterSession::new(SessionId { node: NODE, core: 0 }, "reverb", apps, login, 1_000);
        Self { session, shard, client: None }
    }

    fn up() -> Self {
        let mut session = Self::new(Login::default());
        session.open();
        session
    }

    /// A connection on which Redis answers all that is asked at first.
    fn open(&mut self) {
        self.session.open();
        self.answer(MASTER);
        self.sent();
        self.answer_all();
        self.sent();
        assert!(self.session.is_up());
    }

    fn answer(&mut self, reply: &str) {
        self.session.receive(reply.as_bytes(), &mut self.shard).unwrap();
        self.session.carry_out(&mut self.shard).unwrap();
    }

    /// Redis answers all that is asked: it is a master, and one session of another node receives what is published.
    fn answer_all(&mut self) {
        while let Some(awaited) = self.session.awaited.front() {
            let reply = if matches!(awaited, AwaitedReply::Role) { MASTER } else { ":2\r\n" };
            self.answer(reply);
        }
    }

    /// What was written since the last look.
    fn sent(&mut self) -> String {
        let sent = String::from_utf8_lossy(self.session.output()).into_owned();
        self.session.note_sent(self.session.output().len());
        sent
    }

    fn publish(&mut self, channel: &str, text: &str) {
        let key = self.shard.channel_key(AppIndex(0), channel).unwrap();
        self.shard.publish(key, frame::encode_text(text.as_bytes()).into(), None, true);
        self.session.carry_out(&mut self.shard).unwrap();
    }

    /// The last heartbeat to this session comes back.
    fn echo(&mut self) {
        let echoes = self.session.awaited.iter().filter_map(|awaited| match awaited {
            AwaitedReply::Echo { number } => Some(*number),
            _ => None,
        });
        if let Some(number) = echoes.max() {
            self.receive(self.session.own, number, SessionMessage::Heartbeat.into()).unwrap();
        }
    }

    /// A message of a session, on the topic of all.
    fn receive(&mut self, from: SessionId, number: u64, message: NodeMessage) -> Result<(), Lost> {
        self.receive_on("all", from, number, message, b"")
    }

    /// A message of a session on a topic without its prefix.
    fn receive_on(
        &mut self,
        topic: &str,
        from: SessionId,
        number: u64,
        message: NodeMessage,
        frame: &[u8],
    ) -> Result<(), Lost> {
        let payload = envelope::encode(Envelope { from, number, message }, frame);
        let topic = format!("reverb:rv1:{topic}");
        let head = format!(">3\r\n$7\r\nmessage\r\n${}\r\n{topic}\r\n", topic.len());
        let mut push = head.into_bytes();
        push.extend_from_slice(format!("${}\r\n", payload.len()).as_bytes());
        push.extend_from_slice(&payload);
        push.extend_from_slice(b"\r\n");
        self.session.receive(&push, &mut self.shard)?;
        self.session.carry_out(&mut self.shard)
    }

    /// An event that another session has published to `news`.
    fn receive_event(&mut self, from: SessionId, number: u64, text: &str) {
        let message = ChannelMessage::Event { except: None, cache: false };
        let frame = frame::encode_text(text.as_bytes());
        self.receive_on("c:1001:news", from, number, message.into(), &frame).unwrap();
    }

    /// A replayed event of `news`, and the end of a replay.
    fn receive_replay(&mut self, from: SessionId, number: u64, text: &str) {
        let what = Replayed::Event { except: None, cache: false };
        let (app, channel) = ("1001".into(), "news".into());
        let message = SessionMessage::Replay { number, app, channel, what };
        let frame = frame::encode_text(text.as_bytes());
        self.receive_on("all", from, 1_000, message.into(), &frame).unwrap();
    }

    fn receive_replay_done(&mut self, from: SessionId) {
        self.receive(from, 1_000, SessionMessage::ReplayDone.into()).unwrap();
    }

    /// A connection of this node subscribes to `news`.
    fn subscribe(&mut self) {
        self.subscribe_to("news");
        assert!(self.delivered().ends_with(&["subscription_succeeded".to_owned()]));
    }

    fn subscribe_to(&mut self, channel: &str) {
        let app = AppIndex(0);
        assert!(self.session.apps.get(app).try_count_connection());
        let key = self.shard.open(app, 7, b"");
        self.client = Some(key);
        let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
        self.shard.on_message(key, text.as_bytes());
        self.session.carry_out(&mut self.shard).unwrap();
        self.answer_all();
        self.sent();
    }

    /// What the subscriber has received since the last look: events by their name or text.
    fn delivered(&mut self) -> Vec<String> {
        let slot = self.client.unwrap().slot;
        let _ = self.shard.unmark_dirty(slot);
        let mut bytes = Vec::new();
        self.shard.send_queue(slot).unwrap().copy_to(&mut bytes, usize::MAX);
        self.shard.on_sent(slot, bytes.len(), false);
        let mut rest = bytes.as_slice();
        let mut received = Vec::new();
        while !rest.is_empty() {
            let length = match rest[1] {
                126 => usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 4,
                127 => {
                    let length = u64::from_be_bytes(rest[2..10].try_into().unwrap());
                    usize::try_from(length).unwrap() + 10
                }
                short => usize::from(short) + 2,
            };
            let (frame, behind) = rest.split_at(length);
            let text = String::from_utf8_lossy(frame::server_payload(frame)).into_owned();
            let known = ["subscription_succeeded", "connection_established"];
            let name = known.into_iter().find(|name| text.contains(name));
            received.push(name.map_or(text, str::to_owned));
            rest = behind;
        }
        received
    }

    /// The session is lost, and the next one is up.
    fn reconnect(&mut self) {
        self.session.close(&mut self.shard);
        self.session.open();
        self.answer(MASTER);
    }

    /// The commands that were sent since the last look, but for `HELLO` and the topics of every new session.
    fn commands(&mut self) -> Vec<String> {
        let mut reader = Reader::default();
        reader.push(self.session.output());
        let mut commands = Vec::new();
        while let Some(Value::List(parts)) = reader.next().unwrap() {
            commands.push(shown_command(&parts));
        }
        self.session.note_sent(self.session.output().len());
        let of_all = ["HELLO 3", "SUBSCRIBE session/7:0", "SUBSCRIBE all", "SUBSCRIBE ask"];
        commands.retain(|command| !of_all.contains(&command.as_str()));
        commands
    }

    fn advance(&mut self) -> Result<(), Lost> {
        self.shard.advance(Moment(self.shard.now().0 + 1_000));
        self.session.advance(1_001, true, &mut self.shard)
    }
}

/// A command with its topic or key, without the names' prefix, and the message that it publishes.
fn shown_command(parts: &[Value]) -> String {
    let text = |at: usize| match parts.get(at) {
        Some(Value::Bytes(bytes)) => bytes.as_slice(),
        _ => b"",
    };
    let name = |at| {
        let name = String::from_utf8_lossy(text(at));
        let name = name.strip_prefix("reverb:rv1:").unwrap_or(&name);
        let name = name.replace("c:1001:", "n/").replace("cache:1001:", "key/");
        name.replace("link:000000000000000", "session/")
    };
    match text(0) {
        b"PUBLISH" => format!("PUBLISH {} {}", name(1), shown_payload(text(2))),
        b"EVAL" => format!("EVAL {} {} {}", name(3), name(7), shown_payload(text(8))),
        command => format!("{} {}", String::from_utf8_lossy(command), name(1)),
    }
}

fn shown_payload(payload: &[u8]) -> String {
    let (Envelope { number, message, .. }, frame) = decode(payload).unwrap();
    let text = String::from_utf8_lossy(frame::server_payload(frame)).into_owned();
    let what = match message {
        NodeMessage::Channel(ChannelMessage::Event { .. }) => format!("Event({text})"),
        NodeMessage::Session(SessionMessage::Replay { number, what, .. }) => match what {
            Replayed::Event { .. } => format!("Replay({text}#{number})"),
            Replayed::Terminate { user_id, .. } => format!("Replay(terminate {user_id}#{number})"),
            Replayed::EndAccess { action, .. } => format!("Replay({action:?}#{number})"),
        },
        NodeMessage::Session(SessionMessage::ReplayRequest { away_seconds, received }) => {
            let mut received: Vec<String> = received
                .iter()
                .map(|(session, number)| format!("{}/{}#{number}", session.node.0, session.core))
                .collect();
            received.sort();
            format!("ReplayRequest({away_seconds} s, {})", received.join(" "))
        }
        NodeMessage::Channel(message) => word(&message),
        NodeMessage::Session(message) => word(&message),
        NodeMessage::Api(ApiMessage::Answer { id, answers }) => {
            format!("Answer({id}, {})", answers.len())
        }
        NodeMessage::Api(message) => word(&message),
    };
    format!("{what}#{number}")
}

/// The name of a variant.
fn word(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

fn order(sent: &str, texts: &[&str]) {
    let places: Vec<_> = texts.iter().map(|text| sent.find(text).expect(text)).collect();
    assert!(places.is_sorted(), "{texts:?} in {sent}");
    assert!(texts.iter().all(|text| sent.matches(text).count() == 1), "once each: {sent}");
}

#[test]
fn the_password_is_sent_to_redis_only() {
    let login = Login { username: Some("ring".to_owned()), password: Some(Secret::new("pa55")) };
    let mut session = TestSession::new(login);
    session.session.open();
    assert!(session.sent().ends_with("AUTH\r\n$4\r\nring\r\n$4\r\npa55\r\n"));
    let refused =
        session.session.receive(b"-WRONGPASS invalid\r\n", &mut session.shard).unwrap_err();
    assert_eq!(refused, Lost::Refused("WRONGPASS invalid".to_owned()));
    let text = refused.to_string();
    assert!(text.contains("REDIS_PASSWORD") && !text.contains("pa55"), "{text}");
}

#[test]
fn unconfirmed_messages_are_retransmitted_in_order() {
    let mut session = TestSession::up();
    ["one", "two"].iter().for_each(|text| session.publish("news", text));
    order(&session.sent(), &["one", "two"]);
    session.answer(":0\r\n");
    session.session.close(&mut session.shard);
    session.publish("news", "three");
    assert_eq!(session.sent(), "", "there is no line");
    session.session.open();
    session.sent();
    session.answer(MASTER);
    let sent = session.sent();
    order(&sent, &["two", "three"]);
    assert!(!sent.contains("one"), "{sent}");
}

#[test]
fn the_oldest_kept_messages_are_discarded_and_counted_over_the_limit() {
    let mut session = TestSession::up();
    session.session.close(&mut session.shard);
    let text = "x".repeat(1 << 20);
    (0..20).for_each(|number| session.publish("news", &format!("{number}-{text}")));
    assert_eq!(session.session.dropped_events, 5, "16 MiB, and a little for the commands");
    session.session.open();
    session.sent();
    session.answer(MASTER);
    let sent = session.sent();
    let is_there = |number: usize| sent.matches(&format!("{number}-x")).count();
    assert_eq!((is_there(19), is_there(5)), (1, 2), "5 and 15");
    assert_eq!(is_there(4), 1, "14, but not 4");
}

#[test]
fn a_silent_redis_is_left_and_a_busy_one_is_not() {
    let mut session = TestSession::up();
    for _ in 0..20 {
        session.advance().unwrap();
        session.echo();
        session.answer_all();
    }
    session.publish("news", "e");
    let silent = (0..=SILENT_SECONDS).find_map(|_| session.advance().err());
    assert_eq!(silent, Some(Lost::Silent));
}

#[test]
fn a_session_ends_when_the_server_is_no_redis() {
    for bytes in ["HTTP/1.1 400 Bad Request\r\n\r\n", ":1\r\n:1\r\n", ">0\r\n"] {
        let mut session = TestSession::new(Login::default());
        session.session.open();
        let lost = session.session.receive(bytes.as_bytes(), &mut session.shard);
        assert_eq!(lost, Err(Lost::Malformed), "{bytes:?}");
    }
}

#[test]
fn an_event_is_published_without_being_stored_where_redis_has_no_room() {
    let mut session = TestSession::up();
    session.publish("cache-a", "event");
    assert!(session.sent().contains("EVAL"));
    session.answer("-OOM command not allowed\r\n");
    let sent = session.sent();
    assert!(sent.contains("PUBLISH") && sent.contains("event"), "{sent}");
    assert!(
        session.session.notes.iter().any(|note| note.contains("OOM")),
        "{:?}",
        session.session.notes
    );
}

#[test]
fn messages_that_no_node_sends_are_logged_and_dropped() {
    let mut session = TestSession::up();
    for payload in ["", "garbage", "\0\0\0\0"] {
        let length = payload.len();
        let push =
            format!(">3\r\n$7\r\nmessage\r\n$14\r\nreverb:rv1:all\r\n${length}\r\n{payload}\r\n");
        session.answer(&push);
    }
    assert_eq!(session.session.notes.len(), 3);
    assert_eq!(session.sent(), "");
}

#[test]
fn a_server_that_is_no_master_is_refused_at_the_first_word() {
    for (reply, shown) in [(REPLICA, "replica"), ("%0\r\n", "unknown")] {
        let mut session = TestSession::new(Login::default());
        session.session.open();
        let lost = session.session.receive(reply.as_bytes(), &mut session.shard).unwrap_err();
        assert_eq!(lost, Lost::NotMaster(shown.to_owned()));
        assert!(!session.session.is_up() && lost.to_string().contains("REDIS_HOST"), "{lost}");
    }
}

#[test]
fn a_session_ends_within_two_heartbeats_when_its_master_becomes_a_replica() {
    let mut session = TestSession::up();
    for _ in 0..HEARTBEAT_SECONDS {
        session.advance().unwrap();
    }
    assert!(session.sent().contains("HELLO"));
    assert!(matches!(session.session.awaited.front(), Some(AwaitedReply::Role)));
    let lost = session.session.receive(REPLICA.as_bytes(), &mut session.shard);
    assert_eq!(lost, Err(Lost::NotMaster("replica".to_owned())));
}

/// The script's own answer, and those of servers that refuse the script.
#[test]
fn messages_that_a_replica_refuses_are_retransmitted_to_the_master() {
    for error in [
        "$52\r\nREADONLY You can't write against a read only replica\r\n",
        "-READONLY You can't write against a read only replica. script: f, on @user_script:1.\r\n",
        "-ERR Error running script (call to f): -READONLY You can't write against a read only replica.\r\n",
    ] {
        let mut session = TestSession::up();
        session.publish("cache-a", "event");
        session.sent();
        let lost = session.session.receive(error.as_bytes(), &mut session.shard).unwrap_err();
        assert!(matches!(lost, Lost::NotMaster(_)), "{lost:?}");
        session.session.close(&mut session.shard);
        session.session.open();
        session.sent();
        session.answer(MASTER);
        assert!(session.sent().contains("event"));
    }
}

#[test]
fn heartbeats_that_do_not_come_back_end_the_session() {
    let mut session = TestSession::up();
    let mut lost = None;
    for second in 0..6 {
        session.advance().unwrap();
        if second < 2 {
            session.echo();
        }
        while let (Some(awaited), None) = (session.session.awaited.front(), &lost) {
            let reply = if matches!(awaited, AwaitedReply::Role) { MASTER } else { ":2\r\n" };
            lost = session.session.receive(reply.as_bytes(), &mut session.shard).err();
        }
    }
    assert_eq!(lost, Some(Lost::NoEcho));
}

/// How the session ends when its heartbeats reach itself only, and these messages of another node arrive, in the
/// seconds from the first on.
fn outcome_of(received: &[Option<SessionMessage>]) -> Option<Lost> {
    let mut session = TestSession::up();
    for (message, number) in received.iter().zip(1..) {
        session.advance().unwrap();
        session.echo();
        while let Some(awaited) = session.session.awaited.front() {
            let reply = if matches!(awaited, AwaitedReply::Role) { MASTER } else { ":1\r\n" };
            session.answer(reply);
        }
        if let Some(message) = message
            && let Err(lost) = session.receive(PEER, number, message.clone().into())
        {
            return Some(lost);
        }
    }
    None
}

#[test]
fn a_session_that_receives_others_and_reaches_none_ends() {
    let alive = || Some(SessionMessage::Heartbeat);
    assert_eq!(outcome_of(&[alive(), alive(), alive()]), Some(Lost::OneWay));
    assert_eq!(outcome_of(&[alive(), None, None, None, None]), None, "the other one has died");
    let back = [alive(), None, None, None, Some(SessionMessage::SessionUp), alive()];
    assert_eq!(outcome_of(&back), None, "and has come back after the last heartbeat");
}

#[test]
fn topics_that_are_left_before_they_were_sent_are_never_sent() {
    let mut session = TestSession::up();
    session.session.set_limits(SessionLimits { topics_in_flight: 2, topics_waiting: 3 });
    let app = AppIndex(0);
    assert!(session.session.apps.get(app).try_count_connection());
    let key = session.shard.open(app, 7, b"");
    let send = |session: &mut TestSession, event: &str, channel: &str| {
        let text = format!(r#"{{"event":"pusher:{event}","data":{{"channel":"{channel}"}}}}"#);
        session.shard.on_message(key, text.as_bytes());
        session.session.carry_out(&mut session.shard).unwrap();
    };
    for number in 0..6 {
        send(&mut session, "subscribe", &format!("n{number}"));
    }
    let sent = session.sent();
    assert_eq!(sent.matches("SUBSCRIBE").count(), 2, "two are under way: {sent}");
    assert!(session.session.is_congested(&session.shard), "four wait");
    for number in 2..6 {
        send(&mut session, "unsubscribe", &format!("n{number}"));
    }
    assert!(!session.session.is_congested(&session.shard));
    session.answer(">3\r\n$9\r\nsubscribe\r\n$2\r\nn0\r\n:3\r\n");
    assert_eq!(session.sent(), "", "none of them is needed");
    assert_eq!(session.shard.cluster_entries().0, 2);
    send(&mut session, "subscribe", "n9");
    assert!(session.sent().contains("n9"));
}
