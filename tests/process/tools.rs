//! The commands that speak to a running server: publish, channels, users, listen, health. Results are on standard
//! output, notes and errors on standard error; 0 is done, 1 refused or not reachable, 2 a wrong command line or
//! configuration.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::support::{APP_ID, APP_KEY, Content, Finished, Server, Setup, json, make_program};
use rustix::process::Signal;

fn run(server: &Server, arguments: &[&str]) -> Finished {
    Setup::client_of(server).args(arguments).run()
}

/// Standard output of a command that succeeds and has nothing to add.
#[track_caller]
fn result(server: &Server, arguments: &[&str]) -> String {
    let Finished { code, stdout, stderr } = run(server, arguments);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}: {stdout}");
    stdout
}

#[track_caller]
fn refused(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(code), ""), "{finished:?}");
    for part in parts {
        assert!(finished.stderr.contains(part), "{part}\nnot in {finished:?}");
    }
}

fn listen(server: &Server, arguments: &[&str]) -> Server {
    let last = arguments.iter().take_while(|argument| !argument.starts_with("--")).last();
    Setup::client_of(server)
        .arg("listen")
        .args(arguments)
        .launch(&format!("listening to {}", last.expect("a channel")))
}

#[test]
fn published_events_are_received() {
    let server = Server::start();
    for (channel, people) in [
        ("news", "1 subscriber"),
        ("private-orders.1", "1 subscriber"),
        ("presence-room", "1 user"),
        ("cache-prices", "1 subscriber"),
    ] {
        let listener = listen(&server, &[channel, "--json", "--count", "1"]);
        let printed = result(&server, &["publish", channel, "order.shipped", r#"{"id":1.0}"#]);
        assert_eq!(printed, format!("published order.shipped to {channel} ({people})\n"));
        let Finished { code, stdout, .. } = listener.finish();
        assert_eq!(code, Some(0), "{stdout}");
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        let event = json(&stdout);
        assert_eq!(
            (&event["event"], &event["channel"]),
            (&"order.shipped".into(), &channel.into())
        );
        assert_eq!(event["data"], r#"{"id":1.0}"#);
    }
}

#[test]
fn health_is_0_while_up_answers_200_and_1_otherwise_for_any_app() {
    let setup = Setup::new().env("REVERB_SERVER_PATH", "/ws");
    let mut server = setup.env("RINGVERB_SHUTDOWN_DELAY", "60").start();
    let port = server.address.port().to_string();
    let health =
        |setup: Setup, path| setup.args(&["health", "--port", &port, "--path", path]).run();
    // Without a configured app it looks for no credentials of a development server.
    for setup in [Setup::new(), Setup::bare()] {
        let Finished { code, stdout, stderr } = health(setup, "/ws");
        let expected = format!("http://127.0.0.1:{port}/ws is up\n");
        assert_eq!((code, stdout, stderr.as_str()), (Some(0), expected, ""));
    }
    refused(&health(Setup::new(), ""), 1, &["/up answers 404"]);
    let client = server.connect();
    server.signal(Signal::TERM);
    server.line_with("/up answers 503");
    refused(&health(Setup::new(), "/ws"), 1, &["/ws/up answers 503"]);
    drop((client, server));
    // The kernel may still be closing its listeners.
    refused(&health(Setup::new(), "/ws"), 1, &["127.0.0.1:"]);
    refused(&Setup::new().args(&["health", "--port", "0"]).run(), 2, &["--port"]);
}

#[test]
fn health_warns_of_a_mistake_that_does_not_concern_the_connection_and_asks_the_server() {
    let server = Server::start();
    let address = format!("REVERB_SERVER_PORT={}\n", server.address.port());
    let health = |name: &str, text: &str| {
        let text = if name == ".env" { format!("{address}{text}") } else { text.to_owned() };
        let setup = Setup::bare().file(name, &text);
        let setup = if name == ".env" { setup } else { setup.file(".env", &address) };
        setup.args(&["health"]).run()
    };
    for (name, text, part) in [
        (".env", "APP_NAME=My App\n", "line 2 (APP_NAME) is malformed"),
        (".env", "REVERB_APP_ID=1\n", "REVERB_APP_KEY"),
        (".env", "RINGVERB_WORKERS=many\n", "RINGVERB_WORKERS is \"many\""),
        ("ringverb.toml", "[server\n", "ringverb.toml: "),
        ("ringverb.toml", "[server]\nworkers = 100000\n", "workers"),
    ] {
        let finished = health(name, text);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.stdout.ends_with(" is up\n"), "{finished:?}");
        assert!(finished.stderr.contains("warning: "), "{finished:?}");
        assert!(finished.stderr.contains(part), "{part}\nnot in {finished:?}");
        assert!(finished.stderr.contains("does not start with this configuration"), "{finished:?}");
    }
    for (text, part) in [
        ("REVERB_SERVER_PATH=/a b\n", "line 2 (REVERB_SERVER_PATH) is malformed"),
        ("REVERB_SERVER_HOST=nowhere.invalid\n", "REVERB_SERVER_HOST"),
        ("RINGVERB_TLS_CERT=/a.pem\n", "RINGVERB_TLS_KEY"),
    ] {
        refused(&health(".env", text), 2, &[part, "Nothing was sent"]);
    }
    let url = format!("http://{}", server.address);
    let setup = Setup::bare().file(".env", "REVERB_SERVER_PORT=x\n");
    assert_eq!(setup.args(&["health", "--url", &url]).run().code, Some(0));
}

#[test]
fn access_that_is_taken_back_is_not_claimed_to_have_been_there() {
    let server = Server::start();
    for arguments in
        [&["disconnect", "--user", "7"][..], &["unsubscribe", "news", "--socket-id", "1.2"]]
    {
        let printed = result(&server, arguments);
        assert!(printed.contains("if there are any: the server has accepted"), "{printed}");
    }
}

#[test]
fn a_person_reads_lines() {
    let server = Server::start();
    let listener = listen(&server, &["news", "private-a", "--count", "3"]);
    result(&server, &["publish", "news", "a", r#"{"id":[1]}"#]);
    result(&server, &["publish", "news", "b", "a\u{1b}[2J", "--text"]);
    result(&server, &["publish", "private-a", "c", "-1"]);
    let Finished { code, stdout, .. } = listener.finish();
    assert_eq!(code, Some(0));
    // Behind the time of day.
    let text: Vec<&str> =
        stdout.lines().map(|line| line.split_once("Z ").map_or(line, |it| it.1)).collect();
    let expected = [
        "news a",
        "  {",
        "      \"id\": [",
        "          1",
        "      ]",
        "  }",
        "news b",
        "  \"a\\u001b[2J\"",
        "private-a c",
        "  -1",
    ];
    assert_eq!(text, expected, "{stdout}");
}

#[test]
fn a_connection_is_left_out() {
    let server = Server::start();
    let mut client = server.connect();
    client.subscribe("news");
    let printed = result(&server, &["publish", "news", "a", "1", "--socket-id", &client.socket_id]);
    assert_eq!(printed, "published a to news (1 subscriber)\n");
    client.sync();
    result(&server, &["publish", "news", "b", "\"x\""]);
    client.expect(r#"{"event":"b","data":"\"x\"","channel":"news"}"#);
}

#[test]
fn attributes_of_the_channel_are_printed() {
    let server = Server::start();
    let mut client = server.connect();
    client.subscribe("cache-a");
    result(&server, &["publish", "cache-a", "a", "1"]);
    let printed =
        result(&server, &["publish", "cache-a", "b", "2", "--info", "cache,subscription_count"]);
    let (first, second) = printed.split_once('\n').expect("two lines");
    assert_eq!(first, "published b to cache-a (1 subscriber)");
    let attributes = json(second);
    assert_eq!(attributes["subscription_count"], 1);
    assert!(attributes["cache"].is_object() || attributes["cache"].is_null(), "{second}");
}

#[test]
fn a_missing_server_is_an_error() {
    let server = Server::start();
    let Finished { code, stdout, stderr } = run(&server, &["publish", "orders.1", "a", "{}"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "published a to orders.1 (0 subscribers)\n"));
    assert!(stderr.contains("private-x") && stderr.contains("ringverb channels"), "{stderr}");
    let printed = run(&server, &["publish", "presence-a", "a", "{}"]).stdout;
    assert_eq!(printed, "published a to presence-a (0 users)\n");
}

#[test]
fn channels_and_users_are_listed() {
    let server = Server::start();
    assert_eq!(result(&server, &["channels"]), "no channel is occupied\n");
    assert_eq!(result(&server, &["users", "presence-room"]), "nobody is in presence-room\n");
    let _listener = listen(&server, &["news", "presence-room", "--user", "7"]);
    let mut client = server.connect();
    client.subscribe("news");
    client.join("presence-room", r#"{"user_id":"b=c, d\u001b"}"#);
    let expected = "CHANNEL        SUBSCRIBERS  USERS\n\
                    news                     2      -\n\
                    presence-room            -      2\n";
    assert_eq!(result(&server, &["channels"]), expected);
    let expected = "CHANNEL        SUBSCRIBERS  USERS\npresence-room            -      2\n";
    assert_eq!(result(&server, &["channels", "presence-"]), expected);
    let none = "no channel that starts with private- is occupied\n";
    assert_eq!(result(&server, &["channels", "private-"]), none);
    let mut users: Vec<String> =
        result(&server, &["users", "presence-room"]).lines().map(str::to_owned).collect();
    users.sort();
    assert_eq!(users, ["7", "b=c, d\\u001b"]);
    refused(
        &run(&server, &["users", "news"]),
        2,
        &["news is not a presence channel", "channels news"],
    );
}

#[test]
fn a_listener_is_a_member_and_prints_joins() {
    let server = Server::start();
    let mut client = server.connect();
    client.join("presence-room", r#"{"user_id":"1"}"#);
    let mut listener = listen(&server, &["presence-room"]);
    let added = crate::support::data(&client.event());
    let expected = r#"{"user_id":"ringverb-listen","user_info":{"name":"ringverb listen"}}"#;
    assert_eq!(added, json(expected));
    let mut other = server.connect();
    other.join("presence-room", r#"{"user_id":"2"}"#);
    let line = listener.error_line_with("member_added");
    assert!(
        line.contains(r#"presence-room pusher_internal:member_added {"user_id":"2"}"#),
        "{line}"
    );
    // A client's event tells its user.
    other.send(r#"{"event":"client-typing","channel":"presence-room","data":{"a":1}}"#);
    let line = listener.line_with("client-typing");
    assert!(line.ends_with("presence-room client-typing from user 2"), "{line}");
    listener.signal(Signal::INT);
    assert_eq!(listener.finish().code, Some(0));
}

#[test]
fn a_user_is_signed_in() {
    let server = Server::start();
    let listener = listen(&server, &["#server-to-user-7", "--json", "--count", "1"]);
    let printed = result(&server, &["publish", "#server-to-user-7", "a", "1"]);
    assert_eq!(printed, "published a to #server-to-user-7 (1 subscriber)\n");
    let Finished { code, stdout, .. } = listener.finish();
    assert_eq!((code, &json(&stdout)["event"]), (Some(0), &"a".into()));
    let two = run(&server, &["listen", "#server-to-user-7", "#server-to-user-8"]);
    refused(&two, 2, &["signed in as one user", "7 and 8"]);
}

#[test]
fn a_listener_comes_back() {
    let server = Server::start();
    let mut listener = listen(&server, &["private-a"]);
    let port = server.address.port().to_string();
    server.stop();
    listener.error_line_with("4100 Server is shutting down; reconnecting");
    listener.error_line_with(&format!("connection refused at 127.0.0.1:{port}"));
    let setup = Setup::new().args(&["--host", "127.0.0.1", "--port", &port]);
    let server = setup.start_as_configured();
    listener.error_line_with("listening to private-a");
    result(&server, &["publish", "private-a", "again", "1"]);
    listener.line_with("private-a again");
    listener.signal(Signal::TERM);
    assert_eq!(listener.finish().code, Some(0));
}

#[test]
fn a_quiet_server_is_asked_whether_it_is_there() {
    let server = Setup::new().env("REVERB_APP_ACTIVITY_TIMEOUT", "1").arg("--debug").start();
    let mut listener = listen(&server, &["news"]);
    let mut server = server;
    server.line_with("pusher:ping");
    server.line_with("pusher:ping");
    result(&server, &["publish", "news", "a", "1"]);
    listener.line_with("news a");
}

#[test]
fn a_wrong_secret_is_an_error() {
    let server = Server::start();
    let with = |arguments: &[&str]| {
        Setup::bare()
            .env("REVERB_APP_ID", APP_ID)
            .env("REVERB_APP_KEY", APP_KEY)
            .env("REVERB_APP_SECRET", "another")
            .reaching(&server)
            .args(arguments)
            .run()
    };
    for arguments in [&["publish", "a", "b", "1"][..], &["channels"], &["users", "presence-a"]] {
        let parts = ["401: Authentication signature invalid.", "REVERB_APP_SECRET"];
        refused(&with(arguments), 1, &parts);
    }
    let parts = ["refused the subscription to private-a", "4009", "REVERB_APP_SECRET"];
    refused(&with(&["listen", "private-a"]), 1, &parts);
    let other_key = Setup::client_of(&server).env("REVERB_APP_KEY", "nobody");
    refused(&other_key.args(&["listen", "a"]).run(), 1, &["4001", "no app has the key nobody"]);
    let other_id = Setup::client_of(&server).env("REVERB_APP_ID", "5");
    let parts = ["404: No matching application for ID [5].", "--app"];
    refused(&other_id.args(&["channels"]).run(), 1, &parts);
}

#[test]
fn refusals_of_the_server_are_readable() {
    let server = Server::start();
    let large = format!("\"{}\"", "x".repeat(20_000));
    refused(
        &run(&server, &["publish", "a", "b", &large]),
        1,
        &["413: Payload too large.", "REVERB_MAX_REQUEST_SIZE"],
    );
    refused(
        &run(&server, &["publish", "a", "b", "", "--text"]),
        1,
        &["422: The data field is required."],
    );
    refused(&run(&server, &["publish", "a", "pusher:x", "1"]), 1, &["400: ", "reserved"]);
}

#[test]
fn commands_report_a_server_that_does_not_listen() {
    let port = {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        taken.local_addr().expect("an address").port().to_string()
    };
    for arguments in [&["publish", "a", "b", "1"][..], &["channels"], &["listen", "a"]] {
        let finished = Setup::new().args(arguments).args(&["--port", &port]).run();
        let part = format!("connection refused at 127.0.0.1:{port}: is ringverb running?");
        refused(&finished, 1, &[&part]);
    }
}

/// Answers one connection with these bytes.
fn stranger(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(answer);
    });
    format!("http://{address}/prefix")
}

#[test]
fn a_stranger_is_no_reason_to_fall_over() {
    let cases: [(&[u8], &str); 7] = [
        (b"", "without an answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "<html>"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "within its answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", "makes no sense"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "in chunks"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n\x1b[2Jno", "502: \\u001b[2Jno"),
    ];
    for (answer, part) in cases {
        refused(&Setup::new().args(&["channels", "--url", &stranger(answer)]).run(), 1, &[part]);
    }
    let health = |url: &str| Setup::new().args(&["health", "--url", url]).run();
    let page = stranger(b"HTTP/1.0 404 Not Found\r\n\r\n<html>\n  <body>");
    refused(&health(&page), 1, &["answers 404: <html> <body>: does ringverb listen there?"]);
    let page = stranger(b"HTTP/1.0 200 OK\r\n\r\nIt works!");
    refused(&health(&page), 1, &["answers 200, but not as ringverb does: It works!: which"]);
    let cases: [(&[u8], &str); 4] = [
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
            "answers 404 instead of opening",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "not that of a WebSocket"),
        (b"\x16\x03\x01\x00", "is not HTTP"),
        (b"", "without an answer"),
    ];
    for (answer, part) in cases {
        refused(&Setup::new().args(&["listen", "a", "--url", &stranger(answer)]).run(), 1, &[part]);
    }
}

#[test]
fn without_an_app_there_is_nothing_to_sign_with() {
    for arguments in [&["publish", "a", "b", "1"][..], &["channels"], &["listen", "a"]] {
        let parts = ["no app is configured", "REVERB_APP_SECRET", "--env-file"];
        refused(&Setup::bare().args(arguments).args(&["--port", "1"]).run(), 2, &parts);
    }
    let wrong = Setup::new().env("REVERB_SERVER_PORT", "x").args(&["channels"]).run();
    refused(&wrong, 2, &["REVERB_SERVER_PORT is \"x\"", "Nothing was sent"]);
}

#[test]
fn a_command_that_may_not_enter_a_folder_has_a_remedy_of_its_own() {
    use std::os::unix::fs::PermissionsExt;
    const USER: u32 = 61_237;
    assert!(rustix::process::geteuid().is_root(), "this test acts as another user: run it as root");
    let folder = std::env::temp_dir().join(format!("ringverb-tools-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a new folder");
    let program = folder.join("ringverb");
    make_program(&program, Content::Copy(env!("CARGO_BIN_EXE_ringverb")));
    let locked = folder.join("locked");
    std::fs::create_dir(&locked).expect("a new folder");
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    let file = locked.join(".env").display().to_string();
    let run = |command: &[&str]| {
        let setup = Setup::new().program(&program).user(USER).without_runtime_directory();
        setup.args(command).args(&["--env-file", &file]).run()
    };
    let finished = ["channels", "start"].map(|command| run(&[command]));
    std::fs::remove_dir_all(&folder).expect("the folder of the test");
    let [command, start] = finished;
    let parts = ["this command runs as user 61237", "in another folder", "--env-file and --config"];
    refused(&command, 2, &parts);
    assert!(!command.stderr.contains("chmod"), "{command:?}");
    refused(&start, 2, &["the server runs as user 61237", "chmod o+x"]);
}

#[test]
fn a_wrong_command_line_is_an_error() {
    let setup = || Setup::new().args(&["--port", "1"]);
    let run = |arguments: &[&str]| setup().args(arguments).run();
    let parts = ["\"{id:1}\" is not JSON", "'{\"name\":\"value\"}'", "--text"];
    refused(&run(&["publish", "news", "a", "{id:1}"]), 2, &parts);
    refused(&run(&["publish", "news", "a", "1", "--socket-id", "x"]), 2, &["Echo.socketId()"]);
    refused(&run(&["publish", "news"]), 2, &["<EVENT>"]);
    refused(&run(&["listen"]), 2, &["<CHANNEL>"]);
    refused(&run(&["listen", "a", "--count", "0"]), 2, &["--count"]);
    refused(&run(&["channels", "--url", "https://h"]), 2, &["TLS is the proxy's"]);
    refused(&run(&["channels", "--url", "h:80"]), 2, &["http://127.0.0.1:8080/prefix"]);
    refused(&Setup::new().args(&["--print-events", "xml"]).run(), 2, &["json"]);
    for command in ["publish", "channels", "users", "listen"] {
        let Finished { code, stdout, .. } = Setup::bare().args(&[command, "--help"]).run();
        assert_eq!(code, Some(0));
        assert!(stdout.contains("Examples:") && stdout.contains("--app"), "{stdout}");
    }
}

#[test]
fn an_app_is_chosen() {
    let app =
        |id| format!("[[apps]]\nid = \"{id}\"\nkey = \"key-{id}\"\nsecret = \"secret-{id}\"\n");
    let toml = format!("[server]\npath = \"/ws\"\n{}{}", app(1), app(2));
    let server = Setup::bare().file("ringverb.toml", &toml).start();
    let setup = || Setup::bare().file("ringverb.toml", &toml).reaching(&server);
    let listener = setup().args(&["listen", "private-a", "--app", "2"]).launch("listening to");
    let publish = ["publish", "private-a", "e", "1"];
    let first = setup().args(&publish).run();
    assert!(first.stdout.contains("(0 subscribers)"), "{first:?}");
    assert!(first.stderr.contains("app 1 of 1, 2; --app chooses another"), "{first:?}");
    let second = setup().args(&publish).args(&["--app", "2"]).run();
    assert_eq!((second.stdout.contains("(1 subscriber)"), second.stderr.as_str()), (true, ""));
    refused(&setup().args(&["channels", "--app", "3"]).run(), 2, &["no app has the id 3", "1, 2"]);
    drop(listener);
}

#[test]
fn the_server_itself_is_spoken_to() {
    let server = Setup::new().env("REVERB_SERVER_PATH", "/ws").start();
    let https =
        || Setup::client_of(&server).env("REVERB_SCHEME", "https").env("REVERB_PORT", "443");
    let printed = https().env("REVERB_SERVER_PATH", "/ws").args(&["channels"]).run();
    assert_eq!((printed.code, printed.stdout.as_str()), (Some(0), "no channel is occupied\n"));
    let url = format!("http://{}/ws", server.address);
    assert!(printed.stderr.contains(&format!("the server itself, at {url}")), "{printed:?}");
    let printed = https().args(&["channels", "--url", &url]).run();
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    // Another path than the server's.
    let elsewhere = Setup::client_of(&server).env("REVERB_SERVER_PATH", "/elsewhere");
    refused(&elsewhere.args(&["channels"]).run(), 1, &["404: Not found.", "--path"]);
}

#[test]
fn an_origin_rule_keeps_no_listener_out() {
    let server = Setup::new().env("RINGVERB_ALLOWED_ORIGINS", "*.example.com").start();
    let setup = Setup::client_of(&server).env("RINGVERB_ALLOWED_ORIGINS", "*.example.com");
    let listener = setup.args(&["listen", "a"]).launch("listening to a");
    drop(listener);
}

#[test]
fn events_are_printed_for_a_test_suite() {
    let mut server = Setup::new().start_printing_events();
    run(&server, &["publish", "news", "a", "1"]);
    let event = json(&server.line_with("\"event\":\"a\""));
    assert_eq!((&event["app_id"], &event["channel"]), (&APP_ID.into(), &"news".into()));
}
