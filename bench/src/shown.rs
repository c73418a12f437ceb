//! Figures as people read them: separators between thousands, significant digits, and the four figures that come first.
//!
//! Owns the layout on a terminal. Does not compute figures. No limits: once a run. Cost: some thousand bytes of text,
//! after the measurement.

use serde_json::Value;

use crate::machine::Machine;
use crate::report::{Latency, PERCENTILES, Report};

/// Three digits at least, and no decimals that are noise.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 3,
    };
    separated(&format!("{value:.decimals$}"))
}

pub(crate) fn count(value: u64) -> String {
    separated(&value.to_string())
}

/// "no violations", or how many.
pub(crate) fn violations(how_many: u64) -> String {
    match how_many {
        0 => "✔ no violations".to_owned(),
        1 => "✘ 1 violation".to_owned(),
        more => format!("✘ {} violations", count(more)),
    }
}

/// With a comma before each three digits of the whole part.
fn separated(text: &str) -> String {
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let digits = whole.trim_start_matches('-').len();
    let mut out = String::with_capacity(text.len() + 4);
    for (place, char) in whole.chars().enumerate() {
        let left = whole.len() - place;
        if left < digits && left.is_multiple_of(3) {
            out.push(',');
        }
        out.push(char);
    }
    out + rest
}

pub(crate) fn figure(value: &Value, unit: &str) -> String {
    let shown = match (value.as_u64(), value.as_f64(), value.as_str()) {
        (Some(whole), ..) => count(whole),
        (None, Some(float), _) => number(float),
        (None, None, Some(text)) => text.to_owned(),
        (None, None, None) if value == &Value::Bool(true) => "yes".to_owned(),
        (None, None, None) if value == &Value::Bool(false) => "no".to_owned(),
        (None, None, None) => value.to_string(),
    };
    match unit {
        "" => shown,
        "1/s" => format!("{shown} /s"),
        "us" => format!("{shown} µs"),
        _ => format!("{shown} {unit}"),
    }
}

/// The percentiles of a latency in milliseconds.
pub(crate) fn percentiles(latency: &Latency) -> [String; 4] {
    PERCENTILES.map(|(_, quantile)| number(latency.ms_at(quantile)))
}

/// At most four figures that say how the run went: a rate, a latency, CPU for each piece of work, memory.
pub(crate) fn headlines(report: &Report) -> Vec<(String, String)> {
    let figures = || report.figures.iter().filter(|figure| !figure.is_percentile);
    let rate = figures().find(|found| found.unit == "1/s");
    let latency = report.latencies.iter().find(|(_, latency)| !latency.0.is_empty());
    let cpu = figures().find(|found| found.unit == "us" && found.name.contains("server CPU per"));
    let memory = figures().find(|found| found.name == Report::MEMORY);
    let shown =
        |found: &crate::report::Figure| (found.name.clone(), figure(&found.value, found.unit));
    let mut all: Vec<_> = rate.map(shown).into_iter().collect();
    all.extend(latency.map(|(name, latency)| {
        let [p50, p99, ..] = percentiles(latency);
        (format!("{name}, p50 and p99"), format!("{p50} and {p99} ms"))
    }));
    all.extend([cpu, memory].into_iter().flatten().map(shown));
    all
}

impl Report {
    pub(crate) fn print(&self, as_json: bool, machine: &Machine) {
        if as_json {
            let mut object = self.as_json();
            object["machine"] = machine.as_json();
            println!("{object}");
            return;
        }
        print!("{}", self.for_people(machine));
    }

    pub(crate) fn for_people(&self, machine: &Machine) -> String {
        let mut out = format!("{}: {}\n\n", self.scenario, machine.server);
        let rows = |out: &mut String, rows: &[(String, String)]| {
            let width = |of: fn(&(String, String)) -> &String| {
                rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0)
            };
            let (left, right) = (width(|row| &row.0), width(|row| &row.1));
            for (name, value) in rows {
                out.push_str(&format!("  {name:left$}  {value:>right$}\n"));
            }
        };
        rows(&mut out, &headlines(self));
        if !self.latencies.is_empty() {
            let left = self.latencies.iter().map(|(name, _)| name.chars().count()).max();
            let left = left.unwrap_or(0).max("latency in ms".len());
            out.push_str(&format!("\n  {:left$}", "latency in ms"));
            PERCENTILES.iter().for_each(|(name, _)| out.push_str(&format!("{name:>10}")));
            out.push('\n');
            for (name, latency) in &self.latencies {
                out.push_str(&format!("  {name:left$}"));
                for value in percentiles(latency) {
                    out.push_str(&format!("{value:>10}"));
                }
                out.push('\n');
            }
        }
        out.push('\n');
        let others = self.figures.iter().filter(|figure| !figure.is_percentile);
        let others: Vec<(String, String)> =
            others.map(|found| (found.name.clone(), figure(&found.value, found.unit))).collect();
        rows(&mut out, &others);
        out.push_str(&format!("\n  {}\n", violations(self.violations.count)));
        for text in &self.violations.texts {
            out.push_str(&format!("    {text}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn numbers_have_separators_and_few_decimals() {
        for (value, shown) in [
            (50_298.434, "50,298"),
            (1_234_567.0, "1,234,567"),
            (999.6, "1,000"),
            (100.0, "100"),
            (12.345, "12.3"),
            (1.0, "1.00"),
            (0.0912, "0.091"),
            (0.0, "0"),
            (-12_345.6, "-12,346"),
            (-123.4, "-123"),
        ] {
            assert_eq!(number(value), shown, "{value}");
        }
    }

    #[test]
    fn units_are_those_of_the_field() {
        assert_eq!(figure(&json!(50_298.4), "1/s"), "50,298 /s");
        assert_eq!(figure(&json!(4.44), "us"), "4.44 µs");
        assert_eq!(figure(&json!(1_204), ""), "1,204");
        assert_eq!(figure(&json!(1), ""), "1");
        assert_eq!(
            [0, 1, 1_200].map(violations),
            ["✔ no violations", "✘ 1 violation", "✘ 1,200 violations"]
        );
        assert_eq!(figure(&json!(true), ""), "yes");
        assert_eq!(figure(&json!("text"), ""), "text");
    }

    #[test]
    fn the_headline_has_rate_latency_cpu_and_memory() {
        let mut report = Report::new("x");
        report.count("subscribers", 10);
        report.figure("deliveries", 50_000.0, "1/s");
        report.figure("client CPU per delivery", 2.0, "us");
        report.figure("server CPU per delivery", 4.4, "us");
        let mut latency = Latency::default();
        (1..=1_000).for_each(|micros| latency.record(Duration::from_micros(micros * 10)));
        report.latency("delivery", &latency);
        report.figure(Report::MEMORY, 15.8, "MiB");
        let names: Vec<String> = headlines(&report).into_iter().map(|(name, _)| name).collect();
        let expected =
            ["deliveries", "delivery, p50 and p99", "server CPU per delivery", Report::MEMORY];
        assert_eq!(names, expected);
        assert!(headlines(&Report::new("x")).is_empty());
    }
}
