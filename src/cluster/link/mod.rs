//! One core's line to Redis: what was asked and is not answered, what must be said again, who was heard. PURE.

mod absence;
mod inbound;
mod outbound;
mod partition;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use absence::Absence;
use hashbrown::HashMap;
use partition::{Partition, check_role, is_readonly};

use super::catch_up::CatchUp;
use super::envelope;
use super::recent::Recent;
use super::subject::Names;
use crate::app::{Apps, Secret};
use crate::buffer::FrameBytes;
use crate::pusher::socket_id::SocketId;
use crate::resp::{self, Reader, Value};
use crate::shard::{Body, ChannelKey, LinkId, Question, Shard};
use crate::text::shown;

/// Bytes of events that wait for a line, or for Redis to confirm them.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Unsent bytes over which Redis counts as gone.
const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// Unsent bytes up to which topics are subscribed and announced.
const ANNOUNCE_BYTES_MAX: usize = 64 << 10;
/// Unsent bytes over which clients that cause more traffic have to wait.
const CONGESTED_BYTES: usize = 100 << 10;
/// Beats without a word of Redis, while something is to be answered.
const SILENT_BEATS: u32 = 5;
/// Unsent bytes over which a peer's request for retransmission is answered without any.
const RETRANSMIT_BYTES_MAX: usize = 32 << 20;
/// Links whose numbers are remembered; all are forgotten over that, which at worst repeats an event.
const HEARD_MAX: usize = 100_000;
/// Beats after which a link that says nothing is forgotten.
const HEARD_BEATS_MAX: u32 = 3_600;
/// What is repeated goes back as much further than the line was away: beats are rough.
const REPEAT_MARGIN_BEATS: u32 = 3;
/// Characters of a text of Redis in a note.
const QUOTED_MAX: usize = 200;
/// Notes kept until the caller takes them.
const NOTES_MAX: usize = 16;

/// Stores an event and publishes it at once: between the two a new subscriber would be told what is stored, and then
/// hear it. Not twice: said again after a lost line, it would undo what others have stored since. A script, because
/// Redis 7.0 writes what a transaction publishes to its own line into the transaction's reply. What cannot be stored is
/// published all the same, in the order of its number, and answered with the reason: sent again later, its number would
/// be an old one to whoever has heard a newer one meanwhile.
const STORE_AND_PUBLISH: &[u8] = b"\
    if tonumber(redis.call('GET',KEYS[2]) or '0')>=tonumber(ARGV[5]) then return 0 end \
    local r=redis.pcall('SET',KEYS[2],ARGV[5],'EX',3600) \
    if not r.err then r=redis.pcall('SET',KEYS[1],ARGV[1],'EX',ARGV[2]) end \
    local n=redis.call('PUBLISH',ARGV[3],ARGV[4]) \
    return r.err or n";

/// Limits of a session. The simulator has smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct LinkLimits {
    /// SUBSCRIBE and UNSUBSCRIBE that Redis has not confirmed. What Redis works off between two of our events, and what
    /// it may have to send us at once.
    pub topics_in_flight: usize,
    /// Topics that wait to be subscribed over which clients that cause more have to wait.
    pub topics_waiting: usize,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self { topics_in_flight: 4_096, topics_waiting: 1_024 }
    }
}

/// How to log in.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub username: Option<String>,
    pub password: Option<Secret>,
}

/// Why a line is no good any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Redis does not let us in.
    Refused(String),
    Silent,
    /// What it says is no RESP, or no answer to what was asked.
    Malformed,
    TooSlow,
    /// It is no master, or no more: what is published on a replica reaches nobody beyond it.
    NotMaster(String),
    /// What this session publishes does not come back on the topic that it is subscribed to itself.
    NoEcho,
    /// Other nodes are heard, and none of them hears this one.
    Unheard,
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(
                formatter,
                "it answered {}; Redis 6 or Valkey is needed, and REDIS_USERNAME and REDIS_PASSWORD must be \
                 those of a user who may use pub/sub, GET, SET and EVAL",
                shown(error)
            ),
            Self::Silent => write!(formatter, "it has not answered for {SILENT_BEATS} seconds"),
            Self::Malformed => formatter.write_str("it does not speak as Redis does"),
            Self::TooSlow => formatter.write_str("it does not take what it is sent fast enough"),
            Self::NotMaster(role) => write!(
                formatter,
                "its role is {role:?}, not master: what a node publishes there reaches no other node. After a failover \
                 REDIS_HOST must lead to the new master"
            ),
            Self::NoEcho => formatter.write_str(
                "a heartbeat published there did not come back on its topic: PUBLISH and SUBSCRIBE do not reach the \
                 same server. REDIS_HOST must lead to one master",
            ),
            Self::Unheard => formatter.write_str(
                "heartbeats published there reach no other node, although other nodes are heard: a one-way partition. \
                 REDIS_HOST must lead all nodes to the same master",
            ),
        }
    }
}

/// A command that Redis has not answered.
#[derive(Debug)]
enum Due {
    Hello,
    /// `HELLO` again: is it still the master?
    Role,
    /// A heartbeat to the first session of each node, of which this is one.
    Heartbeat,
    /// A heartbeat to this session alone, with its number.
    Echo {
        number: u64,
    },
    /// Nothing hangs on its answer.
    Done,
    /// `UNSUBSCRIBE`.
    LetGo,
    /// It tells where in Redis's order an edge is.
    Edge,
    Held {
        channel: ChannelKey,
        ticket: u32,
    },
    Synced {
        channel: ChannelKey,
        ticket: u32,
    },
    Fetched {
        channel: ChannelKey,
        ticket: u32,
    },
    Asked {
        id: u32,
    },
    CaughtUp,
    /// A command that is said again on the next line if this one is lost.
    Kept(Kept),
}

/// A command that must reach Redis, on this line or on a later one.
#[derive(Debug)]
struct Kept {
    bytes: Box<[u8]>,
    /// The event it stores, to be published without that, should Redis have no room for it.
    stores: Option<(ChannelKey, FrameBytes, Option<SocketId>)>,
}

/// A sender's newest number, and when it came.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    number: u64,
    beat: u32,
    /// What `Partition::unheard` was when it was first heard on its present connection and ours. `None`: it was not.
    since_unheard: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    /// `HELLO` is not answered.
    Greeting,
    Up,
}

pub struct Link {
    own: LinkId,
    names: Names,
    apps: Arc<Apps>,
    login: Login,
    state: State,
    /// The number of the last envelope.
    number: u64,
    output: Vec<u8>,
    /// How much of it was sent.
    sent: usize,
    reader: Reader,
    due: VecDeque<Due>,
    /// What waits for a line.
    backlog: VecDeque<Kept>,
    /// Bytes of `backlog` and of what is kept in `due`.
    kept_bytes: usize,
    /// Channels whose event was dropped before it was stored.
    unstored: Vec<ChannelKey>,
    /// The newest of each link.
    heard: HashMap<LinkId, Heard, foldhash::fast::FixedState>,
    recent: Recent,
    catch_up: CatchUp,
    absence: Absence,
    /// Beats since the start, those of this line, and those since Redis said something.
    clock: u32,
    beats: u32,
    silent_beats: u32,
    unix_seconds: u64,
    limits: LinkLimits,
    /// Unanswered SUBSCRIBE and UNSUBSCRIBE of channels.
    topics_in_flight: usize,
    partition: Partition,
    questions: Vec<(LinkId, u32, Option<Question>)>,
    /// Events that found no room since the last look.
    pub dropped: u64,
    /// What the log should say.
    pub notes: Vec<String>,
}

impl Link {
    /// `prefix` is what all names in Redis start with; `unix_seconds` is now.
    #[must_use]
    pub fn new(
        own: LinkId,
        prefix: &str,
        apps: Arc<Apps>,
        login: Login,
        unix_seconds: u64,
    ) -> Self {
        Self {
            own,
            names: Names::new(prefix),
            apps,
            login,
            state: State::Down,
            number: 0,
            output: Vec::new(),
            sent: 0,
            reader: Reader::default(),
            due: VecDeque::new(),
            backlog: VecDeque::new(),
            kept_bytes: 0,
            unstored: Vec::new(),
            heard: HashMap::default(),
            recent: Recent::default(),
            catch_up: CatchUp::default(),
            absence: Absence::new(unix_seconds),
            clock: 0,
            beats: 0,
            silent_beats: 0,
            unix_seconds,
            limits: LinkLimits::default(),
            topics_in_flight: 0,
            partition: Partition::default(),
            questions: Vec::new(),
            dropped: 0,
            notes: Vec::new(),
        }
    }

    /// Sets other limits than the default ones.
    pub fn limit(&mut self, limits: LinkLimits) {
        self.limits = limits;
    }

    /// Clients that cause more traffic have to wait. A session that is down causes none.
    #[must_use]
    pub fn is_congested(&self, shard: &Shard) -> bool {
        self.is_up()
            && (self.output().len() > CONGESTED_BYTES
                || shard.topics_waiting() > self.limits.topics_waiting)
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// What is to be sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// So much of it was sent.
    pub fn note_sent(&mut self, count: usize) {
        self.sent += count;
        debug_assert!(self.sent <= self.output.len());
        if self.sent == self.output.len() {
            self.sent = 0;
            self.output.clear();
            // A burst leaves no room behind.
            self.output.shrink_to(ANNOUNCE_BYTES_MAX);
        }
    }

    /// Questions of other nodes, for all cores of this one: by whom, and their number there.
    pub fn take_questions(&mut self) -> Vec<(LinkId, u32, Option<Question>)> {
        std::mem::take(&mut self.questions)
    }

    /// Nothing waits to be sent or to be answered.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.output().is_empty() && self.due.is_empty() && self.is_caught_up()
    }

    /// No connection to Redis could be made.
    pub fn note_unreachable(&mut self) {
        self.absence.may_have_missed = true;
    }

    /// A connection to Redis stands.
    pub fn open(&mut self) {
        debug_assert!(self.state == State::Down);
        self.state = State::Greeting;
        (self.beats, self.silent_beats) = (0, 0);
        (self.topics_in_flight, self.partition) = (0, Partition::default());
        self.heard.values_mut().for_each(|heard| heard.since_unheard = None);
        let mut command: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &self.login.password {
            let user = self.login.username.as_deref().unwrap_or("default");
            command.extend([&b"AUTH"[..], user.as_bytes(), password.reveal().as_bytes()]);
        }
        resp::write_command(&command, &mut self.output);
        self.due.push_back(Due::Hello);
    }

    /// The connection is gone. What must not be lost with it waits for the next.
    pub fn close(&mut self, shard: &mut Shard) {
        if self.state == State::Up {
            shard.on_line_down();
            if self.absence.since.is_none() {
                self.absence.since = Some(self.absence.last_word);
                self.absence.beats = self.silent_beats;
            }
        }
        // What was held and not taken in is repeated, too.
        (self.catch_up, self.absence.is_to_ask) = (CatchUp::default(), false);
        self.state = State::Down;
        self.output = Vec::new();
        self.sent = 0;
        self.reader = Reader::default();
        // What was sent comes before what waits.
        for due in std::mem::take(&mut self.due).into_iter().rev() {
            if let Due::Kept(kept) = due {
                self.backlog.push_front(kept);
            }
        }
        self.drop_oldest();
    }

    /// A second has passed. `speaks`: this session sends the heartbeat of its node to all.
    ///
    /// # Errors
    /// When the line is no good any more; then `close` it.
    pub fn beat(&mut self, unix_seconds: u64, speaks: bool, shard: &mut Shard) -> Result<(), Lost> {
        self.unix_seconds = unix_seconds;
        self.clock += 1;
        self.expire(shard);
        if self.state != State::Up {
            self.absence.beats += 1;
        }
        if self.state == State::Down {
            return Ok(());
        }
        self.beats += 1;
        self.silent_beats += 1;
        if self.due.is_empty() {
            self.silent_beats = 0;
        }
        if self.silent_beats > SILENT_BEATS {
            return Err(Lost::Silent);
        }
        if self.is_up() {
            self.send_heartbeats(speaks);
        }
        Ok(())
    }

    /// The last word before the process ends.
    pub fn say_bye(&mut self) {
        if self.is_up() {
            self.tell_all(Body::Bye);
        }
    }

    /// Carries out what the shard wants of the cluster.
    ///
    /// # Errors
    /// When the line is no good any more; then `close` it.
    pub fn carry_out(&mut self, shard: &mut Shard) -> Result<(), Lost> {
        for channel in self.unstored.drain(..) {
            shard.on_stored(&channel);
        }
        loop {
            for what in std::mem::take(&mut shard.outbox.cluster) {
                self.carry_out_one(what);
            }
            let in_flight = self.topics_in_flight;
            let room = self.limits.topics_in_flight.saturating_sub(in_flight);
            let has_room = self.output().len() < ANNOUNCE_BYTES_MAX && room > 0;
            if !(self.is_up() && has_room && shard.has_topics_to_send()) {
                break;
            }
            shard.send_topics(room);
        }
        if self.is_up() && !shard.has_unannounced() {
            self.ask_what_was_missed();
        }
        if self.output().len() > OUTPUT_BYTES_MAX {
            return Err(Lost::TooSlow);
        }
        Ok(())
    }

    /// Bytes of Redis.
    ///
    /// # Errors
    /// When the line is no good any more; then `close` it.
    pub fn receive(&mut self, bytes: &[u8], shard: &mut Shard) -> Result<(), Lost> {
        self.silent_beats = 0;
        self.absence.last_word = self.unix_seconds;
        self.reader.push(bytes);
        loop {
            match self.reader.next() {
                Ok(None) => return Ok(()),
                Ok(Some(Value::Push(list))) => self.on_push(list, shard)?,
                Ok(Some(reply)) => self.on_reply(&reply, shard)?,
                Err(_) => return Err(Lost::Malformed),
            }
        }
    }

    fn on_push(&mut self, list: Vec<Value>, shard: &mut Shard) -> Result<(), Lost> {
        let mut list = list.into_iter();
        let (Some(kind), subject) = (list.next(), list.next()) else {
            return Err(Lost::Malformed);
        };
        match (bytes_of(&kind), subject, list.next()) {
            (b"message", Some(Value::Bytes(subject)), Some(Value::Bytes(payload))) => {
                self.on_message(&subject, &payload, shard)
            }
            (b"subscribe" | b"unsubscribe", ..) => self.on_reply(&Value::Null, shard),
            // Of no subject that this line has asked for.
            _ => Ok(()),
        }
    }

    fn on_reply(&mut self, reply: &Value, shard: &mut Shard) -> Result<(), Lost> {
        if self.due.front().is_some_and(|due| is_readonly(due, reply)) {
            // The command stays what must reach Redis: it is sent again on the next connection.
            return Err(Lost::NotMaster("replica".to_owned()));
        }
        let Some(due) = self.due.pop_front() else { return Err(Lost::Malformed) };
        if let Value::Error(error) = reply {
            let error: String = error.chars().take(QUOTED_MAX).collect();
            if matches!(due, Due::Hello) {
                return Err(Lost::Refused(error));
            }
            self.note(format!("Redis refuses a command of the cluster: {}", shown(&error)));
        }
        match due {
            Due::Hello => {
                check_role(reply)?;
                self.greeted(shard);
            }
            Due::Role => {
                self.partition.is_role_asked = false;
                check_role(reply)?;
            }
            Due::Heartbeat => self.partition.unheard += u32::from(count(reply) <= 1),
            Due::Echo { number } => self.on_echo_sent(number)?,
            Due::Done => {}
            Due::LetGo => self.topics_in_flight = self.topics_in_flight.saturating_sub(1),
            Due::CaughtUp => self.on_catch_up_heard(count(reply), shard),
            Due::Edge => shard.on_edge_said(),
            Due::Held { channel, ticket } => {
                self.topics_in_flight = self.topics_in_flight.saturating_sub(1);
                shard.on_held(&channel, ticket);
            }
            Due::Synced { channel, ticket } => shard.on_synced(&channel, ticket, count(reply)),
            Due::Asked { id } => shard.on_asked(id, count(reply)),
            Due::Fetched { channel, ticket } => {
                let stored = match reply {
                    Value::Bytes(bytes) => envelope::decode_stored(bytes, self.unix_seconds),
                    _ => None,
                };
                let is_due = stored.as_ref().is_some_and(|it| self.is_due(it.from, it.number));
                if let Some(from) = shard.on_fetched(&channel, ticket, stored, is_due) {
                    self.fetch_after(from, &channel, shard);
                }
            }
            Due::Kept(kept) => self.on_kept(kept, reply, shard),
        }
        Ok(())
    }

    fn on_kept(&mut self, kept: Kept, reply: &Value, shard: &mut Shard) {
        self.kept_bytes -= kept.bytes.len();
        let Some((channel, frame, except)) = kept.stores else { return };
        match reply {
            Value::Error(_) => self.publish_only(&channel, &frame, except, true),
            Value::Bytes(why) => {
                let why: String = String::from_utf8_lossy(why).chars().take(QUOTED_MAX).collect();
                self.note(format!("Redis does not store the event of a cache channel: {why:?}"));
            }
            _ => {}
        }
        shard.on_stored(&channel);
    }

    /// Redis lets us in: what waited is said before anything new.
    fn greeted(&mut self, shard: &mut Shard) {
        self.state = State::Up;
        let mut subjects = vec![self.names.link(self.own), self.names.all()];
        if self.own.core == 0 {
            subjects.push(self.names.questions());
        }
        for subject in subjects {
            self.command(&[b"SUBSCRIBE", subject.as_bytes()], Due::Done);
        }
        for kept in std::mem::take(&mut self.backlog) {
            self.say(kept);
        }
        // Behind what waited: numbers only grow.
        self.tell_all(Body::LineUp);
        shard.on_line_up();
        self.begin_catch_up(shard);
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        }
    }
}

fn bytes_of(value: &Value) -> &[u8] {
    match value {
        Value::Bytes(bytes) => bytes,
        Value::Text(text) => text.as_bytes(),
        _ => b"",
    }
}

/// How many heard a `PUBLISH`.
fn count(reply: &Value) -> u32 {
    match reply {
        Value::Integer(count) => u32::try_from(*count).unwrap_or_default(),
        _ => 0,
    }
}
