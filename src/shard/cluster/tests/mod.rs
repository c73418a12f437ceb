//! One node's cluster side with its home: rows of events in, effects out. After each event the invariants are checked.
//!
//! `check` runs rows. An effect is a word and the channel: `subscribe#3 news` is the SUBSCRIBE with ticket 3, `release`
//! is held-back mail that goes on to the home, `+u` and `-u` are webhooks. What follows from an effect inside of the
//! node is carried out at once, as `Shard` does it.

mod configuration;
mod invariants;
mod remote;
mod session_events;
mod topics;

use crate::shard::context::Context;
use crate::shard::home::Home;
use crate::slot::Slot;
use std::fmt::Write as _;
use std::sync::Arc;

use super::*;
use crate::app::{App, AppIndex, Apps, Webhook, WebhookKind, sample};
use crate::clock::Moment;
use crate::pusher::inbound::UserId;
use crate::pusher::webhook_event::Happening;
use crate::shard::ConnectionKey;
use crate::shard::context::Settings;
use crate::shard::mail::Join;
use crate::shard::node_message::{MemberSnapshot, NodeMessage, SessionMessage};
use crate::shard::outbox::GatherAnswer;
use crate::ws::frame;

/// This node's id. Of the others, 3 is lower and 9 is higher.
pub(super) const OWN: NodeId = NodeId(5);
/// For how long a leave is pending, and a topic stays subscribed that no core needs.
pub(super) const PENDING_SECONDS: u32 = 3;
pub(super) const IDLE_SECONDS: u32 = 2;

/// What happens to one node. Texts are names of channels, numbers without a comment are nodes or tickets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A connection subscribes; leaves before it was answered; the last one leaves.
    Subscribe(&'static str),
    Withdraw(&'static str),
    Leave(&'static str),
    /// The first connection of a user in a presence channel here; their last one leaves.
    Join(&'static str, &'static str),
    Part(&'static str, &'static str),
    /// The app has these options from now on.
    Configure(fn() -> App),
    /// Redis has ordered our oldest transition.
    Ordered,
    /// A backend publishes to a cache channel.
    Publish(&'static str, &'static str),
    /// The user of a `#server-to-user-` channel is watched by a connection.
    Watch(&'static str),
    Up,
    Down,
    CaughtUp,
    /// So many SUBSCRIBE and UNSUBSCRIBE have room.
    AnswerRoom(usize),
    Subscribed(&'static str, u32),
    /// Redis has sent our snapshot to so many sessions.
    SnapshotSent(&'static str, u32, u32),
    /// The event that Redis has stored.
    Fetched(&'static str, u32, Option<&'static str>),
    FetchAgain(&'static str),
    Stored(&'static str),
    Seconds(u32),
    Seen(u64),
    PeerUp(u64),
    PeerEnds(u64),
    Revive(u64),
    Receive(u64, &'static str, Received),
    /// The answer to our request by this ticket: members, or `None`.
    Snapshot(u64, &'static str, u32, Option<&'static [&'static str]>),
    Asked(u32, u32),
}

/// A message of another node about a channel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Received {
    Event(&'static str),
    Joined(&'static str),
    Left(&'static str),
    Online(bool),
    Occupied(bool),
    Count(u32),
    Restored,
    Quit,
    LeaveFinal(&'static str),
    /// Its snapshot with these members, as a request with this ticket.
    Synchronize(u32, &'static [&'static str]),
}

/// A node whose session is up.
pub(super) struct Node {
    pub(super) context: Context,
    pub(super) home: Home,
    pub(super) out: Outbox,
    pub(super) cluster: Cluster,
    effects: String,
    /// Off where thousands of topics would be checked thousands of times.
    checks_invariants: bool,
}

impl Node {
    /// An app without webhooks.
    pub(super) fn new() -> Self {
        Self::with_app(sample(), IDLE_SECONDS)
    }

    /// An app that wants to know of members.
    pub(super) fn with_member_webhooks() -> Self {
        let kinds = vec![WebhookKind::MemberAdded, WebhookKind::MemberRemoved];
        let (url, channel_prefixes) = ("http://backend".to_owned(), Vec::new());
        let webhooks = vec![Webhook { url, kinds, channel_prefixes }];
        Self::with_app(App { webhooks, ..sample() }, 0)
    }

    pub(super) fn with_app(app: App, topic_idle_seconds: u32) -> Self {
        let context = Context::new(Settings {
            node: Some(OWN),
            pending_leave_seconds: PENDING_SECONDS,
            topic_idle_seconds,
            ..Settings::single_core(Arc::new(Apps::new(vec![app])))
        });
        let (home, out, cluster) = (Home::new(&context), Outbox::new(&context), Cluster::new(OWN));
        let mut node =
            Self { context, home, out, cluster, effects: String::new(), checks_invariants: true };
        node.report(FromCluster::Up);
        node
    }

    pub(super) fn key(&self, name: &str) -> ChannelKey {
        self.context.keys.make(AppIndex(0), name).unwrap()
    }

    pub(super) fn with<T>(&mut self, act: impl FnOnce(&mut Cluster, &mut Here<'_>) -> T) -> T {
        let Self { context, home, out, cluster, .. } = self;
        let result = act(cluster, &mut Here { home, context, out });
        if self.checks_invariants {
            assert_eq!(cluster.check_invariants(context, home), Ok(()));
            assert_eq!(home.check_invariants(), Ok(()));
        }
        result
    }

    /// As `Shard::apply` does it.
    pub(super) fn configure(&mut self, app: App) {
        let apps = Arc::new(Apps::new(vec![app]));
        let before = std::mem::replace(&mut self.context.settings.apps, apps);
        self.with(|cluster, here| cluster.on_configuration(here, &before));
    }

    pub(super) fn report(&mut self, event: FromCluster<'_>) {
        self.with(|cluster, here| cluster.on_event(here, event));
    }

    pub(super) fn receive(&mut self, node: u64, name: &str, message: ChannelMessage, frame: &[u8]) {
        let (from, channel) = (session(node), &self.key(name));
        self.report(FromCluster::NodeSeen(from.node));
        self.report(FromCluster::Message { from, channel, message, frame });
    }

    pub(super) fn seconds(&mut self, count: u32) {
        for _ in 0..count {
            self.context.now = Moment(self.context.now.0 + 1_000);
            self.context.now_seconds = self.context.now.seconds();
            self.with(|cluster, here| cluster.advance(here));
            self.home.advance(&self.context, &mut self.out);
        }
    }

    pub(super) fn subscribe(&mut self, name: &str) {
        let channel = self.key(name);
        let mail =
            Mail::Subscribe { channel, connection: connection(), ticket: 1, core: 0, join: None };
        if let Some(mail) = self.with(|cluster, here| cluster.hold_back(here, mail)) {
            self.note("granted", name);
            self.accept(mail);
        }
    }

    /// Mail that goes on to the home.
    fn accept(&mut self, mail: Mail) {
        match mail {
            Mail::Subscribe { channel, .. } => {
                self.home.channels.restore_interest(&channel, 0, None)
            }
            Mail::Watch { user, core } => self.home.watch(&mut self.out, user, core, false),
            other => panic!("{other:?}"),
        }
    }

    fn withdraw(&mut self, name: &str) {
        let channel = self.key(name);
        self.with(|cluster, here| cluster.withdraw_subscribe(here, &channel, connection(), 1, 0));
    }

    fn join(&mut self, name: &str, id: &str) {
        let (channel, member) = (self.key(name), member(id));
        let index = self.home.channels.find_or_insert(&channel);
        let join = Join {
            user: member.user,
            user_info: member.user_info,
            channel_data: "{}".into(),
            is_repeated: false,
        };
        self.home.join(&self.context, &mut self.out, index, &channel, &join);
    }

    fn leave(&mut self, name: &str) {
        let channel = self.key(name);
        self.home.remove_interest(&self.context, &mut self.out, &channel, 0);
    }

    fn publish(&mut self, name: &str, text: &str) {
        let (channel, frame) =
            (self.key(name), FrameBytes::from(frame::encode_text(text.as_bytes())));
        self.home.cache_event(&self.context, &channel, &frame, 60);
        self.with(|cluster, here| cluster.publish(here.out, &channel, &frame, None, Some(60)));
    }

    /// What new subscribers of a cache channel are sent.
    pub(super) fn cached(&self, name: &str) -> Option<String> {
        let found = self.home.channels.cached_and_seconds(&self.key(name), self.context.now);
        let text = |(frame, _): (FrameBytes, u32)| frame::server_payload(&frame).to_vec();
        found.map(|found| String::from_utf8(text(found)).unwrap())
    }

    pub(super) fn members(&self, name: &str) -> Vec<String> {
        let found = self.home.channels.find(&self.key(name));
        let mut ids: Vec<String> =
            found.into_iter().flat_map(|home| home.user_ids()).map(str::to_owned).collect();
        ids.sort();
        ids
    }

    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Subscribe(name) => self.subscribe(name),
            Event::Withdraw(name) => self.withdraw(name),
            Event::Leave(name) => self.leave(name),
            Event::Join(name, id) => self.join(name, id),
            Event::Part(name, id) => {
                let channel = self.key(name);
                self.home.leave(&self.context, &mut self.out, &channel, id);
            }
            Event::Configure(app) => self.configure(app()),
            Event::Publish(name, text) => self.publish(name, text),
            Event::Watch(name) => {
                let mail = Mail::Watch { user: self.key(name), core: 0 };
                if let Some(mail) = self.with(|cluster, here| cluster.hold_back(here, mail)) {
                    self.accept(mail);
                }
            }
            Event::Seconds(count) => self.seconds(count),
            Event::Receive(node, name, received) => {
                let (message, frame) = message(received);
                self.receive(node, name, message, &frame);
            }
            event => self.apply_report(event),
        }
        self.carry_out();
    }

    fn apply_report(&mut self, event: Event) {
        let channel = &match event {
            Event::Subscribed(name, _)
            | Event::SnapshotSent(name, ..)
            | Event::Fetched(name, ..)
            | Event::FetchAgain(name)
            | Event::Stored(name)
            | Event::Snapshot(_, name, ..) => self.key(name),
            _ => self.key("unused"),
        };
        self.report(match event {
            Event::Up => FromCluster::Up,
            Event::Down => FromCluster::Down,
            Event::CaughtUp => FromCluster::CaughtUp,
            Event::Ordered => FromCluster::TransitionOrdered,
            Event::AnswerRoom(room) => FromCluster::TopicRoom(room),
            Event::Subscribed(_, ticket) => FromCluster::Subscribed { channel, ticket },
            Event::SnapshotSent(_, ticket, receivers) => {
                FromCluster::SnapshotSent { channel, ticket, receivers }
            }
            Event::Fetched(_, ticket, text) => {
                let frame = |text: &str| FrameBytes::from(frame::encode_text(text.as_bytes()));
                let stored = text.map(frame).map(|frame| Stored {
                    frame,
                    seconds: 60,
                    from: session(9),
                    number: 4,
                });
                FromCluster::Fetched { channel, ticket, stored }
            }
            Event::FetchAgain(_) => FromCluster::FetchAgain { channel },
            Event::Stored(_) => FromCluster::Stored { channel },
            Event::Seen(node) => FromCluster::NodeSeen(NodeId(node)),
            Event::PeerUp(node) => FromCluster::PeerUp(session(node)),
            Event::PeerEnds(node) => FromCluster::PeerEnds(NodeId(node)),
            Event::Revive(node) => FromCluster::Revive(NodeId(node)),
            Event::Snapshot(node, _, ticket, members) => {
                let snapshot = members.map(snapshot);
                FromCluster::Snapshot { from: session(node), channel, ticket, snapshot }
            }
            Event::Asked(id, receivers) => FromCluster::Asked { id, receivers },
            other => panic!("{other:?} is no report"),
        });
    }

    fn note(&mut self, effect: &str, name: &str) {
        let space = if self.effects.is_empty() { "" } else { ", " };
        write!(self.effects, "{space}{}", format!("{effect} {name}").trim_end()).unwrap();
    }

    /// Notes the effects, and carries out those inside of the node.
    pub(super) fn carry_out(&mut self) {
        for effect in self.out.cluster.take_effects() {
            let (effect, name) = shown(&effect);
            self.note(&effect, &name);
        }
        for mail in std::mem::take(&mut self.out.own_mail.from_home) {
            match mail {
                Mail::SubscribeRefused { channel, .. } => self.note("full", channel.name()),
                Mail::Deliver { channel, .. } => self.note("deliver", channel.name()),
                Mail::UserStatus { user, online } => {
                    self.note(if online { "online" } else { "offline" }, user.name());
                }
                other => panic!("{other:?}"),
            }
        }
        for answered in std::mem::take(&mut self.out.answered) {
            match answered {
                GatherAnswer::Nodes { id, count } => {
                    self.note(&format!("{count} nodes answer {id}"), "")
                }
                GatherAnswer::NodesGone => self.note("no node answers", ""),
                other => panic!("{other:?}"),
            }
        }
        for event in std::mem::take(&mut self.out.webhooks) {
            match event.happening {
                Happening::MemberAdded { user_id } => self.note(&format!("+{user_id}"), ""),
                Happening::MemberRemoved { user_id } => self.note(&format!("-{user_id}"), ""),
                other => panic!("{other:?}"),
            }
        }
        for mail in std::mem::take(&mut self.out.own_mail.to_home) {
            if let Mail::Subscribe { channel, .. } | Mail::Watch { user: channel, .. } = &mail {
                self.note("release", channel.name());
            }
            self.accept(mail);
        }
        let changes = std::mem::take(&mut self.out.own_mail.changes);
        if !changes.is_empty() {
            for (channel, change) in changes {
                self.with(|cluster, here| cluster.on_change(here, &channel, change));
            }
            self.carry_out();
        }
    }

    pub(super) fn take_effects(&mut self) -> String {
        self.carry_out();
        std::mem::take(&mut self.effects)
    }
}

fn shown(effect: &ToCluster) -> (String, String) {
    let of = |effect: &str, channel: &ChannelKey| (effect.to_owned(), channel.name().to_owned());
    match effect {
        ToCluster::Subscribe { channel, ticket } => of(&format!("subscribe#{ticket}"), channel),
        ToCluster::Unsubscribe { channel } => of("unsubscribe", channel),
        ToCluster::Publish { channel, .. } => of("publish", channel),
        ToCluster::Synchronize { channel, ticket, snapshot } => {
            of(&format!("synchronize#{ticket}{}", ids(snapshot)), channel)
        }
        ToCluster::Fetch { channel, ticket } => of(&format!("fetch#{ticket}"), channel),
        ToCluster::StoreIfAbsent { channel, .. } => of("store", channel),
        ToCluster::Send { channel, message, .. } => match message {
            ChannelMessage::Joined { .. } => of("joined", channel),
            ChannelMessage::Left { .. } => of("left", channel),
            ChannelMessage::LeaveFinal { .. } => of("final", channel),
            ChannelMessage::Quit => of("quit", channel),
            ChannelMessage::Restored => of("restored", channel),
            ChannelMessage::Count(count) => of(&format!("count={count}"), channel),
            ChannelMessage::Occupied(is_occupied) => {
                of(&format!("occupied={is_occupied}"), channel)
            }
            other => panic!("{other:?}"),
        },
        ToCluster::Reply {
            to,
            message:
                NodeMessage::Session(SessionMessage::Snapshot { ticket, snapshot, channel, .. }),
        } => {
            let has = snapshot.as_ref().map_or_else(|| " nothing".to_owned(), ids);
            (format!("answer#{ticket}{has} to {}:", to.node.0), (**channel).to_owned())
        }
        ToCluster::SendToAll { message: SessionMessage::Revive { node } } => {
            (format!("revive {}", node.0), String::new())
        }
        other => panic!("{other:?}"),
    }
}

fn ids(snapshot: &NodeSnapshot) -> String {
    let ids: Vec<&str> = snapshot.members.iter().map(|member| &*member.user.text).collect();
    if ids.is_empty() { String::new() } else { format!("[{}]", ids.join(" ")) }
}

pub(super) fn session(node: u64) -> SessionId {
    SessionId { node: NodeId(node), core: 0 }
}

fn connection() -> ConnectionKey {
    ConnectionKey { slot: Slot::new(0), generation: 1 }
}

pub(super) fn member(id: &str) -> MemberSnapshot {
    let user = UserId { json: format!("\"{id}\"").into(), text: id.into() };
    MemberSnapshot { user, user_info: "{}".into() }
}

fn snapshot(ids: &[&str]) -> NodeSnapshot {
    let members = ids.iter().map(|id| member(id)).collect();
    NodeSnapshot { members, ..NodeSnapshot::default() }
}

fn message(received: Received) -> (ChannelMessage, Vec<u8>) {
    let message = match received {
        Received::Event(text) => {
            let message = ChannelMessage::Event { except: None, cache: true };
            return (message, frame::encode_text(text.as_bytes()));
        }
        Received::Joined(id) => {
            ChannelMessage::Joined { member: member(id), channel_data: "{}".into() }
        }
        Received::Left(id) => ChannelMessage::Left { user_id: id.into() },
        Received::Online(online) => ChannelMessage::Online(online),
        Received::Occupied(is_occupied) => ChannelMessage::Occupied(is_occupied),
        Received::Count(count) => ChannelMessage::Count(count),
        Received::Restored => ChannelMessage::Restored,
        Received::Quit => ChannelMessage::Quit,
        Received::LeaveFinal(id) => ChannelMessage::LeaveFinal { who: Some(id.into()) },
        Received::Synchronize(ticket, ids) => {
            ChannelMessage::Synchronize { ticket, snapshot: snapshot(ids) }
        }
    };
    (message, Vec::new())
}

/// Each row: what it shows, the events, and the effects of all.
pub(super) fn check(new: impl Fn() -> Node, rows: &[(&str, &[Event], &str)]) {
    for (what, events, effects) in rows {
        let mut node = new();
        events.iter().for_each(|event| node.apply(*event));
        assert_eq!(node.take_effects(), *effects, "{what}: {events:?}");
    }
}
