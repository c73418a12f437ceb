//! The transfer of established connections to another process, the workers' part.
//!
//! Each worker has its own descriptor table, so each worker of the old process sends its own sockets, and each worker
//! of the new process imports some: over Unix streams between them (`stream.rs`), once the main threads have agreed
//! (`server/handover.rs`). Phases of the old process: `Waiting` (HTTP sessions finish their requests, connections are
//! served), `Paused` (nothing is read or sent; mail between cores runs dry), `Leaving` (each worker sends, and waits
//! for the outcome). The new process is `Paused` from its start. Either may return to `Running`: until the new process
//! has confirmed that it has everything, nothing has changed in the old one.

mod give;
mod record;
mod stream;
mod take;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

pub(super) use give::hand_out;
pub use record::FORMAT;
pub(crate) use stream::{check_user, peer_credentials};
pub(super) use take::{listen, take_in};

use super::{HostKernel, Worker};
use crate::mailbox::Carried;

/// Where the workers of the two processes meet.
#[derive(Clone, Copy, Debug)]
pub struct Meeting {
    /// Drawn by the process that takes, secret: part of the abstract names it listens at.
    pub nonce: u64,
    /// Workers of the process that gives.
    pub givers: usize,
    /// Workers of the process that takes.
    pub takers: usize,
}

impl Meeting {
    fn name(&self, taker: usize) -> String {
        format!("ringverb {:016x} {taker}", self.nonce)
    }

    /// To whom a worker gives: everybody takes from somebody, and gives or takes about as much as the others.
    fn takers_of(&self, giver: usize) -> Vec<usize> {
        if self.takers <= self.givers {
            return vec![giver % self.takers];
        }
        (0..self.takers).filter(|taker| taker % self.givers == giver).collect()
    }

    fn givers_to(&self, taker: usize) -> usize {
        (0..self.givers).filter(|giver| self.takers_of(*giver).contains(&taker)).count()
    }
}

/// What the main thread and the workers of one process tell each other about a hand-over.
#[derive(Debug)]
pub struct Handover {
    /// When this process takes: where, from the start.
    pub taking: Option<Meeting>,
    /// When it gives: set before `Phase::leave`. By field of `Meeting`.
    giving: [AtomicU64; 2],
    gauges: Box<[Gauge]>,
    /// Workers that have given, or taken in, all.
    done: AtomicUsize,
    failed: AtomicBool,
}

/// What one worker shows while the process is on its way.
#[derive(Debug, Default)]
struct Gauge {
    /// HTTP sessions that have something to do.
    busy: AtomicUsize,
    /// How often it has shown that.
    shows: AtomicU64,
    /// Ticks while it was paused.
    ticks: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    quiet: AtomicBool,
}

/// What all workers showed.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    carried: Vec<Carried>,
    quiet: bool,
}

impl Shown {
    /// Seen twice in a row, with a tick of each worker between, no mail is under way, and none will be.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let sum = |what: fn(&Carried) -> u64| self.carried.iter().map(what).sum::<u64>();
        self.quiet && sum(|carried| carried.sent) == sum(|carried| carried.received)
    }
}

impl Handover {
    #[must_use]
    pub fn new(workers: usize, taking: Option<Meeting>) -> Self {
        Self {
            taking,
            giving: Default::default(),
            gauges: (0..workers).map(|_| Gauge::default()).collect(),
            done: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        }
    }

    /// Says to whom this process gives; another attempt begins.
    pub fn give_to(&self, nonce: u64, takers: usize) {
        self.giving[0].store(nonce, Ordering::Release);
        self.giving[1].store(takers as u64, Ordering::Release);
        self.done.store(0, Ordering::Release);
        self.failed.store(false, Ordering::Release);
    }

    fn giving(&self) -> Meeting {
        let takers = self.giving[1].load(Ordering::Acquire);
        Meeting {
            nonce: self.giving[0].load(Ordering::Acquire),
            givers: self.gauges.len(),
            takers: usize::try_from(takers).unwrap_or(1).max(1),
        }
    }

    /// HTTP sessions that have something to do, over all workers.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.gauges.iter().map(|gauge| gauge.busy.load(Ordering::Acquire)).sum()
    }

    /// How often each worker has shown what it has to do.
    #[must_use]
    pub fn shows(&self) -> Vec<u64> {
        self.gauges.iter().map(|gauge| gauge.shows.load(Ordering::Acquire)).collect()
    }

    /// Ticks of each worker while it was paused.
    #[must_use]
    pub fn ticks(&self) -> Vec<u64> {
        self.gauges.iter().map(|gauge| gauge.ticks.load(Ordering::Acquire)).collect()
    }

    #[must_use]
    pub fn shown(&self) -> Shown {
        let carried = |gauge: &Gauge| Carried {
            sent: gauge.sent.load(Ordering::Acquire),
            received: gauge.received.load(Ordering::Acquire),
        };
        Shown {
            carried: self.gauges.iter().map(carried).collect(),
            quiet: self.gauges.iter().all(|gauge| gauge.quiet.load(Ordering::Acquire)),
        }
    }

    #[must_use]
    pub fn all_done(&self) -> bool {
        self.done.load(Ordering::Acquire) == self.gauges.len()
    }

    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn finish(&self, worker: usize, result: std::io::Result<()>) {
        match result {
            Ok(()) => {
                self.done.fetch_add(1, Ordering::AcqRel);
            }
            Err(error) => {
                tracing::error!("worker {worker}: the hand-over failed: {error}");
                self.failed.store(true, Ordering::Release);
            }
        }
    }
}

impl<K: HostKernel> Worker<K> {
    /// Behind a tick: what the main thread waits for.
    pub(super) fn show(&self) {
        let core = &self.core;
        let gauge = &self.shared.handover.gauges[usize::from(core.mailbox.core())];
        gauge.busy.store(core.busy_sessions(), Ordering::Release);
        gauge.shows.fetch_add(1, Ordering::AcqRel);
        if core.is_paused() {
            let Carried { sent, received } = core.mailbox.carried();
            gauge.sent.store(sent, Ordering::Release);
            gauge.received.store(received, Ordering::Release);
            gauge.quiet.store(core.is_quiet(), Ordering::Release);
            gauge.ticks.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn everybody_gives_and_everybody_takes(givers in 1_usize..20, takers in 1_usize..20) {
            let meeting = Meeting { nonce: 0, givers, takers };
            let ways: Vec<usize> = (0..givers).flat_map(|giver| meeting.takers_of(giver)).collect();
            for taker in 0..takers {
                let count = ways.iter().filter(|to| **to == taker).count();
                prop_assert!(count > 0, "{taker} takes from nobody");
                prop_assert_eq!(count, meeting.givers_to(taker));
            }
            prop_assert!((0..givers).all(|giver| !meeting.takers_of(giver).is_empty()));
        }
    }

    #[test]
    fn mail_under_way_is_not_quiet() {
        let shown = |carried: &[(u64, u64)], quiet| Shown {
            carried: carried
                .iter()
                .map(|(sent, received)| Carried { sent: *sent, received: *received })
                .collect(),
            quiet,
        };
        assert!(shown(&[(3, 1), (0, 2)], true).is_quiet());
        assert!(!shown(&[(3, 1), (0, 1)], true).is_quiet());
        assert!(!shown(&[(3, 1), (0, 2)], false).is_quiet());
    }
}
