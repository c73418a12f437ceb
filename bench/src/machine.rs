//! The facts without which a figure means nothing: machine, kernel, time, command line. Plain values.
//!
//! Owns no state. Never fails: a fact that cannot be read is empty. No limits: seven facts. Cost: once a run, four
//! files of `/proc`.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

pub(crate) struct Machine {
    /// Name and version of the server that was measured.
    pub(crate) server: String,
    pub(crate) facts: Vec<(&'static str, String)>,
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// `2026-11-24 01:02:03` of seconds since 1970, UTC.
fn date_of(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days, for days since 1970.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

impl Machine {
    pub(crate) fn look() -> Self {
        let cpus = read("/proc/cpuinfo");
        let model = field(&cpus, "model name").or_else(|| field(&cpus, "CPU implementer"));
        let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kilobytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = since_1970.map_or(0, |time| time.as_secs());
        let load = read("/proc/loadavg");
        let words: Vec<String> = std::env::args().collect();
        let facts = vec![
            ("CPU", model.unwrap_or_default()),
            ("cores", cores.to_string()),
            ("memory", format!("{:.1} GiB", kilobytes as f64 / f64::from(1 << 20))),
            ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
            ("load before", load.split(' ').take(3).collect::<Vec<_>>().join(" ")),
            ("date", format!("{} UTC", date_of(seconds))),
            ("command", words.join(" ")),
        ];
        Self { server: "no server".to_owned(), facts }
    }

    pub(crate) fn as_json(&self) -> Value {
        let facts = [("server", self.server.clone())].into_iter().chain(self.facts.clone());
        facts.map(|(name, value)| (name.replace(' ', "_"), json!(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_since_1970_are_shown_as_a_date() {
        assert_eq!(date_of(0), "1970-01-01 00:00:00");
        assert_eq!(date_of(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(date_of(1_795_482_123), "2026-11-24 01:02:03");
    }

    #[test]
    fn this_machine_has_facts() {
        assert!(Machine::look().facts.iter().all(|(_, value)| !value.is_empty()));
    }
}
