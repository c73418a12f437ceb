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
            let mut key = name.replace([' ', ','], "_");
            if !unit.is_empty() {
                key = format!("{key}_{}", unit.replace('/', "_per_").replace('%', "percent"));
            }
            object.insert(key, value.clone());
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
