//! One core's session with Redis: commands whose replies are awaited, messages that may have to be sent again, and the
//! newest number of each sender. PURE.
//!
//! Owns that state, over all connections of the session. Does not open a socket or read a clock: `worker/redis.rs`
//! calls it with bytes and seconds. `outbound.rs` makes commands, `replies.rs` reads what Redis sends, `inbound.rs`
//! reads messages of other nodes, `replay.rs` and `catch_up.rs` make up for the time without a connection,
//! `partition.rs` notices a connection that reaches no node.
//!
//! Limits: `OUTPUT_BYTES_MAX` of commands that Redis has not read, as much of events that it has not confirmed, and
//! `AWAITED_MAX` commands that it has not answered, over which the session begins again; `KEPT_BYTES_MAX` of events
//! while there is no connection, over which each is a counted loss; `awaited::SENDERS_MAX` senders; `NOTES_MAX` notes
//! for the log. Cost: `carry_out` is linear in the effects of a tick; `advance` is some comparisons each second, and
//! once an hour a pass over all senders.

mod awaited;
mod catch_up;
mod inbound;
mod outbound;
mod partition;
mod recent;
mod replay;
mod replies;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use catch_up::CatchUp;
use hashbrown::HashMap;
use partition::Partition;
use recent::RecentMessages;

use super::names::TopicNames;
use crate::app::{Apps, Secret};
use crate::metrics::ClusterMetrics;
use crate::resp::{self, Reader};
use crate::shard::{ChannelKey, FromCluster, NodeQuestion, SessionId, SessionMessage, Shard};
pub use awaited::Lost;
use awaited::{AwaitedReply, KeptCommand, SILENT_SECONDS, SessionState};

/// Bytes of events and terminations that wait for a connection. They were acknowledged to their publishers, so they are
/// kept as long as there is room.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Unsent bytes over which the session ends.
const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// Commands that Redis has not answered, over which the session ends: 64 MiB of the shortest ones are as many. A Redis
/// that reads and does not answer would otherwise make the list grow for `awaited::SILENT_SECONDS`.
const AWAITED_MAX: usize = 524_288;
const _: () = assert!(size_of::<AwaitedReply>() <= 96, "a session may await 524,288: 50 MB");
/// Unsent bytes up to which topics are subscribed and announced. The others wait in the shard, so that a session that
/// is new does not put all topics of a node into the output at once.
const ANNOUNCE_BYTES_MAX: usize = 64 << 10;
/// Unsent bytes over which clients that cause more traffic have to wait.
const CONGESTED_BYTES: usize = 100 << 10;
/// Unsent bytes over which a `ReplayRequest` is answered by `ReplayDone` alone.
const RETRANSMIT_BYTES_MAX: usize = 32 << 20;
/// Seconds after which a session that sends nothing is forgotten.
const SENDER_SECONDS_MAX: u32 = 3_600;
/// Added to the time for which a replay is requested, because both sides count whole seconds.
const REPLAY_MARGIN_SECONDS: u32 = 3;
/// Notes of one tick. What peers send can cause notes, so further ones are dropped.
const NOTES_MAX: usize = 16;

/// Stores an event and publishes it in one step: between two commands a new subscriber would be greeted with the stored
/// event and then receive it. An event that is sent again after a lost connection is not stored twice, because others
/// may have stored newer ones since. A script, because Redis 7.0 writes what a transaction publishes to its own
/// connection into the transaction's reply. An event that cannot be stored is still published, in the order of its
/// number, and the reply is the reason: if it was sent again later, receivers of a newer number would drop it.
const STORE_AND_PUBLISH: &[u8] = b"\
    if tonumber(redis.call('GET',KEYS[2]) or '0')>=tonumber(ARGV[5]) then return 0 end \
    local r=redis.pcall('SET',KEYS[2],ARGV[5],'EX',3600) \
    if not r.err then r=redis.pcall('SET',KEYS[1],ARGV[1],'EX',ARGV[2]) end \
    local n=redis.call('PUBLISH',ARGV[3],ARGV[4]) \
    return r.err or n";

/// Limits that the simulator sets lower, so that few topics reach them.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// SUBSCRIBE and UNSUBSCRIBE that Redis has not confirmed. What Redis works off between two of our events, and what
    /// it may have to send us at once.
    pub topics_in_flight: usize,
    /// Topics that wait for room in `topics_in_flight`. Over this, clients that cause more traffic have to wait.
    pub topics_waiting: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { topics_in_flight: 4_096, topics_waiting: 1_024 }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Login {
    pub username: Option<String>,
    pub password: Option<Secret>,
}

/// A sender's newest number, and the second in which it was received.
#[derive(Clone, Copy, Debug, Default)]
struct SenderState {
    number: u64,
    second: u32,
    /// `Partition::undelivered` at the sender's first message on its present connection and ours. `None`: it has sent
    /// nothing on these yet.
    since_undelivered: Option<u32>,
}

pub struct ClusterSession {
    own: SessionId,
    names: TopicNames,
    apps: Arc<Apps>,
    login: Login,
    state: SessionState,
    last_number: u64,
    output: Vec<u8>,
    /// Bytes of `output` that the socket has accepted.
    sent_bytes: usize,
    reader: Reader,
    awaited: VecDeque<AwaitedReply>,
    /// Commands that wait for a connection, in the order of their numbers.
    backlog: VecDeque<KeptCommand>,
    /// Bytes of `backlog` and of what is kept in `awaited`.
    kept_bytes: usize,
    /// Channels whose event was dropped from `backlog`: the shard, which waits for each to be stored, is informed in
    /// the next `carry_out`.
    unstored: Vec<ChannelKey>,
    senders: HashMap<SessionId, SenderState, foldhash::fast::FixedState>,
    recent: RecentMessages,
    catch_up: CatchUp,
    /// Seconds since the start.
    clock: u32,
    /// Seconds of this connection.
    up_seconds: u32,
    /// Seconds in which Redis has sent nothing although it owes a reply.
    silent_seconds: u32,
    /// The clock of the host, for times that other nodes read.
    unix_seconds: u64,
    limits: SessionLimits,
    /// SUBSCRIBE and UNSUBSCRIBE of channels that Redis has not confirmed: at most `limits.topics_in_flight`.
    topics_in_flight: usize,
    partition: Partition,
    /// See `take_questions`.
    questions: Vec<(SessionId, u32, Option<NodeQuestion>)>,
    /// Events lost because `KEPT_BYTES_MAX` was reached, since the start.
    pub dropped_events: u64,
    /// Messages sent again to sessions that had missed them, since the start.
    retransmitted: u64,
    /// How often waiting for replays ended for want of room.
    catch_ups_given_up: u64,
    pub notes: Vec<String>,
}

impl ClusterSession {
    /// After a reload. An app keeps its index, so channels that are known stay valid.
    pub fn set_apps(&mut self, apps: Arc<Apps>) {
        self.apps = apps;
    }

    /// `prefix`: what all names in Redis start with, not escaped.
    #[must_use]
    pub fn new(
        own: SessionId,
        prefix: &str,
        apps: Arc<Apps>,
        login: Login,
        unix_seconds: u64,
    ) -> Self {
        Self {
            own,
            names: TopicNames::new(prefix),
            apps,
            login,
            state: SessionState::Down,
            last_number: 0,
            output: Vec::new(),
            sent_bytes: 0,
            reader: Reader::default(),
            awaited: VecDeque::new(),
            backlog: VecDeque::new(),
            kept_bytes: 0,
            unstored: Vec::new(),
            senders: HashMap::default(),
            recent: RecentMessages::default(),
            catch_up: CatchUp::new(unix_seconds),
            clock: 0,
            up_seconds: 0,
            silent_seconds: 0,
            unix_seconds,
            limits: SessionLimits::default(),
            topics_in_flight: 0,
            partition: Partition::default(),
            questions: Vec::new(),
            dropped_events: 0,
            retransmitted: 0,
            catch_ups_given_up: 0,
            notes: Vec::new(),
        }
    }

    pub fn set_limits(&mut self, limits: SessionLimits) {
        self.limits = limits;
    }

    /// Whether clients that cause more traffic have to wait. Not while the session is down: what they cause then is
    /// dropped or kept within its limit, and an absent Redis must not stop local delivery.
    #[must_use]
    pub fn is_congested(&self, shard: &Shard) -> bool {
        self.is_up()
            && (self.output().len() > CONGESTED_BYTES
                || shard.topics_waiting() > self.limits.topics_waiting)
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == SessionState::Up
    }

    /// Publishes how much waits here. Call it at the end of a tick.
    pub fn note_gauges(&self, metrics: &ClusterMetrics) {
        metrics.waiting.set(self.backlog.len() as u64);
        metrics.dropped.set(self.dropped_events);
        metrics.output_bytes.set(self.output().len() as u64);
        metrics.replies_awaited.set(self.awaited.len() as u64);
        metrics.catch_up_bytes.set(self.catch_up.held_bytes() as u64);
        metrics.catch_ups_given_up.set(self.catch_ups_given_up);
        metrics.replay_bytes.set(self.recent.charged_bytes() as u64);
        metrics.replay_discarded.set(self.recent.discarded_count());
    }

    /// Bytes that the socket has not accepted.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.get(self.sent_bytes..).unwrap_or_default()
    }

    /// The socket has accepted the first `count` bytes of `output`.
    pub fn note_sent(&mut self, count: usize) {
        self.sent_bytes += count;
        debug_assert!(self.sent_bytes <= self.output.len());
        if self.sent_bytes == self.output.len() {
            self.sent_bytes = 0;
            self.output.clear();
            self.output.shrink_to(ANNOUNCE_BYTES_MAX);
        }
    }

    /// Questions of other nodes, for all cores of this one: the asking session, the question's number there, and the
    /// question. `None`: about an app that this node does not have.
    pub fn take_questions(&mut self) -> Vec<(SessionId, u32, Option<NodeQuestion>)> {
        std::mem::take(&mut self.questions)
    }

    /// Nothing waits to be sent or to be answered. The simulator ends a run with it.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.output().is_empty() && self.awaited.is_empty() && self.catch_up.has_all_answers()
    }

    /// No connection to Redis could be made: other nodes may publish what this one misses, so its first session
    /// requests a replay.
    pub fn note_unreachable(&mut self) {
        self.catch_up.may_have_missed = true;
    }

    /// There is a connection to Redis. The session is up when Redis has answered `HELLO`.
    pub fn open(&mut self) {
        debug_assert!(self.state == SessionState::Down);
        self.state = SessionState::Greeting;
        (self.up_seconds, self.silent_seconds) = (0, 0);
        (self.topics_in_flight, self.partition) = (0, Partition::default());
        self.senders.values_mut().for_each(|sender| sender.since_undelivered = None);
        let mut command: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &self.login.password {
            let user = self.login.username.as_deref().unwrap_or("default");
            command.extend([&b"AUTH"[..], user.as_bytes(), password.reveal().as_bytes()]);
        }
        resp::write_command(&command, &mut self.output);
        self.awaited.push_back(AwaitedReply::Hello);
        debug_assert_eq!(self.awaited.len(), 1, "the greeting is the first command");
    }

    /// The Redis connection has ended. Commands that must not be lost wait for the next one.
    pub fn close(&mut self, shard: &mut Shard) {
        let was_up = self.is_up();
        shard.metrics().cluster.is_up.set(0);
        if was_up {
            shard.on_cluster(FromCluster::Down);
        }
        self.catch_up.on_down(was_up, self.silent_seconds);
        self.state = SessionState::Down;
        self.output = Vec::new();
        self.sent_bytes = 0;
        self.reader = Reader::default();
        // What was sent has lower numbers than what waits.
        for awaited in std::mem::take(&mut self.awaited).into_iter().rev() {
            if let AwaitedReply::Kept(kept) = awaited {
                self.backlog.push_front(kept);
            }
        }
        debug_assert!(
            self.awaited.is_empty() && self.output.is_empty(),
            "the next connection begins with nothing of this one"
        );
        self.drop_oldest();
    }

    /// A second has passed. `sends_heartbeat`: this session sends the heartbeat of its node to all.
    ///
    /// # Errors
    /// When the session has to end; then `close` it.
    pub fn advance(
        &mut self,
        unix_seconds: u64,
        sends_heartbeat: bool,
        shard: &mut Shard,
    ) -> Result<(), Lost> {
        self.unix_seconds = unix_seconds;
        self.clock += 1;
        self.expire(shard);
        if self.state != SessionState::Up {
            self.catch_up.down_seconds += 1;
        }
        if self.state == SessionState::Down {
            return Ok(());
        }
        self.up_seconds += 1;
        self.silent_seconds += 1;
        if self.awaited.is_empty() {
            self.silent_seconds = 0;
        }
        if self.silent_seconds > SILENT_SECONDS {
            return Err(Lost::Silent);
        }
        if self.is_up() {
            self.send_heartbeats(sends_heartbeat, shard.now());
        }
        debug_assert!(self.silent_seconds <= SILENT_SECONDS, "a silent session has ended");
        Ok(())
    }

    /// An orderly end of the process: the other nodes drop its state at once, not after a lease.
    pub fn send_node_ends(&mut self) {
        if self.is_up() {
            self.send_to_all(SessionMessage::NodeEnds);
        }
    }

    /// Turns the effects of the shard into commands, and offers it room for topics. Once in each tick.
    ///
    /// # Errors
    /// When the session has to end; then `close` it.
    pub fn carry_out(&mut self, shard: &mut Shard) -> Result<(), Lost> {
        let metrics = &shard.metrics().cluster;
        metrics.messages_sent.set(self.last_number);
        metrics.retransmissions.set(self.retransmitted);
        for channel in self.unstored.drain(..) {
            shard.on_cluster(FromCluster::Stored { channel: &channel });
        }
        loop {
            for effect in shard.outbox.cluster.take_effects() {
                self.carry_out_one(effect);
            }
            let in_flight = self.topics_in_flight;
            let room = self.limits.topics_in_flight.saturating_sub(in_flight);
            let has_room = self.output().len() < ANNOUNCE_BYTES_MAX && room > 0;
            if !(self.is_up() && has_room && shard.has_topics_to_send()) {
                break;
            }
            shard.on_cluster(FromCluster::TopicRoom(room));
        }
        if shard.outbox.cluster.take_restart_request() && self.is_up() {
            return Err(Lost::Overrun);
        }
        if self.is_up() && !shard.has_unannounced() {
            self.request_replay();
        }
        let is_too_slow = self.output().len() > OUTPUT_BYTES_MAX
            || self.awaited.len() > AWAITED_MAX
            || self.is_up() && self.kept_bytes > OUTPUT_BYTES_MAX;
        if is_too_slow {
            return Err(Lost::TooSlow);
        }
        Ok(())
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        }
    }
}
