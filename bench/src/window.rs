//! One measured interval: the CPU time and the wall time that it took on both sides.
//!
//! Owns the values of its beginning. Does not include what happens outside of `open` and `close`, so warm-up and drain
//! do not count. No limits: one interval. Cost: at both ends a file read for each thread of the server and of the
//! client.

use std::time::{Duration, Instant};

use crate::proc;
use crate::report::{Report, busy_percent, us_each};
use crate::server::Servers;

pub(crate) struct Window {
    begin: Instant,
    server: Duration,
    client: Duration,
}

#[derive(Clone, Copy)]
pub(crate) struct Used {
    pub(crate) wall: Duration,
    pub(crate) server: Duration,
    pub(crate) client: Duration,
}

fn own_cpu() -> Duration {
    proc::cpu_time(std::process::id()).unwrap_or_default()
}

impl Window {
    pub(crate) fn open(servers: &Servers) -> Self {
        Self { begin: Instant::now(), server: servers.cpu_time(), client: own_cpu() }
    }

    pub(crate) fn close(&self, servers: &Servers) -> Used {
        Used {
            wall: self.begin.elapsed(),
            server: servers.cpu_time().saturating_sub(self.server),
            client: own_cpu().saturating_sub(self.client),
        }
    }
}

impl Used {
    /// The figures of `count` things done in the window. `one` is what one of them is called,
    /// `many` what several are; both names begin with `prefix`.
    pub(crate) fn report(
        &self,
        report: &mut Report,
        prefix: &str,
        (one, many): (&str, &str),
        count: u64,
    ) {
        let rate = count as f64 / self.wall.as_secs_f64().max(1e-9);
        report.figure(format!("{prefix}{many}"), rate, "1/s");
        let server = us_each(self.server, count);
        report.figure(format!("{prefix}server CPU per {one}"), server, "us");
        let client = us_each(self.client, count);
        report.figure(format!("{prefix}client CPU per {one}"), client, "us");
        report.figure(format!("{prefix}server busy"), busy_percent(self.server, self.wall), "%");
        report.figure(format!("{prefix}client busy"), busy_percent(self.client, self.wall), "%");
    }
}
