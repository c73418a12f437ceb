//! What does not arrive, and who is not held up: hanging endpoints, full queues, the end.

use std::sync::Barrier;

use super::receiver::{Answer, Receiver};
use super::*;
use crate::webhook::time::WebhookClock;

#[test]
fn endpoints_come_and_go_while_events_arrive() {
    let [first, second] = [(), ()].map(|()| Receiver::start(|_| Answer::Status(200)));
    let mut rig = Rig::start(settings(), Vec::new());
    let apps = |urls: &[&str]| {
        let webhooks = urls.iter().map(|url| webhook(url)).collect();
        let new = App { id: "2".to_owned(), key: "k2".to_owned(), ..app::sample() };
        Arc::new(Apps::new(vec![app::sample(), App { webhooks, ..new }]))
    };
    let push = |rig: &mut Rig, channel: &str| {
        rig.feed.push(WebhookEvent {
            app: AppIndex(1),
            channel: channel.into(),
            happening: Happening::Occupied,
        });
        rig.feed.wake_dispatcher();
    };
    let changes = rig.webhooks.changes();
    changes.apply(apps(&[&first.url]));
    push(&mut rig, "a");
    assert_eq!(first.next().events(), ["channel_occupied a"]);
    changes.apply(apps(&[&second.url, &first.url]));
    push(&mut rig, "b");
    assert_eq!(first.next().events(), ["channel_occupied b"]);
    assert_eq!(second.next().events(), ["channel_occupied b"]);
    changes.apply(apps(&[&second.url]));
    push(&mut rig, "c");
    assert_eq!(second.next().events(), ["channel_occupied c"]);
    let counters = rig.finish();
    assert_eq!((counters.delivered.get(), counters.dropped_at_queues.get()), (4, 0));
}

/// The gauge of failing endpoints once kept an endpoint whose last request failed after its removal.
#[test]
fn an_endpoint_that_fails_after_its_removal_is_not_failing_when_its_sender_has_ended() {
    let barrier = Arc::new(Barrier::new(2));
    let of_receiver = barrier.clone();
    let removed = Receiver::start(move |_| {
        of_receiver.wait();
        of_receiver.wait();
        Answer::Status(404)
    });
    let other = Receiver::start(|_| Answer::Status(200));
    let apps = |webhooks| Arc::new(Apps::new(vec![App { webhooks, ..app::sample() }]));
    let mut rig = Rig::start(settings(), vec![webhook(&removed.url)]);
    rig.occupy("a");
    barrier.wait();
    rig.webhooks.changes().apply(apps(Vec::new()));
    rig.webhooks.changes().apply(apps(vec![webhook(&other.url)]));
    rig.occupy("b");
    // Both changes are applied now, and the request to the removed endpoint is under way.
    assert_eq!(other.next().events(), ["channel_occupied b"]);
    barrier.wait();
    until("given up", || rig.counters.given_up.get() == 1);
    until("not failing", || rig.counters.failing_seconds(u64::MAX) == 0);
    assert_eq!(rig.finish().delivered.get(), 1);
}

#[test]
fn hanging_endpoints_delay_no_other_endpoint() {
    let hanging: Vec<Receiver> = (0..20).map(|_| Receiver::start(|_| Answer::Stall)).collect();
    let working = Receiver::start(|_| Answer::Status(200));
    let mut webhooks: Vec<Webhook> =
        hanging.iter().map(|receiver| webhook(&receiver.url)).collect();
    webhooks.push(webhook(&working.url));
    let mut rig = Rig::start(settings(), webhooks);
    rig.occupy("first");
    for receiver in &hanging {
        receiver.next();
    }
    assert_eq!(working.next().events(), ["channel_occupied first"]);
    let clock = WebhookClock::start();
    for number in 0..5 {
        rig.occupy(&number.to_string());
        assert_eq!(working.next().events(), [format!("channel_occupied {number}")]);
    }
    assert!(clock.now().0 < 30_000, "a hanging one takes 60 s");
    until("delivered", || rig.counters.delivered.get() == 6);
    rig.webhooks.finish(Duration::ZERO);
    assert_eq!(rig.counters.lost_at_end.get(), 20 * 6);
}

#[test]
fn a_full_queue_drops_the_newest_and_counts() {
    let hanging = Receiver::start(|_| Answer::Stall);
    let working = Receiver::start(|_| Answer::Status(200));
    let settings = WebhookSettings { queue_events_max: 10, ..settings() };
    let mut rig = Rig::start(settings, vec![webhook(&hanging.url), webhook(&working.url)]);
    rig.occupy("first");
    hanging.next();
    // One at a time: the working one's queue is as short.
    for number in 0..100 {
        assert_eq!(working.events(1).len(), 1);
        rig.occupy(&number.to_string());
    }
    until("delivered", || rig.counters.delivered.get() == 101);
    assert_eq!(rig.counters.dropped_at_queues.get(), 101 - 10);
    rig.webhooks.finish(Duration::from_millis(100));
    assert_eq!(rig.counters.lost_at_end.get(), 10);
    assert_eq!(rig.counters.delivered.get(), 101);
}

#[test]
fn events_queued_while_an_endpoint_hangs_arrive_when_it_recovers() {
    let receiver = Receiver::start(|number| match number {
        0 => Answer::Stall,
        _ => Answer::Status(200),
    });
    let timeout = Duration::from_secs(2);
    let settings = WebhookSettings { queue_events_max: 3, timeout, ..settings() };
    let mut rig = Rig::start(settings, vec![webhook(&receiver.url)]);
    rig.occupy("0");
    receiver.next();
    for number in 1..10 {
        rig.occupy(&number.to_string());
    }
    let expected = ["channel_occupied 0", "channel_occupied 1", "channel_occupied 2"];
    assert_eq!(receiver.events(3), expected);
    let counters = rig.finish();
    assert_eq!((counters.delivered.get(), counters.dropped_at_queues.get()), (3, 7));
}

#[test]
fn bytes_are_bounded_too() {
    let receiver = Receiver::start(|_| Answer::Stall);
    let mut rig = Rig::start(settings(), vec![webhook(&receiver.url)]);
    // A channel name of 1 MiB, for want of a client event of that size.
    let long = "x".repeat(1 << 20);
    for _ in 0..40 {
        rig.occupy(&long);
    }
    until("dropped", || rig.counters.dropped_at_queues.get() == 40 - 16);
    rig.webhooks.finish(Duration::ZERO);
    assert_eq!(rig.counters.lost_at_end.get(), 16);
}

#[test]
fn a_full_ring_drops_and_counts_and_never_blocks() {
    let receiver = Receiver::start(|_| Answer::Status(200));
    let settings = WebhookSettings { ring_events: 4, ..settings() };
    let mut rig = Rig::start(settings, vec![webhook(&receiver.url)]);
    for number in 0..2_000 {
        rig.occupy(&number.to_string());
    }
    let counters = rig.finish();
    assert!(counters.dropped_by_workers.get() > 0);
    assert_eq!(counters.dropped_by_workers.get() + counters.delivered.get(), 2_000);
}

#[test]
fn the_end_sends_delayed_leaves_and_events_between_attempts() {
    let receiver = Receiver::start(|number| Answer::Status(if number == 0 { 500 } else { 200 }));
    let hour = Duration::from_secs(3_600);
    let settings = WebhookSettings { debounce: hour, retry_first: hour, retry: hour, ..settings() };
    let mut rig = Rig::start(settings, vec![webhook(&receiver.url)]);
    rig.occupy("a");
    receiver.next();
    until("failed", || rig.counters.requests_failed.get() == 1);
    rig.push("b", Happening::Vacated);
    rig.push("c", Happening::MemberRemoved { user_id: "7".into() });
    let counters = rig.finish();
    let expected = ["channel_occupied a", "channel_vacated b", "member_removed c"];
    assert_eq!(receiver.events(3), expected);
    assert_eq!((counters.delivered.get(), counters.lost_at_end.get()), (3, 0));
}

#[test]
fn the_end_is_in_time_even_if_endpoints_hang() {
    let stalling = Receiver::start(|_| Answer::Stall);
    let failing = Receiver::start(|_| Answer::Status(500));
    let webhooks = vec![webhook(&stalling.url), webhook(&failing.url)];
    let mut rig = Rig::start(settings(), webhooks);
    rig.occupy("a");
    stalling.next();
    failing.next();
    rig.push("b", Happening::Vacated);
    let clock = WebhookClock::start();
    rig.webhooks.finish(Duration::from_millis(300));
    let taken = clock.now().0;
    // Both clocks count whole milliseconds, each from a start of its own: 300 ms of one are 298 to 302 of the other.
    assert!((298..20_000).contains(&taken), "{taken} ms");
    assert_eq!((rig.counters.lost_at_end.get(), rig.counters.delivered.get()), (4, 0));
}

/// A failing endpoint does not use up the grace period; one that works slowly may.
#[test]
fn the_end_waits_for_an_endpoint_that_works_and_not_for_one_that_fails() {
    let failing = Receiver::start(|_| Answer::Status(500));
    // No process listens on port 1.
    let unreachable = "http://127.0.0.1:1/x";
    let webhooks = vec![webhook(&failing.url), webhook(unreachable)];
    let failing_end = Duration::from_millis(20);
    let settings = WebhookSettings { failing_end, ..settings() };
    let mut rig = Rig::start(settings, webhooks);
    rig.occupy("a");
    until("failed", || rig.counters.requests_failed.get() >= 2);
    let clock = WebhookClock::start();
    let counters = rig.finish();
    assert!(clock.now().0 < 30_000, "the grace period is 60 s");
    assert_eq!((counters.lost_at_end.get(), counters.delivered.get()), (2, 0));

    let failing = Receiver::start(|_| Answer::Status(500));
    let slow = Receiver::start(|_| Answer::Drip(Duration::from_millis(20)));
    let mut rig = Rig::start(settings, vec![webhook(&failing.url), webhook(&slow.url)]);
    rig.occupy("a");
    failing.next();
    slow.next();
    let counters = rig.finish();
    assert_eq!((counters.lost_at_end.get(), counters.delivered.get()), (1, 1));
}

#[test]
fn an_end_without_events_is_quick() {
    let receiver = Receiver::start(|_| Answer::Status(200));
    let mut rig = Rig::start(settings(), vec![webhook(&receiver.url)]);
    rig.occupy("a");
    receiver.next();
    let clock = WebhookClock::start();
    rig.finish();
    assert!(clock.now().0 < 30_000, "an idle sender would wait for 60 s");
}

#[test]
fn attempts_at_the_end_are_seconds_apart_not_minutes() {
    let receiver = Receiver::start(|number| Answer::Status(if number < 12 { 500 } else { 200 }));
    let settings = WebhookSettings { retry_first: Duration::from_millis(20), ..settings() };
    let mut rig = Rig::start(settings, vec![webhook(&receiver.url)]);
    rig.occupy("a");
    until("failed", || rig.counters.requests_failed.get() == 6);
    let clock = WebhookClock::start();
    assert_eq!(rig.finish().delivered.get(), 1);
    assert!(clock.now().0 < 30_000, "six more doublings would take a minute");
}
