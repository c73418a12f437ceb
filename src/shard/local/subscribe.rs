//! Subscribing and leaving, seen from the subscriber's core (docs/PROTOCOL.md C4, rules 97, 98, 101). PURE.
//!
//! Owns the way of a subscription from the client's request to its acknowledgement; does not decide about rosters and
//! cached events: the home does. Every subscription is a request to the channel's home, even if this core already has
//! subscribers. An event that was acknowledged to its publisher before the request is ordered before it, and is not
//! delivered to the new subscriber. Lanes are first-in first-out: what the home sent before its answer is delivered
//! before the acknowledgement, and what it sends later after it. Every request is answered exactly once.
//!
//! Limits: `channels_per_connection_max` of the app, and the charge of each subscription (`memory.rs`). Cost: one
//! look-up of the channel, 8,047 instructions (`signature_check`, in bench/RESULTS.md) for the signature of a private
//! channel, one mail to the home and one back, and a frame for the acknowledgement.

use super::Local;
use super::channel_table::LocalChannel;
use super::connection::{ConnectionKey, Subscription, SubscriptionState};
use super::memory::subscription_charge;
use super::refuse::Denial;
use crate::app::App;
use crate::buffer::Frame;
use crate::cause::{Cause, Detail};
use crate::limits;
use crate::metrics::AppMetrics;
use crate::pusher::channel_name::{self, Access, ChannelKind, NameLimit};
use crate::pusher::error_code::{self, ErrorCode};
use crate::pusher::inbound::{Auth, Subscribe, UserId};
use crate::pusher::outbound;
use crate::pusher::signature;
use crate::shard::channel_key::ChannelKey;
use crate::shard::context::Context;
use crate::shard::mail::{Greeting, Join, Mail};
use crate::shard::outbox::{Observation, Outbox};
use crate::shard::slots::ChannelSlot;
use crate::slot::Slot;
use crate::ws::frame;

impl Local {
    pub(super) fn on_subscribe(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        subscribe: &Subscribe,
    ) {
        debug_assert!(self.get(key).is_some(), "the slot is that of the key");
        debug_assert!(
            !self.connections[key.slot].is_closing,
            "what a closing connection sends is dropped"
        );
        let app = self.connections[key.slot].app;
        let Ok(channel) = context.keys.make(app, &subscribe.channel) else {
            let denial = bad_channel_name(Detail::Subscription(&subscribe.channel));
            return self.deny(context, out, key.slot, &denial);
        };
        let join = match self.authorize(context, key.slot, channel.kind, subscribe) {
            Ok(join) => join,
            Err(denial) => {
                return self.deny_subscription(context, out, key.slot, &subscribe.channel, &denial);
            }
        };
        if channel.kind.access != Access::Public {
            self.connections[key.slot].is_authorized = true;
        }
        let index = match self.channels.find_key(&channel) {
            Some(index) => index,
            None => {
                self.note_channel_change(context, key, &channel);
                self.channels.insert(LocalChannel::new(channel))
            }
        };
        debug_assert_eq!(
            self.channels[index].key.app(),
            app,
            "apps have the same names for different channels"
        );
        match self.subscription_index(key.slot, index) {
            Some(at) => self.subscribe_again(context, out, key, index, at, join),
            None => self.subscribe_first(context, out, key, index, join),
        }
    }

    /// Returns the member as whom the connection joins; `None` for a channel without members (docs/PROTOCOL.md rules 24
    /// to 27, 29, 42).
    fn authorize<'a>(
        &self,
        context: &Context,
        slot: Slot,
        kind: ChannelKind,
        subscribe: &'a Subscribe,
    ) -> Result<Option<Box<Join>>, Box<Denial<'a>>> {
        debug_assert!(!self.connections[slot].is_closing, "its input counts no longer");
        let app = self.app_of(context, slot);
        let connection = &self.connections[slot];
        let what = Detail::Subscription(&subscribe.channel);
        debug_assert!(
            connection.app_place == super::connection::AppPlace::Open,
            "one that was refused has no app to subscribe in"
        );
        check_name(app, &subscribe.channel)?;
        match kind.access {
            Access::Public => return Ok(None),
            Access::User => {
                let own = connection.signed_in().map(|signed_in| signed_in.key.name());
                return match own {
                    Some(own) if own == subscribe.channel => Ok(None),
                    _ => Err(Box::new(Denial::new(
                        error_code::UNAUTHORIZED,
                        Cause::OtherUser,
                        [what],
                    ))),
                };
            }
            Access::Private | Access::Presence => {}
        }
        let data = subscribe.channel_data.as_ref();
        let socket_id = connection.socket_id.to_string();
        let text = data.map(|data| data.text.as_str());
        let auth = subscribe.auth.as_ref().and_then(Auth::text);
        signature::check_channel(app, &socket_id, &subscribe.channel, text, auth)
            .map_err(|error| Box::new(Denial::bad_auth(what, &subscribe.auth, error)))?;
        if kind.access == Access::Private {
            return Ok(None);
        }
        let join = match data {
            Some(data) => Some((data.user_id.clone(), data.user_info.as_str(), data.text.clone())),
            // A connection that is signed in is in the channel as that user (rule 27).
            None => connection.signed_in().map(|signed_in| {
                let (id, user_info) = (&signed_in.user.json, &*signed_in.user_info);
                let text = format!("{{\"user_id\":{id},\"user_info\":{user_info}}}");
                (Some(signed_in.user.clone()), user_info, text)
            }),
        };
        // Signed, but by a backend that names no user: Reverb shows an empty roster then, which is of no use
        // (rule 27).
        let Some((Some(user), user_info, channel_data)) = join else {
            let cause = if data.is_some() { Cause::NoUser } else { Cause::NoChannelData };
            return Err(Box::new(Denial::new(error_code::INVALID_MESSAGE, cause, [what])));
        };
        let most = app.member_size_max;
        if channel_data.len() > most as usize {
            let values = [what, Detail::count(channel_data.len()), Detail::Number(most.into())];
            let denial = Denial::new(error_code::MEMBER_TOO_LARGE, Cause::MemberTooLarge, values);
            return Err(Box::new(denial));
        }
        let (user_info, channel_data) = (user_info.into(), channel_data.into());
        Ok(Some(Box::new(Join { user, user_info, channel_data, is_repeated: false })))
    }

    fn subscribe_first(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        index: ChannelSlot,
        join: Option<Box<Join>>,
    ) {
        debug_assert!(self.get(key).is_some(), "the slot is that of the key");
        debug_assert!(
            self.subscription_index(key.slot, index).is_none(),
            "it is not in the channel"
        );
        debug_assert!(
            !self.connections[key.slot].is_closing,
            "what a closing connection sends is dropped"
        );
        let most = self.app_of(context, key.slot).channels_per_connection_max as usize;
        if self.connections[key.slot].subscriptions.len() >= most {
            let name = self.channels[index].key.name().to_owned();
            self.drop_if_unused(context, out, index);
            let values = [Detail::Subscription(&name), Detail::Counted(most as u64, "channel")];
            let denial = Denial::new(error_code::TOO_MANY_CHANNELS, Cause::TooManyChannels, values);
            return self.deny_subscription(context, out, key.slot, &name, &denial);
        }
        let joins = join.as_ref().map(|join| (&join.user, join.user_info.len()));
        let charge = subscription_charge(self.channels[index].key.name(), joins);
        if let Err(error) = self.check_charge(context, key.slot, charge) {
            let name = self.channels[index].key.name().to_owned();
            self.drop_if_unused(context, out, index);
            let denial = self.memory_denial(context, error, Detail::Subscription(&name));
            return self.deny_subscription(context, out, key.slot, &name, &denial);
        }
        self.charge(key.slot, charge);
        let ticket = self.next_ticket();
        debug_assert!(
            self.connections[key.slot].charged_bytes as usize
                <= context.settings.memory.connection_bytes_max / 2,
            "the rest is the send queue's"
        );
        let member = join.as_ref().map(|join| Box::new(join.user.clone()));
        let state = SubscriptionState::Pending { ticket };
        let subscription = Subscription { channel: index, state, charge, member };
        self.connections[key.slot].add_subscription(subscription);
        debug_assert_eq!(
            self.connections[key.slot].subscriptions.last().map(|last| last.channel),
            Some(index),
            "the newest is the last of the list"
        );
        self.send_subscribe(context, out, key, index, ticket, join);
    }

    /// Subscribing twice is acknowledged twice, and changes nothing (docs/PROTOCOL.md rule 31). While the home has not
    /// answered, further requests have one answer together: a short message must not ask for a long roster again and
    /// again.
    fn subscribe_again(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        index: ChannelSlot,
        at: usize,
        join: Option<Box<Join>>,
    ) {
        debug_assert!(self.get(key).is_some(), "the slot is that of the key");
        debug_assert_eq!(
            self.connections[key.slot].subscriptions[at].channel, index,
            "its own subscription"
        );
        let subscription = &mut self.connections[key.slot].subscriptions[at];
        let SubscriptionState::Active { asks_again, .. } = &mut subscription.state else {
            // The first request is not answered yet; its answer is the acknowledgement of both.
            return;
        };
        let kind = self.channels[index].key.kind;
        if !sends_greeting(kind) {
            return self.send_succeeded(context, out, key.slot, index);
        }
        if std::mem::replace(asks_again, true) {
            return;
        }
        debug_assert!(self.channels[index].is_active, "it has subscribers, so the home knows");
        let join = join.map(|join| Box::new(Join { is_repeated: true, ..*join }));
        let ticket = self.next_ticket();
        self.send_subscribe(context, out, key, index, ticket, join);
    }

    fn send_subscribe(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        index: ChannelSlot,
        ticket: u32,
        join: Option<Box<Join>>,
    ) {
        debug_assert!(self.get(key).is_some(), "the slot is that of the key");
        debug_assert_eq!(
            join.is_some(),
            self.channels[index].key.kind.access == Access::Presence,
            "members join"
        );
        let local = &mut self.channels[index];
        local.pending_requests += 1;
        let channel = local.key.clone();
        let core = context.core();
        let home = context.keys.home(&channel);
        out.send_to_home(home, Mail::Subscribe { channel, connection: key, ticket, core, join });
        debug_assert!(
            self.channels[index].pending_requests > 0,
            "the channel stays until the answer"
        );
    }

    /// The home has refused: the presence channel is full, or there is no memory. Nothing is sent to a connection that
    /// has left before this answer.
    pub(in crate::shard) fn on_subscribe_refused(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        key: ConnectionKey,
        ticket: u32,
        error: ErrorCode,
    ) {
        let Some(index) = self.on_home_answer(channel) else { return };
        if self.get_open(key).is_some()
            && let Some(at) = self.subscription_index(key.slot, index)
            && self.connections[key.slot].subscriptions[at].state
                == (SubscriptionState::Pending { ticket })
        {
            self.end_subscription_at(context, out, key.slot, at);
            // `end_subscription_at` may have dropped the channel.
            let what = Detail::Subscription(channel.name());
            let denial = if error == error_code::TOO_MANY_MEMBERS {
                let most = self.app_of(context, key.slot).presence_members_max.unwrap_or_default();
                let most = Detail::Counted(most.into(), "member");
                Denial::new(error, Cause::TooManyMembers, [what, most])
            } else {
                self.memory_denial(context, error, what)
            };
            return self.deny_subscription(context, out, key.slot, channel.name(), &denial);
        }
        debug_assert_eq!(&self.channels[index].key, channel, "the channel of the answer");
        self.drop_if_unused(context, out, index);
    }

    /// The channel is there, because `pending_requests` kept it. `None`: no connection of this core has asked.
    fn on_home_answer(&mut self, channel: &ChannelKey) -> Option<ChannelSlot> {
        let index = self.channels.find_key(channel);
        debug_assert!(index.is_some(), "a channel with an unanswered question stays");
        let local = self.channels.get_mut(index?)?;
        debug_assert!(local.pending_requests > 0, "an answer belongs to a question");
        local.pending_requests = local.pending_requests.checked_sub(1)?;
        index
    }

    pub(in crate::shard) fn on_subscribed(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        channel: &ChannelKey,
        (key, ticket): (ConnectionKey, u32),
        greeting: Option<Box<Greeting>>,
        joined: Option<Box<UserId>>,
    ) {
        let Some(index) = self.on_home_answer(channel) else { return };
        self.channels[index].is_active = true;
        debug_assert!(
            joined.is_none() || channel.kind.access == Access::Presence,
            "only presence channels have members"
        );
        debug_assert_eq!(&self.channels[index].key, channel, "the channel of the answer");
        let is_in = self.on_greeting(context, out, key, index, ticket, greeting);
        if let Some(user) = joined.filter(|_| !is_in) {
            self.send_leave(context, out, index, *user);
        }
        self.drop_if_unused(context, out, index);
    }

    /// Returns whether the connection still waits for this answer. If not, its core owes the home a `Leave`.
    fn on_greeting(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        index: ChannelSlot,
        ticket: u32,
        greeting: Option<Box<Greeting>>,
    ) -> bool {
        if self.get_open(key).is_none() {
            return false;
        }
        let Some(at) = self.subscription_index(key.slot, index) else { return false };
        match &mut self.connections[key.slot].subscriptions[at].state {
            SubscriptionState::Pending { ticket: asked } if *asked == ticket => {
                self.acknowledge(context, out, key.slot, index, at, greeting);
                true
            }
            // It left and subscribed again since; the answer to its second request follows.
            SubscriptionState::Pending { .. } => false,
            // Answers come in the order of their questions, so this is one to `subscribe_again`.
            SubscriptionState::Active { asks_again, .. } => {
                *asks_again = false;
                self.enqueue_greeting(context, out, key.slot, index, greeting);
                true
            }
        }
    }

    /// From here on the connection gets the channel's events. The acknowledgement is enqueued first (docs/PROTOCOL.md
    /// rule 98).
    fn acknowledge(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        index: ChannelSlot,
        at: usize,
        greeting: Option<Box<Greeting>>,
    ) {
        debug_assert!(self.channels[index].is_active, "the home knows of this core's interest");
        self.enqueue_greeting(context, out, slot, index, greeting);
        let connection = &mut self.connections[slot];
        debug_assert_eq!(connection.subscriptions[at].channel, index, "its own subscription");
        debug_assert!(
            matches!(connection.subscriptions[at].state, SubscriptionState::Pending { .. }),
            "it is acknowledged once"
        );
        let subscription_index = u32::try_from(at).unwrap_or(u32::MAX);
        let position = self.channels[index].add(slot, subscription_index);
        debug_assert_eq!(self.channels[index].subscribers[position as usize].slot, slot);
        connection.subscriptions[at].state =
            SubscriptionState::Active { position, asks_again: false };
        let (app, socket_id) = (connection.app, connection.socket_id);
        out.observe(|| {
            let user = connection.subscriptions.get(at).and_then(|one| one.member.as_ref());
            let user = user.map(|user| user.text.clone());
            let channel = self.channels[index].key.shared_name();
            Observation::Subscribed { app, socket_id, channel, user }
        });
        let (metrics, kind) = self.subscription_metrics(index);
        metrics.subscriptions[kind].add(1);
        debug_assert_eq!(
            self.connections[slot].position_of(index),
            Some(at),
            "both sides name each other's place"
        );
        metrics.subscribers[kind].add(1);
        self.note_count(context, index);
    }

    fn enqueue_greeting(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        index: ChannelSlot,
        greeting: Option<Box<Greeting>>,
    ) {
        debug_assert!(!self.connections[slot].is_closing, "its subscriptions have ended");
        let Greeting { acknowledgement, cached } =
            greeting.map_or_else(Greeting::default, |boxed| *boxed);
        match acknowledgement {
            Some(frame) => self.enqueue(context, out, slot, &Frame::new(frame)),
            None => self.send_succeeded(context, out, slot, index),
        }
        if let Some(frame) = cached {
            self.enqueue(context, out, slot, &Frame::new(frame));
        }
    }

    fn send_succeeded(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        index: ChannelSlot,
    ) {
        debug_assert!(self.subscription_index(slot, index).is_some(), "it is in the channel");
        let frame = frame::write_text_frame(&mut self.text_buffer, |text| {
            outbound::subscription_succeeded(self.channels[index].key.name(), text)
        })
        .into();
        self.enqueue(context, out, slot, &frame);
    }

    /// The metrics of the channel's app, and the place of the channel's access in their arrays.
    pub(super) fn subscription_metrics(&self, index: ChannelSlot) -> (&AppMetrics, usize) {
        debug_assert!(self.channels.get(index).is_some(), "a channel that is there");
        let key = &self.channels[index].key;
        (self.metrics.app(key.app()), key.kind.access as usize)
    }

    pub(super) fn subscription_index(&self, slot: Slot, channel: ChannelSlot) -> Option<usize> {
        self.connections[slot].position_of(channel)
    }

    fn next_ticket(&mut self) -> u32 {
        self.last_number = self.last_number.wrapping_add(1);
        self.last_number
    }
}

/// For a text that is a channel name in no app, whatever the limits of this one are.
pub(super) fn bad_channel_name(what: Detail<'_>) -> Denial<'_> {
    let most = Detail::count(limits::CHANNEL_NAME_BYTES_MAX);
    Denial::new(error_code::INVALID_MESSAGE, Cause::BadChannel, [what, most])
}

/// Whether the home sends a subscriber more than an acknowledgement: a roster or a cached event.
fn sends_greeting(kind: ChannelKind) -> bool {
    kind.cached || kind.access == Access::Presence
}

/// The limits of this app, in addition to those of any channel name.
fn check_name<'a>(app: &App, name: &'a str) -> Result<(), Box<Denial<'a>>> {
    let most = app.channel_name_length_max;
    channel_name::check(name, most, app.channel_names_are_pushers).map_err(|limit| {
        let cause = match limit {
            NameLimit::Length => Cause::ChannelNameLength,
            NameLimit::Character => Cause::ChannelNameCharacter,
            NameLimit::Colon => Cause::ChannelNameColon,
        };
        let length = Detail::count(name.len());
        let values = [Detail::Subscription(name), length, Detail::Number(most.into())];
        Box::new(Denial::new(error_code::BAD_CHANNEL_NAME, cause, values))
    })
}
