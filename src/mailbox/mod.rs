//! Core-to-core transport: one SPSC ring per ordered pair of cores and lane, and a doorbell per core.
//!
//! Owns mail between `send` and `receive`: rings, overflow queues, mail that is not yet due. Does not know its content.
//! A full ring makes mail wait in the sender's overflow queue; `is_congested` then makes the worker stop reading from
//! publishers, and `is_in_rings` ends the wait of those that have published. A core always reads lane 1 (`FromHome`).
//! It reads lane 0 unless its own lane 1 backlog is over the limit, because mail of lane 0 causes mail in lane 1.
//!
//! Limits: `ring_capacity` for a ring; `limits::MAIL_OVERFLOW_MAX` for an overflow queue, over which mail that
//! `discard_when_full` names is discarded and counted (the others are bounded: see `overflow_or_discard`). Cost: a mail
//! is moved into its ring and out of it, with one atomic store on each side; it allocates only in an overflow queue.

mod doorbell;

use std::collections::VecDeque;
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

pub use doorbell::Doorbell;

use crate::limits;

/// Lanes of a pair of cores, see `shard::Lane`.
pub const LANES: usize = 2;

/// Mail and the time at which it was sent, in nanoseconds of a clock that all cores share: see
/// `Mailbox::receive_ordered`.
pub type StampedMail<M> = (u64, M);

/// All mail that was sent before one moment. A publisher waits for this mail only: mail of other clients, sent later,
/// may keep the overflow queues from ever being empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverflowMark(u64);

const _: () = assert!(
    limits::MAIL_PER_TICK_MAX <= limits::MAIL_RING_MAX,
    "a tick takes no more from a ring than it may hold"
);
const _: () = assert!(
    limits::MAIL_OVERFLOW_SOFT_MAX < limits::MAIL_OVERFLOW_MAX,
    "input stops before events are discarded"
);

struct OutgoingLane<M> {
    ring: Producer<StampedMail<M>>,
    /// In the order of `send`, each with its number among all mail of the core that found no room. While it is not
    /// empty, nothing goes to the ring past it.
    overflow: VecDeque<(u64, StampedMail<M>)>,
}

/// One core's end of the mesh. Only its thread uses it; other cores see the rings and the doorbell.
pub struct Mailbox<M> {
    core: u16,
    /// By lane, then by receiving core; `None` for this core.
    outgoing: [Vec<Option<OutgoingLane<M>>>; LANES],
    /// By lane, then by sending core.
    incoming: [Vec<Option<Consumer<StampedMail<M>>>>; LANES],
    /// Taken from the rings by `receive_ordered` and not yet due.
    held_until_due: Vec<StampedMail<M>>,
    doorbells: Arc<[Doorbell]>,
    /// Cores that got mail since the last `ring_doorbells`.
    doorbells_due: Vec<bool>,
    /// The sum of the lengths of a lane's overflow queues, so that `is_congested` walks over none.
    overflow_by_lane: [usize; LANES],
    /// The number of the next mail that finds no room.
    overflow_number_next: u64,
    /// All mail with a lower number is in its ring, as of the last `flush_overflow`.
    overflow_number_waiting: u64,
    /// Of both lanes together, since the start.
    overflow_high_water: usize,
    mail_totals: MailTotals,
    is_discardable: fn(&M) -> bool,
    discarded_count: u64,
}

/// Since the start, mail that waits for room included. When the sums over all cores are the same twice in a row, and
/// equal, none is under way: a take-over waits for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailTotals {
    pub sent: u64,
    pub received: u64,
}

/// # Errors
/// When a doorbell's eventfd cannot be made (descriptors exhausted).
pub fn mesh<M>(cores: u16) -> std::io::Result<Vec<Mailbox<M>>> {
    mesh_of(cores, ring_capacity(cores))
}

/// For tests and the simulator, whose rings are small so that they are often full.
///
/// # Errors
/// As `mesh`.
pub fn mesh_of<M>(cores: u16, ring_capacity: usize) -> std::io::Result<Vec<Mailbox<M>>> {
    debug_assert!(cores > 0 && ring_capacity > 0, "each core has room for mail");
    debug_assert!(usize::from(cores) <= limits::WORKERS_MAX, "workers of one process");
    let doorbells: Arc<[Doorbell]> =
        (0..cores).map(|_| Doorbell::new()).collect::<Result<_, _>>()?;
    let mut mailboxes: Vec<Mailbox<M>> = (0..cores)
        .map(|core| Mailbox {
            core,
            outgoing: [lane(cores), lane(cores)],
            incoming: [lane(cores), lane(cores)],
            held_until_due: Vec::new(),
            doorbells: doorbells.clone(),
            doorbells_due: vec![false; usize::from(cores)],
            overflow_by_lane: [0; LANES],
            overflow_number_next: 0,
            overflow_number_waiting: 0,
            overflow_high_water: 0,
            mail_totals: MailTotals::default(),
            is_discardable: |_| false,
            discarded_count: 0,
        })
        .collect();
    for from in 0..usize::from(cores) {
        for to in (0..usize::from(cores)).filter(|to| *to != from) {
            for lane in 0..LANES {
                let (ring, consumer) = RingBuffer::new(ring_capacity);
                let overflow = VecDeque::new();
                mailboxes[from].outgoing[lane][to] = Some(OutgoingLane { ring, overflow });
                mailboxes[to].incoming[lane][from] = Some(consumer);
            }
        }
    }
    debug_assert_eq!(mailboxes.len(), usize::from(cores), "one for each core");
    debug_assert!(
        mailboxes.iter().all(|mailbox| {
            let others = usize::from(cores) - 1;
            let outgoing = mailbox.outgoing.iter().map(|lane| lane.iter().flatten().count());
            let incoming = mailbox.incoming.iter().map(|lane| lane.iter().flatten().count());
            outgoing.chain(incoming).all(|rings| rings == others)
        }),
        "in each lane a ring to each other core, and one from it"
    );
    Ok(mailboxes)
}

fn lane<T>(cores: u16) -> Vec<Option<T>> {
    (0..cores).map(|_| None).collect()
}

/// The mesh has `cores^2 * LANES` rings: with many cores each is smaller. So all together take at most 2.6 MB for each
/// core: 333 MB with 128 cores, whose rings have 128 entries.
fn ring_capacity(cores: u16) -> usize {
    (16 * 1024 / usize::from(cores)).clamp(128, limits::MAIL_RING_MAX)
}

impl<M> Mailbox<M> {
    /// Sends in order to another core. Never blocks: mail that finds no room waits in the overflow queue.
    pub fn send(&mut self, to: u16, lane: usize, stamp: u64, mail: M) {
        debug_assert!(to != self.core, "a core does not write to itself");
        debug_assert!(to < self.cores() && lane < LANES, "a core and a lane of this process");
        let Some(outgoing) = &mut self.outgoing[lane][usize::from(to)] else { return };
        self.doorbells_due[usize::from(to)] = true;
        self.mail_totals.sent += 1;
        if !outgoing.overflow.is_empty() {
            self.overflow_or_discard(to, lane, (stamp, mail));
        } else if let Err(rtrb::PushError::Full(mail)) = outgoing.ring.push((stamp, mail)) {
            self.overflow_or_discard(to, lane, mail);
        }
    }

    /// Only events are discarded. Other mail is accepted over the limit, because its number is bounded: at most three
    /// mails for each subscription of the core (request, withdrawal, leave) and for each user (sign-in, sign-out,
    /// watch), whose own limits are in SECURITY.md. Mail of input that was read before `is_congested` was seen may
    /// exceed `limits::MAIL_OVERFLOW_SOFT_MAX`.
    #[cold]
    fn overflow_or_discard(&mut self, to: u16, lane: usize, stamped: StampedMail<M>) {
        let Some(outgoing) = &mut self.outgoing[lane][usize::from(to)] else { return };
        if outgoing.overflow.len() >= limits::MAIL_OVERFLOW_MAX && (self.is_discardable)(&stamped.1)
        {
            debug_assert!(self.mail_totals.sent > 0, "`send` has counted it");
            self.mail_totals.sent -= 1;
            self.discarded_count += 1;
            return;
        }
        debug_assert!(
            lane != 0 || outgoing.overflow.back().is_none_or(|(_, last)| last.0 <= stamped.0),
            "lane 0 is sent in the order of its stamps"
        );
        outgoing.overflow.push_back((self.overflow_number_next, stamped));
        self.overflow_number_next += 1;
        self.overflow_by_lane[lane] += 1;
        self.overflow_high_water = self.overflow_high_water.max(self.overflow_by_lane.iter().sum());
        debug_assert!(
            outgoing.overflow.len() <= self.overflow_by_lane[lane],
            "a lane has all of them"
        );
    }

    /// Names the mail that may be lost when its overflow queue is full. Without this call none is.
    pub fn discard_when_full(&mut self, which: fn(&M) -> bool) {
        debug_assert_eq!(self.mail_totals, MailTotals::default(), "chosen before any mail is sent");
        self.is_discardable = which;
    }

    /// Since the start. Discarded mail is not in `MailTotals::sent`.
    #[must_use]
    pub fn discarded_count(&self) -> u64 {
        self.discarded_count
    }

    /// Mail that waits for room in rings, of both lanes.
    #[must_use]
    pub fn overflow_len(&self) -> usize {
        self.overflow_by_lane.iter().sum()
    }

    #[must_use]
    pub fn overflow_high_water(&self) -> usize {
        debug_assert!(self.overflow_high_water >= self.overflow_len(), "a maximum");
        self.overflow_high_water
    }

    /// Checks what holds between two calls. For tests, the simulator and debug builds: it walks over all lanes.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_invariants(&self) -> Result<(), String> {
        debug_assert_eq!(self.doorbells_due.len(), self.doorbells.len(), "one for each core");
        for (lane, outgoing) in self.outgoing.iter().enumerate() {
            let waiting: usize = outgoing.iter().flatten().map(|to| to.overflow.len()).sum();
            if waiting != self.overflow_by_lane[lane] {
                let noted = self.overflow_by_lane[lane];
                return Err(format!("{waiting} mails of lane {lane} wait for room, not {noted}"));
            }
            let stamps = |to: &OutgoingLane<M>| {
                to.overflow.iter().is_sorted_by_key(|(_, (stamp, _))| *stamp)
            };
            // Only lane 0 is read in the order of its stamps.
            if lane == 0 && !outgoing.iter().flatten().all(stamps) {
                return Err(format!("mail of lane {lane} waits out of its order"));
            }
            let numbers = self.overflow_number_waiting..self.overflow_number_next;
            let numbered = |to: &OutgoingLane<M>| {
                to.overflow.iter().is_sorted_by_key(|(number, _)| *number)
                    && to.overflow.iter().all(|(number, _)| numbers.contains(number))
            };
            if !outgoing.iter().flatten().all(numbered) {
                return Err(format!("mail of lane {lane} waits with a number of other mail"));
            }
        }
        if self.overflow_by_lane.iter().sum::<usize>() > self.overflow_high_water {
            return Err("more mail waits for room than ever did".to_owned());
        }
        Ok(())
    }

    /// Called once a tick: the receivers do not report that they have made room.
    pub fn flush_overflow(&mut self) {
        if !self.has_overflow() {
            return;
        }
        let mut number_waiting = self.overflow_number_next;
        for (lane, overflowed) in self.outgoing.iter_mut().zip(&mut self.overflow_by_lane) {
            for (to, outgoing) in lane.iter_mut().enumerate() {
                let Some(outgoing) = outgoing else { continue };
                while let Some((number, mail)) = outgoing.overflow.pop_front() {
                    if let Err(rtrb::PushError::Full(mail)) = outgoing.ring.push(mail) {
                        outgoing.overflow.push_front((number, mail));
                        number_waiting = number_waiting.min(number);
                        break;
                    }
                    // `send` has counted it: `overflowed` is the sum of the lengths of the lane's overflow queues.
                    debug_assert!(*overflowed > 0, "each mail of an overflow queue is counted");
                    *overflowed -= 1;
                    self.doorbells_due[to] = true;
                }
            }
        }
        debug_assert!(number_waiting >= self.overflow_number_waiting, "mail leaves in order");
        self.overflow_number_waiting = number_waiting;
        debug_assert_eq!(
            self.has_overflow(),
            self.outgoing.iter().flatten().flatten().any(|to| !to.overflow.is_empty()),
            "what waits is what is counted"
        );
    }

    /// Once a tick and not for each mail, so that many mails to a core are one fence and one look at its flag.
    pub fn ring_doorbells(&mut self) {
        debug_assert!(!self.doorbells_due[usize::from(self.core)], "a core does not wake itself");
        for (core, rung) in self.doorbells_due.iter_mut().enumerate() {
            if std::mem::take(rung) {
                self.doorbells[core].ring();
            }
        }
        debug_assert!(!self.doorbells_due.contains(&true), "all were rung");
    }

    /// The worker then reads no sockets and no HTTP, so that TCP slows the publishers.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.overflow_by_lane.iter().sum::<usize>() > limits::MAIL_OVERFLOW_SOFT_MAX
    }

    /// Lane 0, which causes mail of lane 1, must then be left unread. A lane 0 backlog does not count, because two busy
    /// cores could then deadlock.
    #[must_use]
    pub fn is_from_home_congested(&self) -> bool {
        self.overflow_by_lane[1] > limits::MAIL_OVERFLOW_SOFT_MAX
    }

    #[must_use]
    pub fn has_overflow(&self) -> bool {
        self.overflow_by_lane != [0; LANES]
    }

    /// `None` if all mail that was sent before is in its ring.
    #[must_use]
    pub fn overflow_mark(&self) -> Option<OverflowMark> {
        debug_assert!(
            self.has_overflow() == (self.overflow_number_waiting < self.overflow_number_next),
            "mail that waits has a number"
        );
        self.has_overflow().then_some(OverflowMark(self.overflow_number_next))
    }

    /// Whether all mail that was sent before the mark is in its ring. Mail that was sent later may wait.
    #[must_use]
    pub fn is_in_rings(&self, mark: OverflowMark) -> bool {
        debug_assert!(mark.0 <= self.overflow_number_next, "a mark of this mailbox");
        mark.0 <= self.overflow_number_waiting
    }

    /// For tests, which send no stamps that matter.
    pub fn receive(&mut self, from: u16, lane: usize) -> Option<M> {
        self.receive_stamped(from, lane).map(|(_, mail)| mail)
    }

    /// In the order of `send`. For lane 1, whose mail needs no order between cores. The stamp shows how long it waited.
    pub fn receive_stamped(&mut self, from: u16, lane: usize) -> Option<StampedMail<M>> {
        debug_assert!(from < self.cores() && lane < LANES, "a core and a lane of this process");
        let stamped = self.incoming[lane][usize::from(from)].as_mut()?.pop().ok()?;
        debug_assert!(from != self.core, "a core does not write to itself");
        self.mail_totals.received += 1;
        Some(stamped)
    }

    /// Receives mail of a lane from all cores in the order in which it was sent. So a publish that was answered is not
    /// overtaken by one that its publisher sent to another core after that answer.
    ///
    /// `horizon` is the clock read just before the call. This core empties the rings, so it has the mail of each
    /// publisher that was answered before the horizon. Mail with later stamps waits for the next call in
    /// `held_until_due`, so the list never has more than the rings can hold. Mail that had no room in its ring comes
    /// later, because its publisher is not answered before the mail is in the ring.
    pub fn receive_ordered(&mut self, lane: usize, horizon: u64, out: &mut Vec<StampedMail<M>>) {
        debug_assert!(lane < LANES, "a lane of this process");
        debug_assert!(self.held_until_due.is_sorted_by_key(|(stamp, _)| *stamp), "held in order");
        for ring in self.incoming[lane].iter_mut().flatten() {
            for _ in 0..limits::MAIL_RING_MAX {
                let Ok(stamped) = ring.pop() else { break };
                self.held_until_due.push(stamped);
            }
        }
        // Stable: mail of one core keeps its order.
        self.held_until_due.sort_by_key(|(stamp, _)| *stamp);
        let due = self.held_until_due.partition_point(|(stamp, _)| *stamp <= horizon);
        self.mail_totals.received += due as u64;
        out.extend(self.held_until_due.drain(..due));
        debug_assert!(out.last().is_none_or(|(stamp, _)| *stamp <= horizon), "sent before now");
        debug_assert!(
            self.held_until_due.first().is_none_or(|(stamp, _)| *stamp > horizon),
            "sent later"
        );
    }

    #[must_use]
    pub fn mail_totals(&self) -> MailTotals {
        debug_assert!(
            self.mail_totals.sent >= self.overflow_len() as u64,
            "mail that waits for room counts as sent, so none is missed at a take-over"
        );
        self.mail_totals
    }

    /// Mail that `receive_ordered` has out of the rings, whose stamp is after its last horizon.
    #[must_use]
    pub fn held_len(&self) -> usize {
        self.held_until_due.len()
    }

    /// The worker must not sleep then: no doorbell rings for mail that has left its ring.
    #[must_use]
    pub fn has_held_mail(&self) -> bool {
        !self.held_until_due.is_empty()
    }

    /// Looks at the rings only, not at what `receive_ordered` holds.
    #[must_use]
    pub fn has_mail(&self, lane: usize) -> bool {
        debug_assert!(lane < LANES, "a lane of this process");
        self.incoming[lane].iter().flatten().any(|ring| !ring.is_empty())
    }

    /// Announces that the core sleeps. `false`: mail has arrived, so the core must not sleep.
    #[must_use]
    pub fn try_set_asleep(&self) -> bool {
        let doorbell = self.doorbell();
        doorbell.set_asleep();
        if self.has_mail(0) || self.has_mail(1) {
            doorbell.set_awake();
            return false;
        }
        true
    }

    #[must_use]
    pub fn doorbell(&self) -> &Doorbell {
        debug_assert!(self.core < self.cores(), "it is one of all");
        &self.doorbells[usize::from(self.core)]
    }

    /// For the main thread, which wakes workers when the phase changes.
    #[must_use]
    pub fn doorbells(&self) -> Arc<[Doorbell]> {
        self.doorbells.clone()
    }

    #[must_use]
    pub fn core(&self) -> u16 {
        debug_assert!(self.core < self.cores(), "it is one of all");
        self.core
    }

    #[must_use]
    pub fn cores(&self) -> u16 {
        debug_assert!(!self.doorbells.is_empty(), "there is one core at least");
        u16::try_from(self.doorbells.len()).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests;
