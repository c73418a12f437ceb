//! Access that an app's backend takes back: from a user or from one connection, on all cores and nodes. PURE.
//!
//! A backend ends connections, makes clients connect again, or ends one subscription (docs/PROTOCOL.md C25). The core
//! with the request carries it out on its own connections at once, and sends it to all other cores and nodes. Owns
//! nothing: a command is not remembered, so what a client does afterwards is checked like any other request.
//! `local/access.rs` carries it out.
//!
//! Limits: the size of a command is that of its request; a core carries out one at a time. Cost: one walk over the
//! slots of the core, a step for each, and one mail to each other core.

mod command;

use super::cluster::ToCluster;
use super::{Connection, ConnectionKey, Mail, Shard};
pub use command::{AccessAction, AccessCommand, AccessTarget};

/// The outcome of an operator's order about one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessEnd {
    Done,
    /// The connection is open, but not in the channel.
    NotSubscribed,
    NotOpen,
}

impl Shard {
    /// The app's backend takes access back (docs/PROTOCOL.md rule 70, C9): on this core now, elsewhere by mail.
    pub fn end_access(&mut self, command: AccessCommand) {
        let own = self.context.core();
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        for core in (0..self.context.settings.cores).filter(|core| *core != own) {
            self.outbox.mails.push((core, Mail::EndAccess(Box::new(command.clone()))));
        }
        self.local.end_access(&self.context, &mut self.outbox, &command);
        if self.cluster.is_some() {
            self.outbox.cluster.push(ToCluster::EndAccess(Box::new(command)));
        }
        self.drain_own_mail();
        debug_assert!(self.outbox.own_mail.is_empty(), "the parts have answered each other");
    }

    /// For this core alone, unlike `end_access`: the operator has named one connection. `channel`: only its
    /// subscription to that ends.
    pub fn end_for_operator(&mut self, key: ConnectionKey, channel: Option<&str>) -> AccessEnd {
        debug_assert!(self.outbox.own_mail.is_empty(), "no call is half done");
        let (context, out) = (&self.context, &mut self.outbox);
        let end = match channel {
            None => self.local.disconnect(context, out, key),
            Some(channel) => self.local.end_subscription(context, out, key, channel),
        };
        debug_assert!(
            end != AccessEnd::Done
                || channel.is_some()
                || self.get(key).is_none_or(Connection::is_closing),
            "a connection that was ended is closing"
        );
        self.drain_own_mail();
        end
    }
}
