//! `/metrics`: what waits for too long, and what is not written to the log.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::admin::AdminClient;
use crate::metrics::{scrape, setup, sum};
use crate::support::{Answer, Endpoint, eventually};

/// From the moment at which it is queued until the endpoint accepts it.
#[test]
fn the_age_of_the_oldest_webhook_event_grows_while_it_waits_and_ends_with_it() {
    static ACCEPTS: AtomicBool = AtomicBool::new(false);
    let endpoint = Endpoint::deciding(|_| match ACCEPTS.load(Ordering::SeqCst) {
        true => Answer::Status(200, ""),
        false => Answer::Status(503, ""),
    });
    let mut server = setup().env("RINGVERB_WEBHOOK_URL", &endpoint.url).start();
    let admin = AdminClient::of(&mut server);
    let age = || sum(&scrape(&admin), "ringverb_webhook_queue_age_seconds");
    assert!(age() == 0.0, "nothing waits");
    let mut client = server.connect();
    client.subscribe("news");
    let first = eventually("an event waits", || Some(age()).filter(|age| *age > 0.0));
    eventually("it grows older", || (age() > first).then_some(()));
    ACCEPTS.store(true, Ordering::SeqCst);
    eventually("it is accepted", || (age() == 0.0).then_some(()));
    drop(client);
}

/// The lines of one reason are limited, and those that are left out are counted.
#[test]
fn log_lines_that_are_left_out_are_counted() {
    let mut server = setup().workers(1).start();
    let admin = AdminClient::of(&mut server);
    let lost = |reason: &str| {
        scrape(&admin)[&format!("ringverb_log_lines_lost_total{{reason=\"{reason}\"}}")]
    };
    assert!(lost("suppressed") == 0.0 && lost("unread") == 0.0);
    let mut client = server.connect();
    for _ in 0..50 {
        client.send("no JSON");
    }
    (0..50).for_each(|_| drop(client.event()));
    // 20 lines at once, then one a second.
    eventually("lines are left out", || (lost("suppressed") >= 20.0).then_some(()));
}
