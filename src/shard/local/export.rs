//! Connections on their way to another process, and from one. PURE.
//!
//! Owns no state; `state.rs` has the values, `transfer.rs` the rules, `worker/transfer` the bytes. A connection is
//! exported only at rest: no subscription of it waits for its home. What was sent in part continues in the middle of
//! its frame. The importing core checks every name and number, because another version may have written them, and sends
//! its clients nothing.
//!
//! Limits: those within which the other process admitted its connections; an import is charged (`memory.rs`) and never
//! refused, because its client has its acknowledgement. Cost: a copy of each subscription of a connection.

use crate::shard::context::Context;
use crate::shard::outbox::Outbox;
use crate::slot::Slot;
use hashbrown::HashMap;

use super::Local;
use super::channel_table::LocalChannel;
use super::connection::{
    AppPlace, Connection, ConnectionKey, Extras, SignedIn, Subscription, SubscriptionState,
};
use super::memory::{subscription_charge, user_charge};
use super::refuse::Denial;
use super::send_queue::SendQueue;
use super::users::user_id_of;
use crate::app::AppIndex;
use crate::cause::{Cause, Detail};
use crate::pusher::channel_name::USER_CHANNEL_PREFIX;
use crate::pusher::error_code;
use crate::pusher::inbound::UserId;
use crate::shard::channel_key::ChannelKey;
use crate::shard::mail::{Mail, Restore};
use crate::shard::state::{ConnectionState, TransferFault, UserState, WindowCount};

impl Local {
    /// Lazy, so that the caller can send each before the next is copied. An error is one for all: the shard is not at
    /// rest.
    pub(in crate::shard) fn export_connections(
        &self,
        context: &Context,
    ) -> impl Iterator<Item = Result<(ConnectionKey, ConnectionState), TransferFault>> {
        debug_assert!(self.slow_consumers.is_empty(), "a core at rest has closed them");
        debug_assert!(self.counts_changed.is_empty(), "and its homes have the numbers");
        let deadlines: HashMap<ConnectionKey, u32> =
            self.unauthorized.iter().map(|(at, key)| (key, at)).collect();
        self.connections.iter().map(move |(slot, found)| {
            let key = ConnectionKey { slot, generation: found.generation };
            let deadline = deadlines.get(&key).copied().filter(|_| !found.is_authorized);
            Ok((key, self.export_connection(context, key, deadline)?))
        })
    }

    fn export_connection(
        &self,
        context: &Context,
        key: ConnectionKey,
        authorize_by_seconds: Option<u32>,
    ) -> Result<ConnectionState, TransferFault> {
        let connection = &self.connections[key.slot];
        let mut subscriptions = Vec::with_capacity(connection.subscriptions.len());
        for subscription in connection.subscriptions.iter() {
            let SubscriptionState::Active { .. } = subscription.state else {
                return Err(TransferFault);
            };
            let name = self.channels[subscription.channel].key.name();
            subscriptions.push((name.into(), subscription.member.as_deref().cloned()));
        }
        let begun_frame = connection.send_queue.begun_frame_rest().to_vec();
        let mut unsent = Vec::with_capacity(connection.send_queue.bytes());
        connection.send_queue.copy_to(&mut unsent, usize::MAX);
        unsent.drain(..begun_frame.len());
        let extras = connection.extras.as_deref();
        debug_assert_eq!(
            begun_frame.len() + unsent.len(),
            connection.send_queue.bytes(),
            "all that waits"
        );
        Ok(ConnectionState {
            app: self.app_of(context, key.slot).id.as_str().into(),
            socket_id: connection.socket_id,
            subscriptions,
            begun_frame,
            unsent,
            is_closing: connection.is_closing,
            last_inbound_seconds: connection.last_inbound_seconds,
            rate_window_seconds: connection.rate_window_seconds,
            rate_count: exported_rate_count(connection),
            awaits_pong: connection.awaits_pong,
            speaks_control_frames: connection.speaks_control_frames,
            is_authorized: connection.is_authorized,
            authorize_by_seconds,
            user: self.export_user(extras)?,
            client_event_count: extras.map_or(0, exported_client_event_count),
            client_event_second: extras.map_or(0, |extras| extras.client_event_second),
        })
    }

    fn export_user(&self, extras: Option<&Extras>) -> Result<Option<UserState>, TransferFault> {
        debug_assert!(
            extras.is_none_or(|extras| extras.signed_in.is_some() || extras.watched.is_empty()),
            "who watches is signed in"
        );
        let Some(extras) = extras else { return Ok(None) };
        let Some(SignedIn { user, user_info, .. }) = &extras.signed_in else { return Ok(None) };
        let mut watched = Vec::with_capacity(extras.watched.len());
        for user in &extras.watched {
            watched
                .push((user_id_of(user).into(), self.users.is_online(user).ok_or(TransferFault)?));
        }
        Ok(Some(UserState { user: user.clone(), user_info: user_info.clone(), watched }))
    }

    /// One of an app that is no longer configured is closed with 4001, one of a disabled app with 4003. To others
    /// nothing is sent.
    pub(in crate::shard) fn import_connection(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        state: ConnectionState,
    ) -> ConnectionKey {
        let app = context.settings.apps.by_id(&state.app);
        // As in `open_refused`: one that has no app is never asked for it.
        let key = self.insert(context, app.unwrap_or(AppIndex(0)), state.socket_id);
        let connection = &mut self.connections[key.slot];
        connection.send_queue = SendQueue::restored(&state.begun_frame, state.unsent);
        let waiting = connection.send_queue.bytes() as u64;
        debug_assert!(connection.subscriptions.is_empty(), "it is new");
        self.metrics.app(connection.app).queued_bytes.add(waiting);
        self.metrics.send_queue_bytes.add(waiting);
        (connection.is_closing, connection.app_place) = (state.is_closing, AppPlace::Ended);
        if !connection.send_queue.is_empty() {
            self.mark_dirty(out, key.slot);
        }
        if state.is_closing {
            return key;
        }
        let Some(app) = app else {
            let values = [Detail::text(&*state.app)];
            let denial = Denial::new(error_code::NO_SUCH_APP, Cause::AppGone, values);
            self.deny_and_close(context, out, key.slot, &denial);
            return key;
        };
        if !context.app(app).is_enabled {
            let values = [Detail::text(&*state.app)];
            let denial = Denial::new(error_code::APP_DISABLED, Cause::AppDisabled, values);
            self.deny_and_close(context, out, key.slot, &denial);
            return key;
        }
        context.app(app).count_transferred_connection();
        debug_assert!(context.app(app).is_served(), "the others are closed");
        let now = context.now.seconds();
        let connection = &mut self.connections[key.slot];
        connection.app_place = AppPlace::Open;
        debug_assert_eq!(connection.charged_bytes, 0, "it is charged for what follows");
        // Both processes have one clock. What is in its future would never end.
        connection.last_inbound_seconds = state.last_inbound_seconds.min(now);
        connection.rate_window_seconds = state.rate_window_seconds.min(now);
        let rate = WindowCount::of_number(state.rate_count);
        connection.rate_count = rate.count;
        if rate.is_error_sent {
            let window = connection.rate_window_seconds;
            connection.extras.get_or_insert_default().message_error_window = Some(window);
        }
        connection.awaits_pong = state.awaits_pong;
        connection.speaks_control_frames = state.speaks_control_frames;
        connection.is_authorized = state.is_authorized;
        if state.client_event_count > 0 {
            let extras = connection.extras.get_or_insert_default();
            let WindowCount { count, is_error_sent } =
                WindowCount::of_number(state.client_event_count);
            extras.client_event_count = count;
            extras.client_event_second = state.client_event_second.min(now);
            extras.client_event_error_second = is_error_sent.then_some(extras.client_event_second);
        }
        for (name, member) in state.subscriptions {
            self.import_subscription(context, key.slot, app, &name, member);
        }
        if let Some(user) = state.user {
            self.import_user(context, key.slot, app, user);
        }
        debug_assert!(self.connections[key.slot].is_counted(), "its app counts it");
        self.resume_liveness(context, key, state.authorize_by_seconds);
        key
    }

    fn import_subscription(
        &mut self,
        context: &Context,
        slot: Slot,
        app: AppIndex,
        name: &str,
        member: Option<UserId>,
    ) {
        // The name was good in the other process; limits of names are judged at a subscription.
        let Ok(channel) = context.keys.make(app, name) else { return };
        let found = self.channels.find_key(&channel);
        let index = found.unwrap_or_else(|| self.channels.insert(LocalChannel::new(channel)));
        // One entry for each channel: a second one would have no place of its own (`Connection::position_of`).
        if self.subscription_index(slot, index).is_some() {
            return;
        }
        // How long the member's data is, only the home knows.
        let charge = subscription_charge(name, member.as_ref().map(|user| (user, 0)));
        self.charge(slot, charge);
        let connection = &mut self.connections[slot];
        let local = &mut self.channels[index];
        local.is_active = true;
        let place = u32::try_from(connection.subscriptions.len()).unwrap_or(u32::MAX);
        debug_assert!(connection.position_of(index).is_none(), "a connection is in a channel once");
        let position = local.add(slot, place);
        let (state, member) =
            (SubscriptionState::Active { position, asks_again: false }, member.map(Box::new));
        connection.add_subscription(Subscription { channel: index, state, charge, member });
        let (metrics, kind) = self.subscription_metrics(index);
        metrics.subscribers[kind].add(1);
        debug_assert!(self.subscription_index(slot, index).is_some(), "it is in the channel");
    }

    fn import_user(&mut self, context: &Context, slot: Slot, app: AppIndex, state: UserState) {
        let name = |id: &str| format!("{USER_CHANNEL_PREFIX}{id}");
        debug_assert!(self.connections[slot].signed_in().is_none(), "it signs in once");
        let Ok(key) = context.keys.make(app, &name(&state.user.text)) else { return };
        self.users.import_signed_in(&key);
        let watched = state.watched.iter().map(|(id, _)| &**id);
        let charge = user_charge(&state.user, &state.user_info, watched);
        self.charge(slot, charge);
        let extras = self.connections[slot].extras.get_or_insert_default();
        let UserState { user, user_info, watched } = state;
        extras.signed_in = Some(SignedIn { user, user_info, key });
        extras.sign_in_charge = charge;
        for (id, online) in watched {
            let Ok(key) = context.keys.make(app, &name(&id)) else { continue };
            self.users.import_watch(&key, slot, online);
            extras.watched.push(key);
        }
        debug_assert!(self.connections[slot].signed_in().is_some(), "it is signed in");
    }

    /// Sends the homes which channels and users this core has. Once, after the last connection, so that each home gets
    /// one mail for a channel and not one for each connection.
    pub(in crate::shard) fn finish_import(&mut self, context: &Context, out: &mut Outbox) {
        let core = context.core();
        let locals: Vec<(ChannelKey, u32)> = self
            .channels
            .iter()
            .map(|local| {
                let count = u32::try_from(local.subscribers.len()).unwrap_or(u32::MAX);
                (local.key.clone(), count)
            })
            .collect();
        for (channel, count) in locals {
            self.restore(context, out, channel, |channel| Restore::Interest {
                channel,
                core,
                count,
            });
        }
        for (user, signed_in, watching) in self.users.users_with_state() {
            self.restore(context, out, user, |user| Restore::User {
                user,
                core,
                signed_in,
                watching,
            });
        }
        self.unauthorized.sort();
    }

    fn restore(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        channel: ChannelKey,
        what: impl FnOnce(ChannelKey) -> Restore,
    ) {
        let home = context.keys.home(&channel);
        debug_assert!(home < context.settings.cores, "a core of this process");
        out.send_to_home(home, Mail::Restore(Box::new(what(channel))));
    }
}

fn exported_rate_count(connection: &Connection) -> u32 {
    let error_window = connection.extras.as_ref().and_then(|extras| extras.message_error_window);
    let is_error_sent = error_window == Some(connection.rate_window_seconds);
    WindowCount { count: connection.rate_count, is_error_sent }.to_number()
}

fn exported_client_event_count(extras: &Extras) -> u32 {
    let is_error_sent = extras.client_event_error_second == Some(extras.client_event_second);
    WindowCount { count: extras.client_event_count, is_error_sent }.to_number()
}
