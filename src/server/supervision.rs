//! Notifications to systemd (Type=notify): readiness, the main process, a status for a person, the end, and the
//! watchdog.
//!
//! Owns the heartbeats that the watchdog has seen last, and the moment of its next look. A notification is one datagram
//! with lines of text (sd_notify(3)). Without NOTIFY_SOCKET nothing is sent. The watchdog is notified only if every
//! worker runs: a worker that hangs keeps a part of all connections, and only a new process repairs that. Does not
//! decide when the server is ready or stops.
//! Limits: one short datagram at a time; a full socket of systemd delays the main thread, which serves no client;
//! `INTERVAL_MIN` between looks, so a watchdog of less than three times that is notified too late. A worker that hangs
//! is found after `STALLED_MIN` at the earliest, so a watchdog of less than that ends the server that much later. Cost:
//! three system calls for a notification.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::wait::since;
use crate::clock::Moment;
use crate::worker::Shared;

/// So that a watchdog of microseconds does not occupy the main thread.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// A worker whose counter stands still for so long has stalled, however short the watchdog's time is: a worker counts a
/// heartbeat once a second.
const STALLED_MIN: Duration = Duration::from_secs(2);
/// An order that may take long begins at most so long after a look.
pub(super) const LOOK_AGE_MAX: Duration = Duration::from_secs(1);

pub(super) fn notify_ready() {
    // The new process of a take-over is not the process that systemd started.
    // A status of the process before is over.
    notify(&format!("MAINPID={}\nREADY=1\nSTATUS=\n", std::process::id()));
}

/// What `systemctl status` shows until the next `notify_ready`. `text` is one line.
pub(super) fn notify_status(text: &str) {
    debug_assert!(!text.contains('\n'), "the next line would be another variable");
    notify(&format!("STATUS={text}\n"));
}

pub(super) fn notify_stopping() {
    notify("STOPPING=1\n");
}

fn notify(state: &str) {
    #[expect(clippy::disallowed_methods, reason = "systemd sets it; it is no option of the server")]
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(event = "systemd_not_notified", "systemd could not be notified: {error}");
    }
}

/// `socket`: a path, or with `@` in front an abstract name, which a container engine may use.
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// How often the watchdog wants a notification; `None` if it is off, or for another process.
fn watchdog_time() -> Option<Duration> {
    #[expect(clippy::disallowed_methods, reason = "systemd sets it; it is no option of the server")]
    let [time, process] = ["WATCHDOG_USEC", "WATCHDOG_PID"].map(std::env::var);
    watchdog_of(&time.ok()?, process.ok().as_deref(), std::process::id())
}

fn watchdog_of(micros: &str, process: Option<&str>, own: u32) -> Option<Duration> {
    let micros = micros.parse().ok().filter(|micros| *micros > 0)?;
    let is_meant = process.is_none_or(|process| process.parse() == Ok(own));
    is_meant.then(|| Duration::from_micros(micros))
}

/// Looks at the workers and notifies systemd, if systemd watches this process.
pub(super) struct Watchdog(Option<Schedule>);

struct Schedule {
    /// A third of the watchdog's time, so that one late look does not end the process.
    interval: Duration,
    last_look: Moment,
    heartbeats: Heartbeats,
}

/// By worker: the heartbeat that was seen last, and since when.
struct Heartbeats {
    seen: Vec<(u64, Moment)>,
    stalled_after: Duration,
}

impl Heartbeats {
    /// A worker has until `stalled_after` from now for its first heartbeat.
    fn new(workers: usize, now: Moment, interval: Duration) -> Self {
        Self { seen: vec![(0, now); workers], stalled_after: interval.max(STALLED_MIN) }
    }

    /// The worker that has stood still longest, and for how long, if that is long enough to have stalled. It may be
    /// called at any time.
    fn stalled(
        &mut self,
        now: Moment,
        beats: impl ExactSizeIterator<Item = u64>,
    ) -> Option<(usize, Duration)> {
        debug_assert_eq!(beats.len(), self.seen.len(), "one counter for each worker");
        for (beat, seen) in beats.zip(&mut self.seen) {
            if seen.0 != beat {
                *seen = (beat, now);
            }
        }
        let still = self.seen.iter().map(|seen| since(seen.1, now)).enumerate();
        still.max_by_key(|(_, time)| *time).filter(|(_, time)| *time >= self.stalled_after)
    }
}

impl Watchdog {
    pub(super) fn new(shared: &Shared) -> Self {
        let now = shared.clock.now();
        Self(watchdog_time().map(|time| {
            let interval = (time / 3).max(INTERVAL_MIN);
            let heartbeats = Heartbeats::new(shared.heartbeats.len(), now, interval);
            Schedule { interval, last_look: now, heartbeats }
        }))
    }

    /// Time until the next look. `None`: no watchdog.
    pub(super) fn time_left(&self, now: Moment) -> Option<Duration> {
        let schedule = self.0.as_ref()?;
        Some(schedule.interval.saturating_sub(since(schedule.last_look, now)))
    }

    /// To be called after each order and each wait: it looks only if the interval is over.
    pub(super) fn look_if_due(&mut self, shared: &Shared) {
        let interval = self.0.as_ref().map(|schedule| schedule.interval);
        self.look_if_older_than(interval, shared);
    }

    /// To be called before an order that may take long, so that the watchdog waits for this order only.
    pub(super) fn look_before_long_order(&mut self, shared: &Shared) {
        self.look_if_older_than(Some(LOOK_AGE_MAX), shared);
    }

    /// If a worker has stalled, no notification is sent, and a warning is logged.
    fn look_if_older_than(&mut self, age: Option<Duration>, shared: &Shared) {
        let (Some(schedule), Some(age)) = (&mut self.0, age) else { return };
        let now = shared.clock.now();
        if since(schedule.last_look, now) < age {
            return;
        }
        schedule.last_look = now;
        let beats = shared.heartbeats.iter().map(|beat| beat.load(Ordering::Relaxed));
        match schedule.heartbeats.stalled(now, beats) {
            None => notify("WATCHDOG=1\n"),
            Some((worker, time)) => {
                tracing::warn!(event = "worker_stalled", "{}", stalled_text(worker, time))
            }
        }
    }
}

fn stalled_text(worker: usize, time: Duration) -> String {
    let seconds = time.as_secs_f32();
    format!(
        "worker {worker} has not run for {seconds:.1} s, so systemd is not notified: it ends the server if that lasts \
         longer than WatchdogSec="
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::change;
    use crate::server::takeover::transfer;

    #[test]
    fn the_watchdog_is_for_the_process_that_systemd_names() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog_of("1000000", Some("7"), 7), second);
        assert_eq!(watchdog_of("1000000", None, 7), second);
        for (micros, process) in
            [("1000000", Some("8")), ("1000000", Some("")), ("0", None), ("x", None)]
        {
            assert_eq!(watchdog_of(micros, process, 7), None, "{micros} {process:?}");
        }
    }

    /// A worker counts one heartbeat a second; systemd may want a notification more often.
    #[test]
    fn a_worker_that_runs_has_not_stalled_however_often_the_watchdog_looks() {
        for interval_ms in [10, 333, 667, 1_000, 5_000] {
            let mut heartbeats = Heartbeats::new(2, Moment(0), Duration::from_millis(interval_ms));
            for now in (1..60_000 / interval_ms).map(|look| look * interval_ms) {
                let beats = [now / 1_000, (now + 900) / 1_000];
                let stalled = heartbeats.stalled(Moment(now), beats.into_iter());
                assert_eq!(stalled, None, "{interval_ms}: {now}");
            }
        }
    }

    #[test]
    fn a_worker_that_stands_still_for_an_interval_has_stalled() {
        for (interval_ms, stalled_ms) in [(333, 2_000), (5_000, 5_000)] {
            let mut heartbeats = Heartbeats::new(2, Moment(0), Duration::from_millis(interval_ms));
            let mut look = |now, stuck| heartbeats.stalled(Moment(now), [now, stuck].into_iter());
            assert_eq!(look(100, 1), None);
            assert_eq!(look(100 + stalled_ms - 1, 1), None, "further looks do not make it older");
            for passed_ms in [stalled_ms, stalled_ms + 1] {
                let passed = Duration::from_millis(passed_ms);
                assert_eq!(look(100 + passed_ms, 1), Some((1, passed)), "for how long, as it is");
            }
            assert_eq!(look(100 + stalled_ms + 2, 2), None, "it runs again");
        }
    }

    /// However short the watchdog's time is, the line has the time that the worker has stood still.
    #[test]
    fn the_line_about_a_stalled_worker_names_it_and_its_time() {
        let text = stalled_text(3, Duration::from_millis(2_040));
        assert!(text.starts_with("worker 3 has not run for 2.0 s,"), "{text}");
    }

    /// The longest order begins `LOOK_AGE_MAX` after a look at most.
    #[test]
    fn the_longest_order_ends_before_the_watchdog_of_the_unit() {
        let unit = include_str!("../../tuning/ringverb.service");
        let seconds = unit.lines().find_map(|line| line.strip_prefix("WatchdogSec="));
        let watchdog = Duration::from_secs(seconds.unwrap().parse().unwrap());
        for longest in [transfer::SEND_TIME_MAX, change::CHANGE_TIME_MAX] {
            assert!(LOOK_AGE_MAX + longest < watchdog, "{longest:?}");
        }
    }

    #[test]
    fn a_notification_reaches_a_socket_with_an_abstract_name() {
        let name = format!("ringverb notify {}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "READY=1\n").unwrap();
        let mut buffer = [0; 16];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\n");
        assert!(send(OsStr::new("/nonexistent/socket"), "READY=1\n").is_err());
    }
}
