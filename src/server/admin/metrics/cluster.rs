//! Metrics of the session of each core with Redis, and of questions to other nodes.
//!
//! Owns the rows of this topic (`row.rs`), and no value: each row reads the counters of a scrape. Does not run on a
//! worker. Limit: the only label is the number of a core; a single node has no sample of a session.
//! Cost: for a scrape, linear in cores.

use super::row::{MS, Metric, metrics};
use super::spec::{MetricKind, MetricSpec};

metrics! {
    "cluster_up" Gauge ["core"]
        "1 while the core has a session with Redis. Nothing on a single node.",
        |scrape, out| scrape.by_session(out, |session| session.is_up.get());
    "cluster_sessions_total" Counter ["core"]
        "Connections to Redis that were established: more than one if it was lost.",
        |scrape, out| scrape.by_session(out, |session| session.sessions.get());
    "cluster_messages_sent_total" Counter ["core"]
        "Messages to other nodes.",
        |scrape, out| scrape.by_session(out, |session| session.messages_sent.get());
    "cluster_messages_received_total" Counter ["core"]
        "Messages of other nodes.",
        |scrape, out| scrape.by_session(out, |session| session.messages_received.get());
    "cluster_retransmissions_total" Counter ["core"]
        "Messages that were sent again to nodes that had missed them.",
        |scrape, out| scrape.by_session(out, |session| session.retransmissions.get());
    "cluster_lag_seconds" Histogram []
        "Time of a heartbeat through Redis and back, every 2 s for each core.",
        |scrape, out| if scrape.has_cluster() { scrape.histogram(out, |core| &core.cluster.lag_ms, MS) };
    "cluster_effects_peak" Gauge ["core"]
        "Most effects of one tick for the session with Redis. The limit is 262,144.",
        |scrape, out| scrape.by_session(out, |session| session.effects_peak.get());
    "cluster_effects_discarded_total" Counter ["core"]
        "Effects over that limit. The session begins again, and events of that tick are lost.",
        |scrape, out| scrape.by_session(out, |session| session.effects_discarded.get());
    "cluster_transitions_unconfirmed" Gauge ["core"]
        "First joins and last leaves that Redis has not confirmed.",
        |scrape, out| scrape.by_session(out, |session| session.transitions_unconfirmed.get());
    "cluster_transitions_unconfirmed_peak" Gauge ["core"]
        "Most first joins and last leaves that Redis had not confirmed. The limit is 262,144.",
        |scrape, out| scrape.by_session(out, |session| session.transitions_unconfirmed_peak.get());
    "cluster_pending_leaves" Gauge ["core"]
        "Leaves that wait for the debounce, canceled ones included until their time is over.",
        |scrape, out| scrape.by_session(out, |session| session.pending_leaves.get());
    "cluster_pending_leaves_peak" Gauge ["core"]
        "Most leaves that waited for the debounce. The limit is 262,144.",
        |scrape, out| scrape.by_session(out, |session| session.pending_leaves_peak.get());
    "cluster_transitions_unordered_total" Counter ["core"]
        "Joins and leaves over these limits. Their webhooks may be sent by two nodes.",
        |scrape, out| scrape.by_session(out, |session| session.transitions_unordered.get());
    "horizontal_transport_queue_depth" Gauge ["core"]
        "Messages to other nodes that wait for Redis.",
        |scrape, out| scrape.by_session(out, |session| session.waiting.get());
    "horizontal_transport_queue_peak" Gauge ["core"]
        "Most messages to other nodes that waited for Redis after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.waiting.peak());
    "horizontal_transport_messages_dropped_total" Counter ["core"]
        "Messages to other nodes that found no room while Redis was away. Each is a loss.",
        |scrape, out| scrape.by_session(out, |session| session.dropped.get());
    "cluster_output_bytes" Gauge ["core"]
        "Bytes of commands that the connection to Redis has not taken. Over 64 MiB it is opened again.",
        |scrape, out| scrape.by_session(out, |session| session.output_bytes.get());
    "cluster_output_bytes_peak" Gauge ["core"]
        "Most bytes that the connection to Redis had not taken after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.output_bytes.peak());
    "cluster_replies_awaited" Gauge ["core"]
        "Commands that Redis has not answered. Over 524,288, and over 64 MiB of events, the connection is opened \
         again.",
        |scrape, out| scrape.by_session(out, |session| session.replies_awaited.get());
    "cluster_replies_awaited_peak" Gauge ["core"]
        "Most commands that Redis had not answered after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.replies_awaited.peak());
    "cluster_catch_up_bytes" Gauge ["core"]
        "Bytes of new events that wait, after a time without Redis, until the other nodes have sent the earlier ones \
         again. At most 16 MiB.",
        |scrape, out| scrape.by_session(out, |session| session.catch_up_bytes.get());
    "cluster_catch_up_bytes_peak" Gauge ["core"]
        "Most bytes of new events that waited so after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.catch_up_bytes.peak());
    "cluster_catch_ups_given_up_total" Counter ["core"]
        "How often this wait ended early, because more than 16 MiB waited. Earlier events that had not come yet are \
         lost.",
        |scrape, out| scrape.by_session(out, |session| session.catch_ups_given_up.get());
    "cluster_replay_bytes" Gauge ["core"]
        "Bytes of published events that are kept for 60 s, to send them again to nodes that were without Redis. At \
         most 16 MiB.",
        |scrape, out| scrape.by_session(out, |session| session.replay_bytes.get());
    "cluster_replay_bytes_peak" Gauge ["core"]
        "Most bytes of published events that were kept after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.replay_bytes.peak());
    "cluster_replay_discarded_total" Counter ["core"]
        "Published events that were kept for less than 60 s, because more than 16 MiB were published. A node that \
         was without Redis for so long has missed them.",
        |scrape, out| scrape.by_session(out, |session| session.replay_discarded.get());
    "horizontal_transport_reconnections_total" Counter ["core"]
        "Connections to Redis that were established after the first.",
        |scrape, out| scrape.by_session(out, |session| session.sessions.get().saturating_sub(1));
    "cluster_mail_held" Gauge ["core"]
        "Mail to homes on this core (subscriptions, watches) that waits for what other nodes or Redis have of its \
         channel.",
        |scrape, out| scrape.by_session(out, |session| session.mail_held.get());
    "cluster_mail_held_peak" Gauge ["core"]
        "Most mail to homes that has waited for other nodes or Redis at a time, since the start.",
        |scrape, out| scrape.by_session(out, |session| session.mail_held_peak.get());
    "cluster_topics_waiting" Gauge ["core"]
        "Topics that are needed, and wait until the session with Redis has room for their subscription. Over 1,024 \
         the core reads no connection that subscribes.",
        |scrape, out| scrape.by_session(out, |session| session.topics_waiting.get());
    "cluster_topics_waiting_peak" Gauge ["core"]
        "Most topics that waited for their subscription after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.topics_waiting.peak());
    "cluster_remote_bytes" Gauge ["core"]
        "Bytes of what is kept of other nodes: members, users and pending leaves. It is counted again when it \
         reaches 128 MiB, so it may be less. More is counted in cluster_refused_total.",
        |scrape, out| scrape.by_session(out, |session| session.remote_bytes.get());
    "cluster_remote_bytes_peak" Gauge ["core"]
        "Most bytes of what was kept of other nodes after a tick, in the last 30 to 60 s.",
        |scrape, out| scrape.by_session(out, |session| session.remote_bytes.peak());
    "cluster_refused_total" Counter ["core"]
        "What other nodes sent over a limit of nodes, sessions, memory or questions, and was dropped.",
        |scrape, out| scrape.by_session(out, |session| session.refused.get());
    "horizontal_adapter_resolve_time" Histogram []
        "Milliseconds from a question of the HTTP API or of an operator to other nodes to its last answer, or to the \
         end of the wait.",
        |scrape, out| if scrape.has_cluster() { scrape.histogram(out, |core| &core.cluster.questions.time_ms, 1) };
    "horizontal_adapter_sent_requests" Untyped ["core"]
        "Questions of the HTTP API and of operators to other nodes.",
        |scrape, out| scrape.by_session(out, |session| session.questions.sent.get());
    "horizontal_adapter_resolved_promises" Untyped ["core"]
        "Of these, questions that all other nodes answered in time.",
        |scrape, out| scrape.by_session(out, |session| session.questions.resolved.get());
    "horizontal_adapter_uncomplete_promises" Untyped ["core"]
        "Of these, questions that a node did not answer in time. The result is then that of the others.",
        |scrape, out| scrape.by_session(out, |session| session.questions.incomplete.get());
    "horizontal_adapter_received_requests" Untyped ["core"]
        "Questions of other nodes.",
        |scrape, out| scrape.by_session(out, |session| session.questions.received.get());
    "horizontal_adapter_received_responses" Untyped ["core"]
        "Answers of other nodes.",
        |scrape, out| scrape.by_session(out, |session| session.questions.answers_received.get());
}
