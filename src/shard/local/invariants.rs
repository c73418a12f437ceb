//! What holds on the local side between two calls: see `shard/invariants.rs`. PURE.
//!
//! Owns nothing and changes nothing. Walks over all connections, channels and users of a core, so its cost is that of
//! the whole state. Only tests, the simulator and debug builds call it. Checks that both ends of each subscription name
//! each other, that charges and gauges are the sums of their parts, and that nothing is left of a closed connection.
//! Each violation is caused once in `shard/tests/invariants.rs`. Limits: the state that it walks over. Cost: a step for
//! each connection, subscription and user.

use crate::shard::slots::ChannelSlot;
use crate::slot::Slot;
use hashbrown::{HashMap, HashSet};

use super::Local;
use super::connection::{Connection, ConnectionKey, SubscriptionState};
use crate::shard::channel_key::ChannelKey;
use crate::shard::context::Context;
use crate::shard::invariants::{ensure, is_forgotten};
use crate::shard::outbox::Outbox;

type Result = std::result::Result<(), String>;

impl Local {
    pub(in crate::shard) fn check_invariants(
        &self,
        context: &Context,
        out: &Outbox,
        flushing: &[Slot],
    ) -> Result {
        let dirty: HashSet<Slot> = out.dirty.iter().chain(flushing).copied().collect();
        let overflowed: HashSet<Slot> = self.slow_consumers.iter().copied().collect();
        let mut active = 0;
        let mut looks: HashMap<ConnectionKey, u32> = HashMap::new();
        self.wheel.iter().for_each(|entry| *looks.entry(entry.key).or_default() += 1);
        for (slot, found) in self.connections.iter() {
            let key = ConnectionKey { slot, generation: found.generation };
            let count = looks.get(&key).copied().unwrap_or_default();
            ensure!(found.is_closing || count == 1, "slot {slot} is to be looked at {count} times");
            ensure!(
                !found.is_dirty || dirty.contains(&slot),
                "slot {slot} is dirty and in no list: nobody flushes it"
            );
            ensure!(!found.is_dirty || !found.is_blocked, "slot {slot} is dirty and blocked");
            ensure!(
                !is_forgotten(&found.send_queue, found.is_dirty, found.is_blocked),
                "slot {slot} has frames that nobody sends"
            );
            ensure!(
                !found.has_overflowed || found.is_closing || overflowed.contains(&slot),
                "slot {slot} is over its limit and nobody closes it"
            );
            if found.is_closing {
                let is_out = found.subscriptions.is_empty() && found.signed_in().is_none();
                ensure!(is_out, "slot {slot} is closing and still in a channel or signed in");
            }
            active += self.check_subscriptions(slot, found)?;
        }
        let subscribers: usize = self.channels.iter().map(|local| local.subscribers.len()).sum();
        ensure!(active == subscribers, "{active} active subscriptions, {subscribers} subscribers");
        self.check_channels()?;
        self.check_users()?;
        match self.account_fault(context) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// Both sides of each subscription name each other's place. Returns how many are active.
    fn check_subscriptions(
        &self,
        slot: Slot,
        found: &Connection,
    ) -> std::result::Result<usize, String> {
        let mut active = 0;
        for (at, subscription) in found.subscriptions.iter().enumerate() {
            let index = subscription.channel;
            ensure!(
                found.position_of(index) == Some(at),
                "slot {slot}: channel {index} is not at {at}"
            );
            let Some(local) = self.channels.get(index) else {
                return Err(format!("slot {slot} is subscribed to channel {index}, which is gone"));
            };
            match subscription.state {
                SubscriptionState::Pending { .. } => {
                    ensure!(
                        local.pending_requests > 0,
                        "slot {slot}: no answer of {} will come",
                        local.key.name()
                    );
                }
                SubscriptionState::Active { position, asks_again } => {
                    active += 1;
                    ensure!(
                        local.is_active,
                        "{}: subscribers, and the home does not know",
                        local.key.name()
                    );
                    let subscriber = local.subscribers.get(position as usize);
                    ensure!(
                        subscriber.is_some_and(
                            |it| it.slot == slot && it.subscription_index as usize == at
                        ),
                        "slot {slot}: {} has {subscriber:?} at {position}",
                        local.key.name()
                    );
                    ensure!(
                        !asks_again || local.pending_requests > 0,
                        "slot {slot}: no second answer will come"
                    );
                }
            }
        }
        Ok(active)
    }

    fn check_channels(&self) -> Result {
        let changed: HashSet<ChannelSlot> = self.counts_changed.iter().copied().collect();
        for (index, local) in self.channels.entries() {
            let name = local.key.name();
            ensure!(
                !local.subscribers.is_empty() || local.pending_requests > 0,
                "{name} is kept for nobody"
            );
            ensure!(
                self.channels.find_key(&local.key) == Some(index),
                "{name} is not in the index of its app"
            );
            ensure!(
                !local.count_changed || changed.contains(&index),
                "{name}: its number has changed, and nobody sends it"
            );
        }
        ensure!(
            self.channels.len() == self.channels.indexed_count(),
            "an index names a channel that is gone"
        );
        Ok(())
    }

    fn check_users(&self) -> Result {
        let mut signed_in: HashMap<&ChannelKey, u32> = HashMap::new();
        let mut watching: HashMap<&ChannelKey, usize> = HashMap::new();
        for (slot, found) in self.connections.iter() {
            let Some(extras) = found.extras.as_deref() else { continue };
            if let Some(user) = &extras.signed_in {
                *signed_in.entry(&user.key).or_default() += 1;
            }
            let distinct: HashSet<&ChannelKey> = extras.watched.iter().collect();
            distinct.iter().for_each(|user| *watching.entry(user).or_default() += 1);
            let unknown =
                distinct.iter().filter(|user| self.users.is_online(user).is_none()).count();
            ensure!(
                (extras.watched_unknown == 0) == (unknown == 0),
                "slot {slot} waits for {} users, and {unknown} are unknown",
                extras.watched_unknown
            );
        }
        for (user, connections, watchers) in self.users.entries() {
            let expected = signed_in.remove(user).unwrap_or_default();
            ensure!(
                connections == expected,
                "{}: {connections} signed in, not {expected}",
                user.name()
            );
            let expected = watching.remove(user).unwrap_or_default();
            ensure!(watchers == expected, "{}: {watchers} watchers, not {expected}", user.name());
            ensure!(connections > 0 || watchers > 0, "{} is kept for nobody", user.name());
        }
        ensure!(signed_in.is_empty() && watching.is_empty(), "a user has no entry");
        Ok(())
    }

    /// The number that the roster at the home must have for this core.
    pub(in crate::shard) fn members(&self, channel: &ChannelKey, user_id: &str) -> usize {
        let Some(index) = self.channels.find_key(channel) else { return 0 };
        let subscribers = self.channels[index].subscribers.iter();
        let subscriptions = subscribers.map(|subscriber| {
            let connection = &self.connections[subscriber.slot];
            &connection.subscriptions[subscriber.subscription_index as usize]
        });
        let is_user = |member: Option<&crate::pusher::inbound::UserId>| {
            member.is_some_and(|member| &*member.text == user_id)
        };
        subscriptions.filter(|found| is_user(found.member.as_deref())).count()
    }
}
