//! Client events: who may send one, and what the others get (PROTOCOL.md C5). PURE.

use super::connection::{ConnectionKey, Standing};
use super::{Shard, frame};
use crate::app::ClientEventsFrom;
use crate::pusher::channel_name::Access;
use crate::pusher::error_code::{self, ErrorCode};
use crate::pusher::inbound::ClientEvent;
use crate::pusher::outbound;

impl Shard {
    pub(super) fn on_client_event(&mut self, key: ConnectionKey, event: &ClientEvent<'_>) {
        if let Err(error) = self.forward_client_event(key, event) {
            self.send_error(key.slot, error);
        }
    }

    fn forward_client_event(
        &mut self,
        key: ConnectionKey,
        event: &ClientEvent<'_>,
    ) -> Result<(), ErrorCode> {
        let app = self.app_of(key.slot);
        let (from, on_public) = (app.client_events_from, app.client_events_on_public);
        let bounded = app.presence_members_max.is_some();
        if from == ClientEventsFrom::None {
            return Err(error_code::CLIENT_EVENTS_DISABLED);
        }
        let sender = &self.connections[key.slot as usize];
        let (app, socket_id) = (sender.app, sender.socket_id);
        let channel =
            self.keys.make(app, &event.channel).map_err(|_| error_code::INVALID_MESSAGE)?;
        if channel.kind.access == Access::Public && !on_public {
            let why = "client events on public channels are refused; RINGVERB_CLIENT_EVENTS_ON_PUBLIC=true lets them through";
            self.outbox.note(&event.channel, why);
            return Err(error_code::CLIENT_EVENT_ON_PUBLIC);
        }
        // Messages of one socket count in their order (PROTOCOL.md rule 103): who has asked and was not
        // refused is in, and the event follows the request to the home. Only a presence channel with a bound
        // may still say no.
        let may_speak = channel.kind.access != Access::Presence || !bounded;
        let subscription = self
            .channels
            .find_key(&channel)
            .and_then(|index| self.subscription_index(key.slot, index))
            .map(|at| &sender.subscriptions[at])
            .filter(|found| may_speak || matches!(found.standing, Standing::Active { .. }));
        if subscription.is_none() && from != ClientEventsFrom::All {
            return Err(error_code::NOT_A_MEMBER);
        }
        let user_id = subscription.and_then(|found| found.member.as_ref()).map(|user| &*user.json);
        self.text.clear();
        let (name, data) = (event.event, event.data);
        outbound::client_event(name, channel.name(), data, user_id, &mut self.text);
        let bytes = frame::encode_text(&self.text).into();
        // Client events are never cached (PROTOCOL.md rule 37).
        self.publish(channel, bytes, Some(socket_id), false);
        Ok(())
    }
}
