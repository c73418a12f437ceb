//! How a command ends, and what it prints.
//!
//! Owns the rule: results go to standard output and all else to standard error, so that a pipe gets results only. The
//! exit code says whose fault a failure is: 2 is the command line or configuration, 1 the server. A reader that closes
//! standard output (`| head`) is no failure. Does not exit: `main` returns the code.
//! Limits: `TIMEOUT` for an answer; text of a server is cut to `SHOWN_MAX` in a sentence. Cost: one write for each call
//! of `print`.

use std::io::{self, Write};
use std::time::Duration;

use crate::output::{self, NoticeKind};
use crate::pusher::json;
use crate::text::visible;

/// How long a command waits for one answer. The look-up of a name is not bounded by it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// The variant decides the exit code.
#[derive(Debug)]
pub(super) enum CommandFailure {
    /// The command line or the configuration is wrong: 2.
    Usage(String),
    /// The server cannot be reached, or refuses: 1.
    Server(String),
    /// The reader of standard output has closed it, as `| head` does: no failure.
    OutputClosed,
}

/// Notes and warnings go there, because standard output has results only.
pub(super) fn print_to_stderr(text: &str) {
    output::notice(NoticeKind::Note, text);
}

/// # Errors
/// `OutputClosed` if the reader has had enough, which ends the command without a sentence.
pub(super) fn print(text: &str) -> Result<(), CommandFailure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => CommandFailure::OutputClosed,
        _ => CommandFailure::Server(format!("cannot write to standard output: {error}")),
    })
}

/// The member of that name; the last one, if there are several. `object` is a span of text that `Validator` passed.
pub(super) fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let members = json::members(object)?;
    members.filter(|(given, _)| json::is_name(given, name)).map(|(_, value)| value).last()
}

/// Control characters are escaped, because any program may have sent the text.
pub(super) fn escaped_text(text: &str) -> String {
    const SHOWN_MAX: usize = 600;
    let mut out = String::new();
    visible(text, SHOWN_MAX, &mut out);
    out
}

/// Whether a body is a page, which no ringverb answers.
pub(super) fn is_page(body: &str) -> bool {
    body.trim_start().starts_with('<')
}

/// The beginning of a body in one line, for a sentence about a server that may be another program.
pub(super) fn one_line(body: &str) -> String {
    const SHOWN_MAX: usize = 100;
    // No more words than characters that are shown.
    let words: Vec<&str> = body.split_whitespace().take(SHOWN_MAX).collect();
    let mut out = String::new();
    visible(&words.join(" "), SHOWN_MAX, &mut out);
    out
}

pub(super) fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    json::write_string(text, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
