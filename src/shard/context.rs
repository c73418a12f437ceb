//! What a core is set to and what time it is: every rule of the shard may read it, none changes it. PURE.
//!
//! Owns the settings and the shard's time. `Shard::advance` alone moves the clock, and `Shard::apply` alone replaces
//! settings. Does not read a clock or an option.
//!
//! No limit: values of a fixed number. Cost: one step to read a setting, without an allocation or an atomic operation.

use std::sync::Arc;

use super::channel_key::ChannelKeys;
use super::node_message::NodeId;
use crate::app::{App, AppIndex, Apps};
use crate::clock::Moment;
use crate::metrics::CoreMetrics;

/// What `config` and the worker decide for one core. `ShardConfiguration` has the part that may change later.
#[derive(Clone, Debug)]
pub struct Settings {
    pub core: u16,
    pub cores: u16,
    pub apps: Arc<Apps>,
    /// The same on all cores of a process: it decides a channel's home.
    pub channel_hash_seed: u64,
    pub memory: MemoryLimits,
    /// Connections to reserve room for: address space, not memory.
    pub connections_reserved: usize,
    /// This core's share of the memory for cached events; the oldest is forgotten over it.
    pub cache_bytes_max: usize,
    /// See `Config::verbose_errors`.
    pub verbose_errors: bool,
    /// See `ShardConfiguration::debug`.
    pub debug: bool,
    /// What this process is called among the nodes of a cluster; `None`: it is alone.
    pub node: Option<NodeId>,
    /// For how long webhooks of leaves are held back, rounded up; 0 if there are none.
    pub pending_leave_seconds: u32,
    pub pace: Pace,
    /// For how long a topic without a subscriber stays subscribed, in lease seconds. With 0 it is unsubscribed from at
    /// once.
    pub topic_idle_seconds: u32,
    pub metrics: Arc<CoreMetrics>,
}

impl Settings {
    /// A page that is loaded again, or a client that comes back soon, then changes no topic in Redis.
    pub const TOPIC_IDLE_SECONDS: u32 = 5;

    /// One core by itself, without a cluster or webhooks: what tests and benchmarks start from.
    #[must_use]
    pub fn single_core(apps: Arc<Apps>) -> Self {
        let metrics = Arc::new(CoreMetrics::new(apps.iter().len()));
        Self {
            core: 0,
            cores: 1,
            apps,
            channel_hash_seed: 7,
            memory: MemoryLimits { send_queue_bytes_max: 1 << 20, connection_bytes_max: 2 << 20 },
            connections_reserved: 0,
            cache_bytes_max: 1 << 20,
            verbose_errors: false,
            debug: false,
            node: None,
            pending_leave_seconds: 0,
            pace: Pace::default(),
            topic_idle_seconds: 0,
            metrics,
        }
    }
}

/// Bounds of each connection of this core, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryLimits {
    /// See `Config::send_queue_bytes_max`.
    pub send_queue_bytes_max: usize,
    /// See `Config::connection_bytes_max`: everything that one connection keeps, its send queue included.
    pub connection_bytes_max: usize,
}

/// How fast one connection may change topics: the size of its bucket (`local/pace.rs`) and how fast it empties. The
/// simulator has smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Changes at once. A page with as many channels as a connection may have by default is not delayed.
    pub burst: u32,
    pub per_second: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { burst: 2_000, per_second: 1_000 }
    }
}

/// Settings and time, which every part of a shard reads.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) settings: Settings,
    pub(super) keys: ChannelKeys,
    pub(super) now: Moment,
    /// `now` in seconds: each message needs them, and they cost a division.
    pub(super) now_seconds: u32,
}

impl Context {
    pub(super) fn new(settings: Settings) -> Self {
        debug_assert!(settings.core < settings.cores, "a core of this process");
        let keys = ChannelKeys::new(settings.channel_hash_seed, settings.cores);
        Self { settings, keys, now: Moment::default(), now_seconds: 0 }
    }

    pub(super) fn metrics(&self) -> &CoreMetrics {
        &self.settings.metrics
    }

    pub(super) fn core(&self) -> u16 {
        debug_assert!(self.settings.core < self.settings.cores, "a core of this process");
        self.settings.core
    }

    pub(super) fn app(&self, index: AppIndex) -> &App {
        debug_assert!(usize::from(index.0) < self.settings.apps.iter().len(), "an app of ours");
        self.settings.apps.get(index)
    }

    pub(super) fn is_clustered(&self) -> bool {
        self.settings.node.is_some()
    }
}
