//! What a run found: named figures, and the list of what should not have happened.

use std::time::Duration;

use serde_json::{Map, Value, json};

const VIOLATIONS_SHOWN_MAX: usize = 20;

pub(crate) struct Report {
    scenario: &'static str,
    figures: Vec<(String, Value, &'static str)>,
    violations: Violations,
}

/// Counts all, keeps the text of the first ones.
#[derive(Default)]
pub(crate) struct Violations {
    pub(crate) count: u64,
    texts: Vec<String>,
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

    fn append(&mut self, other: Self) {
        self.count += other.count;
        self.texts.extend(other.texts);
        self.texts.truncate(VIOLATIONS_SHOWN_MAX);
    }
}

/// Three decimals are below the noise of every figure here.
fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

impl Report {
    pub(crate) fn new(scenario: &'static str) -> Self {
        Self { scenario, figures: Vec::new(), violations: Violations::default() }
    }

    pub(crate) fn count(&mut self, name: impl Into<String>, value: u64) {
        self.figures.push((name.into(), json!(value), ""));
    }

    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push((name.into(), rounded(value), unit));
    }

    pub(crate) fn flag(&mut self, name: impl Into<String>, value: bool) {
        self.figures.push((name.into(), json!(value), ""));
    }

    pub(crate) fn add_violations(&mut self, violations: Violations) {
        self.violations.append(violations);
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.violations.count == 0
    }

    pub(crate) fn print(&self, as_json: bool) {
        if as_json {
            println!("{}", self.as_json());
            return;
        }
        println!("{}", self.scenario);
        let width = self.figures.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        for (name, value, unit) in &self.figures {
            println!("  {name:width$}  {value} {unit}");
        }
        println!("  {:width$}  {}", "violations", self.violations.count);
        for text in &self.violations.texts {
            println!("    {text}");
        }
    }

    /// One line: names with their unit as keys, so that a figure says what it is.
    fn as_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("scenario".into(), json!(self.scenario));
        for (name, value, unit) in &self.figures {
            let unit = unit.replace('/', " per ").replace('%', "percent");
            let words = format!("{name} {unit}");
            let words = words.split(|char: char| !char.is_alphanumeric());
            let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
            object.insert(words.join("_"), value.clone());
        }
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
