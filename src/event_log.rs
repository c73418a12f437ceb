//! The event log of the console: what happens on the server, passed from the threads where it happens to the thread
//! `admin`.
//!
//! Owns one feed for each worker and one for the senders of webhooks. Does not know the viewers: `server/admin/viewers`
//! reads all feeds for them. A thread adds events to its own feed only, and the reader takes all events of a feed at
//! once, under the feed's lock. A worker only tries that lock: if the reader has it, the worker keeps its events until
//! its next tick, so it never waits. Limit: `FEED_EVENTS_MAX` events for each feed; more are counted as lost. Cost:
//! without a viewer one atomic load a tick and nothing is added; with one, a lock that is tried once a tick, and a copy
//! of each event's entry.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::app::AppIndex;
use crate::counters::{Counter, DepthGauge};
use crate::pusher::socket_id::SocketId;

/// Events that wait in one feed: what the reader does not take in time is lost, and counted.
pub(crate) const FEED_EVENTS_MAX: usize = 2_048;
/// Bytes of the text of an event. A payload is longer at times, and the log shows its beginning.
pub(crate) const TEXT_BYTES_MAX: usize = 1_024;

listed! {
    /// The kinds of events. The names are in the stream and in its filter; they do not change.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum EventLogKind {
        Connected => "connected",
        Disconnected => "disconnected",
        Subscribed => "subscribed",
        Unsubscribed => "unsubscribed",
        SignedIn => "signed_in",
        Refused => "refused",
        ApiEvent => "api_event",
        ClientEvent => "client_event",
        Webhook => "webhook",
    }
}

impl EventLogKind {
    #[must_use]
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct EventLogEntry {
    pub unix_ms: u64,
    pub kind: EventLogKind,
    /// `None`: it belongs to no app, such as a request that is no HTTP.
    pub app: Option<AppIndex>,
    pub socket_id: Option<SocketId>,
    pub channel: Option<Arc<str>>,
    /// The cause of a refusal, or how a connection ended.
    pub cause: &'static str,
    /// A line of the log, a payload, or a user id.
    pub text: Box<str>,
}

/// The beginning of a text, at most `TEXT_BYTES_MAX` bytes of it, with an ellipsis if it was cut.
#[must_use]
pub(crate) fn cut_text(text: &[u8]) -> Box<str> {
    let is_cut = text.len() > TEXT_BYTES_MAX;
    let text = String::from_utf8_lossy(text.get(..TEXT_BYTES_MAX).unwrap_or(text));
    let text =
        if is_cut { Cow::Owned(format!("{}…", text.trim_end_matches('\u{fffd}'))) } else { text };
    text.into()
}

#[expect(
    clippy::disallowed_types,
    reason = "held for an append or a swap; a worker only tries, and only while there is a viewer"
)]
type FeedQueue = std::sync::Mutex<Vec<EventLogEntry>>;

#[derive(Debug, Default)]
struct EventLogFeed {
    events: FeedQueue,
    /// Changed by the thread that has locked `events`.
    depth: DepthGauge,
    lost_count: Counter,
}

/// What waits for viewers, and what they were not sent. The reader writes it.
#[derive(Debug, Default)]
pub(crate) struct ViewerCounters {
    /// Events that wait for the viewer who has most.
    pub waiting: DepthGauge,
    pub lost_count: Counter,
}

#[derive(Debug)]
pub(crate) struct EventLog {
    is_watched: AtomicBool,
    /// One for each worker, then that of the senders of webhooks.
    feeds: Box<[EventLogFeed]>,
    pub viewers: ViewerCounters,
}

impl EventLog {
    #[must_use]
    pub(crate) fn new(workers: usize) -> Self {
        let feeds = (0..=workers).map(|_| EventLogFeed::default()).collect();
        Self { is_watched: AtomicBool::new(false), feeds, viewers: ViewerCounters::default() }
    }

    /// Without a viewer, no thread makes events.
    #[must_use]
    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    /// There is a viewer from now on, or none. What waits is dropped: it is of an earlier look.
    pub(crate) fn set_watched(&self, is_watched: bool) {
        if self.is_watched.swap(is_watched, Ordering::Relaxed) != is_watched {
            self.drain_all(&mut Vec::new());
        }
    }

    /// Adds a worker's events, unless the reader has the lock right now. Those without room are counted.
    pub(crate) fn push(&self, worker: usize, events: &mut Vec<EventLogEntry>) {
        let Some(feed) = self.feeds.get(worker) else { return };
        if let Ok(mut waiting) = feed.events.try_lock() {
            let room = FEED_EVENTS_MAX.saturating_sub(waiting.len()).min(events.len());
            feed.lost_count.add((events.len() - room) as u64);
            waiting.extend(events.drain(..room));
            debug_assert!(waiting.len() <= FEED_EVENTS_MAX, "what has no room is lost");
            feed.depth.set(waiting.len() as u64);
            events.clear();
        } else if events.len() > FEED_EVENTS_MAX {
            feed.lost_count.add((events.len() - FEED_EVENTS_MAX) as u64);
            events.truncate(FEED_EVENTS_MAX);
        }
    }

    /// Events that were lost before they came here, because the worker's outbox was full.
    pub(crate) fn add_lost(&self, worker: usize, count: u64) {
        if let Some(feed) = self.feeds.get(worker) {
            feed.lost_count.add(count);
        }
    }

    /// Adds an event of a sender of webhooks. It may wait for another sender for a moment.
    pub(crate) fn push_webhook(&self, event: EventLogEntry) {
        let Some(feed) = self.feeds.last() else { return };
        let mut waiting = feed.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if waiting.len() < FEED_EVENTS_MAX {
            waiting.push(event);
            feed.depth.set(waiting.len() as u64);
        } else {
            feed.lost_count.add(1);
        }
    }

    /// Of all feeds, since the start.
    #[must_use]
    pub(crate) fn lost_count(&self) -> u64 {
        self.feeds.iter().map(|feed| feed.lost_count.get()).sum()
    }

    /// How many events wait in the feed of each worker, and last in that of the senders of webhooks.
    pub(crate) fn depths(&self) -> impl ExactSizeIterator<Item = &DepthGauge> {
        self.feeds.iter().map(|feed| &feed.depth)
    }

    /// Appends all events that wait to `out`, and sorts it by time. Returns `lost_count`.
    pub(crate) fn drain_all(&self, out: &mut Vec<EventLogEntry>) -> u64 {
        for feed in &self.feeds {
            let mut waiting = feed.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            out.append(&mut waiting);
            feed.depth.set(0);
        }
        out.sort_by_key(|event| event.unix_ms);
        self.lost_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(unix_ms: u64) -> EventLogEntry {
        let (app, socket_id, channel) = (None, None, None);
        let (kind, cause, text) = (EventLogKind::Refused, "", "".into());
        EventLogEntry { unix_ms, kind, app, socket_id, channel, cause, text }
    }

    #[test]
    fn events_of_all_threads_are_read_by_time_and_those_without_room_are_counted() {
        let log = EventLog::new(2);
        log.push(1, &mut vec![event(3), event(5)]);
        log.push_webhook(event(4));
        log.push(0, &mut vec![event(1)]);
        let mut out = Vec::new();
        assert_eq!(log.drain_all(&mut out), 0);
        assert_eq!(out.iter().map(|event| event.unix_ms).collect::<Vec<_>>(), [1, 3, 4, 5]);
        let mut many: Vec<_> = (0..FEED_EVENTS_MAX as u64 + 7).map(event).collect();
        log.push(0, &mut many);
        assert!(many.is_empty());
        let depths = || log.depths().map(|feed| (feed.depth(), feed.peak())).collect::<Vec<_>>();
        let max = FEED_EVENTS_MAX as u64;
        assert_eq!(depths(), [(max, max), (0, 2), (0, 1)]);
        log.add_lost(0, 3);
        out.clear();
        assert_eq!(log.drain_all(&mut out), 10);
        assert_eq!(out.len(), FEED_EVENTS_MAX);
        assert_eq!(depths()[0], (0, max), "none waits, and the peak stays");
    }

    #[test]
    fn a_worker_keeps_its_events_while_the_reader_has_the_lock() {
        let log = EventLog::new(1);
        let held = log.feeds[0].events.lock().unwrap();
        let mut events = vec![event(1)];
        log.push(0, &mut events);
        assert_eq!(events.len(), 1);
        drop(held);
        log.push(0, &mut events);
        assert!(events.is_empty());
    }

    #[test]
    fn waiting_events_are_dropped_when_the_last_viewer_leaves() {
        let log = EventLog::new(1);
        log.set_watched(true);
        log.push(0, &mut vec![event(1)]);
        log.set_watched(false);
        let mut out = Vec::new();
        log.drain_all(&mut out);
        assert!(out.is_empty() && !log.is_watched());
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(&*cut_text(b"short"), "short");
        let text = "é".repeat(TEXT_BYTES_MAX);
        let cut = cut_text(&text.as_bytes()[1..]);
        assert!(cut.len() <= TEXT_BYTES_MAX + 8 && cut.ends_with("é…"), "{cut}");
    }
}
