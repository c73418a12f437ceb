//! What arrives: bytes, signature, filters, order, attempts.

use sha2::{Digest, Sha256};

use super::receiver::{Answer, Receiver};
use super::*;
use crate::webhook::client::DeliveryFailure;

/// HMAC-SHA256 as RFC 2104 spells it, without the crate that the server uses.
fn hmac(secret: &[u8], text: &[u8]) -> String {
    assert!(secret.len() <= 64);
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(secret).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn posts_are_signed_over_their_bytes() {
    let receiver = Receiver::start(|_| Answer::Status(201));
    let url = receiver.url.replace("http://", "http://me:pass@") + "?token=1";
    let mut rig = Rig::start(settings(), vec![webhook(&url)]);
    rig.push("presence-a\"ä", Happening::MemberAdded { user_id: "7".into() });
    let request = receiver.next();
    assert!(request.head.starts_with("POST /hooks?token=1 HTTP/1.1\n"), "{}", request.head);
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("x-pusher-key"), "app-key");
    assert_eq!(request.header("x-pusher-signature"), hmac(b"app-secret", &request.body));
    assert!(request.header("user-agent").starts_with("ringverb/"), "{}", request.head);
    assert_eq!(request.header("authorization"), "Basic bWU6cGFzcw==");
    let expected = format!(
        r#"{{"time_ms":{},"events":[{{"name":"member_added","channel":"presence-a\"ä","user_id":"7"}}]}}"#,
        request.time_ms()
    );
    assert_eq!(String::from_utf8_lossy(&request.body), expected);
    assert!(request.time_ms() > 1_700_000_000_000);
    rig.occupy("b");
    let second = receiver.next();
    assert_eq!((second.connection, second.events()), (0, vec!["channel_occupied b".to_owned()]));
    assert_eq!(rig.finish().delivered.get(), 2);
}

#[test]
fn a_burst_of_events_is_posted_in_few_requests_and_in_order() {
    let receiver = Receiver::start(|_| Answer::Status(200));
    let mut rig = Rig::start(settings(), vec![webhook(&receiver.url)]);
    for number in 0..1_300 {
        rig.feed.push(event(&number.to_string(), Happening::Occupied));
    }
    rig.feed.wake_dispatcher();
    let (mut all, mut requests) = (Vec::new(), 0);
    while all.len() < 1_300 {
        let events = receiver.next().events();
        assert!(events.len() <= 500);
        all.extend(events);
        requests += 1;
    }
    assert_eq!(all, (0..1_300).map(|n| format!("channel_occupied {n}")).collect::<Vec<_>>());
    assert!((3..10).contains(&requests), "{requests}");
    assert_eq!(rig.finish().delivered.get(), 1_300);
}

#[test]
fn each_endpoint_receives_the_events_that_it_names() {
    let receivers: Vec<Receiver> =
        (0..3).map(|_| Receiver::start(|_| Answer::Status(200))).collect();
    let vacated = Webhook {
        kinds: vec![WebhookKind::ChannelVacated],
        channel_prefixes: vec!["private-".to_owned(), "presence-".to_owned()],
        ..webhook(&receivers[0].url)
    };
    let first = App { webhooks: vec![vacated, webhook(&receivers[1].url)], ..app::sample() };
    let second = App {
        id: "2".to_owned(),
        key: "second".to_owned(),
        secret: app::Secret::new("other"),
        webhooks: vec![webhook(&receivers[2].url)],
        ..app::sample()
    };
    let third = App { id: "3".to_owned(), key: "third".to_owned(), ..app::sample() };
    let mut rig = Rig::with_apps(settings(), vec![first, second, third]);
    for channel in ["private-a", "b", "presence-c"] {
        rig.push(channel, Happening::Vacated);
        rig.push(channel, Happening::CacheMiss);
    }
    for app in [1, 2] {
        rig.feed.push(WebhookEvent { app: AppIndex(app), ..event("d", Happening::Vacated) });
    }
    rig.finish();
    assert_eq!(receivers[0].events(2), ["channel_vacated private-a", "channel_vacated presence-c"]);
    assert_eq!(receivers[1].events(6).len(), 6);
    let request = receivers[2].next();
    assert_eq!(request.events(), ["channel_vacated d"]);
    assert_eq!(request.header("x-pusher-key"), "second");
    assert_eq!(request.header("x-pusher-signature"), hmac(b"other", &request.body));
    assert!(receivers.iter().all(|receiver| receiver.is_quiet(Duration::ZERO)));
}

/// A join cancels a delayed leave also for an endpoint that receives leaves alone.
#[test]
fn a_reload_sends_no_webhook_and_a_leave_does() {
    let receiver = Receiver::start(|_| Answer::Status(200));
    let kinds = vec![WebhookKind::ChannelVacated, WebhookKind::MemberRemoved];
    let settings = WebhookSettings { debounce: Duration::from_millis(300), ..settings() };
    let mut rig = Rig::start(settings, vec![Webhook { kinds, ..webhook(&receiver.url) }]);
    let user_id: Box<str> = "7".into();
    for what in [
        Happening::Vacated,
        Happening::MemberRemoved { user_id: user_id.clone() },
        Happening::MemberAdded { user_id: user_id.clone() },
        Happening::Occupied,
    ] {
        rig.feed.push(event("presence-a", what));
    }
    rig.push("presence-b", Happening::MemberRemoved { user_id });
    rig.push("presence-b", Happening::Vacated);
    assert_eq!(receiver.events(2), ["member_removed presence-b", "channel_vacated presence-b"]);
    assert_eq!(rig.finish().delivered.get(), 2);
}

#[test]
fn a_temporarily_refused_request_is_posted_again_with_the_same_bytes() {
    let bad = [
        Answer::Status(500),
        Answer::Status(408),
        Answer::Status(425),
        Answer::Status(429),
        Answer::Elsewhere,
        Answer::HangUp,
        Answer::CutOff,
        Answer::Stall,
        // 39 bytes: longer than the time for a request.
        Answer::Drip(Duration::from_millis(100)),
    ];
    let receiver =
        Receiver::start(move |number| bad.get(number).copied().unwrap_or(Answer::Status(299)));
    let timeout = Duration::from_secs(2);
    let mut rig =
        Rig::start(WebhookSettings { timeout, ..settings() }, vec![webhook(&receiver.url)]);
    rig.occupy("a");
    let first = receiver.next();
    for _ in bad {
        let again = receiver.next();
        assert!(again.head.starts_with("POST /hooks "), "{}", again.head);
        assert_eq!((&again.body, &again.head), (&first.body, &first.head));
    }
    let counters = rig.finish();
    assert_eq!((counters.delivered.get(), counters.requests_failed.get()), (1, bad.len() as u64));
    assert!(receiver.is_quiet(Duration::ZERO));
}

#[test]
fn other_4xx_are_final() {
    let answers = [400, 403, 404, 410].map(Answer::Status);
    let receiver =
        Receiver::start(move |number| answers.get(number).copied().unwrap_or(Answer::Status(200)));
    let mut rig = Rig::start(settings(), vec![webhook(&receiver.url)]);
    for number in 0..=answers.len() {
        rig.occupy(&number.to_string());
        let request = receiver.next();
        assert!(request.head.starts_with("POST /hooks "), "{}", request.head);
        assert_eq!(request.events(), [format!("channel_occupied {number}")]);
    }
    let counters = rig.finish();
    assert_eq!((counters.delivered.get(), counters.given_up.get()), (1, answers.len() as u64));
    assert_eq!(counters.given_up_of.get()[WebhookKind::ChannelOccupied as usize], 4);
    assert!(receiver.is_quiet(Duration::ZERO));
}

#[test]
fn slow_answers_and_long_ones_are_good_ones() {
    let receiver = Receiver::start(|number| match number {
        0 => Answer::Drip(Duration::from_millis(10)),
        _ => Answer::Endless,
    });
    let mut rig = Rig::start(settings(), vec![webhook(&receiver.url)]);
    rig.occupy("a");
    assert_eq!(receiver.next().events(), ["channel_occupied a"]);
    rig.occupy("b");
    assert_eq!(receiver.next().events(), ["channel_occupied b"]);
    let counters = rig.finish();
    assert_eq!((counters.delivered.get(), counters.requests_failed.get()), (2, 0));
}

#[test]
fn the_order_of_a_channel_survives_attempts() {
    let receiver = Receiver::start(|number| Answer::Status(if number % 3 < 2 { 503 } else { 200 }));
    let mut rig = Rig::start(settings(), vec![webhook(&receiver.url)]);
    let (mut pushed, mut accepted) = (0..60, Vec::new());
    for number in 0.. {
        for count in pushed.by_ref().take(7) {
            rig.push("c", Happening::SubscriptionCount { count });
        }
        let request = receiver.next();
        if number % 3 == 2 {
            accepted.extend(request.counts());
        }
        if accepted.len() == 60 {
            break;
        }
    }
    assert_eq!(accepted, (0..60).collect::<Vec<u64>>());
    rig.finish();
}

#[test]
fn a_batch_expires_after_its_time_and_the_next_one_has_its_own() {
    let receiver = Receiver::start(|number| Answer::Status(if number < 3 { 500 } else { 200 }));
    let retry = Duration::from_millis(60);
    let retry_first = Duration::from_millis(30);
    let settings = WebhookSettings { retry, retry_first, ..settings() };
    let mut rig = Rig::start(settings, vec![webhook(&receiver.url)]);
    rig.occupy("a");
    until("given up", || rig.counters.given_up.get() == 1);
    until("delivered", || {
        rig.occupy("b");
        rig.counters.delivered.get() > 0
    });
    let first = receiver.next();
    assert_eq!(first.events(), ["channel_occupied a"]);
    rig.finish();
}

/// A sender that ends for want of work must not take an event with it.
#[test]
fn senders_end_and_begin_without_loss() {
    let receiver = Receiver::start(|_| Answer::Status(200));
    let idle = Duration::from_millis(10);
    let batch_delay = Duration::ZERO;
    let mut rig = Rig::start(
        WebhookSettings { idle, batch_delay, ..settings() },
        vec![webhook(&receiver.url)],
    );
    let mut all = Vec::new();
    for number in 0..60 {
        rig.occupy(&number.to_string());
        all.extend(receiver.next().events());
        sleep(Duration::from_millis(number % 16));
    }
    assert_eq!(all, (0..60).map(|n| format!("channel_occupied {n}")).collect::<Vec<_>>());
    assert_eq!(rig.finish().delivered.get(), 60);
}

/// Certificates are looked up and the handshake fails: an error, no panic, and no plaintext.
#[test]
fn tls_is_spoken_to_https() {
    let receiver = Receiver::start(|_| Answer::Status(200));
    let url = receiver.url.replace("http://", "https://");
    let client = crate::webhook::client::EndpointClient::new(Duration::from_secs(5), 1);
    let failure = client.post(&url, &app::sample(), b"{}").unwrap_err();
    // The receiver reads TLS as text without an end; other stores of certificates fail before.
    assert!(!matches!(failure, DeliveryFailure::Status(..)), "{failure:?}");
    assert!(receiver.is_quiet(Duration::ZERO));
}

#[test]
fn failures_name_the_remedy_and_no_credentials() {
    let shown = |failure: DeliveryFailure| failure.to_string();
    assert!(shown(DeliveryFailure::Status(419, None)).contains("CSRF"));
    assert!(shown(DeliveryFailure::Status(301, None)).contains("redirects are not followed"));
    assert!(shown(DeliveryFailure::Timeout).contains("RINGVERB_WEBHOOK_TIMEOUT"));
    let error = ureq::Error::BadUri("http://me:hunter2@a.test".to_owned());
    assert!(!shown(DeliveryFailure::from(&error)).contains("hunter2"));
    let client = crate::webhook::client::EndpointClient::new(PATIENCE, 1);
    // No process listens on port 1.
    let failure = client.post("http://me:hunter2@127.0.0.1:1/x", &app::sample(), b"{}");
    let failure = shown(failure.unwrap_err());
    assert!(failure.contains("refused") && !failure.contains("hunter2"), "{failure}");
}

/// What the configuration lets through, the client takes.
#[test]
fn every_good_url_can_be_posted_to() {
    for byte in 0..=127_u8 {
        let url = format!("http://a.test/x{0}?y{0}", char::from(byte));
        if crate::config::webhook_url::check(&url).is_ok() {
            assert!(url.parse::<ureq::http::Uri>().is_ok(), "{url}");
        }
    }
    for url in ["http://[::1]:9/", "HTTPS://a_b.test", "http://u:p@a.test?x", "http://a./"] {
        assert_eq!(crate::config::webhook_url::check(url), Ok(()), "{url}");
        assert!(url.parse::<ureq::http::Uri>().is_ok(), "{url}");
    }
}
