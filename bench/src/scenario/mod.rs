//! The scenarios, one file each: its arguments, its run, its figures.

pub(crate) mod accounting;
pub(crate) mod fanout;
pub(crate) mod floor;
pub(crate) mod idle;

use crate::app::App;
use crate::server::Server;

/// What every scenario gets.
pub(crate) struct Bench {
    pub(crate) app: App,
    pub(crate) server: Server,
    /// CPU of the server, for scenarios that bring their own.
    pub(crate) server_cpus: Option<String>,
}
