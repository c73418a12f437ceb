//! What the console and `ringverb top` show at a glance: counters and gauges as `/metrics` reads them, of each core and
//! of all together.
//!
//! Owns no state. Reads atomics that workers write, so it asks no worker and never waits for one. Values of one answer
//! may be some microseconds apart. The reader makes rates of two answers. Output: one JSON object. Cost: linear in
//! cores and apps, some atomic reads for each.
//! Limit: `APPS_MAX` apps.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::event::without_nulls;
use crate::app::{App, AppIndex, Apps};
use crate::config::webhook_url;
use crate::counters::Refused;
use crate::metrics::{APPS_COUNTED_MAX, AppMetrics, ConnectionEnd, CoreMetrics, Histogram};
use crate::server::admin::ScrapeSources;
use crate::text::Counted;
use crate::worker::Shared;
use crate::worker::time::{unix_ms, unix_seconds};

/// Apps beyond these have no counters of their own. They are counted in `left_out`.
const APPS_MAX: usize = APPS_COUNTED_MAX;

/// What the admin listener knows and the workers do not publish.
pub(super) struct OverviewFacts {
    pub(super) resident_bytes: Option<u64>,
    pub(super) why_not_ready: Option<&'static str>,
    pub(super) lost_events: u64,
    pub(super) viewers: usize,
}

pub(super) fn overview(sources: &ScrapeSources, facts: &OverviewFacts) -> Value {
    let shared = &*sources.shared;
    let apps = shared.current_configuration.get().apps.clone();
    let cores = &shared.metrics;
    let total =
        |read: fn(&AppMetrics) -> u64| cores.iter().map(|core| sum(core, read)).sum::<u64>();
    let open = apps.iter().map(|app| u64::from(app.connections_open.load(Ordering::Relaxed)));
    let started = sources.started_unix_seconds;
    let webhooks = &sources.webhooks;
    let (queued, settled) = (webhooks.queued.get(), webhooks.settled.get());
    let workers = cores.iter().enumerate().map(|(core, one)| worker_json(shared, core, one));
    without_nulls(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "host": host(),
        "pid": std::process::id(),
        "started": started,
        "uptime_seconds": unix_seconds().saturating_sub(started),
        "clock_ms": shared.clock.now().0,
        "node": shared.redis.as_ref().map(|redis| format!("{:016x}", redis.node.0)),
        "kernel": shared.kernel_interface.name(),
        "not_ready": facts.why_not_ready,
        "resident_bytes": facts.resident_bytes,
        "memory_max": shared.config.memory_max,
        "apps": apps.iter().len(),
        "connections": open.sum::<u64>(),
        "totals": totals_json(&total),
        "workers": workers.collect::<Vec<_>>(),
        "publish_to_flush_ns": histogram_json(cores.iter().map(|core| &core.publish_to_flush_ns)),
        "round_trip_ms": histogram_json(cores.iter().map(|core| &core.round_trip_ms)),
        "refused": refusals_json(shared),
        "ended": ends_json(cores),
        "lost_events": facts.lost_events,
        "viewers": facts.viewers,
        "webhooks": {
            "waiting": queued.saturating_sub(settled),
            "oldest_ms": webhooks.queue_age_ms(unix_ms()),
            "delivered": webhooks.delivered.get(),
            "given_up": webhooks.given_up.get(),
            "requests": webhooks.requests.get(),
            "requests_failed": webhooks.requests_failed.get(),
            "failing_seconds": webhooks.failing_seconds(unix_seconds()),
        },
    }))
}

/// The name that `uname` reports: in a container, the container's.
pub(super) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn sum(core: &CoreMetrics, read: fn(&AppMetrics) -> u64) -> u64 {
    core.rows().iter().map(read).sum()
}

fn totals_json(total: &dyn Fn(fn(&AppMetrics) -> u64) -> u64) -> Value {
    json!({
        "new_connections": total(|row| row.new_connections.get()),
        "disconnections": total(|row| row.disconnections.get()),
        "messages_sent": total(|row| row.messages_sent.get()),
        "messages_received": total(|row| row.messages_received.get()),
        "received_bytes": total(|row| row.received_bytes.get()),
        "sent_bytes":
            total(|row| row.queued_bytes.get().saturating_sub(row.discarded_bytes.get())),
        "client_events": total(|row| row.client_events.get()),
        "published_events": total(|row| row.published_events.get()),
        "http_calls": total(|row| row.http_calls.get()),
        "channels": total(|row| row.channels.iter().map(|one| one.get()).sum()),
        "subscriptions": total(|row| row.subscribers.iter().map(|one| one.get()).sum()),
    })
}

fn worker_json(shared: &Shared, index: usize, core: &CoreMetrics) -> Value {
    let ticks = core.tick_ns().read();
    let beats = shared.heartbeats.get(index).map_or(0, |beats| beats.load(Ordering::Relaxed));
    let cluster = shared.redis.is_some().then(|| {
        json!({
            "is_up": core.cluster.is_up.get() > 0,
            "sent": core.cluster.messages_sent.get(),
            "received": core.cluster.messages_received.get(),
            "retransmissions": core.cluster.retransmissions.get(),
        })
    });
    without_nulls(json!({
        "core": index,
        "ticks": ticks.counts.iter().sum::<u64>(),
        "tick_ns": ticks.sum,
        "tick_counts": ticks.counts,
        "heartbeats": beats,
        "sends": core.sends.get(),
        "messages_sent": sum(core, |row| row.messages_sent.get()),
        "messages_received": sum(core, |row| row.messages_received.get()),
        "subscriptions": sum(core, |row| row.subscribers.iter().map(|one| one.get()).sum()),
        "queue_bytes": core.send_queue_bytes.get(),
        "queue_bytes_max": core.send_queue_bytes.peak(),
        "mail_waiting": core.mail_waiting.get(),
        "mail_waiting_max": core.mail_waiting.peak(),
        "http_connections": core.http_connections.get(),
        "cluster": cluster,
    }))
}

fn histogram_json<'a>(all: impl Iterator<Item = &'a Histogram>) -> Value {
    let mut bounds: &[u64] = &[];
    let mut counts = Vec::new();
    for one in all {
        bounds = one.bounds();
        let read = one.read().counts;
        counts.resize(read.len(), 0);
        counts.iter_mut().zip(read).for_each(|(sum, count)| *sum += count);
    }
    json!({ "bounds": bounds, "counts": counts })
}

fn refusals_json(shared: &Shared) -> Value {
    let counts = shared.overload.refusals.get();
    let each = Refused::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
    each.map(|(why, count)| (why.name().to_owned(), json!(count))).collect()
}

fn ends_json(cores: &[Arc<CoreMetrics>]) -> Value {
    let each =
        ConnectionEnd::all().map(|how| (how, cores.iter().map(|core| core.ends(how)).sum::<u64>()));
    let each = each.filter(|(_, count)| *count > 0).map(|(how, count)| {
        let (by, why) = how.names();
        json!({ "by": by, "why": why, "count": count })
    });
    each.collect()
}

/// Secrets are left out, so that an operator may show the answer to others.
pub(super) fn traffic(shared: &Shared, apps: &Apps) -> Value {
    let app_indexes = (0..u16::MAX).map(AppIndex);
    let each = apps.iter().zip(app_indexes).take(APPS_MAX);
    let left_out = apps.iter().len().saturating_sub(APPS_MAX);
    let each: Vec<_> = each.map(|(one, index)| app_json(shared, one, index)).collect();
    json!({ "left_out": left_out, "apps": each })
}

fn app_json(shared: &Shared, app: &App, index: AppIndex) -> Value {
    // Each core has as many rows. An app without one has no totals, because the shared row counts other apps, too.
    let rows: Option<Vec<_>> = shared.metrics.iter().map(|core| core.own_row(index)).collect();
    let totals = rows.map(|rows| {
        totals_json(&|read: fn(&AppMetrics) -> u64| rows.iter().map(|row| read(row)).sum::<u64>())
    });
    json!({
        "id": app.id,
        "key": app.key,
        "enabled": app.is_enabled,
        "connections": app.connections_open.load(Ordering::Relaxed),
        "totals": totals,
        "settings": settings_json(app),
    })
}

/// The console shows these names and values as they are.
fn settings_json(app: &App) -> Value {
    let limit = |value: Option<u64>| value.map_or("no limit".to_owned(), |value| value.to_string());
    let small = |value: Option<u32>| limit(value.map(Into::into));
    let seconds = |value: u32| Counted(value.into(), "second").to_string();
    let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let webhooks: Vec<String> = app.webhooks.iter().map(webhook_text).collect();
    let rate = app.rate_limit.map_or("no limit".to_owned(), |rate| {
        let end = if rate.terminate_on_limit { ", then closed" } else { "" };
        format!("{} in {}{end}", rate.attempts_max, seconds(rate.decay_seconds))
    });
    let rows = [
        ("secret", "set, not shown".to_owned()),
        ("connections, at most", small(app.connections_max)),
        ("ping interval", seconds(app.ping_interval_seconds)),
        ("activity timeout", seconds(app.activity_timeout_seconds)),
        ("pong timeout", seconds(app.pong_timeout_seconds)),
        ("message size, at most", app.message_size_max.to_string()),
        ("messages of a connection", rate),
        ("client events from", format!("{:?}", app.client_events_from).to_lowercase()),
        ("client events of a connection in a second", small(app.client_events_per_second_max)),
        ("allowed origins", app.allowed_origins.join(", ")),
        ("channels of a connection, at most", app.channels_per_connection_max.to_string()),
        ("members of a presence channel, at most", small(app.presence_members_max)),
        ("publishes in a second, at most", small(app.publishes_per_second_max)),
        ("event payload, at most", small(app.event_payload_max)),
        ("cached events live for", seconds(app.cache_ttl_seconds)),
        ("subscription counts", yes(app.sends_subscription_count)),
        (
            "must authorize within",
            app.authorize_within_seconds.map_or("no limit".to_owned(), seconds),
        ),
        ("webhooks", if webhooks.is_empty() { "none".to_owned() } else { webhooks.join("; ") }),
    ];
    json!(rows)
}

/// Without userinfo and query, which may have secrets.
fn webhook_text(webhook: &crate::app::Webhook) -> String {
    let kinds: Vec<&str> = webhook.kinds.iter().map(|kind| kind.name()).collect();
    format!("{} ({})", webhook_url::shown(&webhook.url), kinds.join(", "))
}

/// `id` is optional, because most servers have one app: without it the first one is meant.
pub(super) fn find_app(apps: &Apps, id: Option<&str>) -> Option<AppIndex> {
    match id {
        Some(id) => apps.by_id(id),
        None => Some(AppIndex(0)),
    }
}
