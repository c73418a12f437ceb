//! docs/LOGS.md from the tables, and the calls of the log in the sources.

use super::*;
use crate::cause::Cause;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

fn document() -> String {
    let mut text = String::from(HEAD);
    for LogEventSpec { name, meaning } in LOG_EVENTS {
        writeln!(text, "| `{name}` | {meaning} |").unwrap();
    }
    text.push_str(REASONS);
    for cause in Cause::ALL {
        let level = if cause.is_ordinary() { "info" } else { "warn" };
        let (name, counted) = (cause.name(), cause.counter().name());
        writeln!(text, "| `{name}` | `{counted}` | {level} |").unwrap();
    }
    text
}

#[rustfmt::skip]
const HEAD: &str = concat!(
    r#"# Logs

This file is generated from the tables in `src/output/events.rs` and `src/cause.rs`; a test compares them. Names and
meanings do not change.

| option | |
|---|---|
"#,
    "| `RINGVERB_LOG_FORMAT` | `auto` (default): text if the log goes to a terminal, otherwise one JSON object in \
     each line. `text`, `json`: always. Text files that people read, such as those of Supervisor, need `text` |\n",
    "| `RINGVERB_LOG_LEVEL` | `error`, `warn`, `info`, `debug`, `trace`: the least level that is logged. Empty: \
     the filter in `RUST_LOG`, or `info` |\n",
    r#"| `RINGVERB_LOG_TIME` | `utc` (default), `local`: times of a text log |
| `RINGVERB_ACCESS_LOG` | `true`: a line for each answered request of the HTTP API, whatever the level is |
| `NO_COLOR` | Any value: no colors. Only a terminal gets colors |

The log goes to standard output; with `--print-events` to standard error. Times are UTC, which the final `Z` states.
With `RINGVERB_LOG_TIME=local`, a line of text has the time of the host's zone (`TZ`, `/etc/localtime`) and its offset,
such as `+02:00`. If the zone is unknown, the lines are UTC, and a warning at the start says why. JSON is always UTC.
`ringverb_log_lines_lost_total` counts all lines that are left out or lost.

```text
2026-01-31T12:00:00.000000Z  WARN origin "https://evil.test" refused. [...] cause=origin peer=192.0.2.7:4711 app=1001
"#,
    r#"{"time":"2026-01-31T12:00:00.000000Z","level":"warn","event":"refused","reason":"origin","#,
    r#""peer":"192.0.2.7:4711","app":"1001","message":"origin \"https://evil.test\" refused. [...]"}"#,
    "\n",
    r#"```

Each JSON line has `time`, `level` and `event`. `message` is for people, and its words may change. A value that is too
long is cut, and ends with `…`. Messages about a configuration with which the server does not start are always text.

| limit | |
|---|---|
"#,
    "| lines about peers | 2 KiB a second, 64 KiB at once. Each reason: 20 lines of a core at once, then one a \
     second; `left_out` counts the others |\n",
    "| access log | 256 lines of a core in a tick, 256 KiB a second, 1 MiB at once; `access_suppressed` and \
     `lines_lost` count the others |\n",
    r#"| other lines | 8 KiB a second, 256 KiB at once; DEBUG and TRACE have no limit |
| a slow reader | 2,048 lines and 1 MiB wait; `lines_lost` counts the others |
| a full disk | `lines_lost` is on standard error at once, unless that is the same file, and in the log later |

## Events

| event | meaning |
|---|---|
"#,
);
const REASONS: &str = "\n## Reasons\n\n`reason` of `refused`; the text form writes it as `cause=`. The message \
        has the wrong value and the option to\nchange. The second column is the label of \
        `ringverb_refusals_total`, which is coarser.\n\n| reason | counted as | level |\n|---|---|---|\n";

#[test]
fn the_document_of_log_events_is_the_table() {
    crate::text::assert_document("docs/LOGS.md", &document());
}

#[test]
fn events_are_sorted_and_unique() {
    let names: Vec<&str> = LOG_EVENTS.iter().map(|event| event.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    assert!(names.iter().all(|name| static_name(name) == *name));
    assert_eq!(static_name("not an event"), UNNAMED);
}

/// The names of events that are no call of `tracing`.
const OWN: [&str; 6] =
    ["debug_message", "lines_lost", "notice", "panic", "server_started", UNNAMED];

fn sources(folder: &Path, out: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && !path.starts_with(concat!(env!("CARGO_MANIFEST_DIR"), "/src/output"))
        {
            *out += &std::fs::read_to_string(path).unwrap();
        }
    }
}

#[test]
fn each_call_of_the_log_names_an_event_of_the_table_and_no_row_is_unused() {
    let mut text = String::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut text);
    let mut used: BTreeSet<&str> = OWN.into();
    let calls = ["error!(", "warn!(", "info!(", "debug!("].map(|call| format!("tracing::{call}"));
    for call in &calls {
        for rest in text.split(call.as_str()).skip(1) {
            let rest = rest.trim_start();
            let rest = ["target: PEER,", "target: ACCESS,"]
                .iter()
                .find_map(|target| rest.strip_prefix(target))
                .unwrap_or(rest)
                .trim_start();
            let name = rest.strip_prefix("event = \"").and_then(|rest| rest.split('"').next());
            let shown = rest.chars().take(60).collect::<String>();
            let name = name.unwrap_or_else(|| panic!("{call} has no event: {shown}"));
            assert_eq!(static_name(name), name, "docs/LOGS.md does not have it: {shown}");
            used.insert(name);
        }
    }
    let rows: BTreeSet<&str> = LOG_EVENTS.iter().map(|event| event.name).collect();
    assert_eq!(used, rows);
    // The server names these, not `tracing`.
    assert!(text.contains("\"debug_message\"") && text.contains("\"server_started\""));
}
