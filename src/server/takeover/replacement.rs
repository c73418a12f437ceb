//! SIGUSR2: a new version of the program in the same process, so that a supervisor sees no exit. `Program` and
//! `Replacement` drive it, with two take-overs (`takeover/mod.rs`).
//!
//! 1: the process starts the new program as a child, the stand-in, which takes over as any new process does. 2: the
//! process executes the new program in itself; process id, parent, arguments and environment stay, and signals are held
//! back. 3: the new program takes over from the stand-in, which ends. After a failure before 2 the old program serves.
//! If 2 or 3 fails, the stand-in serves, and this process minds it (`mind_instead`), and tries 2 and 3 again at
//! SIGUSR2. If it is killed then, the next start takes over from the orphan. Owns the stand-in. Does not move
//! connections itself.
//! Limits: one replacement at a time; a stand-in has `START_TIME_MAX` to take over. Cost: at a signal only; two starts
//! of the program, one thread for the child.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getppid, kill_process, set_parent_process_death_signal,
    waitpid,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::Order;
use crate::output;
use crate::server::control::Control;
use crate::server::supervision;
use crate::server::wait::sleep;
use crate::worker::{block_signals, replace_program, unblock_signals};

/// Options of the stages, for this program alone: each is `NAME=PID`.
const STAND_IN_FOR: &str = "--stand-in-for=";
const TAKES_BACK_FROM: &str = "--takes-back-from=";
const MINDS: &str = "--minds=";
const TAKEOVER: &str = "--takeover";

/// Time in which a new program has to start and take over.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// The signals that this program handles. SIGUSR1 is ignored with a log line, and so is SIGHUP during an exchange.
pub(in crate::server) const SIGNALS: [i32; 5] = [SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2];

/// What a process is to another one that executes the same program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Role {
    /// An ordinary server: this process is not part of a SIGUSR2.
    Server,
    /// Serves while this process, its parent, replaces its program.
    StandIn(Pid),
    /// Has replaced the program, and takes over from this child.
    TakesBack(Pid),
}

/// This program as it was started, and the process that stands in for it.
pub(in crate::server) struct Program {
    /// The path is looked up at the start: once the file has been replaced, the kernel calls it deleted.
    path: io::Result<PathBuf>,
    role: Role,
    stand_in: Option<StandIn>,
    /// The stand-in, which has the listeners, was sent SIGTERM: a second one would add nothing.
    is_to_end: bool,
}

struct StandIn {
    process: Pid,
    has_ended: Arc<AtomicBool>,
    /// Set once it serves: from here on it is not killed for being late.
    has_taken_over: Arc<AtomicBool>,
}

impl Program {
    pub(in crate::server) fn of_this_process(role: Role) -> Self {
        Self { path: std::env::current_exe(), role, stand_in: None, is_to_end: false }
    }

    /// Starts the program that is at the same path now, with the same arguments, to stand in. If it fails, this
    /// process serves on.
    pub(in crate::server) fn start_stand_in(&mut self, control: &Control) {
        if let Role::StandIn(parent) = self.role {
            tracing::warn!(
                event = "replacement_refused",
                "SIGUSR2 ignored: this process serves for process {parent} only; send it there"
            );
            return;
        }
        let is_alive = |stand_in: &&StandIn| !stand_in.has_ended.load(Ordering::Acquire);
        if let Some(stand_in) = self.stand_in.as_ref().filter(is_alive) {
            tracing::warn!(
                event = "replacement_refused",
                "SIGUSR2 ignored: process {} is taking over already, for an earlier SIGUSR2",
                stand_in.process
            );
            return;
        }
        let path = match &self.path {
            Ok(path) => path,
            Err(error) => {
                tracing::error!(
                    event = "replacement_failed",
                    "SIGUSR2: the path of this program is unknown, nothing changes: {error}"
                );
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
                let has_ended = Arc::new(AtomicBool::new(false));
                let has_taken_over = Arc::<AtomicBool>::default();
                reap(process, has_ended.clone(), has_taken_over.clone());
                let stand_in = StandIn { process, has_ended, has_taken_over };
                stand_in.end_if_late(control);
                self.stand_in = Some(stand_in);
            }
            Err(error) => {
                tracing::error!(
                    event = "replacement_failed",
                    "SIGUSR2: nothing changes, {path:?} does not start: {error}"
                );
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
            stand_in.has_taken_over.store(true, Ordering::Release);
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

impl StandIn {
    /// A program that hangs is killed, so that SIGUSR2 can be tried again.
    fn end_if_late(&self, control: &Control) {
        let Self { process, has_ended, has_taken_over } = self;
        let (process, is_settled) = (*process, [has_ended.clone(), has_taken_over.clone()]);
        let end = move || async move {
            monoio::time::sleep(START_TIME_MAX).await;
            // It is not reaped yet, or `has_ended` is set: the id cannot be another process's.
            if !is_settled.iter().any(|settled| settled.load(Ordering::Acquire)) {
                tracing::error!(
                    event = "replacement_failed",
                    "process {process} did not take over within {} s and is killed: nothing changes. Look at what \
                     holds up its start, and send SIGUSR2 again",
                    START_TIME_MAX.as_secs()
                );
                forward_signal(process, Signal::KILL);
            }
        };
        if let Err(error) = control.run(move || Ok(end())) {
            tracing::warn!(
                event = "system_setting_refused",
                "if the start of process {process} hangs, nothing ends it: {error}"
            );
        }
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
            tracing::error!(
                event = "replacement_failed",
                "{:?} could not be executed: {error}. Process {} serves; this process waits for it. Send SIGUSR2 here \
                 to try again",
                self.path,
                self.stand_in
            );
        }
        mind_instead(self.stand_in, &self.path)
    }
}

/// Executes this very program to mind the stand-in: whatever this process has begun ends with that.
fn mind_instead(stand_in: Pid, path: &Path) -> ExitCode {
    // A worker that has stopped, or listens, must not live on; the file at `path` may be missing.
    let error = execute(Path::new("/proc/self/exe"), path, MINDS, stand_in);
    tracing::error!(
        event = "replacement_failed",
        "no process waits for process {stand_in}, which continues: {error}"
    );
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
            tracing::error!(
                event = "replacement_failed",
                "this process could not take back from process {stand_in}, which serves; this process waits for it. \
                 Send SIGUSR2 here to try again"
            );
            // Without it a signal is handled at once, as it would be without an exchange.
            block_signals(&SIGNALS).ok();
            mind_instead(stand_in, &path)
        }
        _ => code,
    }
}

/// Replaces this process's program; returns why it could not.
fn execute(file: &Path, name: &Path, stage: &str, process: Pid) -> io::Error {
    output::finish();
    let text = |text: OsString| CString::new(text.into_vec());
    let all = std::iter::once(name.as_os_str().to_owned())
        .chain(arguments())
        .chain(std::iter::once(format!("{stage}{process}").into()))
        .map(text)
        .collect::<Result<Vec<CString>, _>>();
    match (CString::new(file.as_os_str().as_bytes()), all) {
        (Ok(file), Ok(arguments)) => replace_program(&file, &arguments),
        _ => io::ErrorKind::InvalidInput.into(),
    }
}

/// Until the stand-in has taken over it is of use to its parent only, and ends with it: later it would take over from
/// whichever server is there by then. To be called before anything that may take long.
///
/// # Errors
/// When the parent has ended already.
pub(in crate::server) fn end_with_parent(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() == Some(parent) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("process {parent} has ended")))
}

/// The stand-in has taken over: from now on it serves even if its parent is killed.
pub(in crate::server) fn outlive_parent() {
    if let Err(error) = set_parent_process_death_signal(None) {
        tracing::warn!(
            event = "system_setting_refused",
            "this process ends if the process for which it serves is killed: {error}"
        );
    }
}

/// Signals are held back while the program is replaced. If the new program hangs before it serves, they take effect
/// after this time, so that an operator can end it.
pub(in crate::server) fn release_signals_in_time() {
    let release = || {
        sleep(START_TIME_MAX);
        // Once there are handlers, they receive the signals; until then a signal ends the process.
        unblock_signals(&SIGNALS).ok();
    };
    let thread = std::thread::Builder::new().name("signals-late".to_owned());
    if let Err(error) = thread.spawn(release) {
        tracing::warn!(
            event = "system_setting_refused",
            "SIGTERM will not end a start that hangs; only SIGKILL will: {error}"
        );
    }
}

/// The arguments that an operator gave, without those of a stage or a take-over.
fn arguments() -> impl Iterator<Item = OsString> {
    let of_a_stage = [STAND_IN_FOR, TAKES_BACK_FROM, MINDS, TAKEOVER];
    std::env::args_os().skip(1).filter(move |argument| {
        !of_a_stage.iter().any(|stage| argument.as_encoded_bytes().starts_with(stage.as_bytes()))
    })
}

/// Waits in a thread of its own, so that no zombie is left. An exit code other than 0 is logged.
pub(in crate::server) fn reap(
    process: Pid,
    has_ended: Arc<AtomicBool>,
    has_taken_over: Arc<AtomicBool>,
) {
    let thread = std::thread::Builder::new().name("stand-in".to_owned());
    let wait = move || {
        let status = wait_for_exit(process);
        has_ended.store(true, Ordering::Release);
        if status != Some(0) {
            let how = exit_text(status);
            tracing::error!(
                event = "replacement_ended",
                "process {process}, which was to take over, has ended: {how}"
            );
            if !has_taken_over.load(Ordering::Acquire) {
                let why = format!("process {process} has ended, {how}");
                supervision::notify_failed_replacement(&why);
            }
        }
    };
    if let Err(error) = thread.spawn(wait) {
        tracing::warn!(
            event = "system_setting_refused",
            "process {process} will be a zombie when it has ended: {error}"
        );
    }
}

/// Its exit code; `None` if a signal ended it, or if it is no child.
fn wait_for_exit(process: Pid) -> Option<i32> {
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

fn exit_text(status: Option<i32>) -> String {
    status.map_or_else(|| "killed".to_owned(), |code| format!("exit code {code}"))
}

fn forward_signal(stand_in: Pid, signal: Signal) {
    if let Err(error) = kill_process(stand_in, signal) {
        tracing::warn!(
            event = "signal_not_forwarded",
            "the signal could not be forwarded to process {stand_in}: {error}"
        );
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
        tracing::error!(
            event = "replacement_failed",
            "no process waits for process {stand_in}, which continues: {error}"
        );
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
    tracing::error!(
        event = "replacement_failed",
        "{path:?} could not be executed, and process {stand_in} continues: {error}"
    );
    // If it fails, signals stay pending until the next exchange.
    unblock_signals(&SIGNALS).ok();
}

/// Whether the process was started as a stand-in, and its parent is no longer the one that it was started for.
pub(in crate::server) fn is_orphan(process: i32) -> bool {
    let read = |name: &str| fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
    let (line, status) = (read("cmdline"), read("status"));
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.trim().parse::<i32>().ok();
    let stands_in_for = line
        .split(|byte| *byte == 0)
        .find_map(|argument| number(argument.strip_prefix(STAND_IN_FOR.as_bytes())?));
    let parent =
        status.split(|byte| *byte == b'\n').find_map(|line| number(line.strip_prefix(b"PPid:")?));
    stands_in_for.is_some_and(|process| parent.is_some_and(|parent| parent != process))
}

#[cfg(test)]
mod tests;
