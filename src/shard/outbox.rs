//! The closed list of effects a shard has on the world. PURE; the worker carries them out at the end of the tick.
//!
//! Owns effects until the worker takes them: in the same tick, except for `orders`. Carries none out. Mail between the
//! local side and the home side of this core passes here, too (`OwnMail`); `Shard` removes it before a call returns.
//!
//! Limits: `NOTES_MAX`, `REFUSALS_MAX`, `OBSERVATIONS_MAX` and `OPERATOR_ORDERS_MAX`; the other lists are bounded by
//! the input of a tick. Cost: one push for an effect, to a list that keeps its room between ticks, so no allocation in
//! the long run.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ConnectionKey;
use super::channel_key::ChannelKey;
use super::cluster::ClusterOutbox;
use super::context::Context;
use super::home::change::Change;
use super::mail::{Lane, Mail};
use super::operator::OperatorOrder;
use super::query::Answer;
use crate::app::AppIndex;
use crate::buffer::FrameBytes;
use crate::cause::{Cause, LineBudget};
use crate::counters::RefusalTally;
use crate::metrics::ConnectionEnd;
use crate::pusher::socket_id::SocketId;
use crate::pusher::webhook_event::WebhookEvent;
use crate::slot::Slot;
use crate::text::shown;

/// An answer, or a part of one, to a question that this core gathers answers for (`tick/gather.rs`).
#[derive(Debug)]
pub enum GatherAnswer {
    Core {
        id: u32,
        answer: Answer,
    },
    /// So many nodes received the question, this one among them: their answers are to be waited for.
    Nodes {
        id: u32,
        count: u32,
    },
    /// All answers of one node, one of each of its cores.
    Node {
        id: u32,
        answers: Vec<Answer>,
    },
    /// The session with Redis is down, so no answer of another node will come.
    NodesGone,
}

/// What `--debug` shows, in Reverb's words (docs/PROTOCOL.md rule 123).
#[derive(Debug)]
pub enum Trace {
    Established(SocketId),
    Received(SocketId, Box<[u8]>),
    Handled(SocketId),
    ControlFrame(SocketId),
    Pinged(SocketId),
    Pruned(SocketId),
    Closed(SocketId),
    Broadcasting(Arc<str>, FrameBytes),
}

/// What the event log of the console shows. Made only while it has a viewer.
#[derive(Debug)]
pub enum Observation {
    Connected { app: AppIndex, socket_id: SocketId },
    Disconnected { app: AppIndex, socket_id: SocketId, ended: ConnectionEnd },
    Subscribed { app: AppIndex, socket_id: SocketId, channel: Arc<str>, user: Option<Box<str>> },
    Unsubscribed { app: AppIndex, socket_id: SocketId, channel: Arc<str> },
    SignedIn { app: AppIndex, socket_id: SocketId, user: Box<str> },
    ClientEvent { app: AppIndex, socket_id: SocketId, channel: Arc<str>, frame: FrameBytes },
}

/// Effects since the worker looked last. The lists of the hot path (`mails`, `dirty`) keep their storage.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Mail in order, for other cores and for this one: a home is written to like any other, so that what other
    /// cores sent before comes before.
    pub mails: Vec<(u16, Mail)>,
    /// Slots with something to send; each at most once (`Connection::is_dirty`).
    pub dirty: Vec<Slot>,
    /// Connections we have begun to close, with the close code.
    pub closed: Vec<(ConnectionKey, u16)>,
    pub answered: Vec<GatherAnswer>,
    /// Empty without a cluster.
    pub cluster: ClusterOutbox,
    /// Only of apps that want them; the worker's feed filters them further by endpoint.
    pub webhooks: Vec<WebhookEvent>,
    /// Empty without `--debug`.
    pub traces: Vec<Trace>,
    /// For the event log of the console; empty while it has no viewer. Limit: `OBSERVATIONS_MAX`.
    pub observations: Vec<Observation>,
    /// How many observations found no room. The worker reports them to viewers and resets it.
    pub unobserved: u64,
    /// The event log has a viewer: fill `observations`. The worker sets it at the beginning of a tick.
    pub is_observed: bool,
    /// Questions of other nodes' operators, which the worker answers in slices. Limit: `OPERATOR_ORDERS_MAX`.
    /// `Shard::next_operator_order` takes them out.
    pub orders: VecDeque<OperatorOrder>,
    /// Lines about other nodes, and hints for developers.
    pub notes: Vec<String>,
    /// Lines about what was refused or closed; `lines` bounds them.
    pub refusals: Vec<RefusalNote>,
    pub refused: RefusalTally,
    pub lines: LineBudget,
    /// Published events were enqueued since the flush reset this.
    pub has_events: bool,
    /// Empty between two calls of `Shard`.
    pub(super) own_mail: OwnMail,
    core: u16,
    is_only_core: bool,
    /// See `ShardConfiguration::debug`.
    is_traced: bool,
}

/// What the sides of one core send each other, in the order in which `Shard` takes it out: all `from_home` before the
/// next of `changes`, and all of these before the next of `to_home`. So each request to a home is finished before the
/// next one begins, as on several cores.
#[derive(Debug, Default)]
pub(super) struct OwnMail {
    pub(super) from_home: VecDeque<Mail>,
    pub(super) changes: VecDeque<(ChannelKey, Change)>,
    pub(super) to_home: VecDeque<Mail>,
}

impl OwnMail {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.from_home.is_empty() && self.changes.is_empty() && self.to_home.is_empty()
    }
}

/// A line about a connection: what was refused, why, and what to change. Never a secret.
#[derive(Debug)]
pub struct RefusalNote {
    pub cause: Cause,
    pub line: String,
    /// Lines of the same cause that were left out before it.
    pub left_out: u32,
    pub channel: Option<Box<str>>,
    pub connection: ConnectionKey,
    /// `None`: it was never opened.
    pub app: Option<AppIndex>,
    pub socket_id: SocketId,
}

/// In one tick. `Outbox::lines` bounds those of each cause in a longer time.
const REFUSALS_MAX: usize = 256;
/// In one tick: a thousand connections that close at once are more than a viewer can read.
const OBSERVATIONS_MAX: usize = 1_024;
/// In one tick: other nodes and backends cause notes, and a flood of them must not be a flood of memory. Others are
/// dropped.
const NOTES_MAX: usize = 16;

impl Outbox {
    pub(super) fn new(context: &Context) -> Self {
        let settings = &context.settings;
        Self {
            lines: LineBudget::new(settings.debug),
            core: settings.core,
            is_only_core: settings.cores == 1,
            is_traced: settings.debug,
            ..Self::default()
        }
    }

    /// Whether the worker has nothing to carry out. A flush that closes connections fills any of the lists after the
    /// worker has carried them out, so all of them count: otherwise their effects would wait for the next heartbeat.
    /// What the flush leaves to `Shard::settle` is not here (`Shard::has_unsettled`).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mails.is_empty()
            && self.dirty.is_empty()
            && self.closed.is_empty()
            && self.answered.is_empty()
            && self.cluster.is_empty()
            && self.webhooks.is_empty()
            && self.traces.is_empty()
            && self.observations.is_empty()
            && self.notes.is_empty()
            && self.refusals.is_empty()
    }

    pub(super) fn push_refusal_note(&mut self, refusal: RefusalNote) {
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.push(refusal);
        }
        debug_assert!(self.refusals.len() <= REFUSALS_MAX, "lines of one tick");
    }

    pub(super) fn log_for_channel(&mut self, channel: &str, text: &str) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(format!("{}: {text}", shown(channel)));
        }
        debug_assert!(self.notes.len() <= NOTES_MAX, "lines until the worker takes them");
    }

    /// For a line that names its subject itself.
    pub(super) fn log_line(&mut self, line: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(line);
        }
        debug_assert!(self.notes.len() <= NOTES_MAX, "lines until the worker takes them");
    }

    /// The home side of this core gets its mail by the tick, after what other cores sent before. A lone core has no
    /// others to wait for.
    pub(super) fn send_to_home(&mut self, home: u16, mail: Mail) {
        debug_assert!(matches!(mail.lane(), Lane::ToHome), "mail that a home processes");
        debug_assert!(!self.is_only_core || home == self.core, "a lone core is each home");
        if self.is_only_core {
            self.own_mail.to_home.push_back(mail);
        } else {
            self.mails.push((home, mail));
        }
    }

    /// For a home. Mail to the own core makes no detour, because no other mail could come before it.
    pub(super) fn send_from_home(&mut self, core: u16, mail: Mail) {
        debug_assert!(matches!(mail.lane(), Lane::FromHome), "mail that a home sends");
        debug_assert!(!self.is_only_core || core == self.core, "there is no other core");
        if core == self.core {
            self.own_mail.from_home.push_back(mail);
        } else {
            self.mails.push((core, mail));
        }
    }

    /// For mail that `Cluster::hold_back` kept. It is routed in the same call, after the mail that is there already.
    pub(super) fn requeue_held_mail(&mut self, mails: Vec<Mail>) {
        debug_assert!(
            mails.iter().all(|mail| matches!(mail.lane(), Lane::ToHome)),
            "only mail to a home is held back"
        );
        self.own_mail.to_home.extend(mails);
    }

    /// For the cluster side; nothing on a single node, where the closure is not called.
    pub(super) fn report_change(
        &mut self,
        context: &Context,
        channel: &ChannelKey,
        change: impl FnOnce() -> Change,
    ) {
        if context.is_clustered() {
            self.own_mail.changes.push_back((channel.clone(), change()));
            debug_assert_eq!(
                context.keys.home(channel),
                context.core(),
                "a home reports changes of its own channels"
            );
        }
    }

    /// For the event log of the console. Without a viewer the closure is not called.
    #[inline]
    pub(super) fn observe(&mut self, observation: impl FnOnce() -> Observation) {
        if self.is_observed {
            self.push_observation(observation);
        }
    }

    #[cold]
    #[inline(never)]
    fn push_observation(&mut self, observation: impl FnOnce() -> Observation) {
        debug_assert!(self.is_observed, "without a viewer nothing is observed");
        if self.observations.len() < OBSERVATIONS_MAX {
            self.observations.push(observation());
        } else {
            self.unobserved += 1;
        }
        debug_assert!(self.observations.len() <= OBSERVATIONS_MAX, "observations of one tick");
    }

    pub(super) fn set_traced(&mut self, is_traced: bool) {
        self.is_traced = is_traced;
    }

    #[inline]
    pub(super) fn is_traced(&self) -> bool {
        self.is_traced
    }

    /// For `--debug`. Without it the closure is not called.
    #[inline]
    pub(super) fn trace(&mut self, trace: impl FnOnce() -> Trace) {
        if self.is_traced {
            self.push_trace(trace);
        }
    }

    #[cold]
    #[inline(never)]
    fn push_trace(&mut self, trace: impl FnOnce() -> Trace) {
        debug_assert!(self.is_traced, "the worker takes traces only then");
        self.traces.push(trace());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::cluster::ToCluster;
    use crate::shard::node_message::{ApiMessage, NodeId, SessionId};

    type Effect<'a> = &'a dyn Fn(&mut Outbox);

    /// Each list of effects, because the flush can fill any of them after the worker has carried out the effects of its
    /// tick.
    #[test]
    fn an_outbox_with_an_effect_of_any_kind_is_not_empty() {
        let socket_id = SocketId::make(0, 1, 4_711);
        let key = ConnectionKey { slot: Slot::FIRST, generation: 1 };
        let refusal = || RefusalNote {
            cause: Cause::Kernel,
            line: String::new(),
            left_out: 0,
            channel: None,
            connection: key,
            app: None,
            socket_id,
        };
        let reply = || ToCluster::Reply {
            to: SessionId { node: NodeId(7), core: 0 },
            message: ApiMessage::Answer { id: 1, answers: Vec::new() }.into(),
        };
        let effects: [(&str, Effect); 9] = [
            ("mails", &|outbox| {
                outbox.mails.push((1, Mail::Answer { id: 1, answer: Answer::Connections(0) }));
            }),
            ("dirty", &|outbox| outbox.dirty.push(Slot::new(0))),
            ("closed", &|outbox| outbox.closed.push((key, 4_100))),
            ("answered", &|outbox| outbox.answered.push(GatherAnswer::NodesGone)),
            ("cluster", &|outbox| outbox.cluster.push(reply())),
            ("cluster over its limit", &|outbox| outbox.cluster.request_restart()),
            ("traces", &|outbox| outbox.traces.push(Trace::Handled(socket_id))),
            ("notes", &|outbox| outbox.log_line("a line".to_owned())),
            ("refusals", &|outbox| outbox.push_refusal_note(refusal())),
        ];
        assert!(Outbox::default().is_empty());
        for (name, effect) in effects {
            let mut outbox = Outbox::default();
            effect(&mut outbox);
            assert!(!outbox.is_empty(), "{name}");
        }
    }
}
