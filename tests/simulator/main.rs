//! The deterministic simulator: the cores of a process, or several nodes and a Redis, in one thread, from one seed.
//!
//! What runs is the real `tick::Core`: shard, mailbox with small rings, reactor, frame reader, flush. Only the kernel,
//! the clock and the clients are simulated. A core ticks when a completion or its doorbell wakes it and never by
//! itself, so a wake-up that is dropped shows as work left undone. `RINGVERB_SEED=n cargo test --test simulator`
//! replays one seed; a failure names the seed, the test and the fewest steps. `RINGVERB_SEEDS=n` tries so many fresh
//! ones, `RINGVERB_SECONDS=n` as many as there is time for; planted.py shows that planted faults are found. The fuzz
//! targets `simulation`, `sessions` and `nodes` run the same from their bytes.

mod attack;
mod attacker;
mod backend;
mod backends;
mod change;
mod cipher;
mod client;
mod cluster;
mod congestion;
mod deadline;
mod http;
mod kernel;
mod process;
mod random;
mod redis;
mod redis_connection;
mod simulation;
mod transfer;
mod unfinished;

use std::panic::{AssertUnwindSafe, catch_unwind};

use attack::AttackSimulation;
use cluster::Cluster;
use random::Random;
use simulation::Simulation;

/// Seeds of every run: each once showed something, or is here as a sample of many.
const CORPUS: std::ops::Range<u64> = 1..401;
/// The same for backends.
const CORPUS_OF_HTTP: std::ops::Range<u64> = 1..251;
/// At a take-over a socket has room for a refusal, but not for the whole announcement of the end behind it. The client
/// reads the refusal, and then the old process ends.
const REFUSAL_BEFORE_AN_EXIT: u64 = 7_713_509_344_033_113_534;
/// A client that does not read was closed, cannot know that, and sends an event, which the server does not process.
const EVENT_AFTER_AN_UNREAD_CLOSE: u64 = 7_713_515_431_816_857_986;
/// The same for nodes, whose world is larger.
const CORPUS_OF_NODES: std::ops::Range<u64> = 1..281;
/// A snapshot arrives while its app is removed, and the app returns while its topic is still subscribed to.
const SNAPSHOT_OF_A_REMOVED_APP: u64 = 7_713_496_909_004_931_261;
/// The first subscriber of a cache channel waits for Redis while the session of its node catches up: it received
/// `cache_miss`, or an older event than Redis had.
const FIRST_SUBSCRIBER_AT_A_CATCH_UP: [u64; 2] =
    [7_713_545_423_682_535_449, 7_713_545_311_588_712_453];
/// The same for attackers beside honest clients.
const CORPUS_OF_ATTACKS: std::ops::Range<u64> = 1..41;
/// The attackers of one core send mail without end, and its overflow queues do not run empty while a publisher waits.
const OVERFLOW_WITHOUT_END: u64 = 7_713_500_586_648_273_364;
const STEPS: usize = 400;

/// What a seed is the seed of.
#[derive(Clone, Copy)]
enum Model {
    /// One process whose connections are transferred to others.
    Process,
    /// The same, mostly with backends.
    Http,
    /// Several nodes and a Redis.
    Cluster,
    /// One process, with attackers beside honest clients.
    Attack,
}

impl Model {
    /// The test that replays its seeds.
    fn test(self) -> &'static str {
        match self {
            Self::Process => "processes",
            Self::Http => "backends",
            Self::Cluster => "nodes",
            Self::Attack => "attackers",
        }
    }
}

fn run(model: Model, seed: u64, steps: usize) {
    match model {
        Model::Process => {
            let mut simulation = Simulation::new(Random::new(seed), false);
            (0..steps).for_each(|_| simulation.step());
            simulation.finish();
        }
        Model::Http => {
            let mut simulation = Simulation::new(Random::new(seed), true);
            (0..steps).for_each(|_| simulation.step());
            simulation.finish();
        }
        Model::Cluster => {
            let mut cluster = Cluster::new(Random::new(seed));
            (0..steps).for_each(|_| cluster.step());
            cluster.finish();
        }
        Model::Attack => {
            let mut simulation = AttackSimulation::new(Random::new(seed));
            (0..steps).for_each(|_| simulation.step());
            simulation.finish();
        }
    }
}

/// The fewest steps after which a seed fails: its world is the same up to there.
fn shrink(model: Model, seed: u64) -> usize {
    let (mut good, mut bad) = (0, STEPS);
    while good + 1 < bad {
        let middle = usize::midpoint(good, bad);
        if catch_unwind(AssertUnwindSafe(|| run(model, seed, middle))).is_err() {
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

fn try_seed(model: Model, seed: u64) {
    if catch_unwind(AssertUnwindSafe(|| run(model, seed, STEPS))).is_err() {
        let steps = shrink(model, seed);
        let test = model.test();
        panic!(
            "seed {seed} fails; the fewest steps: \
             RINGVERB_SEED={seed} RINGVERB_STEPS={steps} cargo test --test simulator {test}"
        );
    }
}

fn try_corpus(model: Model) {
    if let Some(seed) = given("RINGVERB_SEED") {
        let steps = given("RINGVERB_STEPS").and_then(|steps| usize::try_from(steps).ok());
        return run(model, seed, steps.unwrap_or(STEPS));
    }
    match model {
        Model::Process => {
            CORPUS.for_each(|seed| try_seed(model, seed));
        }
        Model::Http => {
            CORPUS_OF_HTTP.for_each(|seed| try_seed(model, seed));
            try_seed(model, REFUSAL_BEFORE_AN_EXIT);
            try_seed(model, EVENT_AFTER_AN_UNREAD_CLOSE);
        }
        Model::Attack => {
            CORPUS_OF_ATTACKS.for_each(|seed| try_seed(model, seed));
            try_seed(model, OVERFLOW_WITHOUT_END);
        }
        Model::Cluster => {
            CORPUS_OF_NODES.for_each(|seed| try_seed(model, seed));
            try_seed(model, SNAPSHOT_OF_A_REMOVED_APP);
            FIRST_SUBSCRIBER_AT_A_CATCH_UP.into_iter().for_each(|seed| try_seed(model, seed));
        }
    }
}

#[test]
fn processes_keep_their_invariants() {
    try_corpus(Model::Process);
}

#[test]
fn http_requests_of_backends_are_answered_correctly() {
    try_corpus(Model::Http);
}

#[test]
fn nodes_agree_when_quiet() {
    try_corpus(Model::Cluster);
}

#[test]
fn attackers_take_nothing_from_honest_clients() {
    try_corpus(Model::Attack);
}

/// What the fuzzer kept: its bytes are the choices. Nothing runs if one seed is replayed.
#[test]
fn the_fuzzers_corpus_passes() {
    if given("RINGVERB_SEED").is_some() {
        return;
    }
    replay("simulation", simulation::run_script);
    replay("nodes", cluster::run_script);
    replay("sessions", simulation::run_http_script);
}

fn replay(target: &str, run_script: fn(&[u8])) {
    let folder = format!("{}/tests/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a corpus")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let bytes = std::fs::read(&file).expect("a file");
        let passes = catch_unwind(AssertUnwindSafe(|| run_script(&bytes))).is_ok();
        assert!(passes, "{}", file.display());
    }
}

/// New seeds in every run, as many as are asked for, or for as long as is asked for; none if one seed is replayed.
#[test]
#[expect(clippy::disallowed_methods, reason = "new seeds come from the clock")]
fn new_seeds_pass_all_models() {
    if given("RINGVERB_SEED").is_some() {
        return;
    }
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Apart from those of another run at the same time.
    let run =
        since.expect("a clock behind 1970").as_secs() << 12 | u64::from(std::process::id() & 0xfff);
    let first = run << 20;
    let start = std::time::Instant::now();
    let count = match given("RINGVERB_SECONDS") {
        None => given("RINGVERB_SEEDS").unwrap_or(240),
        Some(_) => u64::MAX - first,
    };
    let time = given("RINGVERB_SECONDS").unwrap_or(u64::MAX);
    let mut tried = 0;
    while tried < count && start.elapsed().as_secs() < time {
        let model = match tried % 12 {
            // Its steps are longer.
            0 => Model::Attack,
            2 | 6 | 10 => Model::Http,
            odd if odd % 2 == 1 => Model::Cluster,
            _ => Model::Process,
        };
        try_seed(model, first + tried);
        tried += 1;
    }
    println!("{tried} new seeds from {first}");
}
