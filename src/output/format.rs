//! The form of a log line as text: time, level, message, fields. `json.rs` has the form for programs.
//!
//! Owns the order and the colors, and reads the zone of the host. Leaves out `event` and `channel`, because the message
//! contains both. A line has no control character except the final line feed, for any content: `text::LogLine` escapes
//! and cuts. Input: events of `tracing`; output: bytes for `lane.rs`. Does not write.
//!
//! Limits: `PEER_LINE_BYTES_MAX`, `LINE_BYTES_MAX`. Cost: linear in the line, a few allocations for each; the zone is
//! one file read at the start.

use std::fmt::{self, Write};
use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::events::{PEER, UNNAMED};
use super::json::JsonParts;
use crate::text::{LogLine, shown};

/// Longest message with its fields in a line about what a peer did, in bytes before the time and the level are added.
pub(super) const PEER_LINE_BYTES_MAX: usize = 460;
/// The same of the server's own lines: the longest one lists every reason for a refusal.
pub(super) const LINE_BYTES_MAX: usize = 1_536;

#[derive(Clone, Copy, Debug)]
pub(super) struct LineFormat {
    pub(super) color: bool,
    pub(super) is_json: bool,
    /// The zone of the times; `None`: UTC.
    pub(super) zone: Option<&'static TimeZone>,
}

#[derive(Debug)]
pub(super) struct LocalZone {
    /// UTC if the zone is not known.
    pub(super) zone: TimeZone,
    pub(super) is_known: bool,
}

/// The zone of the host, as `TZ` or `/etc/localtime` names it. It is read once, because a worker that logs must not
/// read files.
pub(super) fn local_zone() -> &'static LocalZone {
    static ZONE: OnceLock<LocalZone> = OnceLock::new();
    ZONE.get_or_init(|| {
        let found = TimeZone::try_system().ok();
        let is_known = found.is_some();
        LocalZone { zone: found.unwrap_or(TimeZone::UTC), is_known }
    })
}

/// A warning that times are UTC although local ones are wanted. `tz`: the environment variable `TZ`.
pub(super) fn unknown_zone(tz: Option<&str>) -> String {
    let why = match tz {
        Some(tz) => format!("TZ is {}, which names no zone of /usr/share/zoneinfo", shown(tz)),
        None => "TZ is not set, and /etc/localtime is missing or cannot be read".to_owned(),
    };
    format!(
        "RINGVERB_LOG_TIME is local, but the log has UTC (+00:00), because the time zone of this host is unknown: \
         {why}. Install tzdata and set TZ to a zone such as Europe/Berlin, or set RINGVERB_LOG_TIME=utc"
    )
}

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let bytes_max =
            if metadata.target() == PEER { PEER_LINE_BYTES_MAX } else { LINE_BYTES_MAX };
        if self.is_json {
            let mut parts = JsonParts::new(UNNAMED, bytes_max);
            event.record(&mut parts);
            // `line` writes whole characters.
            return writer.write_str(&String::from_utf8_lossy(&parts.line(*metadata.level())));
        }
        let mut parts =
            LineParts { message: LogLine::new(bytes_max), fields: LogLine::new(bytes_max) };
        event.record(&mut parts);
        // Fields name the peer and are never cut: the message is cut if it leaves no room for them.
        let message_bytes_max = bytes_max - parts.fields.as_str().len();
        let message = parts.message.as_str();
        let message = &message[..message.floor_char_boundary(message_bytes_max)];
        let is_cut = parts.message.is_cut() || message.len() < parts.message.as_str().len();
        let mark = |is_cut| if is_cut { "…" } else { "" };
        let text =
            [message, mark(is_cut), parts.fields.as_str(), mark(parts.fields.is_cut())].concat();
        write_line(&mut writer, *metadata.level(), *self, &text)
    }
}

/// Formats a line that is no event of `tracing`, such as a report of lost lines.
pub(super) fn line_without_event(level: Level, format: LineFormat, text: &str) -> Vec<u8> {
    let mut line = LogLine::new(LINE_BYTES_MAX);
    // What does not fit is cut.
    line.write_str(text).ok();
    let mut written = String::new();
    let mut writer = Writer::new(&mut written);
    // Writing to a String cannot fail.
    let cut = if line.is_cut() { "…" } else { "" };
    write_line(&mut writer, level, format, &[line.as_str(), cut].concat()).ok();
    written.into_bytes()
}

fn write_line(
    writer: &mut Writer<'_>,
    level: Level,
    LineFormat { color, zone, .. }: LineFormat,
    text: &str,
) -> fmt::Result {
    let (gray, plain) = if color { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
    let paint = if color { paint(level) } else { "" };
    writer.write_str(gray)?;
    match zone {
        None => SystemTime.format_time(writer)?,
        Some(zone) => write_local(writer, Timestamp::now(), zone)?,
    }
    writeln!(writer, "{plain} {paint}{level:>5}{plain} {text}")
}

/// Writes the time in RFC 3339, as for UTC, with the offset of the zone in place of the `Z`.
fn write_local(writer: &mut impl Write, now: Timestamp, zone: &TimeZone) -> fmt::Result {
    write!(writer, "{}", now.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.6f%:z"))
}

fn paint(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// The message, and the fields as ` name=value`, which follow it.
struct LineParts {
    message: LogLine,
    fields: LogLine,
}

impl Visit for LineParts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a `LogLine` cannot fail.
        let written = match field.name() {
            "event" | "channel" => Ok(()),
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::is_hidden;
    use proptest::prelude::*;
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use tracing::subscriber::with_default;

    #[test]
    fn a_local_time_has_the_offset_that_the_zone_has_at_that_time() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (second, expected) in [
            (1_769_860_800, "2026-01-31T13:00:00.000000+01:00"),
            (1_782_820_800, "2026-06-30T14:00:00.000000+02:00"),
        ] {
            let mut text = String::new();
            write_local(&mut text, Timestamp::from_second(second).unwrap(), &zone).unwrap();
            assert_eq!(text, expected);
        }
    }

    struct Lines(Sender<Vec<u8>>);

    impl io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.send(line.to_vec()).expect("the test reads it");
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Runs this with a log in the server's form, and returns its lines.
    fn logged(color: bool, log: impl FnOnce()) -> Vec<String> {
        logged_as(LineFormat { color, is_json: false, zone: None }, log)
    }

    fn logged_as(format: LineFormat, log: impl FnOnce()) -> Vec<String> {
        let (sender, lines): (_, Receiver<Vec<u8>>) = channel();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .event_format(format)
            .with_writer(move || Lines(sender.clone()))
            .finish();
        with_default(subscriber, log);
        lines.try_iter().map(|line| String::from_utf8(line).expect("UTF-8")).collect()
    }

    fn rest(line: &str) -> &str {
        line.split_once("Z ").expect("a time").1
    }

    #[test]
    fn a_line_has_time_level_message_and_fields() {
        let lines = logged(false, || {
            tracing::info!(worker = 3, name = "x", "the message is {}", 7);
            tracing::error!("plain");
        });
        assert_eq!(rest(&lines[0]), " INFO the message is 7 worker=3 name=\"x\"\n");
        assert_eq!(rest(&lines[1]), "ERROR plain\n");
        assert!(lines[0].starts_with("20") && lines[0].contains('T'), "{}", lines[0]);
        let colored = logged(true, || tracing::warn!("careful"));
        assert!(colored[0].ends_with("Z\x1b[0m \x1b[33m WARN\x1b[0m careful\n"), "{colored:?}");
        let own = String::from_utf8(line_without_event(
            Level::WARN,
            LineFormat { color: false, is_json: false, zone: None },
            "own",
        ))
        .unwrap();
        assert_eq!(rest(&own), " WARN own\n");
    }

    #[test]
    fn a_long_line_is_cut_and_marked() {
        let lines = logged(false, || {
            tracing::warn!(target: PEER, "{}", "x".repeat(5_000));
            tracing::warn!(field = "y".repeat(5_000), "own");
        });
        assert_eq!(rest(&lines[0]), format!(" WARN {}…\n", "x".repeat(PEER_LINE_BYTES_MAX)));
        assert!(lines[1].ends_with("y…\n") && lines[1].len() < LINE_BYTES_MAX + 64, "{lines:?}");
    }

    /// Logs this as JSON, and returns the objects.
    fn objects(log: impl FnOnce()) -> Vec<serde_json::Value> {
        let lines = logged_as(LineFormat { color: true, is_json: true, zone: None }, log);
        let object = |line: &String| serde_json::from_str(line).expect(line);
        lines.iter().map(object).collect()
    }

    #[test]
    fn a_json_line_has_time_level_event_fields_with_their_types_and_message() {
        let objects = objects(|| {
            let socket = Some(tracing::field::display("1.2"));
            let nothing: Option<u32> = None;
            tracing::warn!(
                target: PEER, event = "refused", cause = %"origin", socket, nothing, left_out = 7_u32, app = "a\"b",
                "a {} with \u{1b}[31m", "message"
            );
            tracing::error!("unnamed");
        });
        let first = &objects[0];
        assert_eq!(first["event"], "refused");
        assert_eq!(first["level"], "warn");
        assert_eq!((&first["reason"], &first["socket_id"]), (&"origin".into(), &"1.2".into()));
        assert_eq!((&first["left_out"], &first["app"]), (&7.into(), &"a\"b".into()));
        assert_eq!(first["message"], "a message with \\u001b[31m");
        assert!(first.get("nothing").is_none() && first["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(
            (&objects[1]["event"], &objects[1]["level"]),
            (&"unnamed".into(), &"error".into())
        );
    }

    #[test]
    fn the_message_of_a_json_line_is_cut_before_its_fields() {
        let objects = objects(|| {
            let peer = "p".repeat(300);
            tracing::warn!(target: PEER, event = "refused", peer, "{}", "\"".repeat(5_000));
        });
        assert_eq!(objects[0]["peer"].as_str().unwrap().len(), 300);
        let message = objects[0]["message"].as_str().unwrap();
        assert_eq!(message, "\"".repeat(PEER_LINE_BYTES_MAX - 300) + "…");
    }

    proptest! {
        /// A value is cut before it is escaped, so no cut makes a line that is no JSON.
        #[test]
        fn each_json_line_is_one_object_of_bounded_length(
            text in prop::collection::vec(any::<char>(), 0..700),
            name in ".*",
        ) {
            let text: String = text.into_iter().collect();
            let lines = logged_as(LineFormat { color: false, is_json: true, zone: None }, || {
                tracing::warn!(target: PEER, event = "refused", why = ?text, name = %name, "{text}");
                tracing::info!(text, name = %name, "{name}{text:?}");
            });
            for line in &lines {
                let inside = line.strip_suffix('\n').expect("a whole line");
                prop_assert!(serde_json::from_str::<serde_json::Value>(inside).is_ok(), "{}", line);
                prop_assert!(!inside.chars().any(is_hidden), "{}", line);
            }
            // At most two bytes for each of a value, and the names.
            prop_assert!(lines[0].len() <= 2 * PEER_LINE_BYTES_MAX + 256, "{}", lines[0].len());
            prop_assert!(lines[1].len() <= 2 * LINE_BYTES_MAX + 256, "{}", lines[1].len());
        }


        /// Every log line has this form, so these properties hold for every line.
        #[test]
        fn no_text_of_a_peer_makes_a_line_long_or_steers_a_terminal(
            text in prop::collection::vec(any::<char>(), 0..700),
            name in ".*",
        ) {
            let text: String = text.into_iter().collect();
            let lines = logged(false, || {
                tracing::warn!(target: PEER, "{text}");
                tracing::info!(text, name = %name, "{name}{text:?}");
                tracing::warn!(target: PEER, why = ?text, other = text, "{name}");
                tracing::debug!("{}", name);
            });
            prop_assert_eq!(lines.len(), 4);
            for (at, line) in lines.iter().enumerate() {
                let most = if at % 2 == 0 { 512 } else { LINE_BYTES_MAX + 64 };
                prop_assert!(line.len() <= most, "{}: {}", line.len(), line);
                let inside = line.strip_suffix('\n').expect("a whole line");
                prop_assert!(!inside.chars().any(is_hidden), "{}", line);
            }
        }
    }
}
