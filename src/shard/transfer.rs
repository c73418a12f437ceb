//! A shard's state on its way to another process, and from one: the transfer of established connections. PURE.
//!
//! Owns no state; `state.rs` has the values, `worker/transfer` moves them. Does not decide when: `server/takeover`
//! does. Only a shard at rest is exported: no input, and no mail under way, so every subscription is acknowledged and
//! every number at a home is exact. Moments are those of a clock that both processes share.
//!
//! Limits: those of the importing core. Cost: a copy of the state of each connection and channel of the core, which is
//! paused during that time.

use super::mail::{Mail, Restore};
use super::state::{ChannelState, ConnectionState, TransferFault};
use super::{ConnectionKey, Shard};

impl Shard {
    /// See `Local::export_connections`.
    pub fn export_connections(
        &self,
    ) -> impl Iterator<Item = Result<(ConnectionKey, ConnectionState), TransferFault>> {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.local.export_connections(&self.context)
    }

    /// See `Home::export`.
    #[must_use]
    pub fn export_channels(&self) -> Vec<ChannelState> {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        self.home.export(&self.context)
    }

    /// See `Local::import_connection`.
    pub fn import_connection(&mut self, state: ConnectionState) -> ConnectionKey {
        let count = self.connection_count() + 1;
        let key = self.local.import_connection(&self.context, &mut self.outbox, state);
        self.drain_own_mail();
        debug_assert_eq!(self.connection_count(), count, "one more");
        debug_assert!(self.get(key).is_some(), "it is there, closing or not");
        key
    }

    /// Sends it to the channel's home here, which may be another core than in the other process. A channel of an app
    /// that is no longer configured is dropped.
    pub fn import_channel(&mut self, state: ChannelState) {
        let Some(app) = self.context.settings.apps.by_id(&state.app) else { return };
        let Ok(channel) = self.context.keys.make(app, &state.name) else { return };
        let home = self.context.keys.home(&channel);
        debug_assert!(home < self.context.settings.cores, "a core of this process");
        let restore = Restore::Home { channel, state: state.home };
        self.outbox.send_to_home(home, Mail::Restore(Box::new(restore)));
        self.drain_own_mail();
    }

    /// See `Local::finish_import`.
    pub fn finish_import(&mut self) {
        self.local.finish_import(&self.context, &mut self.outbox);
        self.drain_own_mail();
    }
}
