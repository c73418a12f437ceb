//! Which server serves the configured port and the admin place already. All findings of `ringverb doctor` use it.
//!
//! The server at the port is the one that offers a take-over there, or that is seen to have the port. If neither is so,
//! the program at the port is asked for `/up`, and a server of another user or container is recognized by its answer.
//! The server at the admin place names itself. Owns no state, and never changes anything. Does not judge what it finds
//! (`diagnosis.rs`).
//! Limit: `PROBE_TIME` for each program that is asked. Cost: one thread and one request for each such program.

use std::fmt;
use std::net::SocketAddr;
use std::sync::mpsc;

use super::PROBE_TIME;
use super::port::{Holder, certain_server, is_listened_at};
use super::processes::PROGRAM;
use crate::config::Config;
use crate::config::admin::AdminPlace;
use crate::server::client;

/// A process that has shown that it is a ringverb server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunningServer {
    /// `None` for a server in another container or of another user, whose id means nothing here.
    pub(super) process: Option<u32>,
}

impl fmt::Display for RunningServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Some(process) => write!(out, "{PROGRAM}, process {process}"),
            None => out.write_str(PROGRAM),
        }
    }
}

pub(super) fn at_port(config: &Config) -> Option<RunningServer> {
    let address = SocketAddr::new(config.host, config.port);
    // An address of another host may have a server, too.
    if !is_listened_at(address) {
        return None;
    }
    if let Some(server) = certain_server(address) {
        return Some(RunningServer { process: Some(server.id()) });
    }
    let config = config.clone();
    let is_ringverb = in_time(move || client::answers_as_ringverb(config))?;
    is_ringverb.then_some(RunningServer { process: None })
}

/// `at_port`: the server at the port, which often has the admin listener, too.
pub(super) fn at_admin(
    place: &AdminPlace,
    at_port: Option<RunningServer>,
) -> Option<RunningServer> {
    let asked = place.clone();
    let found = in_time(move || client::identify_admin_server(&asked))??;
    // In another container the process has another id, which may be that of any process here.
    let is_here = |process: &u32| {
        at_port.is_some_and(|server| server.process == Some(*process))
            || Holder::of(*process).is_server()
    };
    Some(RunningServer { process: found.process.filter(is_here) })
}

/// Asks in a thread of its own, because a name look-up has no timeout. `None`: no answer within `PROBE_TIME`.
fn in_time<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, received) = mpsc::channel();
    // The receiver may have stopped waiting for a late answer.
    let run = move || drop(answer.send(ask()));
    // Without a thread there is no answer.
    std::thread::Builder::new().name("probe".to_owned()).spawn(run).ok()?;
    received.recv_timeout(PROBE_TIME).ok()
}
