//! Events that wait for their first attempt, and the body of a request.
//!
//! Owns two queues, one of them for events of public channels, so that a flood on public channels delays no signed
//! event. PURE; does not know what was refused (`backlog.rs`).
//!
//! Limits: `EVENTS_MAX` and `BYTES_MAX` for one request. `sender/handle.rs` bounds the events that wait, and counts
//! those that it refuses. Cost: an event is moved, and its JSON is shared; a body is one copy of its events.

use std::collections::VecDeque;
use std::sync::Arc;

use super::budget::{CLASSES, Class};
use crate::app::WebhookKind;

/// Events in one request. A refused one among so many is found in about 20 requests (`retry.rs`).
pub(super) const EVENTS_MAX: usize = 500;
/// Bytes of events in one request, unless a single one is longer. PHP takes 8 MiB by default, nginx 1 MiB.
pub(super) const BYTES_MAX: usize = 256 * 1024;

/// One event. The JSON is written once, and the endpoints that want it share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventJson {
    pub(super) class: Class,
    pub(super) kind: WebhookKind,
    pub(super) channel: Arc<str>,
    pub(super) json: Arc<[u8]>,
    /// When it was queued, in milliseconds since 1970.
    pub(super) queued_ms: u64,
}

/// Events that wait for their first attempt. Events that needed a signature are sent first; each queue keeps its order.
#[derive(Debug, Default)]
pub(super) struct WaitingEvents {
    signed: VecDeque<EventJson>,
    public: VecDeque<EventJson>,
}

impl WaitingEvents {
    pub(super) fn push(&mut self, event_json: EventJson) {
        let queue = if event_json.class.is_public() { &mut self.public } else { &mut self.signed };
        queue.push_back(event_json);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.signed.is_empty() && self.public.is_empty()
    }

    pub(super) fn first(&self) -> Option<&EventJson> {
        self.signed.front().or_else(|| self.public.front())
    }

    /// When the oldest of them was queued, in milliseconds since 1970.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.signed
            .front()
            .into_iter()
            .chain(self.public.front())
            .map(|event_json| event_json.queued_ms)
            .min()
    }

    pub(super) fn pop_if_fits(&mut self, fits: impl Fn(&EventJson) -> bool) -> Option<EventJson> {
        let queue = if self.signed.is_empty() { &mut self.public } else { &mut self.signed };
        queue.pop_front_if(|event_json| fits(event_json))
    }

    /// Whether the events fill a request, so that waiting for more is useless. At most `EVENTS_MAX` steps.
    pub(super) fn is_full(&self) -> bool {
        self.signed.len() + self.public.len() >= EVENTS_MAX || {
            let mut bytes =
                self.signed.iter().chain(&self.public).map(|event_json| event_json.json.len());
            bytes.try_fold(0, |sum, more| (sum + more < BYTES_MAX).then_some(sum + more)).is_none()
        }
    }
}

/// A number of events, and the bytes of their JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

impl Amount {
    pub(super) fn add(&mut self, event_json: &EventJson) {
        self.events += 1;
        self.bytes += event_json.json.len();
    }

    pub(super) fn remove(&mut self, event_json: &EventJson) {
        debug_assert!(self.events > 0 && self.bytes >= event_json.json.len(), "`add` counted it");
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(event_json.json.len());
    }

    pub(super) fn exceeds(self, max: Self) -> bool {
        self.events > max.events || self.bytes > max.bytes
    }
}

/// By class. Linear in the events.
pub(super) fn amounts_by_class<'a>(
    events: impl IntoIterator<Item = &'a EventJson>,
) -> [Amount; CLASSES] {
    let mut amounts = [Amount::default(); CLASSES];
    events.into_iter().for_each(|event_json| amounts[event_json.class as usize].add(event_json));
    amounts
}

/// `{"time_ms":…,"events":[…]}`.
pub(super) fn body<'a>(events: impl IntoIterator<Item = &'a EventJson>, unix_ms: u64) -> Vec<u8> {
    let mut body = format!("{{\"time_ms\":{unix_ms},\"events\":[").into_bytes();
    for (number, event_json) in events.into_iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&event_json.json);
    }
    body.extend_from_slice(b"]}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event_json(class: Class, json: &str) -> EventJson {
        let json = json.as_bytes().into();
        EventJson {
            class,
            kind: WebhookKind::ChannelOccupied,
            channel: "c".into(),
            json,
            queued_ms: 0,
        }
    }

    fn waiting(texts: &[&str]) -> WaitingEvents {
        let mut waiting = WaitingEvents::default();
        texts.iter().for_each(|text| waiting.push(event_json(Class::Public, text)));
        waiting
    }

    #[test]
    fn events_that_need_a_signature_go_first_and_in_their_order() {
        let mut waiting = WaitingEvents::default();
        for (class, text) in
            [(Class::Public, "1"), (Class::Client, "2"), (Class::Public, "3"), (Class::Member, "4")]
        {
            waiting.push(event_json(class, text));
        }
        let all: Vec<EventJson> = std::iter::from_fn(|| waiting.pop_if_fits(|_| true)).collect();
        assert!(waiting.is_empty());
        assert_eq!(body(&all, 0), br#"{"time_ms":0,"events":[2,4,1,3]}"#);
        assert_eq!(
            amounts_by_class(&all).map(|amount| (amount.events, amount.bytes)),
            [(1, 1), (1, 1), (2, 2)]
        );
    }

    #[test]
    fn a_body_is_one_object() {
        let all = [event_json(Class::Public, "{\"a\":1}"), event_json(Class::Public, "{}")];
        let expected = br#"{"time_ms":1700000000123,"events":[{"a":1},{}]}"#;
        assert_eq!(body(&all, 1_700_000_000_123), expected);
        assert_eq!(amounts_by_class(&all)[Class::Public as usize], Amount { events: 2, bytes: 9 });
    }

    #[test]
    fn a_request_is_full_by_events_or_bytes() {
        let many: Vec<&str> = std::iter::repeat_n("{}", EVENTS_MAX).collect();
        assert!(waiting(&many).is_full() && !waiting(&many[1..]).is_full());
        let long = "x".repeat(BYTES_MAX / 2);
        let longer = "x".repeat(BYTES_MAX + 1);
        assert!(waiting(&[&long, &long]).is_full() && waiting(&[&longer]).is_full());
        assert!(!waiting(&[&long, "y"]).is_full());
    }
}
