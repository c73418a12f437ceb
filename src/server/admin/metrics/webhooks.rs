//! Metrics of webhooks: events that wait, requests to endpoints, and losses by kind of event.
//!
//! Owns the rows of this topic (`row.rs`), and no value: each row reads the counters of a scrape. Does not name an
//! endpoint, because its address may have a secret. Limit: labels are cores and kinds of events.
//! Cost: for a scrape, linear in cores and endpoints.

use super::row::{Metric, metrics};
use super::spec::{MetricKind, MetricSpec};
use crate::counters::{DepthGauge, WebhookCounters};

metrics! {
    "webhook_queue_events" Gauge []
        "Events that wait for endpoints of webhooks, those in requests under way included.",
        |scrape, out| scrape.webhook(out, WebhookCounters::waiting);
    "webhook_queue_peak_events" Gauge []
        "Most events that have waited for endpoints of webhooks at a time, since the start. \
         RINGVERB_WEBHOOK_QUEUE_MAX is the limit of one class of events of one endpoint.",
        |scrape, out| scrape.webhook(out, WebhookCounters::waiting_peak);
    "webhook_queue_age_seconds" Gauge []
        "Age of the oldest event that waits for an endpoint of webhooks, in a request under way included.",
        |scrape, out| out.sample(&[], scrape.sources.webhooks.queue_age_ms(scrape.unix_ms) as f64 / 1_000.0);
    "webhook_ring_events" Gauge ["core"]
        "Events for webhooks that the core has left for the thread that sorts them by endpoint. At most 8,192 to \
         65,536.",
        |scrape, out| scrape.by_webhook_ring(out, DepthGauge::depth);
    "webhook_ring_peak_events" Gauge ["core"]
        "Most events for webhooks that have waited in the ring of the core at a time, since the start.",
        |scrape, out| scrape.by_webhook_ring(out, DepthGauge::peak);
    "webhook_leaves_delayed" Gauge []
        "Leaves whose debounce time is not over. At most 100,000.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.leaves_delayed.depth());
    "webhook_leaves_delayed_peak" Gauge []
        "Most leaves that were delayed at a time, since the start.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.leaves_delayed.peak());
    "webhook_requests_total" Counter []
        "Requests to endpoints of webhooks, attempts that were repeated included.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.requests.get());
    "webhook_requests_failed_total" Counter []
        "Of these, requests that were answered with anything but 2xx, or not at all.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.requests_failed.get());
    "webhook_events_delivered_total" Counter []
        "Events in requests that were answered with 2xx.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.delivered.get());
    "webhook_events_dropped_total" Counter ["kind"]
        "Events that found a queue full.",
        |scrape, out| scrape.webhook_by_kind(out, |webhooks| {
            let (workers, queues) = (webhooks.dropped_by_workers_of.get(), webhooks.dropped_at_queues_of.get());
            std::array::from_fn(|kind| workers[kind] + queues[kind])
        });
    "webhook_events_given_up_total" Counter ["kind"]
        "Events that an endpoint refused, and that are not tried again.",
        |scrape, out| scrape.webhook_by_kind(out, |webhooks| webhooks.given_up_of.get());
    "webhook_leaves_released_early_total" Counter []
        "Leaves that were sent before the debounce time was over, because too many were delayed. A rejoin did not \
         cancel them.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.leaves_released_early.get());
    "webhook_failing_seconds" Gauge []
        "Time for which an endpoint has accepted nothing, although it was tried: the longest of all endpoints.",
        |scrape, out| scrape.webhook(out, |webhooks| webhooks.failing_seconds(scrape.unix_seconds));
}
