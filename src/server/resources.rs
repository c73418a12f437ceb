//! How much of the machine the server takes: the number of workers, where they are pinned, and the memory limit.
//!
//! Owns the decision. Input: the configuration, the CPUs of the affinity mask, and the limits of the control groups
//! (`cgroup.rs`). What is not configured follows from them: one worker for each CPU that the process can use all the
//! time, and 4/5 of the memory limit; the rest is for what the resident set does not show and the group pays for:
//! kernel buffers of sockets above all. Workers are pinned to the CPUs of the mask. They are not pinned if a CPU quota
//! is below the mask: every container of such a host sees the same CPUs, and if each chose the first ones, all would
//! share them while others are idle. Does not pin a thread itself.
//! Limit: `limits::WORKERS_MAX` workers, each with one pin. Cost: once at the start, one system call and the files of
//! `cgroup.rs`.

use core_affinity::CoreId;

use super::cgroup::{CgroupLimits, CpuQuota};
use crate::config::Config;
use crate::limits;

/// As the kernel reports it at the start; a change during the run is not noticed.
#[derive(Debug, Default)]
pub(super) struct Resources {
    /// The affinity mask; a cpuset of a container shows in it. Empty if the kernel does not show it.
    cpus: Vec<CoreId>,
    limits: CgroupLimits,
}

/// What `fill_in` decides besides the values that it writes into the configuration.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// Workers are pinned to these in turn; empty: they are not pinned.
    pub(super) pins: Vec<CoreId>,
    /// Text of the start message: the number, and the CPU quota if it restricts it.
    pub(super) workers_text: String,
    /// The configuration asks for more workers than the CPU quota lets run.
    pub(super) has_too_many_workers: bool,
    /// Text of the start message: the limit and its source. `None`: there is no limit.
    pub(super) memory_text: Option<String>,
}

impl Resources {
    pub(super) fn of_this_process() -> Self {
        let cpus = core_affinity::get_core_ids().unwrap_or_default();
        Self { cpus, limits: CgroupLimits::of_this_process() }
    }

    /// Configured values stay. It replaces 0 workers and an absent memory limit.
    pub(super) fn fill_in(&self, config: &mut Config) -> Shares {
        let cpus = self.cpus.len().max(1);
        let quota = self.limits.cpu.filter(|quota| quota.is_below(cpus));
        let usable = quota.map_or(cpus, CpuQuota::cpus);
        config.workers =
            if config.workers == 0 { usable } else { config.workers }.clamp(1, limits::WORKERS_MAX);
        let memory_text = match (config.memory_max, self.limits.memory_bytes) {
            (Some(bytes), _) => Some(format!("{} (RINGVERB_MEMORY_MAX)", mib(bytes))),
            (None, Some(limit)) if config.memory_max_by_cgroup => {
                let bytes = limit / 5 * 4;
                config.memory_max = Some(bytes);
                Some(format!("{}, 0.8 of the cgroup's limit of {}", mib(bytes), mib(limit)))
            }
            _ => None,
        };
        Shares {
            pins: if quota.is_some() { Vec::new() } else { self.cpus.clone() },
            workers_text: match quota {
                None => config.workers.to_string(),
                Some(quota) => format!(
                    "{}, not pinned: the cgroup's CPU quota is {quota} of {cpus} CPUs",
                    config.workers
                ),
            },
            has_too_many_workers: quota.is_some() && config.workers > usable,
            memory_text,
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::validate::{DevelopmentApp, build_config};
    use crate::config::{Sources, merge};

    fn config(pairs: &[(&str, &str)]) -> Config {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sources = Sources { environment: pairs.collect(), ..Sources::default() };
        let app = DevelopmentApp { id: "1".into(), key: "k".into(), secret: "s".into() };
        build_config(&merge(&sources), &app).unwrap()
    }

    fn resources(cpus: usize, cpu_max: &str, memory_max: &str) -> Resources {
        let cpus = (0..cpus).map(|id| CoreId { id: id * 2 }).collect();
        Resources { cpus, limits: CgroupLimits::of_texts(cpu_max, memory_max) }
    }

    #[test]
    fn one_worker_for_each_cpu_of_the_mask_or_of_the_quota() {
        for (cpus, cpu_max, asked, workers, text) in [
            (2, "max 100000", "0", 2, "2"),
            (2, "200000 100000", "0", 2, "2"),
            (2, "100000 100000", "0", 1, "1, not pinned: the cgroup's CPU quota is 1 of 2 CPUs"),
            (64, "200000 100000", "0", 2, "2, not pinned: the cgroup's CPU quota is 2 of 64 CPUs"),
            (4, "250000 100000", "0", 3, "3, not pinned: the cgroup's CPU quota is 2.5 of 4 CPUs"),
            (4, "350000 100000", "0", 4, "4, not pinned: the cgroup's CPU quota is 3.5 of 4 CPUs"),
            (4, "10000 100000", "0", 1, "1, not pinned: the cgroup's CPU quota is 0.1 of 4 CPUs"),
            // A quota above the mask restricts nothing.
            (2, "800000 100000", "0", 2, "2"),
            // The kernel does not show the mask.
            (0, "max 100000", "0", 1, "1"),
            (512, "max 100000", "0", limits::WORKERS_MAX, "128"),
            // A number that is configured wins over all.
            (2, "100000 100000", "7", 7, "7, not pinned: the cgroup's CPU quota is 1 of 2 CPUs"),
            (2, "max 100000", "7", 7, "7"),
        ] {
            let mut config = config(&[("RINGVERB_WORKERS", asked)]);
            let shares = resources(cpus, cpu_max, "max").fill_in(&mut config);
            assert_eq!(
                (config.workers, shares.workers_text.as_str()),
                (workers, text),
                "{cpus} {cpu_max}"
            );
            let is_pinned = !shares.workers_text.contains("not pinned");
            assert_eq!(shares.pins.len(), if is_pinned { cpus } else { 0 }, "{cpus} {cpu_max}");
            assert_eq!(shares.has_too_many_workers, asked == "7" && cpu_max.starts_with("10"));
        }
    }

    #[test]
    fn memory_has_four_fifths_of_the_cgroups_limit_unless_it_is_configured() {
        let quarter = "268435456";
        let default = "204 MiB, 0.8 of the cgroup's limit of 256 MiB";
        for (given, limit, bytes, text) in [
            (None, quarter, Some((256 << 20) / 5 * 4), Some(default)),
            (None, "max", None, None),
            (Some("0"), quarter, None, None),
            (Some("0"), "max", None, None),
            (Some("512M"), quarter, Some(512 << 20), Some("512 MiB (RINGVERB_MEMORY_MAX)")),
            (Some("64M"), quarter, Some(64 << 20), Some("64 MiB (RINGVERB_MEMORY_MAX)")),
            (Some("64M"), "max", Some(64 << 20), Some("64 MiB (RINGVERB_MEMORY_MAX)")),
            (Some(""), quarter, Some((256 << 20) / 5 * 4), Some(default)),
        ] {
            let given = given.map(|value| ("RINGVERB_MEMORY_MAX", value));
            let mut config = config(given.as_slice());
            let shares = resources(2, "max 100000", limit).fill_in(&mut config);
            assert_eq!(
                (config.memory_max, shares.memory_text.as_deref()),
                (bytes, text),
                "{given:?} {limit}"
            );
        }
    }
}
