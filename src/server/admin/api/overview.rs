//! What the console and `ringverb top` show at a glance: counters and gauges as `/metrics` reads them, of each core and
//! of all together. The reader makes rates of two answers. Asks no worker. Cost: linear in cores and apps.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::json::{JsonObject, list, numbers, texts};
use crate::app::{App, AppIndex, Apps};
use crate::config::webhook_url;
use crate::counters::Refused;
use crate::metrics::{APPS_COUNTED_MAX, AppMetrics, CoreMetrics, Ended, Histogram};
use crate::server::admin::ScrapeSources;
use crate::text::Counted;
use crate::worker::Shared;
use crate::worker::time::unix_seconds;

/// Apps of a list. More are counted.
const APPS_MAX: usize = APPS_COUNTED_MAX;

/// What is known beside the sources.
pub(super) struct Facts {
    pub(super) resident_bytes: Option<u64>,
    pub(super) why_not_ready: Option<&'static str>,
    pub(super) lost_events: u64,
    pub(super) viewers: usize,
}

pub(super) fn overview(sources: &ScrapeSources, facts: &Facts) -> Vec<u8> {
    let shared = &*sources.shared;
    let apps = shared.current.get().apps.clone();
    let cores = &shared.metrics;
    let total =
        |read: fn(&AppMetrics) -> u64| cores.iter().map(|core| sum(core, read)).sum::<u64>();
    let open = apps.iter().map(|app| u64::from(app.connections_open.load(Ordering::Relaxed)));
    let host = rustix::system::uname();
    let started = sources.started_unix_seconds;
    let object = JsonObject::new()
        .text("version", env!("CARGO_PKG_VERSION"))
        .text("host", &host.nodename().to_string_lossy())
        .value("pid", std::process::id())
        .value("started", started)
        .value("uptime_seconds", unix_seconds().saturating_sub(started))
        .value("clock_ms", shared.clock.now().0)
        .some_text(
            "node",
            shared.redis.as_ref().map(|redis| format!("{:016x}", redis.node.0)).as_deref(),
        )
        .text("kernel", shared.io.name())
        .some_text("not_ready", facts.why_not_ready)
        .some_value("resident_bytes", facts.resident_bytes)
        .some_value("memory_max", shared.config.memory_max)
        .value("apps", apps.iter().len())
        .value("connections", open.sum::<u64>())
        .json("totals", &totals(&total))
        .json(
            "workers",
            &list(cores.iter().enumerate().map(|(core, one)| worker(shared, core, one))),
        )
        .json("publish_to_flush_ns", &histogram(cores.iter().map(|core| &core.publish_to_flush_ns)))
        .json("round_trip_ms", &histogram(cores.iter().map(|core| &core.round_trip_ms)))
        .json("refused", &refused(shared))
        .json("ended", &ended(cores))
        .value("lost_events", facts.lost_events)
        .value("viewers", facts.viewers);
    let webhooks = &sources.webhooks;
    let (queued, settled) = (webhooks.queued.get(), webhooks.settled.get());
    let json = JsonObject::new()
        .value("waiting", queued.saturating_sub(settled))
        .value("delivered", webhooks.delivered.get())
        .value("given_up", webhooks.given_up.get())
        .value("requests", webhooks.requests.get())
        .value("requests_failed", webhooks.requests_failed.get())
        .value("failing_seconds", webhooks.failing_seconds(unix_seconds()))
        .finish();
    object.json("webhooks", &json).finish()
}

fn sum(core: &CoreMetrics, read: fn(&AppMetrics) -> u64) -> u64 {
    core.rows().iter().map(read).sum()
}

fn totals(total: &dyn Fn(fn(&AppMetrics) -> u64) -> u64) -> Vec<u8> {
    JsonObject::new()
        .value("new_connections", total(|row| row.new_connections.get()))
        .value("disconnections", total(|row| row.disconnections.get()))
        .value("messages_sent", total(|row| row.messages_sent.get()))
        .value("messages_received", total(|row| row.messages_received.get()))
        .value("received_bytes", total(|row| row.received_bytes.get()))
        .value(
            "sent_bytes",
            total(|row| row.queued_bytes.get().saturating_sub(row.discarded_bytes.get())),
        )
        .value("client_events", total(|row| row.client_events.get()))
        .value("published_events", total(|row| row.published_events.get()))
        .value("http_calls", total(|row| row.http_calls.get()))
        .value("channels", total(|row| row.channels.iter().map(|one| one.get()).sum()))
        .value("subscriptions", total(|row| row.subscribers.iter().map(|one| one.get()).sum()))
        .finish()
}

fn worker(shared: &Shared, index: usize, core: &CoreMetrics) -> Vec<u8> {
    let ticks = core.tick_ns.read();
    let beats = shared.heartbeats.get(index).map_or(0, |beats| beats.load(Ordering::Relaxed));
    let object = JsonObject::new()
        .value("core", index)
        .value("ticks", ticks.counts.iter().sum::<u64>())
        .value("tick_ns", ticks.sum)
        .json("tick_counts", &numbers(ticks.counts))
        .value("heartbeats", beats)
        .value("sends", core.sends.get())
        .value("messages_sent", sum(core, |row| row.messages_sent.get()))
        .value("messages_received", sum(core, |row| row.messages_received.get()))
        .value("subscriptions", sum(core, |row| row.subscribers.iter().map(|one| one.get()).sum()))
        .value("queue_bytes", core.send_queue_bytes.get())
        .value("queue_bytes_max", core.send_queue_bytes_max.get())
        .value("mail_waiting", core.mail_waiting.get())
        .value("mail_waiting_max", core.mail_waiting_max.get())
        .value("http_connections", core.http_connections.get());
    if shared.redis.is_none() {
        return object.finish();
    }
    let cluster = JsonObject::new()
        .value("is_up", core.cluster.is_up.get() > 0)
        .value("sent", core.cluster.messages_sent.get())
        .value("received", core.cluster.messages_received.get())
        .value("retransmissions", core.cluster.retransmissions.get());
    object.json("cluster", &cluster.finish()).finish()
}

fn histogram<'a>(all: impl Iterator<Item = &'a Histogram>) -> Vec<u8> {
    let mut bounds: &[u64] = &[];
    let mut counts = Vec::new();
    for one in all {
        bounds = one.bounds();
        let read = one.read().counts;
        counts.resize(read.len(), 0);
        counts.iter_mut().zip(read).for_each(|(sum, count)| *sum += count);
    }
    JsonObject::new()
        .json("bounds", &numbers(bounds.iter().copied()))
        .json("counts", &numbers(counts))
        .finish()
}

fn refused(shared: &Shared) -> Vec<u8> {
    let counts = shared.overload.refusals.get();
    let each = Refused::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
    each.fold(JsonObject::new(), |object, (why, count)| object.value(why.name(), count)).finish()
}

fn ended(cores: &[Arc<CoreMetrics>]) -> Vec<u8> {
    let each = Ended::all().map(|how| (how, cores.iter().map(|core| core.ended(how)).sum::<u64>()));
    list(each.filter(|(_, count)| *count > 0).map(|(how, count)| {
        let (by, why) = how.names();
        JsonObject::new().text("by", by).text("why", why).value("count", count).finish()
    }))
}

/// All apps with their traffic and their settings. Secrets are left out.
pub(super) fn traffic(shared: &Shared, apps: &Apps) -> Vec<u8> {
    let indexes = (0..u16::MAX).map(AppIndex);
    let each = apps.iter().zip(indexes).take(APPS_MAX);
    let left_out = apps.iter().len().saturating_sub(APPS_MAX);
    JsonObject::new()
        .value("left_out", left_out)
        .json("apps", &list(each.map(|(one, index)| app(shared, one, index))))
        .finish()
}

fn app(shared: &Shared, app: &App, index: AppIndex) -> Vec<u8> {
    let total = |read: fn(&AppMetrics) -> u64| {
        shared.metrics.iter().map(|core| read(core.app(index))).sum::<u64>()
    };
    JsonObject::new()
        .text("id", &app.id)
        .text("key", &app.key)
        .value("enabled", app.enabled)
        .value("connections", app.connections_open.load(Ordering::Relaxed))
        .json("totals", &totals(&total))
        .json("settings", &settings(app))
        .finish()
}

/// Name and value of each setting, as a person reads them.
fn settings(app: &App) -> Vec<u8> {
    let limit = |value: Option<u64>| value.map_or("no limit".to_owned(), |value| value.to_string());
    let small = |value: Option<u32>| limit(value.map(Into::into));
    let seconds = |value: u32| Counted(value.into(), "second").to_string();
    let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let webhooks: Vec<String> = app.webhooks.iter().map(webhook).collect();
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
        ("subscription counts", yes(app.subscription_count)),
        (
            "must authorize within",
            app.authorize_within_seconds.map_or("no limit".to_owned(), seconds),
        ),
        ("webhooks", if webhooks.is_empty() { "none".to_owned() } else { webhooks.join("; ") }),
    ];
    list(rows.iter().map(|(name, value)| texts([*name, value.as_str()])))
}

/// Without userinfo and query, which may have secrets.
fn webhook(webhook: &crate::app::Webhook) -> String {
    let kinds: Vec<&str> = webhook.kinds.iter().map(|kind| kind.name()).collect();
    format!("{} ({})", webhook_url::shown(&webhook.url), kinds.join(", "))
}

/// The app that a request names, or the first one.
pub(super) fn find_app(apps: &Apps, id: Option<&str>) -> Option<AppIndex> {
    match id {
        Some(id) => apps.by_id(id),
        None => Some(AppIndex(0)),
    }
}
