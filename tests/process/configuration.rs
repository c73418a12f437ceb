//! What the configuration of a real folder does: `.env`, `config/reverb.php`, the environment of Kubernetes, misspelled
//! names; what `check` finds on this machine; and the commands that find a running development server.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use crate::support::{
    APP_ID, Client, DEADLINE, Finished, Handshake, Redis, Request, Server, Setup, free_port,
};

const APP: &str = "REVERB_APP_ID=1001\nREVERB_APP_KEY=app-key\nREVERB_APP_SECRET=app-secret\n";

/// A folder with this `.env` and nothing in the environment.
pub(super) fn folder(dotenv: &str) -> Setup {
    Setup::bare().file(".env", &format!("{APP}{dotenv}"))
}

/// `check` of the configuration alone.
fn check(setup: Setup) -> Finished {
    setup.args(&["check", "--offline"]).run()
}

/// The warnings of a configuration that is accepted.
#[track_caller]
fn warnings(setup: Setup) -> Vec<String> {
    let finished = check(setup);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let lines = finished.stderr.lines();
    lines.map(|line| line.strip_prefix("warning: ").expect("a warning").to_owned()).collect()
}

#[track_caller]
fn origins(server: &Server, allowed: &[&str], refused: &[&str]) {
    let open = |origin| Client::open(server, &Handshake::new().header("Origin", origin));
    for origin in allowed {
        open(origin).established();
    }
    for origin in refused {
        open(origin).refused(4009, "Origin not allowed");
    }
}

#[test]
fn allowed_origins_count_by_the_names_that_projects_on_reverb_use() {
    for name in ["REVERB_ALLOWED_ORIGINS", "REVERB_APP_ALLOWED_ORIGINS", "RINGVERB_ALLOWED_ORIGINS"]
    {
        let setup = folder(&format!("{name}=\"https://a.test/, b.test\"\n"));
        let server = setup.start();
        origins(
            &server,
            &["https://a.test", "http://b.test:3000"],
            &["http://a.test", "https://evil.test"],
        );
    }
    // The own name has precedence, and the other one is not ignored in silence.
    let both = "REVERB_ALLOWED_ORIGINS=*\nRINGVERB_ALLOWED_ORIGINS=a.test\n";
    let told = warnings(folder(both));
    assert_eq!(
        told,
        [
            "REVERB_ALLOWED_ORIGINS (.env) is ignored, because RINGVERB_ALLOWED_ORIGINS is set too and has precedence"
        ]
    );
    origins(&folder(both).start(), &["https://a.test"], &["https://evil.test"]);
}

#[test]
fn a_value_that_can_never_match_is_refused_with_the_reason() {
    for (dotenv, part) in [
        (
            "RINGVERB_ALLOWED_ORIGINS=https://a.test/app",
            "has the entry \"https://a.test/app\" (.env), but an Origin header has no path and no query: write \
             https://a.test",
        ),
        ("RINGVERB_ALLOWED_ORIGINS=a.test,,b.test", "an entry of the list is empty"),
        ("REVERB_ALLOWED_ORIGINS=münchen.de", "write xn--mnchen-3ya.de"),
        ("RINGVERB_ALLOWED_ORIGINS=wss://a.test", "write https://a.test"),
        ("REVERB_ALLOWED_ORIGINS=[*]", "REVERB_ALLOWED_ORIGINS has the entry \"[*]\" (.env), but"),
        (
            "REVERB_APP_ID=\"my app/1\"",
            "REVERB_APP_ID is \"my app/1\" (.env), but it contains a space",
        ),
        ("REVERB_APP_KEY=a:b", "it contains \":\""),
        ("REVERB_APP_KEY=ключ", "letters, digits and signs"),
        (
            "RINGVERB_WEBHOOK_URL=http://a.test\nRINGVERB_WEBHOOK_CHANNEL_PREFIXES=private-*",
            "write \"private-\"",
        ),
    ] {
        let finished = check(folder(&format!("{dotenv}\n")));
        assert_eq!(finished.code, Some(2), "{dotenv}: {finished:?}");
        assert!(finished.stderr.contains(part), "{part}\nnot in\n{}", finished.stderr);
        // With an error, too, the values are shown; and it does not send people to itself.
        assert!(finished.stdout.contains("secret = \"********\""), "{}", finished.stdout);
        assert!(!finished.stderr.contains("ringverb check"), "{}", finished.stderr);
        assert!(!finished.stdout.contains("The configuration is valid"), "{}", finished.stdout);
    }
}

#[test]
fn an_app_that_is_disabled_is_warned_of() {
    let expected =
        "app 1001 is disabled (RINGVERB_APP_ENABLED=false): its clients get 4003, its backend 403";
    assert_eq!(warnings(folder("RINGVERB_APP_ENABLED=false\n")), [expected]);
}

#[test]
fn misspelled_names_of_the_file_and_of_the_environment_cause_warnings() {
    let setup = folder("REVERB_SERVER_PROT=9000\n").env("REVERB_APP_MAX_CONECTIONS", "5");
    assert_eq!(
        warnings(setup),
        [
            "unknown option REVERB_APP_MAX_CONECTIONS (environment) is ignored; did you mean \
             REVERB_APP_MAX_CONNECTIONS?",
            "unknown option REVERB_SERVER_PROT (.env) is ignored; did you mean REVERB_SERVER_PORT?",
        ]
    );
    let laravel = "APP_NAME=x\nREVERB_HOST=localhost\nREVERB_PORT=8080\nREVERB_SCHEME=http\nREVERB_SERVER=reverb\n\
        VITE_REVERB_APP_KEY=\"${REVERB_APP_KEY}\"\nVITE_REVERB_HOST=\"${REVERB_HOST}\"\nREVERB_SCALING_ENABLED=false\n";
    assert_eq!(warnings(folder(laravel)), [""; 0]);
    let pusher = Setup::bare()
        .file(".env", "PUSHER_APP_ID=1\nPUSHER_APP_KEY=k\nPUSHER_APP_SECRET=hunter2\n");
    let told = warnings(pusher);
    assert!(
        told.len() == 1 && told[0].contains("PUSHER_APP_SECRET, which are not read"),
        "{told:?}"
    );
    assert!(!told[0].contains("hunter2"), "{told:?}");
}

/// The kubelet describes each service of the namespace to each pod.
#[test]
fn services_of_kubernetes_keep_no_server_from_starting() {
    let mut setup = Setup::new();
    for (name, value) in [
        ("REVERB_SERVICE_HOST", "10.96.0.13"),
        ("REVERB_SERVICE_PORT", "8080"),
        ("REVERB_SERVICE_PORT_HTTP", "8080"),
        ("REVERB_PORT", "tcp://10.96.0.13:8080"),
        ("REVERB_PORT_8080_TCP", "tcp://10.96.0.13:8080"),
        ("REVERB_PORT_8080_TCP_ADDR", "10.96.0.13"),
        ("REVERB_PORT_8080_TCP_PORT", "8080"),
        ("REVERB_PORT_8080_TCP_PROTO", "tcp"),
        ("RINGVERB_PORT", "tcp://10.96.0.14:80"),
        ("RINGVERB_SERVICE_HOST", "10.96.0.14"),
        ("REVERB_SERVER_PORT", "tcp://10.96.0.15:80"),
        ("REDIS_PORT", "tcp://10.96.0.16:6379"),
        ("REVERB_SCHEME", "HTTPS"),
        ("REVERB_HOST", "https://ws.example.com/"),
    ] {
        setup = setup.env(name, value);
    }
    let mut server = setup.start();
    server.line_with("  limits ");
    let text = server.stdout().to_owned();
    assert!(text.contains("  browsers https://ws.example.com:8080\n"), "{text}");
    let mut told = vec![server.error_line_with("warning: "), server.error_line_with("warning: ")];
    told.push(server.error_line_with("warning: "));
    let told = told.join("\n");
    for part in [
        "REVERB_PORT is \"tcp://10.96.0.13:8080\"",
        "REVERB_HOST is",
        "REVERB_SERVER_PORT (environment) is ignored",
    ] {
        assert!(told.contains(part), "{part}\nnot in\n{told}");
    }
    server.stop();
}

#[test]
fn a_file_of_reverb_beside_the_env_file_is_compared() {
    let php = "<?php return ['apps' => ['provider' => 'config', 'apps' => [[\n\
        'key' => env('REVERB_APP_KEY'), 'app_id' => env('REVERB_APP_ID'),\n\
        'allowed_origins' => ['myapp.com'], 'max_message_size' => env('REVERB_APP_MAX_MESSAGE_SIZE', 10_000),\n\
        'ping_interval' => 30 /* seconds */ ]]]];";
    let expected = [
        "config/reverb.php has ping_interval = 30, and is not read: this server uses 60. The value belongs in \
         REVERB_APP_PING_INTERVAL of .env",
        "every origin is accepted, although config/reverb.php (which is not read) allows only myapp.com: set \
         RINGVERB_ALLOWED_ORIGINS=myapp.com in .env",
    ];
    assert_eq!(warnings(folder("").file("config/reverb.php", php)), expected);
    let both = "RINGVERB_ALLOWED_ORIGINS=myapp.com\nREVERB_APP_PING_INTERVAL=30\n";
    assert_eq!(warnings(folder(both).file("config/reverb.php", php)), [""; 0]);
    // A folder that is no Laravel application, and things that are no files.
    assert_eq!(warnings(folder("").file("config/reverb.php/x", "")), [""; 0]);
    // The server says it, too, and starts.
    let mut server = folder("").file("config/reverb.php", php).start();
    server.error_line_with("allows only myapp.com");
    server.stop();
    // The commands that speak to a server have nothing to do with it.
    let finished =
        folder("").file("config/reverb.php", php).args(&["channels", "--port", "1"]).run();
    assert!(!finished.stderr.contains("reverb.php"), "{finished:?}");
    // Beside the file that was named.
    let setup = Setup::bare().file("app/.env", APP).file("app/config/reverb.php", php);
    let told = warnings(setup.args(&["--env-file", "app/.env"]));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("app/config/reverb.php has "), "{told:?}");
    for odd in ["", "<?php", "\u{0}", "<?php return [[[[[[[["] {
        let told = warnings(folder("").file("config/reverb.php", odd));
        assert!(told.len() == 1 && told[0].contains("is not read"), "{odd}: {told:?}");
    }
}

#[test]
fn sizes_may_have_a_unit() {
    let finished = check(folder("RINGVERB_MEMORY_MAX=512M\nREVERB_APP_MAX_MESSAGE_SIZE=64KiB\n"));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let server = folder("REVERB_MAX_REQUEST_SIZE=64K\n").start();
    let request = |bytes: usize| {
        let body = format!(r#"{{"name":"e","channel":"c","data":"{}"}}"#, "x".repeat(bytes));
        server.answer(&Request::events(&body)).0
    };
    assert_eq!((request(60_000), request(70_000)), (200, 413));
    for (value, part) in [
        (
            "lots",
            "RINGVERB_MEMORY_MAX is \"lots\" (.env), but it takes bytes, or a size such as 64K: at least 16M",
        ),
        ("15M", "at least 16M; 0 is off"),
        ("17179869184G", "RINGVERB_MEMORY_MAX is \"17179869184G\""),
        ("1.5G", "RINGVERB_MEMORY_MAX is \"1.5G\""),
    ] {
        let finished = check(folder(&format!("RINGVERB_MEMORY_MAX={value}\n")));
        assert_eq!(finished.code, Some(2), "{value}");
        assert!(finished.stderr.contains(part), "{part}\nnot in\n{}", finished.stderr);
    }
}

/// Laravel with `'path' => env('REVERB_SERVER_PATH')` asks for `/apps/...` if the prefix has no slash at its end.
#[test]
fn a_path_prefix_works_in_both_spellings() {
    for path in ["/ws", "/ws/"] {
        let server = folder(&format!("REVERB_SERVER_PATH={path}\n")).start();
        let mut client = Client::open(&server, &Handshake::to("/ws/app/app-key")).established();
        client.subscribe("news");
        let body = r#"{"name":"e","channel":"news","data":"x"}"#;
        for sent in [format!("/apps/{APP_ID}/events"), format!("/ws/apps/{APP_ID}/events")] {
            let request = Request::to("POST", &sent).body(body.as_bytes());
            assert_eq!(server.answer(&request).0, 200, "{path} {sent}");
            client.expect(r#"{"event":"e","data":"x","channel":"news"}"#);
        }
    }
}

#[test]
fn the_start_message_names_the_folder_and_the_files() {
    let text = |setup: Setup| {
        let mut server = setup.start();
        server.line_with("Press Ctrl+C to stop");
        server.stdout().to_owned()
    };
    let told = text(folder("").file("ringverb.toml", "[server]\nworkers = 1\n"));
    assert!(told.contains("  files    ringverb.toml, .env (in /"), "{told}");
    assert!(told.contains("INFO  Server running: http://127.0.0.1:"), "{told}");
    let told = text(Setup::bare());
    assert!(told.contains("No .env and no ringverb.toml in /"), "{told}");
    // Not a terminal.
    assert!(!told.contains('\x1b'), "{told}");
}

/// What each line of the report says, by its subject.
fn found(finished: &Finished, what: &str) -> String {
    let line = finished.stdout.lines().find(|line| line.split_whitespace().nth(1) == Some(what));
    line.unwrap_or_else(|| panic!("no {what} in {finished:?}")).trim().to_owned()
}

#[test]
fn check_names_the_process_that_has_the_port() {
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("a port");
    let port = port.to_string();
    let run = || Setup::new().args(&["check", "--host", "127.0.0.1", "--port", &port]).run();
    let finished = run();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let line = found(&finished, "port");
    assert!(
        line.starts_with("problem") && line.contains(&format!("process {}", std::process::id())),
        "{line}"
    );
    drop(taken);
    let finished = run();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(found(&finished, "port").starts_with("ok"), "{finished:?}");
    assert!(found(&finished, "kernel").ends_with(" with io_uring"), "{finished:?}");
    let epoll = Setup::new().args(&["check", "--host", "127.0.0.1", "--port", &port]);
    let finished = epoll.arg("--io=epoll").run();
    assert!(found(&finished, "kernel").ends_with(" with epoll (RINGVERB_IO)"), "{finished:?}");
    // A plain start would fail.
    let server = Server::start();
    let finished = Setup::client_of(&server).arg("check").run();
    let line = found(&finished, "port");
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let expected = format!("ringverb, process {}: stop it, start with --takeover, or", server.id());
    assert!(line.starts_with("problem") && line.contains(&expected), "{line}");
}

#[test]
fn check_counts_its_warnings() {
    for (dotenv, with) in [
        ("", ""),
        ("RINGVERB_NOPE=1\n", ", with 1 warning"),
        ("RINGVERB_NOPE=1\nRINGVERB_APP_ENABLED=false\n", ", with 2 warnings"),
    ] {
        let finished = check(folder(dotenv));
        let expected = format!("\nThe configuration is valid{with}.\n");
        assert!(finished.stdout.ends_with(&expected), "{}", finished.stdout);
    }
}

#[test]
fn check_shows_changed_options_first_and_the_others_on_request() {
    let setup = || folder("REVERB_APP_ACTIVITY_TIMEOUT=77\n");
    let short = check(setup());
    assert!(short.stdout.starts_with("[server]\n\n[[apps]]\nid = \"1001\""), "{}", short.stdout);
    assert!(short.stdout.contains("activity_timeout = 77"), "{}", short.stdout);
    assert!(!short.stdout.contains("shutdown_grace"), "{}", short.stdout);
    assert!(
        short.stdout.contains("more values are defaults; --all shows them"),
        "{}",
        short.stdout
    );
    assert!(!short.stdout.contains("ringverb check"), "{}", short.stdout);
    let all = setup().args(&["check", "--offline", "--all"]).run().stdout;
    let at = |part: &str| all.find(part).unwrap_or_else(|| panic!("no {part} in {all}"));
    assert!(at("activity_timeout = 77") < at("ping_interval = 60"), "{all}");
}

#[test]
fn check_asks_redis_for_role_and_clock() {
    let redis = Redis::start();
    let run = |setup: Setup| setup.args(&["check", "--port", "0"]).run();
    let finished = run(Setup::new().meeting_in(&redis));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(found(&finished, "redis").contains("answers, version"), "{finished:?}");
    assert!(found(&finished, "clock").contains("agrees with Redis"), "{finished:?}");
    let port = redis.port().to_string();
    drop(redis);
    let setup = Setup::new().env("REVERB_SCALING_ENABLED", "true").env("REDIS_PORT", &port);
    let finished = run(setup);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let line = found(&finished, "redis");
    assert!(line.contains("connection refused") && line.contains("REDIS_PORT"), "{line}");
    // Accepts and never answers.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = mute.local_addr().expect("an address").port().to_string();
    let setup = Setup::new().env("REVERB_SCALING_ENABLED", "true").env("REDIS_PORT", &port);
    let finished = run(setup);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(found(&finished, "redis").contains("no answer within 3 s"), "{finished:?}");
}

/// A backend that answers each request with 405 and this date, and hands out the first lines of requests.
fn backend(date: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..count]).into_owned();
            let _ = sender.send(text.lines().next().unwrap_or_default().to_owned());
            let answer = format!(
                "HTTP/1.1 405 Method Not Allowed\r\nDate: {date}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (url, lines)
}

#[test]
fn check_asks_the_endpoints_of_webhooks_and_posts_nothing() {
    let (url, lines) = backend("Thu, 01 Jan 2015 00:00:00 GMT");
    let closed = {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        taken.local_addr().expect("an address")
    };
    let run = |url: &str| {
        Setup::new().env("RINGVERB_WEBHOOK_URL", url).args(&["check", "--port", "0"]).run()
    };
    let finished = run(&url);
    assert!(found(&finished, "webhook").contains("answers"), "{finished:?}");
    assert_eq!(lines.recv_timeout(DEADLINE).expect("a request"), "HEAD /hook HTTP/1.1");
    // Its clock is years away, and signed requests of such a backend would be refused.
    let clock = found(&finished, "clock");
    assert!(clock.starts_with("problem") && clock.contains("set both by NTP"), "{clock}");
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let without_window =
        Setup::new().env("RINGVERB_WEBHOOK_URL", &url).env("RINGVERB_AUTH_WINDOW", "0");
    let finished = without_window.args(&["check", "--port", "0"]).run();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let finished = run(&format!("http://u:hunter2@{closed}/hook?token=hunter2"));
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(found(&finished, "webhook").starts_with("problem"), "{finished:?}");
    assert!(!format!("{finished:?}").contains("hunter2"), "{finished:?}");
}

#[test]
fn artisans_command_starts_the_server() {
    let setup = Setup::new().arg("reverb:start");
    let server = setup.args(&["--hostname=ws.test", "--path=/ws", "--debug"]).start();
    Client::open(&server, &Handshake::to("/ws/app/app-key")).established().sync();
}
