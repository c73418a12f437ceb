//! What happens while a scenario runs, four times a second: progress, CPU and memory. Shown on a terminal, and kept for
//! the report.
//!
//! Owns a thread, so that samples are taken while the load is busy. Does not know what is counted: the load stores a
//! number. Limit: a sample every `INTERVAL`, kept for the whole run: 64 bytes each. Cost: for the load one atomic store
//! a round; for the thread a file read for each thread of the server, four times a second.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::proc;

pub(crate) const INTERVAL: Duration = Duration::from_millis(250);

#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Since the start.
    pub(crate) at: Duration,
    /// Count of the present phase, from 0.
    pub(crate) progress: u64,
    pub(crate) server_cpu: Duration,
    pub(crate) client_cpu: Duration,
    pub(crate) server_rss: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Phase {
    pub(crate) at: Duration,
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    pub(crate) samples: Vec<Sample>,
    pub(crate) phases: Vec<Phase>,
}

impl Timeline {
    /// How the server's memory grew in the second half of a phase, in KiB a minute: the slope of the line that fits the
    /// samples best. The first half is the time in which tables and allocators find their size.
    pub(crate) fn memory_slope(&self, phase: &str) -> Option<f64> {
        let index = self.phases.iter().position(|found| found.name == phase)?;
        let begin = self.phases[index].at;
        let last = self.samples.last()?.at;
        let end = self.phases.get(index + 1).map_or(last, |next| next.at);
        let middle = begin + end.saturating_sub(begin) / 2;
        let points: Vec<(f64, f64)> = self
            .samples
            .iter()
            .filter(|sample| (middle..end).contains(&sample.at) && sample.server_rss > 0)
            .map(|sample| (sample.at.as_secs_f64() / 60.0, sample.server_rss as f64 / 1024.0))
            .collect();
        slope(&points)
    }
}

/// Least squares. `None` if there are not two different x values.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let together: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    (points.len() > 1 && spread > 0.0).then(|| together / spread)
}

struct Begun {
    at: Instant,
    name: String,
    /// 0 when the phase has no known end.
    goal: u64,
}

pub(crate) struct Telemetry {
    progress: Arc<AtomicU64>,
    phases: Option<Sender<Begun>>,
    thread: Option<JoinHandle<Timeline>>,
}

impl Telemetry {
    pub(crate) fn start(server_pids: Vec<u32>) -> Self {
        let progress = Arc::new(AtomicU64::new(0));
        let (phases, receiver) = mpsc::channel();
        let watcher = Watcher {
            server_pids,
            progress: progress.clone(),
            begin: Instant::now(),
            bar: bar(),
            timeline: Timeline::default(),
        };
        let thread = std::thread::spawn(move || watcher.run(&receiver));
        Self { progress, phases: Some(phases), thread: Some(thread) }
    }

    /// A new phase, and how much progress ends it if that is known.
    pub(crate) fn phase(&self, name: impl Into<String>, goal: usize) {
        self.progress.store(0, Ordering::Relaxed);
        let begun = Begun { at: Instant::now(), name: name.into(), goal: goal as u64 };
        if let Some(phases) = &self.phases {
            // The watcher lives until `stop`.
            phases.send(begun).ok();
        }
    }

    pub(crate) fn progress(&self, count: u64) {
        self.progress.store(count, Ordering::Relaxed);
    }

    pub(crate) fn stop(&mut self) -> Timeline {
        self.phases = None;
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    let terminal = std::io::stderr().is_terminal();
    let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    bar.set_draw_target(target);
    bar
}

struct Watcher {
    server_pids: Vec<u32>,
    progress: Arc<AtomicU64>,
    begin: Instant,
    bar: ProgressBar,
    timeline: Timeline,
}

impl Watcher {
    fn run(mut self, phases: &Receiver<Begun>) -> Timeline {
        let mut next = Instant::now();
        loop {
            match phases.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(begun) => self.begin_phase(begun),
                Err(RecvTimeoutError::Timeout) => {
                    self.sample();
                    next += INTERVAL;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.sample();
                    self.bar.finish_and_clear();
                    return self.timeline;
                }
            }
        }
    }

    fn begin_phase(&mut self, Begun { at, name, goal }: Begun) {
        let (template, known) = match goal {
            0 => ("{spinner} {elapsed:>4} {msg} {human_pos} {prefix}", false),
            _ => ("{spinner} {elapsed:>4} {msg} [{bar:30}] {human_pos}/{human_len} {prefix}", true),
        };
        self.bar.reset();
        self.bar.set_style(ProgressStyle::with_template(template).expect("a fixed template"));
        if known {
            self.bar.set_length(goal);
        }
        self.bar.set_message(name.clone());
        self.timeline.phases.push(Phase { at: at.saturating_duration_since(self.begin), name });
    }

    fn sample(&mut self) {
        let sum = |of: fn(u32) -> Duration| self.server_pids.iter().map(|pid| of(*pid)).sum();
        let sample = Sample {
            at: self.begin.elapsed(),
            progress: self.progress.load(Ordering::Relaxed),
            server_cpu: sum(|pid| proc::cpu_time(pid).unwrap_or_default()),
            client_cpu: proc::cpu_time(std::process::id()).unwrap_or_default(),
            server_rss: self.server_pids.iter().map(|pid| proc::rss(*pid)).sum(),
        };
        if let Some(before) = self.timeline.samples.last() {
            let wall = (sample.at - before.at).as_secs_f64().max(1e-3);
            let busy = sample.server_cpu.saturating_sub(before.server_cpu).as_secs_f64() / wall;
            let memory = sample.server_rss >> 20;
            self.bar.set_prefix(format!("server {:.0} % {memory} MiB", 100.0 * busy));
        }
        self.bar.set_position(sample.progress);
        self.bar.tick();
        self.timeline.samples.push(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_of_the_second_half() {
        let phase = |at, name: &str| Phase { at: Duration::from_secs(at), name: name.to_owned() };
        // It jumps about until 120 s, grows by 30 KiB a minute until 180 s, and then by much more.
        let rss = |at: u64| match at {
            0..120 => (at * 7_919 % 90_000) << 10,
            120..=180 => (10_000 << 10) + (at - 120) * 512,
            _ => (at * 9_000) << 10,
        };
        let sample = |at| Sample {
            at: Duration::from_secs(at),
            progress: 0,
            server_cpu: Duration::ZERO,
            client_cpu: Duration::ZERO,
            server_rss: rss(at),
        };
        let phases = vec![phase(0, "connect"), phase(60, "mixed"), phase(181, "drain")];
        let timeline = Timeline { samples: (0..300).map(sample).collect(), phases };
        let slope = timeline.memory_slope("mixed").unwrap();
        assert!((slope - 30.0).abs() < 0.5, "{slope}");
        assert_eq!(timeline.memory_slope("none"), None);
        assert_eq!(super::slope(&[(1.0, 2.0)]), None);
    }

    #[test]
    fn phases_and_samples_are_kept_in_order() {
        let mut telemetry = Telemetry::start(vec![std::process::id()]);
        telemetry.phase("first", 10);
        telemetry.progress(7);
        std::thread::sleep(Duration::from_millis(300));
        telemetry.phase("second", 0);
        let timeline = telemetry.stop();
        let names: Vec<&str> = timeline.phases.iter().map(|phase| phase.name.as_str()).collect();
        assert_eq!(names, ["first", "second"]);
        assert!(timeline.samples.len() >= 3);
        assert!(timeline.samples.iter().any(|sample| sample.progress == 7));
        assert!(timeline.samples.iter().all(|sample| sample.server_rss > 0));
        assert!(timeline.samples.is_sorted_by_key(|sample| sample.at));
    }
}
