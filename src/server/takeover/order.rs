//! Orders to the main thread: what signals, other processes and the admin API ask of it.
//!
//! A closed list; `life.rs` carries it out, one order after the other. Limit: one order for each signal that the
//! control thread has read, one for each process that takes over, and one for each connection of the admin listener,
//! because each waits for its answer.

use super::new_process::NewProcess;
use crate::server::change::ChangeRequest;

/// What the main thread is to do.
#[derive(Debug)]
pub(in crate::server) enum Order {
    /// SIGINT or SIGTERM, by name: drain.
    End(&'static str),
    /// SIGUSR2: replace the program of this process.
    Replace,
    /// Another process, with this id, accepts on our listeners: drain, and leave them alone.
    Retire(i32),
    /// Another process asks for the connections too.
    Transfer(NewProcess),
    /// SIGHUP, or the admin API: change the configuration.
    Change(Box<ChangeRequest>),
}
