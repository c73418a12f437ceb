//! The process: what it says when it starts and when it does not, where its configuration comes from, and how it
//! ends (docs/PROTOCOL.md sections A and C12).

use crate::support::{Client, Finished, Handshake, PING, PONG, Request, Server, Setup, frame, now};
use rustix::process::Signal;

const STOPPING: &str = "Server is shutting down";

#[test]
fn a_signal_closes_everything_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Setup::new().workers(4).start();
        let mut clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            if index % 2 == 0 {
                client.subscribe("news");
            }
        }
        // Not a whole request: the server does not wait for its rest.
        let mut half = server.wire();
        half.send(b"GET /up");
        server.signal(signal);
        for mut client in clients {
            assert_eq!(client.closed(), (4100, STOPPING.to_owned()));
        }
        let Finished { code, stdout, stderr } = server.finish();
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(stdout.contains("Gracefully terminating connections."), "{stdout}");
        half.ended();
    }
}

#[test]
fn a_signal_ends_an_idle_server() {
    let start = now();
    Server::start().stop();
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn an_address_of_another_host_is_an_error() {
    let finished = Setup::new().arg("--host").arg("192.0.2.1").arg("--port").arg("0").run();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("192.0.2.1 is not an address of this host"), "{finished:?}");
}

#[test]
fn all_errors_of_a_configuration_are_reported() {
    let cases: [(Setup, &[&str]); 11] = [
        (
            Setup::new().env("REVERB_SERVER_PORT", "abc").env("REVERB_APP_MAX_CONNECTIONS", "0"),
            &[
                r#"REVERB_SERVER_PORT is "abc" (environment), but it takes a number from 0 to 65535"#,
                r#"REVERB_APP_MAX_CONNECTIONS is "0""#,
            ],
        ),
        (
            Setup::new().arg("--port").arg("65536"),
            &[r#"--port is "65536", but it takes a number from 0 to 65535"#],
        ),
        (
            Setup::new()
                .env("REVERB_SCALING_ENABLED", "true")
                .env("REDIS_URL", "rediss://:hunter2@redis.test"),
            &[r#"REDIS_URL is "rediss://********" (environment), but this version connects"#],
        ),
        (
            Setup::bare().env("REVERB_APP_KEY", "k"),
            &["REVERB_APP_ID is not set", "REVERB_APP_SECRET is not set"],
        ),
        (
            Setup::new().env("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "some"),
            &["all, members or none"],
        ),
        (Setup::new().env("REVERB_SERVER_HOST", "here"), &["an IP address"]),
        (Setup::new().env("REVERB_SERVER_PATH", "/a b"), &["a path such as /ws, or empty"]),
        (
            Setup::new().file("ringverb.toml", "[server]\nprot = 1\n"),
            &["ringverb.toml: server.prot is not known; is port meant?"],
        ),
        (Setup::new().file("ringverb.toml", "[server\n"), &["ringverb.toml: "]),
        (
            Setup::new().file(".env", "REVERB_APP_SECRET=hunter2 with spaces\n"),
            &[".env: line 1 (REVERB_APP_SECRET) is malformed"],
        ),
        (Setup::new().arg("--env-file").arg("nope.env"), &["cannot read nope.env: "]),
    ];
    for (setup, sentences) in cases {
        let finished = setup.run();
        assert_eq!(finished.code, Some(2), "{finished:?}");
        for sentence in sentences {
            assert!(finished.stderr.contains(sentence), "{sentence}\nnot in {finished:?}");
        }
        assert!(
            finished.stderr.contains("Not started. Fix the configuration above"),
            "{finished:?}"
        );
        assert!(!finished.stderr.contains("hunter2"), "{finished:?}");
        assert_eq!(finished.stdout, "");
    }
}

const DOTENV: &str = "APP_NAME=Laravel\n# the usual\nREVERB_APP_ID=1001\nREVERB_APP_KEY=\"app-key\"\n\
    REVERB_APP_SECRET='app-secret'\nREVERB_APP_ACTIVITY_TIMEOUT=77\nREVERB_HOST=\"localhost\"\n\
    VITE_REVERB_APP_KEY=\"${REVERB_APP_KEY}\"\n";

#[test]
fn the_env_file_of_the_folder_is_used() {
    let activity = |server: &Server| {
        let event = Client::open(server, &Handshake::new()).event();
        crate::support::data(&event)["activity_timeout"].to_string()
    };
    let server = Setup::bare().file(".env", DOTENV).start();
    assert_eq!(activity(&server), "77");
    assert!(server.open_connections() <= 1);
    // The environment is stronger.
    let setup = Setup::bare().file(".env", DOTENV).env("REVERB_APP_ACTIVITY_TIMEOUT", "78");
    assert_eq!(activity(&setup.start()), "78");
    // And a file may have another name.
    let setup = Setup::bare().file("other", DOTENV).arg("--env-file").arg("other");
    assert_eq!(activity(&setup.start()), "77");
}

#[test]
fn apps_may_come_from_a_file() {
    let toml = "[server]\npath = \"/ws\"\n[[apps]]\nid = \"1001\"\nkey = \"app-key\"\n\
        secret = \"app-secret\"\nmax_connections = 1\nallowed_origins = [\"a.test\", \"*.b.test\"]\n";
    let server = Setup::bare().file("ringverb.toml", toml).start();
    let handshake = |origin| Handshake::to("/ws/app/app-key").header("Origin", origin);
    let _client = Client::open(&server, &handshake("http://x.b.test")).established();
    Client::open(&server, &handshake("http://a.test"))
        .refused(4004, "Application is over connection quota");
    Client::open(&server, &handshake("http://c.test")).refused(4009, "Origin not allowed");
}

#[test]
fn check_shows_the_configuration_and_no_secret() {
    let setup = Setup::bare().file(".env", DOTENV).env("REVERB_SERVER_PORT", "9999");
    let Finished { code, stdout, stderr } = setup.args(&["check", "--all", "--offline"]).run();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for part in [
        "port = 9999",
        "# environment: REVERB_SERVER_PORT",
        "key = \"app-key\"",
        "# .env: REVERB_APP_KEY",
        "secret = \"********\"",
        "activity_timeout = 77",
        "# max_connections is not set",
        "The configuration is valid.",
    ] {
        assert!(stdout.contains(part), "{part}\nnot in\n{stdout}");
    }
    assert!(!stdout.contains("app-secret"), "{stdout}");
    let finished = Setup::new().env("REVERB_SERVER_PORT", "abc").arg("check").run();
    assert_eq!(finished.code, Some(2));
}

#[test]
fn the_start_message_shows_no_secret() {
    let mut server = Server::start();
    server.line_with("  limits ");
    let text = server.stdout();
    for part in [
        "ringverb ",
        "  address  127.0.0.1:",
        "  workers  ",
        "1001 (key app-key), from environment",
    ] {
        assert!(text.contains(part), "{part}\nnot in\n{text}");
    }
    assert!(!text.contains("app-secret"), "{text}");
}

#[test]
fn development_mode_prints_all_that_an_app_needs() {
    let mut server = Setup::bare().env("REVERB_HOST", "app.test").start();
    server.line_with("Press Ctrl+C to stop");
    let text = server.stdout().to_owned();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).to_owned()
    };
    assert_eq!(value("BROADCAST_CONNECTION"), "reverb");
    assert_eq!(value("REVERB_HOST"), "\"app.test\"");
    assert_eq!(value("REVERB_PORT"), server.address.port().to_string());
    assert_eq!((value("REVERB_APP_ID").len(), value("REVERB_APP_SECRET").len()), (6, 20));
    let key = value("REVERB_APP_KEY");
    let mut client = Client::open(&server, &Handshake::to(&format!("/app/{key}"))).established();
    client.ask(PING, PONG);
    // Drawn, not fixed: the app of the tests is unknown to it.
    let refused = Client::open(&server, &Handshake::new()).text();
    let why = r#"Application does not exist. No app has the key \\\"app-key\\\""#;
    assert!(refused.contains("4001") && refused.contains(why), "{refused}");
    assert_eq!(server.answer(&Request::get("/channels")).0, 404);
}

#[test]
fn help_and_version_are_printed_and_mistakes_refused() {
    for argument in ["--help", "-h", "help"] {
        let Finished { code, stdout, .. } = Setup::bare().arg(argument).run();
        assert_eq!(code, Some(0), "{argument}");
        assert!(stdout.contains("check") && stdout.contains("Usage"), "{argument}: {stdout}");
    }
    let help = Setup::bare().arg("--help").run().stdout;
    for part in ["Examples:", "--port", "REVERB_APP_KEY", "RINGVERB_AUTH_WINDOW", "[600]"] {
        assert!(help.contains(part), "{part}\nnot in\n{help}");
    }
    // The first line is the same for both; programs read it.
    let version = format!("ringverb {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(Setup::bare().arg("-V").run().stdout, version);
    let long = Setup::bare().arg("--version").run();
    assert!(long.stdout.starts_with(&format!("{version}commit: ")), "{long:?}");
    // As clap shows `help`, whatever else is asked for with it.
    let Finished { code, stdout, .. } = Setup::bare().args(&["help", "--help"]).run();
    assert!(code == Some(0) && stdout.contains("Usage"), "{stdout}");
    let suggested = Setup::bare().arg("serve").run();
    assert!(suggested.code == Some(2) && suggested.stderr.contains("'start'"), "{suggested:?}");
    assert!(!suggested.stderr.contains("'users'"), "{suggested:?}");
    for argument in ["--nope", "nope", "--port"] {
        let finished = Setup::new().arg(argument).run();
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{argument}");
        assert!(finished.stderr.contains(argument), "{finished:?}");
    }
    Setup::new().arg("start").start().connect().ask(PING, PONG);
}

#[test]
fn a_mistyped_name_is_warned_of() {
    let setup = Setup::new().env("RINGVERB_WORKRES", "2");
    let finished = setup.args(&["check", "--offline"]).run();
    assert_eq!(finished.code, Some(0));
    let warning = "warning: unknown option RINGVERB_WORKRES (environment) is ignored; did you mean RINGVERB_WORKERS?\n";
    assert_eq!(finished.stderr, warning);
}

#[test]
fn debug_logs_each_message_with_its_socket_id() {
    let mut server = Setup::new().arg("--debug").start();
    let mut client = server.connect();
    client.ask(PING, PONG);
    for title in ["Connection Established", "Message Received"] {
        let line = server.line_with(title);
        assert!(line.ends_with(&client.socket_id), "{line}");
    }
    server.line_with(r#""event": "pusher:ping""#);
    client.send_bytes(&frame::close(1000, ""));
    client.closed();
}

/// Laravel signs with what phpdotenv and `env()` make of the file.
#[test]
fn secrets_are_those_that_laravel_reads() {
    for (written, laravel) in [
        ("\" s3cret \"", " s3cret "),
        ("\"'s3cret'\"", "s3cret"),
        ("' s3cret'", " s3cret"),
        ("s3cret", "s3cret"),
        ("true", "1"),
    ] {
        let text =
            format!("REVERB_APP_ID=1001\nREVERB_APP_KEY=app-key\nREVERB_APP_SECRET={written}\n");
        let server = Setup::bare().file(".env", &text).start();
        let target = Request::events(r#"{"name":"e","channel":"c","data":"1"}"#);
        let signed = |secret: &str| server.answer(&target.clone().secret(secret)).0;
        assert_eq!((signed(laravel), signed("another")), (200, 401), "{written}");
    }
}

/// `APP_ENV` counts where it is no part of a file, as in Laravel.
#[test]
fn the_file_of_an_environment_is_preferred() {
    let app = |key: &str| format!("REVERB_APP_ID=1\nREVERB_APP_KEY={key}\nREVERB_APP_SECRET=s\n");
    let setup = || {
        let plain = Setup::bare().file(".env", &(app("plain") + "APP_ENV=staging\n"));
        plain.file(".env.staging", &app("of-staging")).file(".env.testing", &app("of-testing"))
    };
    for (setup, key, file) in [
        (setup(), "plain", ".env"),
        (setup().env("APP_ENV", "staging"), "of-staging", ".env.staging"),
        (setup().env("APP_ENV", "production"), "plain", ".env"),
        (setup().env("APP_ENV", "staging").arg("--env=testing"), "of-testing", ".env.testing"),
        (setup().env("APP_ENV", "staging").arg("--env=none"), "of-staging", ".env.staging"),
        (setup().env("APP_ENV", "staging").arg("--env-file=.env"), "plain", ".env"),
    ] {
        let finished = setup.args(&["check", "--offline"]).run();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.stdout.contains(key), "{key}: {}", finished.stdout);
        assert!(
            finished.stdout.contains(&format!("{file}: REVERB_APP_KEY")),
            "{}",
            finished.stdout
        );
    }
}

#[test]
fn signals_at_once_count_as_one_and_the_end_is_logged() {
    let mut server = Setup::new().workers(1).start();
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    server.signal(Signal::HUP);
    server.line_with("configuration 2 is in use");
    server.signal(Signal::USR1);
    server.line_with("SIGUSR1 ignored");
    clients.iter_mut().for_each(Client::sync);
    server.signal(Signal::TERM);
    server.line_with("SIGTERM: closing 3 connections within 10 s");
    server.signal(Signal::INT);
    for mut client in clients {
        assert_eq!(client.closed(), (4100, STOPPING.to_owned()));
        client.wire.send(&frame::close(4100, ""));
    }
    let Finished { code, stdout, .. } = server.finish();
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("Stopped after ") && !stdout.contains("second signal"), "{stdout}");
}
