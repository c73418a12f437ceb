//! When a simulated process changes its configuration (`crate::change`), and access that a backend takes back.

use ringverb::pusher::socket_id::SocketId;
use ringverb::shard::{AccessAction, AccessCommand, AccessTarget};

use super::Simulation;
use crate::client::{CHANNELS, USERS};
use crate::process::APP;

impl Simulation {
    /// The next core applies a change, or another one begins.
    pub(crate) fn change(&mut self) {
        if !self.changes.go_on(&mut self.process, self.http_connections_max) {
            self.changes.begin(&self.process, &self.world.borrow().random);
        }
    }

    /// All cores apply what is under way.
    pub(crate) fn finish_change(&mut self) {
        while self.changes.go_on(&mut self.process, self.http_connections_max) {}
    }

    /// A backend ends a subscription, or makes clients connect again.
    pub(crate) fn take_access_back(&mut self) {
        let (core, channel) = (self.core(), CHANNELS[self.below(CHANNELS.len())]);
        let Some(index) = self.somebody() else { return };
        let target = match (self.below(2), &self.clients[index].socket_id) {
            (0, Some(id)) => AccessTarget::Socket(SocketId::parse(id).expect("a socket id")),
            _ => AccessTarget::User(USERS[self.below(USERS.len())].into()),
        };
        let is_meant = |client: &crate::client::Client| match &target {
            AccessTarget::User(id) => client.user == **id,
            AccessTarget::Socket(id) => client.socket_id == Some(id.to_string()),
        };
        let action = if self.below(4) == 0 {
            AccessAction::Reconnect
        } else {
            // It may lose the channel at any moment from now on, until all is quiet.
            let clients = self.clients.iter().enumerate();
            let meant: Vec<usize> =
                clients.filter(|(_, client)| is_meant(client)).map(|(index, _)| index).collect();
            for index in meant {
                self.clients[index].may_lose(channel);
                self.doubt_events_of(index);
            }
            AccessAction::Unsubscribe { channel: channel.into() }
        };
        let command = AccessCommand { app: APP, target, action };
        self.process.cores[core].shard.end_access(command);
        self.process.tick(core);
    }
}
