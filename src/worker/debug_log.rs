//! `--debug` on standard output, in Reverb's words and layout (PROTOCOL.md rule 123). Blocks like any print: it is for
//! somebody who watches.

use std::io::{IsTerminal, Write};

use crate::pusher::debug_text::{pretty_frame, two_columns};
use crate::pusher::socket_id::SocketId;
use crate::shard::Trace;
use crate::ws::frame;

/// Columns of a line of two columns. Reverb takes the terminal's, 150 at most.
const COLUMNS: usize = 100;

pub(super) struct DebugLog {
    colour: bool,
    text: String,
}

impl DebugLog {
    /// `colour` if it is a terminal that shows it.
    pub(super) fn new(colour: bool) -> Self {
        Self { colour: colour && std::io::stdout().is_terminal(), text: String::new() }
    }

    /// Prints and forgets what a tick left.
    pub(super) fn tell(&mut self, traces: &mut Vec<Trace>) {
        if traces.is_empty() {
            return;
        }
        self.text.clear();
        for trace in traces.drain(..) {
            self.write(trace);
        }
        let mut out = std::io::stdout().lock();
        // Whoever watched may have gone: the server goes on.
        let _ = out.write_all(self.text.as_bytes()).and_then(|()| out.flush());
    }

    fn write(&mut self, trace: Trace) {
        match trace {
            Trace::Established(id) => self.line("Connection Established", id),
            Trace::Received(id, text) => {
                self.line("Message Received", id);
                pretty_frame(&text, self.colour, &mut self.text);
            }
            Trace::Handled(id) => self.line("Message Handled", id),
            Trace::ControlFrame(id) => self.line("Control Frame Received", id),
            Trace::Pinged(id) => self.line("Connection Pinged", id),
            Trace::Pruned(id) => self.line("Connection Pruned", id),
            Trace::Closed(id) => self.line("Connection Closed", id),
            Trace::Broadcasting(channel, event) => {
                two_columns("Broadcasting To", &channel, COLUMNS, self.colour, &mut self.text);
                pretty_frame(frame::server_payload(&event), self.colour, &mut self.text);
            }
        }
    }

    fn line(&mut self, title: &str, id: SocketId) {
        two_columns(title, &id.to_string(), COLUMNS, self.colour, &mut self.text);
    }
}
