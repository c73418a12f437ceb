//! The receiving end of a fan-out: recognises each delivery, checks it, and notices when an event
//! has reached everybody.
//!
//! Events are published in slots, one event of a slot at a time, numbered from 0. So every
//! subscriber must see each slot's numbers one by one: a smaller one is a duplicate, a larger one
//! is a loss or a reordering. Across slots all subscribers must see one order.
//!
//! HOT: `take` runs once a delivery. It allocates nothing and looks at each byte about twice.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::report::Violations;

/// Slots are two hexadecimal digits in the payload.
pub(crate) const SLOTS_MAX: usize = 256;

/// `rv`, the slot, and the number in 12 digits.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 16;

const MARK: &[u8] = b"\"data\":\"rv";
const PREFIX: usize = MARK.len() - 2;

/// The payload of event `number` of `slot`: `bytes` long, and nothing that JSON would escape.
pub(crate) fn payload(slot: usize, number: u32, bytes: usize) -> Vec<u8> {
    let mut payload = format!("rv{slot:02x}{number:012x}").into_bytes();
    for position in payload.len()..bytes {
        payload.push(filling(position));
    }
    payload
}

fn filling(position: usize) -> u8 {
    b"abcdefghijklmnopqrstuvwxyz"[position % 26]
}

fn from_hex(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0, |value, digit| Some(value << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}

pub(crate) struct Sink {
    subscribers: usize,
    slots: Vec<Slot>,
    filling: Vec<u8>,
    /// Next number due, by subscriber and slot.
    due: Vec<u32>,
    /// What each subscriber saw, in its order, folded into one value.
    orders: Vec<u64>,
    /// Where the payload was found the last time.
    at: usize,
    /// Slots whose event has reached everybody, until the caller takes them.
    pub(crate) completed: Vec<usize>,
    pub(crate) deliveries: u64,
    pub(crate) latency: Histogram<u64>,
    pub(crate) violations: Violations,
}

#[derive(Clone)]
struct Slot {
    next: u32,
    missing: usize,
    sent_at: Instant,
}

impl Sink {
    pub(crate) fn new(subscribers: usize, slots: usize, payload_bytes: usize) -> Self {
        assert!((1..=SLOTS_MAX).contains(&slots));
        assert!(payload_bytes >= PAYLOAD_BYTES_MIN);
        let slot = Slot { next: 0, missing: 0, sent_at: Instant::now() };
        Self {
            subscribers,
            slots: vec![slot; slots],
            filling: (PAYLOAD_BYTES_MIN..payload_bytes).map(filling).collect(),
            due: vec![0; subscribers * slots],
            orders: vec![0; subscribers],
            at: 0,
            completed: Vec::new(),
            deliveries: 0,
            latency: Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds are in order"),
            violations: Violations::default(),
        }
    }

    /// The payload to publish now in `slot`, which must be free.
    pub(crate) fn publish(&mut self, slot: usize) -> Vec<u8> {
        let payload_bytes = PAYLOAD_BYTES_MIN + self.filling.len();
        let Slot { next, missing, sent_at } = &mut self.slots[slot];
        assert_eq!(*missing, 0, "one event of a slot at a time");
        let number = *next;
        *next += 1;
        *missing = self.subscribers;
        *sent_at = Instant::now();
        payload(slot, number, payload_bytes)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.slots.iter().filter(|slot| slot.missing > 0).count()
    }

    /// Counts `message` if it is a delivery; returns whether it is one.
    pub(crate) fn take(&mut self, subscriber: usize, message: &[u8]) -> bool {
        let Some(at) = self.find(message) else { return false };
        self.at = at;
        self.deliveries += 1;
        let bytes = PAYLOAD_BYTES_MIN + self.filling.len();
        let parsed = message.get(at..at + bytes).and_then(|payload| {
            let slot = usize::try_from(from_hex(&payload[2..4])?).ok()?;
            let number = from_hex(&payload[4..PAYLOAD_BYTES_MIN])?;
            let whole = payload[PAYLOAD_BYTES_MIN..] == self.filling
                && message.get(at + bytes) == Some(&b'"');
            (whole && slot < self.slots.len()).then_some((slot, number))
        });
        let Some((slot, number)) = parsed else {
            let text = || format!("altered: {}", String::from_utf8_lossy(message));
            self.violations.add(text);
            return true;
        };
        self.count(subscriber, slot, number);
        true
    }

    fn count(&mut self, subscriber: usize, slot: usize, number: u64) {
        let due = &mut self.due[subscriber * self.slots.len() + slot];
        let expected = u64::from(*due);
        if number != expected {
            let what = if number < expected { "duplicate" } else { "loss" };
            let text = || {
                format!("{what}: subscriber {subscriber}, slot {slot}: {number}, due {expected}")
            };
            return self.violations.add(text);
        }
        *due += 1;
        let order = &mut self.orders[subscriber];
        *order = (*order ^ (slot as u64) << 48 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let state = &mut self.slots[slot];
        if number >= u64::from(state.next) || state.missing == 0 {
            let text = || format!("subscriber {subscriber}, slot {slot}: {number} was never sent");
            return self.violations.add(text);
        }
        state.missing -= 1;
        if state.missing == 0 {
            let micros = u64::try_from(state.sent_at.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.latency.saturating_record(micros.max(1));
            self.completed.push(slot);
        }
    }

    fn find(&self, message: &[u8]) -> Option<usize> {
        let guess = self.at.checked_sub(PREFIX).and_then(|start| message.get(start..));
        if guess.is_some_and(|rest| rest.starts_with(MARK)) {
            return Some(self.at);
        }
        message.windows(MARK.len()).position(|window| window == MARK).map(|start| start + PREFIX)
    }

    /// Whether all subscribers saw one order. Only meaningful with nothing in flight.
    pub(crate) fn one_order(&self) -> bool {
        self.orders.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// The slots that everybody had not got, with what is missing, as violations.
    pub(crate) fn report_missing(&mut self, waited: Duration) {
        let Self { slots, violations, .. } = self;
        for (slot, Slot { next, missing, .. }) in slots.iter().enumerate() {
            if *missing > 0 {
                violations.add(|| {
                    let number = next - 1;
                    format!("event {number} of slot {slot}: {missing} missing after {waited:?}")
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let payload = String::from_utf8(payload.to_vec()).unwrap();
        format!(r#"{{"event":"e","data":"{payload}","channel":"c"}}"#).into_bytes()
    }

    #[test]
    fn an_event_is_complete_when_all_have_it() {
        let mut sink = Sink::new(2, 1, 64);
        let first = sink.publish(0);
        assert_eq!(first.len(), 64);
        assert!(sink.take(1, &frame(&first)));
        assert!(sink.completed.is_empty());
        assert!(sink.take(0, &frame(&first)));
        assert_eq!(sink.completed, [0]);
        assert_eq!((sink.deliveries, sink.violations.count), (2, 0));
        assert!(sink.one_order());
    }

    #[test]
    fn other_messages_are_not_deliveries() {
        let mut sink = Sink::new(1, 1, 64);
        assert!(!sink.take(0, br#"{"event":"pusher:ping"}"#));
        assert!(!sink.take(0, br#"{"event":"e","data":"{}"}"#));
        assert_eq!(sink.deliveries, 0);
    }

    #[test]
    fn a_duplicate_a_loss_and_an_alteration_are_violations() {
        let mut sink = Sink::new(2, 1, 32);
        let event = frame(&sink.publish(0));
        sink.take(0, &event);
        sink.take(0, &event);
        assert_eq!(sink.violations.count, 1, "duplicate");
        sink.take(1, &event);
        assert_eq!(sink.completed, [0]);
        sink.publish(0);
        let later = frame(&payload(0, 2, 32));
        sink.take(0, &later);
        assert_eq!(sink.violations.count, 2, "loss");
        let mut altered = frame(&payload(0, 1, 32));
        let last = altered.iter().position(|byte| *byte == b'r').unwrap() + 31;
        altered[last] ^= 1;
        sink.take(0, &altered);
        assert_eq!(sink.violations.count, 3, "altered");
    }

    #[test]
    fn subscribers_that_see_different_orders_are_told_apart() {
        let mut sink = Sink::new(2, 2, 16);
        let (a, b) = (frame(&sink.publish(0)), frame(&sink.publish(1)));
        for (subscriber, event) in [(0, &a), (0, &b), (1, &b), (1, &a)] {
            sink.take(subscriber, event);
        }
        assert_eq!(sink.violations.count, 0);
        assert!(!sink.one_order());
    }

    #[test]
    fn what_never_came_is_reported() {
        let mut sink = Sink::new(3, 1, 16);
        let event = frame(&sink.publish(0));
        sink.take(2, &event);
        assert_eq!(sink.in_flight(), 1);
        sink.report_missing(Duration::from_secs(1));
        assert_eq!(sink.violations.count, 1);
    }
}
