//! The dispatcher without its thread: what it checks between the announcement of its sleep and the sleep.
//!
//! Each test sends an order without a ring. That is the state after a ring that found the dispatcher awake, just before
//! it announced its sleep. The rings and the loop are tested in `webhook/tests`.

use super::*;
use crate::app::{self, App, AppIndex, Webhook};
use crate::pusher::webhook_event::Happening;
use crate::webhook::{Feed, FeedEnd};

const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    dispatcher: Dispatcher,
    finish: Sender<Duration>,
    changes: Sender<Arc<Apps>>,
}

fn apps(webhooks: Vec<Webhook>) -> Arc<Apps> {
    Arc::new(Apps::new(vec![App { webhooks, ..app::sample() }]))
}

fn scene(apps: Arc<Apps>) -> Scene {
    scene_with(apps, Duration::ZERO, Vec::new(), Arc::default())
}

fn scene_with(
    apps: Arc<Apps>,
    debounce: Duration,
    rings: Vec<FeedEnd>,
    counters: Arc<WebhookCounters>,
) -> Scene {
    let (finish, finishing) = channel();
    let (changes, changed) = channel();
    let settings = WebhookSettings {
        timeout: PATIENCE,
        retry: PATIENCE,
        debounce,
        queue_events_max: 10,
        retry_first: PATIENCE,
        batch_delay: Duration::ZERO,
        idle: PATIENCE,
        failing_end: PATIENCE,
        ring_events: 8,
    };
    let doorbell = Arc::new(Doorbell::new().unwrap());
    let live = Arc::new(EventLog::new(1));
    let orders = DispatcherOrders { finishing, changed };
    let dispatcher = Dispatcher::new(apps, settings, rings, doorbell, counters, live, orders);
    Scene { dispatcher, finish, changes }
}

/// Lets the dispatcher sleep in a thread of its own. Returns it if it has not slept.
fn sleep_with_order(mut dispatcher: Dispatcher) -> Dispatcher {
    let doorbell = dispatcher.doorbell.clone();
    let (awake, is_awake) = channel();
    let thread = std::thread::spawn(move || {
        dispatcher.sleep();
        awake.send(()).ok();
        dispatcher
    });
    let result = is_awake.recv_timeout(PATIENCE);
    doorbell.ring();
    let dispatcher = thread.join().unwrap();
    assert_eq!(result, Ok(()), "the dispatcher sleeps, and its order waits");
    dispatcher
}

#[test]
fn a_change_of_endpoints_before_the_sleep_is_announced_is_applied_at_once() {
    let webhook = Webhook {
        url: "http://127.0.0.1:9/hook".to_owned(),
        kinds: WebhookKind::ALL.to_vec(),
        channel_prefixes: Vec::new(),
    };
    let Scene { dispatcher, finish: _finish, changes } = scene(apps(vec![webhook]));
    assert_eq!(dispatcher.endpoints.len(), 1);
    changes.send(apps(Vec::new())).unwrap();
    assert!(sleep_with_order(dispatcher).endpoints.is_empty());
}

#[test]
fn an_end_before_the_sleep_is_announced_is_noticed_at_once() {
    let Scene { dispatcher, finish, changes: _changes } = scene(apps(Vec::new()));
    finish.send(PATIENCE).unwrap();
    assert_eq!(sleep_with_order(dispatcher).grace, Some(PATIENCE));
}

#[test]
fn events_in_a_ring_and_delayed_leaves_are_gauges_with_peaks() {
    let apps = apps(Vec::new());
    let counters = Arc::new(WebhookCounters::new(0, 1));
    let doorbell = Arc::new(Doorbell::new().unwrap());
    let (mut feed, end) = Feed::new(0, &apps, 8, doorbell, counters.clone());
    let Scene { mut dispatcher, .. } = scene_with(apps, PATIENCE, vec![end], counters.clone());
    let mut push = |channel: &str, happening| {
        feed.push(WebhookEvent { app: AppIndex(0), channel: channel.into(), happening });
    };
    ["a", "b", "c"].into_iter().for_each(|channel| push(channel, Happening::Vacated));
    let ring = &counters.rings()[0];
    assert_eq!((ring.depth(), ring.peak(), counters.leaves_delayed.depth()), (3, 3, 0));
    assert_eq!(dispatcher.dispatch(), 3);
    assert_eq!((ring.depth(), ring.peak(), counters.leaves_delayed.depth()), (0, 3, 3));
    push("a", Happening::Occupied);
    assert_eq!(dispatcher.dispatch(), 1);
    let delayed = &counters.leaves_delayed;
    assert_eq!((delayed.depth(), delayed.peak(), ring.peak()), (2, 3, 3), "a rejoin cancels it");
    (0..9).for_each(|_| push("d", Happening::CacheMiss));
    assert!(counters.dropped_by_workers.get() > 0, "the ring is full");
    assert_eq!(ring.depth() + counters.dropped_by_workers.get(), 9);
}
