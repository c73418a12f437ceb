//! What one core counts, for `/metrics`: values that one thread changes and others read.
//!
//! Owns one block of words for each core; does not sum or name them: `server/admin/metrics` does. Only the core's
//! thread writes its block. So to count is a plain load, addition and store, without a locked instruction, and no two
//! cores write one cache line. A scrape reads the values while the core continues: each is exact, but two of them may
//! be of different moments. A sleeping core is not woken. Gauges are counted up and down where the thing begins and
//! ends. Limits: rows for `APPS_COUNTED_MAX` apps; all further apps share one. Cost: three instructions a count, no
//! allocation; a row of an app has 224 bytes.

mod values;

use crate::app::AppIndex;
use crate::counters::Refused;
use crate::limits::SLOW_TICK_NS;
pub use values::{Histogram, HistogramCounts, PeakGauge, Tally};

/// Apps with rows of their own, so that thousands of apps do not make a scrape long.
pub const APPS_COUNTED_MAX: usize = 1_000;
/// Kinds of channels, in the order of `pusher::channel_name::Access`.
pub const CHANNEL_TYPES: [&str; 4] = ["public", "private", "presence", "user"];
/// How long a high-water mark looks back, in seconds: so much to twice as much.
pub const WINDOW_SECONDS: u32 = 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The client sent a close frame.
    ClientClose,
    /// The socket ended without one: a network that is gone, a process that was killed.
    Lost,
    /// The server ends, or another process takes over without the connections.
    Shutdown,
    Refused(Refused),
}

impl ConnectionEnd {
    pub const COUNT: usize = 3 + Refused::ALL.len();

    fn index(self) -> usize {
        match self {
            Self::ClientClose => 0,
            Self::Lost => 1,
            Self::Shutdown => 2,
            Self::Refused(why) => 3 + why as usize,
        }
    }

    /// In the order of `index`.
    pub fn all() -> impl Iterator<Item = Self> {
        let refused = Refused::ALL.into_iter().map(Self::Refused);
        [Self::ClientClose, Self::Lost, Self::Shutdown].into_iter().chain(refused)
    }

    /// Who ended it, and why: labels, which do not change.
    #[must_use]
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::ClientClose => ("client", "closed"),
            Self::Lost => ("network", "lost"),
            Self::Shutdown => ("server", "shutdown"),
            Self::Refused(why) => ("server", why.name()),
        }
    }
}

#[derive(Debug, Default)]
pub struct AppMetrics {
    pub new_connections: Tally,
    pub disconnections: Tally,
    /// Messages of clients, whether or not they are refused. No control frames.
    pub messages_received: Tally,
    /// Messages enqueued for clients, whether or not they are sent later. No control frames.
    pub messages_sent: Tally,
    /// Bytes of established WebSockets, with frame headers.
    pub received_bytes: Tally,
    /// Bytes that were enqueued, and those of them that were discarded. To count at each send would cost a delivery
    /// 13 % more instructions.
    pub queued_bytes: Tally,
    pub discarded_bytes: Tally,
    /// Client events that were accepted, each once, however many receive it.
    pub client_events: Tally,
    /// Events accepted by the HTTP API, once for each channel.
    pub published_events: Tally,
    pub http_calls: Tally,
    pub http_received_bytes: Tally,
    pub http_transmitted_bytes: Tally,
    /// By type: acknowledged subscriptions, those of them that have ended, and those that are open now.
    pub subscriptions: [Tally; CHANNEL_TYPES.len()],
    pub unsubscriptions: [Tally; CHANNEL_TYPES.len()],
    pub subscribers: [Tally; CHANNEL_TYPES.len()],
    /// By type: channels with subscribers on this node now, whose home this core is.
    pub channels: [Tally; CHANNEL_TYPES.len()],
}

/// Aligned to two cache lines, which some CPUs fetch together.
#[derive(Debug)]
#[repr(align(128))]
pub struct CoreMetrics {
    /// One row for each app with a row of its own, one for all others, one for requests without an app.
    apps: Box<[AppMetrics]>,
    /// By `ConnectionEnd::index`.
    ends: [Tally; ConnectionEnd::COUNT],
    /// Nanoseconds of one tick, the wait after it left out.
    tick_ns: Histogram,
    /// Ticks of more than `limits::SLOW_TICK_NS`.
    slow_ticks: Tally,
    /// Sends of frames: one for each connection with frames to send in a tick.
    pub sends: Tally,
    /// Bytes that wait in send queues after the flush.
    pub send_queue_bytes: PeakGauge,
    pub http_connections: Tally,
    pub mail_sent: Tally,
    pub mail_received: Tally,
    /// Mail that found no room in the overflow queue either.
    pub mail_discarded: Tally,
    /// Mail that the last tick took out of the rings, for which it waited there.
    pub ring_mail: PeakGauge,
    /// Mail that waits for room in a ring.
    pub mail_waiting: PeakGauge,
    /// Mail that waits for a later horizon, so that it is not ordered before older mail.
    pub mail_held: PeakGauge,
    /// Requests of the HTTP API that wait: to publish, until mailboxes are not congested; to be answered, until their
    /// mail is in the rings.
    pub publishers_waiting: PeakGauge,
    /// Sockets that are queued to be read, and that a tick left for the next one.
    pub ready_sockets: PeakGauge,
    /// Connections with frames to send that the flush left for the next tick.
    pub flush_waiting: PeakGauge,
    /// Connections that the server closes, until the peer has answered or its time is over. Those that end before stay
    /// counted until then.
    pub closing_connections: PeakGauge,
    /// Connections that must sign in or join a private channel in time. Those that did, or ended, stay counted until
    /// that time is over.
    pub authorizations_awaited: PeakGauge,
    /// Deadlines of connections and of HTTP sessions. Those of ended ones stay counted until they are due, or swept.
    pub deadlines: PeakGauge,
    /// Bytes of cached events, and events that were dropped before their time for want of room.
    pub cached_bytes: PeakGauge,
    pub cached_events_evicted: Tally,
    /// Numbers of subscribers that changed, and that their home sends when its pause is over.
    pub subscription_counts_waiting: PeakGauge,
    /// Questions of other nodes' operators that wait for this core, and those that it did not answer: too many waited,
    /// or their time was over.
    pub operator_orders: PeakGauge,
    pub operator_orders_refused: Tally,
    /// Questions to all cores or nodes that this core gathers the answers to, and those that found no room.
    pub gathers: PeakGauge,
    pub gathers_refused: Tally,
    /// Bytes of the answers of other nodes that wait until all have answered, and answers that found no room.
    pub gathered_bytes: PeakGauge,
    pub gathered_discarded: Tally,
    /// Nanoseconds from a publish to the end of the flush: the oldest event of each tick.
    pub publish_to_flush_ns: Histogram,
    /// Milliseconds from a ping to its pong.
    pub round_trip_ms: Histogram,
    /// Log lines that the budgets of this core left out.
    pub lines_left_out: Tally,
    /// By reason: how often a limit was checked that is set. Refusals are counted elsewhere.
    checks: [Tally; Refused::ALL.len()],
    pub cluster: ClusterMetrics,
}

/// What one core's cluster session counts; zero on a single node.
#[derive(Debug)]
pub struct ClusterMetrics {
    /// 1 while the session is up.
    pub is_up: Tally,
    /// Sessions that were up, so that reconnects show.
    pub sessions: Tally,
    /// Milliseconds from a heartbeat to its return through Redis.
    pub lag_ms: Histogram,
    pub messages_sent: Tally,
    pub messages_received: Tally,
    /// Messages that were sent again because Redis had not confirmed them, or another session had missed them.
    pub retransmissions: Tally,
    /// Messages that wait for Redis now, and those that found no room while it was away.
    pub waiting: PeakGauge,
    pub dropped: Tally,
    /// Bytes of commands that the socket to Redis has not taken.
    pub output_bytes: PeakGauge,
    /// Commands that Redis has not answered.
    pub replies_awaited: PeakGauge,
    /// Bytes of new messages that wait until their senders have replayed what this session missed, and how often that
    /// wait ended early because they were too many.
    pub catch_up_bytes: PeakGauge,
    pub catch_ups_given_up: Tally,
    /// Bytes of published messages that are kept to be replayed for a session that was down, and messages that were
    /// discarded before their time was over.
    pub replay_bytes: PeakGauge,
    pub replay_discarded: Tally,
    /// Effects of a tick for the session, and transitions: now, the most so far, and what was over
    /// `CLUSTER_EFFECTS_MAX`. After a tick no effect is left.
    pub effects_peak: Tally,
    pub effects_discarded: Tally,
    pub transitions_unconfirmed: Tally,
    pub transitions_unconfirmed_peak: Tally,
    pub pending_leaves: Tally,
    pub pending_leaves_peak: Tally,
    pub transitions_unordered: Tally,
    /// Mail to homes that waits for what other nodes or Redis have of its channel: now, and the most so far.
    pub mail_held: Tally,
    pub mail_held_peak: Tally,
    /// Topics that are needed, and wait until the session has room for their subscription.
    pub topics_waiting: PeakGauge,
    /// Bytes of what is kept of other nodes.
    pub remote_bytes: PeakGauge,
    /// What other nodes sent, and this core refused because of a limit.
    pub refused: Tally,
    pub questions: QuestionMetrics,
}

/// Questions of the HTTP API to other nodes, and theirs to this one.
#[derive(Debug)]
pub struct QuestionMetrics {
    pub sent: Tally,
    /// Answered by all nodes in time. The others are `incomplete`.
    pub resolved: Tally,
    pub incomplete: Tally,
    pub received: Tally,
    pub answers_received: Tally,
    /// Milliseconds from a question to its last answer, or until its time is over.
    pub time_ms: Histogram,
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;

#[rustfmt::skip]
const TICK_BOUNDS_NS: &[u64] = &[
    10 * MICROSECOND, 25 * MICROSECOND, 50 * MICROSECOND, 100 * MICROSECOND, 250 * MICROSECOND, 500 * MICROSECOND,
    MILLISECOND, 2_500 * MICROSECOND, 5 * MILLISECOND, 10 * MILLISECOND, 25 * MILLISECOND, 100 * MILLISECOND, SECOND,
];
#[rustfmt::skip]
const LATENCY_BOUNDS_NS: &[u64] = &[
    25 * MICROSECOND, 50 * MICROSECOND, 100 * MICROSECOND, 250 * MICROSECOND, 500 * MICROSECOND, MILLISECOND,
    2_500 * MICROSECOND, 5 * MILLISECOND, 10 * MILLISECOND, 25 * MILLISECOND, 50 * MILLISECOND, 100 * MILLISECOND,
    250 * MILLISECOND, SECOND,
];
#[rustfmt::skip]
const ROUND_TRIP_BOUNDS_MS: &[u64] = &[5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000];
const LAG_BOUNDS_MS: &[u64] = &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000];

impl ClusterMetrics {
    fn new() -> Self {
        Self {
            is_up: Tally::default(),
            sessions: Tally::default(),
            lag_ms: Histogram::new(LAG_BOUNDS_MS),
            messages_sent: Tally::default(),
            messages_received: Tally::default(),
            retransmissions: Tally::default(),
            waiting: PeakGauge::default(),
            dropped: Tally::default(),
            output_bytes: PeakGauge::default(),
            replies_awaited: PeakGauge::default(),
            catch_up_bytes: PeakGauge::default(),
            catch_ups_given_up: Tally::default(),
            replay_bytes: PeakGauge::default(),
            replay_discarded: Tally::default(),
            effects_peak: Tally::default(),
            effects_discarded: Tally::default(),
            transitions_unconfirmed: Tally::default(),
            transitions_unconfirmed_peak: Tally::default(),
            pending_leaves: Tally::default(),
            pending_leaves_peak: Tally::default(),
            transitions_unordered: Tally::default(),
            mail_held: Tally::default(),
            mail_held_peak: Tally::default(),
            topics_waiting: PeakGauge::default(),
            remote_bytes: PeakGauge::default(),
            refused: Tally::default(),
            questions: QuestionMetrics {
                sent: Tally::default(),
                resolved: Tally::default(),
                incomplete: Tally::default(),
                received: Tally::default(),
                answers_received: Tally::default(),
                time_ms: Histogram::new(LAG_BOUNDS_MS),
            },
        }
    }
}

impl CoreMetrics {
    /// `apps`: the number of apps, and of those that a reload may add. Rows are not added later.
    #[must_use]
    pub fn new(apps: usize) -> Self {
        let rows = apps.min(APPS_COUNTED_MAX) + 2;
        Self {
            apps: (0..rows).map(|_| AppMetrics::default()).collect(),
            ends: std::array::from_fn(|_| Tally::default()),
            tick_ns: Histogram::new(TICK_BOUNDS_NS),
            slow_ticks: Tally::default(),
            sends: Tally::default(),
            send_queue_bytes: PeakGauge::default(),
            http_connections: Tally::default(),
            mail_sent: Tally::default(),
            mail_received: Tally::default(),
            mail_discarded: Tally::default(),
            ring_mail: PeakGauge::default(),
            mail_waiting: PeakGauge::default(),
            mail_held: PeakGauge::default(),
            publishers_waiting: PeakGauge::default(),
            ready_sockets: PeakGauge::default(),
            flush_waiting: PeakGauge::default(),
            closing_connections: PeakGauge::default(),
            authorizations_awaited: PeakGauge::default(),
            deadlines: PeakGauge::default(),
            cached_bytes: PeakGauge::default(),
            cached_events_evicted: Tally::default(),
            subscription_counts_waiting: PeakGauge::default(),
            operator_orders: PeakGauge::default(),
            operator_orders_refused: Tally::default(),
            gathers: PeakGauge::default(),
            gathers_refused: Tally::default(),
            gathered_bytes: PeakGauge::default(),
            gathered_discarded: Tally::default(),
            publish_to_flush_ns: Histogram::new(LATENCY_BOUNDS_NS),
            round_trip_ms: Histogram::new(ROUND_TRIP_BOUNDS_MS),
            lines_left_out: Tally::default(),
            checks: std::array::from_fn(|_| Tally::default()),
            cluster: ClusterMetrics::new(),
        }
    }

    #[inline]
    #[must_use]
    pub fn app(&self, app: AppIndex) -> &AppMetrics {
        &self.apps[usize::from(app.0).min(self.row_of_others())]
    }

    /// `None`: the app shares its row, so what the row counts is also of other apps. An answer about one app asks here.
    #[must_use]
    pub fn own_row(&self, app: AppIndex) -> Option<&AppMetrics> {
        (usize::from(app.0) < self.row_of_others()).then(|| self.app(app))
    }

    /// The row of the app that a request names, if it names one.
    #[must_use]
    pub fn app_or_none(&self, app: Option<AppIndex>) -> &AppMetrics {
        app.map_or(&self.apps[self.row_of_others() + 1], |app| self.app(app))
    }

    /// The row that all apps without one share. `new` makes two rows more than there are such apps.
    fn row_of_others(&self) -> usize {
        self.apps.len().saturating_sub(2)
    }

    /// All rows: of apps by their index, of all others, of requests without an app.
    #[must_use]
    pub fn rows(&self) -> &[AppMetrics] {
        &self.apps
    }

    /// A tick took so long, the wait after it left out.
    pub fn observe_tick(&self, ns: u64) {
        self.tick_ns.observe(ns);
        self.slow_ticks.add(u64::from(ns > SLOW_TICK_NS));
    }

    #[must_use]
    pub fn tick_ns(&self) -> &Histogram {
        &self.tick_ns
    }

    #[must_use]
    pub fn slow_ticks(&self) -> u64 {
        self.slow_ticks.get()
    }

    /// A limit that is set was checked. It is named by the reason of its refusals.
    #[inline]
    pub fn count_check(&self, limit: Refused) {
        self.checks[limit as usize].add(1);
    }

    #[must_use]
    pub fn checks(&self, limit: Refused) -> u64 {
        self.checks[limit as usize].get()
    }

    pub fn count_end(&self, how: ConnectionEnd) {
        if let Some(count) = self.ends.get(how.index()) {
            count.add(1);
        }
    }

    #[must_use]
    pub fn ends(&self, how: ConnectionEnd) -> u64 {
        self.ends.get(how.index()).map_or(0, Tally::get)
    }

    /// In each second in which the core runs: peaks forget what is older than two windows.
    pub fn begin_second(&self, second: u32) {
        if second.is_multiple_of(WINDOW_SECONDS) {
            self.send_queue_bytes.begin_window();
            self.ring_mail.begin_window();
            self.mail_waiting.begin_window();
            self.mail_held.begin_window();
            self.publishers_waiting.begin_window();
            self.ready_sockets.begin_window();
            self.flush_waiting.begin_window();
            self.closing_connections.begin_window();
            self.authorizations_awaited.begin_window();
            self.deadlines.begin_window();
            self.cached_bytes.begin_window();
            self.subscription_counts_waiting.begin_window();
            self.operator_orders.begin_window();
            self.gathers.begin_window();
            self.gathered_bytes.begin_window();
            self.cluster.waiting.begin_window();
            self.cluster.topics_waiting.begin_window();
            self.cluster.remote_bytes.begin_window();
            self.cluster.output_bytes.begin_window();
            self.cluster.replies_awaited.begin_window();
            self.cluster.catch_up_bytes.begin_window();
            self.cluster.replay_bytes.begin_window();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_over_the_limit_share_a_row_and_requests_without_an_app_have_their_own() {
        let metrics = CoreMetrics::new(APPS_COUNTED_MAX + 500);
        for app in [0, 999, 1_000, 1_499] {
            metrics.app(AppIndex(app)).http_calls.add(1);
        }
        metrics.app_or_none(None).http_calls.add(5);
        let calls: Vec<u64> = metrics.rows().iter().map(|row| row.http_calls.get()).collect();
        assert_eq!(calls.len(), APPS_COUNTED_MAX + 2);
        assert_eq!((calls[0], calls[999], calls[1_000], calls[1_001]), (1, 1, 2, 5));
        assert_eq!(calls.iter().sum::<u64>(), 9);
        let has_own_row = |metrics: &CoreMetrics, app| metrics.own_row(AppIndex(app)).is_some();
        assert!(has_own_row(&metrics, 999) && !has_own_row(&metrics, 1_000));
        let few = CoreMetrics::new(3);
        assert!(has_own_row(&few, 2) && !has_own_row(&few, 3), "the limit is that of the rows");
    }

    #[test]
    fn a_tick_over_its_budget_counts_as_slow() {
        let metrics = CoreMetrics::new(1);
        for ns in [0, SLOW_TICK_NS, SLOW_TICK_NS + 1, u64::MAX / 2] {
            metrics.observe_tick(ns);
        }
        assert_eq!(metrics.slow_ticks(), 2);
        let observed = metrics.tick_ns().read();
        assert_eq!(observed.counts.iter().sum::<u64>(), 4, "each tick is in the histogram");
        let bounds = metrics.tick_ns().bounds();
        assert!(bounds.contains(&SLOW_TICK_NS), "the histogram shows how slow the others were");
    }

    #[test]
    fn each_end_has_a_place_of_its_own() {
        let metrics = CoreMetrics::new(1);
        for (times, how) in ConnectionEnd::all().enumerate() {
            (0..times).for_each(|_| metrics.count_end(how));
        }
        let counts: Vec<u64> = ConnectionEnd::all().map(|how| metrics.ends(how)).collect();
        let expected: Vec<u64> = (0..).take(ConnectionEnd::COUNT).collect();
        assert_eq!(counts, expected);
        let names: std::collections::BTreeSet<_> =
            ConnectionEnd::all().map(ConnectionEnd::names).collect();
        assert_eq!(names.len(), ConnectionEnd::COUNT);
    }
}
