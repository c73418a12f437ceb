//! Where events for the apps' backends are made (docs/PROTOCOL.md rules 75 to 77). PURE.
//!
//! Owns nothing. A webhook is made only for an app that wants it, and never sent here: the worker takes it from
//! `Outbox::webhooks` and gives it to `webhook::Feed`, which filters, batches and sends. With several nodes
//! `cluster/transitions.rs` decides which node makes the webhook of a first join or a last leave.
//!
//! Limits: events of public channels by one connection (`local/pace.rs`); the ring of the worker (`webhook/budget.rs`).
//! Cost: nothing where the app wants no webhook but one look at its kinds; an event copies its channel's name by a
//! reference count, and the user id.

use super::channel_key::ChannelKey;
use super::context::Context;
use super::outbox::Outbox;
use crate::app::{App, WebhookKind};
use crate::pusher::webhook_event::{Happening, WebhookEvent};

/// The subject of a transition: a user of a presence channel by id, or `None` for the channel's subscribers as a whole.
pub(super) type Transitioner = Option<Box<str>>;

/// Whether some endpoint of the app wants first joins or last leaves of this kind: of the channel's subscribers as a
/// whole, or of a member.
pub(super) fn wants_transitions(
    context: &Context,
    channel: &ChannelKey,
    who: Option<&str>,
) -> bool {
    app_wants_transitions(context.app(channel.app()), channel, who)
}

/// Of one of two lists of apps: a change of the configuration is a change of what is wanted.
pub(super) fn app_wants_transitions(app: &App, channel: &ChannelKey, who: Option<&str>) -> bool {
    let kind = match who {
        None => WebhookKind::ChannelOccupied,
        Some(_) => WebhookKind::MemberAdded,
    };
    app.wants_webhook(kind, channel.name())
}

impl Outbox {
    /// For an app that does not want the event, `what` is not called, so nothing is copied.
    pub(super) fn send_webhook(
        &mut self,
        context: &Context,
        channel: &ChannelKey,
        kind: WebhookKind,
        what: impl FnOnce() -> Happening,
    ) {
        if context.app(channel.app()).wants_webhook(kind, channel.name()) {
            let (app, channel) = (channel.app(), channel.shared_name());
            self.webhooks.push(WebhookEvent { app, channel, happening: what() });
        }
    }

    /// `came`: a first join; otherwise a last leave.
    pub(super) fn send_transition(
        &mut self,
        context: &Context,
        channel: &ChannelKey,
        who: Option<&str>,
        came: bool,
    ) {
        let user_id = || who.unwrap_or_default().into();
        match (who, came) {
            (None, true) => {
                self.send_webhook(context, channel, WebhookKind::ChannelOccupied, || {
                    Happening::Occupied
                });
            }
            (None, false) => {
                self.send_webhook(context, channel, WebhookKind::ChannelVacated, || {
                    Happening::Vacated
                });
            }
            (Some(_), true) => {
                self.send_webhook(context, channel, WebhookKind::MemberAdded, || {
                    Happening::MemberAdded { user_id: user_id() }
                });
            }
            (Some(_), false) => {
                self.send_webhook(context, channel, WebhookKind::MemberRemoved, || {
                    Happening::MemberRemoved { user_id: user_id() }
                });
            }
        }
    }
}
