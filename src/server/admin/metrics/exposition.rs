//! Metrics as text: the Prometheus format 0.0.4 and OpenMetrics 1.0.0. PURE. Owns the text while it grows.
//!
//! An encoder of our own. The crate `prometheus-client` writes OpenMetrics only, adds `_total` to the name of every
//! counter, and so cannot export names that dashboards of soketi and sockudo know, such as `socket_received_bytes`. It
//! also wants each value in an object of its own. Here the table reads values where they are. The formats differ in how
//! a counter's family is named, in the word for an unknown type, and in the last line.
//! No limits: the text is as long as the samples that the table writes. Cost: linear in the samples, 16 KiB allocated
//! at first, one allocation for each bound of a histogram.

use std::fmt::Write;

use super::spec::{MetricKind, MetricSpec};
use crate::metrics::HistogramCounts;

/// Chosen for each scrape by its `Accept` (`of_accept`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server::admin) enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// What `Accept` asks for. Prometheus lists the formats that it knows, with weights; OpenMetrics is chosen if it is
    /// among them with a weight that is not lower than that of plain text.
    pub(in crate::server::admin) fn of_accept(accept: &str) -> Self {
        let weight = |wanted: &str| {
            let entries = accept.split(',').filter(|entry| {
                entry
                    .split(';')
                    .next()
                    .is_some_and(|media| media.trim().eq_ignore_ascii_case(wanted))
            });
            entries.map(accept_weight).max()
        };
        match (weight("application/openmetrics-text"), weight("text/plain")) {
            (Some(open), text) if open > 0 && text.is_none_or(|text| open >= text) => {
                Self::OpenMetrics
            }
            _ => Self::Prometheus,
        }
    }
}

/// The weight of an entry of `Accept` in thousandths (RFC 9110 section 12.4.2); 1,000 without one.
fn accept_weight(entry: &str) -> u32 {
    let mut parameters = entry.split(';').skip(1).map(str::trim);
    let weight = parameters.find_map(|parameter| parameter.strip_prefix("q="));
    let Some(weight) = weight.and_then(|text| text.parse::<f64>().ok()) else { return 1_000 };
    // A weight is 0 to 1, so the product fits.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000")]
    let thousandths = (weight.clamp(0.0, 1.0) * 1_000.0) as u32;
    thousandths
}

/// The samples of one metric must follow each other: both formats demand it of a family.
pub(super) struct Samples {
    text: String,
    format: Format,
    spec: &'static MetricSpec,
}

impl Samples {
    pub(super) fn new(format: Format, first: &'static MetricSpec) -> Self {
        Self { text: String::with_capacity(16 * 1024), format, spec: first }
    }

    /// To be called before the first sample of a metric. Also writes its help and type.
    pub(super) fn begin(&mut self, spec: &'static MetricSpec) {
        self.spec = spec;
        let is_open = self.format == Format::OpenMetrics;
        let family = match spec.kind {
            // In OpenMetrics a counter is a family, whose sample has the suffix.
            MetricKind::Counter if is_open => spec.name.trim_end_matches("_total"),
            _ => spec.name,
        };
        let kind = match spec.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::Untyped if is_open => "unknown",
            MetricKind::Untyped => "untyped",
        };
        // Writing to a String cannot fail. Help is text of this program without line breaks, quotes or backslashes.
        writeln!(self.text, "# HELP {family} {}\n# TYPE {family} {kind}", spec.help).ok();
    }

    /// `labels` are the values of the labels of the metric, in the order of `MetricSpec::labels`.
    pub(super) fn sample(&mut self, labels: &[&str], value: impl std::fmt::Display) {
        self.write_line("", labels, None, value);
    }

    /// A histogram whose values are in units of `1 / per_base_unit` of the base unit.
    pub(super) fn histogram(
        &mut self,
        labels: &[&str],
        bounds: &[u64],
        observed: &HistogramCounts,
        per_base_unit: u64,
    ) {
        let mut count = 0;
        for (bound, more) in bounds.iter().zip(&observed.counts) {
            count += more;
            let bound = decimal(*bound, per_base_unit);
            self.write_line("_bucket", labels, Some(&bound), count);
        }
        count += observed.counts.get(bounds.len()).copied().unwrap_or_default();
        self.write_line("_bucket", labels, Some("+Inf"), count);
        self.write_line("_sum", labels, None, decimal(observed.sum, per_base_unit));
        self.write_line("_count", labels, None, count);
    }

    fn write_line(
        &mut self,
        suffix: &str,
        labels: &[&str],
        bound: Option<&str>,
        value: impl std::fmt::Display,
    ) {
        debug_assert_eq!(labels.len(), self.spec.labels.len(), "{}", self.spec.name);
        let (text, spec) = (&mut self.text, self.spec);
        text.push_str(spec.name);
        text.push_str(suffix);
        let named = spec.labels.iter().copied().zip(labels.iter().copied());
        let named = named.chain(bound.map(|bound| ("le", bound)));
        let mut is_first = true;
        for (name, value) in named {
            text.push(if std::mem::take(&mut is_first) { '{' } else { ',' });
            text.push_str(name);
            text.push_str("=\"");
            write_escaped(value, text);
            text.push('"');
        }
        if !is_first {
            text.push('}');
        }
        // Writing to a String cannot fail.
        writeln!(text, " {value}").ok();
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// A label's value: the three characters that end or break it are escaped. Others may stand there as they are.
fn write_escaped(value: &str, out: &mut String) {
    for char in value.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            char => out.push(char),
        }
    }
}

/// `value / per_unit` as a decimal number, exactly: `per_unit` is a power of ten.
fn decimal(value: u64, per_unit: u64) -> String {
    let (whole, rest) = (value / per_unit, value % per_unit);
    let width = per_unit.ilog10() as usize;
    if rest == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{rest:0width$}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    static COUNTER: MetricSpec = MetricSpec {
        name: "x_total",
        kind: MetricKind::Counter,
        labels: &["app_id", "type"],
        help: "Things.",
    };
    static HISTOGRAM: MetricSpec =
        MetricSpec { name: "x_seconds", kind: MetricKind::Histogram, labels: &[], help: "Times." };

    fn written(
        format: Format,
        spec: &'static MetricSpec,
        write: impl FnOnce(&mut Samples),
    ) -> String {
        let mut samples = Samples::new(format, spec);
        samples.begin(spec);
        write(&mut samples);
        samples.finish()
    }

    #[test]
    fn a_counter_is_named_as_each_format_wants_it_and_labels_are_escaped() {
        let write = |samples: &mut Samples| samples.sample(&["a\"b\\c\nd", "é"], 7);
        let sample = "x_total{app_id=\"a\\\"b\\\\c\\nd\",type=\"é\"} 7\n";
        assert_eq!(
            written(Format::Prometheus, &COUNTER, write),
            format!("# HELP x_total Things.\n# TYPE x_total counter\n{sample}")
        );
        assert_eq!(
            written(Format::OpenMetrics, &COUNTER, write),
            format!("# HELP x Things.\n# TYPE x counter\n{sample}# EOF\n")
        );
    }

    #[test]
    fn buckets_are_sums_and_times_are_exact() {
        let observed = HistogramCounts { counts: vec![1, 0, 2], sum: 2_500_000_001 };
        let text = written(Format::Prometheus, &HISTOGRAM, |samples| {
            samples.histogram(&[], &[25_000, 1_000_000_000], &observed, 1_000_000_000);
        });
        let expected = "# HELP x_seconds Times.\n# TYPE x_seconds histogram\n\
            x_seconds_bucket{le=\"0.000025\"} 1\nx_seconds_bucket{le=\"1\"} 1\nx_seconds_bucket{le=\"+Inf\"} 3\n\
            x_seconds_sum 2.500000001\nx_seconds_count 3\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_format_follows_accept() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/plain, application/openmetrics-text;q=0.9", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("text/html;q=x", Format::Prometheus),
        ] {
            assert_eq!(Format::of_accept(accept), format, "{accept}");
        }
    }
}
