//! Notifications to systemd (Type=notify): readiness, the main process, the end, and the watchdog.
//!
//! Without NOTIFY_SOCKET nothing is sent. The watchdog is notified only if every worker has run since the last
//! notification: a worker that hangs keeps a part of all connections, and only a new process repairs that.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::worker::Shared;

pub(super) fn notify_ready() {
    // The new process of a take-over is not the process that systemd started.
    notify(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
}

pub(super) fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(event = "systemd_not_notified", "systemd could not be notified: {error}");
    }
}

/// Feeds the watchdog.
pub(super) struct Watchdog {
    /// Between two looks; workers tick at least once a second.
    pub(super) interval: Option<Duration>,
    heartbeats: Vec<u64>,
}

impl Watchdog {
    pub(super) fn new(shared: &Shared) -> Self {
        let interval = sd_notify::watchdog_enabled().map(|time| time / 3);
        Self { interval, heartbeats: vec![0; shared.heartbeats.len()] }
    }

    /// One look: feeds it if every worker has ticked since it was fed last.
    pub(super) fn look(&mut self, shared: &Shared) {
        let now: Vec<u64> =
            shared.heartbeats.iter().map(|beat| beat.load(Ordering::Relaxed)).collect();
        if now.iter().zip(&self.heartbeats).all(|(now, before)| now > before) {
            self.heartbeats = now;
            notify(&[NotifyState::Watchdog]);
        } else {
            tracing::warn!(
                event = "worker_stalled",
                "a worker has not run since the last watchdog notification"
            );
        }
    }
}
