//! The retry policy against a simulated backend, with a simulated clock: who waits for whom, for how long, and what is
//! given up. Each request takes 10 ms.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::app::WebhookKind;
use crate::clock::Moment;
use crate::webhook::backlog::{Backlog, GiveUpReason, Next};
use crate::webhook::batch::{Amount, EventJson};
use crate::webhook::budget::Class;
use crate::webhook::retry::{RetryPolicy, RetryVerdict};

const REQUEST_MS: u64 = 10;
const MINUTES: u64 = 60_000;

/// `channel/number`.
type Name = String;

struct Simulation {
    backlog: Backlog,
    now: u64,
    requests: usize,
    accepted: Vec<(u64, Name)>,
    given_up: Vec<(u64, Name, GiveUpReason)>,
    waiting: usize,
    /// By channel: refusals of one event by itself.
    refused_alone: HashMap<String, u32>,
}

type Answer = Result<(), (RetryVerdict, Option<Duration>)>;

fn refuse(verdict: RetryVerdict) -> Answer {
    Err((verdict, None))
}

impl Simulation {
    fn new(events_max: usize) -> Self {
        let policy = RetryPolicy { first: Duration::from_secs(1), limit: Duration::from_secs(300) };
        let backlog = Backlog::new(policy, Amount { events: events_max, bytes: 16 << 20 });
        let (accepted, given_up) = (Vec::new(), Vec::new());
        let refused_alone = HashMap::new();
        Self { backlog, now: 0, requests: 0, accepted, given_up, waiting: 0, refused_alone }
    }

    fn push(&mut self, name: &str) {
        let channel = channel(name);
        let class = if channel.starts_with("private-") { Class::Member } else { Class::Public };
        let (kind, json) = (WebhookKind::ChannelOccupied, name.as_bytes().into());
        self.backlog.push(EventJson { class, kind, channel: channel.into(), json, queued_ms: 0 });
        self.waiting += 1;
    }

    /// Posts what is due until `end`, or until nothing waits. The backend sees the names and the time.
    fn run(&mut self, end: u64, mut backend: impl FnMut(&[Name], u64) -> Answer) {
        while self.now < end {
            self.backlog.check();
            let (next, too_many) = self.backlog.next(Moment(self.now), 1_000_000 + self.now);
            for entry in too_many {
                self.note_given_up(&entry.event_json, GiveUpReason::TooMany);
            }
            let attempt = match next {
                Next::Empty => break,
                Next::Wait(until) | Next::Pause(until) => {
                    assert!(until.0 > self.now, "it never spins");
                    self.now = until.0.min(end);
                    continue;
                }
                Next::Post(attempt) => attempt,
            };
            self.requests += 1;
            self.now += REQUEST_MS;
            let names: Vec<Name> = attempt.events().map(name).collect();
            assert!(!names.is_empty() && names.len() <= 500);
            match backend(&names, self.now) {
                Ok(()) => {
                    self.backlog.accepted(&attempt, Moment(self.now));
                    self.waiting -= names.len();
                    self.accepted.extend(names.into_iter().map(|name| (self.now, name)));
                }
                Err((verdict, retry_after)) => {
                    if let ([name], RetryVerdict::Transient) = (&names[..], verdict) {
                        *self.refused_alone.entry(channel(name).to_owned()).or_default() += 1;
                    }
                    let now = Moment(self.now);
                    let out = self.backlog.refused(attempt, verdict, retry_after, now, 100);
                    out.iter().for_each(|(entry, why)| self.note_given_up(&entry.event_json, *why));
                }
            }
        }
    }

    fn note_given_up(&mut self, event_json: &EventJson, why: GiveUpReason) {
        self.waiting -= 1;
        self.given_up.push((self.now, name(event_json), why));
    }

    fn accepted_names(&self) -> Vec<&str> {
        self.accepted.iter().map(|(_, name)| name.as_str()).collect()
    }

    fn when(&self, name: &str) -> Option<u64> {
        self.accepted.iter().find(|(_, accepted)| accepted == name).map(|(at, _)| *at)
    }
}

fn name(event_json: &EventJson) -> Name {
    String::from_utf8_lossy(&event_json.json).into_owned()
}

fn channel(name: &str) -> &str {
    name.split_once('/').expect("a channel and a number").0
}

fn poison(names: &[Name], verdict: RetryVerdict) -> Answer {
    if names.iter().any(|name| name.contains("poison")) { refuse(verdict) } else { Ok(()) }
}

#[test]
fn one_refused_event_among_500_is_found_in_20_requests_and_delays_no_other() {
    for at in [0, 7, 250, 499] {
        let mut simulation = Simulation::new(10_000);
        for number in 0..500 {
            let channel = if number == at { "poison" } else { "good" };
            simulation.push(&format!("{channel}{number}/1"));
        }
        simulation.run(5_000, |names, _| poison(names, RetryVerdict::Transient));
        assert_eq!((simulation.accepted.len(), simulation.waiting), (499, 1));
        assert!(simulation.requests <= 24, "{}", simulation.requests);
        let last = simulation.accepted.last().unwrap().0;
        assert!(last < 500, "{last} ms");
        simulation.run(10 * MINUTES, |names, _| poison(names, RetryVerdict::Transient));
        let expected = (format!("poison{at}/1"), GiveUpReason::Expired);
        let (when, name, why) = simulation.given_up[0].clone();
        assert_eq!(((name, why), simulation.waiting), (expected, 0));
        assert!((300_000..301_000).contains(&when), "{when}");
    }
}

#[test]
fn many_refused_events_cost_the_others_seconds() {
    let mut simulation = Simulation::new(10_000);
    for number in 0..500 {
        let channel = if number % 8 == 0 { "poison" } else { "good" };
        simulation.push(&format!("{channel}{number}/1"));
    }
    simulation.run(10_000, |names, _| poison(names, RetryVerdict::Transient));
    assert_eq!(simulation.accepted.len(), 500 - 63);
    let came = simulation.now;
    simulation.push("new/1");
    simulation.run(came + 10_000, |names, _| poison(names, RetryVerdict::Transient));
    assert!(simulation.when("new/1").unwrap() <= came + 6_000);
}

#[test]
fn a_permanently_refused_event_is_tried_once_by_itself() {
    let mut simulation = Simulation::new(10_000);
    simulation.push("poison/1");
    simulation.run(MINUTES, |names, _| poison(names, RetryVerdict::Permanent));
    assert_eq!((simulation.requests, simulation.waiting), (1, 0));
    assert_eq!(simulation.given_up, [(REQUEST_MS, "poison/1".to_owned(), GiveUpReason::Permanent)]);
    for number in 0..4 {
        simulation.push(&format!("c/{number}"));
        simulation.push(&format!("poison/{number}"));
    }
    simulation.run(MINUTES, |names, _| poison(names, RetryVerdict::Permanent));
    assert_eq!(
        (simulation.accepted_names(), simulation.waiting),
        (vec!["c/0", "c/1", "c/2", "c/3"], 0)
    );
    assert!(simulation.now < 1_000, "no pause: {}", simulation.now);
}

/// A wrong URL: each event would be refused by itself.
#[test]
fn an_endpoint_that_refuses_everything_for_good_is_not_asked_about_each_event() {
    let mut simulation = Simulation::new(10_000);
    (0..5_000).for_each(|number| simulation.push(&format!("c{number}/1")));
    simulation.run(10 * MINUTES, |_, _| refuse(RetryVerdict::Permanent));
    assert_eq!((simulation.given_up.len(), simulation.waiting), (5_000, 0));
    assert!(simulation.requests < 100, "{}", simulation.requests);
}

/// The first answer after an outage may be a 4xx, because of one event. The others are still sent.
#[test]
fn one_final_refusal_after_an_outage_discards_one_event() {
    for verdict in [RetryVerdict::Transient, RetryVerdict::Busy, RetryVerdict::Unreachable] {
        let mut simulation = Simulation::new(10_000);
        simulation.push("poison/1");
        (0..499).for_each(|number| simulation.push(&format!("c{number}/1")));
        let outage = 4 * MINUTES;
        simulation.run(outage, |_, _| refuse(verdict));
        assert!(simulation.requests > 33, "{verdict:?}: {}", simulation.requests);
        simulation.run(outage + MINUTES, |names, _| poison(names, RetryVerdict::Permanent));
        let given_up: Vec<_> =
            simulation.given_up.iter().map(|(_, name, why)| (&name[..], *why)).collect();
        assert_eq!(given_up, [("poison/1", GiveUpReason::Permanent)], "{verdict:?}");
        assert_eq!((simulation.accepted.len(), simulation.waiting), (499, 0), "{verdict:?}");
    }
}

#[test]
fn an_outage_costs_a_request_in_five_seconds_and_ends_at_once() {
    for verdict in [RetryVerdict::Transient, RetryVerdict::Busy, RetryVerdict::Unreachable] {
        let mut simulation = Simulation::new(10_000);
        (0..3_000).for_each(|number| simulation.push(&format!("c{}/{number}", number % 700)));
        let outage = 2 * MINUTES;
        let backend = |_: &[Name], now| if now < outage { refuse(verdict) } else { Ok(()) };
        simulation.run(outage, backend);
        assert!(simulation.requests <= 32 + 4 + 24, "{verdict:?}: {}", simulation.requests);
        simulation.run(outage + MINUTES, backend);
        assert_eq!(
            (simulation.accepted.len(), simulation.given_up.len()),
            (3_000, 0),
            "{verdict:?}"
        );
        let last = simulation.accepted.last().unwrap().0;
        assert!(last < outage + 8_000, "{verdict:?}: all arrive within seconds, {last}");
        in_order(&simulation);
    }
}

#[test]
fn retry_after_pauses_the_endpoint() {
    let mut simulation = Simulation::new(10_000);
    simulation.push("c/1");
    let busy = Err((RetryVerdict::Busy, Some(Duration::from_secs(20))));
    simulation.run(100, |_, _| busy);
    assert!(simulation.backlog.is_paused(Moment(simulation.now)), "other events wait, too");
    simulation.push("d/1");
    simulation.run(MINUTES, |_, _| Ok(()));
    assert_eq!(simulation.requests, 3);
    assert_eq!(simulation.accepted[0].0, REQUEST_MS + 20_000 + REQUEST_MS);
}

#[test]
fn a_channel_waits_for_its_refused_event_until_the_fault_is_proven() {
    let mut simulation = Simulation::new(10_000);
    ["c/1", "c/poison", "c/3"].iter().for_each(|name| simulation.push(name));
    simulation.run(10_000, |names, _| poison(names, RetryVerdict::Transient));
    assert_eq!(simulation.accepted_names(), ["c/1"], "no other channel: it could be an outage");
    for second in 10..60 {
        simulation.push(&format!("d/{second}"));
        simulation.run(second * 1_000 + 1_000, |names, _| poison(names, RetryVerdict::Transient));
        simulation.now = (second + 1) * 1_000;
    }
    let when = simulation.when("c/3").expect("it no longer waits");
    assert!(when < 45_000, "{when}");
    simulation.run(10 * MINUTES, |names, _| poison(names, RetryVerdict::Transient));
    assert_eq!((simulation.given_up.len(), simulation.waiting), (1, 0));
}

#[test]
fn a_flood_of_refused_events_takes_a_quarter_of_the_queue() {
    let mut simulation = Simulation::new(1_000);
    let mut isolated_max = 0;
    for second in 0_u64..200 {
        (0..50).for_each(|number| simulation.push(&format!("private-poison/{second}.{number}")));
        simulation.push(&format!("private-c/{second}"));
        simulation.run((second + 1) * 1_000, |names, _| poison(names, RetryVerdict::Transient));
        simulation.now = (second + 1) * 1_000;
        isolated_max = isolated_max.max(simulation.waiting);
        let name = format!("private-c/{second}");
        assert!(simulation.when(&name).is_some() || second == 0, "{name}");
    }
    assert!(isolated_max <= 750 + 51, "{isolated_max}");
    assert!(simulation.waiting <= 250 + 51, "{}", simulation.waiting);
    assert!(simulation.given_up.iter().any(|(_, _, why)| *why == GiveUpReason::TooMany));
    assert!(simulation.given_up.iter().all(|(_, name, _)| name.contains("poison")));
}

#[test]
fn the_end_makes_waiting_events_due() {
    let mut simulation = Simulation::new(10_000);
    simulation.push("c/1");
    simulation.run(100_000, |_, _| refuse(RetryVerdict::Unreachable));
    let began = simulation.now;
    simulation.backlog.make_all_due(Moment(began));
    let mut refusals = 0..5;
    simulation.run(began + MINUTES, |_, _| match refusals.next() {
        Some(_) => refuse(RetryVerdict::Unreachable),
        None => Ok(()),
    });
    assert!(simulation.now <= began + 5 * 1_000 + 6 * REQUEST_MS, "{}", simulation.now - began);
    assert_eq!(simulation.waiting, 0);
}

#[test]
fn a_repeated_request_has_the_same_time() {
    let mut simulation = Simulation::new(10_000);
    simulation.push("c/1");
    let mut times = Vec::new();
    for _ in 0..3 {
        let (next, _) = simulation.backlog.next(Moment(simulation.now), 77 + simulation.now);
        let Next::Post(attempt) = next else { panic!("{next:?}") };
        times.push(attempt.unix_ms());
        let now = Moment(simulation.now);
        simulation.backlog.refused(attempt, RetryVerdict::Transient, None, now, 0);
        simulation.now += 10_000;
    }
    assert_eq!(times, [77; 3]);
}

/// Accepted events of a channel are in the order in which they came, unless its fault may have been proven.
fn in_order(simulation: &Simulation) {
    let mut last: HashMap<&str, u64> = HashMap::new();
    for (_, name) in &simulation.accepted {
        let channel = channel(name);
        if simulation.refused_alone.get(channel).is_some_and(|times| *times > 3) {
            continue;
        }
        let number: u64 = name[channel.len() + 1..].parse().expect("a number");
        let before = last.insert(channel, number);
        assert!(before.is_none_or(|before| before < number), "{name} came after {before:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A backend that is out at times and refuses some channels at random: no event is lost or doubled, and channels
    /// that it never refused by themselves keep their order.
    #[test]
    fn nothing_is_lost_or_doubled_and_channels_keep_their_order(
        steps in prop::collection::vec((0_u32..12, 0_u8..4, 0_u64..3_000, 0_u8..8), 1..60),
        seed in any::<u64>(),
    ) {
        let mut simulation = Simulation::new(100_000);
        let (mut pushed, mut random) = (0_u64, seed | 1);
        for (count, channels, pause, mode) in steps {
            for number in 0..count {
                let name = match number % 5 {
                    4 => format!("poison{}/{pushed}", number % 2),
                    _ => format!("c{}/{pushed}", number % (u32::from(channels) + 1)),
                };
                simulation.push(&name);
                pushed += 1;
            }
            let end = simulation.now + pause;
            simulation.run(end, |names, _| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                match mode {
                    0 => refuse(RetryVerdict::Unreachable),
                    1 => refuse(RetryVerdict::Transient),
                    2 if random % 3 == 0 => Err((RetryVerdict::Busy, Some(Duration::from_secs(random % 4)))),
                    3 if random % 3 == 0 => refuse(RetryVerdict::Transient),
                    4 => poison(names, RetryVerdict::Permanent),
                    _ => poison(names, RetryVerdict::Transient),
                }
            });
            simulation.now = simulation.now.max(end);
        }
        let end = simulation.now + 30 * MINUTES;
        simulation.run(end, |names, _| poison(names, RetryVerdict::Transient));
        prop_assert_eq!(simulation.waiting, 0);
        prop_assert!(simulation.backlog.has_no_refused());
        let given_up = simulation.given_up.iter().map(|(_, name, _)| name);
        let mut all: Vec<&Name> =
            simulation.accepted.iter().map(|(_, name)| name).chain(given_up).collect();
        prop_assert_eq!(all.len() as u64, pushed);
        all.sort_unstable();
        all.dedup();
        prop_assert_eq!(all.len() as u64, pushed);
        in_order(&simulation);
    }
}
