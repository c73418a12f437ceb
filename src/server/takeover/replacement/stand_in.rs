//! The stand-in: a child that executes the new program, takes over, and serves until this process has taken back.
//!
//! Owns its state, which the main thread, the thread that waits for its end and a timer share. Reports a stand-in that
//! ends, or is late, before it has taken over. Does not start it (`Program`). Limits: `START_TIME_MAX` until it has
//! taken over. Cost: one thread for a stand-in, which waits for its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::failure;
use super::stage::START_TIME_MAX;
use crate::server::control::Control;

/// It starts, and has not taken over.
const STARTING: u8 = 0;
/// It has taken over: from here on it is not killed for being late.
const SERVING: u8 = 1;
/// It was killed because it had not taken over in time, and that was reported.
const LATE: u8 = 2;
const ENDED: u8 = 3;

/// A clone is the same stand-in.
#[derive(Clone, Debug)]
pub(in crate::server) struct StandIn {
    pub(super) process: Pid,
    state: Arc<AtomicU8>,
}

impl StandIn {
    /// This child is to take over from this process.
    pub(super) fn starting(process: Pid, control: &Control) -> Self {
        let stand_in = Self { process, state: Arc::new(AtomicU8::new(STARTING)) };
        stand_in.reap();
        stand_in.end_if_late(control);
        stand_in
    }

    /// This process has taken back from this child, which ends now. Waits for that in a thread.
    pub(in crate::server) fn reap_after_service(process: Pid) {
        Self { process, state: Arc::new(AtomicU8::new(SERVING)) }.reap();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) == ENDED
    }

    /// It has the listeners.
    pub(super) fn note_serving(&self) {
        self.change(STARTING, SERVING);
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Waits in a thread of its own, so that no zombie is left. An end that comes too early is reported.
    fn reap(&self) {
        let (process, state) = (self.process, self.state.clone());
        let wait = move || {
            let status = wait_for_exit(process);
            let before = state.swap(ENDED, Ordering::AcqRel);
            let how = exit_text(status);
            if before == STARTING {
                failure::report(&format!(
                    "process {process}, which was to take over, has ended: {how}. Nothing changes; its lines in the \
                     log have the reason"
                ));
            } else if status != Some(0) {
                tracing::error!(event = "replacement_ended", "process {process} has ended: {how}");
            }
        };
        let thread = std::thread::Builder::new().name("stand-in".to_owned());
        if let Err(error) = thread.spawn(wait) {
            tracing::warn!(
                event = "system_setting_refused",
                "process {process} will be a zombie when it has ended: {error}",
                process = self.process
            );
        }
    }

    /// A program that hangs is killed, so that SIGUSR2 can be tried again.
    fn end_if_late(&self, control: &Control) {
        let stand_in = self.clone();
        let end = move || async move {
            monoio::time::sleep(START_TIME_MAX).await;
            // It is not reaped yet, or `ENDED` is set: the id cannot be another process's.
            if stand_in.change(STARTING, LATE) {
                failure::report(&format!(
                    "process {} did not take over within {} s and is killed. Nothing changes; look at what holds up \
                     its start, and send SIGUSR2 again",
                    stand_in.process,
                    START_TIME_MAX.as_secs()
                ));
                forward_signal(stand_in.process, Signal::KILL);
            }
        };
        if let Err(error) = control.run(move || Ok(end())) {
            tracing::warn!(
                event = "system_setting_refused",
                "if the start of process {} hangs, nothing ends it: {error}",
                self.process
            );
        }
    }
}

/// Its exit code; `None` if a signal ended it, or if it is no child.
pub(super) fn wait_for_exit(process: Pid) -> Option<i32> {
    loop {
        match waitpid(Some(process), WaitOptions::empty()) {
            Ok(Some((_, status))) if ended(status) => return status.exit_status(),
            Ok(_) => {}
            Err(error) if error == rustix::io::Errno::INTR => {}
            Err(_) => return None,
        }
    }
}

fn ended(status: WaitStatus) -> bool {
    status.exited() || status.signaled()
}

pub(super) fn exit_text(status: Option<i32>) -> String {
    status.map_or_else(|| "killed".to_owned(), |code| format!("exit code {code}"))
}

pub(super) fn forward_signal(stand_in: Pid, signal: Signal) {
    if let Err(error) = kill_process(stand_in, signal) {
        tracing::warn!(
            event = "signal_not_forwarded",
            "the signal could not be forwarded to process {stand_in}: {error}"
        );
    }
}
