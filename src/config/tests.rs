//! Precedence, wrong values, Laravel's spellings, several apps, development mode.

mod redis;
mod webhooks;

use std::collections::HashMap;

use super::dotenv;
use super::validate::{DevelopmentApp, build_config};
use super::{Config, Io, Unreadable, options};
use super::{Sources, merge};
use crate::app::ClientEventsFrom;

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const CREDENTIALS: [(&str, &str); 3] =
    [("REVERB_APP_ID", "1001"), ("REVERB_APP_KEY", "app-key"), ("REVERB_APP_SECRET", "hunter2")];

fn load(sources: &Sources) -> Result<Config, Vec<String>> {
    let drawn = DevelopmentApp { id: "123456".into(), key: "k".repeat(20), secret: "s".repeat(20) };
    build_config(&merge(sources), &drawn)
}

fn with_environment(pairs: &[(&str, &str)]) -> Sources {
    let mut environment = map(&CREDENTIALS);
    environment.extend(map(pairs));
    Sources { environment, ..Sources::default() }
}

#[test]
fn defaults_are_those_of_reverb() {
    let config = load(&with_environment(&[])).unwrap();
    assert_eq!((config.host.to_string().as_str(), config.port), ("0.0.0.0", 8080));
    assert_eq!((config.path.as_str(), config.request_size_max), ("", 10_000));
    let app = &config.apps[0];
    assert_eq!((app.ping_interval_seconds, app.activity_timeout_seconds), (60, 30));
    assert_eq!((app.connections_max, app.message_size_max), (None, 10_000));
    assert_eq!((app.client_events_from, app.rate_limit), (ClientEventsFrom::Members, None));
    assert_eq!(
        (app.allowed_origins.as_slice(), app.auth_window_seconds),
        (&["*".to_owned()][..], Some(600))
    );
    assert_eq!(config.source, "environment");
}

#[test]
fn flags_win_over_environment_over_dotenv_over_toml() {
    let mut sources =
        Sources { toml: "[server]\nport = 1\n".parse().unwrap(), ..Sources::default() };
    assert_eq!(load(&sources).unwrap().port, 1);
    sources.dotenv = map(&[("REVERB_SERVER_PORT", "2")]);
    assert_eq!(load(&sources).unwrap().port, 2);
    sources.environment = map(&[("REVERB_SERVER_PORT", "3")]);
    assert_eq!(load(&sources).unwrap().port, 3);
    sources.flags = [(options::OptionId::Port, "4".to_owned())].into();
    assert_eq!(load(&sources).unwrap().port, 4);
}

#[test]
fn no_value_is_in_debug_output() {
    let merged = merge(&with_environment(&[
        ("REVERB_APP_ID", "1"),
        ("REVERB_APP_KEY", "k"),
        ("REVERB_APP_SECRET", "hunter2"),
        ("REDIS_PASSWORD", "hunter2"),
    ]));
    let config = load(&with_environment(&[("REDIS_PASSWORD", "hunter2")])).unwrap();
    let shown = format!("{merged:?} {config:?}");
    assert!(shown.contains("REVERB_APP_SECRET") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_dotenv_of_a_laravel_application_is_read() {
    let text = b"APP_NAME=\"My App\"\nAPP_KEY=base64:abc=\n# comment\nBROADCAST_CONNECTION=reverb\n\
        REVERB_APP_ID=1001\nREVERB_APP_KEY='app-key'\nREVERB_APP_SECRET=\"s#cret\"\nREVERB_HOST=\"localhost\"\n\
        REVERB_PORT=8080\nREVERB_SCHEME=https\nREVERB_SERVER_PATH=/ws/\nREVERB_APP_MAX_CONNECTIONS=null\n\
        REVERB_APP_RATE_LIMITING_ENABLED=(true)\nREVERB_APP_RATE_LIMIT_MAX_ATTEMPTS=5\n\
        VITE_REVERB_APP_KEY=\"${REVERB_APP_KEY}\"\n";
    let (dotenv, _) = dotenv::parse(text, &HashMap::new());
    assert_eq!(dotenv["VITE_REVERB_APP_KEY"], "app-key");
    let config = load(&Sources { dotenv, ..Sources::default() }).unwrap();
    let app = &config.apps[0];
    assert_eq!((app.key.as_str(), app.secret.reveal()), ("app-key", "s#cret"));
    assert_eq!((config.path.as_str(), config.port, config.source.as_str()), ("/ws", 8080, ".env"));
    assert_eq!((app.connections_max, app.rate_limit.unwrap().attempts_max), (None, 5));
}

#[test]
fn all_problems_are_reported_at_once_with_name_value_and_accepted_values() {
    let sources = with_environment(&[
        ("REVERB_SERVER_HOST", "not-an-address"),
        ("REVERB_SERVER_PORT", "70000"),
        ("REVERB_SERVER_PATH", "a b"),
        ("RINGVERB_WORKERS", "-1"),
        ("RINGVERB_DEBUG", "maybe"),
        ("RINGVERB_IO", "uring"),
        ("REVERB_APP_ACTIVITY_TIMEOUT", "0"),
        ("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "some"),
        ("REVERB_SCALING_ENABLED", "true"),
        ("REVERB_SCALING_CHANNEL", "re*"),
        ("REDIS_URL", "rediss://u:hunter2@a.test"),
        ("REDIS_PORT", "x"),
        ("REDIS_DB", "x"),
        ("REDIS_TIMEOUT", "0"),
        ("RINGVERB_ALLOWED_ORIGINS", " , "),
        ("RINGVERB_MEMORY_MAX", "lots"),
    ]);
    let problems = load(&sources).unwrap_err();
    assert_eq!(problems.len(), 15, "{problems:#?}");
    let all = problems.join("\n");
    for part in [
        "REVERB_SERVER_PORT is \"70000\" (environment), but it takes a number from 0 to 65535",
        "REVERB_SERVER_HOST is \"not-an-address\"",
        "REVERB_SERVER_PATH is \"a b\"",
        "RINGVERB_WORKERS is \"-1\"",
        "RINGVERB_DEBUG is \"maybe\" (environment), but it takes true or false",
        "RINGVERB_IO is \"uring\" (environment), but it takes auto, io_uring or epoll",
        "REVERB_APP_ACTIVITY_TIMEOUT is \"0\"",
        "all, members or none",
        "REVERB_SCALING_CHANNEL is \"re*\"",
        "REDIS_URL is \"rediss://********\" (environment), but this version connects to Redis without TLS",
        "REDIS_PORT is \"x\" (environment), but it takes a number from 1 to 65535",
        "REDIS_DB is \"x\"",
        "REDIS_TIMEOUT is \"0\" (environment), but it takes seconds, 1 to 3600",
        "RINGVERB_ALLOWED_ORIGINS has the entry \"\" (environment), but an entry of the list",
        "RINGVERB_MEMORY_MAX is \"lots\" (environment), but it takes bytes, or a size such as 64K: \
         at least 16M; 0 is off",
    ] {
        assert!(all.contains(part), "{part}\nnot in\n{all}");
    }
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn the_interface_of_the_kernel_has_three_names() {
    let io =
        |value: &str| load(&with_environment(&[("RINGVERB_IO", value)])).map(|config| config.io);
    assert_eq!(load(&Sources::default()).map(|config| config.io), Ok(Io::Auto));
    assert_eq!(["auto", "io_uring", "epoll"].map(io), [Io::Auto, Io::IoUring, Io::Epoll].map(Ok));
}

#[test]
fn partial_credentials_are_refused_with_the_missing_name() {
    let sources = Sources { environment: map(&CREDENTIALS[..2]), ..Sources::default() };
    let problems = load(&sources).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("REVERB_APP_SECRET is not set"), "{problems:?}");
}

#[test]
fn several_apps_from_toml_and_one_from_the_environment() {
    let toml = "[[apps]]\nid = \"1\"\nkey = \"a\"\nsecret = \"x\"\nallowed_origins = [\"a.test\", \"*.b.test\"]\n\
        rate_limiting = { enabled = true, max_attempts = 9, decay_seconds = 2 }\n\
        [[apps]]\nid = \"1001\"\nkey = \"b\"\nsecret = \"y\"\n";
    let mut sources = Sources { toml: toml.parse().unwrap(), ..Sources::default() };
    let config = load(&sources).unwrap();
    assert_eq!(
        (config.apps.len(), config.source.as_str(), config.development),
        (2, "ringverb.toml", false)
    );
    assert_eq!(config.apps[0].allowed_origins, ["a.test", "*.b.test"]);
    assert_eq!(config.apps[0].rate_limit.unwrap().decay_seconds, 2);
    sources.environment = map(&CREDENTIALS);
    let config = load(&sources).unwrap();
    let keys: Vec<&str> = config.apps.iter().map(|app| app.key.as_str()).collect();
    assert_eq!(
        keys,
        ["app-key", "a"],
        "the environment's app takes the place of the one with its id"
    );
}

#[test]
fn mistakes_in_toml_are_named_with_their_place() {
    for (toml, part) in [
        ("[server]\nprot = 1\n", "server.prot is not known; is port meant?"),
        ("[[apps]]\nid = \"1\"\nkey = \"a\"\n", "ringverb.toml: apps[0] (id 1) has no secret"),
        (
            "[[apps]]\nid = \"1\"\nkey = \"a\"\nsecret = \"x\"\nping_intervall = 3\n",
            "is ping_interval meant?",
        ),
        ("what = 1\n", "what is not known here"),
        (
            "[[apps]]\nid=\"1\"\nkey=\"a\"\nsecret=\"x\"\n[[apps]]\nid=\"1\"\nkey=\"a\"\nsecret=\"x\"\n",
            "two apps have the id 1",
        ),
        ("[server]\nport = 1.5\n", "must be a text, a whole number"),
    ] {
        let sources = Sources { toml: toml.parse().unwrap(), ..Sources::default() };
        let problems = load(&sources).unwrap_err().join("\n");
        assert!(problems.contains(part), "{part}\nnot in\n{problems}");
    }
}

#[test]
fn without_any_app_it_is_development_mode() {
    let sources = Sources { dotenv: map(&[("APP_NAME", "x")]), ..Sources::default() };
    let config = load(&sources).unwrap();
    assert!(config.development);
    assert_eq!((config.apps.len(), config.apps[0].id.as_str()), (1, "123456"));
}

#[test]
fn a_host_that_forbids_a_development_app_does_not_get_one() {
    let forbidden = map(&[("RINGVERB_DEVELOPMENT", "false")]);
    let problems = load(&Sources { environment: forbidden, ..Sources::default() }).unwrap_err();
    let expected =
        "no app is configured, and RINGVERB_DEVELOPMENT is false (environment), which forbids a";
    assert!(problems.len() == 1 && problems[0].starts_with(expected), "{problems:?}");
    assert!(load(&with_environment(&[("RINGVERB_DEVELOPMENT", "false")])).is_ok());
    let wrong = map(&[("RINGVERB_DEVELOPMENT", "maybe")]);
    let problems = load(&Sources { environment: wrong, ..Sources::default() }).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn secrets_do_not_show() {
    let config = load(&with_environment(&[])).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn unknown_own_names_are_warned_of() {
    let merged = merge(&with_environment(&[("RINGVERB_WORKRES", "2")]));
    let warning =
        "unknown option RINGVERB_WORKRES (environment) is ignored; did you mean RINGVERB_WORKERS?";
    assert_eq!(merged.warnings, [warning]);
    assert!(options::help().contains("REVERB_APP_KEY"));
}

#[test]
fn a_configuration_of_the_service_that_cannot_be_read_is_warned_of() {
    let mut sources = Sources::default();
    let broken = Unreadable::Broken("No such file".to_owned());
    for (why, parts) in [
        (Unreadable::Denied, ["this user may not read it: ", "use sudo"]),
        (Unreadable::NotRegular, ["it is not a regular file: ", "put a file in its place"]),
        (broken, ["it cannot be read (No such file): ", "mend the link"]),
    ] {
        sources.files.unreadable = Some(("/etc/ringverb/ringverb.toml".to_owned(), why));
        let warnings = merge(&sources).warnings;
        assert!(warnings[0].starts_with("/etc/ringverb/ringverb.toml, "), "{warnings:?}");
        assert!(parts.iter().all(|part| warnings[0].contains(part)), "{warnings:?}");
    }
    assert_eq!(merge(&Sources::default()).warnings, [""; 0]);
}

#[test]
fn paths_and_booleans_in_every_spelling() {
    for (given, served) in [("", ""), ("/", ""), ("ws", "/ws"), ("/ws/", "/ws"), ("/a/b", "/a/b")] {
        let config = load(&with_environment(&[("REVERB_SERVER_PATH", given)])).unwrap();
        assert_eq!(config.path, served, "{given}");
    }
    for wrong in ["/a?b", "/a#b", "/a//b", "/$(id)", "/a'b", "/a`b", "/ä"] {
        assert!(load(&with_environment(&[("REVERB_SERVER_PATH", wrong)])).is_err(), "{wrong}");
    }
    for (given, value) in [
        ("true", true),
        ("(true)", true),
        ("TRUE", true),
        ("1", true),
        ("on", true),
        ("yes", true),
        ("false", false),
        ("(false)", false),
        ("0", false),
        ("off", false),
        ("no", false),
        ("", false),
        ("null", false),
        ("(null)", false),
        ("(empty)", false),
    ] {
        let config = load(&with_environment(&[("RINGVERB_DEBUG", given)])).unwrap();
        assert_eq!(config.debug, value, "{given}");
    }
}

/// Leaving out an option of the environment must not undo it in the file: for origins that would open the app.
#[test]
fn an_app_of_both_sources_keeps_values_that_only_the_file_has() {
    let toml = "[[apps]]\nid = \"1001\"\nkey = \"old\"\nsecret = \"old\"\n\
        allowed_origins = [\"a.test\"]\nping_interval = 7\nactivity_timeout = 8\n";
    let mut sources = with_environment(&[("REVERB_APP_PING_INTERVAL", "9")]);
    sources.toml = toml.parse().unwrap();
    let config = load(&sources).unwrap();
    let [app] = &config.apps[..] else { panic!("{config:?}") };
    assert_eq!((app.key.as_str(), app.secret.reveal()), ("app-key", "hunter2"));
    assert_eq!(app.allowed_origins, ["a.test"]);
    assert_eq!((app.ping_interval_seconds, app.activity_timeout_seconds), (9, 8));
    assert_eq!(config.source, "environment and ringverb.toml");
    sources.toml = format!("{toml}{toml}").parse().unwrap();
    assert_eq!(load(&sources).unwrap_err(), ["two apps have the id 1001"]);
}

#[test]
fn options_of_an_app_that_is_not_there_are_warned_of() {
    let toml = "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n";
    let sources = Sources {
        toml: toml.parse().unwrap(),
        dotenv: map(&[("REVERB_APP_MAX_CONNECTIONS", "5")]),
        ..Sources::default()
    };
    let warnings = merge(&sources).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with(".env: REVERB_APP_MAX_CONNECTIONS has no effect"));
    let sources = Sources { dotenv: sources.dotenv, ..Sources::default() };
    assert!(merge(&sources).warnings.is_empty());
    assert_eq!(load(&sources).unwrap().apps[0].connections_max, Some(5));
}

#[test]
fn messages_name_the_file_that_was_given() {
    let sources = Sources {
        toml: "[server]\nport = \"x\"\n".parse().unwrap(),
        dotenv: map(&[("RINGVERB_WORKERS", "x")]),
        toml_name: Some("/etc/one.toml".into()),
        dotenv_name: Some("two.env".into()),
        ..Sources::default()
    };
    let problems = load(&sources).unwrap_err().join("\n");
    assert!(problems.contains("server.port is \"x\" (/etc/one.toml), but"), "{problems}");
    assert!(problems.contains("RINGVERB_WORKERS is \"x\" (two.env), but"), "{problems}");
}

#[test]
fn a_secret_of_asterisks_is_a_hidden_one_and_refused() {
    for name in ["REVERB_APP_SECRET", "RINGVERB_APP_SECOND_SECRET"] {
        for value in ["********", "*", " *** "] {
            let problems = load(&with_environment(&[(name, value)])).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(&format!("{name} has only asterisks")), "{problems:?}");
        }
        load(&with_environment(&[(name, "*a*******")])).unwrap();
    }
}

#[test]
fn no_memory_limit_is_0_and_an_unset_one_follows_the_cgroup() {
    for (value, bytes, is_by_cgroup) in [
        (None, None, true),
        (Some(""), None, true),
        (Some("null"), None, true),
        (Some("0"), None, false),
        (Some("0M"), None, false),
        (Some("16M"), Some(16 << 20), false),
    ] {
        let pair = value.map(|value| ("RINGVERB_MEMORY_MAX", value));
        let config = load(&with_environment(pair.as_slice())).unwrap();
        assert_eq!(
            (config.memory_max, config.memory_max_by_cgroup),
            (bytes, is_by_cgroup),
            "{value:?}"
        );
    }
    for value in ["1", "16777215", "-1", "off"] {
        let problems = load(&with_environment(&[("RINGVERB_MEMORY_MAX", value)])).unwrap_err();
        assert!(problems[0].contains("at least 16M; 0 is off"), "{problems:?}");
    }
}
