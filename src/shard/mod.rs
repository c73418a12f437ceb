//! The shard: one core's whole state as a synchronous value, and every rule that changes it. PURE.
//!
//! No clock, socket, randomness, lock or `async` in here: input comes as arguments, effects leave through `Outbox`. So
//! N shards run in one thread under a simulator exactly as they do on N cores.
//!
//! A shard has three parts. `Local` has the connections of this core. `Home` has the channels and users whose home this
//! core is, and alone gives a channel's events their order. `Cluster` has what other nodes have; there is none on a
//! single node. Each owns its state and gets `&Context` and `&mut Outbox` as arguments. `Local` and `Home` send each
//! other `Mail` only, `Home` sends `Change`s to `Cluster`, and `Cluster` calls `Home`. This file joins them.
//!
//! Invariants:
//! - With one worker, all mail of a shard to itself (`OwnMail`) is processed before the call that made it returns. With
//!   several, `ToHome` mail to the own core waits in `Outbox::mails`. Each request to a home is finished, with all that
//!   it causes here, before the next one begins.
//! - Processing own mail enqueues frames and changes channels. It neither frees a slot nor closes a connection: slow
//!   consumers wait in `Local::slow_consumers` for `settle`.
//! - `check_invariants` has the others. Simulator and unit tests call it.
//!
//! Limits: those of its parts. Cost: a call hands on to one part, a few steps; a core without other cores loops over
//! its own mail in the same call.

mod access;
mod channel_key;
mod cluster;
mod cluster_side;
mod configuration;
mod context;
mod core_set;
mod home;
mod inspect;
mod invariants;
mod local;
mod mail;
mod node_message;
mod operator;
mod outbox;
mod query;
mod sending;
mod slots;
mod state;
#[cfg(test)]
mod tests;
mod transfer;
mod webhooks;

pub use access::{AccessAction, AccessCommand, AccessEnd, AccessTarget};
pub use channel_key::{ChannelKey, ChannelKeys};
pub use cluster::{
    ANSWER_SECONDS, ClusterOutbox, FromCluster, LEASE_SECONDS, Stored, ToCluster, TransitionCounts,
};
pub use configuration::ShardConfiguration;
pub use context::{MemoryLimits, Pace, Settings};
pub use inspect::{ChannelRow, ConnectionDetails, ConnectionRow, Findings, Inspection, Inspector};
pub use local::connection::{Connection, ConnectionKey};
pub use local::delivery::AfterSend;
pub use local::send_queue::SendQueue;
pub use mail::{Greeting, Join, Lane, Mail, Restore};
pub use node_message::{
    ApiMessage, ChannelMessage, MemberSnapshot, NodeId, NodeMessage, NodeSnapshot, Replayed,
    SessionId, SessionMessage, WireAnswer, WireDescribed, WireQuestion,
};
pub use operator::{
    NodeChannelRow, NodeConnectionDetails, NodeConnectionRow, NodeRows, OPERATOR_ORDERS_MAX,
    ORDER_TIME_MS, OperatorAnswer, OperatorOrder, OperatorOutcome, OperatorQuestion,
};
pub use outbox::{GatherAnswer, Observation, Outbox, RefusalNote, Trace};
pub use query::{Answer, Described, MessageCounts, NodeQuestion, Question, Traffic};
pub use state::{ChannelState, ConnectionState, HomeState, MemberState, TransferFault, UserState};

use std::ops::Range;
use std::sync::Arc;

use crate::app::AppIndex;
use crate::cause::{Cause, Detail};
use crate::clock::Moment;
use crate::limits;
use crate::metrics::{ConnectionEnd, CoreMetrics};
use crate::pusher::channel_name::{Access, ChannelName, NameError};
use crate::pusher::error_code::ErrorCode;
use crate::slot::Slot;
use crate::ws::violation::Violation;
use cluster::{Cluster, Here};
use context::Context;
use home::{Home, SubscribeRequest};
use local::Local;

pub struct Shard {
    context: Context,
    local: Local,
    home: Home,
    /// `None`: this node is alone.
    cluster: Option<Box<Cluster>>,
    pub outbox: Outbox,
}

impl Shard {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        debug_assert!(
            usize::from(settings.cores) <= limits::WORKERS_MAX,
            "a home stores cores as bits"
        );
        assert!(settings.core < settings.cores, "a core's index is below the number of cores");
        let context = Context::new(settings);
        Self {
            local: Local::new(&context),
            home: Home::new(&context),
            cluster: context.settings.node.map(|own| Box::new(Cluster::new(own))),
            outbox: Outbox::new(&context),
            context,
        }
    }

    /// Moves the shard's clock. With each second the parts do what is due.
    pub fn advance(&mut self, now: Moment) {
        debug_assert!(self.outbox.own_mail.is_empty(), "each call takes out what it causes");
        // Time does not run backwards, even if the clock does.
        let before = self.context.now;
        let now = now.max(before);
        self.context.now = now;
        self.context.now_seconds = now.seconds();
        debug_assert!(self.context.now >= before, "the clock of a shard does not run backwards");
        debug_assert_eq!(
            self.context.now_seconds,
            self.context.now.seconds(),
            "one time in two forms"
        );
        if now.seconds() == before.seconds() {
            return;
        }
        self.local.advance(&self.context, &mut self.outbox, before);
        self.take_own_mail();
        self.home.advance(&self.context, &mut self.outbox);
        self.take_own_mail();
        if let Some((cluster, mut here)) = self.clustered() {
            cluster.advance(&mut here);
            self.take_own_mail();
        }
        self.outbox.lines.refill();
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<CoreMetrics> {
        &self.context.settings.metrics
    }

    /// The shard's clock, as `advance` left it.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.context.now
    }

    /// Makes the key of a channel from a text of a peer.
    ///
    /// # Errors
    /// When the text is no channel name.
    pub fn channel_key(&self, app: AppIndex, text: &str) -> Result<ChannelKey, NameError> {
        debug_assert!(
            usize::from(app.0) < self.context.settings.apps.iter().len(),
            "an app of ours"
        );
        self.context.keys.make(app, text)
    }

    /// Makes the key of a channel from a checked name.
    #[must_use]
    pub fn key_of(&self, app: AppIndex, name: &ChannelName) -> ChannelKey {
        debug_assert!(
            usize::from(app.0) < self.context.settings.apps.iter().len(),
            "an app of ours"
        );
        self.context.keys.of(app, name)
    }

    /// See `Local::open`.
    pub fn open(&mut self, app: AppIndex, entropy: u64, prelude: &[u8]) -> ConnectionKey {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.local.open(&self.context, &mut self.outbox, app, entropy, prelude)
    }

    /// A handshake is done but the connection is refused: it is sent the reason in an event and in a close frame
    /// (docs/PROTOCOL.md rule 9, C13 "fatal errors"). `why`: the line of the log, with verbose errors.
    pub fn open_refused(
        &mut self,
        prelude: &[u8],
        error: ErrorCode,
        why: Option<&str>,
    ) -> ConnectionKey {
        self.local.open_refused(&self.context, &mut self.outbox, prelude, error, why)
    }

    /// See `Local::get`.
    #[must_use]
    #[inline]
    pub fn get(&self, key: ConnectionKey) -> Option<&Connection> {
        self.local.get(key)
    }

    /// See `Local::keys`.
    pub fn keys(&self) -> impl Iterator<Item = ConnectionKey> {
        self.local.keys()
    }

    /// See `Local::connection_count`.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.local.connection_count()
    }

    /// See `Local::deadline_counts`.
    #[must_use]
    pub fn deadline_counts(&self) -> (usize, usize) {
        self.local.deadline_counts()
    }

    /// See `HomeTable::cached`.
    #[must_use]
    pub fn cached(&self) -> (usize, u64) {
        self.home.channels.cached()
    }

    /// Numbers of subscribers that this home sends when their pause is over.
    #[must_use]
    pub fn counts_waiting(&self) -> usize {
        self.home.channels.counts.due_len()
    }

    /// See `Local::message_size_max`.
    #[must_use]
    pub fn message_size_max(&self, slot: Slot) -> usize {
        self.local.message_size_max(&self.context, slot)
    }

    /// See `Local::on_message`.
    pub fn on_message(&mut self, key: ConnectionKey, text: &[u8]) {
        debug_assert!(self.outbox.own_mail.is_empty(), "each call takes out what it causes");
        self.local.on_message(&self.context, &mut self.outbox, key, text);
        self.take_own_mail();
    }

    /// See `Local::on_ping_frame`.
    pub fn on_ping_frame(&mut self, key: ConnectionKey, payload: &[u8]) {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.local.on_ping_frame(&self.context, &mut self.outbox, key, payload);
    }

    /// See `Local::on_pong_frame`.
    #[inline]
    pub fn on_pong_frame(&mut self, key: ConnectionKey) {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.local.on_pong_frame(&self.context, &mut self.outbox, key);
    }

    /// See `Local::echo`.
    #[cfg(feature = "echo")]
    pub fn echo(
        &mut self,
        key: ConnectionKey,
        kind: crate::ws::reader::MessageKind,
        payload: &[u8],
    ) {
        self.local.echo(&self.context, &mut self.outbox, key, kind, payload);
    }

    /// Mail of another core, in the order of its lane, or of this one.
    pub fn on_mail(&mut self, mail: Mail) {
        debug_assert!(self.outbox.own_mail.is_empty(), "each call takes out what it causes");
        self.route(mail);
        self.take_own_mail();
    }

    /// Processes what the parts of this shard have for each other, in the order that `OwnMail` states.
    #[inline]
    fn take_own_mail(&mut self) {
        if !self.outbox.own_mail.is_empty() {
            self.take_all_own_mail();
        }
        debug_assert!(self.outbox.own_mail.is_empty(), "the parts have answered each other");
    }

    fn take_all_own_mail(&mut self) {
        loop {
            if let Some(mail) = self.outbox.own_mail.from_home.pop_front() {
                self.route(mail);
            } else if let Some((channel, change)) = self.outbox.own_mail.changes.pop_front() {
                if let Some((cluster, mut here)) = self.clustered() {
                    cluster.on_change(&mut here, &channel, change);
                }
            } else if let Some(mail) = self.outbox.own_mail.to_home.pop_front() {
                self.route(mail);
            } else {
                return;
            }
        }
    }

    /// The cluster, and what it acts on; `None` on a single node.
    fn clustered(&mut self) -> Option<(&mut Cluster, Here<'_>)> {
        debug_assert_eq!(
            self.cluster.is_some(),
            self.context.is_clustered(),
            "a node of a cluster has the state of one"
        );
        let Self { context, home, cluster, outbox, .. } = self;
        let cluster = cluster.as_deref_mut()?;
        Some((cluster, Here { home, context, out: outbox }))
    }

    /// See `Cluster::is_online_elsewhere`.
    fn is_online_elsewhere(&self, user: &ChannelKey) -> bool {
        debug_assert_eq!(user.kind.access, Access::User, "a user is named by their own channel");
        self.cluster.as_ref().is_some_and(|cluster| cluster.is_online_elsewhere(user))
    }

    /// Gives mail to the side that it is for.
    fn route(&mut self, mail: Mail) {
        let mail = match self.clustered() {
            None => mail,
            Some((cluster, mut here)) => match cluster.hold_back(&mut here, mail) {
                Some(mail) => mail,
                None => return,
            },
        };
        let Self { context, local, home, outbox: out, .. } = self;
        match mail {
            Mail::Publish { channel, frame, except, cache } => {
                self.publish_here(&channel, &frame, except, cache);
            }
            Mail::Deliver { channel, frame, except } => {
                out.has_events = true;
                local.deliver(&mut out.dirty, &channel, &frame, except);
            }
            Mail::Subscribe { channel, connection, ticket, core, join } => {
                debug_assert!(core < context.settings.cores, "a core of this process");
                let request = SubscribeRequest { channel, connection, ticket, core, join };
                home.subscribe(context, out, local.memory(), request);
            }
            Mail::Withdraw { channel, connection, ticket, core } => {
                debug_assert!(context.is_clustered(), "a home of a single node answers at once");
                if let Some((cluster, mut here)) = self.clustered() {
                    cluster.withdraw_subscribe(&mut here, &channel, connection, ticket, core);
                }
            }
            Mail::Leave { channel, user_id } => home.leave(context, out, &channel, &user_id),
            Mail::Disinterest { channel, core } => {
                home.remove_interest(context, out, &channel, core)
            }
            Mail::Count { channel, core, count } => home.count(context, out, &channel, core, count),
            Mail::UserHere { user, core } => self.note_user(&user, core, true),
            Mail::UserGone { user, core } => self.note_user(&user, core, false),
            Mail::Watch { user, core } => {
                let elsewhere = self.is_online_elsewhere(&user);
                self.home.watch(&mut self.outbox, user, core, elsewhere);
            }
            Mail::Unwatch { user, core } => home.unwatch(context, out, &user, core),
            Mail::Restore(restore) => home.restore(context, *restore),
            Mail::EndAccess(command) => local.end_access(context, out, &command),
            Mail::Ask { id, from, question } => {
                debug_assert!(
                    from != self.context.core(),
                    "a core answers its own questions itself"
                );
                let answer = self.answer(&question);
                self.outbox.send_from_home(from, Mail::Answer { id, answer });
            }
            Mail::Inspect { id, from, received_at, question } => {
                self.queue_operator_order(OperatorOrder {
                    gathering_core: from,
                    question_number: id,
                    received_at,
                    question,
                });
            }
            Mail::Subscribed { channel, connection, ticket, greeting, joined } => {
                local.on_subscribed(context, out, &channel, (connection, ticket), greeting, joined);
            }
            Mail::Full { channel, connection, ticket, error } => {
                local.on_subscribe_refused(context, out, &channel, connection, ticket, error);
            }
            Mail::UserStatus { user, online } => {
                debug_assert_eq!(user.kind.access, Access::User, "a user's own channel");
                local.on_user_status(context, out, &user, online);
            }
            Mail::Answer { id, answer } => out.answered.push(GatherAnswer::Core { id, answer }),
        }
    }

    /// A core has connections of the user now, or has lost the last one.
    fn note_user(&mut self, user: &ChannelKey, core: u16, is_signed_in: bool) {
        debug_assert_eq!(user.kind.access, Access::User, "a user is named by their own channel");
        let elsewhere = self.is_online_elsewhere(user);
        let Self { context, home, outbox, .. } = self;
        home.note_user(context, outbox, (user, core), is_signed_in, elsewhere);
    }

    /// The client has sent a close frame, and is answered with one. Its subscriptions end at once; its socket ends when
    /// the frame was sent.
    pub fn close_frame(&mut self, slot: Slot, code: u16, reason: &str) {
        let why = ConnectionEnd::ClientClose;
        self.local.close_frame(&self.context, &mut self.outbox, slot, (code, reason), why);
        debug_assert!(
            self.local.connections.get(slot).is_none_or(|found| found.subscriptions.is_empty()),
            "its subscriptions have ended"
        );
        self.take_own_mail();
        debug_assert!(
            self.local.connections.get(slot).is_none_or(Connection::is_closing),
            "it is closing"
        );
    }

    /// See `Local::close_violating`.
    pub fn close_violating(&mut self, slot: Slot, violation: Violation) {
        self.local.close_violating(&self.context, &mut self.outbox, slot, violation);
        self.take_own_mail();
        debug_assert!(
            self.local.connections.get(slot).is_none_or(Connection::is_closing),
            "it is closing"
        );
    }

    /// See `Local::close_next`.
    pub fn close_some(&mut self, count: usize, error: ErrorCode) -> bool {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        let are_left = self.local.close_next(&self.context, &mut self.outbox, count, error);
        self.take_own_mail();
        are_left
    }

    /// Closes with 4100 those connections in these slots that keep at least half as much as the heaviest among them.
    /// Call it again while memory is short: each time the rest keep half as much at most. `input_bytes` returns the
    /// memory of a slot's incomplete input.
    pub fn shed(&mut self, slots: Range<usize>, input_bytes: impl Fn(Slot) -> usize) {
        debug_assert!(slots.start <= slots.end, "slots in order");
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.local.shed(&self.context, &mut self.outbox, slots, input_bytes);
        self.take_own_mail();
    }

    /// See `Local::remove`.
    pub fn remove(&mut self, key: ConnectionKey) {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.local.remove(&self.context, &mut self.outbox, key);
        self.take_own_mail();
        debug_assert!(self.get(key).is_none(), "the slot is another connection's, or free");
    }

    /// Counts a refusal or a close, and queues its line for the log. Returns the line with verbose errors, unless the
    /// answer says the same already.
    pub fn note_refusal(
        &mut self,
        slot: Slot,
        cause: Cause,
        values: &[Detail<'_>],
    ) -> Option<String> {
        self.local.note_refusal(&self.context, &mut self.outbox, slot, cause, values)
    }
}
