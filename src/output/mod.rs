//! Everything the server writes to standard output and standard error: log lines, the start message, `--debug` and
//! `--print-events`.
//!
//! Owns both streams while the server runs, and knows nothing of what a line means. A log must never stop the server,
//! so each stream has a bounded queue and a thread (`lane.rs`): with a full disk, a closed pipe, a reader that stops or
//! a terminal that Ctrl-S has stopped, lines are discarded, counted and reported. `format.rs` and `json.rs` bound every
//! line and escape control characters; `budget.rs` bounds the bytes a second, so that peers cannot fill a disk.
//! Commands that end by themselves (`check`, `publish`) write directly. Does not wait, except in `finish`.
//!
//! Limits: those of `lane.rs`, `format.rs` and `budget.rs`; `finish` waits at most `FINISH_TIME`. Cost: two threads;
//! for a line, one atomic of the budget and one push into the queue.

mod budget;
mod events;
mod format;
mod json;
mod lane;
mod level;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, LogLevel};
use budget::RateBudget;
pub(crate) use events::{ACCESS, PEER};
use lane::{Bounds, LossReport, OutputLane, ReportElsewhere, Reported};
pub(crate) use lane::{LostLines, QueuedBytes};
pub(crate) use level::set_level;

/// How long the end of the process waits for queued lines.
pub(crate) const FINISH_TIME: Duration = Duration::from_secs(1);

const LOG_BOUNDS: Bounds = Bounds { texts_max: 2_048, bytes_max: 1 << 20 };
const EVENT_BOUNDS: Bounds = Bounds { texts_max: 8_192, bytes_max: 8 << 20 };

/// Budget of lines of the target `PEER`: 177 MB a day at most.
const PEER_BYTES_PER_SECOND: u64 = 2 << 10;
const PEER_BURST_BYTES: u64 = 64 << 10;
/// Budget of all other lines of level INFO and above: 708 MB a day at most. DEBUG and TRACE have no limit, because an
/// operator switches them on.
const OWN_BYTES_PER_SECOND: u64 = 8 << 10;
const OWN_BURST_BYTES: u64 = 256 << 10;

/// Budget of lines of the target `ACCESS`, which the operator has asked for.
const ACCESS_BYTES_PER_SECOND: u64 = 256 << 10;
const ACCESS_BURST_BYTES: u64 = 1 << 20;

static OUTPUT: OnceLock<Output> = OnceLock::new();

#[derive(Debug)]
struct Output {
    stdout: OutputLane,
    stderr: OutputLane,
    /// Standard output has only events (`--print-events`), and the log goes to standard error.
    prints_events: bool,
    color: bool,
    is_json: bool,
    /// Local times are wanted, and the zone of the host is unknown, so times are UTC.
    is_zone_unknown: bool,
    start: Instant,
    peer_budget: RateBudget,
    log_budget: RateBudget,
    access_budget: RateBudget,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct OutputSettings {
    /// `--print-events`: standard output is for events alone, and the log goes to standard error.
    pub prints_events: bool,
    /// Color where the log is a terminal.
    pub color: bool,
    pub format: LogFormat,
    /// `None`: the filter in `RUST_LOG`, or INFO.
    pub level: Option<LogLevel>,
    /// Lines of text have the time of the host's zone, which is read once.
    pub is_local_time: bool,
}

/// Starts the threads that write and the log. Called once, before any other thread runs.
///
/// # Errors
/// When a thread cannot be started.
pub(crate) fn start(settings: OutputSettings) -> io::Result<()> {
    let OutputSettings { prints_events, color, format, level, is_local_time } = settings;
    let is_terminal =
        if prints_events { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
    let is_json = match format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let color = color && is_terminal && !is_json;
    // JSON is always UTC.
    let local = (is_local_time && !is_json).then(format::local_zone);
    let zone = local.map(|local| &local.zone);
    let format = format::LineFormat { color, is_json, zone };
    let bounds = if prints_events { EVENT_BOUNDS } else { LOG_BOUNDS };
    let report = if prints_events { report_in_log(format) } else { loss_report(format) };
    // Two names of one file refuse text together.
    let elsewhere = (!prints_events && !is_same_file(&io::stdout(), &io::stderr()))
        .then(|| Box::new(write_report) as ReportElsewhere);
    let of_stderr = loss_report(format);
    let output = Output {
        stdout: OutputLane::start("stdout", io::stdout(), bounds, report, elsewhere)?,
        stderr: OutputLane::start("stderr", io::stderr(), LOG_BOUNDS, of_stderr, None)?,
        prints_events,
        color,
        is_json,
        is_zone_unknown: local.is_some_and(|local| !local.is_known),
        start: lane::now(),
        peer_budget: RateBudget::new(PEER_BYTES_PER_SECOND, PEER_BURST_BYTES),
        log_budget: RateBudget::new(OWN_BYTES_PER_SECOND, OWN_BURST_BYTES),
        access_budget: RateBudget::new(ACCESS_BYTES_PER_SECOND, ACCESS_BURST_BYTES),
    };
    if OUTPUT.set(output).is_err() {
        return Ok(());
    }
    level::install(format, level, LogWriters);
    report_panics();
    // A file that reaches its size limit (ulimit -f) then fails with EFBIG, instead of ending the process.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()).map(drop)
}

/// A sentence if the log has UTC although local times are wanted.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "TZ is the host's own, and no option")]
pub(crate) fn zone_warning() -> Option<String> {
    let lacks_zone = OUTPUT.get().is_some_and(|output| output.is_zone_unknown);
    let tz = std::env::var_os("TZ").map(|tz| tz.to_string_lossy().into_owned());
    lacks_zone.then(|| format::unknown_zone(tz.as_deref()))
}

/// Writes panics through the queue of standard error. The standard hook writes directly: a process that has panicked
/// would block there if the stream is not read, and neither serve nor end.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{backtrace}\n"),
            _ => String::new(),
        };
        let text = format!("thread '{name}' {panic}\n{backtrace}");
        write_stderr_as("panic", Level::ERROR, &text);
        finish();
        // One core cannot be lost alone. Builds with `panic = "unwind"`, those of the tests, would go on without it.
        std::process::abort();
    }));
}

/// Whether text for the log may have colors: the log is a terminal, and color is not forbidden.
#[must_use]
pub(crate) fn has_color() -> bool {
    OUTPUT.get().is_some_and(|output| output.color)
}

/// Lines that the log has lost since the start.
#[must_use]
pub(crate) fn lost_lines() -> LostLines {
    OUTPUT.get().map_or_else(LostLines::default, |output| output.log().losses_since_start())
}

/// Bytes of log lines that wait for their stream, for the metrics.
#[must_use]
pub(crate) fn queued_log_bytes() -> QueuedBytes {
    OUTPUT.get().map_or_else(QueuedBytes::default, |output| output.log().queued_bytes())
}

/// The same for printed events: 0 if none are printed, because standard output has the log then.
#[must_use]
pub(crate) fn queued_printed_bytes() -> QueuedBytes {
    let lane = OUTPUT.get().and_then(Output::printed);
    lane.map_or_else(QueuedBytes::default, OutputLane::queued_bytes)
}

/// Printed events that were lost since the start.
#[must_use]
pub(crate) fn lost_printed() -> u64 {
    let lost = OUTPUT.get().and_then(Output::printed).map(OutputLane::losses_since_start);
    lost.map_or(0, |lost| lost.queue_full + lost.write_failed)
}

#[must_use]
pub(crate) fn is_json() -> bool {
    OUTPUT.get().is_some_and(|output| output.is_json)
}

/// Writes the report of a command that ends by itself to standard output, as it is.
pub(crate) fn log_text(text: &str) {
    log_text_as("notice", text);
}

/// Writes text of several lines to where the log goes: the start message, and what `--debug` shows. In a log of JSON
/// it is the message of this event.
pub(crate) fn log_text_as(event: &str, text: &str) {
    match OUTPUT.get() {
        Some(output) if output.is_json => {
            output.log().push(json::object(event, Level::INFO, &[], text.trim_end(), false));
        }
        Some(output) => drop(output.log().push(text.as_bytes())),
        None => write_unqueued(io::stdout(), text),
    }
}

/// Writes whole lines of events to standard output. If its reader is slow they are dropped and counted.
pub(crate) fn print_events(lines: Vec<u8>) {
    if let Some(output) = OUTPUT.get() {
        output.stdout.push(lines);
    }
}

/// Writes text to standard error: errors and warnings that are no lines of the log.
pub(crate) fn write_stderr(text: &str) {
    write_stderr_as("notice", Level::INFO, text);
}

fn write_stderr_as(event: &str, level: Level, text: &str) {
    match OUTPUT.get() {
        Some(output) if output.is_json => {
            output.stderr.push(json::object(event, level, &[], text.trim_end(), false));
        }
        Some(output) => drop(output.stderr.push(text.as_bytes())),
        None => write_unqueued(io::stderr(), text),
    }
}

/// The kind of a message on standard error: it decides the word before the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoticeKind {
    Error,
    Warning,
    Note,
}

static ERRORS_HAVE_COLOR: AtomicBool = AtomicBool::new(false);

/// Allows color in messages on standard error, if that is a terminal.
pub(crate) fn allow_color(is_wanted: bool) {
    ERRORS_HAVE_COLOR.store(is_wanted && io::stderr().is_terminal(), Ordering::Relaxed);
}

/// Writes a message to standard error, with the word for its kind before it.
pub(crate) fn notice(kind: NoticeKind, text: &str) {
    let (word, paint, level) = match kind {
        NoticeKind::Error => ("error", "\x1b[1;31m", Level::ERROR),
        NoticeKind::Warning => ("warning", "\x1b[1;33m", Level::WARN),
        NoticeKind::Note => ("note", "\x1b[1;36m", Level::INFO),
    };
    if is_json() {
        return write_stderr_as("notice", level, text);
    }
    if ERRORS_HAVE_COLOR.load(Ordering::Relaxed) {
        write_stderr(&format!("{paint}{word}:\x1b[0m {text}\n"));
    } else {
        write_stderr(&format!("{word}: {text}\n"));
    }
}

/// Whether text that goes to standard output may have colors, for commands that end by themselves.
#[must_use]
pub(crate) fn stdout_may_have_color(is_wanted: bool) -> bool {
    is_wanted && io::stdout().is_terminal()
}

/// Writes queued lines, for `FINISH_TIME` at most. Reports on standard error what the log could not write.
pub(crate) fn finish() {
    let Some(output) = OUTPUT.get() else { return };
    let deadline = lane::now() + FINISH_TIME;
    output.stdout.flush(deadline);
    let losses = output.stdout.unreported_losses();
    if !output.prints_events && output.stdout.has_unreported_write_failures() {
        let format = format::LineFormat { color: false, is_json: output.is_json, zone: None };
        let line = match output.is_json {
            true => loss_line(format, "log lines", losses),
            false => format!("warning: {}\n", loss_sentence("log lines", losses)).into_bytes(),
        };
        output.stderr.push(line);
    }
    output.stderr.flush(deadline);
}

/// Ends the process after the queued lines are written.
pub(crate) fn exit(code: i32) -> ! {
    finish();
    std::process::exit(code)
}

fn write_unqueued(mut stream: impl Write, text: &str) {
    // Without the stream there is no way to report the error.
    stream.write_all(text.as_bytes()).and_then(|()| stream.flush()).ok();
}

fn loss_report(format: format::LineFormat) -> LossReport {
    Box::new(move |losses| Reported::Here(loss_line(format, "log lines", losses)))
}

/// Losses of a log that refuses text, for standard error.
fn write_report(line: Vec<u8>) {
    if let Some(output) = OUTPUT.get() {
        output.stderr.push(line);
    }
}

/// `false` also if that is unknown.
fn is_same_file(one: &impl AsFd, other: &impl AsFd) -> bool {
    let name = |stream: BorrowedFd<'_>| {
        let file = File::from(stream.try_clone_to_owned().ok()?).metadata().ok()?;
        Some((file.dev(), file.ino()))
    };
    let name = name(one.as_fd()).zip(name(other.as_fd()));
    name.is_some_and(|(one, other)| one == other)
}

fn loss_line(format: format::LineFormat, what: &str, losses: LostLines) -> Vec<u8> {
    let text = loss_sentence(what, losses);
    if !format.is_json {
        return format::line_without_event(Level::WARN, format, &text);
    }
    let LostLines { queue_full: unread, write_failed: unwritten, over_rate, .. } = losses;
    let members =
        format!(",\"unread\":{unread},\"unwritten\":{unwritten},\"over_rate\":{over_rate}");
    json::object("lines_lost", Level::WARN, members.as_bytes(), &text, false)
}

/// The report for the stream of printed events goes to the log, because a stream of data for programs has no sentences.
fn report_in_log(format: format::LineFormat) -> LossReport {
    Box::new(move |losses| {
        let line = loss_line(format, "events of --print-events", losses);
        match OUTPUT.get() {
            Some(output) if output.stderr.push(line) => Reported::Elsewhere,
            _ => Reported::NotYet,
        }
    })
}

fn loss_sentence(what: &str, losses: LostLines) -> String {
    let LostLines { queue_full: unread, write_failed: unwritten, last_error, over_rate } = losses;
    let mut text = format!("{what} were lost:");
    if unread > 0 {
        text += &format!(" unread={unread}");
    }
    if unwritten > 0 {
        let error = io::Error::from_raw_os_error(last_error);
        text += &format!(" unwritten={unwritten} error=\"{error}\"");
    }
    if over_rate > 0 {
        text += &format!(" over_rate={over_rate}");
    }
    text
}

impl Output {
    fn log(&self) -> &OutputLane {
        if self.prints_events { &self.stderr } else { &self.stdout }
    }

    /// The stream of printed events; `None` if none are printed.
    fn printed(&self) -> Option<&OutputLane> {
        self.prints_events.then_some(&self.stdout)
    }

    fn log_line(&self, line: &[u8], budget: Option<&RateBudget>) {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if budget.is_some_and(|budget| !budget.try_spend(line.len(), nanos)) {
            self.log().count_over_rate();
        } else {
            self.log().push(line);
        }
    }
}

/// Makes a writer for each line of `tracing`, with the budget of the line's target.
struct LogWriters;

struct LineWriter {
    budget: fn(&Output) -> Option<&RateBudget>,
}

impl MakeWriter<'_> for LogWriters {
    type Writer = LineWriter;

    fn make_writer(&self) -> LineWriter {
        LineWriter { budget: |output| Some(&output.log_budget) }
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> LineWriter {
        match *metadata.level() {
            Level::DEBUG | Level::TRACE => LineWriter { budget: |_| None },
            _ if metadata.target() == PEER => {
                LineWriter { budget: |output| Some(&output.peer_budget) }
            }
            _ if metadata.target() == ACCESS => {
                LineWriter { budget: |output| Some(&output.access_budget) }
            }
            _ => self.make_writer(),
        }
    }
}

/// Never fails: a line that finds no room is counted.
impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(output) = OUTPUT.get() {
            output.log_line(line, (self.budget)(output));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::report_panics;

    /// The test starts its own program again, in which a thread panics.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the second process learns its part from it")]
    fn a_panic_of_any_thread_ends_the_process_with_its_text() {
        const TEST: &str = "output::tests::a_panic_of_any_thread_ends_the_process_with_its_text";
        const PART: &str = "RINGVERB_TEST_PANICS";
        if std::env::var_os(PART).is_some() {
            report_panics();
            // If it only ended the thread, this process would end with success.
            let _ = std::thread::spawn(|| panic!("a planted panic")).join();
            return;
        }
        let program = std::env::current_exe().expect("this program");
        let arguments = [TEST, "--exact", "--nocapture"];
        let output = Command::new(program).args(arguments).env(PART, "1").output();
        let output = output.expect("a second process");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{:?}: {text}", output.status);
        assert!(text.contains("a planted panic"), "{text}");
    }
}
