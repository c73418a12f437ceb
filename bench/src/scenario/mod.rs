//! The scenarios, one file each: its arguments, its run, its figures. Here: what several of them have in common.
//!
//! Owns nothing but the parts of a run, which `main` makes. Does not measure by itself. Limits and loads: the arguments
//! of each scenario. Limit: one run a process. Cost: `WARM_UP` seconds before each measured window; no allocation of
//! its own.

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
use crate::payload::{parse_bytes, parse_slots};
use crate::pool::Pool;
use crate::server::Servers;
use crate::telemetry::Telemetry;

/// Before a window in which a busy server is measured.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

/// What `fanout` and `floor` have in common.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct ShapeArgs {
    #[arg(long, default_value_t = 5_000)]
    pub(super) subscribers: usize,
    #[arg(long, default_value_t = 64, value_parser = parse_bytes)]
    pub(super) payload_bytes: usize,
    /// Events in flight, one run each.
    #[arg(long, value_delimiter = ',', default_value = "1,16", value_parser = parse_slots)]
    pub(super) in_flight: Vec<usize>,
    /// Length of each measured run, after a second of warming up.
    #[arg(long, default_value_t = 10)]
    pub(super) seconds: u64,
}

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
