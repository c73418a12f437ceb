//! The form of a log line for programs: one JSON object in a line.
//!
//! Owns the names that differ from the text form (`RENAMED`) and the order: `time` (UTC, RFC 3339), `level` and
//! `event`, then the fields of the event, and `message`, the text that a person reads. docs/LOGS.md lists the names,
//! which do not change. Input: events of `tracing`; output: bytes for `lane.rs`. A value is cut before it is escaped,
//! so each line is valid JSON. Does not write.
//!
//! Limits: `bytes_max` bytes of values before they are escaped, `FIELDS_MAX` fields. Cost: linear in the line, a few
//! allocations for each.

use std::fmt::{self, Write};

use tracing::Level;
use tracing::field::{Field, Visit};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::pusher::json::write_string;
use crate::text::LogLine;

/// Most fields of one event: more are left out. No event of this server has so many.
const FIELDS_MAX: usize = 16;

/// Fields that have another name here than in the text form, whose names are older.
const RENAMED: [(&str, &str); 2] = [("cause", "reason"), ("socket", "socket_id")];

/// The parts of one event, while its fields are visited.
pub(super) struct JsonParts {
    event: &'static str,
    message: LogLine,
    /// The fields as JSON members, each with a comma before it.
    members: Vec<u8>,
    fields: usize,
    bytes_left: usize,
    bytes_max: usize,
}

impl JsonParts {
    /// `event` is the name for an event that names none itself.
    pub(super) fn new(event: &'static str, bytes_max: usize) -> Self {
        Self {
            event,
            message: LogLine::new(bytes_max),
            members: Vec::new(),
            fields: 0,
            bytes_left: bytes_max,
            bytes_max,
        }
    }

    /// The members and the message, as a line.
    pub(super) fn line(&self, level: Level) -> Vec<u8> {
        let message = self.message.as_str();
        // Fields name the peer: the message is cut if it leaves no room for them.
        let kept = &message[..message.floor_char_boundary(self.bytes_left)];
        let is_cut = self.message.is_cut() || kept.len() < message.len();
        object(self.event, level, &self.members, kept, is_cut)
    }

    fn text(&mut self, name: &str, value: &dyn fmt::Display) {
        let mut line = LogLine::new(self.bytes_left);
        // Writing to a LogLine cannot fail.
        write!(line, "{value}").ok();
        self.bytes_left -= line.as_str().len();
        self.member(name, |out| write_cut(line.as_str(), line.is_cut(), out));
    }

    fn plain(&mut self, name: &str, value: impl fmt::Display) {
        self.member(name, |out| out.extend_from_slice(value.to_string().as_bytes()));
    }

    fn member(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        if self.fields == FIELDS_MAX {
            return;
        }
        self.fields += 1;
        let renamed = RENAMED.iter().find(|(text, _)| *text == name);
        self.members.push(b',');
        write_string(renamed.map_or(name, |(_, json)| json), &mut self.members);
        self.members.push(b':');
        write(&mut self.members);
    }
}

impl Visit for JsonParts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => {
                self.message = LogLine::new(self.bytes_max);
                // A `LogLine` cuts what does not fit, so writing cannot fail.
                write!(self.message, "{value:?}").ok();
            }
            name => self.text(name, &format_args!("{value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "event" => self.event = super::events::static_name(value),
            "message" => {
                // What does not fit is cut.
                self.message.write_str(value).ok();
            }
            name => self.text(name, &value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.plain(field.name(), format_args!("{value:.3}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), value);
    }
}

/// One line for a text that is no event of `tracing`. `members`: each with a comma before it.
pub(super) fn object(
    event: &str,
    level: Level,
    members: &[u8],
    message: &str,
    is_cut: bool,
) -> Vec<u8> {
    let mut time = String::new();
    // Writing to a String cannot fail.
    SystemTime.format_time(&mut Writer::new(&mut time)).ok();
    let mut out = Vec::with_capacity(128 + members.len() + message.len());
    out.extend_from_slice(b"{\"time\":");
    write_string(&time, &mut out);
    out.extend_from_slice(b",\"level\":");
    write_string(level_name(level), &mut out);
    out.extend_from_slice(b",\"event\":");
    write_string(event, &mut out);
    out.extend_from_slice(members);
    if !message.is_empty() {
        out.extend_from_slice(b",\"message\":");
        write_cut(message, is_cut, &mut out);
    }
    out.extend_from_slice(b"}\n");
    out
}

fn write_cut(text: &str, is_cut: bool, out: &mut Vec<u8>) {
    write_string(text, out);
    if is_cut {
        out.pop();
        out.extend_from_slice("…\"".as_bytes());
    }
}

pub(super) fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}
