//! SIGUSR2: a new version of the program in the same process, so that a supervisor sees no exit. `Program` and
//! `Replacement` drive it, with two take-overs (`takeover/mod.rs`).
//!
//! 1: the process starts the new program as a child, the stand-in, which takes over as any new process does. 2: the
//! process executes the new program in itself; process id, parent, arguments and environment stay, and signals are held
//! back. 3: the new program takes over from the stand-in, which ends. After a failure before 2 the old program serves.
//! If 2 or 3 fails, the stand-in serves, and this process minds it (`minding.rs`), and tries 2 and 3 again at SIGUSR2.
//! If it is killed then, the next start takes over from the orphan. Each failure is reported by `failure.rs`. Owns the
//! stand-in. Does not move connections itself.
//! Limits: one replacement at a time; a stand-in has `START_TIME_MAX` to take over. Cost: at a signal only; two starts
//! of the program, one thread for the child.

pub(in crate::server) mod failure;
mod minding;
mod stage;
mod stand_in;

use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::mpsc::Receiver;

use rustix::process::{Pid, Signal};

use super::Order;
use crate::server::control::Control;
use crate::worker::block_signals;
use minding::mind_instead;
pub(in crate::server) use minding::{ignored_signal_text, mind_after_failure, wait_for_stand_in};
pub(in crate::server) use stage::{
    Role, SIGNALS, end_with_parent, is_orphan, outlive_parent, release_signals_in_time,
};
use stage::{STAND_IN_FOR, TAKES_BACK_FROM, arguments, execute};
pub(in crate::server) use stand_in::StandIn;
use stand_in::forward_signal;

/// This program as it was started, and the process that stands in for it.
pub(in crate::server) struct Program {
    /// The path is looked up at the start: once the file has been replaced, the kernel calls it deleted.
    path: io::Result<PathBuf>,
    role: Role,
    stand_in: Option<StandIn>,
    /// The stand-in, which has the listeners, was sent SIGTERM: a second one would add nothing.
    is_to_end: bool,
}

impl Program {
    pub(in crate::server) fn of_this_process(role: Role) -> Self {
        Self { path: std::env::current_exe(), role, stand_in: None, is_to_end: false }
    }

    /// Starts the program that is at the same path now, with the same arguments, to stand in. If it fails, this
    /// process serves on.
    pub(in crate::server) fn start_stand_in(&mut self, control: &Control) {
        if let Role::StandIn(parent) = self.role {
            failure::report_ignored(&format!(
                "this process serves for process {parent} only; send it there"
            ));
            return;
        }
        let is_alive = |stand_in: &&StandIn| !stand_in.has_ended();
        if let Some(stand_in) = self.stand_in.as_ref().filter(is_alive) {
            failure::report_ignored(&format!(
                "process {} is taking over already, for an earlier SIGUSR2",
                stand_in.process
            ));
            return;
        }
        let path = match &self.path {
            Ok(path) => path,
            Err(error) => {
                failure::report(&format!(
                    "the path of this program is unknown, so nothing changes: {error}"
                ));
                return;
            }
        };
        let mut command = Command::new(path);
        command.args(arguments()).arg(format!("{STAND_IN_FOR}{}", std::process::id()));
        // Without this variable, the watchdog applies to any process that reads WATCHDOG_USEC.
        match command.env_remove("WATCHDOG_PID").spawn() {
            Ok(child) => {
                let process = Pid::from_child(&child);
                tracing::info!(
                    event = "replacement_started",
                    "SIGUSR2: process {process} is starting"
                );
                self.stand_in = Some(StandIn::starting(process, control));
            }
            Err(error) => {
                failure::report(&format!("{path:?} does not start, so nothing changes: {error}"));
            }
        }
    }

    /// Step 2, which follows the end of this server. `None` without a stand-in.
    pub(in crate::server) fn replacement(self, orders: Receiver<Order>) -> Option<Replacement> {
        let stand_in = self.stand_in?.process;
        Some(Replacement { path: self.path.ok()?, stand_in, is_to_end: self.is_to_end, orders })
    }

    /// A signal that ends the server came after the stand-in had taken the listeners: it is meant for the stand-in.
    /// `false`: there is none.
    pub(in crate::server) fn ends_stand_in(&mut self, process: i32) -> bool {
        let is_meant = self.is_stand_in(process);
        if is_meant
            && !std::mem::replace(&mut self.is_to_end, true)
            && let Some(stand_in) = &self.stand_in
        {
            stand_in.note_serving();
            forward_signal(stand_in.process, Signal::TERM);
        }
        is_meant
    }

    /// Whether a take-over by this process is a stage of SIGUSR2, which has its own lines in the log.
    pub(in crate::server) fn is_stage(&self, process: i32) -> bool {
        let is_parent =
            matches!(self.role, Role::StandIn(parent) if parent.as_raw_pid() == process);
        is_parent || self.is_stand_in(process)
    }

    /// A process has taken over. Logs it, unless `is_stage` says that another process does.
    pub(in crate::server) fn note_new_process(&self, process: i32, sentence: &str) {
        if let Some(stand_in) = self.stand_in.as_ref().filter(|_| self.is_stand_in(process)) {
            stand_in.note_serving();
            tracing::info!(
                event = "replacement_serving",
                "SIGUSR2: process {process} serves while this process loads the new program"
            );
        } else if !self.is_stage(process) {
            tracing::info!(event = "takeover_complete", process, "{sentence}");
        }
    }

    pub(in crate::server) fn is_stand_in(&self, process: i32) -> bool {
        self.stand_in.as_ref().is_some_and(|one| one.process.as_raw_pid() == process)
    }
}

/// Step 2, which the process owes after its stand-in has taken over.
#[derive(Debug)]
pub(in crate::server) struct Replacement {
    path: PathBuf,
    stand_in: Pid,
    is_to_end: bool,
    orders: Receiver<Order>,
}

impl Replacement {
    /// Executes the new program. Returns only if neither that nor minding the stand-in works.
    pub(in crate::server) fn run(self) -> ExitCode {
        if let Err(error) = block_signals(&SIGNALS) {
            tracing::warn!(
                event = "system_setting_refused",
                "a signal that arrives during the exchange may be lost: {error}"
            );
        }
        let is_end = |order: Order| matches!(order, Order::End(_));
        let ends_now = !self.is_to_end && self.orders.try_iter().any(is_end);
        if ends_now {
            // The server is to end, and the server is the stand-in now.
            forward_signal(self.stand_in, Signal::TERM);
        }
        if !ends_now && !self.is_to_end {
            let error = execute(&self.path, &self.path, TAKES_BACK_FROM, self.stand_in);
            failure::report(&format!(
                "{:?} could not be executed: {error}. Process {} serves; this process waits for it. Send SIGUSR2 here \
                 to try again",
                self.path, self.stand_in
            ));
        }
        mind_instead(self.stand_in, &self.path)
    }
}

#[cfg(test)]
mod tests;
