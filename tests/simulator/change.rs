//! Configurations that change while clients are served: the app is disabled, removed and served again, another one
//! comes and goes, numbers of subscribers are wanted or not. And access that a backend takes back.
//!
//! As `server/change` does it: all cores get the new apps before any core gets the list that is wanted. Between two
//! cores everything else goes on. A client that is closed or loses a channel is told so, and what it was told must be
//! what the server counts (`check_counts`).

use std::collections::VecDeque;
use std::sync::Arc;

use ringverb::app::{App, Apps};
use ringverb::pusher::socket_id::SocketId;
use ringverb::shard::{AccessAction, AccessCommand, AccessTarget};

use crate::client::{CHANNELS, USERS};
use crate::process::APP;
use crate::simulation::Simulation;

/// One of so many seeds changes its configuration. The others stay as they were.
const SEEDS: u64 = 7;

/// A change under way.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) are_made: bool,
    /// Cores that have a list of apps to apply, in order.
    steps: VecDeque<(usize, Arc<Apps>)>,
    /// What holds when all have.
    wanted: Option<Arc<Apps>>,
}

impl Changes {
    pub(crate) fn new(random: &crate::random::Random, may_be_made: bool) -> Self {
        Self { are_made: may_be_made && random.is_one_seed_in(SEEDS), ..Self::default() }
    }
}

impl Simulation {
    /// The next core applies a change, or another one begins.
    pub(crate) fn change(&mut self) {
        if !self.continue_change() {
            self.begin_change();
        }
    }

    fn begin_change(&mut self) {
        let own = self.process.apps.get(APP).clone();
        let other = App { id: "2002".to_owned(), key: "other-key".to_owned(), ..own.clone() };
        let mut apps = Vec::new();
        match self.below(5) {
            0 => {}
            1 => apps.push(App { enabled: false, ..own }),
            number => {
                let subscription_count = number == 2;
                apps.push(App { enabled: true, is_removed: false, subscription_count, ..own });
            }
        }
        if apps.is_empty() || self.below(2) == 0 {
            apps.push(App { enabled: true, is_removed: false, ..other });
        }
        let changed = self.process.apps.changed(apps).expect("two apps");
        let wanted = Arc::new(changed.wanted);
        for apps in [Arc::new(changed.prepared), wanted.clone()] {
            let mut cores: Vec<usize> = (0..self.process.cores.len()).collect();
            while !cores.is_empty() {
                let core = cores.swap_remove(self.below(cores.len()));
                self.changes.steps.push_back((core, apps.clone()));
            }
        }
        self.changes.wanted = Some(wanted);
    }

    /// Whether a core has applied something.
    fn continue_change(&mut self) -> bool {
        let Some((core, apps)) = self.changes.steps.pop_front() else { return false };
        self.process.apply(core, apps, self.http_connections_max);
        if self.changes.steps.is_empty()
            && let Some(wanted) = self.changes.wanted.take()
        {
            self.process.apps = wanted;
        }
        true
    }

    /// All cores apply what is under way.
    pub(crate) fn finish_change(&mut self) {
        while self.continue_change() {}
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
