//! A shard's state on its way to another process, and from one: the transfer of established connections. PURE.
//!
//! Only a shard at rest is exported: no input, and no mail under way, so every subscription is acknowledged and every
//! number at a home is exact. Moments are those of a clock that both processes share. `state.rs` has the values.
//! Limits: those of the importing core. Cost: a copy of the state of each connection and channel of the core, which is
//! paused during that time.

use super::mail::{Mail, Restore};
use super::state::{ChannelState, ConnectionState, TransferFault};
use super::{ConnectionKey, Shard};

impl Shard {
    /// All connections. An error is one for all: the shard is not at rest.
    pub fn export_connections(
        &self,
    ) -> impl Iterator<Item = Result<(ConnectionKey, ConnectionState), TransferFault>> {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.local.export_connections(&self.context)
    }

    /// What this core knows as a home.
    #[must_use]
    pub fn export_channels(&self) -> Vec<ChannelState> {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.home.export(&self.context)
    }

    /// Takes over a connection of another process. It is sent no frame by this. One of an app that is not configured
    /// any longer is closed with 4001, one of a disabled app with 4003.
    pub fn import_connection(&mut self, state: ConnectionState) -> ConnectionKey {
        let count = self.connection_count() + 1;
        let key = self.local.import_connection(&self.context, &mut self.outbox, state);
        self.take_own_mail();
        debug_assert_eq!(self.connection_count(), count, "one more");
        debug_assert!(self.get(key).is_some(), "it is there, closing or not");
        key
    }

    /// Takes over what another process knew of a channel.
    pub fn import_channel(&mut self, state: ChannelState) {
        let Some(app) = self.context.settings.apps.by_id(&state.app) else { return };
        let Ok(channel) = self.context.keys.make(app, &state.name) else { return };
        let home = self.context.keys.home(&channel);
        debug_assert!(home < self.context.settings.cores, "a core of this process");
        let restore = Restore::Home { channel, state: state.home };
        self.outbox.send_to_home(home, Mail::Restore(Box::new(restore)));
        self.take_own_mail();
    }

    /// Sends the homes of channels and users what was taken over. Call it once, after the last connection.
    pub fn finish_import(&mut self) {
        self.local.finish_import(&self.context, &mut self.outbox);
        self.take_own_mail();
    }
}
