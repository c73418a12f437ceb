//! Clients that misbehave, at a low rate, beside a load that must not be affected: cut off in the middle, never
//! reading, half a handshake, garbage.
//!
//! Owns a thread with blocking sockets. Does not measure the clients, and what the server answers them is no violation.
//! Limit: ten a second, each for at most `STAY_MS_MAX`: 200 open at once. Cost: one thread, some system calls every
//! `EVERY`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::blunt::{self, Blunt};
use crate::random::Random;
use crate::report::Report;

/// Time between two clients.
const EVERY: Duration = Duration::from_millis(100);
/// The longest time that one stays open.
const STAY_MS_MAX: usize = 20_000;

#[derive(Default)]
pub(crate) struct Counts {
    resets: u64,
    deaf: u64,
    half: u64,
    garbage: u64,
    /// Clients that the server refused, or that failed before they could misbehave.
    failed: u64,
}

pub(crate) struct Faults {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Counts>,
}

impl Faults {
    /// Those that never read subscribe to `channel`, so that events queue for them.
    pub(crate) fn start(app: &App, channel: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (app, stopped) = (app.clone(), stop.clone());
        let thread = std::thread::spawn(move || misbehave(&app, channel, &stopped));
        Self { stop, thread }
    }

    /// Closes all of them, and reports their numbers by kind.
    pub(crate) fn finish(self, report: &mut Report) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let counts = self.thread.join().map_err(|_| io::Error::other("the faults panicked"))?;
        report.count("faults: reset in the middle", counts.resets);
        report.count("faults: never read", counts.deaf);
        report.count("faults: half a handshake", counts.half);
        report.count("faults: garbage", counts.garbage);
        report.count("faults: failed themselves", counts.failed);
        Ok(())
    }
}

fn misbehave(app: &App, channel: &str, stop: &AtomicBool) -> Counts {
    let mut counts = Counts::default();
    let mut random = Random::new(0xfa_17);
    let mut held: VecDeque<(Instant, Blunt)> = VecDeque::new();
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(EVERY);
        let now = Instant::now();
        // Each leaves at its own time, half of them by a reset.
        for _ in 0..held.len() {
            let Some((until, client)) = held.pop_front() else { break };
            if until > now {
                held.push_back((until, client));
            } else if random.below(2) == 0 {
                client.reset();
            }
        }
        let stays = Duration::from_millis(random.below(STAY_MS_MAX) as u64);
        match one(app, channel, number % 4, &mut random) {
            Ok(client) => {
                let counted = match number % 4 {
                    0 => &mut counts.resets,
                    1 => &mut counts.deaf,
                    2 => &mut counts.half,
                    _ => &mut counts.garbage,
                };
                *counted += 1;
                if number % 4 == 0 {
                    client.reset();
                } else {
                    held.push_back((now + stays, client));
                }
            }
            Err(_) => counts.failed += 1,
        }
    }
    counts
}

fn one(app: &App, channel: &str, kind: u64, random: &mut Random) -> io::Result<Blunt> {
    let mut client = Blunt::connect(app)?;
    if kind == 2 {
        let bytes = blunt::handshake(app);
        let count = random.below(bytes.len());
        client.stream.write_all(&bytes[..count])?;
        return Ok(client);
    }
    let socket_id = client.establish(app)?;
    match kind {
        // A subscription is on its way when the connection is cut.
        0 | 1 => client.send_text(&app.subscribe(&socket_id, channel, None))?,
        _ => {
            let garbage: Vec<u8> = (0..200).map(|_| random.below(256).to_le_bytes()[0]).collect();
            client.stream.write_all(&garbage)?;
        }
    }
    Ok(client)
}
