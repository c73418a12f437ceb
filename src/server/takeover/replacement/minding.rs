//! Step 2 or 3 of SIGUSR2 has failed: the stand-in serves, and this process, which the supervisor watches, minds it.
//!
//! Owns the wait for the stand-in and for signals: SIGTERM and SIGINT are forwarded, SIGUSR2 tries steps 2 and 3 again,
//! and the exit code of the stand-in becomes that of this process. Does not serve. Limits: one stand-in. Cost: two
//! threads that wait.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};

use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::failure;
use super::stage::{MINDS, Role, SIGNALS, TAKES_BACK_FROM, execute};
use super::stand_in::{exit_text, forward_signal, wait_for_exit};
use crate::output;
use crate::worker::{block_signals, unblock_signals};

fn no_process_waits(stand_in: Pid, error: &io::Error) -> String {
    format!("no process waits for process {stand_in}, which continues: {error}")
}

/// Executes this very program to mind the stand-in: whatever this process has begun ends with that.
pub(super) fn mind_instead(stand_in: Pid, path: &Path) -> ExitCode {
    // A worker that has stopped, or listens, must not live on; the file at `path` may be missing.
    let error = execute(Path::new("/proc/self/exe"), path, MINDS, stand_in);
    failure::report(&no_process_waits(stand_in, &error));
    output::finish();
    ExitCode::FAILURE
}

/// The start failed. A process that was to take back from a stand-in waits for it instead, if it is alive.
pub(in crate::server) fn mind_after_failure(role: Role, code: ExitCode) -> ExitCode {
    let Role::TakesBack(stand_in) = role else { return code };
    if code == ExitCode::SUCCESS {
        return code;
    }
    let is_alive = matches!(waitpid(Some(stand_in), WaitOptions::NOHANG), Ok(None));
    match (is_alive, std::env::current_exe()) {
        (true, Ok(path)) => {
            failure::report(&format!(
                "this process could not take back from process {stand_in}, which serves; this process waits for it. \
                 The lines before have the reason. Send SIGUSR2 here to try again"
            ));
            // Without it a signal is handled at once, as it would be without an exchange.
            block_signals(&SIGNALS).ok();
            mind_instead(stand_in, &path)
        }
        _ => code,
    }
}

/// The line also says which signal to send instead.
pub(in crate::server) fn ignored_signal_text(signal: i32) -> &'static str {
    match signal {
        SIGUSR1 => {
            "SIGUSR1 ignored: send SIGUSR2 to replace the program, SIGTERM to end the server"
        }
        // This process waits for its stand-in and has no configuration.
        _ => {
            "SIGHUP ignored during the exchange of the program, which reads the configuration again"
        }
    }
}

enum StandInEvent {
    Signal(i32),
    Ended(Option<i32>),
}

/// SIGTERM and SIGINT are forwarded, and its exit code becomes that of this process: for the supervisor, this process
/// is the server.
pub(in crate::server) fn wait_for_stand_in(stand_in: Pid) -> ExitCode {
    let (events, received) = mpsc::channel();
    if let Err(error) = send_events(stand_in, &events) {
        failure::report(&no_process_waits(stand_in, &error));
        return ExitCode::FAILURE;
    }
    for event in received {
        match event {
            StandInEvent::Signal(SIGTERM) => forward_signal(stand_in, Signal::TERM),
            StandInEvent::Signal(SIGINT) => forward_signal(stand_in, Signal::INT),
            StandInEvent::Signal(SIGUSR2) => take_back_again(stand_in),
            StandInEvent::Signal(signal) => {
                tracing::info!(event = "signal_ignored", "{}", ignored_signal_text(signal))
            }
            StandInEvent::Ended(status) => {
                tracing::info!(
                    event = "replacement_ended",
                    "process {stand_in}, which served, has ended: {}",
                    exit_text(status)
                );
                let code = status.and_then(|code| u8::try_from(code).ok());
                return ExitCode::from(code.unwrap_or(1));
            }
        }
    }
    ExitCode::FAILURE
}

fn send_events(stand_in: Pid, events: &Sender<StandInEvent>) -> io::Result<()> {
    let mut signals = Signals::new(SIGNALS)?;
    let (by_signal, by_end) = (events.clone(), events.clone());
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            // Fails only if the receiver has ended, and then nothing waits for it.
            by_signal.send(StandInEvent::Signal(signal)).ok();
        }
    })?;
    std::thread::Builder::new().name("stand-in".to_owned()).spawn(move || {
        // Fails only if the receiver has ended, and then nothing waits for it.
        by_end.send(StandInEvent::Ended(wait_for_exit(stand_in))).ok();
    })?;
    unblock_signals(&SIGNALS)
}

/// The name that this process was executed by is the path of the program.
fn take_back_again(stand_in: Pid) {
    let Some(path) = std::env::args_os().next().map(PathBuf::from) else { return };
    // If it fails, a signal during the exchange may end the process: the stand-in then serves as an orphan.
    block_signals(&SIGNALS).ok();
    let error = execute(&path, &path, TAKES_BACK_FROM, stand_in);
    failure::report(&format!(
        "{path:?} could not be executed, and process {stand_in} continues: {error}"
    ));
    // If it fails, signals stay pending until the next exchange.
    unblock_signals(&SIGNALS).ok();
}
