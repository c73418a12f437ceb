//! Mailboxes: order, limits, and wakes between threads.

use super::*;

#[test]
fn overflow_keeps_the_order_and_loses_nothing() {
    let mut mailboxes = mesh::<u32>(2).unwrap();
    let mut right = mailboxes.pop().unwrap();
    let mut left = mailboxes.pop().unwrap();
    let count = 3 * u32::try_from(ring_capacity(2)).unwrap();
    for number in 0..count {
        left.send(1, 0, 0, number);
    }
    assert!(left.has_overflow());
    let mut received = Vec::new();
    while received.len() < count as usize {
        while let Some(number) = right.receive(0, 0) {
            received.push(number);
        }
        left.flush_overflow();
    }
    assert!(received.iter().copied().eq(0..count));
    assert!(!left.has_overflow() && !right.has_mail(0));
}

#[test]
fn the_rings_of_all_cores_together_have_a_bound() {
    let cores = 1..=u16::try_from(limits::WORKERS_MAX).unwrap();
    for (count, capacity) in cores.map(|count| (usize::from(count), ring_capacity(count))) {
        assert!((128..=limits::MAIL_RING_MAX).contains(&capacity), "{count} cores: {capacity}");
        assert!(count * LANES * capacity <= 32 * 1024, "{count} cores: {capacity} for each core");
    }
}

#[test]
fn a_full_overflow_queue_discards_events_only_and_counts_them() {
    let mut mailboxes = mesh::<u32>(3).unwrap();
    let sender = &mut mailboxes[0];
    sender.discard_when_full(|mail| *mail == 0);
    let room = ring_capacity(3) + limits::MAIL_OVERFLOW_MAX;
    (0..room).for_each(|_| sender.send(1, 0, 0, 0));
    assert_eq!(
        (sender.discarded_count(), sender.overflow_high_water()),
        (0, limits::MAIL_OVERFLOW_MAX)
    );
    let before = sender.mail_totals();
    sender.send(1, 0, 0, 0);
    assert_eq!((sender.discarded_count(), sender.mail_totals()), (1, before), "it was not sent");
    sender.send(1, 0, 0, 7);
    assert_eq!(sender.overflow_high_water(), limits::MAIL_OVERFLOW_MAX + 1, "other mail is kept");
    (0..room).for_each(|_| sender.send(1, 1, 0, 0));
    (0..room).for_each(|_| sender.send(2, 0, 0, 0));
    assert_eq!(sender.discarded_count(), 1, "each queue has its own limit");
    sender.check_invariants().unwrap();
}

#[test]
fn violations_of_a_mailbox_are_named() {
    type Corrupt = fn(&mut Mailbox<u32>);
    let rows: [(&str, Corrupt); 5] = [
        ("2 mails of lane 0 wait for room, not 3", |mailbox| mailbox.overflow_by_lane[0] += 1),
        ("mail of lane 0 waits out of its order", |mailbox| {
            let outgoing = mailbox.outgoing[0][1].as_mut().unwrap();
            outgoing.overflow[1].1.0 = 1;
        }),
        ("mail of lane 0 waits with a number of other mail", |mailbox| {
            mailbox.overflow_number_waiting = 1;
        }),
        ("mail of lane 0 waits with a number of other mail", |mailbox| {
            let outgoing = mailbox.outgoing[0][1].as_mut().unwrap();
            outgoing.overflow[0].0 = 2;
        }),
        ("more mail waits for room than ever did", |mailbox| mailbox.overflow_high_water = 1),
    ];
    for (violation, corrupt) in rows {
        let mut mailbox = mesh_of::<u32>(2, 1).unwrap().remove(0);
        (5..8).for_each(|stamp| mailbox.send(1, 0, stamp, 0));
        mailbox.check_invariants().unwrap();
        corrupt(&mut mailbox);
        assert_eq!(mailbox.check_invariants().expect_err(violation), violation);
    }
}

/// An HTTP publisher waits for a mark. Waiting until nothing waits for room had no end while other clients published.
#[test]
fn a_mark_waits_for_the_mail_before_it_in_every_queue_and_for_no_later_mail() {
    let mut mailboxes = mesh_of::<u32>(3, 1).unwrap();
    let mut slow = mailboxes.pop().unwrap();
    let mut fast = mailboxes.pop().unwrap();
    let mut sender = mailboxes.pop().unwrap();
    assert_eq!(sender.overflow_mark(), None, "nothing was sent");
    sender.send(2, 1, 0, 0);
    sender.send(1, 0, 0, 0);
    assert_eq!(sender.overflow_mark(), None, "all mail is in the rings");
    sender.send(2, 1, 0, 1);
    (1..4).for_each(|number| sender.send(1, 0, 0, number));
    let mark = sender.overflow_mark().unwrap();
    for number in 0..10 {
        // As much mail arrives as leaves.
        sender.send(1, 0, 0, 4 + number);
        assert_eq!(fast.receive(0, 0), Some(number), "the order stays");
        sender.flush_overflow();
        sender.check_invariants().unwrap();
        assert!(!sender.is_in_rings(mark), "mail in the other lane, to another core, waits");
    }
    assert_eq!(slow.receive(0, 1), Some(0));
    sender.flush_overflow();
    assert!(sender.is_in_rings(mark) && sender.has_overflow(), "later mail waits");
    let later = sender.overflow_mark().unwrap();
    // The ring has the mail after those ten, and three more wait.
    for left in (0..3).rev() {
        assert!(!sender.is_in_rings(later) && sender.is_in_rings(mark));
        fast.receive(0, 0).unwrap();
        sender.flush_overflow();
        assert_eq!(sender.overflow_len(), left);
    }
    assert!(sender.is_in_rings(later) && sender.overflow_mark().is_none());
    sender.check_invariants().unwrap();
}

/// Two busy cores once deadlocked: each stopped reading while its own mail found no room.
#[test]
fn cores_that_flood_each_other_do_not_deadlock() {
    let mut mailboxes = mesh::<u32>(2).unwrap();
    let count = 4 * limits::MAIL_OVERFLOW_SOFT_MAX;
    for from in [0, 1] {
        (0..count).for_each(|_| mailboxes[from].send(u16::from(from == 0), 0, 0, 0));
        assert!(mailboxes[from].is_congested(), "publishers wait");
    }
    let mut received = [0; 2];
    for _ in 0..100 {
        for (mailbox, received) in mailboxes.iter_mut().zip(&mut received) {
            let mut mail = Vec::new();
            if !mailbox.is_from_home_congested() {
                mailbox.receive_ordered(0, 0, &mut mail);
            }
            *received += mail.len();
            mailbox.flush_overflow();
        }
    }
    assert_eq!(received, [count; 2]);
    assert!(!mailboxes[0].has_overflow() && !mailboxes[0].is_from_home_congested());
    (0..count).for_each(|_| mailboxes[0].send(1, 1, 0, 0));
    assert!(mailboxes[0].is_from_home_congested(), "but not for more than it can answer");
}

#[test]
fn mail_of_several_cores_comes_in_the_order_of_its_stamps() {
    let mut mailboxes = mesh::<u32>(3).unwrap();
    let mut home = mailboxes.remove(0);
    for (from, stamp, mail) in [(1, 20, 2), (0, 10, 1), (0, 20, 3), (1, 30, 4), (0, 99, 9)] {
        mailboxes[from].send(0, 0, stamp, mail);
    }
    let mut received = Vec::new();
    home.receive_ordered(0, 50, &mut received);
    let mails = |stamped: &[(u64, u32)]| stamped.iter().map(|(_, mail)| *mail).collect::<Vec<_>>();
    assert_eq!(mails(&received), [1, 3, 2, 4]);
    assert!(home.has_held_mail());
    mailboxes[1].send(0, 0, 60, 5);
    home.receive_ordered(0, 100, &mut received);
    assert_eq!(mails(&received), [1, 3, 2, 4, 5, 9]);
    assert!(!home.has_held_mail());
}

/// A publish of the home itself comes after all of these, because their publishers are answered.
#[test]
fn all_mail_in_the_rings_is_received_at_once_in_the_order_of_its_stamps() {
    let mut mailboxes = mesh::<u64>(3).unwrap();
    let mut home = mailboxes.remove(0);
    let count = limits::MAIL_RING_MAX as u64;
    (0..count).for_each(|stamp| mailboxes[0].send(0, 0, stamp, stamp));
    assert!(!mailboxes[0].has_overflow(), "the ring holds them all");
    mailboxes[1].send(0, 0, count, count);
    let mut received = Vec::new();
    home.receive_ordered(0, count, &mut received);
    assert!(received.into_iter().map(|(_, mail)| mail).eq(0..=count));
    assert!(!home.has_held_mail());
}

#[test]
fn mail_over_the_room_of_its_ring_keeps_the_order_of_its_core() {
    let mut mailboxes = mesh::<u64>(2).unwrap();
    let mut home = mailboxes.remove(0);
    let count = 3 * limits::MAIL_RING_MAX as u64;
    (0..count).for_each(|stamp| mailboxes[0].send(0, 0, stamp, stamp));
    let mut received = Vec::new();
    while received.len() < limits::MAIL_RING_MAX * 3 {
        home.receive_ordered(0, u64::MAX, &mut received);
        mailboxes[0].flush_overflow();
    }
    assert!(received.into_iter().map(|(_, mail)| mail).eq(0..count));
}

#[test]
fn no_core_sleeps_while_it_has_mail() {
    let mut mailboxes = mesh::<u32>(2).unwrap();
    let right = mailboxes.pop().unwrap();
    let mut left = mailboxes.pop().unwrap();
    assert!(right.try_set_asleep());
    left.send(1, 1, 0, 7);
    left.ring_doorbells();
    assert!(right.doorbell().was_rung(), "asleep: the eventfd was written");
    assert!(!right.try_set_asleep());
}

/// Two threads, real rings: every mail arrives once and in order, and a sleeper is always woken.
#[test]
fn a_sleeping_core_is_woken_for_every_mail() {
    let mut mailboxes = mesh::<u32>(2).unwrap();
    let mut right = mailboxes.pop().unwrap();
    let mut left = mailboxes.pop().unwrap();
    let sender = std::thread::spawn(move || {
        for number in 0..20_000 {
            left.send(1, 0, 0, number);
            left.flush_overflow();
            left.ring_doorbells();
            while left.has_overflow() {
                left.flush_overflow();
                left.ring_doorbells();
                std::thread::yield_now();
            }
        }
    });
    let mut expected = 0;
    while expected < 20_000 {
        while let Some(number) = right.receive(0, 0) {
            assert_eq!(number, expected);
            expected += 1;
        }
        if expected < 20_000 && right.try_set_asleep() {
            right.doorbell().wait();
            right.doorbell().set_awake();
        }
    }
    sender.join().unwrap();
}
