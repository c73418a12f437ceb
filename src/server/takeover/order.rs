//! Orders to the main thread: what signals, other processes and the admin API ask of it.
//!
//! Owns the closed list of orders; `orders.rs` carries it out, one order after the other. Does not carry out any.
//! Limit: one order for each signal that the control thread has read, three for the process that takes over, and one
//! for each connection of the admin listener, because each waits for its answer. Cost: one allocation for an order.

use std::io::Write;
use std::os::unix::net::UnixStream;

use super::new_process::NewProcess;
use crate::server::change::ChangeRequest;

/// Sent to the main thread by the control thread and the admin listener.
#[derive(Debug)]
pub(in crate::server) enum Order {
    /// SIGINT or SIGTERM, with its name for the log: drain.
    End(&'static str),
    /// SIGUSR2: replace the program of this process.
    Replace,
    /// Another process, with this id, accepts on our listeners: drain, and leave them alone.
    Retire(i32),
    /// Another process begins to take over, and reads the configuration: changes wait from now on.
    HoldChanges(HoldReport),
    /// That take-over has failed: carry out the changes that wait.
    ResumeChanges,
    /// Another process asks for the connections, too, not for the listeners alone.
    Transfer(NewProcess),
    /// SIGHUP, or the admin API: change the configuration.
    Change(Box<ChangeRequest>),
}

/// Tells the task of the offer that changes wait. Dropped, it reports that the main thread carries out none, because
/// the server ends.
#[derive(Debug)]
pub(in crate::server) struct HoldReport(pub(super) UnixStream);

/// The byte that `HoldReport` sends. A process without apps does not take over from a server that has some.
pub(super) const HAS_APPS: u8 = 1;
const IS_DEVELOPMENT: u8 = 0;

impl HoldReport {
    pub(in crate::server) fn report(mut self, is_development: bool) {
        let byte = if is_development { IS_DEVELOPMENT } else { HAS_APPS };
        // The task may have stopped waiting.
        self.0.write_all(&[byte]).ok();
    }
}
