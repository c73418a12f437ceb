//! What a change of the configuration means for topics that are there already. PURE.
//!
//! An app may begin or cease to want webhooks or numbers of subscribers while it has topics. What this node keeps and
//! sends for them depends on that, and is otherwise only set up when a topic is new. Owns nothing. Input: the lists of
//! apps before and after. Outputs: the users and subscribers that count as present (`TopicDetails::ordered_here`), and
//! topics to announce again. Docs: docs/CLUSTER.md. Does not touch the other nodes' configurations: each node applies
//! its own, at another time, and announces its topics when it has.
//!
//! Limits: a topic is in `Cluster::unannounced` once. Cost: nothing if no app has other webhooks or numbers, otherwise
//! one step for each topic and for each member of those that changed.

use hashbrown::HashSet;

use super::Cluster;
use super::here::Here;
use crate::app::{App, AppIndex, Apps};
use crate::pusher::channel_name::Access;
use crate::shard::channel_key::ChannelKey;
use crate::shard::webhooks::{Transitioner, app_wants_transitions};

/// Any user: all users of a channel are wanted, or none is.
const A_USER: Option<&str> = Some("");

impl Cluster {
    /// Call it when `here` has the new list, and before anything else is done with it.
    pub(in crate::shard) fn on_configuration(&mut self, here: &mut Here<'_>, before: &Apps) {
        let apps = here.context.settings.apps.clone();
        let has_changed = |(_, (old, new)): &(AppIndex, (&App, &App))| {
            old.webhooks != new.webhooks || old.counts_subscriptions() != new.counts_subscriptions()
        };
        let indexes = (0..u16::MAX).map(AppIndex);
        let changed: HashSet<AppIndex> = indexes
            .zip(before.iter().zip(apps.iter()))
            .filter(has_changed)
            .map(|(index, _)| index)
            .collect();
        if changed.is_empty() {
            return;
        }
        let had = |index: &&AppIndex| {
            let old = before.get(**index);
            old.counts_subscriptions() || !old.webhooks.is_empty()
        };
        self.have_shared.extend(changed.iter().filter(had));
        debug_assert!(self.have_shared.len() <= Apps::MAX, "each app is there once");
        let unannounced: HashSet<ChannelKey> = self.unannounced.iter().cloned().collect();
        let topics = self.topics.keys().filter(|channel| changed.contains(&channel.app()));
        for channel in topics.cloned().collect::<Vec<ChannelKey>>() {
            let (old, new) = (before.get(channel.app()), apps.get(channel.app()));
            let is_new = self.apply_to_topic(here, &channel, old, new);
            let is_unsent = self.details(&channel).is_some_and(|topic| topic.unsent.is_some());
            if is_new && self.is_up && !is_unsent && !unannounced.contains(&channel) {
                self.unannounced.push_back(channel);
            }
        }
        debug_assert!(self.unannounced.len() <= self.topics.len() + unannounced.len());
    }

    /// Returns whether the app wants something of the channel that the other nodes have not sent this one so far.
    fn apply_to_topic(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        old: &App,
        new: &App,
    ) -> bool {
        debug_assert_eq!(old.id, new.id, "an app keeps its index");
        let mut is_new = false;
        for who in [None, A_USER] {
            let wants = |app: &App| app_wants_transitions(app, channel, who);
            if wants(old) != wants(new) {
                self.begin_order(here, channel, who.is_some(), wants(new));
                is_new |= wants(new);
            }
        }
        let counts = !old.counts_subscriptions() && new.counts_subscriptions();
        if counts && channel.kind.access != Access::Presence {
            // Messages of nodes that counted before have arrived while this node did not count.
            here.home.set_count_elsewhere(channel, self.count_elsewhere(channel));
        }
        (is_new || counts) && shares_snapshots_of(new, channel)
    }

    /// Sets who counts as present here: all who are, or none if the app does not want to know. Transitions that follow
    /// change that, as far as the app wants them.
    fn begin_order(
        &mut self,
        here: &mut Here<'_>,
        channel: &ChannelKey,
        of_users: bool,
        is_wanted: bool,
    ) {
        let present: Vec<Transitioner> = match (is_wanted, of_users) {
            (false, _) => Vec::new(),
            (true, true) => here.home.user_ids_here(channel).map(|id| Some(id.into())).collect(),
            (true, false) if here.home.interested_cores(channel).is_empty() => Vec::new(),
            (true, false) => vec![None],
        };
        let Some(topic) = self.topics.get_mut(channel) else { return };
        if let Some(details) = topic.details_if_any() {
            details.ordered_here.retain(|who| who.is_some() != of_users);
        }
        if !present.is_empty() {
            topic.details().ordered_here.extend(present);
        }
        topic.end_pending_leaves_of_present();
        topic.shrink();
    }

    /// Whether other nodes may have a snapshot of this one. A node whose configuration wants snapshots has our snapshot
    /// if it has sent its own.
    pub(super) fn may_have_shared(&self, here: &Here<'_>, channel: &ChannelKey) -> bool {
        shares_snapshots(here, channel)
            || self.have_shared.contains(&channel.app())
            || self.topics.get(channel).is_some_and(|topic| !topic.peers.is_empty())
    }
}

/// Whether nodes must know each other's snapshots: of plain channels they only need the events.
pub(super) fn shares_snapshots(here: &Here<'_>, channel: &ChannelKey) -> bool {
    shares_snapshots_of(here.context.app(channel.app()), channel)
}

fn shares_snapshots_of(app: &App, channel: &ChannelKey) -> bool {
    matches!(channel.kind.access, Access::Presence | Access::User)
        || app.counts_subscriptions()
        || app_wants_transitions(app, channel, None)
}
