//! Client events: which connections may send one, and what the other subscribers get (docs/PROTOCOL.md C5). PURE.
//!
//! Owns the count of client events of each connection in this second. Does not deliver: a client event is checked on
//! the sender's core and published by mail to the channel's home, except to its sender. A backend that wants it is sent
//! a webhook. Client events are never cached.
//!
//! Limits: `RINGVERB_CLIENT_EVENTS_PER_SECOND_MAX` for each connection, answered with one error a second; the size of a
//! message and of an event's payload. Cost: the checks are a few steps; an event is encoded once, which is one
//! allocation, and is one mail to its home.

use super::Local;
use super::connection::{ConnectionKey, SubscriptionState};
use super::refuse::Denial;
use super::subscribe::bad_channel_name;
use crate::app::{ClientEventsFrom, WebhookKind};
use crate::buffer::FrameBytes;
use crate::cause::{Cause, Detail};
use crate::counters::Refused;
use crate::pusher::channel_name::Access;
use crate::pusher::error_code::{self, ErrorCode};
use crate::pusher::inbound::ClientEvent;
use crate::pusher::json;
use crate::pusher::outbound;
use crate::pusher::webhook_event::{ClientEventReport, Happening};
use crate::shard::context::Context;
use crate::shard::mail::Mail;
use crate::shard::outbox::{Observation, Outbox};
use crate::slot::Slot;
use crate::ws::frame;

impl Local {
    pub(super) fn on_client_event(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        event: &ClientEvent<'_>,
    ) {
        debug_assert!(
            !self.connections[key.slot].is_closing,
            "what a closing connection sends is dropped"
        );
        let Err((error, cause)) = self.forward_client_event(context, out, key, event) else {
            return;
        };
        let name = Detail::text(event.event.trim_matches('"'));
        let channel = Detail::text(&*event.channel);
        let denial = match cause {
            Cause::BadChannel => bad_channel_name(Detail::Own("a client event")),
            Cause::ClientEventRate => {
                let most = self.app_of(context, key.slot).client_events_per_second_max;
                let most = Detail::Number(most.unwrap_or_default().into());
                return self.deny_client_event(
                    context,
                    out,
                    key.slot,
                    &Denial::new(error, cause, [name, most]),
                );
            }
            Cause::ClientEventName => {
                let most = self.app_of(context, key.slot).event_name_length_max;
                let most = Detail::Counted(most.unwrap_or_default().into(), "character");
                Denial::new(error, cause, [name, most])
            }
            _ => Denial::new(error, cause, [name, channel]),
        };
        self.deny(context, out, key.slot, &denial);
    }

    fn forward_client_event(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        event: &ClientEvent<'_>,
    ) -> Result<(), (ErrorCode, Cause)> {
        debug_assert!(self.get(key).is_some(), "the slot is that of the key");
        let app = self.app_of(context, key.slot);
        let (from, on_public) = (app.client_events_from, app.client_events_on_public);
        let bounded = app.presence_members_max.is_some();
        if from == ClientEventsFrom::None {
            return Err((error_code::CLIENT_EVENTS_DISABLED, Cause::ClientEventsDisabled));
        }
        let name_max = app.event_name_length_max;
        if name_max.is_some_and(|most| json::has_more_characters(event.event, most as usize)) {
            return Err((error_code::CLIENT_EVENT_NAME_TOO_LONG, Cause::ClientEventName));
        }
        if !self.count_client_event(context, key.slot) {
            return Err((error_code::RATE_LIMITED, Cause::ClientEventRate));
        }
        let sender = &self.connections[key.slot];
        let (app, socket_id) = (sender.app, sender.socket_id);
        let bad_channel = |_| (error_code::INVALID_MESSAGE, Cause::BadChannel);
        let channel = context.keys.make(app, &event.channel).map_err(bad_channel)?;
        // Only a backend publishes to a user's own channel: a user takes what arrives there as the server's word. So no
        // option lifts this (docs/PROTOCOL.md rule 34).
        if channel.kind.access == Access::User {
            return Err((error_code::CLIENT_EVENT_ON_PUBLIC, Cause::ClientEventOnUserChannel));
        }
        if channel.kind.access == Access::Public && !on_public {
            return Err((error_code::CLIENT_EVENT_ON_PUBLIC, Cause::ClientEventOnPublic));
        }
        // Messages of one socket count in their order (docs/PROTOCOL.md rule 103): a connection whose subscribe request
        // is pending counts as subscribed, because the home receives that request before the event. Only a presence
        // channel with a bound may still refuse it.
        let may_speak = channel.kind.access != Access::Presence || !bounded;
        let subscription = self
            .channels
            .find_key(&channel)
            .and_then(|index| self.subscription_index(key.slot, index))
            .map(|at| &sender.subscriptions[at])
            .filter(|found| may_speak || matches!(found.state, SubscriptionState::Active { .. }));
        if subscription.is_none() && from != ClientEventsFrom::All {
            return Err((error_code::NOT_A_MEMBER, Cause::NotAMember));
        }
        let user = subscription.and_then(|found| found.member.as_ref());
        let (name, data) = (event.event, event.data);
        let user_json = user.map(|user| &*user.json);
        debug_assert!(
            user.is_none() || channel.kind.access == Access::Presence,
            "only presence channels have members"
        );
        debug_assert!(channel.kind.access != Access::User, "only a backend publishes there");
        let frame = frame::write_text_frame(&mut self.text_buffer, |text| {
            outbound::client_event(name, channel.name(), data, user_json, text);
        });
        let frame: FrameBytes = frame.into();
        debug_assert!(!frame.is_empty(), "an event has a frame header at least");
        // Kept for the backend only, so not copied for an app without webhooks.
        let has_webhooks = !context.app(app).webhooks.is_empty();
        let user_id = user.filter(|_| has_webhooks).map(|user| user.text.clone());
        out.send_webhook(context, &channel, WebhookKind::ClientEvent, || {
            let (event, data) = (name.into(), data.into());
            Happening::ClientEvent(Box::new(ClientEventReport { event, data, socket_id, user_id }))
        });
        self.note_cluster_traffic(context, key);
        self.metrics.app(app).client_events.add(1);
        // Client events are never cached (docs/PROTOCOL.md rule 37).
        out.observe(|| {
            let (channel, frame) = (channel.shared_name(), frame.clone());
            Observation::ClientEvent { app, socket_id, channel, frame }
        });
        let home = context.keys.home(&channel);
        let except = Some(socket_id);
        out.send_to_home(home, Mail::Publish { channel, frame, except, cache: false });
        Ok(())
    }

    /// The client is sent one error about its rate a second, so that the errors are not a flood of their own.
    fn deny_client_event(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        denial: &Denial<'_>,
    ) {
        debug_assert!(!self.connections[slot].is_closing, "its input counts no longer");
        let now = context.now.seconds();
        let extras = self.connections[slot].extras.get_or_insert_default();
        if extras.client_event_error_second.replace(now) == Some(now) {
            return drop(self.note_refusal(context, out, slot, denial.cause, &denial.values));
        }
        self.deny(context, out, slot, denial);
    }

    /// The window is a second of the server's clock, so a connection that sends no client events keeps no state.
    /// `false`: over the rate.
    fn count_client_event(&mut self, context: &Context, slot: Slot) -> bool {
        debug_assert!(!self.connections[slot].is_closing, "its input counts no longer");
        let Some(most) = self.app_of(context, slot).client_events_per_second_max else {
            return true;
        };
        self.metrics.count_check(Refused::MessageRate);
        let now = context.now.seconds();
        let extras = self.connections[slot].extras.get_or_insert_default();
        if extras.client_event_second != now {
            debug_assert!(extras.client_event_second < now, "a second that is over");
            (extras.client_event_second, extras.client_event_count) = (now, 0);
        }
        extras.client_event_count += 1;
        debug_assert_eq!(extras.client_event_second, now, "the count is that of this second");
        extras.client_event_count <= most
    }
}
