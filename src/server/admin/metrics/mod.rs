//! The table of metrics: name, type, labels, meaning, and where each value is read.
//!
//! `/metrics` and docs/METRICS.md are made from it, and tests compare dashboards and alerts with it. Names are a
//! contract: they do not change. Those that soketi and sockudo export have the same suffixes, so that their dashboards
//! work with the prefix `ringverb_`. `exposition.rs` writes the text, `scrape.rs` reads the values of all cores. Owns
//! names and texts, and no value: each row reads the counters of a scrape. Does not run on a worker.
//! Limit: labels with values of peers do not exist; those with apps are bounded by `metrics::APPS_COUNTED_MAX`. Cost:
//! for a scrape, linear in samples (apps and cores); no worker is asked, so none does a step for it.

mod exposition;
mod scrape;
mod spec;

pub(super) use exposition::Format;
pub(super) use scrape::Scrape;
pub(in crate::server) use scrape::ScrapeSources;

use crate::admission::overload::OverloadLevel;
use crate::counters::{DepthGauge, Refused, WebhookCounters};
use crate::metrics::ConnectionEnd;
use crate::output;
use exposition::Samples;
pub(super) use spec::{MetricKind, MetricSpec};

/// Makes two tables of one list of rows: what a metric is (`METRICS`), which documents and tests read, and how its
/// values are read (`READERS`).
macro_rules! metrics {
    ($($name:literal $kind:ident [$($label:literal),*] $help:literal, $read:expr;)+) => {
        /// Every metric, in the order of the exposition.
        pub(super) static METRICS: &[MetricSpec] = &[$(MetricSpec {
            name: concat!("ringverb_", $name),
            kind: MetricKind::$kind,
            labels: &[$($label),*],
            help: $help,
        }),+];

        /// What reads the values of each, in the same order.
        static READERS: &[fn(&Scrape<'_>, &mut Samples)] = &[$($read),+];
    };
}

const NS: u64 = 1_000_000_000;
const MS: u64 = 1_000;

/// The refusals that `rate_limit_triggered_total` reports. Their limits also count each check.
const RATE_LIMITS: [Refused; 6] = [
    Refused::HandshakesPerIp,
    Refused::AuthFailuresPerIp,
    Refused::PublishRate,
    Refused::MessageRate,
    Refused::ControlFrameRate,
    Refused::ConnectionsPerIp,
];
/// The refusals that `connection_errors_total` reports: the connection has never become a WebSocket.
const CONNECTION_ERRORS: [Refused; 9] = [
    Refused::ConnectionsPerIp,
    Refused::HandshakesPerIp,
    Refused::Memory,
    Refused::Quota,
    Refused::NoSuchApp,
    Refused::AppDisabled,
    Refused::Version,
    Refused::Origin,
    Refused::BadRequest,
];

#[rustfmt::skip]
metrics! {
    "connected" Gauge ["app_id"] "Open WebSocket connections.",
        |scrape, out| scrape.connections(out);
    "new_connections_total" Counter ["app_id"] "WebSocket connections that were opened. Those of a process that was taken over do not count.",
        |scrape, out| scrape.by_app(out, |row| row.new_connections.get());
    "new_disconnections_total" Counter ["app_id"] "WebSocket connections that ended, for whatever reason.",
        |scrape, out| scrape.by_app(out, |row| row.disconnections.get());
    "disconnections_by_cause_total" Counter ["by", "reason"] "WebSocket connections that ended: by the client, the network or the server, and why.",
        |scrape, out| ConnectionEnd::all().for_each(|how| {
            let (by, reason) = how.names();
            out.sample(&[by, reason], scrape.cores().map(|core| core.ends(how)).sum::<u64>());
        });
    "refusals_total" Counter ["reason"] "What the server refused, and connections that it closed, by reason. The log uses the same names.",
        |scrape, out| scrape.refusals(out, &Refused::ALL);
    "connection_errors_total" Counter ["error_type"] "Of the refusals, those of handshakes.",
        |scrape, out| scrape.refusals(out, &CONNECTION_ERRORS);
    "rate_limit_checks_total" Counter ["limiter_type"] "How often a limit of a rate or of an address was checked, if it is set.",
        |scrape, out| RATE_LIMITS.iter().for_each(|limit| {
            out.sample(&[limit.name()], scrape.cores().map(|core| core.checks(*limit)).sum::<u64>());
        });
    "rate_limit_triggered_total" Counter ["limiter_type"] "Of the refusals, those by a limit of a rate or of an address.",
        |scrape, out| scrape.refusals(out, &RATE_LIMITS);
    "ws_messages_received_total" Counter ["app_id"] "Messages of clients, refused ones included, control frames excluded.",
        |scrape, out| scrape.by_app(out, |row| row.messages_received.get());
    "ws_messages_sent_total" Counter ["app_id"] "Messages that were queued for clients, control frames excluded; app_id is empty for handshakes that were refused. Divided by ringverb_socket_sends_total: messages in one send.",
        |scrape, out| scrape.by_app_or_none(out, |row| row.messages_sent.get());
    "socket_received_bytes" Untyped ["app_id"] "Bytes of frames that were received on WebSockets.",
        |scrape, out| scrape.by_app(out, |row| row.received_bytes.get());
    "socket_transmitted_bytes" Untyped ["app_id"] "Bytes of frames that were queued for WebSockets, the answer to the handshake included; app_id as for the messages.",
        |scrape, out| scrape.by_app_or_none(out, |row| row.queued_bytes.get());
    "socket_discarded_bytes_total" Counter ["app_id"] "Of these, bytes that were not sent, because the connection ended.",
        |scrape, out| scrape.by_app_or_none(out, |row| row.discarded_bytes.get());
    "client_events_total" Counter ["app_id"] "Client events that were accepted.",
        |scrape, out| scrape.by_app(out, |row| row.client_events.get());
    "published_events_total" Counter ["app_id"] "Events that the HTTP API accepted, once for each channel.",
        |scrape, out| scrape.by_app(out, |row| row.published_events.get());
    "http_calls_received_total" Counter ["app_id"] "HTTP requests that were answered, by the app that they name; empty for none.",
        |scrape, out| scrape.by_app_or_none(out, |row| row.http_calls.get());
    "http_received_bytes" Untyped ["app_id"] "Bytes of these requests, without the framing of chunks.",
        |scrape, out| scrape.by_app_or_none(out, |row| row.http_received_bytes.get());
    "http_transmitted_bytes" Untyped ["app_id"] "Bytes of their answers.",
        |scrape, out| scrape.by_app_or_none(out, |row| row.http_transmitted_bytes.get());
    "active_channels" Gauge ["app_id", "channel_type"] "Channels with subscribers on this node.",
        |scrape, out| scrape.by_type(out, |row| &row.channels);
    "subscriptions" Gauge ["app_id", "channel_type"] "Acknowledged subscriptions of open connections.",
        |scrape, out| scrape.by_type(out, |row| &row.subscribers);
    "channel_subscriptions_total" Counter ["app_id", "channel_type"] "Subscriptions that were acknowledged.",
        |scrape, out| scrape.by_type(out, |row| &row.subscriptions);
    "channel_unsubscriptions_total" Counter ["app_id", "channel_type"] "Acknowledged subscriptions that ended.",
        |scrape, out| scrape.by_type(out, |row| &row.unsubscriptions);
    "client_round_trip_seconds" Histogram [] "Time from a ping of the server to the pong. Clients are pinged when they are silent.",
        |scrape, out| scrape.histogram(out, |core| &core.round_trip_ms, MS);
    "publish_to_flush_seconds" Histogram ["core"] "Time from the publish of an event to the end of the flush that sent it, at most: the oldest event of each tick of a core.",
        |scrape, out| scrape.histogram_by_core(out, |core| &core.publish_to_flush_ns, NS);
    "broadcast_latency_ms" Histogram [] "ringverb_publish_to_flush_seconds of all cores, in milliseconds, as dashboards of sockudo know it.",
        |scrape, out| scrape.histogram(out, |core| &core.publish_to_flush_ns, NS / MS);
    "tick_seconds" Histogram ["core"] "Time of one tick of a core. The sum is the time that the core was busy.",
        |scrape, out| scrape.histogram_by_core(out, |core| core.tick_ns(), NS);
    "slow_ticks_total" Counter ["core"] "Ticks of more than 25 ms, when a tick that is full of work takes about 10. All clients of the core have waited for it: the host has too few processors, or the server a fault.",
        |scrape, out| scrape.by_core(out, |core| core.slow_ticks());
    "socket_sends_total" Counter ["core"] "Sends to WebSockets: at most one for each connection in a tick.",
        |scrape, out| scrape.by_core(out, |core| core.sends.get());
    "send_queue_bytes" Gauge ["core"] "Bytes that wait in send queues.",
        |scrape, out| scrape.by_core(out, |core| core.send_queue_bytes.get());
    "send_queue_peak_bytes" Gauge ["core"] "Most bytes that waited in send queues after a flush, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.send_queue_bytes.peak());
    "http_connections" Gauge ["core"] "Connections that speak HTTP.",
        |scrape, out| scrape.by_core(out, |core| core.http_connections.get());
    "mail_sent_total" Counter ["core"] "Mail to other cores.",
        |scrape, out| scrape.by_core(out, |core| core.mail_sent.get());
    "mail_received_total" Counter ["core"] "Mail of other cores.",
        |scrape, out| scrape.by_core(out, |core| core.mail_received.get());
    "mail_discarded_total" Counter ["core"] "Events that found the queue of mail to another core full. Each is a loss.",
        |scrape, out| scrape.by_core(out, |core| core.mail_discarded.get());
    "ring_mail" Gauge ["core"] "Mail that the last tick took out of the rings of other cores to this one. A ring has room for 128 to 2,048 mails; mail for a full ring is in mailbox_waiting of its sender.",
        |scrape, out| scrape.by_core(out, |core| core.ring_mail.get());
    "ring_mail_peak" Gauge ["core"] "Most mail that a tick took out of the rings, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.ring_mail.peak());
    "mailbox_waiting" Gauge ["core"] "Mail that waits for room in a ring. Over 4,096 the core reads no publishers.",
        |scrape, out| scrape.by_core(out, |core| core.mail_waiting.get());
    "mailbox_waiting_peak" Gauge ["core"] "Most mail that waited for room after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.mail_waiting.peak());
    "mail_held" Gauge ["core"] "Mail that is in order only later: it waits until its time stamp is over. At most what the rings hold.",
        |scrape, out| scrape.by_core(out, |core| core.mail_held.get());
    "mail_held_peak" Gauge ["core"] "Most mail that waited for its time stamp after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.mail_held.peak());
    "publishers_waiting" Gauge ["core"] "Requests to publish that wait for room in mailboxes. They are read slower, and nothing is lost. At most the HTTP connections of the core.",
        |scrape, out| scrape.by_core(out, |core| core.publishers_waiting.get());
    "publishers_waiting_peak" Gauge ["core"] "Most requests to publish that waited after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.publishers_waiting.peak());
    "ready_sockets" Gauge ["core"] "Sockets that are readable, and that a tick left for the next one: its time for reads was over, they have more to read, or their connection may not be read now. At most the sockets of the core.",
        |scrape, out| scrape.by_core(out, |core| core.ready_sockets.get());
    "ready_sockets_peak" Gauge ["core"] "Most readable sockets that a tick left for the next one, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.ready_sockets.peak());
    "flush_waiting_connections" Gauge ["core"] "Connections with frames to send that a tick left for the next one. A tick flushes 1,024.",
        |scrape, out| scrape.by_core(out, |core| core.flush_waiting.get());
    "flush_waiting_connections_peak" Gauge ["core"] "Most connections that a tick left for the next one, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.flush_waiting.peak());
    "closing_connections" Gauge ["core"] "Connections that the server closes and whose client has not closed its side yet, for 3 s at most. Those that ended before stay counted until then, at most 64 and two for each connection of the core.",
        |scrape, out| scrape.by_core(out, |core| core.closing_connections.get());
    "closing_connections_peak" Gauge ["core"] "Most connections that were counted as closing after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.closing_connections.peak());
    "authorizations_awaited" Gauge ["core"] "Connections of apps with RINGVERB_AUTHORIZE_WITHIN that have not signed in or joined a private channel. Those that did, or ended, stay counted until their time is over, at most 64 and two for each connection of the core.",
        |scrape, out| scrape.by_core(out, |core| core.authorizations_awaited.get());
    "authorizations_awaited_peak" Gauge ["core"] "Most connections that were counted so after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.authorizations_awaited.peak());
    "deadlines" Gauge ["core"] "Deadlines of WebSocket connections, to be looked at for silence, and of HTTP connections. Those of ended connections stay counted until they are due, at most 64 and two for each connection of a kind.",
        |scrape, out| scrape.by_core(out, |core| core.deadlines.get());
    "deadlines_peak" Gauge ["core"] "Most deadlines after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.deadlines.peak());
    "subscription_counts_waiting" Gauge ["core"] "Channels whose number of subscribers has changed and is sent later, because it was sent in the last 5 s. At most the channels of apps that want the number.",
        |scrape, out| scrape.by_core(out, |core| core.subscription_counts_waiting.get());
    "subscription_counts_waiting_peak" Gauge ["core"] "Most channels whose number waited after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.subscription_counts_waiting.peak());
    "cached_bytes" Gauge ["core"] "Bytes of the cached events of cache channels, 320 for the entry of each included. At most RINGVERB_CACHE_BYTES_MAX for all cores together.",
        |scrape, out| scrape.by_core(out, |core| core.cached_bytes.get());
    "cached_bytes_peak" Gauge ["core"] "Most bytes of cached events after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.cached_bytes.peak());
    "cached_events_evicted_total" Counter ["core"] "Cached events that were dropped before their time was over, because newer ones needed their room. The next subscriber gets cache_miss.",
        |scrape, out| scrape.by_core(out, |core| core.cached_events_evicted.get());
    "gathers" Gauge ["core"] "Questions of the HTTP API, of operators and of other nodes whose answers this core gathers from all cores or nodes. At most the HTTP connections of the core, 16 of operators and 1,024 of other nodes.",
        |scrape, out| scrape.by_core(out, |core| core.gathers.get());
    "gathers_peak" Gauge ["core"] "Most questions whose answers the core gathered at a time, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.gathers.peak());
    "gathers_refused_total" Counter ["core"] "Questions of operators that were answered 503, and of other nodes that were not answered, because too many were gathered. The other node waits for 1.5 s and counts the question as incomplete.",
        |scrape, out| scrape.by_core(out, |core| core.gathers_refused.get());
    "gathered_bytes" Gauge ["core"] "Bytes of answers of other nodes that wait until all nodes have answered. At most 256 MiB for the HTTP API and 32 MiB for operators, of which rows use 28 MiB.",
        |scrape, out| scrape.by_core(out, |core| core.gathered_bytes.get());
    "gathered_bytes_peak" Gauge ["core"] "Most bytes of answers of other nodes that waited, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.gathered_bytes.peak());
    "gathered_discarded_total" Counter ["core"] "Answers of other nodes for which this node had no room (gathered_bytes) or no memory. The HTTP API continues without the node. An operator gets the sums of the node without its rows, no details of a connection, and above 32 MiB nothing of the node.",
        |scrape, out| scrape.by_core(out, |core| core.gathered_discarded.get());
    "operator_requests" Gauge ["core"] "Questions and actions of operators that wait for the core. At most 16.",
        |scrape, out| scrape.by_operator_queue(out, |queue| queue.waiting.get());
    "operator_requests_peak" Gauge ["core"] "Most questions and actions of operators that have waited for the core at a time, since the start.",
        |scrape, out| scrape.by_operator_queue(out, |queue| queue.waiting_peak.get());
    "operator_requests_refused_total" Counter ["core"] "Questions and actions of operators that were answered 503, because too many waited for the core.",
        |scrape, out| scrape.by_operator_queue(out, |queue| queue.refused.get());
    "operator_orders" Gauge ["core"] "Questions and actions of operators of other nodes that wait for the core. At most 32.",
        |scrape, out| scrape.by_core(out, |core| core.operator_orders.get());
    "operator_orders_peak" Gauge ["core"] "Most questions and actions of operators of other nodes that waited for the core, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.operator_orders.peak());
    "operator_orders_refused_total" Counter ["core"] "Questions and actions of operators of other nodes that were not carried out: too many waited, they had waited for over a second, or the deadline of an action was over.",
        |scrape, out| scrape.by_core(out, |core| core.operator_orders_refused.get());
    "cluster_up" Gauge ["core"] "1 while the core has a session with Redis. Nothing on a single node.",
        |scrape, out| scrape.by_session(out, |session| session.is_up.get());
    "cluster_sessions_total" Counter ["core"] "Connections to Redis that were established: more than one if it was lost.",
        |scrape, out| scrape.by_session(out, |session| session.sessions.get());
    "cluster_messages_sent_total" Counter ["core"] "Messages to other nodes.",
        |scrape, out| scrape.by_session(out, |session| session.messages_sent.get());
    "cluster_messages_received_total" Counter ["core"] "Messages of other nodes.",
        |scrape, out| scrape.by_session(out, |session| session.messages_received.get());
    "cluster_retransmissions_total" Counter ["core"] "Messages that were sent again to nodes that had missed them.",
        |scrape, out| scrape.by_session(out, |session| session.retransmissions.get());
    "cluster_lag_seconds" Histogram [] "Time of a heartbeat through Redis and back, every 2 s for each core.",
        |scrape, out| if scrape.has_cluster() { scrape.histogram(out, |core| &core.cluster.lag_ms, MS) };
    "cluster_effects_peak" Gauge ["core"] "Most effects of one tick for the session with Redis. The limit is 262,144.",
        |scrape, out| scrape.by_session(out, |session| session.effects_peak.get());
    "cluster_effects_discarded_total" Counter ["core"] "Effects over that limit. The session begins again, and events of that tick are lost.",
        |scrape, out| scrape.by_session(out, |session| session.effects_discarded.get());
    "cluster_transitions_unconfirmed" Gauge ["core"] "First joins and last leaves that Redis has not confirmed.",
        |scrape, out| scrape.by_session(out, |session| session.transitions_unconfirmed.get());
    "cluster_transitions_unconfirmed_peak" Gauge ["core"] "Most first joins and last leaves that Redis had not confirmed. The limit is 262,144.",
        |scrape, out| scrape.by_session(out, |session| session.transitions_unconfirmed_peak.get());
    "cluster_pending_leaves" Gauge ["core"] "Leaves that wait for the debounce, canceled ones included until their time is over.",
        |scrape, out| scrape.by_session(out, |session| session.pending_leaves.get());
    "cluster_pending_leaves_peak" Gauge ["core"] "Most leaves that waited for the debounce. The limit is 262,144.",
        |scrape, out| scrape.by_session(out, |session| session.pending_leaves_peak.get());
    "cluster_transitions_unordered_total" Counter ["core"] "Joins and leaves over these limits. Their webhooks may be sent by two nodes.",
        |scrape, out| scrape.by_session(out, |session| session.transitions_unordered.get());
    "horizontal_transport_queue_depth" Gauge ["core"] "Messages to other nodes that wait for Redis.",
        |scrape, out| scrape.by_session(out, |session| session.waiting.get());
    "horizontal_transport_queue_peak" Gauge ["core"] "Most messages to other nodes that waited for Redis after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.waiting.peak());
    "horizontal_transport_messages_dropped_total" Counter ["core"] "Messages to other nodes that found no room while Redis was away. Each is a loss.",
        |scrape, out| scrape.by_session(out, |session| session.dropped.get());
    "cluster_output_bytes" Gauge ["core"] "Bytes of commands that the connection to Redis has not taken. Over 64 MiB it is opened again.",
        |scrape, out| scrape.by_session(out, |session| session.output_bytes.get());
    "cluster_output_bytes_peak" Gauge ["core"] "Most bytes that the connection to Redis had not taken after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.output_bytes.peak());
    "cluster_replies_awaited" Gauge ["core"] "Commands that Redis has not answered. Over 524,288, and over 64 MiB of events, the connection is opened again.",
        |scrape, out| scrape.by_session(out, |session| session.replies_awaited.get());
    "cluster_replies_awaited_peak" Gauge ["core"] "Most commands that Redis had not answered after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.replies_awaited.peak());
    "cluster_catch_up_bytes" Gauge ["core"] "Bytes of new events that wait, after a time without Redis, until the other nodes have sent the earlier ones again. At most 16 MiB.",
        |scrape, out| scrape.by_session(out, |session| session.catch_up_bytes.get());
    "cluster_catch_up_bytes_peak" Gauge ["core"] "Most bytes of new events that waited so after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.catch_up_bytes.peak());
    "cluster_catch_ups_given_up_total" Counter ["core"] "How often this wait ended early, because more than 16 MiB waited. Earlier events that had not come yet are lost.",
        |scrape, out| scrape.by_session(out, |session| session.catch_ups_given_up.get());
    "cluster_replay_bytes" Gauge ["core"] "Bytes of published events that are kept for 60 s, to send them again to nodes that were without Redis. At most 16 MiB.",
        |scrape, out| scrape.by_session(out, |session| session.replay_bytes.get());
    "cluster_replay_bytes_peak" Gauge ["core"] "Most bytes of published events that were kept after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.replay_bytes.peak());
    "cluster_replay_discarded_total" Counter ["core"] "Published events that were kept for less than 60 s, because more than 16 MiB were published. A node that was without Redis for so long has missed them.",
        |scrape, out| scrape.by_session(out, |session| session.replay_discarded.get());
    "horizontal_transport_reconnections_total" Counter ["core"] "Connections to Redis that were established after the first.",
        |scrape, out| scrape.by_session(out, |session| session.sessions.get().saturating_sub(1));
    "console_events_lost_total" Counter [] "Events that the event log of the console did not show, because there were too many. Counts only while it is open.",
        |scrape, out| out.sample(&[], scrape.console_events_lost());
    "console_feed_events" Gauge ["feed"] "Events that a worker, by number, or the senders of webhooks have left for the event log of the console. At most 2,048 each.",
        |scrape, out| scrape.by_console_feed(out, DepthGauge::depth);
    "console_feed_events_peak" Gauge ["feed"] "Most events that a feed has held at a time, since the start.",
        |scrape, out| scrape.by_console_feed(out, DepthGauge::peak);
    "console_viewer_events" Gauge [] "Events that wait for the viewer of the console who reads slowest. At most 2,000 and 1 MiB.",
        |scrape, out| out.sample(&[], scrape.viewers().waiting.depth());
    "console_viewer_events_peak" Gauge [] "Most events that have waited for one viewer at a time, since the start.",
        |scrape, out| out.sample(&[], scrape.viewers().waiting.peak());
    "console_viewer_events_lost_total" Counter [] "Events that a viewer of the console was not sent, because too many waited for it.",
        |scrape, out| out.sample(&[], scrape.viewers().lost_count.get());
    "cluster_mail_held" Gauge ["core"] "Mail to homes on this core (subscriptions, watches) that waits for what other nodes or Redis have of its channel.",
        |scrape, out| scrape.by_session(out, |session| session.mail_held.get());
    "cluster_mail_held_peak" Gauge ["core"] "Most mail to homes that has waited for other nodes or Redis at a time, since the start.",
        |scrape, out| scrape.by_session(out, |session| session.mail_held_peak.get());
    "cluster_topics_waiting" Gauge ["core"] "Topics that are needed, and wait until the session with Redis has room for their subscription. Over 1,024 the core reads no connection that subscribes.",
        |scrape, out| scrape.by_session(out, |session| session.topics_waiting.get());
    "cluster_topics_waiting_peak" Gauge ["core"] "Most topics that waited for their subscription after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.topics_waiting.peak());
    "cluster_remote_bytes" Gauge ["core"] "Bytes of what is kept of other nodes: members, users and pending leaves. It is counted again when it reaches 128 MiB, so it may be less. More is counted in cluster_refused_total.",
        |scrape, out| scrape.by_session(out, |session| session.remote_bytes.get());
    "cluster_remote_bytes_peak" Gauge ["core"] "Most bytes of what was kept of other nodes after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.remote_bytes.peak());
    "cluster_refused_total" Counter ["core"] "What other nodes sent over a limit of nodes, sessions, memory or questions, and was dropped.",
        |scrape, out| scrape.by_session(out, |session| session.refused.get());
    "horizontal_adapter_resolve_time" Histogram [] "Milliseconds from a question of the HTTP API or of an operator to other nodes to its last answer, or to the end of the wait.",
        |scrape, out| if scrape.has_cluster() { scrape.histogram(out, |core| &core.cluster.questions.time_ms, 1) };
    "horizontal_adapter_sent_requests" Untyped ["core"] "Questions of the HTTP API and of operators to other nodes.",
        |scrape, out| scrape.by_session(out, |session| session.questions.sent.get());
    "horizontal_adapter_resolved_promises" Untyped ["core"] "Of these, questions that all other nodes answered in time.",
        |scrape, out| scrape.by_session(out, |session| session.questions.resolved.get());
    "horizontal_adapter_uncomplete_promises" Untyped ["core"] "Of these, questions that a node did not answer in time. The result is then that of the others.",
        |scrape, out| scrape.by_session(out, |session| session.questions.incomplete.get());
    "horizontal_adapter_received_requests" Untyped ["core"] "Questions of other nodes.",
        |scrape, out| scrape.by_session(out, |session| session.questions.received.get());
    "horizontal_adapter_received_responses" Untyped ["core"] "Answers of other nodes.",
        |scrape, out| scrape.by_session(out, |session| session.questions.answers_received.get());
    "webhook_queue_events" Gauge [] "Events that wait for endpoints of webhooks, those in requests under way included.",
        |scrape, out| scrape.webhook(out, WebhookCounters::waiting);
    "webhook_queue_peak_events" Gauge [] "Most events that have waited for endpoints of webhooks at a time, since the start. RINGVERB_WEBHOOK_QUEUE_MAX is the limit of one class of events of one endpoint.",
        |scrape, out| scrape.webhook(out, WebhookCounters::waiting_peak);
    "webhook_queue_age_seconds" Gauge [] "Age of the oldest event that waits for an endpoint of webhooks, in a request under way included.",
        |scrape, out| out.sample(&[], scrape.sources.webhooks.queue_age_ms(scrape.unix_ms) as f64 / 1_000.0);
    "webhook_ring_events" Gauge ["core"] "Events for webhooks that the core has left for the thread that sorts them by endpoint. At most 8,192 to 65,536.",
        |scrape, out| scrape.by_webhook_ring(out, DepthGauge::depth);
    "webhook_ring_peak_events" Gauge ["core"] "Most events for webhooks that have waited in the ring of the core at a time, since the start.",
        |scrape, out| scrape.by_webhook_ring(out, DepthGauge::peak);
    "webhook_leaves_delayed" Gauge [] "Leaves whose debounce time is not over. At most 100,000.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.leaves_delayed.depth());
    "webhook_leaves_delayed_peak" Gauge [] "Most leaves that were delayed at a time, since the start.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.leaves_delayed.peak());
    "webhook_requests_total" Counter [] "Requests to endpoints of webhooks, attempts that were repeated included.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.requests.get());
    "webhook_requests_failed_total" Counter [] "Of these, requests that were answered with anything but 2xx, or not at all.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.requests_failed.get());
    "webhook_events_delivered_total" Counter [] "Events in requests that were answered with 2xx.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.delivered.get());
    "webhook_events_dropped_total" Counter ["kind"] "Events that found a queue full.",
        |scrape, out| scrape.webhook_by_kind(out, |webhooks| {
            let (workers, queues) = (webhooks.dropped_by_workers_of.get(), webhooks.dropped_at_queues_of.get());
            std::array::from_fn(|kind| workers[kind] + queues[kind])
        });
    "webhook_events_given_up_total" Counter ["kind"] "Events that an endpoint refused, and that are not tried again.",
        |scrape, out| scrape.webhook_by_kind(out, |webhooks| webhooks.given_up_of.get());
    "webhook_leaves_released_early_total" Counter [] "Leaves that were sent before the debounce time was over, because too many were delayed. A rejoin did not cancel them.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.leaves_released_early.get());
    "webhook_failing_seconds" Gauge [] "Time for which an endpoint has accepted nothing, although it was tried: the longest of all endpoints.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.failing_seconds(scrape.unix_seconds));
    "printed_queue_bytes" Gauge [] "Bytes of printed events that wait for standard output. 0 without RINGVERB_PRINT_EVENTS.",
        |_, out| out.sample(&[], output::queued_printed_bytes().now);
    "printed_queue_peak_bytes" Gauge [] "Most bytes of printed events that have waited at a time, since the start. Over 8 MiB events are lost.",
        |_, out| out.sample(&[], output::queued_printed_bytes().peak);
    "printed_events_lost_total" Counter [] "Printed events that found the queue full, or that standard output refused.",
        |_, out| out.sample(&[], output::lost_printed());
    "log_queue_bytes" Gauge [] "Bytes of log lines that wait for their stream.",
        |_, out| out.sample(&[], output::queued_log_bytes().now);
    "log_queue_peak_bytes" Gauge [] "Most bytes of log lines that have waited at a time, since the start. Over 1 MiB lines are lost, with the reason unread.",
        |_, out| out.sample(&[], output::queued_log_bytes().peak);
    "log_lines_lost_total" Counter ["reason"] "Lines that are not in the log. suppressed: their reason had no lines left; over_rate: over the bytes a second; unread: the reader was too slow; unwritten: the stream refused them.",
        |scrape, out| {
            let lost = output::lost_lines();
            let (unread, unwritten) = (lost.queue_full, lost.write_failed);
            let suppressed = scrape.cores().map(|core| core.lines_left_out.get()).sum::<u64>();
            let all = [("suppressed", suppressed), ("over_rate", lost.over_rate), ("unread", unread), ("unwritten", unwritten)];
            all.iter().for_each(|(reason, lines)| out.sample(&[reason], lines));
        };
    "memory_resident_bytes" Gauge [] "Resident memory of the process.",
        |scrape, out| if let Some(bytes) = scrape.resident_bytes { out.sample(&[], bytes) };
    "memory_limit_bytes" Gauge [] "RINGVERB_MEMORY_MAX. Nothing without a limit.",
        |scrape, out| if let Some(bytes) = scrape.sources.shared.config.memory_max { out.sample(&[], bytes) };
    "memory_level" Gauge [] "0: memory is not short; 1: connections are refused, from 3 % below the limit on until memory is 9 % below it; 2: publishes, too, 12.5 % over it.",
        |scrape, out| out.sample(&[], match scrape.sources.shared.overload.pressure.level() {
            OverloadLevel::None => 0,
            OverloadLevel::Over => 1,
            OverloadLevel::FarOver => 2,
        });
    "takeover_duration_seconds" Gauge [] "Time of the take-over by which this process received connections. Nothing without one.",
        |scrape, out| if let Some(time) = scrape.sources.takeover { out.sample(&[], time.as_secs_f64()) };
    "tls_certificate_expires_seconds" Gauge ["certificate"] "Until when a certificate in use is valid, in seconds since 1970; the label is the file. Nothing without TLS.",
        |scrape, out| scrape.certificates(out);
    "workers" Gauge [] "Cores that serve.",
        |scrape, out| out.sample(&[], scrape.sources.shared.metrics.len());
    "ready" Gauge [] "1 if /ready answers 200.",
        |scrape, out| out.sample(&[], u8::from(scrape.is_ready));
    "configurations_waiting" Gauge [] "Configurations that a worker has not applied, because it does not run. At most 16.",
        |scrape, out| out.sample(&[], scrape.unapplied().waiting.depth());
    "configurations_waiting_peak" Gauge [] "Most configurations that have waited for a worker at a time, since the start.",
        |scrape, out| out.sample(&[], scrape.unapplied().waiting.peak());
    "configurations_refused_total" Counter [] "Changes of the configuration that were refused, because 16 waited for a worker.",
        |scrape, out| out.sample(&[], scrape.unapplied().refused.get());
    "heartbeats_total" Counter ["core"] "Seconds in which the core ran. One that stands still has stalled.",
        |scrape, out| scrape.heartbeats(out);
    "start_time_seconds" Gauge [] "When the process started, in seconds since 1970.",
        |scrape, out| out.sample(&[], scrape.sources.started_unix_seconds);
    "build_info" Gauge ["version"] "Always 1; the label is the version.",
        |_, out| out.sample(&[env!("CARGO_PKG_VERSION")], 1);
}

pub(super) fn render(scrape: &Scrape<'_>, format: Format) -> String {
    let mut samples = Samples::new(format, &METRICS[0]);
    for (spec, read) in METRICS.iter().zip(READERS) {
        samples.begin(spec);
        read(scrape, &mut samples);
    }
    samples.finish()
}

#[cfg(test)]
mod tests;
