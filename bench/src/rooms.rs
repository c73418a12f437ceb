//! Rooms of a few members that send each other client events.
//!
//! Owns each room's slots and the check of what its members receive. Does not subscribe: `crowd` is subscribed already.
//! A slot has one event in flight, so every member must receive a slot's events one by one, except those it sends.
//! Senders take turns; in rooms of four or more members the last two only listen, and must receive the events of all
//! slots in one order. The room's number is in every payload, so an event that reaches another room is noticed. Closed
//! loop: a slot's next event follows when all members have the last one. Open loop: events are due at a fixed rate, one
//! room after the other, and an event that waits for a slot has the wait in its latency. Limits: `SLOTS_MAX` in a room,
//! 2^28 events of a slot. Cost: a delivery is some array accesses, no allocation; an event is three allocations.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::load::Load;
use crate::payload::{self, Finder};
use crate::pool::{CloseWhy, Handler, Key, Pool};
use crate::report::{Latency, Violations};
use crate::schedule::Schedule;
use crate::subscribers::Subscribers;

/// Bits of an event's number that count it; the room's number is above them.
const NUMBER_BITS: u32 = 28;

pub(crate) fn channel_of(room: usize) -> String {
    format!("private-room-{room}")
}

struct AnswerRoom {
    slots: Vec<Slot>,
    /// Next number due, by member and slot.
    due: Vec<u32>,
    /// For each listener a hash of the events that it received, in their order.
    orders: Vec<u64>,
    /// Scheduled times of events that no slot was free for.
    backlog: VecDeque<Instant>,
}

#[derive(Clone)]
struct Slot {
    next: u32,
    missing: usize,
    scheduled: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Taken {
    Delivered { complete: bool },
    Wrong(String),
}

/// Who sends what: the same for all rooms.
#[derive(Clone, Copy)]
struct Turns {
    members: usize,
    listeners: usize,
}

impl Turns {
    fn new(members: usize) -> Self {
        assert!(members >= 2);
        Self { members, listeners: if members >= 4 { 2 } else { 0 } }
    }

    fn sender(self, slot: usize, number: u32) -> usize {
        (slot + number as usize) % (self.members - self.listeners)
    }
}

impl AnswerRoom {
    fn new(turns: Turns, slots: usize) -> Self {
        let slot = Slot { next: 0, missing: 0, scheduled: Instant::now() };
        let mut due = vec![0; turns.members * slots];
        for (place, next) in due.iter_mut().enumerate() {
            *next = u32::from(turns.sender(place % slots, 0) == place / slots);
        }
        let orders = vec![0; turns.listeners];
        Self { slots: vec![slot; slots], due, orders, backlog: VecDeque::new() }
    }

    fn take(&mut self, turns: Turns, member: usize, slot: usize, number: u64) -> Taken {
        let count = self.slots.len();
        let Some(state) = self.slots.get_mut(slot) else {
            return Taken::Wrong(format!("no slot {slot}"));
        };
        let due = &mut self.due[member * count + slot];
        if number != u64::from(*due) {
            let what = if number < u64::from(*due) { "duplicate" } else { "loss" };
            return Taken::Wrong(format!("{what}: slot {slot}: {number}, due {due}"));
        }
        if number >= u64::from(state.next) || state.missing == 0 {
            return Taken::Wrong(format!("slot {slot}: {number} was never sent"));
        }
        *due += 1;
        while turns.sender(slot, *due) == member {
            *due += 1;
        }
        state.missing -= 1;
        if let Some(listener) = member.checked_sub(turns.members - turns.listeners) {
            let order = &mut self.orders[listener];
            *order = (*order ^ (slot as u64) << 48 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        Taken::Delivered { complete: state.missing == 0 }
    }
}

pub(crate) struct Rooms<'a> {
    pub(crate) crowd: &'a mut Subscribers,
    turns: Turns,
    rooms: Vec<AnswerRoom>,
    finder: Finder,
    schedule: Option<Schedule>,
    next_room: usize,
    in_flight: usize,
    waiting: usize,
    pub(crate) events: u64,
    pub(crate) deliveries: u64,
    /// From the schedule (closed loop: from the sending) to each delivery.
    pub(crate) latency: Latency,
    /// From the schedule to the sending.
    pub(crate) lateness: Latency,
    pub(crate) violations: Violations,
    running: bool,
}

pub(crate) struct Shape {
    pub(crate) members: usize,
    /// Events in flight in each room, at most.
    pub(crate) slots: usize,
    pub(crate) payload_bytes: usize,
    /// Open loop: events a second, of all rooms together.
    pub(crate) rate: Option<f64>,
}

impl<'a> Rooms<'a> {
    /// `crowd` is subscribed: member `n` to room `n / members`.
    pub(crate) fn new(crowd: &'a mut Subscribers, shape: &Shape) -> Self {
        let turns = Turns::new(shape.members);
        let count = crowd.len() / shape.members;
        Self {
            crowd,
            turns,
            rooms: (0..count).map(|_| AnswerRoom::new(turns, shape.slots)).collect(),
            finder: Finder::new(shape.payload_bytes),
            schedule: shape.rate.map(|rate| Schedule::new(Instant::now(), rate)),
            next_room: 0,
            in_flight: 0,
            waiting: 0,
            events: 0,
            deliveries: 0,
            latency: Latency::default(),
            lateness: Latency::default(),
            violations: Violations::default(),
            running: true,
        }
    }

    /// Closed loop: the first event of every slot.
    pub(crate) fn fill(&mut self, pool: &mut Pool) {
        for room in 0..self.rooms.len() {
            for slot in 0..self.rooms[room].slots.len() {
                self.send(pool, room, slot, Instant::now());
            }
        }
    }

    fn send(&mut self, pool: &mut Pool, room: usize, slot: usize, scheduled: Instant) {
        let state = &mut self.rooms[room].slots[slot];
        let number = state.next;
        *state = Slot { next: number + 1, missing: self.turns.members - 1, scheduled };
        self.in_flight += 1;
        self.events += 1;
        self.lateness.record(scheduled.elapsed());
        let sender = room * self.turns.members + self.turns.sender(slot, number);
        let number = (room as u64) << NUMBER_BITS | u64::from(number);
        let payload = payload::make(slot, number, self.finder.bytes());
        let channel = channel_of(room);
        let message =
            format!(r#"{{"event":"client-e","channel":"{channel}","data":{{"p":"{payload}"}}}}"#);
        pool.send_text(self.crowd.key_of(sender), message.as_bytes());
    }

    fn delivered(&mut self, pool: &mut Pool, place: usize, slot: usize, number: u64) {
        let (room, member) = (place / self.turns.members, place % self.turns.members);
        let from = usize::try_from(number >> NUMBER_BITS).unwrap_or(usize::MAX);
        if from != room {
            let text = || format!("room {room}, member {member}: an event of room {from}");
            return self.violations.add(text);
        }
        let number = number & ((1 << NUMBER_BITS) - 1);
        match self.rooms[room].take(self.turns, member, slot, number) {
            Taken::Wrong(text) => {
                self.violations.add(|| format!("room {room}, member {member}: {text}"));
            }
            Taken::Delivered { complete } => {
                self.deliveries += 1;
                self.latency.record(self.rooms[room].slots[slot].scheduled.elapsed());
                if complete {
                    self.in_flight -= 1;
                    self.next(pool, room, slot);
                }
            }
        }
    }

    /// Called when a slot has become free: sends what is due in its room.
    fn next(&mut self, pool: &mut Pool, room: usize, slot: usize) {
        if let Some(scheduled) = self.rooms[room].backlog.pop_front() {
            self.waiting -= 1;
            self.send(pool, room, slot, scheduled);
        } else if self.running && self.schedule.is_none() {
            self.send(pool, room, slot, Instant::now());
        }
    }

    pub(crate) fn forget_latencies(&mut self) {
        self.latency.0.reset();
        self.lateness.0.reset();
    }

    /// Returns the violations found here; the crowd has its own.
    pub(crate) fn finish(mut self) -> Violations {
        if self.in_flight == 0 && self.violations.count == 0 {
            for (number, room) in self.rooms.iter().enumerate() {
                if room.orders.windows(2).any(|pair| pair[0] != pair[1]) {
                    let text = || format!("room {number}: listeners saw different orders");
                    self.violations.add(text);
                }
            }
        }
        self.violations
    }
}

impl Load for Rooms<'_> {
    fn act(&mut self, pool: &mut Pool, now: Instant) -> Option<Instant> {
        if !self.running {
            return None;
        }
        while let Some(scheduled) = self.schedule.as_mut()?.take(now) {
            let number = self.next_room;
            self.next_room = (number + 1) % self.rooms.len();
            let room = &mut self.rooms[number];
            match room.slots.iter().position(|slot| slot.missing == 0) {
                Some(slot) => self.send(pool, number, slot, scheduled),
                None => {
                    room.backlog.push_back(scheduled);
                    self.waiting += 1;
                }
            }
        }
        self.schedule.as_ref().map(Schedule::next)
    }

    fn rest(&mut self) {
        self.running = false;
    }

    fn waits(&self) -> bool {
        self.in_flight + self.waiting > 0
    }

    fn progress(&self) -> u64 {
        self.deliveries
    }

    fn failed(&self) -> bool {
        self.violations.count + self.crowd.violations.count > 0
    }

    fn stalled(&mut self, waited: Duration) {
        for (number, room) in self.rooms.iter().enumerate() {
            let missing: usize = room.slots.iter().map(|slot| slot.missing).sum();
            if missing > 0 {
                let text = || format!("room {number}: {missing} missing after {waited:?}");
                self.violations.add(text);
            }
        }
    }
}

impl Handler for Rooms<'_> {
    fn on_open(&mut self, _: &mut Pool, _: Key) {}

    fn on_message(&mut self, pool: &mut Pool, key: Key, message: &[u8]) {
        match self.finder.take(message) {
            None => self.crowd.on_message(pool, key, message),
            Some(Ok((slot, number))) => self.delivered(pool, key.number(), slot, number),
            Some(Err(_)) => {
                let text = || format!("altered: {}", String::from_utf8_lossy(message));
                self.violations.add(text);
            }
        }
    }

    fn on_close(&mut self, pool: &mut Pool, key: Key, why: CloseWhy) {
        self.crowd.on_close(pool, key, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts an event into a slot; says who must get it.
    fn send(room: &mut AnswerRoom, turns: Turns, slot: usize) -> (u64, Vec<usize>) {
        let state = &mut room.slots[slot];
        let number = state.next;
        *state = Slot { next: number + 1, missing: turns.members - 1, scheduled: Instant::now() };
        let sender = turns.sender(slot, number);
        (u64::from(number), (0..turns.members).filter(|member| *member != sender).collect())
    }

    #[test]
    fn every_client_but_the_sender_receives_each_event_once() {
        let turns = Turns::new(5);
        let mut room = AnswerRoom::new(turns, 2);
        for _ in 0..20 {
            for slot in 0..2 {
                let (number, receivers) = send(&mut room, turns, slot);
                for member in &receivers {
                    let complete = member == receivers.last().unwrap();
                    let taken = room.take(turns, *member, slot, number);
                    assert_eq!(taken, Taken::Delivered { complete });
                }
                let again = room.take(turns, receivers[0], slot, number);
                assert!(matches!(again, Taken::Wrong(text) if text.starts_with("duplicate")));
            }
        }
        assert_eq!(room.orders[0], room.orders[1]);
    }

    #[test]
    fn a_sender_must_not_get_its_own() {
        let turns = Turns::new(2);
        let mut room = AnswerRoom::new(turns, 1);
        let (number, _) = send(&mut room, turns, 0);
        assert!(matches!(room.take(turns, 0, 0, number), Taken::Wrong(_)));
        assert_eq!(room.take(turns, 1, 0, number), Taken::Delivered { complete: true });
    }

    #[test]
    fn a_gap_is_a_loss_and_listeners_must_agree() {
        let turns = Turns::new(4);
        let mut room = AnswerRoom::new(turns, 2);
        assert!(
            matches!(room.take(turns, 3, 0, 1), Taken::Wrong(text) if text.starts_with("loss"))
        );
        assert!(matches!(room.take(turns, 3, 0, 0), Taken::Wrong(_)), "never sent");
        let (a, b) = (send(&mut room, turns, 0).0, send(&mut room, turns, 1).0);
        for (member, slot, number) in [(2, 0, a), (2, 1, b), (3, 1, b), (3, 0, a)] {
            assert!(matches!(room.take(turns, member, slot, number), Taken::Delivered { .. }));
        }
        assert_ne!(room.orders[0], room.orders[1]);
    }
}
