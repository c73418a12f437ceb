//! How fast one connection may cause traffic beyond its node: topics in Redis, and events of webhooks. PURE.
//!
//! A client may subscribe to and leave channels without any credentials, and each first subscriber and each last one of
//! a channel costs every part of a cluster something: Redis, the other nodes, the backend. So each connection has a
//! leaky bucket of such changes. Nothing is refused: while its bucket is over the brim, the connection is not read, and
//! its client waits in its own socket. Connections that change topics also wait, for `CONGESTED_MS` at most, while the
//! connection to Redis has more to send than Redis takes.
//!
//! Limits: an entry for each connection that has changed something within the last seconds, none for others. Cost: one
//! hash look-up and a few steps for each change; nothing for other messages.

use crate::shard::context::{Context, Pace};
use crate::slot::Slot;
use hashbrown::HashMap;

use super::Local;
use super::connection::ConnectionKey;
use crate::app::WebhookKind;
use crate::clock::Moment;
use crate::pusher::channel_name::Access;
use crate::shard::channel_key::ChannelKey;

/// Cost of a change that also causes a webhook. A connection may cause such changes a quarter as often.
const WEBHOOK_COST: u32 = 4;
/// Milliseconds that a connection waits for Redis at most before it may change something again.
const CONGESTED_MS: u64 = 1_000;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    generation: u32,
    /// Thousandths of changes, as of `level_at`.
    level: u64,
    level_at: Moment,
    /// It has changed something while Redis was congested, last at that time.
    congested_at: Option<Moment>,
}

impl Bucket {
    fn level(&self, pace: Pace, now: Moment) -> u64 {
        // A thousandth for each millisecond and change a second.
        let leaked =
            now.0.saturating_sub(self.level_at.0).saturating_mul(u64::from(pace.per_second));
        self.level.saturating_sub(leaked)
    }
}

#[derive(Debug, Default)]
pub(super) struct PaceTable {
    pace: Pace,
    /// By slot.
    buckets: HashMap<Slot, Bucket, foldhash::fast::FixedState>,
    /// The connection to Redis of some core has more to send than Redis takes.
    is_congested: bool,
}

impl PaceTable {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    fn add(&mut self, key: ConnectionKey, changes: u32, now: Moment) {
        let (pace, congested_at) = (self.pace, self.is_congested.then_some(now));
        let ConnectionKey { slot, generation } = key;
        let new = Bucket { generation, level: 0, level_at: now, congested_at };
        let bucket = self.buckets.entry(slot).or_insert(new);
        debug_assert!(
            bucket.level_at <= now || bucket.generation != generation,
            "the clock of a shard does not run backwards"
        );
        if bucket.generation != generation {
            *bucket = new;
        }
        bucket.level = bucket.level(pace, now).saturating_add(u64::from(changes) * 1_000);
        bucket.level_at = now;
        bucket.congested_at = congested_at.or(bucket.congested_at);
        debug_assert_eq!(bucket.generation, generation, "the bucket is this connection's");
    }

    fn must_wait(&self, key: ConnectionKey, now: Moment) -> bool {
        let Some(bucket) = self.buckets.get(&key.slot) else { return false };
        debug_assert!(bucket.level_at <= now, "the clock of a shard does not run backwards");
        let over = || bucket.level(self.pace, now) > u64::from(self.pace.burst) * 1_000;
        let waits_for_redis = || {
            let since = bucket.congested_at.filter(|_| self.is_congested);
            since.is_some_and(|since| now.0 < since.0.saturating_add(CONGESTED_MS))
        };
        bucket.generation == key.generation && (over() || waits_for_redis())
    }

    /// Forgets the buckets that are empty. To be called once a second.
    pub(super) fn expire(&mut self, now: Moment) {
        let pace = self.pace;
        let is_congested = self.is_congested;
        self.buckets.retain(|_, bucket| {
            bucket.level(pace, now) > 0 || is_congested && bucket.congested_at.is_some()
        });
        debug_assert!(
            self.is_congested
                || self.buckets.values().all(|bucket| bucket.level(self.pace, now) > 0),
            "a bucket that is kept is not empty"
        );
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }
}

impl Local {
    /// Whether a connection is not to be read for now: it has changed more than its pace allows, or Redis does not
    /// keep up.
    #[must_use]
    pub(in crate::shard) fn must_wait(&self, context: &Context, key: ConnectionKey) -> bool {
        self.pace.len() > 0 && self.pace.must_wait(key, context.now)
    }

    /// Some core's connection to Redis has more to send than Redis takes, or none has any longer.
    pub(in crate::shard) fn set_cluster_congested(&mut self, is_congested: bool) {
        self.pace.is_congested = is_congested;
    }

    /// A connection is the first or the last subscriber of a channel on its core.
    pub(super) fn note_channel_change(
        &mut self,
        context: &Context,
        key: ConnectionKey,
        channel: &ChannelKey,
    ) {
        debug_assert!(self.get(key).is_some(), "the slot is that of the key");
        let app = context.app(channel.app());
        let causes_webhook = channel.kind.access == Access::Public
            && !app.webhooks.is_empty()
            && (app.wants_webhook(WebhookKind::ChannelOccupied, channel.name())
                || channel.kind.cached
                    && app.wants_webhook(WebhookKind::CacheMiss, channel.name()));
        let cost = if causes_webhook { WEBHOOK_COST } else { u32::from(context.is_clustered()) };
        if cost > 0 {
            self.pace.add(key, cost, context.now);
        }
    }

    /// A connection begins or ends to watch so many users, or is a user's first or last one: each has a topic.
    pub(super) fn note_user_changes(&mut self, context: &Context, slot: Slot, users: usize) {
        if context.is_clustered() && users > 0 {
            let generation = self.connections[slot].generation;
            let users = u32::try_from(users).unwrap_or(u32::MAX);
            self.pace.add(ConnectionKey { slot, generation }, users, context.now);
        }
    }

    /// A connection sends something to other nodes that changes no topic: it only waits while Redis does not keep up.
    pub(super) fn note_cluster_traffic(&mut self, context: &Context, key: ConnectionKey) {
        debug_assert!(self.get(key).is_some(), "the slot is that of the key");
        if self.pace.is_congested {
            self.pace.add(key, 0, context.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ConnectionKey = ConnectionKey { slot: Slot::new(3), generation: 7 };

    #[test]
    fn a_connection_waits_while_its_bucket_is_over_the_brim() {
        let mut table = PaceTable::new(Pace { burst: 10, per_second: 5 });
        table.add(KEY, 10, Moment(0));
        assert!(!table.must_wait(KEY, Moment(0)), "a burst is free");
        table.add(KEY, 5, Moment(0));
        assert!(table.must_wait(KEY, Moment(999)) && !table.must_wait(KEY, Moment(1_000)));
        let other = ConnectionKey { slot: Slot::new(4), ..KEY };
        let later = ConnectionKey { generation: 8, ..KEY };
        assert!(!table.must_wait(other, Moment(0)) && !table.must_wait(later, Moment(0)));
        table.expire(Moment(2_999));
        assert_eq!(table.len(), 1);
        table.expire(Moment(3_000));
        assert_eq!(table.len(), 0);
        table.add(KEY, 99, Moment(4_000));
        table.add(later, 1, Moment(4_000));
        assert!(
            !table.must_wait(later, Moment(4_000)),
            "a slot's next connection has its own bucket"
        );
    }

    #[test]
    fn clients_that_cause_traffic_wait_for_redis_within_a_limit() {
        let mut table = PaceTable::new(Pace::default());
        table.add(KEY, 1, Moment(0));
        table.is_congested = true;
        assert!(!table.must_wait(KEY, Moment(0)), "it has caused nothing since");
        table.add(KEY, 0, Moment(5));
        assert!(table.must_wait(KEY, Moment(1_004)) && !table.must_wait(KEY, Moment(1_005)));
        table.is_congested = false;
        assert!(!table.must_wait(KEY, Moment(6)));
        table.expire(Moment(10));
        assert_eq!(table.len(), 0);
    }
}
