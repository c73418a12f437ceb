//! One stream of the process (standard output or standard error), written by a thread of its own.
//!
//! Owns one queue and one thread; knows nothing of levels and formats. Other threads push text into a bounded queue and
//! never wait. Only the thread of the stream waits: for a pipe without a reader, a terminal that Ctrl-S has stopped, a
//! slow disk. Text that finds the queue full is discarded and counted, and so is text that cannot be written. One line
//! reports the losses when the stream accepts text again, also if no other text comes. If the stream refuses the report
//! (a full disk), the other stream of the process has it, once a minute. Does not lose the order of texts.
//!
//! Limits: those of `Bounds`. Text over them is discarded and counted. Cost: for a text that is pushed, a few atomics
//! and one copy of its bytes by the thread; one system call for up to `BATCH_BYTES`.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// What may wait for the thread. A text over either limit is discarded and counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) texts_max: usize,
    /// A larger text is accepted only when the queue is empty.
    pub(super) bytes_max: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LostLines {
    /// Lines that found the queue full, because the reader of the stream was too slow.
    pub queue_full: u64,
    /// Lines that the stream refused, for example because the disk is full.
    pub write_failed: u64,
    /// The number of the last error of the stream; 0 if there was none.
    pub last_error: i32,
    /// Lines that the rate limit (`budget.rs`) left out.
    pub over_rate: u64,
}

impl LostLines {
    pub(super) fn is_none(&self) -> bool {
        self.queue_full + self.write_failed + self.over_rate == 0
    }
}

/// Reports losses. If the report cannot be written now, the losses are reported later.
pub(super) type LossReport = Box<dyn Fn(LostLines) -> Reported + Send>;

/// Writes the report of a stream that refuses it to another stream.
pub(super) type ReportElsewhere = Box<dyn Fn(Vec<u8>) + Send>;

pub(super) enum Reported {
    /// A line to write to this stream itself.
    Here(Vec<u8>),
    /// The report is in another stream.
    Elsewhere,
    /// The other stream has no room, so the losses stay unreported.
    NotYet,
}

enum QueueEntry {
    Text(Box<[u8]>),
    /// Answered once all that was pushed before has been written or is lost.
    Flush(SyncSender<()>),
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueuedBytes {
    pub(crate) now: usize,
    /// The most bytes at a time since the start.
    pub(crate) peak: usize,
}

#[derive(Debug, Default)]
struct LossCounts {
    queued_bytes: AtomicUsize,
    queued_bytes_peak: AtomicUsize,
    queue_full: LossCount,
    write_failed: LossCount,
    last_error: AtomicI32,
    over_rate: LossCount,
    /// Of the unreported lines that could not be written, those in the last report to the other stream.
    write_failed_elsewhere: AtomicU64,
}

#[derive(Debug, Default)]
struct LossCount {
    unreported: AtomicU64,
    since_start: AtomicU64,
}

impl LossCount {
    fn add(&self, lines: u64) {
        self.unreported.fetch_add(lines, Ordering::Relaxed);
        self.since_start.fetch_add(lines, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct OutputLane {
    queue: SyncSender<QueueEntry>,
    counts: Arc<LossCounts>,
    bytes_max: usize,
}

/// Most bytes of one write, unless a single text is longer.
const BATCH_BYTES: usize = 64 * 1024;
/// Time between two reports while losses continue.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Time between two reports of lines over the rate alone, which a flood causes for hours, and between two reports to
/// the other stream.
const REPORT_RATE_EVERY: Duration = Duration::from_secs(60);

impl OutputLane {
    /// The system refuses a thread.
    pub(super) fn start(
        name: &str,
        stream: impl AsFd + Send + 'static,
        bounds: Bounds,
        report: LossReport,
        elsewhere: Option<ReportElsewhere>,
    ) -> io::Result<Self> {
        let (queue, entries) = mpsc::sync_channel(bounds.texts_max);
        let counts = Arc::new(LossCounts::default());
        let mut writer = Writer {
            stream,
            counts: counts.clone(),
            report,
            reported_at: None,
            elsewhere,
            reported_elsewhere_at: None,
            is_torn: false,
            batch: Vec::new(),
        };
        let thread = std::thread::Builder::new().name(name.to_owned());
        // The thread is not joined: a write that never ends must not delay the end of the process.
        thread.spawn(move || writer.write_until_closed(&entries))?;
        Ok(Self { queue, counts, bytes_max: bounds.bytes_max })
    }

    /// Queues whole lines for the thread. `false`: the queue had no room, and they are counted as lost.
    pub(super) fn push(&self, text: impl Into<Box<[u8]>>) -> bool {
        let text = text.into();
        let (bytes, lines) = (text.len(), count_lines(&text));
        let before = self.counts.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        let fits = before == 0 || before + bytes <= self.bytes_max;
        if fits && self.queue.try_send(QueueEntry::Text(text)).is_ok() {
            self.counts.queued_bytes_peak.fetch_max(before + bytes, Ordering::Relaxed);
            return true;
        }
        self.counts.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.counts.queue_full.add(lines);
        false
    }

    pub(super) fn count_over_rate(&self) {
        self.counts.over_rate.add(1);
    }

    /// Bytes that wait for the thread, for the metrics of the log.
    pub(super) fn queued_bytes(&self) -> QueuedBytes {
        QueuedBytes {
            now: self.counts.queued_bytes.load(Ordering::Relaxed),
            peak: self.counts.queued_bytes_peak.load(Ordering::Relaxed),
        }
    }

    /// Losses since the start, reported or not.
    pub(super) fn losses_since_start(&self) -> LostLines {
        self.counts.losses(|count| &count.since_start)
    }

    pub(super) fn unreported_losses(&self) -> LostLines {
        self.counts.losses(|count| &count.unreported)
    }

    /// Whether lines could not be written that are in no report, neither here nor in the other stream.
    pub(super) fn has_unreported_write_failures(&self) -> bool {
        let elsewhere = self.counts.write_failed_elsewhere.load(Ordering::Relaxed);
        self.unreported_losses().write_failed > elsewhere
    }

    /// Waits until all that was pushed before is written or lost, or until the deadline. Returns whether it is.
    pub(super) fn flush(&self, deadline: Instant) -> bool {
        /// Pause between two attempts to put the flush request into a full queue.
        const RETRY_PAUSE: Duration = Duration::from_millis(5);
        let (done, is_done) = mpsc::sync_channel(1);
        let mut question = QueueEntry::Flush(done);
        loop {
            match self.queue.try_send(question) {
                Ok(()) => return is_done.recv_timeout(time_until(deadline)).is_ok(),
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(back)) => question = back,
            }
            let left = time_until(deadline);
            if left.is_zero() {
                return false;
            }
            // Nothing is ever sent on this channel yet: the wait is a pause.
            is_done.recv_timeout(RETRY_PAUSE.min(left)).ok();
        }
    }
}

impl LossCounts {
    fn losses(&self, which: fn(&LossCount) -> &AtomicU64) -> LostLines {
        let read = |count| which(count).load(Ordering::Relaxed);
        LostLines {
            queue_full: read(&self.queue_full),
            write_failed: read(&self.write_failed),
            last_error: self.last_error.load(Ordering::Relaxed),
            over_rate: read(&self.over_rate),
        }
    }

    fn subtract_reported(&self, reported: LostLines) {
        self.queue_full.unreported.fetch_sub(reported.queue_full, Ordering::Relaxed);
        self.write_failed.unreported.fetch_sub(reported.write_failed, Ordering::Relaxed);
        self.over_rate.unreported.fetch_sub(reported.over_rate, Ordering::Relaxed);
        self.write_failed_elsewhere.store(0, Ordering::Relaxed);
    }
}

struct Writer<S> {
    stream: S,
    counts: Arc<LossCounts>,
    report: LossReport,
    reported_at: Option<Instant>,
    elsewhere: Option<ReportElsewhere>,
    /// `None`: the stream has accepted a report since then.
    reported_elsewhere_at: Option<Instant>,
    /// The last write ended within a line, so that the next one begins with a line feed.
    is_torn: bool,
    batch: Vec<u8>,
}

impl<S: AsFd> Writer<S> {
    /// Writes texts in their order. Returns when all senders were dropped; otherwise the thread ends with the process.
    fn write_until_closed(&mut self, entries: &Receiver<QueueEntry>) {
        while let Some(first) = self.receive(entries) {
            let flushed = self.collect_batch(first, entries);
            if self.counts.losses(|count| &count.unreported).write_failed > 0 {
                self.report_losses(flushed.is_some());
            }
            self.write_batch();
            let is_idle = self.counts.queued_bytes.load(Ordering::Acquire) == 0;
            if is_idle || flushed.is_some() {
                self.report_losses(flushed.is_some());
            }
            if let Some(flushed) = flushed {
                // The caller of `flush` may have stopped waiting.
                flushed.try_send(()).ok();
            }
        }
    }

    /// The next entry. Reports losses while there is none. `None`: all senders were dropped.
    fn receive(&mut self, entries: &Receiver<QueueEntry>) -> Option<QueueEntry> {
        loop {
            let losses = self.counts.losses(|count| &count.unreported);
            if losses.queue_full + losses.write_failed == 0 {
                return entries.recv().ok();
            }
            match entries.recv_timeout(REPORT_EVERY) {
                Err(RecvTimeoutError::Timeout) => self.report_losses(false),
                received => return received.ok(),
            }
        }
    }

    /// Collects what waits into one batch. Stops at a flush, and returns who waits for it.
    fn collect_batch(
        &mut self,
        first: QueueEntry,
        entries: &Receiver<QueueEntry>,
    ) -> Option<SyncSender<()>> {
        self.batch.clear();
        let mut next = Ok(first);
        loop {
            match next {
                Ok(QueueEntry::Text(text)) => self.batch.extend_from_slice(&text),
                Ok(QueueEntry::Flush(done)) => return Some(done),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
            if self.batch.len() >= BATCH_BYTES {
                return None;
            }
            next = entries.try_recv();
        }
    }

    fn write_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let result = self.write(&batch);
        if let Err((written, error)) = result {
            self.counts.write_failed.add(count_lines(&batch[written..]));
            self.counts.last_error.store(error.raw_os_error(), Ordering::Relaxed);
        }
        self.counts.queued_bytes.fetch_sub(batch.len(), Ordering::AcqRel);
        self.batch = batch;
        // One large text must not keep its memory for ever.
        self.batch.clear();
        self.batch.shrink_to(BATCH_BYTES);
    }

    /// Writes all of it, however long the stream takes. An error comes with the number of bytes that were written
    /// before.
    fn write(&mut self, text: &[u8]) -> Result<(), (usize, Errno)> {
        if text.is_empty() {
            return Ok(());
        }
        if self.is_torn {
            // The torn line stays a line of its own.
            self.write_all(b"\n").map_err(|(_, error)| (0, error))?;
            self.is_torn = false;
        }
        let result = self.write_all(text);
        let written = result.map_or_else(|(written, _)| written, |()| text.len());
        self.is_torn = text[..written].last().is_some_and(|byte| *byte != b'\n');
        result
    }

    fn write_all(&self, text: &[u8]) -> Result<(), (usize, Errno)> {
        let mut written = 0;
        while written < text.len() {
            match rustix::io::write(&self.stream, &text[written..]) {
                Ok(0) => return Err((written, Errno::IO)),
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                // Another process has set O_NONBLOCK on the file that we share with it.
                Err(Errno::AGAIN) => {
                    match poll(&mut [PollFd::new(&self.stream, PollFlags::OUT)], None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err((written, error)),
                    }
                }
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }

    /// Reports unreported losses, at most once in `REPORT_EVERY`. At a flush a report is always due, because the
    /// process may end.
    fn report_losses(&mut self, is_end: bool) {
        let losses = self.counts.losses(|count| &count.unreported);
        if losses.is_none() {
            return;
        }
        let now = now();
        let is_rate_alone = losses.queue_full + losses.write_failed == 0;
        let every = if is_rate_alone { REPORT_RATE_EVERY } else { REPORT_EVERY };
        if !is_end && self.reported_at.is_some_and(|at| now.duration_since(at) < every) {
            return;
        }
        self.reported_at = Some(now);
        let is_reported = match (self.report)(losses) {
            Reported::Here(line) => {
                let is_written = self.write(&line).is_ok();
                self.report_elsewhere(line, losses, is_written, now);
                is_written
            }
            Reported::Elsewhere => true,
            Reported::NotYet => false,
        };
        if is_reported {
            self.counts.subtract_reported(losses);
        }
    }
}

impl<S> Writer<S> {
    /// The losses stay unreported here, so that this stream has their sum later.
    fn report_elsewhere(
        &mut self,
        line: Vec<u8>,
        losses: LostLines,
        is_written: bool,
        now: Instant,
    ) {
        let is_due = |at: Instant| now.duration_since(at) >= REPORT_RATE_EVERY;
        if is_written {
            self.reported_elsewhere_at = None;
        } else if self.reported_elsewhere_at.is_none_or(is_due)
            && let Some(elsewhere) = &self.elsewhere
        {
            elsewhere(line);
            self.counts.write_failed_elsewhere.store(losses.write_failed, Ordering::Relaxed);
            self.reported_elsewhere_at = Some(now);
        }
    }
}

fn count_lines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count().max(usize::from(!text.is_empty())) as u64
}

fn time_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(now())
}

#[expect(clippy::disallowed_methods, reason = "the log is no part of a tick")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
