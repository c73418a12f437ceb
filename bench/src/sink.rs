//! The receiving end of a fan-out: recognizes each delivery, checks it, and notices when all subscribers have received
//! an event.
//!
//! Owns the numbers due, by subscriber and slot. Does not know sockets. Events are published in slots, numbered from 0
//! in each; a slot's next events are published when those before are delivered. So every subscriber must receive each
//! slot's numbers one by one: a smaller one is a duplicate, a larger one is a loss or a reordering. Across slots all
//! subscribers must receive one order. Limits: `SLOTS_MAX` slots; 4 bytes for each subscriber and slot. Cost: HOT:
//! `take` runs once a delivery, some array accesses and no allocation; with `each` it reads the clock.

use std::time::{Duration, Instant};

use crate::payload::{self, Finder, SLOTS_MAX};
use crate::report::{Latency, Violations};

pub(crate) struct Sink {
    /// The first so many subscribers must receive everything.
    tracked: usize,
    slots: Vec<Slot>,
    finder: Finder,
    /// Next number due, by subscriber and slot.
    due: Vec<u32>,
    /// For each subscriber a hash of the events that it received, in their order.
    orders: Vec<u64>,
    /// Slots whose events all tracked subscribers have received, until the caller pops them.
    pub(crate) completed: Vec<usize>,
    /// Deliveries to tracked subscribers.
    pub(crate) deliveries: u64,
    /// From the schedule to each tracked subscriber. `None`: not measured, because that reads the clock for each
    /// delivery.
    pub(crate) each: Option<Latency>,
    /// From the schedule to the last tracked subscriber.
    pub(crate) last: Latency,
    pub(crate) violations: Violations,
}

#[derive(Clone)]
struct Slot {
    next: u32,
    missing: u64,
    scheduled: Instant,
}

impl Sink {
    /// Of `subscribers`, the first `tracked` must get everything; the others may be cut off, but
    /// what they get must be in order and without gaps.
    pub(crate) fn new(
        subscribers: usize,
        tracked: usize,
        slots: usize,
        payload_bytes: usize,
    ) -> Self {
        assert!((1..=SLOTS_MAX).contains(&slots) && tracked <= subscribers);
        let slot = Slot { next: 0, missing: 0, scheduled: Instant::now() };
        Self {
            tracked,
            slots: vec![slot; slots],
            finder: Finder::new(payload_bytes),
            due: vec![0; subscribers * slots],
            orders: vec![0; subscribers],
            completed: Vec::new(),
            deliveries: 0,
            each: None,
            last: Latency::default(),
            violations: Violations::default(),
        }
    }

    pub(crate) fn tracked(&self) -> usize {
        self.tracked
    }

    /// The payload to publish now in `slot`. All that is in flight there counts from the same
    /// `scheduled` time.
    pub(crate) fn publish(&mut self, slot: usize, scheduled: Instant) -> String {
        let state = &mut self.slots[slot];
        let number = state.next;
        state.next += 1;
        state.missing += self.tracked as u64;
        state.scheduled = scheduled;
        payload::make(slot, u64::from(number), self.finder.bytes())
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.slots.iter().filter(|slot| slot.missing > 0).count()
    }

    /// Counts `message` if it is a delivery; returns whether it is one.
    pub(crate) fn take(&mut self, subscriber: usize, message: &[u8]) -> bool {
        match self.finder.take(message) {
            None => return false,
            Some(Ok((slot, number))) if slot < self.slots.len() => {
                self.count(subscriber, slot, number);
            }
            Some(_) => {
                let text = || format!("altered: {}", String::from_utf8_lossy(message));
                self.violations.add(text);
            }
        }
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
        let tracked = subscriber < self.tracked;
        let state = &mut self.slots[slot];
        if number >= u64::from(state.next) || tracked && state.missing == 0 {
            let text = || format!("subscriber {subscriber}, slot {slot}: {number} was never sent");
            return self.violations.add(text);
        }
        if !tracked {
            return;
        }
        self.deliveries += 1;
        let order = &mut self.orders[subscriber];
        *order = (*order ^ (slot as u64) << 48 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        state.missing -= 1;
        if let Some(each) = &mut self.each {
            each.record(state.scheduled.elapsed());
        }
        if state.missing == 0 {
            self.last.record(state.scheduled.elapsed());
            self.completed.push(slot);
        }
    }

    /// Whether all subscribers have seen the slots' events in one order. Only meaningful when
    /// everybody has everything.
    pub(crate) fn one_order(&self) -> bool {
        self.orders[..self.tracked].windows(2).all(|pair| pair[0] == pair[1])
    }

    /// Adds what has not been got, with how much is missing, as violations.
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

    /// Latencies count from here on.
    pub(crate) fn forget_latencies(&mut self) {
        self.last.0.reset();
        if let Some(each) = &mut self.each {
            each.0.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &str) -> Vec<u8> {
        format!(r#"{{"event":"e","data":"{payload}","channel":"c"}}"#).into_bytes()
    }

    fn publish(sink: &mut Sink, slot: usize) -> Vec<u8> {
        frame(&sink.publish(slot, Instant::now()))
    }

    #[test]
    fn an_event_is_complete_when_all_have_it() {
        let mut sink = Sink::new(2, 2, 1, 64);
        let first = publish(&mut sink, 0);
        assert!(sink.take(1, &first));
        assert!(sink.completed.is_empty());
        assert!(sink.take(0, &first));
        assert_eq!(sink.completed, [0]);
        assert_eq!((sink.deliveries, sink.violations.count), (2, 0));
        assert!(sink.one_order());
    }

    #[test]
    fn a_batch_is_complete_at_its_last_delivery() {
        let mut sink = Sink::new(1, 1, 1, 16);
        let (a, b) = (publish(&mut sink, 0), publish(&mut sink, 0));
        sink.take(0, &a);
        assert_eq!(sink.in_flight(), 1);
        sink.take(0, &b);
        assert_eq!((sink.in_flight(), sink.violations.count), (0, 0));
    }

    #[test]
    fn other_messages_are_not_deliveries() {
        let mut sink = Sink::new(1, 1, 1, 64);
        assert!(!sink.take(0, br#"{"event":"pusher:ping"}"#));
        assert!(!sink.take(0, br#"{"event":"e","data":"{}"}"#));
        assert_eq!(sink.deliveries, 0);
    }

    #[test]
    fn a_duplicate_a_loss_and_an_alteration_are_violations() {
        let mut sink = Sink::new(2, 2, 1, 32);
        let event = publish(&mut sink, 0);
        sink.take(0, &event);
        sink.take(0, &event);
        assert_eq!(sink.violations.count, 1, "duplicate");
        sink.take(1, &event);
        assert_eq!(sink.completed, [0]);
        sink.publish(0, Instant::now());
        sink.take(0, &frame(&payload::make(0, 2, 32)));
        assert_eq!(sink.violations.count, 2, "loss");
        let altered = payload::make(0, 1, 32).replace('z', "y").replace('a', "b");
        sink.take(0, &frame(&altered));
        assert_eq!(sink.violations.count, 3, "altered");
        sink.take(0, &frame(&payload::make(9, 0, 32)));
        assert_eq!(sink.violations.count, 4, "no such slot");
    }

    #[test]
    fn subscribers_that_see_different_orders_are_distinguished() {
        let mut sink = Sink::new(2, 2, 2, 16);
        let (a, b) = (publish(&mut sink, 0), publish(&mut sink, 1));
        for (subscriber, event) in [(0, &a), (0, &b), (1, &b), (1, &a)] {
            sink.take(subscriber, event);
        }
        assert_eq!(sink.violations.count, 0);
        assert!(!sink.one_order());
    }

    #[test]
    fn untracked_subscribers_may_miss_the_end_but_nothing_between() {
        let mut sink = Sink::new(2, 1, 1, 16);
        let events: Vec<_> = (0..3).map(|_| publish(&mut sink, 0)).collect();
        for event in &events {
            sink.take(0, event);
        }
        assert_eq!(sink.in_flight(), 0);
        sink.take(1, &events[0]);
        assert_eq!((sink.violations.count, sink.deliveries), (0, 3));
        sink.take(1, &events[2]);
        assert_eq!(sink.violations.count, 1);
    }

    #[test]
    fn events_that_never_arrived_are_reported() {
        let mut sink = Sink::new(3, 3, 1, 16);
        let event = publish(&mut sink, 0);
        sink.take(2, &event);
        assert_eq!(sink.in_flight(), 1);
        sink.report_missing(Duration::from_secs(1));
        assert_eq!(sink.violations.count, 1);
    }
}
