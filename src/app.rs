//! One app: a customer of the server with its own key, secret and limits (docs/PROTOCOL.md section A).
//!
//! Owns the description of an app and the look-up by id and by key. `config` fills it; does not read or check an
//! option. A list of apps never changes, but for its counters. A change of the configuration makes another list
//! (`Apps::change_steps`), in which each app keeps its index and its counters.
//!
//! Limits: `Apps::MAX` apps; `config` bounds the other lists (`validate::WEBHOOKS_MAX`, files). Cost: one hash for a
//! look-up by id or key, none by index; a counted connection is one atomic read-modify-write. A change copies all apps
//! twice.

mod per_second;
mod secret;
mod webhook;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;

pub use per_second::PerSecond;
pub use secret::Secret;
pub use webhook::{Webhook, WebhookKind};

/// Which connections may send client events (`accept_client_events_from`, docs/PROTOCOL.md C5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEventsFrom {
    /// Any connection of the app, even one that is not subscribed to the channel.
    All,
    /// Connections subscribed to the channel: Reverb's default.
    Members,
    None,
}

/// `rate_limiting` of docs/PROTOCOL.md C17 rule 105: every inbound message counts, in fixed windows that start at
/// the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub attempts_max: u32,
    /// The length of the window. The name is that of Reverb's configuration.
    pub decay_seconds: u32,
    /// Close the connection when it exceeds the limit, instead of dropping its messages with one error a window.
    pub terminate_on_limit: bool,
}

/// One app with its options. Defaults are in `config::options`.
#[derive(Clone, Debug)]
pub struct App {
    pub id: String,
    pub key: String,
    /// Signs webhooks, too. `second_secret` only verifies.
    pub secret: Secret,
    /// So that a secret can be exchanged without an outage: while backends change over, either verifies.
    pub second_secret: Option<Secret>,
    /// A disabled app exists, but refuses its clients and its backend.
    pub is_enabled: bool,
    /// The configuration no longer has it, or does not have it yet on all cores: no key and no id finds it. Its index
    /// stays its own, because mail and connections that are closing still name it.
    pub is_removed: bool,
    /// Silence after which the server pings, in seconds.
    pub ping_interval_seconds: u32,
    /// The activity timeout that `connection_established` advertises, in seconds; never 0 (docs/PROTOCOL.md rule 11).
    pub activity_timeout_seconds: u32,
    /// How long a pinged connection may stay silent before it is closed with 4201, in seconds.
    pub pong_timeout_seconds: u32,
    /// Open connections over all cores; `None` is unlimited.
    pub connections_max: Option<u32>,
    /// Longest inbound message in bytes; a longer one closes the connection with 1009.
    pub message_size_max: usize,
    pub client_events_from: ClientEventsFrom,
    /// Reverb delivers client events on public channels; Pusher refuses them (docs/PROTOCOL.md C13).
    pub client_events_on_public: bool,
    pub rate_limit: Option<RateLimit>,
    /// Patterns of docs/PROTOCOL.md C18; the single entry `*` switches the check off.
    pub allowed_origins: Vec<String>,
    /// Accept handshakes without an Origin header although `allowed_origins` is set (native SDKs send none).
    pub allow_missing_origin: bool,
    /// Largest distance of `auth_timestamp` from this host's clock, in seconds; `None` switches the check off.
    pub auth_window_seconds: Option<u32>,
    /// Let the HTTP API publish events named `pusher:…` and `pusher_internal:…` (docs/PROTOCOL.md rule 129).
    pub allow_reserved_events: bool,
    /// One more is answered with `TOO_MANY_CHANNELS`; subscriptions not yet acknowledged count, too.
    pub channels_per_connection_max: u32,
    /// Users, not connections, in one presence channel; `None` is unlimited.
    pub presence_members_max: Option<u32>,
    /// Bytes of `channel_data`, as it was signed. Each new subscriber is sent that of all members.
    pub member_size_max: u32,
    /// Bytes of `user_data`, as it was signed, with the watchlist in it.
    pub user_data_size_max: u32,
    /// Bytes of a channel name; at most `limits::CHANNEL_NAME_BYTES_MAX`.
    pub channel_name_length_max: u32,
    /// Channel names are made of Pusher's characters only (docs/PROTOCOL.md rule 29), not of any.
    pub channel_names_are_pushers: bool,
    /// Client events one connection may send in a second; `None` is unlimited.
    pub client_events_per_second_max: Option<u32>,
    /// Bytes of `data` of one event of the HTTP API; `None` leaves it to `Config::request_size_max`.
    pub event_payload_max: Option<u32>,
    /// Events times channels the HTTP API accepts in a second; `None` is unlimited.
    pub publishes_per_second_max: Option<u32>,
    /// Send subscribers the number of subscribers (docs/PROTOCOL.md C24).
    pub sends_subscription_count: bool,
    /// How long a cache channel remembers its last event, in seconds.
    pub cache_ttl_seconds: u32,
    /// Close connections that have neither signed in nor joined a private or presence channel within this time
    /// (docs/PROTOCOL.md rule 44), in seconds; `None` lets them stay.
    pub authorize_within_seconds: Option<u32>,
    pub webhooks: Vec<Webhook>,
    /// Events in one batch request; `None` is unlimited.
    pub batch_events_max: Option<u32>,
    /// Channels of one published event; `None` is unlimited. Pusher has 100.
    pub event_channels_max: Option<u32>,
    /// Characters in the name of a published event or client event; `None` is unlimited. Pusher has 200.
    pub event_name_length_max: Option<u32>,
    /// The `data` of `pusher:error` is an object as in Pusher, not a string as in Reverb (docs/PROTOCOL.md rule 4).
    pub error_data_is_object: bool,
    /// Close a connection over quota with 4100, after which clients retry, instead of 4004, after which they stop.
    pub over_quota_retries: bool,
    /// Send a failed subscription on its channel too, as `pusher:subscription_error` (docs/PROTOCOL.md rule 24).
    pub subscription_errors: bool,
    /// Open connections of this app over all cores; changed by `try_count_connection`,
    /// `count_transferred_connection` and `release_connection` alone.
    pub connections_open: Arc<AtomicU32>,
    /// Published events times their channels, for `publishes_per_second_max`.
    pub published: Arc<PerSecond>,
}

impl App {
    /// Whether its clients may connect and stay connected.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.is_enabled && !self.is_removed
    }

    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.secret).chain(&self.second_secret)
    }

    /// Counts one more open connection, unless that would exceed `connections_max` (docs/PROTOCOL.md rule 104: all open
    /// sockets count). `false` means refused and not counted.
    #[must_use]
    pub fn try_count_connection(&self) -> bool {
        let max = self.connections_max.unwrap_or(u32::MAX);
        self.connections_open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < max).then_some(open + 1)
            })
            .is_ok()
    }

    /// Counts a connection that another process admitted, even over the limit of this one.
    pub fn count_transferred_connection(&self) {
        self.connections_open.fetch_add(1, Ordering::Relaxed);
    }

    /// True also if a webhook wants only the opposite kind: the gate cancels a leave by a join only if it receives
    /// both.
    #[must_use]
    pub fn wants_webhook(&self, kind: WebhookKind, channel: &str) -> bool {
        self.webhooks.iter().any(|webhook| {
            let opposite = kind.opposite();
            webhook.wants(kind, channel)
                || opposite.is_some_and(|kind| webhook.wants(kind, channel))
        })
    }

    /// If not, no core keeps or sends numbers of subscribers for this app.
    #[must_use]
    pub fn counts_subscriptions(&self) -> bool {
        let kind = WebhookKind::SubscriptionCount;
        self.sends_subscription_count
            || self.webhooks.iter().any(|webhook| webhook.kinds.contains(&kind))
    }

    /// Call it once for each successful `try_count_connection` and each `count_transferred_connection`. Stops at zero,
    /// because a count that is wrong by one must not end the process.
    pub fn release_connection(&self) {
        let less = |open: u32| open.checked_sub(1);
        let released =
            self.connections_open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        debug_assert!(released.is_ok(), "a connection was released more often than admitted");
    }
}

/// All apps of the server. An app is named by its index from here on: it is small, and the same on every core.
#[derive(Debug)]
pub struct Apps {
    list: Vec<App>,
    /// Clients choose the ids and keys that they ask for, so the cost of a lookup must not grow with the number of
    /// apps. The entries come from the configuration, so a fast hash suffices.
    ///
    /// By id also apps that are removed: other nodes may still name them.
    by_id: HashMap<String, AppIndex, RandomState>,
    by_key: HashMap<String, AppIndex, RandomState>,
}

/// The place of an app in `Apps`, on all cores of this process. Other nodes and processes have other indexes, so what
/// is sent to them has the app's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppIndex(pub u16);

/// The lists of apps that lead from one configuration to the next.
#[derive(Debug)]
pub struct AppListSteps {
    /// The apps as they are, and new ones that no look-up finds yet. A core must have it before another core sends it
    /// mail of a new app.
    pub with_new_apps: Apps,
    /// What the configuration wants. A core has it only after all cores have `with_new_apps`.
    pub without_removed_apps: Apps,
}

/// The process has had more apps than an index can name, removed ones included. Only a restart frees their indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyApps;

impl Apps {
    /// Removed apps count, because they keep their indexes.
    pub const MAX: usize = u16::MAX as usize;

    /// # Panics
    /// When there are more than 65,535 apps: `config` and `change_steps` refuse that before.
    #[must_use]
    pub fn new(list: Vec<App>) -> Self {
        assert!(list.len() <= Self::MAX, "config admits at most 65,535 apps");
        let indexes = (0..u16::MAX).map(AppIndex);
        let (mut by_id, mut by_key) = (HashMap::default(), HashMap::default());
        for (app, index) in list.iter().zip(indexes) {
            by_id.entry(app.id.clone()).or_insert(index);
            if !app.is_removed {
                by_key.entry(app.key.clone()).or_insert(index);
            }
        }
        Self { list, by_id, by_key }
    }

    /// The lists that lead from these apps to the wanted ones. An app is the same if its id is. A removed app keeps its
    /// index, and gets it again if it returns.
    ///
    /// # Errors
    /// When no index is left for a new app.
    pub fn change_steps(&self, wanted: Vec<App>) -> Result<AppListSteps, TooManyApps> {
        let slots: HashMap<&str, usize> =
            self.list.iter().enumerate().map(|(slot, app)| (app.id.as_str(), slot)).collect();
        let kept: HashSet<&str> = wanted.iter().map(|app| app.id.as_str()).collect();
        let (mut prepared, mut next) = (self.list.clone(), self.list.clone());
        for app in next.iter_mut().filter(|app| !kept.contains(app.id.as_str())) {
            app.is_removed = true;
            app.webhooks = Vec::new();
        }
        for mut app in wanted {
            let slot = slots.get(app.id.as_str()).and_then(|slot| next.get_mut(*slot));
            if let Some(before) = slot {
                app.connections_open = before.connections_open.clone();
                app.published = before.published.clone();
                *before = app;
            } else if next.len() == Self::MAX {
                return Err(TooManyApps);
            } else {
                // As for a removed app: what sends webhooks does not know it yet.
                let webhooks = Vec::new();
                prepared.push(App { is_removed: true, webhooks, ..app.clone() });
                next.push(app);
            }
        }
        Ok(AppListSteps {
            with_new_apps: Self::new(prepared),
            without_removed_apps: Self::new(next),
        })
    }

    /// For a shard and what runs on its thread: a core has an app before anything names its index there.
    ///
    /// # Panics
    /// When the index is of a newer list. Other threads use `find`.
    #[must_use]
    pub fn get(&self, index: AppIndex) -> &App {
        &self.list[index.0 as usize]
    }

    /// For threads that are no workers: a worker may already use a newer list, whose indexes this one does not have.
    #[must_use]
    pub fn find(&self, index: AppIndex) -> Option<&App> {
        self.list.get(index.0 as usize)
    }

    /// For rows and log lines of other threads: empty where `find` has none.
    #[must_use]
    pub fn id_of(&self, index: AppIndex) -> &str {
        self.find(index).map_or("", |app| &app.id)
    }

    #[must_use]
    pub fn by_key(&self, key: &str) -> Option<AppIndex> {
        self.by_key.get(key).copied()
    }

    /// For requests: not a removed app, and not a new one of `AppListSteps::with_new_apps`.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<AppIndex> {
        self.index_of(id).filter(|index| self.find(*index).is_some_and(|app| !app.is_removed))
    }

    /// For messages of other nodes: also an app that `by_id` does not find, because a core may keep state of it.
    #[must_use]
    pub fn index_of(&self, id: &str) -> Option<AppIndex> {
        self.by_id.get(id).copied()
    }

    /// In the order of indexes, removed apps included.
    pub fn iter(&self) -> std::slice::Iter<'_, App> {
        self.list.iter()
    }
}

/// An app as tests want it: Reverb's defaults, the credentials of the recorded traffic.
#[cfg(test)]
pub(crate) fn sample() -> App {
    App {
        id: "1001".to_owned(),
        key: "app-key".to_owned(),
        secret: Secret::new("app-secret"),
        second_secret: None,
        is_enabled: true,
        is_removed: false,
        ping_interval_seconds: 60,
        activity_timeout_seconds: 30,
        pong_timeout_seconds: 30,
        connections_max: None,
        message_size_max: 10_000,
        client_events_from: ClientEventsFrom::Members,
        client_events_on_public: false,
        rate_limit: None,
        allowed_origins: vec!["*".to_owned()],
        allow_missing_origin: false,
        auth_window_seconds: Some(600),
        allow_reserved_events: false,
        channels_per_connection_max: 100,
        presence_members_max: None,
        member_size_max: 4_096,
        user_data_size_max: 8_192,
        channel_name_length_max: 200,
        channel_names_are_pushers: false,
        client_events_per_second_max: None,
        event_payload_max: None,
        publishes_per_second_max: None,
        sends_subscription_count: false,
        cache_ttl_seconds: 1800,
        authorize_within_seconds: None,
        webhooks: Vec::new(),
        batch_events_max: None,
        event_channels_max: None,
        event_name_length_max: None,
        error_data_is_object: false,
        over_quota_retries: false,
        subscription_errors: false,
        connections_open: Arc::default(),
        published: Arc::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_accepts_up_to_its_limit() {
        let per_second = PerSecond::default();
        assert_eq!(per_second.try_reserve(2, 3, 100), Some(1));
        assert_eq!(per_second.try_reserve(2, 3, 100), None);
        assert_eq!(per_second.try_reserve(1, 3, 100), Some(0));
        assert_eq!(per_second.try_reserve(1, 3, 100), None);
        assert_eq!(
            per_second.try_reserve(9, 3, 101),
            Some(0),
            "too large for any second, but alone in it"
        );
        assert_eq!(per_second.try_reserve(1, 3, 101), None);
        assert_eq!(per_second.try_reserve(1, 3, 90), Some(2), "the clock was set back");
    }

    #[test]
    fn a_webhook_receives_the_kinds_and_prefixes_that_it_names() {
        let mut webhook = Webhook {
            url: String::new(),
            kinds: vec![WebhookKind::CacheMiss],
            channel_prefixes: Vec::new(),
        };
        assert!(webhook.wants(WebhookKind::CacheMiss, "any"));
        assert!(!webhook.wants(WebhookKind::MemberAdded, "any"));
        webhook.channel_prefixes = vec!["private-".to_owned(), "cache-a".to_owned()];
        assert!(webhook.wants(WebhookKind::CacheMiss, "cache-ab"));
        assert!(!webhook.wants(WebhookKind::CacheMiss, "cache-b"));
        for kind in WebhookKind::ALL {
            assert_eq!(WebhookKind::parse(kind.name()), Some(kind));
            assert!(kind.opposite().is_none_or(|other| other.opposite() == Some(kind)));
        }
    }
}
