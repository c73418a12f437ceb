//! One row of the table of metrics: what a metric is (`spec.rs`), and what reads its values.
//!
//! Owns the form in which the files of topics write their rows. Does not read a counter itself. No limits: rows are
//! constants. Cost: 64 bytes of static data for a row, and its texts; no allocation.

use super::exposition::Samples;
use super::scrape::Scrape;
use super::spec::MetricSpec;

/// Units of values in a second: what the sums and bounds of a histogram are divided by.
pub(super) const NS: u64 = 1_000_000_000;
pub(super) const MS: u64 = 1_000;

pub(super) struct Metric {
    /// What documents and tests read.
    pub(super) spec: MetricSpec,
    /// Reads the values and writes a sample of each.
    pub(super) read: fn(&Scrape<'_>, &mut Samples),
}

/// The rows of a topic: name without prefix, kind, labels, meaning, and what reads the values.
macro_rules! metrics {
    ($($name:literal $kind:ident [$($label:literal),*] $help:literal, $read:expr;)+) => {
        pub(super) const METRICS: &[Metric] = &[$(Metric {
            spec: MetricSpec {
                name: concat!("ringverb_", $name),
                kind: MetricKind::$kind,
                labels: &[$($label),*],
                help: $help,
            },
            read: $read,
        }),+];
    };
}
pub(super) use metrics;
