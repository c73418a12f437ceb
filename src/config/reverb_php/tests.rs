//! What a `config/reverb.php` causes, from the file of the installer to files that people have edited.

use super::*;
use crate::config::{Sources, merge};

/// The keys and values that `php artisan reverb:install` writes.
const INSTALLED: &str = r"<?php

return [

    /*
    | The server that is used by default.
    */

    'default' => env('REVERB_SERVER', 'reverb'),

    'servers' => [

        'reverb' => [
            'host' => env('REVERB_SERVER_HOST', '0.0.0.0'),
            'port' => env('REVERB_SERVER_PORT', 8080),
            'path' => env('REVERB_SERVER_PATH', ''),
            'hostname' => env('REVERB_HOST'),
            'options' => [
                'tls' => [],
            ],
            'max_request_size' => env('REVERB_MAX_REQUEST_SIZE', 10_000),
            'scaling' => [
                'enabled' => env('REVERB_SCALING_ENABLED', false),
                'channel' => env('REVERB_SCALING_CHANNEL', 'reverb'),
                'server' => [
                    'url' => env('REDIS_URL'),
                    'host' => env('REDIS_HOST', '127.0.0.1'),
                    'port' => env('REDIS_PORT', '6379'),
                    'username' => env('REDIS_USERNAME'),
                    'password' => env('REDIS_PASSWORD'),
                    'database' => env('REDIS_DB', '0'),
                    'timeout' => env('REDIS_TIMEOUT', 60),
                ],
            ],
            'pulse_ingest_interval' => env('REVERB_PULSE_INGEST_INTERVAL', 15),
            'telescope_ingest_interval' => env('REVERB_TELESCOPE_INGEST_INTERVAL', 15),
        ],

    ],

    'apps' => [

        'provider' => 'config',

        'apps' => [
            [
                'key' => env('REVERB_APP_KEY'),
                'secret' => env('REVERB_APP_SECRET'),
                'app_id' => env('REVERB_APP_ID'),
                'options' => [
                    'host' => env('REVERB_HOST'),
                    'port' => env('REVERB_PORT', 443),
                    'scheme' => env('REVERB_SCHEME', 'https'),
                    'useTLS' => env('REVERB_SCHEME', 'https') === 'https',
                ],
                'allowed_origins' => ['*'],
                'ping_interval' => env('REVERB_APP_PING_INTERVAL', 60),
                'activity_timeout' => env('REVERB_APP_ACTIVITY_TIMEOUT', 30),
                'max_connections' => env('REVERB_APP_MAX_CONNECTIONS'),
                'max_message_size' => env('REVERB_APP_MAX_MESSAGE_SIZE', 10_000),
                'accept_client_events_from' => env('REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM', 'members'),
                'rate_limiting' => [
                    'enabled' => env('REVERB_APP_RATE_LIMITING_ENABLED', false),
                    'max_attempts' => env('REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS', 60),
                    'decay_seconds' => env('REVERB_APP_RATE_LIMIT_DECAY_SECONDS', 60),
                    'terminate_on_limit' => env('REVERB_APP_RATE_LIMIT_TERMINATE', false),
                ],
            ],
        ],

    ],

];
";

const CREDENTIALS: [(&str, &str); 3] =
    [("REVERB_APP_ID", "1001"), ("REVERB_APP_KEY", "app-key"), ("REVERB_APP_SECRET", "hunter2")];

fn warnings_with(php: &str, dotenv: &[(&str, &str)]) -> Vec<String> {
    let dotenv = CREDENTIALS.iter().chain(dotenv);
    let dotenv = dotenv.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sources = Sources { dotenv, reverb_php: Some(ReverbPhp::of(php)), ..Sources::default() };
    let merged = merge(&sources);
    assert_eq!(merged.warnings, [""; 0]);
    merged.migration_warnings
}

/// The installed file with one line changed.
#[track_caller]
fn changed(from: &str, to: &str) -> String {
    assert_eq!(INSTALLED.matches(from).count(), 1, "{from}");
    INSTALLED.replace(from, to)
}

const ORIGINS: &str = "'allowed_origins' => ['*']";

#[test]
fn the_installed_file_causes_no_warning() {
    for dotenv in [
        &[][..],
        &[("REVERB_HOST", "ws.test"), ("REVERB_PORT", "443"), ("REVERB_SCHEME", "https")],
        &[("REVERB_SERVER_PORT", "9000"), ("REVERB_APP_MAX_MESSAGE_SIZE", "65536")],
        &[("REVERB_SCALING_ENABLED", "true"), ("REDIS_HOST", "redis"), ("REDIS_PASSWORD", "null")],
        &[("RINGVERB_ALLOWED_ORIGINS", "a.test"), ("REVERB_SERVER_PATH", "/ws")],
    ] {
        assert_eq!(warnings_with(INSTALLED, dotenv), [""; 0], "{dotenv:?}");
    }
    let sources = Sources { reverb_php: Some(ReverbPhp::of(INSTALLED)), ..Sources::default() };
    assert_eq!(merge(&sources).migration_warnings, [""; 0], "development mode");
    let older =
        changed("                'max_connections' => env('REVERB_APP_MAX_CONNECTIONS'),\n", "");
    assert_eq!(warnings_with(&older, &[]), [""; 0]);
    let long = INSTALLED.replace('[', "array(").replace(']', ")");
    assert_eq!(warnings_with(&long, &[]), [""; 0]);
}

#[test]
fn values_written_by_hand_are_named_with_where_they_belong() {
    for (from, to, part) in [
        (
            ORIGINS,
            "'allowed_origins' => ['myapp.com', 'www.myapp.com']",
            "every origin is accepted, although config/reverb.php (which is not read) allows only \
             myapp.com,www.myapp.com: set RINGVERB_ALLOWED_ORIGINS=myapp.com,www.myapp.com in .env",
        ),
        (ORIGINS, "'allowed_origins' => []", "belongs in RINGVERB_ALLOWED_ORIGINS"),
        (ORIGINS, "'allowed_origins' => $origins", "every origin is accepted, although"),
        (
            ORIGINS,
            "'allowed_origins' => explode(',', env('MY_ORIGINS', 'a.test'))",
            "allows only a.test: set RINGVERB_ALLOWED_ORIGINS=a.test in .env",
        ),
        (
            ORIGINS,
            "'allowed_origins' => explode(',', env('REVERB_ALLOWED_ORIGINS', 'a.test'))",
            "allows only a.test: set RINGVERB_ALLOWED_ORIGINS=a.test in .env",
        ),
        (
            ORIGINS,
            "'allowed_origins' => [parse_url(env('APP_URL'), PHP_URL_HOST)]",
            "computes allowed_origins",
        ),
        (
            "env('REVERB_APP_MAX_MESSAGE_SIZE', 10_000)",
            "100 * 1024",
            "max_message_size = 102400, and is not read: this server uses 10000. The value belongs in \
             REVERB_APP_MAX_MESSAGE_SIZE of .env",
        ),
        ("env('REVERB_APP_PING_INTERVAL', 60)", "30", "ping_interval = 30"),
        (
            "env('REVERB_APP_PING_INTERVAL', 60)",
            "env('REVERB_APP_PING_INTERVAL', 25)",
            "ping_interval = 25",
        ),
        (
            "env('REVERB_APP_ACTIVITY_TIMEOUT', 30)",
            "(int) env('TIMEOUT', 90)",
            "activity_timeout = 90",
        ),
        ("env('REVERB_APP_MAX_CONNECTIONS')", "500", "max_connections = 500"),
        ("env('REVERB_APP_RATE_LIMITING_ENABLED', false)", "true", "rate_limiting.enabled = true"),
        ("env('REVERB_MAX_REQUEST_SIZE', 10_000)", "1_000_000", "max_request_size = 1000000"),
        ("env('REVERB_SERVER_PORT', 8080)", "6001", "port = 6001"),
        ("env('REVERB_SERVER_PATH', '')", "'/ws'", "path = /ws"),
        ("env('REVERB_SCALING_ENABLED', false)", "true", "scaling.enabled = true"),
        ("'provider' => 'config'", "'provider' => 'database'", "provider \"database\""),
        ("env('REVERB_APP_ID')", "'7'", "app apps[0] with the id \"7\""),
    ] {
        let warnings = warnings_with(&changed(from, to), &[]);
        assert_eq!(warnings.len(), 1, "{to}: {warnings:#?}");
        assert!(warnings[0].contains(part), "{part}\nnot in\n{}", warnings[0]);
        assert!(warnings[0].contains("config/reverb.php "), "{}", warnings[0]);
    }
}

#[test]
fn values_that_this_server_has_cause_no_warning() {
    for (from, to, dotenv) in [
        (
            ORIGINS,
            "'allowed_origins' => ['myapp.com']",
            ("RINGVERB_ALLOWED_ORIGINS", "https://myapp.com"),
        ),
        (
            ORIGINS,
            "'allowed_origins' => explode(',', env('REVERB_ALLOWED_ORIGINS', '*'))",
            ("APP_NAME", "x"),
        ),
        (
            ORIGINS,
            "'allowed_origins' => explode(',', env('REVERB_ALLOWED_ORIGINS', '*'))",
            ("REVERB_ALLOWED_ORIGINS", "a"),
        ),
        (ORIGINS, "'allowed_origins' => ['*', 'myapp.com']", ("APP_NAME", "x")),
        (ORIGINS, "'allowed_origins' => [env('ORIGIN', '*')]", ("APP_NAME", "x")),
        ("env('REVERB_APP_PING_INTERVAL', 60)", "60", ("APP_NAME", "x")),
        (
            "env('REVERB_APP_PING_INTERVAL', 60)",
            "(int) env('REVERB_APP_PING_INTERVAL', 60)",
            ("APP_NAME", "x"),
        ),
        ("env('REVERB_APP_PING_INTERVAL', 60)", "30", ("REVERB_APP_PING_INTERVAL", "45")),
        ("env('REVERB_APP_KEY')", "'app-key'", ("APP_NAME", "x")),
        ("env('REVERB_SERVER_HOST', '0.0.0.0')", "\"0.0.0.0\"", ("APP_NAME", "x")),
        ("env('REDIS_HOST', '127.0.0.1')", "'10.0.0.1'", ("REVERB_SCALING_ENABLED", "false")),
    ] {
        assert_eq!(warnings_with(&changed(from, to), &[dotenv]), [""; 0], "{to}");
    }
}

#[test]
fn several_apps_belong_in_the_file_of_this_server() {
    let second = "        'apps' => [\n            ['app_id' => '7', 'key' => 'k7', 'secret' => 'hunter3', \
                  'allowed_origins' => ['b.test']],";
    let mut php =
        INSTALLED.replace("                'allowed_origins' => ['*'],\n            ],", "");
    php = php.replace("        'apps' => [\n            [", &format!("{second}\n            ["));
    let warnings = warnings_with(&php, &[]);
    let all = warnings.join("\n");
    assert!(all.contains("app apps[0] with the id \"7\""), "{all}");
    assert!(all.contains("allows only b.test"), "{all}");
    let php = "<?php return ['apps' => ['apps' => [['app_id' => env('REVERB_APP_ID')],\
               ['app_id' => '8', 'key' => 'k8', 'secret' => 'hunter3', 'ping_interval' => 3]]]];";
    let warnings = warnings_with(php, &[]);
    assert_eq!(
        warnings,
        [
            "config/reverb.php has the app apps[1] with the id \"8\", which is not read and not served: it belongs in \
          ringverb.toml, in an [[apps]] of its own"
        ]
    );
    // Served from ringverb.toml: the warnings name only what differs there.
    let toml = "[[apps]]\nid = \"8\"\nkey = \"k8\"\nsecret = \"hunter3\"\n".parse().unwrap();
    let dotenv = CREDENTIALS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let reverb_php = Some(ReverbPhp::of(php));
    let warnings =
        merge(&Sources { toml, dotenv, reverb_php, ..Sources::default() }).migration_warnings;
    assert_eq!(
        warnings,
        [
            "config/reverb.php has apps[1].ping_interval = 3, and is not read: this server uses 60. The value belongs \
             in ping_interval of an [[apps]] in ringverb.toml"
        ]
    );
}

#[test]
fn secrets_do_not_show() {
    let php = INSTALLED
        .replace("env('REVERB_APP_SECRET')", "'hunter3'")
        .replace("env('REDIS_PASSWORD')", "'hunter3'")
        .replace("env('REDIS_URL')", "'redis://:hunter3@a'")
        .replace("env('REVERB_APP_ID')", "'9'")
        .replace("env('REVERB_SCALING_ENABLED', false)", "true");
    let all = warnings_with(&php, &[]).join("\n");
    assert!(all.contains("scaling.server.password, and is not read"), "{all}");
    assert!(!all.contains("hunter"), "{all}");
}

#[test]
fn a_file_that_is_no_array_is_named_once() {
    for php in ["", "<?php return require 'x.php';", "<?php return [", "\u{0}\u{1}"] {
        let warnings = warnings_with(php, &[]);
        assert!(
            warnings.len() == 1 && warnings[0].contains("no plain array"),
            "{php}: {warnings:?}"
        );
    }
    // Without servers and apps there is nothing to lose.
    assert_eq!(warnings_with("<?php return ['a' => 1];", &[]), [""; 0]);
    let many: String = (0..500).map(|id| format!("['app_id' => 'a{id}', 'key' => 'k'],")).collect();
    let warnings = warnings_with(&format!("<?php return ['apps' => ['apps' => [{many}]]];"), &[]);
    assert_eq!(warnings.len(), WARNINGS_MAX + 1, "{warnings:?}");
}
