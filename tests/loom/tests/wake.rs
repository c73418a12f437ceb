//! No mail is left lying while its receiver sleeps, in whatever order the two sides run and their writes become
//! visible. A lost wake-up is a deadlock here, and loom reports it.

use ringverb_loom::mailbox::{Mailbox, mesh_of};

fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // All orders with up to so many switches away from a thread that could go on.
    builder.preemption_bound = Some(5);
    builder.check(run);
}

fn pair(ring_capacity: usize) -> (Mailbox<u32>, Mailbox<u32>) {
    let mut mailboxes = mesh_of(2, ring_capacity).unwrap();
    let right = mailboxes.pop().unwrap();
    (mailboxes.pop().unwrap(), right)
}

/// As a core that has nothing to do but its mail: it sleeps whenever there is none.
fn receive(mailbox: &mut Mailbox<u32>, lane: usize, numbers: std::ops::Range<u32>) {
    let from = 1 - mailbox.core();
    for number in numbers {
        let mail = loop {
            if let Some(mail) = mailbox.receive(from, lane) {
                break mail;
            }
            if mailbox.try_set_asleep() {
                mailbox.doorbell().wait();
                mailbox.doorbell().set_awake();
            }
        };
        assert_eq!(mail, number);
    }
}

fn send(mailbox: &mut Mailbox<u32>, lane: usize, number: u32) {
    mailbox.send(1 - mailbox.core(), lane, 0, number);
    mailbox.ring_doorbells();
}

#[test]
fn a_sleeping_core_is_woken() {
    model(|| {
        let (mut left, mut right) = pair(2);
        let sender = loom::thread::spawn(move || {
            send(&mut left, 0, 0);
            send(&mut left, 0, 1);
        });
        receive(&mut right, 0, 0..2);
        sender.join().unwrap();
    });
}

/// What is no mail, as the phase of the server: it is set, and then its owner rings. The core looks at it when a tick
/// begins, and once more when it has said that it sleeps.
#[test]
fn a_word_that_is_set_before_a_ring_is_not_slept_through() {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    model(|| {
        let (_left, right) = pair(1);
        let doorbells = right.doorbells();
        let word = Arc::new(AtomicUsize::new(0));
        let theirs = word.clone();
        let control = loom::thread::spawn(move || {
            theirs.store(1, Ordering::Release);
            doorbells[1].ring();
        });
        loop {
            right.doorbell().set_awake();
            let seen = word.load(Ordering::Acquire);
            if seen == 1 {
                break;
            }
            if right.try_set_asleep() && word.load(Ordering::Acquire) == seen {
                right.doorbell().wait();
            }
        }
        control.join().unwrap();
    });
}

/// A ring that is full: what waits for room rings, too, when it has found it.
#[test]
fn mail_that_waited_for_room_wakes_too() {
    model(|| {
        let (mut left, mut right) = pair(1);
        let sender = loom::thread::spawn(move || {
            (0..2).for_each(|number| left.send(1, 0, 0, number));
            left.ring_doorbells();
            while left.has_overflow() {
                loom::thread::yield_now();
                left.flush_overflow();
                left.ring_doorbells();
            }
        });
        receive(&mut right, 0, 0..2);
        sender.join().unwrap();
    });
}

/// A question and its answer: both sleep, each is woken by the other.
#[test]
fn two_that_wait_for_each_other() {
    model(|| {
        let (mut left, mut right) = pair(1);
        let asks = loom::thread::spawn(move || {
            send(&mut left, 0, 0);
            receive(&mut left, 1, 0..1);
        });
        receive(&mut right, 0, 0..1);
        send(&mut right, 1, 0);
        asks.join().unwrap();
    });
}
