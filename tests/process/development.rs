//! A server without an app: commands find it, and it keeps its credentials.

use crate::support::{APP_KEY, Client, Handshake, Server, Setup, eventually, free_port};

#[test]
fn commands_find_the_development_server_of_their_user() {
    let mut server = Setup::bare().env("REVERB_SERVER_PATH", "/ws").start();
    let port = server.address.port().to_string();
    let line = server.line_with(" publish ");
    let event = r#"news hello '{"message":"hi"}'"#;
    assert!(line.ends_with(&format!(" publish --port {port} {event}")), "{line}");
    let key = {
        let text = server.stdout();
        let key = text.lines().find_map(|line| line.strip_prefix("REVERB_APP_KEY="));
        key.expect("a key").to_owned()
    };
    let mut client = Client::open(&server, &Handshake::to(&format!("/ws/app/{key}"))).established();
    client.subscribe("news");
    let arguments = ["publish", "news", "hello", r#"{"message":"hi"}"#, "--port", &port];
    let finished = Setup::bare().args(&arguments).run();
    assert_eq!(
        (finished.code, finished.stdout.as_str(), finished.stderr.as_str()),
        (Some(0), "published hello to news (1 subscriber)\n", "")
    );
    client.expect(r#"{"event":"hello","data":"{\"message\":\"hi\"}","channel":"news"}"#);
    // It is not another app that is asked for, nor an attribute that does not exist.
    for (more, sentence) in [
        (["--app", "99"], "--app is 99, but"),
        (["--info", "user_count,foo"], "user_count, subscription_count, cache"),
    ] {
        let finished = Setup::bare().args(&arguments).args(&more).run();
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{finished:?}");
        assert!(finished.stderr.contains(sentence), "{finished:?}");
    }
    let channels = Setup::bare().args(&["channels", "--port", &port]).run();
    assert!(channels.stdout.contains("news"), "{channels:?}");
    // Another port is another server; what runs is named.
    let elsewhere = Setup::bare().args(&["channels", "--port", "1"]).run();
    assert_eq!(elsewhere.code, Some(2), "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("no app is configured here"), "{elsewhere:?}");
    assert!(elsewhere.stderr.contains(&port), "{elsewhere:?}");
    let files = || {
        let folder = std::fs::read_dir(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let names =
            folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
        let end = format!("-{port}");
        names
            .filter(|name| name.starts_with("ringverb-development-") && name.ends_with(&end))
            .count()
    };
    assert_eq!(files(), 1);
    drop(client);
    server.stop();
    assert_eq!(files(), 0, "nothing is left of it");
    let gone = Setup::bare().args(&arguments).run();
    assert_eq!(gone.code, Some(2), "{gone:?}");
}

#[test]
fn a_server_that_was_killed_is_not_found() {
    let server = Setup::bare().start();
    let port = server.address.port().to_string();
    let find = || Setup::bare().args(&["channels", "--port", &port]).run();
    assert_eq!(find().code, Some(0));
    server.kill();
    let finished = find();
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("no app is configured here"), "{finished:?}");
}

/// Without a directory of the session the file is in a folder of /tmp that only its owner can open.
#[test]
fn commands_find_the_server_without_a_directory_of_the_session() {
    let server = Setup::bare().without_runtime_directory().start();
    let port = server.address.port().to_string();
    let find = Setup::bare().without_runtime_directory().args(&["channels", "--port", &port]);
    let finished = find.run();
    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (Some(0), "no channel is occupied\n"),
        "{finished:?}"
    );
    server.stop();
}

/// A configured app's secret is in no file but the operator's own.
#[test]
fn a_server_with_an_app_leaves_no_file() {
    let server = Server::start();
    let end = format!("-{}", server.address.port());
    let names = std::fs::read_dir(env!("CARGO_TARGET_TMPDIR"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let left: Vec<String> = names
        .filter(|name| name.starts_with("ringverb-development-") && name.ends_with(&end))
        .collect();
    assert_eq!(left, [""; 0]);
}

/// The clients of a development server keep working with the process that replaces it.
#[test]
fn a_development_server_keeps_its_credentials_over_a_take_over() {
    let mut old = Setup::bare().start();
    old.line_with("Press Ctrl+C to stop");
    let key = {
        let text = old.stdout();
        text.lines()
            .find_map(|line| line.strip_prefix("REVERB_APP_KEY="))
            .expect("a key")
            .to_owned()
    };
    let mut client = Client::open(&old, &Handshake::to(&format!("/app/{key}"))).established();
    client.subscribe("news");
    let setup = Setup::bare().reaching(&old).args(&["start", "--takeover"]);
    let mut new = setup.start_as_configured();
    new.line_with("Press Ctrl+C to stop");
    assert!(new.stdout().contains(&format!("REVERB_APP_KEY={key}\n")), "{}", new.stdout());
    assert_eq!(old.finish().code, Some(0));
    let port = new.address.port().to_string();
    let published = eventually("the new process is found", || {
        let run = Setup::bare().args(&["publish", "news", "e", "1", "--port", &port]).run();
        (run.code == Some(0)).then_some(run.stdout)
    });
    assert_eq!(published, "published e to news (1 subscriber)\n");
    client.expect(r#"{"event":"e","data":"1","channel":"news"}"#);
    assert_ne!(key, APP_KEY);
    new.stop();
}

/// SIGUSR2 replaces the program in the same process, and the server that comes is the same development server.
#[test]
fn a_development_server_keeps_its_credentials_over_sigusr2() {
    let port = free_port().to_string();
    let setup =
        Setup::bare().env("REVERB_SERVER_HOST", "127.0.0.1").env("REVERB_SERVER_PORT", &port);
    let mut server = setup.start_as_configured();
    server.line_with("Press Ctrl+C to stop");
    let key = |text: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix("REVERB_APP_KEY="));
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    server.signal(rustix::process::Signal::USR2);
    server.line_with("  address  ");
    server.line_with("Press Ctrl+C to stop");
    let keys = key(server.stdout());
    assert!(matches!(&keys[..], [first, second] if first == second), "{keys:?}");
    let published = eventually("the new program is found", || {
        let run = Setup::bare().args(&["publish", "news", "e", "1", "--port", &port]).run();
        (run.code == Some(0)).then_some(run.stdout)
    });
    assert_eq!(published, "published e to news (0 subscribers)\n");
    server.stop();
}
