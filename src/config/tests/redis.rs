//! Options of Redis and of the cluster.

use super::{load, map, with_environment};
use crate::config::{Sources, merge};

/// Address, user, password, as far as they are set.
fn redis(sources: &Sources) -> (String, Option<String>, Option<String>) {
    let scaling = load(sources).unwrap().scaling.expect("it is on");
    let password = scaling.password.as_ref().map(|password| password.reveal().to_owned());
    (scaling.address(), scaling.username, password)
}

fn scaled(pairs: &[(&str, &str)]) -> Sources {
    let mut sources = with_environment(&[("REVERB_SCALING_ENABLED", "true")]);
    sources.dotenv = map(pairs);
    sources
}

/// Whatever Laravel's `.env` says of the Redis of its cache.
#[test]
fn without_scaling_nothing_of_redis_is_a_problem() {
    for on in ["false", "null", ""] {
        let config = load(&with_environment(&[
            ("REVERB_SCALING_ENABLED", on),
            ("REVERB_SCALING_CHANNEL", "* *"),
            ("REDIS_URL", "nonsense://:hunter2"),
            ("REDIS_HOST", "/run/redis.sock"),
            ("REDIS_PORT", "-1"),
            ("REDIS_DB", "x"),
            ("REDIS_TIMEOUT", "0.5"),
        ]));
        assert!(config.unwrap().scaling.is_none(), "{on}");
    }
    let merged = merge(&scaled(&[("REDIS_CLIENT", "phpredis"), ("REDIS_PASSWORD", "null")]));
    assert!(merged.warnings.is_empty(), "{:?}", merged.warnings);
}

#[test]
fn scaling_as_laravel_writes_it() {
    let scaling = load(&scaled(&[])).unwrap().scaling.unwrap();
    assert_eq!((scaling.host.as_str(), scaling.port), ("127.0.0.1", 6379));
    assert_eq!((scaling.prefix.as_str(), scaling.timeout_seconds), ("reverb", 60));
    for null in ["null", "(null)", "", "(empty)", "NULL"] {
        let mut sources = scaled(&[("REDIS_PASSWORD", null), ("REDIS_HOST", "127.0.0.1")]);
        assert_eq!(redis(&sources), ("127.0.0.1:6379".into(), None, None), "{null}");
        sources.environment.extend(map(&[("REDIS_USERNAME", null), ("REDIS_URL", null)]));
        assert_eq!(redis(&sources), ("127.0.0.1:6379".into(), None, None), "{null}");
    }
    let sources = scaled(&[
        ("REDIS_HOST", "tcp://redis.test"),
        ("REDIS_PORT", "6380"),
        ("REDIS_USERNAME", "app"),
        ("REDIS_PASSWORD", "hunter2"),
        ("REDIS_DB", "15"),
        ("REDIS_TIMEOUT", "5"),
        ("REVERB_SCALING_CHANNEL", "shop:reverb"),
    ]);
    let all = ("redis.test:6380".into(), Some("app".into()), Some("hunter2".into()));
    assert_eq!(redis(&sources), all);
    let config = load(&sources).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let scaling = config.scaling.unwrap();
    assert_eq!((scaling.prefix.as_str(), scaling.timeout_seconds), ("shop:reverb", 5));
}

/// Part by part, as in Laravel: what the URL leaves out the other names say.
#[test]
fn the_url_of_redis_wins() {
    let others = [
        ("REDIS_HOST", "/not/looked/at"),
        ("REDIS_PORT", "7"),
        ("REDIS_USERNAME", "other"),
        ("REDIS_PASSWORD", "lesser"),
    ];
    for (url, address, username, password) in [
        ("redis://a.test", "a.test:7", Some("other"), Some("lesser")),
        ("redis://u@a.test:1", "a.test:1", Some("u"), Some("lesser")),
        ("redis://u:p%40@[::1]:1/2", "[::1]:1", Some("u"), Some("p@")),
        ("redis://:p@a.test", "a.test:7", None, Some("p")),
        ("redis://:@a.test", "a.test:7", None, None),
    ] {
        let mut sources = scaled(&others);
        sources.environment.extend(map(&[("REDIS_URL", url)]));
        let expected = (address.into(), username.map(str::to_owned), password.map(str::to_owned));
        assert_eq!(redis(&sources), expected, "{url}");
    }
}

#[test]
fn scaling_in_the_file() {
    for toml in [
        "[server]\nscaling.enabled = true\nscaling.channel = \"x\"\n\
            scaling.server.host = \"a.test\"\nscaling.server.port = 1\nscaling.server.password = \"p\"\n",
        "[server.scaling]\nenabled = true\nchannel = \"x\"\n\
            [server.scaling.server]\nurl = \"redis://:p@a.test:1\"\n",
        "[server]\nscaling = { enabled = true, channel = \"x\", \
            server = { host = \"a.test\", port = 1, password = \"p\", database = 3 } }\n",
    ] {
        let mut sources = Sources { toml: toml.parse().unwrap(), ..Sources::default() };
        assert_eq!(redis(&sources), ("a.test:1".into(), None, Some("p".into())), "{toml}");
        assert_eq!(load(&sources).unwrap().scaling.unwrap().prefix, "x");
        sources.environment = map(&[("REVERB_SCALING_ENABLED", "false")]);
        assert!(load(&sources).unwrap().scaling.is_none());
    }
    let toml = "[server]\nscaling.server.hots = 1\npulse_ingest_interval = 1\n";
    let sources = Sources { toml: toml.parse().unwrap(), ..Sources::default() };
    let meant =
        "ringverb.toml: server.scaling.server.hots is not known; is scaling.server.host meant?";
    assert_eq!(load(&sources).unwrap_err(), [meant]);
}

#[test]
fn wrong_places_of_redis_are_named_without_their_credentials() {
    for (name, value, sentence) in [
        (
            "REDIS_HOST",
            "tcp://u:hunter2@a",
            "REDIS_HOST is \"********\" (.env), but user and password",
        ),
        (
            "REDIS_HOST",
            "/run/redis.sock",
            "REDIS_HOST is \"/run/redis.sock\" (.env), but this version",
        ),
        ("REDIS_HOST", "a.test:6379", "but the port does not belong there: set REDIS_PORT"),
        (
            "REDIS_URL",
            "redis://:hunter2/hunter2@a",
            "REDIS_URL is \"redis://********\" (.env), but a /",
        ),
        (
            "REDIS_URL",
            "hunter2@a",
            "REDIS_URL is \"********\" (.env), but a URL of Redis starts with",
        ),
    ] {
        let sources = scaled(&[("REDIS_PASSWORD", "hunter2"), (name, value)]);
        let problems = load(&sources).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(sentence), "{sentence}\nnot in\n{problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
    let maybe = load(&with_environment(&[("REVERB_SCALING_ENABLED", "maybe")])).unwrap_err();
    assert_eq!(maybe.len(), 1, "{maybe:?}");
    assert!(maybe[0].ends_with("but it takes true or false"), "{maybe:?}");
}
