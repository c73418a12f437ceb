//! The table of metrics, by topic: `connections.rs`, `cores.rs`, `cluster.rs`, `webhooks.rs`, `process.rs`.
//!
//! A row has name, type, labels, meaning, and what reads the value (`row.rs`). `/metrics` and docs/METRICS.md are made
//! from the rows, and tests compare dashboards and alerts with them. Names are a contract: they do not change. Those
//! that soketi and sockudo export have the same suffixes, so that their dashboards work with the prefix `ringverb_`.
//! `exposition.rs` writes the text, `scrape.rs` reads the values of all cores. Owns the order of the topics, and no
//! value. Does not run on a worker. Limit: labels with values of peers do not exist; those with apps are bounded by
//! `metrics::APPS_COUNTED_MAX`. Cost: for a scrape, linear in samples (apps and cores); no worker is asked, so none
//! does a step for it.

mod cluster;
mod connections;
mod cores;
mod exposition;
mod process;
mod row;
mod scrape;
mod spec;
mod webhooks;

pub(super) use exposition::Format;
pub(super) use scrape::Scrape;
pub(in crate::server) use scrape::ScrapeSources;

use exposition::Samples;
use row::Metric;

/// Every metric, in the order of the exposition.
const TOPICS: [&[Metric]; 5] =
    [connections::METRICS, cores::METRICS, cluster::METRICS, webhooks::METRICS, process::METRICS];

fn metrics() -> impl Iterator<Item = &'static Metric> {
    TOPICS.into_iter().flatten()
}

pub(super) fn render(scrape: &Scrape<'_>, format: Format) -> String {
    let mut samples = Samples::new(format, &connections::METRICS[0].spec);
    for metric in metrics() {
        samples.begin(&metric.spec);
        (metric.read)(scrape, &mut samples);
    }
    samples.finish()
}

#[cfg(test)]
mod tests;
