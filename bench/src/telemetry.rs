//! What happens while a scenario runs, four times a second: progress, CPU and memory. Shown on a
//! terminal, and kept for the report. A thread of its own, so that a busy client is still watched.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::proc;

const INTERVAL: Duration = Duration::from_millis(250);

#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Since the start.
    pub(crate) at: Duration,
    /// What the phase counts.
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
            let _ = phases.send(begun);
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
