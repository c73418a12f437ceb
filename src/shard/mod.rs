//! The core: one worker's whole state as a synchronous value, and every rule that changes it. PURE.
//!
//! No clock, socket, randomness, lock or `async` in here: input comes as arguments, effects leave through
//! `Outbox`. So N shards run in one thread under a simulator exactly as they do on N cores.
//!
//! Invariants:
//! - A connection is in a channel's subscriber list only after its acknowledgement was enqueued: nobody gets an
//!   event before `subscription_succeeded` (docs/PROTOCOL.md rule 98).
//! - A channel's order is given by its home (`home.rs`) alone.
//! - A function that is given a slot is given one in use: of a key that its caller has just looked up, or of a list of
//!   subscribers or watchers. `remove` alone frees a slot, after `leave_all` has taken the connection out of those
//!   lists.
//! - With one core, mail is processed inside the call that sends it. That enqueues frames and changes channels, but it
//!   neither frees a slot nor closes a connection: slow consumers wait in `overflowed` for `settle`.
//! - Every change of membership goes through `subscribe`/`leave`; counters change with it (docs/PROTOCOL.md rule 85).

mod channel_key;
mod channel_table;
mod client_event;
mod cluster;
mod connection;
mod core_set;
mod count;
mod delivery;
#[cfg(feature = "echo")]
mod echo;
mod envelope;
mod export;
mod home;
mod liveness;
mod mail;
mod memory;
mod outbox;
mod pace;
mod query;
mod rate;
mod refuse;
mod roster;
mod send_queue;
mod shed;
mod subscribe;
#[cfg(test)]
mod tests;
mod users;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;

pub use channel_key::{ChannelKey, ChannelKeys};
pub use cluster::{ANSWER_BEATS, LEASE_BEATS, Stored, ToCluster};
pub use connection::{Connection, ConnectionKey};
pub use delivery::AfterSend;
pub use envelope::{
    Asked, Body, DescribedPart, LinkId, MemberPart, NodeId, Part, Retransmitted, Told,
};
pub use export::{ChannelState, ConnectionState, NotAtRest, UserState};
pub use home::{HomeState, MemberState};
pub use mail::{Greeting, Join, Lane, Mail, Restore};
pub use memory::MemoryLimits;
pub use outbox::{Answered, Outbox, RefusalNote, Trace};
pub use pace::Pace;
pub use query::{Answer, Described, Question};
pub use send_queue::SendQueue;

use crate::app::{App, AppIndex, Apps};
use crate::buffer::Frame;
use crate::cause::{Cause, Detail};
use crate::clock::Moment;
use crate::pusher::error_code::{self, ErrorCode};
use crate::pusher::inbound::{self, Inbound};
use crate::pusher::json::Validator;
use crate::pusher::outbound;
use crate::pusher::socket_id::SocketId;
use crate::wheel::Wheel;
use crate::ws::frame::{self, Opcode};
use channel_table::ChannelTable;
use cluster::ClusterTable;
use home::HomeTable;

use memory::Account;
use pace::PaceTable;
use refuse::Denial;
use users::UserTables;

/// What one shard is told at its birth.
#[derive(Clone, Debug)]
pub struct Settings {
    pub core: u16,
    pub cores: u16,
    pub apps: Arc<Apps>,
    /// The same on all cores of a process: it decides a channel's home.
    pub channel_hash_seed: u64,
    /// Bounds of each connection.
    pub memory: MemoryLimits,
    /// Connections to reserve room for: address space, not memory.
    pub connections_reserved: usize,
    /// Bytes of cached events that this core may remember.
    pub cache_bytes_max: usize,
    /// See `Config::verbose_errors`.
    pub verbose_errors: bool,
    /// Fill `Outbox::traces`.
    pub debug: bool,
    /// What this process is called among the nodes of a cluster; `None`: it is alone.
    pub node: Option<NodeId>,
    /// For how long backends may not hear of a leaving, rounded up; 0 where there are none.
    pub webhook_linger_seconds: u32,
    /// How fast one connection may change topics.
    pub pace: Pace,
    /// For how long a topic stays subscribed that nobody needs, in beats.
    pub topic_linger_beats: u32,
}

impl Settings {
    /// Of a topic in Redis: a page that is loaded anew, or a client that comes and goes, changes nothing.
    pub const TOPIC_LINGER_BEATS: u32 = 5;

    /// One core by itself, without a cluster or webhooks: what tests and benchmarks start from.
    #[must_use]
    pub fn alone(apps: Arc<Apps>) -> Self {
        Self {
            core: 0,
            cores: 1,
            apps,
            channel_hash_seed: 7,
            memory: MemoryLimits { send_queue_bytes_max: 1 << 20, connection_bytes_max: 2 << 20 },
            connections_reserved: 0,
            cache_bytes_max: 1 << 20,
            verbose_errors: false,
            debug: false,
            node: None,
            webhook_linger_seconds: 0,
            pace: Pace::default(),
            topic_linger_beats: 0,
        }
    }
}

/// About what `connection_established` takes, so that it is made in one piece.
const GREETING_BYTES: usize = 160;

/// One core's state.
pub struct Shard {
    settings: Settings,
    now: Moment,
    /// `now` in seconds: each message needs them, and they are a division.
    now_seconds: u32,
    keys: ChannelKeys,
    connections: Slab<Connection>,
    /// Gives each connection its generation, and each subscription in flight its ticket.
    sequence: u32,
    channels: ChannelTable,
    homes: HomeTable,
    users: UserTables,
    cluster: ClusterTable,
    pace: PaceTable,
    wheel: Wheel<ConnectionKey>,
    account: Account,
    /// Connections with a ping to be answered when the second is over, each once.
    pings_late: Vec<ConnectionKey>,
    /// New connections of apps that want them authorised in time, by age.
    unauthorized: HashMap<AppIndex, VecDeque<(u32, ConnectionKey)>, foldhash::fast::FixedState>,
    /// Taken out while a message is read, so that what it finds may borrow from it.
    validator: Option<Validator>,
    /// Space to build a JSON text in.
    text: Vec<u8>,
    frames: SharedFrames,
    /// Slow consumers that `settle` will close.
    overflowed: Vec<u32>,
    /// Local channels whose number of subscribers has changed; see `count.rs`.
    counts_changed: Vec<u32>,
    /// How often something was refused, modulo 2^32: whether a message was.
    refusals: u32,
    pub outbox: Outbox,
}

/// The connection behind a key, unless it is closing or gone.
#[inline]
fn open_in(connections: &mut Slab<Connection>, key: ConnectionKey) -> Option<&mut Connection> {
    let found = connections.get_mut(key.slot as usize)?;
    (found.generation == key.generation && !found.closing).then_some(found)
}

/// Frames that never differ, made once per core.
struct SharedFrames {
    ping_event: Frame,
    ping_control: Frame,
    pong_event: Frame,
}

impl Shard {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        assert!(settings.core < settings.cores, "a core's index is below the number of cores");
        let mut ping_control = Vec::new();
        frame::encode(Opcode::Ping, b"", &mut ping_control);
        Self {
            now: Moment::default(),
            now_seconds: 0,
            keys: ChannelKeys::new(settings.channel_hash_seed, settings.cores),
            connections: Slab::with_capacity(settings.connections_reserved),
            sequence: 0,
            channels: ChannelTable::new(settings.connections_reserved),
            homes: HomeTable::new(settings.connections_reserved, settings.cache_bytes_max),
            users: UserTables::default(),
            cluster: ClusterTable::new(settings.node),
            pace: PaceTable::new(settings.pace),
            wheel: Wheel::default(),
            account: Account::default(),
            pings_late: Vec::new(),
            unauthorized: HashMap::default(),
            validator: Some(Validator::default()),
            text: Vec::new(),
            frames: SharedFrames {
                ping_event: frame::encode_text(outbound::PING).into(),
                ping_control: ping_control.into(),
                pong_event: frame::encode_text(outbound::PONG).into(),
            },
            overflowed: Vec::new(),
            counts_changed: Vec::new(),
            refusals: 0,
            outbox: Outbox::new(settings.debug),
            settings,
        }
    }

    /// Moves the shard's clock: pings the silent and closes those that stayed silent.
    pub fn advance(&mut self, now: Moment) {
        // Time does not run backwards, whatever the kernel says.
        let before = self.now;
        let now = now.max(before);
        self.now = now;
        self.now_seconds = now.seconds();
        if now.seconds() != before.seconds() {
            self.check_liveness(before.seconds());
            self.close_unauthorized();
            self.answer_late_pings();
            self.homes.expire(now);
            self.tell_due_counts();
            self.beat();
            self.pace.expire(now);
            self.outbox.lines.refill();
        }
    }

    /// The shard's clock, as `advance` left it.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.now
    }

    /// A handshake is done. `prelude` (the 101 answer) leaves in the same send as `connection_established`.
    pub fn open(&mut self, app: AppIndex, entropy: u64, prelude: &[u8]) -> ConnectionKey {
        let socket_id = SocketId::make(self.settings.core, self.settings.cores, entropy);
        let key = self.insert(app, socket_id);
        let mut bytes = Vec::with_capacity(1 + prelude.len() + GREETING_BYTES);
        bytes.push(0);
        bytes.extend_from_slice(prelude);
        if cfg!(not(feature = "echo")) {
            let timeout = self.settings.apps.get(app).activity_timeout_seconds;
            self.text.clear();
            outbound::connection_established(socket_id, timeout, &mut self.text);
            frame::encode(Opcode::Text, &self.text, &mut bytes);
        }
        // What the client asks for behind its handshake may fill the queue before anything leaves. A close for that
        // must not drop the 101 answer, nor the answers to requests ahead of it, which were carried out.
        self.connections[key.slot as usize].send_queue.push_begun(&bytes.into());
        self.mark_dirty(key.slot);
        self.watch(key);
        self.trace(|| Trace::Established(socket_id));
        key
    }

    /// A handshake is done but the connection is not wanted: it hears why, in an event and in a close frame
    /// (docs/PROTOCOL.md rule 9, C13 "fatal errors"). `why`: the line, in development mode.
    pub fn open_refused(
        &mut self,
        prelude: &[u8],
        error: ErrorCode,
        why: Option<&str>,
    ) -> ConnectionKey {
        let socket_id = SocketId::make(self.settings.core, self.settings.cores, 0);
        // It never opens, so of an app's rules only the form of its errors is looked up: the first app's. There is one,
        // because `config` makes one where none is given.
        let key = self.insert(AppIndex(0), socket_id);
        self.connections[key.slot as usize].counted = false;
        self.enqueue(key.slot, &prelude.to_vec().into());
        self.send_error(key.slot, error, why);
        self.close(key.slot, error);
        key
    }

    fn insert(&mut self, app: AppIndex, socket_id: SocketId) -> ConnectionKey {
        self.sequence = self.sequence.wrapping_add(1);
        let connection = Connection::new(app, socket_id, self.sequence, self.now.seconds());
        let slot = self.connections.insert(connection);
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        assert!(slot != u32::MAX, "a core has fewer than 2^32 connections");
        ConnectionKey { slot, generation: self.sequence }
    }

    /// The connection behind a key, if it is still the same one.
    #[must_use]
    pub fn get(&self, key: ConnectionKey) -> Option<&Connection> {
        self.connections.get(key.slot as usize).filter(|found| found.generation == key.generation)
    }

    /// All connections of this core.
    pub fn keys(&self) -> impl Iterator<Item = ConnectionKey> {
        let slot = |slot| u32::try_from(slot).unwrap_or(u32::MAX);
        self.connections.iter().map(move |(at, connection)| ConnectionKey {
            slot: slot(at),
            generation: connection.generation,
        })
    }

    fn get_open(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        open_in(&mut self.connections, key)
    }

    /// The longest message this connection may send, in bytes.
    #[must_use]
    pub fn message_size_max(&self, slot: u32) -> usize {
        self.app_of(slot).message_size_max
    }

    /// The app a connection belongs to.
    fn app_of(&self, slot: u32) -> &App {
        self.settings.apps.get(self.connections[slot as usize].app)
    }

    /// A complete message of a client, text or binary (Reverb reads binary frames as text).
    pub fn on_message(&mut self, key: ConnectionKey, text: &[u8]) {
        let Some(connection) = self.note_inbound(key) else { return };
        let (app, socket_id) = (connection.app, connection.socket_id);
        if !self.is_within_rate(key.slot, app) {
            return self.refuse_over_rate(key.slot, text);
        }
        self.trace(|| Trace::Received(socket_id, text.into()));
        let refusals_before = self.refusals;
        let mut validator = self.validator.take().unwrap_or_default();
        match inbound::parse(text, &mut validator) {
            Ok(Inbound::Ping) => self.enqueue(key.slot, &self.frames.pong_event.clone()),
            Ok(Inbound::Pong) => {}
            Ok(Inbound::Ignored { event }) => {
                let event = Detail::text(event.trim_matches('"'));
                let error = error_code::INVALID_MESSAGE;
                self.drop_silently(key.slot, &Denial::new(error, Cause::NotClientEvent, [event]));
            }
            Ok(Inbound::Subscribe(subscribe)) => self.on_subscribe(key, &subscribe),
            Ok(Inbound::Unsubscribe { channel }) => self.on_unsubscribe(key, &channel),
            Ok(Inbound::ClientEvent(event)) => self.on_client_event(key, &event),
            Ok(Inbound::SignIn(sign_in)) => self.on_sign_in(key, &sign_in),
            Err(malformed) => self.deny_malformed(key.slot, &malformed),
        }
        self.validator = Some(validator);
        if self.refusals == refusals_before {
            self.trace(|| Trace::Handled(socket_id));
        }
    }

    /// Tells something to `--debug`.
    #[inline]
    fn trace(&mut self, trace: impl FnOnce() -> Trace) {
        if self.settings.debug {
            self.push_trace(trace);
        }
    }

    #[cold]
    #[inline(never)]
    fn push_trace(&mut self, trace: impl FnOnce() -> Trace) {
        self.outbox.traces.push(trace());
    }

    /// Notes a sign of life. `None` when the connection is closing or gone: its input no longer counts.
    #[inline]
    fn note_inbound(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        let now = self.now_seconds;
        let connection = self.get_open(key)?;
        if connection.last_inbound_seconds != now {
            connection.control_frames.begin_second();
        }
        connection.last_inbound_seconds = now;
        connection.pinged = false;
        Some(connection)
    }

    /// Mail of another core, in the order of its lane.
    pub fn on_mail(&mut self, mail: Mail) {
        let Some(mail) = self.wait_for_nodes(mail) else { return };
        match mail {
            Mail::Subscribe { channel, connection, ticket, core, join } => {
                self.home_subscribe(channel, connection, ticket, core, join.as_deref());
            }
            Mail::Withdraw { channel, connection, ticket, core } => {
                self.home_withdraw(&channel, connection, ticket, core);
            }
            Mail::Leave { channel, user_id } => self.home_leave(&channel, &user_id),
            Mail::Disinterest { channel, core } => self.home_disinterest(&channel, core),
            Mail::Publish { channel, frame, except, cache } => {
                self.home_publish(&channel, &frame, except, cache);
            }
            Mail::Count { channel, core, count } => self.home_count(&channel, core, count),
            Mail::UserHere { user, core } => self.home_user(&user, core, true),
            Mail::UserGone { user, core } => self.home_user(&user, core, false),
            Mail::Watch { user, core } => self.home_watch(user, core),
            Mail::Unwatch { user, core } => self.home_unwatch(&user, core),
            Mail::UserStatus { user, online } => self.on_user_status(&user, online),
            Mail::Terminate { app, user_id } => self.terminate_local(app, &user_id),
            Mail::Restore(restore) => self.home_restore(*restore),
            Mail::Ask { id, from, question } => {
                let answer = self.answer(&question);
                self.outbox.mail(from, Mail::Answer { id, answer });
            }
            Mail::Subscribed { channel, connection, ticket, greeting, joined } => {
                self.on_subscribed(&channel, connection, ticket, greeting, joined);
            }
            Mail::Full { channel, connection, ticket, error } => {
                self.on_full(&channel, connection, ticket, error)
            }
            Mail::Deliver { channel, frame, except } => self.deliver(&channel, &frame, except),
            Mail::Answer { id, answer } => self.outbox.answered.push(Answered::Core { id, answer }),
        }
    }

    /// Writes to a home. This core's own gets mail too, behind what other cores sent before; a lone core has nobody to
    /// wait for.
    fn mail_home(&mut self, home: u16, mail: Mail) {
        if self.settings.cores == 1 {
            self.on_mail(mail);
        } else {
            self.outbox.mail(home, mail);
        }
    }

    /// A home's answer to one core; to its own at once.
    fn mail_back(&mut self, core: u16, mail: Mail) {
        if core == self.settings.core {
            self.on_mail(mail);
        } else {
            self.outbox.mail(core, mail);
        }
    }

    /// The app's backend ends all connections of a user (docs/PROTOCOL.md rule 70): on this core now, elsewhere by
    /// mail.
    pub fn terminate(&mut self, app: AppIndex, user_id: &str) {
        for core in (0..self.settings.cores).filter(|core| *core != self.settings.core) {
            self.outbox.mail(core, Mail::Terminate { app, user_id: user_id.into() });
        }
        if self.cluster.is_on() {
            self.outbox.cluster.push(ToCluster::Terminate { app, user_id: user_id.into() });
        }
        self.terminate_local(app, user_id);
    }

    /// A walk over the core's connections: a rare request, and no index to keep for it.
    fn terminate_local(&mut self, app: AppIndex, user_id: &str) {
        let slots: Vec<u32> = self
            .connections
            .iter()
            .filter(|(_, found)| found.app == app && !found.closing && found.is_user(user_id))
            .filter_map(|(slot, _)| u32::try_from(slot).ok())
            .collect();
        for slot in slots {
            let denial =
                Denial::new(error_code::TERMINATED, Cause::Terminated, [Detail::text(user_id)]);
            self.deny_and_close(slot, &denial);
        }
    }

    /// Ends a connection from our side with a close frame. Its subscriptions end at once; its socket ends when
    /// the frame was sent and the peer answered or its time is up.
    pub fn close(&mut self, slot: u32, error: ErrorCode) {
        self.close_frame(slot, error.code, error.message);
    }

    /// `close` with any code: protocol violations, and the echo of the peer's own close.
    pub fn close_frame(&mut self, slot: u32, code: u16, reason: &str) {
        if self.connections.get(slot as usize).is_none_or(|found| found.closing) {
            return;
        }
        self.leave_all(slot);
        self.begin_close(slot, code, reason, false);
    }

    /// Closes an open connection that has too much waiting: what has not begun to be sent is dropped.
    fn cut_off(&mut self, slot: u32, error: ErrorCode, cause: Cause, bytes: usize) {
        let line = self.note_refusal(slot, cause, &[Detail::count(bytes)]);
        self.leave_all(slot);
        let explanation = line.map(|_| match cause {
            Cause::SlowConsumer => format!("{bytes} bytes waited (RINGVERB_SEND_QUEUE_BYTES_MAX)"),
            _ => format!("the connection kept {bytes} bytes (RINGVERB_MEMORY_MAX)"),
        });
        let reason = refuse::close_reason(error.message, explanation.as_deref());
        self.begin_close(slot, error.code, &reason, true);
    }

    /// Enqueues the close frame; `at_once` drops what has not begun to be sent.
    fn begin_close(&mut self, slot: u32, code: u16, reason: &str, at_once: bool) {
        let mut bytes = Vec::new();
        frame::encode(Opcode::Close, &crate::ws::close::encode_payload(code, reason), &mut bytes);
        let frame = bytes.into();
        let connection = &mut self.connections[slot as usize];
        debug_assert!(connection.subscriptions.is_empty(), "a closing connection is in no channel");
        connection.closing = true;
        if at_once {
            connection.send_queue.push_last_instead(&frame);
        } else {
            connection.send_queue.push(&frame);
        }
        let generation = connection.generation;
        self.mark_dirty(slot);
        self.outbox.closed.push((ConnectionKey { slot, generation }, code));
    }

    /// The socket is gone. Idempotent; frees the slot (docs/PROTOCOL.md rules 101, 102).
    pub fn remove(&mut self, key: ConnectionKey) {
        if self.get(key).is_none() {
            return;
        }
        if !self.connections[key.slot as usize].closing {
            self.leave_all(key.slot);
        }
        self.connections.remove(key.slot as usize);
    }

    /// Takes a connection out of everything it is in, and out of its app's count.
    fn leave_all(&mut self, slot: u32) {
        while let Some(index) = self.connections[slot as usize].subscriptions.len().checked_sub(1) {
            self.leave(slot, index);
        }
        self.sign_out(slot);
        let connection = &mut self.connections[slot as usize];
        let socket_id = connection.socket_id;
        if std::mem::take(&mut connection.counted) {
            self.settings.apps.get(connection.app).release();
            self.trace(|| Trace::Closed(socket_id));
        }
    }

    /// Closes up to `count` open connections for shutdown; `true` while some are left.
    pub fn close_some(&mut self, count: usize, error: ErrorCode) -> bool {
        let open = |found: &Connection| !found.closing;
        let slots: Vec<u32> = self
            .connections
            .iter()
            .filter(|(_, found)| open(found))
            .take(count)
            .filter_map(|(slot, _)| u32::try_from(slot).ok())
            .collect();
        for slot in &slots {
            self.close(*slot, error);
        }
        slots.len() == count && self.connections.iter().any(|(_, found)| open(found))
    }

    /// Connections in the slab, closing ones included.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }
}
