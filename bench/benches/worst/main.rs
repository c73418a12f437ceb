//! `cargo bench -p ringverb-bench --bench worst [WORDS]`: what the worst known input of each entry point costs.
//!
//! Each entry is fed messages of 1, 10 and 100 KB, or as much as the entry point takes. The table says the cost of each
//! message, the slope in nanoseconds per byte, and by which power of its length the cost grows. The exit code is 1 when
//! a slope that anybody can cause is over `SLOPE_MAX`, or when a cost grows faster than `POWER_MAX`.
//! No socket and no kernel: only what the server itself does. `WORDS` select entries by a part of their name.

#[path = "../setup/mod.rs"]
mod setup;

mod api;
mod http;
mod messages;
mod redis;
mod socket;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// As in the server: other allocators take large blocks from the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Nanoseconds per byte before a peer has proved who it is: 20 ns are 50 MB/s, half of a gigabit link, for one core.
const SLOPE_MAX: f64 = 20.0;
/// A cost that grows with its length has the power 1, a quadratic one 2. Caches and noise add some to 1: the cost of
/// ten times the bytes may be 10^1.3, 20 times as much.
const POWER_MAX: f64 = 1.3;
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// One sample runs for so long; the fastest of the samples counts, because noise only adds.
const SAMPLE: Duration = Duration::from_millis(4);
const SAMPLES: u32 = 9;
/// An entry that is over a limit is measured again, because other processes can make a cost look larger.
const ATTEMPTS: u32 = 4;

/// Who can send an input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// Nothing is signed, or a signature is wrong.
    Anybody,
    /// An app's backend, whose requests are signed.
    Backend,
    /// A client whose subscription or sign-in is signed.
    Member,
    /// The Redis of the cluster.
    Redis,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Anybody => "anybody",
            Self::Backend => "backend",
            Self::Member => "member",
            Self::Redis => "Redis",
        }
    }
}

/// Processes one input.
type Run = Box<dyn FnMut()>;

struct Entry {
    name: &'static str,
    peer: Peer,
    /// Bytes that the entry point takes at most; larger inputs are cut to this.
    bytes_max: usize,
    /// Makes an input of about so many bytes; how many it has, and what processes it.
    set_up: fn(usize) -> (usize, Run),
}

const fn entry(name: &'static str, peer: Peer, set_up: fn(usize) -> (usize, Run)) -> Entry {
    Entry { name, peer, bytes_max: usize::MAX, set_up }
}

struct Measured {
    bytes: usize,
    nanoseconds: f64,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let wanted = |entry: &&Entry| {
        words.is_empty() || words.iter().any(|word| entry.name.contains(word.as_str()))
    };
    let lists = [http::ENTRIES, api::ENTRIES, socket::ENTRIES, messages::ENTRIES, redis::ENTRIES];
    println!("| input | sent by | 1 KB | 10 KB | 100 KB | ns per byte | power |  |");
    println!("|---|---|---:|---:|---:|---:|---:|---|");
    let mut failed = 0;
    for entry in lists.into_iter().flatten().filter(wanted) {
        let mut measured = measure(entry);
        for _ in 1..ATTEMPTS {
            if verdict(entry, &measured).is_empty() {
                break;
            }
            for (known, again) in measured.iter_mut().zip(measure(entry)) {
                known.nanoseconds = known.nanoseconds.min(again.nanoseconds);
            }
        }
        let (slope, power) = (slope(&measured), power(&measured));
        let verdict = verdict(entry, &measured);
        failed += usize::from(!verdict.is_empty());
        let (name, peer) = (entry.name, entry.peer.name());
        let costs = costs(&measured);
        println!("| {name} | {peer} | {costs}{slope:.1} | {power:.2} | {verdict} |");
    }
    println!();
    println!(
        "Limits: {SLOPE_MAX} ns per byte for what anybody can send, power {POWER_MAX} for all. Failed: {failed}."
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is wrong with an entry; nothing in most cases.
fn verdict(entry: &Entry, measured: &[Measured]) -> &'static str {
    if power(measured) > POWER_MAX {
        "grows too fast"
    } else if entry.peer == Peer::Anybody && slope(measured) > SLOPE_MAX {
        "too steep"
    } else {
        ""
    }
}

fn measure(entry: &Entry) -> Vec<Measured> {
    let mut measured: Vec<Measured> = Vec::new();
    for size in SIZES {
        let (bytes, mut run) = (entry.set_up)(size.min(entry.bytes_max));
        if measured.last().is_none_or(|last| last.bytes < bytes) {
            measured.push(Measured { bytes, nanoseconds: fastest(&mut run) });
        }
    }
    measured
}

/// The cost of one run in nanoseconds.
fn fastest(run: &mut Run) -> f64 {
    let time = |run: &mut Run, count: u32| {
        let start = cpu_time();
        (0..count).for_each(|_| run());
        cpu_time().saturating_sub(start)
    };
    let once = time(run, 1).min(time(run, 1)).max(Duration::from_nanos(1));
    let count = u32::try_from(SAMPLE.as_nanos() / once.as_nanos()).unwrap_or(u32::MAX);
    let count = count.clamp(1, 100_000);
    let best = (0..SAMPLES).map(|_| time(run, count)).min().unwrap_or_default();
    best.as_secs_f64() * 1e9 / f64::from(count)
}

/// Of this thread: what other processes run meanwhile does not count.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Nanoseconds for each byte more, from the smallest input to the largest.
fn slope(measured: &[Measured]) -> f64 {
    match measured {
        [first, .., last] => {
            (last.nanoseconds - first.nanoseconds) / (last.bytes - first.bytes) as f64
        }
        [only] => only.nanoseconds / only.bytes as f64,
        [] => 0.0,
    }
}

/// The power of its length by which the cost grew, from an eighth of the largest input or less.
fn power(measured: &[Measured]) -> f64 {
    let Some(last) = measured.last() else { return 1.0 };
    let Some(before) = measured.iter().rev().find(|before| before.bytes * 8 <= last.bytes) else {
        return 1.0;
    };
    let cost = last.nanoseconds / before.nanoseconds;
    cost.ln() / (last.bytes as f64 / before.bytes as f64).ln()
}

/// Cells of the table, one for each of `SIZES`; where an input was cut it says its size.
fn costs(measured: &[Measured]) -> String {
    let mut text = String::new();
    for (at, size) in SIZES.iter().enumerate() {
        match measured.get(at) {
            None => text.push_str("- | "),
            Some(Measured { bytes, nanoseconds }) => {
                let _ = write!(text, "{:.1} µs", nanoseconds / 1000.0);
                // A few bytes less than asked for need no mention.
                if bytes * 4 < size * 3 {
                    let _ = write!(text, " ({:.1} KB)", *bytes as f64 / 1000.0);
                }
                text.push_str(" | ");
            }
        }
    }
    text
}
