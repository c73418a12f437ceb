//! docs/METRICS.md is the table of metrics, and dashboards and alerts name only metrics that exist.
//!
//! Makes the document from the rows of all topics, and compares. Owns no state. Limit: the files that it names.

use std::collections::BTreeSet;

use super::spec::MetricKind;
use super::*;
use crate::counters::Refused;

/// docs/METRICS.md.
fn document() -> String {
    let mut text = String::from(
        "# Metrics

`GET /metrics` of the [admin listener](OPERATIONS.md#probes-and-the-admin-listener) answers in the Prometheus text
format, or in OpenMetrics if `Accept` asks for it. This file is generated from the tables in
`src/server/admin/metrics`; a test compares them. Names and meanings do not change.

- Counters begin at zero with each process: a take-over and SIGUSR2 are a reset, as a restart is.
- `app_id` is the id of an app. The apps of the configuration at the start and the first 64 that are added later have
  samples of their own, at most 1,000 apps. All others are counted together as `(other)`.
- `channel_type` is `public`, `private` (encrypted ones included), `presence` or `user`. `core` is the number of a
  worker.
- Each value is exact when it is read. Two values of one scrape may be of different moments, some microseconds apart.
- An untyped counter has a name that dashboards of soketi and sockudo know, without the suffix that a counter must
  have. `rate()` works with it.

| metric | type | labels | meaning |
|---|---|---|---|
",
    );
    for Metric { spec, .. } in metrics() {
        let labels: Vec<String> = spec.labels.iter().map(|label| format!("`{label}`")).collect();
        text.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            spec.name,
            spec.kind.name(),
            labels.join(", "),
            spec.help
        ));
    }
    let reasons: Vec<String> = Refused::ALL.map(|why| format!("`{}`", why.name())).to_vec();
    text.push_str(&format!(
        "
`reason` of `ringverb_disconnections_by_cause_total` is, with `by`: `client`/`closed` (the client sent a close frame),
`network`/`lost` (the connection ended without one), `server`/`shutdown`, or `server` and a reason of
`ringverb_refusals_total`:
{}.
",
        wrap_words(&reasons)
    ));
    text
}

/// Words separated by commas, in lines of at most 120 columns.
fn wrap_words(words: &[String]) -> String {
    let (mut text, mut column) = (String::new(), 0);
    for (number, word) in words.iter().enumerate() {
        let separator = if number == 0 { "" } else { ", " };
        if column + separator.len() + word.len() > 117 {
            text.push_str(",\n");
            column = 0;
        } else {
            text.push_str(separator);
            column += separator.len();
        }
        text.push_str(word);
        column += word.len();
    }
    text
}

#[test]
fn names_and_labels_are_well_formed_and_unique() {
    let names: BTreeSet<_> = metrics().map(|metric| metric.spec.name).collect();
    assert_eq!(names.len(), metrics().count());
    for Metric { spec, .. } in metrics() {
        let is_name = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        assert!(is_name(spec.name) && spec.labels.iter().all(|label| is_name(label)), "{spec:?}");
        let is_counter = spec.kind == MetricKind::Counter;
        assert_eq!(spec.name.ends_with("_total"), is_counter, "{}", spec.name);
        assert!(spec.help.ends_with('.') && !spec.help.contains(['"', '\\', '\n']), "{spec:?}");
        assert!(!spec.labels.contains(&"le"), "{spec:?}");
    }
}

/// The names of metrics in a text, without what a histogram adds.
fn names_in(text: &str) -> BTreeSet<&str> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let words = text.split(|char| !is_part(char));
    let names = words.filter(|word| word.starts_with("ringverb_"));
    let histogram = |name: &str| {
        metrics().any(|Metric { spec, .. }| spec.name == name && spec.kind == MetricKind::Histogram)
    };
    names
        .map(|name| {
            let stems = ["_bucket", "_sum", "_count"].map(|suffix| name.strip_suffix(suffix));
            stems.into_iter().flatten().find(|stem| histogram(stem)).unwrap_or(name)
        })
        .collect()
}

#[test]
fn dashboard_and_alerts_name_only_metrics_that_exist() {
    let known: BTreeSet<_> = metrics().map(|metric| metric.spec.name).collect();
    for file in ["tuning/grafana.json", "tuning/alerts.yml", "tests/alerts.yml"] {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let names = names_in(&text);
        assert!(names.len() > 10, "{file}");
        let unknown: Vec<_> = names.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn the_document_of_metrics_is_the_table() {
    crate::text::assert_document("docs/METRICS.md", &document());
}
