//! What a metric is: name, kind, labels and meaning.
//!
//! Plain values; does not read a counter. `row.rs` adds what reads the values, the files of topics have the rows, and
//! docs/METRICS.md is generated from them. Names and meanings do not change once they are released, because dashboards
//! and alerts use them. No limits: rows are constants. Cost: 56 bytes of static data for a row, and its texts; no
//! allocation.

/// The exposition writes these as types. `rate()` is meant for counters only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricKind {
    /// Grows only, from 0 at the start of the process.
    Counter,
    Gauge,
    Histogram,
    /// A counter whose name soketi chose without `_total`, which both formats demand of a counter.
    Untyped,
}

#[cfg(test)]
impl MetricKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Untyped => "untyped counter",
        }
    }
}

#[derive(Debug)]
pub(super) struct MetricSpec {
    pub(super) name: &'static str,
    pub(super) kind: MetricKind,
    pub(super) labels: &'static [&'static str],
    /// One sentence in one line, without quotes and backslashes.
    pub(super) help: &'static str,
}
