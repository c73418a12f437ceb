//! The output of `--debug`, in Reverb's words and layout (docs/PROTOCOL.md rule 123).
//!
//! Owns one buffer; does not write to a stream itself. Formats traces of the shard and passes them to `output`, where
//! the log goes. Text for which the output has no room is discarded and counted there: a terminal that stops reading
//! must not stop a core. Limit: a piece of `PIECE_BYTES` is written at once; the queue of `output` bounds what waits.
//! Cost: without `--debug` one comparison a tick; with it, linear in the messages, some allocations each.

use crate::output;
use crate::pusher::debug_text::{pretty_frame, two_columns};
use crate::pusher::socket_id::SocketId;
use crate::shard::Trace;
use crate::ws::frame;

/// The text is passed to the output when it has this many bytes, so that the buffer does not grow with the traces of a
/// tick.
const PIECE_BYTES: usize = 64 * 1024;
/// Columns of a line of two columns. Reverb takes the terminal's, 150 at most.
const COLUMNS: usize = 100;

pub(crate) struct DebugLog {
    has_color: bool,
    is_json: bool,
    text: String,
}

/// The name of these texts in a log of JSON.
const EVENT: &str = "debug_message";

impl DebugLog {
    pub(crate) fn new() -> Self {
        Self { has_color: output::has_color(), is_json: output::is_json(), text: String::new() }
    }

    /// Called once a tick. Leaves `traces` empty.
    pub(crate) fn write(&mut self, traces: &mut Vec<Trace>) {
        if traces.is_empty() {
            return;
        }
        self.text.clear();
        for trace in traces.drain(..) {
            self.write_trace(trace);
            // In JSON, each message is a line.
            if self.text.len() >= PIECE_BYTES || self.is_json {
                output::log_text_as(EVENT, &self.text);
                self.text.clear();
            }
        }
        if !self.text.is_empty() {
            output::log_text_as(EVENT, &self.text);
        }
    }

    fn write_trace(&mut self, trace: Trace) {
        match trace {
            Trace::Established(id) => self.title_line("Connection Established", id),
            Trace::Received(id, text) => {
                self.title_line("Message Received", id);
                pretty_frame(&text, self.has_color, &mut self.text);
            }
            Trace::Handled(id) => self.title_line("Message Handled", id),
            Trace::ControlFrame(id) => self.title_line("Control Frame Received", id),
            Trace::Pinged(id) => self.title_line("Connection Pinged", id),
            Trace::Pruned(id) => self.title_line("Connection Pruned", id),
            Trace::Closed(id) => self.title_line("Connection Closed", id),
            Trace::Broadcasting(channel, event) => {
                two_columns("Broadcasting To", &channel, COLUMNS, self.has_color, &mut self.text);
                pretty_frame(frame::server_payload(&event), self.has_color, &mut self.text);
            }
        }
    }

    fn title_line(&mut self, title: &str, id: SocketId) {
        two_columns(title, &id.to_string(), COLUMNS, self.has_color, &mut self.text);
    }
}
