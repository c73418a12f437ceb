//! Configurations that change while clients are served: the app is disabled, removed and served again, another one
//! comes and goes, numbers of subscribers and webhooks are wanted or not.
//!
//! As `server/change` does it: all cores get the new apps before any core gets the list that is wanted. Between two
//! cores everything else goes on. A client that is closed or loses a channel is sent that, and what it was sent must be
//! what the server counts (`check_counts`). In a cluster each node has changes of its own (`cluster/mod.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use ringverb::app::{App, Apps, Webhook};

use crate::process::{APP, Process};
use crate::random::Random;

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
    /// Those of the app before the first change.
    webhooks: Option<Vec<Webhook>>,
}

impl Changes {
    pub(crate) fn new(random: &Random, may_be_made: bool) -> Self {
        Self { are_made: may_be_made && random.is_one_seed_in(SEEDS), ..Self::default() }
    }

    /// Another list of apps is wanted.
    pub(crate) fn begin(&mut self, process: &Process, random: &Random) {
        let own = process.apps.get(APP).clone();
        let other = App { id: "2002".to_owned(), key: "other-key".to_owned(), ..own.clone() };
        let webhooks = self.webhooks.get_or_insert_with(|| own.webhooks.clone()).clone();
        let mut apps = Vec::new();
        match random.below(5) {
            0 => {}
            1 => apps.push(App { is_enabled: false, ..own }),
            number => {
                let sends_subscription_count = number == 2;
                let webhooks = if number == 4 { Vec::new() } else { webhooks };
                apps.push(App {
                    is_enabled: true,
                    is_removed: false,
                    sends_subscription_count,
                    webhooks,
                    ..own
                });
            }
        }
        if apps.is_empty() || random.below(2) == 0 {
            apps.push(App { is_enabled: true, is_removed: false, ..other });
        }
        let changed = process.apps.change_steps(apps).expect("two apps");
        let wanted = Arc::new(changed.without_removed_apps);
        for apps in [Arc::new(changed.with_new_apps), wanted.clone()] {
            let mut cores: Vec<usize> = (0..process.cores.len()).collect();
            while !cores.is_empty() {
                let core = cores.swap_remove(random.below(cores.len()));
                self.steps.push_back((core, apps.clone()));
            }
        }
        self.wanted = Some(wanted);
    }

    /// The next core applies it. Whether there was one.
    pub(crate) fn go_on(&mut self, process: &mut Process, http_connections_max: usize) -> bool {
        let Some((core, apps)) = self.steps.pop_front() else { return false };
        process.apply(core, apps, http_connections_max);
        if self.steps.is_empty()
            && let Some(wanted) = self.wanted.take()
        {
            process.apps = wanted;
        }
        true
    }

    /// Whether all cores serve the app, and go on doing so.
    pub(crate) fn is_served(&self, process: &Process) -> bool {
        let is_wanted = self.wanted.as_ref().is_none_or(|apps| apps.get(APP).is_served());
        is_wanted && process.apps.get(APP).is_served()
    }
}
