//! The scenarios, one file each: its arguments, its run, its figures.

pub(crate) mod accounting;
pub(crate) mod churn;
pub(crate) mod connect;
pub(crate) mod fairness;
pub(crate) mod fanout;
pub(crate) mod floor;
pub(crate) mod idle;
pub(crate) mod mixed;
pub(crate) mod overload;
pub(crate) mod presence;
pub(crate) mod publish;
pub(crate) mod rooms;
pub(crate) mod slow;
pub(crate) mod storm;

use std::io;
use std::time::Duration;

use crate::app::App;
use crate::pool::Pool;
use crate::server::Servers;
use crate::telemetry::Telemetry;

/// Before a window in which a busy server is measured.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

/// What every scenario gets.
pub(crate) struct Bench {
    pub(crate) app: App,
    pub(crate) servers: Servers,
    /// CPUs of the server, for scenarios that bring their own.
    pub(crate) server_cpus: Option<String>,
    /// CPU of this process.
    pub(crate) pin: Option<usize>,
    pub(crate) telemetry: Telemetry,
}

impl Bench {
    /// An empty pool of connections to the (first) server.
    pub(crate) fn pool(&self) -> io::Result<Pool> {
        Pool::of(&self.app)
    }
}
