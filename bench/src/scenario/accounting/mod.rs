//! The correctness run: connections join, leave, publish and vanish at random, and every delivery is accounted for by
//! the rules of `ledger.rs`.
//!
//! Owns the rates and the checks. Every few seconds all actions pause until nothing is in flight; then the rosters and
//! the HTTP API's counts must agree with the ledger. Rates are fixed (an open loop), so that a slow server is tested
//! and not spared. Never makes up for an action that found a busy publisher or a connection that is not ready. Limits:
//! the arguments; `AGREEMENT` for a check. Cost: one thread; a step every millisecond, and for each message an entry of
//! the ledger.

mod args;
mod driver;
mod ledger;

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::driver::Driver;
use super::Bench;
use crate::pool::Pool;
use crate::report::Report;
pub(crate) use args::Args;

/// For the server to notice a vanished connection, and to tell all others.
const AGREEMENT: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(1);

pub(crate) fn run(bench: &Bench, args: &Args) -> io::Result<Report> {
    let app = &bench.app;
    let mut pool = bench.pool()?;
    let mut driver = Driver::new(app, args, &mut pool)?;
    let cpu = bench.servers.cpu_time();
    let begin = Instant::now();
    let end = begin + Duration::from_secs(args.seconds);
    let mut checks = Checks::default();
    settle(&mut driver, &mut pool)?;
    driver.fill(&mut pool, 6);
    bench.telemetry.phase("accounting", 0);
    while Instant::now() < end && !driver.gave_up() {
        let pause = end.min(Instant::now() + Duration::from_secs(args.check_every));
        act_until(&mut driver, &mut pool, args, pause)?;
        bench.telemetry.progress(driver.ledger.counts.deliveries_due);
        checks.run(&mut driver, &mut pool)?;
    }
    let wall = begin.elapsed();
    let cpu = bench.servers.cpu_time().saturating_sub(cpu);
    driver.leave_all(&mut pool);
    checks.run(&mut driver, &mut pool)?;
    driver.close_all(&mut pool);

    let mut report = Report::new("accounting");
    report.count("connections", args.connections as u64);
    report.count("channels", args.channels as u64);
    report.count("seed", args.seed);
    report.figure("time", wall.as_secs_f64(), "s");
    report.figure("server CPU", cpu.as_secs_f64(), "s");
    driver.report(&mut report);
    report.count("checks of everything", checks.passed);
    report.count("channel counts compared", checks.counts_compared);
    Ok(report)
}

/// Actions at their rates, in steps of a millisecond.
fn act_until(
    driver: &mut Driver<'_>,
    pool: &mut Pool,
    args: &Args,
    end: Instant,
) -> io::Result<()> {
    let begin = Instant::now();
    let due = |rate: u64| {
        let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        rate * micros / 1_000_000
    };
    let (mut published, mut whispered, mut churned) = (0, 0, 0);
    let mut swept = begin;
    while Instant::now() < end && !driver.gave_up() {
        pool.poll(TICK, driver)?;
        while published < due(args.publish_rate) {
            driver.publish(pool);
            published += 1;
        }
        while whispered < due(args.client_event_rate) {
            driver.client_event(pool);
            whispered += 1;
        }
        while churned < due(args.churn_rate) {
            driver.churn(pool);
            churned += 1;
        }
        if swept.elapsed() > Duration::from_secs(1) {
            swept = Instant::now();
            driver.ledger.sweep(swept);
        }
    }
    Ok(())
}

/// Waits until nothing is on its way; what does not come becomes a violation by being overdue.
fn settle(driver: &mut Driver<'_>, pool: &mut Pool) -> io::Result<()> {
    let begin = Instant::now();
    while !(driver.gave_up() || driver.is_quiet() && driver.ledger.due_count == 0) {
        pool.poll(TICK, driver)?;
        let now = Instant::now();
        driver.ledger.sweep(now);
        if now.duration_since(begin) > ledger::OVERDUE + AGREEMENT {
            let text = driver.unquiet();
            driver.ledger.violations.add(|| format!("does not come to rest: {text}"));
            return Ok(());
        }
    }
    Ok(())
}

#[derive(Default)]
struct Checks {
    passed: u64,
    counts_compared: u64,
}

impl Checks {
    fn run(&mut self, driver: &mut Driver<'_>, pool: &mut Pool) -> io::Result<()> {
        settle(driver, pool)?;
        let deadline = Instant::now() + AGREEMENT;
        loop {
            let agreement = match driver.ledger.rosters() {
                Ok(()) => self.compare_counts(driver, pool)?,
                Err(text) => Err(text),
            };
            match agreement {
                Ok(()) => {
                    self.passed += 1;
                    return Ok(());
                }
                Err(text) if Instant::now() > deadline || driver.gave_up() => {
                    driver.ledger.violations.add(|| format!("after {AGREEMENT:?}: {text}"));
                    return Ok(());
                }
                Err(_) => pool.poll(Duration::from_millis(20), driver)?,
            }
        }
    }

    /// The channels that the HTTP API lists, and their counts, against the ledger.
    fn compare_counts(
        &mut self,
        driver: &mut Driver<'_>,
        pool: &mut Pool,
    ) -> io::Result<Result<(), String>> {
        let query = [("info", "subscription_count,user_count")];
        let answer = driver.get(pool, "/channels", &query)?;
        let Some(listed) = answer["channels"].as_object() else {
            return Ok(Err(format!("GET /channels: {answer}")));
        };
        for channel in 0..driver.channels.len() {
            let name = &driver.channels[channel];
            let subscribers = driver.ledger.subscribers(channel).len();
            let users = driver.ledger.users(channel);
            let Some(found) = listed.get(name) else {
                if subscribers == 0 {
                    continue;
                }
                return Ok(Err(format!("{name} is not listed, has {subscribers} subscribers")));
            };
            let users_count = if driver.is_presence(channel) { users.len() } else { 0 };
            for (attribute, expected) in
                [("subscription_count", subscribers), ("user_count", users_count)]
            {
                let Some(count) = found[attribute].as_u64() else { continue };
                self.counts_compared += 1;
                if subscribers == 0 || count != expected as u64 {
                    return Ok(Err(format!("{name}: {attribute} {count}, expected {expected}")));
                }
            }
            if subscribers == 0 {
                return Ok(Err(format!("{name} is listed and has no subscriber")));
            }
            // The list of users of every fourth channel: all of them would be one request each.
            if driver.is_presence(channel) && channel % 4 == 0 {
                let name = name.clone();
                let answer = driver.get(pool, &format!("/channels/{name}/users"), &[])?;
                let found = user_ids(&answer);
                self.counts_compared += 1;
                if found != users.iter().map(|user| driver::user_id(*user)).collect() {
                    return Ok(Err(format!("users of {name}: {answer}, expected {users:?}")));
                }
            }
        }
        Ok(Ok(()))
    }
}

fn user_ids(answer: &Value) -> BTreeSet<String> {
    let users = answer["users"].as_array().map(Vec::as_slice).unwrap_or_default();
    users.iter().filter_map(|user| user["id"].as_str()).map(str::to_owned).collect()
}
