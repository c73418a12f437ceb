//! The deterministic simulator: the cores of a process in one thread, on a kernel of its own, from one seed.
//!
//! What runs is the real `tick::Core`: shard, mailbox with small rings, reactor, frame reader, flush. Only the kernel,
//! the clock and the clients are simulated. A core ticks when a completion or its doorbell wakes it and never by
//! itself, so a wake-up that is dropped shows as work left undone. `RINGVERB_SEED=n cargo test --test simulator`
//! replays one seed; a failure names the seed and the fewest steps. `RINGVERB_SEEDS=n` tries so many fresh ones,
//! `RINGVERB_SECONDS=n` as many as there is time for; planted.py shows that planted faults are found. The fuzz target
//! `simulation` runs the same from its bytes.

mod client;
mod kernel;
mod moving;
mod process;
mod redis;
mod simulation;

use std::panic::{AssertUnwindSafe, catch_unwind};

use kernel::Random;
use simulation::Simulation;

/// Seeds of every run: each once showed something, or is here as a sample of many.
const CORPUS: std::ops::Range<u64> = 1..601;
const STEPS: usize = 400;

fn run(seed: u64, steps: usize) {
    let mut simulation = Simulation::new(Random::new(seed));
    for _ in 0..steps {
        simulation.step();
    }
    simulation.finish();
}

/// The fewest steps after which a seed fails: its world is the same up to there.
fn shrink(seed: u64) -> usize {
    let (mut good, mut bad) = (0, STEPS);
    while good + 1 < bad {
        let middle = usize::midpoint(good, bad);
        if catch_unwind(AssertUnwindSafe(|| run(seed, middle))).is_err() {
            bad = middle;
        } else {
            good = middle;
        }
    }
    bad
}

#[expect(clippy::disallowed_methods, reason = "a seed to replay comes from whoever runs the test")]
fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn try_seed(seed: u64) {
    if catch_unwind(AssertUnwindSafe(|| run(seed, STEPS))).is_err() {
        let steps = shrink(seed);
        panic!(
            "seed {seed} fails; the fewest steps: \
             RINGVERB_SEED={seed} RINGVERB_STEPS={steps} cargo test --test simulator"
        );
    }
}

#[test]
fn what_must_hold_holds() {
    if let Some(seed) = given("RINGVERB_SEED") {
        let steps = given("RINGVERB_STEPS").and_then(|steps| usize::try_from(steps).ok());
        return run(seed, steps.unwrap_or(STEPS));
    }
    CORPUS.for_each(try_seed);
}

/// What the fuzzer kept: its bytes are the choices.
#[test]
fn the_fuzzers_corpus() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus/simulation");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a corpus")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let bytes = std::fs::read(&file).expect("a file");
        let passes = catch_unwind(AssertUnwindSafe(|| simulation::run_script(&bytes))).is_ok();
        assert!(passes, "{}", file.display());
    }
}

/// New seeds in every run, as many as are asked for, or for as long as is asked for.
#[test]
#[expect(clippy::disallowed_methods, reason = "new seeds come from the clock")]
fn new_seeds() {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Apart from those of another run at the same time.
    let run =
        since.expect("a clock behind 1970").as_secs() << 12 | u64::from(std::process::id() & 0xfff);
    let first = run << 20;
    let start = std::time::Instant::now();
    let count = match given("RINGVERB_SECONDS") {
        None => given("RINGVERB_SEEDS").unwrap_or(600),
        Some(_) => u64::MAX - first,
    };
    let time = given("RINGVERB_SECONDS").unwrap_or(u64::MAX);
    let mut tried = 0;
    while tried < count && start.elapsed().as_secs() < time {
        try_seed(first + tried);
        tried += 1;
    }
    println!("{tried} new seeds from {first}");
}
