//! Presence channels whose members leave and rejoin all at once: what a join and a leave cost when all other members
//! must be notified.
//!
//! Owns each member's roster. Does not measure single notices. Half of the members of every channel leave and rejoin;
//! each of the others must be notified exactly once of each of them. A member that joins must find all others in its
//! roster, or be notified of them. Limits: `--channels` times `--members` connections; 60 s for a phase. Cost: one
//! thread; a notice is parsed with allocations, which is time of the client.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Bench;
use crate::app;
use crate::load::{self, Load};
use crate::pool::{CloseWhy, Handler, Key, Pool};
use crate::presence::{self, User};
use crate::report::{Report, Violations, ratio, us_each};
use crate::subscribers::Subscribers;
use crate::window::{Used, Window};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 10)]
    channels: usize,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    members: u32,
    /// How often half of them leave and come back.
    #[arg(long, default_value_t = 10)]
    rounds: u64,
}

fn channel_of(number: usize) -> String {
    format!("presence-storm-{number}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Join,
    Leave,
}

struct Member {
    /// Whom it knows to be in the channel.
    roster: BTreeSet<User>,
    inside: bool,
}

struct Storm<'a> {
    crowd: &'a mut Subscribers,
    /// Members of one channel.
    size: usize,
    members: Vec<Member>,
    phase: Phase,
    /// Acknowledgements and notices that must still come.
    missing: u64,
    notices: u64,
    progress: u64,
    violations: Violations,
}

impl Storm<'_> {
    fn user(number: usize) -> User {
        number as User
    }

    /// Numbers that go in and out: every other one.
    fn goers(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.members.len()).filter(|number| number % 2 == 1)
    }

    fn channel_members(&self, number: usize) -> std::ops::Range<usize> {
        let first = number / self.size * self.size;
        first..first + self.size
    }

    /// How many will be told of `numbers`: all who are inside.
    fn notices_due(&self, numbers: &[usize]) -> u64 {
        let told = |number: &usize| {
            self.channel_members(*number).filter(|other| self.members[*other].inside).count()
        };
        numbers.iter().map(told).sum::<usize>() as u64
    }

    /// `numbers` join; returns when everybody knows.
    fn join(&mut self, bench: &Bench, pool: &mut Pool, numbers: &[usize]) -> io::Result<()> {
        self.phase = Phase::Join;
        // Each one inside is told of each one who comes. Those who come learn of each other by
        // roster or by notice, so their notices cannot be counted beforehand: see `check`.
        self.missing += self.notices_due(numbers) + numbers.len() as u64;
        for &number in numbers {
            let member = presence::channel_data(Self::user(number));
            let channel = channel_of(number / self.size);
            let socket_id = self.crowd.socket_id(number);
            let request = bench.app.subscribe(socket_id, &channel, Some(&member));
            pool.send_text(self.crowd.key_of(number), request.as_bytes());
        }
        self.settle(bench, pool)?;
        for &number in numbers {
            self.members[number].inside = true;
        }
        Ok(())
    }

    fn leave(&mut self, bench: &Bench, pool: &mut Pool, numbers: &[usize]) -> io::Result<()> {
        self.phase = Phase::Leave;
        for &number in numbers {
            self.members[number].inside = false;
        }
        self.missing += self.notices_due(numbers);
        for &number in numbers {
            let request = app::unsubscribe(&channel_of(number / self.size));
            pool.send_text(self.crowd.key_of(number), request.as_bytes());
        }
        self.settle(bench, pool)
    }

    /// Waits until nothing is missing.
    fn settle(&mut self, bench: &Bench, pool: &mut Pool) -> io::Result<()> {
        let limit = Duration::from_secs(60);
        load::drive_until(&bench.telemetry, pool, self, limit, |storm| !storm.waits())?;
        if self.waits() && !self.failed() {
            self.stalled(limit);
        }
        Ok(())
    }

    /// Everybody inside must know everybody inside, and nobody else. Notices to those who came
    /// together may still be on their way.
    fn check(&mut self, bench: &Bench, pool: &mut Pool) -> io::Result<()> {
        let end = Instant::now() + load::STALL;
        loop {
            let wrong = (0..self.members.len()).find(|number| {
                let member = &self.members[*number];
                let others = self.channel_members(*number);
                let inside = others.filter(|other| self.members[*other].inside);
                member.inside && !inside.map(Self::user).eq(member.roster.iter().copied())
            });
            let Some(number) = wrong else { return Ok(()) };
            if Instant::now() > end || self.failed() {
                let roster = self.members[number].roster.len();
                let text = || format!("member {number} knows of {roster}, which is not who is in");
                self.violations.add(text);
                return Ok(());
            }
            load::drive(&bench.telemetry, pool, self, Duration::from_millis(2))?;
        }
    }

    fn on_notice(&mut self, number: usize, message: &Value, joins: bool) {
        self.notices += 1;
        self.progress += 1;
        let size = self.size;
        let Some(user) = presence::member(message) else {
            return self.violations.add(|| format!("no user: {message}"));
        };
        let is_own = user == Self::user(number);
        let is_neighbor = usize::try_from(user).is_ok_and(|user| user / size == number / size);
        let member = &mut self.members[number];
        let changes = if joins { member.roster.insert(user) } else { member.roster.remove(&user) };
        // Who has asked to leave may or may not be told of the others who leave.
        let leaver = !member.inside && !joins;
        let expected = leaver || changes && joins == (self.phase == Phase::Join);
        if is_own || !is_neighbor || !expected {
            return self.violations.add(|| format!("member {number}: {message}"));
        }
        if member.inside {
            self.missing = self.missing.saturating_sub(1);
        }
    }

    fn on_joined(&mut self, number: usize, message: &Value) {
        self.progress += 1;
        self.missing = self.missing.saturating_sub(1);
        let roster = presence::roster(message);
        if self.phase != Phase::Join || !roster.contains(&Self::user(number)) {
            return self.violations.add(|| format!("member {number}: {message}"));
        }
        self.members[number].roster = roster;
    }
}

impl Load for Storm<'_> {
    fn rest(&mut self) {}

    fn waits(&self) -> bool {
        self.missing > 0
    }

    fn progress(&self) -> u64 {
        self.progress
    }

    fn failed(&self) -> bool {
        self.violations.count + self.crowd.violations.count > 0
    }

    fn stalled(&mut self, waited: Duration) {
        let Self { missing, phase, .. } = *self;
        self.violations.add(|| format!("{phase:?}: {missing} messages missing after {waited:?}"));
    }
}

impl Handler for Storm<'_> {
    fn on_open(&mut self, _: &mut Pool, _: Key) {}

    fn on_message(&mut self, pool: &mut Pool, key: Key, message: &[u8]) {
        let Ok(parsed) = serde_json::from_slice::<Value>(message) else {
            return self.crowd.on_message(pool, key, message);
        };
        match parsed["event"].as_str().unwrap_or_default() {
            "pusher_internal:subscription_succeeded" => self.on_joined(key.number(), &parsed),
            "pusher_internal:member_added" => self.on_notice(key.number(), &parsed, true),
            "pusher_internal:member_removed" => self.on_notice(key.number(), &parsed, false),
            _ => self.crowd.on_message(pool, key, message),
        }
    }

    fn on_close(&mut self, pool: &mut Pool, key: Key, why: CloseWhy) {
        self.crowd.on_close(pool, key, why);
    }
}

/// What all rounds of a phase used.
#[derive(Default)]
struct Sum {
    wall: Duration,
    server: Duration,
    notices: u64,
}

impl Sum {
    fn add(&mut self, used: Used, notices: u64) {
        self.wall += used.wall;
        self.server += used.server;
        self.notices += notices;
    }

    fn report(&self, report: &mut Report, one: &str, many: &str, count: u64) {
        report.figure(many, count as f64 / self.wall.as_secs_f64().max(1e-9), "1/s");
        report.figure(format!("server CPU per {one}"), us_each(self.server, count), "us");
        report.figure(format!("notices per {one}"), ratio(self.notices, count), "");
        let each = us_each(self.server, self.notices);
        report.figure(format!("server CPU per notice of a {one}"), each, "us");
    }
}

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let Bench { servers, telemetry, .. } = bench;
    let size = args.members as usize;
    let mut report = Report::new("presence");
    report.count("channels", args.channels as u64);
    report.count("members", u64::from(args.members));
    report.count("rounds", args.rounds);
    let mut pool = bench.pool()?;
    let mut crowd = Subscribers::new(0);
    crowd.connect(&mut pool, telemetry, args.channels * size)?;
    let member = || Member { roster: BTreeSet::new(), inside: false };
    let mut storm = Storm {
        size,
        members: (0..crowd.len()).map(|_| member()).collect(),
        crowd: &mut crowd,
        phase: Phase::Join,
        missing: 0,
        notices: 0,
        progress: 0,
        violations: Violations::default(),
    };
    telemetry.phase("first join", 0);
    let goers: Vec<usize> = storm.goers().collect();
    let stayers: Vec<usize> = (0..storm.members.len()).filter(|number| number % 2 == 0).collect();
    storm.join(bench, &mut pool, &stayers)?;
    storm.join(bench, &mut pool, &goers)?;
    storm.check(bench, &mut pool)?;
    telemetry.phase("leave and join", 0);
    let (mut joins, mut leaves) = (Sum::default(), Sum::default());
    let mut rounds = 0;
    while rounds < args.rounds && !storm.failed() {
        let (window, before) = (Window::open(servers), storm.notices);
        storm.leave(bench, &mut pool, &goers)?;
        leaves.add(window.close(servers), storm.notices - before);
        storm.check(bench, &mut pool)?;
        let (window, before) = (Window::open(servers), storm.notices);
        storm.join(bench, &mut pool, &goers)?;
        joins.add(window.close(servers), storm.notices - before);
        storm.check(bench, &mut pool)?;
        rounds += 1;
    }
    let count = rounds * goers.len() as u64;
    joins.report(&mut report, "join", "joins", count);
    leaves.report(&mut report, "leave", "leaves", count);
    report.add_violations(storm.violations);
    crowd.close_all(&mut pool);
    report.add_violations(crowd.violations);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn storm(crowd: &mut Subscribers) -> Storm<'_> {
        let member = |inside| Member { roster: BTreeSet::new(), inside };
        Storm {
            size: 2,
            members: [true, false, true, false].map(member).into(),
            crowd,
            phase: Phase::Join,
            missing: 0,
            notices: 0,
            progress: 0,
            violations: Violations::default(),
        }
    }

    fn notice(user: User) -> Value {
        json!({ "data": presence::channel_data(user) })
    }

    #[test]
    fn each_member_inside_receives_a_join_once() {
        let mut crowd = Subscribers::default();
        let mut storm = storm(&mut crowd);
        storm.missing = storm.notices_due(&[1]);
        assert_eq!(storm.missing, 1);
        storm.on_notice(0, &notice(1), true);
        assert_eq!((storm.missing, storm.violations.count), (0, 0));
        storm.on_notice(0, &notice(1), true);
        assert_eq!(storm.violations.count, 1, "told twice");
    }

    #[test]
    fn an_impossible_order_of_changes_is_a_violation() {
        let mut crowd = Subscribers::default();
        let mut storm = storm(&mut crowd);
        storm.on_notice(0, &notice(0), true);
        assert_eq!(storm.violations.count, 1, "of itself");
        storm.on_notice(0, &notice(3), true);
        assert_eq!(storm.violations.count, 2, "of another channel");
        storm.on_notice(0, &notice(1), false);
        assert_eq!(storm.violations.count, 3, "a leave while all join");
        storm.on_notice(0, &json!({ "data": "{}" }), true);
        assert_eq!(storm.violations.count, 4, "of nobody");
        storm.phase = Phase::Leave;
        storm.on_notice(0, &notice(1), false);
        assert_eq!(storm.violations.count, 5, "of somebody who was not there");
    }

    #[test]
    fn a_joining_member_is_in_its_own_roster() {
        let mut crowd = Subscribers::default();
        let mut storm = storm(&mut crowd);
        let roster = |ids: &[&str]| {
            let data = json!({ "presence": { "ids": ids, "hash": {}, "count": ids.len() } });
            json!({ "data": data.to_string() })
        };
        storm.on_joined(1, &roster(&["u0", "u1"]));
        assert_eq!(storm.violations.count, 0);
        assert_eq!(storm.members[1].roster, BTreeSet::from([0, 1]));
        storm.on_joined(3, &roster(&["u2"]));
        assert_eq!(storm.violations.count, 1);
    }
}
