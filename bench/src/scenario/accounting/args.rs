//! Options of `accounting`. Plain values; does not check that they fit together.
//!
//! Limits: none of its own: a rate that the server cannot keep is what the run is for. Cost: read once at the start, no
//! system call.

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 400)]
    pub(super) connections: usize,
    /// Half of them public, the rest private and presence channels.
    #[arg(long, default_value_t = 200)]
    pub(super) channels: usize,
    #[arg(long, default_value_t = 60)]
    pub(super) seconds: u64,
    /// HTTP connections that publish.
    #[arg(long, default_value_t = 8)]
    pub(super) publishers: usize,
    /// Publishes a second, by all of them.
    #[arg(long, default_value_t = 1000)]
    pub(super) publish_rate: u64,
    /// Client events a second.
    #[arg(long, default_value_t = 500)]
    pub(super) client_event_rate: u64,
    /// Subscriptions, unsubscriptions and disconnections a second.
    #[arg(long, default_value_t = 500)]
    pub(super) churn_rate: u64,
    /// Seconds between two checks of everything.
    #[arg(long, default_value_t = 10)]
    pub(super) check_every: u64,
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
}
