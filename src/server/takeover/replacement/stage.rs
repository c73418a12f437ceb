//! The stages of SIGUSR2: the option of each on the command line, and how this process executes the next one.
//!
//! Owns the options, the signals that are held back in an exchange, and the tie of a stand-in to its parent. Does not
//! decide which stage follows. Limits: `START_TIME_MAX` for a start. Cost: one
//! system call for a stage, and one thread that waits in the last one.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::output;
use crate::server::wait::sleep;
use crate::worker::{replace_program, unblock_signals};

/// Options of the stages, for this program alone: each is `NAME=PID`.
pub(super) const STAND_IN_FOR: &str = "--stand-in-for=";
pub(super) const TAKES_BACK_FROM: &str = "--takes-back-from=";
pub(super) const MINDS: &str = "--minds=";
const TAKEOVER: &str = "--takeover";

/// Time in which a new program has to start and take over.
pub(super) const START_TIME_MAX: Duration = Duration::from_secs(30);

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

/// Replaces this process's program; returns why it could not.
pub(super) fn execute(file: &Path, name: &Path, stage: &str, process: Pid) -> io::Error {
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
pub(super) fn arguments() -> impl Iterator<Item = OsString> {
    let of_a_stage = [STAND_IN_FOR, TAKES_BACK_FROM, MINDS, TAKEOVER];
    std::env::args_os().skip(1).filter(move |argument| {
        !of_a_stage.iter().any(|stage| argument.as_encoded_bytes().starts_with(stage.as_bytes()))
    })
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
