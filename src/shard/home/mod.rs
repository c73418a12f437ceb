//! The home side of a core: the channels and users whose home it is (docs/decisions/0003). PURE.
//!
//! Owns: which cores are interested in a channel, its presence roster (`roster.rs`), its cached event, its number of
//! subscribers (`count.rs`), and on which cores a user is signed in or watched (`users.rs`). It alone orders a
//! channel's events on this node. Does not touch connections, which belong to `Local`, and knows nothing of other
//! nodes: `Cluster` calls it with what they publish, and takes `Change`s from `Outbox`. Inputs: `ToHome` mail, time.
//! Outputs: `FromHome` mail, webhooks, changes for the cluster.
//!
//! Limits: `table.rs` has that of cached events; channels are limited by the subscriptions of connections. Cost: a
//! publish is one look-up by key, and one mail for each other interested core; nothing is copied; each mail takes two
//! atomic reference counts.

pub(super) mod change;
mod count;
mod invariants;
mod roster;
pub(super) mod table;
mod users;

use super::channel_key::ChannelKey;
use super::context::Context;
use super::local::memory::MemoryAccount;
use super::mail::{Greeting, Join, Mail, Restore};
use super::outbox::Outbox;
use super::state::ChannelState;
use crate::app::AppIndex;
use crate::app::WebhookKind;
use crate::buffer::FrameBytes;
use crate::metrics::Tally;
use crate::pusher::channel_name::Access;
use crate::pusher::json;
use crate::pusher::outbound;
use crate::pusher::socket_id::SocketId;
use crate::pusher::webhook_event::Happening;
use crate::shard::slots::ChannelSlot;
use crate::text::{shown, shown_up_to};
use crate::ws::frame;
use change::Change;
use roster::Roster;
use table::HomeTable;
use users::HomeUsers;

const NOBODY_SUBSCRIBED: &str = "which has no subscribers. Is it the name the browser uses? Laravel's \
    PrivateChannel('x') is private-x here; `ringverb channels` lists the occupied channels";
const USER_NOT_SUBSCRIBED: &str = "to which the signed-in user is not subscribed; pusher-js subscribes by itself after \
    pusher.signin()";
const NOT_SIGNED_IN: &str = "and no connection is signed in as that user. Does the page call pusher.signin(), and \
    does /broadcasting/user-auth answer with that id?";

/// Bytes of an event's name in a line of the log: a backend chooses its length.
const NAME_BYTES_MAX: usize = 64;

pub(super) struct Home {
    pub(super) channels: HomeTable,
    pub(super) users: HomeUsers,
    /// Kept between calls, so that a frame is encoded without an allocation for its text.
    text_buffer: Vec<u8>,
}

/// The fields of `Mail::Subscribe`, so that `Home::subscribe` has few arguments.
#[derive(Debug)]
pub(super) struct SubscribeRequest {
    pub(super) channel: ChannelKey,
    pub(super) connection: super::ConnectionKey,
    pub(super) ticket: u32,
    pub(super) core: u16,
    pub(super) join: Option<Box<Join>>,
}

impl Home {
    pub(super) fn new(context: &Context) -> Self {
        let settings = &context.settings;
        Self {
            channels: HomeTable::new(settings.connections_reserved, settings.cache_bytes_max),
            users: HomeUsers::default(),
            text_buffer: Vec::new(),
        }
    }

    /// Invariant: `member_added` leaves before the acknowledgement of the member who joined (docs/PROTOCOL.md rule 97),
    /// so `join` comes before the answer. `memory` is this core's, see `join_refusal`.
    pub(super) fn subscribe(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        memory: &mut MemoryAccount,
        request: SubscribeRequest,
    ) {
        let SubscribeRequest { channel, connection, ticket, core, join } = request;
        debug_assert!(core < context.settings.cores, "a core of this process");
        debug_assert_eq!(context.keys.home(&channel), context.core(), "this core is its home");
        debug_assert_eq!(join.is_some(), channel.kind.access == Access::Presence, "members join");
        let join = join.as_deref();
        let index = self.channels.find_or_insert(&channel);
        let error = join.and_then(|join| self.join_refusal(context, memory, index, &channel, join));
        if let Some(error) = error {
            self.channels.drop_if_unused(index);
            out.report_change(context, &channel, || Change::Unneeded);
            return out.send_from_home(
                core,
                Mail::SubscribeRefused { channel, connection, ticket, error },
            );
        }
        if self.channels.get(index).interested.is_empty() {
            note_occupied(context, out, &channel, true);
            occupied_gauge(context, &channel).add(1);
        }
        if let Some(join) = join {
            self.join(context, out, index, &channel, join);
        }
        self.channels.get_mut(index).interested.insert(core);
        let greeting = self.greeting(context, out, index, &channel);
        debug_assert!(
            self.channels.get(index).interested.contains(core),
            "from here on events reach the core of the subscriber"
        );
        debug_assert!(!self.channels.get(index).is_unused(), "the subscriber keeps the channel");
        let joined = join.filter(|join| !join.is_repeated).map(|join| Box::new(join.user.clone()));
        debug_assert!(
            joined.as_deref().is_none_or(|user| self.channels.get(index).has_user(&user.text)),
            "a member is in the roster before the acknowledgement"
        );
        let answer = Mail::Subscribed { channel, connection, ticket, greeting, joined };
        out.send_from_home(core, answer);
    }

    /// For an app that was removed: if it comes back, it must not find events of before.
    pub(super) fn forget_cached_of(&mut self, app: AppIndex) {
        self.channels.forget_cached_of(app);
    }

    /// `Mail::Disinterest`. May drop the channel.
    pub(super) fn remove_interest(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        core: u16,
    ) {
        debug_assert_eq!(context.keys.home(channel), context.core(), "this core is its home");
        let Some(index) = self.channels.find_index(channel) else { return };
        let interested = &mut self.channels.get_mut(index).interested;
        debug_assert!(interested.contains(core), "an interest ends once");
        let was_empty = interested.is_empty();
        interested.remove(core);
        let is_empty = interested.is_empty();
        debug_assert!(!was_empty || is_empty, "an end adds no interest");
        if is_empty && !was_empty {
            occupied_gauge(context, channel).sub(1);
        }
        if context.app(channel.app()).counts_subscriptions() {
            self.on_core_count(context, out, channel, core, 0);
        } else {
            self.channels.counts.forget_core(index, core);
        }
        self.channels.drop_if_unused(index);
        if is_empty {
            debug_assert!(
                self.interested_cores(channel).is_empty(),
                "the last subscriber of this node has left"
            );
            note_occupied(context, out, channel, false);
            out.report_change(context, channel, || Change::Unneeded);
        }
    }

    /// What a subscriber is sent first: the roster, then the cached event or `cache_miss` (docs/PROTOCOL.md rule 21).
    /// Both are encoded once and shared, so that a repeated subscription costs no more than its message.
    fn greeting(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        index: ChannelSlot,
        channel: &ChannelKey,
    ) -> Option<Box<Greeting>> {
        debug_assert_eq!(self.channels.get(index).key(), channel, "the index is the channel's");
        let home = self.channels.get_mut(index);
        let acknowledgement =
            (channel.kind.access == Access::Presence).then(|| match &mut home.roster {
                Some(roster) => roster.acknowledgement(channel.name()),
                None => Roster::default().acknowledgement(channel.name()),
            });
        if !channel.kind.cached {
            let acknowledgement = Some(acknowledgement?);
            return Some(Box::new(Greeting { acknowledgement, cached: None }));
        }
        let cached = home.cached(context.now).map(|cached| cached.frame.clone());
        let cached = cached.unwrap_or_else(|| {
            out.send_webhook(context, channel, WebhookKind::CacheMiss, || Happening::CacheMiss);
            frame::write_text_frame(&mut self.text_buffer, |text| {
                outbound::cache_miss(channel.name(), text)
            })
            .into()
        });
        Some(Box::new(Greeting { acknowledgement, cached: Some(cached) }))
    }

    /// New subscribers of the cache channel are sent this event first, for so many seconds, in place of the one before.
    pub(super) fn cache_event(
        &mut self,
        context: &Context,
        channel: &ChannelKey,
        frame: &FrameBytes,
        seconds: u32,
    ) {
        debug_assert_eq!(context.keys.home(channel), context.core(), "this core is its home");
        debug_assert!(channel.kind.cached, "only cache channels have a cached event");
        let index = self.channels.find_or_insert(channel);
        self.channels.cache_event(index, frame, context.now.seconds().saturating_add(seconds));
        debug_assert!(
            self.channels.find(channel).is_none_or(|home| {
                home.cached(context.now).is_none_or(|cached| cached.frame.len() == frame.len())
            }),
            "the newest event is the one that is remembered"
        );
    }

    /// `cache_event` for an event that is published now. Returns for how many seconds, which its app says; `None` if
    /// the channel is no cache channel, or the app was removed while the event was under way.
    pub(super) fn cache_published(
        &mut self,
        context: &Context,
        channel: &ChannelKey,
        frame: &FrameBytes,
    ) -> Option<u32> {
        if !channel.kind.cached {
            return None;
        }
        let app = context.app(channel.app());
        let seconds = (!app.is_removed).then_some(app.cache_ttl_seconds)?;
        self.cache_event(context, channel, frame, seconds);
        Some(seconds)
    }

    /// Sends an event to each interested core. This one gets it by own mail, so that it keeps its order with
    /// acknowledgements that the home sends before and after.
    pub(super) fn deliver(
        &self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        frame: &FrameBytes,
        except: Option<SocketId>,
    ) {
        if self.distribute(context, out, channel, frame, except) {
            debug_assert!(
                self.interested_cores(channel).contains(context.core()),
                "this core has subscribers"
            );
            let (channel, frame) = (channel.clone(), frame.clone());
            out.send_from_home(context.core(), Mail::Deliver { channel, frame, except });
        }
    }

    /// A hint for the developer of an app: no client received the event. In a cluster other nodes may have subscribers.
    pub(super) fn note_without_subscribers(
        &self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        event: &FrameBytes,
    ) {
        debug_assert_eq!(context.keys.home(channel), context.core(), "this core is its home");
        if context.is_clustered() || !self.interested_cores(channel).is_empty() {
            return;
        }
        let why = if channel.kind.access != Access::User {
            NOBODY_SUBSCRIBED
        } else if self.users.is_online(channel) {
            USER_NOT_SUBSCRIBED
        } else {
            NOT_SIGNED_IN
        };
        let payload = std::str::from_utf8(frame::server_payload(event)).unwrap_or_default();
        let mut members = json::members(payload).into_iter().flatten();
        let name = members.find(|(name, _)| json::is_name(name, "event"));
        let name = name.and_then(|(_, span)| json::string(span)).unwrap_or_default();
        let (name, to) = (shown_up_to(&*name, NAME_BYTES_MAX), shown(channel.name()));
        let app = &context.app(channel.app()).id;
        out.log_line(format!("event {name} was published to {to}, {why} app={app}"));
    }

    /// Called once a second.
    pub(super) fn advance(&mut self, context: &Context, out: &mut Outbox) {
        self.channels.expire(context.now);
        self.send_due_counts(context, out);
    }

    /// For a take-over. Interests and users are left out: the importing cores send them (`Local::finish_import`).
    pub(super) fn export(&self, context: &Context) -> Vec<ChannelState> {
        let states = self.channels.export(context.now);
        debug_assert!(
            self.channels.iter().all(|home| context.keys.home(home.key()) == context.core()),
            "this core is the home of the channels in its table"
        );
        let named = states.map(|(key, home)| ChannelState {
            app: context.app(key.app()).id.as_str().into(),
            name: key.name().into(),
            home,
        });
        named.collect()
    }

    /// Sends nothing: clients and backends were sent all this by the other process.
    pub(super) fn restore(&mut self, context: &Context, restore: Restore) {
        match restore {
            Restore::Interest { channel, core, count } => {
                let counts = context.app(channel.app()).counts_subscriptions();
                debug_assert!(core < context.settings.cores, "a core of this process");
                if self.interested_cores(&channel).is_empty() {
                    occupied_gauge(context, &channel).add(1);
                }
                self.channels.restore_interest(&channel, core, counts.then_some(count));
                debug_assert!(
                    self.interested_cores(&channel).contains(core),
                    "events reach the core"
                );
            }
            Restore::Home { channel, state } => self.channels.restore(&channel, state),
            Restore::User { user, core, signed_in, watching } => {
                debug_assert!(core < context.settings.cores, "a core of this process");
                self.users.restore(user, core, signed_in, watching);
            }
        }
    }
}

/// By app and kind of channel.
fn occupied_gauge<'a>(context: &'a Context, channel: &ChannelKey) -> &'a Tally {
    &context.metrics().app(channel.app()).channels[channel.kind.access as usize]
}

/// In a cluster `transitions.rs` decides which node sends the webhook of this transition.
fn note_occupied(context: &Context, out: &mut Outbox, channel: &ChannelKey, is_occupied: bool) {
    debug_assert_eq!(context.keys.home(channel), context.core(), "this core is its home");
    if context.is_clustered() {
        out.report_change(context, channel, || Change::Occupied(is_occupied));
    } else {
        out.send_transition(context, channel, None, is_occupied);
    }
}
