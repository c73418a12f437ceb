//! What a scrape reads: the values of all cores, summed by app or listed by core.
//!
//! Owns no value: reads what workers have published and asks them nothing. Does not name the metrics (`metrics/mod.rs`)
//! and does not write text.
//! Limit: the rows of `CoreMetrics`. Cost: linear in cores and apps, one atomic read for each value.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::exposition::Samples;
use crate::app::{Apps, WebhookKind};
use crate::counters::{DepthGauge, Refused, WEBHOOK_KINDS, WebhookCounters};
use crate::event_log::ViewerCounters;
use crate::mailbox::Doorbell;
use crate::metrics::{
    AppMetrics, CHANNEL_TYPES, ClusterMetrics, CoreMetrics, Histogram, HistogramCounts, Tally,
};
use crate::operator_requests::OperatorQueue;
use crate::running_configuration::UnappliedConfigurations;
use crate::server::certificates::ValidUntil;
use crate::worker::Shared;

/// The label of all apps that have no row of their own. No app can have this id: ids are parts of URLs.
const OTHER_APPS: &str = "(other)";

pub(in crate::server) struct ScrapeSources {
    pub(in crate::server) shared: Arc<Shared>,
    /// The admin API wakes sleeping workers with them when it asks.
    pub(in crate::server) doorbells: Arc<[Doorbell]>,
    pub(in crate::server) webhooks: Arc<WebhookCounters>,
    /// How long the take-over by this process took, if it has taken over.
    pub(in crate::server) takeover: Option<Duration>,
    /// `None`: no port is TLS. The watch of the certificates updates the value.
    pub(in crate::server) certificates_valid_until: Option<Arc<ValidUntil>>,
    pub(in crate::server) started_unix_seconds: u64,
}

pub(in crate::server::admin) struct Scrape<'a> {
    pub(in crate::server::admin) sources: &'a ScrapeSources,
    /// All apps that this process has had. A removed one keeps its row, so that no counter goes down.
    pub(in crate::server::admin) apps: &'a Apps,
    pub(in crate::server::admin) resident_bytes: Option<u64>,
    pub(in crate::server::admin) unix_seconds: u64,
    pub(in crate::server::admin) unix_ms: u64,
    pub(in crate::server::admin) is_ready: bool,
}

impl Scrape<'_> {
    pub(super) fn cores(&self) -> impl Iterator<Item = &CoreMetrics> {
        self.sources.shared.metrics.iter().map(|core| &**core)
    }

    /// Ids of the apps with rows of their own, by row; then the row of all others, if there are any.
    fn app_labels(&self) -> impl Iterator<Item = (usize, &str)> {
        let rows = self.rows_of_apps();
        let own = self.apps.iter().take(rows).map(|app| app.id.as_str()).enumerate();
        let has_others = self.apps.iter().len() > rows;
        own.chain(has_others.then_some((rows, OTHER_APPS)))
    }

    /// Apps that have a row of their own; see `CoreMetrics::new`.
    fn rows_of_apps(&self) -> usize {
        self.cores().next().map_or(0, |core| core.rows().len().saturating_sub(2))
    }

    fn sum(&self, row: usize, read: impl Fn(&AppMetrics) -> u64) -> u64 {
        self.cores().filter_map(|core| core.rows().get(row)).map(read).sum()
    }

    pub(super) fn by_app(&self, out: &mut Samples, read: impl Fn(&AppMetrics) -> u64) {
        for (row, app) in self.app_labels() {
            out.sample(&[app], self.sum(row, &read));
        }
    }

    /// The last sample has an empty label: it counts what belongs to no app.
    pub(super) fn by_app_or_none(&self, out: &mut Samples, read: impl Fn(&AppMetrics) -> u64) {
        self.by_app(out, &read);
        let none = self.cores().filter_map(|core| core.rows().last()).map(read).sum::<u64>();
        out.sample(&[""], none);
    }

    pub(super) fn by_type(
        &self,
        out: &mut Samples,
        read: impl Fn(&AppMetrics) -> &[Tally; CHANNEL_TYPES.len()],
    ) {
        for (row, app) in self.app_labels() {
            for (kind, name) in CHANNEL_TYPES.iter().enumerate() {
                out.sample(&[app, name], self.sum(row, |row| read(row)[kind].get()));
            }
        }
    }

    /// The apps count their own open connections, because they may be limited.
    pub(super) fn connections(&self, out: &mut Samples) {
        let (apps, rows) = (self.apps, self.rows_of_apps());
        let open = |app: &crate::app::App| app.connections_open.load(Ordering::Relaxed);
        for app in apps.iter().take(rows) {
            out.sample(&[&app.id], open(app));
        }
        if apps.iter().len() > rows {
            let others = apps.iter().skip(rows).map(|app| u64::from(open(app)));
            out.sample(&[OTHER_APPS], others.sum::<u64>());
        }
    }

    pub(super) fn by_core(&self, out: &mut Samples, read: impl Fn(&CoreMetrics) -> u64) {
        let mut number = itoa::Buffer::new();
        for (index, core) in self.cores().enumerate() {
            out.sample(&[number.format(index)], read(core));
        }
    }

    pub(super) fn by_operator_queue(
        &self,
        out: &mut Samples,
        read: impl Fn(&OperatorQueue) -> u64,
    ) {
        let mut number = itoa::Buffer::new();
        for (index, queue) in self.sources.shared.operator_queues.iter().enumerate() {
            out.sample(&[number.format(index)], read(queue));
        }
    }

    pub(super) fn by_session(&self, out: &mut Samples, read: impl Fn(&ClusterMetrics) -> u64) {
        if self.has_cluster() {
            self.by_core(out, |core| read(&core.cluster));
        }
    }

    /// In seconds since 1970, as the watch of the certificates has read them last.
    pub(super) fn certificates(&self, out: &mut Samples) {
        let valid =
            self.sources.certificates_valid_until.iter().flat_map(|valid_until| valid_until.get());
        valid.for_each(|(file, until)| out.sample(&[&*file], until));
    }

    pub(super) fn console_events_lost(&self) -> u64 {
        self.sources.shared.event_log.lost_count()
    }

    /// Events that wait for the console, in the feed of each worker and of the senders of webhooks.
    pub(super) fn by_console_feed(&self, out: &mut Samples, read: impl Fn(&DepthGauge) -> u64) {
        let mut number = itoa::Buffer::new();
        let depths = self.sources.shared.event_log.depths();
        let workers = depths.len().saturating_sub(1);
        for (index, depth) in depths.enumerate() {
            let feed = if index < workers { number.format(index) } else { "webhooks" };
            out.sample(&[feed], read(depth));
        }
    }

    pub(super) fn unapplied(&self) -> &UnappliedConfigurations {
        &self.sources.shared.unapplied_configurations
    }

    pub(super) fn viewers(&self) -> &ViewerCounters {
        &self.sources.shared.event_log.viewers
    }

    pub(super) fn has_cluster(&self) -> bool {
        self.sources.shared.redis.is_some()
    }

    pub(super) fn heartbeats(&self, out: &mut Samples) {
        let mut number = itoa::Buffer::new();
        for (index, beats) in self.sources.shared.heartbeats.iter().enumerate() {
            out.sample(&[number.format(index)], beats.load(Ordering::Relaxed));
        }
    }

    pub(super) fn histogram_by_core(
        &self,
        out: &mut Samples,
        read: impl Fn(&CoreMetrics) -> &Histogram,
        per_base_unit: u64,
    ) {
        let mut number = itoa::Buffer::new();
        for (index, core) in self.cores().enumerate() {
            let histogram = read(core);
            let labels = [number.format(index)];
            out.histogram(&labels, histogram.bounds(), &histogram.read(), per_base_unit);
        }
    }

    /// The sum of all cores, which have the same bounds.
    pub(super) fn histogram(
        &self,
        out: &mut Samples,
        read: impl Fn(&CoreMetrics) -> &Histogram,
        per_base_unit: u64,
    ) {
        let mut all = HistogramCounts::default();
        let mut bounds: &[u64] = &[];
        for histogram in self.cores().map(read) {
            bounds = histogram.bounds();
            let one = histogram.read();
            all.counts.resize(one.counts.len(), 0);
            all.counts.iter_mut().zip(&one.counts).for_each(|(sum, count)| *sum += count);
            all.sum += one.sum;
        }
        out.histogram(&[], bounds, &all, per_base_unit);
    }

    pub(super) fn refusals(&self, out: &mut Samples, which: &[Refused]) {
        let counts = self.sources.shared.overload.refusals.get();
        for why in which {
            out.sample(&[why.name()], counts[*why as usize]);
        }
    }

    pub(super) fn webhook(&self, out: &mut Samples, read: impl Fn(&WebhookCounters) -> u64) {
        out.sample(&[], read(&self.sources.webhooks));
    }

    pub(super) fn by_webhook_ring(&self, out: &mut Samples, read: impl Fn(&DepthGauge) -> u64) {
        let mut number = itoa::Buffer::new();
        for (index, ring) in self.sources.webhooks.rings().iter().enumerate() {
            out.sample(&[number.format(index)], read(ring));
        }
    }

    pub(super) fn webhook_by_kind(
        &self,
        out: &mut Samples,
        read: impl Fn(&WebhookCounters) -> [u64; WEBHOOK_KINDS],
    ) {
        let counts = read(&self.sources.webhooks);
        for (kind, count) in WebhookKind::ALL.into_iter().zip(counts) {
            out.sample(&[kind.name()], count);
        }
    }
}
