//! The end of a server: from the order to end until the process exits or executes another program.
//!
//! Owns the order of the steps: close connections, or leave them to the new process; deliver what the cores and the
//! cluster are still owed; post webhooks; withdraw listeners and files. Input: a running server in its parts (`Life`),
//! and why it ends (`End`). An order that comes during the end has one meaning only: a second signal ends the process
//! at once. Does not wait for the order to end (`orders.rs`).
//! Limits: the grace period for connections, at least `WEBHOOKS_TIME_MIN` for webhooks, `OWED_TIME_MAX` for mail and
//! again for Redis. What is not done by then is lost, and the log says so. A supervisor has to wait for the sum: a test
//! below compares the units with it. Cost: once; while it drains, one wake-up of each
//! worker every 10 ms.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::admin::AdminServer;
use super::probe::StartError;
use super::takeover::replacement::{Program, Replacement};
use super::takeover::{Offering, Order};
use super::wait::{look_for, since, wake_all};
use super::watch;
use crate::clock::Moment;
use crate::mailbox::Doorbell;
use crate::output;
use crate::webhook;
use crate::worker::Shared;
use crate::worker::time::Clock;

/// Why the server ends, and with it who has its listeners and connections now.
pub(super) enum End {
    Drain,
    /// `Drain`, but the new process with this id has taken over the listeners.
    Retire(i32),
    /// The new process with this id has taken over everything.
    Transferred(i32),
}

/// What is left to do for `server/mod.rs`.
#[derive(Debug)]
pub(super) enum ServerEnd {
    Stopped,
    /// Its stand-in serves, and this process is to execute the new program.
    Replaced(Replacement),
}

/// Signals within this time are one: Ctrl+C reaches a whole process group, and its supervisor passes the signal on.
pub(super) const SAME_SIGNAL_TIME: Duration = Duration::from_secs(1);

/// What webhooks get at the end, even if the connections have used all of the grace period.
const WEBHOOKS_TIME_MIN: Duration = Duration::from_secs(1);

/// For mail between cores, and again for what other nodes are to receive.
const OWED_TIME_MAX: Duration = Duration::from_secs(1);

/// A running server in its parts, which end one after the other.
pub(super) struct Life {
    pub(super) shared: Arc<Shared>,
    pub(super) doorbells: Arc<[Doorbell]>,
    pub(super) webhooks: webhook::Webhooks,
    pub(super) take_over_offer: Option<Offering>,
    pub(super) admin: Option<AdminServer>,
    pub(super) shutdown_grace: Duration,
}

impl Life {
    /// # Errors
    /// When connections were still open after the grace period.
    pub(super) fn end(
        self,
        end: &End,
        orders: Receiver<Order>,
        mut program: Program,
    ) -> Result<ServerEnd, StartError> {
        let Self { shared, doorbells, webhooks, take_over_offer, admin, shutdown_grace } = self;
        let asked_at = shared.clock.now();
        let is_taken_over = !matches!(end, End::Drain);
        admin.iter().for_each(|admin| admin.end_changes(is_taken_over));
        let is_transferred = matches!(end, End::Transferred(_));
        let is_drained = is_transferred
            || drain(&shared, &doorbells, &orders, shutdown_grace, end, &mut program);
        let apps = shared.current_configuration.get().apps.clone();
        let has_webhooks = apps.iter().any(|app| !app.webhooks.is_empty());
        if !is_transferred && (has_webhooks || shared.redis.is_some()) {
            wait_for_mail(&shared, &doorbells);
        }
        let is_stage = matches!(*end, End::Transferred(process) | End::Retire(process) if program.is_stage(process));
        let replacement = match *end {
            End::Transferred(process) | End::Retire(process) if program.is_stand_in(process) => {
                program.replacement(orders)
            }
            _ => {
                end_at_second_signal(orders, shared.clock, asked_at);
                None
            }
        };
        let used = Duration::from_millis(shared.clock.now().0.saturating_sub(asked_at.0));
        webhooks.finish(shutdown_grace.saturating_sub(used).max(WEBHOOKS_TIME_MIN));
        if !is_transferred {
            shared.phase.set_stopped();
            wake_all(&doorbells);
            wait_for_redis(&shared, &doorbells);
        }
        watch::log_all(&shared.overload.refusals);
        admin.iter().for_each(|admin| admin.finish(shared.clock));
        if let Some(admin) = admin.filter(|_| matches!(end, End::Drain)) {
            admin.remove_file();
        }
        match take_over_offer {
            Some(offer) if matches!(end, End::Drain) => offer.withdraw(),
            Some(offer) => offer.wait(),
            None => {}
        }
        if let Some(replacement) = replacement {
            return Ok(ServerEnd::Replaced(replacement));
        }
        // After SIGUSR2 the server goes on, in the process that took over from this stand-in.
        if !is_stage {
            log_stopped(&shared, asked_at);
        }
        if is_drained { Ok(ServerEnd::Stopped) } else { Err(StartError::Grace) }
    }
}

fn log_stopped(shared: &Shared, asked_at: Moment) {
    let millis = shared.clock.now().0.saturating_sub(asked_at.0);
    tracing::info!(
        event = "server_stopped",
        "Stopped after {}.{} s",
        millis / 1_000,
        millis % 1_000 / 100
    );
}

/// Returns whether every worker is without connections; `false`: the grace period is over.
fn drain(
    shared: &Shared,
    doorbells: &[Doorbell],
    orders: &Receiver<Order>,
    grace: Duration,
    end: &End,
    program: &mut Program,
) -> bool {
    const STEP: Duration = Duration::from_millis(10);
    let workers = doorbells.len();
    if matches!(end, End::Retire(_)) {
        shared.phase.set_retiring();
    } else {
        shared.phase.set_draining();
    }
    let began = shared.clock.now();
    let look = || {
        if shared.drained_workers.load(Ordering::Acquire) == workers {
            return Some(());
        }
        if matches!(orders.try_recv(), Ok(Order::End(_))) {
            let is_meant_elsewhere = match end {
                End::Retire(process) => program.ends_stand_in(*process),
                End::Drain | End::Transferred(_) => false,
            };
            if !is_meant_elsewhere && since(began, shared.clock.now()) >= SAME_SIGNAL_TIME {
                end_at_once();
            }
        }
        wake_all(doorbells);
        None
    };
    look_for(|| shared.clock.now(), grace, STEP, look).is_some()
}

fn end_at_once() -> ! {
    tracing::warn!(event = "shutdown_forced", "second signal: ending at once");
    output::exit(1)
}

/// The main thread receives no order while it waits for webhooks and for other nodes, so another thread does.
fn end_at_second_signal(orders: Receiver<Order>, clock: Clock, asked_at: Moment) {
    let thread = std::thread::Builder::new().name("last-signal".to_owned());
    let end_if_asked = move || {
        for asked in orders {
            let since = clock.now().0.saturating_sub(asked_at.0);
            if matches!(asked, Order::End(_)) && u128::from(since) >= SAME_SIGNAL_TIME.as_millis() {
                end_at_once();
            }
        }
    };
    if let Err(error) = thread.spawn(end_if_asked) {
        tracing::warn!(
            event = "system_setting_refused",
            "a second signal will not end the server at once: {error}"
        );
    }
}

/// Waits until the workers have sent each other what their last connections left behind: a leave goes to a home, and
/// what an unanswered join owes takes two mails more. Gives up after a second.
fn wait_for_mail(shared: &Shared, doorbells: &[Doorbell]) {
    const TICKS: u64 = 4;
    let ticks = || shared.drained_ticks.iter().map(|ticks| ticks.load(Ordering::Acquire));
    let before: Vec<u64> = ticks().collect();
    let look = || {
        if ticks().zip(&before).all(|(now, before)| now >= before + TICKS) {
            return Some(());
        }
        wake_all(doorbells);
        None
    };
    look_for(|| shared.clock.now(), OWED_TIME_MAX, Duration::from_millis(1), look);
}

/// Waits until the other nodes have been sent that this one ends. The others find out by failure detection.
fn wait_for_redis(shared: &Shared, doorbells: &[Doorbell]) {
    let Some(redis) = &shared.redis else { return };
    // A worker that drains ticks twenty times a second.
    let look = || {
        if redis.ended_workers.load(Ordering::Acquire) >= doorbells.len() {
            return Some(());
        }
        wake_all(doorbells);
        None
    };
    look_for(|| shared.clock.now(), OWED_TIME_MAX, Duration::from_millis(10), look);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number_after<'a>(text: &'a str, word: &str) -> &'a str {
        let (_, rest) = text.split_once(word).unwrap_or_else(|| panic!("{word} is in no line"));
        rest.split(|char: char| !char.is_ascii_digit()).find(|digits| !digits.is_empty()).unwrap()
    }

    fn seconds_after(text: &str, word: &str) -> Duration {
        Duration::from_secs(number_after(text, word).parse().unwrap())
    }

    /// A supervisor that kills the server earlier loses webhooks, answers and lines of the log.
    #[test]
    fn supervisors_wait_for_the_longest_end() {
        let options = include_str!("../../docs/OPTIONS.md");
        let default = |option: &str, name: &str| {
            seconds_after(options, &format!("| `{option}` | `{name}` | `"))
        };
        let grace = default("RINGVERB_SHUTDOWN_GRACE", "shutdown_grace");
        let delay = default("RINGVERB_SHUTDOWN_DELAY", "shutdown_delay");
        let after_grace = OWED_TIME_MAX
            + WEBHOOKS_TIME_MIN
            + OWED_TIME_MAX
            + crate::server::admin::ANSWERS_TIME_MAX
            + output::FINISH_TIME;
        // Documents say "9 s" of what follows the grace period, and "10 s" of what to add.
        assert_eq!(after_grace, Duration::from_secs(9));
        let defaults = grace + delay;
        let pod = include_str!("../../packaging/kubernetes/ringverb.yaml");
        let of_pod = seconds_after(pod, "RINGVERB_SHUTDOWN_DELAY: ")
            + seconds_after(pod, "RINGVERB_SHUTDOWN_GRACE: ");
        for (file, text, word, before) in [
            (
                "ringverb.service",
                include_str!("../../tuning/ringverb.service"),
                "\nTimeoutStopSec=",
                defaults,
            ),
            (
                "supervisor",
                include_str!("../../tuning/ringverb-supervisor.conf"),
                "\nstopwaitsecs=",
                defaults,
            ),
            ("laravel.md", include_str!("../../docs/laravel.md"), "\nstopwaitsecs=", defaults),
            (
                "compose.yaml",
                include_str!("../../packaging/compose/compose.yaml"),
                "stop_grace_period: ",
                defaults,
            ),
            (
                "cluster.yaml",
                include_str!("../../packaging/compose/cluster.yaml"),
                "stop_grace_period: ",
                defaults,
            ),
            ("ringverb.yaml", pod, "terminationGracePeriodSeconds: ", of_pod),
        ] {
            let waits = seconds_after(text, word);
            assert!(waits >= before + after_grace, "{file}: {waits:?}, {before:?}");
        }
        let chart = include_str!("../../packaging/helm/ringverb/templates/deployment.yaml");
        let added = number_after(chart, ".Values.shutdown.delay .Values.shutdown.grace ");
        assert!(Duration::from_secs(added.parse().unwrap()) >= after_grace, "{added}");
    }
}
