//! Viewers of the event log: the open streams, the filter of each, and the events that wait for each.
//!
//! Owns the queues of all viewers. The first viewer switches the log on, and the last one switches it off
//! (`event_log`). Whichever viewer comes first takes the events of all threads and gives each viewer those that its
//! filter passes. A viewer that reads too slowly loses events: they are counted, and the number is in its stream. Does
//! not format an event (`api/event.rs`).
//! Limits: `VIEWERS_MAX`; for each, `WAITING_MAX` events and `WAITING_BYTES_MAX` bytes. Cost: one allocation for an
//! event, one comparison with the filter of each viewer, one copy of a pointer for each that passes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::api::{Parameters, event_json, parse_socket_id};
use crate::app::Apps;
use serde_json::json;

use crate::event_log::{EventLog, EventLogEntry, EventLogKind};
use crate::pusher::socket_id::SocketId;
use crate::text::shown;

const VIEWERS_MAX: usize = 8;
/// About as many as one thread keeps for all viewers (`event_log::FEED_EVENTS_MAX`).
const WAITING_MAX: usize = 2_000;
/// Bytes of the events that wait for one viewer. A payload in an event has up to `TEXT_BYTES_MAX` bytes.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// A viewer receives the events that match all fields that are set.
#[derive(Debug, Default)]
pub(super) struct ViewFilter {
    app: Option<Box<str>>,
    /// The channel's name contains this text.
    channel: Option<Box<str>>,
    socket_id: Option<SocketId>,
    /// Empty: all kinds.
    kinds: Vec<EventLogKind>,
}

impl ViewFilter {
    /// # Errors
    /// A sentence about the parameter that is wrong.
    pub(super) fn read(parameters: &Parameters<'_>) -> Result<Self, String> {
        let text = |name| parameters.get(name).map(Into::into);
        let kinds = parameters.get("kind").into_iter().flat_map(|kinds| kinds.split(','));
        let kinds = kinds.map(|name| {
            EventLogKind::parse(name).ok_or_else(|| {
                let all = EventLogKind::ALL.map(EventLogKind::name).join(", ");
                format!("kind has {}, but takes {all}", shown(name))
            })
        });
        Ok(Self {
            app: text("app"),
            channel: text("channel"),
            socket_id: parameters.get("socket_id").map(parse_socket_id).transpose()?,
            kinds: kinds.collect::<Result<_, _>>()?,
        })
    }

    fn passes(&self, event: &EventLogEntry, apps: &Apps) -> bool {
        let app = event.app.and_then(|app| apps.find(app));
        let is_app = |id: &str| app.is_some_and(|app| app.id == id);
        let is_channel =
            |part: &str| event.channel.as_ref().is_some_and(|name| name.contains(part));
        let is_socket = |id: SocketId| event.socket_id == Some(id);
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.app.as_deref().is_none_or(is_app)
            && self.channel.as_deref().is_none_or(is_channel)
            && self.socket_id.is_none_or(is_socket)
    }
}

#[derive(Debug)]
struct ViewQueue {
    filter: ViewFilter,
    waiting: RefCell<VecDeque<Rc<EventLogEntry>>>,
    waiting_bytes: Cell<usize>,
    lost_events: Cell<u64>,
}

impl ViewQueue {
    /// `false`: there is no room, so the event is lost for this viewer.
    fn try_push(&self, event: &Rc<EventLogEntry>) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let bytes = self.waiting_bytes.get() + bytes_of(event);
        let has_room = waiting.len() < WAITING_MAX && bytes <= WAITING_BYTES_MAX;
        if has_room {
            waiting.push_back(event.clone());
            self.waiting_bytes.set(bytes);
        } else {
            self.lost_events.set(self.lost_events.get() + 1);
        }
        has_room
    }

    fn pop(&self) -> Option<Rc<EventLogEntry>> {
        let event = self.waiting.borrow_mut().pop_front()?;
        self.waiting_bytes.set(self.waiting_bytes.get().saturating_sub(bytes_of(&event)));
        Some(event)
    }
}

fn bytes_of(event: &EventLogEntry) -> usize {
    size_of::<EventLogEntry>()
        + event.text.len()
        + event.channel.as_ref().map_or(0, |name| name.len())
}

pub(super) struct Viewers {
    event_log: Arc<EventLog>,
    apps: Box<dyn Fn() -> Arc<Apps>>,
    queues: RefCell<Vec<Rc<ViewQueue>>>,
    /// Events that the threads had no room for, since the start. A viewer is shown those that were lost since it came.
    lost_events: Cell<u64>,
}

impl Viewers {
    pub(super) fn new(event_log: Arc<EventLog>, apps: impl Fn() -> Arc<Apps> + 'static) -> Self {
        let apps = Box::new(apps);
        Self { event_log, apps, queues: RefCell::default(), lost_events: Cell::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.queues.borrow().len()
    }

    /// Counted since the start, and only while there was a viewer: without one nothing is recorded.
    pub(super) fn lost_events(&self) -> u64 {
        self.lost_events.get()
    }

    /// # Errors
    /// A sentence if there are too many.
    pub(super) fn add_viewer(self: &Rc<Self>, filter: ViewFilter) -> Result<Viewer, String> {
        let mut queues = self.queues.borrow_mut();
        if queues.len() >= VIEWERS_MAX {
            return Err(format!(
                "{VIEWERS_MAX} viewers look at the event log already, which is the limit. Close one."
            ));
        }
        let (waiting, waiting_bytes) = (RefCell::default(), Cell::new(0));
        let queue = ViewQueue { filter, waiting, waiting_bytes, lost_events: Cell::new(0) };
        let queue = Rc::new(queue);
        queues.push(queue.clone());
        self.event_log.set_watched(true);
        Ok(Viewer { viewers: self.clone(), queue })
    }

    /// Called whenever a viewer looks. The events are taken from the threads once, and given to all viewers.
    fn distribute(&self) {
        let mut events = Vec::new();
        let lost = self.event_log.drain_all(&mut events);
        let newly_lost = lost - self.lost_events.replace(lost);
        let apps = (self.apps)();
        let queues = self.queues.borrow();
        for queue in queues.iter() {
            queue.lost_events.set(queue.lost_events.get() + newly_lost);
        }
        for event in events {
            let event = Rc::new(event);
            for queue in queues.iter().filter(|queue| queue.filter.passes(&event, &apps)) {
                if !queue.try_push(&event) {
                    self.event_log.viewers.lost_count.add(1);
                }
            }
        }
        drop(queues);
        self.note_waiting();
    }

    /// Publishes how much waits for the viewer who has most.
    fn note_waiting(&self) {
        let queues = self.queues.borrow();
        let waiting = queues.iter().map(|queue| queue.waiting.borrow().len()).max();
        self.event_log.viewers.waiting.set(waiting.unwrap_or(0) as u64);
    }
}

/// Dropped, it switches the log off if it was the last viewer.
pub(super) struct Viewer {
    viewers: Rc<Viewers>,
    queue: Rc<ViewQueue>,
}

impl Viewer {
    /// The new events as server-sent events; empty if nothing has happened since the last call.
    pub(super) fn next_events(&self) -> Vec<u8> {
        self.viewers.distribute();
        let mut out = Vec::new();
        let apps = (self.viewers.apps)();
        // As JSON an event can be six times as long, so the rest waits for the next call.
        while out.len() < WAITING_BYTES_MAX
            && let Some(event) = self.queue.pop()
        {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(event_json(&event, &apps).to_string().as_bytes());
            out.extend_from_slice(b"\n\n");
        }
        self.viewers.note_waiting();
        let lost = self.queue.lost_events.take();
        if lost > 0 {
            out.extend_from_slice(
                format!("data: {}\n\n", json!({ "kind": "lost", "count": lost })).as_bytes(),
            );
        }
        out
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut queues = self.viewers.queues.borrow_mut();
        queues.retain(|queue| !Rc::ptr_eq(queue, &self.queue));
        if queues.is_empty() {
            self.viewers.event_log.set_watched(false);
        }
        drop(queues);
        self.viewers.note_waiting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{AppIndex, sample};

    fn event(kind: EventLogKind, channel: &str) -> EventLogEntry {
        EventLogEntry {
            unix_ms: 7,
            kind,
            app: Some(AppIndex(0)),
            socket_id: SocketId::parse("1.2"),
            channel: Some(channel.into()),
            cause: "",
            text: "line\n\"".into(),
        }
    }

    fn viewers() -> (Arc<EventLog>, Rc<Viewers>) {
        let event_log = Arc::new(EventLog::new(1));
        let apps = Arc::new(Apps::new(vec![sample()]));
        (event_log.clone(), Rc::new(Viewers::new(event_log, move || apps.clone())))
    }

    fn filter(query: &str) -> ViewFilter {
        ViewFilter::read(&Parameters::of(query)).unwrap()
    }

    fn text(viewer: &Viewer) -> String {
        String::from_utf8(viewer.next_events()).unwrap()
    }

    #[test]
    fn each_viewer_receives_the_events_that_pass_its_filter() {
        let (event_log, viewers) = viewers();
        let all = viewers.add_viewer(filter("")).unwrap();
        let some =
            viewers.add_viewer(filter("kind=refused,subscribed&channel=orders&app=1001")).unwrap();
        let none = viewers.add_viewer(filter("app=other")).unwrap();
        event_log.push(
            0,
            &mut vec![
                event(EventLogKind::Subscribed, "private-orders.1"),
                event(EventLogKind::Subscribed, "news"),
                event(EventLogKind::ApiEvent, "private-orders.1"),
            ],
        );
        assert_eq!(text(&all).matches("data: ").count(), 3);
        let expected = json!({
            "at": 7, "kind": "subscribed", "app": "1001", "socket_id": "1.2",
            "channel": "private-orders.1", "text": "line\n\""
        });
        let expected = format!("data: {expected}\n\n");
        assert_eq!(text(&some), expected);
        assert_eq!(text(&none), "");
        assert!(ViewFilter::read(&Parameters::of("kind=all")).unwrap_err().contains("subscribed"));
    }

    #[test]
    fn an_event_of_an_app_that_the_list_does_not_have_yet_is_shown_without_its_id() {
        let (event_log, viewers) = viewers();
        let all = viewers.add_viewer(filter("")).unwrap();
        let some = viewers.add_viewer(filter("app=1001")).unwrap();
        let newer = EventLogEntry { app: Some(AppIndex(7)), ..event(EventLogKind::Connected, "c") };
        event_log.push(0, &mut vec![newer]);
        assert!(text(&all).starts_with("data: {\"at\":7,\"channel\":\"c\",\"kind\":\"connected\""));
        assert_eq!(text(&some), "");
    }

    #[test]
    fn the_event_log_is_on_while_there_is_a_viewer() {
        let (event_log, viewers) = viewers();
        assert!(!event_log.is_watched());
        let mut all: Vec<_> = std::iter::from_fn(|| viewers.add_viewer(filter("")).ok()).collect();
        assert_eq!(all.len(), VIEWERS_MAX);
        assert!(event_log.is_watched());
        all.pop();
        assert!(event_log.is_watched() && viewers.len() == VIEWERS_MAX - 1);
        all.clear();
        assert!(!event_log.is_watched());
    }

    #[test]
    fn a_viewer_that_does_not_read_loses_events_and_is_shown_the_number() {
        let (event_log, viewers) = viewers();
        let (slow, quick) =
            (viewers.add_viewer(filter("")).unwrap(), viewers.add_viewer(filter("")).unwrap());
        for _ in 0..3 {
            event_log.push(0, &mut vec![event(EventLogKind::ClientEvent, "c"); 1_000]);
            quick.next_events();
        }
        event_log.add_lost(0, 5);
        let read = text(&slow);
        assert_eq!(read.matches("client_event").count(), WAITING_MAX);
        assert!(read.ends_with("data: {\"count\":1005,\"kind\":\"lost\"}\n\n"), "1,000 and 5");
        assert_eq!(text(&quick), "data: {\"count\":5,\"kind\":\"lost\"}\n\n");
        assert_eq!(viewers.lost_events(), 5);
        let counters = &event_log.viewers;
        assert_eq!(counters.lost_count.get(), 1_000, "of the slow one alone");
        assert_eq!((counters.waiting.depth(), counters.waiting.peak()), (0, WAITING_MAX as u64));
    }

    #[test]
    fn the_bytes_that_wait_for_a_viewer_are_limited() {
        let (event_log, viewers) = viewers();
        let (slow, quick) =
            (viewers.add_viewer(filter("")).unwrap(), viewers.add_viewer(filter("")).unwrap());
        let mut large = event(EventLogKind::ClientEvent, "c");
        large.text = "\u{1}".repeat(WAITING_BYTES_MAX / 8).into();
        for _ in 0..2 {
            event_log.push(0, &mut vec![large.clone(); 6]);
            viewers.distribute();
            assert!(slow.queue.waiting_bytes.get() <= WAITING_BYTES_MAX);
            while !quick.next_events().is_empty() {}
        }
        let kept = slow.queue.waiting.borrow().len();
        assert_eq!(event_log.viewers.waiting.depth(), kept as u64, "what the slowest has");
        assert_eq!((kept, slow.queue.lost_events.get()), (7, 5), "eight would be over the limit");
        let first = text(&slow);
        assert!(first.len() < 2 * WAITING_BYTES_MAX && first.contains("\"count\":5"));
        let rest = std::iter::from_fn(|| Some(text(&slow)).filter(|part| !part.is_empty()));
        let count = |part: &str| part.matches("client_event").count();
        assert_eq!(count(&first) + rest.map(|part| count(&part)).sum::<usize>(), kept);
        assert_eq!(slow.queue.waiting_bytes.get(), 0);
    }
}
