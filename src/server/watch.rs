//! A task of the control thread. It measures the memory of the process and logs a summary of refusals.
//!
//! Owns the last measurement and the counts of the last summary. Output: the overload level and the headroom, which
//! workers read from atomics; they never wait for this task. It looks every `LOOK_EVERY`, and less often while memory
//! is far below the limit. Before a process counts as over its limit, freed memory is returned to the kernel and
//! measured again. Does not refuse or close anything.
//! Limit: one summary in `LINE_EVERY_MS`. Cost: one file read for a look; four to twenty looks a second with a memory
//! limit, one without.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use monoio::time::sleep;

use super::control::Control;
use super::memory::{MemoryBudget, Resident};
use crate::counters::{RefusalCounters, Refused};
use crate::worker::{Shared, return_freed_memory};

/// Between two measurements of the memory, above half of the budget. A worker makes some MB of answers in that time.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Less often below half of the budget, because each look wakes an idle process.
const LOOK_EVERY_FAR_BELOW: Duration = Duration::from_millis(250);
/// Between two looks without a memory budget: idle is the normal state, and each look is a wake-up.
const LOOK_EVERY_WITHOUT_LIMIT: Duration = Duration::from_secs(1);
/// Between two lines about what was refused, in milliseconds.
const LINE_EVERY_MS: u64 = 60_000;

/// Runs as a task until the process ends.
pub(super) struct Watch {
    shared: Arc<Shared>,
    budget: Option<(Resident, MemoryBudget)>,
    summary: RefusalSummary,
}

impl Watch {
    /// Measures at once, before anybody can connect.
    ///
    /// # Errors
    /// When the memory cannot be measured although there is a limit.
    pub(super) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let budget = match shared.config.memory_max {
            Some(bytes_max) => Some((Resident::open_statm()?, MemoryBudget::new(bytes_max))),
            None => None,
        };
        let mut watch = Self { shared, budget, summary: RefusalSummary::default() };
        watch.measure(0);
        Ok(watch)
    }

    /// Runs until the process ends.
    ///
    /// # Errors
    /// When the control thread has ended.
    pub(super) fn start(self, control: &Control) -> io::Result<()> {
        control.run(|| Ok(self.look_on()))
    }

    async fn look_on(mut self) {
        loop {
            let now_ms = self.shared.clock.now().0;
            let pause = self.measure(now_ms);
            if let Some(line) = self.summary.summary_line(now_ms, &self.shared.overload.refusals) {
                tracing::warn!(event = "refusals_summary", "{line}");
            }
            sleep(pause).await;
        }
    }

    /// Returns how long until it should be done again.
    fn measure(&mut self, now_ms: u64) -> Duration {
        let Some((resident, budget)) = &mut self.budget else { return LOOK_EVERY_WITHOUT_LIMIT };
        let overload = &self.shared.overload;
        let mut read = resident.read();
        // Memory that is free already is no reason to refuse or close anything.
        if matches!(read, Ok(bytes) if budget.is_over_target(bytes)) {
            return_freed_memory();
            read = resident.read();
        }
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(
                    event = "memory_not_measured",
                    "the memory could not be measured: {error}"
                );
                return LOOK_EVERY_WITHOUT_LIMIT;
            }
        };
        let (level, line) = budget.measure(now_ms, bytes, &overload.refusals);
        overload.pressure.set(level, budget.headroom(bytes));
        if let Some(line) = line {
            tracing::warn!(event = "memory_level_changed", "{line}");
        }
        let is_near = budget.headroom(bytes) < bytes;
        if is_near { LOOK_EVERY } else { LOOK_EVERY_FAR_BELOW }
    }
}

/// At the end of the process, so that the log has all that was refused since the start.
pub(super) fn log_all(refusals: &RefusalCounters) {
    let all = refusal_list(refusals.get());
    if !all.is_empty() {
        tracing::info!(event = "refusals_total", "refused since the start: {all}");
    }
}

/// The counts at the time of the last line. A line reports the difference.
struct RefusalSummary {
    reported: [u64; Refused::ALL.len()],
    reported_ms: u64,
    next_ms: u64,
}

impl Default for RefusalSummary {
    fn default() -> Self {
        Self { reported: [0; Refused::ALL.len()], reported_ms: 0, next_ms: 0 }
    }
}

impl RefusalSummary {
    fn summary_line(&mut self, now_ms: u64, refusals: &RefusalCounters) -> Option<String> {
        let counts = refusals.get();
        if now_ms < self.next_ms || counts == self.reported {
            return None;
        }
        let mut since = counts;
        since.iter_mut().zip(self.reported).for_each(|(count, reported)| *count -= reported);
        let line = format!(
            "refused in the last {} s: {}",
            now_ms.saturating_sub(self.reported_ms).div_ceil(1_000),
            refusal_list(since)
        );
        (self.reported, self.reported_ms, self.next_ms) = (counts, now_ms, now_ms + LINE_EVERY_MS);
        Some(line)
    }
}

fn refusal_list(counts: [u64; Refused::ALL.len()]) -> String {
    let counted = Refused::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0);
    let parts: Vec<String> =
        counted.map(|(why, count)| format!("{count} by {}", why.name())).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_minute_sums_up() {
        let refusals = RefusalCounters::default();
        let mut summary = RefusalSummary::default();
        assert_eq!(summary.summary_line(250, &refusals), None, "nothing happened");
        refusals.count(Refused::Origin);
        let line = |summary: &mut RefusalSummary, at| {
            summary.summary_line(at, &refusals).unwrap_or_default()
        };
        assert_eq!(line(&mut summary, 500), "refused in the last 1 s: 1 by origin");
        for _ in 0..7 {
            refusals.count(Refused::Quota);
        }
        refusals.count(Refused::Origin);
        assert_eq!(line(&mut summary, 60_499), "");
        assert_eq!(line(&mut summary, 60_500), "refused in the last 60 s: 7 by quota, 1 by origin");
        assert_eq!(line(&mut summary, 600_000), "", "nothing new");
    }
}
