//! Options of webhooks.

use super::{CREDENTIALS, load, map, with_environment};
use crate::app::WebhookKind;
use crate::config::{Sources, merge};

#[test]
fn webhooks_of_the_environment() {
    let config = load(&with_environment(&[])).unwrap();
    assert!(config.apps[0].webhooks.is_empty());
    assert_eq!((config.webhook_timeout_seconds, config.webhook_retry_seconds), (30, 300));
    assert_eq!((config.webhook_debounce_ms, config.webhook_queue_events_max), (3_000, 10_000));
    let config =
        load(&with_environment(&[("RINGVERB_WEBHOOK_URL", "http://a.test/x, https://b.test,")]));
    let webhooks = &config.unwrap().apps[0].webhooks;
    let urls: Vec<&str> = webhooks.iter().map(|webhook| webhook.url.as_str()).collect();
    assert_eq!(urls, ["http://a.test/x", "https://b.test"]);
    assert_eq!(webhooks[1].kinds, WebhookKind::ALL);
    assert!(webhooks[1].channel_prefixes.is_empty());
    let config = load(&with_environment(&[
        ("RINGVERB_WEBHOOK_URL", "http://a.test/x"),
        ("RINGVERB_WEBHOOK_EVENTS", "cache_miss,member_added,cache_miss"),
        ("RINGVERB_WEBHOOK_CHANNEL_PREFIXES", "presence-, private-a"),
        ("RINGVERB_WEBHOOK_TIMEOUT", "5"),
        ("RINGVERB_WEBHOOK_RETRY", "0"),
        ("RINGVERB_WEBHOOK_DEBOUNCE", "0"),
        ("RINGVERB_WEBHOOK_QUEUE_MAX", "7"),
    ]))
    .unwrap();
    let webhook = &config.apps[0].webhooks[0];
    assert_eq!(webhook.kinds, [WebhookKind::CacheMiss, WebhookKind::MemberAdded]);
    assert_eq!(webhook.channel_prefixes, ["presence-", "private-a"]);
    assert_eq!((config.webhook_timeout_seconds, config.webhook_retry_seconds), (5, 0));
    assert_eq!((config.webhook_debounce_ms, config.webhook_queue_events_max), (0, 7));
}

#[test]
fn webhooks_of_the_file_and_of_both() {
    let toml = "[[apps]]\nid = \"1001\"\nkey = \"a\"\nsecret = \"x\"\n\
        [[apps.webhooks]]\nurl = \"http://a.test/?a=1,2\"\nevents = [\"channel_occupied\", \"channel_vacated\"]\n\
        [[apps.webhooks]]\nurl = \"http://b.test/\"\nchannel_prefixes = [\"presence-\"]\n\
        [[apps]]\nid = \"2\"\nkey = \"b\"\nsecret = \"x\"\n";
    let mut sources = Sources { toml: toml.parse().unwrap(), ..Sources::default() };
    let config = load(&sources).unwrap();
    let [first, second] = &config.apps[0].webhooks[..] else { panic!("{config:?}") };
    assert_eq!(first.url, "http://a.test/?a=1,2");
    assert_eq!(first.kinds, [WebhookKind::ChannelOccupied, WebhookKind::ChannelVacated]);
    assert_eq!((second.channel_prefixes.len(), second.kinds.len()), (1, 7));
    assert!(config.apps[1].webhooks.is_empty());
    // The environment's list takes the place of the file's, as with every other option; without one the file's stays.
    sources.environment = map(&CREDENTIALS);
    assert_eq!(load(&sources).unwrap().apps[0].webhooks.len(), 2);
    sources.dotenv = map(&[("RINGVERB_WEBHOOK_URL", "http://c.test/")]);
    assert_eq!(load(&sources).unwrap().apps[0].webhooks[0].url, "http://c.test/");
    let sources = Sources { dotenv: sources.dotenv, ..Sources::default() };
    assert_eq!(load(&sources).unwrap().apps[0].webhooks.len(), 1);
}

#[test]
fn wrong_webhooks_are_named_without_their_credentials() {
    let mut sources = with_environment(&[
        ("RINGVERB_WEBHOOK_URL", "ftp://u:hunter2@a.test/?hunter2, http://b.test:0"),
        ("RINGVERB_WEBHOOK_EVENTS", "chanel_occupied,x"),
        ("RINGVERB_WEBHOOK_QUEUE_MAX", "0"),
    ]);
    sources.toml =
        "[[apps]]\nid = \"1\"\nkey = \"a\"\nsecret = \"x\"\n[[apps.webhooks]]\nevents = [\"x\"]\n\
        [[apps.webhooks]]\nurl = \"a.test\"\n"
            .parse()
            .unwrap();
    let all = load(&sources).unwrap_err().join("\n");
    for part in [
        "RINGVERB_WEBHOOK_URL is \"ftp://a.test/\" (environment), but a URL starts with http",
        "RINGVERB_WEBHOOK_URL is \"http://b.test:0\"",
        "names \"chanel_occupied\" (environment): is channel_occupied meant?",
        "names \"x\" (environment): Events are channel_occupied, ",
        "RINGVERB_WEBHOOK_QUEUE_MAX is \"0\"",
        "ringverb.toml: webhooks[0] of apps[0] (id 1) has no url",
        "apps[0].webhooks[1].url is \"a.test\" (ringverb.toml), but a URL starts with",
    ] {
        assert!(all.contains(part), "{part}\nnot in\n{all}");
    }
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn too_many_webhooks_and_such_without_effect() {
    let urls = vec!["http://a.test/"; 1_001].join(",");
    let problems = load(&with_environment(&[("RINGVERB_WEBHOOK_URL", &urls)])).unwrap_err();
    assert!(problems[0].starts_with("there are 1001 webhooks"), "{problems:?}");
    let mut sources = with_environment(&[("RINGVERB_WEBHOOK_EVENTS", "cache_miss")]);
    let lonely =
        "environment: RINGVERB_WEBHOOK_EVENTS has no effect: RINGVERB_WEBHOOK_URL is not set";
    assert_eq!(merge(&sources).warnings, [lonely]);
    sources.environment = map(&[("RINGVERB_WEBHOOK_URL", "http://a.test/")]);
    assert!(merge(&sources).warnings.is_empty(), "it is the development app's");
    sources.toml = "[[apps]]\nid = \"1\"\nkey = \"a\"\nsecret = \"x\"\n".parse().unwrap();
    let warnings = merge(&sources).warnings;
    assert!(warnings[0].contains("belongs to the app of REVERB_APP_KEY"), "{warnings:?}");
}
