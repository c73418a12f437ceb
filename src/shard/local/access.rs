//! Carries out `AccessCommand`s on the connections of this core. PURE.
//!
//! Owns nothing: a command is not remembered. Does not check who may send one: the API and the admin API have. A
//! command finds its connections by a walk over all slots: it is rare, and no index has to be kept for it. The end of a
//! subscription is that of `unsubscribe`: a request that its home has not answered yet is withdrawn, so it is never
//! acknowledged. The client is sent `pusher:subscription_error` on the channel, behind the events that it has got.
//!
//! Cost: a step for each connection of the core, once for each command. Limits: the connections of the core; a command
//! is carried out whole within a tick.

use super::Local;
use super::connection::ConnectionKey;
use super::refuse::{self, Denial};
use crate::cause::{Cause, Detail};
use crate::metrics::ConnectionEnd;
use crate::pusher::error_code;
use crate::pusher::outbound;
use crate::shard::access::{AccessAction, AccessCommand, AccessEnd, AccessTarget};
use crate::shard::context::Context;
use crate::shard::outbox::Outbox;
use crate::slot::Slot;
use crate::ws::frame;

impl Local {
    pub(in crate::shard) fn end_access(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        command: &AccessCommand,
    ) {
        let is_meant = |found: &super::Connection| match &command.target {
            AccessTarget::User(user_id) => found.is_known_as(user_id),
            AccessTarget::Socket(socket_id) => found.socket_id == *socket_id,
        };
        let open = self.connections.iter().filter(|(_, found)| !found.is_closing);
        let meant = open.filter(|(_, found)| found.app == command.app && is_meant(found));
        let slots: Vec<Slot> = meant.map(|(slot, _)| slot).collect();
        debug_assert!(
            !matches!(command.target, AccessTarget::Socket(_)) || slots.len() <= 1,
            "a socket id is of one connection"
        );
        for slot in slots {
            match &command.action {
                AccessAction::Terminate => {
                    let (cause, id) = match &command.target {
                        AccessTarget::User(id) => (Cause::Terminated, id.to_string()),
                        AccessTarget::Socket(id) => (Cause::ConnectionTerminated, id.to_string()),
                    };
                    let values = [Detail::text(&*id)];
                    let denial = Denial::new(error_code::TERMINATED, cause, values);
                    self.deny_and_close(context, out, slot, &denial);
                }
                AccessAction::Reconnect => self.make_reconnect(context, out, slot),
                AccessAction::Unsubscribe { channel } => {
                    let cause = Cause::AccessWithdrawn;
                    self.withdraw_subscription(context, out, slot, channel, cause);
                }
            }
        }
    }

    /// For an operator, who has named one connection. `AccessEnd::NotOpen` also for one that is closing.
    pub(in crate::shard) fn disconnect(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
    ) -> AccessEnd {
        if self.get_open(key).is_none() {
            return AccessEnd::NotOpen;
        }
        let denial = Denial::new(error_code::TERMINATED, Cause::Disconnected, []);
        self.deny_and_close(context, out, key.slot, &denial);
        debug_assert!(self.get_open(key).is_none(), "it is closing");
        AccessEnd::Done
    }

    /// For an operator; the connection stays open.
    pub(in crate::shard) fn end_subscription(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        key: ConnectionKey,
        channel: &str,
    ) -> AccessEnd {
        if self.get_open(key).is_none() {
            return AccessEnd::NotOpen;
        }
        debug_assert!(!self.connections[key.slot].is_closing, "it is open");
        debug_assert!(self.get(key).is_some_and(|found| found.is_counted()), "its app counts it");
        let cause = Cause::SubscriptionEnded;
        let was_in = self.withdraw_subscription(context, out, key.slot, channel, cause);
        if was_in { AccessEnd::Done } else { AccessEnd::NotSubscribed }
    }

    /// Closes with 4200, after which clients connect at once. Without `pusher:error`, because nothing failed.
    fn make_reconnect(&mut self, context: &Context, out: &mut Outbox, slot: Slot) {
        let (error, cause) = (error_code::RECONNECT, Cause::ReconnectForced);
        let line = self.note_refusal(context, out, slot, cause, &[]);
        let reason = refuse::close_reason(error.message, line.as_deref());
        let why = ConnectionEnd::Refused(cause.counter());
        self.close_frame(context, out, slot, (error.code, &reason), why);
        debug_assert!(self.connections[slot].is_closing, "its close frame waits");
    }

    /// Returns whether the connection was subscribed, or had asked for it.
    fn withdraw_subscription(
        &mut self,
        context: &Context,
        out: &mut Outbox,
        slot: Slot,
        channel: &str,
        cause: Cause,
    ) -> bool {
        let app = self.connections[slot].app;
        let Some(index) = self.channels.find(context.keys.hash(app, channel), app, channel) else {
            return false;
        };
        let Some(at) = self.connections[slot].position_of(index) else { return false };
        debug_assert_eq!(self.channels[index].key.name(), channel, "the channel that is meant");
        self.end_subscription_at(context, out, slot, at);
        let values = [Detail::Subscription(channel)];
        let line = self.note_refusal(context, out, slot, cause, &values);
        let error = error_code::ACCESS_WITHDRAWN;
        let frame = frame::write_text_frame(&mut self.text_buffer, |text| {
            outbound::subscription_error(channel, error, line.as_deref(), text)
        })
        .into();
        self.enqueue(context, out, slot, &frame);
        debug_assert!(
            self.connections[slot].position_of(index).is_none(),
            "it is not in the channel"
        );
        true
    }
}
