//! The local side of a core: its own connections, and everything that is kept for them. PURE.
//!
//! Owns: connections, the channels they are subscribed to (`channel_table.rs`), the users they are signed in as or
//! watch, the wheel of their timeouts, and what they may use (rates, pace, memory). Does not touch the state of
//! channels and users that belongs to their home (`home/`), nor the cluster: it sends mail to homes and receives their
//! mail. With one core, mail goes through `OwnMail` and no ring. Inputs: messages and ends of connections, `FromHome`
//! mail, time. Outputs: `Outbox`. `Local` lists the invariants.
//!
//! Limits: those of `memory.rs`, `rate.rs` and `pace.rs` for each connection. Cost: a message is parsed once, which
//! copies it, and then passed to one of the files below, which state theirs. Steps in between are look-ups by slot.

mod access;
pub(super) mod channel_table;
mod client_event;
pub(super) mod connection;
mod count;
pub(super) mod delivery;
#[cfg(feature = "echo")]
mod echo;
mod export;
mod invariants;
mod lifecycle;
mod liveness;
pub(super) mod memory;
mod openings;
pub(super) mod pace;
mod rate;
mod refuse;
pub(super) mod send_queue;
mod shed;
mod subscribe;
mod subscription;
mod unauthorized;
mod unserved;
mod unsubscribe;
mod users;

use crate::shard::slots::ChannelSlot;
use crate::slot::Slot;
use std::sync::Arc;

use super::context::{Context, MemoryLimits};
use super::outbox::{Outbox, Trace};
use super::slots::Slots;
use crate::app::App;
use crate::buffer::Frame;
use crate::cause::{Cause, Detail};
use crate::clock::Moment;
use crate::metrics::CoreMetrics;
use crate::pusher::error_code;
use crate::pusher::inbound::{self, Inbound};
use crate::pusher::json::Validator;
use crate::pusher::outbound;
use crate::wheel::Wheel;
use crate::ws::frame::{self, Opcode};
use channel_table::ChannelTable;
use connection::{Connection, ConnectionKey, get_open};
use liveness::SecondStarts;
use memory::MemoryAccount;
use openings::Openings;
use pace::PaceTable;
use refuse::Denial;
use unauthorized::UnauthorizedTable;
use users::UserTable;

/// Invariants:
/// - A connection is in a channel's subscriber list only after its acknowledgement was enqueued (docs/PROTOCOL.md rule
///   98).
/// - Every change of membership goes through `acknowledge` or `end_subscription_at`; counters change with it
///   (docs/PROTOCOL.md rule 85).
/// - A method that takes a slot is given one in use: of a key that its caller has just looked up, or of a list of
///   subscribers or watchers. `remove` alone frees a slot, after `leave_all` has taken the connection out of those
///   lists.
pub(super) struct Local {
    pub(super) connections: Slots<Connection>,
    /// Gives each connection its generation, and each subscription in flight its ticket.
    last_number: u32,
    pub(super) channels: ChannelTable,
    pub(super) openings: Openings,
    pub(super) users: UserTable,
    pace: PaceTable,
    /// When to look at each connection for its silence.
    pub(super) wheel: Wheel<ConnectionKey>,
    account: MemoryAccount,
    /// A copy of those of `Settings`, near to the rest for `deliver`.
    memory_limits: MemoryLimits,
    /// Connections with a ping to be answered when the second is over, each once.
    pongs_due: Vec<ConnectionKey>,
    unauthorized: UnauthorizedTable,
    /// `None` only while a message is read, so that what it finds may borrow from it.
    validator: Option<Validator>,
    /// Kept between calls, so that a frame is encoded without an allocation for its text.
    text_buffer: Vec<u8>,
    frames: SharedFrames,
    second_starts: SecondStarts,
    metrics: Arc<CoreMetrics>,
    /// Slow consumers that `settle` will close: each connection once, so no more than were open since the last call.
    /// They are not closed at once, because a close changes lists that the caller walks over.
    pub(in crate::shard) slow_consumers: Vec<Slot>,
    /// Channels whose number of subscribers has changed; see `count.rs`.
    counts_changed: Vec<ChannelSlot>,
    /// Refusals so far; the number wraps. `on_message` compares it before and after, to learn whether this message was
    /// refused.
    refusals: u32,
    /// While connections of apps that are no longer served are closed: the next slot to look at.
    unserved_next_slot: Option<Slot>,
}

/// Frames that never differ, made once per core.
struct SharedFrames {
    ping_event: Frame,
    ping_control: Frame,
    pong_event: Frame,
}

impl Local {
    pub(super) fn new(context: &Context) -> Self {
        let reserved = context.settings.connections_reserved;
        let mut ping_control = Vec::new();
        frame::encode(Opcode::Ping, b"", &mut ping_control);
        Self {
            connections: Slots::new(reserved),
            last_number: 0,
            channels: ChannelTable::new(reserved),
            openings: Openings::default(),
            users: UserTable::default(),
            pace: PaceTable::new(context.settings.pace),
            wheel: Wheel::default(),
            account: MemoryAccount::default(),
            memory_limits: context.settings.memory,
            pongs_due: Vec::new(),
            unauthorized: UnauthorizedTable::default(),
            validator: Some(Validator::default()),
            text_buffer: Vec::new(),
            frames: SharedFrames {
                ping_event: frame::encode_text(outbound::PING).into(),
                ping_control: ping_control.into(),
                pong_event: frame::encode_text(outbound::PONG).into(),
            },
            second_starts: SecondStarts::default(),
            metrics: context.settings.metrics.clone(),
            slow_consumers: Vec::new(),
            counts_changed: Vec::new(),
            refusals: 0,
            unserved_next_slot: None,
        }
    }
}

/// An open connection, just after `note_inbound`.
struct NotedInput<'a> {
    connection: &'a mut Connection,
    /// The second of its input before this one, if a ping was unanswered: `note_pong` derives the time of the ping.
    ping_sent_after: Option<u32>,
}

impl Local {
    /// Once a second, or after a long sleep for all seconds of it.
    pub(super) fn advance(&mut self, context: &Context, out: &mut Outbox, before: Moment) {
        debug_assert!(before.seconds() < context.now.seconds(), "another second has begun");
        // `slow_consumers` may have connections already: the flush of the tick before ends sockets, and what that sends
        // to others may find their queues full. The `settle` of this tick closes them.
        self.openings.note_second(before.seconds(), self.last_number);
        self.check_liveness(context, out, before.seconds());
        self.close_unauthorized(context, out);
        self.answer_due_pings(context, out);
        self.pace.expire(context.now);
    }

    /// `None` when the connection is gone, whatever is in its slot now. A closing one is found.
    #[must_use]
    pub(in crate::shard) fn get(&self, key: ConnectionKey) -> Option<&Connection> {
        self.connections.get(key.slot).filter(|found| found.generation == key.generation)
    }

    /// Closing connections included.
    pub(in crate::shard) fn keys(&self) -> impl Iterator<Item = ConnectionKey> {
        self.connections
            .iter()
            .map(|(slot, connection)| ConnectionKey { slot, generation: connection.generation })
    }

    fn get_open(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        get_open(&mut self.connections, key)
    }

    #[must_use]
    pub(in crate::shard) fn message_size_max(&self, context: &Context, slot: Slot) -> usize {
        self.app_of(context, slot).message_size_max
    }

    fn app_of<'a>(&self, context: &'a Context, slot: Slot) -> &'a App {
        context.app(self.connections[slot].app)
    }

    /// A complete message of a client, text or binary (Reverb reads binary frames as text).
    pub(in crate::shard) fn on_message(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        text: &[u8],
    ) {
        debug_assert!(self.validator.is_some(), "one message is read at a time");
        let Some(noted) = self.note_inbound(context, key) else { return };
        let NotedInput { connection, ping_sent_after } = noted;
        let (app, socket_id) = (connection.app, connection.socket_id);
        self.metrics.app(app).messages_received.add(1);
        if !self.is_within_rate(context, key.slot, app) {
            return self.refuse_over_rate(context, out, key.slot, text);
        }
        out.trace(|| Trace::Received(socket_id, text.into()));
        let refusals_before = self.refusals;
        let mut validator = self.validator.take().unwrap_or_default();
        match inbound::parse(text, &mut validator) {
            Ok(Inbound::Ping) => {
                self.enqueue(context, out, key.slot, &self.frames.pong_event.clone())
            }
            Ok(Inbound::Pong) => {
                if let Some(second) = ping_sent_after {
                    self.note_pong(context, key.slot, second);
                }
            }
            Ok(Inbound::Ignored { event }) => {
                let event = Detail::text(event.trim_matches('"'));
                let error = error_code::INVALID_MESSAGE;
                self.drop_silently(
                    context,
                    out,
                    key.slot,
                    &Denial::new(error, Cause::NotClientEvent, [event]),
                );
            }
            Ok(Inbound::Subscribe(subscribe)) => self.on_subscribe(context, out, key, &subscribe),
            Ok(Inbound::Unsubscribe { channel }) => {
                self.on_unsubscribe(context, out, key, &channel)
            }
            Ok(Inbound::ClientEvent(event)) => self.on_client_event(context, out, key, &event),
            Ok(Inbound::SignIn(sign_in)) => self.on_sign_in(context, out, key, &sign_in),
            Err(malformed) => self.deny_malformed(context, out, key.slot, &malformed),
        }
        self.validator = Some(validator);
        debug_assert!(self.get(key).is_some(), "`remove` alone frees its slot");
        if self.refusals == refusals_before {
            out.trace(|| Trace::Handled(socket_id));
        }
    }

    /// Any input answers a ping. `None` when the connection is closing or gone: its input no longer counts.
    #[inline]
    fn note_inbound(&mut self, context: &Context, key: ConnectionKey) -> Option<NotedInput<'_>> {
        let now = context.now_seconds;
        let connection = self.get_open(key)?;
        debug_assert!(connection.last_inbound_seconds <= now, "it has sent nothing in the future");
        if connection.last_inbound_seconds != now {
            connection.control_frames.begin_second();
        }
        let ping_sent_after = connection.awaits_pong.then_some(connection.last_inbound_seconds);
        connection.last_inbound_seconds = now;
        connection.awaits_pong = false;
        Some(NotedInput { connection, ping_sent_after })
    }

    /// For the home side, which makes rosters: memory is one account for both sides of a core.
    pub(super) fn memory(&mut self) -> &mut MemoryAccount {
        &mut self.account
    }

    /// Closing connections included.
    #[must_use]
    pub(in crate::shard) fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Deadlines of connections: to be looked at for silence, and to be authorized.
    #[must_use]
    pub(in crate::shard) fn deadline_counts(&self) -> (usize, usize) {
        debug_assert!(
            self.connections.len() > crate::limits::ASSERTED_LEN_MAX
                || self.wheel.len()
                    >= self.connections.iter().filter(|(_, one)| !one.is_closing).count(),
            "each open connection is looked at for its silence"
        );
        (self.wheel.len(), self.unauthorized.len())
    }
}
