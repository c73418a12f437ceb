//! What a run found: named figures, latency distributions, and the list of what must not happen.
//!
//! Owns them. Does not format them for people: `shown` and `html` do. Output: one object of JSON, whose keys have the
//! unit, so that a figure explains itself. Limits: `VIOLATIONS_SHOWN_MAX` texts, all are counted; a latency from 1 µs
//! to a minute. Cost: recording a latency is a few steps and no allocation; a histogram has some 140,000 bytes.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

const VIOLATIONS_SHOWN_MAX: usize = 20;

pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    pub(crate) figures: Vec<Figure>,
    /// Whole distributions behind some of the figures, in microseconds.
    pub(crate) latencies: Vec<(String, Latency)>,
    pub(crate) violations: Violations,
}

pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: Value,
    pub(crate) unit: &'static str,
    /// One of a latency: `shown` has it in the table of latencies.
    pub(crate) is_percentile: bool,
}

/// The percentiles of every latency, with the names of their columns.
pub(crate) const PERCENTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Microseconds, from 1 to a minute.
#[derive(Clone)]
pub(crate) struct Latency(pub(crate) Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds are in order"))
    }
}

impl Latency {
    pub(crate) fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros.max(1));
    }

    pub(crate) fn ms_at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Counts all, keeps the text of the first ones.
#[derive(Default)]
pub(crate) struct Violations {
    pub(crate) count: u64,
    pub(crate) texts: Vec<String>,
}

impl Violations {
    pub(crate) fn add(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.texts.len() < VIOLATIONS_SHOWN_MAX {
            self.texts.push(text());
        }
    }

    pub(crate) fn first(&self) -> Option<&str> {
        self.texts.first().map(String::as_str)
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.count += other.count;
        self.texts.extend(other.texts);
        self.texts.truncate(VIOLATIONS_SHOWN_MAX);
    }
}

impl Violations {
    pub(crate) fn as_json(&self) -> Value {
        json!({ "count": self.count, "texts": self.texts })
    }

    /// Reads what a child process has written by `as_json`.
    pub(crate) fn from_json(value: &Value) -> Self {
        let texts = value["texts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let texts = texts.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Self { count: value["count"].as_u64().unwrap_or(0), texts }
    }
}

/// Three decimals are below the noise of every figure here.
fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

impl Report {
    pub(crate) fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            figures: Vec::new(),
            latencies: Vec::new(),
            violations: Violations::default(),
        }
    }

    /// Name of the figure: the server's greatest RSS of all samples.
    pub(crate) const MEMORY: &'static str = "server memory, most";

    fn push(&mut self, name: impl Into<String>, value: Value, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit, is_percentile: false });
    }

    pub(crate) fn count(&mut self, name: impl Into<String>, value: u64) {
        self.push(name, json!(value), "");
    }

    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.push(name, rounded(value), unit);
    }

    pub(crate) fn text(&mut self, name: impl Into<String>, value: &str) {
        self.push(name, json!(value), "");
    }

    pub(crate) fn flag(&mut self, name: impl Into<String>, value: bool) {
        self.push(name, json!(value), "");
    }

    /// Percentiles as figures, and the whole distribution for the curve.
    pub(crate) fn latency(&mut self, name: impl Into<String>, latency: &Latency) {
        let name = name.into();
        for (what, quantile) in PERCENTILES {
            let (name, value) = (format!("{name} {what}"), rounded(latency.ms_at(quantile)));
            self.figures.push(Figure { name, value, unit: "ms", is_percentile: true });
        }
        self.latencies.push((name, latency.clone()));
    }

    /// A figure by its name, for a ratio to it.
    pub(crate) fn value_of(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|found| found.name == name)?.value.as_f64()
    }

    pub(crate) fn add_violations(&mut self, violations: Violations) {
        self.violations.append(violations);
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.violations.count == 0
    }

    /// One line: names with their unit as keys, so that a figure says what it is.
    pub(crate) fn as_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("scenario".into(), json!(self.scenario));
        let mut names = Vec::new();
        for Figure { name, value, unit, .. } in &self.figures {
            let unit = unit.replace('/', " per ").replace('%', "percent");
            let words = format!("{name} {unit}");
            let words = words.split(|char: char| !char.is_alphanumeric());
            let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
            names.push(words.join("_"));
            object.insert(words.join("_"), value.clone());
        }
        // The object itself may be sorted by name.
        object.insert("figures".into(), json!(names));
        object.insert("violations".into(), json!(self.violations.count));
        object.insert("violation_texts".into(), json!(self.violations.texts));
        Value::Object(object)
    }
}

pub(crate) fn ratio(value: u64, by: u64) -> f64 {
    value as f64 / by.max(1) as f64
}

/// Microseconds of `time` for each of `count`.
pub(crate) fn us_each(time: Duration, count: u64) -> f64 {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    ratio(nanoseconds, count) / 1000.0
}

pub(crate) fn busy_percent(cpu: Duration, wall: Duration) -> f64 {
    100.0 * cpu.as_secs_f64() / wall.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    #[test]
    fn json_names_carry_the_unit() {
        let mut report = Report::new("x");
        report.figure("1 in flight: deliveries", 2.0, "1/s");
        report.figure("server busy", 99.5, "%");
        report.count("events", 3);
        let json = report.as_json();
        assert_eq!(json["1_in_flight_deliveries_1_per_s"], 2.0);
        assert_eq!(json["server_busy_percent"], 99.5);
        assert_eq!(json["events"], 3);
        assert_eq!(json["violations"], 0);
    }

    #[test]
    fn people_see_percentiles_as_columns_and_a_mark_for_the_violations() {
        let mut report = Report::new("rooms");
        report.figure("deliveries", 50_298.434, "1/s");
        let mut latency = Latency::default();
        (1..=1_000).for_each(|micros| latency.record(Duration::from_micros(micros)));
        report.latency("delivery", &latency);
        let machine = Machine { server: "ringverb 1.2.3".to_owned(), facts: Vec::new() };
        let shown = report.for_people(&machine);
        assert!(shown.starts_with("rooms: ringverb 1.2.3\n"), "{shown}");
        assert!(shown.contains("50,298 /s") && shown.contains("✔ no violations"), "{shown}");
        let latency = shown.lines().find(|line| line.starts_with("  delivery  ")).unwrap();
        assert_eq!(
            latency.split_whitespace().collect::<Vec<_>>(),
            ["delivery", "0.50", "0.99", "1.00", "1.00"]
        );
        assert!(!shown.contains("delivery p99 "), "not twice: {shown}");
        let mut violations = Violations::default();
        violations.add(|| "lost".to_owned());
        report.add_violations(violations);
        assert!(report.for_people(&machine).contains("✘ 1 violation\n    lost"));
    }

    #[test]
    fn all_violations_are_counted_and_the_first_are_shown() {
        let mut violations = Violations::default();
        (0..100).for_each(|number| violations.add(|| number.to_string()));
        let mut report = Report::new("x");
        report.add_violations(violations);
        assert!(!report.is_clean());
        assert_eq!(report.violations.count, 100);
        assert_eq!(report.violations.texts.len(), VIOLATIONS_SHOWN_MAX);
    }
}
