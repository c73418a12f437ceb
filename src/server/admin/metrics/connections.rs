//! Metrics of connections, messages, requests and subscriptions: by app, by cause and by limit.
//!
//! Owns the rows of this topic (`row.rs`), and no value: each row reads the counters of a scrape. Does not run on a
//! worker. Limit: labels are apps with rows of their own, causes and channel types, so no peer adds one.
//! Cost: for a scrape, linear in apps and cores.

use super::row::{Metric, metrics};
use super::spec::{MetricKind, MetricSpec};
use crate::counters::Refused;
use crate::metrics::ConnectionEnd;

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

metrics! {
    "connected" Gauge ["app_id"]
        "Open WebSocket connections.",
        |scrape, out| scrape.connections(out);
    "new_connections_total" Counter ["app_id"]
        "WebSocket connections that were opened. Those of a process that was taken over do not count.",
        |scrape, out| scrape.by_app(out, |row| row.new_connections.get());
    "new_disconnections_total" Counter ["app_id"]
        "WebSocket connections that ended, for whatever reason.",
        |scrape, out| scrape.by_app(out, |row| row.disconnections.get());
    "disconnections_by_cause_total" Counter ["by", "reason"]
        "WebSocket connections that ended: by the client, the network or the server, and why.",
        |scrape, out| ConnectionEnd::all().for_each(|how| {
            let (by, reason) = how.names();
            out.sample(&[by, reason], scrape.cores().map(|core| core.ends(how)).sum::<u64>());
        });
    "refusals_total" Counter ["reason"]
        "What the server refused, and connections that it closed, by reason. The log uses the same names.",
        |scrape, out| scrape.refusals(out, &Refused::ALL);
    "connection_errors_total" Counter ["error_type"]
        "Of the refusals, those of handshakes.",
        |scrape, out| scrape.refusals(out, &CONNECTION_ERRORS);
    "rate_limit_checks_total" Counter ["limiter_type"]
        "How often a limit of a rate or of an address was checked, if it is set.",
        |scrape, out| RATE_LIMITS.iter().for_each(|limit| {
            out.sample(&[limit.name()], scrape.cores().map(|core| core.checks(*limit)).sum::<u64>());
        });
    "rate_limit_triggered_total" Counter ["limiter_type"]
        "Of the refusals, those by a limit of a rate or of an address.",
        |scrape, out| scrape.refusals(out, &RATE_LIMITS);
    "ws_messages_received_total" Counter ["app_id"]
        "Messages of clients, refused ones included, control frames excluded.",
        |scrape, out| scrape.by_app(out, |row| row.messages_received.get());
    "ws_messages_sent_total" Counter ["app_id"]
        "Messages that were queued for clients, control frames excluded; app_id is empty for handshakes that were \
         refused. Divided by ringverb_socket_sends_total: messages in one send.",
        |scrape, out| scrape.by_app_or_none(out, |row| row.messages_sent.get());
    "socket_received_bytes" Untyped ["app_id"]
        "Bytes of frames that were received on WebSockets.",
        |scrape, out| scrape.by_app(out, |row| row.received_bytes.get());
    "socket_transmitted_bytes" Untyped ["app_id"]
        "Bytes of frames that were queued for WebSockets, the answer to the handshake included; app_id as for the \
         messages.",
        |scrape, out| scrape.by_app_or_none(out, |row| row.queued_bytes.get());
    "socket_discarded_bytes_total" Counter ["app_id"]
        "Of these, bytes that were not sent, because the connection ended.",
        |scrape, out| scrape.by_app_or_none(out, |row| row.discarded_bytes.get());
    "client_events_total" Counter ["app_id"]
        "Client events that were accepted.",
        |scrape, out| scrape.by_app(out, |row| row.client_events.get());
    "published_events_total" Counter ["app_id"]
        "Events that the HTTP API accepted, once for each channel.",
        |scrape, out| scrape.by_app(out, |row| row.published_events.get());
    "http_calls_received_total" Counter ["app_id"]
        "HTTP requests that were answered, by the app that they name; empty for none.",
        |scrape, out| scrape.by_app_or_none(out, |row| row.http_calls.get());
    "http_received_bytes" Untyped ["app_id"]
        "Bytes of these requests, without the framing of chunks.",
        |scrape, out| scrape.by_app_or_none(out, |row| row.http_received_bytes.get());
    "http_transmitted_bytes" Untyped ["app_id"]
        "Bytes of their answers.",
        |scrape, out| scrape.by_app_or_none(out, |row| row.http_transmitted_bytes.get());
    "active_channels" Gauge ["app_id", "channel_type"]
        "Channels with subscribers on this node.",
        |scrape, out| scrape.by_type(out, |row| &row.channels);
    "subscriptions" Gauge ["app_id", "channel_type"]
        "Acknowledged subscriptions of open connections.",
        |scrape, out| scrape.by_type(out, |row| &row.subscribers);
    "channel_subscriptions_total" Counter ["app_id", "channel_type"]
        "Subscriptions that were acknowledged.",
        |scrape, out| scrape.by_type(out, |row| &row.subscriptions);
    "channel_unsubscriptions_total" Counter ["app_id", "channel_type"]
        "Acknowledged subscriptions that ended.",
        |scrape, out| scrape.by_type(out, |row| &row.unsubscriptions);
}
