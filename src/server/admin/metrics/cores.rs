//! Metrics of each core: its ticks, sends, queues and mail, and the questions whose answers it gathers.
//!
//! Owns the rows of this topic (`row.rs`), and no value: each row reads the counters of a scrape. Does not run on a
//! worker. Limit: the only label is the number of a core.
//! Cost: for a scrape, linear in cores; a histogram writes one line for each bound.

use super::row::{MS, Metric, NS, metrics};
use super::spec::{MetricKind, MetricSpec};

metrics! {
    "client_round_trip_seconds" Histogram []
        "Time from a ping of the server to the pong. Clients are pinged when they are silent.",
        |scrape, out| scrape.histogram(out, |core| &core.round_trip_ms, MS);
    "publish_to_flush_seconds" Histogram ["core"]
        "Time from the publish of an event to the end of the flush that sent it, at most: the oldest event of each \
         tick of a core.",
        |scrape, out| scrape.histogram_by_core(out, |core| &core.publish_to_flush_ns, NS);
    "broadcast_latency_ms" Histogram []
        "ringverb_publish_to_flush_seconds of all cores, in milliseconds, as dashboards of sockudo know it.",
        |scrape, out| scrape.histogram(out, |core| &core.publish_to_flush_ns, NS / MS);
    "tick_seconds" Histogram ["core"]
        "Time of one tick of a core. The sum is the time that the core was busy.",
        |scrape, out| scrape.histogram_by_core(out, |core| core.tick_ns(), NS);
    "slow_ticks_total" Counter ["core"]
        "Ticks of more than 25 ms, when a tick that is full of work takes about 10. All clients of the core have \
         waited for it: the host has too few processors, or the server a fault.",
        |scrape, out| scrape.by_core(out, |core| core.slow_ticks());
    "socket_sends_total" Counter ["core"]
        "Sends to WebSockets: at most one for each connection in a tick.",
        |scrape, out| scrape.by_core(out, |core| core.sends.get());
    "send_queue_bytes" Gauge ["core"]
        "Bytes that wait in send queues.",
        |scrape, out| scrape.by_core(out, |core| core.send_queue_bytes.get());
    "send_queue_peak_bytes" Gauge ["core"]
        "Most bytes that waited in send queues after a flush, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.send_queue_bytes.peak());
    "http_connections" Gauge ["core"]
        "Connections that speak HTTP.",
        |scrape, out| scrape.by_core(out, |core| core.http_connections.get());
    "mail_sent_total" Counter ["core"]
        "Mail to other cores.",
        |scrape, out| scrape.by_core(out, |core| core.mail_sent.get());
    "mail_received_total" Counter ["core"]
        "Mail of other cores.",
        |scrape, out| scrape.by_core(out, |core| core.mail_received.get());
    "mail_discarded_total" Counter ["core"]
        "Events that found the queue of mail to another core full. Each is a loss.",
        |scrape, out| scrape.by_core(out, |core| core.mail_discarded.get());
    "ring_mail" Gauge ["core"]
        "Mail that the last tick took out of the rings of other cores to this one. A ring has room for 128 to 2,048 \
         mails; mail for a full ring is in mailbox_waiting of its sender.",
        |scrape, out| scrape.by_core(out, |core| core.ring_mail.get());
    "ring_mail_peak" Gauge ["core"]
        "Most mail that a tick took out of the rings, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.ring_mail.peak());
    "mailbox_waiting" Gauge ["core"]
        "Mail that waits for room in a ring. Over 4,096 the core reads no publishers.",
        |scrape, out| scrape.by_core(out, |core| core.mail_waiting.get());
    "mailbox_waiting_peak" Gauge ["core"]
        "Most mail that waited for room after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.mail_waiting.peak());
    "mail_held" Gauge ["core"]
        "Mail that is in order only later: it waits until its time stamp is over. At most what the rings hold.",
        |scrape, out| scrape.by_core(out, |core| core.mail_held.get());
    "mail_held_peak" Gauge ["core"]
        "Most mail that waited for its time stamp after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.mail_held.peak());
    "publishers_waiting" Gauge ["core"]
        "Requests to publish that wait for room in mailboxes. They are read slower, and nothing is lost. At most the \
         HTTP connections of the core.",
        |scrape, out| scrape.by_core(out, |core| core.publishers_waiting.get());
    "publishers_waiting_peak" Gauge ["core"]
        "Most requests to publish that waited after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.publishers_waiting.peak());
    "ready_sockets" Gauge ["core"]
        "Sockets that are readable, and that a tick left for the next one: its time for reads was over, they have \
         more to read, or their connection may not be read now. At most the sockets of the core.",
        |scrape, out| scrape.by_core(out, |core| core.ready_sockets.get());
    "ready_sockets_peak" Gauge ["core"]
        "Most readable sockets that a tick left for the next one, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.ready_sockets.peak());
    "flush_waiting_connections" Gauge ["core"]
        "Connections with frames to send that a tick left for the next one. A tick flushes 1,024.",
        |scrape, out| scrape.by_core(out, |core| core.flush_waiting.get());
    "flush_waiting_connections_peak" Gauge ["core"]
        "Most connections that a tick left for the next one, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.flush_waiting.peak());
    "closing_connections" Gauge ["core"]
        "Connections that the server closes and whose client has not closed its side yet, for 3 s at most. Those \
         that ended before stay counted until then, at most 64 and two for each connection of the core.",
        |scrape, out| scrape.by_core(out, |core| core.closing_connections.get());
    "closing_connections_peak" Gauge ["core"]
        "Most connections that were counted as closing after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.closing_connections.peak());
    "authorizations_awaited" Gauge ["core"]
        "Connections of apps with RINGVERB_AUTHORIZE_WITHIN that have not signed in or joined a private channel. \
         Those that did, or ended, stay counted until their time is over, at most 64 and two for each connection of \
         the core.",
        |scrape, out| scrape.by_core(out, |core| core.authorizations_awaited.get());
    "authorizations_awaited_peak" Gauge ["core"]
        "Most connections that were counted so after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.authorizations_awaited.peak());
    "deadlines" Gauge ["core"]
        "Deadlines of WebSocket connections, to be looked at for silence, and of HTTP connections. Those of ended \
         connections stay counted until they are due, at most 64 and two for each connection of a kind.",
        |scrape, out| scrape.by_core(out, |core| core.deadlines.get());
    "deadlines_peak" Gauge ["core"]
        "Most deadlines after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.deadlines.peak());
    "subscription_counts_waiting" Gauge ["core"]
        "Channels whose number of subscribers has changed and is sent later, because it was sent in the last 5 s. At \
         most the channels of apps that want the number.",
        |scrape, out| scrape.by_core(out, |core| core.subscription_counts_waiting.get());
    "subscription_counts_waiting_peak" Gauge ["core"]
        "Most channels whose number waited after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.subscription_counts_waiting.peak());
    "cached_bytes" Gauge ["core"]
        "Bytes of the cached events of cache channels, 320 for the entry of each included. At most \
         RINGVERB_CACHE_BYTES_MAX for all cores together.",
        |scrape, out| scrape.by_core(out, |core| core.cached_bytes.get());
    "cached_bytes_peak" Gauge ["core"]
        "Most bytes of cached events after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.cached_bytes.peak());
    "cached_events_evicted_total" Counter ["core"]
        "Cached events that were dropped before their time was over, because newer ones needed their room. The next \
         subscriber gets cache_miss.",
        |scrape, out| scrape.by_core(out, |core| core.cached_events_evicted.get());
    "gathers" Gauge ["core"]
        "Questions of the HTTP API, of operators and of other nodes whose answers this core gathers from all cores \
         or nodes. At most the HTTP connections of the core, 16 of operators and 1,024 of other nodes.",
        |scrape, out| scrape.by_core(out, |core| core.gathers.get());
    "gathers_peak" Gauge ["core"]
        "Most questions whose answers the core gathered at a time, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.gathers.peak());
    "gathers_refused_total" Counter ["core"]
        "Questions of operators that were answered 503, and of other nodes that were not answered, because too many \
         were gathered. The other node waits for 1.5 s and counts the question as incomplete.",
        |scrape, out| scrape.by_core(out, |core| core.gathers_refused.get());
    "gathered_bytes" Gauge ["core"]
        "Bytes of answers of other nodes that wait until all nodes have answered. At most 256 MiB for the HTTP API \
         and 32 MiB for operators, of which rows use 28 MiB.",
        |scrape, out| scrape.by_core(out, |core| core.gathered_bytes.get());
    "gathered_bytes_peak" Gauge ["core"]
        "Most bytes of answers of other nodes that waited, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.gathered_bytes.peak());
    "gathered_discarded_total" Counter ["core"]
        "Answers of other nodes for which this node had no room (gathered_bytes) or no memory. The HTTP API \
         continues without the node. An operator gets the sums of the node without its rows, no details of a \
         connection, and above 32 MiB nothing of the node.",
        |scrape, out| scrape.by_core(out, |core| core.gathered_discarded.get());
    "operator_requests" Gauge ["core"]
        "Questions and actions of operators that wait for the core. At most 16.",
        |scrape, out| scrape.by_operator_queue(out, |queue| queue.waiting.get());
    "operator_requests_peak" Gauge ["core"]
        "Most questions and actions of operators that have waited for the core at a time, since the start.",
        |scrape, out| scrape.by_operator_queue(out, |queue| queue.waiting_peak.get());
    "operator_requests_refused_total" Counter ["core"]
        "Questions and actions of operators that were answered 503, because too many waited for the core.",
        |scrape, out| scrape.by_operator_queue(out, |queue| queue.refused.get());
    "operator_orders" Gauge ["core"]
        "Questions and actions of operators of other nodes that wait for the core. At most 32.",
        |scrape, out| scrape.by_core(out, |core| core.operator_orders.get());
    "operator_orders_peak" Gauge ["core"]
        "Most questions and actions of operators of other nodes that waited for the core, in the last 30 to 60 s.",
        |scrape, out| scrape.by_core(out, |core| core.operator_orders.peak());
    "operator_orders_refused_total" Counter ["core"]
        "Questions and actions of operators of other nodes that were not carried out: too many waited, they had \
         waited for over a second, or the deadline of an action was over.",
        |scrape, out| scrape.by_core(out, |core| core.operator_orders_refused.get());
}
