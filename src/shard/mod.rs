//! The shard: one core's whole state as a synchronous value, and every rule that changes it. PURE.
//!
//! No clock, socket, randomness, lock or `async` in here: input comes as arguments, effects leave through `Outbox`. So
//! N shards run in one thread under a simulator exactly as they do on N cores.
//!
//! Owns three parts. `Local` has the connections of this core. `Home` has the channels and users whose home this core
//! is, and alone gives a channel's events their order. `Cluster` has what other nodes have; there is none on a single
//! node. `Local` and `Home` send each other `Mail` only, `Home` sends `Change`s to `Cluster`, and `Cluster` calls
//! `Home`. This file joins them; `Shard` lists the invariants.
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

/// Invariants:
/// - With one worker, all mail of a shard to itself (`OwnMail`) is processed before the call that made it returns. With
///   several, `ToHome` mail to the own core waits in `Outbox::mails`. Each request to a home is finished, with all that
///   it causes here, before the next one begins.
/// - Processing own mail enqueues frames and changes channels. It neither frees a slot nor closes a connection: slow
///   consumers wait in `Local::slow_consumers` for `settle`.
/// - `check_invariants` has the others. Simulator and unit tests call it.
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

    /// The one clock of the shard: what is due by the second happens here. A time before the last one counts as the
    /// last.
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
        self.drain_own_mail();
        self.home.advance(&self.context, &mut self.outbox);
        self.drain_own_mail();
        if let Some((cluster, mut here)) = self.clustered() {
            cluster.advance(&mut here);
            self.drain_own_mail();
        }
        self.outbox.lines.refill();
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<CoreMetrics> {
        &self.context.settings.metrics
    }

    /// The time of the last `advance`: the same during a whole tick.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.context.now
    }

    /// For a text of a peer, which is checked here.
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

    /// For a name that was checked when its request was read.
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

    /// See `Local::open_refused`.
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
        self.drain_own_mail();
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

    /// For mail of another core in the order of its lane, and for `ToHome` mail of this core to itself, which the tick
    /// brings after what other cores sent before.
    pub fn on_mail(&mut self, mail: Mail) {
        debug_assert!(self.outbox.own_mail.is_empty(), "each call takes out what it causes");
        self.route(mail);
        self.drain_own_mail();
    }

    /// Routes what the parts of this shard have for each other, in the order that `OwnMail` states, until none is left.
    #[inline]
    fn drain_own_mail(&mut self) {
        if !self.outbox.own_mail.is_empty() {
            self.drain_own_mail_in_order();
        }
        debug_assert!(self.outbox.own_mail.is_empty(), "the parts have answered each other");
    }

    fn drain_own_mail_in_order(&mut self) {
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

    /// Borrows the cluster side beside what it changes. `None` on a single node.
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

    /// In a cluster, mail to a home may be held back first, until other nodes have answered.
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
            Mail::Count { channel, core, count } => {
                home.on_core_count(context, out, &channel, core, count)
            }
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
                debug_assert!(from != self.context.core(), "a core asks itself without mail");
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
            Mail::SubscribeRefused { channel, connection, ticket, error } => {
                local.on_subscribe_refused(context, out, &channel, connection, ticket, error);
            }
            Mail::UserStatus { user, online } => {
                debug_assert_eq!(user.kind.access, Access::User, "a user's own channel");
                local.on_user_status(context, out, &user, online);
            }
            Mail::Answer { id, answer } => out.answered.push(GatherAnswer::Core { id, answer }),
        }
    }

    fn note_user(&mut self, user: &ChannelKey, core: u16, is_signed_in: bool) {
        debug_assert_eq!(user.kind.access, Access::User, "a user is named by their own channel");
        let elsewhere = self.is_online_elsewhere(user);
        let Self { context, home, outbox, .. } = self;
        home.note_user(context, outbox, (user, core), is_signed_in, elsewhere);
    }

    /// Answers the close frame of a client with one (RFC 6455 section 5.5.1). Its subscriptions end at once; its socket
    /// ends when the frame was sent.
    pub fn close_frame(&mut self, slot: Slot, code: u16, reason: &str) {
        let why = ConnectionEnd::ClientClose;
        self.local.close_frame(&self.context, &mut self.outbox, slot, (code, reason), why);
        debug_assert!(
            self.local.connections.get(slot).is_none_or(|found| found.subscriptions.is_empty()),
            "its subscriptions have ended"
        );
        self.drain_own_mail();
        debug_assert!(
            self.local.connections.get(slot).is_none_or(Connection::is_closing),
            "it is closing"
        );
    }

    /// See `Local::close_violating`.
    pub fn close_violating(&mut self, slot: Slot, violation: Violation) {
        self.local.close_violating(&self.context, &mut self.outbox, slot, violation);
        self.drain_own_mail();
        debug_assert!(
            self.local.connections.get(slot).is_none_or(Connection::is_closing),
            "it is closing"
        );
    }

    /// See `Local::close_some`.
    pub fn close_some(&mut self, count: usize, error: ErrorCode) -> bool {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        let are_left = self.local.close_some(&self.context, &mut self.outbox, count, error);
        self.drain_own_mail();
        are_left
    }

    /// See `Local::shed`.
    pub fn shed(&mut self, slots: Range<usize>, input_bytes: impl Fn(Slot) -> usize) {
        debug_assert!(slots.start <= slots.end, "slots in order");
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.local.shed(&self.context, &mut self.outbox, slots, input_bytes);
        self.drain_own_mail();
    }

    /// See `Local::remove`.
    pub fn remove(&mut self, key: ConnectionKey) {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.local.remove(&self.context, &mut self.outbox, key);
        self.drain_own_mail();
        debug_assert!(self.get(key).is_none(), "the slot is another connection's, or free");
    }

    /// See `Local::note_refusal`.
    pub fn note_refusal(
        &mut self,
        slot: Slot,
        cause: Cause,
        values: &[Detail<'_>],
    ) -> Option<String> {
        self.local.note_refusal(&self.context, &mut self.outbox, slot, cause, values)
    }
}
